"""What a long calibration has learnt so far, written down as it goes, so that a run that was killed goes on.

A folder under STARRY_HOME/cache/calibrations. Nothing in it is needed: what is missing or cannot be read is measured
again. Holds traces as text, pictures and a denoiser's answers as safetensors; knows no pipeline and decides nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils._pytree import tree_flatten, tree_unflatten, treespec_dumps, treespec_loads

from starrynight.numerics.trace import Trace
from starrynight.settings import settings
from starrynight.storage import write_cache

# A trace is written down again once this many times as long has passed as writing it took: at most 5 % of a run.
RARELY = 20


def calibration_cache(*about: object) -> CalibrationCache:
    """The notebook about exactly this."""
    digest = hashlib.sha256("\n".join(map(repr, about)).encode()).hexdigest()
    return CalibrationCache(settings().cache / "calibrations" / digest[:32])


class CalibrationCache:
    """One folder: a trace and how far it came; tensors by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written, self._took = 0.0, 0.0

    def trace(self) -> tuple[Trace, int | None] | None:
        """What was learnt, and after how many answers of the denoiser; None instead of a number: all of it."""
        try:
            told = json.loads((self.folder / "trace.json").read_text("utf-8"))
            return Trace.from_json(told["trace"]), told["answers"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_trace(self, trace: Trace, answers: int | None) -> None:
        """Write it down: when all is learnt, or when it is time again."""
        begin = time.monotonic()
        if answers is not None and begin - self._written < RARELY * self._took:
            return
        text = json.dumps({"answers": answers, "trace": trace.to_json()})
        write_cache(self.folder / "trace.json", text.encode())
        self._written = time.monotonic()
        self._took = self._written - begin

    def keep(self, name: str, value: Any) -> None:
        """Tensors nested in lists, tuples and dicts. What cannot be written so is not, and neither on a full disk."""
        leaves, spec = tree_flatten(value)
        if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            return
        # copies: parts of one tensor, as an unbound batch is, cannot be written side by side
        tensors = {
            str(number): leaf.detach().cpu().clone(memory_format=torch.contiguous_format)
            for number, leaf in enumerate(leaves)
        }
        place, fresh = self.folder / f"{name}.safetensors", self.folder / f"{name}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, fresh, {"format": "pt", "nesting": treespec_dumps(spec)})
            fresh.replace(place)
        except (OSError, SafetensorError, NotImplementedError):
            with suppress(OSError):
                fresh.unlink()

    def kept(self, name: str, device: torch.device | str = "cpu") -> Any | None:
        """What was kept under the name; None if nothing was that can be read."""
        try:
            with safe_open(self.folder / f"{name}.safetensors", framework="pt", device=str(device)) as file:
                leaves = [file.get_tensor(str(number)) for number in range(len(file.keys()))]
                return tree_unflatten(leaves, treespec_loads(file.metadata()["nesting"]))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, NotImplementedError):
            return None

    def forget(self, pattern: str = "*") -> None:
        """Remove what is not needed any more."""
        for path in self.folder.glob(pattern):
            path.unlink(missing_ok=True)
        if pattern == "*":
            shutil.rmtree(self.folder, ignore_errors=True)


class OutputReplay:
    """A denoiser's answers in one picture: ``known`` ones are given again instead of computed, new ones are written down.

    A step of a large model takes minutes, its answer a moment to read.
    """

    def __init__(self, book: CalibrationCache, denoiser: Any, known: int) -> None:
        self.book, self.denoiser = book, denoiser
        device = next((p.device for p in denoiser.parameters() if not p.is_meta), "cpu")
        self.known = _leading([book.kept(f"answer-{number}", device) for number in range(known)])
        self.given = 0  # answers so far, known and new

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Call it within a trace: what is written down is written outside of the network that is watched."""
        compute: Callable[..., Any] = self.denoiser.forward

        def answer(*args: Any, **kwargs: Any) -> Any:
            return self.known[self.given] if self.given < len(self.known) else compute(*args, **kwargs)

        def write_down(module: Any, args: Any, output: Any) -> None:
            if self.given >= len(self.known):
                self.book.keep(f"answer-{self.given}", output)
            self.given += 1

        hook = self.denoiser.register_forward_hook(write_down)
        self.denoiser.forward = answer
        try:
            yield
        finally:
            hook.remove()
            del self.denoiser.forward  # the class's own is behind it


def _leading(answers: Sequence[Any | None]) -> list[Any]:
    """Up to the first that is missing: what comes after it was an answer to another question."""
    found = []
    for answer in answers:
        if answer is None:
            break
        found.append(answer)
    return found
