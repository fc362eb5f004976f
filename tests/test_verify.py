"""``--verify``: the first prediction in float32 beside the chosen format; the picture and the weights stay as they are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_guard_elsewhere import (
    ARRANGEMENTS,
    an_accelerator_that_is_the_processor,
    folder,
    placed,
    same_weights,
    weights,
)
from test_guard_faults import ask, paint

from starrynight.cli import inspect as inspecting
from starrynight.cli import paint as painting
from starrynight.errors import BadRequest
from starrynight.i18n import t
from starrynight.painting import guard
from starrynight.painting.painter import Painter
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest
from starrynight.studio import SavedPicture
from starrynight.verdict import Verdict, Verified

__all__ = ["an_accelerator_that_is_the_processor", "folder"]  # fixtures


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


def expected_error(painter: Painter, request: PaintRequest) -> float:
    """From the first call's own inputs, by a float32 copy of the denoiser."""
    seen: list[Any] = []
    handle = painter.denoiser.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((args, kwargs, output)) or None,
        with_kwargs=True,
        prepend=True,
    )
    paint(painter, request)
    handle.remove()
    args, kwargs, output = seen[0]
    wide = copy.deepcopy(painter.denoiser)
    for hooks in (wide._forward_hooks, wide._forward_pre_hooks):
        hooks.clear()
    wide.float()
    args, kwargs = (guard.cast(value, torch.float32) for value in (args, kwargs))
    with torch.no_grad():
        reference = wide(*args, **kwargs)
    return guard._relative_error(output, reference)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float32"])
def test_the_first_prediction_is_compared_with_float32(folder: Path, precision: str) -> None:
    request = ask(folder, precision=precision)
    painter = Painter.ready(request, device="cpu")
    (plain,) = paint(painter, request)
    before = {name: tensor.clone() for name, tensor in weights(painter).items()}
    (verified,) = paint(painter, request.replace(verify=True))
    assert np.array_equal(plain.pixels, verified.pixels)
    assert plain.verdict.verified is None
    assert same_weights(painter, before)
    found = verified.verdict.verified
    assert found.format == precision
    if precision == "float32":
        assert found.error == 0
    else:
        assert 1e-5 < found.error < 0.1
        assert found.error == pytest.approx(expected_error(painter, request), rel=1e-3)
    (again,) = paint(painter, request)
    assert again.verdict.verified is None, "a request that does not ask is not told"


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_it_works_where_weights_are_offloaded(folder: Path, arrangement: str) -> None:
    resident, painter = placed(folder, "resident"), placed(folder, arrangement)
    before = {name: tensor.clone() for name, tensor in weights(painter).items()}
    request = ask(folder, precision="float16", verify=True)
    (there,), (here,) = paint(painter, request), paint(resident, request)
    assert there.verdict.verified == here.verdict.verified
    assert 0 < there.verdict.verified.error < 0.1
    assert same_weights(painter, before)


def test_what_does_not_fit_into_memory_is_told_and_the_picture_is_painted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(folder, precision="bfloat16", verify=True)
    painter = Painter.ready(request, device="cpu")

    def full(*words: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(guard.Component, "recast", full)
    (outcome,) = paint(painter, request)
    assert outcome.verdict.outcome == "hang"
    assert outcome.verdict.verified == Verified("bfloat16", None)
    assert "could not be compared" in outcome.verdict.verified.message("en")
    assert "无法" in outcome.verdict.verified.message("zh")


def test_the_error_is_in_the_recipe_the_terminal_and_inspect(tmp_path: Path) -> None:
    request = PaintRequest(prompt="a lake", seed=1, verify=True)
    verdict = Verdict("hang", verified=Verified("bfloat16", 0.0042))
    assert Verdict.from_dict(verdict.to_dict()) == verdict
    assert Verdict.from_dict(Verdict("hang").to_dict()).verified is None
    plan = {"transformer": {"format": "bfloat16", "reason_en": "a test", "reason_zh": "测试"}}
    recipe = make_recipe(request, verdict=verdict, plan=plan)
    assert recipe["verdict"]["verified"] == {"format": "bfloat16", "error": 0.0042}
    picture = Picture(np.zeros((8, 8, 3), np.uint8), recipe)
    message = verdict.verified.message("en")
    assert "0.42 %" in message
    shown = t(message, verdict.verified.message("zh"))
    assert shown in painting.picture_line(SavedPicture(picture, tmp_path / "a.png"))
    assert (t("verified", "验证"), shown) in inspecting._verified(recipe["verdict"])
    assert inspecting._verified({"verified": {"format": 3}}) == []


def test_a_request_that_does_not_ask_keeps_its_id() -> None:
    plain = PaintRequest(prompt="a lake", seed=1)
    assert "verify" not in plain.to_dict()
    assert PaintRequest(prompt="a lake", seed=1, verify=False).id == plain.id
    with pytest.raises(BadRequest, match="verify"):
        PaintRequest(prompt="a lake", verify="yes")  # type: ignore[arg-type]
