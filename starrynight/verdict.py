"""The guard's verdict on a picture: whether it is delivered, where NaN or Inf arose, and which fallback
recovered.

Plain values with messages in English and Chinese, for the recipe and the interfaces. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from starrynight.i18n import Text, is_chinese

OUTCOMES = ("hang", "refuse", "unchecked", "uniform")
OUTCOME_NAMES = {
    "hang": Text("numbers checked", "数值已查验"),
    "refuse": Text("refused", "未通过"),
    "unchecked": Text("not checked", "未检查"),
    "uniform": Text("uniform: one colour in every pixel", "纯色：每个像素都相同"),
}

# The stages that the guard checks, in the order of the pipeline.
STAGES = {
    "prompt": Text("the prompt's embeddings", "提示词编码"),
    "encoder": Text("the encoded initial image", "起始图编码"),
    "prediction": Text("the prediction", "预测"),
    "guidance": Text("the guided prediction", "引导后的预测"),
    "latents": Text("the latents", "潜变量"),
    "decoder": Text("the decoder's output", "解码器输出"),
    "picture": Text("the picture", "画面"),
}

# The fallbacks, in the order they are tried.
FALLBACK_NAMES = {
    "replan": Text("folds planned anew", "按新的数值范围重新折叠"),
    "decoder": Text("the decoder in float32", "解码器改用 float32"),
    "islands": Text("float32 islands", "float32 小岛"),
    "bfloat16": Text("bfloat16", "改用 bfloat16"),
    "float32": Text("float32", "改用 float32"),
    "attention": Text("another attention back end", "更换注意力后端"),
    "sampler": Text("the conservative sampler", "改用保守采样器"),
}

# The detail of a fallback that ran out of memory.
OUT_OF_MEMORY = Text("out of memory", "内存不足")


@dataclass(frozen=True)
class Fault:
    """Non-finite numbers at a stage: ``count`` of ``total`` are ``kind`` ("NaN", "+Inf" or "−Inf"). ``step``
    counts from 0.

    ``module`` and ``op``: where they arose, once located. ``format``: the number format there; ``stored``: that of the files,
    where it is a quantised one.
    """

    stage: str
    kind: str
    count: int
    total: int
    step: int | None = None
    module: str = ""
    op: str = ""
    format: str = ""
    stored: str = ""

    def at(self, place: tuple[str, str] | None) -> Fault:
        """A copy with (module, op) set; unchanged without a place."""
        return replace(self, module=place[0], op=place[1]) if place else self

    def message(self, lang: str) -> str:
        """One line: “NaN in 12 of 4096 numbers of the prediction, step 3 (float16): layers.7.feed_forward.w2,
        mm”.
        """
        stage = STAGES.get(self.stage, Text(self.stage, self.stage)).to(lang)
        if is_chinese(lang):
            text = f"{stage}的 {self.total} 个数中有 {self.count} 个 {self.kind}"
            text += f"，第 {self.step + 1} 步" if self.step is not None else ""
            text += (
                f"（{self.stored + '，以 ' if self.stored else ''}{self.format}{' 计算' if self.stored else ''}）"
                if self.format
                else ""
            )
            return text + (f"：{self.module or '模型之外'}，{self.op}" if self.op else "")
        text = f"{self.kind} in {self.count} of {self.total} numbers of {stage}"
        text += f", step {self.step + 1}" if self.step is not None else ""
        text += (
            f" ({self.stored + ', computed in ' if self.stored else ''}{self.format})" if self.format else ""
        )
        return text + (f": {self.module or 'outside the model'}, {self.op}" if self.op else "")


@dataclass(frozen=True)
class FallbackAttempt:
    """One fallback tried because of ``fault``. ``recovered``: the numbers were finite afterwards. ``detail``:
    the islands, attention back end or scheduler it used.
    """

    name: str
    fault: Fault
    recovered: bool
    detail: str = ""

    def message(self, lang: str) -> str:
        """The fallback's name, with its detail if there is one: “float32 islands (transformer.layers.0)”."""
        text = FALLBACK_NAMES.get(self.name, Text(self.name, self.name)).to(lang)
        if not self.detail:
            return text
        detail = OUT_OF_MEMORY.to(lang) if self.detail == OUT_OF_MEMORY.en else self.detail
        return f"{text}（{detail}）" if is_chinese(lang) else f"{text} ({detail})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible values for the recipe, whose key for ``recovered`` is "mended"."""
        fault = {key: value for key, value in asdict(self.fault).items() if key != "stored" or value}
        return {"name": self.name, "fault": fault, "mended": self.recovered, "detail": self.detail}

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> FallbackAttempt:
        """The inverse of ``to_dict``. Raises TypeError or KeyError for other values."""
        fields = {"recovered" if key == "mended" else key: value for key, value in payload.items()}
        return cls(**{**fields, "fault": Fault(**payload["fault"])})


