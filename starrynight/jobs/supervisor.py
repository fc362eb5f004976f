"""``Supervisor``: keeps one worker process alive for a device, and tells the queue how each of them died.

Knows processes; nothing of what they paint. Does not import torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time

from starrynight.errors import StorageError
from starrynight.gallery.store import Gallery
from starrynight.jobs.leases import mourn, release

CALM = 30.0  # seconds a worker must live for the next to be started at once
LONGEST_PAUSE = 30.0

log = logging.getLogger("starrynight.supervisor")


class Supervisor:
    """``start`` and ``stop``; between them a worker runs. ``device`` as the painter takes it (None: the best)."""

    def __init__(self, gallery: Gallery, device: str | None = None) -> None:
        self.gallery, self.device = gallery, device
        self.process: subprocess.Popen[str] | None = None
        self.worker = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float = 10.0) -> None:
        """Let the worker finish its step and hand its job back; then kill it if it does not."""
        self._ending.set()
        if process := self.process:
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(RuntimeError):  # never started
            self._thread.join(patience)
        with contextlib.suppress(StorageError):
            release(self.gallery.database, self.worker)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _keep_alive(self) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            self.worker, born = secrets.token_hex(8), time.monotonic()
            code = self._spawn(self.worker).wait()
            if self._ending.is_set():
                return
            log.warning("the worker ended (%s)", how(code)[0])
            self._tell(self.worker, how(code))
            lived = time.monotonic() - born
            pause = 0.0 if lived > CALM else min(LONGEST_PAUSE, pause * 2 + 0.5)

    def _spawn(self, worker: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "starrynight.jobs.worker"]
        self.process = process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        told = {"place": self.gallery.place, "files": self.gallery.files_at, "device": self.device, "worker": worker,
                "holds": f"{socket.gethostname()}/{self.device or 'best'}"}  # fmt: skip
        with contextlib.suppress(OSError):  # it may have died already; wait() will tell
            process.stdin.write(json.dumps(told) + "\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        return process

    def _tell(self, worker: str, reason: tuple[str, str]) -> None:
        while not self._ending.is_set():
            try:
                mourn(self.gallery.database, worker, reason)
                return
            except StorageError as error:
                log.warning("%s", error)
                self._ending.wait(2.0)


def how(code: int) -> tuple[str, str]:
    """How a process ended, in words."""
    if code >= 0:
        return f"it exited with code {code}", f"以代码 {code} 退出"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    often = (" (often: out of memory)", "（常见原因：内存不足）") if -code == signal.SIGKILL else ("", "")
    return f"killed by {name}{often[0]}", f"被 {name} 终止{often[1]}"
