"""Variety: the text is noised in the first steps by the rule of CADS, the same for the same request, and seeds differ more."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from starrynight import studio
from starrynight.errors import BadRequest
from starrynight.metadata import read_recipe
from starrynight.painting.painter import Painter
from starrynight.painting.variety import POOLED, SEQUENCES, Annealing
from starrynight.request import PaintRequest


class Denoiser(nn.Module):
    """Takes its text as diffusers' models do, and keeps what it got."""

    def forward(
        self, x: Any, t: Any, cap_feats: Any, pooled_projections: Any = None, added_cond_kwargs: Any = None
    ) -> Any:
        self.got = cap_feats, pooled_projections, added_cond_kwargs
        return x


def gammas(amount: float, steps: int, start: float = 1.0) -> list[float]:
    annealing = Annealing(amount, 0, lambda: steps, start)
    found = []
    for annealing.step in range(steps):
        found.append(round(annealing.gamma, 4))
    return found


def test_gamma_is_that_of_the_paper_and_the_amount_is_how_long_it_lasts() -> None:
    # t = 1, 0.875, 0.75, 0.625, 0.5 …; γ = (0.9 − t) / 0.3 between 0.6 and 0.9
    assert gammas(1.0, 8) == [0.0, 0.0833, 0.5, 0.9167, 1.0, 1.0, 1.0, 1.0]
    assert gammas(0.5, 8) == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert gammas(0.1, 8) == [0.0] + [1.0] * 7
    assert gammas(0.0, 4) == [1.0] * 4
    assert gammas(1.0, 4, start=0.6) == [1.0] * 4  # a picture that begins from another, late


def noised(amount: float = 1.0, seed: int = 5, step: int = 1, **call: Any) -> Any:
    module = Denoiser()
    annealing = Annealing(amount, seed, lambda: 8)
    annealing.step = step
    module.register_forward_pre_hook(annealing.hook, with_kwargs=True)
    texts = call.pop("texts", None)
    module(
        torch.zeros(1), 0.5, texts if texts is not None else [torch.linspace(-1, 3, 24).view(4, 6)], **call
    )
    return module.got


def test_the_noised_text_keeps_its_mean_and_deviation() -> None:
    text = torch.linspace(-1, 3, 24).view(4, 6)
    ((found,), _, _) = noised()
    assert found.shape == text.shape
    assert not torch.allclose(found, text)
    assert found.mean() == pytest.approx(float(text.mean()), abs=1e-5)
    assert found.std() == pytest.approx(float(text.std()), abs=1e-5)
    ((same,), _, _) = noised(step=7)  # γ is 1 again
    assert torch.equal(same, text)


def test_the_noise_is_of_the_seed_and_the_step_alone() -> None:
    (first,), (again,) = noised()[0], noised()[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, noised(seed=6)[0][0])
    assert not torch.equal(first, noised(step=0)[0][0])
    # beside another prompt, in a list or in a batch, a prompt gets what it gets alone
    text, other = torch.linspace(-1, 3, 24).view(4, 6), torch.randn(4, 6)
    for texts in ([text, other], torch.stack([text, other])):
        assert torch.equal(noised(texts=texts)[0][0], first)


def test_pooled_texts_are_noised_prompt_by_prompt_and_16_bits_stay_16_bits() -> None:
    pooled = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    _, found, added = noised(
        pooled_projections=pooled,
        added_cond_kwargs={"text_embeds": pooled.half(), "time_ids": torch.ones(2, 6)},
    )
    for k in (0, 1):
        assert found[k].std() == pytest.approx(float(pooled[k].std()), abs=1e-5)
    assert added["text_embeds"].dtype == torch.float16
    assert not torch.equal(added["text_embeds"], pooled.half())
    assert torch.equal(added["time_ids"], torch.ones(2, 6))


@pytest.mark.parametrize("value", [-0.1, 1.1, "much", None])
def test_what_is_no_share_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="variety"):
        PaintRequest(prompt="a", variety=value)


def test_a_request_without_variety_does_not_name_it() -> None:
    assert "variety" not in PaintRequest(prompt="a", seed=1).to_dict()
    assert PaintRequest(prompt="a", seed=1, variety=0.5).to_dict()["variety"] == 0.5


def painted(model: str, **fields: Any) -> list[np.ndarray]:
    request = studio.make_request(
        prompt="a moon", model=model, seed=3, width=64, height=64, steps=4, precision="float32", **fields
    )
    painter = Painter.ready(request, device="cpu")
    return [one.pixels for one in painter.paint(request)]  # type: ignore[union-attr]


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_every_family_paints_with_it_the_same_again_and_otherwise_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    model = str(tiny.save(family, tmp_path / family))
    (plain,), (none,) = painted(model), painted(model, variety=0.0)
    (first,), (again,) = painted(model, variety=1.0), painted(model, variety=1.0)
    assert np.array_equal(plain, none)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, plain)


def test_the_recipe_holds_it_and_gives_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    from starrynight.gallery.files import OutputPath

    request = studio.make_request(prompt="月", seed=2, width=128, height=128, steps=2, variety=0.5)
    (saved,) = studio.Studio(OutputPath(tmp_path / "moon.png"), "cpu").paint(request)
    recipe = read_recipe(saved.place)  # type: ignore[union-attr]
    assert recipe.request()["variety"] == 0.5
    assert "--variety 0.5" in recipe.command()


def test_the_names_are_those_of_diffusers_denoisers() -> None:
    """Each is an argument of a denoiser that diffusers has, so that none is a slip."""
    from diffusers import (
        ErnieImageTransformer2DModel,
        FluxTransformer2DModel,
        HiDreamImageTransformer2DModel,
        StableCascadeUNet,
        ZImageTransformer2DModel,
    )  # fmt: skip

    classes = (
        ErnieImageTransformer2DModel, FluxTransformer2DModel, HiDreamImageTransformer2DModel, StableCascadeUNet,
        ZImageTransformer2DModel,
    )  # fmt: skip
    found = {name for one in classes for name in inspect.signature(one.forward).parameters}
    assert {*SEQUENCES, *POOLED} - {"text_embeds"} <= found  # text_embeds stands in SDXL's added_cond_kwargs
