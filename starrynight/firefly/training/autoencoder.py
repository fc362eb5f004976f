"""Train Firefly's autoencoder on crops. Knows nothing of captions or of the transformer.

The loss is the absolute difference on three levels of a Laplacian pyramid beside the pixels, which keeps strokes
crisp, and a light KL term, which keeps the latents near a ball that noise can fill.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from starrynight.firefly import model as parts
from starrynight.firefly.training.loop import Training
from starrynight.firefly.training.optimise import Optimiser, ProcessGroup, generator, read_checkpoint

KL = 5e-4


def crops(pictures: np.ndarray, count: int, size: int, rng: np.random.Generator) -> Tensor:
    """``count`` random crops [count, 3, size, size] in -1..1: two in three at full scale, one at half scale."""
    import cv2

    batch = np.empty((count, size, size, 3), np.uint8)
    for slot in batch:
        picture = pictures[rng.integers(len(pictures))]
        span = size * (2 if rng.random() < 1 / 3 and picture.shape[0] >= 2 * size else 1)
        y, x = (int(rng.integers(0, side - span + 1)) for side in picture.shape[:2])
        piece = picture[y : y + span, x : x + span]
        piece = cv2.resize(piece, (size, size), interpolation=cv2.INTER_AREA) if span != size else piece
        slot[:] = piece[:, ::-1] if rng.random() < 0.5 else piece
    return to_signed(batch)


def to_signed(pictures: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in -1..1, channels last in memory (faster on a CPU)."""
    batch = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    return batch.contiguous(memory_format=torch.channels_last)


def to_bytes(signed: Tensor) -> np.ndarray:
    """The inverse of ``to_signed``, clipped and rounded."""
    return (
        signed.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    )


def sharp_loss(made: Tensor, true: Tensor, levels: int = 3) -> Tensor:
    """Mean absolute difference, plus that of each band of a Laplacian pyramid."""
    difference = made - true
    loss = difference.abs().mean()
    for _ in range(levels):
        coarse = F.avg_pool2d(difference, 2)
        band = difference - F.interpolate(coarse, scale_factor=2, mode="nearest")
        loss = loss + band.abs().mean()
        difference = coarse
    return loss + difference.abs().mean()


def reconstruct(vae: Any, batch: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """The reconstruction from a sampled latent, and the mean KL divergence per latent value (nats)."""
    mean, logvar = vae.encoder(batch).chunk(2, dim=1)
    logvar = logvar.clamp(-20.0, 10.0)
    noise = torch.randn(mean.shape, generator=draw)
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return vae.decoder(mean + (0.5 * logvar).exp() * noise), kl


@torch.no_grad()
def psnr(vae: Any, pictures: np.ndarray) -> float:
    """Mean over ``pictures`` (uint8 [N, S, S, 3]) of each one's PSNR in dB, decoded from the posterior's mean."""
    decibels = []
    for start in range(0, len(pictures), 8):
        batch = np.asarray(pictures[start : start + 8])
        again = to_bytes(vae.decoder(vae.encoder(to_signed(batch)).chunk(2, dim=1)[0]))
        errors = ((again.astype(np.float64) - batch) ** 2).mean(axis=(1, 2, 3))
        decibels += list(10 * np.log10(255.0**2 / np.maximum(errors, 1e-3)))
    return float(np.mean(decibels))


def train(
    team: ProcessGroup,
    pictures: np.ndarray,
    held_out: np.ndarray,
    checkpoint: Path,
    until: int,
    cooldown: int = 0,
    batch: int = 8,
    size: int = 128,
    rate: float = 1e-3,
    seed: int = 0,
    channels: tuple[int, ...] = (16, 32, 64, 128),
) -> None:
    """Go on from ``checkpoint`` (or from nothing) until step ``until``; ``batch`` crops a step are shared by the team."""
    torch.manual_seed(seed)
    vae = parts.autoencoder(channels).to(memory_format=torch.channels_last)
    named = vae.named_parameters()
    optimiser = Optimiser(named, is_hidden, rate=rate, hidden_rate=rate, decay=0.0, team=team)
    run = PixelTraining(vae, optimiser, 0.998, team, channels)
    if checkpoint.exists():
        run.restore(checkpoint)

    def loss_at(step: int) -> Tensor:
        real = crops(pictures, batch // team.size, size, np.random.default_rng((seed, step, team.rank)))
        made, kl = reconstruct(vae, real, generator(seed, step, team.rank))
        return sharp_loss(made, real) + KL * kl

    run.go(loss_at, until, checkpoint, batch, warmup=50, cooldown=cooldown)
    if team.rank == 0:
        print(json.dumps({"step": run.step, "psnr": round(psnr(load(checkpoint), held_out), 2)}), flush=True)


class PixelTraining(Training):
    """A training of the autoencoder, or of a part of it, whose checkpoint also tells its widths."""

    def __init__(
        self, network: Any, optimiser: Optimiser, decay: float, team: ProcessGroup, channels: tuple[int, ...]
    ) -> None:
        super().__init__(network, optimiser, decay, team)
        self.channels = channels

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "channels": list(self.channels)}


def is_hidden(name: str, parameter: torch.nn.Parameter) -> bool:
    """Convolutions inside the network; not its first and last, whose directions are colours."""
    return parameter.ndim == 4 and "conv_in" not in name and "conv_out" not in name


def load(checkpoint: Path) -> Any:
    """The averaged autoencoder of ``checkpoint``."""
    groups, facts = read_checkpoint(checkpoint)
    vae = parts.autoencoder(tuple(facts["channels"]))
    vae.load_state_dict(groups["average"])
    return vae.to(memory_format=torch.channels_last).eval()
