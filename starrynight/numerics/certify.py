"""Prove a plan on inputs it never saw: float32 unchanged, float16 finite, and how far from float32 each format is.

Runs the model four times over the held-out inputs: float32, folded float32, folded float16 (emulated, so that any
machine can certify for a GPU) and bfloat16. Knows a module and a callable; chooses nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from starrynight.numerics.emulate import Emulation
from starrynight.numerics.fold import fold_modules
from starrynight.numerics.islands import cast_with_islands
from starrynight.numerics.modules import tensors_in
from starrynight.numerics.solve import FoldPlan

# An exact fold changes float32 by nothing; where an epsilon could only be kept, by less than its last bits.
UNCHANGED = 1e-6


@dataclass(frozen=True)
class Certificate:
    """Worst relative errors ‖x − r‖ / ‖r‖ over the held-out inputs, r being float32; NaN where numbers broke."""

    inputs: int
    folded_float32: float
    folded_float16: float
    bfloat16: float
    folds: int
    epsilons: int
    islands: int

    @property
    def holds(self) -> bool:
        """Float32 is the same function, and float16 stays finite and nearer to it than bfloat16."""
        return self.folded_float32 <= UNCHANGED and self.folded_float16 < self.bfloat16

    def to_dict(self) -> dict[str, object]:
        """For a header or a report: the fields, the verdict, and decibels (numbers that broke are null)."""
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
        """One paragraph for a reader."""
        half, brain = decibels(self.folded_float16), decibels(self.bfloat16)
        if lang.startswith("zh"):
            same = "逐位相同" if self.folded_float32 == 0 else f"相差 {self.folded_float32:.0e}"
            return (
                f"{self.inputs} 个未参与标定的输入：折叠后的 float32 与原模型{same}；折叠 float16 误差 {half} dB，"
                f"bfloat16 误差 {brain} dB；折叠 {self.folds} 处，缩放 eps {self.epsilons} 处，float32 孤岛 {self.islands} 处。"
            )
        same = "bit for bit the original" if self.folded_float32 == 0 else f"within {self.folded_float32:.0e}"
        return (
            f"On {self.inputs} held-out inputs, folded float32 is {same}; the error of folded float16 is {half} dB, of "
            f"bfloat16 {brain} dB; {self.folds} folds, {self.epsilons} rescaled epsilons, {self.islands} float32 islands."
        )


def decibels(error: float) -> float | None:
    """20·log10 of a relative error; None if it is not finite, −Inf becomes −999 so that JSON can hold it."""
    if not math.isfinite(error):
        return None
    return round(20 * math.log10(error), 1) if error else -999.0


def certify_folds(
    module: nn.Module, plan: FoldPlan, exercise: Callable[[nn.Module, int], object], held_out: Sequence[int]
) -> Certificate:
    """Compare the formats of ``module`` (float32, not folded) under ``plan``.

    ``exercise(module, i)`` runs it on held-out input i, in the module's own dtype. One copy of the module is alive at a
    time beside the original.
    """
    reference = outputs(module, exercise, held_out)
    return Certificate(
        inputs=len(held_out),
        folded_float32=relative_error(outputs(folded(module, plan), exercise, held_out), reference),
        folded_float16=relative_error(
            float16_outputs(folded(module, plan), exercise, held_out, plan), reference
        ),
        bfloat16=relative_error(outputs(copy.deepcopy(module).bfloat16(), exercise, held_out), reference),
        folds=len(plan.parameters),
        epsilons=len(plan.epsilons),
        islands=len(plan.islands),
    )


def folded(module: nn.Module, plan: FoldPlan) -> nn.Module:
    """A folded copy in float32."""
    other = copy.deepcopy(module)
    fold_modules(other, plan)
    return other


@torch.no_grad()
def outputs(
    module: nn.Module, exercise: Callable[[nn.Module, int], object], inputs: Sequence[int]
) -> list[Tensor]:
    """All numbers that the module puts out for each input, as one float32 vector."""
    results = (tensors_in(exercise(module, i)) for i in inputs)
    return [torch.cat([t.flatten().float() for t in result]) for result in results]


def float16_outputs(
    module: nn.Module,
    exercise: Callable[[nn.Module, int], object],
    inputs: Sequence[int],
    plan: FoldPlan | None = None,
) -> list[Tensor]:
    """The same in emulated float16, with the plan's islands. The module is cast in place."""
    cast_with_islands(module, plan.islands if plan else (), torch.float16)
    with Emulation(module):
        return outputs(module, exercise, inputs)


def relative_error(results: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The worst ‖x − r‖ / ‖r‖; NaN if any number broke."""
    errors = [((x - r).norm() / r.norm()).item() for x, r in zip(results, reference, strict=True)]
    return max(errors) if all(math.isfinite(e) for e in errors) else math.nan
