"""What workers count, for /metrics: sums and histograms in the database, so that they outlive every worker and add up over
machines.

A worker adds in memory and writes once a picture. The values only ever grow.
"""

from __future__ import annotations

import bisect
import json
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from starrynight.errors import BrokenNumbers
from starrynight.gallery.database import Database
from starrynight.jobs.schema import tallies
from starrynight.painting.results import Refused
from starrynight.text import plain_json

if TYPE_CHECKING:
    from starrynight.painting.results import Step
    from starrynight.studio import SavedPicture

# Upper bounds in seconds: from a step of Firefly on a CPU to a large picture of many steps.
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
PICTURES, REFUSED, FALLBACKS = "pictures", "refused", "fallbacks"
STEP_SECONDS, PICTURE_SECONDS = "step_seconds", "picture_seconds"
SUM = "_sum"  # after a histogram's name: the sum of what was observed


class Tally(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


class Tallies:
    """One worker's counts since its last ``write``."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        key = name, plain_json(labels, sort_keys=True)
        with self._lock:
            self._counts[key] = self._counts.get(key, 0.0) + value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Count ``seconds`` in the bucket of a histogram whose bound is the first not below it ("+Inf" for none)."""
        place = bisect.bisect_left(BOUNDS, seconds)
        bound = f"{BOUNDS[place]:g}" if place < len(BOUNDS) else "+Inf"
        self.add(name, 1.0, **labels, le=bound)
        self.add(name + SUM, seconds, **labels)

    def write(self, database: Database) -> None:
        """Add the counts to the database's and begin anew. Raises ``StorageError``, and then keeps them."""
        with self._lock:
            counts, self._counts = self._counts, {}
        if not counts:
            return
        rows = [{"name": name, "labels": labels, "value": value} for (name, labels), value in counts.items()]
        try:
            with database.writing() as connection:
                dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
                insert = dialect.insert(tallies)
                more = insert.on_conflict_do_update(
                    index_elements=["name", "labels"], set_={"value": tallies.c.value + insert.excluded.value}
                )
                # In one order, so that two workers of a Postgres database cannot wait for each other's rows.
                connection.execute(more, sorted(rows, key=lambda row: (row["name"], row["labels"])))
        except Exception:
            with self._lock:
                for key, value in counts.items():
                    self._counts[key] = self._counts.get(key, 0.0) + value
            raise


def read(database: Database) -> list[Tally]:
    """All that workers have counted."""
    with database.reading() as connection:
        rows = connection.execute(select(tallies).order_by(tallies.c.name, tallies.c.labels)).all()
    return [Tally(row.name, json.loads(row.labels), row.value) for row in rows]


class Timer:
    """Times the steps and pictures of one request, and counts them."""

    def __init__(self, tallies: Tallies, model: str) -> None:
        self.tallies, self.model = tallies, model
        self._started = self._stepped = time.monotonic()

    def step_taken(self, step: Step) -> None:
        before, self._stepped = self._stepped, time.monotonic()
        if step.step:  # the first of a picture also encodes the prompt
            self.tallies.observe(STEP_SECONDS, self._stepped - before, model=self.model)

    def picture_finished(self, outcome: SavedPicture | Refused, together: int = 1) -> float:
        """The seconds since the picture before it, or since the request began; its share of a batch."""
        now = time.monotonic()
        seconds, self._started, self._stepped = (now - self._started) / together, now, now
        count_picture(self.tallies, outcome, seconds, self.model)
        return seconds


def count_picture(tallies: Tallies, outcome: SavedPicture | Refused, seconds: float, model: str) -> None:
    """Count a picture for /metrics: saved, or refused at a stage; and every fallback that was tried."""
    if isinstance(outcome, Refused):
        fault = outcome.error.fault if isinstance(outcome.error, BrokenNumbers) else None
        tallies.add(REFUSED, stage=fault.stage if fault else "other", model=model)
        verdict = outcome.verdict
    else:
        tallies.add(PICTURES, model=model)
        tallies.observe(PICTURE_SECONDS, seconds, model=model)
        verdict = outcome.picture.verdict
    for attempt in verdict.attempts:
        tallies.add(
            FALLBACKS, fallback=attempt.name, stage=attempt.fault.stage,
            recovered="yes" if attempt.recovered else "no",
        )  # fmt: skip
