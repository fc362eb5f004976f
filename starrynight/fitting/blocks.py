"""Weights as GGUF's block types: the integers and scales that lose least, packed as ggml packs them.

A block type stores runs of 32 numbers (Q4_0, Q5_1, …) or of 256 (the K types) as small integers with a scale, some with a
floor as well; a K type stores the scales of its sub-blocks in 4 to 8 bits below one float16. The layouts are those of ggml
(``ggml-common.h``); ``models.gguf.decode`` reads them. Two things are chosen, and any reader multiplies them out:

scales   searched as in ``ggml-quants.c`` (``make_qx_quants``, ``make_qkx2_quants``): a few are tried, each is improved by least
         squares, and the best is kept. They minimise Σ w (x − x')² with w by column. The ``gguf`` package takes the largest
         number alone.
codes    the nearest, or by GPTQ (arXiv 2210.17323) where the second moments H = E[x xᵀ] of a layer's inputs are known: column
         after column is rounded, and what its error does to the layer's output is undone by the columns that are still
         free. That minimises the error of the output, tr((W − W') H (W − W')ᵀ), not of the weights.

INT8 is no type of GGUF: 8-bit integers with one float32 scale a row, as ComfyUI's int8 files store them. Here a row is the four
bytes of its scale, then its integers.

Everything is torch, so that it runs where the model is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

# Numbers that are searched at a time: bounds the temporaries to about 200 MB.
CHUNK = 1 << 22
# Share of the mean of H's diagonal that is added to it (GPTQ's ``percdamp``): inputs outside the calibration lie elsewhere.
DAMPING = 0.01
# IQ4_NL's sixteen values (``kvalues_iq4nl``): denser around zero, as weights are.
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INT8, SCALE_BYTES = "INT8", 4


def quantise(weights: Tensor, kind: str, moments: Tensor | None = None) -> Tensor:
    """``weights`` [rows, columns] in a type of GGUF or in INT8, as uint8 [rows, bytes of a row].

    ``moments``: of the layer's inputs x. [columns], the mean of x²: errors count by column. [runs, width, width], the means of
    x xᵀ within runs of columns: GPTQ. Raises KeyError for a type that is not written, RuntimeError where rows do not fill
    the type's blocks.
    """
    if kind in PLAIN:
        return weights.to(PLAIN[kind]).contiguous().view(torch.uint8).reshape(weights.shape[0], -1)
    if kind == INT8:
        return _int8(weights.float(), moments)
    block, grid, pack = TYPES[kind]
    if moments is not None and moments.dim() == 3:
        return _compensated(weights.float(), kind, moments)
    rows = len(weights)
    x = weights.float().reshape(-1, block)
    w = torch.ones(1, block, device=x.device)
    if moments is not None:
        w = _weights(moments.reshape(1, -1), rows).reshape(-1, block)
    at = max(1, CHUNK // block)
    parts = []
    for start in range(0, len(x), at):
        part = x[start : start + at]
        own = grid(part, w if len(w) == 1 else w[start : start + at])
        parts.append(pack(own, own.codes(part)))
    return torch.cat(parts).reshape(rows, -1)


def _compensated(weights: Tensor, kind: str, moments: Tensor) -> Tensor:
    """By GPTQ, in the columns' own order, all runs of columns at once; a block's scales are searched when its first column is due."""
    block, grid, pack = TYPES[kind]
    count, width, _ = moments.shape
    importance = moments.diagonal(dim1=1, dim2=2)
    factor, rows = _factor(moments), []
    for part in weights.split(max(1, CHUNK // weights.shape[1])):
        x = part.reshape(len(part), count, width).transpose(0, 1).clone()  # [runs, rows, width]
        packed = []
        for begin in range(0, width, block):
            end = begin + block
            w = _weights(importance[:, begin:end], len(part))
            own = grid(x[:, :, begin:end].reshape(-1, block), w)
            packed.append(pack(own, _block_codes(own, x, factor, begin, end)).reshape(count, len(part), -1))
        rows.append(torch.cat(packed, 2).transpose(0, 1).reshape(len(part), -1))
    return torch.cat(rows)


def _int8(weights: Tensor, moments: Tensor | None) -> Tensor:
    """As ``quantise`` in INT8: a row's scale is searched over the whole row, the codes are the nearest or by GPTQ."""
    rows = [_int8_rows(part, moments) for part in weights.split(max(1, CHUNK // weights.shape[1]))]
    return torch.cat(rows)


def _int8_rows(weights: Tensor, moments: Tensor | None) -> Tensor:
    importance = torch.ones(1, 1, device=weights.device)
    if moments is not None:
        squares = moments if moments.dim() == 1 else moments.diagonal(dim1=1, dim2=2)
        importance = _weights(squares.reshape(1, -1), 1)
    scale = _symmetric(weights, importance, -127, 127).abs()
    if moments is None or moments.dim() == 1:
        codes = _grid(scale, -127, 127, block=weights.shape[1]).codes(weights)
    else:
        codes = _int8_compensated(weights, scale, moments)
    integers = (codes.int() - 127).to(torch.int8).view(torch.uint8)
    return torch.cat([_bytes(scale.float()), integers], 1)


def _int8_compensated(weights: Tensor, scale: Tensor, moments: Tensor) -> Tensor:
    """GPTQ's codes [rows, columns] for rows whose scales [rows, 1] are settled."""
    count, width, _ = moments.shape
    factor = _factor(moments)
    x = weights.reshape(len(weights), count, width).transpose(0, 1).clone()  # [runs, rows, width]
    grid = _grid(scale.repeat(count, 1), -127, 127)
    parts = [_block_codes(grid, x, factor, begin, begin + 32) for begin in range(0, width, 32)]
    return torch.cat(parts, 1).reshape(count, len(weights), width).transpose(0, 1).reshape(weights.shape)


def int8_numbers(data: Tensor) -> Tensor:
    """The numbers [rows, columns] that rows of INT8 mean, in float32."""
    scale = data[:, :SCALE_BYTES].contiguous().view(torch.float32)
    return data[:, SCALE_BYTES:].contiguous().view(torch.int8).float() * scale


def _block_codes(grid: Grid, x: Tensor, factor: Tensor, begin: int, end: int) -> Tensor:
    """The codes [runs · rows, block] of columns ``begin`` to ``end`` of x [runs, rows, width]. What they lose is taken into the
    columns after them, in place.
    """
    codes, errors = [], []
    for column in range(begin, end):
        place, own = slice(column - begin, column - begin + 1), x[:, :, column : column + 1]
        code = grid.codes(own.reshape(-1, 1), place)
        error = (own - grid.values(code, place).reshape(own.shape)) / factor[:, column, column].reshape(
            -1, 1, 1
        )
        x[:, :, column + 1 : end] -= error * factor[:, column, None, column + 1 : end]
        codes.append(code)
        errors.append(error)
    x[:, :, end:] -= torch.cat(errors, 2) @ factor[:, begin:end, end:]
    return torch.cat(codes, 1)


def _factor(moments: Tensor) -> Tensor:
    """The upper Cholesky factors of the inverses of the damped moments [runs, width, width]."""
    h = moments.double()
    damping = (DAMPING * h.diagonal(dim1=1, dim2=2).mean(1)).clamp_min(1e-30)
    h = h + damping.reshape(-1, 1, 1) * torch.eye(h.shape[1], dtype=h.dtype, device=h.device)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True).float()


@dataclass(frozen=True)
class Grid:
    """The numbers that n blocks can hold once their scales are chosen: ``step`` · level + ``floor``.

    ``step``, ``floor``: [n, block]. ``levels``: ascending, one for each code from 0 on. ``header``: bytes [n, …] of the scales.
    """

    step: Tensor
    floor: Tensor
    levels: Tensor
    header: tuple[Tensor, ...]

    def codes(self, x: Tensor, columns: slice = slice(None)) -> Tensor:
        """The codes of the nearest numbers, uint8, in the shape of x: [n, these columns]."""
        level = (x - self.floor[:, columns]) / _safe(self.step[:, columns])
        if len(self.levels) == len(IQ4_VALUES) and self.levels[0] == IQ4_VALUES[0]:
            return torch.bucketize(level, (self.levels[1:] + self.levels[:-1]) / 2).to(torch.uint8)
        low, high = self.levels[0], self.levels[-1]
        return level.round().clamp(low, high).sub(low).to(torch.uint8)

    def values(self, codes: Tensor, columns: slice = slice(None)) -> Tensor:
        return self.step[:, columns] * self.levels[codes.long()] + self.floor[:, columns]


def _grid(step: Tensor, low: int, high: int, *header: Tensor, floor: Tensor | None = None, block: int = 32) -> Grid:  # fmt: skip
    """Steps and floors [n, blocks, 1] or [n, 1], spread over ``block`` numbers."""
    n = len(step)
    spread = step.float().reshape(n, -1, 1)
    each = block // spread.shape[1]
    low_ends = torch.zeros_like(spread) if floor is None else floor.float().reshape(n, -1, 1)
    levels = torch.arange(low, high + 1, dtype=torch.float32, device=step.device)
    return Grid(
        spread.expand(-1, -1, each).reshape(n, block), low_ends.expand(-1, -1, each).reshape(n, block), levels, header
    )  # fmt: skip


def _weights(importance: Tensor, rows: int) -> Tensor:
    """[runs, columns] → one weight a number, [runs · rows, columns]; those of columns that are never used are small, not zero."""
    mean = importance.float() / importance.float().mean(1, keepdim=True).clamp_min(1e-30)
    return mean.clamp_min(1e-4).repeat_interleave(rows, 0)


# -- searches --------------------------------------------------------------------------------------------------------


def _safe(divisor: Tensor) -> Tensor:
    return torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def _signed_peak(x: Tensor) -> Tensor:
    """The number of the largest magnitude of each last dimension, with its sign [..., 1]."""
    return x.gather(-1, x.abs().argmax(-1, keepdim=True))


def _symmetric(x: Tensor, w: Tensor, low: int, high: int, steps: int = 9) -> Tensor:
    """The scale d [..., 1] of each last dimension for which d · clamp(round(x / d), low, high) is nearest to x."""
    peak = _signed_peak(x)
    best, scale = torch.full_like(peak, -1), torch.zeros_like(peak)
    for step in range(-steps, steps + 1):
        d = peak / (low + 0.1 * step)
        q = (x / _safe(d)).round().clamp(low, high)
        dot, norm = (w * x * q).sum(-1, keepdim=True), (w * q * q).sum(-1, keepdim=True)
        gain = dot * dot / _safe(norm)  # by how much q · dot / norm reduces the weighted squares
        better = gain > best
        best, scale = torch.where(better, gain, best), torch.where(better, dot / _safe(norm), scale)
    return scale


def _affine(x: Tensor, w: Tensor, top: int, below_zero: bool, steps: int = 20) -> tuple[Tensor, Tensor]:
    """Scale and floor [..., 1] for which scale · clamp(round((x − floor) / scale), 0, top) + floor is nearest to x.

    ``below_zero``: the floor is at most zero, as the K types store it.
    """
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    if below_zero:
        low = low.clamp_max(0)
    span = high - low
    total, dot_x = w.expand_as(x).sum(-1, keepdim=True), (w * x).sum(-1, keepdim=True)
    best, scale, floor = torch.full_like(span, torch.inf), span / top, low
    for step in range(steps + 1):
        q = ((x - low) * ((top - 1 + 0.1 * step) / _safe(span))).round().clamp(0, top)
        wq = w * q
        sum_q, sum_qq, sum_xq = (part.sum(-1, keepdim=True) for part in (wq, wq * q, wq * x))
        det = total * sum_qq - sum_q * sum_q
        settled = det > 1e-6 * total * sum_qq  # else all codes are equal, and two unknowns are one too many
        d, m = (total * sum_xq - dot_x * sum_q) / _safe(det), (sum_qq * dot_x - sum_q * sum_xq) / _safe(det)
        if below_zero:
            alone = (m > 0) | ~settled
            d, m = torch.where(alone, sum_xq / _safe(sum_qq), d), torch.where(alone, 0, m)
        error = (w * (d * q + m - x) ** 2).sum(-1, keepdim=True)
        better = (error < best) & (d > 0) & (settled | below_zero)
        best, scale, floor = (
            torch.where(better, new, old) for new, old in ((error, best), (d, scale), (m, floor))
        )
    return scale, floor


def _half(d: Tensor) -> Tensor:
    """As float16 stores it; beyond its range the nearest that it holds."""
    return d.clamp(-65504, 65504).half()


def _bytes(half: Tensor) -> Tensor:
    return half.contiguous().view(torch.uint8)


# -- types of 32 -----------------------------------------------------------------------------------------------------


def _nibbles(q: Tensor) -> Tensor:
    """[n, 32] of 4 bits → [n, 16]: the first half in the low nibbles."""
    return q[:, :16] | (q[:, 16:] << 4)


def _fifth_bits(q: Tensor) -> Tensor:
    """The fifth bit of 32 codes, as 4 bytes, lowest bit first."""
    shifts = torch.arange(8, device=q.device, dtype=torch.uint8)
    return ((q >> 4).reshape(-1, 4, 8) << shifts).sum(-1).to(torch.uint8)


def _q8_0(x: Tensor, w: Tensor) -> Grid:
    d = _half(x.abs().amax(-1, keepdim=True) / 127)
    return _grid(d, -127, 127, _bytes(d))


def _pack_q8_0(grid: Grid, q: Tensor) -> Tensor:
    return torch.cat([*grid.header, (q.int() - 127).to(torch.int8).view(torch.uint8)], 1)


def _q4_0(x: Tensor, w: Tensor) -> Grid:
    d = _half(_symmetric(x, w, -8, 7))
    return _grid(d, -8, 7, _bytes(d))


def _q5_0(x: Tensor, w: Tensor) -> Grid:
    d = _half(_symmetric(x, w, -16, 15))
    return _grid(d, -16, 15, _bytes(d))


def _q4_1(x: Tensor, w: Tensor) -> Grid:
    d, m = map(_half, _affine(x, w, 15, below_zero=False))
    return _grid(d, 0, 15, _bytes(d), _bytes(m), floor=m)


def _q5_1(x: Tensor, w: Tensor) -> Grid:
    d, m = map(_half, _affine(x, w, 31, below_zero=False))
    return _grid(d, 0, 31, _bytes(d), _bytes(m), floor=m)


def _iq4_nl(x: Tensor, w: Tensor) -> Grid:
    values = torch.tensor(IQ4_VALUES, dtype=torch.float32, device=x.device)
    middles = (values[1:] + values[:-1]) / 2
    peak = _signed_peak(x)
    best, scale = torch.full_like(peak, -1), torch.zeros_like(peak)
    for step in range(-4, 5, 2):
        for end in (IQ4_VALUES[0], IQ4_VALUES[-1]):  # the largest number may lie at either end of the values
            q = values[torch.bucketize(x * ((end + step) / _safe(peak)), middles)]
            dot, norm = (w * x * q).sum(-1, keepdim=True), (w * q * q).sum(-1, keepdim=True)
            gain = dot * dot / _safe(norm)
            better = gain > best
            best, scale = torch.where(better, gain, best), torch.where(better, dot / _safe(norm), scale)
    d = _half(scale)
    return replace(_grid(d, 0, 15, _bytes(d)), levels=values)


def _pack_4(grid: Grid, q: Tensor) -> Tensor:
    return torch.cat([*grid.header, _nibbles(q)], 1)


def _pack_5(grid: Grid, q: Tensor) -> Tensor:
    return torch.cat([*grid.header, _fifth_bits(q), _nibbles(q & 15)], 1)


# -- types of 256 ----------------------------------------------------------------------------------------------------


def _interleaved(q: Tensor, runs: int, bits: int) -> Tensor:
    """[n, 256] codes of ``bits`` bits, in groups of 8/bits runs of ``runs`` numbers, one run above the other in a byte."""
    fold = 8 // bits
    shifts = torch.arange(0, 8, bits, device=q.device, dtype=torch.uint8).reshape(1, 1, fold, 1)
    return (q.reshape(len(q), -1, fold, runs) << shifts).sum(2).to(torch.uint8).reshape(len(q), -1)


def _super_scale(scales: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The scales [n, k] ≥ 0 of sub-blocks, as a float16 [n, 1] and integers up to ``top``."""
    d = _half(scales.amax(-1, keepdim=True) / top)
    return d, (scales / _safe(d.float())).round().clamp(0, top)


def _scales_and_floors(scales: Tensor, floors: Tensor) -> Tensor:
    """Eight scales and eight floors of 6 bits in 12 bytes, as Q4_K and Q5_K lay them out (``get_scale_min_k4``)."""
    s, m = scales.to(torch.uint8), floors.to(torch.uint8)
    first = s[:, :4] | ((s[:, 4:] >> 4) << 6)
    second = m[:, :4] | ((m[:, 4:] >> 4) << 6)
    return torch.cat([first, second, (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)], 1)


def _k_affine(x: Tensor, w: Tensor, top: int) -> Grid:
    """Q4_K's and Q5_K's scales: d, dmin, and the 12 bytes of scales and floors; codes from 0 to ``top``."""
    x, w = x.reshape(-1, 8, 32), w.reshape(-1, 8, 32)
    scale, floor = _affine(x, w, top, below_zero=True)
    d, s = _super_scale(scale.squeeze(-1), 63)
    dmin, m = _super_scale(-floor.squeeze(-1), 63)
    parts = _bytes(d), _bytes(dmin), _scales_and_floors(s, m)
    return _grid(d.float() * s, 0, top, *parts, floor=-(dmin.float() * m), block=256)


def _pack_q4_k(grid: Grid, q: Tensor) -> Tensor:
    return torch.cat([*grid.header, _interleaved(q, 32, 4)], 1)


def _pack_q5_k(grid: Grid, q: Tensor) -> Tensor:
    return torch.cat([*grid.header, _interleaved(q >> 4, 32, 1), _interleaved(q & 15, 32, 4)], 1)


def _k_symmetric(x: Tensor, w: Tensor, low: int, top: int) -> tuple[Tensor, Tensor]:
    """Q6_K's and Q3_K's scales: d [n, 1], and the signed scales [n, 16] from −``top`` − 1 to ``top``."""
    scale = _symmetric(x.reshape(-1, 16, 16), w.reshape(-1, 16, 16), low, -low - 1).squeeze(-1)
    d = _half(_signed_peak(scale) / -(top + 1))
    return d, (scale / _safe(d.float())).round().clamp(-top - 1, top)


def _q6_k(x: Tensor, w: Tensor) -> Grid:
    d, s = _k_symmetric(x, w, -32, 127)
    return _grid(d.float() * s, -32, 31, s.to(torch.int8).view(torch.uint8), _bytes(d), block=256)


def _pack_q6_k(grid: Grid, q: Tensor) -> Tensor:
    return torch.cat([_interleaved(q & 15, 64, 4), _interleaved(q >> 4, 32, 2), *grid.header], 1)


def _q3_k(x: Tensor, w: Tensor) -> Grid:
    d, s = _k_symmetric(x, w, -4, 31)
    codes = s.add(32).to(torch.uint8)
    low, high = codes & 15, codes >> 4
    packed = torch.cat([low[:, :8] | (low[:, 8:] << 4), _quarters(high)], 1)
    return _grid(d.float() * s, -4, 3, packed, _bytes(d), block=256)


def _pack_q3_k(grid: Grid, q: Tensor) -> Tensor:
    return torch.cat([_interleaved(q >> 2, 32, 1), _interleaved(q & 3, 32, 2), *grid.header], 1)


def _quarters(high: Tensor) -> Tensor:
    """Sixteen numbers of 2 bits in 4 bytes: byte j holds those of 4k + j."""
    shifts = torch.arange(0, 8, 2, device=high.device, dtype=torch.uint8).reshape(1, 4, 1)
    return (high.reshape(-1, 4, 4) << shifts).sum(1).to(torch.uint8)


# Type → numbers in a block; the function from numbers and weights [n, block] (weights perhaps [1, block]) to the scales;
# and that from scales and codes [n, block] to bytes.
TYPES: dict[str, tuple[int, Callable[[Tensor, Tensor], Grid], Callable[[Grid, Tensor], Tensor]]] = {
    "Q8_0": (32, _q8_0, _pack_q8_0),
    "Q6_K": (256, _q6_k, _pack_q6_k),
    "Q5_1": (32, _q5_1, _pack_5),
    "Q5_K": (256, partial(_k_affine, top=31), _pack_q5_k),
    "Q5_0": (32, _q5_0, _pack_5),
    "Q4_1": (32, _q4_1, _pack_4),
    "Q4_K": (256, partial(_k_affine, top=15), _pack_q4_k),
    "IQ4_NL": (32, _iq4_nl, _pack_4),
    "Q4_0": (32, _q4_0, _pack_4),
    "Q3_K": (256, _q3_k, _pack_q3_k),
}
