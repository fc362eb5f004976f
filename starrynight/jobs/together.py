"""``Batch``: several jobs of one shape painted together, where the worker has measured that this is faster.

Progress, previews, cancelling and errors stay each job's own. Whatever a batch cannot do (a number that breaks, too little
memory, weighted words) is painted picture by picture instead, as without batches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starrynight.errors import Cancelled, StarryError
from starrynight.jobs.leases import ClaimedJob, LostLease
from starrynight.painting.batching import Paces, Shape

if TYPE_CHECKING:
    from starrynight.painting.results import Step
    from starrynight.picture import Picture

log = logging.getLogger("starrynight.worker")

Unit = tuple[ClaimedJob, int]  # a job and one of its pictures


class Batch:
    """Jobs of shape ``of``, ``size`` pictures of theirs at a time, painted by a ``worker.Worker``."""

    def __init__(self, worker: Any, jobs: Sequence[ClaimedJob], of: Shape, size: int, paces: Paces) -> None:
        self.worker, self.of, self.size, self.paces = worker, of, size, paces
        self.jobs = {job.number: job for job in jobs}  # those that have not ended
        self.reporters: dict[int, Any] = {}  # ``worker.StepReporter`` by job

    def paint(self) -> None:
        """Paint all pictures and end each job. What is raised ends the jobs that have not ended: see ``Worker.paint``."""
        for job in list(self.jobs.values()):
            self._guarded(job, partial(self._report, job))
        units = [unit for job in self.jobs.values() for unit in _units(job)]
        while units:
            chunk, units = units[: self.size], units[self.size :]
            chunk = [unit for unit in chunk if unit[0].number in self.jobs]
            pictures = self._painted(chunk) if len(chunk) > 1 else None
            if pictures is None and chunk:
                break
            self._save(chunk, pictures or [])
        for job in list(self.jobs.values()):
            if any(_units(job)):
                del self.jobs[job.number]
                self.worker.paint_alone(job)
            else:
                self._end(job)

    def _painted(self, chunk: Sequence[Unit]) -> list[Picture] | None:
        """The pictures of ``chunk``; None where they must be painted alone."""
        studio, clock = self.worker.studio(), self.worker.clock()
        studio.ready(chunk[0][0].request)
        began = clock()
        try:
            pictures = studio.paint_together(
                [(job.request, index) for job, index in chunk], partial(self._step, chunk)
            )
        except Cancelled:  # every job of the chunk ended meanwhile
            return []
        if pictures is None:
            self.paces.never(self.of, self.size)
        elif len(chunk) == self.size and all(job.number in self.jobs for job, _ in chunk):
            self.paces.note(self.of, self.size, (clock() - began) / self.size)
        return pictures

    def _step(self, chunk: Sequence[Unit], place: int, step: Step) -> None:
        job = chunk[place][0]
        if job.number in self.jobs:
            self._guarded(job, partial(self.reporters[job.number], step))
        if not any(job.number in self.jobs for job, _ in chunk):
            raise Cancelled

    def _save(self, chunk: Sequence[Unit], pictures: Sequence[Picture]) -> None:
        for (job, index), picture in zip(chunk, pictures, strict=False):
            if (now := self.jobs.get(job.number)) is not None:
                self._guarded(now, partial(self._save_one, now, index, picture, len(pictures)))

    def _save_one(self, job: ClaimedJob, index: int, picture: Picture, together: int) -> None:
        outcome = self.worker.save_for(job, picture)
        self.reporters[job.number].picture_finished(outcome, together)
        self.jobs[job.number] = replace(job, finished=job.finished | {index})

    def _report(self, job: ClaimedJob) -> None:
        self.reporters[job.number] = self.worker.reporter(job)

    def _guarded(self, job: ClaimedJob, call: Callable[[], object]) -> None:
        """What ends one job does not end the others."""
        try:
            call()
        except LostLease:
            self.jobs.pop(job.number, None)
        except StarryError as error:
            self._end(job, error)

    def _end(self, job: ClaimedJob, error: StarryError | None = None) -> None:
        self.jobs.pop(job.number, None)
        self.worker.end(job, error)


def _units(job: ClaimedJob) -> list[Unit]:
    return [(job, index) for index in range(job.request.count) if index not in job.finished]


def clock_of(device: str) -> Callable[[], float]:
    """What a batch is timed by: on a CPU this process's own time, because other programs take the rest."""
    return time.process_time if device.startswith("cpu") else time.monotonic
