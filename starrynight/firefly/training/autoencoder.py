"""Train Firefly's autoencoder on crops, refine its decoder against a critic, and cache pictures as latents.

The reconstruction loss is the absolute difference of the pixels and of three bands of a Laplacian pyramid,
which keeps strokes sharp, and a light KL term, which keeps the latents near a unit Gaussian. Nothing here
knows captions or the transformer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from starrynight.firefly import model
from starrynight.firefly.training.optimise import (
    Optimiser,
    ProcessGroup,
    TrainingLoop,
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


def dead_leaves(count: int, size: int = 256, seed: int = 0) -> np.ndarray:
    """Dead-leaves pictures (Lee, Mumford, Huang 2001), uint8 [count, size, size, 3]: ellipses and sectors of
    all sizes over one another. They teach edges and colours before any painting is drawn.
    """
    rng = np.random.default_rng(seed)
    made = np.empty((count, size, size, 3), np.uint8)
    for picture in made:
        tones = rng.uniform(0, 255, (6, 3))
        picture[:] = cv2.resize(
            rng.uniform(0, 255, (4, 4, 3)), (size, size), interpolation=cv2.INTER_CUBIC
        ).clip(0, 255)
        for _ in range(int(rng.integers(40, 400))):
            tone = tuple(float(v) for v in np.clip(tones[rng.integers(6)] + rng.normal(0, 30, 3), 0, 255))
            x, y = (int(v) for v in rng.integers(0, size, 2))
            # Log-uniform radii from 1.5 to 60 pixels: natural pictures have edges at every scale.
            span = 1.5 * 40 ** rng.random()
            angle = rng.uniform(0, 180)
            axes = (max(1, int(span)), max(1, int(span * rng.uniform(0.1, 1))))
            cv2.ellipse(
                picture, (x, y), axes, angle, 0, int(rng.choice([360, 360, 180])), tone, -1, cv2.LINE_AA
            )
        if rng.random() < 0.5:
            picture[:] = np.clip(picture + rng.normal(0, rng.uniform(2, 14), picture.shape), 0, 255)
    return made


def crops(pictures: np.ndarray, count: int, size: int, rng: np.random.Generator) -> Tensor:
    """``count`` random crops [count, 3, size, size] in -1..1: two in three at full scale, else half."""
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
    mean, logvar = vae.encoder(batch).chunk(2, dim=1)
    logvar = logvar.clamp(-20.0, 10.0)
    noise = torch.randn(mean.shape, generator=draw)
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return vae.decoder(mean + (0.5 * logvar).exp() * noise), kl


@torch.no_grad()
def mean_psnr(vae: Any, pictures: np.ndarray) -> float:
    """Mean PSNR in dB of ``pictures`` (uint8 [N, S, S, 3]), each decoded from the posterior's mean."""
    decibels: list[Any] = []
    for start in range(0, len(pictures), 8):
        batch = np.asarray(pictures[start : start + 8])
        again = to_bytes(vae.decoder(vae.encoder(to_signed(batch)).chunk(2, dim=1)[0]))
        errors = ((again.astype(np.float64) - batch) ** 2).mean(axis=(1, 2, 3))
        # An error of zero would make the mean infinite: 1e-3 limits a picture to 78 dB.
        decibels += [certify.psnr(max(float(error), 1e-3), 255.0) for error in errors]
    return float(np.mean(decibels))


