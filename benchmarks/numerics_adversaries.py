"""Fold every module of tests/adversaries.py and random chains of them: each must be exact in float32, or refused.

    python benchmarks/numerics_adversaries.py [--random 150]

Each is folded by the solver's plan and by two plans for random ranges, run on three inputs outside the calibration, and
compared op by op in one traced float32 step. Prints a line for every module that changed; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import torch
from adversaries import MIDDLES
from exactness import NAMES, Verdict, chain, named, verdict


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--random", type=int, default=150, help="random chains of two or three modules")
    wanted = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    begin, counts, changed = time.monotonic(), Counter[str](), 0
    for name in NAMES:
        changed += count(name, verdict(*named(name)), counts)
    draw, names = random.Random(0), sorted(MIDDLES)
    for _ in range(wanted.random):
        drawn = [(draw.choice(names), draw.randrange(4)) for _ in range(draw.randint(2, 3))]
        try:
            changed += count(str(drawn), verdict(lambda drawn=drawn: chain(drawn)), counts)
        except AssertionError:  # this chain overflows float32 before any fold
            counts["not finite in float32"] += 1
    seconds = time.monotonic() - begin
    print(f"{len(NAMES)} named modules, {wanted.random} random chains, {seconds:.0f} s: {dict(counts)}")
    sys.exit(changed > 0)


def count(name: str, found: Verdict, counts: Counter[str]) -> bool:
    counts["folded, the same" if found.kind == "same" and found.folds else found.kind] += 1
    if found.kind == "changed":
        print(f"{name}: {found.reason}", flush=True)
    return found.kind == "changed"


if __name__ == "__main__":
    main()
