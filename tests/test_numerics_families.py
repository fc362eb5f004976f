"""Model families, tiny, from their real classes, overflowing in one place (all families and places: benchmarks/)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import numerics_families as families

# The families that the numerics were built with, in their last place; one of each further kind, in its first.
FIRST = ("Z-Image transformer", "AutoencoderKL decoder", "AutoencoderKL encoder", "Qwen3 text encoder", "CLIP text encoder",
         "T5 text encoder", "SD UNet", "SDXL UNet", "Flux", "SD3", "Sana", "DC-AE decoder", "DC-AE encoder", "PixArt", "Lumina2",
         "Qwen-Image")  # fmt: skip
FURTHER = ("HiDream", "Flux 2", "ControlNet", "Wan", "LTX decoder", "Wan decoder", "Gemma 2", "Gemma 3 text", "T5Gemma", "Mistral",
           "Qwen3-MoE", "Qwen3-Next", "BERT", "DINOv2", "CLIP vision")  # fmt: skip


@pytest.mark.parametrize("name", [*FIRST, *FURTHER])
def test_a_family_folds_exactly_and_its_float16_is_nearer_than_bfloat16(name: str) -> None:
    family = families.FAMILIES[name]()
    place, modules = list(family.places.items())[-1 if name in FIRST else 0]
    module = families.build(family)
    families.amplify(module, modules, family, family.target.get(place, 3e6))
    row = families.compare(name, place, family, module)
    certificate = row.certificate
    assert not row.plain_float16 < 1, "plain float16 must break, or there is nothing to fold"
    assert certificate.folded_float32 == 0, "the folded model must be the same function, bit for bit"
    assert certificate.folded_float16 <= certificate.bfloat16 / 4
    assert certificate.folds + certificate.islands > 0
    assert name in FIRST or certificate.islands == 0


def test_thirty_families_stand_beside_the_first_sixteen() -> None:
    assert len(families.FAMILIES) >= 46
    assert {*FIRST, *FURTHER} <= families.FAMILIES.keys()
