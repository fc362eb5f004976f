"""What each weight format costs: format × family, loaded from a file that is written here, against float32.

    python benchmarks/formats.py            prints the table of docs/models.md

Z-Image is Firefly, trained; Flux and SDXL are tiny and random, so their pictures say only that the numbers arrive. Each file
is painted twice: computed in bfloat16, and in float32 from a file of the same numbers multiplied out. Two seeds, two steps for
the tiny models, eight for Firefly; the worse PSNR of the two counts. "of the plain model": float32 from the quantised
numbers against float32 from the numbers before quantising, which is the price of the format itself.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

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
from starrynight.models import catalogue, load, precision_plan
from starrynight.models.catalogue import SHIPPED
from starrynight.numerics.certify import psnr
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest

State = dict[str, Tensor]
PLAIN = {"bfloat16": torch.bfloat16, "float16": torch.float16, "fp8 e4m3, plain": torch.float8_e4m3fn}
SCALED = {
    "fp8 scaled (scale_weight)": "kijai",
    "fp8 scaled (comfy_quant)": "comfy",
    "int8 (comfy_quant)": "int8",
}
GGUF = ("Q8_0", "Q5_0", "Q4_0")  # those that the gguf package writes itself


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
    for kind in GGUF:
        path = folder / f"{kind}.gguf"
        yield f"GGUF {kind}", path, test_packed.write_gguf(path, state, kind)


def is_whole(state: State) -> bool:
    return any(name.startswith("conditioner.") for name in state)


def is_linear(name: str, tensor: Tensor) -> bool:
    return tensor.dim() == 2 and name.endswith(".weight")


def save(state: State, path: Path) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    return path


def pictures(path: Path, base: Path, precision: str, steps: int) -> list[np.ndarray]:
    spec = dataclasses.replace(catalogue.find(str(path), base=str(base)), smallest=64, largest=1024)
    model = catalogue.resolve(spec)
    plan = precision_plan.choose(model, "cpu", precision)
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
    return [tiny.pixels_of(result) for result in painter.paint(request)]


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


def main() -> None:
    print("| family | format | bytes | bfloat16 against float32 of its numbers | of the plain model |")
    print("|---|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as place:
        for family, base, state, steps in families(Path(place)):
            exact = pictures(save(state, Path(place) / "plain.safetensors"), base, "float32", steps)
            for name, path, meant in written(state, Path(place)):
                reference = pictures(save(meant, Path(place) / "meant.safetensors"), base, "float32", steps)
                try:
                    computed = worst(pictures(path, base, "bfloat16", steps), reference)
                except StarryError as error:
                    print(
                        f"| {family} | {name} | {path.stat().st_size:,} | refused: {type(error).__name__} | |",
                        flush=True,
                    )
                    continue
                cost = worst(reference, exact)
                print(
                    f"| {family} | {name} | {path.stat().st_size:,} | {computed:.1f} dB | {cost:.1f} dB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
