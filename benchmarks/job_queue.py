"""Latency of the queue: to the first preview, from last step to saved picture, from cancelling to the end.

    python benchmarks/job_queue.py [ROUNDS]

Runs `starry open` over a temporary gallery, submits over HTTP and reads the events as a page does. The model
is Firefly at 256×256, 8 steps, loaded before anything is timed. Prints medians of ROUNDS (default 10):
wall-clock time, and CPU time of server and worker together on one thread, which depends less on the machine's
other load. The time of a step is printed too, so that the figures can be read as ratios. Exits with 0 if a
picture is saved within 1 s of its last step and a cancelled job ends within one step.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from served import Server, events

STEPS = 8
CANCELLED_STEPS = 100  # of a job that is cancelled: it must still be painting when the request arrives
SAVED = "saved after the last step"


class Moment(NamedTuple):
    clock: float  # seconds
    work: float  # CPU seconds of server and worker

    def since(self, other: Moment) -> tuple[float, float]:
        return self.clock - other.clock, self.work - other.work


def now(server: Server) -> Moment:
    parent = psutil.Process(server.process.pid)
    times = [process.cpu_times() for process in (parent, *parent.children())]
    return Moment(time.perf_counter(), sum(used.user + used.system for used in times))


def submit(server: Server, prompt: str, seed: int, steps: int) -> str:
    return server.ask("/api/jobs", {"prompt": prompt, "seed": seed, "steps": steps}).json["id"]


def timed_events(server: Server, job: str) -> Iterator[tuple[Moment, str, dict[str, Any]]]:
    for name, data in events(server.address, job):
        yield now(server), name, data


def paint(server: Server, seed: int) -> dict[str, tuple[float, float]]:
    submitted = now(server)
    seen = list(timed_events(server, submit(server, "星夜下的村庄", seed, STEPS)))
    previews = [(at, data["step"]) for at, name, data in seen if name == "preview"]
    (first, first_step), (last, _) = previews[0], previews[-1]
    saved = next(at for at, name, _ in seen if name == "picture")
    clock, work = last.since(first)
    step = (clock / (STEPS - first_step), work / (STEPS - first_step))
    return {"first preview": first.since(submitted), "a step": step, SAVED: saved.since(last)}


def cancel(server: Server, seed: int) -> tuple[dict[str, tuple[float, float]], int]:
    """The time from the request to the end, and how many more steps were taken."""
    job = submit(server, "画不完的画", seed, CANCELLED_STEPS)
    asked: Moment | None = None
    at_step = last_step = 0
    for at, name, data in timed_events(server, job):
        if name == "preview" and asked is None and data["step"] >= 2 + seed % 3:
            asked, at_step = now(server), server.ask(f"/api/jobs/{job}/cancel", {}).json["step"]
        if name == "job" and data["step"]:
            last_step = data["step"]
        if name == "ended" and asked is not None:
            return {"cancelled": at.since(asked)}, max(0, last_step - at_step)
    raise RuntimeError("the job ended before it was cancelled")


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory() as home:
        server = Server(Path(home))
        try:
            paint(server, 0)  # loads the model
            painted = [paint(server, seed) for seed in range(1, rounds + 1)]
            cancelled = [cancel(server, seed) for seed in range(1, rounds + 1)]
        finally:
            server.close()
    for results in (painted, [timed for timed, _ in cancelled]):
        for name in results[0]:
            clock, work = (statistics.median(one[name][part] for one in results) * 1000 for part in (0, 1))
            print(f"{name:26} clock {clock:6.0f} ms  work {work:6.0f} ms")
    steps = max(more for _, more in cancelled)
    print(f"steps taken after a cancel request: {steps} at most")
    print(f"{rounds} rounds; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    clock, work = (statistics.median(one[SAVED][part] for one in painted) for part in (0, 1))
    print(f"saved within 1 s: {clock <= 1} on the clock, {work <= 1} of own work")
    return 0 if clock <= 1 and steps <= 1 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
