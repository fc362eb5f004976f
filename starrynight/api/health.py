"""What /api/health, /metrics and the probes answer: a probe of database, disk, queue and worker outside the pools of threads.

A probe runs in a thread of its own, one at a time for all callers. If it does not end at once (a disk that hangs, a
lock), the answer is what the probe before it found, and says so.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from starrynight import __version__
from starrynight.errors import StarryError
from starrynight.gallery.database import BrokenDatabase, ReadOnlyDatabase
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.jobs import tallies
from starrynight.jobs.job import ACTIVE
from starrynight.jobs.leases import WorkerMemory, living_workers, worker_memory
from starrynight.jobs.queue import Queue
from starrynight.settings import settings
from starrynight.storage import disk_state

REPEAT, FRESH = 0.25, 2.0  # seconds: what is younger is not asked again, what is older is waited for
ANSWER_WITHIN = 0.1  # seconds
FIRST_WITHIN = 2.0  # seconds for the first probe, before which nothing is known
SLOW = (
    3.0  # seconds that a probe may take before the database counts as not answering; it waits 1 s for a lock
)
DISK_FULL = 64 << 20  # bytes; a picture needs a few MB, the database's log up to 4
STILL_WITHOUT_WORKER, STILL = 60.0, 900.0  # seconds without a change of any job; one step may take minutes

WORKER_ABSENT = 60.0  # seconds; a worker that dies early is started again after 30 at most


class Health:
    def __init__(self, gallery: Gallery, queue: Queue, worker_alive: Callable[[], bool]) -> None:
        self.gallery, self.queue, self.worker_alive = gallery, queue, worker_alive
        self._lock = threading.Lock()
        self._probe: Future[None] | None = None
        self._began = self._ended = time.monotonic()
        self._facts: dict[str, Any] = {"jobs": {}, "pictures": 0}
        self._problems: list[tuple[str, Text]] = []
        self._queue_state: tuple[object, float] = (None, time.monotonic())
        self._absent_since: float | None = None
        self._known = False
        self.tallies: list[tallies.Tally] = []  # what workers had counted at the last probe
        self.memory: list[WorkerMemory] = []

    async def read(self) -> dict[str, Any]:
        """The JSON object of /api/health; never waits for the database."""
        age = time.monotonic() - self._ended if self._known else math.inf
        probe = self._start() if age > REPEAT else self._probe
        if age > FRESH and probe is not None:
            wait = ANSWER_WITHIN if self._known else FIRST_WITHIN
            await asyncio.wait({asyncio.wrap_future(probe)}, timeout=wait)
        problems = list(self._problems)
        absent = any(kind == "worker" for kind, _ in problems) or not self.gallery.database.writable
        running = time.monotonic() - self._began if probe is not None and not probe.done() else 0.0
        if running > SLOW:
            problems.append(("database", _NO_ANSWER))
        return {
            "status": "degraded" if problems else "ok",
            "version": __version__,
            "worker": "absent" if absent else "alive" if self.worker_alive() else "starting",
            **self._facts,
            "problems": [{"kind": kind, "en": text.en, "zh": text.zh} for kind, text in problems],
            "seconds_old": round(time.monotonic() - self._ended, 1),
            "gallery": self.gallery.identity,
        }

    async def ready(self) -> tuple[bool, list[str]]:
        """Whether a job that is submitted now is stored and painted, and the kinds of the problems that prevent it."""
        found = await self.read()
        kinds = [problem["kind"] for problem in found["problems"]]
        if found["worker"] != "alive" and "worker" not in kinds:
            kinds.append("worker")
        return not kinds, kinds

    def _start(self) -> Future[None]:
        """The probe that runs, or a new one."""
        with self._lock:
            if self._probe is None or self._probe.done():
                self._probe, self._began = Future(), time.monotonic()
                threading.Thread(target=self._run, args=(self._probe,), daemon=True).start()
            return self._probe

    def _run(self, probe: Future[None]) -> None:
        problems: list[tuple[str, Text]] = []
        try:
            jobs, pictures = self.queue.counts(), self.gallery.count()
            self._facts = {"jobs": jobs, "pictures": pictures}
            self.tallies = tallies.read(self.gallery.database)
            self.memory = worker_memory(self.gallery.database)
            if not self.gallery.database.writable:
                problems.append(self._why_not_writable())
            else:
                problems += self._check_queue(jobs) + self._check_worker()
                if self.gallery.database.is_locked():
                    problems.append(("locked", _LOCKED))
        except StarryError as error:
            problems.append(("database", Text(error.en, error.zh)))
        except Exception as error:
            problems.append(("database", Text(f"The database failed: {error}.", f"数据库出错：{error}。")))
        problems += [] if self.gallery.database.read_only else _check_disk()
        self._problems, self._ended, self._known = problems, time.monotonic(), True
        probe.set_result(None)

    def _why_not_writable(self) -> tuple[str, Text]:
        database = self.gallery.database
        error: StarryError
        if database.damaged:
            kind, error = "damaged", BrokenDatabase(str(database.place))
        else:
            kind, error = "read_only", ReadOnlyDatabase(str(database.place))
        return kind, Text(error.en, error.zh)

    def _check_worker(self) -> list[tuple[str, Text]]:
        """Whether no worker has held a lease for long. A worker takes one before it loads anything."""
        if living_workers(self.gallery.database):
            self._absent_since = None
            return []
        now = time.monotonic()
        if self._absent_since is None:
            self._absent_since = now
        return [("worker", _NO_WORKER)] if now - self._absent_since > WORKER_ABSENT else []

    def _check_queue(self, jobs: dict[str, int]) -> list[tuple[str, Text]]:
        """Whether jobs wait or are painted and nothing has changed for long."""
        state, now = (sorted(jobs.items()), self.queue.revisions()), time.monotonic()
        if state != self._queue_state[0] or not any(jobs.get(name) for name in ACTIVE):
            self._queue_state = (state, now)
        still = now - self._queue_state[1]
        if still <= STILL_WITHOUT_WORKER or (still <= STILL and living_workers(self.gallery.database)):
            return []
        return [("queue", Text(
            f"No job has changed for {still:.0f} s although some wait; restart `starry open`, and read its log.",
            f"已有 {still:.0f} 秒没有任何任务变化，而仍有任务在排队；请重启 `starry open`，并查看日志。",
        ))]  # fmt: skip


_LOCKED = Text(
    "Another program holds the database's lock, so nothing can be saved; end that program.",
    "另一个程序占用着数据库的锁，无法保存；请结束该程序。",
)
_NO_WORKER = Text(
    "No worker is running, so nothing is painted; the server's log says why it ends. Restart `starry open`.",
    "没有作画进程在运行，因此不会作画；服务器日志里有它退出的原因。请重启 `starry open`。",
)
_NO_ANSWER = Text(
    "The database or its disk does not answer; check the disk.", "数据库或其磁盘没有响应；请检查磁盘。"
)


def _check_disk() -> list[tuple[str, Text]]:
    try:
        disk = disk_state(settings().home)
    except OSError as error:
        return [("disk", Text(f"The disk cannot be read: {error}.", f"磁盘无法读取：{error}。"))]
    if disk.free >= DISK_FULL:
        return []
    megabytes = disk.free >> 20
    return [("disk", Text(
        f"The disk of {disk.folder} has {megabytes} MB left; free some space.",
        f"{disk.folder} 所在磁盘只剩 {megabytes} MB；请腾出空间。",
    ))]  # fmt: skip
