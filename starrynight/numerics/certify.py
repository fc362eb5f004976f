"""Certify a fold on held-out inputs: float32 unchanged, float16 finite and nearer to float32 than bfloat16.

Runs the model four times over the inputs: float32, folded float32, folded float16 and bfloat16; and compares every op of
one input in float32 before and after folding (``step``). float16 is emulated, so that any machine can certify for a GPU.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from starrynight.i18n import Text
from starrynight.numerics.emulate import Emulation
from starrynight.numerics.fold import fold_modules
from starrynight.numerics.islands import cast_with_islands
from starrynight.numerics.modules import tensors_in
from starrynight.numerics.precision import fold_holds
from starrynight.numerics.solve import FoldPlan
from starrynight.numerics.step import compare_step

Exercise = Callable[[nn.Module, int], object]


@dataclass(frozen=True)
class Certificate:
    """The largest relative errors ‖x − r‖ / ‖r‖ over the held-out inputs, r in float32; NaN where a result is
    not finite.

    ``folds``, ``epsilons`` and ``islands`` count what the plan changes. ``step_ops``: results of the traced float32 step that
    were compared with the original's; ``changed``: the first that is not a power of two times it, "" if there is none.
    """

    inputs: int
    folded_float32: float
    folded_float16: float
    bfloat16: float
    folds: int
    epsilons: int
    islands: int
    step_ops: int = 0
    changed: str = ""

    @property
    def holds(self) -> bool:
        """See ``precision.fold_holds``; and no op of the traced step changed."""
        return not self.changed and fold_holds(self.folded_float32, self.folded_float16, self.bfloat16)

    def to_dict(self) -> dict[str, object]:
        """The fields, ``holds`` and the errors in dB, for a header or a report. A non-finite error becomes None."""
        fields = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()
        }
        return {
            **fields,
            "holds": self.holds,
            "float16_decibels": decibels(self.folded_float16),
            "bfloat16_decibels": decibels(self.bfloat16),
        }

    def message(self, lang: str) -> str:
        """One paragraph in the reader's language."""
        float16, bfloat16 = decibels(self.folded_float16), decibels(self.bfloat16)
        if self.changed:
            same = Text(
                f"another function (first at {self.changed})", f"不是同一函数（自 {self.changed} 起）"
            )
        elif self.folded_float32 == 0:
            same = Text("bit for bit the original", "逐位相同")
        else:
            same = Text(
                f"within {self.folded_float32:.0e} of the original", f"相差 {self.folded_float32:.0e}"
            )
        return Text(
            f"On {self.inputs} held-out inputs, folded float32 is {same.en}; the error of folded float16 is {float16} dB, of "
            f"bfloat16 {bfloat16} dB; {self.folds} folds, {self.epsilons} rescaled epsilons, {self.islands} float32 islands.",
            f"{self.inputs} 个未参与标定的输入：折叠后的 float32 与原模型{same.zh}；折叠 float16 误差 {float16} dB，"
            f"bfloat16 误差 {bfloat16} dB；折叠 {self.folds} 处，缩放 eps {self.epsilons} 处，float32 孤岛 {self.islands} 处。",
        ).to(lang)


def decibels(error: float) -> float | None:
    """20·log10 of a relative error, to 0.1 dB. None if it is not finite, -999 (JSON has no -Inf) for 0."""
    if not math.isfinite(error):
        return None
    return round(20 * math.log10(error), 1) if error else -999.0


def psnr(mean_squared_error: float, peak: float = 1.0) -> float | None:
    """Peak signal-to-noise ratio in dB: 10·log10(peak² / mean squared error).

    ``peak`` is the signal's range: 1 for images in 0..1, 255 for 8 bits. Infinite for an error of 0, that is
    for equal images; None if the error is not finite, that is if an image holds NaN or Inf.
    """
    if not math.isfinite(mean_squared_error):
        return None
    if mean_squared_error == 0:
        return math.inf
    return 20 * math.log10(peak) - 10 * math.log10(mean_squared_error)


def certify_folds(
    module: nn.Module, plan: FoldPlan, exercise: Exercise, held_out: Sequence[int]
) -> Certificate:
    """Compare the formats of ``module`` (in float32, not folded) under ``plan``.

    ``exercise(module, i)`` runs the module on held-out input i, in the module's own dtype, and returns its
    output. Memory: one copy of the module at a time beside the original.
    """
    reference = outputs(module, exercise, held_out)
    twin = copy.deepcopy(module)
    step = compare_step(twin, plan, lambda: exercise(twin, held_out[0]))
    return Certificate(
        inputs=len(held_out),
        folded_float32=relative_error(outputs(_folded(module, plan), exercise, held_out), reference),
        folded_float16=relative_error(
            float16_outputs(_folded(module, plan), exercise, held_out, plan), reference
        ),
        bfloat16=relative_error(outputs(copy.deepcopy(module).bfloat16(), exercise, held_out), reference),
        folds=len(plan.parameters),
        epsilons=len(plan.epsilons),
        islands=len(plan.islands),
        step_ops=step.ops,
        changed=step.changed,
    )


def _folded(module: nn.Module, plan: FoldPlan) -> nn.Module:
    other = copy.deepcopy(module)
    fold_modules(other, plan)
    return other


@torch.no_grad()
def outputs(module: nn.Module, exercise: Exercise, inputs: Sequence[int]) -> list[Tensor]:
    """For each input, all numbers of the module's output as one float32 vector."""
    results = (tensors_in(exercise(module, i)) for i in inputs)
    return [torch.cat([t.flatten().float() for t in result]) for result in results]


def float16_outputs(
    module: nn.Module, exercise: Exercise, inputs: Sequence[int], plan: FoldPlan | None = None
) -> list[Tensor]:
    """Like ``outputs``, in emulated float16 with the plan's islands in float32. Casts the module in place."""
    cast_with_islands(module, plan.islands if plan else (), torch.float16)
    with Emulation(module):
        return outputs(module, exercise, inputs)


def relative_error(results: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The largest ‖x − r‖ / ‖r‖ over the pairs; NaN if any of them is not finite."""
    errors = [((x - r).norm() / r.norm()).item() for x, r in zip(results, reference, strict=True)]
    return max(errors) if all(math.isfinite(e) for e in errors) else math.nan
