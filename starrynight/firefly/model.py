"""Firefly's networks: the classes of Z-Image, made small; build, load, run, rescale and save them.

``ModelConfig.dim`` sets the size of the transformer and of the text encoder; the autoencoder keeps its size.
Nothing here knows how pictures are drawn or how the networks are trained.

**Rescaling for float16.** A feed-forward's output goes straight into an RMS norm, which cancels any scale, so
training does not limit it: after 200,000 samples one output reached 133,120, twice float16's largest number
(65,504). The text encoder's residual stream is read through norms only and reached 32,883. Large models of
this layout behave alike. ``rescale`` divides the matrices that write those numbers by powers of two, which
changes no picture. ``numerics`` can do the same to any model, with a proof; the shipped weights should not
need it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from starrynight.errors import BadFile, MissingFile

CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
HAN = r"\p{Han}"
# How Qwen's tokenizer splits text before its merges (transformers, models/qwen2/tokenization_qwen2.py).
PRETOKENIZER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# The largest activation after ``rescale``: an eighth of float16's largest number, a margin for prompts not
# measured.
LARGEST_ACTIVATION = 2.0**13
# The key of the text encoder's residual stream in ``peak_activations``.
STREAM = "text_encoder"


@dataclass(frozen=True)
class ModelConfig:
    """``dim`` is the width of the transformer, a multiple of 64 (one head), ``layers`` how many blocks run over
    text and picture together; the other sizes follow.
    """

    dim: int = 384
    layers: int = 6

    @property
    def heads(self) -> int:
        return self.dim // 64

    @property
    def text_dim(self) -> int:
        return max(64, min(256, self.dim // 64 * 64))


def autoencoder(channels: tuple[int, ...] = (16, 32, 64, 128), latent_channels: int = 16) -> Any:
    """An untrained ``AutoencoderKL``, 8 times smaller per side. Without attention it is linear in pixels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=256,
        shift_factor=0.0,
        scaling_factor=1.0,
    )


def transformer(config: ModelConfig, latent_channels: int = 16) -> Any:
    """An untrained ``ZImageTransformer2DModel``. Every residual branch starts nearly closed."""
    from diffusers import ZImageTransformer2DModel

    model = ZImageTransformer2DModel(
        in_channels=latent_channels,
        dim=config.dim,
        n_layers=config.layers,
        n_refiner_layers=1,
        n_heads=config.heads,
        n_kv_heads=config.heads,
        cap_feat_dim=config.text_dim,
        axes_dims=[16, 24, 24],
        axes_lens=[1024, 512, 512],
    )
    with torch.no_grad():
        for block in [*model.noise_refiner, *model.layers]:
            block.adaLN_modulation[0].weight.zero_()
            block.adaLN_modulation[0].bias.zero_()
            # Gates of tanh(0.3): large enough for gradients to reach the branch, small enough to start near
            # identity.
            block.adaLN_modulation[0].bias.view(4, -1)[[1, 3]] = 0.3
        final = model.all_final_layer["2-1"]
        for layer in (final.linear, final.adaLN_modulation[1]):
            layer.weight.zero_()
            layer.bias.zero_()
        for token in (model.x_pad_token, model.cap_pad_token):
            token.normal_(std=0.02)
    return model


def text_encoder(config: ModelConfig, vocabulary: int, pad: int) -> Any:
    """An untrained ``Qwen3Model``. ZImagePipeline reads ``hidden_states[-2]``: the last layer is unused."""
    from transformers import Qwen3Config, Qwen3Model

    qwen3 = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=config.text_dim,
        intermediate_size=2 * config.text_dim,
        num_hidden_layers=4,
        num_attention_heads=config.text_dim // 64,
        num_key_value_heads=config.text_dim // 64,
        head_dim=64,
        max_position_embeddings=1024,
        pad_token_id=pad,
        use_cache=False,
    )
    return Qwen3Model(qwen3)


