"""``starry gallery``: searches, checks, imports, exports and deletes saved pictures. The last line printed is the result."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from starrynight.cli import seeing
from starrynight.cli.terminal import JSON, ProgressBar, app, help_page, plural
from starrynight.cli.usage import CommandGroup
from starrynight.errors import BadFile, BadRequest, StarryError
from starrynight.i18n import Text, t
from starrynight.progress import OnProgress
from starrynight.settings import settings
from starrynight.text import printed_json, without_bidi

if TYPE_CHECKING:
    from starrynight.gallery.exchange import ImportResult
    from starrynight.gallery.salvage import Salvaged
    from starrynight.gallery.schema import Row
    from starrynight.gallery.store import Gallery

gallery_app = CommandGroup(
    help=t(
        "What hangs in the gallery: search, verify, rebuild, import, export, trash.",
        "画廊里挂着的画：搜索、校验、重建、导入、导出、回收站。",
    ),
    invoke_without_command=True,
)
app.add_typer(gallery_app, name="gallery")

trash_app = CommandGroup(
    help=t(
        "The trash, which keeps pictures for 30 days; without a subcommand it lists them.",
        "丢弃的画保留 30 天；不带子命令时列出它们。",
    ),
    invoke_without_command=True,
)
gallery_app.add_typer(trash_app, name="trash")

FACETS = {
    "style": t("styles", "风格"),
    "model": t("models", "模型"),
    "precision": t("precision", "精度"),
    "verdict": t("verdicts", "判定"),
    "tool": t("painted with", "作画工具"),
}
FACET_VALUES = 8  # shown of each facet
FOUND = 20  # pictures that a search prints by default

TEXT = typer.Argument(
    "", help=t("Words or parts of words, in Chinese or English.", "词或词的一部分，中文英文皆可。")
)
STYLE = typer.Option(None, "--style", "-s", help=t("Only this style.", "只找这种风格。"))
MODEL = typer.Option(None, "--model", "-m", help=t("Only this model.", "只找这个模型。"))
PRECISION = typer.Option(None, help=t("Only this format.", "只找这种精度。"))
TAG = typer.Option(None, help=t("Only pictures with this tag.", "只找带这个标签的。"))
COLLECTION = typer.Option(None, help=t("Only this collection.", "只找这个画集。"))
STARRED = typer.Option(False, "--starred", help=t("Only starred pictures.", "只找加星的。"))
IDS = typer.Argument(
    help=t("Picture ids, or at least their first 4 characters.", "图片 id，或其开头（至少 4 个字符）。")
)
EMPTY_TRASH = t("The trash is empty.", "回收站是空的。")


@gallery_app.callback()
def gallery(context: typer.Context) -> None:
    """Without a subcommand: how many pictures there are, where they are, and of which kinds."""
    if context.invoked_subcommand is not None:
        return
    from starrynight.gallery.search import Query

    with _open() as store:
        count, trashed, root = store.count(), store.count(Query(trashed=True)), store.files.root
        facets = store.facets()
    more = t(f"; {trashed} in the trash", f"；回收站里有 {trashed} 幅") if trashed else ""
    hang = "picture hangs" if count == 1 else "pictures hang"
    print(t(f"✦ {count} {hang} in {root}", f"✦ {root} 挂着 {count} 幅画") + more)
    for name, values in facets.items():
        if values:
            shown = [f"{value} {n}" for value, n in list(values.items())[:FACET_VALUES]]
            print(f"  {FACETS[name]}{t(': ', '：')}{' · '.join(shown)}")
    old = settings().pictures  # where versions before the gallery saved pictures
    if not count and old.is_dir() and any(old.iterdir()):
        print(t(f"  Earlier pictures are in {old}; hang them with: starry gallery import",
                f"  以前的画在 {old}；用 starry gallery import 把它们挂上"))  # fmt: skip


@gallery_app.command(
    help=help_page(
        ("Find pictures, newest first.", "查找图片，最近挂上的在前。"),
        "starry gallery search 星夜",
        'starry gallery search "quiet village" --style ink --starred',
        "starry gallery search --like 6ded50f2 --json",
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
    like: str | None = typer.Option(
        None, help=t("Find pictures similar to this one (its id).", "找与这幅画（给出 id）相像的。")
    ),
    colour: str | None = typer.Option(
        None, help=t("Find pictures of this colour, for example #1f3b73.", "找这种颜色的画，例如 #1f3b73。")
    ),
    limit: int = typer.Option(
        FOUND, "-n", "--limit", help=t("How many to show.", "最多显示几幅。"), min=1, max=500
    ),
    as_json: bool = JSON,
) -> None:
    from starrynight.gallery.search import Query
    from starrynight.painting.styles import key_of

    with _open() as store:
        query = Query(
            text=text, style=key_of(style), model=model, precision=precision, tag=tag, collection=collection,
            starred=starred or None, like=store.get(like).id if like else None, colour=colour,
        )  # fmt: skip
        rows = store.search(query, limit=limit).rows
        if as_json:
            found = [asdict(row) | {"path": store.path(row)} for row in rows]
            print(printed_json(found))
            return
        more = store.count(query) - len(rows)
        like_rows = seeing.looks_like(store, query, rows) if like is None and colour is None else []
    _print_rows(rows)
    if not rows:
        print(t("No picture matches.", "没有找到这样的画。"))
    if more > 0:
        print(t(f"… and {more} more; -n raises the limit", f"……还有 {more} 幅，可用 -n 显示"))
    if like_rows:
        print(t("Looks like:", "看起来像："))
        _print_rows(like_rows)


@gallery_app.command(
    help=help_page(
        ("Check that every picture is intact and in the index. Reads every file; changes nothing.",
         "证明每一幅画都完好、都找得到。会读遍所有文件，不作任何改动。"),
        "starry gallery verify",
    )
)  # fmt: skip
def verify() -> None:
    with _open() as store, ProgressBar(t("reading", "正在读取")) as bar:
        report = store.verify(_count_only(bar))
    for names, en, zh in (
        (report.missing, "its file is missing", "文件缺失"),
        (report.corrupt, "changed since it was saved", "挂上之后被改动过"),
        (report.orphans, "a picture that is not in the database; `starry gallery rebuild` adds it", "数据库里没有的图片；`starry gallery rebuild` 会补上"),
        (report.unknown, "not a file of the gallery (harmless)", "不是画廊的文件（无害）"),
    ):  # fmt: skip
        for name in names:
            print(f"  {name}: {t(en, zh)}")
    if not report.index_ok:
        print(t("  The search index is damaged; `starry gallery rebuild` rebuilds it.",
                "  搜索索引已损坏；`starry gallery rebuild` 会重建。"))  # fmt: skip
    if not report.ok:
        raise BadFile(
            f"{plural(report.pictures, 'picture')}: {len(report.missing)} missing, {len(report.corrupt)} changed, "
            f"{len(report.orphans)} not in the database. `starry gallery rebuild` repairs what it can.",
            f"{report.pictures} 幅画：缺失 {len(report.missing)}，被改动 {len(report.corrupt)}，"
            f"数据库里没有 {len(report.orphans)}。`starry gallery rebuild` 会修复能修复的。",
        )
    print(t(f"✦ {plural(report.pictures, 'picture')}, all intact", f"✦ {report.pictures} 幅画，全部完好"))


@gallery_app.command(
    help=help_page(
        ("Rebuild the database from the picture files. A broken database is renamed and kept, never deleted.",
         "根据图片文件重建数据库；损坏的数据库会改名留存，绝不删除。"),
        "starry gallery rebuild",
    )
)  # fmt: skip
def rebuild() -> None:
    from starrynight.gallery.store import Gallery

    with ProgressBar(t("reading", "正在读取")) as bar:
        rebuilt = Gallery.repair(on_progress=_count_only(bar))
    _print_refused(rebuilt.refused)
    print(t(f"✦ {plural(rebuilt.updated, 'picture')} read again, {rebuilt.adopted} added, {len(rebuilt.refused)} refused",
            f"✦ 重新读取 {rebuilt.updated} 幅，补上 {rebuilt.adopted} 幅，拒绝 {len(rebuilt.refused)} 幅"))  # fmt: skip
    if rebuilt.salvaged:
        _print_salvaged(rebuilt.salvaged)
    if rebuilt.refused:
        raise typer.Exit(BadFile.exit_code)


@gallery_app.command(
    "import",
    help=help_page(
        ("Hang a folder's pictures, ours and other tools'. Run again after an interruption, it continues.",
         "把文件夹里的画挂上：我们的和其他工具的。中断后再运行会接着来。"),
        ("starry gallery import", "the pictures in STARRY_HOME/pictures, from before the gallery", "STARRY_HOME/pictures 里以前的画"),
        "starry gallery import ~/stable-diffusion/outputs",
        ("starry gallery import ~/photos --bare", "also pictures without a recipe", "没有配方的也要"),
    ),
)  # fmt: skip
def import_(
    folder: Path | None = typer.Argument(
        None,
        help=t(
            "A folder, or one picture. Default: STARRY_HOME/pictures.",
            "文件夹或一张图；默认 STARRY_HOME/pictures。",
        ),
    ),
    bare: bool = typer.Option(
        False, "--bare", help=t("Also import pictures without a recipe.", "没有配方的也收。")
    ),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help=t("Name every file that is passed over.", "列出每个略过的文件。")
    ),
    as_json: bool = JSON,
) -> None:
    with _open() as store, ProgressBar(t("hanging", "正在挂画")) as bar:
        imported = store.import_pictures(folder or settings().pictures, bare, _count_only(bar))
    if as_json:
        print(printed_json(_import_report(imported)))
    else:
        _print_import(imported, verbose)
    if imported.refused and not imported.added and not imported.already_present:
        raise typer.Exit(BadFile.exit_code)


@gallery_app.command(
    help=help_page(
        ("Write the pictures that a search finds to a zip, with their recipes and an HTML page that shows them.",
         "把搜索到的画打包成 zip：图片、配方，以及一页可以打开看的画墙。"),
        "starry gallery export -o everything.zip",
        "starry gallery export 星夜 --style ink -o ink.zip",
    )
)  # fmt: skip
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
    from starrynight.painting.styles import key_of

    query = Query(
        text=text, style=key_of(style), model=model, precision=precision, tag=tag, collection=collection, starred=starred or None
    )  # fmt: skip
    with _open() as store:
        if not store.count(query):
            raise BadRequest(
                "No picture matches, so no zip was written; `starry gallery` shows what there is.",
                "没有找到这样的画，因此没有写 zip；可用 `starry gallery` 看看有什么。",
            )
        with ProgressBar(t("packing", "正在打包")) as bar:
            exported = store.export(query, out, _count_only(bar), settings().lang)
    for name in exported.unreadable:
        print(f"  {name}: {t('its file cannot be read', '文件无法读取')}")
    print(t(f"✦ {plural(exported.pictures, 'picture')} → {out}", f"✦ {exported.pictures} 幅画 → {out}"))
    if exported.unreadable:
        raise typer.Exit(BadFile.exit_code)


@trash_app.callback()
def trash(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from starrynight.gallery.search import Query

    with _open() as store:
        rows = list(store.iter_rows(Query(trashed=True)))
    _print_rows(rows)
    if not rows:
        print(EMPTY_TRASH)


@trash_app.command(
    help=help_page(
        ("Move pictures to the trash; within 30 days `starry gallery trash restore` brings them back.",
         "丢弃图片；30 天内可用 `starry gallery trash restore` 恢复。"),
        "starry gallery trash throw 6ded50f2",
    )
)  # fmt: skip
def throw(ids: list[str] = IDS) -> None:
    with _open() as store:
        store.trash.discard(_whole_ids(store, ids))
    print(t(f"✦ {len(ids)} moved to the trash", f"✦ 已丢弃 {len(ids)} 幅"))


@trash_app.command(
    help=help_page(
        ("Bring pictures back from the trash, with their stars and tags.", "从回收站恢复图片，星标、标签等一并恢复。"),
        "starry gallery trash restore 6ded50f2",
    )
)  # fmt: skip
def restore(ids: list[str] = IDS) -> None:
    with _open() as store:
        store.trash.restore(_whole_ids(store, ids))
    print(t(f"✦ {len(ids)} restored", f"✦ 已恢复 {len(ids)} 幅"))


@trash_app.command(
    help=help_page(
        ("Delete the pictures in the trash for good. This cannot be undone.", "永久删除丢弃的画。此操作无法撤销。"),
        ("starry gallery trash empty --days 30", "only those that have been there for 30 days", "只删已放满 30 天的"),
        ("starry gallery trash empty --yes", "all of them, without asking", "全部删除，不再询问"),
    )
)  # fmt: skip
def empty(
    days: float = typer.Option(
        0,
        help=t("Only pictures that have been in the trash for so many days.", "只删丢弃满这么多天的。"),
        min=0,
        max=36_500,
    ),
    yes: bool = typer.Option(False, "--yes", "-y", help=t("Do not ask.", "不再询问。")),
) -> None:
    from starrynight.gallery.search import Query

    with _open() as store:
        if not (count := store.count(Query(trashed=True))):
            print(EMPTY_TRASH)
            return
        if not yes and not _confirmed(count):
            raise BadRequest(
                "Nothing was deleted; add --yes to delete.", "没有删除任何图片；加上 --yes 即可删除。"
            )
        deleted = store.trash.empty(timedelta(days=days))
    print(t(f"✦ {deleted} deleted for good", f"✦ 永久删除 {deleted} 幅"))


def _confirmed(count: int) -> bool:
    """Ask at a terminal; in a pipe the answer is no."""
    return sys.stdin.isatty() and typer.confirm(
        t(f"Delete up to {plural(count, 'picture')} for good?", f"最多永久删除 {count} 幅画，确定吗？")
    )


def _open() -> Gallery:
    from starrynight.gallery.store import Gallery

    return Gallery()


def _whole_ids(store: Gallery, prefixes: list[str]) -> list[str]:
    """The full ids. Raises UnknownName for a prefix that matches none, before anything is changed."""
    return [store.get(prefix).id for prefix in prefixes]


def _count_only(bar: ProgressBar) -> OnProgress:
    """Show the count of files beside ``bar``, not their names."""
    return lambda done, total, _message: bar(done, total)


def _print_refused(refused: Iterable[tuple[str, StarryError]]) -> None:
    for name, error in refused:
        print(f"  {name}: {error.message(settings().lang)}")


def _print_salvaged(found: Salvaged) -> None:
    """What came out of the broken database, and what did not."""
    jobs, waiting = sum(found.jobs.values()), found.jobs.get("waiting", 0) + found.jobs.get("painting", 0)
    print(t(f"  The broken database is kept as {found.path}. From it came {plural(jobs, 'job')} ({waiting} to be painted) and "
            f"the annotations of {plural(found.annotated, 'picture')}.",
            f"  损坏的数据库留存为 {found.path}。从中取回了 {jobs} 个任务（{waiting} 个待画）和 {found.annotated} 幅画的标注。"))  # fmt: skip
    if found.lost_jobs:
        shown = ", ".join(found.lost_jobs[:LOST])
        more = f" … (+{len(found.lost_jobs) - LOST})" if len(found.lost_jobs) > LOST else ""
        print(t(f"  These jobs cannot be read and are gone; submit them again: {shown}{more}",
                f"  这些任务无法读取，已丢失；请重新提交：{shown}{more}"))  # fmt: skip
    elif not found.complete:
        print(t("  Parts of it cannot be read: jobs, stars, notes, tags and collections may be missing; see your backup.",
                "  其中有些部分无法读取：任务、星标、备注、标签和画集可能有缺；请查看备份。"))  # fmt: skip


LOST = 20  # ids shown
SHOWN = 3  # files named for each reason, without --verbose


def _print_import(imported: ImportResult, verbose: bool) -> None:
    """Each reason with the number of its files; then the result."""
    lang = settings().lang
    groups: dict[str, list[str]] = {}
    unread = [
        (name, t("hung without its recipe, which cannot be read", "已挂上，但配方无法读取"))
        for name, _ in imported.unread
    ]
    files = [(name, error.message(lang)) for name, error in imported.refused] + unread
    for name, why in [
        *files,
        *((name, why.to(lang)) for name, why in (*imported.converted, *imported.passed)),
    ]:
        groups.setdefault(why, []).append(name)
    for why, names in groups.items():
        shown = names if verbose else names[:SHOWN]
        more = f", … (+{len(names) - len(shown)})" if len(names) > len(shown) else ""
        print(f"  {len(names)} × {why}{t(': ', '：')}{', '.join(shown)}{more}")
    passed = len(imported.passed)
    over = t(f", {passed} passed over", f"，略过 {passed} 个") if passed else ""
    print(t(f"✦ {imported.added} hung, {imported.already_present} already in the gallery, {len(imported.refused)} refused",
            f"✦ 新挂 {imported.added} 幅，已在画廊 {imported.already_present} 幅，拒绝 {len(imported.refused)} 个") + over)  # fmt: skip


def _import_report(imported: ImportResult) -> dict[str, object]:
    def listed(files: Iterable[tuple[str, StarryError | Text]]) -> list[dict[str, str]]:
        return [{"file": name, "reason_en": why.en, "reason_zh": why.zh} for name, why in files]

    return {
        "added": imported.added,
        "already_present": imported.already_present,
        "refused": listed(imported.refused),
        "passed_over": listed(imported.passed),
        "recipe_unread": listed(imported.unread),
        "converted": listed(imported.converted),
    }


def _print_rows(rows: Sequence[Row]) -> None:
    """Print one line for each picture: id, time, then its description as plain text, never as rich's markup."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        when = f"  {row.made_at.astimezone():%Y-%m-%d %H:%M}  "
        console.print(Text.assemble((row.id[:8], "gold1"), when, without_bidi(_summary(row))))


def _summary(row: Row) -> str:
    facts = [row.prompt.replace("\n", " ")[:80] or row.tool, row.style, row.precision]
    star = "★ " if row.starred else ""
    tags = " ".join(f"#{tag}" for tag in row.tags)
    return star + " · ".join(fact for fact in (*facts, tags) if fact)
