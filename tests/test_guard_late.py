"""The guard on a card, tried on the CPU: steps that are checked one step late end as those that are checked at once.

For each fault two painters of the same tiny model paint, one that reads its flags late. Pictures, verdicts and refusals must
be the same, whichever stage and step broke.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from saboteur import ALWAYS, HALF, KINDS, Saboteur

from starrynight.errors import Cancelled
from starrynight.painting import flags, guard, schedulers
from starrynight.painting.painter import Painter
from starrynight.painting.results import GeneratedImage, Refused
from starrynight.request import PaintRequest

STEPS = 3
FIRST, LAST = 0, STEPS - 1
ONCE = [
    ("prompt", None),
    *[(stage, step) for step in (FIRST, LAST) for stage in ("prediction", "guidance", "latents")],
    ("decoder", None),
    ("picture", None),
]
ALWAYS_BROKEN = [("prediction", LAST), ("latents", FIRST), ("guidance", 1), ("decoder", None)]
ONLY_IN_FLOAT16 = [("prompt", None), ("prediction", 1), ("decoder", None)]
Painters = Callable[..., Painter]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def painters(tmp_path_factory: pytest.TempPathFactory) -> Painters:
    """A painter for a family and a format, loaded once; its guard reads late if asked to."""
    folders, made = {}, dict[tuple[str, str], Painter]()

    def painter(late: bool, family: str = "zimage", precision: str = "float32") -> Painter:
        if family not in folders:
            folders[family] = tiny.save(family, tmp_path_factory.mktemp(family))
        if (family, precision) not in made:
            made[family, precision] = Painter.ready(ask(folders[family], precision=precision), device="cpu")
        found = made[family, precision]
        found.guard.late = late
        return found

    return painter


def ask(folder: Path | str, **more: Any) -> PaintRequest:
    words = {"prompt": "a starry night", "width": 64, "height": 64, "steps": STEPS, "seed": 5}
    return PaintRequest(model=str(folder), **({"precision": "float32"} | words | more))


def outcomes(
    painter: Painter, saboteur: Saboteur | None, patch: pytest.MonkeyPatch, **more: Any
) -> tuple[Any, ...]:
    """What one picture ended as, and the steps that were told with the finiteness of their latents."""
    request = ask(painter.model.spec.name, **more)
    told: list[tuple[int, bool]] = []

    def on_step(step: Any) -> None:
        told.append((step.step, bool(step.latents.isfinite().all())))

    if saboteur is None:
        (outcome,) = painter.paint(request, on_step)
    else:
        with saboteur.at_work(patch):
            (outcome,) = painter.paint(request, on_step)
    if isinstance(outcome, Refused):
        return "refused", outcome.error.en, outcome.error.zh, outcome.verdict, told
    assert isinstance(outcome, GeneratedImage)
    return "painted", outcome.pixels.tobytes(), outcome.verdict, told


@pytest.mark.parametrize(
    ("precision", "places", "where", "times", "expected"),
    [
        ("float32", ALWAYS_BROKEN, ALWAYS, 99, {"refused"}),
        ("float32", ONCE, ALWAYS, 1, {"painted", "refused"}),
        ("float16", ONLY_IN_FLOAT16, HALF, 99, {"painted"}),
    ],
    ids=["always", "once", "float16"],
)
def test_a_fault_found_late_ends_as_one_found_at_once(
    painters: Painters,
    precision: str,
    places: list[tuple[str, int | None]],
    where: Any,
    times: int,
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = set()
    for number, (stage, step) in enumerate(places):
        found = []
        for late in (False, True):
            painter = painters(late, precision=precision)
            saboteur = Saboteur(painter, stage, step, [*KINDS.values()][number % 3], where, times)
            found.append(outcomes(painter, saboteur, monkeypatch, precision=precision))
        assert found[0] == found[1], (stage, step)
        end, told = found[1][0], found[1][-1]
        ends.add(end)
        assert all(finite for _, finite in told), (stage, step)
        assert [number for number, _ in told] == list(range(len(told)))
        whole = end == "painted" or stage in ("decoder", "picture")
        assert len(told) == (STEPS if whole else step or 0), (stage, step)
    assert ends == expected


@pytest.mark.parametrize("sampler", ["euler_sde", "heun", "lcm", "dpmpp_2m", "unipc"])
def test_samplers_with_a_memory_or_noise_of_their_own_go_back_exactly(
    painters: Painters, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"sampler": sampler, "steps": 4}
    found = []
    for late in (False, True):
        saboteur = Saboteur(painters(late), "prediction", 2, KINDS["NaN"], ALWAYS, times=1)
        found.append(outcomes(painters(late), saboteur, monkeypatch, **words))
    assert found[0] == found[1]
    assert found[0][0] == "painted"
    (attempt,) = found[0][2].attempts
    assert attempt.fault.step == 2
    sound = [outcomes(painters(late), None, monkeypatch, **words) for late in (False, True)]
    assert sound[0] == sound[1]


@pytest.mark.parametrize("sampler", ["euler_a", "heun", "dpmpp_2m_sde", "pndm", "lms"])
def test_a_scheduler_found_broken_late_is_replaced_from_the_same_step(
    painters: Painters, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for late in (False, True):
        painter = painters(late, "sd")
        saboteur = Saboteur(painter, "latents", 2, KINDS["NaN"], ALWAYS, times=1)
        saboteur.scheduler = getattr(diffusers, schedulers.NOISE[sampler][0])
        found.append(outcomes(painter, saboteur, monkeypatch, sampler=sampler, steps=4))
    assert found[0] == found[1]
    assert found[0][0] == ("refused" if sampler == "euler_a" else "painted")


def test_a_picture_begun_from_a_picture_goes_back_to_its_own_steps(
    painters: Painters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "first.png")
    for stage, step in (("encoder", None), ("prediction", 1), ("decoder", None)):
        found = []
        for late in (False, True):
            painter = painters(late)
            saboteur = Saboteur(painter, stage, step, KINDS["+Inf"], ALWAYS, times=1)
            words = {"init_image": tmp_path / "first.png", "strength": 0.7}
            found.append(outcomes(painter, saboteur, monkeypatch, **words))
        assert found[0] == found[1], stage
        assert [attempt.fault.stage for attempt in found[0][2].attempts] == [stage]


def test_previews_of_steps_told_late_are_those_of_their_own_step(painters: Painters) -> None:
    shown = []
    for late in (False, True):
        painter, looks = painters(late, "sd"), []
        list(
            painter.paint(
                ask(painter.model.spec.name), lambda step, looks=looks: looks.append(step.preview())
            )
        )
        shown.append(np.stack(looks))
    assert (shown[0] == shown[1]).all()
    assert len(shown[0]) == STEPS


def test_a_step_is_read_after_the_next_was_given_to_the_device(
    painters: Painters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a sound step is read by its flags alone: no tensor of it is searched."""
    painter = painters(True)
    painter.guard.prompts.clear()  # the text encoder runs, too
    read, searched = [], []
    take, find = flags.Flags.read_step, guard.find

    def read_step(waiting: flags.Flags) -> Any:
        read.append((len(read), painter.guard.step))
        return take(waiting)

    monkeypatch.setattr(flags.Flags, "read_step", read_step)
    monkeypatch.setattr(
        guard, "find", lambda value, stage, step: searched.append(stage) or find(value, stage, step)
    )
    list(painter.paint(ask(painter.model.spec.name)))
    assert read == [(step, min(step + 2, STEPS)) for step in range(STEPS)]
    assert searched == ["prompt", "decoder", "picture"]


