"""Numerics: float16 with a finer fraction than bfloat16 and without overflow, for any ``nn.Module``.

precision → the number format of each component, with the reason (no torch)
device    → what this machine is and how fast it multiplies in each format
dtypes    → groups of formats, and one cast for nested values
modules   → names of modules and tensors, hooks around every forward
rules     → what each aten op says about the scales of its tensors
trace     → the scale equations and the measured ranges of a run
solve     → integer exponents that bring every 16-bit tensor into float16's range
islands   → the smallest modules that stay in float32 where no fold helps
effective → weights that are only read with a number added, stored as their sum
fold      → apply a plan in memory, to a checkpoint, to a LoRA
certify   → compare folded float16 with float32 and bfloat16 on held-out inputs
emulate   → a GPU's float16 (bfloat16, float8) on any machine
finite    → find NaN and Inf, and the module and op that made them
ranges    → the range of every layer, as data and as a plot
rng       → noise that depends on the seed alone

The functions that users call are exported here and imported on first use, so that importing the package loads
no torch. No exported name is also the name of a file: ``starrynight.numerics.trace`` is always the module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starrynight import lazy_exports

if TYPE_CHECKING:
    from starrynight.numerics.certify import Certificate, certify_folds
    from starrynight.numerics.emulate import Emulation, emulate_module
    from starrynight.numerics.finite import find_fault, locate_fault
    from starrynight.numerics.fold import fold_modules, read_plan, write_folded
    from starrynight.numerics.islands import cast_with_islands
    from starrynight.numerics.measured import Trace
    from starrynight.numerics.precision import PrecisionPlan
    from starrynight.numerics.ranges import layer_ranges, range_plot
    from starrynight.numerics.solve import FoldPlan, solve_folds
    from starrynight.numerics.trace import trace_modules

__all__ = ["Certificate", "Emulation", "FoldPlan", "PrecisionPlan", "Trace", "cast_with_islands", "certify_folds",
           "emulate_module", "find_fault", "fold_modules", "layer_ranges", "locate_fault", "range_plot", "read_plan",
           "solve_folds", "trace_modules", "write_folded"]  # fmt: skip

_HOMES = {
    "certify": ("Certificate", "certify_folds"),
    "emulate": ("Emulation", "emulate_module"),
    "finite": ("find_fault", "locate_fault"),
    "fold": ("fold_modules", "read_plan", "write_folded"),
    "islands": ("cast_with_islands",),
    "measured": ("Trace",),
    "precision": ("PrecisionPlan",),
    "ranges": ("layer_ranges", "range_plot"),
    "solve": ("FoldPlan", "solve_folds"),
    "trace": ("trace_modules",),
}

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
