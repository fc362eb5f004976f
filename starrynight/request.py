"""A request for pictures: a frozen, validated ``PaintRequest`` with a canonical form and an id.

Checks the limits that hold for every model. Which models, styles, samplers and LoRAs exist, which sizes a
model accepts (``check_size`` is for its caller) and whether ``init_image`` can be read are checked by
``painting``.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import numbers
import os
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from starrynight import prompt_syntax
from starrynight.errors import BadRequest, UnknownName, WrongSize
from starrynight.i18n import Text
from starrynight.text import UNPRINTABLE, excerpt, unix_newlines

PRECISIONS = ("auto", "bfloat16", "float16", "float16-folded", "float32", "int8")
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow")  # what a denoiser predicts, in diffusers' words
MAX_TEXT = 4000  # characters; ten times what the longest text encoder of the catalogue reads, 2026-11
MAX_NAME = 1000  # characters of a model's name or path
MAX_LORAS = 16
MAX_TRIES = 16  # seeds that are painted for one picture
MAX_SEED = 2**63 - 1  # the largest integer that both SQLite and torch's generator hold
LOWEST_SIZE, HIGHEST_SIZE = 64, 4096  # pixels
STRENGTH = 0.6
# Fields that a request names only when they are given, with their defaults.
YOUNGER: dict[str, Any] = {
    "prediction": None, "lora_partial": False, "mask": None, "extend": None, "variation": 0.0, "variation_seed": None,
    "verify": False, "variety": 0.0, "keep_packed": False, "until_seen": 1,
}  # fmt: skip
SIDES = ("left", "top", "right", "bottom")  # of ``extend``

# Name or path, weight; or name, weight on the text encoders, weight on the denoiser.
Lora = tuple[str, float] | tuple[str, float, float]


def lora_weights(lora: Lora) -> tuple[float, float]:
    """The weights of a LoRA on the text encoders and on the denoiser."""
    return lora[1], lora[-1]


def random_seed() -> int:
    """A seed of 32 bits: short enough to type, exact in JavaScript, and all that torch's CPU generator reads."""
    return secrets.randbelow(2**32)


