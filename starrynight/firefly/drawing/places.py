"""Place what people built on the canvas: lighthouse, castle, windmill, temple, street, harbour and more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.scene import Scene

Rng = np.random.Generator

# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Callable[[Canvas, Scene, Rng], None]], ...] = ()
