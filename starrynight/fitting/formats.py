"""Which types a layer may be stored in, and the assignments that a fit is compared with.

The types of GGUF are those that ComfyUI-GGUF, stable-diffusion.cpp and diffusers all read. The K types need rows of a multiple
of 256, the others of 32; a layer of other rows stays in 16 bits. A folder of our own may also hold INT8, whose rows may have any
length and for which GGUF's readers have no type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from starrynight.fitting.blocks import INT8, TYPES
from starrynight.models.fitted import GGUF

# From the most bits to the fewest.
QUANTISED = ("Q8_0", "Q6_K", "Q5_1", "Q5_K", "Q5_0", "Q4_1", "Q4_K", "IQ4_NL", "Q4_0", "Q3_K")
# What llama.cpp's quantiser takes where rows are no multiple of 256 (``llama-quant.cpp``).
INSTEAD = {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0", "Q3_K": "IQ4_NL"}
# The types that whole files are published in.
UNIFORM = ("F8_E4M3", INT8, "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0")
# Those that the ``gguf`` package writes, with the scale of a block's largest number.
LARGEST_ALONE = frozenset(("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"))
# No type of GGUF: 8-bit floating point with one scale a tensor, as fp8 files of ComfyUI store it. For comparison only.
FLOAT8 = "F8_E4M3"
# The rule of published hand-made mixtures: what sets the scene keeps eight bits, the rest gets four.
KEPT_BY_HAND = re.compile(
    r"embed|final|modulation|_mod\.|norm_out|refiner|time_|_in\.|img_in|txt_in|proj_out$"
)
HAND = "hand rule"

Shapes = Mapping[str, Sequence[int]]
Plain = Mapping[str, str]  # layer → its type of 16 bits


def fills(kind: str, shape: Sequence[int]) -> bool:
    """Whether rows of this shape fill the blocks of a type."""
    return kind not in TYPES or shape[-1] % TYPES[kind][0] == 0


def quantised(container: str) -> tuple[str, ...]:
    """The types below 16 bits that a container holds."""
    return QUANTISED if container == GGUF else (QUANTISED[0], INT8, *QUANTISED[1:])


def candidates(shape: Sequence[int], plain: str = "BF16", container: str = GGUF) -> tuple[str, ...]:
    """The types for a layer, from the most bits to the fewest; the first is 16 bits."""
    return (plain, *(kind for kind in quantised(container) if fills(kind, shape)))


def probes(shape: Sequence[int]) -> tuple[str, ...]:
    """The types in which a layer is measured: the coarsest, and one of five bits. Where its rows fill no blocks, INT8 alone."""
    kinds = candidates(shape)[1:]
    middle = next((kind for kind in ("Q5_K", "Q5_0") if kind in kinds), None)
    return (kinds[-1], middle) if middle else (INT8,)


def uniform(shapes: Shapes, kind: str, plain: Plain) -> dict[str, str]:
    """Every layer in one type, or in what llama.cpp takes instead where its rows do not fill the blocks."""
    return {name: next((k for k in (kind, INSTEAD.get(kind, kind)) if fills(k, shape)), plain[name]) for name, shape in shapes.items()}  # fmt: skip


def by_hand(shapes: Shapes, plain: Plain) -> dict[str, str]:
    """Embedders, final layer, modulation and refiners in Q8_0, the rest in Q4_0."""
    eight, four = uniform(shapes, "Q8_0", plain), uniform(shapes, "Q4_0", plain)
    return {name: (eight if KEPT_BY_HAND.search(name) else four)[name] for name in shapes}


def references(shapes: Shapes, plain: Plain) -> dict[str, dict[str, str]]:
    """The uniform assignments that differ from each other, and the hand rule, by name."""
    found: dict[str, dict[str, str]] = {}
    for name, formats in [*((kind, uniform(shapes, kind, plain)) for kind in UNIFORM), (HAND, by_hand(shapes, plain))]:  # fmt: skip
        if formats not in found.values():
            found[name] = formats
    return found
