"""Reading our own recipe (the JSON that ``picture.make_recipe`` makes), from this version or a newer one.

Takes what it knows and leaves the rest in ``raw``: a newer version may add fields, a forger may have changed any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starrynight.metadata.recipe import OURS, Recipe, real, text, whole


def read(content: Any) -> Recipe | None:
    """The recipe in the parsed JSON, or ``None`` if it is not ours."""
    if not isinstance(content, Mapping) or not whole(content.get("starry_night")):
        return None
    request = content.get("request")
    wish: Mapping[str, Any] = request if isinstance(request, Mapping) else {}
    model = content.get("model")
    seed = whole(content.get("seed"))
    return Recipe(
        tool=OURS,
        prompt=text(content.get("prompt")) or text(wish.get("prompt")),
        negative_prompt=text(content.get("negative_prompt", wish.get("negative_prompt"))),
        seed=whole(wish.get("seed")) if seed is None else seed,
        steps=whole(wish.get("steps")),
        sampler=text(content.get("sampler")) or text(wish.get("sampler")) or None,
        guidance=real(wish.get("guidance")),
        width=whole(wish.get("width")),
        height=whole(wish.get("height")),
        model=(text(model.get("name")) if isinstance(model, Mapping) else "")
        or text(wish.get("model"))
        or None,
        loras=_loras(wish.get("loras")),
        raw=dict(content),
    )


def _loras(items: object) -> tuple[tuple[str, float], ...]:
    pairs = (
        [item for item in items if isinstance(item, list) and len(item) == 2]
        if isinstance(items, list)
        else []
    )
    return tuple(
        (text(name), weight) for name, given in pairs if (weight := real(given)) is not None and text(name)
    )