def tokenizer(captions: Iterable[str], vocabulary: int = 4096) -> Any:
    """A byte-level BPE tokenizer of Qwen's kind whose merges are learnt from ``captions``.

    Chinese characters are split while the merges are learnt, so no merge spans two of them and a new phrase
    is read as its characters. Any text can be tokenized: text without a merge falls back to bytes.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(HAN), behavior="isolated"),
            pre_tokenizers.Split(Regex(PRETOKENIZER), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 3,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    learnt = Qwen2Tokenizer(
        vocab=learner.get_vocab(),
        merges=merges,
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=1024,
        padding_side="right",
    )
    learnt.chat_template = CHAT_TEMPLATE
    return learnt


def pipeline(vae: Any, tokenizer: Any, text_encoder: Any, transformer: Any, shift: float) -> Any:
    """The parts as a ``ZImagePipeline`` whose scheduler has the static ``shift``."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=shift, use_dynamic_shifting=False
    )
    return ZImagePipeline(scheduler, vae, text_encoder, tokenizer, transformer)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The saved pipeline in ``folder``, computing in ``dtype``. Raises MissingFile where there is none."""
    from diffusers import ZImagePipeline

    if not (folder / "model_index.json").is_file():
        raise MissingFile(
            f"{folder} holds no pipeline (no model_index.json); name the folder of Firefly's weights.",
            f"{folder} 中没有管线（缺 model_index.json）；请给出萤火权重所在的文件夹。",
        )
    return ZImagePipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)


def paint(
    pipe: Any,
    prompts: Sequence[str],
    seed: int = 7,
    size: int = 256,
    steps: int = 8,
    guidance: float = 2.0,
    batch: int = 10,
) -> np.ndarray:
    """Pictures uint8 [N, size, size, 3] of ``prompts``. Picture i starts from the noise of seed + i."""
    made = []
    pipe.set_progress_bar_config(disable=True)
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        draws = [torch.Generator().manual_seed(seed + start + index) for index in range(len(part))]
        made.append(
            pipe(
                part, height=size, width=size, num_inference_steps=steps, guidance_scale=guidance,
                generator=draws, output_type="np", max_sequence_length=128,
            ).images
        )  # fmt: skip
    return np.round(np.concatenate(made) * 255).astype(np.uint8)


def provenance(folder: Path) -> dict[str, str]:
    """The header of saved weights: how they were made."""
    from safetensors import safe_open

    with safe_open(next((folder / "transformer").glob("*.safetensors")), "pt") as file:
        return dict(file.metadata())


def save(pipe: Any, folder: Path, header: dict[str, str]) -> None:
    """Write ``pipe`` in bfloat16 as safetensors, with ``header`` in the header of every weight file."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    pipe.to(torch.bfloat16)
    pipe.save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):
        # diffusers writes where the weights that a training began with lay.
        config = json.loads(path.read_text("utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    for path in sorted(Path(folder).rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            known = file.metadata() or {}
        save_file(tensors, path, metadata={**known, **header})
        path.chmod(0o644)


def _feed_forwards(transformer: Any) -> Iterator[tuple[str, Any]]:
    """The feed-forward ``w2(silu(w1 x) * w3 x)`` of every block, with its module's name."""
    for stack in ("noise_refiner", "context_refiner", "layers"):
        for number, block in enumerate(getattr(transformer, stack)):
            yield f"{stack}.{number}.feed_forward", block.feed_forward


def peak_activations(pipe: Any, prompts: Sequence[str], size: int = 256) -> dict[str, float]:
    """The largest absolute output of every feed-forward, the largest product that its ``w2`` is given (key "NAME.w2"),
    and the largest number of the text encoder's stream (key "text_encoder"), while ``prompts`` are painted in 8 steps.
    """
    peaks: dict[str, float] = {}

    def note(name: str, values: Any) -> None:
        values = values[0] if isinstance(values, tuple) else values
        peaks[name] = max(peaks.get(name, 0.0), values.abs().max().item())

    hooks = []
    for name, part in _feed_forwards(pipe.transformer):
        hooks.append(part.register_forward_hook(lambda _m, _i, out, name=name: note(name, out)))
        hooks.append(
            part.w2.register_forward_pre_hook(lambda _m, given, name=name: note(f"{name}.w2", given))
        )
    hooks += [
        layer.register_forward_hook(lambda _m, _i, out: note(STREAM, out))
        for layer in pipe.text_encoder.layers
    ]
    try:
        paint(pipe, prompts, size=size)
    finally:
        for hook in hooks:
            hook.remove()
    return peaks


# What a part was divided by, as exponents of two: of a matrix by its name, or of the text encoder's stream.
Exponents = dict[str, int]


@torch.no_grad()
def rescale(
    pipe: Any, prompts: Sequence[str], largest: float = LARGEST_ACTIVATION, size: int = 256
) -> Exponents:
    """Divide weights by powers of two until every peak activation on ``prompts`` is at most ``largest``.
    Returns the exponents of the parts that changed.

    Half of a feed-forward's exponent, or as much as the product before ``w2`` needs, is taken from ``w3``, the rest from ``w2``; where the
    product needs more than the output, ``w2`` grows. Only the epsilon of the following norm (1e-5) keeps the result from being exact. The
    text encoder's epsilons are scaled with its stream.
    """
    needed = {
        name: max(0, math.ceil(math.log2(peak / largest)))
        for name, peak in peak_activations(pipe, prompts, size).items()
        if peak > 0
    }
    exponents: Exponents = {STREAM: needed[STREAM]} if needed[STREAM] else {}
    for name, _ in _feed_forwards(pipe.transformer):
        output = needed.get(name, 0)
        first = max(output // 2, needed.get(f"{name}.w2", 0))
        if first or output:
            exponents |= {f"{name}.w3": first, f"{name}.w2": output - first}
    _divide(pipe, exponents, 1)
    return exponents


@torch.no_grad()
def undo_rescale(pipe: Any, exponents: Exponents) -> None:
    """Multiply back what ``rescale`` divided. A training that goes on needs the weights at the sizes they were
    trained at: an update of Muon has one size, whatever the weights' is.
    """
    _divide(pipe, exponents, -1)


def rescaled(header: Mapping[str, str]) -> Exponents:
    """The exponents in a header of Firefly's. Those of before 2026-11-28 name whole feed-forwards: by one exponent, of which ``w3`` got
    half, rounded down, or by the two of ``w3`` and ``w2``. Raises BadFile for anything else.
    """
    found: Exponents = {}
    for name, exponent in json.loads(header.get("rescaled", "{}")).items():
        match exponent:
            case int() if name == STREAM or name.endswith((".w2", ".w3")):
                found[name] = exponent
            case int():
                found |= {f"{name}.w3": exponent // 2, f"{name}.w2": exponent - exponent // 2}
            case [int(first), int(second)]:
                found |= {f"{name}.w3": first, f"{name}.w2": second}
            case _:
                raise BadFile(
                    f"“rescaled” in the header gives {name} {exponent!r}, which is no exponent of two; take other weights to begin with.",
                    f"文件头的 “rescaled” 中 {name} 为 {exponent!r}，不是 2 的指数；请换一份起始权重。",
                )
    return found


def _divide(pipe: Any, exponents: Exponents, sign: int) -> None:
    """Divide what ``exponents`` names by powers of two, or multiply it where ``sign`` is -1. Raises KeyError for other names."""
    matrices = {
        f"{name}.{matrix}": getattr(part, matrix).weight
        for name, part in _feed_forwards(pipe.transformer)
        for matrix in ("w3", "w2")
    }
    for name, exponent in exponents.items():
        if name == STREAM:
            _rescale_stream(pipe.text_encoder, sign * exponent)
        else:
            matrices[name].mul_(2.0 ** (-sign * exponent))


def _rescale_stream(encoder: Any, exponent: int) -> None:
    """Divide what writes to the residual stream by 2^exponent, and its norms' epsilons by the square."""
    writers = [encoder.embed_tokens]
    for layer in encoder.layers:
        writers += [layer.self_attn.o_proj, layer.mlp.down_proj]
    for writer in writers:
        writer.weight.mul_(2.0**-exponent)
    eps = encoder.config.rms_norm_eps * 4.0**-exponent
    encoder.config.rms_norm_eps = eps
    for layer in encoder.layers:
        layer.input_layernorm.variance_epsilon = layer.post_attention_layernorm.variance_epsilon = eps
        layer.self_attn.q_norm.variance_epsilon = layer.self_attn.k_norm.variance_epsilon = eps
    encoder.norm.variance_epsilon = eps
