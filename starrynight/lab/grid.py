"""Grids: the same prompt over two axes, one labelled contact sheet, and every picture with its own recipe.

An axis is a field of the request and its values. The pictures of a grid lie in one folder, and a grid that was stopped goes
on there: a picture is kept if its recipe's request is the one that the grid asks for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from starrynight.errors import BadRequest, StarryError
from starrynight.gallery.files import OutputPath
from starrynight.i18n import t
from starrynight.lab.axes import MAX_PICTURES, Axis
from starrynight.metadata import read_recipe
from starrynight.metadata.pixels import read_pixels
from starrynight.painting.results import Refused, Step
from starrynight.picture import RECIPE_VERSION
from starrynight.request import Lora, PaintRequest, random_seed
from starrynight.storage import storing, write_atomic
from starrynight.studio import Studio, make_request
from starrynight.text import plain_json

SHEET = "sheet.png"
# Pixels: longest side of a picture in the sheet, space between, height of letters.
CELL, GAP, TEXT = 384, 8, 20


@dataclass(frozen=True)
class Cell:
    """One picture of a grid, by its row and column from 0."""

    row: int
    column: int
    request: PaintRequest

    @property
    def name(self) -> str:
        return f"{self.row + 1:02}-{self.column + 1:02}"

    def path(self, folder: Path) -> Path:
        return folder / f"{self.name}.png"

    def is_painted(self, folder: Path) -> bool:
        return _request_of(self.path(folder)) == json.loads(self.request.canonical())


@dataclass(frozen=True)
class Grid:
    """A checked grid: its axes, its cells, and the folder of its pictures."""

    x: Axis
    y: Axis | None
    cells: tuple[Cell, ...]
    folder: Path

    def message(self) -> str:
        """How many pictures there will be, how large, and how many are there already."""
        one, there = self.cells[0].request, sum(cell.is_painted(self.folder) for cell in self.cells)
        shape = f"{len(self.x.values)} × {len(self.y.values) if self.y else 1}"
        en = zh = ""
        if "seed" not in (self.x.field, self.y and self.y.field):
            en, zh = f", seed {one.seed}", f"，种子 {one.seed}"
        if there:
            en, zh = f"{en}; {there} of them are there already", f"{zh}；其中 {there} 幅已有"
        return t(
            f"{shape} = {len(self.cells)} pictures of {one.width}×{one.height}{en}.",
            f"{shape}，共 {len(self.cells)} 幅 {one.width}×{one.height}{zh}。",
        )

    def paint(
        self, studio: Studio, on_step: Callable[[Step], None] | None = None
    ) -> Iterator[tuple[Cell, Path | Refused]]:
        """Every cell and its picture, or why it was refused. ``studio`` then saves into the grid's folder.

        Cells of one precision are painted one after another, because loading is slow. A picture that is there already is
        not painted again.
        """
        for cell in sorted(self.cells, key=lambda cell: cell.request.precision):
            path = cell.path(self.folder)
            if cell.is_painted(self.folder):
                yield cell, path
                continue
            studio.save = OutputPath(path, overwrite=True)
            for outcome in studio.paint(cell.request, on_step):
                yield cell, outcome if isinstance(outcome, Refused) else outcome.place

    def save_sheet(self) -> Path:
        """Lay what is painted on the sheet and return its path. Raises StorageError."""
        painted = {
            (cell.row, cell.column): cell.path(self.folder) if cell.is_painted(self.folder) else None
            for cell in self.cells
        }
        data, path = io.BytesIO(), self.folder / SHEET
        Image.fromarray(sheet(painted, self.x, self.y)).save(data, "PNG")
        with storing(path):
            return write_atomic(path, data.getvalue(), overwrite=True)


def plan(fields: Mapping[str, Any], x: Axis, y: Axis | None, folder: Path) -> Grid:
    """A grid of ``make_request(**fields)`` over the axes. A missing seed is drawn once for all of its pictures, or is that of
    the pictures in ``folder``.

    Raises StorageError for a folder that cannot be written to, and what ``cells`` raises.
    """
    check(x, y)
    OutputPath(folder, len(x.values) * (len(y.values) if y else 1)).check()
    drawn = _seeds_in(folder)
    known = {**fields, **{name: seed for name, seed in drawn.items() if fields.get(name) is None}}
    return Grid(x, y, cells(known, x, y, make_request), folder)


def check(x: Axis, y: Axis | None, most: int = MAX_PICTURES) -> None:
    """Raises BadRequest for a grid of more than ``most`` pictures, or whose axes are one field."""
    if y is not None and y.field == x.field:
        raise BadRequest(
            f"Both axes are {x.field}; take two different ones.",
            f"两个坐标轴都是 {x.field}；请取不同的两个。",
        )
    count = len(x.values) * (len(y.values) if y else 1)
    if count > most:
        raise BadRequest(
            f"{count} pictures are too many; the limit is {most}.",
            f"{count} 幅太多了；上限为 {most} 幅。",
        )


def cells(
    fields: Mapping[str, Any], x: Axis, y: Axis | None, make: Callable[..., PaintRequest]
) -> tuple[Cell, ...]:
    """The pictures of a grid, row by row. ``make(**fields)`` is a checked request; a missing seed is drawn once for all.

    Raises what ``check`` and ``make`` raise, and BadRequest for an axis of LoRA weights without a LoRA.
    """
    check(x, y)
    known = {**fields, "count": 1}
    for field in ("seed", "variation_seed"):
        if known.get(field) is None:
            known[field] = random_seed()
    found = []
    for row, down in enumerate(y.values if y else (None,)):
        for column, across in enumerate(x.values):
            asked = _with(known, x.field, across)
            asked = asked if y is None else _with(asked, y.field, down)
            if not asked.get("variation"):
                del asked["variation_seed"]
            found.append(Cell(row, column, make(**asked)))
    return tuple(found)


def _seeds_in(folder: Path) -> dict[str, int]:
    """The seeds of a grid that was begun in ``folder``."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("[0-9][0-9]-[0-9][0-9].png")):
        request = _request_of(path)
        found = {**{name: request[name] for name in ("seed", "variation_seed") if name in request}, **found}
    return found


