"""Train Firefly's transformer and text encoder together on cached latents, by flow matching in ZImagePipeline's
convention: the noisy latent is (1 - sigma) * clean + sigma * noise, the model is told 1 - sigma and answers
clean - noise (the pipeline negates it). Knows nothing of how pictures are drawn or judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starrynight.firefly import model as parts
from starrynight.firefly.training.autoencoder import to_signed
from starrynight.firefly.training.captions import names
from starrynight.firefly.training.loop import Training
from starrynight.firefly.training.optimise import ALONE, Optimiser, ProcessGroup, generator

# The stock transformer pads every caption to a multiple of this (diffusers, transformer_z_image.SEQ_MULTI_OF).
MULTIPLE = 32
LONGEST = 64
EMPTY_SHARE = 0.1
LONG_SHARE = 0.2
# A whole picture of 256 x 256 is this many latents across.
WHOLE = 32
# What a painter that reads every caption equally often leaves out (docs/firefly-evaluation.json): small, pale or thin.
OVERLOOKED = (
    "stars", "swirls", "moon", "crescent", "sun", "comet", "clouds", "church", "blossoms", "crows", "pagoda", "boat", "rain",
)  # fmt: skip
# The sampler takes its first four steps of eight above this sigma, at its shift of 5.
FIRST = 0.85


class Painter(nn.Module):
    """Text encoder and transformer as one module, with a batched forward that equals the stock list-based one."""

    def __init__(self, encoder: Any, transformer: Any) -> None:
        super().__init__()
        self.encoder, self.transformer = encoder, transformer
        # How far apart neighbouring patches stand for the rotary embedding. At 2 a half-size picture spans the same
        # places as a whole one, so that what is learnt there about composition stays true (the stock forward has 1).
        self.stride = 1
        # ``run_block``, or its compiled form: 1.5 times faster, for a minute of compiling at each new length.
        self.block: Callable[..., Tensor] = run_block

    def forward(self, noisy: Tensor, clearness: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """``noisy`` [B, C, H, W], ``clearness`` [B] = 1 - sigma, ``tokens`` and bool ``mask`` [B, L] padded on the
        right to a multiple of 32. Returns clean - noise [B, C, H, W].
        """
        words = read_words(self.encoder, tokens)
        return velocity(self.transformer, noisy, clearness, words, mask, self.stride, self.block)


def read_words(encoder: Any, tokens: Tensor) -> Tensor:
    """What ZImagePipeline takes from a Qwen3 encoder: the input of its last layer, [B, L, width].

    Attention is causal and padding stands on the right, so no word ever sees padding.
    """
    hidden = encoder.embed_tokens(tokens)
    places = torch.arange(tokens.size(1)).unsqueeze(0)
    rotation = encoder.rotary_emb(hidden, places)
    for layer in encoder.layers[:-1]:
        hidden = layer(hidden, attention_mask=None, position_embeddings=rotation, position_ids=places)
    return hidden


def velocity(
    transformer: Any,
    noisy: Tensor,
    clearness: Tensor,
    words: Tensor,
    mask: Tensor,
    stride: int,
    run: Callable[..., Tensor],
) -> Tensor:
    """ZImageTransformer2DModel's forward for one size of picture and one padded length, without lists."""
    batch, channels, height, width = noisy.shape
    rows, columns, length = height // 2, width // 2, words.size(1)
    time_embedding = transformer.t_embedder(clearness * transformer.t_scale)
    picture = noisy.view(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 3, 5, 1)
    picture = transformer.all_x_embedder["2-1"](picture.reshape(batch, rows * columns, 4 * channels))
    picture_turn, words_turn = rotations(transformer, rows, columns, length, stride)
    for block in transformer.noise_refiner:
        picture = run(block, picture, picture_turn, time_embedding)
    words = transformer.cap_embedder(words)
    words = torch.where(mask.unsqueeze(-1), words, transformer.cap_pad_token.to(words.dtype))
    for block in transformer.context_refiner:
        words = run(block, words, words_turn, None)
    stream = torch.cat([picture, words], dim=1)
    turn = torch.cat([picture_turn[0], words_turn[0]]), torch.cat([picture_turn[1], words_turn[1]])
    for block in transformer.layers:
        stream = run(block, stream, turn, time_embedding)
    answer = transformer.all_final_layer["2-1"](stream[:, : rows * columns], c=time_embedding)
    answer = answer.view(batch, rows, columns, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
    return answer.reshape(batch, channels, height, width)


def rotations(
    transformer: Any, rows: int, columns: int, length: int, stride: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """Cosines and sines [tokens, 1, head_dim / 2] for a picture and its caption; stock positions at stride 1."""
    places = transformer.create_coordinate_grid((1, rows, columns), (length + 1, 0, 0)).flatten(0, 2)
    places = places * torch.tensor([1, stride, stride])
    word_places = transformer.create_coordinate_grid((length, 1, 1), (1, 0, 0)).flatten(0, 2)
    turns = (transformer.rope_embedder(ids).unsqueeze(1) for ids in (places, word_places))
    return [(turn.real.contiguous(), turn.imag.contiguous()) for turn in turns]


def run_block(block: Any, x: Tensor, turn: tuple[Tensor, Tensor], time_embedding: Tensor | None) -> Tensor:
    """One ZImageTransformerBlock, modulated by time or (for captions) not."""
    scale_a = gate_a = scale_f = gate_f = None
    if time_embedding is not None:
        modulation = block.adaLN_modulation(time_embedding).unsqueeze(1).chunk(4, dim=2)
        scale_a, gate_a, scale_f, gate_f = modulation
    inner = normed(x, block.attention_norm1, scale_a)
    outer = normed(attend(block.attention, inner, turn), block.attention_norm2, None)
    x = x + (outer if gate_a is None else gate_a.tanh() * outer)
    forward = block.feed_forward
    inner = normed(x, block.ffn_norm1, scale_f)
    outer = normed(forward.w2(F.silu(forward.w1(inner)) * forward.w3(inner)), block.ffn_norm2, None)
    return x + (outer if gate_f is None else gate_f.tanh() * outer)


def normed(x: Tensor, norm: Any, scale: Tensor | None) -> Tensor:
    """RMS norm, then ``1 + scale``; in float32, where autocast would leave the sum of squares in bfloat16."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.eps) * norm.weight
    return (wide if scale is None else wide * (1.0 + scale.float())).to(x.dtype)


def attend(attention: Any, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    batch, length, _ = x.shape
    query, key, value = (
        layer(x).view(batch, length, attention.heads, -1)
        for layer in (attention.to_q, attention.to_k, attention.to_v)
    )
    query = turned(normed(query, attention.norm_q, None), turn)
    key = turned(normed(key, attention.norm_k, None), turn)
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    # Written out, because the backward of the fused kernel is four times slower on a CPU at these lengths.
    weights = (query @ key.mT * query.size(-1) ** -0.5).softmax(-1)
    out = weights.to(value.dtype) @ value
    return attention.to_out[0](out.transpose(1, 2).reshape(batch, length, -1))


def turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of neighbouring pairs."""
    cosine, sine = turn
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2).to(x.dtype)


@dataclass(frozen=True)
class Captions:
    """Every caption of a set as tokens: ``tokens`` int32 [N, K, 64] and ``lengths`` [N, K]; ``empty`` is caption "".

    ``naming`` has, for each thing of OVERLOOKED that any caption names, the places [M, 2] of those captions.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    empty: np.ndarray
    naming: tuple[np.ndarray, ...]

    @classmethod
    def encode(cls, tokenizer: Any, captions: Sequence[Sequence[str]]) -> Captions:
        count = len(captions[0])
        tokens = np.full((len(captions), count, LONGEST), tokenizer.pad_token_id, np.int32)
        lengths = np.zeros((len(captions), count), np.int32)
        for row, texts in enumerate(captions):
            for column, ids in enumerate(tokenizer([worded(tokenizer, text) for text in texts])["input_ids"]):
                ids = ids[:LONGEST]
                tokens[row, column, : len(ids)] = ids
                lengths[row, column] = len(ids)
        empty = np.asarray(tokenizer(worded(tokenizer, ""))["input_ids"], np.int32)
        named = (
            np.argwhere([[names(text, "thing", thing) for text in texts] for texts in captions])
            for thing in OVERLOOKED
        )
        return cls(tokens, lengths, empty, tuple(places for places in named if len(places)))

    def pick(self, count: int, overlooked: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows [count], rising, and for each the order [count, K] in which its captions are told. A share
        ``overlooked`` of them begins with a caption that names a thing of OVERLOOKED, each thing equally often.
        """
        pictures, captions = self.lengths.shape
        rows = rng.integers(pictures, size=count)
        columns = rng.permuted(np.tile(np.arange(captions), (count, 1)), axis=1)
        for slot in np.flatnonzero(rng.random(count) < overlooked) if self.naming else ():
            rows[slot], first = rng.choice(self.naming[rng.integers(len(self.naming))])
            order = columns[slot]
            order[order == first], order[0] = order[0], first
        rising = np.argsort(rows, kind="stable")
        return rows[rising], columns[rising]

    def draw(self, rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Tokens and mask for one batch that ``pick`` chose. Four batches in five hold one caption for each row, one in
        ten of them empty, padded to 32; the fifth joins two captions of each picture into a long one, padded to 64.
        """
        if rng.random() < LONG_SHARE:
            return self.joined(rows, columns)
        column = columns[:, 0]
        tokens, lengths = self.tokens[rows, column], np.minimum(self.lengths[rows, column], MULTIPLE)
        dropped = rng.random(len(rows)) < EMPTY_SHARE
        tokens[dropped, : len(self.empty)] = self.empty
        lengths[dropped] = len(self.empty)
        return padded(tokens, lengths, MULTIPLE)

    def joined(self, rows: np.ndarray, columns: np.ndarray) -> tuple[Tensor, Tensor]:
        """The first two captions that ``columns`` names for each row as one, the second without its opening token."""
        tokens = np.zeros((len(rows), LONGEST), np.int32)
        lengths = np.zeros(len(rows), np.int32)
        for slot, (row, order) in enumerate(zip(rows, columns, strict=True)):
            first = self.tokens[row, order[0], : self.lengths[row, order[0]] - 1]
            second = self.tokens[row, order[-1], 1 : self.lengths[row, order[-1]]]
            both = np.concatenate([first, second])[:LONGEST]
            tokens[slot, : len(both)], lengths[slot] = both, len(both)
        return padded(tokens, lengths, LONGEST)


def padded(tokens: np.ndarray, lengths: np.ndarray, width: int) -> tuple[Tensor, Tensor]:
    mask = np.arange(width)[None] < lengths[:, None]
    return torch.from_numpy(tokens[:, :width]).long(), torch.from_numpy(mask)


def worded(tokenizer: Any, text: str) -> str:
    """``text`` in the chat template, exactly as ZImagePipeline words it."""
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )


@torch.no_grad()
def encode(
    vae: Any,
    pictures: np.ndarray,
    out: Path,
    halve: bool = False,
    room: int = 0,
    kind: torch.dtype = torch.float32,
) -> np.ndarray:
    """Cache the posterior means of ``pictures`` (uint8 [N, S, S, 3]; ``halve`` shrinks them first) as float16.

    Goes on where an earlier run stopped: a side file counts the finished pictures. ``room`` leaves space for
    pictures of the set that are not drawn yet.
    """
    import cv2

    side = pictures.shape[1] // (16 if halve else 8)
    shape = (max(room, len(pictures)), vae.config.latent_channels, side, side)
    tally = out.with_suffix(".count")
    begun = out.exists() and tally.exists() and np.load(out, mmap_mode="r").shape == shape
    latents = np.lib.format.open_memmap(
        out, "r+" if begun else "w+", None if begun else np.float16, None if begun else shape
    )
    start = int(tally.read_text()) if begun else 0
    for first in range(start, len(pictures), 32):
        batch = np.asarray(pictures[first : first + 32])
        if halve:
            half = (batch.shape[2] // 2, batch.shape[1] // 2)
            batch = np.stack([cv2.resize(one, half, interpolation=cv2.INTER_AREA) for one in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            means = vae.encoder(to_signed(batch)).chunk(2, dim=1)[0]
        latents[first : first + len(batch)] = means.float().numpy()
        latents.flush()
        tally.write_text(str(min(first + 32, len(pictures))))
    return cached(out)


def cached(path: Path) -> np.ndarray:
    """The latents that ``encode`` has finished so far."""
    return np.load(path, mmap_mode="r")[: int(path.with_suffix(".count").read_text())]


@dataclass(frozen=True)
class Times:
    """Which sigmas a run trains on: logit-normal ones pushed towards noise by ``shift``; a share ``first`` of them
    instead even between FIRST and 1, where the sampler's first steps settle hour and colour from the words alone; and
    one in ten even over all, so that no time is unknown.
    """

    shift: float = 1.5
    first: float = 0.0

    def draw(self, count: int, draw: torch.Generator) -> Tensor:
        """``count`` sigmas in [0, 1]."""
        drawn = torch.randn(count, generator=draw).sigmoid()
        drawn = shifted(drawn, self.shift)
        even = torch.rand(count, generator=draw)
        lot = torch.rand(count, generator=draw)
        drawn = torch.where(lot < 0.1, even, drawn)
        return torch.where(lot > 1 - self.first, FIRST + (1 - FIRST) * even, drawn)


def shifted(times: Tensor, shift: float) -> Tensor:
    """Sigmas of ``times`` in [0, 1], pushed towards noise as FlowMatchEulerDiscreteScheduler's static ``shift`` does."""
    return shift * times / (1 + (shift - 1) * times)


# Painter, normalised latents [B, C, H, W], tokens and mask, generator: the loss of a batch.
Objective = Callable[[nn.Module, Tensor, tuple[Tensor, Tensor], torch.Generator], Tensor]


def flow_loss(
    painter: nn.Module,
    clean: Tensor,
    words: tuple[Tensor, Tensor],
    draw: torch.Generator,
    times: Times = Times(),
) -> Tensor:
    """Mean squared error of the predicted velocity over a batch of normalised latents [B, C, H, W]."""
    sigma = times.draw(len(clean), draw)
    noise = torch.randn(clean.shape, generator=draw)
    level = sigma.view(-1, 1, 1, 1)
    answer = painter((1 - level) * clean + level * noise, 1 - sigma, *words)
    return F.mse_loss(answer.float(), clean - noise)


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """The matrices inside blocks: neither embeddings, nor the way out, nor what time turns into gates."""
    inside = ".layers." in name or "refiner" in name
    return inside and parameter.ndim == 2 and "adaLN" not in name


class Run(Training):
    """A training run: the painter, its optimiser and average, and the step it has reached."""

    def __init__(
        self,
        dial: parts.ModelConfig,
        vocabulary: int,
        pad: int,
        rate: float,
        seed: int,
        team: ProcessGroup = ALONE,
        kind: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        self.kind = kind
        self.dial, self.vocabulary, self.pad, self.seed = dial, vocabulary, pad, seed
        self.painter = Painter(parts.text_encoder(dial, vocabulary, pad), parts.transformer(dial))
        if compiled:
            self.painter.block = torch.compile(run_block, dynamic=False)
        for unread in (self.painter.encoder.layers[-1], self.painter.encoder.norm):
            unread.requires_grad_(False)
        named = self.painter.named_parameters()
        optimiser = Optimiser(named, is_hidden, rate=rate, hidden_rate=2 * rate, team=team, kind=kind)
        super().__init__(self.painter, optimiser, 0.999, team)

    def facts(self) -> dict[str, Any]:
        mine = {"dim": self.dial.dim, "vocabulary": self.vocabulary, "pad": self.pad, "seed": self.seed}
        return {**super().facts(), **mine}

    def load(self, path: Path) -> Run:
        self.restore(path)
        return self

    @staticmethod
    def stride_for(latents: np.ndarray) -> int:
        """How far apart patches of ``latents`` stand, so that half a size spans what the whole one does."""
        return max(1, WHOLE // latents.shape[-1])

    def train(
        self,
        latents: np.ndarray,
        captions: Captions,
        statistics: tuple[float, float],
        checkpoint: Path,
        until: int,
        batch: int = 32,
        cooldown: int = 0,
        warmup: int = 100,
        objective: Objective = flow_loss,
        overlooked: float = 0.0,
    ) -> None:
        """Go on until step ``until`` on float16 ``latents`` [N, C, H, W] whose mean and deviation are ``statistics``, by
        ``objective``. ``overlooked`` is the share of samples whose caption names
        a thing of OVERLOOKED.
        """
        mean, deviation = statistics
        self.painter.stride = self.stride_for(latents)

        def loss_at(step: int) -> Tensor:
            rng = np.random.default_rng((self.seed, step, self.team.rank))
            rows, columns = captions.pick(batch // self.team.size, overlooked, rng)
            clean = (torch.from_numpy(latents[rows].astype(np.float32)) - mean) / deviation
            words = captions.draw(rows, columns, rng)
            draw = generator(self.seed, step, self.team.rank)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.kind == torch.bfloat16):
                return objective(self.painter, clean, words, draw)

        side = 8 * latents.shape[-1]
        if self.history and self.history[-1].get("side", side) != side:
            self.average.restart()
        self.go(loss_at, until, checkpoint, batch, warmup, cooldown, said=lambda: {"side": side})
