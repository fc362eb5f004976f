"""How was this picture painted? ``read_recipe`` answers for our own files, A1111's, ComfyUI's and InvokeAI's.

One file, one question each: ``files`` opens, ``ours``, ``a1111``, ``comfyui`` and ``invokeai`` read one tool's form,
``recipe`` is the shape they share; ``a1111`` and ``xmp`` also write. Knows nothing of torch or of models.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from starrynight.errors import BadFile, NoRecipe
from starrynight.metadata import a1111, comfyui, invokeai, ours
from starrynight.metadata.files import Source, Texts, open_picture, read_pixels, read_texts
from starrynight.metadata.recipe import OURS, Recipe

__all__ = ["OURS", "Recipe", "read_pixels", "read_recipe"]

# Most exact first: a file that went through several tools keeps the texts of all.
_READERS: tuple[tuple[str, Callable[[Any], Recipe | None]], ...] = (
    ("starry_night", lambda content: ours.read(_json(content))),
    ("starry:Recipe", lambda content: ours.read(_json(content))),
    ("parameters", a1111.read),
    ("UserComment", a1111.read),
    ("invokeai_metadata", lambda content: invokeai.read(_json(content))),
    ("prompt", lambda content: comfyui.read(_json(content))),
)


def read_recipe(source: Source) -> Recipe:
    """The recipe in a PNG, JPEG or WebP file (a path, or the file's bytes), whichever tool wrote it.

    A part that is forged or broken is passed over for the next. Size, where the recipe is silent, is the picture's own.
    Raises ``MissingFile``; ``BadFile`` if it is no picture or none of its texts can be read; ``NoRecipe`` if it is a
    picture that carries none.
    """
    picture = open_picture(source)
    texts = Texts()
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
            f"{name} carries a recipe that cannot be read ({', '.join(unreadable)}).",
            f"{name} 带有无法读取的配方（{'、'.join(unreadable)}）。",
        )
    raise NoRecipe(
        f"{name} carries no recipe: it was not painted by a tool known here, or its metadata was removed.",
        f"{name} 没有携带配方：它不是由这里认识的工具所画，或者元数据已被清除。",
    )


def _json(content: str) -> Any:
    """The parsed JSON, or ``None`` if it is none (or nested so deep that parsing it would hurt)."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
