"""A small preview from latents: one affine map from latent channels to colour, fitted once per autoencoder.

A calibration picture is encoded, its pixels are averaged over each latent's area, and the map is the least-squares fit; no
factors of any family are stored. The preview shows the finished picture that the latents are heading for, not the noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

CALIBRATION = 256  # side of the calibration picture, in pixels
EULER = ("FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler")


class Preview:
    """Maps latents of one pipeline to uint8 pictures; the map is fitted at the first use."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._map: torch.Tensor | None = None

    @torch.no_grad()
    def __call__(self, latents: torch.Tensor, width: int, height: int) -> np.ndarray | None:
        """uint8 [h, w, 3], one pixel per latent; None for latents that are not a plane of channels."""
        plane = self._plane(latents, width, height)
        if plane is None or getattr(self._pipeline, "vae", None) is None:
            return None
        if self._map is None:
            self._map = self._measure()
        channels = plane.float().cpu().flatten(1).T
        if channels.shape[1] + 1 != len(self._map):
            return None
        colours = _with_one(channels) @ self._map
        picture = (colours.clamp(0, 1) * 255).round().to(torch.uint8)
        return picture.reshape(*plane.shape[1:], 3).numpy()

    def _plane(self, latents: torch.Tensor, width: int, height: int) -> torch.Tensor | None:
        """[channels, h, w] of the first picture; packed latents are unpacked by their own pipeline."""
        if latents.ndim == 3 and hasattr(self._pipeline, "_unpack_latents"):
            latents = self._pipeline._unpack_latents(latents, height, width, self._pipeline.vae_scale_factor)
        if latents.ndim == 5 and latents.shape[2] == 1:
            latents = latents[:, :, 0]
        return latents[0] if latents.ndim == 4 else None

    def _measure(self) -> torch.Tensor:
        """The affine map [channels + 1, 3] from a pipeline's latents to colours in 0..1."""
        vae = self._pipeline.vae
        picture = calibration_picture()
        pixels = (picture * 2 - 1).permute(2, 0, 1)[None].to(self._pipeline._execution_device, torch.float32)
        encoded = vae.encode(pixels)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
        latents = self._scaled(latents.float().cpu())[0]
        colours = torch.nn.functional.adaptive_avg_pool2d(
            picture.permute(2, 0, 1), (latents.shape[1], latents.shape[2])
        )
        return torch.linalg.lstsq(_with_one(latents.flatten(1).T), colours.flatten(1).T).solution

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        """An autoencoder's latents as the denoiser sees them."""
        config = self._pipeline.vae.config
        shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
        return (latents - shift) * scale


def predicted_final(
    scheduler: Any, before: torch.Tensor, after: torch.Tensor, step: int, index: int | None
) -> torch.Tensor:
    """The latents that step ``step`` (from 0) is heading for: along its straight line, down to no noise.

    Holds for Euler steps, x = x₀ + σ·dx/dσ, in noise prediction and flow matching alike; for other schedulers the latents
    after the step are returned. ``before`` and ``after`` are the latents around the step, ``index`` is the scheduler's
    ``step_index`` after it.
    """
    straight = type(scheduler).__name__ in EULER and not scheduler.config.get("stochastic_sampling")
    if not straight:
        return after
    place = index or step + 1  # the index has moved on by one
    sigma, next_sigma = (float(scheduler.sigmas[at]) for at in (place - 1, place))
    slope = (after.float() - before.float()) / (next_sigma - sigma)
    return after.float() - next_sigma * slope


def calibration_picture(side: int = CALIBRATION) -> torch.Tensor:
    """float32 [side, side, 3] in 0..1: gradients of every hue under patches of flat colour, always the same."""
    ramp = torch.linspace(0, 1, side)
    picture = torch.stack(
        [ramp.expand(side, side), ramp[:, None].expand(side, side), ramp.flip(0).expand(side, side)], -1
    )
    picture = picture.clone()
    draw = torch.Generator().manual_seed(0)
    cell = side // 8
    for row in range(8):
        for column in range(row % 2, 8, 2):
            colour = torch.rand(3, generator=draw)
            picture[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = colour
    return picture


def _with_one(channels: torch.Tensor) -> torch.Tensor:
    return torch.cat([channels, torch.ones(len(channels), 1)], dim=1)
