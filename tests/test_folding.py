"""Range folding inside the painter: made once, kept, proved, followed by LoRAs; on the wide twin, the real thing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from starrynight.folding import calibrate
from starrynight.folding.cache import CalibrationSample, Folds, cached_folds
from starrynight.models import load, precision_plan
from starrynight.models.catalogue import LocalModel, resolve
from starrynight.numerics import fold, precision
from starrynight.numerics.emulate import Emulation
from starrynight.numerics.islands import cast_with_islands
from starrynight.numerics.solve import FoldPlan
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(home))
    monkeypatch.setattr(calibrate, "usual", small)


def small(model: LocalModel) -> tuple[CalibrationSample, ...]:
    """The calibration's two prompts in a quarter of the pixels and half the steps; ``make prove`` takes all of them."""
    return tuple(
        CalibrationSample(prompt, *shape, steps=4, guidance=2.0, seed=number)
        for number, (prompt, shape) in enumerate(
            zip(calibrate.CALIBRATION, ((128, 128), (192, 128)), strict=True)
        )
    )


@pytest.fixture(scope="module")
def text() -> list[tuple[int, int, tuple[str, str]]]:
    return []


@pytest.fixture(scope="module")
def folded(wide: Path, home: Path, text: list[Any]) -> Painter:
    """A painter in folded float16, whose folds are made here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STARRY_HOME", str(home))
        patch.setattr(calibrate, "usual", small)
        request = ask(wide, "float16-folded")
        return Painter.ready(request, device="cpu", on_folding=lambda *words: text.append(words))


def ask(model: Path | str, precision: str, **more: Any) -> PaintRequest:
    words = {"prompt": "月下的湖", "seed": 5, "width": 128, "height": 128, "steps": 4}
    return PaintRequest(model=str(model), precision=precision, **(words | more))


def one(painter: Painter, request: PaintRequest) -> np.ndarray:
    return tiny.pixels_of(next(painter.paint(request)))


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    return float(-10 * np.log10(((picture - reference) ** 2).mean()))


@pytest.fixture(scope="module")
def reference(wide: Path) -> np.ndarray:
    request = ask(wide, "float32")
    return one(Painter.ready(request, device="cpu"), request)


def test_folded_float16_paints_what_plain_float16_cannot(
    wide: Path, folded: Painter, reference: np.ndarray, text: list[Any]
) -> None:
    picture = one(folded, ask(wide, "float16-folded"))
    brain = ask(wide, "bfloat16")
    assert psnr(picture, reference) > psnr(one(Painter.ready(brain, device="cpu"), brain), reference) + 12
    formats = {choice.component: choice.format for choice in folded.plan}
    assert formats == {"transformer": "float16-folded", "text_encoder": "float16-folded", "vae_decode": "float16-folded",
                       "vae_encode": "float32"}  # fmt: skip
    assert {p.dtype for p in folded.denoiser.parameters()} == {torch.float16}
    steps = [done for done, _, _ in text]
    assert steps == sorted(steps)
    assert set(steps) == set(range(text[-1][1] + 1)), "progress tells every step"


def test_folds_are_cached_with_their_certificate(wide: Path, folded: Painter) -> None:
    kept = cached_folds(resolve(str(wide)))
    assert kept is not None
    assert kept.certificate["finite"]
    assert kept.certificate["float32-folded"]["error"] == 0
    assert kept.certificate["float16-folded"]["psnr"] > kept.certificate["bfloat16"]["psnr"] + 12
    assert Folds.from_json(kept.to_json()) == kept
    text: list[Any] = []
    Painter.ready(ask(wide, "float16-folded"), device="cpu", on_folding=lambda *words: text.append(words))
    assert text == [], "nothing is measured twice"


def test_slow_float16_is_emulated_and_the_recipe_says_so(wide: Path, folded: Painter) -> None:
    if not precision_plan.machine("cpu").emulates_float16:
        pytest.skip("this processor's own float16 is fast")
    text = folded.plan.to_dict()["transformer"]
    assert text["emulated"] is True
    assert "emulated" in text["reason_en"]
    assert "模拟" in text["reason_zh"]


def lora(model: Any, path: Path) -> str:
    """A LoRA over layers that the folds touch and one that they do not."""
    layers = ("layers.2.feed_forward.w2", "layers.3.attention.to_v", "layers.4.feed_forward.w3",
              "layers.1.attention.to_q")  # fmt: skip
    draw, state = torch.Generator().manual_seed(1), {}
    for layer in layers:
        weight = model.get_submodule(layer).weight
        state[f"transformer.{layer}.lora_A.weight"] = torch.randn(4, weight.shape[1], generator=draw)
        state[f"transformer.{layer}.lora_B.weight"] = torch.randn(weight.shape[0], 4, generator=draw) * 0.02
    save_file(state, path)
    return str(path)


def test_a_lora_follows_the_folds(wide: Path, folded: Painter, tmp_path: Path) -> None:
    """Made for Firefly, put on Firefly, on its twin, on the folded twin: one picture, bit for bit in float32."""
    firefly = Painter.ready(ask("firefly", "float32"), device="cpu")
    name = lora(firefly.denoiser, tmp_path / "moonlight.safetensors")
    dressed = {"loras": ((name, 0.8),)}
    expected = one(firefly, ask("firefly", "float32", **dressed))
    assert psnr(expected, one(firefly, ask("firefly", "float32"))) < 45, "the LoRA must show"
    twin = Painter.ready(ask(wide, "float32"), device="cpu")
    assert np.array_equal(one(twin, ask(wide, "float32", **dressed)), expected)
    kept = cached_folds(twin.model)
    assert kept is not None
    plan = calibrate.uniform(twin.model, "float32-folded")
    exact = Painter(load.load(twin.model, plan, kept.plan), twin.model, plan, torch.device("cpu"), "resident")
    assert exact.pipeline.folds != twin.pipeline.folds
    assert np.array_equal(one(exact, ask(wide, "float32", **dressed)), expected)
    before = one(folded, ask(wide, "float16-folded"))
    assert psnr(one(folded, ask(wide, "float16-folded", **dressed)), expected) > 55
    assert np.array_equal(one(folded, ask(wide, "float16-folded")), before), "it comes off without a trace"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_runs_through_a_whole_firefly(dtype: torch.dtype) -> None:
    """Every weight and every result of every network in 8 bits: a picture still."""
    model = resolve("firefly")
    sample = CalibrationSample("星夜", 128, 128, 2, 2.0, seed=1)
    reference = calibrate.paint(load.load(model, calibrate.uniform(model, "float32")), model, sample)
    pipeline = load.load(model, calibrate.uniform(model, "bfloat16"))
    for network in load.networks(pipeline).values():
        cast_with_islands(network, (), dtype)
    with Emulation():
        picture = calibrate.paint(pipeline, model, sample)
    assert picture.isfinite().all()
    assert 20 < psnr(picture.numpy(), reference.numpy()) < 40


def test_where_folds_are_offered() -> None:
    """On cards that have float16 and no bfloat16; never instead of bfloat16; always when asked for."""
    model = resolve("firefly")
    card = precision.Device("cuda", "RTX 2070", capability=(7, 5), memory=8 << 30)
    new = precision.Device("cuda", "RTX 4090", capability=(8, 9), memory=24 << 30)
    slow = precision.Device("cpu", "cpu", rates={"float32": 100.0, "bfloat16": 30.0, "float16": 2.0})
    formats = {}
    for device in (card, new, slow):
        formats[device.name] = precision_plan.decide(model, device, "auto")["transformer"].format
        assert (
            precision_plan.decide(model, device, "float16-folded")["transformer"].format == "float16-folded"
        )
        assert precision_plan.decide(model, device, "float16")["transformer"].format == "float16"
    assert formats == {"RTX 2070": "float16-folded", "RTX 4090": "bfloat16", "cpu": "float32"}


def test_a_component_that_no_fold_helps_becomes_float32() -> None:
    folds = Folds(FoldPlan(islands=("vae.decoder", "text_encoder.layers.1")), (), {"finite": True})
    assert [folds.usable(name) for name in ("transformer", "text_encoder", "vae")] == [True, True, False]
    assert not Folds(FoldPlan(), (), {"finite": False}).usable("transformer")
    assert calibrate.component_of(precision.Choice("vae_decode", "float16-folded", "", "")) == "vae"


def test_folds_are_made_on_a_card_that_holds_the_model_in_16_bits_and_else_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = resolve("firefly")
    needed = 2 * sum(model.parameters.values()) + calibrate.ACTIVATIONS
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    right = {"bfloat16", "float16"}
    for device, free, budget, stores, expected in (
        (cuda, needed, None, right, cuda),
        (cuda, needed - 1, None, right, cpu),
        (cuda, needed - 1, needed, right, cuda),
        (cuda, needed, needed - 1, right, cpu),
        (cuda, needed, None, {"float16"}, cpu),
        (torch.device("mps"), needed, None, right, cpu),
        (cpu, None, None, right, cpu),
    ):
        monkeypatch.setattr(calibrate, "free_bytes", lambda device, free=free: free)
        monkeypatch.setattr(calibrate.precision_plan, "stores", lambda kind, stores=stores: frozenset(stores))
        assert calibrate.device_for(model, device, budget) == expected


def test_folding_on_a_device_gives_the_same_numbers_as_folding_in_place() -> None:
    """The device is, here, the CPU itself; ``benchmarks/card.py`` folds on a card."""
    layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).bfloat16()
    plan = FoldPlan(parameters={"net.0.weight": -3, "net.0.bias": -3, "net.1.weight": 3}, islands=("net.1",))
    there = copy.deepcopy(layers)
    fold.fold_and_cast(layers, plan, torch.float16, "net")
    fold.fold_and_cast(there, plan, torch.float16, "net", torch.device("cpu"))
    for one, other in zip(layers.parameters(), there.parameters(), strict=True):
        assert (one.dtype, one.device) == (other.dtype, other.device)
        assert torch.equal(one, other)
    assert [part.weight.dtype for part in there] == [torch.float16, torch.float32]
