"""An attack on a real server: load, hostile uploads, slow connections, kills, faults of disk, database and clock.

    python benchmarks/attack.py [--seconds 60] [--kills 50] [--only uploads,kills]

Starts `starry open` over temporary galleries, on loopback only, and attacks it from other processes; all phases are bounded in
time and number (about 12 minutes). /api/health is asked every 50 ms by a process of its own throughout. Prints a row for each
figure with its limit, and exits with 1 if one is missed. Pictures are Firefly's at 128×128, 4 steps.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import socket
import sqlite3
import statistics
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from attackers import SIZE, Client, hammer, watch
from attacks.pictures import chunk, itxt, png
from served import Server, ask, until

from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue

MEGABYTE = 1 << 20
SPAWN = multiprocessing.get_context("spawn")
rows: list[tuple[str, str, str, bool]] = []


def report(what: str, figure: object, limit: str = "", holds: bool = True) -> None:
    rows.append((what, str(figure), limit, holds))
    print(f"{'  ' if holds else '! '}{what:<58} {figure!s:>12}  {limit}", flush=True)


@contextlib.contextmanager
def healthy(server: Server, phase: str, all_times: list[float]) -> Iterator[None]:
    started, stop, results = SPAWN.Event(), SPAWN.Event(), SPAWN.Queue()
    process = SPAWN.Process(target=watch, args=(port_of(server), started, stop, results))
    process.start()
    started.wait(60)
    try:
        yield
    finally:
        stop.set()
        times, statuses = results.get(timeout=90)
        process.join()
    all_times += times
    p99 = percentile(times, 0.99) * 1000
    report(
        f"{phase}: health p99, ms (of {len(times)}; median {statistics.median(times) * 1000:.0f})",
        f"{p99:.0f}",
        "< 200",
        p99 < 200,
    )
    report(
        f"{phase}: health answers other than 200",
        sum(statuses.values()) - statuses.get(200, 0),
        "0",
        set(statuses) == {200},
    )


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def port_of(server: Server) -> int:
    return int(server.address.rstrip("/").rsplit(":", 1)[1])


def attack(server: Server, kind: str, clients: int, seconds: float, ids: list[str]) -> Counter[int]:
    results = SPAWN.Queue()
    process = SPAWN.Process(target=hammer, args=(port_of(server), kind, clients, seconds, ids, results))
    process.start()
    found = Counter(results.get(timeout=seconds + 180))
    process.join()
    return found


def report_statuses(what: str, found: Counter[int], refusals: set[int], seconds: float) -> None:
    bad = sum(
        number
        for status, number in found.items()
        if (status >= 500 and status not in refusals) or status == 0
    )
    report(f"{what}: answers a second", f"{sum(found.values()) / seconds:.0f}")
    report(f"{what}: {dict(sorted(found.items()))}: 5xx but 503, lost", bad, "0", bad == 0)


# Phases


def keep_alive(server: Server, options: argparse.Namespace, times: list[float]) -> None:
    client = Client(port_of(server))
    found = [client.send("GET", "/api/jobs")[1] for _ in range(500)][50:]
    median = statistics.median(found) * 1000
    report("an answer on a kept-alive connection, median, ms", f"{median:.2f}", "< 2", median < 2)


def load(server: Server, options: argparse.Namespace, times: list[float]) -> None:
    server.until(server.submit("星夜", count=8, **SIZE), lambda job: job["state"] == "done")
    ids = [row["id"] for row in server.ask("/api/pictures").json["pictures"]]
    for kind in ("read", "submit"):
        with healthy(server, f"200 clients that {kind}", times):
            found = attack(server, kind, 200, options.seconds, ids)
        report_statuses(f"200 clients that {kind}", found, {503}, options.seconds)
    cancel_all(server)


def slow(server: Server, options: argparse.Namespace, times: list[float]) -> None:
    parts = (
        b"",
        b"GET / HTTP/1.1\r\nX:",
        b"POST /api/uploads HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999\r\n\r\nx",
    )
    with healthy(server, "500 slow connections", times):
        held = []
        for number in range(500):
            held.append(socket.create_connection(("127.0.0.1", port_of(server)), timeout=60))
            held[-1].sendall(parts[number % 3])
        answered = sum(server.ask("/api/pictures").status == 200 for _ in range(100))
        time.sleep(35.0)  # longer than a head or a body may take
        found = psutil.Process(server.process.pid).net_connections("tcp")
        left = sum(one.status == psutil.CONN_ESTABLISHED for one in found)
        for one in held:
            one.close()
    report("500 slow connections: others answered, of 100", answered, "100", answered == 100)
    report("500 slow connections: still open afterwards", left, "< 20", left < 20)


def hostile() -> list[bytes]:
    """Small files that declare much."""

    def zeros(width: int, height: int, rows: int | None = None) -> bytes:
        packer, row = zlib.compressobj(9), b"\0" * (width * 3 + 1)
        pixels = (
            b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
        )
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

    return [zeros(6200, 6200), zeros(8900, 8900), zeros(1, 79_000_000, 0), zeros(16_384, 2400), zeros(6000, 6000, 3000),
            png(width=60_000, height=60_000), png(itxt("a", b"x" * (30 * MEGABYTE), packed=True)), b"GIF89a" + bytes(100),
            b"\xff\xd8\xff\xe0" + os.urandom(5000), os.urandom(200_000)]  # fmt: skip


def uploads(server: Server, options: argparse.Namespace, times: list[float]) -> None:
    process, files, found = psutil.Process(server.process.pid), hostile(), Counter[int]()
    before, peak, done = process.memory_info().rss, [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    def send(number: int) -> None:
        client = Client(port_of(server))
        for at in range(number, 100, 12):
            found[client.send("POST", "/api/uploads", files[at % len(files)], "image/png")[0]] += 1

    with healthy(server, "100 hostile uploads, 12 at once", times):
        threads = [threading.Thread(target=send, args=(number,)) for number in range(12)]
        threading.Thread(target=sample, daemon=True).start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(5.0)
    done.set()
    after = process.memory_info().rss
    report(
        f"uploads: {dict(sorted(found.items()))}: 5xx but 503, lost",
        found[0] + found[500] + found[507],
        "0",
        not found[0] + found[500] + found[507],
    )
    report("uploads: memory at most, above before, MB", (peak[0] - before) // MEGABYTE)
    report(
        "uploads: memory 5 s afterwards, above before, MB",
        (after - before) // MEGABYTE,
        "< 200",
        after - before < 200 * MEGABYTE,
    )


def cancel_all(server: Server) -> None:
    with Gallery(server.home / "gallery") as gallery:
        queue = Queue(gallery)
        while waiting := queue.list(limit=500):
            for job in waiting:
                queue.cancel(job.id)
            time.sleep(0.1)


def locked(server: Server, options: argparse.Namespace, times: list[float]) -> None:
    other = sqlite3.connect(server.home / "gallery" / "gallery.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with healthy(server, "database locked", times):
        found = attack(server, "submit", 50, 12.0, [])
        kinds = {problem["kind"] for problem in server.ask("/api/health").json["problems"]}
        reads = server.ask("/api/pictures").status
    other.execute("ROLLBACK")
    other.close()
    report_statuses("database locked, 50 clients that submit", found, {503}, 12.0)
    report("database locked: health says", ",".join(kinds), "locked", "locked" in kinds)
    report("database locked: a reader gets", reads, "200", reads == 200)
    job = server.submit("after the lock", **SIZE)
    server.until(job, lambda found: found["state"] == "done")


def full_disk(server: Server, options: argparse.Namespace, times: list[float]) -> None:
    """No process may make a file longer than 4 KB: what a full disk does to writes. Then there is room again."""
    server.until(server.submit("before", **SIZE), lambda found: found["state"] == "done")
    worker = server.worker
    assert worker is not None
    processes = [server.process.pid, worker.pid]
    job = server.submit("the disk is full", count=4, **SIZE)
    server.until(job, lambda found: found["step"])
    limit_files(processes, 4096)
    with healthy(server, "disk full", times):
        refused = [server.ask("/api/jobs", {"prompt": "x", **SIZE}).status for _ in range(20)]
        time.sleep(5.0)
        reads = server.ask("/api/pictures").status
    limit_files(processes, resource.RLIM_INFINITY)
    ended = server.until(job, lambda found: found["state"] in ("failed", "done"))
    for _ in range(3):
        if ended["state"] != "done":
            server.ask(f"/api/jobs/{job}/retry", {})
            ended = server.until(job, lambda found: found["state"] in ("failed", "done"))
    report("disk full: submitting gives", sorted(set(refused)), "507 or 503", set(refused) <= {507, 503})
    report("disk full: a reader gets", reads, "200", reads == 200)
    saved = {one["picture"] for one in ended["painted"]}
    report(
        "disk full: pictures lost after retry, of 4", 4 - len(saved - {None}), "0", len(saved - {None}) == 4
    )


def limit_files(processes: list[int], size: int) -> None:
    for process in processes:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def descriptors(options: argparse.Namespace, times: list[float]) -> None:
    with tempfile.TemporaryDirectory() as home, opened(Path(home), descriptors=256) as server:
        with healthy(server, "256 descriptors, 300 connections", times):
            held = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(300)]
            answered = sum(server.ask("/api/pictures").status == 200 for _ in range(100))
            for one in held:
                one.close()
        size = (Path(home) / "server.log").stat().st_size
    report("256 descriptors: others answered, of 100", answered, "100", answered == 100)
    report("256 descriptors: log, KB", size // 1024, "< 64", size < 65_536)


# Kills and clocks: every job is painted once, whatever dies


STATES = ("starting", "loading", "painting", "decoding", "saved", "server", "both")


def kills(options: argparse.Namespace, times: list[float]) -> None:
    aside = 0
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        server, jobs, chance = Server(home), [], random.Random(1)
        for number in range(options.kills):
            jobs.append(server.submit(f"killed {number}", count=2, seed=10 * number, **SIZE))
            server = kill(server, STATES[number % len(STATES)], jobs, chance)
        while left := [job for job in jobs if server.job(job)["state"] not in ("done",)]:
            for job in left:
                if server.job(job)["state"] in ("set_aside", "failed"):
                    aside += 1
                    server.ask(f"/api/jobs/{job}/retry", {})
            time.sleep(0.2)
        check_pictures(server, f"{options.kills} kills", jobs, 2)
        server.close()
    report(f"{options.kills} kills: jobs set aside (two deaths while painted), then retried", aside)


def kill(server: Server, state: str, jobs: list[str], chance: random.Random) -> Server:
    """Kill the worker, the server or both in a state of the work; returns the server that serves then."""
    worker = until(lambda: server.worker)
    if state in ("loading", "server", "both"):
        time.sleep(chance.uniform(0.0, 3.0))
    elif state != "starting":
        wanted = {"painting": lambda one: one["step"], "decoding": lambda one: one["step"] == SIZE["steps"],
                  "saved": lambda one: one["painted"]}[state]  # fmt: skip
        with contextlib.suppress(AssertionError):
            until(lambda: any(wanted(one) for one in server.ask("/api/jobs?state=all&limit=500").json["jobs"]
                              if one["state"] in ("painting", "done") and one["id"] == current(server, jobs)), 30.0)  # fmt: skip
    if state == "both":
        server.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    elif state == "server":
        server.kill()
    else:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
        return server
    return Server(server.home)


def current(server: Server, jobs: list[str]) -> str:
    """The job that is painted, or else the last."""
    painting = server.ask("/api/jobs?state=painting").json["jobs"]
    return painting[0]["id"] if painting else jobs[-1]


def check_pictures(server: Server, what: str, jobs: list[str], count: int) -> None:
    named = [one["picture"] for job in jobs for one in server.job(job)["painted"]]
    with Gallery(server.home / "gallery") as gallery:
        there = {row.id for row in gallery.iter_rows()}
        whole = gallery.verify()
    lost = len(jobs) * count - len(set(named) & there) + len(whole.missing) + len(whole.corrupt)
    report(f"{what}: pictures lost, of {len(jobs) * count}", lost, "0", lost == 0)
    doubled = len(named) - len(set(named)) + len(there - set(named))
    report(f"{what}: pictures doubled", doubled, "0", doubled == 0)
    report(f"{what}: files without a row", len(whole.orphans), "0", not whole.orphans)


# Read by every Python that starts with this folder on its path: its clocks are set by a file.
CLOCK = """
import os, time
_time, _monotonic = time.time, time.monotonic
def _offset(name):
    try:
        return float(open(os.environ["ATTACK_CLOCKS"] + "/" + name).read())
    except (OSError, ValueError):
        return 0.0
