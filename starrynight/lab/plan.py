"""What a run measures: models × formats × prompts × seeds, as a frozen value with a JSON form. Knows no torch.

A ``Point`` is one measurement with a name of its own, so that it is never taken twice. A run's plan may grow (more
seeds, formats, models) and what is measured stays measured; what would make old numbers incomparable (size, steps,
prompts) may not change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from starrynight.errors import BadRequest, UnknownName
from starrynight.lab.claims import BY_ID

REFERENCE = "float32"
WIDE = "firefly-wide"
# Reference first: everything else is measured against it.
FORMATS = ("float32", "float16", "float16-folded", "bfloat16", "float8")
QUICK_FORMATS = FORMATS[:4]
EXTRAS = ("float8",)  # besides the claims, and emulated: a fifth of the pictures will do
RATED = ("float16", "bfloat16")  # whose broken pictures the claims count

# The claims' own prompt first, then one for each manner; (prompt, style).
VILLAGE = "a starry night over a quiet village, van gogh style, thick impasto, swirling clouds, glowing stars"
PROMPTS: tuple[tuple[str, str | None], ...] = (
    (VILLAGE, None),
    ("雨夜的霓虹都市，天边最后一抹蓝紫", "cyberpunk"),
    ("江雪，孤舟，远山", "ink"),
    ("a lily pond and an arched bridge at dawn", "monet"),
    ("mountains and a lake under the aurora", "watercolor"),
    ("飞天的飘带掠过莲花", "dunhuang"),
    ("a pagoda and the moon above the sea", "ukiyoe"),
    ("sunflowers before a wheat field at noon", "pointillism"),
    ("雪后的村庄，窗里有灯", "pastel"),
    ("a cypress, a church, a comet", "papercut"),
)


@dataclass(frozen=True)
class Point:
    """One measurement. ``prompt`` and ``seed`` count from 0 and are None where no picture is asked for."""

    experiment: str
    model: str
    format: str
    prompt: int | None = None
    seed: int | None = None

    @property
    def key(self) -> str:
        return "|".join(
            str(part)
            for part in (self.experiment, self.model, self.format, self.prompt, self.seed)
            if part is not None
        )


@dataclass(frozen=True)
class ExperimentPlan:
    """``seeds`` pictures of each of the first ``prompts`` prompts; of the wide twin, ``twin`` pictures in all. At least
    ``counted`` of each model in the formats whose broken pictures are claimed to be so many in a hundred: what is painted
    beyond the others is only looked at for breaking. ``claims``: which of them to look into; all, if it is empty.

    ``noise_steps``: how many of the 1000 levels of training noise are walked; ``repeats``: pairs of every timing; ``size`` and
    ``steps`` None: what suits the model.
    """

    models: tuple[str, ...] = ("firefly", WIDE)
    formats: tuple[str, ...] = FORMATS
    prompts: int = len(PROMPTS)
    seeds: int = 10
    twin: int = 10
    counted: int = 50  # 42 tell none from the 7 % claimed (stats.needed)
    size: int | None = None
    steps: int | None = None
    noise_steps: int = 1000
    repeats: int = 9
    training_steps: int = 8
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise UnknownName(("format", "数值格式"), name, FORMATS)
        if not self.models:
            raise BadRequest("Name at least one model.", "请至少写明一个模型。")
        if not 1 <= self.prompts <= len(PROMPTS) or min(self.seeds, self.twin, self.counted) < 1:
            raise BadRequest(
                f"A run paints 1 to {len(PROMPTS)} prompts with 1 seed or more.",
                f"一次实验须有 1 到 {len(PROMPTS)} 条提示词、至少 1 个种子。",
            )
        for name in self.claims:
            if name not in BY_ID:
                raise UnknownName(("claim", "论断"), name, tuple(BY_ID))
        ordered = tuple(f for f in FORMATS if f in self.formats or f == REFERENCE)
        object.__setattr__(self, "formats", ordered)
        object.__setattr__(self, "claims", tuple(c for c in BY_ID if c in self.claims))

    def pictures(self, model: str, format_: str) -> list[tuple[int, int]]:
        """(prompt, seed), the first seed of every prompt first: a run cut short has seen every manner."""
        count = self.prompts * self.seeds
        count = min(count, self.twin) if model == WIDE else count
        return self._first(max(1, count // 5) if format_ in EXTRAS else count)

    def attempts(self, model: str, format_: str) -> list[tuple[int, int]]:
        """(prompt, seed) of every picture that is painted: ``pictures``, and those only counted."""
        measured = self.pictures(model, format_)
        return self._first(max(len(measured), self.counted)) if format_ in RATED else measured

    def _first(self, count: int) -> list[tuple[int, int]]:
        return [(at % self.prompts, at // self.prompts) for at in range(count)]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExperimentPlan:
        known = {field.name for field in fields(cls)}
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known
        }
        return cls(**plain)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1)

    def grown(self, wish: ExperimentPlan) -> ExperimentPlan:
        """This plan with whatever ``wish`` asks for besides. Raises BadRequest where old numbers would not compare."""
        for name in ("size", "steps"):
            if getattr(self, name) != getattr(wish, name):
                raise BadRequest(
                    f"This run was begun with {name} {getattr(self, name)}; take another folder for {getattr(wish, name)}.",
                    f"该实验以 {name}={getattr(self, name)} 开始；若要 {getattr(wish, name)}，请另选文件夹。",
                )
        models = (*self.models, *(m for m in wish.models if m not in self.models))
        larger = {n: max(getattr(self, n), getattr(wish, n)) for n in ("prompts", "seeds", "twin", "counted")}
        claims = (*self.claims, *wish.claims) if self.claims and wish.claims else ()
        return replace(self, models=models, formats=(*self.formats, *wish.formats), claims=claims, **larger)


def quick(**changes: Any) -> ExperimentPlan:
    """A full small report in two minutes of two idle cores (measured 2026-11-25: 1 min 54 s, imports and
    first folds included). Two prompts say which way a difference goes; whether it is one, a full run tells.
    """
    small: dict[str, Any] = {
        "formats": QUICK_FORMATS,
        "prompts": 2,
        "seeds": 1,
        "noise_steps": 25,
        "repeats": 2,
        "training_steps": 2,
        "counted": 1,
    }
    return ExperimentPlan(**(small | changes))
