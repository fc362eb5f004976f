"""Tiny models of the senses' real classes with random weights, as folders for transformers and as .gguf for llama-server.

Every class is the one that the published model has; the .gguf holds the same numbers in float32 under llama.cpp's names, as its
convert_hf_to_gguf.py writes them, so that two independent programs compute the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
    "<|audio_start|>", "<|audio_pad|>", "<|audio_end|>",
)  # fmt: skip
_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
_SOUND = "<|audio_start|><|audio_pad|><|audio_end|>"
CHAT = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}"
    + _PICTURE
    + "{% elif c.type == 'audio' %}"
    + _SOUND
    + "{% elif c.type == 'text' %}{{ c.text }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What llama.cpp's converter writes into a Qwen3-ASR.
CHAT_ASR = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
RERANK = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. Note that "
    'the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant '
    "passages that answer the query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
WIDTH, INNER, HEADS, GROUPS, HEAD = 64, 128, 4, 2, 16
LOUD = 6.0  # random weights times this write varied tokens


def tokenizer() -> Any:
    """A byte-level BPE in which "yes" and "no" are tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    one = Tokenizer(models.BPE())
    one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    one.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    one.train_from_iterator(
        ["yes", "no"] * 50 + ["a starry night 星夜 梵高"] * 5,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet),
    )
    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "audio_token": "<|audio_pad|>",
             "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}  # fmt: skip
    made = PreTrainedTokenizerFast(
        tokenizer_object=one, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=names
    )
    made.add_tokens(list(SPECIAL), special_tokens=True)
    made.add_tokens(["<asr_text>"], special_tokens=False)
    return made


def _text(vocabulary: int, layers: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": layers,
        "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "head_dim": HEAD, "max_position_embeddings": 32768,
        "tie_word_embeddings": True, **more,
    }  # fmt: skip


