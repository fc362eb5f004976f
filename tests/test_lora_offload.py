"""A merged LoRA under both kinds of offloading and under emulated float16: the picture of a model whose file holds the sum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_painter import _unnumber

from starrynight.models import catalogue, load, precision_plan
from starrynight.numerics.precision import PrecisionPlan
from starrynight.painting import offload
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest

LAYER = "layers.0.attention.to_q"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny Z-Image; and the same with a difference added to one weight in its file. That weight is one of float16, so that
    the sum is rounded once in both.
    """
    plain, summed = (tiny.save("zimage", tmp_path_factory.mktemp(name)) for name in ("plain", "summed"))
    for folder, share in ((plain, 0.0), (summed, 1.0)):
        (file,) = (folder / "transformer").glob("*.safetensors")
        weights = load_file(file)
        weight = weights[f"{LAYER}.weight"].half().float()
        weights[f"{LAYER}.weight"] = weight + share * difference(weight.shape)
        save_file(weights, file)
    return plain, summed


def difference(shape: torch.Size) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def lora(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    (tmp_path / "loras").mkdir()
    (file,) = (folders[0] / "transformer").glob("*.safetensors")
    shape = load_file(file)[f"{LAYER}.weight"].shape
    save_file({f"diffusion_model.{LAYER}.diff": difference(shape)}, tmp_path / "loras" / "sum.safetensors")
    return "sum"


def painter_of(folder: Path, arrangement: str = "resident", emulated: bool = False) -> Painter:
    model = catalogue.resolve(str(folder))
    plan = precision_plan.choose(model, "cpu", "float32")
    if emulated:
        plan = PrecisionPlan(tuple(
            replace(one, format="float16", emulated=True) if one.component == "transformer" else one for one in plan
        ))  # fmt: skip
    pipeline = load.load(model, plan)
    own = pipeline.enable_sequential_cpu_offload

    def numbered(**options: object) -> None:
        own(**options)
        _unnumber(pipeline)

    pipeline.enable_sequential_cpu_offload = numbered
    offload.place(pipeline, CPU, arrangement)
    return Painter(pipeline, model, plan, CPU, arrangement)


def one(painter: Painter, loras: tuple[tuple[str, float], ...] = ()) -> np.ndarray:
    request = PaintRequest(
        prompt="a starry night", model=painter.model.spec.name, width=64, height=64, steps=2, seed=5, precision="float32", loras=loras,
    )  # fmt: skip
    return tiny.pixels_of(next(painter.paint(request)))


@pytest.mark.parametrize(
    ("arrangement", "emulated"), [("model", False), ("sequential", False), ("resident", True)]
)
def test_a_merged_lora_is_the_sum_in_the_file(
    folders: tuple[Path, Path], lora: str, arrangement: str, emulated: bool
) -> None:
    plain, summed = folders
    painter = painter_of(plain, arrangement, emulated)
    before = one(painter)
    worn = one(painter, ((lora, 1.0),))
    assert np.abs(worn - one(painter_of(summed, emulated=emulated))).max() < 2e-5
    assert np.abs(worn - before).max() > 1e-3
    assert (one(painter) == before).all()  # taken off without a trace
