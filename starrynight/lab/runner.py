"""The one runner: takes a run's points in order, measures what is not measured yet, keeps each result at once.

Killed at any moment it loses at most the point it was at, and measures nothing twice. Knows experiments by their shape
only; prints nothing (``on_progress`` does what a door wants).
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starrynight.errors import OutOfMemory, Unfit
from starrynight.lab.experiments import experiment, points
from starrynight.lab.plan import Point
from starrynight.lab.run import MACHINE, ExperimentRun


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` points; ``left`` in seconds (None while nothing is known); ``point``: what comes next."""

    done: int
    total: int
    left: float | None
    point: Point | None = None


def measure(
    run: ExperimentRun, device: str | None = None, on_progress: Callable[[Progress], None] | None = None
) -> None:
    """Bring ``run`` to the end of its plan. ``on_progress`` may raise Cancelled.

    Raises what loading a model raises. A point that does not fit its model, or the memory, is kept as such.
    """
    from starrynight.lab.bench import Bench

    with run.measuring():
        if not run.machine():
            run.write(MACHINE, json.dumps(machine(), ensure_ascii=False, indent=1))
        wanted = list(points(run.plan))
        bench = Bench(run, device)
        for point in wanted:
            if point.key in run.rows:
                continue
            if on_progress is not None:
                on_progress(progress(run, point, wanted))
            start, cpu = time.perf_counter(), time.process_time()
            try:
                result = experiment(point.experiment).measure(bench, point)
            except (OutOfMemory, Unfit) as error:
                result = {"failed": [error.en, error.zh]}
            run.add(point, result, time.perf_counter() - start, time.process_time() - cpu, time.time())
        shutil.rmtree(run.folder / "raw", ignore_errors=True)  # scaffolding; every number is in the rows
    if on_progress is not None:
        on_progress(progress(run, None, wanted))


def progress(run: ExperimentRun, point: Point | None = None, wanted: list[Point] | None = None) -> Progress:
    """How far a run is, from its files alone."""
    wanted = list(points(run.plan)) if wanted is None else wanted
    missing = [p for p in wanted if p.key not in run.rows]
    return Progress(
        len(wanted) - len(missing), len(wanted), _left(run, missing), point or next(iter(missing), None)
    )


def _left(run: ExperimentRun, missing: list[Point]) -> float | None:
    """Each missing point costs what its like took on average: same experiment and format, or same experiment, or any."""
    if not missing:
        return 0.0
    costs: dict[Any, list[float]] = {}
    for row in run.rows.values():
        for key in ((row["experiment"], row["format"]), row["experiment"], None):
            costs.setdefault(key, []).append(row["seconds"])
    if not costs:
        return None

    def cost(point: Point) -> float:
        known = costs.get((point.experiment, point.format)) or costs.get(point.experiment) or costs[None]
        return sum(known) / len(known)

    return sum(map(cost, missing))


def machine() -> dict[str, Any]:
    """Where this is measured, for whoever reads the numbers."""
    import torch

    from starrynight.numerics.device import probe
    from starrynight.studio import versions

    here = probe(measure=False)
    return {
        "device": here.kind,
        "name": here.name,
        "memory": here.memory,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
    }