@dataclass(frozen=True, kw_only=True)
class PaintRequest:
    """A request for ``count`` pictures; picture ``i`` is painted with ``seed_of(i)``.

    Texts are NFC-normalised and stripped. Sizes are in pixels. ``guidance`` is the classifier-free guidance scale.
    ``prediction`` overrides what the model's files say that it predicts. ``strength`` in (0, 1] is the share of the
    denoising schedule that is applied to ``init_image``. ``mask`` is a picture of its size: white is painted, black is kept.
    ``extend`` = (left, top, right, bottom) pixels are painted around ``init_image``, within ``width`` × ``height``. A missing
    seed is drawn once, here. ``variation`` in [0, 1] mixes the noise of ``variation_seed`` into each picture's own; 0 changes
    nothing. ``variety`` in [0, 1] noises the text in the first steps, so that seeds differ more; 0 changes
    nothing. ``lora_partial`` applies LoRAs of which under half of the layers fit. ``verify`` computes the denoiser's first
    prediction in float32 too and tells how far the chosen format is from it; the picture is the same. ``keep_packed`` keeps
    weights that are stored in 8 bits or fewer so in memory, even if they would fit multiplied out; the picture is the same. ``until_seen`` is how many seeds are tried for one
    picture, until all that its prompt asks for is seen (``senses/tries.py``). Raises
    ``BadRequest`` (or its ``WrongSize``, ``UnknownName``) with the field and its valid values.
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
    prediction: str | None = None
    lora_partial: bool = False
    mask: str | None = None
    extend: tuple[int, int, int, int] | None = None
    variation: float = 0.0
    variation_seed: int | None = None
    verify: bool = False
    variety: float = 0.0
    keep_packed: bool = False
    until_seen: int = 1

    def __post_init__(self) -> None:
        checked = {
            "prompt": _prompt(self.prompt),
            "negative_prompt": _text("negative_prompt", self.negative_prompt),
            "model": _name("model", self.model),
            "style": None if self.style is None else _name("style", self.style),
            "sampler": None if self.sampler is None else _name("sampler", self.sampler),
            "init_image": (
                image := None if self.init_image is None else _name("init_image", _path(self.init_image))
            ),
            "mask": None if self.mask is None else _name("mask", _path(self.mask)),
            "width": (width := _whole("width", self.width, LOWEST_SIZE, HIGHEST_SIZE, WrongSize)),
            "height": (height := _whole("height", self.height, LOWEST_SIZE, HIGHEST_SIZE, WrongSize)),
            "steps": _whole("steps", self.steps, 1, 150),
            "count": (count := _whole("count", self.count, 1, 64)),
            "guidance": _real("guidance", self.guidance, 0, 30),
            "strength": _strength(self.strength, image),
            "seed": _seed(self.seed, count),
            "loras": _loras(self.loras),
            "lora_partial": _flag("lora_partial", self.lora_partial),
            "verify": _flag("verify", self.verify),
            "variety": _real("variety", self.variety, 0, 1),
            "keep_packed": _flag("keep_packed", self.keep_packed),
            "until_seen": _tries(self.until_seen, count),
            "extend": _extend(self.extend, width, height),
            "variation": (variation := _real("variation", self.variation, 0, 1)),
            "variation_seed": _variation_seed(self.variation_seed, variation),
        }
        _needs_picture(image, mask=self.mask, extend=self.extend)
        if self.precision not in PRECISIONS:
            raise UnknownName(Text("precision", "精度"), excerpt(self.precision), PRECISIONS)
        if self.prediction is not None and self.prediction not in PREDICTIONS:
            raise UnknownName(Text("prediction", "预测类型"), excerpt(self.prediction), PREDICTIONS)
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    def seed_of(self, index: int) -> int:
        """The seed of picture ``index``. Raises IndexError outside 0..count-1."""
        if not 0 <= index < self.count:
            raise IndexError(f"picture {index} of a request for {self.count}")
        assert self.seed is not None  # drawn in __post_init__
        return self.seed + index

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible values; ``from_dict`` reads them. ``YOUNGER`` fields are left out unless they are given, so that
        requests keep the ids that they had before them.
        """
        values = dataclasses.asdict(self) | {"loras": [list(lora) for lora in self.loras]}
        if self.extend is not None:
            values["extend"] = list(self.extend)
        return {name: value for name, value in values.items() if YOUNGER.get(name, ...) != value}

    def canonical(self) -> str:
        """The request as JSON with sorted keys, no spaces, and non-ASCII characters unescaped."""
        return json.dumps(
            self.to_dict(), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
        )

    def without_tags(self) -> PaintRequest:
        """The request with its prompt's LoRA tags applied; see ``take_lora_tags``."""
        return self.from_dict(take_lora_tags(self.to_dict()))

    @property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of ``canonical()``. Equal requests have equal ids."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PaintRequest:
        """A request from JSON-compatible values. Raises ``BadRequest`` for an unknown field."""
        if not isinstance(values, Mapping):
            raise BadRequest("A request is an object of named fields.", "请求应当是一组带名字的字段。")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.5) or known
                raise BadRequest(
                    f"A request has no field “{excerpt(name)}”. Did you mean {', '.join(near)}?",
                    f"请求里没有“{excerpt(name)}”这一项。是不是：{'、'.join(near)}？",
                    excerpt(name),
                )
        return cls(**{"prompt": "", **values})

    def replace(self, **changes: Any) -> PaintRequest:
        """A copy with ``changes``, validated again."""
        return self.from_dict(self.to_dict() | changes)


