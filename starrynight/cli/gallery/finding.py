"""``starry gallery search``: what hangs, by words, filters, colour or likeness."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from starrynight.cli import page, t
from starrynight.cli.gallery.group import (
    COLLECTION,
    MODEL,
    PRECISION,
    STARRED,
    STYLE,
    TAG,
    TEXT,
    gallery_app,
    listed,
)

SHOWN = 20  # pictures a search prints unless told otherwise


@gallery_app.command(
    help=page(
        ("Find pictures, the last hung first.", "查找图片，最近挂上的在前。"),
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
        None, help=t("The id of a picture to be like.", "与这幅画（给出 id）相像的。")
    ),
    colour: str | None = typer.Option(None, help=t("A colour, as #1f3b73.", "颜色，例如 #1f3b73。")),
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
        more = hung.count(query) - len(rows)
    listed(rows)
    if not rows:
        print(t("No picture is found by that.", "没有找到这样的画。"))
    if more > 0:
        print(t(f"… and {more} more; -n shows them", f"……还有 {more} 幅，可用 -n 显示"))
