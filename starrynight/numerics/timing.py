"""How long a call takes on this machine, and whether the machine was too busy for that to be a fact.

Calls take turns, so that other work slows all of them alike, and the best of several rounds counts: other work only ever adds
time. Beside it the kernel's own account is read: for how long this process's threads were ready to run and waited for a core
(the second number of Linux's /proc/PID/task/TID/schedstat, https://docs.kernel.org/scheduler/sched-stats.html). Neither a load
average, which covers the last minute and every container of a host, nor a comparison of the rounds, which a steady load
leaves alike, tells that. Imports no torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starrynight.i18n import Text

# The share of waiting from which a measurement is no fact. Idle: under 0.02; one other process that computes all the time on
# a machine of two cores: 0.2 to 0.4.
BUSY = 0.1
ROUNDS = 7
ATTEMPTS = 3  # a short burst of other work is waited out


def too_busy(waited: float) -> Text:
    """The sentence for a measurement that is not kept. ``waited``: 0 to 1."""
    return Text(
        f"Too busy to tell: other programs took {waited:.0%} of the time. Measure again when the machine is quiet.",
        f"机器太忙，测不准：测量时有 {waited:.0%} 的时间被其他程序占去。请待机器空闲时再测。",
    )


@dataclass(frozen=True)
class Timings:
    """Best seconds of each call by name, and the share of the time that was spent waiting for a core (0 to 1)."""

    seconds: dict[str, float]
    waited: float

    @property
    def busy(self) -> bool:
        return self.waited > BUSY


class CoreWait:
    """``with CoreWait() as wait: …`` gives ``wait.share``: of the time that this process's threads wanted to compute, the share
    (0 to 1) in which they waited for a core that others used.
    """

    share = 0.0

    def __enter__(self) -> CoreWait:
        self._before = _account()
        return self

    def __exit__(self, *_: object) -> None:
        after = _account()
        if after is None or self._before is None:
            self.share = _by_load()
            return
        # A thread that ended or began in between counts with what can be known of it.
        ran, waited = (sum(after[t][k] - self._before.get(t, (0, 0))[k] for t in after) for k in (0, 1))
        self.share = waited / (ran + waited) if ran + waited > 0 else 0.0


def best_of(calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> Timings:
    """Time each of ``calls`` ``rounds`` times in turn; again, up to ``ATTEMPTS`` times, while the machine is busy."""
    best, waited = dict.fromkeys(calls, float("inf")), 1.0
    for _ in range(ATTEMPTS):
        with CoreWait() as wait:
            for _ in range(rounds):
                for name, call in calls.items():
                    start = time.perf_counter()
                    call()
                    best[name] = min(best[name], time.perf_counter() - start)
        waited = min(waited, wait.share)
        if waited <= BUSY:
            break
    return Timings(best, waited)


def _account() -> dict[str, tuple[int, int]] | None:
    """Thread → nanoseconds that it ran and that it waited for a core; None where the system does not tell."""
    found = {}
    with suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError, ValueError):  # a thread may end while it is read
                ran, waited, _ = (thread / "schedstat").read_text().split()
                found[thread.name] = (int(ran), int(waited))
    return found or None


def _by_load() -> float:
    """Where the system has no such account: what a fair share of the last minute's load would leave us waiting."""
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows
        return 0.0
    return max(0.0, 1 - (os.cpu_count() or 1) / load) if load > 0 else 0.0
