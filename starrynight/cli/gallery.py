"""``starry gallery``: find, prove, mend, bring in, take out, throw away. Every command says what it did in one line."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli import LANG, app, progress_bar, t
from starrynight.errors import BadFile, BadRequest
from starrynight.settings import settings

if TYPE_CHECKING:
    from starrynight.gallery.rows import Row

SHOWN = 20  # pictures a search prints unless told otherwise

gallery_app = typer.Typer(
    help=t(
        "What hangs in the gallery: search, verify, rebuild, import, export, trash.",
        "画廊里挂着的画：搜索、校验、重建、导入、导出、回收站。",
    ),
    invoke_without_command=True,
)
trash_app = typer.Typer(
    help=t(
        "What was thrown away, kept for 30 days; alone it lists them.",
        "丢弃的画保留 30 天；不带子命令时列出它们。",
    ),
    invoke_without_command=True,
)
app.add_typer(gallery_app, name="gallery")
gallery_app.add_typer(trash_app, name="trash")


@gallery_app.callback()
def gallery(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from starrynight.gallery.search import Query
    from starrynight.gallery.store import Gallery

    with Gallery() as hung:
        count, trashed = hung.count(), hung.count(Query(trashed=True))
        print(
            t(f"✦ {count} pictures hang in {hung.files.root}", f"✦ {hung.files.root} 挂着 {count} 幅画"),
            end="",
        )
        print(t(f"; {trashed} in the trash", f"；回收站里有 {trashed} 幅") if trashed else "")
        for name, values in hung.facets().items():
            if values:
                print(
                    f"  {FACETS[name]}: "
                    + " · ".join(f"{value} {n}" for value, n in list(values.items())[:8])
                )
    if not count and (old := old_pictures()):
        print(t(f"  Pictures of before are in {old}; hang them with: starry gallery import",
                f"  以前的画在 {old}；用 starry gallery import 把它们挂上"))  # fmt: skip


FACETS = {
    "style": t("styles", "风格"),
    "model": t("models", "模型"),
    "precision": t("precision", "精度"),
    "verdict": t("verdicts", "判定"),
    "tool": t("painted with", "作画工具"),
}

TEXT = typer.Argument(
    "", help=t("Words or parts of words, in Chinese or English.", "词或词的一部分，中文英文皆可。")
)
STYLE = typer.Option(None, "--style", "-s", help=t("Only this style.", "只找这种风格。"))
MODEL = typer.Option(None, "--model", "-m", help=t("Only this model.", "只找这个模型。"))
PRECISION = typer.Option(None, help=t("Only this format.", "只找这种精度。"))
TAG = typer.Option(None, help=t("Only what has this tag.", "只找带这个标签的。"))
COLLECTION = typer.Option(None, help=t("Only this collection.", "只找这个画集。"))
STARRED = typer.Option(False, "--starred", help=t("Only what has a star.", "只找加星的。"))
LIKE = typer.Option(None, help=t("The id of a picture to be like.", "与这幅画（给出 id）相像的。"))
COLOUR = typer.Option(None, help=t("A colour, as #1f3b73.", "颜色，例如 #1f3b73。"))


@gallery_app.command(
    help=t(
        """Find pictures, the last hung first.

    [bold]Examples[/bold]

    starry gallery search 星夜

    starry gallery search "quiet village" --style ink --starred

    starry gallery search --like 6ded50f2 --json""",
        """查找图片，最近挂上的在前。

    [bold]例子[/bold]

    starry gallery search 星夜

    starry gallery search "quiet village" --style ink --starred

    starry gallery search --like 6ded50f2 --json""",
    )
)
def search(
    text: str = TEXT,
    style: str | None = STYLE,
    model: str | None = MODEL,
    precision: str | None = PRECISION,
    tag: str | None = TAG,
    collection: str | None = COLLECTION,
    starred: bool = STARRED,
    like: str | None = LIKE,
    colour: str | None = COLOUR,
    limit: int = typer.Option(
        SHOWN, "-n", "--limit", help=t("How many to show.", "最多显示几幅。"), min=1, max=500
    ),
    as_json: bool = typer.Option(False, "--json", help=t("For machines.", "供程序读取。")),
) -> None:
    from starrynight.gallery.search import Query
    from starrynight.gallery.store import Gallery

    with Gallery() as hung:
        query = Query(
            text=text, style=style, model=model, precision=precision, tag=tag, collection=collection,
            starred=starred or None, like=hung.get(like).id if like else None, colour=colour,
        )  # fmt: skip
        rows = hung.search(query, limit=limit).rows
        if as_json:
            found = [asdict(row) | {"path": hung.path(row)} for row in rows]
            print(json.dumps(found, ensure_ascii=False, indent=2, default=str))
            return
        listed(rows)
        count = hung.count(query)
    if count > len(rows):
        print(
            t(
                f"… and {count - len(rows)} more; -n shows them",
                f"……还有 {count - len(rows)} 幅，可用 -n 显示",
            )
        )


@gallery_app.command(
    help=t(
        """Prove that every picture is whole and can be found. Reads every file; changes nothing.

    [bold]Example[/bold]

    starry gallery verify""",
        """证明每一幅画都完好、都找得到。会读遍所有文件，不作任何改动。

    [bold]例子[/bold]

    starry gallery verify""",
    )
)
def verify() -> None:
    from starrynight.gallery.store import Gallery

    with Gallery() as hung, Bar(t("reading", "正在读取")) as bar:
        report = hung.verify(bar)
    for names, en, zh in (
        (report.missing, "its file is missing", "文件缺失"),
        (report.corrupt, "changed since it was hung", "挂上之后被改动过"),
        (report.orphans, "a picture without a row; `starry gallery rebuild` adopts it", "没有记录的图片；`starry gallery rebuild` 会收回"),
        (report.strangers, "not one of ours (harmless)", "不是画廊的文件（无害）"),
    ):  # fmt: skip
        for name in names:
            print(f"  {name}: {t(en, zh)}")
    if not report.index_sound:
        print(t("  The search index is not sound; `starry gallery rebuild` makes it anew.",
                "  搜索索引不完好；`starry gallery rebuild` 会重建。"))  # fmt: skip
    if not report.ok:
        raise BadFile(
            f"{report.pictures} pictures: {len(report.missing)} missing, {len(report.corrupt)} changed, "
            f"{len(report.orphans)} without a row. `starry gallery rebuild` mends what can be mended.",
            f"{report.pictures} 幅画：缺失 {len(report.missing)}，被改动 {len(report.corrupt)}，"
            f"没有记录 {len(report.orphans)}。`starry gallery rebuild` 会修复能修复的。",
        )
    print(t(f"✦ {report.pictures} pictures, all whole", f"✦ {report.pictures} 幅画，全部完好"))


@gallery_app.command(
    help=t(
        """Make the index again from the pictures themselves; a broken database is set aside, never deleted.

    [bold]Example[/bold]

    starry gallery rebuild""",
        """根据图片本身重建索引；损坏的数据库会改名留存，绝不删除。

    [bold]例子[/bold]

    starry gallery rebuild""",
    )
)
def rebuild() -> None:
    from starrynight.gallery.store import Gallery

    with Bar(t("reading", "正在读取")) as bar:
        rebuilt = Gallery.mend(on_picture=bar)
    for name, error in rebuilt.refused:
        print(f"  {name}: {error.say(LANG)}")
    print(t(f"✦ {rebuilt.kept} pictures read anew, {rebuilt.adopted} found again, {len(rebuilt.refused)} refused",
            f"✦ 重新读取 {rebuilt.kept} 幅，找回 {rebuilt.adopted} 幅，拒绝 {len(rebuilt.refused)} 幅"))  # fmt: skip
    if rebuilt.refused:
        raise typer.Exit(BadFile.exit_code)


@gallery_app.command(
    "import",
    help=t(
        """Hang the pictures of a folder: ours, A1111's, ComfyUI's, InvokeAI's. Stopped, it goes on where it was.

    [bold]Examples[/bold]

    starry gallery import                         the pictures of before, in STARRY_HOME/pictures

    starry gallery import ~/stable-diffusion/outputs

    starry gallery import ~/photos --bare         those without a recipe too""",
        """把文件夹里的画挂上：我们的、A1111 的、ComfyUI 的、InvokeAI 的。中断后再次运行即可继续。

    [bold]例子[/bold]

    starry gallery import                         STARRY_HOME/pictures 里以前的画

    starry gallery import ~/stable-diffusion/outputs

    starry gallery import ~/photos --bare         没有配方的也要""",
    ),
)
def import_(
    folder: Path | None = typer.Argument(
        None,
        help=t(
            "A folder, or one picture. Left out: STARRY_HOME/pictures.",
            "文件夹或一张图；默认 STARRY_HOME/pictures。",
        ),
    ),
    bare: bool = typer.Option(
        False, "--bare", help=t("Take pictures without a recipe too.", "没有配方的也收。")
    ),
) -> None:
    from starrynight.gallery.store import Gallery

    with Gallery() as hung, Bar(t("hanging", "正在挂画")) as bar:
        gathered = hung.gather(folder or settings().pictures, bare, bar.one)
    for name, error in gathered.refused:
        print(f"  {name}: {error.say(LANG)}")
    print(t(f"✦ {gathered.hung} hung, {gathered.already} hung already, {len(gathered.refused)} refused",
            f"✦ 新挂 {gathered.hung} 幅，已在墙上 {gathered.already} 幅，拒绝 {len(gathered.refused)} 个"))  # fmt: skip
    if gathered.refused and not gathered.hung and not gathered.already:
        raise typer.Exit(BadFile.exit_code)


@gallery_app.command(
    help=t(
        """Write what a search finds as a zip: pictures, their recipes, and a page to look at them.

    [bold]Examples[/bold]

    starry gallery export -o everything.zip

    starry gallery export 星夜 --style ink -o ink.zip""",
        """把搜索到的画打包成 zip：图片、配方，以及一页可以打开看的画墙。

    [bold]例子[/bold]

    starry gallery export -o everything.zip

    starry gallery export 星夜 --style ink -o ink.zip""",
    )
)
def export(
    text: str = TEXT,
    out: Path = typer.Option(..., "--out", "-o", help=t("The zip to write.", "要写的 zip 文件。")),
    style: str | None = STYLE,
    model: str | None = MODEL,
    precision: str | None = PRECISION,
    tag: str | None = TAG,
    collection: str | None = COLLECTION,
    starred: bool = STARRED,
) -> None:
    from starrynight.gallery.search import Query
    from starrynight.gallery.store import Gallery

    query = Query(
        text=text, style=style, model=model, precision=precision, tag=tag, collection=collection, starred=starred or None
    )  # fmt: skip
    with Gallery() as hung, Bar(t("packing", "正在打包"), hung.count(query)) as bar:
        exported = hung.export(query, out, bar.one, LANG)
    for name in exported.lost:
        print(f"  {name}: {t('its file cannot be read', '文件无法读取')}")
    print(t(f"✦ {exported.pictures} pictures → {out}", f"✦ {exported.pictures} 幅画 → {out}"))
    if exported.lost:
        raise typer.Exit(BadFile.exit_code)


@trash_app.callback()
def trash(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from starrynight.gallery.search import Query
    from starrynight.gallery.store import Gallery

    with Gallery() as hung:
        rows = list(hung.every(Query(trashed=True)))
    listed(rows)
    if not rows:
        print(t("The trash is empty.", "回收站是空的。"))


IDS = typer.Argument(
    help=t(
        "Ids of pictures, or how they begin (4 characters or more).", "图片 id，或其开头（至少 4 个字符）。"
    )
)


@trash_app.command(
    help=t(
        """Throw pictures away; `starry gallery trash restore` undoes it for 30 days.

    [bold]Example[/bold]

    starry gallery trash throw 6ded50f2""",
        """丢弃图片；30 天内可用 `starry gallery trash restore` 恢复。

    [bold]例子[/bold]

    starry gallery trash throw 6ded50f2""",
    )
)
def throw(ids: list[str] = IDS) -> None:
    from starrynight.gallery.store import Gallery

    with Gallery() as hung:
        hung.trash.throw([hung.get(one).id for one in ids])
    print(t(f"✦ {len(ids)} in the trash", f"✦ 已丢弃 {len(ids)} 幅"))


@trash_app.command(
    help=t(
        """Bring pictures back from the trash, stars, tags and all.

    [bold]Example[/bold]

    starry gallery trash restore 6ded50f2""",
        """从回收站恢复图片，星标、标签等一并恢复。

    [bold]例子[/bold]

    starry gallery trash restore 6ded50f2""",
    )
)
def restore(ids: list[str] = IDS) -> None:
    from starrynight.gallery.store import Gallery

    with Gallery() as hung:
        hung.trash.bring_back([hung.get(one).id for one in ids])
    print(t(f"✦ {len(ids)} hang again", f"✦ 已恢复 {len(ids)} 幅"))


@trash_app.command(
    help=t(
        """Part for good from what was thrown away. This cannot be undone.

    [bold]Examples[/bold]

    starry gallery trash empty --days 30    what has lain there so long

    starry gallery trash empty --yes        everything, without asking""",
        """永久删除丢弃的画。此操作无法撤销。

    [bold]例子[/bold]

    starry gallery trash empty --days 30    只删已放满 30 天的

    starry gallery trash empty --yes        全部删除，不再询问""",
    )
)
def empty(
    days: float = typer.Option(
        0, help=t("Only what was thrown away so many days ago.", "只删丢弃满这么多天的。"), min=0
    ),
    yes: bool = typer.Option(False, "--yes", "-y", help=t("Do not ask.", "不再询问。")),
) -> None:
    from starrynight.gallery.search import Query
    from starrynight.gallery.store import Gallery

    with Gallery() as hung:
        count = hung.count(Query(trashed=True))
        if count and not yes and not agreed(count):
            raise BadRequest(
                "Nothing was deleted; say --yes to delete.", "没有删除任何图片；加上 --yes 即可删除。"
            )
        gone = hung.trash.empty(timedelta(days=days))
    print(t(f"✦ {gone} gone for good", f"✦ 永久删除 {gone} 幅"))


def agreed(count: int) -> bool:
    """Asks at a terminal; in a pipe nobody can agree."""
    import sys

    if not sys.stdin.isatty():
        return False
    return typer.confirm(
        t(f"Part for good from up to {count} pictures?", f"最多永久删除 {count} 幅画，确定吗？")
    )


def listed(rows: Any) -> None:
    """A line for each: id, when, what; texts are text, whatever they hold."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        console.print(
            Text.assemble(
                (row.id[:8], "gold1"), f"  {row.made_at.astimezone():%Y-%m-%d %H:%M}  ", described(row)
            )
        )


def described(row: Row) -> str:
    facts = [row.prompt.replace("\n", " ")[:80] or row.tool, row.style, row.precision]
    star = "★ " if row.starred else ""
    tags = " ".join(f"#{tag}" for tag in row.tags)
    return star + " · ".join(fact for fact in (*facts, tags) if fact)


def old_pictures() -> Path | None:
    """The folder where pictures were put before there was a gallery, if any are there."""
    folder = settings().pictures
    return folder if folder.is_dir() and any(folder.iterdir()) else None


class Bar:
    """A bar on stderr. Called with (done, all), or, where nobody knows how many there are, ``one`` at a time."""

    def __init__(self, what: str, total: int | None = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        self.bar = progress_bar(TextColumn("[gold1]{task.description}"), BarColumn(), MofNCompleteColumn())
        self.task = self.bar.add_task(what, total=total)

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total)

    def one(self, _name: str) -> None:
        self.bar.advance(self.task)
