"""``Queue``: submit, look, cancel, reorder, retry. Durable in the gallery's database; any number of processes may hold one.

The worker's half (taking, reporting, ending) is in leases.py. Knows nothing of painting.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from starrynight.errors import BadRequest, Cancelled, MissingFile
from starrynight.gallery.database import Database
from starrynight.gallery.rows import moment
from starrynight.gallery.schema import jobs, looks, painted
from starrynight.gallery.store import Gallery
from starrynight.jobs.job import ACTIVE, CANCELLED, ENDED, PAINTING, WAITING, Job, Painted, error_payload
from starrynight.metadata.recipe import text
from starrynight.request import MAX_TEXT, PaintRequest

LONGEST_LIST = 500
KEPT_FOR = timedelta(days=30)  # ended jobs
MOST_WAITING = 1000  # pictures ahead would take hours; a door that goes mad must not fill the disk


@dataclass(frozen=True)
class Look:
    """A preview: WebP, one pixel for each latent. ``revision``: of the job, when it was made."""

    revision: int
    image: bytes


class Queue:
    """Over a gallery (or its database). Every verb is one transaction; ``MissingFile`` for a job that is not there."""

    def __init__(self, gallery: Gallery | Database) -> None:
        self.database = gallery.database if isinstance(gallery, Gallery) else gallery

    def submit(self, request: PaintRequest) -> Job:
        """Put a request at the end of the queue. Check it before (``wish.settle`` does): this only stores it."""
        values = {
            "id": secrets.token_hex(8),
            "request": request.canonical(),
            "model": request.model,
            "count": request.count,
            "work": request.steps * request.width * request.height / 1e6,
            "state": WAITING,
            "submitted_at": now(),
        }
        with self.database.writing() as connection:
            waiting = select(func.count()).select_from(jobs).where(jobs.c.state == WAITING)
            if connection.execute(waiting).scalar_one() >= MOST_WAITING:
                raise BadRequest(
                    f"{MOST_WAITING} jobs are waiting already; cancel some, or wait.",
                    f"已有 {MOST_WAITING} 个任务在排队；请取消一些，或稍候。",
                )
            connection.execute(insert(jobs).values(**values, place=_last_place(connection) + 1))
            return _read(connection, jobs.c.id == values["id"])[0]

    def get(self, job: str) -> Job:
        with self.database.reading() as connection:
            return _one(connection, job)

    def list(self, states: Iterable[str] = ACTIVE, limit: int = 100) -> list[Job]:
        """Active jobs in the order of painting, then ended ones, last first."""
        chosen, limit = tuple(states), max(1, min(limit, LONGEST_LIST))
        with self.database.reading() as connection:
            active = jobs.c.state.in_([state for state in chosen if state in ACTIVE])
            ended = jobs.c.state.in_([state for state in chosen if state in ENDED])
            first = _read(connection, active, jobs.c.state.asc(), jobs.c.place.asc(), limit=limit)
            return first + _read(connection, ended, jobs.c.ended_at.desc(), jobs.c.number.desc(), limit=limit)

    def revision(self, job: str) -> int:
        """Cheap to ask often: differs from last time only if something changed."""
        with self.database.reading() as connection:
            found = connection.execute(select(jobs.c.revision).where(jobs.c.id == job)).scalar()
        if found is None:
            raise unknown(job)
        return found

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state that has any."""
        with self.database.reading() as connection:
            grouped = select(jobs.c.state, func.count()).group_by(jobs.c.state)
            return dict(connection.execute(grouped).tuples().all())

    def look(self, job: str) -> Look | None:
        """The newest preview; None before the first step and after the end."""
        with self.database.reading() as connection:
            mine = select(looks.c.revision, looks.c.image).join(jobs).where(jobs.c.id == job)
            found = connection.execute(mine).one_or_none()
        return None if found is None else Look(*found)

    def watch(self, job: str, every: float = 0.1) -> Iterator[Job]:
        """The job now and after each change, until it has ended. Blocks between."""
        seen = -1
        while True:
            if (revision := self.revision(job)) != seen:
                seen = revision
                found = self.get(job)
                yield found
                if found.ended:
                    return
            time.sleep(every)

    def cancel(self, job: str) -> Job:
        """A waiting job is cancelled at once, a painting one within a step; what hangs stays. Ended ones stay as they are."""
        error = json.dumps(error_payload(Cancelled()), ensure_ascii=False)
        with self.database.writing() as connection:
            found = _one(connection, job)
            if found.state == WAITING:
                change(connection, found.number, state=CANCELLED, ended_at=now(), error=error)
            elif found.state == PAINTING:
                change(connection, found.number, cancelling=True)
            return _one(connection, job)

    def move(self, job: str, position: int) -> Job:
        """Give a waiting job this place (0: the next to be painted). Raises ``BadRequest`` once it is being painted."""
        with self.database.writing() as connection:
            found = _one(connection, job)
            if found.state != WAITING:
                raise BadRequest(
                    "Only a job that is still waiting can be moved.", "只有还在排队的任务才能调整顺序。"
                )
            order = connection.execute(
                select(jobs.c.number, jobs.c.place).where(jobs.c.state == WAITING).order_by(jobs.c.place)
            ).all()
            numbers = [row.number for row in order if row.number != found.number]
            numbers.insert(max(0, min(position, len(numbers))), found.number)
            for number, row in zip(numbers, order, strict=True):
                if number != row.number:
                    change(connection, number, place=row.place)
            return _one(connection, job)

    def retry(self, job: str) -> Job:
        """Put an ended job at the end of the queue again; what hangs is not painted twice. Active ones stay as they are."""
        with self.database.writing() as connection:
            found = _one(connection, job)
            if found.ended:
                connection.execute(
                    painted.delete().where(painted.c.number == found.number, painted.c.picture.is_(None))
                )
                change(
                    connection, found.number, state=WAITING, place=_last_place(connection) + 1, deaths=0, error=None,
                    cancelling=False, picture=None, step=None, steps=None, started_at=None, ended_at=None,
                )  # fmt: skip
            return _one(connection, job)

    def forget(self, older_than: timedelta = KEPT_FOR) -> int:
        """Drop jobs that ended so long ago; their pictures stay. A server does this once a day."""
        limit = now() - int(older_than.total_seconds() * 1000)
        with self.database.writing() as connection:
            old = (jobs.c.state.in_(ENDED), jobs.c.ended_at < limit)
            return connection.execute(jobs.delete().where(*old)).rowcount


