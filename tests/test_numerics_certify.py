"""When a certificate holds, and PSNR's special cases."""

from __future__ import annotations

import math

import pytest

from starrynight.folding.cache import Folds
from starrynight.numerics.certify import Certificate, decibels, psnr
from starrynight.numerics.precision import UNCHANGED, fold_holds
from starrynight.numerics.solve import FoldPlan


@pytest.mark.parametrize(
    ("float32", "float16", "bfloat16", "expected"),
    [
        (0.0, 1e-3, 8e-3, True),
        (UNCHANGED, 1e-3, 8e-3, True),
        (2 * UNCHANGED, 1e-3, 8e-3, False),  # another function
        (0.0, 8e-3, 1e-3, False),  # bfloat16 is nearer
        (0.0, 1e-3, 1e-3, False),  # no nearer than bfloat16
        (0.0, math.nan, 8e-3, False),  # float16 is not finite
        (math.nan, 1e-3, 8e-3, False),
        (0.0, 1e-3, math.nan, False),  # nothing to compare with
        (None, None, None, False),  # float32 did not fit in memory
        (None, 1e-3, 8e-3, False),
    ],
)
def test_a_certificate_holds_only_with_float32_unchanged_and_float16_nearest(
    float32: float | None, float16: float | None, bfloat16: float | None, expected: bool
) -> None:
    assert fold_holds(float32, float16, bfloat16) is expected
    if None not in (float32, float16, bfloat16):
        certificate = Certificate(1, float32, float16, bfloat16, 0, 0, 0)  # type: ignore[arg-type]
        assert certificate.holds is expected
        assert certificate.to_dict()["holds"] is expected


@pytest.mark.parametrize(
    ("measured", "exact"),
    [({"error": 0.0}, True), ({"error": 2 * UNCHANGED}, False), ({"error": None}, False), (None, True)],
)
def test_folds_that_change_the_function_are_not_used(measured: dict[str, float] | None, exact: bool) -> None:
    certificate = {"finite": True} | ({"float32-folded": measured} if measured else {})
    assert Folds(FoldPlan(), (), certificate).usable("transformer") is exact


def test_psnr_follows_its_definition_at_any_peak() -> None:
    assert psnr(0.01) == pytest.approx(20.0)
    assert psnr(1.0, peak=255) == pytest.approx(48.1308, abs=1e-4)
    assert psnr(0.0) == math.inf
    assert psnr(math.nan) is None
    assert psnr(math.inf) is None


def test_decibels_fit_into_json() -> None:
    assert decibels(0.1) == -20.0
    assert decibels(0.0) == -999.0
    assert decibels(math.nan) is None
