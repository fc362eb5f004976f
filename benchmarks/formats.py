"""What each weight format costs: format × family, loaded from a file that is written here, against float32.

    python benchmarks/formats.py            prints the table of docs/models.md
    python benchmarks/formats.py Q4_K       only the formats whose name holds a word

Z-Image is Firefly, trained; Flux and SDXL are tiny and random, so their pictures say only that the numbers arrive. Each file
is painted twice: computed in bfloat16, and in float32 from a file of the same numbers multiplied out. Two seeds, two steps for
the tiny models, eight for Firefly; the worse PSNR of the two counts. "of the plain model": float32 from the quantised
numbers against float32 from the numbers before quantising, which is the price of the format itself. "In memory": bytes of the
denoiser multiplied out to bfloat16, and kept packed; "same": whether the kept one paints the same pictures, bit for bit.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import test_ledger
import test_loading
import tiny

from starrynight.errors import StarryError
from starrynight.fitting import blocks
from starrynight.models import catalogue, load, precision_plan
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
        if not kind.endswith("_K") or any(t.dim() == 2 and t.shape[1] % K_BLOCK == 0 for t in state.values()):
            yield f"GGUF {kind}", path, write_gguf(path, state, kind)


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


def write_gguf(path: Path, state: State, kind: str) -> State:
    """Matrices whose rows fill blocks in ``kind``, the rest in float32; returns the numbers meant."""
    writer, meant = gguf.GGUFWriter(path, "lumina2"), {}
    for name, tensor in state.items():
        own = (
            kind
            if (tensor.dim() == 2 and tensor.shape[1] % K_BLOCK == 0) or not kind.endswith("_K")
            else "Q8_0"
        )
        if tensor.dim() == 2 and tensor.shape[1] % BLOCK == 0:
            data = blocks.quantise(tensor, own).numpy()
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[own])
            meant[name] = torch.from_numpy(gguf.quants.dequantize(data, gguf.GGMLQuantizationType[own]))
        else:
            writer.add_tensor(name, np.ascontiguousarray(tensor.float().numpy()))
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
    path: Path, base: Path, precision: str, steps: int, budget: int | None = None
) -> tuple[list[np.ndarray], int]:
    """Two pictures, and the bytes of the denoiser in memory. With a ``budget`` of one byte, weights stay packed."""
    spec = dataclasses.replace(catalogue.find(str(path), base=str(base)), smallest=64, largest=1024)
    model = catalogue.resolve(spec)
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
    size = offload.sizes(painter.pipeline)[load.denoiser_name(painter.pipeline)]
    return [tiny.pixels_of(result) for result in painter.paint(request)], size


def worst(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    errors = (float(np.mean((a.astype(np.float64) - b) ** 2)) for a, b in zip(ours, theirs, strict=True))
    return min(psnr(error) or 0.0 for error in errors)


def families(folder: Path) -> Iterator[tuple[str, Path, State, int]]:
    firefly = load.load(
        catalogue.resolve("firefly"), precision_plan.choose(catalogue.resolve("firefly"), "cpu", "float32")
    )
    yield "Z-Image (Firefly)", SHIPPED, dict(firefly.transformer.state_dict()), 8
    flux = tiny.save("flux", folder / "flux")
    yield "Flux (tiny)", flux, dict(tiny.flux().transformer.state_dict()), 2
    tiny.FAMILIES["sdxl"](64).save_pretrained(folder / "sdxl", safe_serialization=True)
    yield "SDXL (tiny)", folder / "sdxl", test_loading.sgm_layout(tiny.sdxl(64)), 2


def row(path: Path, base: Path, steps: int, reference: list[np.ndarray], exact: list[np.ndarray]) -> str:
    """Loads, bytes in memory, the two figures of one file."""
    try:
        computed, wide = pictures(path, base, "bfloat16", steps)
        kept, narrow = pictures(path, base, "bfloat16", steps, budget=1)
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
        for family, base, state, steps in families(Path(place)):
            exact, _ = pictures(save(state, Path(place) / "plain.safetensors"), base, "float32", steps)
            for name, path, meant in written(state, Path(place)):
                if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
                    continue
                reference, _ = pictures(
                    save(meant, Path(place) / "meant.safetensors"), base, "float32", steps
                )
                said = row(path, base, steps, reference, exact)
                print(f"| {family} | {name} | {path.stat().st_size:,} | {said}", flush=True)


if __name__ == "__main__":
    main()
