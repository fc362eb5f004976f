"""``starry upscale``: pictures ×2 or ×4, each with the recipe it had."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from starrynight.cli.terminal import ProgressBar, app, help_page
from starrynight.errors import BadRequest
from starrynight.i18n import t
from starrynight.storage import check_writable, storing, write_atomic

HELP = help_page(
    (
        "Make pictures larger, and keep their recipes and transparency.",
        "把图片放大，配方与透明度都保留。",
    ),
    "starry upscale night.png",
    "starry upscale *.png --factor 4 -o larger",
    "starry upscale night.png --model fine",
)


@app.command(help=HELP)
def upscale(
    files: list[Path] = typer.Argument(
        help=t("PNG, JPEG, WebP, TIFF, GIF, BMP … files.", "PNG、JPEG、WebP、TIFF、GIF、BMP 等文件。")
    ),
    factor: int = typer.Option(2, "--factor", "-x", help=t("2 or 4.", "2 或 4。")),
    model: str = typer.Option("fast", "--model", "-m", help=t("fast or fine.", "fast（快）或 fine（精）。")),
    out: Path | None = typer.Option(
        None,
        "--out",
        "-o",
        help=t("A folder, or a file for one picture.", "文件夹；只有一张时也可以是文件。"),
    ),
    overwrite: bool = typer.Option(
        False, "--overwrite", help=t("Replace files of that name.", "覆盖同名文件。")
    ),
) -> None:
    from starrynight.painting import upscale as upscaler
    from starrynight.picture import SUFFIXES

    is_file = out is not None and out.suffix.lower() in SUFFIXES
    if is_file and len(files) > 1:
        raise BadRequest(
            f"{len(files)} pictures cannot all be {out}; give a folder.",
            f"{len(files)} 张图片不能都写成 {out}；请给出文件夹。",
        )
    upscaler.check(1, 1, factor, model)
    with ProgressBar(t("upscaling", "正在放大")) as bar:
        for file in files:
            place = out if is_file and out else (out or file.parent) / f"{file.stem}-x{factor}{_suffix(file)}"
            check_writable(place)
            data, note = _larger(file, place, factor, model, bar)
            with storing(place):
                place = write_atomic(place, data, overwrite=overwrite)
            bar.print(f"✦ {place}  {note}", sys.stdout)


def _suffix(file: Path) -> str:
    from starrynight.picture import SUFFIXES

    return file.suffix if file.suffix.lower() in SUFFIXES else ".png"


def _larger(file: Path, place: Path, factor: int, model: str, bar: ProgressBar) -> tuple[bytes, str]:
    """The larger picture's file, and its size. Raises what reading, ``upscale`` and ``with_pixels`` raise."""
    from starrynight.metadata.files import read_bytes
    from starrynight.metadata.pixels import read_with_alpha
    from starrynight.painting import upscale as upscaler
    from starrynight.picture import format_of, with_pixels

    _, data = read_bytes(file)
    kind = format_of(place)
    pixels = upscaler.upscale(read_with_alpha(file, flat=kind == "jpeg"), factor, model, bar)
    entry = upscaler.recipe_entry(factor, model)
    return with_pixels(data, pixels, kind, upscaled=entry), f"{pixels.shape[1]}×{pixels.shape[0]}"
