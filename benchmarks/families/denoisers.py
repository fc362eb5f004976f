"""Denoisers: the first nine families that the numerics were built with."""

from __future__ import annotations

import torch
from torch import nn

from families.common import FLUX_PLACES, Family, moment, noise, positions


def zimage() -> Family:
    def build() -> nn.Module:
        from diffusers import ZImageTransformer2DModel

        return ZImageTransformer2DModel(
            dim=64, n_heads=2, n_kv_heads=2, n_layers=2, n_refiner_layers=1, cap_feat_dim=32, in_channels=4,
            axes_dims=[8, 12, 12], axes_lens=[64, 64, 64])  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        return m([noise(m, seed, 4, 1, 16, 16)], moment(m, seed), [noise(m, seed + 1, 10, 32)])

    return Family(build, exercise, {
        "stream": ("all_x_embedder.2-1", "cap_embedder.1"),
        "feed-forward": ("layers.0.feed_forward.w2",),
        "attention": ("layers.0.attention.to_out.0", "noise_refiner.0.attention.to_out.0"),
        "values": ("layers.1.attention.to_v",),
        "gated product": ("layers.0.feed_forward.w3", "layers.1.feed_forward.w3"),
    })  # fmt: skip


def sd_unet() -> Family:
    def build() -> nn.Module:
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel(
            block_out_channels=(32, 64), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8)  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        return m(noise(m, seed, 1, 4, 16, 16), 100 + seed, noise(m, seed + 1, 1, 7, 32)).sample

    block = "mid_block.attentions.0.transformer_blocks.0"
    return Family(build, exercise, {
        "stream": ("conv_in",),
        "residual": ("down_blocks.0.resnets.0.conv2",),
        "feed-forward": (f"{block}.ff.net.2",),
        "attention": (f"{block}.attn1.to_out.0",),
        "values": ("up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v",),
        "gated product": (f"{block}.ff.net.0.proj",),
    }, {"gated product": 2e3})  # fmt: skip


def sdxl_unet() -> Family:
    def build() -> nn.Module:
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel(
            block_out_channels=(32, 64), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=8, transformer_layers_per_block=(1, 2), projection_class_embeddings_input_dim=80,
            cross_attention_dim=64, norm_num_groups=8)  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        added = {"text_embeds": noise(m, seed + 2, 1, 32), "time_ids": noise(m, seed + 3, 1, 6)}
        text = noise(m, seed + 1, 1, 7, 64)
        return m(noise(m, seed, 1, 4, 16, 16), 100 + seed, text, added_cond_kwargs=added).sample

    block = "mid_block.attentions.0.transformer_blocks.0"
    return Family(build, exercise, {
        "stream": ("conv_in",),
        "residual": ("down_blocks.1.resnets.0.conv2",),
        "feed-forward": (f"{block}.ff.net.2",),
        "attention": (f"{block}.attn1.to_out.0",),
        "values": (f"{block}.attn2.to_v",),
        "gated product": (f"{block}.ff.net.0.proj",),
    }, {"gated product": 2e3})  # fmt: skip


def flux() -> Family:
    def build() -> nn.Module:
        from diffusers import FluxTransformer2DModel

        return FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True)  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        now = moment(m, seed)
        return m(hidden_states=noise(m, seed, 1, 16, 4), encoder_hidden_states=noise(m, seed + 1, 1, 6, 32),
                 pooled_projections=noise(m, seed + 2, 1, 32), timestep=now, guidance=now,
                 img_ids=positions(4, now.dtype), txt_ids=torch.zeros(6, 3, dtype=now.dtype)).sample  # fmt: skip

    return Family(build, exercise, FLUX_PLACES)


def sd3() -> Family:
    def build() -> nn.Module:
        from diffusers import SD3Transformer2DModel

        return SD3Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=32, out_channels=4,
            pos_embed_max_size=16, qk_norm="rms_norm", dual_attention_layers=(0,))  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        return m(noise(m, seed, 1, 4, 16, 16), noise(m, seed + 1, 1, 6, 32), noise(m, seed + 2, 1, 32),
                 torch.tensor([100 + seed])).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("pos_embed.proj", "context_embedder"),
        "feed-forward": ("transformer_blocks.0.ff.net.2", "transformer_blocks.0.ff_context.net.2"),
        "attention": ("transformer_blocks.1.attn.to_out.0", "transformer_blocks.0.attn2.to_out.0"),
        "values": ("transformer_blocks.1.attn.to_v", "transformer_blocks.1.attn.add_v_proj"),
    })  # fmt: skip


