"""What is asked of the files and parts of a loaded model: its stamps, its longest tokenizer, its parameters in float32."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from starrynight.models.adapter_merge import add_merges
from starrynight.models.catalogue import LocalModel
from starrynight.models.load import load, networks
from starrynight.numerics.precision import PrecisionPlan


def fitted(model: LocalModel) -> dict[str, dict[str, Any]]:
    """Component → what ``starry fit`` noted in its file."""
    return {
        name: file.fitted.to_dict() for name, files in model.files.items() for file in files if file.fitted
    }


def stamps(model: LocalModel) -> tuple[tuple[str, int, int], ...]:
    """Path, time of change and size of the files that a model was loaded from, those that are there."""
    weights = {Path(file.path) for files in model.files.values() for file in files}
    names = weights | set(model.parts.values()) | set(model.folder.glob("**/*.json"))
    found = []
    for path in sorted(names):
        with suppress(OSError):
            state = path.stat()
            found.append((str(path), state.st_mtime_ns, state.st_size))
    return tuple(found)


def longest_tokenizer(pipeline: Any) -> Any:
    """The tokenizer of the encoder that reads furthest: families with CLIP and T5 name T5's last. None without one."""
    found = (getattr(pipeline, name, None) for name in ("tokenizer_3", "tokenizer_2", "tokenizer"))
    return next((tokenizer for tokenizer in found if tokenizer is not None), None)


def float32_parameters(model: LocalModel, plan: PrecisionPlan, pipeline: Any) -> dict[str, torch.Tensor]:
    """Every parameter in the model's files, in float32, by component and name, with what LoRAs are merged into it."""
    exact = PrecisionPlan(
        tuple(replace(choice, format="float32", emulated=False, kept=False) for choice in plan)
    )
    found = {
        f"{name}.{key}": tensor
        for name, part in networks(load(model, exact)).items()
        for key, tensor in part.state_dict().items()
    }
    add_merges(pipeline, found)
    return found
