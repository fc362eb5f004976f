"""Which components of a plan keep their weights as their file stores them, in 8 bits or fewer. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from starrynight.errors import BadRequest
from starrynight.i18n import Text
from starrynight.numerics.precision import (
    BYTES,
    INT8,
    WEIGHTS_SHARE,
    Choice,
    Device,
    ModelProfile,
    PrecisionPlan,
    gigabytes,
)


def keep_packed(
    device: Device, model: ModelProfile, plan: PrecisionPlan, wanted: bool = False
) -> PrecisionPlan:
    """``plan`` with the components marked whose weights stay packed: where the device's memory asks for it, or all that can, if
    that is ``wanted``.

    On an accelerator components are there one after another, so each must fit by itself; on a CPU all of them lie in memory
    together. A fold changes weights, emulation rounds them in an order of its own, and int8 has integers of its own, so all
    three need them multiplied out.
    Raises BadRequest where it is wanted and nothing can stay packed.
    """
    sizes = {model.roles[c.component]: _size(model, c) for c in plan if c.component != "vae_encode"}

    def asks(choice: Choice) -> bool:
        needed = sum(sizes.values()) if device.kind == "cpu" else sizes[model.roles[choice.component]]
        return bool(device.memory) and needed > WEIGHTS_SHARE * device.memory

    able = [choice for choice in plan if _can_stay_packed(choice, model)]
    if wanted and not able:
        raise _nothing_to_keep(plan, model)
    return plan.replaced(
        *(
            _kept(choice, sizes[model.roles[choice.component]], device, wanted)
            for choice in able
            if wanted or asks(choice)
        )
    )


def _can_stay_packed(choice: Choice, model: ModelProfile) -> bool:
    component = model.roles[choice.component]
    packed = model.packed.get(component)
    if packed is None or component == "vae" or choice.folded or choice.emulated or choice.format == INT8:
        return False
    return packed.bytes < packed.parameters * BYTES[choice.dtype]


def _kept(choice: Choice, size: int, device: Device, wanted: bool) -> Choice:
    """The choice of a component of ``size`` bytes, marked as kept, with the reason."""
    why = Text("asked to be kept packed", "按要求保持原格式") if wanted else Text(
        f"{gigabytes(size)} in {choice.dtype} are too much for {gigabytes(device.memory)}",
        f"以 {choice.dtype} 存放需 {gigabytes(size)}，超出 {gigabytes(device.memory)} 内存的余量",
    )  # fmt: skip
    return replace(
        choice, kept=True,
        reason_en=f"{choice.reason_en}; {why.en}, so the weights stay as stored and each layer multiplies its own out",
        reason_zh=f"{choice.reason_zh}；{why.zh}，故权重保持原存储格式，由各层在计算时还原",
    )  # fmt: skip


def _nothing_to_keep(plan: PrecisionPlan, model: ModelProfile) -> BadRequest:
    """Why no weights can stay packed, and what to do."""
    if not set(model.packed) - {"vae"}:
        return BadRequest(
            "No weights of this model are stored in float8, scaled float8, int8 or GGUF, so none can be kept packed; leave "
            "keep_packed out.",
            "此模型没有以 float8、带缩放的 float8、int8 或 GGUF 存储的权重，无从保持原格式；请不要给出 keep_packed。",
            "keep_packed",
        )
    formats = ", ".join(dict.fromkeys(c.format for c in plan if model.packed.get(model.roles[c.component])))
    return BadRequest(
        f"Weights cannot be kept packed in {formats} here, because they are folded, emulated, turned into integers or no larger "
        "in it; choose another precision or leave keep_packed out.",
        f"在此以 {formats} 计算时权重不能保持原格式，因为它们需要折叠、模拟、化为整数，或在该格式下并不更大；请换用其他精度，或不要给出 keep_packed。",
        "keep_packed",
    )


def _size(model: ModelProfile, choice: Choice) -> int:
    """Bytes of a component's weights as they are loaded."""
    return model.parameters.get(model.roles[choice.component], 0) * BYTES[choice.dtype]
