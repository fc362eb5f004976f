"""Every layer's range against every format's limits, told from a trace. Knows modules by name; draws nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from starrynight.numerics.solve import collect_ranges, immovable, solve_exponents
from starrynight.numerics.trace import Trace

# log2 of the largest finite number of each format.
LIMITS = {"float8_e4m3": math.log2(448), "float8_e5m2": math.log2(57344), "float16": math.log2(65504),
          "bfloat16": math.log2(3.3895e38)}  # fmt: skip

# float16's smallest normal and smallest subnormal number.
NORMAL, SUBNORMAL = -14.0, -24.0


@dataclass
class LayerRange:
    """One module's 16-bit results over the whole run, in log2: ``peak`` of max|x|, ``small`` of the 10 % quantile.

    ``folded`` is the peak after folding. ``op`` made the peak.
    """

    component: str
    name: str
    op: str
    peak: float
    small: float
    folded: float

    def headroom_bits(self, name: str) -> float:
        """Bits between the peak and a format's largest number; negative where it breaks."""
        return LIMITS[name] - self.peak

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the bits to spare in each format."""
        told = {k: round(v, 2) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return told | {"spare": {name: round(self.headroom_bits(name), 2) for name in LIMITS}}


def layer_ranges(trace: Trace) -> list[LayerRange]:
    """The layers in the order in which they first ran, with what the least folding would make of them."""
    exponents = solve_exponents(trace, collect_ranges(trace), immovable(trace))
    found: dict[str, LayerRange] = {}
    for site in trace.sites.values():
        if not site.half or site.peak <= 0:
            continue
        peak, small = math.log2(site.peak), math.log2(site.small) if 0 < site.small < math.inf else math.inf
        folded = peak + max(exponents.get(trace.exponents.root(e), 0) for e in site.exponents)
        component, _, name = site.module.partition(".")
        layer = found.setdefault(site.module, LayerRange(component, name, site.op, peak, small, folded))
        if peak > layer.peak:
            layer.peak, layer.op = peak, site.op
        layer.small, layer.folded = min(layer.small, small), max(layer.folded, folded)
    return list(found.values())


def breaking(found: Sequence[LayerRange], name: str = "float16") -> list[LayerRange]:
    """The layers that a format cannot hold, worst first."""
    return sorted(
        (layer for layer in found if layer.headroom_bits(name) < 0),
        key=lambda layer: layer.headroom_bits(name),
    )
