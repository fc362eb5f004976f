"""The model families of ``numerics_families.py``: tiny, from their real classes, with the places that are amplified."""

from __future__ import annotations

from collections.abc import Callable

from families import autoencoders, denoisers, encoders, more_denoisers, video
from families.common import Family

FAMILIES: dict[str, Callable[[], Family]] = {
    **denoisers.FAMILIES,
    **more_denoisers.FAMILIES,
    **video.FAMILIES,
    **autoencoders.FAMILIES,
    **encoders.FAMILIES,
}
