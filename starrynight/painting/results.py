"""What the painter hands over: a finished canvas, a picture refused, a step just taken.

Knows numpy and the words; a door may tell these apart without waking torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from starrynight.errors import StarryError
from starrynight.verdict import Verdict

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GeneratedImage:
    """A finished picture: ``pixels`` float32 [H, W, 3] in 0..1; ``prompt`` as the model read it, style included.

    ``verdict`` is the guard's: "hang", or "unchecked" where it could not look at every stage.
    """

    pixels: np.ndarray
    index: int
    seed: int
    prompt: str
    negative_prompt: str
    sampler: str
    verdict: Verdict = field(default_factory=Verdict)


@dataclass(frozen=True)
class Refused:
    """Picture ``index`` of a batch is not handed over: ``error`` says why and what to do, ``verdict`` what was tried."""

    index: int
    seed: int
    error: StarryError
    verdict: Verdict

    @property
    def pixels(self) -> NoReturn:
        """There are none: asking for them raises the error."""
        raise self.error


@dataclass(frozen=True)
class Step:
    """A step just taken: picture ``picture`` of the batch, step ``step`` of ``steps``, all from 0.

    ``latents`` are the painting's own, for those who measure; nobody may write to them.
    """

    picture: int
    step: int
    steps: int
    look: Callable[[], np.ndarray | None]
    latents: torch.Tensor

    def preview(self) -> np.ndarray | None:
        """uint8 [h, w, 3], small and cheap; None for a family whose latents are not a plane."""
        return self.look()
