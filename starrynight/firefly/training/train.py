"""Train Firefly's transformer and text encoder together on cached latents, by flow matching, and distil them
to the few steps of one sampling schedule.

ZImagePipeline's convention: the noisy latent is ``(1 - sigma) * clean + sigma * noise``, the network is given
the timestep ``1 - sigma`` and predicts ``clean - noise``, which the pipeline negates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starrynight.firefly.training.optimise import Optimiser, autocast

# The sampler takes the first four of its eight steps above this sigma, at its shift of 5.
HIGH_NOISE = 0.85


class TextToImageModel(nn.Module):
    """Text encoder and transformer as one module. The batched forward equals the stock list-based one."""

    def __init__(self, encoder: Any, transformer: Any) -> None:
        super().__init__()
        self.encoder, self.transformer = encoder, transformer
        # ZImagePipeline reads the input of the last layer (``encode_text``), so this is never reached.
        for unread in (encoder.layers[-1], encoder.norm):
            unread.requires_grad_(False)

    def forward(
        self, noisy: Tensor, timestep: Tensor, tokens: Tensor, mask: Tensor, stride: int = 1
    ) -> Tensor:
        """The velocity clean - noise [B, C, H, W] for ``noisy`` [B, C, H, W] at ``timestep`` [B] = 1 - sigma,
        given ``tokens`` and bool ``mask`` [B, L], padded on the right to a multiple of 32.

        ``stride`` is the distance of neighbouring patches for the rotary embedding: at 2 a half-size picture
        spans the positions of a whole one, so what is learnt there about composition carries over. The stock
        forward has 1.
        """
        return velocity(self.transformer, noisy, timestep, encode_text(self.encoder, tokens), mask, stride)


def encode_text(encoder: Any, tokens: Tensor) -> Tensor:
    """What ZImagePipeline takes from a Qwen3 encoder: the input of its last layer, [B, L, width].

    Attention is causal and padding is on the right, so no token attends to padding.
    """
    hidden = encoder.embed_tokens(tokens)
    positions = torch.arange(tokens.size(1), device=tokens.device).unsqueeze(0)
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
    stride: int = 1,
) -> Tensor:
    """ZImageTransformer2DModel's forward without lists, for one picture size and one padded length."""
    batch, channels, height, width = noisy.shape
    rows, columns, length = height // 2, width // 2, text.size(1)
    time_embedding = transformer.t_embedder(timestep * transformer.t_scale)
    image = noisy.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 3, 5, 1)
    image = transformer.all_x_embedder["2-1"](image.reshape(batch, rows * columns, 4 * channels))
    image_rotation, text_rotation = rotations(transformer, rows, columns, length, stride)
    for block in transformer.noise_refiner:
        image = run_block(block, image, image_rotation, time_embedding)
    text = transformer.cap_embedder(text).to(image.dtype)
    text = torch.where(mask.unsqueeze(-1), text, transformer.cap_pad_token.to(text.dtype))
    for block in transformer.context_refiner:
        text = run_block(block, text, text_rotation, None)
    stream = torch.cat([image, text], dim=1)
    cosines, sines = (torch.cat(pair) for pair in zip(image_rotation, text_rotation, strict=True))
    for block in transformer.layers:
        stream = run_block(block, stream, (cosines, sines), time_embedding)
    out = transformer.all_final_layer["2-1"](stream[:, : rows * columns], c=time_embedding)
    out = out.view(batch, rows, columns, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
    return out.reshape(batch, channels, height, width)


# The rotations of every size that was trained, by device: computing them costs more than a block on a GPU.
_ROTATIONS: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = {}


def rotations(
    transformer: Any, rows: int, columns: int, length: int, stride: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """Cosines and sines [tokens, 1, head_dim / 2] for picture and caption; stock positions at stride 1."""
    device = transformer.cap_pad_token.device
    key = (tuple(transformer.rope_embedder.axes_dims), rows, columns, length, stride, device)
    if key not in _ROTATIONS:
        image_ids = transformer.create_coordinate_grid((1, rows, columns), (length + 1, 0, 0)).flatten(0, 2)
        image_ids = image_ids * torch.tensor([1, stride, stride])
        text_ids = transformer.create_coordinate_grid((length, 1, 1), (1, 0, 0)).flatten(0, 2)
        pairs = (transformer.rope_embedder(ids).unsqueeze(1) for ids in (image_ids, text_ids))
        _ROTATIONS[key] = [
            (one.real.contiguous().to(device), one.imag.contiguous().to(device)) for one in pairs
        ]
    return _ROTATIONS[key]


def run_block(
    block: Any, x: Tensor, rotation: tuple[Tensor, Tensor], time_embedding: Tensor | None
) -> Tensor:
    """One ZImageTransformerBlock, modulated by the time embedding; a caption's blocks have none."""
    a, f = block.attention, block.feed_forward
    weights = (
        block.attention_norm1.weight, block.attention_norm2.weight, block.ffn_norm1.weight,
        block.ffn_norm2.weight, a.norm_q.weight, a.norm_k.weight, a.to_q.weight, a.to_k.weight, a.to_v.weight,
        a.to_out[0].weight, f.w1.weight, f.w2.weight, f.w3.weight,
    )  # fmt: skip
    if time_embedding is None:
        return block_forward(x, *rotation, None, *weights)
    return BLOCK["forward"](x, *rotation, block.adaLN_modulation(time_embedding), *weights)


def block_forward(
    x: Tensor, cosine: Tensor, sine: Tensor, modulation: Tensor | None,
    attention_norm1: Tensor, attention_norm2: Tensor, ffn_norm1: Tensor, ffn_norm2: Tensor, norm_q: Tensor,
    norm_k: Tensor, to_q: Tensor, to_k: Tensor, to_v: Tensor, to_out: Tensor, w1: Tensor, w2: Tensor, w3: Tensor,
) -> Tensor:  # fmt: skip
    """A block as a function of its weights, so that one compiled form serves all blocks. ``x`` [B, T, D],
    ``modulation`` [B, 4 D].
    """
    scale_a = gate_a = scale_f = gate_f = None
    if modulation is not None:
        scale_a, gate_a, scale_f, gate_f = modulation.unsqueeze(1).chunk(4, dim=2)
    inner = rms_norm(x, attention_norm1, scale_a)
    query, key, value = (F.linear(inner, weight).unflatten(-1, (-1, 64)) for weight in (to_q, to_k, to_v))
    query, key = (
        rotate(rms_norm(one, norm), cosine, sine).transpose(1, 2)
        for one, norm in ((query, norm_q), (key, norm_k))
    )
    outer = attend(query, key, value.transpose(1, 2)).transpose(1, 2).flatten(2)
    outer = rms_norm(F.linear(outer, to_out), attention_norm2)
    x = x + (outer if gate_a is None else gate_a.tanh() * outer)
    inner = rms_norm(x, ffn_norm1, scale_f)
    outer = rms_norm(F.linear(F.silu(F.linear(inner, w1)) * F.linear(inner, w3), w2), ffn_norm2)
    return x + (outer if gate_f is None else gate_f.tanh() * outer)


# ``block_forward`` or its compiled form (see ``compile_block``).
BLOCK: dict[str, Callable[..., Tensor]] = {"forward": block_forward}


def compile_block(block: Any, lengths: Sequence[int], dtype: torch.dtype) -> float:
    """Use the compiled form of ``block_forward`` from here on, if it compiles and agrees with the plain one on
    samples of ``lengths`` tokens. Returns its relative difference; infinite if it could not be used.
    """
    device = block.attention_norm1.weight.device
    dim = len(block.attention_norm1.weight)
    compiled, worst = torch.compile(block_forward, dynamic=True), 0.0
    draw = torch.Generator(device).manual_seed(0)
    try:
        for count, length in enumerate(lengths, start=3):
            x = torch.randn(count, length, dim, device=device, generator=draw, requires_grad=True)
            turn = torch.rand(2, length, 1, 32, device=device, generator=draw)
            time = torch.randn(count, min(dim, 256), device=device, generator=draw)
            answers = []
            for form in (block_forward, compiled):
                BLOCK["forward"] = form
                with autocast(device, dtype):
                    answers.append(run_block(block, x.to(dtype), (turn[0], turn[1]), time))
                answers[-1].float().square().mean().backward()
            one, two = (answer.detach().float() for answer in answers)
            worst = max(worst, ((one - two).norm() / one.norm()).item())
            with torch.no_grad(), autocast(device, dtype):  # the teacher's form
                run_block(block, x.to(dtype), (turn[0], turn[1]), time)
    except Exception as error:  # a compiler fails in many ways, and each of them leaves the plain form
        print(json.dumps({"compile": repr(error)[:300]}), flush=True)
        worst = math.inf
    for parameter in block.parameters():
        parameter.grad = None
    BLOCK["forward"] = compiled if worst < 0.03 else block_forward
    return worst


def rms_norm(x: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """RMS norm times ``1 + scale``, in float32: autocast would leave the sum of squares in bfloat16."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5) * weight
    return (wide if scale is None else wide * (1.0 + scale.float())).to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Self-attention [B, heads, tokens, 64] -> the same."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value)
    # On a CPU the backward of F.scaled_dot_product_attention is four times as slow at these lengths.
    weights = (query @ key.mT * query.size(-1) ** -0.5).softmax(-1)
    return weights.to(value.dtype) @ value


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of neighbouring pairs."""
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
        normal = torch.randn(count, generator=draw, device=draw.device)
        uniform, choice = torch.rand(2, count, generator=draw, device=draw.device)
        sigmas = shift_sigmas(normal.sigmoid(), self.shift)
        sigmas = torch.where(choice < 0.1, uniform, sigmas)
        return torch.where(choice > 1 - self.high_noise, HIGH_NOISE + (1 - HIGH_NOISE) * uniform, sigmas)


def flow_loss(
    network: nn.Module,
    clean: Tensor,
    text: tuple[Tensor, Tensor],
    draw: torch.Generator,
    sigmas: SigmaSampler = SigmaSampler(),
    stride: int = 1,
) -> Tensor:
    """Mean squared error of the predicted velocity over a batch of normalised latents [B, C, H, W]."""
    sigma = sigmas.sample(len(clean), draw)
    noise = torch.randn(clean.shape, generator=draw, device=clean.device)
    level = sigma.view(-1, 1, 1, 1)
    predicted = network((1 - level) * clean + level * noise, 1 - sigma, *text, stride)
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
        steps = self.sigmas().to(draw.device)
        return steps[torch.multinomial(steps[:, 0] - steps[:, -1], count, replacement=True, generator=draw)]


@dataclass(frozen=True)
class Distillation:
    """Progressive distillation (Salimans and Ho 2022, arXiv:2202.00512) for one schedule.

    The student's velocity is trained towards the mean of the velocities along the teacher's guided path
    through one step. Both the caption's and the empty caption's velocity are, so the guided student follows
    the guided teacher. Only the predictions at the schedule's sigmas change.
    """

    teacher: nn.Module
    empty: Tensor
    schedule: DistillationSchedule = DistillationSchedule()

    def __call__(
        self, student: nn.Module, clean: Tensor, text: tuple[Tensor, Tensor], draw: torch.Generator
    ) -> Tensor:
        """Mean squared error of both velocities for normalised latents ``clean`` [B, C, H, W]."""
        sigmas = self.schedule.sample(len(clean), draw)
        noise = torch.randn(clean.shape, generator=draw, device=clean.device)
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


def optimiser(network: TextToImageModel, rate: float, dtype: torch.dtype) -> Optimiser:
    """The optimiser of the transformer and the text encoder."""
    return Optimiser(network.named_parameters(), is_hidden, rate=rate, hidden_rate=2 * rate, dtype=dtype)
