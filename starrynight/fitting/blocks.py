"""Weights as GGUF's block types: the integers and scales that lose least, packed as ggml packs them.

A block type stores runs of 32 numbers (Q4_0, Q5_1, …) or of 256 (the K types) as small integers with a scale, some with a
floor as well; a K type stores the scales of its sub-blocks in 4 to 8 bits below one float16. The layouts are those of ggml
(``ggml-common.h``); ``models.gguf.decode`` reads them. The searches follow ``ggml-quants.c`` (``make_qx_quants``,
``make_qkx2_quants``): a few scales are tried, each is improved by least squares, and the best is kept. They minimise
Σ w (x − x')² with weights w by column where the inputs of a layer are known, else plain squares. The ``gguf`` package
quantises five of these types by their largest number alone.

Everything is torch, so that it runs where the model is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Numbers that are searched at a time: bounds the temporaries to about 200 MB.
CHUNK = 1 << 22
# IQ4_NL's sixteen values (``kvalues_iq4nl``): denser around zero, as weights are.
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def quantise(weights: Tensor, kind: str, importance: Tensor | None = None) -> Tensor:
    """``weights`` [rows, columns] in a type of GGUF, as uint8 [rows, bytes of a row].

    ``importance`` [columns]: how much the square of an error in each column matters, such as the mean square of the inputs.
    Raises KeyError for a type that is not written, RuntimeError where rows do not fill the type's blocks.
    """
    if kind in PLAIN:
        return weights.to(PLAIN[kind]).contiguous().view(torch.uint8).reshape(weights.shape[0], -1)
    block, encode = TYPES[kind]
    rows = len(weights)
    x = weights.float().reshape(-1, block)
    w = torch.ones(1, block, device=x.device) if importance is None else _weights(importance, block, rows)
    at = max(1, CHUNK // block)
    parts = [
        encode(x[start : start + at], w if len(w) == 1 else w[start : start + at])
        for start in range(0, len(x), at)
    ]
    return torch.cat(parts).reshape(rows, -1)


def _weights(importance: Tensor, block: int, rows: int) -> Tensor:
    """One weight a number; those of columns that are never used are small, not zero."""
    mean = importance.float() / importance.float().mean().clamp_min(1e-30)
    return mean.clamp_min(1e-4).reshape(-1, block).repeat(rows, 1)


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


def _codes(x: Tensor, d: Tensor, low: int, high: int, floor: Tensor | float = 0.0) -> Tensor:
    """The integers of x under the scale as stored, from 0 on, as uint8."""
    return ((x - floor) / _safe(d)).round().clamp(low, high).sub(low).to(torch.uint8)


# -- types of 32 -----------------------------------------------------------------------------------------------------


def _nibbles(q: Tensor) -> Tensor:
    """[n, 32] of 4 bits → [n, 16]: the first half in the low nibbles."""
    return q[:, :16] | (q[:, 16:] << 4)


def _fifth_bits(q: Tensor) -> Tensor:
    """The fifth bit of 32 codes, as 4 bytes, lowest bit first."""
    shifts = torch.arange(8, device=q.device, dtype=torch.uint8)
    return ((q >> 4).reshape(-1, 4, 8) << shifts).sum(-1).to(torch.uint8)


def _q8_0(x: Tensor, w: Tensor) -> Tensor:
    d = _half(x.abs().amax(-1, keepdim=True) / 127)
    q = (x / _safe(d.float())).round().clamp(-127, 127).to(torch.int8)
    return torch.cat([_bytes(d), q.view(torch.uint8)], 1)


def _q4_0(x: Tensor, w: Tensor) -> Tensor:
    d = _half(_symmetric(x, w, -8, 7))
    return torch.cat([_bytes(d), _nibbles(_codes(x, d.float(), -8, 7))], 1)


def _q5_0(x: Tensor, w: Tensor) -> Tensor:
    d = _half(_symmetric(x, w, -16, 15))
    q = _codes(x, d.float(), -16, 15)
    return torch.cat([_bytes(d), _fifth_bits(q), _nibbles(q & 15)], 1)


def _q4_1(x: Tensor, w: Tensor) -> Tensor:
    d, m = map(_half, _affine(x, w, 15, below_zero=False))
    return torch.cat([_bytes(d), _bytes(m), _nibbles(_codes(x, d.float(), 0, 15, m.float()))], 1)


def _q5_1(x: Tensor, w: Tensor) -> Tensor:
    d, m = map(_half, _affine(x, w, 31, below_zero=False))
    q = _codes(x, d.float(), 0, 31, m.float())
    return torch.cat([_bytes(d), _bytes(m), _fifth_bits(q), _nibbles(q & 15)], 1)


def _iq4_nl(x: Tensor, w: Tensor) -> Tensor:
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
    q = torch.bucketize(x / _safe(d.float()), middles).to(torch.uint8)
    return torch.cat([_bytes(d), _nibbles(q)], 1)


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


def _k_affine(x: Tensor, w: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Q4_K's and Q5_K's parts: d, dmin, the 12 bytes of scales and floors, and codes [n, 256] from 0 to ``top``."""
    x, w = x.reshape(-1, 8, 32), w.reshape(-1, 8, 32)
    scale, floor = _affine(x, w, top, below_zero=True)
    d, s = _super_scale(scale.squeeze(-1), 63)
    dmin, m = _super_scale(-floor.squeeze(-1), 63)
    q = _codes(x, (d.float() * s).unsqueeze(-1), 0, top, -(dmin.float() * m).unsqueeze(-1))
    return d, dmin, _scales_and_floors(s, m), q.reshape(-1, 256)


