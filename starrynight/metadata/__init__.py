"""Read how a picture was painted, from this package's files and those of the tools in docs/gallery.md.

``files`` opens a picture; ``a1111``, ``comfyui`` and ``objects`` read the forms of other tools (a text, a graph,
one JSON object); ``recipe`` holds the common shape and reads this package's own form; ``a1111`` and ``xmp``
also write. Imports neither torch nor models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from starrynight.errors import BadFile, NoRecipe
from starrynight.metadata import a1111, comfyui, objects
from starrynight.metadata.files import PIXEL_FORMATS, Source, Texts, open_picture, read_texts
from starrynight.metadata.pixels import read_pixels
from starrynight.metadata.recipe import OURS, Recipe, read_own
from starrynight.text import parse_json

__all__ = ["OURS", "Recipe", "read_pixels", "read_recipe"]

Fields = Mapping[str, str]


def _of_any_tool(content: str) -> Recipe | None:
    """The recipe in a text whose field several tools share: JSON of one of them, or an A1111 text."""
    if content.lstrip().startswith("{") and (parsed := parse_json(content.strip(" \0\n\r\t"))) is not None:
        return objects.read(parsed) or comfyui.read(parsed)
    return a1111.read(content)


def _draw_things(fields: Fields) -> Recipe | None:
    """Draw Things' description, in files without its JSON: "prompt", "-negative", settings."""
    if not fields.get("xmp:CreatorTool", "").startswith("Draw Things"):
        return None
    recipe = a1111.read(fields["dc:description"].replace("\n-", "\nNegative prompt: ", 1))
    return recipe and dataclasses.replace(recipe, tool="Draw Things")


# (field, reader), most exact first: a file edited by several tools keeps the texts of all.
_READERS: tuple[tuple[str, Callable[[Any], Recipe | None]], ...] = (
    ("starry_night", lambda content: read_own(parse_json(content))),
    ("starry:Recipe", lambda content: read_own(parse_json(content))),
    ("parameters", _of_any_tool),
    ("UserComment", _of_any_tool),
    ("exif:UserComment", _of_any_tool),
    ("invokeai_metadata", lambda content: objects.read(parse_json(content))),
    ("sd-metadata", lambda content: objects.read_invoke_2(parse_json(content))),
    ("Dream", objects.read_dream),
    ("generation_data", lambda content: objects.read(parse_json(content.rstrip("\0")))),
    ("prompt", lambda content: comfyui.read(parse_json(content))),
    ("workflow", lambda content: comfyui.read(parse_json(content))),
    ("comment", _of_any_tool),
    ("ImageDescription", _of_any_tool),
    ("Description", objects.read_midjourney),
    ("hidden in the pixels", _of_any_tool),
)
# Tools that spread one recipe over several fields: (the field that tells them, the reader of all fields).
_SPREAD: tuple[tuple[str, Callable[[Fields], Recipe | None]], ...] = (
    ("Comment", objects.read),
    ("use_stable_diffusion_model", objects.read),
    ("Stable Diffusion model", objects.read),
    (
        "extraMetadata",
        lambda fields: comfyui.read(
            {**(parse_json(fields.get("prompt", "")) or {}), "extraMetadata": fields["extraMetadata"]}
        ),
    ),
)
# These fields hold other things as often as recipes: one that is no recipe is not a broken recipe.
_SHARED = (
    "Description",
    "ImageDescription",
    "comment",
    "Comment",
    "exif:UserComment",
    "hidden in the pixels",
    "workflow",
)


def read_recipe(source: Source) -> Recipe:
    """The recipe in a picture's file of ``files.PIXEL_FORMATS`` (a path, or the file's bytes), from any of the tools.

    A forged or broken text is skipped for the next one. A size the recipe does not state is the picture's
    own. Raises ``MissingFile``; ``BadFile`` if the file is not a picture or none of its texts can be read;
    ``NoRecipe`` if the picture carries none.
    """
    picture = open_picture(source, PIXEL_FORMATS)
    texts = Texts()
    # A PNG's texts may follow its pixels, and be hidden in them. These are decoded only if the texts before them
    # give no recipe.
    for whole_file in (False, True) if picture.format in ("PNG", "WEBP") else (False,):
        texts = read_texts(picture, whole_file)
        if recipe := _first(texts.found):
            if recipe.width is None or recipe.height is None:
                recipe = dataclasses.replace(recipe, width=picture.width, height=picture.height)
            return recipe
    name = "The picture" if isinstance(source, bytes) else str(source)
    unreadable = texts.dropped + [
        field for field, _ in _READERS if field in texts.found and field not in _SHARED
    ]
    if unreadable:
        raise BadFile(
            f"{name} carries a recipe that cannot be read ({', '.join(unreadable)}); use the original file.",
            f"{name} 带有无法读取的配方（{'、'.join(unreadable)}）；请使用原始文件。",
        )
    raise NoRecipe(
        f"{name} carries no recipe: it comes from an unknown tool, or its metadata was removed. Use the original file.",
        f"{name} 没有携带配方：它来自未知的工具，或者元数据已被清除。请使用原始文件。",
    )


def _first(fields: Fields) -> Recipe | None:
    own = [(field, read) for field, read in _READERS[:2] if field in fields]
    spread = [(field, read) for field, read in _SPREAD if field in fields]
    for field, read in own:
        if recipe := read(fields[field]):
            return recipe
    for _, read in spread:
        if recipe := read(fields):
            return recipe
    for field, read in _READERS[2:]:
        if field in fields and (recipe := read(fields[field])):
            return recipe
    return _draw_things(fields) if "dc:description" in fields else None
