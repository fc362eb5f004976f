"""Keep Firefly inside float16: the loudest numbers of a Z-Image block, made smaller by powers of two.

A feed-forward's result goes straight into an RMS norm, which undoes any scale, so training lets it grow as it likes: after
200,000 samples one reached 133,120, twice what float16 holds. Every large model of this layout goes the same way. Two
of its matrices are divided by powers of two, which changes no picture; ``numerics`` does the same to any model, with
a proof, but a model that ships should not need it. Knows nothing of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

# The largest number wanted: an eighth of float16's end (65504), for prompts louder than those that were watched.
CEILING = 2.0**13


def feed_forwards(transformer: Any) -> Iterator[tuple[str, Any]]:
    """Every block's feed-forward, w2(silu(w1 x) * w3 x), by the name of its module."""
    for room in ("noise_refiner", "context_refiner", "layers"):
        for number, block in enumerate(getattr(transformer, room)):
            yield f"{room}.{number}.feed_forward", block.feed_forward


def loudness(pipe: Any, texts: Sequence[str]) -> dict[str, float]:
    """The largest absolute result of every feed-forward while ``texts`` are painted in 8 steps."""
    from starrynight.firefly import sheet

    peaks: dict[str, float] = {}

    def watch(name: str) -> Any:
        def note(_module: Any, _inputs: Any, result: torch.Tensor) -> None:
            peaks[name] = max(peaks.get(name, 0.0), result.abs().max().item())

        return note

    hooks = [part.register_forward_hook(watch(name)) for name, part in feed_forwards(pipe.transformer)]
    try:
        sheet.paint(pipe, texts)
    finally:
        for hook in hooks:
            hook.remove()
    return peaks


@torch.no_grad()
def quieten(pipe: Any, texts: Sequence[str], ceiling: float = CEILING) -> dict[str, int]:
    """Bring every feed-forward under ``ceiling`` on ``texts``. Returns the powers of two taken out, of those that changed.

    Half of a power is taken from ``w3``, so that the product before ``w2`` grows quieter too, the rest from ``w2``. Only
    the eps of the norm behind (1e-5) notices.
    """
    powers: dict[str, int] = {}
    peaks = loudness(pipe, texts)
    for name, part in feed_forwards(pipe.transformer):
        power = math.ceil(math.log2(peaks[name] / ceiling)) if peaks[name] > ceiling else 0
        if power:
            part.w3.weight.mul_(2.0 ** -(power // 2))
            part.w2.weight.mul_(2.0 ** -(power - power // 2))
            powers[name] = power
    return powers
