"""Train Firefly's autoencoder on crops of drawn pictures, and refine its decoder against a critic.

The reconstruction loss is the absolute difference of the pixels and of three bands of a Laplacian pyramid,
which keeps strokes sharp, and a light KL term, which keeps the latents near a unit Gaussian. Nothing here
knows captions or the transformer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from starrynight.firefly import model
from starrynight.firefly.training.corpus import to_bytes, to_signed
from starrynight.firefly.training.data import PictureSet
from starrynight.firefly.training.optimise import (
    Optimiser,
    TrainingLoop,
    autocast,
    generator,
    read_checkpoint,
)
from starrynight.numerics import certify

KL_WEIGHT = 5e-4
# The critic's share of the gradient at the decoder's last layer.
CRITIC_SHARE = 0.35
# Standard deviation of the noise added to latents while the decoder is refined, as a share of the latents'
# own.
LATENT_NOISE = 0.06


class Crops:
    """Random crops of drawn sets, whose pictures are held on the device as uint8; up to ``most`` of each set."""

    def __init__(self, folders: list[Path], device: torch.device, most: int = 4000) -> None:
        self.sets = [(PictureSet(folder), list[Tensor]()) for folder in folders]
        self.device, self.most = device, most
        self.refresh()

    def refresh(self) -> int:
        """Load the pictures that were drawn meanwhile. Returns how many there are."""
        for drawn, held in self.sets:
            new = drawn.refresh() if held else range(len(drawn))
            pictures = drawn.pictures
            for index in new:
                if len(held) < self.most:
                    held.append(torch.from_numpy(np.array(pictures[index])).to(self.device))
        return sum(len(held) for _, held in self.sets)

    def sample(self, count: int, size: int, rng: np.random.Generator) -> Tensor:
        """``count`` crops [count, 3, size, size] in -1..1: two in three at full scale, else half."""
        pieces = []
        filled = [held for _, held in self.sets if held]
        half = rng.random() < 1 / 3
        for _ in range(count):
            held = filled[0] if len(filled) == 1 or rng.random() < 0.8 else filled[-1]
            picture = held[rng.integers(len(held))]
            span = size * 2 if half and len(picture) >= 2 * size else size
            y, x = (int(rng.integers(0, side - span + 1)) for side in picture.shape[:2])
            piece = picture[y : y + span, x : x + span]
            signed = to_signed(piece[None].flip(2) if rng.random() < 0.5 else piece[None])
            pieces.append(F.avg_pool2d(signed, 2) if span != size else signed)
        return torch.cat(pieces).contiguous(memory_format=torch.channels_last)


def reconstruction_loss(made: Tensor, true: Tensor, levels: int = 3) -> Tensor:
    """Mean absolute difference of the pixels, plus that of each band of a Laplacian pyramid."""
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
    mean, logvar = vae.encoder(batch).float().chunk(2, dim=1)
    logvar = logvar.clamp(-20.0, 10.0)
    noise = torch.randn(mean.shape, generator=draw, device=mean.device)
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return vae.decoder(mean + (0.5 * logvar).exp() * noise), kl


@torch.no_grad()
def mean_psnr(vae: Any, pictures: np.ndarray) -> float:
    """Mean PSNR in dB of ``pictures`` (uint8 [N, S, S, 3]), each decoded from the posterior's mean."""
    decibels: list[Any] = []
    device = next(vae.parameters()).device
    for start in range(0, len(pictures), 8):
        batch = np.asarray(pictures[start : start + 8])
        again = to_bytes(vae.decoder(vae.encoder(to_signed(batch, device)).chunk(2, dim=1)[0]))
        errors = ((again.astype(np.float64) - batch) ** 2).mean(axis=(1, 2, 3))
        # An error of zero would make the mean infinite: 1e-3 limits a picture to 78 dB.
        decibels += [certify.psnr(max(float(error), 1e-3), 255.0) for error in errors]
    return float(np.mean(decibels))


