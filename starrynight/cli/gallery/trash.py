"""``starry gallery trash``: throw away, bring back, part for good; alone it lists what lies there."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import typer

from starrynight.cli import page, t
from starrynight.cli.gallery.group import gallery_app, listed
from starrynight.errors import BadRequest

if TYPE_CHECKING:
    from starrynight.gallery.store import Gallery

trash_app = typer.Typer(
    help=t(
        "What was thrown away, kept for 30 days; alone it lists them.",
        "丢弃的画保留 30 天；不带子命令时列出它们。",
    ),
    invoke_without_command=True,
)
gallery_app.add_typer(trash_app, name="trash")

EMPTY = t("The trash is empty.", "回收站是空的。")
IDS = typer.Argument(
    help=t(
        "Ids of pictures, or how they begin (4 characters or more).", "图片 id，或其开头（至少 4 个字符）。"
    )
)


@trash_app.callback()
def trash(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from starrynight.gallery.search import Query

    with opened() as hung:
        rows = list(hung.every(Query(trashed=True)))
    listed(rows)
    if not rows:
        print(EMPTY)


@trash_app.command(
    help=page(
        ("Throw pictures away; `starry gallery trash restore` undoes it for 30 days.",
         "丢弃图片；30 天内可用 `starry gallery trash restore` 恢复。"),
        "starry gallery trash throw 6ded50f2",
    )
)  # fmt: skip
def throw(ids: list[str] = IDS) -> None:
    with opened() as hung:
        hung.trash.throw(whole(hung, ids))
    print(t(f"✦ {len(ids)} in the trash", f"✦ 已丢弃 {len(ids)} 幅"))


@trash_app.command(
    help=page(
        ("Bring pictures back from the trash, stars, tags and all.", "从回收站恢复图片，星标、标签等一并恢复。"),
        "starry gallery trash restore 6ded50f2",
    )
)  # fmt: skip
def restore(ids: list[str] = IDS) -> None:
    with opened() as hung:
        hung.trash.bring_back(whole(hung, ids))
    print(t(f"✦ back on the wall: {len(ids)}", f"✦ 已恢复 {len(ids)} 幅"))


@trash_app.command(
    help=page(
        ("Part for good from what was thrown away. This cannot be undone.", "永久删除丢弃的画。此操作无法撤销。"),
        ("starry gallery trash empty --days 30", "what has lain there so long", "只删已放满 30 天的"),
        ("starry gallery trash empty --yes", "everything, without asking", "全部删除，不再询问"),
    )
)  # fmt: skip
def empty(
    days: float = typer.Option(
        0, help=t("Only what was thrown away so many days ago.", "只删丢弃满这么多天的。"), min=0, max=36_500
    ),
    yes: bool = typer.Option(False, "--yes", "-y", help=t("Do not ask.", "不再询问。")),
) -> None:
    from starrynight.gallery.search import Query

    with opened() as hung:
        if not (count := hung.count(Query(trashed=True))):
            print(EMPTY)
            return
        if not yes and not agreed(count):
            raise BadRequest(
                "Nothing was deleted; say --yes to delete.", "没有删除任何图片；加上 --yes 即可删除。"
            )
        gone = hung.trash.empty(timedelta(days=days))
    print(t(f"✦ {gone} gone for good", f"✦ 永久删除 {gone} 幅"))


def opened() -> Gallery:
    from starrynight.gallery.store import Gallery

    return Gallery()


def whole(hung: Gallery, ids: list[str]) -> list[str]:
    """The ids that these begin; all must be there, or nothing is done."""
    return [hung.get(one).id for one in ids]


def agreed(count: int) -> bool:
    """Asks at a terminal; in a pipe nobody can agree."""
    return sys.stdin.isatty() and typer.confirm(
        t(f"Part for good from up to {count} pictures?", f"最多永久删除 {count} 幅画，确定吗？")
    )
