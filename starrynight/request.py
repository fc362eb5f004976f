"""What somebody asks for, settled once: a frozen, validated ``PaintRequest`` with a canonical form and an id.

Knows the limits that hold for every painter. It does NOT know which models, styles, samplers or LoRAs exist, which
sizes a model was built for (it offers ``check_size`` to those who do), or whether ``init_image`` is there to be read.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
import numbers
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from starrynight.errors import BadRequest, UnknownName, WrongSize

PRECISIONS = ("auto", "bfloat16", "float16", "float16-folded", "float32")
MAX_TEXT = 4000  # characters; ten times what the longest text encoder of the catalogue reads, 2026-11
MAX_NAME = 1000  # characters of a model's name or path
MAX_LORAS = 16
MAX_SEED = 2**63 - 1  # what a database's signed integer and torch's generator both hold
LOWEST_SIZE, HIGHEST_SIZE = 64, 4096
STRENGTH = 0.6

# What neither XML 1.0 nor UTF-8 can carry, and what would drive a terminal: controls but newline and tab,
# lone surrogates, and the two non-characters.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

Lora = tuple[str, float]


@dataclass(frozen=True, kw_only=True)
class PaintRequest:
    """One wish, from which picture ``i`` of ``count`` is painted with ``seed_of(i)``.

    Texts are NFC-normalised and stripped; sizes are pixels; ``guidance`` is the classifier-free guidance scale;
    ``strength`` in (0, 1] says how much of ``init_image`` is painted over. A missing seed is drawn here, once.
    Raises ``BadRequest`` (or its ``WrongSize``, ``UnknownName``) naming the field and what it may be.
    """

    prompt: str
    negative_prompt: str = ""
    style: str | None = None
    model: str = "firefly"
    width: int = 256
    height: int = 256
    steps: int = 8
    guidance: float = 2.0
    seed: int | None = None
    count: int = 1
    precision: str = "auto"
    loras: tuple[Lora, ...] = ()
    sampler: str | None = None
    init_image: str | None = None
    strength: float = STRENGTH

    def __post_init__(self) -> None:
        settle = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 - frozen, set only here
        settle("prompt", _text("prompt", self.prompt))
        if not self.prompt:
            raise BadRequest("The prompt is empty; say what to paint.", "提示词是空的；请写下想画什么。")
        settle("negative_prompt", _text("negative_prompt", self.negative_prompt))
        settle("model", _name("model", self.model))
        for field in ("style", "sampler"):
            if getattr(self, field) is not None:
                settle(field, _name(field, getattr(self, field)))
        if self.init_image is not None:
            settle("init_image", _name("init_image", _path(self.init_image)))
        settle("width", _size("width", self.width))
        settle("height", _size("height", self.height))
        settle("steps", _whole("steps", self.steps, 1, 150))
        settle("count", _whole("count", self.count, 1, 64))
        settle("guidance", _real("guidance", self.guidance, 0, 30))
        settle("strength", _strength(self.strength, self.init_image))
        settle("seed", _seed(self.seed, self.count))
        settle("loras", _loras(self.loras))
        if self.precision not in PRECISIONS:
            raise UnknownName(("precision", "精度"), shown(self.precision), PRECISIONS)

    def seed_of(self, index: int) -> int:
        """The seed of picture ``index`` of this request."""
        if not 0 <= index < self.count:
            raise IndexError(f"picture {index} of a request for {self.count}")
        assert self.seed is not None  # drawn in __post_init__
        return self.seed + index

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can carry; ``from_dict`` takes them back."""
        return dataclasses.asdict(self) | {"loras": [list(lora) for lora in self.loras]}

    def canonical(self) -> str:
        """The one JSON text of this request: sorted keys, no spaces, characters as themselves."""
        return json.dumps(
            self.to_dict(), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
        )

    @property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of ``canonical()``: equal requests, and only they, share it."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PaintRequest:
        """Build from plain values; a field nobody knows is refused with the nearest that exist."""
        if not isinstance(values, Mapping):
            raise BadRequest("A request is an object of named fields.", "请求应当是一组带名字的字段。")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.5) or known
                raise BadRequest(
                    f"A request has no field “{shown(name)}”; it has {', '.join(near)}.",
                    f"请求里没有“{shown(name)}”这一项；可用的有：{'、'.join(near)}。",
                )
        return cls(**{"prompt": "", **values})

    def replace(self, **changes: Any) -> PaintRequest:
        """The same request but for ``changes``, validated again."""
        return self.from_dict(self.to_dict() | changes)


def check_size(width: int, height: int, multiple: int, low: int, high: int) -> None:
    """Refuse aloud a size that is not a multiple of ``multiple`` within ``low``..``high`` (pixels, both sides).

    Never rounds: ``WrongSize`` names up to three of the nearest sizes that fit.
    """
    if all(low <= side <= high and side % multiple == 0 for side in (width, height)):
        return
    near = sorted(
        itertools.product(_nearest(width, multiple, low, high), _nearest(height, multiple, low, high)),
        key=lambda size: (abs(size[0] - width) + abs(size[1] - height), size),
    )[:3]
    sizes = [f"{w}×{h}" for w, h in near]
    raise WrongSize(
        f"{width}×{height} does not fit this model: width and height are multiples of {multiple} from {low} to {high}; "
        f"nearest: {', '.join(sizes)}.",
        f"{width}×{height} 不适合这个模型：宽和高须为 {multiple} 的倍数，范围 {low} 到 {high}；"
        f"最接近的尺寸：{'、'.join(sizes)}。",
    )


