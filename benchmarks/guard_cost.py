"""What the guard costs on a healthy run: Firefly's steps with it and without it, in interleaved pairs; and its checks on
latents of larger pictures, beside one block of a large transformer on the same machine.

python benchmarks/guard_cost.py [PAIRS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch

PROMPT = "星夜下的静谧村庄，梵高风格，厚重的笔触"


def processor_seconds(work: Callable[[], object]) -> float:
    """Of this process, which others' work on the machine does not stretch."""
    start = time.process_time()
    work()
    return time.process_time() - start


def checks_of_one_step(pairs: int) -> tuple[float, float]:
    """Medians: seconds of a whole step of Firefly, and of what the guard does in it."""
    from starrynight import studio
    from starrynight.numerics import guard as primitives
    from starrynight.painting import guard
    from starrynight.painting.painter import Painter

    request = studio.fill(prompt=PROMPT, model="firefly", seed=1)
    painter = Painter.ready(request, device="cpu")
    spent: list[float] = []
    find = primitives.find_fault

    def timed(work: Callable[..., object]) -> Callable[..., object]:
        def measured(*args: object) -> object:
            start = time.perf_counter()
            result = work(*args)
            spent.append(time.perf_counter() - start)
            return result

        return measured

    guard.find_fault = timed(find)  # type: ignore[assignment]
    list(painter.paint(request))  # warm
    steps, checks = [], []
    for _ in range(pairs):
        spent.clear()
        start = time.perf_counter()
        list(painter.paint(request))
        steps.append((time.perf_counter() - start) / request.steps)
        checks.append(sum(spent) / request.steps)
    guard.find_fault = find  # type: ignore[assignment]
    return statistics.median(steps), statistics.median(checks)


def with_and_without(pairs: int) -> list[float]:
    """Ratios of processor time, one picture guarded over the same unguarded, in turns."""
    from starrynight import studio
    from starrynight.painting import guard
    from starrynight.painting.painter import Painter

    request = studio.fill(prompt=PROMPT, model="firefly", seed=1)
    painter = Painter.ready(request, device="cpu")
    find = guard.find_fault
    list(painter.paint(request))
    ratios = []
    for number in range(pairs):
        seconds = {}
        for guarded in (True, False) if number % 2 else (False, True):
            guard.find_fault = find if guarded else lambda *_: None  # type: ignore[assignment]
            seconds[guarded] = processor_seconds(lambda: list(painter.paint(request)))
        ratios.append(seconds[True] / seconds[False])
    guard.find_fault = find
    return ratios


def beside_a_large_block(pairs: int) -> list[tuple[str, float]]:
    """The two checks of a step against the feed-forward products of one of Z-Image's 34 blocks, in float32."""
    from starrynight.numerics.guard import find_fault

    width, hidden = 3840, 10240
    found = []
    for side in (512, 1024):
        latents, tokens = torch.randn(1, 16, side // 8, side // 8), torch.randn((side // 16) ** 2, width)
        up, down = torch.randn(hidden, width), torch.randn(width, hidden)
        ratios = []
        for _ in range(pairs):
            product = processor_seconds(lambda t=tokens, u=up, d=down: t @ u.T @ d.T)  # type: ignore[misc]
            checks = [processor_seconds(lambda x=latents: find_fault(x, "latents")) for _ in range(40)]  # type: ignore[misc]
            ratios.append(2 * sum(checks) / 40 / product)
        found.append((f"{side}², of the feed-forward of one block of 34", statistics.median(ratios)))
    return found


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        os.environ["STARRY_HOME"] = home
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, one thread, {pairs} pairs, medians")
        step, checks = checks_of_one_step(pairs)
        print(
            f"Firefly 256², 8 steps: step {step * 1e3:.1f} ms, checks {checks * 1e3:.3f} ms = {checks / step:.3%}"
        )
        ratios = with_and_without(pairs)
        print(
            f"guarded over unguarded {statistics.median(ratios):.4f} (from {min(ratios):.4f} to {max(ratios):.4f})"
        )
        for label, ratio in beside_a_large_block(pairs):
            print(f"{label}: {ratio:.4%}")


if __name__ == "__main__":
    main()
