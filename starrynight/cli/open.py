"""``starry open``: the wall of what was painted, in the browser."""

from __future__ import annotations

import webbrowser

import typer

from starrynight.cli import LANG, app, t
from starrynight.settings import settings

HELP = t(
    """Look at what you painted: the pictures of STARRY_HOME on one page, in the browser.

    [bold]Examples[/bold]

    starry open

    starry open --no-browser    only writes the page and says where""",
    """看看画过的画：把 STARRY_HOME 里的画挂在一页上，用浏览器打开。

    [bold]例子[/bold]

    starry open

    starry open --no-browser    只写出页面，并说明在哪里""",
)


@app.command("open", help=HELP)
def open_wall(
    browser: bool = typer.Option(True, help=t("Open it in the browser.", "用浏览器打开。")),
) -> None:
    from starrynight.gallery.wall import write_wall

    kept = settings()
    page = write_wall(kept.pictures, kept.home / "wall.html", LANG)
    print(f"✦ {page}")
    if browser:
        webbrowser.open(page.as_uri())
