"""The worker's half of the queue: holding a device, taking a job, reporting on it, ending it; and burying the dead.

A worker's word counts only while it holds a job: whoever lost its lease (a machine that slept, a disk that hung) learns
it at its next report and lets go. Painting twice would do no harm, for the same picture is the same file.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, exists, insert, select, update

from starrynight.errors import BadRequest, Cancelled, StarryError
from starrynight.gallery.database import Database
from starrynight.gallery.insert import insert_new
from starrynight.gallery.schema import jobs, looks, painted, workers
from starrynight.jobs.job import CANCELLED, DONE, FAILED, PAINTING, SET_ASIDE, WAITING, error_payload
from starrynight.jobs.queue import change, now
from starrynight.request import PaintRequest

LEASE = 20_000  # ms without a sign of life after which a worker counts as dead; it gives one every quarter of that
DEATHS = 2  # of workers, after which a job is set aside


class LostLease(Exception):
    """Somebody else holds this job now; stop painting it and say nothing of it."""


@dataclass(frozen=True)
class Taken:
    """A job to paint: ``finished`` are the indexes that are done already."""

    number: int
    id: str
    request: PaintRequest
    finished: frozenset[int]


class Lease:
    """One worker's hold on ``device`` ("machine/cpu") and on what it paints there."""

    def __init__(self, database: Database, device: str, worker: str | None = None) -> None:
        self.database, self.device = database, device
        self.worker = worker or secrets.token_hex(8)

    def hold(self) -> bool:
        """Take the device, or show that we still live; False while another living worker has it."""
        with self.database.reading() as connection:
            theirs = (
                workers.c.device == self.device,
                workers.c.worker != self.worker,
                workers.c.until > now(),
            )
            if connection.execute(select(workers.c.worker).where(*theirs)).scalar() is not None:
                return False
        with self.database.writing() as connection:
            mine = {"worker": self.worker, "until": now() + LEASE}
            connection.execute(insert_new(connection, workers).values(device=self.device, **mine))
            free = (workers.c.worker == self.worker) | (workers.c.until <= now())
            here = workers.c.device == self.device
            return connection.execute(update(workers).where(here, free).values(**mine)).rowcount == 1

    def let_go(self) -> None:
        with self.database.writing() as connection:
            connection.execute(delete(workers).where(workers.c.worker == self.worker))

    def take(self) -> Taken | None:
        """The next job, now ours; None if nothing waits. First what dead workers left is put back or set aside."""
        with self.database.reading() as connection:
            alive = exists().where(workers.c.worker == jobs.c.worker, workers.c.until > now())
            something = (jobs.c.state == WAITING) | ((jobs.c.state == PAINTING) & ~alive)
            if connection.execute(select(jobs.c.number).where(something).limit(1)).scalar() is None:
                return None
        with self.database.writing() as connection:
            for (dead,) in connection.execute(
                select(jobs.c.worker).where(jobs.c.state == PAINTING, ~alive).distinct()
            ):
                _bury(connection, dead, ("its worker stopped answering", "工作进程失去响应"))
            waiting = select(jobs).where(jobs.c.state == WAITING).order_by(jobs.c.place).limit(1)
            row = connection.execute(waiting.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            try:
                request = PaintRequest.from_dict(json.loads(row.request))
            except BadRequest as error:  # written by a version that allowed what this one does not
                _end(connection, row.number, FAILED, error_payload(error))
                return None
            change(
                connection, row.number, state=PAINTING, worker=self.worker, attempts=row.attempts + 1,
                started_at=row.started_at or now(), picture=None, step=0, steps=None,
            )  # fmt: skip
            done = connection.execute(select(painted.c.nth).where(painted.c.number == row.number)).scalars()
            return Taken(row.number, row.id, request, frozenset(done))

    def report(self, job: Taken, image: bytes | None = None, **progress: object) -> None:
        """Note ``picture``, ``step``, ``steps``, ``pace``. Raises ``Cancelled`` if somebody asked for it, ``LostLease``."""
        with self.database.writing() as connection:
            self._still_ours(connection, job)
            change(connection, job.number, **progress)
            if image is not None:
                connection.execute(delete(looks).where(looks.c.number == job.number))
                revision = select(jobs.c.revision).where(jobs.c.number == job.number).scalar_subquery()
                connection.execute(insert(looks).values(number=job.number, revision=revision, image=image))

    def ask(self, job: Taken) -> None:
        """Raises ``Cancelled`` or ``LostLease``, as ``report`` does, without writing."""
        with self.database.reading() as connection:
            self._still_ours(connection, job)

    def finish_picture(self, connection: Connection, job: Taken, index: int, picture: str) -> None:
        """In the transaction that hangs it, so that a hung picture is a finished one, whatever happens next."""
        new = insert_new(connection, painted).values(number=job.number, nth=index, picture=picture)
        connection.execute(new)
        change(connection, job.number)

    def refuse_picture(self, job: Taken, index: int, error: StarryError) -> None:
        with self.database.writing() as connection:
            reason = json.dumps(error_payload(error), ensure_ascii=False)
            connection.execute(
                insert_new(connection, painted).values(number=job.number, nth=index, error=reason)
            )
            change(connection, job.number)

    def end(self, job: Taken, error: StarryError | None = None) -> None:
        """Done, or cancelled or failed for this reason. What hangs stays; a job of which nothing hangs has failed."""
        with self.database.writing() as connection:
            if not self._holds(connection, job):
                return
            if error is None:
                _end(connection, job.number, *_outcome(connection, job))
            else:
                state = CANCELLED if isinstance(error, Cancelled) else FAILED
                _end(connection, job.number, state, error_payload(error))

    def hand_back(self, job: Taken) -> None:
        """We are asked to stop: the job goes on with the next worker, and nobody has died of it."""
        with self.database.writing() as connection:
            if self._holds(connection, job):
                _wait_again(connection, job.number)

    def _holds(self, connection: Connection, job: Taken) -> bool:
        mine = (jobs.c.number == job.number, jobs.c.worker == self.worker, jobs.c.state == PAINTING)
        return connection.execute(select(jobs.c.number).where(*mine)).scalar() is not None

    def _still_ours(self, connection: Connection, job: Taken) -> None:
        mine = (jobs.c.number == job.number, jobs.c.worker == self.worker, jobs.c.state == PAINTING)
        cancelling = connection.execute(select(jobs.c.cancelling).where(*mine)).scalar()
        if cancelling is None:
            raise LostLease
        if cancelling:
            raise Cancelled


def mourn(database: Database, worker: str, how: tuple[str, str]) -> None:
    """A supervisor saw this worker die, ``how`` in both languages: its device is free, its job goes on or is set aside."""
    with database.writing() as connection:
        connection.execute(delete(workers).where(workers.c.worker == worker))
        _bury(connection, worker, how)


def release(database: Database, worker: str) -> None:
    """This worker was ended by us: its device is free and its job goes on, and nobody has died of it."""
    with database.writing() as connection:
        connection.execute(delete(workers).where(workers.c.worker == worker))
        mine = select(jobs.c.number).where(jobs.c.worker == worker, jobs.c.state == PAINTING)
        for number in connection.execute(mine).scalars().all():
            _wait_again(connection, number)


def _wait_again(connection: Connection, number: int, **more: object) -> None:
    change(connection, number, state=WAITING, worker=None, picture=None, step=None, steps=None, **more)
    connection.execute(delete(looks).where(looks.c.number == number))


def _bury(connection: Connection, worker: str, how: tuple[str, str]) -> None:
    theirs = select(jobs).where(jobs.c.worker == worker, jobs.c.state == PAINTING)
    for row in connection.execute(
        theirs.with_for_update()
    ).all():  # of two who bury, one finds the other was faster
        deaths = row.deaths + 1
        if row.cancelling:
            _end(connection, row.number, CANCELLED, error_payload(Cancelled()))
        elif deaths < DEATHS:
            _wait_again(connection, row.number, deaths=deaths)
        else:
            change(connection, row.number, deaths=deaths)
            _end(connection, row.number, SET_ASIDE, error_payload(_poison(deaths, how)))


def _outcome(connection: Connection, job: Taken) -> tuple[str, dict[str, Any] | None]:
    mine = (painted.c.number == job.number, painted.c.error.is_not(None))
    refused = connection.execute(select(painted.c.error).where(*mine).order_by(painted.c.nth)).scalars().all()
    if not refused:
        return DONE, None
    count, hung = job.request.count, job.request.count - len(refused)
    if hung == 0:
        return FAILED, json.loads(refused[0])
    some = StarryError(
        f"{hung} of {count} pictures hang; the others say why they do not.", f"{count} 幅中挂出 {hung} 幅；其余各有原因。"
    )  # fmt: skip
    return DONE, error_payload(some)


def _poison(deaths: int, how: tuple[str, str]) -> StarryError:
    return StarryError(
        f"This job was set aside: {deaths} workers died while painting it (the last: {how[0]}). Try a smaller size or "
        "another model, then retry it.",
        f"这个任务已搁置：{deaths} 个工作进程在画它时中断（最后一次：{how[1]}）。请换小一些的尺寸或别的模型，再重试。",
    )


def _end(connection: Connection, number: int, state: str, error: dict[str, Any] | None) -> None:
    reason = None if error is None else json.dumps(error, ensure_ascii=False)
    change(
        connection, number, state=state, worker=None, ended_at=now(), error=reason, picture=None, step=None,
        cancelling=False,
    )  # fmt: skip
    connection.execute(delete(looks).where(looks.c.number == number))
