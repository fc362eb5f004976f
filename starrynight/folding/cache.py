"""What folding keeps under STARRY_HOME/cache: finished folds, and how far a long calibration has come.

Finished folds (``folds/``) are stored by the fingerprint of the weights and the versions of the code that computed them.
An unfinished calibration (``calibrations/``) stores traces as JSON, and pictures and denoiser outputs as safetensors, so
that a run that was killed resumes. Nothing here is needed: what is missing or unreadable is computed again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.utils._pytree import tree_flatten, tree_unflatten, treespec_dumps, treespec_loads

from starrynight import numerics
from starrynight.models.catalogue import LocalModel
from starrynight.numerics.measured import Trace
from starrynight.numerics.precision import UNCHANGED
from starrynight.numerics.solve import FoldPlan
from starrynight.settings import settings
from starrynight.storage import write_cache

# A change in one of these files of numerics/ can change a plan, so it makes cached plans stale.
SOURCES = (
    "rules.py",
    "exponents.py",
    "epsilons.py",
    "modules.py",
    "storages.py",
    "trace.py",
    "measured.py",
    "solve.py",
    "islands.py",
)

# A trace is written again once this many times as long has passed as writing it took: at most 5 % of a run.
WRITE_EVERY = 20


@dataclass(frozen=True)
class CalibrationSample:
    """One picture to trace."""

    prompt: str
    width: int
    height: int
    steps: int
    guidance: float
    seed: int = 0
    negative_prompt: str = ""


@dataclass(frozen=True)
class Folds:
    """A plan for the whole pipeline, names prefixed by component; the samples it was made from; its certificate.

    ``certificate``: format → relative error and PSNR in dB against float32, the worst of the held-out pictures (null where
    numbers broke or float32 did not fit into memory), "finite": folded float16 painted all of them, and "step": what
    ``numerics.step`` found (ops compared, error of the outputs, first op that changed, exact).
    """

    plan: FoldPlan
    samples: tuple[CalibrationSample, ...]
    certificate: dict[str, Any] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        return bool(self.certificate.get("finite"))

    @property
    def exact(self) -> bool:
        """Whether no op of the traced step changed and folded float32 painted the original's pictures, if it fit into memory."""
        step, measured = self.certificate.get("step"), self.certificate.get("float32-folded")
        if step is not None and not step["exact"]:
            return False
        return measured is None or (measured["error"] is not None and measured["error"] <= UNCHANGED)

    def usable(self, component: str) -> bool:
        """Whether the component runs in float16 by these folds; one that is an island as a whole does not, and none if
        the folds changed the function.
        """
        return (
            self.finite
            and self.exact
            and not {"", component, f"{component}.decoder"} & set(self.plan.islands)
        )

    def to_json(self) -> str:
        return json.dumps(
            {**asdict(self), "plan": json.loads(self.plan.to_json())}, ensure_ascii=False, indent=1
        )

    @classmethod
    def from_json(cls, text: str) -> Folds:
        """What ``to_json`` gave. Raises ValueError, KeyError or TypeError for anything else."""
        payload = json.loads(text)
        samples = tuple(CalibrationSample(**sample) for sample in payload["samples"])
        return cls(FoldPlan.from_json(json.dumps(payload["plan"])), samples, payload["certificate"])


def folds_path(model: LocalModel) -> Path:
    """Where the folds of exactly these weights, by exactly this code, are cached."""
    made_by = [version(name) for name in ("torch", "diffusers", "transformers")]
    digest = hashlib.sha256("\n".join([model.fingerprint, *made_by]).encode())
    for name in SOURCES:
        digest.update((Path(numerics.__file__).parent / name).read_bytes())
    return settings().cache / "folds" / f"{digest.hexdigest()[:32]}.json"


