"""What a family of the benchmark is, and the inputs that all of them draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Exercise = Callable[[Any, int], object]


@dataclass(frozen=True)
class Family:
    """``build`` makes the module; ``exercise(module, seed)`` runs it on inputs drawn from the seed, in its
    own dtype.

    ``places``: what is amplified → the modules whose weight and bias are multiplied until their output
    reaches ``target`` (3e6 by default).
    """

    build: Callable[[], nn.Module]
    exercise: Exercise
    places: dict[str, tuple[str, ...]]
    target: dict[str, float] = field(default_factory=dict)


def noise(module: nn.Module, seed: int, *shape: int) -> Tensor:
    """Normal noise with equal values in every dtype: drawn in float32, rounded to bfloat16, then cast."""
    draw = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return draw.bfloat16().to(next(module.parameters()).dtype)


def moment(module: nn.Module, seed: int) -> Tensor:
    """A timestep in (0, 1] that every 16-bit format represents exactly, also after the models' × 1000."""
    return torch.tensor([(0.125, 0.25, 0.5, 1.0)[seed % 4]], dtype=next(module.parameters()).dtype)


def tokens(seed: int, *shape: int) -> Tensor:
    return torch.randint(3, 90, shape, generator=torch.Generator().manual_seed(seed))


def step(module: nn.Module, seed: int) -> Tensor:
    """A timestep near 100, in the module's format."""
    return torch.tensor([100.0 + seed % 4], dtype=next(module.parameters()).dtype)


def positions(side: int, dtype: torch.dtype, count: int = 3) -> Tensor:
    """[side², count]: 0, row, column, and zeros."""
    grid = torch.arange(side * side).float()
    rows = [grid * 0, grid // side, grid % side, *[grid * 0] * (count - 3)]
    return torch.stack(rows, dim=1).to(dtype)


# What is amplified in blocks of two streams and blocks of one, as Flux and its descendants name them.
FLUX_PLACES = {
    "stream": ("x_embedder", "context_embedder"),
    "feed-forward": ("transformer_blocks.0.ff.net.2", "transformer_blocks.0.ff_context.net.2"),
    "attention": ("transformer_blocks.1.attn.to_out.0",),
    "single block": ("single_transformer_blocks.0.proj_out",),
    "values": ("transformer_blocks.0.attn.to_v", "transformer_blocks.0.attn.add_v_proj"),
}
# As CogView4 and CogVideoX name them.
COG_PLACES = {
    "stream": ("patch_embed.proj", "patch_embed.text_proj"),
    "feed-forward": ("transformer_blocks.0.ff.net.2",),
    "attention": ("transformer_blocks.1.attn1.to_out.0",),
    "values": ("transformer_blocks.0.attn1.to_v",),
}
