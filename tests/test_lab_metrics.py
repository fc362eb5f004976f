"""The lab's metrics and statistics against published values, other libraries, and pictures with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from starrynight.lab import metrics, stats

# G. Sharma, W. Wu, E. N. Dalal, "The CIEDE2000 color-difference formula", Color Res. Appl. 30 (2005), table 1.
SHARMA = """50 2.6772 -79.7751 50 0 -82.7485 2.0425
50 3.1571 -77.2803 50 0 -82.7485 2.8615
50 2.8361 -74.0200 50 0 -82.7485 3.4412
50 -1.3802 -84.2814 50 0 -82.7485 1.0000
50 -1.1848 -84.8006 50 0 -82.7485 1.0000
50 -0.9009 -85.5211 50 0 -82.7485 1.0000
50 0 0 50 -1 2 2.3669
50 -1 2 50 0 0 2.3669
50 2.4900 -0.0010 50 -2.4900 0.0009 7.1792
50 2.4900 -0.0010 50 -2.4900 0.0010 7.1792
50 2.4900 -0.0010 50 -2.4900 0.0011 7.2195
50 2.4900 -0.0010 50 -2.4900 0.0012 7.2195
50 -0.0010 2.4900 50 0.0009 -2.4900 4.8045
50 -0.0010 2.4900 50 0.0010 -2.4900 4.8045
50 -0.0010 2.4900 50 0.0011 -2.4900 4.7461
50 2.5 0 50 0 -2.5 4.3065
50 2.5 0 73 25 -18 27.1492
50 2.5 0 61 -5 29 22.8977
50 2.5 0 56 -27 -3 31.9030
50 2.5 0 58 24 15 19.4535
50 2.5 0 50 3.1736 0.5854 1.0000
50 2.5 0 50 3.2972 0 1.0000
50 2.5 0 50 1.8634 0.5757 1.0000
50 2.5 0 50 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082"""
PAIRS = np.array([[float(v) for v in line.split()] for line in SHARMA.splitlines()])


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    reference = draw.random((48, 64, 3))
    return reference, np.clip(reference + draw.normal(0, 0.02, reference.shape), 0, 1)


def test_colour_difference_matches_sharma_s_34_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """rgb2lab is replaced by the identity, so that the pairs' Lab values reach the formula of ``colour_difference``."""
    import skimage.color

    monkeypatch.setattr(skimage.color, "rgb2lab", lambda lab: lab)
    found = metrics.colour_difference(PAIRS[None, :, :3], PAIRS[None, :, 3:6])
    assert len(PAIRS) == 34
    np.testing.assert_allclose(found[0], PAIRS[:, 6], atol=5e-5)


def test_known_colours_in_cielab() -> None:
    """sRGB red, D65: L* 53.24, a* 80.09, b* 67.20 (Lindbloom). ΔE2000 of white and black is 100."""
    from skimage.color import rgb2lab

    np.testing.assert_allclose(rgb2lab(np.array([[[1.0, 0, 0]]]))[0, 0], [53.24, 80.09, 67.20], atol=0.02)
    assert metrics.colour_difference(np.ones((1, 1, 3)), np.zeros((1, 1, 3)))[0, 0] == pytest.approx(
        100, abs=0.01
    )


