"""A LoRA of every kind under both kinds of offloading and under emulated float16: the picture of a model whose file holds the sum."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_lora_kinds import KINDS

from starrynight.models import catalogue, load, precision_plan
from starrynight.numerics.precision import PrecisionPlan
from starrynight.painting import offload
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest

LAYER = "layers.0.attention.to_q"
CPU = torch.device("cpu")
PLACES = {"model": ("model", False), "sequential": ("sequential", False), "emulated": ("resident", True)}
# Largest difference of a pixel: kinds are computed in float32 and here in float64, which may round to another float16.
ALIKE = {False: 2e-4, True: 4e-3}


def weights_of(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    (file,) = (folder / "transformer").glob("*.safetensors")
    return file, load_file(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Z-Image, one weight of which is of float16, so that its sum with a LoRA is rounded once."""
    place = tiny.save("zimage", tmp_path_factory.mktemp("plain"))
    file, weights = weights_of(place)
    weights[f"{LAYER}.weight"] = weights[f"{LAYER}.weight"].half().float()
    save_file(weights, file)
    return place


@pytest.fixture(scope="module")
def painters(folder: Path) -> dict[str, Painter]:
    return {name: painter_of(folder, *place) for name, place in PLACES.items()}


@pytest.fixture(scope="module")
def before(painters: dict[str, Painter]) -> dict[str, np.ndarray]:
    return {name: one(painter) for name, painter in painters.items()}


def painter_of(folder: Path, arrangement: str = "resident", emulated: bool = False) -> Painter:
    model = catalogue.resolve(str(folder))
    plan = precision_plan.choose(model, "cpu", "float32")
    if emulated:
        plan = PrecisionPlan(tuple(
            replace(one, format="float16", emulated=True) if one.component == "transformer" else one for one in plan
        ))  # fmt: skip
    pipeline = load.load(model, plan)
    tiny.offload_unnumbered(pipeline)
    offload.place(pipeline, CPU, arrangement)
    return Painter(pipeline, model, plan, CPU, arrangement)


def one(painter: Painter, loras: tuple[tuple[str, float], ...] = ()) -> np.ndarray:
    request = PaintRequest(
        prompt="a starry night", model=painter.model.spec.name, width=64, height=64, steps=2, seed=5, precision="float32", loras=loras,
    )  # fmt: skip
    return tiny.pixels_of(next(painter.paint(request)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_of_any_kind_is_the_sum_in_the_file(
    folder: Path, painters: dict[str, Painter], before: dict[str, np.ndarray], kind: str, tmp_path: Path
) -> None:
    summed = Path(shutil.copytree(folder, tmp_path / "summed"))
    file, weights = weights_of(summed)
    original = weights[f"{LAYER}.weight"]
    parts, wanted = KINDS[kind](original)
    save_file(
        {f"transformer.{LAYER}.{name}": part for name, part in parts.items()}, tmp_path / "kind.safetensors"
    )
    exact = original.double() + wanted(
        {name: part.double() for name, part in parts.items()}, original.double()
    )
    weights[f"{LAYER}.weight"] = exact.float()
    save_file(weights, file)
    of_sum = {emulated: one(painter_of(summed, emulated=emulated)) for emulated in ALIKE}
    for name, (_, emulated) in PLACES.items():
        applied = one(painters[name], ((str(tmp_path / "kind.safetensors"), 1.0),))
        assert np.abs(applied - of_sum[emulated]).max() < ALIKE[emulated], name
        assert np.abs(applied - before[name]).max() > 2 * ALIKE[emulated], name
        assert (one(painters[name]) == before[name]).all(), name  # taken off without a trace
