"""Measures a lab run in a process of its own: ``python -m starrynight.web.measure FOLDER``. A new folder gets the quick
plan; one that was begun goes on where it stopped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from starrynight.picture import storage_error


def begin(folder: Path) -> None:
    """Start it and leave it alone; it outlives the page, and a second one on the same run gives up by itself.

    Raises ``StorageError`` if the folder may not be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            command = [sys.executable, "-m", "starrynight.web.measure", str(folder)]
            subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
    except OSError as error:
        raise storage_error(folder, error) from error


def new_folder(home: Path) -> Path:
    return home / f"{datetime.now():%Y-%m-%d-%H%M%S}"


def main(folder: Path) -> None:
    from starrynight.lab import runner
    from starrynight.lab.plan import quick
    from starrynight.lab.run import PLAN, Run

    if hasattr(os, "nice"):
        os.nice(10)  # whoever paints meanwhile goes first
    run = Run.open(folder) if (folder / PLAN).is_file() else Run.create(folder, quick())
    runner.measure(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
