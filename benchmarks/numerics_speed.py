"""The time of emulation and of the guard's checks, as ratios to the same step in float32.

python benchmarks/numerics_speed.py
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from numerics_families import noise
from torch import nn

from starrynight.numerics.emulate import Emulation
from starrynight.numerics.finite import find_fault

ROUNDS = 7


def block(width: int = 1024) -> nn.Module:
    """Two transformer layers of a realistic width: attention, norms, a feed-forward."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        width, 16, 4 * width, batch_first=True, norm_first=True, activation="gelu"
    )
    return nn.Sequential(layer, copy.deepcopy(layer)).train()  # in eval mode torch fuses a layer into one op


def race(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each run; they take turns, so that other work on the machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.no_grad():
        for _ in range(ROUNDS + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    module = block()
    half, bfloat16 = copy.deepcopy(module).half(), copy.deepcopy(module).bfloat16()
    x = noise(module, 0, 1, 256, 1024)
    latents = noise(module, 1, 1, 16, 64, 64)
    plain, keeping = Emulation(), Emulation(half)

    def emulated(mode: Emulation) -> None:
        with mode:
            half(x.half())

    times = race({
        "float32": lambda: module(x),
        "bfloat16": lambda: bfloat16(x.bfloat16()),
        "native float16": lambda: half(x.half()),
        "emulated float16": lambda: emulated(plain),
        "emulated float16, float32 weights kept": lambda: emulated(keeping),
        "guard: prediction, latents": lambda: (find_fault(latents, "prediction"), find_fault(latents, "latents")),
    })  # fmt: skip
    for name, seconds in times.items():
        print(f"{name:40} {1e3 * seconds:8.2f} ms   {seconds / times['float32']:7.4f} × float32")


if __name__ == "__main__":
    main()
