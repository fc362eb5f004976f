"""Many clients of one service for minutes: latency, pictures a second, memory, and whether every picture is there once.

    python benchmarks/load.py [--clients 200] [--seconds 300] [--side 128] [--no-kill] [--serve "--engine ray --workers 2"]

Each client submits a job with a seed of its own, listens to its events until it ends, fetches the file and submits the
next. In the middle a worker is killed, with its Ray actor if it has one. At the end every job must be done with one picture of its seed, and the
gallery and its folder must hold exactly these.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

PROMPTS = ("星夜下的村庄", "a lighthouse above the sea", "江雪，孤舟", "a quiet harbour at dusk")
EACH = 2.0  # seconds between two readings of memory


@dataclass
class Record:
    """What the clients saw. ``latencies``: seconds from submitting to the fetched file."""

    latencies: list[float] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)  # job → seed
    pictures: dict[str, str] = field(default_factory=dict)  # job → picture
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Client(threading.Thread):
    def __init__(
        self, address: str, seeds: itertools.count[int], until: float, side: int, record: Record
    ) -> None:
        super().__init__(daemon=True)
        self.host, self.seeds, self.until, self.side, self.record = (
            urlsplit(address).netloc,
            seeds,
            until,
            side,
            record,
        )

    def run(self) -> None:
        while time.monotonic() < self.until:
            try:
                self._one()
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.record.faults.append(f"{type(error).__name__}: {error}")
                time.sleep(0.5)

    def _one(self) -> None:
        began, seed = time.monotonic(), next(self.seeds)
        fields = {
            "prompt": PROMPTS[seed % len(PROMPTS)],
            "seed": seed,
            "width": self.side,
            "height": self.side,
        }
        status, body = self._ask("POST", "/api/jobs", json.dumps(fields).encode())
        self.record.statuses[status] += 1
        if status != 201:
            time.sleep(1)
            return
        job = json.loads(body)["id"]
        self.record.seeds[job] = seed
        ended = self._listen(job)
        if ended["state"] != "done":
            self.record.faults.append(f"{job}: {ended['state']} {ended['error']}")
            return
        (painted,) = ended["painted"]
        status, file = self._ask("GET", f"/api/pictures/{painted['picture']}/file")
        self.record.statuses[status] += 1
        if not file.startswith(b"\x89PNG"):
            self.record.faults.append(f"{job}: no PNG, {status}")
        self.record.pictures[job] = painted["picture"]
        self.record.latencies.append(time.monotonic() - began)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        with contextlib.closing(http.client.HTTPConnection(self.host, timeout=120)) as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _listen(self, job: str) -> dict[str, Any]:
        """The job when it has ended; connects again as a browser's EventSource does."""
        while True:
            with contextlib.closing(http.client.HTTPConnection(self.host, timeout=600)) as connection:
                connection.request("GET", f"/api/jobs/{job}/events")
                name = ""
                for line in connection.getresponse():
                    if line.startswith(b"event: "):
                        name = line[7:].decode().strip()
                    elif line.startswith(b"data: ") and name == "ended":
                        return json.loads(line[6:])