def _nearest(side: int, multiple: int, low: int, high: int) -> list[int]:
    """The allowed sides just below and just above ``side`` (one of them when it fits or lies outside)."""
    first, last = -(-low // multiple) * multiple, high // multiple * multiple
    below = side // multiple * multiple
    return sorted(
        {min(max(candidate, first), last) for candidate in (below, -(-side // multiple) * multiple)}
    )


def shown(value: object) -> str:
    """``value`` as a sentence may quote it: short, on one line, and never an error of its own."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "an enormous number"  # beyond 4300 digits Python refuses to print it
    text = _FORBIDDEN.sub("?", value if isinstance(value, str) else repr(value)).replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "…"


def _checked(field: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise BadRequest(
            f"{field} is text, not {shown(value)}.", f"{field} 应当是文字，而不是 {shown(value)}。"
        )
    if len(value) > limit:
        raise BadRequest(
            f"{field} is {len(value)} characters long; at most {limit} are read.",
            f"{field} 长达 {len(value)} 个字符；最多读取 {limit} 个。",
        )
    if found := _FORBIDDEN.search(value):
        code = f"U+{ord(found[0]):04X}"
        raise BadRequest(
            f"{field} holds a character that cannot be written ({code}, at {found.start()}); remove it.",
            f"{field} 含有无法书写的字符（{code}，位置 {found.start()}）；请删去它。",
        )
    return value


def _text(field: str, value: object) -> str:
    if (
        isinstance(value, str) and len(value) <= 4 * MAX_TEXT
    ):  # beyond that the normaliser need not work for nothing
        value = unicodedata.normalize("NFC", value.replace("\r\n", "\n").replace("\r", "\n")).strip()
    return _checked(field, value, MAX_TEXT)


def _name(field: str, value: object) -> str:
    """A name or a path, exactly as given: a file's name need not be NFC."""
    name = _checked(field, value, MAX_NAME)
    if not name.strip():
        raise BadRequest(
            f"{field} is empty; name one or leave it out.", f"{field} 是空的；请写明，或者不写这一项。"
        )
    if "\n" in name or "\t" in name:
        raise BadRequest(f"{field} is a name on one line.", f"{field} 应当是一行以内的名字。")
    return name


def _path(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)  # numpy's integers too


def _is_real(value: object) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _whole(field: str, value: object, low: int, high: int) -> int:
    if not _is_whole(value) or not low <= value <= high:
        raise BadRequest(
            f"{field} is a whole number from {low} to {high}, not {shown(value)}.",
            f"{field} 应当是 {low} 到 {high} 之间的整数，而不是 {shown(value)}。",
        )
    return int(value)


def _real(field: str, value: object, low: float, high: float) -> float:
    # NaN fails every comparison, so it is refused by the same test as a value out of range.
    if not _is_real(value) or not low <= value <= high:
        raise BadRequest(
            f"{field} is a number from {low:g} to {high:g}, not {shown(value)}.",
            f"{field} 应当是 {low:g} 到 {high:g} 之间的数，而不是 {shown(value)}。",
        )
    return float(value) + 0.0  # -0.0 and 0.0 are one request


def _size(field: str, value: object) -> int:
    try:
        return _whole(field, value, LOWEST_SIZE, HIGHEST_SIZE)
    except BadRequest as error:
        raise WrongSize(error.en, error.zh) from None


def _strength(value: object, init_image: str | None) -> float:
    strength = _real("strength", value, 0, 1)
    if strength == 0:
        raise BadRequest(
            "strength is above 0: at 0 the picture would stay as it is.",
            "strength 必须大于 0：等于 0 时画面不会有任何改变。",
        )
    if init_image is None and strength != STRENGTH:
        raise BadRequest(
            "strength says how much of init_image to paint over; name an init_image or leave strength out.",
            "strength 表示重画 init_image 的程度；请给出 init_image，或者不写 strength。",
        )
    return strength


def _seed(value: object, count: int) -> int:
    if value is None:
        return secrets.randbelow(2**32)  # short enough to retype, and exact in JavaScript
    highest = MAX_SEED - count + 1  # picture i is painted with seed + i
    if not _is_whole(value) or not 0 <= value <= highest:
        raise BadRequest(
            f"seed is a whole number from 0 to {highest}, not {shown(value)}; leave it out and one is drawn for you.",
            f"seed 应当是 0 到 {highest} 之间的整数，而不是 {shown(value)}；不写它，就会随机抽取一个。",
        )
    return int(value)


def _loras(values: object) -> tuple[Lora, ...]:
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        values = [values]  # fails below with the sentence that shows the right form
    settled = []
    for item in values:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise BadRequest(
                f"Each LoRA is a name (or path) and a weight, not {shown(item)}.",
                f"每个 LoRA 应当是一个名字（或路径）加一个权重，而不是 {shown(item)}。",
            )
        name = _name("LoRA", _path(item[0]))
        settled.append((name, _real(f"LoRA “{shown(name)}”", item[1], -4, 4)))
    if len(settled) > MAX_LORAS:
        raise BadRequest(
            f"{len(settled)} LoRAs are too many; at most {MAX_LORAS} are stacked.",
            f"{len(settled)} 个 LoRA 太多了；最多叠加 {MAX_LORAS} 个。",
        )
    return tuple(settled)
