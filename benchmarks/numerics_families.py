"""Fold tiny models of sixteen image-model families, from their real classes, and compare the formats.

    python benchmarks/numerics_families.py [FAMILY …] [--plain] [--json FILE]

Each model is amplified in several places, one at a time: a projection is multiplied until float16 overflows
there. The places are the residual stream, the feed-forward's output, the attention's output and values, the
gated product. Unfolded float16 must then give NaN or Inf. Folded float16 must be finite and at most a quarter
of bfloat16's error away from float32, on inputs outside the calibration. The solver is the same for every
family.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from starrynight.folding.export import checkpoint_constraints
from starrynight.numerics.certify import Certificate, certify_folds, float16_outputs, outputs, relative_error
from starrynight.numerics.solve import FoldPlan, solve_folds
from starrynight.numerics.trace import trace_modules

Exercise = Callable[[nn.Module, int], object]


@dataclass(frozen=True)
class Family:
    """``build`` makes the module; ``exercise(module, seed)`` runs it on inputs drawn from the seed, in its
    own dtype.

    ``places``: what is amplified → the modules whose weight and bias are multiplied until their output
    reaches ``target`` (3e6 by default).
    """

    build: Callable[[], nn.Module]
    exercise: Exercise
    places: dict[str, tuple[str, ...]]
    target: dict[str, float] = field(default_factory=dict)


def noise(module: nn.Module, seed: int, *shape: int) -> Tensor:
    """Normal noise with equal values in every dtype: drawn in float32, rounded to bfloat16, then cast."""
    draw = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return draw.bfloat16().to(next(module.parameters()).dtype)


def moment(module: nn.Module, seed: int) -> Tensor:
    """A timestep in (0, 1] that every 16-bit format represents exactly, also after the models' × 1000."""
    return torch.tensor([(0.125, 0.25, 0.5, 1.0)[seed % 4]], dtype=next(module.parameters()).dtype)


def tokens(seed: int, *shape: int) -> Tensor:
    return torch.randint(3, 90, shape, generator=torch.Generator().manual_seed(seed))


# -- the families ------------------------------------------------------------------------------------------------


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
        now, ids = moment(m, seed), torch.arange(16).float()
        image_ids = torch.stack([ids * 0, ids // 4, ids % 4], dim=1).to(now.dtype)
        return m(hidden_states=noise(m, seed, 1, 16, 4), encoder_hidden_states=noise(m, seed + 1, 1, 6, 32),
                 pooled_projections=noise(m, seed + 2, 1, 32), timestep=now, guidance=now,
                 img_ids=image_ids, txt_ids=torch.zeros(6, 3, dtype=now.dtype)).sample  # fmt: skip

    return Family(build, exercise, {
        "stream": ("x_embedder", "context_embedder"),
        "feed-forward": ("transformer_blocks.0.ff.net.2", "transformer_blocks.0.ff_context.net.2"),
        "attention": ("transformer_blocks.1.attn.to_out.0",),
        "single block": ("single_transformer_blocks.0.proj_out",),
        "values": ("transformer_blocks.0.attn.to_v", "transformer_blocks.0.attn.add_v_proj"),
    })  # fmt: skip


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


FAMILIES: dict[str, Callable[[], Family]] = {
    "Z-Image transformer": zimage,
    "AutoencoderKL decoder": lambda: vae("decoder"),
    "AutoencoderKL encoder": lambda: vae("encoder"),
    "Qwen3 text encoder": qwen3,
    "CLIP text encoder": clip,
    "T5 text encoder": t5,
    "SD UNet": sd_unet,
    "SDXL UNet": sdxl_unet,
    "Flux": flux,
    "SD3": sd3,
    "Sana": sana,
    "DC-AE decoder": lambda: dc_ae("decoder"),
    "DC-AE encoder": lambda: dc_ae("encoder"),
    "PixArt": pixart,
    "Lumina2": lumina2,
    "Qwen-Image": qwen_image,
}


# -- the measurement -----------------------------------------------------------------------------------------------

CALIBRATION, HELD_OUT = (0, 10, 20), (31, 42, 53, 64)


@dataclass
class Row:
    """Unfolded float16's error, the plan's certificate, and the seconds that trace and solve took."""

    family: str
    place: str
    plain_float16: float
    certificate: Certificate
    seconds: float

    @property
    def passed(self) -> bool:
        """Unfolded float16 fails; folded, it is finite and at least four times nearer to float32 than bfloat16."""
        failed, c = not self.plain_float16 < 1, self.certificate
        return failed and c.holds and c.folded_float16 <= c.bfloat16 / 4

    def line(self) -> str:
        c = self.certificate
        return (f"{self.family:22} {self.place:16} {c.bfloat16:8.1e} {self.plain_float16:8.1e} {c.folded_float32:8.1e} "
                f"{c.folded_float16:8.1e} {c.folds:5} {c.epsilons:3} {c.islands:7} {self.seconds:7.1f} "
                f"{'' if self.passed else '✗'}")  # fmt: skip


def build(family: Family) -> nn.Module:
    """The module in float32 with random weights that bfloat16 represents exactly, like a bfloat16 checkpoint."""
    torch.manual_seed(0)
    module = family.build().eval()
    for parameter in module.parameters():
        if not parameter.any():  # gates that training starts at zero would hide the layers behind them
            nn.init.normal_(parameter, std=0.1)
        parameter.data = parameter.data.bfloat16().float()
    return module


def amplify(module: nn.Module, names: tuple[str, ...], family: Family, target: float) -> None:
    """Multiply the named projections by the power of two that brings their outputs to about ``target``."""
    peaks: dict[str, float] = {}
    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda _m, _a, out, name=name: peaks.__setitem__(name, out.abs().max().item())
        )
        for name in names
    ]
    with torch.no_grad():
        family.exercise(module, CALIBRATION[0])
    for handle in handles:
        handle.remove()
    for name in names:
        factor = 2.0 ** round(torch.tensor(target / peaks[name]).log2().item())
        for parameter in module.get_submodule(name).parameters():
            parameter.data *= factor


