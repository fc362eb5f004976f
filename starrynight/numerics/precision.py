"""Choose the number format of each component of a model on a device, with the reason.

``choose`` is a pure function of two records, ``Device`` and ``ModelProfile``. It uses published facts about
hardware and measured rates from the record. It imports no torch and measures nothing (``device.probe`` does).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from starrynight.errors import BadRequest, UnknownName
from starrynight.i18n import Text
from starrynight.numerics.timing import BUSY
from starrynight.text import excerpt

FORMATS = ("float32", "bfloat16", "float16", "float16-folded")
# For denoisers alone: their linear layers multiply 8-bit integers, the other components are as in auto.
INT8 = "int8"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float16-folded": 2}

# On a CPU a 16-bit format must multiply this many times as fast as float32 to be worth its loss of precision.
# Below it the operations that are no products use up the gain (chosen 2026-11, not measured per model).
WORTHWHILE = 1.2

# Below this share of float32's rate a CPU's native float16 is emulated instead: computing in float32 and
# rounding every result to float16, as a tensor core does, took 1.1 to 1.3 × float32's time
# (benchmarks/numerics_speed.py, 2026-11).
EMULATE_BELOW = 0.5

# Share of a device's memory that the weights may fill; activations and the driver need the rest.
WEIGHTS_SHARE = 0.8

# Turing cards without tensor cores (TU116, TU117), whose float16 convolutions return NaN. Source: the issue
# trackers of AUTOMATIC1111, ComfyUI and InvokeAI, read 2026-11; all three force float32 on them.
BROKEN_FLOAT16 = ("1630", "1650", "1660", "T400", "T500", "T550", "T600", "T1000", "T1200", "T2000",
                  "MX450", "MX550", "CMP 30HX")  # fmt: skip

# AMD's matrix units support bfloat16 since CDNA (gfx908) and RDNA3 (gfx11). Older chips emulate it, although
# torch.cuda.is_bf16_supported() is True for every ROCm card.
ROCM_BFLOAT16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
ROCM_FLOAT16 = (*ROCM_BFLOAT16, "gfx900", "gfx906", "gfx103")

# Largest relative error of folded float32 that counts as unchanged. A fold by powers of two gives exactly 0;
# an epsilon that could not be rescaled changes the last bits (at most 2^-22 = 2.4e-7 per norm,
# ``solve.NEGLIGIBLE``).
UNCHANGED = 1e-6

BACK_ENDS = ("cpu", "cuda", "rocm", "mps", "xpu")  # ``Device.kind``
DEVICE = Text("device", "设备")


def parse_device(name: str) -> tuple[str, int]:
    """The back end and the number in a device's name: "cuda:1" is ("cuda", 1). Raises UnknownName."""
    kind, colon, number = name.strip().lower().partition(":")
    if kind not in BACK_ENDS or (colon and not (number.isascii() and number.isdecimal() and len(number) < 4)):
        hint = ("Several of a kind have numbers, as in cuda:1.", "同类多个设备用编号，例如 cuda:1。")
        raise UnknownName(DEVICE, excerpt(name), BACK_ENDS, hint)
    return kind, int(number or 0)


def fold_holds(
    float32_error: float | None, float16_error: float | None, bfloat16_error: float | None
) -> bool:
    """Whether a fold is certified, from relative errors against unfolded float32 on held-out inputs.

    True only if folded float32 is within ``UNCHANGED``, folded float16 is finite, and float16 is nearer to
    float32 than bfloat16. An error that is None (not measured, for example because float32 does not fit in
    memory) or not finite (the format produced NaN or Inf) makes it False.
    """
    known = [e for e in (float32_error, float16_error, bfloat16_error) if e is not None and math.isfinite(e)]
    if len(known) < 3:
        return False
    float32, float16, bfloat16 = known
    return float32 <= UNCHANGED and float16 < bfloat16


