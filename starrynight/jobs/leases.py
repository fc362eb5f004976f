"""The worker's half of the queue: lease a device, claim, report and end a job, and recover after a death.

A worker may write about a job only while the job's row names it. A worker that was taken for dead (a
suspended machine, a stalled disk) gets ``LostLease`` at its next report and stops. Two workers painting the
same job for a moment do no harm, because the same picture is the same file.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from starrynight.errors import BadRequest, Cancelled, StarryError
from starrynight.gallery.database import Database
from starrynight.gallery.insert import insert_or_ignore
from starrynight.i18n import Text
from starrynight.jobs.job import CANCELLED, DONE, FAILED, PAINTING, SET_ASIDE, WAITING, error_payload
from starrynight.jobs.queue import now_ms, update_job
from starrynight.jobs.schema import LEASE_MS, clock_ms, jobs, lease_runs, painted, previews, workers
from starrynight.painting.batching import Shape, shape
from starrynight.request import PaintRequest

LOOKED_AT = 200  # waiting jobs of a model among which those for a batch are looked for
MAX_LOADING_DEATHS = 5  # before the first step; often a worker that was killed for another reason
MAX_DEATHS = 2  # one death may be an accident; a job that killed two workers would kill the next one too


class LostLease(Exception):
    """Another worker has this job now. Stop painting it and write nothing about it."""


@dataclass(frozen=True)
class ClaimedJob:
    """A job to paint, except the picture indexes in ``finished``."""

    number: int
    id: str
    request: PaintRequest
    finished: frozenset[int]


class WorkerMemory(NamedTuple):
    """``device``: "machine/cpu". Bytes: ``held`` by the worker's process; ``on_card`` in use on its card by any program, None
    without one."""

    device: str
    held: int
    on_card: int | None


class Lease:
    """One worker's lease on ``device`` ("machine/cpu") and on the job it paints there."""

    def __init__(self, database: Database, device: str, worker: str | None = None) -> None:
        self.database, self.device = database, device
        self.worker = worker or secrets.token_hex(8)

    def acquire(self, memory: int | None = None, card_memory: int | None = None) -> bool:
        """Acquire or renew the lease on the device; False while another living worker has it. For /metrics: ``memory``, the
        bytes that this worker's process holds, and ``card_memory``, those in use on its card."""
        with self.database.reading() as connection:
            here = workers.c.device == self.device
            held_by_another = (here, workers.c.worker != self.worker, lease_runs(clock_ms(connection)))
            if connection.execute(select(workers.c.worker).where(*held_by_another)).scalar() is not None:
                return False
        with self.database.writing() as connection:
            now = clock_ms(connection)
            lease = {
                "worker": self.worker,
                "until": now + LEASE_MS,
                "memory": memory,
                "card_memory": card_memory,
            }
            connection.execute(insert_or_ignore(connection, workers).values(device=self.device, **lease))
            free = (workers.c.worker == self.worker) | ~lease_runs(now)
            return connection.execute(update(workers).where(here, free).values(**lease)).rowcount == 1

    def release(self) -> None:
        """Free the device."""
        with self.database.writing() as connection:
            connection.execute(delete(workers).where(workers.c.worker == self.worker))

    def claim(self) -> ClaimedJob | None:
        """Claim the next job; None if none waits. Jobs of dead workers are put back or set aside before."""
        with self.database.reading() as connection:  # an idle worker polls without taking the write lock
            alive = exists().where(workers.c.worker == jobs.c.worker, lease_runs(clock_ms(connection)))
            claimable = (jobs.c.state == WAITING) | ((jobs.c.state == PAINTING) & ~alive)
            if connection.execute(select(jobs.c.number).where(claimable).limit(1)).scalar() is None:
                return None
        with self.database.writing() as connection:
            dead_workers = select(jobs.c.worker).where(jobs.c.state == PAINTING, ~alive).distinct()
            for dead in connection.execute(dead_workers).scalars().all():
                _recover_jobs(connection, dead, Text("its lease ran out", "租约到期，没有响应"))
            waiting = select(jobs).where(jobs.c.state == WAITING).order_by(jobs.c.place).limit(1)
            row = connection.execute(waiting.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            return self._claimed(connection, row)

    def claim_like(self, of: Shape, most: int) -> list[ClaimedJob]:
        """Claim waiting jobs of one ``batching.shape``, in their order, until they have ``most`` pictures or more."""
        found: list[ClaimedJob] = []
        with self.database.writing() as connection:
            alike = select(jobs).where(jobs.c.state == WAITING, jobs.c.model == of[0]).order_by(jobs.c.place)
            rows = connection.execute(alike.limit(LOOKED_AT).with_for_update(skip_locked=True)).all()
            for row in rows:
                if most <= 0:
                    break
                with suppress(BadRequest):
                    if shape(PaintRequest.from_dict(json.loads(row.request))) == of:
                        job = self._claimed(connection, row)
                        assert job is not None
                        found.append(job)
                        most -= job.request.count - len(job.finished)
        return found

    def _claimed(self, connection: Connection, row: Any) -> ClaimedJob | None:
        """The waiting job of ``row``, this worker's from now on; None for one that this version refuses, which then failed."""
        try:
            request = PaintRequest.from_dict(json.loads(row.request))
        except BadRequest as error:  # written by a version that allowed what this one does not
            _end(connection, row.number, FAILED, error_payload(error))
            return None
        update_job(
            connection, row.number, state=PAINTING, worker=self.worker, attempts=row.attempts + 1,
            started_at=row.started_at or now_ms(), picture=None, step=0, steps=None,
        )  # fmt: skip
        done = connection.execute(select(painted.c.nth).where(painted.c.number == row.number)).scalars()
        return ClaimedJob(row.number, row.id, request, frozenset(done))

    def report(self, job: ClaimedJob, image: bytes | None = None, **progress: object) -> None:
        """Store ``picture``, ``step``, ``steps`` or ``pace``, and a preview ``image`` (WebP).

        Raises ``Cancelled`` if the job is to be cancelled, ``LostLease`` if another worker has it.
        """
        with self.database.writing() as connection:
            self._require(connection, job)
            update_job(connection, job.number, **progress)
            if image is not None:
                connection.execute(delete(previews).where(previews.c.number == job.number))
                revision = select(jobs.c.revision).where(jobs.c.number == job.number).scalar_subquery()
                connection.execute(insert(previews).values(number=job.number, revision=revision, image=image))

    def check(self, job: ClaimedJob) -> None:
        """Raise ``Cancelled`` or ``LostLease`` as ``report`` does, without writing."""
        with self.database.reading() as connection:
            self._require(connection, job)

    def finish_picture(self, connection: Connection, job: ClaimedJob, index: int, picture: str) -> None:
        """Record a saved picture in the transaction that saves it, so that a crash keeps both or neither.

        The lease is not checked: the picture is saved, whichever worker has the job now.
        """
        _record_picture(connection, job.number, nth=index, picture=picture)

    def refuse_picture(self, job: ClaimedJob, index: int, error: StarryError) -> None:
        """Record that the guard refused picture ``index``, and why."""
        with self.database.writing() as connection:
            _record_picture(connection, job.number, nth=index, error=error_payload(error))

    def end(self, job: ClaimedJob, error: StarryError | None = None) -> None:
        """End a job: cancelled or failed by ``error``; else done, or failed if every picture was refused.

        Saved pictures stay. Does nothing if another worker has the job.
        """
        with self.database.writing() as connection:
            if self._cancelling(connection, job) is None:
                return
            if error is None:
                _end(connection, job.number, *_outcome(connection, job))
            else:
                state = CANCELLED if isinstance(error, Cancelled) else FAILED
                _end(connection, job.number, state, error_payload(error))

    def requeue(self, job: ClaimedJob) -> None:
        """Put a job back because this worker was asked to stop; it does not count as a death."""
        with self.database.writing() as connection:
            if self._cancelling(connection, job) is not None:
                _requeue(connection, job.number)

    def _cancelling(self, connection: Connection, job: ClaimedJob) -> bool | None:
        """Whether the job is to be cancelled; None if this worker does not have it any more."""
        ours = (jobs.c.number == job.number, jobs.c.worker == self.worker, jobs.c.state == PAINTING)
        return connection.execute(select(jobs.c.cancelling).where(*ours)).scalar()

    def _require(self, connection: Connection, job: ClaimedJob) -> None:
        cancelling = self._cancelling(connection, job)
        if cancelling is None:
            raise LostLease
        if cancelling:
            raise Cancelled


def living_workers(database: Database) -> int:
    """How many workers hold a lease that runs."""
    with database.reading() as connection:
        count = select(func.count()).select_from(workers).where(lease_runs(clock_ms(connection)))
        return connection.execute(count).scalar_one()


def worker_memory(database: Database) -> list[WorkerMemory]:
    """Of each living worker, when it renewed its lease last."""
    with database.reading() as connection:
        columns = (workers.c.device, workers.c.memory, workers.c.card_memory)
        known = select(*columns).where(lease_runs(clock_ms(connection)), workers.c.memory.is_not(None))
        return [WorkerMemory(*row) for row in connection.execute(known.order_by(workers.c.device))]


def _record_picture(connection: Connection, number: int, **values: object) -> None:
    connection.execute(insert_or_ignore(connection, painted).values(number=number, **values))
    update_job(connection, number)


def record_death(database: Database, worker: str, cause: Text) -> None:
    """Free the device of a worker that died of ``cause``, and put its job back or set it aside."""
    with database.writing() as connection:
        connection.execute(delete(workers).where(workers.c.worker == worker))
        _recover_jobs(connection, worker, cause)


def release_worker(database: Database, worker: str) -> None:
    """Free the device of a worker that was ended on purpose, and put its job back; this is no death."""
    with database.writing() as connection:
        connection.execute(delete(workers).where(workers.c.worker == worker))
        its_jobs = select(jobs.c.number).where(jobs.c.worker == worker, jobs.c.state == PAINTING)
        for number in connection.execute(its_jobs).scalars().all():
            _requeue(connection, number)


def _requeue(connection: Connection, number: int, **more: object) -> None:
    """Back to waiting, with its ``place`` unchanged: it is painted before the jobs submitted after it."""
    update_job(connection, number, state=WAITING, worker=None, picture=None, step=None, steps=None, **more)
    connection.execute(delete(previews).where(previews.c.number == number))


def _recover_jobs(connection: Connection, worker: str, cause: Text) -> None:
    """Cancel, put back or set aside what a dead worker was painting."""
    its_jobs = select(jobs).where(jobs.c.worker == worker, jobs.c.state == PAINTING)
    # On Postgres two processes may find the same dead worker; with the row lock only one counts the death.
    for row in connection.execute(its_jobs.with_for_update()).all():
        loading = row.picture is None  # no step of this claim was taken
        counts = {"deaths": row.deaths + (not loading), "loading_deaths": row.loading_deaths + loading}
        if row.cancelling:
            _end(connection, row.number, CANCELLED, error_payload(Cancelled()))
        elif counts["deaths"] < MAX_DEATHS and counts["loading_deaths"] < MAX_LOADING_DEATHS:
            _requeue(connection, row.number, **counts)
        else:
            update_job(connection, row.number, **counts)
            _end(connection, row.number, SET_ASIDE, error_payload(_set_aside(sum(counts.values()), cause)))


def _outcome(connection: Connection, job: ClaimedJob) -> tuple[str, str | None]:
    """State and error payload of a job all of whose pictures are finished."""
    errors = select(painted.c.error).where(painted.c.number == job.number, painted.c.error.is_not(None))
    refused = connection.execute(errors.order_by(painted.c.nth)).scalars().all()
    if not refused:
        return DONE, None
    count, saved = job.request.count, job.request.count - len(refused)
    if saved == 0:
        return FAILED, refused[0]
    partial = StarryError(
        f"{saved} of {count} pictures were painted; each of the others has its own error.",
        f"{count} 幅中画成 {saved} 幅；其余各幅都注明了原因。",
    )
    return DONE, error_payload(partial)


def _set_aside(deaths: int, cause: Text) -> StarryError:
    return StarryError(
        f"This job was set aside: {deaths} workers died while painting it; the last one: {cause.en}. "
        "Try a smaller size or another model, then retry it.",
        f"这个任务已搁置：{deaths} 个工作进程在画它时中断；最后一次：{cause.zh}。"
        "请换小一些的尺寸或别的模型，再重试。",
    )


def _end(connection: Connection, number: int, state: str, error: str | None) -> None:
    update_job(
        connection, number, state=state, worker=None, ended_at=now_ms(), error=error, picture=None, step=None,
        cancelling=False,
    )  # fmt: skip
    connection.execute(delete(previews).where(previews.c.number == number))
