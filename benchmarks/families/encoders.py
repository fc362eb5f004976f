"""Encoders of texts, pictures and sound."""

from __future__ import annotations

from typing import Any

from torch import nn

from families.common import Family, noise, tokens

LLM = {"stream": ("embed_tokens",), "feed-forward": ("layers.1.mlp.down_proj",), "attention": ("layers.0.self_attn.o_proj",),
       "gated product": ("layers.0.mlp.up_proj",)}  # fmt: skip
CLIP = {"feed-forward": ("encoder.layers.1.mlp.fc2",), "attention": ("encoder.layers.0.self_attn.out_proj",),
        "values": ("encoder.layers.1.self_attn.v_proj",)}  # fmt: skip
SMALL = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
         "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 16}
THREE_AXES = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 1e6}
PICTURE = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def _built(name: str, config: dict[str, Any]) -> nn.Module:
    import transformers

    kind = getattr(transformers, name)
    return kind(kind.config_class(**config))


class Pooled(nn.Module):
    """Only the pooled output, where the last stream leaves the model without a norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Any) -> Any:
        return self.model(pixels).pooler_output


def text(name: str, places: dict[str, tuple[str, ...]], **config: Any) -> Family:
    return Family(
        lambda: _built(name, config), lambda m, seed: m(tokens(seed, 1, 12)).last_hidden_state, places
    )


def picture(name: str, places: dict[str, tuple[str, ...]], **config: Any) -> Family:
    return Family(
        lambda: _built(name, config),
        lambda m, seed: m(noise(m, seed, 1, 3, 32, 32)).last_hidden_state,
        places,
    )


def qwen3() -> Family:
    def build() -> nn.Module:
        from transformers import Qwen3Config, Qwen3Model

        return Qwen3Model(Qwen3Config(
            vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16))  # fmt: skip

    return Family(build, lambda m, seed: m(tokens(seed, 1, 12)).last_hidden_state, {
        "stream": ("embed_tokens",),
        "feed-forward": ("layers.1.mlp.down_proj",),
        "attention": ("layers.0.self_attn.o_proj",),
        "gated product": ("layers.0.mlp.up_proj",),
    })  # fmt: skip


def clip() -> Family:
    def build() -> nn.Module:
        from transformers import CLIPTextConfig, CLIPTextModel

        return CLIPTextModel(CLIPTextConfig(
            vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=32, projection_dim=32, bos_token_id=1, eos_token_id=2))  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        return m(tokens(seed, 1, 12)).last_hidden_state

    return Family(build, exercise, {
        "stream": ("embeddings.token_embedding", "embeddings.position_embedding"),
        "feed-forward": ("encoder.layers.1.mlp.fc2",),
        "attention": ("encoder.layers.0.self_attn.out_proj",),
        "values": ("encoder.layers.1.self_attn.v_proj",),
    })  # fmt: skip


def t5() -> Family:
    def build() -> nn.Module:
        from transformers import T5Config, T5EncoderModel

        return T5EncoderModel(T5Config(
            vocab_size=100, d_model=64, d_kv=16, d_ff=128, num_layers=3, num_heads=4, feed_forward_proj="gated-gelu"))  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        return m(tokens(seed, 1, 12)).last_hidden_state

    return Family(build, exercise, {
        "stream": ("encoder.embed_tokens",),
        "feed-forward": ("encoder.block.1.layer.1.DenseReluDense.wo",),
        "attention": ("encoder.block.0.layer.0.SelfAttention.o",),
        "gated product": ("encoder.block.0.layer.1.DenseReluDense.wi_1",),
    })  # fmt: skip


def t5gemma() -> Family:
    def build() -> nn.Module:
        from transformers import T5GemmaConfig, T5GemmaEncoderModel

        config = T5GemmaConfig(
            encoder=dict(GROUPED), decoder=dict(GROUPED), is_encoder_decoder=False, vocab_size=100
        )
        return T5GemmaEncoderModel(config)

    places = {place: (f"encoder.{name}",) for place, (name,) in LLM.items()}
    return Family(build, lambda m, seed: m(tokens(seed, 1, 12)).last_hidden_state, places)


def clip_vision() -> Family:
    def build() -> nn.Module:
        return Pooled(_built("CLIPVisionModel", {**PICTURE, "intermediate_size": 128, "projection_dim": 32}))

    places = {"stream": ("embeddings.patch_embedding",), **CLIP}
    inside = {place: (f"model.{name}",) for place, (name,) in places.items()}
    return Family(build, lambda m, seed: m(noise(m, seed, 1, 3, 32, 32)), inside)


def dinov2() -> Family:
    """Every other run masks patches: the mask's token writes into the stream, which can be folded only with it."""

    def exercise(m: Any, seed: int) -> object:
        mask = None if seed % 2 else tokens(seed, 1, 16) > 60
        return m(noise(m, seed, 1, 3, 32, 32), bool_masked_pos=mask).last_hidden_state

    return Family(lambda: _built("Dinov2Model", {**PICTURE, "mlp_ratio": 2}), exercise, {
        "stream": ("embeddings.patch_embeddings.projection",),
        "feed-forward": ("encoder.layer.1.mlp.fc2",),
        "attention": ("encoder.layer.0.attention.o_proj",),
        "values": ("encoder.layer.1.attention.v_proj",),
    })  # fmt: skip