def test_a_picture_that_went_back_still_ends_when_it_is_cancelled(
    painters: Painters, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter = painters(True)

    def on_step(step: Any) -> None:
        if step.step == 1:
            raise Cancelled

    saboteur = Saboteur(painter, "prediction", 1, KINDS["NaN"], ALWAYS, times=1)
    with saboteur.at_work(monkeypatch), pytest.raises(Cancelled):
        list(painter.paint(ask(painter.model.spec.name), on_step))
    assert saboteur.left == 0
    assert "forward" not in vars(painter.denoiser)
    sound = [outcomes(painters(late), None, monkeypatch) for late in (False, True)]
    assert sound[0] == sound[1]


def test_a_forward_that_accelerate_has_wrapped_stays_wrapped(
    painters: Painters, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    class Counting(ModelHook):
        calls = 0

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return args, kwargs

    painter, hook = painters(True), Counting()
    add_hook_to_module(painter.denoiser, hook)
    wrapped = vars(painter.denoiser)["forward"]
    try:
        saboteur = Saboteur(painter, "prediction", 2, KINDS["NaN"], ALWAYS, times=1)
        found = outcomes(painter, saboteur, monkeypatch)
        assert vars(painter.denoiser)["forward"] is wrapped
    finally:
        remove_hook_from_module(painter.denoiser)
    assert found[0] == "painted"
    # Every step once; the broken one again while it is located, and under the fallback. None of the sound ones again.
    assert hook.calls == STEPS + 2


def test_flags_tell_the_first_broken_stage_of_a_step() -> None:
    waiting, sound, broken = flags.Flags(), torch.ones(3), torch.tensor([1.0, torch.nan])
    for step in range(2):
        for stage, value in (("prediction", [sound.half(), sound]), ("guidance", sound), ("latents", sound)):
            if (step, stage) in ((1, "guidance"), (1, "latents")):
                value = broken
            waiting.look(flags.Look(value, stage, step, step + 1))
        waiting.close_step()
    assert len(waiting) == 2
    assert waiting.read_step() is None
    look = waiting.read_step()
    assert look is not None
    assert (look.stage, look.step, look.outputs) == ("guidance", 1, 2)
    assert look.fault() == replace(look.fault(), stage="guidance", kind="NaN", count=1, total=2, step=1)
    huge = flags.Flags()
    huge.look(flags.Look(torch.tensor([1e300], dtype=torch.float64), "latents", 0, 0))
    huge.close_step()
    assert huge.read_step() is None  # finite, though float32 does not hold it
