"""Animals in Firefly's pictures: as many as the scene says, within the frame, apart from what is behind them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from starrynight.firefly.drawing.brushes import BRUSHES
from starrynight.firefly.drawing.canvas import Canvas, CanvasLayer
from starrynight.firefly.drawing.landscape import lay_out
from starrynight.firefly.drawing.scene import ANIMALS, COUNTED, Scene, compose

SIZE = 128
BEASTS = tuple(name for name in COUNTED if name not in ("crane", "fish"))
ROLES = ("animal", "bird", "butterfly", "fish")


def animals(scene: Scene) -> tuple[Canvas, list[CanvasLayer]]:
    """The canvas of a scene, and the layers its animals are on."""
    canvas = lay_out(scene, SIZE, BRUSHES[scene.style][1])
    return canvas, [layer for layer in canvas.layers if layer.role in ROLES]


@pytest.mark.parametrize("name", ANIMALS)
@pytest.mark.parametrize("close", [False, True])
def test_an_animal_is_large_enough_and_differs_from_what_is_behind_it(name: str, close: bool) -> None:
    for seed, style in enumerate(("oil", "ink", "cyberpunk")):
        scene = replace(compose(seed, style=style, subjects=(name,)), close=close, count=1)
        scene = replace(
            scene, subjects=tuple(s for s in scene.subjects if s not in ("boat", "lighthouse", "island"))
        )
        _, found = animals(scene)
        bare = lay_out(
            replace(scene, subjects=tuple(s for s in scene.subjects if s != name)), SIZE, BRUSHES[style][1]
        )
        assert found, (style, name)
        area = np.maximum.reduce([layer.mask for layer in found]) > 127
        share = area.mean()
        assert share > (0.06 if close else 0.006), (style, name, share)
        change = np.abs(found[-1].colour[area].astype(float) - bare.colour[area]).mean()
        assert change > 22, (style, name, change)


@pytest.mark.parametrize("name", BEASTS)
@pytest.mark.parametrize("count", [2, 3])
def test_as_many_animals_as_the_scene_says_stand_apart_within_the_frame(name: str, count: int) -> None:
    for seed in range(2):
        scene = replace(compose(seed, kind="creature", subjects=(name,)), count=count)
        _, found = animals(scene)
        mask = (found[-1].mask > 127).astype(np.uint8)
        parts, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        # An animal in mid-leap is apart from its own shadow, which is flat.
        large = [k for k in range(1, parts) if stats[k, cv2.CC_STAT_HEIGHT] > 0.1 * SIZE]
        assert len(large) == count, (seed, name)
        assert not mask[:, [0, -1]].any(), (seed, name)
