"""The folder of a run: its plan, rows and pictures. Every measured number is in one line of ``results.jsonl``.

    plan.json        what to measure
    machine.json     the machine and library versions it was measured with
    results.jsonl    {"key", "experiment", "model", "format", "prompt", "seed", "seconds", "cpu", "at", "result"} a line;
                     of a quantised model also "stored", {component: format of its files}
    pictures/        8-bit PNG, lossless
    raw/             float pixels and latents of each painting, until everything is measured
    report.html · report.md · report.json

A row is written with one write and synced; if a kill leaves half a line at the end, it is cut off when measuring starts
again. One process measures a run at a time. This module imports no torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from starrynight.errors import BadFile, BadRequest, MissingFile
from starrynight.lab.plan import ExperimentPlan, Point, quick
from starrynight.storage import make_folder, read_regular, storing, write_atomic

LOCK_ATTEMPTS = 10  # half a second in all: ``busy`` of another process holds the lock for an instant
RESULTS, PLAN, MACHINE = "results.jsonl", "plan.json", "machine.json"


@dataclass
class ExperimentRun:
    """An open run; make one with ``create`` or ``open``."""

    folder: Path
    plan: ExperimentPlan
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path, plan: ExperimentPlan) -> ExperimentRun:
        """A new run in ``folder``, or the existing one with its plan grown by ``plan``. Raises BadRequest if the folder
        holds something else or the plans do not fit together.
        """
        if (folder / PLAN).is_file():
            run = cls.open(folder)
            run.plan = run.plan.grown(plan)
        elif folder.exists() and any(folder.iterdir()):
            raise BadRequest(
                f"{folder} is not empty and not a lab run; choose an empty folder.",
                f"{folder} 里已有别的内容，不是实验文件夹；请另选一个空文件夹。",
            )
        else:
            run = cls(folder, plan)
        run.write(PLAN, run.plan.to_json())
        return run

    @classmethod
    def start(cls, folder: Path, changes: Mapping[str, Any], small: bool = False) -> ExperimentRun:
        """The existing run in ``folder`` with its plan grown by ``changes``, or a new run whose plan differs from the
        default by ``changes``. ``small``: a new run, or the growth, follows the quick plan. Raises as ``create``.
        """
        base = cls.open(folder).plan if (folder / PLAN).is_file() else None
        if small:
            kept: dict[str, Any] = {"size": base.size} if base else {}
            return cls.create(folder, quick(**(kept | dict(changes))))
        base = base or ExperimentPlan()
        return cls.create(folder, replace(base, **changes))

    @classmethod
    def open(cls, folder: Path) -> ExperimentRun:
        """Read a run and its rows. Raises MissingFile if the folder holds none."""
        try:
            plan = ExperimentPlan.from_dict(json.loads(read_regular(folder, PLAN)))
        except (OSError, ValueError, TypeError, BadFile) as error:
            raise MissingFile(
                f"{folder} is not a lab run: {PLAN} is missing or cannot be read. starry lab list shows the runs here.",
                f"{folder} 不是实验文件夹：没有 {PLAN}，或无法读取。starry lab list 可列出本机的实验。",
            ) from error
        run = cls(folder, plan)
        run.rows = {row["key"]: row for row in read_rows(folder / RESULTS)}
        return run

    def write(self, name: str, text: str) -> None:
        """Write a file of the run's folder whole. Raises StorageError."""
        with storing(self.folder / name):
            write_atomic(self.folder / name, text.encode(), overwrite=True)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Lock the run for this process and read its rows anew. Raises BadRequest if another process measures it."""
        make_folder(self.folder)
        with (self.folder / ".lock").open("w") as lock:
            if not _try_lock(lock, fcntl.LOCK_EX, LOCK_ATTEMPTS):
                raise BadRequest(
                    f"Another process is measuring {self.folder}; wait for it or stop it.",
                    f"另一个进程正在测量 {self.folder}；请等待它或停止它。",
                )
            cut_torn_end(self.folder / RESULTS)
            self.rows = {row["key"]: row for row in read_rows(self.folder / RESULTS)}
            yield

    def is_busy(self) -> bool:
        """Whether a process is measuring this run now."""
        try:
            with (self.folder / ".lock").open("r") as lock:
                return not _try_lock(lock, fcntl.LOCK_SH)
        except OSError:
            return False

    def add(
        self,
        point: Point,
        result: dict[str, Any],
        seconds: float,
        cpu: float,
        at: float,
        stored: Mapping[str, str] | None = None,
    ) -> None:
        """Append a row and sync it. ``seconds``, ``cpu``: wall and CPU time it took; ``at``: Unix time. ``stored``: component →
        the quantised format of the model's files. Raises StorageError.
        """
        measured = {"seconds": round(seconds, 3), "cpu": round(cpu, 3), "at": round(at, 1), "result": result}
        row = {"key": point.key, **asdict(point), **measured} | ({"stored": dict(stored)} if stored else {})
        line = json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n"
        with storing(self.folder / RESULTS), (self.folder / RESULTS).open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows[point.key] = json.loads(line)

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    def picture(self, model: str, format_: str, prompt: int, seed: int) -> Path:
        """The path of a painting's PNG; there is no file if the picture was refused."""
        return self.pictures / f"{file_name(model, format_, prompt, seed)}.png"

    def raw(self, model: str, format_: str, prompt: int, seed: int) -> Path:
        """The path of a painting's float pixels and latents while the run is unfinished."""
        return self.folder / "raw" / f"{file_name(model, format_, prompt, seed)}.npz"

    def machine(self) -> dict[str, Any]:
        """``machine.json``; {} before the first measurement."""
        try:
            return dict(json.loads(read_regular(self.folder, MACHINE)))
        except (OSError, ValueError, BadFile):
            return {}


def _try_lock(lock: IO[str], kind: int, tries: int = 1) -> bool:
    """Try to lock an open file; the lock is released when the file is closed."""
    for _ in range(tries):
        with suppress(OSError):
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file; half a line at the end is ignored. Raises BadFile for a line that is no row."""
    if not path.is_file():
        return []
    whole, _newline, _torn = path.read_bytes().rpartition(b"\n")
    return [
        _read_row(path, number, line) for number, line in enumerate(whole.splitlines(), 1) if line.strip()
    ]


def _read_row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if isinstance(row["key"], str):
            return row
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise BadFile(
        f"Line {number} of {path} is no result; remove the line, and the lab measures it again.",
        f"{path} 第 {number} 行不是实验结果；请删去这一行，实验会重新测量。",
    )


def cut_torn_end(path: Path) -> None:
    """Remove half a line that a kill left at the end, so that the next row starts a line of its own."""
    if path.is_file():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def file_name(model: str, format_: str, prompt: int, seed: int) -> str:
    """The name of a painting's files."""
    return f"{slug(model)}-{format_}-{prompt}-{seed}"


def slug(model: str) -> str:
    """A model's name as part of a file name. A folder or a hub id gets a hash, since two may end in the same name."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(model).name) or "model"
    return safe if safe == model else f"{safe}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"


def plain(value: Any) -> Any:
    """A value as JSON can hold it: infinities and NaN become the strings "inf", "-inf" and "nan"."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def number(value: Any) -> float:
    """The inverse of ``plain`` for one number; None becomes NaN."""
    return math.nan if value is None else float(value)
