"""What stays on the device and what is offloaded to the CPU: the choice, and the functions that carry it out with the
hooks of diffusers and accelerate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from starrynight.models.load import networks
from starrynight.numerics.device import free_bytes

Arrangement = Literal["resident", "model", "sequential"]

# Bytes kept free beside the weights for the activations of the running component. Live tensors, counted without a device
# by benchmarks/memory_needs.py: a step of Z-Image with guidance takes 1.0 GB at 1024² and 2.2 GB at 1536² in bfloat16;
# decoding in float32 takes 3.2 GB at 1024² and 5.0 GB at 1280². What allocator and driver add was not measured.
STEPPING, DECODING = 2_500_000_000, 5_000_000_000

# From this many pixels on an autoencoder works in tiles: decoding 1536² whole would take 7.3 GB.
TILE_FROM = 1280 * 1280


def arrange(weights: Mapping[str, int], free: int) -> Arrangement:
    """All weights resident if they fit into ``free`` bytes beside the activations, else one component at a time, else one
    layer at a time. ``weights`` are bytes by component.
    """
    work = {name: DECODING if name == "vae" else STEPPING for name in weights}
    if sum(weights.values()) + max(work.values(), default=0) <= free:
        return "resident"
    if max((size + work[name] for name, size in weights.items()), default=0) <= free:
        return "model"
    return "sequential"


def sizes(pipeline: Any) -> dict[str, int]:
    """Bytes of each network of a pipeline."""
    return {
        name: sum(tensor.numel() * tensor.element_size() for tensor in (*part.parameters(), *part.buffers()))
        for name, part in networks(pipeline).items()
    }


def _tensors(pipeline: Any) -> list[torch.Tensor]:
    return [t for part in networks(pipeline).values() for t in (*part.parameters(), *part.buffers())]


def choose(pipeline: Any, device: torch.device, budget: int | None) -> Arrangement:
    """``budget`` bytes replace the free memory. On a CPU there is nothing to offload to, so everything is resident.

    What the pipeline has on the device already counts as free.
    """
    free = free_bytes(device) if budget is None else budget
    if budget is None and free is not None:
        free += sum(t.nbytes for t in _tensors(pipeline) if t.device.type == device.type)
    return "resident" if device.type == "cpu" or free is None else arrange(sizes(pipeline), free)


def place(pipeline: Any, device: torch.device, arrangement: Arrangement) -> None:
    """Carry out an arrangement. Needs an accelerator for anything but "resident"."""
    if arrangement == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif arrangement == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)


def numbers(module: torch.nn.Module, name: str) -> torch.Tensor:
    """A module's own parameter or buffer, also where accelerate has offloaded it."""
    offloaded = _offloaded(module, name)
    return offloaded[0][offloaded[1]] if offloaded else _table(module, name)[name]


def put(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replace a module's own parameter or buffer by ``tensor``, in its format, in the module or where it is offloaded to."""
    table, offloaded = _table(module, name), _offloaded(module, name)
    if offloaded is None:
        table[name].data = tensor.to(table[name].device)
        return
    offloaded[0][offloaded[1]] = tensor
    # The placeholder's dtype is the one it is fetched in. An interrupted run may have left a real tensor in its place.
    placeholder: torch.Tensor = torch.empty_like(tensor, device="meta")
    table[name] = torch.nn.Parameter(placeholder, False) if name in module._parameters else placeholder


def _table(module: torch.nn.Module, name: str) -> dict[str, Any]:
    return module._parameters if name in module._parameters else module._buffers


def _offloaded(module: torch.nn.Module, name: str) -> tuple[dict[str, torch.Tensor], str] | None:
    """accelerate's store and key for a tensor of an offloaded layer; None for a tensor that is in the module."""
    hook: Any = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):
        kept = getattr(each, "weights_map", None)
        stays = name not in module._parameters and not getattr(each, "offload_buffers", False)
        if kept is not None and not stays and name in kept:
            return (kept.dataset, kept.prefix + name) if hasattr(kept, "prefix") else (kept, name)
    return None


def tile(pipeline: Any, width: int, height: int) -> None:
    """Switch tiling of the autoencoder by the picture's size. Tiles change a picture a little, because each is normalised
    alone, so the switch depends on the size and never on how much memory is free.
    """
    name = "enable_tiling" if width * height >= TILE_FROM else "disable_tiling"
    switch = getattr(getattr(pipeline, "vae", None), name, None)
    if switch:
        switch()
