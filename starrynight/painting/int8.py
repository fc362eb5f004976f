"""A denoiser whose linear layers multiply in 8-bit integers, on a CPU that is fast at it (``numerics/int8.py``).

Only layers that see sequences of tokens are changed: there the time goes. What sees one vector a picture (times, pooled
prompts, modulation) costs little and moves every token at once, so it stays as it is, like convolutions, and like the thin
layers at both ends, whose errors would reach the latents directly.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.errors import Unfit
from starrynight.folding import calibrate
from starrynight.models.catalogue import LocalModel
from starrynight.models.kept import KeptLinear, PackedWeight, eight_bits
from starrynight.models.load import denoiser
from starrynight.numerics.int8 import Int8Weight, quantised_rows

# Inputs and outputs that a layer needs at least. Firefly's last layer has 64, as Z-Image's and Flux's.
NARROWEST = 128


@dataclass
class SharedInput:
    """The last input and its integers: a query, a key and a value read the same tensor."""

    tensor: Callable[[], Tensor | None] = lambda: None
    version: int = -1
    rows: tuple[Tensor, Tensor] | None = None

    def quantised(self, given: Tensor) -> tuple[Tensor, Tensor]:
        flat = given.reshape(-1, given.shape[-1])
        if given.is_inference():  # such a tensor has no version that tells when it was written
            return quantised_rows(flat)
        if self.rows is None or self.tensor() is not given or self.version != given._version:
            self.tensor, self.version = weakref.ref(given, self._forget), given._version
            self.rows = quantised_rows(flat)
        return self.rows

    def _forget(self, gone: Any) -> None:
        if gone is self.tensor:
            self.rows = None


class Int8Linear(KeptLinear):
    """A linear layer in int8. In a wider format, under a fallback, and with an adapter merged into it, it multiplies as any
    layer of kept weights does.
    """

    int8: Int8Weight
    shared: SharedInput

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        if not input.dtype == self.held == self.rounded:
            return super().forward(input)
        found = self.int8.multiply(*self.shared.quantised(input), input.dtype)
        if self.bias is not None:
            found.add_(self.bias)
        return found.reshape(*input.shape[:-1], self.out_features)

    def stored(self) -> PackedWeight:
        return eight_bits(self.int8.integers(), self.int8.scales[:, None])

    def release(self) -> Callable[[torch.device], None]:
        return lambda device: None  # its integers are no parameters and stay


def prepare(pipeline: Any, model: LocalModel) -> None:
    """Let the pipeline's denoiser multiply in int8. Layers whose weights are not finite are left for the guard.

    Raises Unfit where no layer is wide enough.
    """
    wide = [layer for layer in _sequence_layers(pipeline, model) if min(layer.weight.shape) >= NARROWEST]
    if not wide:
        raise Unfit(
            f"{model.spec.en} has no linear layer of {NARROWEST} inputs and outputs to multiply in int8; use auto.",
            f"{model.spec.zh} 没有输入和输出都不少于 {NARROWEST} 的线性层可用 int8 相乘；请改用 auto。",
            "precision",
        )
    convert(wide)


def convert(layers: Iterable[Any]) -> None:
    """Pack the weights of these linear layers of one network; those that are not finite are left."""
    shared = SharedInput()
    for changed in layers:
        weight = changed.weight.detach()
        if not bool(torch.isfinite(weight).all()):
            continue
        del changed._parameters["weight"]
        changed.__class__ = Int8Linear
        changed.packed = PackedWeight(torch.int8, weight.shape, torch.empty(0))
        changed.rounded = changed.held = weight.dtype
        changed.int8, changed.shared = Int8Weight.of(weight), shared


def bytes_of(network: nn.Module) -> int:
    """The size of its integers and their scales, which are no parameters."""
    packed = (layer.int8 for layer in network.modules() if isinstance(layer, Int8Linear))
    return sum(weight.products.numel() + weight.scales.nbytes for weight in packed)


class _Seen(Exception):
    """Ends the pipeline after the first call of its denoiser."""


def _sequence_layers(pipeline: Any, model: LocalModel) -> list[nn.Linear]:
    """The linear layers of the denoiser that got [batch, tokens, width] in its first call for a small picture."""
    network, spec = denoiser(pipeline), model.spec
    found: dict[nn.Linear, None] = {}

    def look(layer: Any, given: tuple[Any, ...]) -> None:
        if given and given[0].dim() > 2:
            found[layer] = None

    def stop(*_: Any) -> None:
        raise _Seen

    hooks = [layer.register_forward_pre_hook(look) for layer in network.modules() if type(layer) is nn.Linear]
    hooks.append(network.register_forward_hook(stop))
    sample = calibrate.CalibrationSample(
        calibrate.CALIBRATION[0], spec.smallest, spec.smallest, spec.steps, spec.guidance, 0
    )
    try:
        calibrate.paint(pipeline, model, sample)
    except _Seen:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return list(found)
