"""Eight bits by rounding from float32, held on a ramp against the ways that lose pixels."""

from __future__ import annotations

import numpy as np
import torch

from starrynight.painting.results import GeneratedImage
from starrynight.studio import eight_bits


def ramp() -> np.ndarray:
    """Every shade from 0 to 1 in steps far finer than eight bits, as float32 [H, W, 3]."""
    shades = np.linspace(0, 1, 3 * 256 * 256, dtype=np.float32)
    return shades.reshape(256, 256, 3)


def share_and_bias(pixels: np.ndarray, shades: np.ndarray) -> tuple[float, float]:
    """How many pixels are the nearest level, and how far they lie from the true shade on average, in levels."""
    true = shades.astype(np.float64) * 255
    return float((pixels == np.rint(true)).mean()), float((pixels - true).mean())


def test_a_ramp_survives_exactly_and_without_bias() -> None:
    shades = ramp()
    share, bias = share_and_bias(eight_bits(shades).astype(np.float64), shades)
    assert share > 0.9999, share
    assert abs(bias) < 1e-3


def test_the_ways_others_take_lose_pixels() -> None:
    """Truncating, rounding in bfloat16, and both: what the words “eight bits by rounding from float32” save."""
    shades = ramp()
    half = torch.from_numpy(shades).bfloat16()
    truncated = share_and_bias(np.floor(shades.astype(np.float64) * 255), shades)
    in_half = share_and_bias((half * 255).round().clamp(0, 255).float().numpy().astype(np.float64), shades)
    both = share_and_bias((half * 255).clamp(0, 255).to(torch.uint8).numpy().astype(np.float64), shades)
    assert truncated[1] < -0.49
    assert both[0] < in_half[0] < 0.9
    assert both[1] < -0.3


def test_a_decoder_in_bfloat16_is_rounded_once() -> None:
    """What a 16-bit decoder draws reaches eight bits through float32: its own rounding is all that is lost."""
    shades = ramp()
    drawn = (torch.from_numpy(shades) * 2 - 1).bfloat16()  # a decoder speaks of −1..1
    ours = eight_bits((drawn.float() / 2 + 0.5).numpy())
    theirs = ((drawn / 2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).numpy()  # bfloat16 to the end, truncated
    ours_share, ours_bias = share_and_bias(ours.astype(np.float64), shades)
    their_share, their_bias = share_and_bias(theirs.astype(np.float64), shades)
    print(f"ours {ours_share:.3f} {ours_bias:+.3f}, bfloat16 to the end {their_share:.3f} {their_bias:+.3f}")
    assert ours_share > their_share + 0.25
    assert abs(ours_bias) < 0.01 < 0.3 < -their_bias


def test_values_beyond_white_and_black_are_cut() -> None:
    canvas = GeneratedImage(np.float32([[[-1.0, 0.5, 2.0]]]), 0, 0, "", "", "")
    assert eight_bits(canvas.pixels).tolist() == [[[0, 128, 255]]]
