"""bfloat16 on a CPU, faster than by default: attention as two matrix products, RMS norms in one pass, channels last.

torch 2.13's fused attention runs bfloat16 on a CPU at a third of the rate of its matrix products where there is no AMX (docs/speed.md).
``attended`` computes the same from plain matrix products. Their results are rounded to bfloat16, so scores are first moved towards
zero: softmax does not change when a number is taken from every score of a row, and small numbers round to small errors.
Everything else (other formats and devices, short sequences, causal or dropped-out attention) is left to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.normalization import RMSNorm
from torch import nn
from torch.overrides import TorchFunctionMode

# Below these lengths torch's kernel is as fast (`python benchmarks/bench.py --only attention`).
LEAST_QUERIES, LEAST_KEYS = 256, 512
# Pictures with fewer pixels have no sequence that long: one token is 8 × 8 pixels at least.
LEAST_PIXELS = LEAST_KEYS * 8 * 8
# Scores computed at once: 2 MB of bfloat16, which a core's cache holds.
SCORES = 1 << 20
# Every which key is looked at for a row's largest score. Any estimate is right; a near one makes the rounding small.
SAMPLED = 8
MASKED = -3e4  # e to this power is 0 in every format


def attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None, scale: float | None = None
) -> torch.Tensor:  # fmt: skip
    """softmax(query·keyᵀ·scale)·value of bfloat16 [batch, heads, length, width] tensors, as [batch, heads, queries, width].

    ``mask``: bool [batch, 1, 1, keys], True where a key counts. Two further columns of queries and keys carry each row's
    shift and the mask into the product, before its result is rounded.
    """
    batch, heads, length, width = query.shape
    scaled = query * (width**-0.5 if scale is None else scale)
    queries, keys = F.pad(scaled, (0, 2)), F.pad(key, (0, 2))
    keys[..., width] = 1
    if mask is not None:
        keys[..., width + 1] = torch.where(mask[:, :, 0], 0.0, MASKED).to(key.dtype)
        queries[..., width + 1] = 1
    out = query.new_empty(batch, heads, length, value.shape[-1])
    rows = max(1, SCORES // key.shape[2])
    for place in [(i, j) for i in range(batch) for j in range(heads)]:
        queries[place][:, width] = -(scaled[place] @ key[place][::SAMPLED].T).amax(-1)
        for first in range(0, length, rows):
            block = slice(first, first + rows)
            scores = queries[place][block] @ keys[place].T
            out[place][block] = torch.softmax(scores, -1) @ value[place]
    return out


def _mask_of_keys(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> bool:
    """Whether ``attended`` takes a mask: none, or one that says for each batch row which keys count, at least one."""
    if mask is None:
        return True
    shape = (query.shape[0], 1, 1, key.shape[2])
    return mask.dtype is torch.bool and tuple(mask.shape) == shape and bool(mask.any(-1).all())


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """``torch.nn.functional.scaled_dot_product_attention``, by ``attended`` where that is faster."""
    tensors = (query, key, value)
    suits = (
        all(one.dtype is torch.bfloat16 and one.device.type == "cpu" and one.dim() == 4 for one in tensors)
        and query.shape[2] >= LEAST_QUERIES
        and key.shape[2] >= LEAST_KEYS
        and key.shape[:2] == query.shape[:2]
        and not (dropout_p or is_causal or torch.is_grad_enabled())
        and torch.backends.cuda.flash_sdp_enabled()  # off while somebody asks for plain mathematics
        and _mask_of_keys(attn_mask, query, key)
    )
    if suits:
        return attended(query, key, value, attn_mask, scale)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


class FastAttention(TorchFunctionMode):
    """While active, ``scaled_dot_product_attention`` is ``attention``."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        replaced = attention if func is F.scaled_dot_product_attention else func
        return replaced(*args, **(kwargs or {}))


def _narrow(denoiser: nn.Module) -> bool:
    """Whether a denoiser computes in bfloat16. Pipelines of others are left as they are, so that float32 stays diffusers' own."""
    return any(parameter.dtype is torch.bfloat16 for parameter in denoiser.parameters())


@contextmanager
def fast_attention(denoiser: nn.Module, device: torch.device, pixels: int) -> Iterator[None]:
    """``FastAttention`` for a picture of so many pixels, where it can help: a mode costs Python time at every operation."""
    if device.type != "cpu" or pixels < LEAST_PIXELS or not _narrow(denoiser):
        yield
        return
    with FastAttention():
        yield


class FastRMSNorm(RMSNorm):
    """diffusers' RMSNorm. bfloat16 is normalised and weighted in float32 and rounded once, where the original rounds twice."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        narrow = hidden_states.dtype is torch.bfloat16 is self.weight.dtype
        if not narrow or torch.is_grad_enabled():  # what is written in place has no gradient
            return super().forward(hidden_states)
        exact = hidden_states.float()
        length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        factor = length.square_().div_(exact.shape[-1]).add_(self.eps).rsqrt_()
        return exact.mul_(factor).mul_(self.weight.float()).to(hidden_states.dtype)


def prepare(denoiser: nn.Module, decoder: nn.Module | None) -> None:
    """Arrange a pipeline's networks for painting in bfloat16 on a CPU: ``make_norms_fast``, and the decoder's convolutions
    channels last, as oneDNN reads them without reordering. With a denoiser in another format nothing is
    changed."""
    if not _narrow(denoiser):
        return
    make_norms_fast(denoiser)
    for parameter in decoder.parameters() if decoder is not None else ():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def make_norms_fast(network: nn.Module) -> int:
    """Turn a network's diffusers RMS norms with weights into ``FastRMSNorm``, for inference; returns how many."""
    found = [
        module for module in network.modules()
        if type(module) is RMSNorm and module.weight is not None and module.bias is None
    ]  # fmt: skip
    for module in found:
        module.__class__ = FastRMSNorm
    return len(found)
