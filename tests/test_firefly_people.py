"""People in Firefly's pictures: their size, their place, and the sameness of small and large pictures."""

from __future__ import annotations

import numpy as np
import pytest

from starrynight.firefly.drawing.brushes import BRUSHES
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.landscape import lay_out
from starrynight.firefly.drawing.scene import PEOPLE, Scene, compose


def _figure(scene: Scene, size: int) -> tuple[Canvas, np.ndarray]:
    """The canvas, and the area of all layers that show the person, bool [size, size]."""
    canvas = lay_out(scene, size, BRUSHES[scene.style][1])
    masks = [layer.mask > 127 for layer in canvas.layers if layer.role == "person"]
    assert masks, f"{scene.subjects} has no person"
    return canvas, np.any(masks, axis=0)


@pytest.mark.parametrize("name", PEOPLE)
def test_a_half_figure_fills_most_of_the_picture(name: str) -> None:
    for seed in range(4):
        _, area = _figure(compose(seed, style="oil", kind="portrait", subjects=(name,)), 128)
        assert area.any(1).mean() > 0.5
        assert 0.08 < area.mean() < 0.75


@pytest.mark.parametrize("name", PEOPLE)
def test_a_small_figure_is_seen_and_whole(name: str) -> None:
    for seed in range(4):
        _, area = _figure(compose(seed, style="ink", kind="meadow", weather="clear", subjects=(name,)), 128)
        assert 0.18 < area.any(1).mean() < 0.5
        assert 0.008 < area.mean() < 0.12
        assert not area[-1].any(), "the feet are below the picture"


@pytest.mark.parametrize("name", ["umbrella", "scholar", "monk", "couple"])
def test_who_walks_does_not_stand_in_the_water(name: str) -> None:
    for seed in range(6):
        canvas, area = _figure(compose(seed, style="oil", kind="river", subjects=(name,)), 128)
        row = int(np.flatnonzero(area.any(1))[-1]) - 2
        feet = int(np.flatnonzero(area[row]).mean())
        top = canvas.layers[canvas.region[min(row + 6, 127), feet] - 1].role
        assert top != "water"


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("kind", ["portrait", "river", "village"])
def test_a_figure_has_the_same_place_at_every_size(name: str, kind: str) -> None:
    scene = compose(5, style="monet", kind=kind, subjects=(name,))
    small, large = (np.argwhere(_figure(scene, size)[1]).mean(0) / size for size in (96, 192))
    assert np.abs(small - large).max() < 0.02
