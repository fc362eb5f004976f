"""``Job``: one request on its way through the queue, as everybody sees it; and the words for its states.

A value read at one moment. Knows nothing of how it is stored, painted or shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starrynight.errors import StarryError
from starrynight.request import PaintRequest

WAITING, PAINTING = "waiting", "painting"
DONE, FAILED, CANCELLED, SET_ASIDE = "done", "failed", "cancelled", "set_aside"
ACTIVE = (WAITING, PAINTING)
ENDED = (DONE, FAILED, CANCELLED, SET_ASIDE)


@dataclass(frozen=True)
class Painted:
    """Picture ``index`` of a job: ``picture`` is its id in the gallery, or None where ``error`` says why it was refused."""

    index: int
    picture: str | None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """``state``: waiting → painting → done, failed, cancelled or set_aside (it killed its worker twice).

    ``picture`` is the one being painted now, ``step`` how many of its ``steps`` are taken; without ``picture`` the
    painter is being readied, and ``step`` of ``steps`` says how far, where it is known. ``painted`` are those finished,
    in order. ``position``: how many are before it, while it waits.
    ``seconds_left`` is an estimate from what this model took here before; None where nothing is known yet.
    ``attempts`` counts workers that took it, ``deaths`` those that died of it. ``revision`` rises with every change.
    """

    id: str
    number: int
    request: PaintRequest
    state: str
    picture: int | None
    step: int | None
    steps: int | None
    painted: tuple[Painted, ...]
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
        """Ids of the pictures that hang."""
        return [one.picture for one in self.painted if one.picture]

    @property
    def progress(self) -> float:
        """0 … 1, over all steps of all pictures."""
        begun = (self.step or 0) / self.steps if self.steps and self.picture is not None else 0.0
        return min(1.0, (len(self.painted) + begun) / self.request.count)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can carry; the shape is told in docs/api.md."""
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


def error_payload(error: StarryError) -> dict[str, Any]:
    """An error as a job and HTTP carry it: its type, its sentence in both languages, its HTTP status."""
    return {"type": type(error).__name__, "en": error.en, "zh": error.zh, "status": error.status}
