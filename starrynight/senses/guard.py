"""Run a command until it ends, or until our standard input closes: so that no server outlives the process that started it.

    python guard.py COMMAND ...

The parent holds the other end of our standard input, which the system closes however the parent ends, also by SIGKILL. Run by
its path, alone: it imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE = 5.0  # seconds from asking the command to end to killing it


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then closes our input
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # nosec: the parent's own words
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=_end_with_parent, args=(child,), daemon=True).start()
    return child.wait()


def _end_with_parent(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main())
