"""A run's folder: the plan, the rows, the pictures. Every number ever measured is one line of ``results.jsonl``.

    plan.json        what is to be measured
    machine.json     where and with what it was measured
    results.jsonl    {"key", "experiment", "model", "format", "prompt", "seed", "seconds", "cpu", "at", "result"} a line
    pictures/        8-bit PNG, lossless
    raw/             float pixels and latents of each painting, until everything is measured
    report.html · report.md · report.json

A row is there whole or not at all: it is written with one write and synced, and the torn end that a kill may leave is
cut off when the folder is opened again. One process measures at a time. Knows files; nothing of torch.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from starrynight.errors import BadRequest, MissingFile
from starrynight.lab.plan import ExperimentPlan, Point
from starrynight.storage import storage_error, write_atomic

LOOKS = 10  # half a second: whoever only looks whether a run is busy holds its lock for an instant
RESULTS, PLAN, MACHINE = "results.jsonl", "plan.json", "machine.json"


@dataclass
class ExperimentRun:
    """An open run; make one with ``create`` or ``open``."""

    folder: Path
    plan: ExperimentPlan
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path, plan: ExperimentPlan) -> ExperimentRun:
        """A new run in ``folder``, or the one that is there with its plan grown by ``plan``."""
        if (folder / PLAN).is_file():
            run = cls.open(folder)
            run.plan = run.plan.grown(plan)
        elif folder.exists() and any(folder.iterdir()):
            raise BadRequest(
                f"{folder} holds something that is no lab run; name an empty folder.",
                f"{folder} 里已有别的内容，不是实验文件夹；请另选一个空文件夹。",
            )
        else:
            run = cls(folder, plan)
        run.write(PLAN, run.plan.to_json())
        return run

    @classmethod
    def open(cls, folder: Path) -> ExperimentRun:
        """Raises MissingFile if there is no run."""
        try:
            plan = ExperimentPlan.from_dict(json.loads((folder / PLAN).read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise MissingFile(
                f"{folder} is no lab run: its {PLAN} cannot be read.",
                f"{folder} 不是实验文件夹：无法读取 {PLAN}。",
            ) from error
        run = cls(folder, plan)
        run.rows = {row["key"]: row for row in read_rows(folder / RESULTS)}
        return run

    def write(self, name: str, text: str) -> None:
        write_atomic(self.folder / name, text.encode(), overwrite=True)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Alone with this run. Raises BadRequest if another process is measuring it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            if not _taken(lock, fcntl.LOCK_EX, LOOKS):
                raise BadRequest(
                    f"Another process is measuring {self.folder}; wait for it or stop it.",
                    f"另一个进程正在测量 {self.folder}；请等待它或停止它。",
                )
            cut_torn_end(self.folder / RESULTS)
            self.rows = {row["key"]: row for row in read_rows(self.folder / RESULTS)}
            yield

    @property
    def busy(self) -> bool:
        """Whether a process is measuring this run right now."""
        try:
            with (self.folder / ".lock").open("r") as lock:
                return not _taken(lock, fcntl.LOCK_SH)
        except OSError:
            return False

    def add(self, point: Point, result: dict[str, Any], seconds: float, cpu: float, at: float) -> None:
        """Keep a measurement, for good. ``seconds`` of wall and ``cpu`` it took; ``at``: when, since 1970."""
        row = {
            "key": point.key,
            **asdict(point),
            "seconds": round(seconds, 3),
            "cpu": round(cpu, 3),
            "at": round(at, 1),
            "result": result,
        }
        line = json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with (self.folder / RESULTS).open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(self.folder, error) from error
        self.rows[point.key] = json.loads(line)

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    def picture(self, model: str, format_: str, prompt: int, seed: int) -> Path:
        """Where a painting's PNG is (if it was not refused)."""
        return self.pictures / f"{file_name(model, format_, prompt, seed)}.png"

    def raw(self, model: str, format_: str, prompt: int, seed: int) -> Path:
        return self.folder / "raw" / f"{file_name(model, format_, prompt, seed)}.npz"

    def machine(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / MACHINE).read_text("utf-8")))
        except (OSError, ValueError):
            return {}


def _taken(lock: IO[str], kind: int, tries: int = 1) -> bool:
    """Whether a lock could be had; it is let go of when the file is closed."""
    for _ in range(tries):
        with suppress(OSError):
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a results file; a torn last one is left out."""
    if not path.is_file():
        return []
    whole, newline, _torn = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines() if line.strip()] if newline else []


def cut_torn_end(path: Path) -> None:
    """A kill in the middle of a write may leave half a line; the next must not be glued to it."""
    if path.is_file():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def file_name(model: str, format_: str, prompt: int, seed: int) -> str:
    """Path-safe: a model may be a folder or a hub id, and two folders may end alike."""
    return f"{slug(model)}-{format_}-{prompt}-{seed}"


def slug(model: str) -> str:
    import hashlib

    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(model).name) or "model"
    return safe if safe == model else f"{safe}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"


def plain(value: Any) -> Any:
    """JSON's own values: numbers that JSON cannot hold become the words "inf", "-inf" and "nan"."""
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
    """The number behind a value of a row; None is NaN."""
    return math.nan if value is None else float(value)
