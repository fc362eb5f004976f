"""What experiments measure a network with: its groups of blocks, its calls at every level of training noise, and a
counter of live tensors. This module imports torch; experiments import it only when they measure.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from starrynight.lab import formats
from starrynight.numerics.modules import tensors_in

if TYPE_CHECKING:
    from starrynight.lab.formats import FormatPainter
    from starrynight.request import PaintRequest

# -- groups of blocks ------------------------------------------------------------------------------------------------

# The three layers of a UNet that claim C7 names.
CLAIMED_LAYERS = (
    "down_blocks.1.resnets.0.norm1", "mid_block.attentions.0.proj_out", "up_blocks.2.resnets.1.conv2"
)  # fmt: skip
# Their counterparts in other networks, by parts of names: a norm, an output projection, a block's last product.
FIRST, MIDDLE, LAST = ("norm1", "norm"), ("to_out", "out"), ("w2", "ff.net.2", "fc2", "linear_2")
UNET_FIRST, UNET_MIDDLE, UNET_LAST = ("norm1",), ("proj_out", "conv2"), ("resnets.1.conv2", "conv2")


def is_unet(denoiser: Any) -> bool:
    return hasattr(denoiser, "down_blocks")


def block_groups(denoiser: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """(first, middle, last): a UNet's down, middle and up blocks, or the thirds of a transformer's blocks."""
    if is_unet(denoiser):
        middle = getattr(denoiser, "mid_block", None)
        return list(denoiser.down_blocks), [] if middle is None else [middle], list(denoiser.up_blocks)
    blocks = [block for _, block in _transformer_blocks(denoiser)]
    third = max(1, len(blocks) // 3)
    return blocks[:third], blocks[third:-third], blocks[-third:]


def _transformer_blocks(denoiser: Any) -> list[tuple[str, Any]]:
    """(name, block) in order, from every list of blocks at least half as long as the longest: a FLUX has two, and
    short lists hold refiners or embedders.
    """
    lists = [(n, m) for n, m in denoiser.named_children() if isinstance(m, nn.ModuleList) and len(m)]
    longest = max((len(m) for _, m in lists), default=0)
    long = [(n, m) for n, m in lists if len(m) >= max(2, longest // 2)]
    return [(f"{n}.{i}", block) for n, m in long for i, block in enumerate(m)]


def three_layers(denoiser: Any) -> list[str]:
    """``CLAIMED_LAYERS`` if the network has them. Else their counterparts: a norm of the first third, an output
    projection of the middle third and the last product of the last third.
    """
    names = {name for name, _ in denoiser.named_modules()}
    if all(name in names for name in CLAIMED_LAYERS):
        return list(CLAIMED_LAYERS)
    if is_unet(denoiser):
        down, up = len(denoiser.down_blocks), len(denoiser.up_blocks)
        first, last = f"down_blocks.{min(1, down - 1)}", f"up_blocks.{up - 1}"
        middle = "mid_block" if getattr(denoiser, "mid_block", None) is not None else f"up_blocks.{up // 2}"
        places = [(first, UNET_FIRST), (middle, UNET_MIDDLE), (last, UNET_LAST)]
        return [_layer_in(name, denoiser.get_submodule(name), kinds) for name, kinds in places]
    blocks = _transformer_blocks(denoiser)
    chosen = [(blocks[len(blocks) // 6], FIRST), (blocks[len(blocks) // 2], MIDDLE), (blocks[-1], LAST)]
    return [_layer_in(name, block, kinds) for (name, block), kinds in chosen]


def _layer_in(name: str, block: Any, kinds: tuple[str, ...]) -> str:
    """The first layer with weights whose name contains the earliest possible of ``kinds``; else the block's last layer."""
    leaves = [(n, m) for n, m in block.named_modules() if n and not list(m.children())]
    layers = [n for n, m in leaves if getattr(m, "weight", None) is not None]
    fitting = [n for kind in kinds for n in layers if kind in n] or layers[::-1]
    return f"{name}.{fitting[0]}"