def _save(model: Any, folder: Path, loud: float = LOUD, tokens: Any = None) -> None:
    """``tokens``: rows of tokens that are no printable characters of their own become faint, so that they are hardly ever written:
    llama-server leaves parts of characters out of its answers.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "norm" not in name:
                weight.mul_(loud)
        for number in range(len(tokens or ())):
            written = tokens.decode([number], skip_special_tokens=True)
            if not written.isprintable() or "\ufffd" in written or not written.strip() or "<" in written:
                model.get_input_embeddings().weight[number] *= 0.01
    model.eval().save_pretrained(folder)


def vision(folder: Path) -> Path:
    """Qwen3-VL, saved as published: a preprocessor_config.json that AutoProcessor cannot use without torchvision."""
    from transformers import Qwen2VLImageProcessorPil, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(3)
    tokens = tokenizer()
    ids = tokens.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=_text(len(tokens), 4, rope_parameters=rope),
        vision_config={
            "depth": 4, "hidden_size": WIDTH, "intermediate_size": INNER, "num_heads": 4, "patch_size": 16, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "out_hidden_size": WIDTH, "num_position_embeddings": 256, "deepstack_visual_indexes": [0, 1, 2],
        },
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"), vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"), tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [tokens.eos_token_id, tokens.pad_token_id]  # both, as published
    model.generation_config.pad_token_id = tokens.pad_token_id
    _save(model, folder, tokens=tokens)
    tokens.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT, "utf-8")
    half = [0.5] * 3
    Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, temporal_patch_size=2, image_mean=half, image_std=half
    ).save_pretrained(folder)
    return folder


def speech(folder: Path) -> Path:
    from transformers import (
        Qwen3ASRConfig,
        Qwen3ASRFeatureExtractor,
        Qwen3ASRForConditionalGeneration,
        Qwen3ASRProcessor,
    )

    torch.manual_seed(7)
    tokens = tokenizer()
    config = Qwen3ASRConfig(
        audio_config={
            "model_type": "qwen3_asr_encoder", "num_mel_bins": 128, "encoder_layers": 4, "encoder_attention_heads": 4,
            "encoder_ffn_dim": INNER, "d_model": WIDTH, "output_dim": WIDTH, "downsample_hidden_size": 16,
        },
        text_config=_text(len(tokens), 2, model_type="qwen3"),
        audio_token_id=tokens.convert_tokens_to_ids("<|audio_pad|>"), pad_token_id=tokens.pad_token_id,
        eos_token_id=[tokens.eos_token_id, tokens.pad_token_id],  # both, as published
    )  # fmt: skip
    _save(Qwen3ASRForConditionalGeneration(config), folder, tokens=tokens)
    Qwen3ASRProcessor(
        feature_extractor=Qwen3ASRFeatureExtractor(), tokenizer=tokens, chat_template=CHAT
    ).save_pretrained(folder)
    return folder


def reranker(folder: Path) -> Path:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    tokens = tokenizer()
    _save(Qwen3ForCausalLM(Qwen3Config(**_text(len(tokens), 2))), folder, 10.0)
    tokens.save_pretrained(folder)
    return folder


def blip(folder: Path) -> Path:
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessorPil,
        BlipProcessor,
    )

    torch.manual_seed(1)
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "boat", "night", "star"]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    tokens = BertTokenizerFast.from_pretrained(folder, bos_token="[DEC]")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BlipConfig(
        text_config=sizes | {"vocab_size": len(words), "encoder_hidden_size": 32, "projection_dim": 32, "bos_token_id": 5,
                             "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0},
        vision_config=sizes | {"image_size": 32, "patch_size": 16, "projection_dim": 32},
    )  # fmt: skip
    _save(BlipForConditionalGeneration(config), folder, 4.0)
    size = {"height": 32, "width": 32}
    BlipProcessor(image_processor=BlipImageProcessorPil(size=size), tokenizer=tokens).save_pretrained(folder)
    return folder


UIE_CHARACTERS = "梵高风格的星夜小村在河边黄昏雪人物地点时间主题张三李四年龄: ,，。0123456789"


def siamese(folder: Path, layers: int = 4, upper: int = 2) -> Path:
    """SiameseUIE with modelscope's names of tensors, and a config.json of the whole BERT as it publishes."""
    from safetensors.torch import save_file
    from transformers import BertConfig

    from starrynight.senses.loading.siamese import SiameseUIE

    torch.manual_seed(2)
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(UIE_CHARACTERS))]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
    )
    model = SiameseUIE(config, upper)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "LayerNorm" not in name:
                weight.mul_(8)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


# -- the same as .gguf -------------------------------------------------------------------------------------------------

_DECODER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_VISION = {
    "norm1": "ln1", "norm2": "ln2", "attn.qkv": "attn_qkv", "attn.proj": "attn_out", "mlp.linear_fc1": "ffn_up", "mlp.linear_fc2": "ffn_down",
}  # fmt: skip
_AUDIO = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_out",
    "self_attn_layer_norm": "ln1", "final_layer_norm": "ln2", "fc1": "ffn_up", "fc2": "ffn_down",
}  # fmt: skip


def _weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def _blocks(name: str, table: dict[str, str], prefix: str) -> str:
    """``3.self_attn.q_proj.weight`` → ``blk.3.attn_q.weight``."""
    number, rest = name.split(".", 1)
    part, _, kind = rest.rpartition(".")
    return f"{prefix}blk.{number}.{table[part]}.{kind}"


