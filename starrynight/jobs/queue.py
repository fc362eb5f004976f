"""``Queue``: submit, list, preview, cancel, reorder and retry jobs.

It is stored in the gallery's database, so it survives a crash, and any number of processes may use it at
once. The worker's half (claim, report, end) is in leases.py.
"""

from __future__ import annotations

import heapq
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from starrynight.errors import BadRequest, Cancelled, MissingFile, QueueFull
from starrynight.gallery.database import Database
from starrynight.gallery.schema import from_milliseconds
from starrynight.gallery.store import Gallery
from starrynight.jobs.job import ACTIVE, CANCELLED, ENDED, PAINTING, WAITING, Job, JobPicture, error_payload
from starrynight.jobs.schema import clock_ms, jobs, lease_runs, painted, previews, workers
from starrynight.request import MAX_TEXT, PaintRequest
from starrynight.text import clean

MAX_LISTED = 500
MAX_WAITING = 1000  # hours of work; the limit keeps a runaway client from filling the disk
JOB_RETENTION = timedelta(days=30)  # after a job has ended


@dataclass(frozen=True)
class JobPreview:
    """The newest preview: WebP, one pixel per latent. ``revision``: the job's revision when it was made."""

    revision: int
    image: bytes


class Queue:
    """A gallery's queue. Every method is one transaction and raises ``MissingFile`` for an unknown job."""

    def __init__(self, gallery: Gallery | Database) -> None:
        self.database = gallery.database if isinstance(gallery, Gallery) else gallery

    def submit(self, request: PaintRequest, key: str | None = None, most: int | None = None) -> Job:
        """Append a request, unchecked: ``validate.validate_request`` checks untrusted input first.

        ``key``: id of the caller's bearer key, which may have ``most`` jobs waiting or painted at once. Raises
        ``QueueFull`` when it has, or when ``MAX_WAITING`` jobs are waiting.
        """
        values = {
            "id": secrets.token_hex(8),
            "request": request.canonical(),
            "model": request.model,
            "count": request.count,
            "work": work_of(request),
            "state": WAITING,
            "submitted_at": now_ms(),
            "key": key,
        }
        with self.database.writing() as connection:
            if key is not None and most is not None:
                _check_own_jobs(connection, key, most)
            waiting = select(func.count()).select_from(jobs).where(jobs.c.state == WAITING)
            if connection.execute(waiting).scalar_one() >= MAX_WAITING:
                raise QueueFull(
                    f"{MAX_WAITING} jobs are waiting already; cancel some of them or try again later.",
                    f"已有 {MAX_WAITING} 个任务在排队；请取消一些，或稍后再试。",
                )
            connection.execute(insert(jobs).values(**values, place=_last_place(connection) + 1))
            return _read_jobs(connection, jobs.c.id == values["id"])[0]

    def get(self, job: str) -> Job:
        with self.database.reading() as connection:
            return _read_job(connection, job)

    def list(self, states: Iterable[str] = ACTIVE, limit: int = 100) -> list[Job]:
        """Active jobs in painting order, then ended jobs, most recent first; up to ``limit`` of each."""
        chosen, limit = tuple(states), max(1, min(limit, MAX_LISTED))
        with self.database.reading() as connection:
            active = jobs.c.state.in_([state for state in chosen if state in ACTIVE])
            ended = jobs.c.state.in_([state for state in chosen if state in ENDED])
            # "painting" sorts before "waiting"
            first = _read_jobs(connection, active, jobs.c.state.asc(), jobs.c.place.asc(), limit=limit)
            return first + _read_jobs(
                connection, ended, jobs.c.ended_at.desc(), jobs.c.number.desc(), limit=limit
            )

    def revision(self, job: str) -> int:
        """The job's revision, which changes exactly when the job does; cheap enough to poll."""
        with self.database.reading() as connection:
            found = connection.execute(select(jobs.c.revision).where(jobs.c.id == job)).scalar()
        if found is None:
            raise unknown_job(job)
        return found

    def changed(self, seen: Mapping[str, int]) -> dict[str, tuple[Job, JobPreview | None] | None]:
        """Of the jobs in ``seen`` (id → revision), those with another revision now, each with its preview; None for
        a job that is deleted."""
        with self.database.reading() as connection:
            rows = connection.execute(select(jobs.c.id, jobs.c.revision).where(jobs.c.id.in_(seen))).tuples()
            now = dict(rows.all())
            different = [job for job in seen if now.get(job) != seen[job]]
            newest = {job: _newest_preview(connection, job) for job in different}  # first, as in get_shown
            found = (
                _read_jobs(connection, jobs.c.id.in_(different), limit=len(different)) if different else []
            )
        gone: dict[str, tuple[Job, JobPreview | None] | None] = dict.fromkeys(set(different) - now.keys())
        return gone | {job.id: (job, newest[job.id]) for job in found}

    def revisions(self) -> int:
        """The sum of the revisions of all active jobs: a number that changes whenever one of them does."""
        with self.database.reading() as connection:
            total = select(func.coalesce(func.sum(jobs.c.revision), 0)).where(jobs.c.state.in_(ACTIVE))
            return connection.execute(total).scalar_one()

    def counts(self) -> dict[str, int]:
        """The number of jobs in each state that has any."""
        with self.database.reading() as connection:
            grouped = select(jobs.c.state, func.count()).group_by(jobs.c.state)
            return dict(connection.execute(grouped).tuples().all())

    def seconds(self, requests: Iterable[PaintRequest]) -> float | None:
        """How long these would take, from earlier jobs of their models; None without one of each."""
        asked = list(requests)
        with self.database.reading() as connection:
            paces = {name: _model_pace(connection, name) for name in {one.model for one in asked}}
        times = [
            None if (pace := paces[one.model]) is None else one.count * work_of(one) * pace for one in asked
        ]
        return None if None in times else sum(time for time in times if time is not None)

    def preview(self, job: str) -> JobPreview | None:
        """The newest preview; None before the first step and after the job has ended."""
        with self.database.reading() as connection:
            return _newest_preview(connection, job)

    def get_shown(self, job: str) -> tuple[Job, JobPreview | None]:
        """The job and its newest preview, which is never of a later step than the job tells: it is read first, because
        Postgres lets each statement see what was written since the one before."""
        with self.database.reading() as connection:
            newest = _newest_preview(connection, job)
            return _read_job(connection, job), newest

    def watch(self, job: str, every: float = 0.1) -> Iterator[Job]:
        """Yield the job now and after each change, until it has ended. Polls every ``every`` seconds."""
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
        """Cancel a waiting job at once, a painting one within a step. Saved pictures and ended jobs stay."""
        with self.database.writing() as connection:
            found = _read_job(connection, job)
            if found.state == WAITING:
                error = error_payload(Cancelled())
                update_job(connection, found.number, state=CANCELLED, ended_at=now_ms(), error=error)
            elif found.state == PAINTING:
                update_job(connection, found.number, cancelling=True)
            return _read_job(connection, job)

    def move(self, job: str, position: int) -> Job:
        """Move a waiting job to ``position`` (0 is next). Raises ``BadRequest`` if it does not wait."""
        with self.database.writing() as connection:
            found = _read_job(connection, job)
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
                    update_job(connection, number, place=row.place)
            return _read_job(connection, job)

    def retry(self, job: str) -> Job:
        """Append an ended job again; its saved pictures are not painted twice. An active job is unchanged."""
        with self.database.writing() as connection:
            found = _read_job(connection, job)
            if found.ended:
                connection.execute(
                    painted.delete().where(painted.c.number == found.number, painted.c.picture.is_(None))
                )
                update_job(
                    connection, found.number, state=WAITING, place=_last_place(connection) + 1, deaths=0, loading_deaths=0, error=None,
                    cancelling=False, picture=None, step=None, steps=None, started_at=None, ended_at=None,
                )  # fmt: skip
            return _read_job(connection, job)

    def delete_expired(self, older_than: timedelta = JOB_RETENTION) -> int:
        """Delete jobs that ended more than ``older_than`` ago and return how many. Their pictures stay."""
        limit = now_ms() - int(older_than.total_seconds() * 1000)
        with self.database.writing() as connection:
            old = (jobs.c.state.in_(ENDED), jobs.c.ended_at < limit)
            return connection.execute(jobs.delete().where(*old)).rowcount