def plan_for(module: nn.Module, family: Family, plain: bool = False) -> FoldPlan:
    """Trace in bfloat16 over the calibration inputs and solve."""
    half = copy.deepcopy(module).bfloat16()
    found = trace_modules(half, lambda: [family.exercise(half, seed) for seed in CALIBRATION])
    return solve_folds(found, constraints=checkpoint_constraints({"": module}) if plain else None)


def compare(name: str, place: str, family: Family, module: nn.Module, plain: bool = False) -> Row:
    start = time.perf_counter()
    plan = plan_for(module, family, plain)
    seconds = time.perf_counter() - start
    certificate = certify_folds(module, plan, family.exercise, HELD_OUT)
    reference = outputs(module, family.exercise, HELD_OUT)
    plain = float16_outputs(copy.deepcopy(module), family.exercise, HELD_OUT)
    return Row(name, place, relative_error(plain, reference), certificate, seconds)


def measure_family(name: str, plain: bool = False) -> list[Row]:
    family = FAMILIES[name]()
    rows = []
    for place, names in family.places.items():
        module = build(family)
        amplify(module, names, family, family.target.get(place, 3e6))
        rows.append(compare(name, place, family, module, plain))
    return rows


def table(rows: list[Row]) -> str:
    """A Markdown row for each family: largest errors over its places; fewest and most folds, epsilons, islands."""
    lines = [
        "| family | amplified in | bfloat16 | folded float16 | nearer, at least | folds | epsilons | islands |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.family for row in rows):
        own = [row for row in rows if row.family == name]
        found = [row.certificate for row in own]
        spans = (sorted({getattr(c, f) for c in found}) for f in ("folds", "epsilons", "islands"))
        folds, epsilons, islands = (f"{s[0]}–{s[-1]}" if len(s) > 1 else str(s[0]) for s in spans)
        nearer = min(c.bfloat16 / c.folded_float16 for c in found)
        lines.append(
            f"| {name} | {', '.join(row.place for row in own)} | {max(c.bfloat16 for c in found):.1e} "
            f"| {max(c.folded_float16 for c in found):.1e} | {nearer:.1f} × | {folds} | {epsilons} | {islands} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--plain", action="store_true", help="only folds that a standard checkpoint can store"
    )
    options = parser.parse_args()
    rows = []
    print(
        f"{'family':22} {'amplified':16} {'bf16':>8} {'fp16':>8} {'fold32':>8} {'fold16':>8} folds eps islands seconds"
    )
    for name in options.families:
        for row in measure_family(name, plain=options.plain):
            rows.append(row)
            print(row.line(), flush=True)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
