"""What stays on the device and what waits in the computer's memory: a pure choice, and the hands that carry it out.

Knows sizes in bytes and the offload hooks of diffusers and accelerate; knows no model by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from starrynight.errors import OutOfMemory
from starrynight.models.load import networks

Arrangement = Literal["resident", "model", "sequential"]

# What is left free beside the weights for one component at work. Live tensors, counted without a device by
# benchmarks/memory_needs.py: a step of Z-Image with guidance takes 1.0 GB at 1024² and 2.2 GB at 1536² in bfloat16; decoding in
# float32 takes 3.2 GB at 1024² and 5.0 GB at 1280². What an allocator and a driver add was not measured.
STEPPING, DECODING = 2_500_000_000, 5_000_000_000

# From here on an autoencoder works in tiles: decoding 1536² whole would take 7.3 GB.
TILE_FROM = 1280 * 1280


def arrange(weights: Mapping[str, int], free: int) -> Arrangement:
    """Everything at once if it fits into ``free`` bytes beside what is at work, else one component at a time, else one
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


def free_bytes(device: torch.device) -> int | None:
    """Free memory of an accelerator now; None where it cannot be asked (a CPU shares the computer's own)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "xpu":
        return torch.xpu.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def choose(pipeline: Any, device: torch.device, budget: int | None) -> Arrangement:
    """``budget`` bytes outrank what is free. On a CPU there is nothing to offload to, so everything stays."""
    free = free_bytes(device) if budget is None else budget
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
    """A module's own parameter or buffer, wherever it is: offloaded layer by layer, a module holds it only while it runs."""
    waiting = _waiting(module, name)
    return waiting[0][waiting[1]] if waiting else _table(module, name)[name]


def put(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Let a module's own parameter or buffer hold ``tensor``'s numbers in its format, where it is or waits by now."""
    table, waiting = _table(module, name), _waiting(module, name)
    if waiting is None:
        table[name].data = tensor.to(table[name].device)
        return
    waiting[0][waiting[1]] = tensor
    # What stands in for it says in which format it is to be fetched. A run that broke off may have left numbers there.
    stand_in: torch.Tensor = torch.empty_like(tensor, device="meta")
    table[name] = torch.nn.Parameter(stand_in, False) if name in module._parameters else stand_in


def _table(module: torch.nn.Module, name: str) -> dict[str, Any]:
    return module._parameters if name in module._parameters else module._buffers


def _waiting(module: torch.nn.Module, name: str) -> tuple[dict[str, torch.Tensor], str] | None:
    """Where accelerate keeps a tensor of an offloaded layer, and its key there; None for one that is in the module."""
    hook: Any = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):
        kept = getattr(each, "weights_map", None)
        stays = name not in module._parameters and not getattr(each, "offload_buffers", False)
        if kept is not None and not stays and name in kept:
            return (kept.dataset, kept.prefix + name) if hasattr(kept, "prefix") else (kept, name)
    return None


def tile(pipeline: Any, width: int, height: int) -> None:
    """Let the autoencoder work in tiles where the picture is large. Tiles change a picture a little (each is
    normalised alone), so it depends on the size asked for and never on how much memory happens to be free.
    """
    name = "enable_tiling" if width * height >= TILE_FROM else "disable_tiling"
    switch = getattr(getattr(pipeline, "vae", None), name, None)
    if switch:
        switch()


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """The error as OutOfMemory if that is what it is: ours, CUDA's own type, the CPU allocator's sentence,
    Python's."""
    if isinstance(error, OutOfMemory):
        return error
    text = str(error).lower()
    ours = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError)
        and any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory"))
    )
    if not ours:
        return None
    return OutOfMemory(
        "There was not enough memory. Make the picture smaller, close other programs, or set a memory budget so "
        "that parts of the model take turns.",
        "内存不足。请缩小画面、关闭其他程序，或设置显存预算让模型各部分轮流加载。",
    )
