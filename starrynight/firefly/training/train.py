"""Train Firefly's transformer and text encoder together on cached latents, by flow matching, and distil them
to the few steps of one sampling schedule.

ZImagePipeline's convention: the noisy latent is ``(1 - sigma) * clean + sigma * noise``, the network is given
the timestep ``1 - sigma`` and predicts ``clean - noise``, which the pipeline negates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starrynight.firefly import model
from starrynight.firefly.training.data import TokenizedCaptions
from starrynight.firefly.training.optimise import (
    SINGLE_PROCESS,
    Optimiser,
    ProcessGroup,
    TrainingLoop,
    generator,
)

# Latents across a whole picture of 256 x 256.
WHOLE = 32
# The sampler takes the first four of its eight steps above this sigma, at its shift of 5.
HIGH_NOISE = 0.85


class TextToImageModel(nn.Module):
    """Text encoder and transformer as one module. The batched forward equals the stock list-based one."""

    def __init__(self, encoder: Any, transformer: Any) -> None:
        super().__init__()
        self.encoder, self.transformer = encoder, transformer
        # Distance of neighbouring patches for the rotary embedding. At 2 a half-size picture spans the
        # positions of a whole one, so what is learnt there about composition carries over. The stock forward
        # has 1.
        self.stride = 1
        # ``run_block`` or its compiled form, which is 1.5 times as fast and takes a minute to compile for
        # each length.
        self.block: Callable[..., Tensor] = run_block

    def forward(self, noisy: Tensor, timestep: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """The velocity clean - noise [B, C, H, W] for ``noisy`` [B, C, H, W] at ``timestep`` [B] = 1 - sigma,
        given ``tokens`` and bool ``mask`` [B, L], padded on the right to a multiple of 32.
        """
        text = encode_text(self.encoder, tokens)
        return velocity(self.transformer, noisy, timestep, text, mask, self.stride, self.block)


def encode_text(encoder: Any, tokens: Tensor) -> Tensor:
    """What ZImagePipeline takes from a Qwen3 encoder: the input of its last layer, [B, L, width].

    Attention is causal and padding is on the right, so no token attends to padding.
    """
    hidden = encoder.embed_tokens(tokens)
    positions = torch.arange(tokens.size(1)).unsqueeze(0)
    rotation = encoder.rotary_emb(hidden, positions)
    for layer in encoder.layers[:-1]:
        hidden = layer(hidden, attention_mask=None, position_embeddings=rotation, position_ids=positions)
    return hidden


def velocity(
    transformer: Any,
    noisy: Tensor,
    timestep: Tensor,
    text: Tensor,
    mask: Tensor,
    stride: int,
    run: Callable[..., Tensor],
) -> Tensor:
    """ZImageTransformer2DModel's forward without lists, for one picture size and one padded length."""
    batch, channels, height, width = noisy.shape
    rows, columns, length = height // 2, width // 2, text.size(1)
    time_embedding = transformer.t_embedder(timestep * transformer.t_scale)
    image = noisy.view(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 3, 5, 1)
    image = transformer.all_x_embedder["2-1"](image.reshape(batch, rows * columns, 4 * channels))
    image_rotation, text_rotation = rotations(transformer, rows, columns, length, stride)
    for block in transformer.noise_refiner:
        image = run(block, image, image_rotation, time_embedding)
    text = transformer.cap_embedder(text)
    text = torch.where(mask.unsqueeze(-1), text, transformer.cap_pad_token.to(text.dtype))
    for block in transformer.context_refiner:
        text = run(block, text, text_rotation, None)
    stream = torch.cat([image, text], dim=1)
    cosines, sines = (torch.cat(pair) for pair in zip(image_rotation, text_rotation, strict=True))
    for block in transformer.layers:
        stream = run(block, stream, (cosines, sines), time_embedding)
    out = transformer.all_final_layer["2-1"](stream[:, : rows * columns], c=time_embedding)
    out = out.view(batch, rows, columns, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
    return out.reshape(batch, channels, height, width)


def rotations(
    transformer: Any, rows: int, columns: int, length: int, stride: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """Cosines and sines [tokens, 1, head_dim / 2] for picture and caption; stock positions at stride 1."""
    image_ids = transformer.create_coordinate_grid((1, rows, columns), (length + 1, 0, 0)).flatten(0, 2)
    image_ids = image_ids * torch.tensor([1, stride, stride])
    text_ids = transformer.create_coordinate_grid((length, 1, 1), (1, 0, 0)).flatten(0, 2)
    complex_pair = (transformer.rope_embedder(ids).unsqueeze(1) for ids in (image_ids, text_ids))
    return [(rotation.real.contiguous(), rotation.imag.contiguous()) for rotation in complex_pair]


def run_block(
    block: Any, x: Tensor, rotation: tuple[Tensor, Tensor], time_embedding: Tensor | None
) -> Tensor:
    """One ZImageTransformerBlock, modulated by the time embedding; a caption's blocks have none."""
    scale_a = gate_a = scale_f = gate_f = None
    if time_embedding is not None:
        modulation = block.adaLN_modulation(time_embedding).unsqueeze(1).chunk(4, dim=2)
        scale_a, gate_a, scale_f, gate_f = modulation
    inner = rms_norm(x, block.attention_norm1, scale_a)
    outer = rms_norm(attend(block.attention, inner, rotation), block.attention_norm2, None)
    x = x + (outer if gate_a is None else gate_a.tanh() * outer)
    forward = block.feed_forward
    inner = rms_norm(x, block.ffn_norm1, scale_f)
    outer = rms_norm(forward.w2(F.silu(forward.w1(inner)) * forward.w3(inner)), block.ffn_norm2, None)
    return x + (outer if gate_f is None else gate_f.tanh() * outer)


def rms_norm(x: Tensor, norm: Any, scale: Tensor | None) -> Tensor:
    """RMS norm times ``1 + scale``, in float32: autocast would leave the sum of squares in bfloat16."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.eps) * norm.weight
    return (wide if scale is None else wide * (1.0 + scale.float())).to(x.dtype)


def attend(attention: Any, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Self-attention of ``x`` [B, tokens, dim] with normalised, rotated queries and keys."""
    batch, length, _ = x.shape
    query, key, value = (
        layer(x).view(batch, length, attention.heads, -1)
        for layer in (attention.to_q, attention.to_k, attention.to_v)
    )
    query = rotate(rms_norm(query, attention.norm_q, None), rotation)
    key = rotate(rms_norm(key, attention.norm_k, None), rotation)
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    # Not F.scaled_dot_product_attention: its backward is four times as slow on a CPU at these lengths.
    weights = (query @ key.mT * query.size(-1) ** -0.5).softmax(-1)
    out = weights.to(value.dtype) @ value
    return attention.to_out[0](out.transpose(1, 2).reshape(batch, length, -1))


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of neighbouring pairs."""
    cosine, sine = rotation
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2).to(x.dtype)


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """``sigmas`` in [0, 1], moved towards noise as FlowMatchEulerDiscreteScheduler's ``shift`` moves them."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


@dataclass(frozen=True)
class SigmaSampler:
    """The distribution of training sigmas: logit-normal, moved towards noise by ``shift``. A share
    ``high_noise`` is uniform between HIGH_NOISE and 1 instead, where the sampler's first steps fix hour and
    colour from the caption alone; one in ten is uniform over all, so that every sigma is trained.
    """

    shift: float = 1.5
    high_noise: float = 0.0

    def sample(self, count: int, draw: torch.Generator) -> Tensor:
        """``count`` sigmas in [0, 1]."""
        sigmas = shift_sigmas(torch.randn(count, generator=draw).sigmoid(), self.shift)
        uniform = torch.rand(count, generator=draw)
        choice = torch.rand(count, generator=draw)
        sigmas = torch.where(choice < 0.1, uniform, sigmas)
        return torch.where(choice > 1 - self.high_noise, HIGH_NOISE + (1 - HIGH_NOISE) * uniform, sigmas)


# (model, normalised latents [B, C, H, W], (tokens, mask), generator) to the loss of a batch.
Objective = Callable[[nn.Module, Tensor, tuple[Tensor, Tensor], torch.Generator], Tensor]


def flow_loss(
    network: nn.Module,
    clean: Tensor,
    text: tuple[Tensor, Tensor],
    draw: torch.Generator,
    sigmas: SigmaSampler = SigmaSampler(),
) -> Tensor:
    """Mean squared error of the predicted velocity over a batch of normalised latents [B, C, H, W]."""
    sigma = sigmas.sample(len(clean), draw)
    noise = torch.randn(clean.shape, generator=draw)
    level = sigma.view(-1, 1, 1, 1)
    predicted = network((1 - level) * clean + level * noise, 1 - sigma, *text)
    return F.mse_loss(predicted.float(), clean - noise)


@dataclass(frozen=True)
class DistillationSchedule:
    """The student's ``steps`` and ``shift``, the teacher's ``substeps`` in each of them, and the guidance
    ``pos + guidance * (pos - neg)`` of ZImagePipeline that both use.
    """

    steps: int = 8
    shift: float = 5.0
    guidance: float = 2.0
    substeps: int = 4

    def sigmas(self) -> Tensor:
        """The teacher's sigmas within each of the student's steps, from 1 to 0: [steps, substeps + 1]."""
        fine = shift_sigmas(torch.linspace(1, 0, self.steps * self.substeps + 1), self.shift)
        return fine.unfold(0, self.substeps + 1, self.substeps)

    def sample(self, count: int, draw: torch.Generator) -> Tensor:
        """``count`` rows of ``sigmas`` [count, substeps + 1], with a probability proportional to the step's
        length: over a long step, one evaluation differs most from several.
        """
        steps = self.sigmas()
        return steps[torch.multinomial(steps[:, 0] - steps[:, -1], count, replacement=True, generator=draw)]


@dataclass(frozen=True)
class Distillation:
    """Progressive distillation (Salimans and Ho 2022, arXiv:2202.00512) for one schedule, as an
    ``Objective``.

    The student's velocity is trained towards the mean of the velocities along the teacher's guided path
    through one step. Both the caption's and the empty caption's velocity are, so the guided student follows
    the guided teacher. Only the predictions at the schedule's sigmas change.
    """

    teacher: nn.Module
    empty: Tensor
    schedule: DistillationSchedule = DistillationSchedule()

    @classmethod
    def of(
        cls,
        teacher: nn.Module,
        captions: TokenizedCaptions,
        schedule: DistillationSchedule = DistillationSchedule(),
    ) -> Distillation:
        """The objective for batches of ``captions``; freezes ``teacher``."""
        return cls(teacher.eval().requires_grad_(False), torch.from_numpy(captions.empty).long(), schedule)

    def __call__(
        self, student: nn.Module, clean: Tensor, text: tuple[Tensor, Tensor], draw: torch.Generator
    ) -> Tensor:
        """Mean squared error of both velocities for normalised latents ``clean`` [B, C, H, W]."""
        sigmas = self.schedule.sample(len(clean), draw)
        noise = torch.randn(clean.shape, generator=draw)
        level = sigmas[:, 0].view(-1, 1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        tokens, mask = self.with_empty(*text)
        target = self.mean_velocities(noisy, sigmas, tokens, mask)
        predicted = student(noisy.repeat(2, 1, 1, 1), (1 - sigmas[:, 0]).repeat(2), tokens, mask)
        return F.mse_loss(predicted.float(), target)

    def with_empty(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and mask [2B, L]: the captions, then as many empty ones."""
        empty_tokens, empty_mask = torch.zeros_like(tokens), torch.zeros_like(mask)
        empty_tokens[:, : len(self.empty)] = self.empty
        empty_mask[:, : len(self.empty)] = True
        return torch.cat([tokens, empty_tokens]), torch.cat([mask, empty_mask])

    @torch.no_grad()
    def mean_velocities(self, noisy: Tensor, sigmas: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """The teacher's mean velocities [2B, C, H, W] on its guided path over ``sigmas`` [B, substeps + 1]
        from ``noisy`` [B, C, H, W], each weighted by its substep's share of the step.
        """
        total = torch.zeros_like(noisy.repeat(2, 1, 1, 1))
        for start, end in pairwise(sigmas.unbind(1)):
            both = self.teacher(noisy.repeat(2, 1, 1, 1), (1 - start).repeat(2), tokens, mask).float()
            length = (start - end).view(-1, 1, 1, 1)
            conditional, unconditional = both.chunk(2)
            guided = conditional + self.schedule.guidance * (conditional - unconditional)
            noisy = noisy + length * guided
            total = total + length.repeat(2, 1, 1, 1) * both
        return total / (sigmas[:, 0] - sigmas[:, -1]).repeat(2).view(-1, 1, 1, 1)


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon optimises it: the matrices inside blocks, except the time modulation."""
    inside = ".layers." in name or "refiner" in name
    return inside and parameter.ndim == 2 and "adaLN" not in name


class TrainingRun(TrainingLoop):
    """A training of the transformer and the text encoder."""

    def __init__(
        self,
        config: model.ModelConfig,
        vocabulary: int,
        pad: int,
        rate: float,
        seed: int,
        processes: ProcessGroup = SINGLE_PROCESS,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        self.dtype = dtype
        self.config, self.vocabulary, self.pad, self.seed = config, vocabulary, pad, seed
        self.model = TextToImageModel(model.text_encoder(config, vocabulary, pad), model.transformer(config))
        if compiled:
            self.model.block = torch.compile(run_block, dynamic=False)
        for unread in (self.model.encoder.layers[-1], self.model.encoder.norm):
            unread.requires_grad_(False)
        named = self.model.named_parameters()
        optimiser = Optimiser(
            named, is_hidden, rate=rate, hidden_rate=2 * rate, processes=processes, dtype=dtype
        )
        super().__init__(self.model, optimiser, 0.999, processes)

    def facts(self) -> dict[str, Any]:
        own = {"dim": self.config.dim, "vocabulary": self.vocabulary, "pad": self.pad, "seed": self.seed}
        return {**super().facts(), **own}

    @staticmethod
    def stride_for(latents: np.ndarray) -> int:
        """The patch stride at which ``latents`` span as many positions as those of a whole picture."""
        return max(1, WHOLE // latents.shape[-1])

    def train(
        self,
        latents: np.ndarray,
        captions: TokenizedCaptions,
        statistics: tuple[float, float],
        checkpoint: Path,
        until: int,
        batch: int = 32,
        cooldown: int = 0,
        warmup: int = 100,
        objective: Objective = flow_loss,
        omitted_share: float = 0.0,
    ) -> None:
        """Train until step ``until`` on float16 ``latents`` [N, C, H, W] whose mean and deviation are
        ``statistics``.

        A share ``omitted_share`` of the samples has a caption that mentions one of data.OMITTED_SUBJECTS.
        """
        mean, deviation = statistics
        self.model.stride = self.stride_for(latents)

        def loss_at(step: int) -> Tensor:
            rng = np.random.default_rng((self.seed, step, self.processes.rank))
            rows, columns = captions.sample(batch // self.processes.size, omitted_share, rng)
            clean = (torch.from_numpy(latents[rows].astype(np.float32)) - mean) / deviation
            text = captions.batch(rows, columns, rng)
            draw = generator(self.seed, step, self.processes.rank)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                return objective(self.model, clean, text, draw)

        side = 8 * latents.shape[-1]
        if self.history and self.history[-1].get("side", side) != side:
            self.restart_average()
        self.run(loss_at, until, checkpoint, batch, warmup, cooldown, extra={"side": side})
