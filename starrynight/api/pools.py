"""Threads for the calls that block, in pools of their own, so that one kind of stuck call does not stop the others.

A writer waits for the database's lock, a decoder takes memory, a file may lie on a disk that hangs. Each pool has few
threads; a call that finds none free within a few seconds is answered with 503 and Retry-After.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from starrynight.errors import Busy
from starrynight.metadata.pixels import MAX_DECODERS

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """``threads`` at once; up to ``waiting`` calls wait at most ``patience`` seconds each for one."""

    def __init__(self, name: str, threads: int, waiting: int, patience: float) -> None:
        self.threads, self.waiting, self.patience = threads, waiting, patience
        self._limiter: RunVar[CapacityLimiter] = RunVar(f"starrynight.{name}")  # one for each event loop

    async def run(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Call it in a thread. Raises ``Busy`` if no thread is free in time, and what the call raises."""
        limiter, borrower = _of_this_loop(self._limiter, self.threads), object()
        if limiter.statistics().tasks_waiting >= self.waiting:
            raise _busy()
        try:
            with anyio.fail_after(self.patience):
                await limiter.acquire_on_behalf_of(borrower)
        except TimeoutError:
            raise _busy() from None
        try:
            unlimited = _of_this_loop(_UNLIMITED, math.inf)
            return await to_thread.run_sync(functools.partial(call, *args, **named), limiter=unlimited)
        finally:
            limiter.release_on_behalf_of(borrower)

    def route(self, call: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        """Make a blocking route run in this pool."""

        @functools.wraps(call)
        async def endpoint(*args: P.args, **named: P.kwargs) -> T:
            return await self.run(call, *args, **named)

        return endpoint


_UNLIMITED: RunVar[CapacityLimiter] = RunVar("starrynight.unlimited")
READERS = 16  # threads of the routes that only read the database; set where the server starts
WRITERS = Pool("writers", threads=4, waiting=256, patience=5.0)
FILES = Pool("files", threads=8, waiting=500, patience=10.0)
DECODERS = Pool("decoders", threads=MAX_DECODERS, waiting=500, patience=30.0)
UPSCALERS = Pool("upscalers", threads=1, waiting=4, patience=60.0)  # each takes every core for seconds
SENSES = Pool("senses", threads=4, waiting=64, patience=60.0)  # a model at an address may take minutes
POLLER = Pool("poller", threads=1, waiting=8, patience=30.0)


def _of_this_loop(variable: RunVar[CapacityLimiter], tokens: float) -> CapacityLimiter:
    try:
        return variable.get()
    except LookupError:
        limiter = CapacityLimiter(tokens)
        variable.set(limiter)
        return limiter


def _busy() -> Busy:
    return Busy("The server is busy; try again in a few seconds.", "服务器正忙；请几秒后再试。")
