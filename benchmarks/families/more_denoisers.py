"""Denoisers of images that the numerics were not built with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from families.common import COG_PLACES, FLUX_PLACES, Family, moment, noise, positions, step


def chroma() -> Family:
    def build() -> nn.Module:
        from diffusers import ChromaTransformer2DModel

        return ChromaTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, axes_dims_rope=(4, 4, 8), approximator_num_channels=8, approximator_hidden_dim=32,
            approximator_layers=1)  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        now = moment(m, seed)
        return m(hidden_states=noise(m, seed, 1, 16, 4), encoder_hidden_states=noise(m, seed + 1, 1, 6, 32), timestep=now,
                 img_ids=positions(4, now.dtype), txt_ids=torch.zeros(6, 3, dtype=now.dtype)).sample  # fmt: skip

    return Family(build, exercise, FLUX_PLACES)


def hidream() -> Family:
    def build() -> nn.Module:
        from diffusers import HiDreamImageTransformer2DModel

        return HiDreamImageTransformer2DModel(
            patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, caption_channels=[32, 32], text_emb_dim=16, num_routed_experts=4, num_activated_experts=2,
            axes_dims_rope=(4, 6, 6), max_resolution=(16, 16), llama_layers=(0, 1), force_inference_output=True)  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(hidden_states=noise(m, seed, 1, 4, 8, 8), timesteps=torch.tensor([100 + seed]),
                 encoder_hidden_states_t5=noise(m, seed + 1, 1, 6, 32),
                 encoder_hidden_states_llama3=noise(m, seed + 2, 2, 1, 6, 32), pooled_embeds=noise(m, seed + 3, 1, 16)).sample  # fmt: skip

    block = "double_stream_blocks.0.block"
    return Family(build, exercise, {
        "stream": ("x_embedder.proj",),
        "feed-forward": (f"{block}.ff_t.w2",),
        "expert": (f"{block}.ff_i.shared_experts.w2",),
        "attention": (f"{block}.attn1.to_out",),
        "values": (f"{block}.attn1.to_v",),
        "gated product": (f"{block}.ff_t.w3",),
    })  # fmt: skip


def cogview4() -> Family:
    def build() -> nn.Module:
        from diffusers import CogView4Transformer2DModel

        return CogView4Transformer2DModel(
            patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            text_embed_dim=32, time_embed_dim=16, condition_dim=8, pos_embed_max_size=16, sample_size=16, rope_axes_dim=(8, 8))  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        size = torch.tensor([[64.0, 64.0]], dtype=next(m.parameters()).dtype)
        return m(noise(m, seed, 1, 4, 16, 16), noise(m, seed + 1, 1, 6, 32), torch.tensor([100 + seed]), size, size,
                 size * 0).sample  # fmt: skip

    return Family(build, exercise, COG_PLACES)


def flux2() -> Family:
    def build() -> nn.Module:
        from diffusers import Flux2Transformer2DModel

        return Flux2Transformer2DModel(
            patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4))  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        now = moment(m, seed)
        return m(hidden_states=noise(m, seed, 1, 16, 4), encoder_hidden_states=noise(m, seed + 1, 1, 6, 32), timestep=now,
                 guidance=now, img_ids=positions(4, now.dtype, 4), txt_ids=torch.zeros(6, 4, dtype=now.dtype)).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("x_embedder", "context_embedder"),
        "feed-forward": ("transformer_blocks.0.ff.linear_out", "transformer_blocks.0.ff_context.linear_out"),
        "attention": ("transformer_blocks.1.attn.to_out.0",),
        "single block": ("single_transformer_blocks.0.attn.to_out",),
        "values": ("transformer_blocks.0.attn.to_v", "transformer_blocks.0.attn.add_v_proj"),
    })  # fmt: skip


def hunyuan_dit() -> Family:
    def build() -> nn.Module:
        from diffusers import HunyuanDiT2DModel

        return HunyuanDiT2DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, patch_size=2, sample_size=8, hidden_size=32,
            num_layers=4, mlp_ratio=2.0, cross_attention_dim=16, cross_attention_dim_t5=24, pooled_projection_dim=16,
            text_len=6, text_len_t5=5)  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        from diffusers.models.embeddings import get_2d_rotary_pos_embed

        dtype = next(m.parameters()).dtype
        rope = get_2d_rotary_pos_embed(16, ((0, 0), (4, 4)), (4, 4), output_type="pt")
        return m(noise(m, seed, 1, 4, 8, 8), step(m, seed), encoder_hidden_states=noise(m, seed + 1, 1, 6, 16),
                 text_embedding_mask=torch.ones(1, 6, dtype=dtype), encoder_hidden_states_t5=noise(m, seed + 2, 1, 5, 24),
                 text_embedding_mask_t5=torch.ones(1, 5, dtype=dtype), style=torch.tensor([0]), image_rotary_emb=rope,
                 image_meta_size=torch.tensor([[64.0, 64, 64, 64, 0, 0]], dtype=dtype)).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("pos_embed.proj",),
        "feed-forward": ("blocks.0.ff.net.2",),
        "attention": ("blocks.1.attn1.to_out.0",),
        "cross attention": ("blocks.0.attn2.to_out.0",),
        "values": ("blocks.0.attn1.to_v",),
    })  # fmt: skip


def hunyuan_image() -> Family:
    def build() -> nn.Module:
        from diffusers import HunyuanImageTransformer2DModel

        return HunyuanImageTransformer2DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
            num_refiner_layers=1, mlp_ratio=2.0, patch_size=(1, 1), text_embed_dim=32, text_embed_2_dim=16, rope_axes_dim=(8, 8))  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(noise(m, seed, 1, 4, 8, 8), step(m, seed), noise(m, seed + 1, 1, 6, 32), torch.ones(1, 6),
                 encoder_hidden_states_2=noise(m, seed + 2, 1, 5, 16), encoder_attention_mask_2=torch.ones(1, 5)).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("x_embedder.proj",),
        "feed-forward": ("transformer_blocks.0.ff.net.2",),
        "attention": ("transformer_blocks.0.attn.to_out.0",),
        "single block": ("single_transformer_blocks.0.proj_out",),
        "values": ("transformer_blocks.0.attn.to_v",),
    })  # fmt: skip


def auraflow() -> Family:
    """Its last layers have no norm, so a loud stream makes the output loud: the targets keep that inside float16."""

    def build() -> nn.Module:
        from diffusers import AuraFlowTransformer2DModel

        return AuraFlowTransformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=32, out_channels=4, pos_embed_max_size=64)  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(noise(m, seed, 1, 4, 8, 8), noise(m, seed + 1, 1, 6, 32), moment(m, seed)).sample

    return Family(build, exercise, {
        "stream": ("pos_embed.proj",),
        "attention": ("joint_transformer_blocks.0.attn.to_out.0",),
        "values": ("joint_transformer_blocks.0.attn.to_v",),
        "gated product": ("single_transformer_blocks.0.ff.linear_2",),
    }, {"stream": 8e4})  # fmt: skip


def quiet(module: nn.Module) -> nn.Module:
    """A control net whose outputs, which the denoiser adds, are small whatever its stream: training starts them at 0."""
    for name, parameter in module.named_parameters():
        if name.startswith("controlnet_") and "cond_embedding" not in name and "x_embedder" not in name:
            nn.init.normal_(parameter, std=2.0**-16)
    return module


def controlnet() -> Family:
    def build() -> nn.Module:
        from diffusers import ControlNetModel

        return quiet(ControlNetModel(
            block_out_channels=(32, 64), layers_per_block=1, in_channels=4, conditioning_channels=3,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=32, attention_head_dim=4,
            norm_num_groups=8, conditioning_embedding_out_channels=(8, 16)))  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        text, picture = noise(m, seed + 1, 1, 7, 32), noise(m, seed + 2, 1, 3, 32, 32)
        return m(noise(m, seed, 1, 4, 16, 16), 100 + seed, text, picture, return_dict=False)

    block = "mid_block.attentions.0.transformer_blocks.0"
    return Family(build, exercise, {
        "stream": ("conv_in",),
        "residual": ("down_blocks.0.resnets.0.conv2",),
        "feed-forward": (f"{block}.ff.net.2",),
        "attention": (f"{block}.attn1.to_out.0",),
        "values": (f"{block}.attn2.to_v",),
    })  # fmt: skip


def flux_controlnet() -> Family:
    def build() -> nn.Module:
        from diffusers import FluxControlNetModel

        return quiet(FluxControlNetModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8)))  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        now = moment(m, seed)
        return m(hidden_states=noise(m, seed, 1, 16, 4), controlnet_cond=noise(m, seed + 3, 1, 16, 4),
                 encoder_hidden_states=noise(m, seed + 1, 1, 6, 32), pooled_projections=noise(m, seed + 2, 1, 32), timestep=now,
                 img_ids=positions(4, now.dtype), txt_ids=torch.zeros(6, 3, dtype=now.dtype), return_dict=False)  # fmt: skip

    return Family(build, exercise, {
        "stream": ("x_embedder", "context_embedder"),
        "feed-forward": ("transformer_blocks.0.ff.net.2",),
        "attention": ("transformer_blocks.0.attn.to_out.0",),
        "values": ("transformer_blocks.0.attn.to_v",),
    })  # fmt: skip


def stable_cascade() -> Family:
    def build() -> nn.Module:
        from diffusers.models import StableCascadeUNet

        return StableCascadeUNet(
            in_channels=4, out_channels=4, timestep_ratio_embedding_dim=16, patch_size=1, conditioning_dim=32,
            block_out_channels=(32, 32), num_attention_heads=(2, 2), down_num_layers_per_block=(1, 1),
            up_num_layers_per_block=(1, 1), clip_text_in_channels=16, clip_text_pooled_in_channels=16,
            clip_image_in_channels=16, clip_seq=2, switch_level=(False,))  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(noise(m, seed, 1, 4, 8, 8), moment(m, seed), noise(m, seed + 1, 1, 1, 16),
                 clip_text=noise(m, seed + 2, 1, 5, 16), clip_img=noise(m, seed + 3, 1, 1, 16)).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("embedding.1",),
        "residual": ("down_blocks.0.0.channelwise.4",),
        "attention": ("down_blocks.0.2.attention.to_out.0",),
    })  # fmt: skip


def prx() -> Family:
    def build() -> nn.Module:
        from diffusers import PRXTransformer2DModel

        return PRXTransformer2DModel(
            in_channels=4, patch_size=2, context_in_dim=32, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=2, axes_dim=[8, 8])  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(noise(m, seed, 1, 4, 8, 8), moment(m, seed), noise(m, seed + 1, 1, 6, 32)).sample

    return Family(build, exercise, {
        "stream": ("img_in",),
        "feed-forward": ("blocks.0.down_proj",),
        "attention": ("blocks.0.attention.to_out.0",),
        "gated product": ("blocks.0.up_proj",),
    })  # fmt: skip


FAMILIES = {
    "Chroma": chroma,
    "HiDream": hidream,
    "CogView4": cogview4,
    "Flux 2": flux2,
    "HunyuanDiT": hunyuan_dit,
    "HunyuanImage": hunyuan_image,
    "AuraFlow": auraflow,
    "ControlNet": controlnet,
    "Flux ControlNet": flux_controlnet,
    "Stable Cascade": stable_cascade,
    "PRX": prx,
}