def decoder(
    folder: Path,
    out: Path,
    arch: str,
    chat: str,
    prefix: str,
    deepstack: int | None = None,
    head: bool = False,
    pooling: gguf.PoolingType | None = None,
) -> Path:
    """The language model of a folder. ``prefix``: of its tensors. ``head``: with the rows of "yes" and "no", as a reranker."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    text = config.get("text_config", config)
    writer = gguf.GGUFWriter(out, arch)
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_context_length(32768)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_rope_freq_base(text["rope_parameters"]["rope_theta"])
    if deepstack is not None:
        writer.add_rope_dimension_sections([4, 2, 2, 0])
        writer.add_num_deepstack_layers(deepstack)
    _add_tokenizer(writer, folder)
    weights = {
        name.removeprefix(prefix): one for name, one in _weights(folder).items() if name.startswith(prefix)
    }
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if head:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(["yes", "no"])
        writer.add_chat_template([{"name": "rerank", "template": chat}])
        ids = _vocabulary(folder)[0]
        rows = weights["embed_tokens.weight"][[ids["yes"], ids["no"]]]
        writer.add_tensor("cls.output.weight", np.ascontiguousarray(rows))
    else:
        writer.add_chat_template(chat)
    named = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    for name, weight in weights.items():
        writer.add_tensor(
            named.get(name) or _blocks(name.removeprefix("layers."), _DECODER, ""), weight.astype(np.float32)
        )
    return _close(writer, out)


def _vocabulary(folder: Path) -> tuple[dict[str, int], dict[str, bool], list[str]]:
    """Token → id, added token → whether it is special, and the merges."""
    told = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    added = {one["content"]: one for one in told["added_tokens"]}
    ids = told["model"]["vocab"] | {name: one["id"] for name, one in added.items()}
    merges = [one if isinstance(one, str) else " ".join(one) for one in told["model"]["merges"]]
    return ids, {name: one["special"] for name, one in added.items()}, merges


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    ids, added, merges = _vocabulary(folder)
    names = sorted(ids, key=ids.__getitem__)
    kinds = [
        gguf.TokenType.NORMAL
        if name not in added
        else gguf.TokenType.CONTROL
        if added[name]
        else gguf.TokenType.USER_DEFINED
        for name in names
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])


def _close(writer: gguf.GGUFWriter, out: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def vision_projector(folder: Path, out: Path) -> Path:
    """Qwen3-VL's picture half as mmproj."""
    writer = gguf.GGUFWriter(out, "clip")
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.QWEN3VL)
    writer.add_vision_projection_dim(WIDTH)
    writer.add_vision_image_size(256)
    writer.add_vision_patch_size(16)
    writer.add_vision_embedding_length(WIDTH)
    writer.add_vision_feed_forward_length(INNER)
    writer.add_vision_block_count(4)
    writer.add_vision_head_count(4)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_use_gelu(True)
    writer.add_vision_spatial_merge_size(2)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_is_deepstack_layers([True, True, True, False])
    named = {
        "merger.norm": "v.post_ln",
        "merger.linear_fc1": "mm.0",
        "merger.linear_fc2": "mm.2",
        "pos_embed": "v.position_embd",
    }
    prefix = "model.visual."
    for name, weight in _weights(folder).items():
        if not name.startswith(prefix):
            continue
        part, _, kind = name.removeprefix(prefix).rpartition(".")
        if part == "patch_embed.proj":
            if kind == "bias":
                writer.add_tensor("v.patch_embd.bias", weight)
            else:
                writer.add_tensor("v.patch_embd.weight", np.ascontiguousarray(weight[:, :, 0]))
                writer.add_tensor("v.patch_embd.weight.1", np.ascontiguousarray(weight[:, :, 1]))
        elif part.startswith("blocks."):
            writer.add_tensor(_blocks(f"{part.removeprefix('blocks.')}.{kind}", _VISION, "v."), weight)
        elif part.startswith("deepstack_merger_list."):
            _, number, inner = part.split(".")
            writer.add_tensor(f"v.deepstack.{number}.{inner.replace('linear_', '')}.{kind}", weight)
        else:
            writer.add_tensor(f"{named[part]}.{kind}", weight)
    return _close(writer, out)