class AutoencoderTraining(TrainingLoop):
    """A training of the autoencoder or a part of it. Its checkpoint also holds the channel widths."""

    def __init__(
        self, network: Any, decay: float, rate: float, channels: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        named = network.named_parameters()
        super().__init__(network, Optimiser(named, is_hidden, rate, rate, decay=0.0, dtype=dtype), decay)
        self.channels = channels

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "channels": list(self.channels)}


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon optimises it: convolutions except the first and last, whose directions are colours."""
    return parameter.ndim == 4 and "conv_in" not in name and "conv_out" not in name


def train(
    vae: Any,
    crops: Crops,
    checkpoint: Path,
    seconds: float,
    dtype: torch.dtype,
    batch: int = 8,
    size: int = 128,
    rate: float = 8e-4,
    seed: int = 0,
) -> None:
    """Train ``vae`` on ``crops`` for ``seconds``, going on from ``checkpoint`` if it exists. Afterwards it has
    the averaged weights.
    """
    device = next(vae.parameters()).device
    training = AutoencoderTraining(vae, 0.992, rate, tuple(vae.config.block_out_channels), dtype)
    if checkpoint.exists():
        training.restore(checkpoint)

    def loss_at(step: int, _spent: float) -> tuple[Tensor, int]:
        if step % 50 == 0:
            crops.refresh()
        real = crops.sample(batch, size, np.random.default_rng((seed, step)))
        with autocast(device, dtype):
            made, kl = reconstruct(vae, real, generator(device, seed * 1_000_003 + step))
        return reconstruction_loss(made.float(), real) + KL_WEIGHT * kl, batch

    training.run(loss_at, seconds, checkpoint, warmup=40, cooldown=0.4)
    vae.load_state_dict(training.average.module.state_dict())


def load(checkpoint: Path) -> Any:
    """The averaged autoencoder of ``checkpoint``."""
    groups, facts = read_checkpoint(checkpoint)
    vae = model.autoencoder(tuple(facts["channels"]))
    vae.load_state_dict(groups["average"])
    return vae.to(memory_format=torch.channels_last).eval()


class Critic:
    """A patch discriminator with its optimiser: 22 x 22 pixels to a number, high for drawn pictures."""

    def __init__(self, rate: float, device: torch.device) -> None:
        layers: list[nn.Module] = []
        for a, b, stride in ((3, 32, 2), (32, 64, 2), (64, 96, 1)):
            layers += [spectral_norm(nn.Conv2d(a, b, 4, stride, 1)), nn.LeakyReLU(0.2)]
        self.network = nn.Sequential(*layers, spectral_norm(nn.Conv2d(96, 1, 3, 1, 1))).to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), rate, betas=(0.5, 0.9))

    def learn(self, real: Tensor, made: Tensor) -> None:
        """One step of the hinge loss."""
        loss = F.relu(1 - self.network(real)).mean() + F.relu(1 + self.network(made.detach())).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def generator_loss(self, made: Tensor) -> Tensor:
        """The negative mean score of ``made``, which the decoder minimises. The critic gets no gradient."""
        self.network.requires_grad_(False)
        loss = -self.network(made).mean()
        self.network.requires_grad_(True)
        return loss


def balanced(plain: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """``plain`` plus ``adversarial``, weighted to give it CRITIC_SHARE of the gradient's norm at ``last``
    (the adaptive weight of Esser 2021, arXiv:2012.09841).
    """
    one, two = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (plain, adversarial))
    return plain + CRITIC_SHARE * (one / (two + 1e-4)).clamp(max=10.0).detach() * adversarial


@torch.no_grad()
def noisy_latents(vae: Any, real: Tensor, draw: torch.Generator) -> Tensor:
    """Samples from the encoder's posterior plus LATENT_NOISE: a generated latent is never exact either."""
    mean, logvar = vae.encoder(real).float().chunk(2, dim=1)
    deviation = (logvar.clamp(-20.0, 10.0).exp() + (LATENT_NOISE * mean.std()) ** 2).sqrt()
    return mean + deviation * torch.randn(mean.shape, generator=draw, device=mean.device)


def polish(
    vae: Any,
    crops: Crops,
    checkpoint: Path,
    seconds: float,
    dtype: torch.dtype,
    batch: int = 8,
    size: int = 128,
    rate: float = 3e-4,
    critic_first: float = 0.1,
    seed: int = 0,
) -> None:
    """Refine the decoder of ``vae`` against a critic for ``seconds``, going on from ``checkpoint``. The encoder
    is frozen, so latents stay valid.

    For the share ``critic_first`` of the time only the critic learns. A resumed run starts with a new critic.
    """
    device = next(vae.parameters()).device
    decoder = vae.requires_grad_(False).decoder.requires_grad_(True)
    channels = tuple(vae.config.block_out_channels)
    training = AutoencoderTraining(decoder, 0.98, rate, channels, dtype)
    if checkpoint.exists():
        training.restore(checkpoint)
    critic = Critic(rate, device)

    def loss_at(step: int, spent: float) -> tuple[Tensor, int]:
        real = crops.sample(batch, size, np.random.default_rng((seed, step, 7)))
        with autocast(device, dtype):
            latents = noisy_latents(vae, real, generator(device, seed * 1_000_003 + step))
            made = decoder(latents).float()
        critic.learn(real, made)
        plain = reconstruction_loss(made, real)
        if spent < critic_first:
            return 0.0 * plain, batch
        return balanced(plain, critic.generator_loss(made), decoder.conv_out.weight), batch

    training.run(loss_at, seconds, checkpoint, warmup=40, cooldown=0.4)
    decoder.load_state_dict(training.average.module.state_dict())
    vae.requires_grad_(False).eval()
