"""Read how a picture was painted, from this package's files, A1111's, ComfyUI's and InvokeAI's.

``files`` opens a picture, ``a1111``, ``comfyui`` and ``invokeai`` each read one tool's form, ``recipe`` holds
the common shape and reads this package's own form; ``a1111`` and ``xmp`` also write. Imports neither torch
nor models.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from starrynight.errors import BadFile, NoRecipe
from starrynight.metadata import a1111, comfyui, invokeai
from starrynight.metadata.files import Source, Texts, open_picture, read_texts
from starrynight.metadata.pixels import read_pixels
from starrynight.metadata.recipe import OURS, Recipe, read_own

__all__ = ["OURS", "Recipe", "read_pixels", "read_recipe"]

# Most exact first: a file edited by several tools keeps the texts of all.
_READERS: tuple[tuple[str, Callable[[Any], Recipe | None]], ...] = (
    ("starry_night", lambda content: read_own(_json(content))),
    ("starry:Recipe", lambda content: read_own(_json(content))),
    ("parameters", a1111.read),
    ("UserComment", a1111.read),
    ("invokeai_metadata", lambda content: invokeai.read(_json(content))),
    ("prompt", lambda content: comfyui.read(_json(content))),
)


def read_recipe(source: Source) -> Recipe:
    """The recipe in a PNG, JPEG or WebP file (a path, or the file's bytes), from any of the four tools.

    A forged or broken text is skipped for the next one. A size the recipe does not state is the picture's
    own. Raises ``MissingFile``; ``BadFile`` if the file is not a picture or none of its texts can be read;
    ``NoRecipe`` if the picture carries none.
    """
    picture = open_picture(source)
    texts = Texts()
    # A PNG's texts may follow its pixels. These are decoded only if the texts before them give no recipe.
    for whole_file in (False, True) if picture.format == "PNG" else (False,):
        texts = read_texts(picture, whole_file)
        for name, read in _READERS:
            if name in texts.found and (recipe := read(texts.found[name])):
                if recipe.width is None or recipe.height is None:
                    recipe = dataclasses.replace(recipe, width=picture.width, height=picture.height)
                return recipe
    name = "The picture" if isinstance(source, bytes) else str(source)
    unreadable = texts.dropped + [field for field, _ in _READERS if field in texts.found]
    if unreadable:
        raise BadFile(
            f"{name} carries a recipe that cannot be read ({', '.join(unreadable)}); use the original file.",
            f"{name} 带有无法读取的配方（{'、'.join(unreadable)}）；请使用原始文件。",
        )
    raise NoRecipe(
        f"{name} carries no recipe: it comes from an unknown tool, or its metadata was removed. Use the original file.",
        f"{name} 没有携带配方：它来自未知的工具，或者元数据已被清除。请使用原始文件。",
    )


def _json(content: str) -> Any:
    """The parsed JSON, or ``None`` if it is invalid or nested too deeply to parse."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
