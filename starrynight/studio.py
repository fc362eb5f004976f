"""The main loop: a request becomes saved pictures.

Every interface calls ``Studio.paint`` (or ``paint``, for one call from Python). The studio knows no terminal and no browser;
diffusers is the painter's affair, and where a picture is saved is decided by the ``save`` that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.errors import BadRequest, BrokenNumbers, StarryError
from starrynight.gallery.files import OutputPath
from starrynight.metadata.pixels import read_image
from starrynight.models import catalogue, imports
from starrynight.painting import checking, styles
from starrynight.painting.results import GeneratedImage, Refused, Step
from starrynight.picture import Picture, make_recipe
from starrynight.progress import OnProgress
from starrynight.request import PaintRequest, read_sides, take_lora_tags
from starrynight.settings import settings

if TYPE_CHECKING:
    from starrynight.painting.painter import Painter
    from starrynight.painting.remote import RemotePainter

REPAINTED = 1.0  # strength within a mask or around the first picture, where something new is to be painted
VERSIONS = ("starry-night", "torch", "diffusers", "transformers")


@dataclass(frozen=True)
class SavedPicture:
    """A finished picture and the place where it was saved."""

    picture: Picture
    place: Path

    @property
    def index(self) -> int:
        """Which picture of the request, from 0."""
        return int(self.picture.recipe["index"])


class Studio:
    """``save`` stores a finished picture and returns its place. ``device`` and ``attention`` are passed to the painter,
    which is kept between requests because loading a model is slow. ``on_folding`` is called while a model's folds are
    made for the first time; it may raise Cancelled. ``count_clamps``: see ``Painter.ready``.
    """

    def __init__(
        self,
        save: Callable[[Picture], Path],
        device: str | None = None,
        attention: str = "native",
        on_folding: OnProgress | None = None,
        count_clamps: bool = False,
    ):
        self.save, self.device, self.attention = save, device, attention
        self.on_folding, self.count_clamps = on_folding, count_clamps
        self._painter: Painter | RemotePainter | None = None

    def paint(
        self,
        request: PaintRequest,
        on_step: Callable[[Step], None] | None = None,
        skip: Collection[int] = (),
        save: Callable[[Picture], Path] | None = None,
    ) -> Iterator[SavedPicture | Refused]:
        """Paint ``request.count`` pictures but those in ``skip``, each saved before the next begins, by ``save`` if it is given.

        A picture that the guard refuses is returned as Refused, nothing is saved for it, and the batch goes on. Raises any
        StarryError that ends a batch, and ``errors.Cancelled`` when ``on_step`` raises it; what was saved stays.
        """
        if request.until_seen > 1:
            raise BadRequest(
                "until_seen is for `starry paint` and the service, which look at what is painted; leave it out here.",
                "until_seen 用于 `starry paint` 和服务，它们会看画得如何；这里请不要写。",
                "until_seen",
            )
        request = request.without_tags()
        painter = self.ready(request)
        for outcome in painter.paint(request, on_step, skip):
            if isinstance(outcome, Refused):
                yield outcome
                continue
            picture = as_picture(outcome, request, painter)
            yield SavedPicture(picture, (save or self.save)(picture))

    def paint_together(
        self, pictures: Sequence[tuple[PaintRequest, int]], on_step: Callable[[int, Step], None]
    ) -> list[Picture] | None:
        """Pictures (request, index) of one ``batching.shape``, painted as one batch and not saved; None where they must be
        painted alone. See ``Painter.paint_together``.
        """
        pictures = [(request.without_tags(), index) for request, index in pictures]
        painter = self.ready(pictures[0][0])
        batch = getattr(painter, "paint_together", None)  # another server paints one picture a request
        if batch is None or (images := batch(pictures, on_step)) is None:
            return None
        return [
            as_picture(image, request, painter, batch=len(images))
            for image, (request, _) in zip(images, pictures, strict=True)
        ]

    @property
    def loaded_on(self) -> Any:
        """The torch device where the model is that painted last; None without one, and for another server's."""
        return getattr(self._painter, "device", None)

    def ready(self, request: PaintRequest) -> Painter | RemotePainter:
        """The painter for this request's model and precision, loaded unless the last one will do."""
        if self._painter is None or not self._painter.serves(request, self.device, self.attention):
            self._painter = None  # free the old model before the new one needs the memory
            spec = catalogue.find(request.model)
            if spec.remote:
                from starrynight.painting.remote import RemotePainter

                self._painter = RemotePainter(spec)
                return self._painter
            with imports.collection_paused():
                imports.defer_unused()
                from starrynight.painting.painter import Painter

            self._painter = Painter.ready(
                request, device=self.device, attention=self.attention, on_folding=self.on_folding,
                count_clamps=self.count_clamps,
            )  # fmt: skip
        return self._painter


