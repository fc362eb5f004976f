"""Loads a model as a painter in a given number format, emulated where this machine lacks the format's arithmetic.

float16 on a CPU and float8 everywhere run under emulation: operands in the format, sums in float32, results rounded to
the format, as on a tensor core. int8 is the painter's own (``painting/int8.py``). float8 (e4m3, weights and activations) applies to the denoiser only; text encoder and
decoder stay bfloat16.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from starrynight.lab.plan import EXTRAS, WIDE
from starrynight.request import PaintRequest
from starrynight.settings import settings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from starrynight.painting.painter import Painter, Step


@dataclass
class FormatPainter:
    """A painter and its number format; ``emulated``: the device lacks the format's arithmetic."""

    painter: Painter
    format: str
    emulated: bool
    # All networks as one module, made for the first emulation.
    _networks: Any = field(default=None, repr=False)

    @property
    def pipeline(self) -> Any:
        return self.painter.pipeline

    @property
    def denoiser(self) -> Any:
        return self.painter.denoiser

    @property
    def device(self) -> torch.device:
        return self.painter.device

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks of the pipeline by component name."""
        from torch import nn

        return {n: m for n, m in self.pipeline.components.items() if isinstance(m, nn.Module)}

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Inside, the networks compute as the format does on hardware that has it."""
        from torch import nn

        from starrynight.numerics.emulate import Emulation

        if not self.emulated:
            yield
            return
        if self._networks is None:
            self._networks = nn.ModuleList(self.modules.values())
        with Emulation(self._networks):
            yield

    @property
    def weights(self) -> list[torch.Tensor]:
        """The parameters and buffers of its networks."""
        return [t for m in self.modules.values() for t in (*m.parameters(), *m.buffers())]

    @property
    def bytes(self) -> int:
        """The size of its weights."""
        from starrynight.painting.int8 import bytes_of

        return sum(t.numel() * t.element_size() for t in self.weights) + bytes_of(self.denoiser)


def load_painter(model: str, format_: str, request: PaintRequest, device: str | None) -> FormatPainter:
    """Load ``model`` in ``format_``. Raises what ``Painter.ready`` raises."""
    import torch

    from starrynight.models import precision_plan
    from starrynight.models.catalogue import resolve
    from starrynight.numerics.precision import PrecisionPlan
    from starrynight.painting.painter import Painter

    base = "bfloat16" if format_ == "float8" else format_
    request = request.replace(model=catalogue_name(model), precision=base)
    plan = precision_plan.choose(resolve(request.model), device, base)
    # Not the painter emulates but the experiment, through ``arithmetic``: some of them call the networks themselves. And they
    # read weights, so none stays packed.
    plan = PrecisionPlan(tuple(replace(choice, emulated=False, kept=False) for choice in plan))
    # No fallbacks: a picture recovered in another precision would not be this format's.
    painter = Painter.ready(request, plan, device=device, recover=False)
    if format_ == "float8":
        painter.denoiser.to(torch.float8_e4m3fn)
    on_cpu = painter.device.type == "cpu"
    return FormatPainter(painter, format_, format_ == "float8" or (on_cpu and base.startswith("float16")))


def copy_without_hooks(network: nn.Module, keep_islands: bool = False) -> nn.Module:
    """A deep copy without the hooks of painter and guard: a hook refers to its owner, so copying it would copy the whole
    pipeline. ``keep_islands`` keeps the hooks that cast at the borders of float32 islands.
    """
    from starrynight.numerics import islands

    kinds = ("_forward_hooks", "_forward_pre_hooks")
    originals = [(m, kind, getattr(m, kind)) for m in network.modules() for kind in kinds]
    try:
        for module, kind, hooks in originals:
            kept = {k: h for k, h in hooks.items() if keep_islands and type(h).__module__ == islands.__name__}
            setattr(module, kind, type(hooks)(kept))
        return copy.deepcopy(network)
    finally:
        for module, kind, hooks in originals:
            setattr(module, kind, hooks)


def paint(painter: FormatPainter, request: PaintRequest, on_step: Callable[[Step], None]) -> np.ndarray:
    """Paint one picture: float32 [H, W, 3]. Raises BrokenNumbers on NaN or Inf, since there are no fallbacks."""
    from starrynight.painting.results import Refused

    with painter.arithmetic():
        outcome = next(iter(painter.painter.paint(request, on_step)))
    if isinstance(outcome, Refused):
        raise outcome.error
    return outcome.pixels


def storage_dtype(format_: str) -> torch.dtype:
    """The dtype of pixels and latents outside the denoiser: bfloat16 for float8 and int8, which are for the denoiser only."""
    import torch

    return torch.bfloat16 if format_ in EXTRAS else getattr(torch, format_.removesuffix("-folded"))


def cast_arguments(value: Any, dtype: Any) -> Any:
    """A network's arguments cast to ``dtype``. Tensors of one dimension are times; like the painter, this leaves them."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() and value.dim() > 1 else value
    if isinstance(value, dict):
        return {k: cast_arguments(v, dtype) for k, v in value.items()}
    return type(value)(cast_arguments(v, dtype) for v in value) if isinstance(value, list | tuple) else value


@cache
def stored(model: str) -> Mapping[str, str]:
    """Component → the format of the model's files, where it is a quantised one: "GGUF Q4_K, F32"."""
    from starrynight.models import precision_plan
    from starrynight.models.catalogue import resolve

    return precision_plan.quantised(resolve(catalogue_name(model)))


def catalogue_name(model: str) -> str:
    """The catalogue's name of a plan's model; the wide twin is built in the cache when it is first needed."""
    if model != WIDE:
        return model
    from starrynight.firefly import twin

    return str(twin.make(settings().cache / WIDE))