def cached_folds(model: LocalModel) -> Folds | None:
    """The folds made earlier, if there are any that can be read."""
    try:
        return Folds.from_json(folds_path(model).read_text("utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def calibration_cache(*key: object) -> CalibrationCache:
    """The cache of one calibration, identified by everything that its results depend on."""
    digest = hashlib.sha256("\n".join(map(repr, key)).encode()).hexdigest()
    return CalibrationCache(settings().cache / "calibrations" / digest[:32])


class CalibrationCache:
    """One folder: a trace and how far it came, and tensors by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written, self._took = 0.0, 0.0

    def trace(self) -> tuple[Trace, int | None] | None:
        """The stored trace and after how many denoiser outputs it was written; None instead of a number: complete."""
        try:
            stored = json.loads((self.folder / "trace.json").read_text("utf-8"))
            return Trace.from_json(stored["trace"]), stored["answers"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store_trace(self, trace: Trace, outputs: int | None) -> None:
        """Write the trace if it is complete (``outputs`` is None), or if enough time has passed since the last write."""
        begin = time.monotonic()
        if outputs is not None and begin - self._written < WRITE_EVERY * self._took:
            return
        text = json.dumps({"answers": outputs, "trace": trace.to_json()})
        write_cache(self.folder / "trace.json", text.encode())
        self._written = time.monotonic()
        self._took = self._written - begin

    def store(self, name: str, value: Any) -> None:
        """Tensors nested in lists, tuples and dicts; a value that holds anything else is not stored."""
        leaves, spec = tree_flatten(value)
        if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            return
        # Copies, because parts of one tensor, such as an unbound batch, cannot be saved side by side.
        tensors = {
            str(number): leaf.detach().cpu().clone(memory_format=torch.contiguous_format)
            for number, leaf in enumerate(leaves)
        }
        try:
            data = save(tensors, {"format": "pt", "nesting": treespec_dumps(spec)})
        except (SafetensorError, NotImplementedError):
            return
        write_cache(self.folder / f"{name}.safetensors", data)

    def stored(self, name: str, device: torch.device | str = "cpu") -> Any | None:
        """What was stored under the name; None if there is nothing that can be read."""
        try:
            with safe_open(self.folder / f"{name}.safetensors", framework="pt", device=str(device)) as file:
                leaves = [file.get_tensor(str(number)) for number in range(len(file.keys()))]
                return tree_unflatten(leaves, treespec_loads(file.metadata()["nesting"]))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, NotImplementedError):
            return None

    def record(self, name: str) -> dict[str, Any] | None:
        """A record by ``store_record``; None if there is none that can be read."""
        try:
            found = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def store_record(self, name: str, record: dict[str, Any]) -> None:
        """Numbers and texts."""
        write_cache(self.folder / f"{name}.json", json.dumps(record).encode())

    def remove(self, pattern: str = "*") -> None:
        """Remove files that are not needed any more; all of them and the folder by default."""
        for path in self.folder.glob(pattern):
            path.unlink(missing_ok=True)
        if pattern == "*":
            shutil.rmtree(self.folder, ignore_errors=True)


class OutputReplay:
    """Replays a denoiser's stored outputs in one picture instead of computing them, and stores new ones.

    A step of a large model takes minutes; reading its output takes a moment.
    """

    def __init__(self, cache: CalibrationCache, denoiser: Any, known: int) -> None:
        self.cache, self.denoiser = cache, denoiser
        device = next((p.device for p in denoiser.parameters() if not p.is_meta), "cpu")
        self.known = _leading([cache.stored(f"answer-{number}", device) for number in range(known)])
        self.given = 0  # outputs so far, replayed and new

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Use it inside of a trace, so that storing an output is not traced."""
        compute: Callable[..., Any] = self.denoiser.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self.known[self.given] if self.given < len(self.known) else compute(*args, **kwargs)

        def store(module: Any, args: Any, output: Any) -> None:
            if self.given >= len(self.known):
                self.cache.store(f"answer-{self.given}", output)
            self.given += 1

        hook = self.denoiser.register_forward_hook(store)
        self.denoiser.forward = forward
        try:
            yield
        finally:
            hook.remove()
            del self.denoiser.forward  # uncovers the class's own


def _leading(outputs: Sequence[Any | None]) -> list[Any]:
    """The leading run of stored outputs; later ones are invalid once a step is computed again."""
    found = []
    for output in outputs:
        if output is None:
            break
        found.append(output)
    return found
