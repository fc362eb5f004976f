"""``starry gallery import`` and ``export``: pictures from elsewhere, and to elsewhere."""

from __future__ import annotations

from pathlib import Path

import typer

from starrynight.cli import LANG, page, t
from starrynight.cli.gallery.group import (
    COLLECTION,
    MODEL,
    PRECISION,
    STARRED,
    STYLE,
    TAG,
    TEXT,
    Bar,
    gallery_app,
)
from starrynight.errors import BadFile, BadRequest
from starrynight.settings import settings


@gallery_app.command(
    "import",
    help=page(
        ("Hang the pictures of a folder: ours, A1111's, ComfyUI's, InvokeAI's. Stopped, it goes on where it was.",
         "把文件夹里的画挂上：我们的、A1111 的、ComfyUI 的、InvokeAI 的。中断后再次运行即可继续。"),
        ("starry gallery import", "the pictures of before, in STARRY_HOME/pictures", "STARRY_HOME/pictures 里以前的画"),
        "starry gallery import ~/stable-diffusion/outputs",
        ("starry gallery import ~/photos --bare", "those without a recipe too", "没有配方的也要"),
    ),
)  # fmt: skip
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
        print(f"  {name}: {error.message(LANG)}")
    print(t(f"✦ {gathered.hung} hung, {gathered.already} hung already, {len(gathered.refused)} refused",
            f"✦ 新挂 {gathered.hung} 幅，已在墙上 {gathered.already} 幅，拒绝 {len(gathered.refused)} 个"))  # fmt: skip
    if gathered.refused and not gathered.hung and not gathered.already:
        raise typer.Exit(BadFile.exit_code)


@gallery_app.command(
    help=page(
        ("Write what a search finds as a zip: pictures, their recipes, and a page to look at them.",
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
    from starrynight.gallery.store import Gallery

    query = Query(
        text=text, style=style, model=model, precision=precision, tag=tag, collection=collection, starred=starred or None
    )  # fmt: skip
    with Gallery() as hung:
        if not (count := hung.count(query)):
            raise BadRequest(
                "No picture is found by that, so no zip was written; see `starry gallery`.",
                "没有找到这样的画，因此没有写 zip；可用 `starry gallery` 看看有什么。",
            )
        with Bar(t("packing", "正在打包"), count) as bar:
            exported = hung.export(query, out, bar.one, LANG)
    for name in exported.lost:
        print(f"  {name}: {t('its file cannot be read', '文件无法读取')}")
    print(t(f"✦ {exported.pictures} pictures → {out}", f"✦ {exported.pictures} 幅画 → {out}"))
    if exported.lost:
        raise typer.Exit(BadFile.exit_code)
