"""``Supervisor``: keeps one worker process alive, and records in the queue how each worker died. ``Supervisors``: several on
this machine, which lease from one queue.

Does not import torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from starrynight.errors import BadRequest, StorageError
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.jobs.leases import record_death, release_worker
from starrynight.settings import environment

STABLE_AFTER = 30.0  # seconds a worker must live for its successor to start without a pause
MAX_PAUSE = 30.0  # seconds between two workers that die early; the pause doubles from 0.5 s
STORAGE_RETRY = 2.0  # seconds before a failed database write is tried again

log = logging.getLogger("starrynight.supervisor")


# Run in a process of its own, because the one that serves stays without torch.
_LOOK = """
import json, sys
from starrynight.errors import BadRequest
from starrynight.numerics.device import named
try:
    named(sys.argv[1])
except BadRequest as error:
    print(json.dumps([error.en, error.zh]))
"""


def check_device(name: str | None) -> None:
    """Raises BadRequest for a device that is not on this machine. None, the best one, and "cpu" always are."""
    if name in (None, "cpu"):
        return
    looked = subprocess.run(
        [sys.executable, "-c", _LOOK, name], stdout=subprocess.PIPE, text=True, check=False
    )
    if found := looked.stdout.strip():
        raise BadRequest(*json.loads(found.splitlines()[-1]))


class Supervisor:
    """A worker runs between ``start`` and ``stop``. ``device``: the painter's; None for the best one. ``json_logs``: the
    worker logs as JSON lines. ``cores``: threads that it computes with (None: torch decides). ``number``: from 0, among the
    workers of one service; the first also paints for the shell. ``card``: which device of its kind it takes (None: the first).
    ``own_group``: in a process group of its own, where whoever started us kills ours. ``batch``: pictures that a worker paints as one, at most.
    """

    def __init__(
        self, gallery: Gallery, device: str | None = None, json_logs: bool = False, *, cores: int | None = None,
        number: int = 0, card: int | None = None, own_group: bool = False, batch: int = 1,
    ) -> None:  # fmt: skip
        self.gallery, self.device, self.json_logs = gallery, device, json_logs
        self.cores, self.number, self.card, self.own_group = cores, number, card, own_group
        self.batch = batch
        self.process: subprocess.Popen[str] | None = None
        self.worker = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Ask the worker to finish its step and put its job back; kill it after ``timeout`` seconds."""
        self._stopping.set()
        if process := self.process:
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(RuntimeError):  # never started
            self._thread.join(timeout)
        with contextlib.suppress(StorageError):
            release_worker(self.gallery.database, self.worker)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _keep_alive(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            self.worker, born = secrets.token_hex(8), time.monotonic()
            cause = exit_cause(self._spawn(self.worker).wait())
            if self._stopping.is_set():
                return
            log.warning("the worker ended (%s)", cause.en)
            self._record(self.worker, cause)
            lived = time.monotonic() - born
            pause = 0.0 if lived > STABLE_AFTER else min(MAX_PAUSE, pause * 2 + 0.5)

    def _spawn(self, worker: str) -> subprocess.Popen[str]:
        """Start a worker and send it a line of JSON for ``worker.main``. Its stdin stays open as long as we live."""
        command = [sys.executable, "-m", "starrynight.jobs.worker"]
        threads = {} if self.cores is None else {"OMP_NUM_THREADS": str(self.cores)}
        self.process = process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            text=True,
            env=environment(**threads),
            start_new_session=self.own_group,
        )
        name = (self.device or "best") + (f"#{self.number}" if self.number else "")
        payload = {"place": self.gallery.place, "files": self.gallery.files_at, "device": self.device,
                   "worker": worker, "json_logs": self.json_logs, "card": self.card, "batch": self.batch,
                   "for_shell": self.number == 0, "holds": f"{socket.gethostname()}/{name}"}  # fmt: skip
        with contextlib.suppress(OSError):  # the worker died already; the caller's wait() notices
            process.stdin.write(json.dumps(payload, allow_nan=False) + "\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        return process

    def _record(self, worker: str, cause: Text) -> None:
        while not self._stopping.is_set():
            try:
                record_death(self.gallery.database, worker, cause)
                return
            except StorageError as error:
                log.warning("%s", error)
                self._stopping.wait(STORAGE_RETRY)


class Supervisors:
    """``count`` workers on this machine, with an equal share of its cores each, or ``cores``; each takes a card of its own
    where there are several."""

    def __init__(
        self, gallery: Gallery, device: str | None = None, json_logs: bool = False, *, count: int = 1,
        cores: int | None = None, batch: int = 1,
    ) -> None:  # fmt: skip
        if cores is None and count > 1:
            cores = max(1, usable_cores() // count)
        self.each = [
            Supervisor(
                gallery,
                device,
                json_logs,
                cores=cores,
                number=number,
                card=number if count > 1 else None,
                batch=batch,
            )
            for number in range(count)
        ]

    def start(self) -> None:
        for one in self.each:
            one.start()

    def stop(self) -> None:
        with ThreadPoolExecutor(len(self.each)) as pool:
            list(pool.map(Supervisor.stop, self.each))

    @property
    def alive(self) -> bool:
        return any(one.alive for one in self.each)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def exit_cause(code: int) -> Text:
    """Why a process ended, from its return code (negative: a signal, as ``subprocess`` has it)."""
    if code >= 0:
        return Text(f"it exited with code {code}", f"以代码 {code} 退出")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    # Linux's out-of-memory killer sends SIGKILL.
    hint = (
        Text(" (often: out of memory)", "（常见原因：内存不足）") if -code == signal.SIGKILL else Text("", "")
    )
    return Text(f"killed by {name}{hint.en}", f"被 {name} 终止{hint.zh}")
