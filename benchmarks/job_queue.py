"""How long an artist waits: for the first preview, for a picture to hang after its last step, for a cancelled job to end.

    python benchmarks/job_queue.py [ROUNDS]

Opens the studio (`starry open`) over a temporary gallery, asks over HTTP and watches the events, as a page does; the
painter is Firefly at 256×256, 8 steps, loaded before anything is timed. Prints medians and the slowest of ROUNDS (10 if
left out). The promises: a picture hangs within 1 s of its last step, a cancelled job ends within one step. The step beside
them is this run's own, so that the figures can be read as ratios. Knows neither torch nor the database.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STARRY = Path(sys.executable).with_name("starry")
Timed = tuple[float, str, dict[str, Any]]  # seconds on the clock, the event's name, its data


def ask(address: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    wanted = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(wanted, timeout=600) as answer:
        return json.load(answer)


def events(address: str) -> Iterator[Timed]:
    name = ""
    with urllib.request.urlopen(address, timeout=600) as stream:
        for line in stream:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield time.perf_counter(), name, json.loads(line[6:])


def paint(address: str, seed: int) -> dict[str, float]:
    """Seconds from asking to the first preview; of a step; from the last step to the wall."""
    asked = time.perf_counter()
    job = ask(f"{address}api/jobs", {"prompt": "星夜下的村庄", "seed": seed})["id"]
    seen = list(events(f"{address}api/jobs/{job}/events"))
    previews = [(at, data["step"]) for at, name, data in seen if name == "preview"]
    last = next(at for at, step in previews if step == 8)
    hung = next(at for at, name, _ in seen if name == "picture")
    steps = (last - previews[0][0]) / (8 - previews[0][1])
    return {"first preview": previews[0][0] - asked, "a step": steps, "hung after the last step": hung - last}


def cancel(address: str, seed: int) -> dict[str, float]:
    """Seconds, and steps, from asking for the end to the end. 100 steps leave time to ask."""
    job = ask(f"{address}api/jobs", {"prompt": "画不完的画", "seed": seed, "steps": 100})["id"]
    asked, at_step, last_step = 0.0, 0, 0
    for at, name, data in events(f"{address}api/jobs/{job}/events"):
        if name == "preview" and not asked and data["step"] >= 2 + seed % 3:
            asked, at_step = time.perf_counter(), ask(f"{address}api/jobs/{job}/cancel", {})["step"]
        if name == "job" and data["step"]:
            last_step = data["step"]
        if name == "ended":
            return {"cancelled": at - asked, "steps taken after it": max(0, last_step - at_step)}
    raise RuntimeError("the job did not end")


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "STARRY_HOME": home}
        command = [str(STARRY), "open", "--no-browser", "--port", "0"]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("✦ ").strip()
        try:
            paint(address, 0)  # loads the painter
            results = [paint(address, seed) | cancel(address, seed) for seed in range(1, rounds + 1)]
        finally:
            server.terminate()
            server.wait(30)
    for name in results[0]:
        values = [one[name] for one in results]
        unit, scale = ("", 1) if name.startswith("steps") else (" ms", 1000)
        print(
            f"{name:26} median {statistics.median(values) * scale:7.0f}{unit}  slowest {max(values) * scale:7.0f}{unit}"
        )
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    kept = all(one["hung after the last step"] <= 1 and one["steps taken after it"] <= 1 for one in results)
    print(f"{rounds} rounds; {load}; promises {'kept' if kept else 'NOT kept'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
