"""Whether requests of one shape are faster as one batch: CPU seconds a picture of Firefly's pipeline for batches of 1, 2, 4, 8.

    python benchmarks/batching.py [SIDE [RUNS]]

CPU time of this process, so that other work on the machine counts little; medians, the sizes in turn. On a card it prints
wall-clock seconds instead.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch

from starrynight.studio import Studio, make_request

SIZES = (1, 2, 4, 8)


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    painter = Studio(lambda picture: Path()).ready(make_request(prompt="星夜下的村庄"))
    cuda = painter.device.type == "cuda"
    pipeline = painter.pipeline
    pipeline.set_progress_bar_config(disable=True)

    def seconds(size: int) -> float:
        clock = time.perf_counter if cuda else time.process_time
        noise = [torch.Generator().manual_seed(seed) for seed in range(size)]
        began = clock()
        pipeline(
            ["星夜下的村庄"] * size, width=side, height=side, num_inference_steps=8, guidance_scale=2.0,
            generator=noise, output_type="pt",
        )  # fmt: skip
        if cuda:
            torch.cuda.synchronize()
        return (clock() - began) / size

    with torch.inference_mode():
        seconds(1)
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(runs):
            for size in SIZES:
                times[size].append(seconds(size))
    alone = statistics.median(times[1])
    print(f"{painter.device}, {torch.get_num_threads()} threads, {side}×{side}, 8 steps, {runs} runs")
    for size in SIZES:
        each = statistics.median(times[size])
        print(f"batch of {size}: {each:.3f} s a picture, {each / alone:.2f} of alone")


if __name__ == "__main__":
    main()
