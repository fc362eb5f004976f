"""Pictures painted as one batch: which can be, how one call of a pipeline asks for them, and whether it is faster.

One call for several pictures reads the weights once and has fewer, larger operations. On some devices and sizes that is faster, on
others slower or too large for the memory, so it is measured: ``Paces`` keeps seconds a picture alone and in a batch. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from starrynight.errors import BadRequest, StorageError
from starrynight.prompt_syntax import Words
from starrynight.request import PaintRequest
from starrynight.storage import write_atomic
from starrynight.text import plain_json

Shape = tuple[str, str]  # the model, and every field but ``OF_EACH``

OF_EACH = ("prompt", "negative_prompt", "style", "seed", "count")
SAMPLES = 3  # measurements of each size before it is judged, and kept
NEVER = 1e9  # seconds
FASTER = 0.95  # of the seconds alone, below which a batch is used


class Unalike(Exception):
    """Pictures that one call of a pipeline cannot paint as each alone."""


def shape(request: PaintRequest) -> Shape | None:
    """What pictures of one batch have in common; None for a request whose pictures are painted alone."""
    request = request.without_tags()
    own = (request.loras, request.variation, request.variety, request.verify)  # of each picture's own call
    if request.init_image is not None or request.until_seen > 1 or any(own):
        return None
    shared = {name: value for name, value in request.to_dict().items() if name not in OF_EACH}
    return request.model, plain_json(shared, sort_keys=True)


def arguments(calls: Sequence[dict[str, Any]], read: Sequence[tuple[Words, Words]]) -> dict[str, Any]:
    """Those of one call for several pictures, from each one's own and the words it reads. Raises Unalike where words are
    weighted or name textual inversions, or only some pictures have a negative prompt, which would mean another thing in one call."""
    own = any(words.weights or words.mentions for pair in read for words in pair)
    if own or any(call.keys() != calls[0].keys() for call in calls):
        raise Unalike
    texts = [name for name in ("prompt", "negative_prompt") if name in calls[0]]
    return calls[0] | {name: [call[name] for call in calls] for name in texts}


class Blanked(BadRequest):
    """The model's own safety checker blanked this picture."""


def pixels_of(result: Any, watching: Any) -> list[np.ndarray]:
    """What a pipeline returned: each picture float32 [H, W, 3] in 0..1, checked by the guard ``watching``. A picture that the model's own safety checker has blanked is refused."""
    if any(getattr(result, "nsfw_content_detected", None) or ()):
        raise Blanked(
            "The model's own safety checker blanked this picture; change the prompt or the seed.",
            "模型自带的安全检查器抹去了这幅画；请修改提示词或种子。",
        )
    pictures = [watching.check_picture(image) for image in result.images]
    return [picture.float().permute(1, 2, 0).cpu().contiguous().numpy() for picture in pictures]


class Paces:
    """The newest measured seconds a picture, by device, shape and size of the batch, kept in a file."""

    def __init__(self, place: Path, device: str) -> None:
        self.place, self.device = place, device
        self._seconds: dict[str, dict[str, list[float]]] = {}
        with suppress(OSError, ValueError, AttributeError):
            self._seconds = {
                key: {size: [float(one) for one in kept[-SAMPLES:]] for size, kept in sizes.items()}
                for key, sizes in json.loads(place.read_text("utf-8")).items()
            }

    def size(self, of: Shape, most: int) -> int:
        """How many pictures of this shape the next call paints: ``most`` or 1, whichever is faster or not yet known."""
        kept = self._seconds.get(self._key(of), {})
        alone, together = kept.get("1", []), kept.get(str(most), [])
        if len(alone) < SAMPLES:
            return 1
        if len(together) < SAMPLES:
            return most
        return most if min(together) < FASTER * min(alone) else 1

    def note(self, of: Shape, size: int, seconds: float) -> None:
        """``seconds``: of a picture, in a batch of ``size``."""
        sizes = self._seconds.setdefault(self._key(of), {})
        sizes[str(size)] = [*sizes.get(str(size), []), seconds][-SAMPLES:]
        with suppress(StorageError, OSError):
            write_atomic(self.place, plain_json(self._seconds).encode(), overwrite=True)

    def never(self, of: Shape, size: int) -> None:
        """A batch of this shape could not be painted: as if it took for ever."""
        for _ in range(SAMPLES):
            self.note(of, size, NEVER)

    def _key(self, of: Shape) -> str:
        return plain_json([self.device, *of])
