"""Tiny pipelines of real classes with random weights, made on the spot: what the painter's tests paint with.

Every network is the class the big model uses, a few channels wide; every tokenizer is a real one, trained here on a
handful of words. Weights come from a fixed seed. Nothing here is a double.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WORDS = [
    "a starry night over a quiet village",
    "星夜下的静谧村庄",
    "oil painting, thick brush strokes",
    "水墨 山水 孤舟",
]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer() -> Any:
    """A byte-level BPE with Qwen's special words and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=CHAT
    )


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(33, 127))]
    tokenizer = Tokenizer(models.Unigram([(letter, -1.0) for letter in letters], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def autoencoder(channels: int, **more: Any) -> Any:
    """An 8× … rather 2-level (2×) AutoencoderKL, so that 32×32 pixels are 16×16 latents."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16), layers_per_block=1, latent_channels=channels, norm_num_groups=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **more,
    )  # fmt: skip


def zimage_transformer() -> Any:
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 6, 6], axes_lens=[256, 32, 32], rope_theta=256.0, t_scale=1000.0, qk_norm=True,
    )  # fmt: skip


def zimage() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    encoder = Qwen3Model(Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
    ))  # fmt: skip
    transformer = zimage_transformer()
    for name in ("x_pad_token", "cap_pad_token"):  # torch.empty in the library: memory's own noise
        torch.nn.init.normal_(getattr(transformer, name), std=0.02)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), transformer=transformer, text_encoder=encoder,
        tokenizer=tokenizer, vae=autoencoder(4, scaling_factor=0.5, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
    )  # fmt: skip


def _clip_config(**more: Any) -> Any:
    from transformers import CLIPTextConfig

    words = {
        "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "projection_dim": 16,
        "vocab_size": len(clip_tokenizer()), "bos_token_id": 188, "eos_token_id": 189, "pad_token_id": 189,
    }  # fmt: skip
    return CLIPTextConfig(**{**words, **more})


def sd() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=16, norm_num_groups=4, cross_attention_dim=16,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    schedule = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                             clip_sample=False, set_alpha_to_one=False)  # fmt: skip
    return StableDiffusionPipeline(
        vae=autoencoder(4), text_encoder=CLIPTextModel(_clip_config()), tokenizer=clip_tokenizer(), unet=unet,
        scheduler=schedule, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl(second: int = 16) -> Any:
    """``second``: the width of the second text encoder, which a single file tells from the first by its width."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=16, norm_num_groups=4, cross_attention_dim=16 + second,
        attention_head_dim=(2, 4), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 16,
    )  # fmt: skip
    schedule = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                      steps_offset=1, timestep_spacing="leading")  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=autoencoder(4, scaling_factor=0.13025), text_encoder=CLIPTextModel(_clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(hidden_size=second)), tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(), unet=unet, scheduler=schedule,
    )  # fmt: skip


def flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 6, 6), guidance_embeds=False,
    )  # fmt: skip
    t5 = T5Config(vocab_size=len(t5_tokenizer()), d_model=16, d_ff=32, d_kv=8, num_layers=2, num_heads=2)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0), vae=autoencoder(4, scaling_factor=0.3611, shift_factor=0.1159,
        use_quant_conv=False, use_post_quant_conv=False), text_encoder=CLIPTextModel(_clip_config()),
        tokenizer=clip_tokenizer(), text_encoder_2=T5EncoderModel(t5), tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )  # fmt: skip


FAMILIES = {"zimage": zimage, "sd": sd, "sdxl": sdxl, "flux": flux}


def flux_in_cpp(heads: int, depth: tuple[int, int], text: int) -> tuple[Any, Any]:
    """A transformer of Flux that stable-diffusion.cpp loads, with its layout in a GGUF: the only class whose widths it reads from the
    file. ``depth``: blocks of two streams and of one. ``text``: the width of the prompt's embeddings.

    diffusers' converter knows one width, so the makers' names are taken without its check.
    """
    from diffusers import FluxTransformer2DModel

    from starrynight.fitting import layout

    torch.manual_seed(1)
    network = FluxTransformer2DModel(
        in_channels=64, num_layers=depth[0], num_single_layers=depth[1], attention_head_dim=128,
        num_attention_heads=heads, joint_attention_dim=text, pooled_projection_dim=768,
    )  # fmt: skip
    shapes, rows = layout._stacked(network, layout.MAKERS["FluxTransformer2DModel"](network))
    return network, layout._layout("flux", network, shapes, rows, "transformer", makers=True)


def save(family: str, folder: Path, loud: float = 1.0) -> Path:
    """The family's tiny pipeline as a diffusers folder. ``loud``: one of Z-Image's layers has a gated product so many
    times (and 100 times) larger than it was, and takes it back right after: the same function, beyond float16.
    """
    pipeline = FAMILIES[family]()
    if loud != 1.0:
        middle = pipeline.transformer.layers[0].feed_forward
        with torch.no_grad():
            middle.w1.weight.mul_(100)
            middle.w3.weight.mul_(loud)
            middle.w2.weight.div_(100 * loud)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def rewrite_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def poison(weights: Path, tensor: str) -> None:
    """One number of one tensor in a checkpoint becomes NaN: its file is whole, what it paints is not."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    tensors[tensor].view(-1)[0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})


def pixels_of(outcome: Any) -> Any:
    """The pixels of a generated image; raises the guard's error where it was refused."""
    if hasattr(outcome, "error"):
        raise outcome.error
    return outcome.pixels


def unnumber(pipeline: Any) -> None:
    """diffusers numbers the device it computes on; torch takes "cpu:0" for another place than "cpu"."""
    for part in pipeline.components.values():
        for module in part.modules() if isinstance(part, torch.nn.Module) else ():
            hooks = getattr(getattr(module, "_hf_hook", None), "hooks", [getattr(module, "_hf_hook", None)])
            for hook in hooks:
                if getattr(hook, "execution_device", None) is not None:
                    hook.execution_device = torch.device("cpu")


def offload_unnumbered(pipeline: Any) -> None:
    """Let the pipeline's sequential offload be followed by ``unnumber``, whenever it is switched on."""
    own = pipeline.enable_sequential_cpu_offload

    def numbered(**options: object) -> None:
        own(**options)
        unnumber(pipeline)

    pipeline.enable_sequential_cpu_offload = numbered