def unknown_job(job: str) -> MissingFile:
    shown = clean(job)[:40]
    return MissingFile(
        f"There is no job “{shown}”; see the list of jobs.", f"没有任务“{shown}”；请查看任务列表。"
    )


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return int(time.time() * 1000)


def update_job(connection: Connection, number: int, **values: object) -> None:
    """Write columns of a job and raise its revision, which is how watchers notice the change."""
    this = jobs.c.number == number
    connection.execute(update(jobs).where(this).values(revision=jobs.c.revision + 1, **values))


def _check_own_jobs(connection: Connection, key: str, most: int) -> None:
    own = select(func.count()).select_from(jobs).where(jobs.c.key == key, jobs.c.state.in_(ACTIVE))
    if connection.execute(own).scalar_one() >= most:
        raise QueueFull(
            f"This key may have {most} unfinished jobs at once; wait for one of them, or cancel it.",
            f"这个密钥同时最多有 {most} 个未完成的任务；请等其中一个结束，或取消它。",
        )


def _last_place(connection: Connection) -> int:
    return connection.execute(select(func.coalesce(func.max(jobs.c.place), 0))).scalar_one()


def _newest_preview(connection: Connection, job: str) -> JobPreview | None:
    newest = select(previews.c.revision, previews.c.image).join(jobs).where(jobs.c.id == job)
    found = connection.execute(newest).one_or_none()
    return None if found is None else JobPreview(*found)