def _request_of(path: Path) -> dict[str, Any]:
    """The request in the recipe of a picture; {} without one."""
    try:
        return dict(read_recipe(path).raw.get("request") or {})
    except StarryError:
        return {}


def _with(fields: Mapping[str, Any], field: str, value: Any) -> dict[str, Any]:
    """``fields`` with an axis's value."""
    if field != "lora":
        return {**fields, field: value}
    loras: tuple[Lora, ...] = tuple(fields.get("loras") or ())
    if not loras:
        raise BadRequest(
            "An axis of LoRA weights needs a LoRA; give one.", "LoRA 权重作坐标轴时，需要给出一个 LoRA。"
        )
    rest = loras[1:]
    return {**fields, "loras": ((loras[0][0], value), *rest) if value else rest or None}


def sheet(painted: Mapping[tuple[int, int], Path | bytes | None], x: Axis, y: Axis | None) -> np.ndarray:
    """The contact sheet, uint8 [H, W, 3]: columns ``x``, rows ``y``. ``painted``: picture files by row and column; one that
    is missing is a crossed frame.
    """
    pictures = {at: _small(file) for at, file in painted.items() if file is not None}
    width = max((picture.width for picture in pictures.values()), default=CELL)
    height = max((picture.height for picture in pictures.values()), default=CELL)
    font = ImageFont.load_default(TEXT)
    rows = y.labels() if y is not None else [""]
    left = max(int(font.getlength(label)) for label in rows) + (2 * GAP if y is not None else 0)
    top = TEXT + 2 * GAP
    size = (left + len(x.values) * (width + GAP) + GAP, top + len(rows) * (height + GAP))
    page = Image.new("RGB", size, "#12162b")  # the gallery's night
    draw = ImageDraw.Draw(page)
    for column, label in enumerate(x.labels()):
        middle = left + GAP + column * (width + GAP) + width // 2
        draw.text((middle, top // 2), label, "#f3e9c9", font, anchor="mm")
    for row, label in enumerate(rows):
        draw.text((GAP, top + row * (height + GAP) + height // 2), label, "#f3e9c9", font, anchor="lm")
    for row, column in painted:
        corner = (left + GAP + column * (width + GAP), top + row * (height + GAP))
        if (picture := pictures.get((row, column))) is not None:
            page.paste(picture, corner)
            continue
        far = (corner[0] + width - 1, corner[1] + height - 1)
        draw.rectangle((corner, far), outline="#a04848")
        draw.line((corner, far), "#a04848")
        draw.line(((corner[0], far[1]), (far[0], corner[1])), "#a04848")
    return np.array(page)


def sheet_file(
    painted: Mapping[tuple[int, int], Path | bytes | None], x: Axis, y: Axis | None, prompt: str
) -> bytes:
    """The contact sheet as a PNG that says what it is: its prompt and axes, without a request to paint it again."""
    out, about = io.BytesIO(), PngInfo()
    recipe = {
        "starry_night": RECIPE_VERSION,
        "prompt": prompt,
        "grid": [axis.labels() for axis in (x, y) if axis],
    }
    about.add_itxt("starry_night", plain_json(recipe))
    Image.fromarray(sheet(painted, x, y)).save(out, "PNG", pnginfo=about)
    return out.getvalue()


def _small(file: Path | bytes) -> Image.Image:
    picture = Image.fromarray(read_pixels(file))
    picture.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    return picture
