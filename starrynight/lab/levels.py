"""A painted picture under the noise a model was trained with, level by level, as calls that its denoiser understands.

No family is named here: a pipeline paints once, and how it speaks to its denoiser is read off its own calls. The first
argument holds the latents; the time it tells (t, t/1000, 1 − t/1000 …) is a straight line through two of those calls.
Knows pipelines and schedulers; measures nothing.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starrynight.lab import formats

if TYPE_CHECKING:
    from starrynight.lab.formats import FormatPainter
    from starrynight.request import PaintRequest

SIDE = (
    16  # of the latents (128 pixels for most): a thousand levels of a large picture would take an afternoon
)
BATCH = 25  # levels in one call
TIMES = ("timestep", "t", "timesteps")


@dataclass(frozen=True)
class Walk:
    """``arguments``: one call of the denoiser by parameter, for one picture; ``told``: what time it hears at training
    time t, as (slope, offset); ``latents``: the painted picture of ``side`` pixels, in the shape that the sampler has them.
    """

    arguments: dict[str, Any]
    time: str
    told: tuple[float, float]
    latents: Any
    scheduler: Any
    side: int

    def times(self, count: int) -> list[Any]:
        """``count`` of the training times, from all noise to hardly any, evenly spread over all of them."""
        import numpy as np

        every = self.scheduler.timesteps
        return [every[at] for at in np.unique(np.linspace(0, len(every) - 1, count).round().astype(int))]

    @property
    def levels(self) -> int:
        """How many levels of noise the model was trained with."""
        return len(self.scheduler.timesteps)

    def calls(self, times: list[Any], dtype: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        """(latents, all else by name) for every ``BATCH`` times, in ``dtype``; each level has noise of its own."""
        import torch

        draw = torch.Generator().manual_seed(0)
        for start in range(0, len(times), BATCH):
            batch = times[start : start + BATCH]
            noises = [torch.randn(self.latents.shape, generator=draw).to(self.latents) for _ in batch]
            noisy = [noised(self.scheduler, self.latents, *pair) for pair in zip(noises, batch, strict=True)]
            (_, shown), *others = self.arguments.items()
            named = {name: repeated(value, len(batch)) for name, value in others}
            named[self.time] = self._told(batch)
            yield formats.fit(stacked(noisy, shown), dtype), formats.fit(named, dtype)

    def _told(self, times: list[Any]) -> Any:
        import torch

        (slope, offset), heard = self.told, self.arguments[self.time]
        told = torch.tensor([slope * float(time) + offset for time in times])
        return (told if heard.is_floating_point() else told.round()).to(heard)


def stacked(latents: list[Any], like: Any) -> Any:
    """Several pictures' latents as the denoiser was given one's: a batch, or a list of them."""
    import torch

    if isinstance(like, list):
        return [one.reshape(like[0].shape) for one in latents]
    return torch.cat([one.reshape(like.shape) for one in latents])


def repeated(value: Any, count: int) -> Any:
    """What belongs to one picture, for ``count`` of them; what belongs to none stays."""
    import torch

    if isinstance(value, torch.Tensor) and value.dim() and len(value) == 1:
        return value.repeat(count, *[1] * (value.dim() - 1))
    if isinstance(value, list) and len(value) == 1:
        return value * count
    return {k: repeated(v, count) for k, v in value.items()} if isinstance(value, dict) else value


def noised(scheduler: Any, latents: Any, noise: Any, time: Any) -> Any:
    """``latents`` with as much noise as the scheduler has at ``time``, scaled as the denoiser wants them."""
    one = copy.copy(scheduler)  # some remember at which step they are
    if hasattr(one, "scale_noise"):  # flow matching
        return one.scale_noise(latents, time[None], noise)
    return one.scale_model_input(one.add_noise(latents, noise, time[None]), time)


def walk(hand: FormatPainter, request: PaintRequest) -> Walk:
    """Paint ``request`` small and without guidance, and listen. Raises BrokenNumbers."""
    import torch

    pipeline, denoiser = hand.painter.pipeline, hand.painter.denoiser
    told_guidance = getattr(
        denoiser.config, "guidance_embeds", False
    )  # FLUX hears it as a number, in one pass
    side = max(SIDE * getattr(pipeline, "vae_scale_factor", 8), hand.painter.model.smallest)
    small = request.replace(
        width=side,
        height=side,
        steps=max(2, request.steps),
        guidance=request.guidance if told_guidance else 0.0,
    )
    signature = inspect.signature(denoiser.forward)
    heard: list[dict[str, Any]] = []
    steps: list[Any] = []

    def listen(_module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        heard.append(dict(signature.bind(*args, **kwargs).arguments))

    hook = denoiser.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        formats.paint(hand, small, lambda step: steps.append((pipeline.scheduler.timesteps, step.latents)))
    finally:
        hook.remove()
    name = next(time for time in TIMES if time in heard[0])
    asked = [float(time) for time in steps[0][0]]
    told = [float(call[name].flatten()[0]) for call in heard]
    slope = (told[-1] - told[0]) / (asked[-1] - asked[0])
    fresh = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    if fresh.timesteps is None:  # PNDM makes its own when it is asked to sample
        fresh.timesteps = torch.arange(fresh.config.num_train_timesteps).flip(0)
    painted = steps[-1][1].detach().float()
    return Walk(heard[0], name, (slope, told[0] - slope * asked[0]), painted, fresh, side)