def _q4_k(x: Tensor, w: Tensor) -> Tensor:
    d, dmin, packed, q = _k_affine(x, w, 15)
    return torch.cat([_bytes(d), _bytes(dmin), packed, _interleaved(q, 32, 4)], 1)


def _q5_k(x: Tensor, w: Tensor) -> Tensor:
    d, dmin, packed, q = _k_affine(x, w, 31)
    high = _interleaved(q >> 4, 32, 1)
    return torch.cat([_bytes(d), _bytes(dmin), packed, high, _interleaved(q & 15, 32, 4)], 1)


def _k_symmetric(x: Tensor, w: Tensor, low: int, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q6_K's and Q3_K's parts: d, the signed scales [n, 16] from −``top`` − 1 to ``top``, and codes [n, 256] from 0 on."""
    x, w = x.reshape(-1, 16, 16), w.reshape(-1, 16, 16)
    scale = _symmetric(x, w, low, -low - 1).squeeze(-1)
    d = _half(_signed_peak(scale) / -(top + 1))
    s = (scale / _safe(d.float())).round().clamp(-top - 1, top)
    q = _codes(x, (d.float() * s).unsqueeze(-1), low, -low - 1)
    return d, s, q.reshape(-1, 256)


def _q6_k(x: Tensor, w: Tensor) -> Tensor:
    d, s, q = _k_symmetric(x, w, -32, 127)
    low = _interleaved(q & 15, 64, 4)
    return torch.cat([low, _interleaved(q >> 4, 32, 2), s.to(torch.int8).view(torch.uint8), _bytes(d)], 1)


def _q3_k(x: Tensor, w: Tensor) -> Tensor:
    d, s, q = _k_symmetric(x, w, -4, 31)
    codes = s.add(32).to(torch.uint8)
    low, high = codes & 15, codes >> 4
    packed = torch.cat([low[:, :8] | (low[:, 8:] << 4), _quarters(high)], 1)
    return torch.cat([_interleaved(q >> 2, 32, 1), _interleaved(q & 3, 32, 2), packed, _bytes(d)], 1)


def _quarters(high: Tensor) -> Tensor:
    """Sixteen numbers of 2 bits in 4 bytes: byte j holds those of 4k + j."""
    shifts = torch.arange(0, 8, 2, device=high.device, dtype=torch.uint8).reshape(1, 4, 1)
    return (high.reshape(-1, 4, 4) << shifts).sum(1).to(torch.uint8)


# Type → numbers in a block, and the function from numbers and weights [n, block] (weights perhaps [1, block]) to bytes.
TYPES: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "Q8_0": (32, _q8_0),
    "Q6_K": (256, _q6_k),
    "Q5_1": (32, _q5_1),
    "Q5_K": (256, _q5_k),
    "Q5_0": (32, _q5_0),
    "Q4_1": (32, _q4_1),
    "Q4_K": (256, _q4_k),
    "IQ4_NL": (32, _iq4_nl),
    "Q4_0": (32, _q4_0),
    "Q3_K": (256, _q3_k),
}
