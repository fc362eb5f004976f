"""What experiments measure with: painters ready in every format, and paintings that are each made once.

A painting is kept in the run's ``raw`` folder with its float pixels and the latents of every step. A killed run resumes
from there, and every experiment measures the same painting.
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from PIL import Image

from starrynight.errors import BrokenNumbers
from starrynight.i18n import Text
from starrynight.lab import formats
from starrynight.lab.metrics import eight_bits
from starrynight.lab.plan import PROMPTS, REFERENCE, Point
from starrynight.lab.run import ExperimentRun
from starrynight.request import PaintRequest
from starrynight.storage import write_atomic
from starrynight.studio import make_request

if TYPE_CHECKING:
    from starrynight.lab.formats import FormatPainter
    from starrynight.painting.painter import Step

FIRST_SEED = 1
# Loaded painters may take this share of the machine's memory; beyond it the oldest is dropped.
MEMORY_SHARE = 0.2


@dataclass(frozen=True)
class Painting:
    """``pixels``: float32 [H, W, 3], None if the guard refused the picture. ``latents``: float32 [steps done, …].

    ``seconds``: wall time. ``refusal``: the guard's message. ``stage``, ``step`` (from 0) and ``module``: where the numbers
    broke, as far as it is known.
    """

    pixels: np.ndarray | None
    latents: np.ndarray
    seconds: float
    refusal: Text | None = None
    stage: str = ""
    step: int | None = None
    module: str = ""


class Bench:
    """Painters and paintings of one run."""

    def __init__(self, run: ExperimentRun, device: str | None = None) -> None:
        self.run, self.plan, self.device = run, run.plan, device
        self._painters: dict[tuple[str, str], FormatPainter] = {}

    def request(self, model: str, prompt: int = 0, seed: int = 0) -> PaintRequest:
        """The request for picture (``prompt``, ``seed``) of the plan; ``load_painter`` sets its precision."""
        (text, style), plan = PROMPTS[prompt], self.plan
        return make_request(
            prompt=text, style=style, seed=FIRST_SEED + seed, model=formats.catalogue_name(model), precision="float32",
            width=plan.size, height=plan.size, steps=plan.steps,
        )  # fmt: skip

    def painter(self, model: str, format_: str) -> FormatPainter:
        """A painter of ``model`` in ``format_``, loaded on first use and kept while memory allows."""
        key = (model, format_)
        if key not in self._painters:
            self._drop_oldest()
            self._painters[key] = formats.load_painter(model, format_, self.request(model), self.device)
        return self._painters[key]

    def _drop_oldest(self) -> None:
        def bytes_of(painter: FormatPainter) -> int:
            # An emulation keeps float32 copies of 16-bit weights.
            return painter.bytes * (3 if painter.emulated else 1)

        allowed = MEMORY_SHARE * psutil.virtual_memory().total
        while self._painters and sum(map(bytes_of, self._painters.values())) > allowed:
            del self._painters[next(iter(self._painters))]

    def reference(self, point: Point) -> Painting:
        """The float32 painting of the same model, prompt and seed."""
        return self.painting(Point("", point.model, REFERENCE, point.prompt, point.seed))

    def painting(self, point: Point, painter: FormatPainter | None = None) -> Painting:
        """The painting of a point, read from the raw folder; painted and kept there if it is missing. ``painter``: instead of that
        of the point's format.
        """
        kept = self.run.raw(point.model, point.format, *point.picture)
        if not kept.is_file():
            painting = self._paint(point, painter or self.painter(point.model, point.format))
            if painting.pixels is not None:
                self._write_png(point, painting.pixels)
            write_atomic(kept, packed(painting), overwrite=True)
        return unpacked(kept.read_bytes())

    def _paint(self, point: Point, painter: FormatPainter) -> Painting:
        request = self.request(point.model, *point.picture)
        latents: list[np.ndarray] = []

        def keep_latents(step: Step) -> None:
            assert step.latents is not None  # the model is on this machine
            latents.append(step.latents.detach().float().cpu().numpy().copy())

        start = time.perf_counter()
        pixels, refusal, fault = None, None, None
        try:
            pixels = formats.paint(painter, request, keep_latents)
        except BrokenNumbers as error:
            refusal, fault = Text(error.en, error.zh), error.fault
        return Painting(
            pixels, np.stack(latents) if latents else np.zeros((0, 1), np.float32), time.perf_counter() - start,
            refusal, fault.stage if fault else "", fault.step if fault else None, fault.module if fault else "",
        )  # fmt: skip

    def _write_png(self, point: Point, pixels: np.ndarray) -> None:
        data = io.BytesIO()
        Image.fromarray(eight_bits(pixels)).save(data, "PNG")
        path = self.run.picture(point.model, point.format, *point.picture)
        write_atomic(path, data.getvalue(), overwrite=True)


def packed(painting: Painting) -> bytes:
    """A painting as npz bytes: exact floats, and "story": the other fields as JSON."""
    others = {name: getattr(painting, name) for name in ("seconds", "module", "refusal", "stage", "step")}
    arrays: dict[str, Any] = {
        "latents": painting.latents,
        "story": np.array(json.dumps(others, allow_nan=False)),
    }
    if painting.pixels is not None:
        arrays["pixels"] = painting.pixels
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def unpacked(data: bytes) -> Painting:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        others = json.loads(str(arrays["story"]))
        others["refusal"] = Text(*others["refusal"]) if others["refusal"] else None
        return Painting(arrays.get("pixels", None), arrays["latents"], **others)
