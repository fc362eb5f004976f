"""The parts of Firefly: the classes of Z-Image, made small. One dial, ``dim``, sets the size of the transformer
and of the text encoder; the autoencoder keeps its size. Knows nothing of pictures, captions or training.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
HAN = r"\p{Han}"
# How Qwen's tokenizer cuts text before its merges (transformers, models/qwen2/tokenization_qwen2.py).
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class ModelConfig:
    """``dim`` is the width of the transformer, a multiple of 64 (its heads are 64 wide); everything else follows."""

    dim: int = 256

    @property
    def heads(self) -> int:
        return self.dim // 64

    @property
    def layers(self) -> int:
        """Six blocks at 256, growing with the width; two more (the refiners) see text and picture apart."""
        return max(1, self.dim * 6 // 256)

    @property
    def text_dim(self) -> int:
        return max(64, min(256, self.dim // 64 * 64))


def autoencoder(channels: tuple[int, ...] = (16, 32, 64, 128), latent_channels: int = 16) -> Any:
    """An untrained ``AutoencoderKL``, eight times smaller per side, without attention so that size costs linearly."""
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


def transformer(dial: ModelConfig, latent_channels: int = 16) -> Any:
    """An untrained ``ZImageTransformer2DModel``. Every residual branch starts nearly closed: its gate is zero."""
    import torch
    from diffusers import ZImageTransformer2DModel

    model = ZImageTransformer2DModel(
        in_channels=latent_channels,
        dim=dial.dim,
        n_layers=dial.layers,
        n_refiner_layers=1,
        n_heads=dial.heads,
        n_kv_heads=dial.heads,
        cap_feat_dim=dial.text_dim,
        axes_dims=[16, 24, 24],
        axes_lens=[1024, 512, 512],
    )
    with torch.no_grad():
        for block in [*model.noise_refiner, *model.layers]:
            block.adaLN_modulation[0].weight.zero_()
            block.adaLN_modulation[0].bias.zero_()
            # tanh(0.3): open enough that gradients reach the branch at once, closed enough to start near identity.
            block.adaLN_modulation[0].bias.view(4, -1)[[1, 3]] = 0.3
        final = model.all_final_layer["2-1"]
        for layer in (final.linear, final.adaLN_modulation[1]):
            layer.weight.zero_()
            layer.bias.zero_()
        for token in (model.x_pad_token, model.cap_pad_token):
            token.normal_(std=0.02)
    return model


def text_encoder(dial: ModelConfig, vocabulary: int, pad: int) -> Any:
    """An untrained ``Qwen3Model``. ZImagePipeline reads ``hidden_states[-2]``, so the last layer is never used."""
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=dial.text_dim,
        intermediate_size=2 * dial.text_dim,
        num_hidden_layers=4,
        num_attention_heads=dial.text_dim // 64,
        num_key_value_heads=dial.text_dim // 64,
        head_dim=64,
        max_position_embeddings=1024,
        pad_token_id=pad,
        use_cache=False,
    )
    return Qwen3Model(config)


def tokenizer(captions: Iterable[str], vocabulary: int = 4096) -> Any:
    """A byte-level BPE tokenizer of Qwen's kind, its merges learnt from ``captions``.

    Chinese characters are cut apart while learning, so that no merge spans two of them and a new phrase of known
    characters is read as those characters. Any text can be read: what has no merge falls back to bytes.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(HAN), behavior="isolated"),
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
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
    learnt = Qwen2Tokenizer(
        vocab=learner.get_vocab(),
        merges=merges(learner),
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=1024,
        padding_side="right",
    )
    learnt.chat_template = TEMPLATE
    return learnt


def merges(learner: Any) -> list[tuple[str, str]]:
    """The merges of a trained ``tokenizers.Tokenizer``, in the order they were learnt."""
    import json

    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def scheduler(shift: float = 1.0) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift, use_dynamic_shifting=False)


def pipeline(vae: Any, words: Any, encoder: Any, painter: Any, shift: float) -> Any:
    """The five parts as a ``ZImagePipeline``."""
    from diffusers import ZImagePipeline

    return ZImagePipeline(
        scheduler=scheduler(shift), vae=vae, text_encoder=encoder, tokenizer=words, transformer=painter
    )


def save(pipe: Any, folder: Path, provenance: dict[str, str]) -> None:
    """Write ``pipe`` in bfloat16 as safetensors, with ``provenance`` in the header of every weight file."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    pipe.to(torch.bfloat16)
    pipe.save_pretrained(folder, safe_serialization=True)
    for path in sorted(Path(folder).rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            header = {**(file.metadata() or {}), **provenance}
        save_file(tensors, path, metadata=header)
        path.chmod(0o644)
