"""Denoisers of films."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from families.common import COG_PLACES, Family, noise, step


def wan() -> Family:
    def build() -> nn.Module:
        from diffusers import WanTransformer3DModel

        return WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=32,
            freq_dim=16, ffn_dim=64, num_layers=2, rope_max_seq_len=32)  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(
            noise(m, seed, 1, 4, 2, 8, 8), torch.tensor([100 + seed]), noise(m, seed + 1, 1, 6, 32)
        ).sample

    return Family(build, exercise, {
        "stream": ("patch_embedding",),
        "feed-forward": ("blocks.0.ffn.net.2",),
        "attention": ("blocks.1.attn1.to_out.0",),
        "cross attention": ("blocks.0.attn2.to_out.0",),
        "values": ("blocks.0.attn1.to_v",),
    })  # fmt: skip


def ltx() -> Family:
    def build() -> nn.Module:
        from diffusers import LTXVideoTransformer3DModel

        return LTXVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32, num_layers=2,
            caption_channels=24)  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(noise(m, seed, 1, 32, 4), noise(m, seed + 1, 1, 6, 24), torch.tensor([100 + seed]), torch.ones(1, 6),
                 num_frames=2, height=4, width=4).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("proj_in",),
        "feed-forward": ("transformer_blocks.0.ff.net.2",),
        "attention": ("transformer_blocks.1.attn1.to_out.0",),
        "cross attention": ("transformer_blocks.0.attn2.to_out.0",),
        "values": ("transformer_blocks.0.attn1.to_v",),
    })  # fmt: skip


def cogvideox() -> Family:
    def build() -> nn.Module:
        from diffusers import CogVideoXTransformer3DModel

        return CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=16, text_embed_dim=32,
            num_layers=2, sample_width=8, sample_height=8, sample_frames=5, patch_size=2, max_text_seq_length=6)  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(
            noise(m, seed, 1, 2, 4, 8, 8), noise(m, seed + 1, 1, 6, 32), torch.tensor([100 + seed])
        ).sample

    return Family(build, exercise, COG_PLACES)


def hunyuan_video() -> Family:
    def build() -> nn.Module:
        from diffusers import HunyuanVideoTransformer3DModel

        return HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
            num_refiner_layers=1, mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=32, pooled_projection_dim=16,
            rope_axes_dim=(4, 6, 6))  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(noise(m, seed, 1, 4, 2, 4, 4), torch.tensor([100 + seed]), noise(m, seed + 1, 1, 6, 32), torch.ones(1, 6),
                 noise(m, seed + 2, 1, 16), guidance=step(m, 0)).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("x_embedder.proj",),
        "feed-forward": ("transformer_blocks.0.ff.net.2",),
        "attention": ("transformer_blocks.0.attn.to_out.0",),
        "single block": ("single_transformer_blocks.0.proj_out",),
        "values": ("transformer_blocks.0.attn.to_v",),
    })  # fmt: skip


def mochi() -> Family:
    def build() -> nn.Module:
        from diffusers import MochiTransformer3DModel

        return MochiTransformer3DModel(
            patch_size=2, num_attention_heads=2, attention_head_dim=16, num_layers=2, pooled_projection_dim=16, in_channels=4,
            text_embed_dim=32, time_embed_dim=8, max_sequence_length=6)  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        mask = torch.ones(1, 6, dtype=torch.bool)
        return m(noise(m, seed, 1, 4, 2, 8, 8), noise(m, seed + 1, 1, 6, 32), step(m, seed), mask).sample

    return Family(build, exercise, {
        "stream": ("patch_embed.proj",),
        "feed-forward": ("transformer_blocks.0.ff.net.2",),
        "attention": ("transformer_blocks.0.attn1.to_out.0",),
        "values": ("transformer_blocks.0.attn1.to_v",),
    })  # fmt: skip


def cosmos(positions: str | None) -> Family:
    def build() -> nn.Module:
        from diffusers import CosmosTransformer3DModel

        return CosmosTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, mlp_ratio=2,
            text_embed_dim=32, adaln_lora_dim=4, max_size=(4, 8, 8), patch_size=(1, 2, 2), rope_scale=(1.0, 1.0, 1.0),
            concat_padding_mask=False, extra_pos_embed_type=positions)  # fmt: skip

    def exercise(m: Any, seed: int) -> object:
        return m(noise(m, seed, 1, 4, 2, 8, 8), step(m, seed), noise(m, seed + 1, 1, 6, 32)).sample

    return Family(build, exercise, {
        "stream": ("patch_embed.proj",),
        "feed-forward": ("transformer_blocks.0.ff.net.2",),
        "attention": ("transformer_blocks.0.attn1.to_out.0",),
        "values": ("transformer_blocks.1.attn2.to_v",),
    })  # fmt: skip


FAMILIES = {
    "Wan": wan,
    "LTX-Video": ltx,
    "CogVideoX": cogvideox,
    "HunyuanVideo": hunyuan_video,
    "Mochi": mochi,
    "Cosmos 1": lambda: cosmos("learnable"),
    "Cosmos 2": lambda: cosmos(None),
}