class AutoencoderTraining(TrainingLoop):
    """A training of the autoencoder or a part of it. Its checkpoint also holds the channel widths."""

    def __init__(
        self, network: Any, decay: float, rate: float, processes: ProcessGroup, channels: tuple[int, ...]
    ) -> None:
        named = network.named_parameters()
        optimiser = Optimiser(named, is_hidden, rate, rate, decay=0.0, processes=processes)
        super().__init__(network, optimiser, decay, processes)
        self.channels = channels

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "channels": list(self.channels)}


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon optimises it: convolutions except the first and last, whose directions are colours."""
    return parameter.ndim == 4 and "conv_in" not in name and "conv_out" not in name


def train(
    processes: ProcessGroup,
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
    """Train until step ``until``, from ``checkpoint`` if it exists. The processes share each ``batch``."""
    torch.manual_seed(seed)
    vae = model.autoencoder(channels).to(memory_format=torch.channels_last)
    training = AutoencoderTraining(vae, 0.998, rate, processes, channels)
    if checkpoint.exists():
        training.restore(checkpoint)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng((seed, step, processes.rank))
        real = crops(pictures, batch // processes.size, size, rng)
        made, kl = reconstruct(vae, real, generator(seed, step, processes.rank))
        return reconstruction_loss(made, real) + KL_WEIGHT * kl

    training.run(loss_at, until, checkpoint, batch, warmup=50, cooldown=cooldown)
    if processes.rank == 0:
        decibels = round(mean_psnr(load(checkpoint), held_out), 2)
        print(json.dumps({"step": training.step, "psnr": decibels}), flush=True)


def load(checkpoint: Path) -> Any:
    """The averaged autoencoder of ``checkpoint``."""
    groups, facts = read_checkpoint(checkpoint)
    vae = model.autoencoder(tuple(facts["channels"]))
    vae.load_state_dict(groups["average"])
    return vae.to(memory_format=torch.channels_last).eval()


class Critic:
    """A patch discriminator with its optimiser: 22 x 22 pixels to a number, high for drawn pictures."""

    def __init__(self, processes: ProcessGroup, rate: float) -> None:
        self.processes = processes
        layers: list[nn.Module] = []
        for a, b, stride in ((3, 32, 2), (32, 64, 2), (64, 96, 1)):
            layers += [spectral_norm(nn.Conv2d(a, b, 4, stride, 1)), nn.LeakyReLU(0.2)]
        self.network = nn.Sequential(*layers, spectral_norm(nn.Conv2d(96, 1, 3, 1, 1)))
        self.optimiser = torch.optim.Adam(self.network.parameters(), rate, betas=(0.5, 0.9))

    def learn(self, real: Tensor, made: Tensor) -> None:
        """One step of the hinge loss."""
        loss = F.relu(1 - self.network(real)).mean() + F.relu(1 + self.network(made.detach())).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.processes.average_gradients(self.network.parameters())
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
    return mean + deviation * torch.randn(mean.shape, generator=draw)


def polish(
    processes: ProcessGroup,
    pictures: np.ndarray,
    held_out: np.ndarray,
    work: Path,
    until: int,
    cooldown: int = 0,
    batch: int = 8,
    size: int = 128,
    rate: float = 3e-4,
    critic_first: int = 40,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Refine the decoder of ``work/autoencoder.safetensors`` against a critic until step ``until``, and write
    ``decoder.safetensors``. The encoder is frozen, so latents that were cached stay valid.

    For the first ``critic_first`` steps only the critic learns. A resumed run starts with a new critic.
    """
    torch.manual_seed(seed)
    vae = load(work / "autoencoder.safetensors").requires_grad_(False)
    decoder = vae.decoder.requires_grad_(True)
    channels = tuple(vae.config.block_out_channels)
    training = AutoencoderTraining(decoder, 0.995, rate, processes, channels)
    checkpoint = work / "decoder.safetensors"
    if checkpoint.exists():
        training.restore(checkpoint)
    critic, first = Critic(processes, rate), training.step

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng((seed, step, processes.rank, 7))
        real = crops(pictures, batch // processes.size, size, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            made = decoder(noisy_latents(vae, real, generator(seed, step, processes.rank))).float()
        critic.learn(real, made)
        plain = reconstruction_loss(made, real)
        if step - first < critic_first:
            return 0.0 * plain
        return balanced(plain, critic.generator_loss(made), decoder.conv_out.weight)

    training.run(loss_at, until, checkpoint, batch, warmup=50, cooldown=cooldown)
    if processes.rank == 0:
        decibels = round(mean_psnr(load_polished(work), held_out), 2)
        print(json.dumps({"step": training.step, "psnr": decibels}), flush=True)


def load_polished(work: Path) -> Any:
    """The autoencoder of ``work``, with the polished decoder if there is one."""
    vae = load(work / "autoencoder.safetensors")
    if (work / "decoder.safetensors").exists():
        vae.decoder.load_state_dict(read_checkpoint(work / "decoder.safetensors")[0]["average"])
    return vae


@torch.no_grad()
def cache_latents(
    vae: Any,
    pictures: np.ndarray,
    out: Path,
    halve: bool = False,
    planned: int = 0,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Cache the posterior means of ``pictures`` (uint8 [N, S, S, 3]; ``halve`` shrinks them first) as float16
    [N, C, S / 8, S / 8] and return them.

    Resumes: a file beside ``out`` counts the finished pictures. The array has room for ``planned`` pictures,
    of which some may not be drawn yet.
    """
    side = pictures.shape[1] // (16 if halve else 8)
    shape = (max(planned, len(pictures)), vae.config.latent_channels, side, side)
    counter = out.with_suffix(".count")
    begun = out.exists() and counter.exists() and np.load(out, mmap_mode="r").shape == shape
    latents = np.lib.format.open_memmap(
        out, "r+" if begun else "w+", None if begun else np.float16, None if begun else shape
    )
    start = int(counter.read_text()) if begun else 0
    for first in range(start, len(pictures), 32):
        batch = np.asarray(pictures[first : first + 32])
        if halve:
            half = (batch.shape[2] // 2, batch.shape[1] // 2)
            batch = np.stack([cv2.resize(one, half, interpolation=cv2.INTER_AREA) for one in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            means = vae.encoder(to_signed(batch)).chunk(2, dim=1)[0]
        latents[first : first + len(batch)] = means.float().numpy()
        latents.flush()
        counter.write_text(str(min(first + 32, len(pictures))))
    return cached_latents(out)


def cached_latents(path: Path) -> np.ndarray:
    """The latents that ``cache_latents`` has finished so far."""
    return np.load(path, mmap_mode="r")[: int(path.with_suffix(".count").read_text())]