@dataclass(frozen=True)
class Verified:
    """The denoiser's first prediction in its own ``format`` and in float32, from the same inputs and weights.

    ``error``: ‖x − r‖ / ‖r‖, r in float32; None where float32 did not fit into memory or a result is not finite.
    """

    format: str
    error: float | None = None

    def message(self, lang: str) -> str:
        """“step 1 in bfloat16 is 0.42 % from float32”."""
        if self.error is None:
            return Text(
                f"step 1 in {self.format} could not be compared with float32 (not enough memory, or not finite)",
                f"第 1 步（{self.format}）无法与 float32 比较（内存不足或数值失效）",
            ).to(lang)
        share = f"{100 * self.error:.2g} %"
        return Text(
            f"step 1 in {self.format} is {share} from float32",
            f"第 1 步（{self.format}）与 float32 相差 {share}",
        ).to(lang)


@dataclass(frozen=True)
class Verdict:
    """``outcome``: "hang" (every number was finite; no more is known), "refuse", "unchecked", or "uniform" (one colour in
    every pixel). ``reasons``: messages in English, ``reasons_zh`` the same in Chinese. ``attempts``: all
    fallbacks tried, in order. ``clamps``: how many numbers the libraries' own clamps changed, by "module op";
    None: not counted. ``verified``: one prediction beside float32, where the request asked for it.
    """

    outcome: str = "unchecked"
    reasons: tuple[str, ...] = ()
    attempts: tuple[FallbackAttempt, ...] = ()
    clamps: Mapping[str, int] | None = field(default=None, hash=False)
    reasons_zh: tuple[str, ...] = ()
    verified: Verified | None = None

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"a verdict is one of {OUTCOMES}, not {self.outcome!r}")
        object.__setattr__(self, "reasons", tuple(self.reasons))
        object.__setattr__(self, "reasons_zh", tuple(self.reasons_zh))
        object.__setattr__(self, "attempts", tuple(self.attempts))

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible values for the recipe, whose key for ``attempts`` is "rungs". Empty entries are
        left out.
        """
        payload: dict[str, Any] = {"outcome": self.outcome, "reasons": list(self.reasons)}
        if self.reasons_zh:
            payload["reasons_zh"] = list(self.reasons_zh)
        if self.attempts:
            payload["rungs"] = [attempt.to_dict() for attempt in self.attempts]
        if self.clamps is not None:
            payload["clamps"] = dict(self.clamps)
        if self.verified is not None:
            payload["verified"] = asdict(self.verified)
        return payload

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> Verdict:
        """The inverse of ``to_dict``. Raises ValueError, TypeError or KeyError for other values."""
        attempts = tuple(FallbackAttempt.from_dict(attempt) for attempt in payload.get("rungs", ()))
        verified = Verified(**payload["verified"]) if payload.get("verified") else None
        return cls(payload["outcome"], tuple(payload.get("reasons", ())), attempts, payload.get("clamps"),
                   tuple(payload.get("reasons_zh", ())), verified)  # fmt: skip

    def recoveries(self, lang: str) -> list[str]:
        """One line for each recovered fault: where it arose, and the fallback that recovered."""
        return [
            f"{attempt.fault.message(lang)} → {attempt.message(lang)}"
            for attempt in self.attempts
            if attempt.recovered
        ]


def split(reasons: Iterable[Text]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """``Verdict.reasons`` and ``Verdict.reasons_zh``."""
    found = tuple(reasons)
    return tuple(one.en for one in found), tuple(one.zh for one in found)


def reasons_in(payload: Mapping[str, Any], lang: str) -> list[str]:
    """The reasons of a recipe's verdict in ``lang``; in English where it has no other, as those written before 2026-12."""
    english, chinese = (
        [str(one) for one in found] if isinstance(found := payload.get(key), list | tuple) else []
        for key in ("reasons", "reasons_zh")
    )
    return chinese if is_chinese(lang) and len(chinese) == len(english) else english


def names_of(attempts: Iterable[FallbackAttempt], lang: str) -> str:
    """The fallbacks' names in order, without repeats."""
    return ("、" if is_chinese(lang) else ", ").join(dict.fromkeys(a.message(lang) for a in attempts))
