"""``Recipe``: how a picture was painted, in one shape whichever tool wrote it, and how to paint it again here.

Does NOT know any file format. Everything in a recipe came out of a file somebody else may have forged, so texts are
cleaned of what could drive a terminal, and numbers are believed only when they are numbers.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starrynight.errors import BadRequest
from starrynight.request import PaintRequest

OURS = "Starry Night"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DEFAULTS = PaintRequest(prompt="-", seed=0).to_dict()
_OF_THE_MODEL = ("model", "steps", "guidance", "seed")
_OPTIONS = {
    "model": "--model",
    "steps": "--steps",
    "guidance": "--guidance",
    "seed": "--seed",
    "negative_prompt": "--negative",
    "style": "--style",
    "precision": "--precision",
    "sampler": "--sampler",
    "init_image": "--init-image",
    "strength": "--strength",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one picture's file says of itself. ``None`` means the file does not say.

    ``prompt`` is the whole text the model read (style and all). ``width`` and ``height`` are pixels. ``raw`` holds
    the parsed metadata for those who want the rest: for our own files, the full recipe of ``picture.make_recipe``.
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
    loras: tuple[tuple[str, float], ...] = ()
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def heard(self) -> int | None:
        """The seed that starts the same noise here. Other tools draw seeds of 64 bits (ComfyUI) and hand them to torch,
        whose CPU generator drops the upper 32; here the upper half counts (painting/noise.py), so it is dropped for them.
        """
        return self.seed if self.seed is None or self.tool == OURS else self.seed % 2**32

    def request(self) -> dict[str, Any]:
        """The fields of a ``PaintRequest`` that paints this picture again; ``PaintRequest(**recipe.request())``.

        From our own files: every field. From other tools: only what means the same here (prompts, seed, steps,
        guidance, size, each if within our limits), since their models, samplers and LoRAs go by other names; the seed
        as ``heard``.
        """
        if self.tool == OURS and (whole_request := _our_request(self.raw.get("request"))):
            return whole_request | {
                "seed": whole_request["seed"] if self.seed is None else self.seed,
                "count": 1,
            }
        fields = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.heard,
            "steps": self.steps,
            "guidance": self.guidance,
            "width": self.width,
            "height": self.height,
        }
        return {name: value for name, value in fields.items() if value is not None and _fits(name, value)}

    def command(self) -> str:
        """The shell command (quoted for a POSIX shell) that paints this picture again."""
        known = self.request()
        if "prompt" not in known:
            raise BadRequest("The recipe has no prompt to paint from.", "这份配方里没有可以作画的提示词。")
        options = (
            [("--size", f"{known['width']}x{known['height']}")] if {"width", "height"} <= known.keys() else []
        )
        for name, option in _OPTIONS.items():
            # What is said by every model alike may go without saying; a model has steps and guidance of its own.
            if name in known and (name in _OF_THE_MODEL or known[name] != _DEFAULTS[name]):
                value = known[name]
                options.append((option, _number(value) if isinstance(value, float) else str(value)))
        options += [("--lora", f"{name}:{_number(weight)}") for name, weight in known.get("loras", ())]
        words = ["starry", "paint", *(word for pair in options for word in _option(*pair))]
        # A prompt that begins with a dash is not an option.
        return shlex.join([*words, *(["--"] if known["prompt"].startswith("-") else []), known["prompt"]])


def _option(name: str, value: str) -> list[str]:
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def _number(value: float) -> str:
    """As short as it can be without changing the value."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _our_request(values: object) -> dict[str, Any] | None:
    """The fields of a request of ours that this version knows, if together they are a valid one."""
    if not isinstance(values, Mapping):
        return None
    try:
        return PaintRequest.from_dict({name: values[name] for name in _DEFAULTS if name in values}).to_dict()
    except BadRequest:
        return None


def _fits(name: str, value: object) -> bool:
    try:
        PaintRequest.from_dict({"prompt": "-", name: value})
    except BadRequest:
        return False
    return True


def text(value: object) -> str:
    """``value`` if it is text, without control characters or halves of characters; "" if it is anything else."""
    if not isinstance(value, str):
        return ""
    return _UNPRINTABLE.sub("", value.replace("\r\n", "\n").replace("\r", "\n")).strip()


def whole(value: object) -> int | None:
    """``value`` as a non-negative whole number of at most 64 bits, if it is one (or is the text of one)."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,20}\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        return None
    return value


def real(value: object) -> float | None:
    """``value`` as a finite number, if it is one (or is the text of one)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
