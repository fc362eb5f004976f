"""``Recipe``: how a picture was painted, in one shape for every tool, and how to paint it again here.

Also reads this package's own recipe (the JSON of ``picture.make_recipe``). A file may be forged, so texts are
cleaned of control characters and a number counts only if it has the right type and range. Knows no file
format.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starrynight.errors import BadRequest
from starrynight.i18n import Text
from starrynight.request import SIDES, YOUNGER, PaintRequest
from starrynight.text import clean, excerpt

Loras = tuple[tuple[str, float], ...]  # (name, weight) in the order they are applied
MAX_LEFT = 60  # settings listed as left

OURS = "Starry Night"
_DEFAULTS = PaintRequest(prompt="-", seed=0).to_dict() | YOUNGER
_MODEL_DEPENDENT = ("model", "steps", "guidance", "seed")  # their defaults differ from model to model
_OPTIONS = {name: "--" + name.removesuffix("_prompt").replace("_", "-") for name in (
    "model", "steps", "guidance", "seed", "negative_prompt", "style", "precision", "sampler", "init_image", "strength",
    "prediction", "mask", "extend", "variation", "variation_seed", "variety",
)}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The recipe in one picture file. ``None``: the file does not state the value.

    ``prompt`` is the whole text the model read, style included. ``width`` and ``height`` are pixels. ``raw``
    is the parsed metadata; in this package's own files, the full recipe of ``picture.make_recipe``. ``left``
    lists what the file says and no other field holds: settings without a counterpart here, and values that a
    node computes in a way this package does not know.
    """

    tool: str
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    width: int | None = None
    height: int | None = None
    model: str | None = None
    loras: Loras = ()
    left: tuple[Text, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def effective_seed(self) -> int | None:
        """The seed that draws the same noise here.

        Other tools draw 64-bit seeds (ComfyUI) and pass them to torch, whose CPU generator ignores the upper
        32 bits. ``numerics/rng.py`` uses all bits, so the upper half of another tool's seed is dropped.
        """
        return self.seed if self.seed is None or self.tool == OURS else self.seed % 2**32

    def request(self, anew: bool = False) -> dict[str, Any]:
        """The fields of a ``PaintRequest`` that paints this picture again; with ``anew`` wildcards are to be drawn again.

        From this package's files: every field. From other tools: only the fields that mean the same here
        (prompts, ``effective_seed``, steps, guidance, size) and are within this package's limits; their
        models, samplers and LoRAs have other names.
        """
        if self.tool == OURS and (own := _own_request(self.raw.get("request"))):
            drawn = self.raw.get("wildcards")
            if isinstance(drawn, Mapping) and not anew:  # their files may have changed
                texts = {name: drawn[name] for name in ("prompt", "negative_prompt") if name in drawn}
                own = _own_request(own | texts) or own
            return own | {"seed": own["seed"] if self.seed is None else self.seed, "count": 1}
        names = ("prompt", "negative_prompt", "seed", "steps", "guidance", "width", "height")
        fields = {name: getattr(self, name) for name in names} | {"seed": self.effective_seed}
        return {name: value for name, value in fields.items() if value is not None and _is_valid(name, value)}

    def command(self) -> str:
        """The shell command (quoted for a POSIX shell) that paints this picture again. Raises BadRequest."""
        known = self.request()
        if "prompt" not in known:
            raise BadRequest(
                "The recipe has no prompt, so there is no command to paint it again.",
                "这份配方里没有提示词，因此没有可以重画它的命令。",
            )
        options = []
        if {"width", "height"} <= known.keys():
            options.append(("--size", f"{known['width']}x{known['height']}"))
        for name, option in _OPTIONS.items():
            if name in known and (name in _MODEL_DEPENDENT or known[name] != _DEFAULTS[name]):
                value = known[name]
                options.append((option, _written(value)))
        options += [
            ("--lora", ":".join((name, *map(_number, weights)))) for name, *weights in known.get("loras", ())
        ]
        words = ["starry", "paint", *(word for pair in options for word in _option(*pair))]
        words += ["--lora-partial"] if known.get("lora_partial") else []
        words += ["--keep-packed"] if known.get("keep_packed") else []
        # "--" keeps a prompt that begins with a dash from being read as an option.
        return shlex.join([*words, *(["--"] if known["prompt"].startswith("-") else []), known["prompt"]])


def read_own(content: Any) -> Recipe | None:
    """The recipe in the parsed JSON of ``picture.make_recipe``, or ``None`` if it is something else.

    Reads the fields this version knows; those of a newer version stay in ``raw``.
    """
    if not isinstance(content, Mapping) or not whole(content.get("starry_night")):
        return None
    request = content.get("request")
    asked: Mapping[str, Any] = request if isinstance(request, Mapping) else {}
    model = content.get("model")
    name = clean(model.get("name")) if isinstance(model, Mapping) else ""
    seed = whole(content.get("seed"))
    return Recipe(
        tool=OURS,
        prompt=clean(content.get("prompt")) or clean(asked.get("prompt")),
        negative_prompt=clean(content.get("negative_prompt", asked.get("negative_prompt"))),
        seed=whole(asked.get("seed")) if seed is None else seed,
        steps=whole(asked.get("steps")),
        sampler=clean(content.get("sampler")) or clean(asked.get("sampler")) or None,
        guidance=real(asked.get("guidance")),
        width=whole(asked.get("width")),
        height=whole(asked.get("height")),
        model=name or clean(asked.get("model")) or None,
        loras=_own_loras(asked.get("loras")),
        raw=dict(content),
    )


def _own_loras(items: object) -> tuple[tuple[str, float], ...]:
    pairs = (
        [(item[0], item[-1]) for item in items if isinstance(item, list) and len(item) in (2, 3)]
        if isinstance(items, list)
        else []
    )
    return tuple(
        (clean(name), w) for name, weight in pairs if (w := real(weight)) is not None and clean(name)
    )


def _own_request(values: object) -> dict[str, Any] | None:
    """The known fields of one of this package's requests, if together they are valid."""
    if not isinstance(values, Mapping):
        return None
    try:
        return PaintRequest.from_dict({name: values[name] for name in _DEFAULTS if name in values}).to_dict()
    except BadRequest:
        return None


def _is_valid(name: str, value: object) -> bool:
    try:
        PaintRequest.from_dict({"prompt": "-", name: value})
    except BadRequest:
        return False
    return True


def _option(name: str, value: str) -> list[str]:
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def _written(value: object) -> str:
    """A value as the command line reads it; sides as "left=64,right=64"."""
    if isinstance(value, list):
        return ",".join(f"{side}={pixels}" for side, pixels in zip(SIDES, value, strict=True) if pixels)
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """The shortest text that parses to ``value``."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def left_over(values: Mapping[str, object]) -> tuple[Text, ...]:
    """Settings that have no field of ``Recipe``, one line each; empty ones and those beyond ``MAX_LEFT`` dropped."""
    lines: list[Text] = []
    for key, value in values.items():
        if value not in (None, "", "None", [], {}) and len(lines) < MAX_LEFT:
            line = f"{excerpt(key)}: {excerpt(value)}"
            lines.append(Text(line, line))
    return tuple(lines)


def true_guidance(scale: float | None, distilled: float | None) -> tuple[float | None, tuple[Text, ...]]:
    """The guidance, and what is left: a guidance-distilled model (Flux) reads ``distilled``, and a scale of 1
    beside it means none. diffusers calls a scale other than 1 ``true_cfg_scale`` there.
    """
    if distilled is None:
        return scale, ()
    return distilled, () if scale in (None, 1.0) else left_over({"true CFG scale": scale})


def whole(value: object) -> int | None:
    """``value`` as an integer in 0..2⁶⁴−1; also from its decimal text or an integral float. Else ``None``."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,20}\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        return None
    return value


def real(value: object) -> float | None:
    """``value`` as a finite float; also from its text. Else ``None``."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
