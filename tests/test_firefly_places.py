"""Landmarks, streets and what travels: each stands out from what is behind it, and is drawn alike each time."""

from dataclasses import replace

import numpy as np
import pytest

from starrynight.firefly.drawing.brushes import BRUSHES
from starrynight.firefly.drawing.landscape import lay_out, render
from starrynight.firefly.drawing.places import PARTS
from starrynight.firefly.drawing.scene import HOURS, STYLES, compose

PLACES = sorted({name for _, name, _ in PARTS})


@pytest.mark.parametrize("name", PLACES)
def test_a_place_stands_out_from_what_is_behind_it(name: str) -> None:
    for seed, style in enumerate(STYLES):
        scene = compose(seed, style=style, hour=HOURS[seed % 4], weather="clear", subjects=(name,))
        bare = replace(scene, subjects=tuple(other for other in scene.subjects if other != name))
        canvas = lay_out(bare, 96, BRUSHES[style][1])
        behind = canvas.colour.astype(int)
        for _, part, paint in PARTS:
            if part == name:
                paint(canvas, scene, np.random.default_rng(seed))
        step = np.abs(canvas.colour - behind).max(-1)
        assert (step > 40).mean() > 0.015, (style, scene.hour)


@pytest.mark.parametrize("name", PLACES)
def test_a_place_is_drawn_alike_each_time(name: str) -> None:
    scene = compose(7, subjects=(name,))
    assert np.array_equal(render(scene, 64), render(scene, 64))
