"""Parse a picture's file into the values of a row, and add the picture: the file first, then its row in one
transaction.

Adding, importing and rebuilding all parse the stored bytes with ``parse_file``, so a row never contains more
than its file does, apart from annotations (stars, notes, tags, collections). The content of a file may be
forged: texts are cleaned and cut, and a number is stored only if it is one.

If the process is killed between the two writes, the complete file remains without a row: ``verify`` reports
it and ``rebuild`` adds the row.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Insert, Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from starrynight.errors import BadFile, NoRecipe, StarryError
from starrynight.gallery.database import Database
from starrynight.gallery.files import Files, id_of
from starrynight.gallery.schema import pictures, recipes, tombstones
from starrynight.gallery.similarity import compute_descriptor
from starrynight.gallery.tokens import tokenize
from starrynight.metadata import OURS, Recipe, read_pixels, read_recipe
from starrynight.metadata.files import open_picture
from starrynight.text import clean, plain_json
from starrynight.verdict import OUTCOMES

AlsoWrite = Callable[..., None]  # called as (connection, *, picture: its id)
MAX_PROMPT = 10_000  # characters stored in the row; the file keeps the whole prompt
MAX_NAME = 200
MAX_RECIPE = 1 << 20  # characters of JSON; a large ComfyUI graph has about 200,000
MAX_TIME = 253_402_300_799.0  # the end of the year 9999, the last that ``datetime`` can represent
_DENOISERS = ("transformer", "unet")  # the component whose format is the picture's ``precision``


@dataclass(frozen=True)
class ParsedFile:
    """The content of a picture's file: values for columns of ``pictures``, and its ``recipe`` as JSON.

    ``unread``: why the recipe in the file could not be read, if it could not."""

    columns: dict[str, Any]
    recipe: str
    unread: StarryError | None = None


def add_picture(
    database: Database,
    files: Files,
    data: bytes,
    parsed: ParsedFile,
    made_at: float | None = None,
    also: AlsoWrite | None = None,
) -> bool:
    """Store the file and its row; return whether the row is new. A picture that is in the trash is restored.

    ``made_at``: seconds since 1970, by default now. ``also`` writes in the same transaction. Raises
    ``StorageError``, and then there is no row.
    """
    picture = parsed.columns["id"]
    name = files.name(picture, parsed.columns["format"])
    files.write(name, data)
    if made_at is not None:
        made_at = min(max(made_at, 0.0), MAX_TIME)
        files.set_modified(name, made_at)
    with database.writing() as connection:
        new = insert_row(connection, parsed, time.time() if made_at is None else made_at)
        # Another process may have deleted this picture from the trash since the file was written; see trash.py.
        connection.execute(delete(tombstones).where(tombstones.c.id == picture))
        if not files.exists(name):
            files.write(name, data)
        if also:
            also(connection, picture=picture)
    return new


def known_picture(database: Database, files: Files, data: bytes) -> bool:
    """Whether the file's picture hangs already; decodes nothing. A damaged or missing stored file is written again,
    and a picture in the trash is restored."""
    columns = (pictures.c.format, pictures.c.trashed_at)
    picture = id_of(data)
    with database.reading() as connection:
        row = connection.execute(select(*columns).where(pictures.c.id == picture)).one_or_none()
    if row is None:
        return False
    files.write(files.name(picture, row.format), data)
    if row.trashed_at is not None:
        with database.writing() as connection:
            found = connection.execute(
                update(pictures).where(pictures.c.id == picture).values(trashed_at=None)
            )
        return found.rowcount > 0
    return True


def insert_row(connection: Connection, parsed: ParsedFile, made_at: float) -> bool:
    """Insert the row of an existing file, or restore it from the trash; return whether it is new."""
    columns = parsed.columns | {"made_at": int(made_at * 1000), "hung_at": int(time.time() * 1000)}
    insert = insert_or_ignore(connection, pictures).values(**columns).returning(pictures.c.number)
    number = connection.execute(insert).scalar()
    if number is None:
        connection.execute(update(pictures).where(pictures.c.id == columns["id"]).values(trashed_at=None))
        return False
    words = search_tokens(columns, parsed.recipe)
    connection.execute(recipes.insert().values(number=number, recipe=parsed.recipe, words=words))
    return True


def insert_or_ignore(connection: Connection, table: Table) -> Insert:
    """An INSERT that leaves existing rows unchanged."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def find_number(connection: Connection, picture: str) -> int | None:
    """The number of the picture with this id, or None."""
    return connection.execute(select(pictures.c.number).where(pictures.c.id == picture)).scalar()


