"""Which parts of a denoiser correspond: a UNet's down, middle and up, or the thirds of a transformer's blocks.

Knows module names, no numbers.
"""

from __future__ import annotations

from typing import Any

# The three layers that claim C7 names, of a UNet.
NAMED = ("down_blocks.1.resnets.0.norm1", "mid_block.attentions.0.proj_out", "up_blocks.2.resnets.1.conv2")

# What stands in their place elsewhere: a norm, an output projection, the last product of a block.
FIRST, MIDDLE, LAST = ("norm1", "norm"), ("to_out", "out"), ("w2", "ff.net.2", "fc2", "linear_2")
UNET_FIRST, UNET_MIDDLE, UNET_LAST = ("norm1",), ("proj_out", "conv2"), ("resnets.1.conv2", "conv2")


def is_unet(denoiser: Any) -> bool:
    return hasattr(denoiser, "down_blocks")


def blocks(denoiser: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """(first, middle, last): lists of modules that run one after another."""
    if is_unet(denoiser):
        middle = getattr(denoiser, "mid_block", None)
        return list(denoiser.down_blocks), [middle] if middle is not None else [], list(denoiser.up_blocks)
    found = [block for _, block in stack(denoiser)]
    third = max(1, len(found) // 3)
    return found[:third], found[third:-third], found[-third:]


def stack(denoiser: Any) -> list[tuple[str, Any]]:
    """(name, block) of a transformer's longest lists of blocks, in the order they stand."""
    from torch import nn

    lists = [(n, m) for n, m in denoiser.named_children() if isinstance(m, nn.ModuleList) and len(m)]
    longest = max((len(m) for _, m in lists), default=0)
    return [
        (f"{n}.{i}", block) for n, m in lists if len(m) >= max(2, longest // 2) for i, block in enumerate(m)
    ]


def three_layers(denoiser: Any) -> list[str]:
    """The named layers where they exist; else what they are in this network: a norm of the first third, an output
    projection of the middle one and the last product of the last.
    """
    names = {name for name, _ in denoiser.named_modules()}
    if all(name in names for name in NAMED):
        return list(NAMED)
    if is_unet(denoiser):
        down, up = len(denoiser.down_blocks), len(denoiser.up_blocks)
        first, last = f"down_blocks.{min(1, down - 1)}", f"up_blocks.{up - 1}"
        middle = "mid_block" if getattr(denoiser, "mid_block", None) is not None else f"up_blocks.{up // 2}"
        places = [(first, UNET_FIRST), (middle, UNET_MIDDLE), (last, UNET_LAST)]
        return [_inside(name, denoiser.get_submodule(name), kinds) for name, kinds in places]
    found = stack(denoiser)
    stacked = [(found[len(found) // 6], FIRST), (found[len(found) // 2], MIDDLE), (found[-1], LAST)]
    return [_inside(name, block, kinds) for (name, block), kinds in stacked]


def _inside(name: str, block: Any, kinds: tuple[str, ...]) -> str:
    """The first leaf of a block that has weights and a name of the first kind that there is; else its last."""
    leaves = [
        n
        for n, m in block.named_modules()
        if n and not list(m.children()) and getattr(m, "weight", None) is not None
    ]
    fitting = [n for kind in kinds for n in leaves if kind in n] or leaves[::-1]
    return f"{name}.{fitting[0]}"
