"""What the guard's looks cost on a healthy run: Firefly's steps with them and without, side by side; and an estimate for
a large model from the numbers a step checks and the numbers it computes.

python benchmarks/guard_cost.py [PAIRS]     (800 pairs resolve half a per cent; Ctrl-C ends it early)

Steps of one picture, at the same size, cost the same. Every two neighbours are a pair, in processor time of one thread, which
other work on the machine does not stretch; in every other pair nothing differs, which shows what this can resolve.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

PROMPT = "星夜下的静谧村庄，梵高风格，厚重的笔触"

# Pairs in one picture: its first step, which reads the prompt, belongs to none.
PAIRS_A_PICTURE = 20

# Z-Image at 1024²: 6.15·10⁹ parameters (docs/numerics.md, “Size and cost”), one token for 16 × 16 pixels and up to 512 for the
# prompt, guidance in two passes, latents of 16 channels at an eighth of the size.
PARAMETERS, TOKENS, PASSES, LATENTS = 6.15e9, (1024 // 16) ** 2 + 512, 2, (1, 16, 128, 128)

# What a step looks at: each pass's prediction, the guided one, the latents.
LOOKS = PASSES + 2


def measure(pairs: int) -> dict[str, list[float]]:
    """Ratios of a step's processor time to its neighbour's, by what the first of the two did: "looks" or "control"."""
    from starrynight import studio
    from starrynight.painting import guard
    from starrynight.painting.painter import Painter

    request = studio.fill(prompt=PROMPT, model="firefly", seed=1, steps=2 * PAIRS_A_PICTURE + 1)
    painter = Painter.ready(request, device="cpu")
    find, looking = guard.find_fault, [True]
    guard.find_fault = lambda *words: find(*words) if looking[0] else None  # type: ignore[assignment]
    ratios: dict[str, list[float]] = {"looks": [], "control": []}
    try:
        while min(map(len, ratios.values())) < pairs:
            for name, ratio in _one_picture(painter, request, looking):
                ratios[name].append(ratio)
            print(f"  {len(ratios['looks'])} of {pairs} pairs", file=sys.stderr)
    except KeyboardInterrupt:  # what was measured counts
        print("stopped", file=sys.stderr)
    finally:
        guard.find_fault = find
    return ratios


def _one_picture(painter: Any, request: Any, looking: list[bool]) -> list[tuple[str, float]]:
    """Pair k is steps 2k+1 and 2k+2. Even pairs look in one of the two, first or second in turns; odd ones in neither."""
    spent: list[float] = []
    last = [0.0]

    def after(step: Any) -> None:
        now = time.process_time()
        spent.append(now - last[0])
        coming = len(spent)  # the step that begins now
        pair, second = divmod(coming - 1, 2)
        looking[0] = pair % 2 == 0 and bool(second) == bool(pair // 2 % 2)
        last[0] = time.process_time()

    looking[0] = True
    list(painter.paint(request, after))
    looking[0] = True
    found = []
    for pair in range((len(spent) - 1) // 2):
        first, second = spent[2 * pair + 1], spent[2 * pair + 2]
        swapped = bool(pair // 2 % 2)
        found.append(("control" if pair % 2 else "looks", second / first if swapped else first / second))
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval by order statistics, which asks nothing of how the values are spread."""
    ordered, half = sorted(values), 1.96 * math.sqrt(len(values)) / 2
    low = max(0, math.floor(len(values) / 2 - half))
    high = min(len(values) - 1, math.ceil(len(values) / 2 + half))
    return statistics.median(values), ordered[low], ordered[high]


def alone() -> float:
    """Seconds of one look at the latents of a 1024² picture, the median of many."""
    from starrynight.numerics.finite import find_fault

    latents = torch.randn(LATENTS)
    return statistics.median(seconds(lambda: find_fault(latents, "latents")) for _ in range(400))


def rate() -> float:
    """Multiplications and additions a second in a float32 product of the size of Z-Image's feed-forward."""
    x, weight = torch.randn(512, 3840), torch.randn(10240, 3840)
    taken = statistics.median(seconds(lambda: x @ weight.T) for _ in range(5))
    return 2 * x.shape[0] * weight.numel() / taken


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 800
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        os.environ["STARRY_HOME"] = home
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, one thread, processor time")
        ratios = measure(pairs)
    for name, words in (
        ("looks", "a step of Firefly, 256², looked at over not looked at"),
        ("control", "the same where nothing differs"),
    ):
        middle, low, high = interval(ratios[name])
        print(
            f"{words}: {middle - 1:+.2%}, 95 % between {low - 1:+.2%} and {high - 1:+.2%} ({len(ratios[name])} pairs)"
        )
    look, flops, speed = alone(), 2 * PARAMETERS * TOKENS * PASSES, rate()
    size = 4 * math.prod(LATENTS)
    print(
        f"Z-Image at 1024², an estimate: a step looks at {LOOKS} × {size / 1e6:.2f} MB and multiplies and adds {flops:.1e} times "
        f"(weights alone). Here: {LOOKS} × {look * 1e3:.2f} ms beside {flops / speed:.0f} s at {speed / 1e9:.0f} GFLOP/s, so "
        f"{LOOKS * look * speed / flops:.1e} of a step."
    )


if __name__ == "__main__":
    main()