class Service:
    """`starry serve` over ``home`` with ``options``, and the memory of it and of its workers over time."""

    def __init__(self, home: Path, *options: str) -> None:
        starry = Path(sys.executable).with_name("starry")
        environment = {**os.environ, "STARRY_HOME": str(home)}
        self.log = (home / "log").open("wb")
        self.process = subprocess.Popen(
            [starry, "serve", "--no-pages", "--port", "0", *options], env=environment, stdout=subprocess.PIPE,
            stderr=self.log, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().removeprefix("✦ ").strip()
        self.memory: list[tuple[float, float, float]] = []  # seconds, MB of the server, MB of its workers
        self.cpu: dict[int, float] = {}  # process → seconds of CPU time when it was looked at last
        self._began, self._closing = time.monotonic(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def workers(self) -> list[psutil.Process]:
        found = []
        for one in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "starrynight.jobs.worker" in one.cmdline():
                    found.append(one)
        return found

    def kill_worker(self) -> str:
        """Kill a worker, and its Ray actor first; returns what was killed."""
        worker = self.workers[0]
        actor = worker.parent()
        replica = actor is not None and actor.name().startswith("ray::")
        if actor is not None and replica:
            actor.kill()
        worker.kill()
        return "a replica with its worker" if replica else "a worker"

    def _watch(self) -> None:
        while not self._closing.wait(EACH):
            with contextlib.suppress(psutil.Error):
                watched = [psutil.Process(self.process.pid), *self.workers]
                self.cpu |= {one.pid: sum(one.cpu_times()[:2]) for one in watched}
                held = [one.memory_info().rss / 1e6 for one in watched]
                self.memory.append((time.monotonic() - self._began, held[0], sum(held[1:])))

    def close(self) -> None:
        self._closing.set()
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


def check(home: Path, record: Record) -> list[str]:
    """What is lost or doubled."""
    from starrynight.gallery.store import Gallery
    from starrynight.jobs.queue import Queue

    wrong = list(record.faults)
    with Gallery(home / "gallery") as gallery:
        counts = Queue(gallery).counts()
        files = [
            path for path in (home / "gallery" / "pictures").rglob("*.png") if not path.name.startswith(".")
        ]
        seeds = {}
        for job, picture in record.pictures.items():
            seeds[job] = gallery.get(picture).seed
        wrong += [
            f"{job}: seed {seeds[job]}, not {record.seeds[job]}"
            for job in seeds
            if seeds[job] != record.seeds[job]
        ]
        if doubled := len(record.pictures) - len(set(record.pictures.values())):
            wrong.append(f"{doubled} jobs have another's picture")
        if not gallery.count() == len(files) == counts.get("done", 0) == len(record.seeds):
            wrong.append(f"{gallery.count()} rows, {len(files)} files, {len(record.seeds)} jobs: {counts}")
    return wrong


def report(service: Service, record: Record, seconds: float) -> None:
    times = sorted(record.latencies)
    print(f"pictures {len(times)}, {len(times) / seconds:.2f} a second; statuses {dict(record.statuses)}")
    if times:
        print(
            f"from submitting to the file: p50 {statistics.median(times):.1f} s, p99 {times[int(len(times) * 0.99)]:.1f} s"
        )
    server = service.cpu.get(service.process.pid, 0.0)
    workers, count = sum(service.cpu.values()) - server, max(1, len(times))
    print(
        f"CPU seconds a picture: server {server / count:.3f}, workers {workers / count:.3f}, their loading included"
    )
    for name, column in (("server", 1), ("workers", 2)):
        quarter = max(1, len(service.memory) // 4)
        values = [row[column] for row in service.memory]
        parts = [
            statistics.median(values[start : start + quarter]) for start in range(0, 4 * quarter, quarter)
        ]
        print(
            f"memory of the {name}, MB, median of each quarter: {' '.join(f'{part:.0f}' for part in parts)}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--serve", default="", help="options of starry serve, in one string")
    asked = parser.parse_args()
    print(
        f"starry serve {asked.serve}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {asked.clients} clients, {asked.seconds:.0f} s, {asked.side}²"
    )
    with tempfile.TemporaryDirectory() as folder:
        home, record = Path(folder), Record()
        service = Service(home, *shlex.split(asked.serve))
        try:
            began, seeds = time.monotonic(), itertools.count(1)
            clients = [
                Client(service.address, seeds, began + asked.seconds, asked.side, record)
                for _ in range(asked.clients)
            ]
            for client in clients:
                client.start()
            if not asked.no_kill:
                time.sleep(asked.seconds / 2)
                if service.workers:
                    at, painted = time.monotonic() - began, len(record.latencies)
                    print(f"killed {service.kill_worker()} after {at:.0f} s, {painted} pictures")
            for client in clients:
                client.join(600)
            seconds = time.monotonic() - began
        finally:
            service.close()
        report(service, record, seconds)
        wrong = check(home, record)
        print("\n".join(wrong[:20]) or "no picture lost, none doubled")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
