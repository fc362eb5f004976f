"""The requests of one ``starry paint``: of a prompt, or of every line of a list, and what they will be in a line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.errors import BadRequest, MissingField, StarryError
from starrynight.i18n import t

if TYPE_CHECKING:
    from starrynight.gallery.files import OutputPath
    from starrynight.picture import Picture
    from starrynight.request import PaintRequest

PROMPT = typer.Argument(None, help=t("What to paint, in Chinese or English.", "要画什么，中文英文皆可。"))
PROMPTS = typer.Option(
    None,
    "--prompts",
    help=t(
        "A file with one prompt a line (- for the standard input); # begins a remark.",
        "提示词文件，每行一条（- 为标准输入）；# 开头为注释。",
    ),
)


class Saver:
    """Saves a picture, made ``upscale`` times larger, to the gallery or to ``-o``. ``before``: pictures of the batch's earlier
    requests. Raises what ``upscale.check`` raises, before anything is painted.
    """

    def __init__(
        self, save: Callable[[Picture], Path] | OutputPath, wanted: list[PaintRequest], upscale: int | None
    ) -> None:
        self.save, self.upscale, self.before = save, upscale, 0
        if upscale is not None:
            from starrynight.painting import upscale as upscaler

            for one in wanted:
                upscaler.check(one.width, one.height, upscale)

    def __call__(self, picture: Picture) -> Path:
        from starrynight.gallery.files import OutputPath

        if self.upscale is not None:
            picture = _larger(picture, self.upscale)
        if isinstance(self.save, OutputPath):
            return self.save(picture, self.before)
        return self.save(picture)


def _larger(picture: Picture, factor: int) -> Picture:
    from starrynight.painting import upscale as upscaler

    entry = {"upscaled": upscaler.recipe_entry(factor, "fast")}
    pixels = upscaler.upscale(picture.pixels, factor)
    return replace(picture, pixels=pixels, recipe=picture.recipe | entry)


def requests(prompt: str | None, file: Path | None, fields: Mapping[str, Any]) -> list[PaintRequest]:
    """One request for the prompt, or one for each line of the file, all checked before the first is painted.

    Raises BadRequest where both or neither are given, and what ``studio.make_request`` raises, with the line.
    """
    from starrynight import prompts, studio

    if file is None:
        if prompt is None:
            raise MissingField(
                "PROMPT is missing; say what to paint, or name a list with --prompts FILE.",
                "缺少 PROMPT；请写要画什么，或用 --prompts 给出提示词列表。",
            )
        return [studio.make_request(prompt=prompt, **fields)]
    if prompt is not None:
        raise BadRequest(
            "Give a prompt or --prompts, not both; each line of the list is a prompt of its own.",
            "提示词与 --prompts 只能给一个；列表的每一行就是一条提示词。",
        )
    found = []
    for line in prompts.read(file):
        try:
            found.append(studio.make_request(prompt=line.prompt, **fields))
        except StarryError as error:
            raise prompts.at_line(error, line.number) from error
    return found


def print_plan(wanted: list[PaintRequest], enlarged: int) -> None:
    """How many pictures, how long and how large, where there are several."""
    from starrynight.gallery.store import Gallery
    from starrynight.jobs import batch

    if sum(one.count for one in wanted) > 1:
        with Gallery() as gallery:
            print(t(*batch.plan(wanted, gallery, enlarged).message), file=sys.stderr)
