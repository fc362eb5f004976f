"""Reading InvokeAI's pictures: the JSON in the PNG field ``invokeai_metadata`` (InvokeAI 3 and later).

Its models and LoRAs are objects whose name lies under ``name`` (since 4) or ``model_name`` (3).
Does NOT read the formats of InvokeAI 2 and earlier (``sd-metadata``, ``Dream``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starrynight.metadata.recipe import Recipe, real, text, whole

TOOL = "InvokeAI"
_KEYS = ("positive_prompt", "generation_mode", "seed", "model", "app_version")


def read(content: Any) -> Recipe | None:
    """The recipe in the parsed JSON, or ``None`` if it has none of InvokeAI's keys."""
    if not isinstance(content, Mapping) or not any(key in content for key in _KEYS):
        return None
    guidance = real(content.get("cfg_scale"))
    return Recipe(
        tool=TOOL,
        prompt=text(content.get("positive_prompt")),
        negative_prompt=text(content.get("negative_prompt")),
        seed=whole(content.get("seed")),
        steps=whole(content.get("steps")),
        sampler=text(content.get("scheduler")) or None,
        guidance=real(content.get("guidance")) if guidance is None else guidance,
        width=whole(content.get("width")),
        height=whole(content.get("height")),
        model=_name(content.get("model")),
        loras=_loras(content.get("loras")),
        raw=dict(content),
    )


def _name(model: object) -> str | None:
    if not isinstance(model, Mapping):
        return text(model) or None
    return text(model.get("name")) or text(model.get("model_name")) or None


def _loras(items: object) -> tuple[tuple[str, float], ...]:
    found = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, Mapping) and (name := _name(item.get("model", item.get("lora")))):
            weight = real(item.get("weight"))
            found.append((name, 1.0 if weight is None else weight))
    return tuple(found)
