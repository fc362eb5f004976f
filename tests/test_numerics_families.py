"""Every image-model family, tiny, from its real class, overflowing in one place (all places: benchmarks/)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import numerics_families as families


@pytest.mark.parametrize("name", list(families.FAMILIES))
def test_a_family_folds_exactly_and_its_float16_is_nearer_than_bfloat16(name: str) -> None:
    family = families.FAMILIES[name]()
    place, modules = list(family.places.items())[-1]
    module = families.build(family)
    families.amplify(module, modules, family, family.target.get(place, 3e6))
    row = families.compare(name, place, family, module)
    certificate = row.certificate
    assert not row.plain_float16 < 1, "plain float16 must break, or there is nothing to fold"
    assert certificate.folded_float32 == 0, "the folded model must be the same function, bit for bit"
    assert certificate.folded_float16 <= certificate.bfloat16 / 4
    assert certificate.folds + certificate.islands > 0
