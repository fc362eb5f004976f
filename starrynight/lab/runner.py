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

# Seconds a point, from the committed run's rows (docs/lab-report/report.json): of norms for each noise level, of training for each
# step, of speed for each round, of weights for each picture. What is not here takes milliseconds.
USUAL = {
    "products": 0.76, "refusals": 10.4, "colour": 2.84, "likeness": 0.26, "memory": 4.2, "extremes": 0.28, "banding": 0.16,
    "norms": 0.021, "layers": 4.7, "training": 3.9, "speed": 18.6, "loading": 0.62, "weights": 9.5,
}  # fmt: skip


@dataclass(frozen=True)
class RunProgress:
    """``done`` of ``total`` points; ``left``: estimated seconds of the rest (None without any row); ``point``: the next one;
    ``share``: of the whole work, as time, what is done (0 to 1); ``busy``: timings that were not kept, because the machine was
    too busy.
    """

    done: int
    total: int
    left: float | None
    point: Point | None = None
    share: float = 0.0
    busy: int = 0


def measure(
    run: ExperimentRun, device: str | None = None, on_progress: Callable[[RunProgress], None] | None = None
) -> None:
    """Measure every missing point of ``run``'s plan; of a complete run, the timings for which the machine was too busy.
    ``on_progress`` is called before each point and may raise Cancelled.

    Raises what loading a model raises. A point that does not fit its model or the memory gets a row with "failed".
    """
    from starrynight.lab import formats
    from starrynight.lab.bench import Bench

    with run.measuring():
        if not run.machine():
            run.write(MACHINE, json.dumps(machine(), ensure_ascii=False, indent=1, allow_nan=False))
        wanted = list(points(run.plan))
        bench = Bench(run, device)
        for point in to_measure(run, wanted):
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


def to_measure(run: ExperimentRun, wanted: list[Point]) -> list[Point]:
    """The points without a row; if there are none, those whose timing was not kept."""
    missing = [point for point in wanted if point.key not in run.rows]
    return missing or [point for point in wanted if "busy" in run.rows[point.key]["result"]]


def progress(
    run: ExperimentRun, point: Point | None = None, wanted: list[Point] | None = None
) -> RunProgress:
    """How far a run is, from its rows."""
    wanted = list(points(run.plan)) if wanted is None else wanted
    missing = [p for p in wanted if p.key not in run.rows]
    done = [run.rows[p.key] for p in wanted if p.key in run.rows]
    left, spent = _left(run, missing), sum(row["seconds"] for row in done)
    share = 0.0 if left is None else spent / (spent + left) if spent + left else 1.0
    busy = sum("busy" in row["result"] for row in done)
    return RunProgress(
        len(done), len(wanted), left, point or next(iter(missing), None), share if missing else 1.0, busy
    )


def _left(run: ExperimentRun, missing: list[Point]) -> float | None:
    """Estimated seconds for the missing points, from the work that each is: the mean over rows of the same experiment and
    format; without any, over the same experiment; without any, what the experiment usually takes (``USUAL``) on a machine as
    fast as this one has shown to be.
    """
    if not missing:
        return 0.0
    costs: dict[Any, list[float]] = {}
    for row in run.rows.values():
        for key in ((row["experiment"], row["format"]), row["experiment"]):
            costs.setdefault(key, []).append(row["seconds"])
    if not costs:
        return None
    spent = sum(row["seconds"] for row in run.rows.values())
    usual = sum(_usual(run, row["experiment"]) for row in run.rows.values())
    slower = spent / usual if usual >= 1 else 1.0  # a few milliseconds of work tell nothing of the machine

    def cost(point: Point) -> float:
        known = costs.get((point.experiment, point.format)) or costs.get(point.experiment)
        return sum(known) / len(known) if known else slower * _usual(run, point.experiment)

    return sum(map(cost, missing))


def _usual(run: ExperimentRun, experiment: str) -> float:
    """Seconds that one point of an experiment takes on two idle cores."""
    times = {
        "norms": run.plan.noise_steps,
        "training": run.plan.training_steps,
        "speed": run.plan.repeats + 1,
        "weights": run.plan.weight_formats * run.plan.weight_scenes,
    }
    return USUAL.get(experiment, 0.01) * times.get(experiment, 1)


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
