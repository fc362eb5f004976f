"""What a single weight file holds, told by its tensors' names: which networks, of which families, under which prefixes.

Reads headers, not tensors. The names are those of the makers, of ComfyUI and of diffusers; they were read from published
files and from diffusers 0.42 (``loaders/single_file_utils.py``). Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starrynight.errors import BadFile, Unfit
from starrynight.i18n import Text
from starrynight.models.weights import INDEX, header
from starrynight.settings import settings
from starrynight.text import excerpt

SUFFIXES = (".safetensors", ".gguf")
MODEL_KINDS = ("transformer", "unet")
NETWORKS = (*MODEL_KINDS, "text_encoder", "vae")

KINDS = {
    "transformer": Text("transformer", "transformer"),
    "unet": Text("U-Net", "U-Net"),
    "text_encoder": Text("text encoder", "文本编码器"),
    "vae": Text("autoencoder (VAE)", "自编码器（VAE）"),
    "lora": Text("LoRA", "LoRA"),
    "controlnet": Text("ControlNet", "ControlNet"),
    "ip_adapter": Text("IP-Adapter", "IP-Adapter"),
    "image_encoder": Text("image encoder", "图像编码器"),
    "embedding": Text("textual inversion", "文本反转嵌入"),
    "upscaler": Text("upscaler", "放大模型"),
    "unknown": Text("unknown file", "未知文件"),
}

# CLIP's text encoders by the width of their embedding.
CLIPS = {768: "CLIP-L", 1024: "CLIP-H", 1280: "CLIP-G"}

# Names of the parts of a file that holds several networks. The prefix of a network is what stands before its own names.
PREFIXES = re.compile(
    r"model\.diffusion_model\.|diffusion_model\.|text_encoders\.\w+\.(?:transformer\.)?|vae\.|first_stage_model\."
    r"|cond_stage_model\.(?:transformer\.|model\.)?|conditioner\.embedders\.\d+\.(?:transformer\.|model\.)?"
    r"|(?:transformer|unet)\.(?!text_model\.|resblocks\.|wte\.)|text_encoder(?:_\d)?\."
)

ADAPTER = re.compile(
    r"[._]lora[._](?:A|B|down|up|mid|magnitude)|\.(?:lokr_w|hada_w|hada_t|oft_blocks|oft_diag|dora_scale|a1\.weight|diff$|diff_b$)"
)
SVDQUANT = ".wscales"  # a tensor of nunchaku's format, which keeps a low-rank branch of its own beside the 4-bit weights
SHARD = re.compile(r"-\d{5}-of-(\d{5})$")


@dataclass(frozen=True)
class Part:
    """One network in a file. ``prefix`` stands before its tensors' names. ``width``: a text encoder's embedding, or an
    autoencoder's latent channels; 0 if unknown.
    """

    kind: str
    family: str = ""
    prefix: str = ""
    width: int = 0

    @property
    def title(self) -> Text:
        """With its article: "a Qwen3 text encoder (2560 wide)"."""
        family = CLIPS.get(self.width, self.family) if self.family in ("CLIP", "OpenCLIP") else self.family
        en, zh = KINDS[self.kind]
        if family and family != "AutoencoderKL" and family not in en:
            en, zh = f"{family} {en}", f"{family} {zh}"
        if self.width and self.kind == "vae":
            en, zh = f"{en} of {self.width} latent channels", f"{self.width} 个潜变量通道的{zh}"
        elif self.width:
            en, zh = f"{en} ({self.width} wide)", f"{zh}（宽 {self.width}）"
        return Text(f"{'an' if en[0] in 'aeiouAEIO' else 'a'} {en}", zh)


@dataclass(frozen=True)
class FileKind:
    """What a file holds: ``parts`` in the order of their first tensors. A file of an unknown kind has one unknown part."""

    path: Path
    parts: tuple[Part, ...]

    @property
    def kind(self) -> str:
        """The kind of its only part, or "checkpoint"."""
        return self.parts[0].kind if len(self.parts) == 1 else "checkpoint"

    @property
    def denoiser(self) -> Part | None:
        """The network that takes the steps, if the file holds one."""
        return next((part for part in self.parts if part.kind in MODEL_KINDS), None)

    @property
    def title(self) -> Text:
        """What the file is, with its article."""
        if self.kind != "checkpoint":
            return self.parts[0].title
        en, zh = ", ".join(p.title.en for p in self.parts), "、".join(p.title.zh for p in self.parts)
        return Text(f"a whole checkpoint ({en})", f"完整检查点（{zh}）")


@dataclass(frozen=True)
class _Mark:
    """``names``: beginnings of tensor names that must all occur; one with a leading "*" may occur anywhere in a name."""

    kind: str
    family: str
    names: tuple[str, ...]


# The first that matches wins: a family that shares names with another stands before it.
_MARKS = tuple(
    _Mark(kind, family, tuple(names.split()))
    for kind, family, names in (
        ("controlnet", "Z-Image", "control_layers.0."),
        ("controlnet", "Z-Image", "control_all_x_embedder."),
        ("controlnet", "Stable Diffusion", "control_model."),
        ("controlnet", "Stable Diffusion", "input_hint_block."),
        ("controlnet", "Stable Diffusion", "controlnet_cond_embedding."),
        ("controlnet", "Flux", "controlnet_x_embedder."),
        ("controlnet", "Flux", "controlnet_blocks."),
        ("ip_adapter", "", "image_proj. ip_adapter."),
        ("ip_adapter", "", "image_proj. *to_k_ip"),
        ("ip_adapter", "", "proj.norm. 1.to_k_ip."),
        ("upscaler", "ESRGAN", "conv_first. *.rdb1."),
        ("upscaler", "ESRGAN", "model.0. *.RDB1."),
        ("upscaler", "", "conv_first. *.residual_group."),
        ("upscaler", "", "conv_first. conv_last."),
        ("upscaler", "", "params_ema."),
        # Transformers that are painted with here.
        ("transformer", "Z-Image", "cap_pad_token noise_refiner. layers.0.adaLN_modulation.0."),
        ("transformer", "Lumina 2", "cap_embedder. noise_refiner."),
        ("transformer", "Lumina 2", "time_caption_embed. noise_refiner."),
        ("transformer", "Flux.2", "double_stream_modulation_img."),
        ("transformer", "Flux.3", "early_stream_modulations."),
        ("transformer", "Chroma", "distilled_guidance_layer."),
        ("transformer", "HiDream", "double_stream_blocks.0."),
        ("transformer", "HunyuanVideo", "double_blocks.0. txt_in.individual_token_refiner."),
        ("transformer", "HunyuanVideo", "context_embedder.token_refiner."),
        ("transformer", "AuraFlow", "double_layers.0."),
        ("transformer", "AuraFlow", "joint_transformer_blocks.0."),
        ("transformer", "Flux", "double_blocks.0.img_attn. single_blocks.0."),
        ("transformer", "Flux", "single_transformer_blocks.0. context_embedder."),
        ("transformer", "Qwen-Image", "transformer_blocks.0.img_mlp. txt_norm."),
        ("transformer", "Stable Diffusion 3", "joint_blocks.0.context_block."),
        ("transformer", "Stable Diffusion 3", "transformer_blocks.0.norm1_context. pos_embed."),
        ("transformer", "Wan", "head.modulation"),
        ("transformer", "Wan", "condition_embedder. blocks.0.attn2."),
        ("transformer", "Sana", "blocks.0.cross_attn.q_linear."),
        ("transformer", "PixArt", "adaln_single. pos_embed.proj."),
        ("transformer", "LTX-Video", "patchify_proj."),
        ("transformer", "LTX-Video", "caption_projection. scale_shift_table proj_in."),
        ("transformer", "Cosmos", "net.x_embedder.proj."),
        ("unet", "Stable Cascade", "clip_txt_mapper."),
        ("unet", "Stable Cascade", "down_blocks.1.0.channelwise.0."),
        ("unet", "", "input_blocks.0.0. output_blocks.0.0."),
        ("unet", "", "conv_in. down_blocks.0. time_embedding.linear_1."),
        # Encoders of text.
        ("text_encoder", "Gemma", "*layers.0.post_feedforward_layernorm."),
        ("text_encoder", "Qwen-VL", "visual. *layers.0.self_attn."),
        ("text_encoder", "Qwen3", "*layers.0.self_attn.q_norm. *layers.0.self_attn.q_proj."),
        ("text_encoder", "Qwen2", "*layers.0.self_attn.q_proj.bias *layers.0.mlp.gate_proj."),
        ("text_encoder", "Llama", "*layers.0.self_attn.q_proj. *layers.0.mlp.gate_proj."),
        ("text_encoder", "UMT5", "encoder.block.1.layer.0.SelfAttention.relative_attention_bias."),
        ("text_encoder", "T5", "encoder.block.0.layer.0.SelfAttention."),
        ("image_encoder", "CLIP", "vision_model."),
        ("image_encoder", "CLIP", "visual.transformer."),
        ("text_encoder", "CLIP", "text_model.embeddings.token_embedding."),
        ("text_encoder", "CLIP", "embeddings.token_embedding. encoder.layers.0.self_attn."),
        ("text_encoder", "OpenCLIP", "token_embedding. transformer.resblocks.0."),
        # Autoencoders.
        ("vae", "Wan", "decoder.middle.0.residual."),
        ("vae", "Wan", "decoder.mid_block.resnets.0.norm1.gamma"),
        ("vae", "AutoencoderDC", "decoder.stages.0."),
        ("vae", "AutoencoderDC", "decoder.stages.1."),
        ("vae", "Tiny AutoEncoder", "decoder.layers.0."),
        ("vae", "Tiny AutoEncoder", "decoder.1.weight decoder.3.conv.0.weight"),
        ("vae", "AutoencoderKL", "decoder.conv_in. decoder.up."),
        ("vae", "AutoencoderKL", "decoder.conv_in. decoder.up_blocks."),
        ("embedding", "", "emb_params"),
        ("embedding", "", "clip_l clip_g"),
        ("embedding", "", "string_to_param."),
        ("embedding", "", "text_encoders_0"),
        ("embedding", "", "<"),
    )
)

# Tensors whose shapes tell a width, and the axis: the embedding of words, the latents that a decoder takes.
_WIDTHS = {
    "text_encoder": (("embed_tokens.weight", 1), ("token_embedding.weight", 1), ("shared.weight", 1)),
    "vae": (("decoder.conv_in.weight", 1),),
}


def of_file(path: Path) -> FileKind:
    """What the file at ``path`` holds. Raises as ``weights.header``."""
    return of_shapes(path, shapes_of(path))


def shapes_of(path: Path) -> dict[str, list[int]]:
    """The shape of every tensor in a file, by name. Raises as ``weights.header``."""
    return {name: entry["shape"] for name, entry in header(path).items() if name != "__metadata__"}


def of_shapes(path: Path, shapes: Mapping[str, Sequence[int]]) -> FileKind:
    """What a file with tensors of these names and shapes holds."""
    if any(map(ADAPTER.search, shapes)) and not any(name.endswith(SVDQUANT) for name in shapes):
        return FileKind(path, (Part("lora"),))
    groups: dict[str, dict[str, Sequence[int]]] = {}
    for name, shape in shapes.items():
        found = PREFIXES.match(name)
        prefix = found.group() if found else ""
        groups.setdefault(prefix, {})[name.removeprefix(prefix)] = shape
    parts = [part for prefix, own in groups.items() if (part := _network(prefix, own))]
    if not parts:  # a prefix that means nothing here, such as that of CLIP's own "transformer."
        parts = [_network("", shapes) or _wrapped(shapes) or Part("unknown")]
    return FileKind(path, tuple(parts))


def _wrapped(shapes: Mapping[str, Sequence[int]]) -> Part | None:
    """The network of a file whose names all begin with what a training put before them: module., pipe.dit., ema_model. …"""
    pieces = os.path.commonprefix(list(shapes)).split(".")[:-1]  # noqa: RUF071  (letters are compared)
    for count in range(len(pieces), 0, -1):
        prefix = "".join(f"{piece}." for piece in pieces[:count])
        if found := _network(prefix, {name.removeprefix(prefix): shape for name, shape in shapes.items()}):
            return found
    return None


def _network(prefix: str, shapes: Mapping[str, Sequence[int]]) -> Part | None:
    text = "\n" + "\n".join(shapes)
    for mark in _MARKS:
        if all((name[1:] if name[0] == "*" else f"\n{name}") in text for name in mark.names):
            width = _width(mark.kind, shapes)
            family = _unet(shapes) if mark.kind == "unet" and not mark.family else mark.family
            return Part(mark.kind, family, prefix, width)
    return None


def _width(kind: str, shapes: Mapping[str, Sequence[int]]) -> int:
    for ending, axis in _WIDTHS.get(kind, ()):
        for name, shape in shapes.items():
            if name.endswith(ending) and len(shape) > axis:
                return shape[axis]
    return 0


def _unet(shapes: Mapping[str, Sequence[int]]) -> str:
    """Stable Diffusion's version: only XL has size conditions; 2 reads OpenCLIP-H's 1024 numbers a word, 1 reads 768."""
    if any(name.startswith(("label_emb.", "add_embedding.")) for name in shapes):
        return "Stable Diffusion XL"
    words = next((shape for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), [0, 0])
    return "Stable Diffusion 2" if words[-1] == 1024 else "Stable Diffusion 1"


def only_file(folder: Path) -> Path:
    """The one weight file, or list of shards, in a folder that is no diffusers model. Raises BadFile where there is none or
    there are several.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file())
    lists = [file for file in files if file.name.endswith(INDEX)]
    whole = [file for file in files if file.suffix.lower() in SUFFIXES and not SHARD.search(file.stem)]
    shards = [file for file in files if SHARD.search(file.stem)]
    if len(lists) + len(whole) == 1 and (lists or not shards):
        return (lists + whole)[0]
    found = lists + whole
    if found:
        names = ", ".join(excerpt(file.name) for file in found[:3]) + (", …" if len(found) > 3 else "")
        why = Text(
            f"and holds {len(found)} models ({names}); name one of them",
            f"其中有 {len(found)} 个模型（{names}）；请指明其中之一",
        )
    elif shards:
        why = Text(
            f"and holds shards without their list; download their …{INDEX} too",
            f"其中是缺少清单的分片；请一并下载 …{INDEX}",
        )
    else:
        why = Text(
            "and holds no weight file; give a folder or a file of a model",
            "其中也没有权重文件；请给出模型的文件夹或文件",
        )
    raise BadFile(
        f"“{folder}” holds no model_index.json, so it is not a diffusers model, {why.en}.",
        f"“{folder}”里没有 model_index.json，不是 diffusers 模型文件夹，{why.zh}。",
    )


