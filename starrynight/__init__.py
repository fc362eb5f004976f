"""Starry Night 璀璨星河: an AI gallery that never hands you a broken picture, and shows what every number format costs.

Importing the package is cheap: torch and diffusers are imported when a picture is painted. What is listed in ``__all__``
is the public Python interface (docs/python.md); ``starrynight.numerics`` is the interface to range folding by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starrynight.errors import BrokenNumbers, StarryError
    from starrynight.metadata import read_recipe
    from starrynight.painting.results import Refused, Step
    from starrynight.picture import Picture
    from starrynight.request import PaintRequest
    from starrynight.studio import SavedPicture, Studio, make_request, paint

__version__ = "0.1.0"

__all__ = [
    "BrokenNumbers",
    "PaintRequest",
    "Picture",
    "Refused",
    "SavedPicture",
    "StarryError",
    "Step",
    "Studio",
    "make_request",
    "paint",
    "read_recipe",
]

_HOMES = {
    "errors": ("BrokenNumbers", "StarryError"),
    "metadata": ("read_recipe",),
    "painting.results": ("Refused", "Step"),
    "picture": ("Picture",),
    "request": ("PaintRequest",),
    "studio": ("SavedPicture", "Studio", "make_request", "paint"),
}


def lazy_exports(
    package: str, homes: dict[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__`` (PEP 562): each name is imported from its module on first use.

    ``homes``: module below ``package`` → the names it defines.
    """
    module_of = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return get, lambda: sorted({*vars(sys.modules[package]), *module_of})


__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
