"""The group ``starry gallery``, what it says alone, and what its commands share: filters, lists, a bar.

Knows no command below it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli import app, plain, progress_bar, t
from starrynight.settings import settings

if TYPE_CHECKING:
    from starrynight.gallery.rows import Row

gallery_app = typer.Typer(
    help=t(
        "What hangs in the gallery: search, verify, rebuild, import, export, trash.",
        "画廊里挂着的画：搜索、校验、重建、导入、导出、回收站。",
    ),
    invoke_without_command=True,
)
app.add_typer(gallery_app, name="gallery")

FACETS = {
    "style": t("styles", "风格"),
    "model": t("models", "模型"),
    "precision": t("precision", "精度"),
    "verdict": t("verdicts", "判定"),
    "tool": t("painted with", "作画工具"),
}
FACETS_SHOWN = 8  # values of each

TEXT = typer.Argument(
    "", help=t("Words or parts of words, in Chinese or English.", "词或词的一部分，中文英文皆可。")
)
STYLE = typer.Option(None, "--style", "-s", help=t("Only this style.", "只找这种风格。"))
MODEL = typer.Option(None, "--model", "-m", help=t("Only this model.", "只找这个模型。"))
PRECISION = typer.Option(None, help=t("Only this format.", "只找这种精度。"))
TAG = typer.Option(None, help=t("Only what has this tag.", "只找带这个标签的。"))
COLLECTION = typer.Option(None, help=t("Only this collection.", "只找这个画集。"))
STARRED = typer.Option(False, "--starred", help=t("Only what has a star.", "只找加星的。"))


@gallery_app.callback()
def gallery(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        overview()


def overview() -> None:
    """How many pictures hang where, and of which kinds."""
    from starrynight.gallery.search import Query
    from starrynight.gallery.store import Gallery

    with Gallery() as hung:
        count, trashed, root = hung.count(), hung.count(Query(trashed=True)), hung.files.root
        facets = hung.facets()
    more = t(f"; {trashed} in the trash", f"；回收站里有 {trashed} 幅") if trashed else ""
    print(t(f"✦ {count} {pictures(count)} in {root}", f"✦ {root} 挂着 {count} 幅画") + more)
    for name, values in facets.items():
        if values:
            shown = [f"{value} {n}" for value, n in list(values.items())[:FACETS_SHOWN]]
            print(f"  {FACETS[name]}{t(': ', '：')}{' · '.join(shown)}")
    if not count and (old := old_pictures()):
        print(t(f"  Pictures of before are in {old}; hang them with: starry gallery import",
                f"  以前的画在 {old}；用 starry gallery import 把它们挂上"))  # fmt: skip


def pictures(count: int) -> str:
    return "picture hangs" if count == 1 else "pictures hang"


def old_pictures() -> Path | None:
    """The folder where pictures were put before there was a gallery, if any are there."""
    folder = settings().pictures
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def listed(rows: Iterable[Row]) -> None:
    """A line for each: id, when, what; texts are text, whatever they hold."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        when = f"  {row.made_at.astimezone():%Y-%m-%d %H:%M}  "
        console.print(Text.assemble((row.id[:8], "gold1"), when, plain(described(row))))


def described(row: Row) -> str:
    facts = [row.prompt.replace("\n", " ")[:80] or row.tool, row.style, row.precision]
    star = "★ " if row.starred else ""
    tags = " ".join(f"#{tag}" for tag in row.tags)
    return star + " · ".join(fact for fact in (*facts, tags) if fact)


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
