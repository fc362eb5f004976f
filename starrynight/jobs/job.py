"""``Job``: an immutable snapshot of one request on its way through the queue, and the names of its states."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starrynight.errors import StarryError
from starrynight.request import PaintRequest

WAITING, PAINTING = "waiting", "painting"
DONE, FAILED, CANCELLED, SET_ASIDE = "done", "failed", "cancelled", "set_aside"
ACTIVE = (WAITING, PAINTING)
ENDED = (DONE, FAILED, CANCELLED, SET_ASIDE)
STATE_GROUPS = {"active": ACTIVE, "ended": ENDED, "all": (*ACTIVE, *ENDED)}


@dataclass(frozen=True)
class JobPicture:
    """Finished picture ``index`` of a job: its gallery id, or None if it was refused with ``error``."""

    index: int
    picture: str | None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it was when it was read from the database.

    ``state``: waiting → painting → done, failed, cancelled or set_aside (it killed ``leases.MAX_DEATHS``
    workers). ``picture``: index of the picture being painted; ``step`` of its ``steps`` are taken. While it
    is None the model is being loaded or folded, and ``step`` of ``steps`` is that progress, if it is known.
    ``painted``: the finished pictures by index. ``position``: waiting jobs ahead of it, None unless it waits.
    ``seconds_left``: estimated from earlier jobs of the same model; None without one. ``attempts``: workers
    that claimed it; ``deaths``: workers that died while painting it, not while loading its model. ``cancelling``: the worker has been
    asked to stop. ``revision`` increases with every change.
    """

    id: str
    number: int
    request: PaintRequest
    state: str
    picture: int | None
    step: int | None
    steps: int | None
    painted: tuple[JobPicture, ...]
    position: int | None
    seconds_left: float | None
    attempts: int
    deaths: int
    cancelling: bool
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: dict[str, Any] | None
    revision: int

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def pictures(self) -> list[str]:
        """Gallery ids of the pictures that were saved."""
        return [one.picture for one in self.painted if one.picture]

    @property
    def progress(self) -> float:
        """From 0 to 1, over all steps of all pictures."""
        current = (self.step or 0) / self.steps if self.steps and self.picture is not None else 0.0
        return min(1.0, (len(self.painted) + current) / self.request.count)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of a job; docs/api.md describes its fields."""
        return {
            "id": self.id,
            "state": self.state,
            "request": self.request.to_dict(),
            "count": self.request.count,
            "picture": self.picture,
            "step": self.step,
            "steps": self.steps,
            "progress": round(self.progress, 4),
            "painted": [vars(one) for one in self.painted],
            "position": self.position,
            "seconds_left": self.seconds_left,
            "attempts": self.attempts,
            "cancelling": self.cancelling,
            "submitted_at": self.submitted_at.isoformat(),
            "started_at": self.started_at and self.started_at.isoformat(),
            "ended_at": self.ended_at and self.ended_at.isoformat(),
            "error": self.error,
            "revision": self.revision,
        }


def error_payload(error: StarryError) -> str:
    """An error as the database stores it: JSON of its type, message in both languages and HTTP status."""
    payload = {"type": type(error).__name__, "en": error.en, "zh": error.zh, "status": error.status}
    return json.dumps(payload, ensure_ascii=False, allow_nan=False)
