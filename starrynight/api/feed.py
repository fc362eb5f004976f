"""``JobFeed``: one poller of the database that feeds all event streams of a server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from starrynight.api.pools import POLLER
from starrynight.errors import Busy, StarryError
from starrynight.jobs.job import PAINTING, Job
from starrynight.jobs.queue import JobPreview, Queue

POLL_INTERVAL = 0.1  # seconds between two reads of the revisions of all watched jobs
FIRST_INTERVAL = (
    0.03  # the same while one of them has not taken its first step, whose preview somebody waits for
)
MAX_STREAMS = 256
LONGEST = 3600.0  # seconds of one stream; a browser's EventSource connects again
KEEPALIVE = 15.0  # seconds without a change after which None is yielded

log = logging.getLogger("starrynight.api")
Snapshot = tuple[Job, JobPreview | None]


class JobFeed:
    """Of one event loop. ``polls``: how often the database was read."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.streams, self.polls = queue, 0, 0
        self._watched: dict[str, list[asyncio.Queue[Snapshot | None]]] = {}
        self._newest: dict[str, Snapshot] = {}
        self._poller: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raise ``Busy`` if there are as many streams as there may be."""
        if self.streams >= MAX_STREAMS:
            raise Busy(
                f"{MAX_STREAMS} event streams are open already; close some, or ask for the job itself.",
                f"已有 {MAX_STREAMS} 个事件流；请关闭一些，或直接查询任务。",
            )

    async def changes(self, job: str) -> AsyncGenerator[Snapshot | None, None]:
        """The job now and after each change, until it is deleted; None after ``KEEPALIVE`` seconds without one."""
        inbox: asyncio.Queue[Snapshot | None] = asyncio.Queue()
        if newest := self._newest.get(job):
            inbox.put_nowait(newest)
        self._watched.setdefault(job, []).append(inbox)
        self.streams += 1
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            deadline = asyncio.get_running_loop().time() + LONGEST
            while asyncio.get_running_loop().time() < deadline:
                found: Snapshot | None = None
                with contextlib.suppress(TimeoutError):
                    found = await asyncio.wait_for(inbox.get(), KEEPALIVE)
                    if found is None:
                        return
                while not inbox.empty():  # a slow reader gets the newest only
                    found = inbox.get_nowait() or found
                yield found
        finally:
            self.streams -= 1
            self._watched[job].remove(inbox)
            if not self._watched[job]:
                del self._watched[job]
                self._newest.pop(job, None)

    async def _poll(self) -> None:
        while self._watched:
            seen = {
                job: self._newest[job][0].revision if job in self._newest else -1 for job in self._watched
            }
            try:
                found = await POLLER.run(self.queue.changed, seen)
            except StarryError as error:
                log.warning("%s", error)
                found = {}
            self.polls += 1
            for job, snapshot in found.items():
                if snapshot is not None and job in self._watched:
                    self._newest[job] = snapshot
                for inbox in self._watched.get(job, ()):
                    inbox.put_nowait(snapshot)
            first = any(job.state == PAINTING and not job.step for job, _ in self._newest.values())
            await asyncio.sleep(FIRST_INTERVAL if first else POLL_INTERVAL)