# -- calls at every noise level --------------------------------------------------------------------------------------

SIDE = 16  # of the latents (128 pixels for most models): a thousand levels of a full picture would take hours
BATCH = 25  # levels in one call
TIME_ARGUMENTS = ("timestep", "t", "timesteps")  # how denoisers call the argument for the time


@dataclass(frozen=True)
class NoiseSweep:
    """One painted picture at any level of the training noise, as calls of its denoiser.

    No model family is named here. Pipelines give their denoiser the time in different units (t, t/1000, 1 − t/1000 …);
    all are linear in the training time t, so two of the pipeline's own calls determine the line.

    ``arguments``: one call of the denoiser by parameter name, for one picture; the first holds the latents. ``time``:
    the name of the time argument. ``time_line``: (slope, offset) from t to that argument. ``latents``: of the painted
    picture, as the sampler holds them. ``side``: of the picture, in pixels.
    """

    arguments: dict[str, Any]
    time: str
    time_line: tuple[float, float]
    latents: Any
    scheduler: Any
    side: int

    @property
    def levels(self) -> int:
        """How many levels of noise the model was trained with."""
        return len(self.scheduler.timesteps)

    def times(self, count: int) -> list[Any]:
        """``count`` of the training times, evenly spaced from pure noise to almost none."""
        every = self.scheduler.timesteps
        return [every[at] for at in np.unique(np.linspace(0, len(every) - 1, count).round().astype(int))]

    def calls(self, times: list[Any], dtype: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        """(latents, the other arguments by name) for every ``BATCH`` times, cast to ``dtype``. Each level has its own
        noise, drawn from a fixed seed.
        """
        draw = torch.Generator().manual_seed(0)
        for start in range(0, len(times), BATCH):
            batch = times[start : start + BATCH]
            noisy = []
            for time in batch:
                noise = torch.randn(self.latents.shape, generator=draw).to(self.latents)
                noisy.append(_add_noise(self.scheduler, self.latents, noise, time))
            (_, example), *others = self.arguments.items()
            named = {name: _repeat(value, len(batch)) for name, value in others}
            named[self.time] = self._time_argument(batch)
            yield formats.cast_arguments(_stack(noisy, example), dtype), formats.cast_arguments(named, dtype)

    def _time_argument(self, times: list[Any]) -> Any:
        (slope, offset), example = self.time_line, self.arguments[self.time]
        values = torch.tensor([slope * float(time) + offset for time in times])
        return (values if example.is_floating_point() else values.round()).to(example)


def _stack(latents: list[Any], example: Any) -> Any:
    """The latents of several pictures in the form of ``example``: one batched tensor, or a list of tensors."""
    if isinstance(example, list):
        return [one.reshape(example[0].shape) for one in latents]
    return torch.cat([one.reshape(example.shape) for one in latents])


def _repeat(value: Any, count: int) -> Any:
    """Repeat what belongs to one picture ``count`` times; leave what belongs to no picture."""
    if isinstance(value, Tensor) and value.dim() and len(value) == 1:
        return value.repeat(count, *[1] * (value.dim() - 1))
    if isinstance(value, list) and len(value) == 1:
        return value * count
    return {k: _repeat(v, count) for k, v in value.items()} if isinstance(value, dict) else value


def _add_noise(scheduler: Any, latents: Any, noise: Any, time: Any) -> Any:
    """``latents`` with the scheduler's noise at ``time``, scaled as the denoiser expects them."""
    fresh = copy.copy(scheduler)  # some schedulers remember their step
    if hasattr(fresh, "scale_noise"):  # flow matching
        return fresh.scale_noise(latents, time[None], noise)
    return fresh.scale_model_input(fresh.add_noise(latents, noise, time[None]), time)


def noise_sweep(painter: FormatPainter, request: PaintRequest) -> NoiseSweep:
    """Paint ``request`` small and without guidance, and record the denoiser's calls. Raises BrokenNumbers."""
    pipeline, denoiser = painter.pipeline, painter.denoiser
    # FLUX takes guidance as a number in a single pass; elsewhere guidance 0 avoids a second pass.
    embeds_guidance = getattr(denoiser.config, "guidance_embeds", False)
    side = max(SIDE * getattr(pipeline, "vae_scale_factor", 8), painter.painter.model.spec.smallest)
    guidance = request.guidance if embeds_guidance else 0.0
    small = request.replace(width=side, height=side, steps=max(2, request.steps), guidance=guidance)
    signature = inspect.signature(denoiser.forward)
    calls: list[dict[str, Any]] = []
    steps: list[Any] = []

    def record(_module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        calls.append(dict(signature.bind(*args, **kwargs).arguments))

    with denoiser.register_forward_pre_hook(record, with_kwargs=True):
        formats.paint(painter, small, lambda step: steps.append((pipeline.scheduler.timesteps, step.latents)))
    time = next(name for name in TIME_ARGUMENTS if name in calls[0])
    sampled = [float(one) for one in steps[0][0]]
    given = [float(call[time].flatten()[0]) for call in calls]
    slope = (given[-1] - given[0]) / (sampled[-1] - sampled[0])
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    if scheduler.timesteps is None:  # PNDM has none until set_timesteps
        scheduler.timesteps = torch.arange(scheduler.config.num_train_timesteps).flip(0)
    painted = steps[-1][1].detach().float()
    return NoiseSweep(calls[0], time, (slope, given[0] - slope * sampled[0]), painted, scheduler, side)


# -- live tensors ----------------------------------------------------------------------------------------------------


class MemoryCounter(TorchDispatchMode):
    """Counts the bytes of live tensors, whatever the allocator does with freed ones.

    ``with MemoryCounter(weights) as count: …`` gives ``count.peak`` in bytes and ``count.peaks`` by phase. The dispatch
    mode sees every op; the storage of a result counts until its last reference is gone. Scratch memory inside a kernel
    is not a tensor and is not counted. ``weights``: tensors that exist anyway and do not count. Enter it inside an
    emulation, so that it sees the format's tensors and not the emulation's float32 copies.
    """

    def __init__(self, weights: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self._ignored = {t.untyped_storage()._cdata: t for t in weights}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._phases: list[str] = []
        self.peak = 0
        self.peaks: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        for tensor in tensors_in((args, kwargs)):
            self._add(tensor)
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self._add(tensor)
        self._update_peaks()
        return result

    def _add(self, tensor: Tensor) -> None:
        if tensor.layout is not torch.strided:  # oneDNN's weights have no storage that could be read
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if tensor.device.type == "meta" or key in self._ignored:
            return
        known = self._live.get(key)
        if known is None or known[0].expired():  # an address is reused after its storage is freed
            self._live[key] = (StorageWeakRef(storage), storage.nbytes())

    def _update_peaks(self) -> None:
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        size = sum(nbytes for _, nbytes in self._live.values())
        self.peak = max(self.peak, size)
        for phase in self._phases:
            self.peaks[phase] = max(self.peaks.get(phase, 0), size)

    @contextmanager
    def phases(self, modules: dict[str, list[nn.Module]]) -> Iterator[None]:
        """Record a peak of its own for each phase, while any of the phase's modules runs."""

        def leave(*_: Any) -> None:
            if self._phases:
                self._phases.pop()

        with ExitStack() as hooks:
            for phase, part in ((phase, part) for phase, parts in modules.items() for part in parts):
                enter = partial(lambda phase, *_: self._phases.append(phase), phase)
                hooks.enter_context(part.register_forward_pre_hook(enter))
                hooks.enter_context(part.register_forward_hook(leave, always_call=True))
            yield
