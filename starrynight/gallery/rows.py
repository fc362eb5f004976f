"""``Row``: one picture as the gallery knows it; and ``describe``, which reads a row out of a file's own bytes.

``hang``, importing and rebuilding all describe the bytes that lie (or will lie) in the file, so that a row never says
more than its file does. What people added (stars, notes, tags, collections) is the one thing no file tells.
Everything in a file may be forged: texts are cleaned and cut, numbers believed only when they are numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import numpy as np

from starrynight.errors import NoRecipe
from starrynight.gallery import tokens
from starrynight.gallery.files import id_of
from starrynight.gallery.similarity import look
from starrynight.metadata import OURS, Recipe, read_pixels, read_recipe
from starrynight.text import clean, plain_json
from starrynight.verdict import OUTCOMES

LONGEST_PROMPT = 10_000  # characters kept in the row; the file keeps all
LONGEST_NAME = 200
LARGEST_RECIPE = 1 << 20  # characters of JSON; a large ComfyUI graph takes a fifth of it
# The component whose format people mean when they ask how a picture was computed.
MAIN = ("transformer", "unet")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture. ``number`` counts in the order of hanging; ``id`` comes from the file. ``size``: bytes.

    ``made_at`` is the file's date for imported pictures, else that of hanging. ``None`` means the file does not say.
    """

    number: int
    id: str
    format: str
    size: int
    width: int
    height: int
    made_at: datetime
    hung_at: datetime
    tool: str
    prompt: str
    negative_prompt: str
    style: str | None
    model: str | None
    precision: str | None
    verdict: str
    seed: int | None
    steps: int | None
    guidance: float | None
    sampler: str | None
    starred: bool
    note: str
    trashed_at: datetime | None
    tags: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()

    @classmethod
    def columns(cls) -> list[str]:
        """The fields that are columns of ``pictures``, in their order, ``number`` first."""
        return [field.name for field in fields(cls) if field.name not in ("tags", "collections")]

    @classmethod
    def of(cls, values: Sequence[Any], tags: tuple[str, ...], collections: tuple[str, ...]) -> Row:
        """``values`` as ``columns`` names them."""
        found = dict(zip(cls.columns(), values, strict=True))
        for name, read in (("made_at", moment), ("hung_at", moment), ("trashed_at", moment), ("seed", int)):
            found[name] = None if found[name] is None else read(found[name])
        return cls(**found, tags=tags, collections=collections)


def moment(milliseconds: int) -> datetime:
    """UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


@dataclass(frozen=True)
class Facts:
    """What a file says of itself: columns of ``pictures``, and its ``recipe`` as JSON."""

    columns: dict[str, Any]
    recipe: str


def tell(columns: Mapping[Any, Any], recipe: str, *added: str) -> str:
    """What the search reads of a row: the prompt as it was typed and as the model read it (a style adds its own words),
    the style, and what people ``added``. Not the negative prompt, which says what the picture does not show, nor the
    names of tools and models: "night" would find all that Starry Night painted."""
    whole_prompt = clean(json.loads(recipe).get("prompt"))[:LONGEST_PROMPT]
    prompts = dict.fromkeys((columns["prompt"], whole_prompt))
    return tokens.write(*prompts, columns["style"] or "", *added)


def describe(data: bytes, pixels: np.ndarray | None = None, bare: bool = True) -> Facts:
    """Read a picture file. ``pixels`` spares decoding; ``bare=False`` refuses a picture without a recipe.

    Raises ``BadFile`` for what is no whole PNG, JPEG or WebP picture, or whose recipe is garbled; ``NoRecipe``.
    """
    pixels = read_pixels(data) if pixels is None else pixels
    try:
        recipe = read_recipe(data)
    except NoRecipe:
        if not bare:
            raise
        recipe = Recipe(tool="")
    hash_, colours = look(pixels)
    columns = {
        "id": id_of(data),
        "format": kind_of(data),
        "size": len(data),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "hash": hash_,
        "colours": colours,
        **_said(recipe),
    }
    return Facts(columns, _json(recipe.raw))


def kind_of(data: bytes) -> str:
    """png, jpeg or webp, by the first bytes of what has already been read as a picture."""
    return {b"\x89": "png", b"\xff": "jpeg"}.get(data[:1], "webp")


def _said(recipe: Recipe) -> dict[str, Any]:
    raw = recipe.raw if recipe.tool == OURS else {}
    verdict = _under(raw, "verdict").get("outcome")
    typed = clean(_under(raw, "request").get("prompt"))
    small = recipe.steps is not None and recipe.steps < 2**31
    return {
        "tool": recipe.tool,
        "prompt": (typed or recipe.prompt)[:LONGEST_PROMPT],
        "negative_prompt": recipe.negative_prompt[:LONGEST_PROMPT],
        "style": _name(_under(raw, "request").get("style")),
        "model": _name(recipe.model),
        "precision": _precision(_under(raw, "plan")),
        "verdict": verdict if verdict in OUTCOMES else "unchecked",
        "seed": None if recipe.seed is None else str(recipe.seed),
        "steps": recipe.steps if small else None,
        "guidance": recipe.guidance,
        "sampler": _name(recipe.sampler),
    }


def _under(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _name(value: object) -> str | None:
    """One line, not too long, or nothing."""
    return " ".join(clean(value).split())[:LONGEST_NAME] or None


def _precision(plan: Mapping[str, Any]) -> str | None:
    component = next((name for name in MAIN if name in plan), next(iter(plan), ""))
    return _name(_under(plan, component).get("format"))


def _json(raw: Mapping[str, Any]) -> str:
    """The recipe for those who want all of it; "{}" if it is too large or holds what JSON cannot (the file has it)."""
    try:
        found = plain_json(raw)
    except (ValueError, TypeError, RecursionError):
        return "{}"
    return found if len(found) <= LARGEST_RECIPE else "{}"
