"""``starry gallery page``, ``poster`` and ``catalogue``: pictures that leave the gallery to be shown elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from starrynight.cli.gallery import COLLECTION, STARRED, STYLE, TAG, TEXT, gallery_app
from starrynight.cli.terminal import help_page, plural
from starrynight.errors import BadRequest
from starrynight.i18n import t
from starrynight.settings import settings
from starrynight.storage import storing, write_atomic

if TYPE_CHECKING:
    from starrynight.exhibition.prints import Shown
    from starrynight.gallery.schema import Row
    from starrynight.gallery.store import Gallery

ID = typer.Argument(
    help=t("A picture's id, or at least its first 4 characters.", "图片 id，或其开头（至少 4 个字符）。")
)
PDF = typer.Option(..., "--out", "-o", help=t("The PDF to write.", "要写的 PDF 文件。"))


@gallery_app.command(
    help=help_page(
        ("Write a page that shows one picture without a server: an .html file, or a folder.",
         "把一幅画写成独立网页，不需要服务器：一个 .html 文件，或一个文件夹。"),
        "starry gallery page 6ded50f2 -o village.html",
        "starry gallery page 6ded50f2 -o village --url https://example.org/village",
    )
)  # fmt: skip
def page(
    picture: str = ID,
    out: Path = typer.Option(..., "--out", "-o", help=t("The .html file or the folder.", ".html 文件或文件夹。")),
    url: str = typer.Option("", help=t("Where the folder will be on the web, for previews of its link.", "文件夹将来的网址，用于链接预览。")),
) -> None:  # fmt: skip
    from starrynight.exhibition import page as pages
    from starrynight.gallery.store import Gallery

    single = out.suffix.lower() in (".html", ".htm")
    if single and url:
        raise BadRequest(
            "A preview needs the picture as a file of its own; write a folder, -o without .html.",
            "链接预览需要单独的图片文件；请写成文件夹（-o 不带 .html）。",
        )
    with Gallery() as store:
        shown = _shown(store, store.get(picture))
    lang = settings().lang
    if single:
        _write(out, pages.single_file(shown, lang))
    else:
        for name, data in pages.folder_of(shown, url, lang).items():
            _write(out / name, data)
    print(f"✦ {out}")


@gallery_app.command(
    help=help_page(
        ("Write a poster of one picture as PDF, with its title, its facts and the QR code of its recipe.",
         "把一幅画做成海报 PDF，附标题、作画参数与配方二维码。"),
        "starry gallery poster 6ded50f2 -o village.pdf",
        "starry gallery poster 6ded50f2 --paper a2 --factor 4 -o large.pdf",
    )
)  # fmt: skip
def poster(
    picture: str = ID,
    out: Path = PDF,
    paper: str = typer.Option("a4", help=t("a5, a4, a3, a2, a1 or a0.", "a5、a4、a3、a2、a1 或 a0。")),
    factor: int | None = typer.Option(
        None, help=t("Enlarge by 1, 2 or 4; by default as 300 dpi asks.", "放大 1、2 或 4 倍；默认按 300 dpi 选择。")
    ),
) -> None:  # fmt: skip
    from starrynight.exhibition import prints
    from starrynight.gallery.store import Gallery

    with Gallery() as store:
        shown = _shown(store, store.get(picture))
    made = prints.poster(shown, paper.lower(), factor, settings().lang)
    _write(out, made.data)
    print(f"✦ {out}{t(': ', '：')}{made.message().to(settings().lang)}")


@gallery_app.command(
    help=help_page(
        ("Write a catalogue of the pictures that a search finds as PDF, a page each.",
         "把搜索到的画做成图录 PDF，每幅一页。"),
        "starry gallery catalogue --collection 冬夜 -o winter.pdf",
        'starry gallery catalogue --starred --title "The best" -o best.pdf',
    )
)  # fmt: skip
def catalogue(
    text: str = TEXT,
    out: Path = PDF,
    title: str = typer.Option(
        "", help=t("On the cover; by default the collection.", "封面标题；默认为画集名。")
    ),
    style: str | None = STYLE,
    tag: str | None = TAG,
    collection: str | None = COLLECTION,
    starred: bool = STARRED,
) -> None:
    from starrynight.exhibition import prints
    from starrynight.gallery.search import Query
    from starrynight.gallery.store import Gallery
    from starrynight.painting.styles import key_of

    query = Query(text=text, style=key_of(style), tag=tag, collection=collection, starred=starred or None)
    with Gallery() as store:
        shown = prints.found(store, query)
    _write(out, prints.catalogue(shown, title or collection or "", settings().lang))
    print(t(f"✦ {plural(len(shown), 'picture')} → {out}", f"✦ {len(shown)} 幅画 → {out}"))


def _shown(store: Gallery, row: Row) -> Shown:
    from starrynight.exhibition import prints

    return prints.shown(store, row)


def _write(path: Path, data: bytes) -> None:
    with storing(path):
        write_atomic(path, data, overwrite=True)
