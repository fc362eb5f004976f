"""Runs an experiment in a process of its own: ``python -m starrynight.lab.background FOLDER``.

A new folder gets the quick plan; a run that was begun continues where it stopped. The browser's lab page starts, stops
and watches such processes through the run's files alone, so the server never loads torch.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from starrynight.errors import Cancelled
from starrynight.storage import make_folder, storing

STOP = "stop"  # a file in the run's folder that asks its process to end


def start(folder: Path) -> None:
    """Start a detached process that outlives the caller; a second one on the same run exits by itself.

    Its output goes to ``FOLDER.log`` beside the folder. Raises ``StorageError`` if that cannot be written.
    """
    with storing(folder):
        make_folder(folder.parent)
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            command = [sys.executable, "-m", "starrynight.lab.background", str(folder)]
            subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )


def request_stop(folder: Path) -> None:
    """Ask the run's process to stop after its current measurement; no result is lost. Raises ``StorageError``."""
    with storing(folder):
        (folder / STOP).touch()


def stop_requested(folder: Path) -> bool:
    return (folder / STOP).exists()


def new_folder(home: Path) -> Path:
    """A folder named by the time, so that sorting by name is sorting by age."""
    return home / f"{datetime.now():%Y%m%d-%H%M%S}"


def main(folder: Path) -> None:
    from starrynight.lab import runner
    from starrynight.lab.plan import quick
    from starrynight.lab.run import PLAN, ExperimentRun

    if hasattr(os, "nice"):
        os.nice(10)  # painting has priority over experiments
    run = ExperimentRun.open(folder) if (folder / PLAN).is_file() else ExperimentRun.create(folder, quick())
    (folder / STOP).unlink(missing_ok=True)

    def cancel_on_request(_progress: runner.RunProgress) -> None:
        if stop_requested(folder):
            raise Cancelled

    with contextlib.suppress(Cancelled):
        runner.measure(run, on_progress=cancel_on_request)
    (folder / STOP).unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
