"""Measures a lab run in a process of its own: ``python -m starrynight.web.measure FOLDER``. A new folder gets the quick
plan; one that was begun goes on where it stopped. It looks after every measurement whether it is asked to stop.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from starrynight.errors import Cancelled
from starrynight.storage import storing

STOP = "stop"  # a file in the run's folder: whoever measures it, stop


def begin(folder: Path) -> None:
    """Start it and leave it alone; it outlives the page, and a second one on the same run gives up by itself.

    Raises ``StorageError`` if the folder may not be written."""
    with storing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            command = [sys.executable, "-m", "starrynight.web.measure", str(folder)]
            subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )


def stop(folder: Path) -> None:
    """Ask whoever measures this run to stop after the measurement at hand; nothing is lost. Raises ``StorageError``."""
    with storing(folder):
        (folder / STOP).touch()


def stopping(folder: Path) -> bool:
    return (folder / STOP).exists()


def new_folder(home: Path) -> Path:
    return home / f"{datetime.now():%Y-%m-%d-%H%M%S}"


def main(folder: Path) -> None:
    from starrynight.lab import runner
    from starrynight.lab.plan import quick
    from starrynight.lab.run import PLAN, ExperimentRun

    if hasattr(os, "nice"):
        os.nice(10)  # whoever paints meanwhile goes first
    run = ExperimentRun.open(folder) if (folder / PLAN).is_file() else ExperimentRun.create(folder, quick())
    (folder / STOP).unlink(missing_ok=True)

    def asked(_progress: runner.Progress) -> None:
        if stopping(folder):
            raise Cancelled

    with contextlib.suppress(Cancelled):
        runner.measure(run, on_progress=asked)
    (folder / STOP).unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
