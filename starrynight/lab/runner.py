"""Measures what a run is missing, point by point, and keeps each result at once.

A kill loses at most the point in progress, and no point is measured twice. This module prints nothing: interfaces pass
``on_progress``.
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
from starrynight.lab.experiments import EXPERIMENTS, points
from starrynight.lab.plan import Point
from starrynight.lab.run import MACHINE, ExperimentRun


@dataclass(frozen=True)
class RunProgress:
    """``done`` of ``total`` points; ``left``: estimated seconds (None without any row); ``point``: the next one."""

    done: int
    total: int
    left: float | None
    point: Point | None = None


def measure(
    run: ExperimentRun, device: str | None = None, on_progress: Callable[[RunProgress], None] | None = None
) -> None:
    """Measure every missing point of ``run``'s plan. ``on_progress`` is called before each point and may raise Cancelled.

    Raises what loading a model raises. A point that does not fit its model or the memory gets a row with "failed".
    """
    from starrynight.lab import formats
    from starrynight.lab.bench import Bench

    with run.measuring():
        if not run.machine():
            run.write(MACHINE, json.dumps(machine(), ensure_ascii=False, indent=1, allow_nan=False))
        wanted = list(points(run.plan))
        bench = Bench(run, device)
        for point in wanted:
            if point.key in run.rows:
                continue
            if on_progress is not None:
                on_progress(progress(run, point, wanted))
            start, cpu = time.perf_counter(), time.process_time()
            result: dict[str, Any]
            try:
                result = EXPERIMENTS[point.experiment].measure(bench, point)
            except (OutOfMemory, Unfit) as error:
                result = {"failed": [error.en, error.zh]}
            seconds, burnt = time.perf_counter() - start, time.process_time() - cpu
            run.add(
                point,
                result,
                seconds,
                burnt,
                time.time(),
                formats.stored(point.model) if point.model else None,
            )
        shutil.rmtree(run.folder / "raw", ignore_errors=True)  # every number is in the rows now
    if on_progress is not None:
        on_progress(progress(run, None, wanted))


def progress(
    run: ExperimentRun, point: Point | None = None, wanted: list[Point] | None = None
) -> RunProgress:
    """How far a run is, from its rows."""
    wanted = list(points(run.plan)) if wanted is None else wanted
    missing = [p for p in wanted if p.key not in run.rows]
    return RunProgress(
        len(wanted) - len(missing), len(wanted), _left(run, missing), point or next(iter(missing), None)
    )


def _left(run: ExperimentRun, missing: list[Point]) -> float | None:
    """Estimated seconds for the missing points: for each, the mean over rows of the same experiment and format; without
    any, over the same experiment; without any, over all rows.
    """
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
    """The device, system and library versions, for ``machine.json``."""
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
