"""Fold tiny models of many families (``families/``), from their real classes, and compare the formats.

    python benchmarks/numerics_families.py [FAMILY …] [--plain] [--json FILE]

Each model is amplified in several places, one at a time: a projection is multiplied until float16 overflows
there. The places are the residual stream, the feed-forward's output, the attention's output and values, the
gated product. Unfolded float16 must then give NaN or Inf. Folded float16 must be finite and at most a quarter
of bfloat16's error away from float32, on inputs outside the calibration. The solver is the same for every
family.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from families import FAMILIES
from families.common import Family
from torch import nn

from starrynight.folding.export import checkpoint_constraints
from starrynight.numerics.certify import Certificate, certify_folds, float16_outputs, outputs, relative_error
from starrynight.numerics.solve import FoldPlan, solve_folds
from starrynight.numerics.trace import trace_modules

# -- the measurement -----------------------------------------------------------------------------------------------

CALIBRATION, HELD_OUT = (0, 10, 20), (31, 42, 53, 64)


@dataclass
class Row:
    """Unfolded float16's error, the plan's certificate, and the seconds that trace and solve took."""

    family: str
    place: str
    plain_float16: float
    certificate: Certificate
    seconds: float

    @property
    def passed(self) -> bool:
        """Unfolded float16 fails; folded, it is finite and at least four times nearer to float32 than bfloat16."""
        failed, c = not self.plain_float16 < 1, self.certificate
        return failed and c.holds and c.folded_float16 <= c.bfloat16 / 4

    def line(self) -> str:
        c = self.certificate
        return (f"{self.family:22} {self.place:16} {c.bfloat16:8.1e} {self.plain_float16:8.1e} {c.folded_float32:8.1e} "
                f"{c.folded_float16:8.1e} {c.folds:5} {c.epsilons:3} {c.islands:7} {self.seconds:7.1f} "
                f"{'' if self.passed else '✗'}")  # fmt: skip


def build(family: Family) -> nn.Module:
    """The module in float32 with random weights that bfloat16 represents exactly, like a bfloat16 checkpoint."""
    torch.manual_seed(0)
    module = family.build().eval()
    for parameter in module.parameters():
        if not parameter.any():  # gates that training starts at zero would hide the layers behind them
            nn.init.normal_(parameter, std=0.1)
        parameter.data = parameter.data.bfloat16().float()
    return module


def amplify(module: nn.Module, names: tuple[str, ...], family: Family, target: float) -> None:
    """Multiply the named projections by the power of two that brings their outputs to about ``target``."""
    peaks: dict[str, float] = {}
    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda _m, _a, out, name=name: peaks.__setitem__(name, out.abs().max().item())
        )
        for name in names
    ]
    with torch.no_grad():
        family.exercise(module, CALIBRATION[0])
    for handle in handles:
        handle.remove()
    for name in names:
        factor = 2.0 ** round(torch.tensor(target / peaks[name]).log2().item())
        for parameter in module.get_submodule(name).parameters():
            parameter.data *= factor


def plan_for(module: nn.Module, family: Family, plain: bool = False) -> FoldPlan:
    """Trace in bfloat16 over the calibration inputs and solve."""
    half = copy.deepcopy(module).bfloat16()
    found = trace_modules(half, lambda: [family.exercise(half, seed) for seed in CALIBRATION])
    return solve_folds(found, constraints=checkpoint_constraints({"": module}) if plain else None)


def compare(name: str, place: str, family: Family, module: nn.Module, plain: bool = False) -> Row:
    start = time.perf_counter()
    plan = plan_for(module, family, plain)
    seconds = time.perf_counter() - start
    certificate = certify_folds(module, plan, family.exercise, HELD_OUT)
    reference = outputs(module, family.exercise, HELD_OUT)
    plain = float16_outputs(copy.deepcopy(module), family.exercise, HELD_OUT)
    return Row(name, place, relative_error(plain, reference), certificate, seconds)


def measure_family(name: str, plain: bool = False) -> list[Row]:
    family = FAMILIES[name]()
    rows = []
    for place, names in family.places.items():
        module = build(family)
        amplify(module, names, family, family.target.get(place, 3e6))
        rows.append(compare(name, place, family, module, plain))
    return rows


def table(rows: list[Row]) -> str:
    """A Markdown row for each family: largest errors over its places; fewest and most folds, epsilons, islands."""
    lines = [
        "| family | amplified in | bfloat16 | folded float16 | nearer, at least | folds | epsilons | islands |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.family for row in rows):
        own = [row for row in rows if row.family == name]
        found = [row.certificate for row in own]
        spans = (sorted({getattr(c, f) for c in found}) for f in ("folds", "epsilons", "islands"))
        folds, epsilons, islands = (f"{s[0]}–{s[-1]}" if len(s) > 1 else str(s[0]) for s in spans)
        nearer = min(c.bfloat16 / c.folded_float16 for c in found)
        lines.append(
            f"| {name} | {', '.join(row.place for row in own)} | {max(c.bfloat16 for c in found):.1e} "
            f"| {max(c.folded_float16 for c in found):.1e} | {nearer:.1f} × | {folds} | {epsilons} | {islands} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--plain", action="store_true", help="only folds that a standard checkpoint can store"
    )
    options = parser.parse_args()
    rows = []
    print(
        f"{'family':22} {'amplified':16} {'bf16':>8} {'fp16':>8} {'fold32':>8} {'fold16':>8} folds eps islands seconds"
    )
    for name in options.families:
        for row in measure_family(name, plain=options.plain):
            rows.append(row)
            print(row.line(), flush=True)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
