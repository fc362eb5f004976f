"""Read InvokeAI's recipe: the JSON in the PNG field ``invokeai_metadata`` (InvokeAI 3 and later).

A model or LoRA is an object with its name under ``name`` (since version 4) or ``model_name`` (version 3).
The formats of InvokeAI 2 and earlier (``sd-metadata``, ``Dream``) are not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starrynight.metadata.recipe import Recipe, real, whole
from starrynight.text import clean

TOOL = "InvokeAI"
_KEYS = ("positive_prompt", "generation_mode", "seed", "model", "app_version")


def read(content: Any) -> Recipe | None:
    """The recipe in the parsed JSON, or ``None`` if it has none of InvokeAI's keys."""
    if not isinstance(content, Mapping) or not any(key in content for key in _KEYS):
        return None
    guidance = real(content.get("cfg_scale"))
    return Recipe(
        tool=TOOL,
        prompt=clean(content.get("positive_prompt")),
        negative_prompt=clean(content.get("negative_prompt")),
        seed=whole(content.get("seed")),
        steps=whole(content.get("steps")),
        sampler=clean(content.get("scheduler")) or None,
        guidance=real(content.get("guidance")) if guidance is None else guidance,
        width=whole(content.get("width")),
        height=whole(content.get("height")),
        model=_name(content.get("model")),
        loras=_loras(content.get("loras")),
        raw=dict(content),
    )


def _name(model: object) -> str | None:
    if not isinstance(model, Mapping):
        return clean(model) or None
    return clean(model.get("name")) or clean(model.get("model_name")) or None


def _loras(items: object) -> tuple[tuple[str, float], ...]:
    found = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, Mapping) and (name := _name(item.get("model", item.get("lora")))):
            weight = real(item.get("weight"))
            found.append((name, 1.0 if weight is None else weight))
    return tuple(found)
