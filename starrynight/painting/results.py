"""What the painter returns: a generated image, a refusal, and the step it has just taken.

Imports no torch, so that interfaces can tell these apart cheaply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.errors import StarryError
from starrynight.verdict import Verdict

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GeneratedImage:
    """A finished image: ``pixels`` float32 [H, W, 3] in 0..1; ``prompt`` as the model read it, style included.

    ``verdict`` is the guard's: "hang", "unchecked" if it could not see every stage, or "uniform" (``of_pixels``).
    ``embeddings``: the textual inversions that were applied, for the recipe.
    """

    pixels: np.ndarray
    index: int
    seed: int
    prompt: str
    negative_prompt: str
    sampler: str
    verdict: Verdict = field(default_factory=Verdict)
    wildcards: dict[str, Any] | None = None  # prompt_syntax.drawn_of
    embeddings: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Refused:
    """Picture ``index`` of a batch was refused: ``error`` says why and what to do, ``verdict`` which fallbacks were tried."""

    index: int
    seed: int
    error: StarryError
    verdict: Verdict


@dataclass(frozen=True)
class Step:
    """A step just taken: picture ``picture`` of the batch, step ``step`` of ``steps``, all from 0.

    ``step`` is -1 while another server paints, which does not tell. ``latents`` are the pipeline's own tensor, for measurements; it must not be written to.
    """

    picture: int
    step: int
    steps: int
    look: Callable[[], np.ndarray | None]
    latents: torch.Tensor | None

    def preview(self) -> np.ndarray | None:
        """uint8 [h, w, 3], small and cheap; None for a family whose latents are not a plane."""
        return self.look()


def only_colour(pixels: np.ndarray) -> np.ndarray | None:
    """The 8-bit colour of every pixel of a picture (float32 [H, W, 3] in 0..1); None if they differ."""
    levels = np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8).reshape(-1, pixels.shape[-1])
    return None if (levels != levels[0]).any() else levels[0]


def of_pixels(verdict: Verdict, pixels: np.ndarray) -> Verdict:
    """``verdict``, or "uniform" where every pixel of the picture (float32 [H, W, 3] in 0..1) has one 8-bit colour.

    Finite numbers can paint nothing: a decoder without weights, a black or white result. Such a picture is kept and shown.
    """
    if (levels := only_colour(pixels)) is None:
        return verdict
    colour = ", ".join(str(level) for level in levels)
    return replace(
        verdict,
        outcome="uniform",
        reasons=(*verdict.reasons, f"every pixel has the colour ({colour})"),
        reasons_zh=(*verdict.reasons_zh, f"每个像素的颜色都是（{colour}）"),
    )
