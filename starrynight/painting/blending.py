"""Inpainting by latent blending, for every pipeline that begins from a picture.

After each step the latents outside the mask become those of the first picture with that step's noise (Avrahami et al.,
"Blended Latent Diffusion", arXiv 2206.02779). diffusers' own inpaint pipelines do the same for denoisers without mask
channels, but only some families have one. Here the first picture's latents and their noise are taken where the img2img
pipeline gives them to its scheduler, and are packed as the family packs its latents.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from starrynight.errors import Unfit


class Blend:
    """Keeps latents outside of ``mask`` (float32 [H, W], 1 is painted) at the first picture's, in one run of ``pipeline``."""

    def __init__(self, pipeline: Any, mask: np.ndarray) -> None:
        self._pipeline, self._mask = pipeline, torch.from_numpy(np.ascontiguousarray(mask))
        self._add_noise: Callable[[Tensor], Tensor] | None = None  # of a timestep [1], to the first picture
        self._clean: Tensor | None = None  # the first picture's latents, not packed
        self._painted: Tensor | None = None  # the mask in the shape of the latents
        self._next: int | None = None  # place of the next step in the scheduler's timesteps

    def attach_to_scheduler(self, scheduler: Any) -> None:
        """To a fresh scheduler, after everything else that wraps its ``step``."""
        for name in ("add_noise", "scale_noise"):
            if (method := getattr(scheduler, name, None)) is not None:
                setattr(scheduler, name, self._remembering(name, method))
        take_step = scheduler.step

        @wraps(take_step)  # pipelines read the signature to learn what a scheduler accepts
        def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
            result = take_step(model_output, timestep, sample, *args, **kwargs)
            return (self._blended(scheduler, timestep, result[0]), *result[1:])

        scheduler.step = step

    def _remembering(self, name: str, method: Any) -> Any:
        @wraps(method)
        def remembered(clean: Tensor, *args: Any, **kwargs: Any) -> Any:
            # add_noise(clean, noise, timesteps) and scale_noise(clean, timestep, noise)
            noise = inspect.signature(method).bind(clean, *args, **kwargs).arguments["noise"]
            self._clean = clean
            if name == "add_noise":
                self._add_noise = lambda time: method(clean, noise, time)
            else:
                self._add_noise = lambda time: method(clean, time, noise)
            return method(clean, *args, **kwargs)

        return remembered

    def _blended(self, scheduler: Any, timestep: Any, latents: Tensor) -> Tensor:
        if self._clean is None or self._add_noise is None:
            name = type(self._pipeline).__name__
            raise Unfit(
                f"{name} adds no noise to a first picture, so nothing can be kept outside of a mask; paint without a mask.",
                f"{name} 不给原图加噪，无法保留蒙版之外的部分；请不要使用蒙版。",
            )
        times = scheduler.timesteps
        if self._painted is None:
            self._painted = mask_like(self._mask, latents).to(latents)
        self._next = 1 + (_place(times, timestep) if self._next is None else self._next)
        known = self._clean
        if self._next < len(times):
            known = self._add_noise(times[self._next : self._next + 1].to(known.device))
        return torch.lerp(self._packed(known, latents).to(latents), latents, self._painted)

    def _packed(self, known: Tensor, latents: Tensor) -> Tensor:
        """``known`` as the pipeline packs its latents: Flux and Qwen-Image make tokens of 2 × 2 cells."""
        if known.shape == latents.shape:
            return known
        batch, (rows, columns) = known.shape[0], known.shape[-2:]
        channels = known.numel() // (batch * rows * columns)
        return self._pipeline._pack_latents(known, batch, channels, rows, columns)


def _place(times: Tensor, timestep: Any) -> int:
    found = (times == torch.as_tensor(timestep, device=times.device).flatten()[0]).nonzero()
    return int(found[0]) if len(found) else 0


def mask_like(mask: Tensor, latents: Tensor) -> Tensor:
    """``mask`` [H, W] for latents [B, C, h, w], [B, C, 1, h, w] or packed [B, h·w, C], to multiply with them.

    A cell is painted if any of its pixels is.
    """
    height, width = mask.shape
    if latents.ndim >= 4:
        return functional.adaptive_max_pool2d(mask[None, None], latents.shape[-2:]).reshape(
            *(1,) * (latents.ndim - 2), *latents.shape[-2:]
        )
    cells = latents.shape[1]
    rows = round(math.sqrt(cells * height / width))
    if rows < 1 or cells % rows:
        raise Unfit("The latents are no plane; paint without a mask.", "潜变量不是平面；请不要使用蒙版。")
    return functional.adaptive_max_pool2d(mask[None, None], (rows, cells // rows)).reshape(1, cells, 1)
