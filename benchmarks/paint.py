"""Seconds that Firefly takes for one picture: in a process that has it loaded, and as a whole `starry paint` command, alone
and with a running service.

python benchmarks/paint.py [RUNS [SIDE]]
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROMPT = "星夜下的静谧村庄，梵高风格，厚重的笔触"


def time_loaded(runs: int, home: Path, side: int) -> list[float]:
    """Seconds for one square picture of 8 steps and its file, after a first picture that is not counted."""
    from starrynight import studio
    from starrynight.gallery.files import OutputPath

    painters = studio.Studio(OutputPath(home / "pictures"))
    times = []
    for seed in range(runs + 1):
        start = time.perf_counter()
        list(
            painters.paint(
                studio.make_request(prompt=PROMPT, model="firefly", seed=seed, width=side, height=side)
            )
        )
        times.append(time.perf_counter() - start)
    return times[1:]


def time_command(runs: int, home: Path, side: int) -> list[float]:
    """Seconds of a whole `starry paint` process."""
    starry = Path(sys.executable).with_name("starry")
    times = []
    for seed in range(runs):
        options = [
            "--model",
            "firefly",
            "--size",
            str(side),
            "--seed",
            str(seed),
            "-o",
            home / f"{seed}.png",
            "--overwrite",
        ]
        command = [starry, "paint", PROMPT, *options]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "STARRY_HOME": str(home)})
        times.append(time.perf_counter() - start)
    return times


@contextlib.contextmanager
def service(home: Path) -> Iterator[None]:
    """`starry serve` over ``home``, with Firefly loaded."""
    starry = Path(sys.executable).with_name("starry")
    environment = {**os.environ, "STARRY_HOME": str(home)}
    command = [starry, "serve", "--no-pages", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            while not list(home.glob("cache/painters/*.sock")):
                time.sleep(0.1)
            time_command(1, home, 128)  # waits until it is loaded
            yield
        finally:
            server.terminate()


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    side = int(sys.argv[2]) if len(sys.argv) > 2 else 512
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        print(
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {side}×{side}, {runs} runs each; seconds (median, min, max)"
        )
        alone = time_command(runs, home, side)
        with service(home):
            served = time_command(runs, home, side)
        for label, times in (
            ("from the shell", alone),
            ("with a service", served),
            ("once loaded", time_loaded(runs, home, side)),
        ):
            print(f"{label:<15} {statistics.median(times):6.2f} {min(times):6.2f} {max(times):6.2f}")


if __name__ == "__main__":
    main()
