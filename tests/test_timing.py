"""Rates on a busy machine: what other programs disturb is said and not kept, and the best round counts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from starrynight.lab import table
from starrynight.lab.experiments import hardware, points
from starrynight.lab.findings import UNDECIDED, Rows
from starrynight.lab.plan import ExperimentPlan
from starrynight.lab.run import ExperimentRun
from starrynight.lab.runner import progress, to_measure
from starrynight.numerics import timing

LINUX = pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="the system keeps no account")


@contextmanager
def one_core_shared_with(others: int) -> Iterator[None]:
    """This thread and ``others`` programs that compute all the time, on one core together."""
    before = os.sched_getaffinity(0)
    core = {min(before)}
    code = f"import os; os.sched_setaffinity(0, {core}); print(flush=True)\nwhile True: pass"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(others)]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        os.sched_setaffinity(0, core)
        yield
    finally:
        os.sched_setaffinity(0, before)
        for process in started:
            process.kill()
            process.communicate()


def compute(seconds: float = 0.2) -> None:
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        pass


@LINUX
def test_three_programs_on_one_core_wait_for_two_thirds_of_the_time() -> None:
    with one_core_shared_with(2), timing.CoreWait() as wait:
        compute()
    assert wait.share > 0.4  # and more, if the machine has other work


def test_a_process_that_sleeps_waits_for_no_core() -> None:
    with timing.CoreWait() as wait:
        time.sleep(0.05)
    assert 0 <= wait.share <= 1


def test_the_best_round_counts_and_a_busy_machine_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    shares = iter([0.9, 0.5, 0.01, 0.9])

    class Wait(timing.CoreWait):
        def __exit__(self, *_: object) -> None:
            self.share = next(shares)

    monkeypatch.setattr(timing, "CoreWait", Wait)
    clock = iter([0, 5, 5, 6, 10, 12, 20, 24, 30, 33, 40, 49])
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    found = timing.best_of({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=1)
    assert calls == ["a", "b"] * 3
    assert found.seconds == {"a": 2, "b": 1}
    assert (found.waited, found.busy) == (0.01, False)
    assert timing.Timings({}, 0.5).busy


@pytest.mark.parametrize(
    ("claim", "experiment", "judge"),
    [
        ("C2", "speed", hardware.judge_speed),
        ("C13", "loading", hardware.judge_loading),
        ("C18", "products", hardware.judge_products),
    ],
)
def test_a_timing_that_was_not_kept_has_no_verdict_and_is_taken_again(
    tmp_path: Path, claim: str, experiment: str, judge: Any
) -> None:
    run = ExperimentRun.create(tmp_path / "run", ExperimentPlan(models=("firefly",), claims=(claim,)))
    (point,) = points(run.plan)
    assert to_measure(run, [point]) == [point]
    run.add(point, {"busy": 0.43}, 1.0, 1.0, 0.0)
    (found,) = judge(Rows(run))
    assert (found.claim, found.outcome, found.figures) == (claim, UNDECIDED, {})
    assert found.summary.en.startswith("Too busy to tell: other programs took 43%")
    assert table.outcomes(run) == {UNDECIDED: 1}
    assert (progress(run).done, progress(run).busy) == (1, 1)
    assert to_measure(run, [point]) == [point]
    run.add(point, {"seconds": {}}, 1.0, 1.0, 0.0)
    assert to_measure(ExperimentRun.open(run.folder), [point]) == []


def test_the_time_left_is_of_the_work_left_and_not_of_the_count(tmp_path: Path) -> None:
    """Ten quick points are no third of the time when the slow ones are left."""
    plan = ExperimentPlan(
        models=("firefly",), formats=("bfloat16",), prompts=1, seeds=1, counted=1, claims=("C2", "C17", "C18")
    )
    run = ExperimentRun.create(tmp_path / "run", plan)
    every = list(points(run.plan))
    assert progress(run).left is None
    for point in every:
        if point.experiment != "speed":
            run.add(point, {}, 0.5, 0.5, 0.0)
    found = progress(run)
    assert (found.done, found.total) == (2, 3)
    assert found.left is not None
    assert found.left > 10 * 0.5  # ten rounds of whole pictures
    assert found.share < 0.1
    run.add(every[-1], {}, 20.0, 20.0, 0.0)
    assert (progress(run).left, progress(run).share) == (0.0, 1.0)
