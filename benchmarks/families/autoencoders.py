"""Autoencoders of images and films."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from families.common import Family, noise


def vae(part: str) -> Family:
    def build() -> nn.Module:
        from diffusers import AutoencoderKL

        return AutoencoderKL(
            block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=8, layers_per_block=1)  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        if part == "decoder":
            return m.decode(noise(m, seed, 1, 4, 16, 16)).sample
        return m.encode(noise(m, seed, 1, 3, 32, 32)).latent_dist.parameters

    block = "decoder.up_blocks.0" if part == "decoder" else "encoder.down_blocks.1"
    return Family(build, exercise, {
        "stream": (f"{part}.conv_in",),
        "residual": (f"{block}.resnets.0.conv2",),
        "inside a block": (f"{block}.resnets.0.conv1",),
        "attention": (f"{part}.mid_block.attentions.0.to_out.0",),
        "values": (f"{part}.mid_block.attentions.0.to_v",),
    })  # fmt: skip


def dc_ae(part: str) -> Family:
    def build() -> nn.Module:
        from diffusers import AutoencoderDC

        return AutoencoderDC(
            in_channels=3, latent_channels=4, attention_head_dim=8, encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(16, 32),
            decoder_block_out_channels=(16, 32), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)))  # fmt: skip

    def exercise(m: nn.Module, seed: int) -> object:
        if part == "decoder":
            return m.decode(noise(m, seed, 1, 4, 8, 8)).sample
        return m.encode(noise(m, seed, 1, 3, 16, 16)).latent

    vit, res = "encoder.down_blocks.1.0", "encoder.down_blocks.0.0"
    if part == "decoder":
        vit, res = "decoder.up_blocks.1.0", "decoder.up_blocks.0.1"
    return Family(build, exercise, {
        "residual": (f"{res}.conv2",) if part == "decoder" else (f"{vit}.conv_out.conv_point",),
        "feed-forward": (f"{vit}.conv_out.conv_point",),
        "attention": (f"{vit}.attn.to_out",),
        "values": (f"{vit}.attn.to_v",),
        "gated product": (f"{vit}.conv_out.conv_inverted",),
    }, {"gated product": 2e3})  # fmt: skip


Shape = Callable[[int], tuple[int, ...]]


def autoencoder(
    kind: str, shape: Shape, places: dict[str, str], encode: bool = False, **config: Any
) -> Family:
    """An autoencoder of diffusers. ``shape``: seed → the shape of its latents, or of its pictures to ``encode``."""

    def build() -> nn.Module:
        import diffusers

        return getattr(diffusers, kind)(**config)

    def exercise(m: Any, seed: int) -> object:
        given = noise(m, seed, *shape(seed))
        if encode:
            return m.encode(given).latent_dist.parameters
        words = {"num_frames": len(given)} if "Temporal" in kind else {}
        return m.decode(given, **words).sample

    return Family(build, exercise, {place: (name,) for place, name in places.items()})


def wan(kind: str, encode: bool = False) -> Family:
    """One, three or five frames: the layers between frames run from the second on."""

    def frames(seed: int) -> tuple[int, ...]:
        if encode:
            return (1, 3, 1 if seed % 2 else 5, 16, 16)
        return (1, 4, 1 if seed % 2 else 3, 4, 4)

    part, block = (
        ("encoder", "encoder.down_blocks.0") if encode else ("decoder", "decoder.up_blocks.0.resnets.0")
    )
    places = {"stream": f"{part}.conv_in", "residual": f"{block}.conv2", "inside a block": f"{block}.conv1",
              "attention": f"{part}.mid_block.attentions.0.proj"}  # fmt: skip
    return autoencoder(
        kind, frames, places, encode, base_dim=16, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4)  # fmt: skip


def ltx() -> Family:
    return autoencoder(
        "AutoencoderKLLTXVideo", lambda seed: (1, 4, 2, 4, 4),
        {"stream": "decoder.conv_in.conv", "residual": "decoder.mid_block.resnets.0.conv2.conv"},
        latent_channels=4, block_out_channels=(16, 16), decoder_block_out_channels=(16, 16), layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1), spatio_temporal_scaling=(True, False), decoder_spatio_temporal_scaling=(True, False),
        decoder_inject_noise=(False, False, False), down_block_types=("LTXVideoDownBlock3D",) * 2,
        upsample_residual=(False, False), upsample_factor=(1, 1), patch_size=1)  # fmt: skip


def cogvideox() -> Family:
    block = "decoder.up_blocks.0.resnets.0"
    return autoencoder(
        "AutoencoderKLCogVideoX", lambda seed: (1, 4, 2, 4, 4),
        {"stream": "decoder.conv_in.conv", "residual": f"{block}.conv2.conv", "inside a block": f"{block}.conv1.conv"},
        block_out_channels=(16, 16), down_block_types=("CogVideoXDownBlock3D",) * 2,
        up_block_types=("CogVideoXUpBlock3D",) * 2, latent_channels=4, layers_per_block=1, norm_num_groups=4,
        temporal_compression_ratio=2)  # fmt: skip


def hunyuan_video() -> Family:
    block = "decoder.up_blocks.0.resnets.0"
    return autoencoder(
        "AutoencoderKLHunyuanVideo", lambda seed: (1, 4, 2, 4, 4),
        {"stream": "decoder.conv_in.conv", "residual": f"{block}.conv2.conv", "inside a block": f"{block}.conv1.conv",
         "attention": "decoder.mid_block.attentions.0.to_out.0", "values": "decoder.mid_block.attentions.0.to_v"},
        latent_channels=4, block_out_channels=(16,) * 4, down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4, layers_per_block=1, norm_num_groups=4)  # fmt: skip


def mochi() -> Family:
    """Its decoder ends without a norm, so a loud stream would make loud pictures; inside a block a norm follows."""
    return autoencoder(
        "AutoencoderKLMochi", lambda seed: (1, 4, 2, 4, 4), {"inside a block": "decoder.block_in.resnets.0.conv1.conv"},
        encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4, latent_channels=4,
        layers_per_block=(1,) * 5, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)  # fmt: skip


def flux2() -> Family:
    return autoencoder(
        "AutoencoderKLFlux2", lambda seed: (1, 4, 8, 8),
        {"stream": "decoder.conv_in", "residual": "decoder.up_blocks.0.resnets.0.conv2",
         "values": "decoder.mid_block.attentions.0.to_v"},
        block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=8, layers_per_block=1)  # fmt: skip


def hunyuan_image() -> Family:
    return autoencoder(
        "AutoencoderKLHunyuanImage", lambda seed: (1, 4, 4, 4),
        {"stream": "decoder.conv_in", "residual": "decoder.mid_block.resnets.0.conv2",
         "attention": "decoder.mid_block.attentions.0.proj"},
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        spatial_compression_ratio=2, sample_size=16)  # fmt: skip


def temporal() -> Family:
    return autoencoder(
        "AutoencoderKLTemporalDecoder", lambda seed: (2, 4, 8, 8),
        {"stream": "decoder.conv_in", "residual": "decoder.up_blocks.0.resnets.0.spatial_res_block.conv2"},
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4, layers_per_block=2)  # fmt: skip


FAMILIES = {
    "AutoencoderKL decoder": lambda: vae("decoder"),
    "AutoencoderKL encoder": lambda: vae("encoder"),
    "DC-AE decoder": lambda: dc_ae("decoder"),
    "DC-AE encoder": lambda: dc_ae("encoder"),
    "Wan decoder": lambda: wan("AutoencoderKLWan"),
    "Wan encoder": lambda: wan("AutoencoderKLWan", encode=True),
    "Qwen-Image decoder": lambda: wan("AutoencoderKLQwenImage"),
    "Qwen-Image encoder": lambda: wan("AutoencoderKLQwenImage", encode=True),
    "LTX decoder": ltx,
    "CogVideoX decoder": cogvideox,
    "HunyuanVideo decoder": hunyuan_video,
    "Mochi decoder": mochi,
    "Flux 2 decoder": flux2,
    "HunyuanImage decoder": hunyuan_image,
    "SVD decoder": temporal,
}