def check_is_file(path: Path) -> None:
    """Raises Unfit for one shard of a model in several files."""
    if shard := SHARD.search(path.stem):
        count = int(shard[1])
        raise Unfit(
            f"“{path.name}” is one of {count} shards; use the model's whole folder, its list of shards "
            "(….safetensors.index.json), or a file that holds all of it.",
            f"“{path.name}”只是 {count} 个分片之一；请使用整个模型文件夹、其分片清单（….safetensors.index.json），或包含全部"
            "内容的单个文件。",
        )


def not_a_model(found: FileKind, known: Sequence[str]) -> Unfit:
    """The error for a file that cannot be painted with by itself: what it is, and where it belongs. ``known``: the families
    that load from a single file.
    """
    name, (en, zh) = found.path.name, found.title
    match found.kind:
        case "lora":
            return Unfit(
                f"“{name}” is a LoRA, not a model; add it to a model: --lora {name}:0.8.",
                f"“{name}”是 LoRA 而不是模型；请叠加使用：--lora {name}:0.8。",
            )
        case "text_encoder" | "vae":
            option = f"--{found.kind.replace('_', '-')}"
            return Unfit(
                f"“{name}” is {en}, not a whole model; put a model together with it: starry models add NAME "
                f"--transformer FILE {option} {name}.",
                f"“{name}”是{zh}，不是完整的模型；可用它拼装模型：starry models add 名字 --transformer 文件 {option} {name}。",
            )
        case "embedding":
            return Unfit(
                f"“{name}” is {en}, not a model; put it into {settings().embeddings} and write its name in the prompt.",
                f"“{name}”是{zh}，不是模型；请放进 {settings().embeddings}，再把它的名字写进提示词。",
            )
        case "unknown":
            return Unfit(
                f"“{name}” has none of the architectures that load from a single file ({', '.join(known)}); use the "
                "model's diffusers folder instead.",
                f"“{name}”不是可单文件加载的架构（{'、'.join(known)}）；请改用该模型的 diffusers 文件夹。",
            )
    if found.denoiser and found.denoiser.kind == "unet":
        own = found.denoiser.family
        base, note = ("sdxl", Text("", "")) if own == "Stable Diffusion XL" else (
            "FOLDER", Text(f" (a diffusers folder of {own})", f"（{own} 的 diffusers 文件夹）"))  # fmt: skip
        return Unfit(
            f"“{name}” is {en}, not a whole model; lay it over a base that brings the rest: starry models add NAME "
            f"--transformer {name} --base {base}{note.en}.",
            f"“{name}”是{zh}，不是完整的模型；请以底座补全其余部分：starry models add 名字 --transformer {name} --base "
            f"{base}{note.zh}。",
        )
    if found.denoiser:
        return Unfit(
            f"“{name}” is {en}; from a single file load {', '.join(known)}. Use the model's diffusers folder instead.",
            f"“{name}”是 {zh}；可单文件加载的有 {'、'.join(known)}。请改用该模型的 diffusers 文件夹。",
        )
    return Unfit(
        f"“{name}” is {en}, not a model to paint with; name a model of `starry models`, a folder or a file.",
        f"“{name}”是{zh}，不是可以作画的模型；请给出 `starry models` 里的名字、文件夹或文件。",
    )
