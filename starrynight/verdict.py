"""The guard's verdict on a picture: whether it may hang, where its numbers broke, and which fallback helped.

Plain values and sentences in English and Chinese, for a picture's recipe and for doors. Knows no tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

OUTCOMES = ("hang", "refuse", "unchecked")

# The stages that the guard checks, in the order a picture passes them.
STAGES = {
    "prompt": ("the prompt's embeddings", "提示词编码"),
    "encoder": ("the encoded first picture", "起始图编码"),
    "prediction": ("the prediction", "预测"),
    "guidance": ("the guided prediction", "引导后的预测"),
    "latents": ("the latents", "潜变量"),
    "decoder": ("the decoder's output", "解码器输出"),
    "picture": ("the picture", "画面"),
}

# The fallbacks, in the order they are tried.
FALLBACK_NAMES = {
    "replan": ("folds planned anew", "按新的数值范围重新折叠"),
    "decoder": ("the decoder in float32", "解码器改用 float32"),
    "islands": ("float32 islands", "float32 小岛"),
    "bfloat16": ("bfloat16", "改用 bfloat16"),
    "float32": ("float32", "改用 float32"),
    "attention": ("another attention back end", "更换注意力后端"),
    "sampler": ("the conservative sampler", "改用保守采样器"),
}

# The detail of a fallback that ran out of memory.
OUT_OF_MEMORY = ("out of memory", "内存不足")


@dataclass(frozen=True)
class Fault:
    """Numbers that broke: ``count`` of ``total`` are ``kind`` ("NaN", "+Inf" or "−Inf") at a stage, in a step (from 0).

    ``module`` and ``op`` say where they arose, once that is known; ``format`` what they were held in.
    """

    stage: str
    kind: str
    count: int
    total: int
    step: int | None = None
    module: str = ""
    op: str = ""
    format: str = ""

    def at(self, place: tuple[str, str] | None) -> Fault:
        """The same fault with its place."""
        return replace(self, module=place[0], op=place[1]) if place else self

    def message(self, lang: str) -> str:
        """One line: “NaN in 12 of 4096 numbers of the prediction, step 3 (float16): layers.7.feed_forward.w2, mm”."""
        stage = STAGES.get(self.stage, (self.stage, self.stage))
        if lang.startswith("zh"):
            text = f"{stage[1]}的 {self.total} 个数中有 {self.count} 个 {self.kind}"
            text += f"，第 {self.step + 1} 步" if self.step is not None else ""
            text += f"（{self.format}）" if self.format else ""
            return text + (f"：{self.module or '模型之外'}，{self.op}" if self.op else "")
        text = f"{self.kind} in {self.count} of {self.total} numbers of {stage[0]}"
        text += f", step {self.step + 1}" if self.step is not None else ""
        text += f" ({self.format})" if self.format else ""
        return text + (f": {self.module or 'outside the model'}, {self.op}" if self.op else "")


@dataclass(frozen=True)
class FallbackAttempt:
    """A fallback that was tried because of ``fault``. ``recovered``: the numbers were finite after it. ``detail``: which
    islands, which attention back end, which scheduler.
    """

    name: str
    fault: Fault
    recovered: bool
    detail: str = ""

    def message(self, lang: str) -> str:
        """The fallback's name, with the detail where there is one: “float32 islands (transformer.layers.0)”."""
        chinese = lang.startswith("zh")
        text = FALLBACK_NAMES.get(self.name, (self.name, self.name))[chinese]
        if not self.detail:
            return text
        detail = OUT_OF_MEMORY[chinese] if self.detail == OUT_OF_MEMORY[0] else self.detail
        return f"{text}（{detail}）" if chinese else f"{text} ({detail})"

    def to_dict(self) -> dict[str, Any]:
        """For the recipe; "mended" is the recipe's key for ``recovered``."""
        return {
            "name": self.name,
            "fault": asdict(self.fault),
            "mended": self.recovered,
            "detail": self.detail,
        }

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> FallbackAttempt:
        """What ``to_dict`` gave. Raises TypeError or KeyError for anything else."""
        fields = {"recovered" if key == "mended" else key: value for key, value in payload.items()}
        return cls(**{**fields, "fault": Fault(**payload["fault"])})


@dataclass(frozen=True)
class Verdict:
    """``outcome`` is "hang", "refuse" or "unchecked"; ``reasons`` are sentences; ``attempts`` is every fallback tried, in
    order. ``clamps`` counts the numbers that the libraries' own clamps changed, by "module op"; None: not counted.
    """

    outcome: str = "unchecked"
    reasons: tuple[str, ...] = ()
    attempts: tuple[FallbackAttempt, ...] = ()
    clamps: Mapping[str, int] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"a verdict is one of {OUTCOMES}, not {self.outcome!r}")
        object.__setattr__(self, "reasons", tuple(self.reasons))
        object.__setattr__(self, "attempts", tuple(self.attempts))

    def to_dict(self) -> dict[str, Any]:
        """For the recipe; "rungs" is the recipe's key for ``attempts``. Empty entries are left out."""
        payload: dict[str, Any] = {"outcome": self.outcome, "reasons": list(self.reasons)}
        if self.attempts:
            payload["rungs"] = [attempt.to_dict() for attempt in self.attempts]
        if self.clamps is not None:
            payload["clamps"] = dict(self.clamps)
        return payload

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> Verdict:
        """What ``to_dict`` gave. Raises ValueError, TypeError or KeyError for anything else."""
        attempts = [FallbackAttempt.from_dict(attempt) for attempt in payload.get("rungs", ())]
        return cls(
            payload["outcome"], tuple(payload.get("reasons", ())), tuple(attempts), payload.get("clamps")
        )

    def recoveries(self, lang: str) -> list[str]:
        """One line for each recovered fault: where it was, and which fallback helped."""
        return [
            f"{attempt.fault.message(lang)} → {attempt.message(lang)}"
            for attempt in self.attempts
            if attempt.recovered
        ]


def names_of(attempts: Iterable[FallbackAttempt], lang: str) -> str:
    """The fallbacks' names in order, each once."""
    return ("、" if lang.startswith("zh") else ", ").join(dict.fromkeys(a.message(lang) for a in attempts))
