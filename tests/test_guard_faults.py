"""Faults put into every stage and every step of tiny pipelines: each is named, recovered by the right attempt, or refused.

Three kinds of broken numbers, three kinds of fault: one that happens once, one that only a 16-bit format has, one that
nothing helps against. The networks are real; a fault is a layer that computes wrongly at the moment it is text to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from saboteur import ALWAYS, HALF, KINDS, LAYERS, Saboteur

from starrynight import studio
from starrynight.cli import inspect as inspecting
from starrynight.cli import paint as painting
from starrynight.gallery.files import OutputPath
from starrynight.i18n import t
from starrynight.metadata import read_recipe
from starrynight.painting.fallback import Component
from starrynight.painting.painter import Painter
from starrynight.painting.results import GeneratedImage, Refused
from starrynight.picture import Picture
from starrynight.request import PaintRequest
from starrynight.settings import settings
from starrynight.storage import write_cache
from starrynight.verdict import STAGES, Verdict

STEPS = 8
STEP_STAGES = [(s, step) for s in ("prediction", "guidance", "latents") for step in range(STEPS)]
PLACES = [("prompt", None), *STEP_STAGES, ("decoder", None), ("picture", None)]
TURNED = {"NaN": "NaN", "+Inf": "−Inf", "−Inf": "+Inf"}
UNMENDED = ("guidance", "latents", "picture")  # Euler is conservative already; nothing follows the decoder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("zimage", tmp_path_factory.mktemp("zimage"))


@pytest.fixture(scope="module")
def painters(folder: Path) -> Callable[[str], Painter]:
    """A painter for each format, loaded once."""
    made: dict[str, Painter] = {}

    def painter(precision: str) -> Painter:
        if precision not in made:
            made[precision] = Painter.ready(ask(folder, precision=precision), device="cpu")
        return made[precision]

    return painter


def ask(folder: Path, **more: Any) -> PaintRequest:
    words = {
        "prompt": "a starry night",
        "width": 64,
        "height": 64,
        "steps": STEPS,
        "seed": 5,
        "precision": "float32",
    }
    return PaintRequest(model=str(folder), **(words | more))


def paint(painter: Painter, request: PaintRequest) -> list[GeneratedImage | Refused]:
    return list(painter.paint(request))


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_and_step_names_its_fault_and_the_batch_goes_on(
    painters: Callable[[str], Painter], folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault nothing helps against, in the first picture of two. Float32: only attention is left to change."""
    painter, request = painters("float32"), ask(folder, count=2)
    _, sound = paint(painter, request)
    for stage, step in PLACES:
        saboteur = Saboteur(painter, stage, step, KINDS[kind], ALWAYS, times=99)
        outcomes = []
        with saboteur.at_work(monkeypatch):
            for outcome in painter.paint(request):
                saboteur.left = 0  # the second picture is left alone
                outcomes.append(outcome)
        refused, second = outcomes
        assert isinstance(refused, Refused), (stage, step)
        assert (second.pixels == sound.pixels).all(), (stage, step)
        text, tried = (
            refused.error.en,
            [(attempt.name, attempt.recovered) for attempt in refused.verdict.attempts],
        )
        # An Inf inside a network soon makes NaN; Z-Image's pipeline turns the sign of what it was predicted.
        named = TURNED[kind] if stage == "guidance" else kind
        assert f"{named} in " in text or stage == "prediction", text
        assert f"numbers of {STAGES[stage][0]}" in text
        assert ("step" in text) == (step is not None)
        assert step is None or f"step {step + 1} " in text
        assert tried == ([("attention", False)] if saboteur.layer is not None else [])
        assert LAYERS.get(stage, "") in text


