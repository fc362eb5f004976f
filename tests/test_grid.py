"""Grids: every cell is the picture that its request paints, a stopped grid goes on, and what means nothing is refused."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from PIL import Image

from starrynight.errors import BadRequest, UnknownName
from starrynight.gallery.files import OutputPath
from starrynight.lab import grid
from starrynight.lab.axes import parse_axis
from starrynight.metadata import read_recipe
from starrynight.studio import Studio


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.save("zimage", tmp_path_factory.mktemp("zimage")))


def plan(model, folder, x, y=None, **more):
    fields = {
        "prompt": "stars",
        "model": model,
        "width": 64,
        "height": 64,
        "steps": 2,
        "precision": "float32",
    }
    return grid.plan(fields | more, parse_axis(x), parse_axis(y) if y else None, folder)


def paint(one, stop=None):
    """Paint up to ``stop`` cells; how many steps were taken."""
    steps = []
    for number, _ in enumerate(one.paint(Studio(OutputPath(one.folder), "cpu"), steps.append), 1):
        if number == stop:
            break
    return len(steps)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("steps=4,8,16", (4, 8, 16)),
        ("seed=3..5,9", (3, 4, 5, 9)),
        ("guidance=1,2.5", (1.0, 2.5)),
        ("style=none,oil", (None, "oil")),
        ("precision = bfloat16, float32", ("bfloat16", "float32")),
        ("seed=1,1,2", (1, 2)),
    ],
)
def test_axes_are_read(text, values):
    assert parse_axis(text).values == values


@pytest.mark.parametrize(
    "text", ["steps", "steps=", "steps=a", "steps=5..4", "steps=1.5", "guidance=1..3", "seed=none"]
)
def test_axes_that_name_no_values_are_refused(text):
    with pytest.raises(BadRequest, match="no axis"):
        parse_axis(text)


def test_fields_that_are_no_axis_are_refused_with_those_that_are():
    with pytest.raises(UnknownName, match="steps"):
        parse_axis("step=1,2")


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [("seed=1,2", "seed=3", "two different"), ("seed=1..30", "steps=1..30", "too many"), ("lora=0,1", None, "needs a LoRA"),
     ("steps=1,500", None, "150"), ("style=oil,no-such-style", None, "no-such-style")],
)  # fmt: skip
def test_grids_that_cannot_be_painted_are_refused_before_the_first_picture(model, tmp_path, x, y, word):
    with pytest.raises((BadRequest, UnknownName), match=word):
        plan(model, tmp_path / "grid", x, y)
    assert not (tmp_path / "grid").exists()


def test_a_stopped_grid_goes_on_with_the_seed_it_drew(model, tmp_path):
    folder = tmp_path / "grid"
    first = plan(model, folder, "steps=1,2,3", "guidance=1,2")
    assert paint(first, stop=4) == 1 + 2 + 3 + 1
    again = plan(model, folder, "steps=1,2,3", "guidance=1,2")
    assert [cell.request for cell in again.cells] == [cell.request for cell in first.cells]
    assert "4 of them" in again.message() or "4 幅已有" in again.message()
    assert paint(again) == 2 + 3
    for cell in again.cells:
        recipe = read_recipe(cell.path(folder))
        assert (recipe.steps, recipe.guidance) == ((1, 2, 3)[cell.column], (1.0, 2.0)[cell.row])


def test_the_sheet_shows_each_picture_in_its_place_and_crosses_what_is_missing(model, tmp_path):
    one = plan(model, tmp_path / "grid", "seed=1,2")
    paint(one, stop=1)
    page = np.array(Image.open(one.save_sheet()))
    picture = np.array(Image.open(one.cells[0].path(one.folder)))
    columns = np.flatnonzero(
        (page[-grid.GAP - 64 : -grid.GAP, : 64 + grid.GAP] == picture[:, :1]).all((0, 2))
    )
    assert grid.GAP in columns
    assert (page[-grid.GAP - 64 : -grid.GAP, grid.GAP : grid.GAP + 64] == picture).all()
    missing = page[-grid.GAP - 64 : -grid.GAP, 2 * grid.GAP + 64 : 2 * grid.GAP + 128]
    assert len(np.unique(missing.reshape(-1, 3), axis=0)) == 2  # the night, and the lines of a crossed frame
