"""The bench that experiments work at: hands ready for every format, and each painting painted once.

A painting is kept in the run's ``raw`` folder with its float pixels and the latents of every step, so that a run that
was killed goes on from there, and every experiment measures the same one. Knows the painter; judges nothing.
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.errors import BrokenNumbers
from starrynight.lab import formats
from starrynight.lab.metrics import eight_bits
from starrynight.lab.plan import PROMPTS, REFERENCE, Point
from starrynight.lab.run import ExperimentRun
from starrynight.request import PaintRequest
from starrynight.storage import write_atomic

if TYPE_CHECKING:
    from starrynight.lab.formats import FormatPainter
    from starrynight.painting.painter import Step

FIRST_SEED = 1
# Hands kept ready may take this share of the machine's memory; beyond it the oldest is let go.
MEMORY_SHARE = 0.2


@dataclass(frozen=True)
class Painting:
    """``pixels`` float32 [H, W, 3], None if the painter refused; ``latents`` float32 [steps seen, …].

    ``refusal`` says why in English and Chinese; ``stage``, ``step`` (from 0) and ``module`` where, as far as it is
    known. ``seconds`` of wall time.
    """

    pixels: np.ndarray | None
    latents: np.ndarray
    seconds: float
    refusal: tuple[str, str] | None = None
    stage: str = ""
    step: int | None = None
    module: str = ""


class Bench:
    """Hands and paintings for one run."""

    def __init__(self, run: ExperimentRun, device: str | None = None) -> None:
        self.run, self.plan, self.device = run, run.plan, device
        self._hands: dict[tuple[str, str], FormatPainter] = {}

    def request(self, model: str, prompt: int = 0, seed: int = 0) -> PaintRequest:
        """What is asked of a model for picture (prompt, seed) of the plan."""
        from starrynight.studio import fill

        text, style = PROMPTS[prompt]
        plan = self.plan
        return fill(
            prompt=text, style=style, seed=FIRST_SEED + seed, model=formats.place_of(model), precision="float32",
            width=plan.size, height=plan.size, steps=plan.steps,
        )  # fmt: skip

    def hand(self, model: str, format_: str) -> FormatPainter:
        """A painter of ``model`` in ``format_``, kept while memory allows."""
        wanted = (model, format_)
        if wanted not in self._hands:
            self._make_room()
            self._hands[wanted] = formats.ready(model, format_, self.request(model), self.device)
        return self._hands[wanted]

    def _make_room(self) -> None:
        import psutil

        allowed = MEMORY_SHARE * psutil.virtual_memory().total
        while self._hands and sum(h.bytes * (3 if h.emulated else 1) for h in self._hands.values()) > allowed:
            del self._hands[next(iter(self._hands))]

    def reference(self, point: Point) -> Painting:
        """The float32 painting of the same model, prompt and seed."""
        return self.painting(Point("", point.model, REFERENCE, point.prompt, point.seed))

    def painting(self, point: Point) -> Painting:
        """The painting of a point: from the raw folder, or painted now and kept there."""
        assert point.prompt is not None
        assert point.seed is not None
        kept = self.run.raw(point.model, point.format, point.prompt, point.seed)
        if not kept.is_file():
            painting = self._paint(point)
            if painting.pixels is not None:
                self._hang(point, painting.pixels)
            write_atomic(kept, packed(painting), overwrite=True)
        return unpacked(kept.read_bytes())

    def _paint(self, point: Point) -> Painting:
        assert point.prompt is not None
        assert point.seed is not None
        request = self.request(point.model, point.prompt, point.seed)
        hand = self.hand(point.model, point.format)
        latents: list[np.ndarray] = []

        def watch(step: Step) -> None:
            latents.append(step.latents.detach().float().cpu().numpy().copy())

        start = time.perf_counter()
        pixels, refusal, fault = None, None, None
        try:
            pixels = formats.paint(hand, request, watch)
        except BrokenNumbers as error:
            refusal, fault = (error.en, error.zh), error.fault
        return Painting(
            pixels, np.stack(latents) if latents else np.zeros((0, 1), np.float32), time.perf_counter() - start,
            refusal, fault.stage if fault else "", fault.step if fault else None, fault.module if fault else "",
        )  # fmt: skip

    def _hang(self, point: Point, pixels: np.ndarray) -> None:
        from PIL import Image

        assert point.prompt is not None
        assert point.seed is not None
        data = io.BytesIO()
        Image.fromarray(eight_bits(pixels)).save(data, "PNG")
        path = self.run.picture(point.model, point.format, point.prompt, point.seed)
        write_atomic(path, data.getvalue(), overwrite=True)


def packed(painting: Painting) -> bytes:
    """npz: exact floats, and a JSON text for the rest."""
    story = {
        "seconds": painting.seconds,
        "module": painting.module,
        "refusal": painting.refusal,
        "stage": painting.stage,
        "step": painting.step,
    }
    arrays: dict[str, Any] = {"latents": painting.latents, "story": np.array(json.dumps(story))}
    if painting.pixels is not None:
        arrays["pixels"] = painting.pixels
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def unpacked(data: bytes) -> Painting:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        story = json.loads(str(arrays["story"]))
        refusal = tuple(story["refusal"]) if story["refusal"] else None
        pixels = arrays.get("pixels", None)
        return Painting(
            pixels,
            arrays["latents"],
            story["seconds"],
            refusal,
            story["stage"],
            story["step"],
            story["module"],
        )
