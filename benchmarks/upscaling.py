"""Seconds that each installed upscaler takes for a 256² picture at ×2 and ×4: the median of five, after one to load it."""

from __future__ import annotations

import statistics
import time

import numpy as np

from starrynight.errors import MissingPackage
from starrynight.painting import upscale as upscaler

if __name__ == "__main__":
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    for network in upscaler.NETWORKS:
        for factor in upscaler.FACTORS:
            taken = []
            try:
                for _ in range(6 if network == "fast" else 2):
                    start = time.perf_counter()
                    upscaler.upscale(pixels, factor, network)
                    taken.append(time.perf_counter() - start)
            except MissingPackage as error:
                print(f"{network} ×{factor}: {error}")
                continue
            print(f"{network} ×{factor}: {statistics.median(taken[1:]):.2f} s")
