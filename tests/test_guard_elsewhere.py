"""The fallbacks where weights are not in their modules: offloaded by component or by layer, and under a LoRA."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from saboteur import ALWAYS, HALF, LAYERS, Saboteur
from safetensors.torch import load_file, save_file
from test_guard_faults import ask, paint

from starrynight.models import catalogue, load, precision_plan
from starrynight.painting import offload
from starrynight.painting.fallback import Component
from starrynight.painting.painter import Painter
from starrynight.painting.results import Refused

ARRANGEMENTS = ("model", "sequential")
ALL_FALLBACKS = [("islands", False), ("bfloat16", False), ("float32", False), ("attention", False)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def an_accelerator_that_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    place = offload.place

    def place_here(pipeline: Any, device: torch.device, arrangement: offload.Arrangement) -> None:
        place(pipeline, device, arrangement)
        if arrangement == "sequential":
            tiny.unnumber(pipeline)

    monkeypatch.setattr(offload, "place", place_here)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("zimage", tmp_path_factory.mktemp("zimage"))


def placed(folder: Path, arrangement: str) -> Painter:
    """In float16. accelerate's own hooks move the weights; the accelerator they move to is, here, the CPU itself."""
    model, device = catalogue.resolve(str(folder)), torch.device("cpu")
    plan = precision_plan.choose(model, "cpu", "float16")
    pipeline = load.load(model, plan)
    offload.place(pipeline, device, arrangement)  # type: ignore[arg-type]
    return Painter(pipeline, model, plan, device, arrangement)  # type: ignore[arg-type]


def weights(painter: Painter) -> dict[str, torch.Tensor]:
    """Every number of every network, wherever it waits, by name."""
    return {
        f"{component}.{name}.{own}": offload.numbers(module, own)
        for component, network in painter.pipeline.components.items()
        if isinstance(network, torch.nn.Module)
        for name, module in network.named_modules()
        for own in (*module._parameters, *module._buffers)
        if getattr(module, own) is not None
    }


