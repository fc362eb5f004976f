"""Which row of a single file's tensor becomes which row in diffusers' layout, so that folds can be mapped back.

Row numbers are sent through diffusers' own converter, which splits fused projections and swaps halves, and read where
they come out. The converter may change without notice; no copy of its mapping is kept here. No weights are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from starrynight.models.catalogue import LocalModel
from starrynight.models.convert import numbered, switches
from starrynight.models.weights import header, read_json
from starrynight.numerics.solve import FoldPlan


def parts(model: LocalModel) -> dict[str, tuple[str, dict[str, Any]]]:
    """Component → (class, configuration) of what a single file holds and the converter maps; it maps no text encoder."""
    names = ("transformer",) if model.lone_transformer else ("unet", "vae")
    index = read_json(model.folder / "model_index.json")
    stored = header(model.path)
    return {
        name: (
            kind := index[name][1],
            read_json(model.folder / name / "config.json") | switches(kind, stored),
        )
        for name in names
    }


def powers(model: LocalModel, plan: FoldPlan) -> dict[str, Tensor]:
    """The power of two of every row of every tensor in the model's file that the converter maps; others are left out."""
    shapes = {n: e["shape"] for n, e in header(model.path).items() if n != "__metadata__"}
    rows: dict[str, Tensor] = {}
    for component, (kind, config) in parts(model).items():
        rows |= {f"{component}.{n}": r for n, r in convert(kind, config, numbered(shapes)).items()}
    return back(shapes, rows, plan)


def convert(kind: str, config: dict[str, Any], rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The row numbers as diffusers' converter for class ``kind`` arranges them; unchanged if it would convert nothing."""
    import diffusers
    from diffusers.loaders.single_file_model import (
        SINGLE_FILE_LOADABLE_CLASSES,
        _should_convert_state_dict_to_diffusers,
    )

    with torch.device("meta"):
        cls: Any = getattr(diffusers, kind)
        names = cls.from_config(config).state_dict()
    if not _should_convert_state_dict_to_diffusers(names, rows):
        return rows
    return SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"](checkpoint=dict(rows), config=config)


def back(
    shapes: Mapping[str, list[int]], converted: Mapping[str, Tensor], plan: FoldPlan
) -> dict[str, Tensor]:
    """The power of every row, by the file's own names; tensors of which no row was converted are left out."""
    total = sum(shape[0] if shape else 1 for shape in shapes.values())
    powers, reached = torch.zeros(total, dtype=torch.int32), torch.zeros(total, dtype=torch.bool)
    for name, numbers in converted.items():
        powers[numbers.reshape(-1)] = plan.parameters.get(name, 0)
        reached[numbers.reshape(-1)] = True
    found, first = {}, 0
    for name, shape in shapes.items():
        rows = slice(first, first + (shape[0] if shape else 1))
        if bool(reached[rows].any()):
            found[name] = powers[rows]
        first = rows.stop
    return found