def check_size(width: int, height: int, multiple: int, low: int, high: int) -> None:
    """Raise ``WrongSize`` unless both sides are multiples of ``multiple`` in ``low``..``high`` (pixels).

    Nothing is rounded; the message lists up to three of the nearest valid sizes.
    """
    if all(low <= side <= high and side % multiple == 0 for side in (width, height)):
        return
    near = sorted(
        itertools.product(_nearest(width, multiple, low, high), _nearest(height, multiple, low, high)),
        key=lambda size: (abs(size[0] - width) + abs(size[1] - height), size),
    )[:3]
    sizes = [f"{w}×{h}" for w, h in near]
    raise WrongSize(
        f"{width}×{height} does not fit this model: width and height must be multiples of {multiple} from {low} to "
        f"{high}; nearest: {', '.join(sizes)}.",
        f"{width}×{height} 不适合这个模型：宽和高须为 {multiple} 的倍数，范围 {low} 到 {high}；"
        f"最接近的尺寸：{'、'.join(sizes)}。",
    )


def _nearest(side: int, multiple: int, low: int, high: int) -> list[int]:
    """The valid sides just below and just above ``side``; one value if ``side`` is valid or out of range."""
    first, last = -(-low // multiple) * multiple, high // multiple * multiple
    below, above = side // multiple * multiple, -(-side // multiple) * multiple
    return sorted({min(max(candidate, first), last) for candidate in (below, above)})


def _checked(field: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise BadRequest(
            f"{field} must be text, not {excerpt(value)}.",
            f"{field} 应当是文字，而不是 {excerpt(value)}。",
            field,
        )
    if len(value) > limit:
        raise BadRequest(
            f"{field} has {len(value)} characters; the limit is {limit}. Shorten it.",
            f"{field} 长达 {len(value)} 个字符，上限为 {limit} 个；请缩短。",
            field,
        )
    if found := UNPRINTABLE.search(value):
        code = f"U+{ord(found[0]):04X}"
        raise BadRequest(
            f"{field} contains an unprintable character ({code} at position {found.start()}); remove it.",
            f"{field} 含有不可打印的字符（{code}，位置 {found.start()}）；请删去它。",
            field,
        )
    return value


def _text(field: str, value: object) -> str:
    # A text far beyond the limit is refused below, so it is not worth normalising.
    if isinstance(value, str) and len(value) <= 4 * MAX_TEXT:
        value = unicodedata.normalize("NFC", unix_newlines(value)).strip()
    return _checked(field, value, MAX_TEXT)


def _prompt(value: object) -> str:
    if not (prompt := _text("prompt", value)):
        raise BadRequest(
            "The prompt is empty; describe the picture.", "提示词是空的；请写下想画什么。", "prompt"
        )
    return prompt


def _name(field: str, value: object) -> str:
    """A name or path, unchanged: file names need not be NFC."""
    name = _checked(field, value, MAX_NAME)
    if not name.strip():
        raise BadRequest(
            f"{field} is empty; give a name or leave it out.",
            f"{field} 是空的；请写明，或者不写这一项。",
            field,
        )
    if "\n" in name or "\t" in name:
        raise BadRequest(
            f"{field} must be one line without tabs.", f"{field} 应当是一行文字，不含制表符。", field
        )
    return name


def _path(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)  # includes numpy's integers


def _is_real(value: object) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _whole(field: str, value: object, low: int, high: int, error: type[BadRequest] = BadRequest) -> int:
    if not _is_whole(value) or not low <= value <= high:
        raise error(
            f"{field} must be a whole number from {low} to {high}, not {excerpt(value)}.",
            f"{field} 应当是 {low} 到 {high} 之间的整数，而不是 {excerpt(value)}。",
            field,
        )
    return int(value)


def _real(field: str, value: object, low: float, high: float) -> float:
    # NaN fails every comparison, so this test refuses it as well.
    if not _is_real(value) or not low <= value <= high:
        raise BadRequest(
            f"{field} must be a number from {low:g} to {high:g}, not {excerpt(value)}.",
            f"{field} 应当是 {low:g} 到 {high:g} 之间的数，而不是 {excerpt(value)}。",
            field,
        )
    return float(value) + 0.0  # turns -0.0 into 0.0, so that both give one id


def _tries(value: object, count: int) -> int:
    tries = _whole("until_seen", value, 1, MAX_TRIES)
    if tries > 1 and count > 1:
        raise BadRequest(
            f"until_seen tries seeds for one picture, and count is {count}; leave one of them out.",
            f"until_seen 为一幅画换种子，而 count 是 {count}；请去掉其中一个。",
            "until_seen",
        )
    return tries


def _flag(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(
            f"{field} must be true or false, not {excerpt(value)}.",
            f"{field} 应当是 true 或 false，而不是 {excerpt(value)}。",
            field,
        )
    return value


def take_lora_tags(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A request's fields with the prompt's tags <lora:name:0.8> moved from the prompt to ``loras``.

    A second number is the denoiser's weight, as A1111 has it: <lora:name:text encoder:denoiser>, also te=… and unet=….
    Raises BadRequest for a tag that cannot be applied: of a hypernetwork, inside a choice, in the negative prompt, with
    something else than numbers.
    """
    prompt, negative = fields.get("prompt"), fields.get("negative_prompt")
    tags = [] if not isinstance(prompt, str) else prompt_syntax.find(prompt)
    unwanted = prompt_syntax.find(negative) if isinstance(negative, str) else []
    for tag in unwanted:
        if tag.kind in ("lora", "hypernet"):
            raise _tag_error(
                tag,
                "it belongs into the prompt, not into the negative prompt",
                "它应写在提示词里，而不是负面提示词里",
            )
    for tag in tags:
        if tag.kind == "hypernet":
            raise _tag_error(
                tag, "hypernetworks are not applied here; remove it", "此处不支持 hypernetwork；请删去它"
            )
    found = [tag for tag in tags if tag.kind == "lora"]
    if not found:
        return dict(fields)
    for tag in found:
        if any(each.kind == "choice" and each.start < tag.start < each.end for each in tags):
            raise _tag_error(
                tag,
                "it stands inside a choice; write it outside the braces",
                "它写在了选项之中；请写到花括号外面",
            )
    loras = [*(fields.get("loras") or ()), *map(_lora_of, found)]
    return {**fields, "prompt": prompt_syntax.without_loras(str(prompt)), "loras": tuple(loras)}


def _lora_of(tag: prompt_syntax.Construct) -> Lora:
    name, *words = (word.strip() for word in tag.body.split(":"))
    weights: dict[str, float] = {}
    for place, word in zip(("te", "unet"), words, strict=False):
        key, equals, number = word.rpartition("=")
        key = key.strip() if equals else place
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if key not in ("te", "unet") or key in weights or not math.isfinite(value):
            raise _tag_error(
                tag,
                "its weights must be numbers, as in <lora:name:0.8>",
                "权重应为数字，例如 <lora:名字:0.8>",
            )
        weights[key] = value
    if not name or len(words) > 2:
        raise _tag_error(tag, "write it as <lora:name:0.8>", "请写成 <lora:名字:0.8>")
    text = weights.get("te", 1.0)
    denoiser = weights.get("unet", text)
    return (name, text) if text == denoiser else (name, text, denoiser)


def _tag_error(tag: prompt_syntax.Construct, en: str, zh: str) -> BadRequest:
    return BadRequest(
        f"“{excerpt(tag.written)}” cannot be applied: {en}.", f"“{excerpt(tag.written)}”无法应用：{zh}。"
    )


def _strength(value: object, init_image: str | None) -> float:
    strength = _real("strength", value, 0, 1)
    if strength == 0:
        raise BadRequest(
            "strength must be above 0; at 0 the picture would not change.",
            "strength 必须大于 0：等于 0 时画面不会有任何改变。",
            "strength",
        )
    if init_image is None and strength != STRENGTH:
        raise BadRequest(
            "strength applies to init_image only; give an init_image or leave strength out.",
            "strength 只对 init_image 起作用；请给出 init_image，或者不写 strength。",
            "strength",
        )
    return strength


def _needs_picture(init_image: str | None, **fields: object) -> None:
    for name, value in fields.items():
        if value is not None and init_image is None:
            raise BadRequest(
                f"{name} applies to init_image only; give an init_image or leave {name} out.",
                f"{name} 只对 init_image 起作用；请给出 init_image，或者不写 {name}。",
            )


def read_sides(value: object) -> tuple[int, int, int, int]:
    """``extend``: (left, top, right, bottom) in pixels, of which at least one is above 0. Raises BadRequest or WrongSize."""
    if not isinstance(value, list | tuple) or len(value) != len(SIDES):
        raise BadRequest(
            f"extend is four whole numbers of pixels ({', '.join(SIDES)}), not {excerpt(value)}.",
            f"extend 应当是四个整数像素（左、上、右、下），而不是 {excerpt(value)}。",
        )
    left, top, right, bottom = (
        _whole(f"extend {side}", pixels, 0, HIGHEST_SIZE, WrongSize)
        for side, pixels in zip(SIDES, value, strict=True)
    )
    if not left + top + right + bottom:
        raise BadRequest(
            "extend adds nothing; give at least one side.", "extend 没有扩展任何一边；请至少给出一边。"
        )
    return left, top, right, bottom


def _extend(value: object, width: int, height: int) -> tuple[int, int, int, int] | None:
    """As ``read_sides``, with room for some of the first picture within ``width`` × ``height``; None is None."""
    if value is None:
        return None
    left, top, right, bottom = read_sides(value)
    if width - left - right < 1 or height - top - bottom < 1:
        raise WrongSize(
            f"Extended by {left} + {right} × {top} + {bottom} pixels, a picture of {width}×{height} has no room for the first "
            "one; make it larger or extend less.",
            f"左右扩展 {left} + {right}、上下扩展 {top} + {bottom} 像素后，{width}×{height} 里放不下原图；请放大画面或少扩展一些。",
        )
    return left, top, right, bottom


def _variation_seed(value: object, variation: float) -> int | None:
    """A missing one is drawn here, as a missing seed is."""
    if not variation:
        if value is not None:
            raise BadRequest(
                "variation_seed applies with a variation above 0 only.",
                "variation_seed 只在 variation 大于 0 时起作用。",
            )
        return None
    return _seed(value, 1, "variation_seed")


def _seed(value: object, count: int, field: str = "seed") -> int:
    if value is None:
        return random_seed()
    highest = MAX_SEED - count + 1  # picture i is painted with seed + i
    if not _is_whole(value) or not 0 <= value <= highest:
        raise BadRequest(
            f"{field} must be a whole number from 0 to {highest}, not {excerpt(value)}; leave it out for a random seed.",
            f"{field} 应当是 0 到 {highest} 之间的整数，而不是 {excerpt(value)}；不写它，就会随机抽取一个。",
            field,
        )
    return int(value)


def _loras(values: object) -> tuple[Lora, ...]:
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        values = [values]  # refused below, with the message that shows the right form
    loras: list[Lora] = []
    for item in values:
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise BadRequest(
                f"Each LoRA must be a name (or path) and a weight, not {excerpt(item)}.",
                f"每个 LoRA 应当是一个名字（或路径）加一个权重，而不是 {excerpt(item)}。",
                "loras",
            )
        try:
            name = _name("LoRA", _path(item[0]))
            text, denoiser = (
                _real(f"LoRA “{excerpt(name)}”", weight, -4, 4) for weight in (item[1], item[-1])
            )
        except BadRequest as error:
            error.param = "loras"
            raise
        loras.append((name, text) if text == denoiser else (name, text, denoiser))
    if len(loras) > MAX_LORAS:
        raise BadRequest(
            f"{len(loras)} LoRAs are too many; the limit is {MAX_LORAS}.",
            f"{len(loras)} 个 LoRA 太多了；上限为 {MAX_LORAS} 个。",
            "loras",
        )
    return tuple(loras)