def whisper() -> Family:
    def build() -> nn.Module:
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder(WhisperConfig(
            vocab_size=100, d_model=64, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=128, num_mel_bins=16,
            max_source_positions=20, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64, pad_token_id=0,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=1))  # fmt: skip

    return Family(build, lambda m, seed: m(noise(m, seed, 1, 16, 40)).last_hidden_state, {
        "stream": ("embed_positions",),
        "feed-forward": ("layers.1.fc2",),
        "attention": ("layers.0.self_attn.out_proj",),
        "values": ("layers.1.self_attn.v_proj",),
    })  # fmt: skip


def umt5() -> Family:
    block = "encoder.block.0.layer"
    places = {"stream": ("encoder.embed_tokens",), "feed-forward": ("encoder.block.1.layer.1.DenseReluDense.wo",),
              "attention": (f"{block}.0.SelfAttention.o",), "gated product": (f"{block}.1.DenseReluDense.wi_1",)}  # fmt: skip
    return text(
        "UMT5EncoderModel", places, vocab_size=100, d_model=64, d_kv=16, d_ff=128, num_layers=3, num_heads=4
    )


MIXTURE = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
          "shared_expert_intermediate_size": 32, "num_hidden_layers": 4}  # fmt: skip
UNGATED = {place: LLM[place] for place in ("stream", "attention")}
WORDS = {"stream": ("embeddings.token_embedding", "embeddings.position_embedding"), **CLIP}

FAMILIES = {
    "Qwen3 text encoder": qwen3,
    "CLIP text encoder": clip,
    "T5 text encoder": t5,
    "UMT5 text encoder": umt5,
    "Gemma": lambda: text("GemmaModel", LLM, **GROUPED),
    "Gemma 2": lambda: text("Gemma2Model", LLM, **GROUPED),
    "Gemma 3 text": lambda: text("Gemma3TextModel", LLM, **GROUPED),
    "T5Gemma": t5gemma,
    "Mistral": lambda: text("MistralModel", LLM, **GROUPED),
    "Llama": lambda: text("LlamaModel", LLM, **GROUPED),
    "Qwen2.5-VL text": lambda: text("Qwen2_5_VLTextModel", LLM, **SMALL, num_key_value_heads=2, rope_parameters=THREE_AXES),
    "Qwen3-VL text": lambda: text("Qwen3VLTextModel", LLM, **GROUPED, rope_parameters=THREE_AXES),
    "Qwen3-MoE": lambda: text("Qwen3MoeModel", UNGATED, **GROUPED, **MIXTURE),
    "Qwen3-Next": lambda: text("Qwen3NextModel", {"stream": LLM["stream"]}, **{**GROUPED, **MIXTURE, **LINEAR}),
    "ModernBERT": lambda: text("ModernBertModel", {
        "stream": ("embeddings.tok_embeddings",), "feed-forward": ("layers.1.mlp.Wo",), "attention": ("layers.0.attn.Wo",),
    }, **SMALL, cls_token_id=1, sep_token_id=2),
    "BERT": lambda: text("BertModel", {
        "embeddings": ("embeddings.word_embeddings",), "feed-forward": ("encoder.layer.1.output.dense",),
        "attention": ("encoder.layer.0.attention.output.dense",), "values": ("encoder.layer.1.attention.self.value",),
    }, **SMALL),
    "SigLIP text": lambda: text("SiglipTextModel", WORDS, **SMALL, max_position_embeddings=32, projection_size=32),
    "SigLIP vision": lambda: picture(
        "SiglipVisionModel", {"stream": ("embeddings.patch_embedding",), **CLIP}, **PICTURE, intermediate_size=128),
    "CLIP vision": clip_vision,
    "DINOv2": dinov2,
    "ViT": lambda: picture("ViTModel", {"stream": ("embeddings.patch_embeddings.projection",)}, **PICTURE, intermediate_size=128),
    "Whisper encoder": whisper,
}  # fmt: skip
