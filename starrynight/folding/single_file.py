"""Where each weight of a single file went when it was laid out as diffusers has it, so that a fold finds its way back.

Sends row numbers through diffusers' own converter and reads where they come out: fused projections are split and halves
swapped there, by code that is not ours and may change. Knows the converter's door; holds no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from starrynight.models.catalogue import LocalModel
from starrynight.models.weights import header, read_json
from starrynight.numerics.solve import FoldPlan


def parts(model: LocalModel) -> dict[str, tuple[str, dict[str, Any]]]:
    """Component → (class, configuration) of what a single file holds and the converter maps; it maps no text encoder."""
    names = ("transformer",) if model.lone_transformer else ("unet", "vae")
    index = read_json(model.folder / "model_index.json")
    return {name: (index[name][1], read_json(model.folder / name / "config.json")) for name in names}


def powers(model: LocalModel, plan: FoldPlan) -> dict[str, Tensor]:
    """The power of each row of each tensor in the model's file that the converter maps; of others nothing is known."""
    shapes = {n: e["shape"] for n, e in header(model.path).items() if n != "__metadata__"}
    rows: dict[str, Tensor] = {}
    for component, (kind, config) in parts(model).items():
        rows |= {f"{component}.{n}": r for n, r in convert(kind, config, numbered(shapes)).items()}
    return back(shapes, rows, plan)


def numbered(shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """For each tensor its rows' numbers, unique over the file; other dimensions shrunk to one."""
    rows, first = {}, 0
    for name, shape in shapes.items():
        count = shape[0] if shape else 1
        rows[name] = torch.arange(first, first + count).reshape(
            [count] + [1] * (len(shape) - 1) if shape else []
        )
        first += count
    return rows


def convert(kind: str, config: dict[str, Any], rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The numbers as diffusers' converter for ``kind`` lays them out; as they are where it would convert nothing."""
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
    """The power of every row, by the file's own names; without the tensors of which no row was converted."""
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