def audio_projector(folder: Path, out: Path) -> Path:
    """Qwen3-ASR's sound half as mmproj. llama.cpp wants its table of positions written out."""
    writer = gguf.GGUFWriter(out, "clip")
    writer.add_type("mmproj")
    writer.add_clip_has_audio_encoder(True)
    writer.add_clip_audio_projector_type(gguf.VisionProjectorType.QWEN3A)
    writer.add_audio_projection_dim(WIDTH)
    writer.add_audio_embedding_length(WIDTH)
    writer.add_audio_feed_forward_length(INNER)
    writer.add_audio_block_count(4)
    writer.add_audio_head_count(4)
    writer.add_audio_num_mel_bins(128)
    writer.add_audio_attention_layernorm_eps(1e-5)
    steps = np.exp(-np.log(10_000) / (WIDTH // 2 - 1) * np.arange(WIDTH // 2))
    angles = np.arange(1500)[:, None] * steps[None]
    writer.add_tensor(
        "a.position_embd.weight", np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)
    )
    prefix = "model.audio_tower."
    for name, weight in _weights(folder).items():
        name = name.replace("model.multi_modal_projector.linear_", f"{prefix}proj")
        if not name.startswith(prefix):
            continue
        part, _, kind = name.removeprefix(prefix).rpartition(".")
        if part.startswith("layers."):
            made = _blocks(f"{part.removeprefix('layers.')}.{kind}", _AUDIO, "a.")
        elif part.startswith("conv2d"):
            made = f"a.conv2d.{part[-1]}.{kind}"
            weight = weight[:, None, None] if kind == "bias" else weight
        else:
            named = {
                "conv_out": "a.conv_out",
                "ln_post": "a.post_ln",
                "proj1": "mm.a.mlp.1",
                "proj2": "mm.a.mlp.2",
            }
            made = f"{named[part]}.{kind}"
        writer.add_tensor(made, np.ascontiguousarray(weight))
    return _close(writer, out)


# What each sense's .gguf is made of: from a folder to the files.
GGUF: dict[str, Callable[[Path, Path], tuple[Path, ...]]] = {
    "eyes": lambda folder, out: (
        decoder(folder, out / "vl.gguf", "qwen3vl", CHAT, "model.language_model.", 3),
        vision_projector(folder, out / "mmproj-vl.gguf"),
    ),
    "ears": lambda folder, out: (
        decoder(folder, out / "asr.gguf", "qwen3vl", CHAT_ASR, "model.language_model.", 0),
        audio_projector(folder, out / "mmproj-asr.gguf"),
    ),
    "ranker": lambda folder, out: (
        decoder(folder, out / "reranker.gguf", "qwen3", RERANK, "model.", head=True),
    ),
}  # fmt: skip


def whisper(folder: Path) -> Path:
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    torch.manual_seed(9)
    folder.mkdir()
    base = tokenizer()
    base.save_pretrained(folder)
    told = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    languages = ("en", "zh", "yue")
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{one}|>" for one in languages), "<|translate|>", "<|transcribe|>",
               "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
    tokens = WhisperTokenizer(vocab=told["vocab"], merges=[tuple(one) for one in told["merges"]])
    tokens.add_tokens(special, special_tokens=True)
    tokens.add_tokens([f"<|{number * 0.02:.2f}|>" for number in range(1501)], special_tokens=False)
    ids = tokens.convert_tokens_to_ids
    config = WhisperConfig(
        vocab_size=len(tokens), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=80, max_target_positions=64, decoder_start_token_id=ids("<|startoftranscript|>"),
        eos_token_id=ids("<|endoftext|>"), pad_token_id=ids("<|endoftext|>"), bos_token_id=ids("<|endoftext|>"),
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    told = model.generation_config
    told._from_model_config = False  # as published: a file of its own
    told.is_multilingual, told.no_timestamps_token_id = True, ids("<|notimestamps|>")
    told.lang_to_id = {f"<|{one}|>": ids(f"<|{one}|>") for one in languages}
    told.task_to_id = {"transcribe": ids("<|transcribe|>"), "translate": ids("<|translate|>")}
    told.prev_sot_token_id, told.max_initial_timestamp_index = ids("<|startofprev|>"), 50
    told.suppress_tokens = told.begin_suppress_tokens = None
    _save(model, folder, 3.0)
    WhisperProcessor(
        feature_extractor=WhisperFeatureExtractor(feature_size=80), tokenizer=tokens
    ).save_pretrained(folder)
    return folder