def _read_job(connection: Connection, job: str) -> Job:
    found = _read_jobs(connection, jobs.c.id == job)
    if not found:
        raise unknown_job(job)
    return found[0]


def _read_jobs(
    connection: Connection, where: ColumnElement[bool], *order: ColumnElement[object], limit: int = 1
) -> list[Job]:
    rows = connection.execute(select(jobs).where(where).order_by(*order).limit(limit)).all()
    if not rows:
        return []
    finished: dict[int, list[JobPicture]] = {}
    of_these = painted.c.number.in_([row.number for row in rows])
    for one in connection.execute(select(painted).where(of_these).order_by(painted.c.nth)):
        error = json.loads(one.error) if one.error else None
        finished.setdefault(one.number, []).append(JobPicture(one.nth, one.picture, error))
    schedule = _Schedule(connection) if any(row.state in ACTIVE for row in rows) else None
    return [_job(row, tuple(finished.get(row.number, ())), schedule) for row in rows]


class _Schedule:
    """Position and estimated seconds left of every active job, by ``number``; read once for a whole list.

    A job takes pictures left × work × pace: work is steps × megapixels of a picture, pace the measured
    seconds per unit of work of this job or of the last ended job of its model. A job without a pace has no
    estimate, and neither have the jobs behind it. Each job goes to the painter that is free first.
    """

    def __init__(self, connection: Connection) -> None:
        left = jobs.c.count - select(func.count()).where(painted.c.number == jobs.c.number).scalar_subquery()
        columns = [jobs.c[name] for name in ("number", "state", "model", "work", "step", "steps", "pace")]
        active = select(*columns, left.label("left")).where(jobs.c.state.in_(ACTIVE))
        rows = connection.execute(active.order_by(jobs.c.state.asc(), jobs.c.place.asc())).all()
        self._paces = {model: _model_pace(connection, model) for model in {row.model for row in rows}}
        self.position: dict[int, int] = {}
        self.seconds: dict[int, float | None] = {}
        living = select(func.count(workers.c.worker)).where(lease_runs(clock_ms(connection)))
        free_at = [0.0] * max(1, connection.execute(living).scalar_one())
        known = True
        for row in rows:
            if row.state == WAITING:
                self.position[row.number] = len(self.position)
            seconds = self._job_seconds(row)
            known = known and seconds is not None
            ends = heapq.heapreplace(free_at, free_at[0] + (seconds or 0.0)) + (seconds or 0.0)
            self.seconds[row.number] = round(ends, 1) if known else None

    def _job_seconds(self, row: Any) -> float | None:
        pace = row.pace if row.pace is not None else self._paces[row.model]
        current = (row.step or 0) / row.steps if row.steps else 0.0
        return None if pace is None else max(0.0, row.left - current) * row.work * pace


def work_of(request: PaintRequest) -> float:
    """Steps × megapixels of one picture."""
    return request.steps * request.width * request.height / 1e6


def _model_pace(connection: Connection, model: str) -> float | None:
    known = select(jobs.c.pace).where(
        jobs.c.model == model, jobs.c.pace.is_not(None), jobs.c.ended_at.is_not(None)
    )
    return connection.execute(known.order_by(jobs.c.ended_at.desc()).limit(1)).scalar()


def _request(stored: str) -> PaintRequest:
    """The stored request. One that this version rejects is still listed, with its prompt alone."""
    values = json.loads(stored)
    try:
        return PaintRequest.from_dict(values)
    except BadRequest:
        return PaintRequest(prompt=str(values.get("prompt") or "…")[:MAX_TEXT], seed=0)


def _job(row: Any, finished: tuple[JobPicture, ...], schedule: _Schedule | None) -> Job:
    return Job(
        id=row.id, number=row.number, request=_request(row.request), state=row.state,
        picture=row.picture, step=row.step, steps=row.steps, painted=finished,
        position=schedule.position.get(row.number) if schedule else None,
        seconds_left=schedule.seconds.get(row.number) if schedule else None,
        attempts=row.attempts, deaths=row.deaths, cancelling=row.cancelling, submitted_at=from_milliseconds(row.submitted_at),
        started_at=from_milliseconds(row.started_at) if row.started_at else None,
        ended_at=from_milliseconds(row.ended_at) if row.ended_at else None,
        error=json.loads(row.error) if row.error else None, revision=row.revision,
    )  # fmt: skip
