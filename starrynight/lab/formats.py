"""A painter in a given number format: loaded, cast, and with the arithmetic of a GPU around it where this machine has
none of its own.

The one place that knows how a format is had. float16 on a CPU, and float8 everywhere, run under emulation: operands in
the format, sums in float32, results rounded to the format. float8 is the denoiser's alone (e4m3, weights and
activations); text encoder and decoder stay bfloat16 beside it. Knows painters; measures nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starrynight.lab.plan import WIDE
from starrynight.request import PaintRequest
from starrynight.settings import settings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from starrynight.painting.painter import Painter, Step


@dataclass
class FormatPainter:
    """A painter and the format it paints in; ``emulated`` where the arithmetic is not the device's own."""

    painter: Painter
    format: str
    emulated: bool
    _wide: Any = field(default=None, repr=False)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks of the pipeline by component name."""
        from torch import nn

        return {n: m for n, m in self.painter.pipeline.components.items() if isinstance(m, nn.Module)}

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Whatever runs inside computes as the format does on hardware that has it."""
        from torch import nn

        from starrynight.numerics.emulate import Emulation

        if not self.emulated:
            with nullcontext():
                yield
            return
        if self._wide is None:
            self._wide = nn.ModuleList(self.modules.values())
        with Emulation(self._wide):
            yield

    @property
    def bytes(self) -> int:
        """What its weights take."""
        tensors = [t for m in self.modules.values() for t in (*m.parameters(), *m.buffers())]
        return sum(t.numel() * t.element_size() for t in tensors)


def ready(model: str, format_: str, request: PaintRequest, device: str | None) -> FormatPainter:
    """Load ``model`` in ``format_``. Raises what ``Painter.ready`` raises."""
    import torch

    from starrynight.models import precision_plan
    from starrynight.models.catalogue import resolve
    from starrynight.numerics.precision import PrecisionPlan
    from starrynight.painting.painter import Painter

    base = "bfloat16" if format_ == "float8" else format_
    wish = request.replace(model=place_of(model), precision=base)
    plan = precision_plan.choose(resolve(wish.model), device, base)
    natural = PrecisionPlan(
        tuple(replace(choice, emulated=False) for choice in plan)
    )  # the lab emulates by itself
    painter = Painter.ready(wish, natural, device=device)
    painter.guard.recover = False  # what breaks is refused: a mended picture would be another format's
    if format_ == "float8":
        painter.denoiser.to(torch.float8_e4m3fn)
    on_cpu = painter.device.type == "cpu"
    return FormatPainter(painter, format_, format_ == "float8" or (on_cpu and base.startswith("float16")))


def bare_copy(network: nn.Module, with_islands: bool = False) -> nn.Module:
    """A copy without the hooks that painter and guard have hung on it: a hook holds on to its owner, and a copy of that
    is the whole pipeline again. ``with_islands`` keeps those at the borders of float32 islands.
    """
    from starrynight.numerics import islands

    kinds = ("_forward_hooks", "_forward_pre_hooks")
    held = [(m, kind, getattr(m, kind)) for m in network.modules() for kind in kinds]
    try:
        for module, kind, hooks in held:
            kept = {k: h for k, h in hooks.items() if with_islands and type(h).__module__ == islands.__name__}
            setattr(module, kind, type(hooks)(kept))
        return copy.deepcopy(network)
    finally:
        for module, kind, hooks in held:
            setattr(module, kind, hooks)


def paint(hand: FormatPainter, request: PaintRequest, watch: Callable[[Step], None]) -> np.ndarray:
    """Paint one picture: float32 [H, W, 3]. Raises BrokenNumbers: nobody climbs a ladder here."""
    with hand.arithmetic():
        return next(iter(hand.painter.paint(request, watch))).pixels


def stored(format_: str) -> torch.dtype:
    """What pixels and latents are kept in: float8 is the denoiser's alone."""
    import torch

    return torch.bfloat16 if format_ == "float8" else getattr(torch, format_.removesuffix("-folded"))


def fit(value: Any, dtype: Any) -> Any:
    """What a network is called with, in its format: latents and words follow it; times keep theirs, as in the painter."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() and value.dim() > 1 else value
    if isinstance(value, dict):
        return {k: fit(v, dtype) for k, v in value.items()}
    return type(value)(fit(v, dtype) for v in value) if isinstance(value, list | tuple) else value


def place_of(model: str) -> str:
    """The catalogue's name for a lab's model: the wide twin is made where it is wanted."""
    return str(wide_twin()) if model == WIDE else model


def wide_twin() -> Path:
    from starrynight.firefly import twin

    return twin.make(settings().cache / WIDE)
