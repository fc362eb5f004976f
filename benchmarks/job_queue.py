"""How long an artist waits: for the first preview, for a picture to hang after its last step, for a cancelled job to end.

    python benchmarks/job_queue.py [ROUNDS]

Opens the studio (`starry open`) over a temporary gallery, asks over HTTP and watches the events, as a page does; the
painter is Firefly at 256×256, 8 steps, loaded before anything is timed. Prints medians of ROUNDS (10 if left out), on
the clock and of own work: CPU time of server and worker together, with one thread, which is what remains when nothing
else runs. The promises: a picture hangs within 1 s of its last step, a cancelled job ends within one step. The step
beside them is this run's own, so that the figures can be read as ratios. Knows neither torch nor the database.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

STARRY = Path(sys.executable).with_name("starry")
STEPS, MANY = 8, 100


class Moment(NamedTuple):
    clock: float  # seconds
    work: float  # CPU seconds of server and worker

    def since(self, other: Moment) -> tuple[float, float]:
        return self.clock - other.clock, self.work - other.work


class Studio:
    """One `starry open`, asked and watched."""

    def __init__(self, home: str) -> None:
        environment = {**os.environ, "STARRY_HOME": home, "OMP_NUM_THREADS": "1"}
        command = [str(STARRY), "open", "--no-browser", "--port", "0"]
        self.server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        self.address = self.server.stdout.readline().removeprefix("✦ ").strip()
        self.process = psutil.Process(self.server.pid)

    def now(self) -> Moment:
        times = [process.cpu_times() for process in (self.process, *self.process.children())]
        return Moment(time.perf_counter(), sum(used.user + used.system for used in times))

    def ask(self, path: str, body: object) -> Any:
        wanted = urllib.request.Request(
            f"{self.address}api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(wanted, timeout=600) as answer:
            return json.load(answer)

    def events(self, job: str) -> Iterator[tuple[Moment, str, dict[str, Any]]]:
        name = ""
        with urllib.request.urlopen(f"{self.address}api/jobs/{job}/events", timeout=600) as stream:
            for line in stream:
                if line.startswith(b"event: "):
                    name = line[7:].decode().strip()
                elif line.startswith(b"data: "):
                    yield self.now(), name, json.loads(line[6:])

    def close(self) -> None:
        self.server.terminate()
        self.server.wait(60)


def paint(studio: Studio, seed: int) -> dict[str, tuple[float, float]]:
    asked = studio.now()
    job = studio.ask("jobs", {"prompt": "星夜下的村庄", "seed": seed, "steps": STEPS})["id"]
    seen = list(studio.events(job))
    looks = [(at, data["step"]) for at, name, data in seen if name == "preview"]
    (first, begun), (last, _) = looks[0], looks[-1]
    hung = next(at for at, name, _ in seen if name == "picture")
    step = tuple(part / (STEPS - begun) for part in last.since(first))
    return {"first preview": first.since(asked), "a step": step, "hung after the last step": hung.since(last)}  # type: ignore[dict-item]


def cancel(studio: Studio, seed: int) -> tuple[dict[str, tuple[float, float]], int]:
    """How long it took, and how many more steps were taken. A hundred steps leave time to ask."""
    job = studio.ask("jobs", {"prompt": "画不完的画", "seed": seed, "steps": MANY})["id"]
    asked: Moment | None = None
    at_step = last_step = 0
    for at, name, data in studio.events(job):
        if name == "preview" and asked is None and data["step"] >= 2 + seed % 3:
            asked, at_step = studio.now(), studio.ask(f"jobs/{job}/cancel", {})["step"]
        if name == "job" and data["step"]:
            last_step = data["step"]
        if name == "ended" and asked is not None:
            return {"cancelled": at.since(asked)}, max(0, last_step - at_step)
    raise RuntimeError("the job ended before it was cancelled")


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory() as home:
        studio = Studio(home)
        try:
            paint(studio, 0)  # loads the painter
            painted = [paint(studio, seed) for seed in range(1, rounds + 1)]
            cancelled = [cancel(studio, seed) for seed in range(1, rounds + 1)]
        finally:
            studio.close()
    for results in (painted, [timed for timed, _ in cancelled]):
        for name in results[0]:
            clock, work = (statistics.median(one[name][part] for one in results) * 1000 for part in (0, 1))
            print(f"{name:26} clock {clock:6.0f} ms  work {work:6.0f} ms")
    steps = max(more for _, more in cancelled)
    print(f"steps taken after asking for the end: {steps} at most")
    print(f"{rounds} rounds; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    waited: Callable[[int], float] = lambda part: statistics.median(  # noqa: E731
        one["hung after the last step"][part] for one in painted
    )
    print(f"hung within 1 s: {waited(0) <= 1} on the clock, {waited(1) <= 1} of own work")
    return 0 if waited(0) <= 1 and steps <= 1 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