def unknown(job: str) -> MissingFile:
    shown = text(job)[:40]
    return MissingFile(
        f"There is no job “{shown}”; see the list of jobs.", f"没有任务“{shown}”；请查看任务列表。"
    )


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def change(connection: Connection, number: int, **values: object) -> None:
    mine = jobs.c.number == number
    connection.execute(update(jobs).where(mine).values(revision=jobs.c.revision + 1, **values))


def _last_place(connection: Connection) -> int:
    return connection.execute(select(func.coalesce(func.max(jobs.c.place), 0))).scalar_one()


def _one(connection: Connection, job: str) -> Job:
    found = _read(connection, jobs.c.id == job)
    if not found:
        raise unknown(job)
    return found[0]


def _read(
    connection: Connection, where: ColumnElement[bool], *order: ColumnElement[object], limit: int = 1
) -> list[Job]:
    rows = connection.execute(select(jobs).where(where).order_by(*order).limit(limit)).all()
    if not rows:
        return []
    finished: dict[int, list[Painted]] = {}
    numbers = [row.number for row in rows]
    for one in connection.execute(
        select(painted).where(painted.c.number.in_(numbers)).order_by(painted.c.nth)
    ):
        error = json.loads(one.error) if one.error else None
        finished.setdefault(one.number, []).append(Painted(one.nth, one.picture, error))
    ahead = _Ahead(connection) if any(row.state in ACTIVE for row in rows) else None
    return [_job(row, tuple(finished.get(row.number, ())), ahead) for row in rows]


class _Ahead:
    """Who is served when, and how long all before take; read once for a whole list."""

    def __init__(self, connection: Connection) -> None:
        left = jobs.c.count - select(func.count()).where(painted.c.number == jobs.c.number).scalar_subquery()
        columns = (
            jobs.c.number,
            jobs.c.state,
            jobs.c.model,
            jobs.c.work,
            jobs.c.step,
            jobs.c.steps,
            jobs.c.pace,
        )
        active = select(*columns, left.label("left")).where(jobs.c.state.in_(ACTIVE))
        rows = connection.execute(active.order_by(jobs.c.state.asc(), jobs.c.place.asc())).all()
        self._paces = {model: _pace(connection, model) for model in {row.model for row in rows}}
        self.position: dict[int, int] = {}
        self.seconds: dict[int, float | None] = {}
        before: float | None = 0.0
        for row in rows:
            if row.state == WAITING:
                self.position[row.number] = len(self.position)
            own = self._own(row)
            before = None if own is None or before is None else before + own
            self.seconds[row.number] = None if before is None else round(before, 1)

    def _own(self, row: Any) -> float | None:
        pace = row.pace if row.pace is not None else self._paces[row.model]
        begun = (row.step or 0) / row.steps if row.steps else 0.0
        return None if pace is None else max(0.0, row.left - begun) * row.work * pace


def _pace(connection: Connection, model: str) -> float | None:
    """Seconds for a unit of work, as the last finished job of this model took."""
    known = select(jobs.c.pace).where(
        jobs.c.model == model, jobs.c.pace.is_not(None), jobs.c.ended_at.is_not(None)
    )
    return connection.execute(known.order_by(jobs.c.ended_at.desc()).limit(1)).scalar()


def _request(text: str) -> PaintRequest:
    """As it was stored; one that this version would not take is still listed, by its prompt."""
    said = json.loads(text)
    try:
        return PaintRequest.from_dict(said)
    except BadRequest:
        return PaintRequest(prompt=str(said.get("prompt") or "…")[:MAX_TEXT], seed=0)


def _job(row: Any, finished: tuple[Painted, ...], ahead: _Ahead | None) -> Job:
    return Job(
        id=row.id, number=row.number, request=_request(row.request), state=row.state,
        picture=row.picture, step=row.step, steps=row.steps, painted=finished,
        position=ahead.position.get(row.number) if ahead else None,
        seconds_left=ahead.seconds.get(row.number) if ahead else None,
        attempts=row.attempts, deaths=row.deaths, cancelling=row.cancelling, submitted_at=moment(row.submitted_at),
        started_at=moment(row.started_at) if row.started_at else None,
        ended_at=moment(row.ended_at) if row.ended_at else None,
        error=json.loads(row.error) if row.error else None, revision=row.revision,
    )  # fmt: skip