def paint(
    prompt: str,
    out: str | Path = ".",
    on_step: Callable[[Step], None] | None = None,
    device: str | None = None,
    **fields: Any,
) -> list[SavedPicture]:
    """Paint ``prompt`` and save the pictures: ``starry paint -o OUT`` in one call, with a folder or a file as ``out``.

    ``fields`` are those of PaintRequest: style, seed, count, width, height, steps, guidance, model, precision, …. Raises
    the guard's BrokenNumbers for a picture that was refused (those before it are saved), and what ``make_request``,
    ``OutputPath.check`` and ``Studio.paint`` raise.
    """
    request = make_request(prompt=prompt, **fields)
    save = OutputPath(Path(out), request.count)
    save.check()
    found = []
    for outcome in Studio(save, device).paint(request, on_step):
        if isinstance(outcome, Refused):
            raise outcome.error
        found.append(outcome)
    return found


def make_request(**fields: Any) -> PaintRequest:
    """A checked request; a field that is left out or None becomes what suits the model, an alias of a style its key.

    Raises BadRequest or BadFile for what this model cannot paint, before anything heavy is imported.
    """
    given = take_lora_tags({name: value for name, value in fields.items() if value is not None})
    model = catalogue.find(given.get("model", catalogue.default()))
    defaults = {
        "width": model.width,
        "height": model.height,
        "steps": model.steps,
        "guidance": model.guidance,
    }
    request = PaintRequest.from_dict(defaults | _of_first_picture(given) | given | {"model": model.name})
    checking.check(request, model)
    return request if request.style is None else request.replace(style=styles.find(request.style).key)


def _of_first_picture(given: Mapping[str, Any]) -> dict[str, Any]:
    """The size and strength that suit a mask or an extension, which paint within the first picture or around it."""
    if given.get("init_image") is None or not {"mask", "extend"} & given.keys():
        return {}
    left, top, right, bottom = read_sides(given["extend"]) if "extend" in given else (0, 0, 0, 0)
    path = PaintRequest.from_dict({"prompt": "-", "init_image": given["init_image"]}).init_image
    assert path is not None
    picture = read_image(path)
    return {
        "width": picture.width + left + right,
        "height": picture.height + top + bottom,
        "strength": REPAINTED,
    }


def as_picture(
    image: GeneratedImage, request: PaintRequest, painter: Painter | RemotePainter, batch: int = 1
) -> Picture:
    """Eight bits, with the recipe that paints it again. ``batch``: pictures that were painted by the same call."""
    recipe = make_recipe(
        request, index=image.index, prompt=image.prompt, negative_prompt=image.negative_prompt,
        sampler=image.sampler, model=painter.provenance, plan=painter.plan.to_dict(), verdict=image.verdict,
        versions=versions(), loras=[fit.to_dict() for fit in painter.fits], batch=batch, wildcards=image.wildcards,
        embeddings=image.embeddings,
    )  # fmt: skip
    return Picture(eight_bits(image.pixels), recipe, producer=settings().producer)


def batch_error(refused: Sequence[Refused], count: int) -> StarryError | None:
    """The error that ends a batch with refused pictures, with its exit code; None if every picture was saved."""
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
    """By rounding, from float32: truncating would darken the picture by half a level on average."""
    return np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)


def versions() -> dict[str, str]:
    """The versions of the packages that painted, as far as they are installed."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            continue
    return found
