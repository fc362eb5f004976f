"""What each weight format costs: format × family, loaded from a file that is written here, against float32.

    python benchmarks/formats.py            prints the table of docs/models.md
    python benchmarks/formats.py Q4_K       only the rows whose family and format hold a word

Z-Image is Firefly, trained; the others are small and random, so their pictures say only that the numbers arrive. Every matrix
of the wide Z-Image and of its text encoder has rows of a multiple of 256 numbers, so that K types are what they say. Each file
is painted twice: computed in bfloat16, and in float32 from a file of the same numbers multiplied out. Two seeds, two steps for
the tiny models, eight for Firefly; the worse PSNR of the two counts. "of the plain model": float32 from the quantised
numbers against float32 from the numbers before quantising, which is the price of the format itself. "In memory": bytes of the
component multiplied out to bfloat16, and kept packed; "same": whether the kept one paints the same pictures, bit for bit.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import test_ledger
import test_loading
import test_packed
import tiny

from starrynight.errors import StarryError
from starrynight.fitting import blocks
from starrynight.models import catalogue, load, precision_plan, registry
from starrynight.models.catalogue import SHIPPED
from starrynight.numerics.certify import psnr
from starrynight.painting import offload
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest

State = dict[str, Tensor]
PLAIN = {"bfloat16": torch.bfloat16, "float16": torch.float16, "fp8 e4m3, plain": torch.float8_e4m3fn}
SCALED = {
    "fp8 scaled (scale_weight)": "kijai",
    "fp8 scaled (comfy_quant)": "comfy",
    "int8 (comfy_quant)": "int8",
}
GGUF = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q5_0", "Q4_0")  # quantised as ``starry fit`` does
OF_ENCODERS = (
    "bfloat16",
    "fp8 e4m3, plain",
    "fp8 scaled (comfy_quant)",
)  # and GGUF: what text encoders are published in
K_BLOCK, BLOCK = 256, 32  # numbers that rows must fill; a matrix that does not fill a K type's is in Q8_0


def matrices(state: State, change: Callable[[Tensor], Tensor]) -> State:
    return {name: change(tensor) if tensor.dim() == 2 else tensor for name, tensor in state.items()}


def written(state: State, folder: Path) -> Iterator[tuple[str, Path, State]]:
    """(format, file, the numbers that it means)."""
    for name, dtype in PLAIN.items():
        stored = matrices(state, lambda tensor, dtype=dtype: tensor.to(dtype))
        yield name, save(stored, folder / f"{dtype}.safetensors"), matrices(stored, Tensor.float)
    for name, scheme in SCALED.items():
        half = {n: t if is_linear(n, t) else t.bfloat16().float() for n, t in state.items()}
        stored, meant = test_ledger.scaled(half, scheme, "model.diffusion_model." if is_whole(state) else "")
        stored = {
            n: t.bfloat16() if n in state and torch.equal(t.float(), half[n]) else t
            for n, t in stored.items()
        }
        yield name, save(stored, folder / f"{scheme}.safetensors"), meant
    stored, meant = bitsandbytes(state)
    yield "bitsandbytes int8", save(stored, folder / "bnb.safetensors"), meant
    for kind in GGUF:
        path = folder / f"{kind}.gguf"
        encoder = "layers.0.self_attn.q_proj.weight" in state
        if not kind.endswith("_K") or any(t.dim() == 2 and t.shape[1] % K_BLOCK == 0 for t in state.values()):
            yield f"GGUF {kind}", path, write_gguf(path, state, kind, "qwen3" if encoder else "lumina2")


def bitsandbytes(state: State) -> tuple[State, State]:
    """Its int8: one scale a row."""
    stored, meant = {}, {}
    for name, tensor in state.items():
        stored[name], meant[name] = tensor.bfloat16(), tensor.bfloat16().float()
        if is_linear(name, tensor):
            scale = tensor.float().abs().amax(1).clamp_min(1e-6)
            stored[name] = (tensor / scale[:, None] * 127).round().to(torch.int8)
            stored[name.removesuffix("weight") + "SCB"] = scale
            meant[name] = stored[name].float() * (scale / 127)[:, None]
    return stored, meant


def write_gguf(path: Path, state: State, kind: str, arch: str) -> State:
    """Matrices whose rows fill blocks in ``kind``, the rest in float32; returns the numbers meant. A text encoder's tensors are
    named as llama.cpp names them.
    """
    writer, meant = gguf.GGUFWriter(path, arch), {}
    written_as = test_packed.llama_names(state, arch) if arch == "qwen3" else state
    for (name, tensor), said in zip(state.items(), written_as, strict=True):
        own = (
            kind
            if (tensor.dim() == 2 and tensor.shape[1] % K_BLOCK == 0) or not kind.endswith("_K")
            else "Q8_0"
        )
        if tensor.dim() == 2 and tensor.shape[1] % BLOCK == 0:
            data = blocks.quantise(tensor, own).numpy()
            writer.add_tensor(said, data, raw_dtype=gguf.GGMLQuantizationType[own])
            meant[name] = torch.from_numpy(gguf.quants.dequantize(data, gguf.GGMLQuantizationType[own]))
        else:
            writer.add_tensor(said, np.ascontiguousarray(tensor.float().numpy()))
            meant[name] = tensor.float()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def is_whole(state: State) -> bool:
    return any(name.startswith("conditioner.") for name in state)


def is_linear(name: str, tensor: Tensor) -> bool:
    return tensor.dim() == 2 and name.endswith(".weight")


def save(state: State, path: Path) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    return path


def pictures(
    path: Path, base: Path, part: str, precision: str, steps: int, budget: int | None = None
) -> tuple[list[np.ndarray], int]:
    """Two pictures, and the bytes of the ``part`` in memory. With a ``budget`` of one byte, weights stay packed."""
    registry.write(registry.Entry("measured", str(base), {part: path}), overwrite=True)
    spec = catalogue.find("measured") if part == "text_encoder" else catalogue.find(str(path), base=str(base))
    model = catalogue.resolve(dataclasses.replace(spec, smallest=64, largest=1024))
    plan = precision_plan.choose(model, "cpu", precision, budget)
    painter = Painter(load.load(model, plan), model, plan, torch.device("cpu"), "resident")
    side = 256 if base == SHIPPED else 64
    request = PaintRequest(
        prompt="a village by a lake at night",
        width=side,
        height=side,
        steps=steps,
        seed=7,
        count=2,
        guidance=2.0,
    )
    size = offload.sizes(painter.pipeline)[part]
    return [tiny.pixels_of(result) for result in painter.paint(request)], size


def worst(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    errors = (float(np.mean((a.astype(np.float64) - b) ** 2)) for a, b in zip(ours, theirs, strict=True))
    return min(psnr(error) or 0.0 for error in errors)


def wide_zimage() -> Any:
    """Z-Image whose matrices have rows of a multiple of 256 numbers, but for the 16 of a patch; its text encoder's too."""
    from diffusers import ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    pipeline = tiny.zimage()
    torch.manual_seed(0)
    pipeline.transformer = ZImageTransformer2DModel(
        in_channels=4, dim=768, n_layers=1, n_refiner_layers=1, n_heads=6, n_kv_heads=6, cap_feat_dim=256,
        axes_dims=[32, 48, 48], axes_lens=[256, 32, 32], rope_theta=256.0, t_scale=1000.0, qk_norm=True,
    )  # fmt: skip
    for name in ("x_pad_token", "cap_pad_token"):
        torch.nn.init.normal_(getattr(pipeline.transformer, name), std=0.02)
    pipeline.text_encoder = Qwen3Model(Qwen3Config(
        vocab_size=len(pipeline.tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=2, head_dim=32,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=512,
    ))  # fmt: skip
    return pipeline


def families(folder: Path) -> Iterator[tuple[str, Path, str, State, int]]:
    firefly = load.load(
        catalogue.resolve("firefly"), precision_plan.choose(catalogue.resolve("firefly"), "cpu", "float32")
    )
    yield "Z-Image (Firefly)", SHIPPED, "transformer", dict(firefly.transformer.state_dict()), 8
    flux = tiny.save("flux", folder / "flux")
    yield "Flux (tiny)", flux, "transformer", dict(tiny.flux().transformer.state_dict()), 2
    tiny.FAMILIES["sdxl"](64).save_pretrained(folder / "sdxl", safe_serialization=True)
    yield "SDXL (tiny)", folder / "sdxl", "unet", test_loading.sgm_layout(tiny.sdxl(64)), 2
    wide = wide_zimage()
    wide.save_pretrained(folder / "wide", safe_serialization=True)
    yield "Z-Image (wide)", folder / "wide", "transformer", dict(wide.transformer.state_dict()), 2
    yield (
        "Qwen3 text encoder (wide)",
        folder / "wide",
        "text_encoder",
        dict(wide.text_encoder.state_dict()),
        2,
    )


def row(
    path: Path, base: Path, part: str, steps: int, reference: list[np.ndarray], exact: list[np.ndarray]
) -> str:
    """Loads, bytes in memory, the two figures of one file."""
    try:
        computed, wide = pictures(path, base, part, "bfloat16", steps)
        kept, narrow = pictures(path, base, part, "bfloat16", steps, budget=1)
    except StarryError as error:
        return f"refused: {type(error).__name__} | | | |"
    same = all(map(np.array_equal, computed, kept))
    memory = (
        f"{wide:,} → {narrow:,}, {'same' if same else 'ANOTHER PICTURE'}" if narrow != wide else f"{wide:,}"
    )
    return f"yes | {memory} | {worst(computed, reference):.1f} dB | {worst(reference, exact):.1f} dB |"


def main() -> None:
    print(
        "| family | format | bytes | loads | in memory | bfloat16 against float32 of its numbers | of the plain model |"
    )
    print("|---|---|--:|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as place:
        os.environ["STARRY_HOME"] = str(Path(place) / "home")
        for family, base, part, state, steps in families(Path(place)):
            exact: list[np.ndarray] = []
            for name, path, meant in written(state, Path(place)):
                if sys.argv[1:] and not any(word in f"{family} {name}" for word in sys.argv[1:]):
                    continue
                if part == "text_encoder" and name not in OF_ENCODERS and not name.startswith("GGUF"):
                    continue
                if not exact:
                    exact, _ = pictures(
                        save(state, Path(place) / "plain.safetensors"), base, part, "float32", steps
                    )
                reference, _ = pictures(
                    save(meant, Path(place) / "meant.safetensors"), base, part, "float32", steps
                )
                said = row(path, base, part, steps, reference, exact)
                print(f"| {family} | {name} | {path.stat().st_size:,} | {said}", flush=True)


if __name__ == "__main__":
    main()