def sana() -> Family:
    def build() -> nn.Module:
        from diffusers import SanaTransformer2DModel

        return SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=16,
            sample_size=16)  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        return m(
            noise(m, seed, 1, 4, 16, 16), noise(m, seed + 1, 1, 8, 16), torch.tensor([100 + seed])
        ).sample

    return Family(build, exercise, {
        "stream": ("patch_embed.proj",),
        "feed-forward": ("transformer_blocks.0.ff.conv_point",),
        "attention": ("transformer_blocks.0.attn1.to_out.0",),
        "cross attention": ("transformer_blocks.1.attn2.to_out.0",),
        "values": ("transformer_blocks.1.attn2.to_v",),
        "gated product": ("transformer_blocks.0.ff.conv_inverted",),
    }, {"gated product": 4e3})  # fmt: skip


def pixart() -> Family:
    def build() -> nn.Module:
        from diffusers import PixArtTransformer2DModel

        return PixArtTransformer2DModel(
            sample_size=16, num_layers=2, patch_size=2, attention_head_dim=16, num_attention_heads=2, in_channels=4,
            cross_attention_dim=32, caption_channels=16, out_channels=8, use_additional_conditions=False)  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        return m(noise(m, seed, 1, 4, 16, 16), encoder_hidden_states=noise(m, seed + 1, 1, 8, 16),
                 timestep=torch.tensor([100 + seed]), added_cond_kwargs={"resolution": None, "aspect_ratio": None}).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("pos_embed.proj",),
        "feed-forward": ("transformer_blocks.0.ff.net.2",),
        "attention": ("transformer_blocks.0.attn1.to_out.0",),
        "cross attention": ("transformer_blocks.1.attn2.to_out.0",),
    })  # fmt: skip


def lumina2() -> Family:
    def build() -> nn.Module:
        from diffusers import Lumina2Transformer2DModel

        return Lumina2Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=4, hidden_size=48, num_layers=2, num_refiner_layers=1,
            num_attention_heads=3, num_kv_heads=1, multiple_of=16, ffn_dim_multiplier=None, norm_eps=1e-5,
            scaling_factor=1.0, axes_dim_rope=(4, 8, 4), axes_lens=(64, 64, 64), cap_feat_dim=32)  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        mask = torch.ones(1, 8, dtype=torch.bool)
        return m(noise(m, seed, 1, 4, 16, 16), moment(m, seed), noise(m, seed + 1, 1, 8, 32), mask).sample

    return Family(build, exercise, {
        "stream": ("x_embedder", "time_caption_embed.caption_embedder.1"),
        "feed-forward": ("layers.0.feed_forward.linear_2",),
        "attention": ("layers.0.attn.to_out.0",),
        "gated product": ("layers.1.feed_forward.linear_3",),
    })  # fmt: skip


def qwen_image() -> Family:
    def build() -> nn.Module:
        from diffusers import QwenImageTransformer2DModel

        return QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(4, 6, 6))  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        return m(hidden_states=noise(m, seed, 1, 16, 16), encoder_hidden_states=noise(m, seed + 1, 1, 7, 16),
                 encoder_hidden_states_mask=torch.ones(1, 7, dtype=torch.long), timestep=moment(m, seed),
                 img_shapes=[(1, 4, 4)]).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("img_in", "txt_in"),
        "feed-forward": ("transformer_blocks.0.img_mlp.net.2", "transformer_blocks.0.txt_mlp.net.2"),
        "attention": ("transformer_blocks.1.attn.to_out.0", "transformer_blocks.0.attn.to_add_out"),
        "values": ("transformer_blocks.0.attn.to_v", "transformer_blocks.0.attn.add_v_proj"),
    })  # fmt: skip


FAMILIES = {
    "Z-Image transformer": zimage,
    "SD UNet": sd_unet,
    "SDXL UNet": sdxl_unet,
    "Flux": flux,
    "SD3": sd3,
    "Sana": sana,
    "PixArt": pixart,
    "Lumina2": lumina2,
    "Qwen-Image": qwen_image,
}