@dataclass(frozen=True)
class Device:
    """A machine's arithmetic. ``kind`` is cpu, cuda, rocm, mps or xpu.

    ``capability``: CUDA's (major, minor). ``arch``: ROCm's gfx name. ``system``: the macOS version on mps.
    ``memory``: in bytes, 0 if unknown. ``rates``: format name → measured GFLOP/s of a matrix product; "int8" is 0 where such
    products are wrong. ``waited``: the share of that measurement's time that other programs took (``timing.BUSY``: from where the rates are no facts).
    """

    kind: str
    name: str = ""
    capability: tuple[int, int] | None = None
    arch: str = ""
    system: tuple[int, ...] = ()
    memory: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)
    waited: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether the machine was too busy for its rates to be facts."""
        return self.waited > BUSY

    @property
    def broken_float16(self) -> bool:
        words = self.name.replace("-", " ").split()
        chips = (chip in self.name if " " in chip else chip in words for chip in BROKEN_FLOAT16)
        return self.kind == "cuda" and self.capability == (7, 5) and any(chips)

    @property
    def native(self) -> frozenset[str]:
        """16-bit formats that the device multiplies faster than float32."""
        if self.kind == "cpu":
            worth = WORTHWHILE * self.rates.get("float32", float("inf"))
            return frozenset(f for f in ("bfloat16", "float16") if self.rates.get(f, 0.0) >= worth)
        return frozenset(f for f, fast in (("bfloat16", self._bfloat16), ("float16", self._float16)) if fast)

    @property
    def multiplies_int8(self) -> bool:
        """Whether this is a CPU whose products of 8-bit integers are right, and faster than those of the other formats."""
        others = max(self.rates.get("float32", 0.0), self.rates.get("bfloat16", 0.0))
        return self.kind == "cpu" and self.rates.get(INT8, 0.0) >= WORTHWHILE * others > 0

    @property
    def emulates_float16(self) -> bool:
        """Whether emulated float16 is faster on this CPU than native float16."""
        rate = self.rates.get("float16", 0.0)
        return self.kind == "cpu" and rate < EMULATE_BELOW * self.rates.get("float32", 0.0)

    @property
    def stores(self) -> frozenset[str]:
        """16-bit formats with correct results on this device, fast or not; they take half of float32's
        memory.
        """
        everything = {"bfloat16", "float16"}
        if self.broken_float16:
            everything -= {"float16"}
        if self.kind == "mps" and not self._bfloat16:
            everything -= {"bfloat16"}
        # cuDNN has no bfloat16 convolution below compute capability 8.0, and ROCm's older chips emulate it.
        if self.kind in ("cuda", "rocm") and not self._bfloat16:
            everything -= {"bfloat16"}
        return frozenset(everything)

    @property
    def _bfloat16(self) -> bool:
        return {
            "cuda": (self.capability or (0, 0)) >= (8, 0),
            "rocm": self.arch.startswith(ROCM_BFLOAT16),
            "mps": self.system >= (14,),  # Metal's bfloat type arrived with macOS 14
            "xpu": True,
        }.get(self.kind, False)

    @property
    def _float16(self) -> bool:
        return {
            # 6.0 (P100) has twice float32's rate; 5.x and 6.1 have at most float32's; 7.0 and later are fast.
            "cuda": self.capability in ((5, 3), (6, 0), (6, 2)) or (self.capability or (0, 0)) >= (7, 0),
            "rocm": self.arch.startswith(ROCM_FLOAT16),
            "mps": True,
            "xpu": True,
        }.get(self.kind, False) and not self.broken_float16


@dataclass(frozen=True)
class PackedWeights:
    """Weights of a component that its file stores in 8 bits or fewer and that its layers can keep so: how many numbers, in
    how many bytes.
    """

    parameters: int
    bytes: int


@dataclass(frozen=True)
class ModelProfile:
    """The properties of a model that decide its formats.

    ``parameters``: component → number of parameters; the components are the denoiser ("transformer" or
    "unet"), "text_encoder" (all text encoders together) and "vae". ``folded``: components that are folded
    when loaded. ``float16_safe``: components that their authors publish for float16. ``float32_vae``: the
    authors decode in float32 (Z-Image's do; diffusers uses the given dtype). ``stored``: component → the format of its
    files where that is a quantised one ("GGUF Q4_K, F32"); ``packed``: its weights that can stay so.
    """

    family: str
    parameters: Mapping[str, int]
    folded: frozenset[str] = frozenset()
    float16_safe: frozenset[str] = frozenset()
    float32_vae: bool = False
    stored: Mapping[str, str] = field(default_factory=dict)
    packed: Mapping[str, PackedWeights] = field(default_factory=dict)

    @property
    def denoiser(self) -> str:
        return "unet" if "unet" in self.parameters else "transformer"

    @property
    def roles(self) -> dict[str, str]:
        """Role (what a format is chosen for) → the component whose weights it uses."""
        return {
            self.denoiser: self.denoiser,
            "text_encoder": "text_encoder",
            "vae_decode": "vae",
            "vae_encode": "vae",
        }


@dataclass(frozen=True)
class Choice:
    """The format of one role, with the reason in both languages.

    ``emulated``: every op computes in float32 and rounds its result, as ``emulate.Emulation`` does. ``stored``: the format of
    the files, where it is a quantised one. ``kept``: the weights stay so in memory, and each layer multiplies its own out to
    ``format`` while it computes; the numbers are the same. ``around``: of int8, the format of everything around the
    linear layers' products.
    """

    component: str
    format: str
    reason_en: str
    reason_zh: str
    emulated: bool = False
    stored: str = ""
    kept: bool = False
    around: str = ""

    @property
    def folded(self) -> bool:
        return self.format.endswith("-folded")

    @property
    def dtype(self) -> str:
        """The name of the torch dtype that it is loaded in: "float32", "bfloat16" or "float16"."""
        return self.around or self.format.removesuffix("-folded")

    def reason(self, lang: str) -> str:
        return self.reason_zh if lang.startswith("zh") else self.reason_en


@dataclass(frozen=True)
class PrecisionPlan:
    """The format of each role, as in ``plan["vae_decode"].dtype``. Iterates over its choices."""

    choices: tuple[Choice, ...]

    def __getitem__(self, component: str) -> Choice:
        for choice in self.choices:
            if choice.component == component:
                return choice
        raise KeyError(component)

    def __iter__(self) -> Iterator[Choice]:
        return iter(self.choices)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain data for a recipe or a report; ``emulated``, ``stored``, ``kept`` and ``around`` are left out where they are empty."""
        fields = {choice.component: asdict(choice) for choice in self.choices}
        return {
            name: {k: v for k, v in entry.items() if v is not False and (k not in ("stored", "around") or v)}
            for name, entry in fields.items()
        }

    def replaced(self, *others: Choice) -> PrecisionPlan:
        """The plan with these choices in place of its own."""
        replacements = {choice.component: choice for choice in others}
        return PrecisionPlan(tuple(replacements.get(choice.component, choice) for choice in self.choices))


def choose(device: Device, model: ModelProfile, requested: str | Mapping[str, str] = "auto") -> PrecisionPlan:
    """The format of every role of ``model`` on ``device``.

    ``requested`` is "auto", one of ``FORMATS`` for the whole model (encoding an image stays in float32), "int8" for the
    denoiser, or a mapping from role to format. Raises ``BadRequest`` for an unknown format, an unknown role, or a format
    that this device computes wrongly.
    """
    formats = _formats_by_role(model, requested)
    return PrecisionPlan(tuple(
        replace(
            _with_emulation(device, _best(device, model, role) if formats[role] == "auto"
                            else _requested(device, model, role, formats[role])),
            stored=model.stored.get(model.roles[role], ""),
        )
        for role in model.roles
    ))  # fmt: skip


def _with_emulation(device: Device, choice: Choice) -> Choice:
    """The choice, marked as emulated if the device's native float16 is slower."""
    if choice.dtype != "float16" or not device.emulates_float16:
        return choice
    return replace(
        choice, emulated=True,
        reason_en=f"{choice.reason_en}; emulated as a GPU computes it, for this CPU's own is slower",
        reason_zh=f"{choice.reason_zh}；按 GPU 的算法模拟，因为本机 CPU 的原生 float16 更慢",
    )  # fmt: skip


def _formats_by_role(model: ModelProfile, requested: str | Mapping[str, str]) -> dict[str, str]:
    """The requested format of every role, "auto" where none is; raises ``BadRequest`` for unknown names."""
    if requested == INT8:
        formats = dict.fromkeys(model.roles, "auto") | {model.denoiser: INT8}
    elif isinstance(requested, str):
        formats = dict.fromkeys(model.roles, requested) | {"vae_encode": "auto"}
    else:
        formats = dict.fromkeys(model.roles, "auto") | dict(requested)
    for role, name in formats.items():
        if role not in model.roles:
            parts = ", ".join(model.roles)
            raise BadRequest(
                f"This model has no component “{role}”; its components are {parts}.",
                f"该模型没有名为“{role}”的组件；可选：{parts}。",
            )
        known = ("auto", *FORMATS, *((INT8,) if role == model.denoiser else ()))
        if name not in known:
            raise BadRequest(
                f"“{name}” is not a precision of {role}; use {', '.join(known)}.",
                f"“{name}”不是 {role} 可用的精度；可选：{'、'.join(known)}。",
            )
    return formats


def _requested(device: Device, model: ModelProfile, role: str, name: str) -> Choice:
    """The requested format ``name``; raises ``BadRequest`` if the device computes it wrongly."""
    if name == INT8:
        return _int8(device, role)
    component = model.roles[role]
    dtype = name.removesuffix("-folded")
    if dtype != "float32" and dtype not in device.stores:
        raise BadRequest(
            f"{_label(device)} does not compute {dtype} correctly; use auto or float32.",
            f"{_label(device)} 无法正确计算 {dtype}；请改用 auto 或 float32。",
        )
    if dtype == "float16" and component in model.folded:
        return Choice(role, "float16-folded", "asked for; its folds keep it inside float16's range",
                      "按要求使用；折叠使数值保持在 float16 范围内")  # fmt: skip
    if name == "float16-folded":
        return Choice(role, "float32", "folded float16 was asked for, but this component has no folds",
                      "要求使用折叠 float16，但该组件尚无折叠方案")  # fmt: skip
    if dtype == "float16" and component not in model.float16_safe:
        return Choice(role, "float16", "asked for; nothing vouches for its range, the guard watches it",
                      "按要求使用；其数值范围未经验证，由守卫检查")  # fmt: skip
    return Choice(role, name, "asked for", "按要求使用")


def _int8(device: Device, role: str) -> Choice:
    """Raises ``BadRequest`` where that is no gain."""
    if not device.multiplies_int8:
        raise BadRequest(
            f"int8 is for CPUs that multiply 8-bit integers at least {WORTHWHILE:g}× as fast as their other formats; "
            f"{_label(device)} is none. Use auto.",
            f"int8 适用于 8 位整数乘法比其他格式快 {WORTHWHILE:g} 倍以上的 CPU；{_label(device)} 不是。请改用 auto。",
            "precision",
        )
    around = "bfloat16" if "bfloat16" in device.native else "float32"
    return Choice(role, INT8, f"asked for; linear layers multiply 8-bit integers, everything else is {around}",
                  f"按要求使用；线性层以 8 位整数相乘，其余为 {around}", around=around)  # fmt: skip


def _best(device: Device, model: ModelProfile, role: str) -> Choice:
    if role == "vae_encode":
        return Choice(role, "float32", "encoding a picture loses detail in 16 bits; it takes one step, so float32",
                      "16 位编码会损失图像细节；编码只需一步，故用 float32")  # fmt: skip
    if role == "vae_decode" and model.float32_vae and _fits(device, model, role, "float32"):
        return Choice(role, "float32", "the model's makers decode in float32, and it fits",
                      "模型官方以 float32 解码，且内存足够")  # fmt: skip
    return _fastest(device, model, role) or _smallest(device, model, role) or _exact(device, model, role)


def _fastest(device: Device, model: ModelProfile, role: str) -> Choice | None:
    """The most precise 16-bit format that is faster than float32 here, or None."""
    usable = _trusted(model, role)
    formats = [f for f in usable if f.removesuffix("-folded") in device.native]
    if not formats:
        return None
    if device.kind == "cpu":
        chosen = max(formats, key=lambda f: device.rates[f.removesuffix("-folded")])
        dtype = chosen.removesuffix("-folded")
        # Without the measured figure: the reason is stored in the image file, whose bytes depend on the
        # request alone.
        return Choice(role, chosen, f"measured here: {dtype} multiplies faster than float32",
                      f"本机实测：{dtype} 的矩阵乘法快于 float32")  # fmt: skip
    return Choice(role, formats[0], *_why_fast(device, formats[0]))


def _trusted(model: ModelProfile, role: str) -> list[str]:
    """16-bit formats in which this component's numbers stay finite, the most precise first."""
    component = model.roles[role]
    if component in model.folded:
        return ["float16-folded", "bfloat16"]
    return ["float16", "bfloat16"] if component in model.float16_safe else ["bfloat16"]


def _why_fast(device: Device, chosen: str) -> tuple[str, str]:
    label = _label(device)
    if chosen == "float16-folded":
        return (f"{label} is fast in float16; the folds keep it in range, with 8× finer steps than bfloat16",
                f"{label} 的 float16 很快；折叠保证数值不越界，精度为 bfloat16 的 8 倍")  # fmt: skip
    if chosen == "float16":
        return (f"{label} is fast in float16, and this component is published for it",
                f"{label} 的 float16 很快，且该组件官方即为 float16")  # fmt: skip
    return (f"{label} is fast in bfloat16, whose range cannot overflow",
            f"{label} 的 bfloat16 很快，且其范围不会溢出")  # fmt: skip


def _smallest(device: Device, model: ModelProfile, role: str) -> Choice | None:
    """A 16-bit format for its size alone, where float32 does not fit in memory; otherwise None."""
    if _fits(device, model, role, "float32"):
        return None
    for candidate in _trusted(model, role):
        if candidate.removesuffix("-folded") in device.stores:
            return Choice(role, candidate, f"float32 does not fit into {gigabytes(device.memory)}; {candidate} halves it",
                          f"float32 放不进 {gigabytes(device.memory)} 内存；{candidate} 只需一半")  # fmt: skip
    return None


def _exact(device: Device, model: ModelProfile, role: str) -> Choice:
    label = _label(device)
    if device.broken_float16:
        return Choice(role, "float32", f"{label} gives NaN in float16 and has no bfloat16",
                      f"{label} 的 float16 会产生 NaN，且没有 bfloat16")  # fmt: skip
    if device.kind == "cpu":
        return Choice(role, "float32", *_why_exact_cpu(device))
    if "float16" in device.native:
        return Choice(role, "float32", f"{label} has no bfloat16, and without folds float16 may overflow to black",
                      f"{label} 没有 bfloat16；未折叠的 float16 可能溢出成黑图")  # fmt: skip
    return Choice(role, "float32", f"{label} gains no speed from 16 bits", f"{label} 使用 16 位并不更快")


def _why_exact_cpu(device: Device) -> tuple[str, str]:
    if "float32" not in device.rates:
        return "nothing was measured on this CPU", "尚未测量本机 CPU"
    return (f"measured here: bfloat16 multiplies less than {WORTHWHILE:g}× as fast as float32",
            f"本机实测：bfloat16 矩阵乘法速度不到 float32 的 {WORTHWHILE:g} 倍")  # fmt: skip


def _fits(device: Device, model: ModelProfile, role: str, chosen: str) -> bool:
    """Whether the component's weights fit by themselves; components may be on the device one after another."""
    weights = model.parameters.get(model.roles[role], 0) * BYTES[chosen]
    return not device.memory or weights <= WEIGHTS_SHARE * device.memory


def _label(device: Device) -> str:
    return device.name or device.arch or device.kind


def gigabytes(amount: int) -> str:
    return f"{amount / 2**30:.0f} GB" if amount >= 2**30 else f"{amount / 2**20:.0f} MB"
