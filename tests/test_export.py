"""Conversion to eight bits by rounding from float32, compared on a ramp with conversions that lose
accuracy."""

from __future__ import annotations

import numpy as np
import torch

from starrynight.painting.results import GeneratedImage
from starrynight.studio import eight_bits


def ramp() -> np.ndarray:
    """Shades from 0 to 1 in steps much finer than eight bits, float32 [H, W, 3]."""
    shades = np.linspace(0, 1, 3 * 256 * 256, dtype=np.float32)
    return shades.reshape(256, 256, 3)


def share_and_bias(pixels: np.ndarray, shades: np.ndarray) -> tuple[float, float]:
    """The share of pixels that are the nearest level, and their mean error in levels."""
    true = shades.astype(np.float64) * 255
    return float((pixels == np.rint(true)).mean()), float((pixels - true).mean())


def test_a_ramp_is_rounded_to_the_nearest_level_without_bias() -> None:
    shades = ramp()
    share, bias = share_and_bias(eight_bits(shades).astype(np.float64), shades)
    assert share > 0.9999, share
    assert abs(bias) < 1e-3


def test_truncating_and_rounding_in_bfloat16_lose_accuracy() -> None:
    """Truncation, rounding in bfloat16, and both together are worse than rounding from float32."""
    shades = ramp()
    half = torch.from_numpy(shades).bfloat16()
    truncated = share_and_bias(np.floor(shades.astype(np.float64) * 255), shades)
    in_half = share_and_bias((half * 255).round().clamp(0, 255).float().numpy().astype(np.float64), shades)
    both = share_and_bias((half * 255).clamp(0, 255).to(torch.uint8).numpy().astype(np.float64), shades)
    assert truncated[1] < -0.49
    assert both[0] < in_half[0] < 0.9
    assert both[1] < -0.3


def test_the_output_of_a_bfloat16_decoder_is_rounded_once() -> None:
    """The output of a 16-bit decoder becomes float32 before eight bits, so only its own rounding is lost."""
    shades = ramp()
    drawn = (torch.from_numpy(shades) * 2 - 1).bfloat16()  # a decoder's output is in −1 … 1
    ours = eight_bits((drawn.float() / 2 + 0.5).numpy())
    theirs = ((drawn / 2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).numpy()  # bfloat16 throughout, truncated
    ours_share, ours_bias = share_and_bias(ours.astype(np.float64), shades)
    their_share, their_bias = share_and_bias(theirs.astype(np.float64), shades)
    print(f"ours {ours_share:.3f} {ours_bias:+.3f}, bfloat16 throughout {their_share:.3f} {their_bias:+.3f}")
    assert ours_share > their_share + 0.25
    assert abs(ours_bias) < 0.01 < 0.3 < -their_bias


def test_values_outside_black_and_white_are_clipped() -> None:
    canvas = GeneratedImage(np.float32([[[-1.0, 0.5, 2.0]]]), 0, 0, "", "", "")
    assert eight_bits(canvas.pixels).tolist() == [[[0, 128, 255]]]
