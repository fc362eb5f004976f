"""``starry describe``: what each picture of a folder shows, one line or one JSON object a picture. ``starry gallery describe``."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli.gallery import gallery_app
from starrynight.cli.terminal import JSON, ProgressBar, app, help_page, plural
from starrynight.errors import BadFile, BadRequest, RemoteError, StarryError
from starrynight.i18n import t

if TYPE_CHECKING:
    from starrynight.senses.cache import DescriptionCache
    from starrynight.senses.eyes import Eyes

HELP = help_page(
    (
        "Say what pictures show. Run again after an interruption, it continues; a broken file does not end it.",
        "说出图片里有什么。中断后再次运行会接着来；坏文件不会使它停下。",
    ),
    "starry describe pictures",
    ("starry describe pictures --json > pictures.jsonl", "one JSON object a line", "每行一个 JSON 对象"),
    "STARRY_EYES=http://127.0.0.1:8101/v1#qwen3-vl starry describe night.png",
)
AT_ONCE = 32  # pictures between two looks at which are left
CANNOT_TELL = ("cannot tell what it shows", "看不出画的是什么")


@app.command(help=HELP)
def describe(
    folder: Path = typer.Argument(help=t("A folder, or one picture.", "文件夹，或一张图片。")),
    again: bool = typer.Option(False, "--again", help=t("Look at every picture anew.", "每张都重新看一遍。")),
    as_json: bool = JSON,
) -> None:
    from starrynight.gallery.find import find_pictures
    from starrynight.senses.cache import DescriptionCache

    eyes = _open_eyes()
    found = find_pictures(folder)
    known, failed, warned = DescriptionCache(eyes.name, fresh=again), 0, set[str]()
    with ProgressBar(t("looking", "正在看")) as bar:
        for done, path in enumerate(found.pictures, 1):
            try:
                content, warning = _described(path, eyes, known)
            except StarryError as error:
                failed += 1
                bar.print(f"✗ {path}: {error.message(t('en', 'zh'))}", sys.stderr)
                continue
            if warning and warning not in warned:
                warned.add(warning)
                bar.print(f"! {warning}", sys.stderr)
            bar.print(_json(path, content) if as_json else _line(path, content), sys.stdout)
            bar(done, len(found.pictures))
    if failed:
        raise BadFile(
            f"{failed} of {len(found.pictures)} files could not be read; the reasons are above.",
            f"{len(found.pictures)} 个文件中有 {failed} 个无法读取；原因见上。",
        )
    if not found.pictures:
        print(t(f"There are no pictures in {folder}.", f"{folder} 里没有图片。"), file=sys.stderr)


def _open_eyes() -> Eyes:
    """The eyes that are set. Raises BadRequest where they are off, and what ``senses.eyes.eyes`` raises."""
    from starrynight.senses.eyes import eyes

    opened = eyes()
    if opened is None:
        raise BadRequest(
            "STARRY_EYES is off; set it to perceiver or to an address to describe pictures.",
            "STARRY_EYES 是 off；要描述图片，请设为 perceiver 或一个地址。",
        )
    return opened


def _described(path: Path, eyes: Eyes, known: DescriptionCache) -> tuple[dict[str, Any], str]:
    """What the cache has of a file, or else what is seen now; and a warning where the chosen eyes failed."""
    from starrynight.metadata import OURS, read_pixels, read_recipe
    from starrynight.metadata.files import read_bytes
    from starrynight.senses import asked

    _, data = read_bytes(path)
    if (content := known.read(data)) is not None:
        return content, ""
    prompt, own = "", False
    with suppress(StarryError):  # no recipe, or one that cannot be read
        recipe = read_recipe(data)
        prompt, own = recipe.prompt, recipe.tool == OURS and asked.own(recipe.raw)
    look = eyes.look(read_pixels(data), prompt, own)
    content = look.seen().content
    if look.failed is None:
        known.write(data, content)
        return content, ""
    return content, t(f"{look.failed.en} The perceiver looks instead.", f"{look.failed.zh}改由感知模型来看。")


def _line(path: Path, content: dict[str, Any]) -> str:
    said = content["caption"][t("en", "zh")] or f"({t(*CANNOT_TELL)})"
    return f"✦ {path}  {said}"


def _json(path: Path, content: dict[str, Any]) -> str:
    return json.dumps({"path": str(path), **content}, ensure_ascii=False, allow_nan=False)


@gallery_app.command(
    "describe",
    help=help_page(
        ("Look at the pictures that hang and that no eyes have seen; the service does so by itself.",
         "看一遍挂着而还没看过的画；服务运行时会自动去看。"),
        "starry gallery describe",
    ),
)  # fmt: skip
def describe_gallery() -> None:
    from starrynight.gallery.store import Gallery
    from starrynight.senses.look import look_at_missing

    eyes, seen = _open_eyes(), 0
    with Gallery() as gallery, ProgressBar(t("looking", "正在看")) as bar:
        while True:
            done, failed = look_at_missing(gallery, eyes, AT_ONCE)
            seen += done
            bar(seen, None)
            if failed is not None:
                raise RemoteError(failed.en, failed.zh)
            if not done:
                break
    print(t(f"✦ {plural(seen, 'picture')} looked at", f"✦ 看了 {seen} 幅画"))