def test_equal_pictures_do_not_differ(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    same = pictures[0]
    assert metrics.colour_difference(same, same).max() == 0
    assert metrics.psnr(same, same) == math.inf
    assert metrics.ssim(same, same) == 1
    assert metrics.flip(same, same)[0] == 0
    assert metrics.texture(same, same) == {"decibels": -math.inf, "energy": 1.0}


def test_psnr_ssim_and_flip_match_their_libraries(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    import flip_evaluator
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    reference, other = pictures
    expected = peak_signal_noise_ratio(reference, other, data_range=1)
    assert metrics.psnr(reference, other) == pytest.approx(expected, rel=1e-9)
    expected = structural_similarity(reference, other, channel_axis=-1, data_range=1)
    assert metrics.ssim(reference, other) == pytest.approx(expected, rel=1e-9)
    error, mean, _ = flip_evaluator.evaluate(
        reference.astype(np.float32), other.astype(np.float32), "LDR", applyMagma=False
    )
    ours, where = metrics.flip(reference, other)
    assert ours == pytest.approx(mean, rel=1e-6)
    assert where.shape == (48, 64)
    np.testing.assert_allclose(where, error[..., 0])


def test_shadows_are_where_the_reference_is_dark() -> None:
    reference = np.full((10, 10, 3), 0.8)
    reference[:, :4] = 0.1  # L* 9; 0.8 is L* 82
    mask = metrics.shadows(reference)
    assert mask is not None
    assert mask.sum() == 40
    assert mask[:, :4].all()
    assert metrics.shadows(np.full((10, 10, 3), 0.8)) is None
    other = reference.copy()
    other[:, :4] += 0.01  # 40 dB there, and nowhere else
    assert metrics.psnr(reference, other, mask) == pytest.approx(40)
    assert metrics.psnr(reference, other) == pytest.approx(40 + 10 * math.log10(100 / 40))


def test_the_darkest_part_is_a_twentieth() -> None:
    ramp = np.linspace(0, 1, 400).reshape(20, 20)[..., None].repeat(3, 2)
    mask = metrics.darkest(ramp)
    assert mask.sum() == 20
    assert mask[0].all()


def test_bands_of_a_known_gradient() -> None:
    smooth = np.linspace(0, 255, 256).astype(np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    assert metrics.banding(smooth) == {"levels": 256, "flat": 1, "steps": 0}
    stepped = smooth // 32 * 32  # eight bands of 32 pixels, 32 levels apart: seven visible jumps
    assert metrics.banding(stepped) == {"levels": 8, "flat": 32, "steps": 7}
    faint = np.where(np.arange(256)[None, :, None] < 100, 128, 129).astype(np.uint8).repeat(8, 0).repeat(3, 2)
    assert metrics.banding(faint) == {
        "levels": 2,
        "flat": 156,
        "steps": 0,
    }  # one level of grey is not visible


def test_highlights_of_a_known_star() -> None:
    night = np.zeros((32, 32, 3))
    night[10:13, 10:13] = 1.0
    assert metrics.highlights(night) == {"core": pytest.approx(1, abs=1e-6), "over": pytest.approx(9 / 1024)}
    assert metrics.highlights(night * 0.9) == {"core": pytest.approx(0.9, abs=1e-6), "over": 0.0}


def test_texture_measures_fine_detail_only() -> None:
    draw = np.random.default_rng(1)
    fine = 0.5 + draw.normal(0, 0.1, (64, 64, 3))
    assert metrics.texture(fine, fine + 0.2)["decibels"] < -200  # a change of brightness is not texture
    smooth = metrics.texture(fine, np.full_like(fine, 0.5))
    assert smooth["decibels"] == pytest.approx(0, abs=1e-6)
    assert smooth["energy"] == pytest.approx(0, abs=1e-9)


def test_rates_with_their_intervals() -> None:
    none = stats.rate(0, 100)
    assert none.low == 0
    assert none.high == pytest.approx(0.0295, abs=5e-4)
    assert stats.rate(100, 100).low == pytest.approx(0.9705, abs=5e-4)
    seven = stats.rate(7, 100)  # Clopper–Pearson, as R's binom.test(7, 100)
    assert (seven.low, seven.high) == (pytest.approx(0.02860, abs=1e-4), pytest.approx(0.13891, abs=1e-4))
    assert not stats.rate(0, 0).sure


def test_the_number_of_tries_that_distinguishes_two_shares() -> None:
    """With no hits: the rule of three, n = ln 0.05 / ln (1 − claimed)."""
    for claimed in (0.07, 0.12, 0.01):
        exact = math.ceil(math.log(0.05) / math.log(1 - claimed))
        assert exact <= (stats.needed(0, claimed) or 0) <= 1.02 * exact
    assert (stats.needed(0, 0.07), stats.needed(0, 0.12)) == (42, 24)
    assert stats.needed(1, 0.07) == 2  # two of two: at least 22 %
    close = stats.needed(0.06, 0.07)
    assert close is not None
    assert 2000 < close < 4000  # (1.96 / 0.01)² · 0.06 · 0.94, about
    assert stats.needed(0.07, 0.07) is None


def test_medians_with_their_intervals() -> None:
    ten = stats.median(range(1, 11))  # order statistics 2 and 9 contain the median of ten with 97.9 %
    assert (ten.value, ten.low, ten.high) == (5.5, 2, 9)
    few = stats.median([3, 1, 2])
    assert (few.value, few.low, few.high, few.sure) == (2, 1, 3, False)
    gap = stats.paired([1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7])
    assert (gap.low, gap.high, gap.sure) == (1, 1, True)
    draw = np.random.default_rng(2)
    covered = sum(
        estimate.low <= 0 <= estimate.high
        for estimate in (stats.median(draw.normal(0, 1, 12)) for _ in range(2000))
    )
    assert covered / 2000 >= 0.95