def test_a_fault_that_happens_once_is_recovered_where_a_fallback_applies(
    painters: Callable[[str], Painter], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter, request = painters("float32"), ask(folder)
    (sound,) = paint(painter, request)
    for number, (stage, step) in enumerate(PLACES):
        kind = list(KINDS)[number % 3]
        with Saboteur(painter, stage, step, KINDS[kind], ALWAYS, times=1).at_work(monkeypatch):
            (outcome,) = paint(painter, request)
        if stage in UNMENDED:
            assert isinstance(outcome, Refused), (stage, step)
            continue
        (attempt,) = outcome.verdict.attempts
        assert (attempt.name, attempt.recovered, attempt.fault.stage, attempt.fault.step) == (
            "attention",
            True,
            stage,
            step,
        )
        assert outcome.verdict.outcome == "hang"
        # Recovered from the last good latents: the same picture.
        assert np.abs(outcome.pixels - sound.pixels).max() < 1e-4, (stage, step)
    assert (paint(painter, request)[0].pixels == sound.pixels).all()  # and nothing of it stays


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_in_the_encoded_init_image_is_named_and_recovered(
    painters: Callable[[str], Painter],
    folder: Path,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Encoding is float32 in every plan: another attention is the only attempt. Once it helps, always it does not."""
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "first.png")
    painter = painters("float16")
    request = ask(folder, precision="float16", init_image=tmp_path / "first.png", strength=0.6, count=2)
    sound = paint(painter, request)
    assert "encoder" in painter.guard.seen
    saboteur = Saboteur(painter, "encoder", None, KINDS[kind], ALWAYS, times=1)
    with saboteur.at_work(monkeypatch):
        recovered, second = paint(painter, request)
    (attempt,) = recovered.verdict.attempts
    assert (attempt.name, attempt.recovered, attempt.detail) == ("attention", True, "math")
    assert (attempt.fault.stage, attempt.fault.step, attempt.fault.format) == ("encoder", None, "float32")
    assert np.abs(recovered.pixels - sound[0].pixels).max() < 0.02
    assert (second.pixels == sound[1].pixels).all()
    saboteur.left = 3  # while it is looked for, and on the only attempt; the second picture is left alone
    with saboteur.at_work(monkeypatch):
        refused, second = paint(painter, request)
    assert isinstance(refused, Refused)
    assert f"numbers of {STAGES['encoder'][0]}" in refused.error.en
    assert f"float32): {LAYERS['encoder']}" in refused.error.en
    assert [(attempt.name, attempt.recovered) for attempt in refused.verdict.attempts] == [
        ("attention", False)
    ]
    assert (second.pixels == sound[1].pixels).all()


def test_a_fault_of_float16_alone_is_recovered_by_float32_in_the_faulty_module(
    painters: Callable[[str], Painter], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter, request = painters("float16"), ask(folder, precision="float16")
    (sound,) = paint(painter, request)
    for number, (stage, step) in enumerate(PLACES):
        saboteur = Saboteur(painter, stage, step, list(KINDS.values())[number % 3], HALF, times=99)
        if saboteur.layer is None:
            continue
        with saboteur.at_work(monkeypatch):
            (outcome,) = paint(painter, request)
        (attempt,) = outcome.verdict.attempts
        assert attempt.name == ("decoder" if stage == "decoder" else "islands")
        assert (attempt.recovered, attempt.fault.stage, attempt.fault.step, attempt.fault.format) == (
            True,
            stage,
            step,
            "float16",
        )
        assert attempt.detail == ("" if stage == "decoder" else attempt.fault.module)
        assert np.abs(outcome.pixels - sound.pixels).max() < 0.02
    assert (paint(painter, request)[0].pixels == sound.pixels).all()


def test_every_fallback_is_tried_in_order_and_recorded(
    painters: Callable[[str], Painter], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter, request = painters("float16"), ask(folder, precision="float16", count=2)
    before = [(p.dtype, p.data_ptr()) for p in painter.denoiser.parameters()]
    with Saboteur(painter, "prediction", 2, math.nan, ALWAYS, times=99).at_work(monkeypatch):
        first, second = paint(painter, request)
    for refused in (
        first,
        second,
    ):  # the second starts with the first fallback again: a picture is the same alone
        tried = [(attempt.name, attempt.recovered) for attempt in refused.verdict.attempts]
        assert tried == [("islands", False), ("bfloat16", False), ("float32", False), ("attention", False)]
        assert "float32 islands" in refused.error.en
        assert "float32 小岛" in refused.error.zh
        assert refused.verdict.outcome == "refuse"
    assert before == [(p.dtype, p.data_ptr()) for p in painter.denoiser.parameters()]
    assert len(paint(painter, request)[0].verdict.attempts) == 0


def test_a_fallback_that_runs_out_of_memory_is_skipped_and_the_batch_goes_on(
    painters: Callable[[str], Painter], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third tensor made wider finds no room; what the first two became is taken back."""
    painter, request = painters("float16"), ask(folder, precision="float16", count=2)
    sound = paint(painter, request)
    wide = Component._widened
    calls = iter(range(10**6))

    def full(
        part: Component, name: str, tensor: torch.Tensor, dtype: torch.dtype, originals: list[Any]
    ) -> torch.Tensor:
        if next(calls) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 6.00 GiB")
        return wide(part, name, tensor, dtype, originals)

    monkeypatch.setattr(Component, "_widened", full)
    with Saboteur(painter, "prediction", 2, math.nan, ALWAYS, times=99).at_work(monkeypatch):
        outcomes = paint(painter, request)
    for refused in outcomes:
        assert isinstance(refused, Refused)
        assert [
            (r.name, r.recovered, r.detail) for r in refused.verdict.attempts if r.name != "attention"
        ] == [(name, False, "out of memory") for name in ("islands", "bfloat16", "float32")]
        assert "float32 islands (out of memory)" in refused.error.en
        assert "float32 小岛（内存不足）" in refused.error.zh
    monkeypatch.setattr(Component, "_widened", wide)
    for again, before in zip(paint(painter, request), sound, strict=True):
        assert (again.pixels == before.pixels).all()


@pytest.mark.parametrize("loud", [3e3, 1e7])
def test_activations_and_weights_beyond_float16_are_recovered(tmp_path: Path, loud: float) -> None:
    """A loud product in the middle of a layer; at 1e7 the weights themselves are Inf in float16."""
    tiny.save("zimage", tmp_path / "loud", loud=loud)
    request = ask(tmp_path / "loud", steps=2)
    (exact,) = paint(Painter.ready(request, device="cpu"), request)
    half = request.replace(precision="float16")
    (recovered,) = paint(Painter.ready(half, device="cpu"), half)
    (attempt,) = recovered.verdict.attempts
    assert (attempt.name, attempt.recovered, attempt.detail) == (
        "islands",
        True,
        "transformer.layers.0.feed_forward",
    )
    assert attempt.fault.op == ("mul" if loud < 1e5 else "weight")
    assert np.abs(recovered.pixels - exact.pixels).max() < (
        0.02 if loud < 1e5 else 0.2
    )  # w2's had gone subnormal


def test_folds_that_no_longer_hold_are_replanned_and_cached(tmp_path: Path) -> None:
    """A model loaded with folds that were measured on other ranges: here, with none at all."""
    from starrynight.folding import calibrate
    from starrynight.folding.cache import Folds, folds_path
    from starrynight.models import catalogue
    from starrynight.numerics.solve import FoldPlan

    folder = tiny.save(
        "zimage", tmp_path / "loud-turbo", loud=1e4
    )  # calibrated in 9 steps, not in 50 with guidance
    request = ask(folder, steps=2)
    model = catalogue.resolve(str(folder))
    stale = Folds(FoldPlan(), calibrate.usual(model), {"finite": True})
    write_cache(folds_path(model), stale.to_json().encode())
    (exact,) = paint(Painter.ready(request, device="cpu"), request)
    folded = request.replace(precision="float16-folded")
    painter = Painter.ready(folded, device="cpu")
    (recovered,) = paint(painter, folded)
    (attempt,) = recovered.verdict.attempts
    assert (attempt.name, attempt.recovered, attempt.fault.step) == ("replan", True, 0)
    assert np.abs(recovered.pixels - exact.pixels).mean() < 0.003
    (later,) = paint(painter, folded)
    (fresh,) = paint(Painter.ready(folded, device="cpu"), folded)
    assert later.verdict.attempts == fresh.verdict.attempts == ()
    assert (later.pixels == fresh.pixels).all()  # the folds are kept: here and after a restart the same bytes


def test_a_scheduler_that_breaks_is_replaced_by_the_conservative_one(
    folder: Path,
    painters: Callable[[str], Painter],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broken at the last step, where every sampler's step leads to the same place: the finished picture."""
    import diffusers

    from starrynight.painting import schedulers

    noisy = tiny.save("sd", tmp_path_factory.mktemp("sd"))
    for painter, where, table in (
        (Painter.ready(ask(noisy), device="cpu"), noisy, schedulers.NOISE),
        (painters("float32"), folder, schedulers.FLOW),
    ):
        plain = "euler" if painter.model.spec.flow else "euler_a"
        for name, (class_name, _) in table.items():
            request = ask(where, sampler=name, steps=4)
            steps: list[int] = []
            (sound,) = painter.paint(request, lambda step, steps=steps: steps.append(step.steps))
            saboteur = Saboteur(painter, "latents", steps[0] - 1, math.nan, ALWAYS, times=1)
            saboteur.scheduler = getattr(diffusers, class_name)
            with saboteur.at_work(monkeypatch):
                (outcome,) = paint(painter, request)
            if name == plain:
                assert isinstance(outcome, Refused)
                continue
            (attempt,) = outcome.verdict.attempts
            assert (attempt.name, attempt.detail, attempt.recovered) == ("sampler", plain, True)
            assert attempt.fault.module == class_name
            # DEIS ends above no noise at all, where Euler ancestral adds a little; a wrong scale would show at once.
            assert np.abs(outcome.pixels - sound.pixels).max() < 0.02, name
            assert outcome.sampler == name


def test_the_recipe_of_a_saved_picture_names_the_fallback(
    painters: Callable[[str], Painter], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = studio.Studio(OutputPath(tmp_path / "out"))
    room._painter = painters("float16")
    room.device = "cpu"
    request = ask(folder, precision="float16", steps=2)
    with Saboteur(painters("float16"), "prediction", 1, math.nan, HALF, times=99).at_work(monkeypatch):
        (saved,) = room.paint(request)
    assert isinstance(saved, studio.SavedPicture)
    verdict = Verdict.from_dict(read_recipe(saved.place).raw["verdict"])
    assert verdict == saved.picture.verdict
    (line,) = verdict.recoveries("en")
    assert "step 2 (float16): transformer.layers.1.feed_forward.w2" in line
    assert line.endswith("float32 islands (transformer.layers.1.feed_forward.w2)")
    (line,) = verdict.recoveries("zh")
    assert "第 2 步" in line
    text = verdict.attempts[0].message(settings().lang)
    assert text in painting.picture_line(saved)
    assert text in dict(inspecting.facts(read_recipe(saved.place)))[t("recovered", "修复")]
    assert Picture(saved.picture.pixels, saved.picture.recipe).verdict == verdict


def test_stages_that_were_not_checked_are_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = Painter.ready(ask(folder), device="cpu")
    decode = type(painter.pipeline.vae).decode
    monkeypatch.setattr(painter.pipeline.vae, "decode", lambda *a, **k: decode(painter.pipeline.vae, *a, **k))
    (outcome,) = paint(painter, ask(folder, steps=1))
    assert (outcome.verdict.outcome, outcome.verdict.reasons) == ("unchecked", ("not looked at: decoder",))


def test_clamps_are_counted_when_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter, request = Painter.ready(ask(folder), device="cpu"), ask(folder, steps=1)
    (plain,) = paint(painter, request)
    painter.guard.count_clamps = True
    (outcome,) = paint(painter, request)
    assert (plain.verdict.clamps, outcome.verdict.clamps) == (None, {})
    assert (outcome.pixels == plain.pixels).all()
    layer = painter.denoiser.layers[0].feed_forward
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda x: forward(x).clamp(-1e-9, 1e-9))
    (outcome,) = paint(painter, request)
    assert list(outcome.verdict.clamps) == ["transformer.layers.0.feed_forward clamp"]
    assert outcome.verdict.clamps["transformer.layers.0.feed_forward clamp"] > 100