def search_tokens(columns: Mapping[Any, Any], recipe: str, *annotations: str) -> str:
    """The tokens that a text search reads: the prompt as typed and as the model read it (a style adds words
    to it), the style, and the ``annotations``.

    The negative prompt is left out because it names what the picture does not show. The names of tools and
    models are left out because "night" would find every picture made by Starry Night.
    """
    whole_prompt = clean(json.loads(recipe).get("prompt"))[:MAX_PROMPT]
    prompts = dict.fromkeys((columns["prompt"], whole_prompt))
    return tokenize(*prompts, columns["style"] or "", *annotations)


def parse_file(data: bytes, pixels: np.ndarray | None = None, bare: bool = True) -> ParsedFile:
    """Parse a picture's file. Pass ``pixels`` (uint8 [H, W, 3]) if they are decoded already. ``bare`` accepts
    a picture without a recipe, or with one that cannot be read.

    Raises ``BadFile`` if the bytes are not a complete PNG, JPEG, WebP or AVIF picture; if ``bare`` is False also
    if the recipe is malformed, and ``NoRecipe`` if there is none.
    """
    if pixels is None:
        open_picture(data).close()  # the formats that the gallery keeps; pixels are read from more
        pixels = read_pixels(data)
    unread: StarryError | None = None
    try:
        recipe = read_recipe(data)
    except BadFile as error:
        if not bare:
            raise
        recipe, unread = Recipe(tool=""), None if isinstance(error, NoRecipe) else error
    descriptor = compute_descriptor(pixels)
    columns = {
        "id": id_of(data),
        "format": {b"\x89": "png", b"\xff": "jpeg", b"R": "webp"}.get(data[:1], "avif"),
        "size": len(data),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "hash": descriptor.hash,
        "colours": descriptor.colours,
        **_recipe_columns(recipe),
    }
    return ParsedFile(columns, _json(recipe.raw), unread)


def denoiser_format(recipe: Recipe) -> str | None:
    """The number format of the denoiser, or of the first component in the plan if there is no denoiser."""
    plan = _mapping(recipe.raw, "plan")
    component = next((name for name in _DENOISERS if name in plan), next(iter(plan), ""))
    return _name(_mapping(plan, component).get("format"))


def _recipe_columns(recipe: Recipe) -> dict[str, Any]:
    ours = recipe.tool == OURS
    raw = recipe.raw if ours else {}
    verdict = _mapping(raw, "verdict").get("outcome")
    typed = clean(_mapping(raw, "request").get("prompt"))
    return {
        "tool": recipe.tool,
        "prompt": (typed or recipe.prompt)[:MAX_PROMPT],
        "negative_prompt": recipe.negative_prompt[:MAX_PROMPT],
        "style": _name(_mapping(raw, "request").get("style")),
        "model": _name(recipe.model),
        "precision": denoiser_format(recipe) if ours else None,
        "verdict": verdict if verdict in OUTCOMES else "unchecked",
        "seed": None if recipe.seed is None else str(recipe.seed),
        "steps": recipe.steps if recipe.steps is not None and recipe.steps < 2**31 else None,
        "guidance": recipe.guidance,
        "sampler": _name(recipe.sampler),
    }


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _name(value: object) -> str | None:
    """One line of at most ``MAX_NAME`` characters, or None."""
    return " ".join(clean(value).split())[:MAX_NAME] or None


def _json(raw: Mapping[str, Any]) -> str:
    """The recipe as JSON; "{}" if it is too large or has values that JSON does not allow."""
    try:
        found = plain_json(raw)
    except (ValueError, TypeError, RecursionError):
        return "{}"
    return found if len(found) <= MAX_RECIPE else "{}"
