"""What a run measures: the claims it examines, and models × formats × prompts × seeds. Imports no torch.

A ``Point`` is one measurement with a unique key, so no measurement is taken twice. A run's plan may grow (more seeds,
formats, models), and existing rows stay valid. Size and steps may not change: old and new rows would not compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

from starrynight.errors import BadRequest, UnknownName
from starrynight.i18n import Text


@dataclass(frozen=True)
class Claim:
    """One claim as it was published, or (``X``) one of the lab's own measurements.

    ``float16`` and ``bfloat16`` are the claimed figures: "" where the claim names none, "English|中文" where they are
    words. The claims describe 1024×1024 pixels, 8 steps, CFG 2.0, on an A100 40 GB or an RTX 4090.
    """

    id: str
    en: str
    zh: str
    float16: str = ""
    bfloat16: str = ""

    def claimed(self, lang: str) -> dict[str, str]:
        """The claimed figures by format."""
        figures = {"float16": self.float16, "bfloat16": self.bfloat16}
        return {f: Text(text.split("|")[0], text.split("|")[-1]).to(lang) for f, text in figures.items()}


CLAIMS = (
    Claim("C1", "Memory for one picture", "一幅画占用的内存", "18.2 GB", "15.7 GB"),
    Claim("C2", "Time to the first picture, 8 steps", "首图时间（8 步）", "3.8 s", "3.6 s"),
    Claim("C3", "Colour: mean ΔE (lower is truer)", "色彩：平均 ΔE（越低越真）", "22.4", "18.1"),
    Claim("C4", "Shadow detail: PSNR in dark regions", "暗部细节：暗区 PSNR", "24.7 dB", "27.9 dB"),
    Claim("C5", "Black pictures in 100", "每百幅中的黑图", "7", "0"),
    Claim("C6", "Gradients in LoRA training", "LoRA 训练中的梯度", "needs loss scaling|需损失缩放", "out of the box|直接可用"),
    Claim("C7", "Norms of three UNet layers over 1000 noise steps", "三层 UNet 在 1000 个噪声步上的范数",
          "0.82±0.41 · 12.7±9.3 · −3.1±15.6", "0.85±0.38 · 11.2±5.1 · −2.9±8.2"),
    Claim("C8", "Latent range at t = 1000", "t = 1000 时潜变量的范围", "±Inf, NaN possible|可能出现 ±Inf、NaN", "−5.2 … 4.8"),
    Claim("C9", "Runs that meet NaN at steps 2–3 and fall back to Euler a", "第 2–3 步遇到 NaN 而退回 Euler a 的比例", "12 %", "0"),
    Claim("C10", "An extreme −6.2 becomes −Inf at the decoder's clamp: black", "解码钳位时 −6.2 变成 −Inf，画面变黑", "yes|是", "no|否"),
    Claim("C11", "Activation memory: down / mid / decoder / sum, MB", "激活内存：下采样 / 中段 / 解码器 / 合计，MB",
          "1240 / 860 / 310 / 2410", "992 / 688 / 248 / 1928"),
    Claim("C12", "Model CPU offload frees a further", "模型 CPU 卸载再省", "", "3.1 GB"),
    Claim("C13", "Loading safetensors", "载入 safetensors", "2.1 s", "1.7 s"),
    Claim("C14", "Highlights: brightest star core (over-exposed from 0.98)", "高光：最亮的星核（0.98 起为过曝）", "0.98+", "0.92"),
    Claim("C15", "A roof in shadow: gain in PSNR", "阴影里的屋顶：PSNR 提升", "", "+3.2 dB"),
    Claim("C16", "Banding in a blue-to-violet sky", "蓝紫天空的色带", "2–3 visible steps|2–3 级可见", "none|无"),
    Claim("C17", "Format: sign/exponent/fraction bits, range", "格式：符号/指数/尾数位与范围", "1/5/10, 1e-5 … 1e5", "1/8/7, 1e-38 … 1e38"),
    Claim("C18", "Old cards (GTX 1080 Ti): no native bfloat16", "老显卡（GTX 1080 Ti）：没有原生 bfloat16", "faster there|较快", "emulated, slower|仿真，较慢"),
    Claim("C19", "Very fine texture (10 fraction bits)", "极细的纹理（10 位尾数）", "finer|更细", "rougher|更粗"),
    Claim("C20", "What the saved memory buys", "省下的内存能做什么", "", "one more LoRA, or batch 2|多一个 LoRA，或批量 2"),
    Claim("X1", "How like the float32 picture: PSNR, SSIM, FLIP", "与 float32 画面的相似度：PSNR、SSIM、FLIP"),
    Claim("X2", "How far the latents drift from float32, step by step", "潜变量逐步偏离 float32 的程度"),
    Claim("X3", "Where in the network the error is born, and the ranges", "误差生于网络何处；各层的数值范围"),
    Claim("X4", "What a card holds: bytes of the weights against the picture", "显卡装得下什么：权重的字节与画面"),
)  # fmt: skip
BY_ID = {claim.id: claim for claim in CLAIMS}
COMPARISONS = tuple(f"C{n}" for n in range(1, 12))

REFERENCE = "float32"
WIDE = "firefly-wide"
# The reference comes first: every other format is compared with it.
FORMATS = ("float32", "float16", "float16-folded", "bfloat16", "float8", "int8")
QUICK_FORMATS = FORMATS[:4]
USUAL_FORMATS = FORMATS[
    :5
]  # int8 is for CPUs alone that are fast at it, so it is measured where it is asked for
EMULATED = ("float8",)  # everywhere
EXTRAS = ("float8", "int8")  # no claim mentions them, so they get a fifth of the pictures
RATED = ("float16", "bfloat16")  # the claims give a NaN rate for these

# (prompt, style): the prompt of the claims, then one prompt for each style.
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
    """One measurement. ``prompt`` and ``seed`` count from 0; both are None if the experiment measures no picture."""

    experiment: str
    model: str
    format: str
    prompt: int | None = None
    seed: int | None = None

    @property
    def key(self) -> str:
        return "|".join(str(part) for part in astuple(self) if part is not None)

    @property
    def picture(self) -> tuple[int, int]:
        """(prompt, seed) of a point that measures a picture."""
        assert self.prompt is not None
        assert self.seed is not None
        return self.prompt, self.seed


@dataclass(frozen=True)
class ExperimentPlan:
    """How much a run measures.

    ``prompts``, ``seeds``: each model paints the first ``prompts`` prompts with ``seeds`` seeds each; the wide twin
    paints ``twin`` pictures in total. ``counted``: for each model, at least this many pictures are painted in float16
    and in bfloat16 to estimate the NaN rate; pictures beyond ``prompts × seeds`` are used for that rate only.
    ``claims``: the claims to examine; empty means all.
    ``weight_formats``, ``weight_scenes``: in how many formats of the weights how many of the prompts are painted (X4).
    ``noise_steps``: how many of the 1000 training-noise levels to evaluate. ``repeats``: pairs of each timing.
    ``size``, ``steps``: None means the model's default.
    """

    models: tuple[str, ...] = ("firefly", WIDE)
    formats: tuple[str, ...] = USUAL_FORMATS
    prompts: int = len(PROMPTS)
    seeds: int = 10
    twin: int = 10
    counted: int = 50  # 0 of 42 already excludes the claimed 7 % (stats.needed)
    size: int | None = None
    steps: int | None = None
    noise_steps: int = 1000
    repeats: int = 9
    training_steps: int = 8
    weight_formats: int = 13
    weight_scenes: int = 6
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise UnknownName(("format", "数值格式"), name, FORMATS)
        if not self.models:
            raise BadRequest("Name at least one model.", "请至少写明一个模型。")
        if not 1 <= self.prompts <= len(PROMPTS) or min(self.seeds, self.twin, self.counted) < 1:
            raise BadRequest(
                f"A run needs 1 to {len(PROMPTS)} prompts and at least 1 seed and 1 picture.",
                f"一次实验须有 1 到 {len(PROMPTS)} 条提示词、至少 1 个种子和 1 幅画。",
            )
        for name in self.claims:
            if name not in BY_ID:
                raise UnknownName(("claim", "论断"), name, tuple(BY_ID))
        ordered = tuple(f for f in FORMATS if f in self.formats or f == REFERENCE)
        object.__setattr__(self, "formats", ordered)
        object.__setattr__(self, "claims", tuple(c for c in BY_ID if c in self.claims))

    def pictures(self, model: str, format_: str) -> list[tuple[int, int]]:
        """(prompt, seed) pairs, seed by seed, so that an interrupted run has painted every style."""
        count = self.prompts * self.seeds
        count = min(count, self.twin) if model == WIDE else count
        return self._first(max(1, count // 5) if format_ in EXTRAS else count)

    def attempts(self, model: str, format_: str) -> list[tuple[int, int]]:
        """(prompt, seed) of every picture painted: ``pictures``, and those that only count towards the NaN rate."""
        measured = self.pictures(model, format_)
        return self._first(max(len(measured), self.counted)) if format_ in RATED else measured

    def _first(self, count: int) -> list[tuple[int, int]]:
        return [(at % self.prompts, at // self.prompts) for at in range(count)]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExperimentPlan:
        """The plan of a ``plan.json``; keys of other versions are ignored."""
        known = {field.name for field in fields(cls)}
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**{name: value for name, value in plain.items() if name in known})

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1, allow_nan=False)

    def grown(self, more: ExperimentPlan) -> ExperimentPlan:
        """The union of this plan and ``more``. Raises BadRequest if ``size`` or ``steps`` differ."""
        for name in ("size", "steps"):
            old, new = getattr(self, name), getattr(more, name)
            if old != new:
                raise BadRequest(
                    f"This run started with {name} = {old}; use another folder for {name} = {new}.",
                    f"该实验以 {name} = {old} 开始；若要 {name} = {new}，请另选文件夹。",
                )
        models = (*self.models, *(m for m in more.models if m not in self.models))
        larger = {n: max(getattr(self, n), getattr(more, n)) for n in ("prompts", "seeds", "twin", "counted")}
        claims = (*self.claims, *more.claims) if self.claims and more.claims else ()
        return replace(self, models=models, formats=(*self.formats, *more.formats), claims=claims, **larger)


def quick(**changes: Any) -> ExperimentPlan:
    """A small plan that runs every experiment: 1 min 54 s on two idle cores (measured 2026-11-25, with imports and the
    first folds). Two pictures show the direction of a difference; six or more are needed for an interval. Firefly and its
    twin paint at 256 here: at their default size a picture takes six times longer.
    """
    own = set(changes.get("models", ("firefly", WIDE))) <= {"firefly", WIDE}
    small: dict[str, Any] = {
        "formats": QUICK_FORMATS, "prompts": 2, "seeds": 1, "noise_steps": 25, "repeats": 2, "training_steps": 2,
        "weight_formats": 6, "weight_scenes": 2, "counted": 1, "size": 256 if own else None,
    }  # fmt: skip
    return ExperimentPlan(**(small | changes))
