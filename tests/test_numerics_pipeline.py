"""A whole tiny Z-Image pipeline, from tokenizer to image, traced and folded at once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from starrynight.numerics.emulate import Emulation
from starrynight.numerics.finite import find_fault, locate_fault
from starrynight.numerics.fold import fold_modules
from starrynight.numerics.islands import cast_with_islands
from starrynight.numerics.solve import FoldPlan, solve_folds, widen
from starrynight.numerics.trace import trace_modules

NETWORKS = ("text_encoder", "transformer", "vae")
CALIBRATION, HELD_OUT = ("星夜下的静谧村庄", 1), ("a starry night over a quiet village", 7)


def networks(pipeline: Any) -> dict[str, Any]:
    return {name: getattr(pipeline, name) for name in NETWORKS}


def paint(pipeline: Any, prompt: str, seed: int) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    result = pipeline(prompt, height=32, width=32, num_inference_steps=3, guidance_scale=2.0, generator=generator,
                      output_type="pt")  # fmt: skip
    return result.images.float()


def cast(pipeline: Any, dtype: torch.dtype) -> Any:
    other = copy.deepcopy(pipeline)
    for network in networks(other).values():
        network.to(dtype)
    return other


@pytest.fixture(scope="module")
def overflowing() -> Any:
    """Overflows in the transformer's gated product, in its attention, and inside the decoder."""
    pipeline = tiny.zimage()
    transformer, decoder = pipeline.transformer, pipeline.vae.decoder
    with torch.no_grad():
        transformer.layers[0].feed_forward.w3.weight *= 2.0**24
        transformer.layers[1].attention.to_out[0].weight *= 2.0**22
        decoder.mid_block.resnets[0].conv1.weight *= 2.0**20
        for network in networks(pipeline).values():
            for parameter in network.parameters():
                parameter.copy_(parameter.bfloat16())
    return pipeline


@pytest.fixture(scope="module")
def plan(overflowing: Any) -> FoldPlan:
    half = cast(overflowing, torch.bfloat16)
    found = trace_modules(networks(half), lambda: paint(half, *CALIBRATION))
    assert not found.unknown_ops
    return solve_folds(found)


@pytest.mark.parametrize(
    "place",
    ["layers.0:out", "layers.0.feed_forward:out", "layers.0.attention:out", "layers.0.feed_forward.w2:in",
     "layers.1.attention.to_out.0:in"],
)  # fmt: skip
def test_a_twin_with_larger_numbers_is_the_same_function(place: str) -> None:
    """Residual stream, feed-forward, attention, gated product and attention values, each widened."""
    transformer = tiny.zimage().transformer.eval()
    captions, latents, now = [torch.randn(8, 16)], [torch.randn(4, 1, 8, 8)], torch.tensor([0.5])

    def run(module: Any) -> Tensor:
        dtype = next(module.parameters()).dtype
        return module([x.to(dtype) for x in latents], now.to(dtype), [c.to(dtype) for c in captions])[0][0]

    half = copy.deepcopy(transformer).bfloat16()
    found = trace_modules(half, lambda: run(half))
    name, _, side = place.partition(":")
    twin = copy.deepcopy(transformer)
    fold_modules(twin, widen(found, (found.outputs if side == "out" else found.inputs)[name], bits=22))
    with torch.no_grad():
        assert torch.equal(run(twin), run(transformer))
        with Emulation():
            assert not run(copy.deepcopy(twin).half()).isfinite().all()


def test_unfolded_float16_overflows_and_the_weight_is_named(overflowing: Any) -> None:
    half = cast(overflowing, torch.float16)
    with Emulation():
        picture = paint(half, *HELD_OUT)
        assert find_fault(picture, "decoder") is not None
        place = locate_fault(networks(half), lambda: paint(half, *HELD_OUT))
    # The weight, 2^24 times as large, overflowed when it was cast: it is named, not the product that uses it.
    assert place == ("transformer.layers.0.feed_forward.w3", "weight")


def test_the_folded_pipeline_gives_the_same_image(overflowing: Any, plan: FoldPlan) -> None:
    assert plan.islands == ()
    assert {name.split(".")[0] for name in plan.parameters} == {"transformer", "vae"}
    reference = paint(overflowing, *HELD_OUT)
    folded = copy.deepcopy(overflowing)
    fold_modules(networks(folded), plan)
    assert torch.equal(paint(folded, *HELD_OUT), reference)
    for name, network in networks(folded).items():
        cast_with_islands(network, plan.islands, torch.float16, prefix=name)
    with Emulation():
        picture = paint(folded, *HELD_OUT)
    assert find_fault(picture, "decoder") is None
    bfloat16 = paint(cast(overflowing, torch.bfloat16), *HELD_OUT)
    assert (picture - reference).norm() < (bfloat16 - reference).norm() / 4