def same_weights(painter: Painter, before: dict[str, torch.Tensor]) -> bool:
    after = weights(painter)
    return after.keys() == before.keys() and all(
        tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])
        for name, tensor in after.items()
    )


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_faults_in_offloaded_weights_are_recovered_and_every_change_is_undone(
    folder: Path, arrangement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter, request = placed(folder, arrangement), ask(folder, precision="float16", steps=2)
    (sound,) = paint(painter, request)
    before = {name: tensor.clone() for name, tensor in weights(painter).items()}
    for stage, step, attempt in (
        ("prompt", None, "islands"),
        ("prediction", 1, "islands"),
        ("decoder", None, "decoder"),
    ):
        with Saboteur(painter, stage, step, math.inf, HALF, times=99).at_work(monkeypatch):
            (outcome,) = paint(painter, request)
        (tried,) = outcome.verdict.attempts
        assert (tried.name, tried.recovered, tried.fault.step) == (attempt, True, step)
        assert tried.fault.module == LAYERS[stage], "found although its weights come and go"
        assert np.abs(outcome.pixels - sound.pixels).max() < 0.02
        assert same_weights(painter, before), stage
    assert (paint(painter, request)[0].pixels == sound.pixels).all()


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_every_fallback_works_on_offloaded_weights(
    folder: Path, arrangement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter, request = placed(folder, arrangement), ask(folder, precision="float16", steps=2, count=2)
    _, sound = paint(painter, request)
    before = {name: tensor.clone() for name, tensor in weights(painter).items()}
    saboteur = Saboteur(painter, "prediction", 1, math.nan, ALWAYS, times=99)
    outcomes = []
    with saboteur.at_work(monkeypatch):
        for outcome in painter.paint(request):
            saboteur.left = 0
            outcomes.append(outcome)
    refused, second = outcomes
    assert isinstance(refused, Refused)
    assert [(attempt.name, attempt.recovered) for attempt in refused.verdict.attempts] == ALL_FALLBACKS
    assert (second.pixels == sound.pixels).all()
    assert same_weights(painter, before)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("loud", [3e3, 1e7])
def test_loud_layers_and_broken_weights_are_recovered_where_they_are_offloaded(
    tmp_path: Path, arrangement: str, loud: float
) -> None:
    """At 1e7 float16 makes weights infinite: they are named, and read again from the model's files."""
    tiny.save("zimage", tmp_path / "loud", loud=loud)
    request = ask(tmp_path / "loud", precision="float16", steps=2)
    (expected,) = paint(Painter.ready(request, device="cpu"), request)
    (recovered,) = paint(placed(tmp_path / "loud", arrangement), request)
    assert recovered.verdict.attempts == expected.verdict.attempts
    assert recovered.verdict.attempts[0].fault.op == ("mul" if loud < 1e5 else "weight")
    assert np.abs(recovered.pixels - expected.pixels).max() < 2e-3


def test_undoing_a_change_follows_weights_that_moved() -> None:
    """Model offload carries a component away when the next one runs; it must not come back by being recovered."""
    network = torch.nn.Sequential(torch.nn.Linear(4, 4)).half()
    part = Component("transformer", {"transformer": network})
    part.recast(torch.float32)
    network.to("meta")  # the only other place that a machine without an accelerator has
    part.restore()
    assert {(p.dtype, p.device.type) for p in network.parameters()} == {(torch.float16, "meta")}


def lora(folder: Path, path: Path) -> str:
    """Over the layer that the saboteur breaks, its island's neighbours, and another."""
    (file,) = (folder / "transformer").glob("*.safetensors")
    state, draw = {}, torch.Generator().manual_seed(1)
    for layer in ("layers.1.feed_forward.w2", "layers.1.feed_forward.w1", "layers.0.attention.to_q"):
        rows, columns = load_file(file)[f"{layer}.weight"].shape
        state[f"transformer.{layer}.lora_A.weight"] = torch.randn(4, columns, generator=draw)
        state[f"transformer.{layer}.lora_B.weight"] = torch.randn(rows, 4, generator=draw) * 0.3
    save_file(state, path)
    return str(path)


@pytest.mark.parametrize("arrangement", ["resident", *ARRANGEMENTS])
def test_a_lora_stays_applied_at_its_weight_through_every_fallback(
    folder: Path, tmp_path: Path, arrangement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter = placed(folder, arrangement)
    bare = ask(folder, precision="float16", steps=2)
    with_lora = bare.replace(loras=((lora(folder, tmp_path / "moonlight.safetensors"), 0.8),))
    (without_lora,) = paint(painter, bare)
    (sound,) = paint(painter, with_lora)
    assert np.abs(sound.pixels - without_lora.pixels).max() > 0.05, "the LoRA must show"
    applied: list[tuple[Any, ...]] = []

    def seen(part: Component, change: Callable[..., Any], *text: Any) -> Any:
        layer = painter.denoiser.get_submodule("layers.1.feed_forward.w2")
        applied.append((layer.active_adapters, layer.scaling[layer.active_adapters[0]], layer.merged))
        return change(part, *text)

    for times, formats in ((99, HALF), (99, ALWAYS)):
        recast = Component.recast
        with monkeypatch.context() as patch:
            patch.setattr(
                Component,
                "recast",
                lambda part, *a, r=recast, **k: seen(part, lambda p, *b: r(p, *b, **k), *a),
            )
            with Saboteur(painter, "prediction", 1, math.nan, formats, times).at_work(monkeypatch):
                (outcome,) = paint(painter, with_lora)
        if formats == HALF:
            (attempt,) = outcome.verdict.attempts
            assert (attempt.name, attempt.recovered) == ("islands", True)
            assert attempt.fault.module == LAYERS["prediction"] + ".base_layer"
            assert np.abs(outcome.pixels - sound.pixels).max() < 0.02, "recovered with the LoRA on"
        else:
            assert [
                (attempt.name, attempt.recovered) for attempt in outcome.verdict.attempts
            ] == ALL_FALLBACKS
    assert len(applied) > 4
    assert len(set(map(str, applied))) == 1
    assert applied[0][1:] == (0.8, False)
    assert (paint(painter, with_lora)[0].pixels == sound.pixels).all(), "and nothing of it stays"
    assert (paint(painter, bare)[0].pixels == without_lora.pixels).all()
