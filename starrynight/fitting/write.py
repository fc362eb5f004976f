"""A denoiser as one GGUF file, in the formats that were chosen for its layers.

``general.architecture`` and the names are those that ComfyUI-GGUF, stable-diffusion.cpp and diffusers' GGUF loader look for.
``starry.fit`` holds JSON about the choice, which other programs pass over (``models.fitted`` reads it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from starrynight.errors import BadRequest
from starrynight.fitting.blocks import INT8, PLAIN, SCALE_BYTES, quantise
from starrynight.fitting.formats import FLOAT8
from starrynight.fitting.layout import SMALL, DenoiserLayout
from starrynight.i18n import Text
from starrynight.models import gguf
from starrynight.models.fitted import KEY
from starrynight.progress import OnProgress, ProgressCounter
from starrynight.storage import open_atomic, storing

# Bytes of a header beside its tensors' names: the keys, and each tensor's dimensions, type and offset.
RECORD, OPENING = 48, 2048
DIMENSIONS = 4  # that ggml knows; a tensor with more is stored in two, with ComfyUI-GGUF's note of its shape


def stored_as(shape: tuple[int, ...]) -> str:
    """The type of a tensor whose format is not chosen: float32 for vectors and small ones, else float16."""
    return "F32" if len(shape) < 2 or prod(shape) <= SMALL else "F16"


def bytes_of(shape: tuple[int, ...], kind: str) -> int:
    """Bytes of a tensor in a type of GGUF, in INT8 or in float8. Its rows must fill the type's blocks."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if kind == FLOAT8:
        return prod(shape)
    if kind == INT8:
        return prod(shape) + SCALE_BYTES * shape[0]
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return prod(shape) // block * size


def fixed_bytes(layout: DenoiserLayout) -> int:
    """Bytes of the file that no choice changes: its header, and the tensors that are stored as they are."""
    chosen = set(layout.layers)
    tensors = sum(
        bytes_of(shape, stored_as(shape)) for name, shape in layout.shapes.items() if name not in chosen
    )
    header = OPENING + sum(RECORD + len(name.encode()) + 32 for name in layout.shapes)  # 32: alignment
    return tensors + header


def write(
    path: Path,
    network: nn.Module,
    layout: DenoiserLayout,
    formats: Mapping[str, str],
    about: Mapping[str, Any],
    moments: Mapping[str, Tensor] | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Write the network to ``path``, whole or not at all. ``formats``: layer → type. ``about``: for ``starry.fit``.

    ``moments``: layer → second moments of its inputs (``blocks.quantise``). Raises BadRequest when ``path`` exists,
    StorageError when it cannot be written.
    """
    import gguf as package

    if path.exists():
        raise BadRequest(f"“{path}” exists already; name a new file.", f"“{path}”已存在；请换一个新文件名。")
    counter = ProgressCounter(on_progress, len(layout.shapes))
    kinds = {name: formats.get(name) or fixed_kind(layout, network, name) for name in layout.shapes}
    with storing(path), open_atomic(path, overwrite=False) as part:
        writer = package.GGUFWriter(Path(part.file.name), layout.architecture)
        writer.add_quantization_version(package.GGML_QUANT_VERSION)
        writer.add_string(KEY, json.dumps(dict(about), ensure_ascii=False))
        for name, shape in layout.shapes.items():
            if len(shape) > DIMENSIONS:
                writer.add_array(gguf.ORIGINAL_SHAPE + name, list(shape))
            kind = package.GGMLQuantizationType[kinds[name]]
            size = bytes_of(shape, kinds[name])
            writer.add_tensor_info(name, _dimensions(shape), np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in layout.shapes:
            weights = layout.weight(network, name)
            data = _encoded(weights, kinds[name], (moments or {}).get(name))
            writer.write_tensor_data(data.cpu().numpy())
            counter.advance(Text(f"writing {name}", f"写出 {name}"))
        writer.close()


def fixed_kind(layout: DenoiserLayout, network: nn.Module, name: str) -> str:
    """As ``stored_as``, but numbers beyond float16 keep float32's range."""
    kind = stored_as(layout.shapes[name])
    beyond = (
        kind == "F16" and float(layout.weight(network, name).abs().max()) > torch.finfo(torch.float16).max
    )
    return "F32" if beyond else kind


def _dimensions(shape: tuple[int, ...]) -> tuple[int, ...]:
    """ggml has no scalars, and no more than four dimensions."""
    return (shape[0], prod(shape[1:])) if len(shape) > DIMENSIONS else shape or (1,)


def _encoded(weights: Tensor, kind: str, moments: Tensor | None) -> Tensor:
    if kind in PLAIN:
        return weights.to(PLAIN[kind]).contiguous().reshape(-1).view(torch.uint8)
    return quantise(weights, kind, None if moments is None else moments.to(weights.device))
