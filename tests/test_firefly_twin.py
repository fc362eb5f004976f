"""The wide twin: Firefly's pictures bit for bit, with activations that float16 cannot hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from starrynight.errors import BrokenNumbers
from starrynight.firefly import twin
from starrynight.models.weights import of_folder
from starrynight.numerics.fold import read_plan
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))


def paint(model: str | Path, precision: str) -> np.ndarray:
    request = PaintRequest(prompt="星夜下的静谧村庄", model=str(model), precision=precision, seed=3, width=128,
                           height=128, steps=4)  # fmt: skip
    painter = Painter.ready(request, device="cpu", recover=False)  # a format as it is
    return tiny.pixels_of(next(painter.paint(request)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_twin_paints_fireflys_pictures_bit_for_bit(wide: Path, precision: str) -> None:
    assert np.array_equal(paint(wide, precision), paint("firefly", precision))


def test_plain_float16_breaks_in_the_twin(wide: Path) -> None:
    with pytest.raises(BrokenNumbers):
        paint(wide, "float16")


def test_diffusers_alone_paints_the_same_up_to_the_epsilons(wide: Path) -> None:
    from diffusers import DiffusionPipeline

    pictures = []
    for folder in (twin.SHIPPED, wide):
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        result = pipeline("a lake", height=128, width=128, num_inference_steps=2, output_type="np",
                          generator=torch.Generator().manual_seed(1))  # fmt: skip
        pictures.append(result.images)
    assert np.abs(pictures[0] - pictures[1]).max() < 1 / 255


def test_the_twin_is_a_whole_folder_with_its_plan_and_is_made_once(wide: Path) -> None:
    of_folder(wide)
    plan = read_plan(wide / "transformer" / "diffusion_pytorch_model.safetensors")
    assert plan is not None
    assert plan.parameters["transformer.all_x_embedder.2-1.weight"] > 10
    assert plan.epsilons["transformer.layers.0.attention_norm1.eps"] > 20
    before = (wide / "vae" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    assert twin.make(wide) == wide
    assert (wide / "vae" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == before
