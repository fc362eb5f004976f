"""What the guard says of a picture: whether it may hang, where its numbers broke, and which rung of the ladder helped.

Plain values and sentences in English and Chinese, for a picture's recipe and for doors. Knows no tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

OUTCOMES = ("hang", "refuse", "unchecked")

# Where the guard stands, in the order a picture passes.
STAGES = {
    "prompt": ("the prompt's embeddings", "提示词编码"),
    "encoder": ("the encoded first picture", "起始图编码"),
    "prediction": ("the prediction", "预测"),
    "guidance": ("the guided prediction", "引导后的预测"),
    "latents": ("the latents", "潜变量"),
    "decoder": ("the decoder's output", "解码器输出"),
    "picture": ("the picture", "画面"),
}

# What may be changed to make numbers whole, in the order it is tried.
RUNGS = {
    "replan": ("folds planned anew", "按新的数值范围重新折叠"),
    "decoder": ("the decoder in float32", "解码器改用 float32"),
    "islands": ("float32 islands", "float32 小岛"),
    "bfloat16": ("bfloat16", "改用 bfloat16"),
    "float32": ("float32", "改用 float32"),
    "attention": ("another attention back end", "更换注意力后端"),
    "sampler": ("the conservative sampler", "改用保守采样器"),
}

# The detail of a rung for which there was not memory enough.
NO_ROOM = ("out of memory", "内存不足")


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

    def say(self, lang: str) -> str:
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
class Rung:
    """A rung that was climbed because of ``fault``. ``mended``: the numbers were whole after it. ``detail``: which
    islands, which back end, which sampler.
    """

    name: str
    fault: Fault
    mended: bool
    detail: str = ""

    def say(self, lang: str) -> str:
        """“folds planned anew”, with the detail where there is one."""
        chinese = lang.startswith("zh")
        text = RUNGS.get(self.name, (self.name, self.name))[chinese]
        if not self.detail:
            return text
        detail = NO_ROOM[chinese] if self.detail == NO_ROOM[0] else self.detail
        return f"{text}（{detail}）" if chinese else f"{text} ({detail})"


@dataclass(frozen=True)
class Verdict:
    """``hang``, ``refuse`` or ``unchecked``; why (sentences); every rung climbed, in order; the numbers that the
    libraries' clamps changed, by "module op", where they were counted (None: nobody counted).
    """

    outcome: str = "unchecked"
    reasons: tuple[str, ...] = ()
    rungs: tuple[Rung, ...] = ()
    clamps: Mapping[str, int] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"a verdict is one of {OUTCOMES}, not {self.outcome!r}")
        object.__setattr__(self, "reasons", tuple(self.reasons))
        object.__setattr__(self, "rungs", tuple(self.rungs))

    def to_dict(self) -> dict[str, Any]:
        """For the recipe. What did not happen leaves no key."""
        told: dict[str, Any] = {"outcome": self.outcome, "reasons": list(self.reasons)}
        if self.rungs:
            told["rungs"] = [asdict(rung) for rung in self.rungs]
        if self.clamps is not None:
            told["clamps"] = dict(self.clamps)
        return told

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Verdict:
        """What ``to_dict`` gave. Raises ValueError, TypeError or KeyError for anything else."""
        rungs = [Rung(**{**rung, "fault": Fault(**rung["fault"])}) for rung in told.get("rungs", ())]
        return cls(told["outcome"], tuple(told.get("reasons", ())), tuple(rungs), told.get("clamps"))

    def mends(self, lang: str) -> list[str]:
        """One line for each place that was mended: where it broke, and what helped."""
        arrow = " → "
        return [f"{rung.fault.say(lang)}{arrow}{rung.say(lang)}" for rung in self.rungs if rung.mended]


def tried(rungs: Iterable[Rung], lang: str) -> str:
    """The rungs' names in order, each once."""
    return ("、" if lang.startswith("zh") else ", ").join(dict.fromkeys(rung.say(lang) for rung in rungs))
