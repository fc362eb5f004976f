"""How trace and solve scale: 8 steps of Z-Image's 34-block layout, narrow so that it runs anywhere.

    python benchmarks/numerics_scale.py [--layers 30] [--steps 8]
    python benchmarks/numerics_scale.py --full --steps 1      # 6.15 billion random parameters, 13 GB of memory

The linear program's size depends on the number of ops, not on the width of the layers, so its solve time is
that of the full-size model. Prints the seconds of an untraced run, of the traced run and of the solve, and
the process's peak memory.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from numerics_families import moment, noise
from torch import nn

from starrynight.numerics.measured import Trace
from starrynight.numerics.solve import solve_folds
from starrynight.numerics.trace import trace_modules


def build(layers: int) -> nn.Module:
    from diffusers import ZImageTransformer2DModel

    torch.manual_seed(0)
    module = ZImageTransformer2DModel(
        dim=64, n_heads=2, n_kv_heads=2, n_layers=layers, n_refiner_layers=2, cap_feat_dim=32, in_channels=4,
        axes_dims=[8, 12, 12], axes_lens=[64, 64, 64])  # fmt: skip
    for index in (2, layers // 2):  # two overflowing places, so that there is something to solve
        module.layers[index].feed_forward.w3.weight.data *= 2.0**22
        module.layers[index].feed_forward.w2.weight.data *= 2.0**12
    return module.eval().bfloat16()


@torch.no_grad()
def build_full() -> nn.Module:
    """Z-Image-Turbo's layout (the class's defaults) with random bfloat16 weights and two overflowing blocks."""
    from diffusers import ZImageTransformer2DModel

    with torch.device("meta"):
        module = ZImageTransformer2DModel().bfloat16()
    module.to_empty(device="cpu")
    draw = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.dim() < 2:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=draw)
    for index in (2, 15):
        module.layers[index].feed_forward.w3.weight *= 2.0**22
        module.layers[index].feed_forward.w2.weight *= 2.0**12
    return module.eval()


@torch.no_grad()
def steps(module: nn.Module, count: int) -> None:
    """``count`` steps of a square image: 16×16 latents when narrow, 32×32 (256 pixels) at full size."""
    channels, side = module.config.in_channels, 32 if module.config.dim > 1000 else 16
    caption = noise(module, 1, 10, module.config.cap_feat_dim)
    for step in range(count):
        module([noise(module, step, channels, 1, side, side)], moment(module, step), [caption])


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument(
        "--full", action="store_true", help="the full-size transformer instead of the narrow one"
    )
    options = parser.parse_args()
    module = build_full() if options.full else build(options.layers)
    print(f"{sum(p.numel() for p in module.parameters()) / 1e9:.2f} billion parameters", flush=True)
    steps(module, 1)  # warm up
    clock = time.perf_counter
    start = clock()
    steps(module, options.steps)
    untraced, before = clock() - start, megabytes()
    start, found = clock(), Trace()
    trace_modules(module, lambda: steps(module, options.steps), into=found)
    traced, after = clock() - start, megabytes()
    start = clock()
    plan = solve_folds(found)
    solved = clock() - start
    print(f"blocks {len(module.layers) + 4}, steps {options.steps}")
    print(
        f"untraced run {untraced:.1f} s, traced {traced:.1f} s ({traced / untraced:.1f}×), {after - before:.0f} MB more"
    )
    print(
        f"sites {len(found.sites)}, unknowns {len(found.exponents)}, relations {len(found.exponents.relations())}"
    )
    print(f"solved in {solved:.2f} s: {len(plan.parameters)} folds, {len(plan.epsilons)} epsilons, "
          f"{len(plan.islands)} islands; process peak {megabytes():.0f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
