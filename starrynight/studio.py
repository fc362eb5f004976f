"""The whole story on one screen: a request becomes pictures that hang.

Every door calls ``Studio.paint``; none retells it. The studio knows neither terminals nor browsers, and leaves
diffusers to the painter and files to whoever hangs the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.errors import BadRequest, BrokenNumbers, StarryError
from starrynight.models import catalogue
from starrynight.painting import checking
from starrynight.painting.results import GeneratedImage, Refused, Step
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest
from starrynight.settings import settings

if TYPE_CHECKING:
    from starrynight.painting.painter import Painter

VERSIONS = ("starry-night", "torch", "diffusers", "transformers")


@dataclass(frozen=True)
class SavedPicture:
    """A finished picture and the place where it hangs."""

    picture: Picture
    place: Path

    @property
    def index(self) -> int:
        """Which picture of the request, from 0."""
        return int(self.picture.recipe["index"])


class Studio:
    """``hang`` puts a finished picture in its place and returns that place. ``device`` and ``attention`` are the
    painter's; a painter is kept between requests, because loading it is the slow part. ``on_folding`` hears how far a
    model's folds are, when they are made for the first time; it may raise Cancelled. ``count_clamps``: the verdict also
    tells how many numbers the libraries' own clamps changed.
    """

    def __init__(
        self,
        hang: Callable[[Picture], Path],
        device: str | None = None,
        attention: str = "native",
        on_folding: Callable[[int, int, tuple[str, str]], None] | None = None,
        count_clamps: bool = False,
    ):
        self.hang, self.device, self.attention = hang, device, attention
        self.on_folding, self.count_clamps = on_folding, count_clamps
        self._painter: Painter | None = None

    def paint(
        self,
        request: PaintRequest,
        on_step: Callable[[Step], None] | None = None,
        skip: Collection[int] = (),
    ) -> Iterator[SavedPicture | Refused]:
        """Paint ``request.count`` pictures, each hung before the next begins; those whose index is in ``skip`` are not.

        A picture that the guard refuses comes as Refused, with nothing written, and the batch goes on. Raises any
        StarryError that ends a batch; ``errors.Cancelled`` when ``on_step`` raises it. What was hung stays.
        """
        painter = self.ready(request)
        for canvas in painter.paint(request, on_step, skip):
            if isinstance(canvas, Refused):
                yield canvas
                continue
            picture = frame(canvas, request, painter)
            yield SavedPicture(picture, self.hang(picture))

    def ready(self, request: PaintRequest) -> Painter:
        """The painter for this request's model and precision, loaded unless the last one will do."""
        from starrynight.painting.painter import Painter

        if self._painter is None or not self._painter.serves(request, self.device, self.attention):
            self._painter = None  # let go of the old model before the new one needs the memory
            self._painter = Painter.ready(
                request, device=self.device, attention=self.attention, on_folding=self.on_folding,
                count_clamps=self.count_clamps,
            )  # fmt: skip
        return self._painter


def fill(**words: Any) -> PaintRequest:
    """A request in which whatever the user left out (None) is what the catalogue says suits the model.

    Raises BadRequest or BadFile for what this model cannot paint, before anything heavy is imported.
    """
    given = {name: value for name, value in words.items() if value is not None}
    model = catalogue.find(given.get("model", catalogue.default()))
    suits = {"width": model.width, "height": model.height, "steps": model.steps, "guidance": model.guidance}
    request = PaintRequest.from_dict(suits | given | {"model": model.name})
    checking.check(request, model)
    return request


def frame(canvas: GeneratedImage, request: PaintRequest, painter: Painter) -> Picture:
    """Eight bits, with everything needed to paint it again."""
    pixels = eight_bits(canvas.pixels)
    recipe = make_recipe(
        request, index=canvas.index, prompt=canvas.prompt, negative_prompt=canvas.negative_prompt,
        sampler=canvas.sampler, model=painter.provenance, plan=painter.plan.to_dict(), verdict=canvas.verdict,
        versions=versions(),
    )  # fmt: skip
    return Picture(pixels, recipe, producer=settings().producer)


def account(refused: Sequence[Refused], count: int) -> StarryError | None:
    """What a door says, and its exit code, at the end of a batch; None when every picture hangs."""
    if not refused:
        return None
    first = refused[0].error
    if count == 1:
        return first
    hung = count - len(refused)
    error = BrokenNumbers if isinstance(first, BrokenNumbers) else BadRequest
    return error(
        f"{hung} of {count} pictures hang; for the others see the reasons above.",
        f"{count} 幅中挂出 {hung} 幅；其余的原因见上。",
    )


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """By rounding, from float32: a shade becomes the nearest level, neither darker nor brighter on average."""
    return np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)


def versions() -> dict[str, str]:
    """The versions of what painted, as far as they are installed as packages."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            continue
    return found