_boot = _offset("boot")
time.time = lambda: _time() + _offset("date")
time.monotonic = lambda: _monotonic() + _boot
"""


def clocks(options: argparse.Namespace, times: list[float]) -> None:
    """Set the date by ±8 h while a job is painted; kill both and start them on another date and as after a boot."""
    for hours in (-8, 8):
        for at_rest in (False, True):
            with tempfile.TemporaryDirectory() as place:
                set_clock(Path(place), hours, at_rest)


def set_clock(home: Path, hours: int, at_rest: bool) -> None:
    (home / "sitecustomize.py").write_text(CLOCK)
    path = os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")])
    variables = {"ATTACK_CLOCKS": str(home), "PYTHONPATH": path}
    server = Server(home, **variables)
    jobs = [server.submit(f"clock {n}", count=2, seed=10 * n, **SIZE) for n in range(3)]
    server.until(jobs[0], lambda found: found["step"])
    if at_rest:
        worker = server.worker
        server.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    (home / "date").write_text(str(hours * 3600))
    if at_rest:
        (home / "boot").write_text(str(-3600.0 if hours < 0 else 5e6))
        server = Server(home, **variables)
    began = time.monotonic()
    for job in jobs:
        server.until(job, lambda found: found["state"] == "done")
    took = time.monotonic() - began
    what = f"clock {hours:+d} h, {'at rest' if at_rest else 'while painting'}"
    report(f"{what}: seconds until all is painted", f"{took:.0f}", "< 60", took < 60)
    check_pictures(server, what, jobs, 2)
    server.close()


@contextlib.contextmanager
def opened(home: Path, **more: Any) -> Iterator[Server]:
    server = Server(home, **more)
    try:
        yield server
    finally:
        server.close()


ONE_SERVER: dict[str, Callable[[Server, argparse.Namespace, list[float]], None]] = {
    "keep_alive": keep_alive, "load": load, "slow": slow, "uploads": uploads, "locked": locked, "full_disk": full_disk,
}  # fmt: skip
OWN_SERVER: dict[str, Callable[[argparse.Namespace, list[float]], None]] = {
    "descriptors": descriptors, "kills": kills, "clocks": clocks,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", default=",".join([*ONE_SERVER, *OWN_SERVER]), help="phases, with commas")
    options = parser.parse_args()
    chosen, times = options.only.split(","), list[float]()
    load_before = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load_before:.1f} before, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as home, opened(Path(home)) as server:
        if set(chosen) & set(ONE_SERVER):
            until(lambda: ask(server.address, "/api/health").json["worker"] == "alive")
            server.until(server.submit("first", **SIZE), lambda job: job["state"] == "done")
        for name, phase in ONE_SERVER.items():
            if name in chosen:
                phase(server, options, times)
    for name, own in OWN_SERVER.items():
        if name in chosen:
            own(options, times)
    if times:
        p99 = percentile(times, 0.99) * 1000
        report(f"health p99 throughout, ms (of {len(times)})", f"{p99:.0f}", "< 200", p99 < 200)
    missed = [what for what, _, _, holds in rows if not holds]
    print(
        f"{len(missed)} of {len([row for row in rows if row[2]])} figures missed{': ' if missed else ''}{'; '.join(missed)}"
    )
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
