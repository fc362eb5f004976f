"""The cost of the guard's checks on a healthy run: steps of Firefly with and without them, and an estimate
for Z-Image.

python benchmarks/guard_cost.py [PAIRS]     (800 pairs resolve half a per cent; Ctrl-C ends it early)

Two neighbouring steps of one image form a pair: one with the checks, one without. Their time is the processor
time of one thread, which other work on the machine hardly changes. In every other pair neither step has the
checks; these control pairs show the resolution. The estimate for Z-Image compares the numbers that a step
checks with those that it computes.
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

# Pairs in one image. Its first step belongs to none, because it also encodes the prompt.
PAIRS_AN_IMAGE = 20

# Z-Image at 1024²: 6.15·10⁹ parameters (docs/numerics.md, “Size and cost”), one token for 16 × 16 pixels and up to 512 for the
# prompt, guidance in two passes, latents of 16 channels at an eighth of the size.
PARAMETERS, TOKENS, PASSES, LATENTS = 6.15e9, (1024 // 16) ** 2 + 512, 2, (1, 16, 128, 128)

# The tensors that a step checks: each pass's prediction, the guided prediction, the latents.
CHECKS = PASSES + 2


def measure(pairs: int) -> dict[str, list[float]]:
    """Ratios of processor time between the two steps of a pair: "checked" (with / without) and "control"."""
    from starrynight import studio
    from starrynight.painting import guard
    from starrynight.painting.painter import Painter

    request = studio.make_request(
        prompt=PROMPT, model="firefly", seed=1, steps=2 * PAIRS_AN_IMAGE + 1, width=256, height=256
    )
    painter = Painter.ready(request, device="cpu")
    find, checking = guard.find, [True]
    guard.find = lambda *args: find(*args) if checking[0] else None  # type: ignore[assignment]
    ratios: dict[str, list[float]] = {"checked": [], "control": []}
    try:
        while min(map(len, ratios.values())) < pairs:
            for name, ratio in _one_image(painter, request, checking):
                ratios[name].append(ratio)
            print(f"  {len(ratios['checked'])} of {pairs} pairs", file=sys.stderr)
    except KeyboardInterrupt:  # report what was measured so far
        print("stopped", file=sys.stderr)
    finally:
        guard.find = find
    return ratios


def _one_image(painter: Any, request: Any, checking: list[bool]) -> list[tuple[str, float]]:
    """Pair k is steps 2k+1 and 2k+2. In even pairs one step is checked, the first or second in turns; in odd pairs none."""
    spent: list[float] = []
    last = [0.0]

    def after(step: Any) -> None:
        now = time.process_time()
        spent.append(now - last[0])
        pair, second = divmod(len(spent) - 1, 2)  # of the step that begins now
        checking[0] = pair % 2 == 0 and bool(second) == bool(pair // 2 % 2)
        last[0] = time.process_time()

    checking[0] = True
    list(painter.paint(request, after))
    checking[0] = True
    found = []
    for pair in range((len(spent) - 1) // 2):
        first, second = spent[2 * pair + 1], spent[2 * pair + 2]
        swapped = bool(pair // 2 % 2)
        found.append(("control" if pair % 2 else "checked", second / first if swapped else first / second))
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, low, high): the 95 % interval of the median by order statistics, for any distribution."""
    ordered, half = sorted(values), 1.96 * math.sqrt(len(values)) / 2
    low = max(0, math.floor(len(values) / 2 - half))
    high = min(len(values) - 1, math.ceil(len(values) / 2 + half))
    return statistics.median(values), ordered[low], ordered[high]


def check_seconds() -> float:
    """Median seconds of one check of a 1024² image's latents."""
    from starrynight.numerics.finite import find_fault

    latents = torch.randn(LATENTS)
    return statistics.median(seconds(lambda: find_fault(latents, "latents")) for _ in range(400))


def rate() -> float:
    """Floating-point operations a second in a float32 product of the size of Z-Image's feed-forward."""
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
        ("checked", "a step of Firefly, 256², with the checks over without"),
        ("control", "control pairs, both without"),
    ):
        middle, low, high = interval(ratios[name])
        print(
            f"{words}: {middle - 1:+.2%}, 95 % between {low - 1:+.2%} and {high - 1:+.2%} ({len(ratios[name])} pairs)"
        )
    check, flops, speed = check_seconds(), 2 * PARAMETERS * TOKENS * PASSES, rate()
    size = 4 * math.prod(LATENTS)
    print(
        f"Z-Image at 1024², an estimate: a step checks {CHECKS} × {size / 1e6:.2f} MB and takes {flops:.1e} floating-point "
        f"operations (weights alone). Here: {CHECKS} × {check * 1e3:.2f} ms and {flops / speed:.0f} s at "
        f"{speed / 1e9:.0f} GFLOP/s, so {CHECKS * check * speed / flops:.1e} of a step."
    )


if __name__ == "__main__":
    main()
