"""Products of 8-bit integers on a CPU: weights with one scale a row, inputs with one scale a token (W8A8, dynamic).

oneDNN multiplies the integers, adds them up in int32 and multiplies by the weights' scales in one call
(``torch.ops.onednn.qlinear_pointwise``, which torch.compile uses for quantised models on x86). On a CPU with AVX512-VNNI this takes
half the time of bfloat16; the scales of the tokens follow as a second, small pass. Where the input has few large columns, all
others lose bits, as in every scheme with one scale a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LEVELS = 127  # the largest integer of a symmetric scheme
# oneDNN has its fast kernels for unsigned inputs alone: signed ones took 130 times as long on AVX512-VNNI (torch 2.13;
# this and the next by scripts that are not kept: docs/log.md, 2026-11-28).
ZERO = 128
# Numbers quantised at a time: the float32 copy of a part stays in a cache, where that of the whole input would not. 2 MB of it
# were best of 0.5 to 4 MB at widths from 384 to 10240.
CHUNK = 1 << 19
SMALLEST = 1e-30  # added to scales, so that rows of zeros stay zeros; a clamp would be counted by ``starry paint --clamps``


def quantised_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """A [rows, columns] matrix as uint8 [rows, columns], ``ZERO`` meaning 0, and scales [rows, 1], numbers of bfloat16.

    bfloat16 because torch multiplies bfloat16 by float32 ten times as slowly as by bfloat16. Rounding them costs nothing: the
    integers are those of the rounded scales, and at most 127 · (1 + 2⁻⁹), which is 127 again. A row with NaN or Inf gets such a
    scale, so that its products are not finite either.
    """
    whole = torch.empty(values.shape, dtype=torch.uint8)
    scales = torch.empty(len(values), 1, dtype=torch.bfloat16)
    step = max(1, CHUNK // max(1, values.shape[1]))
    for first in range(0, len(values), step):
        part = slice(first, first + step)
        wide = values[part].to(torch.float32, copy=True)
        scales[part] = wide.abs().amax(-1, keepdim=True).div_(LEVELS).add_(SMALLEST)
        whole[part] = wide.div_(scales[part].float()).round_().add_(ZERO)
    return whole, scales


@dataclass(frozen=True)
class Int8Weight:
    """A linear layer's weight [outputs, inputs] as oneDNN reads it, with a float32 scale [outputs]. It lies in memory once."""

    products: Tensor
    scales: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Int8Weight:
        """Round a finite weight to the nearest integers; the largest number of each row becomes ±127."""
        wide = weight.float()
        scales = (wide.abs().amax(1) / LEVELS).add_(SMALLEST)
        integers = (wide / scales[:, None]).round_().to(torch.int8)
        return cls(torch.ops.onednn.qlinear_prepack(integers, None), scales)

    def __deepcopy__(self, memo: Any) -> Int8Weight:
        return self  # nothing in it is written; and oneDNN's layout cannot be copied

    def integers(self) -> Tensor:
        """The int8 [outputs, inputs] that it was packed from."""
        return self.products.to_dense().T.contiguous()

    def multiply(self, rows: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """The product with what ``quantised_rows`` returned, as [rows, outputs] in float32 or bfloat16."""
        zeros = torch.zeros(len(self.scales), dtype=torch.int32)
        found = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, ZERO, self.products, self.scales, zeros, None, 1.0, 0, dtype, "none", [], ""
        )
        return found.mul_(scales.to(dtype))


def multiplies_exactly() -> bool:
    """Whether this build and CPU have such products, and add them up without saturation. x86 before VNNI adds pairs in 16 bits,
    where 2 · 255 · 127 does not fit.
    """
    rows = torch.full((64, 256), 255, dtype=torch.uint8)
    weight = torch.full((64, 256), float(LEVELS))
    weight[::2, ::3] *= -1
    try:
        found = Int8Weight.of(weight).multiply(rows, torch.ones(64, 1), torch.float32)
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False
    return torch.equal(found, LEVELS * weight.sum(1).expand(64, -1))
