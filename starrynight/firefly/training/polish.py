"""Teach the decoder alone to lay crisper strokes; the encoder, and so every latent ever written, stays as it is.

A small critic looks at patches and tells drawn pictures from decoded ones; the decoder learns to please it beside the
loss of the autoencoder. Its share follows the gradients (Esser 2021, arXiv:2012.09841), so that neither side ever
drowns the other. Latents are disturbed a little more than the encoder's own doubt, because a painter's are as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from starrynight.firefly.training.autoencoder import PixelTraining, crops, is_hidden, load, psnr, sharp_loss
from starrynight.firefly.training.optimise import Optimiser, ProcessGroup, generator, read_checkpoint

# The critic's share of the gradient at the decoder's last layer, and how far latents are moved (of their deviation).
SHARE, DOUBT = 0.35, 0.06


def critic() -> nn.Sequential:
    """Patches of 22 pixels to one number each: high for drawn, low for decoded."""
    widths = ((3, 32, 2), (32, 64, 2), (64, 96, 1))
    layers: list[nn.Module] = []
    for a, b, stride in widths:
        layers += [spectral_norm(nn.Conv2d(a, b, 4, stride, 1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(96, 1, 3, 1, 1)))


class Pair:
    """A critic with its optimiser; its opinions of pictures, and what it learns from them."""

    def __init__(self, team: ProcessGroup, rate: float) -> None:
        self.team = team
        self.network = critic()
        self.optimiser = torch.optim.Adam(self.network.parameters(), rate, betas=(0.5, 0.9))

    def learn(self, real: Tensor, made: Tensor) -> None:
        """One step of the hinge loss."""
        loss = F.relu(1 - self.network(real)).mean() + F.relu(1 + self.network(made.detach())).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.team.average(self.network.parameters())
        self.optimiser.step()

    def displeasure(self, made: Tensor) -> Tensor:
        self.network.requires_grad_(False)
        answer = -self.network(made).mean()
        self.network.requires_grad_(True)
        return answer


def balanced(plain: Tensor, other: Tensor, last: Tensor) -> Tensor:
    """``plain`` plus ``other`` at the weight that gives it ``SHARE`` of the gradient at ``last``."""
    one, two = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (plain, other))
    return plain + SHARE * (one / (two + 1e-4)).clamp(max=10.0).detach() * other


def train(
    team: ProcessGroup,
    pictures: np.ndarray,
    held_out: np.ndarray,
    work: Path,
    until: int,
    cooldown: int = 0,
    batch: int = 8,
    size: int = 128,
    rate: float = 3e-4,
    alone: int = 40,
    seed: int = 0,
    kind: torch.dtype = torch.float32,
) -> None:
    """Polish the decoder of ``work/autoencoder.safetensors`` until step ``until``, leaving ``decoder.safetensors``.

    For the first ``alone`` steps only the critic learns. A resumed run starts with a new critic.
    """
    torch.manual_seed(seed)
    vae = load(work / "autoencoder.safetensors").requires_grad_(False)
    decoder = vae.decoder.requires_grad_(True)
    optimiser = Optimiser(decoder.named_parameters(), is_hidden, rate, rate, decay=0.0, team=team)
    channels = tuple(read_checkpoint(work / "autoencoder.safetensors")[1]["channels"])
    run = PixelTraining(decoder, optimiser, 0.995, team, channels)
    checkpoint = work / "decoder.safetensors"
    if checkpoint.exists():
        run.restore(checkpoint)
    pair, first = Pair(team, rate), run.step

    def loss_at(step: int) -> Tensor:
        real = crops(pictures, batch // team.size, size, np.random.default_rng((seed, step, team.rank, 7)))
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            made = decoder(disturbed(vae, real, generator(seed, step, team.rank))).float()
        pair.learn(real, made)
        plain = sharp_loss(made, real)
        if step - first < alone:
            return 0.0 * plain
        return balanced(plain, pair.displeasure(made), decoder.conv_out.weight)

    run.go(loss_at, until, checkpoint, batch, warmup=50, cooldown=cooldown)
    if team.rank == 0:
        print(json.dumps({"step": run.step, "psnr": round(psnr(polished(work), held_out), 2)}), flush=True)


@torch.no_grad()
def disturbed(vae: Any, real: Tensor, draw: torch.Generator) -> Tensor:
    """Latents of ``real`` drawn from the encoder's doubt and moved a little further."""
    mean, logvar = vae.encoder(real).float().chunk(2, dim=1)
    spread = (logvar.clamp(-20.0, 10.0).exp() + (DOUBT * mean.std()) ** 2).sqrt()
    return mean + spread * torch.randn(mean.shape, generator=draw)


def polished(work: Path) -> Any:
    """The autoencoder of ``work`` with the polished decoder, if there is one."""
    vae = load(work / "autoencoder.safetensors")
    if (work / "decoder.safetensors").exists():
        vae.decoder.load_state_dict(read_checkpoint(work / "decoder.safetensors")[0]["average"])
    return vae
