"""A whole diffusers folder whose denoiser is stored in the formats that were chosen, INT8 among them. This program reads it.

Only the denoiser's weights differ from the folder that it was made of. They lie in one .safetensors file: block types as bytes
whose meaning the header tells (``models.mixed``), INT8 as ComfyUI writes it (``weight``, ``weight_scale``, ``comfy_quant``), the
rest as plain numbers. The file has a name of its own, so that diffusers, which knows neither, refuses the folder and does not
read bytes as weights.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor, nn

from starrynight.errors import BadRequest, StorageError, Unfit
from starrynight.fitting.blocks import INT8, PLAIN, SCALE_BYTES, quantise
from starrynight.fitting.layout import DenoiserLayout
from starrynight.fitting.write import bytes_of, fixed_kind, stored_as
from starrynight.i18n import Text
from starrynight.models import gguf, mixed, quantisation, weights
from starrynight.models.catalogue import LocalModel
from starrynight.models.fitted import FILE, KEY
from starrynight.progress import OnProgress, ProgressCounter
from starrynight.storage import disk_state, make_folder, storing

DESCRIPTION = json.dumps({"format": "int8_tensorwise"}).encode()
# Bytes of the header for a tensor beside its name, which may stand there three times: dtype, shape and offsets; of its type.
RECORD, OPENING = 110, 2048
PARTIAL = ".partial"


class Piece(NamedTuple):
    """A parameter of the network: the rows ``ours`` of the tensor ``source`` of the layout are its rows ``theirs``."""

    name: str
    source: str
    kind: str
    shape: tuple[int, ...]
    theirs: Tensor
    ours: Tensor


def fixed_bytes(layout: DenoiserLayout) -> int:
    """Bytes of the weights' file that no choice changes, at most."""
    chosen = set(layout.layers)
    tensors = sum(bytes_of(s, stored_as(s)) for name, s in layout.shapes.items() if name not in chosen)
    names = [piece[0] for pieces in layout.rows.values() for piece in pieces]
    return tensors + OPENING + sum(3 * (RECORD + len(name.encode())) for name in names)


def check(model: LocalModel) -> None:
    """Raises Unfit for a model whose other components lie in no folder."""
    others = [name for name in model.parts if name not in ("transformer", "unet")]
    if others or not (model.folder / "model_index.json").is_file():
        raise Unfit(
            f"{model.spec.en} brings its {', '.join(others) or 'components'} in one file, and a folder is made of a folder; write "
            "the denoiser alone: --format gguf.",
            f"{model.spec.zh} 的 {'、'.join(others) or '部件'} 在单个文件中，而文件夹只能由文件夹生成；请只写出去噪网络：--format gguf。",
        )


def write(
    out: Path,
    model: LocalModel,
    component: str,
    network: nn.Module,
    layout: DenoiserLayout,
    formats: Mapping[str, str],
    about: Mapping[str, Any],
    moments: Mapping[str, Tensor] | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Write the pipeline to the new folder ``out``, whole or not at all; returns the weights' file.

    As ``fitting.write.write``. Raises Unfit where a parameter is made of several tensors, StorageError when the disk is too
    small.
    """
    check(model)
    if out.exists():
        raise BadRequest(f"“{out}” exists already; name a new folder.", f"“{out}”已存在；请换一个新文件夹名。")  # fmt: skip
    pieces = list(_pieces(network, layout, formats))
    copied = list(_copied(model, component))
    _check_space(out, sum(path.stat().st_size for path in copied) + sum(_size(piece) for piece in pieces))
    partial = out.with_name(out.name + PARTIAL)
    with storing(out):
        shutil.rmtree(partial, ignore_errors=True)
        for path in copied:
            place = partial / path.relative_to(model.folder)
            make_folder(place.parent)
            shutil.copyfile(path, place)
        with (partial / component / FILE).open("wb") as file:
            counter = ProgressCounter(on_progress, len(layout.shapes))
            _write_weights(file, network, layout, pieces, about, moments or {}, counter)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
    return out / component / FILE


def _copied(model: LocalModel, component: str) -> Iterator[Path]:
    """Files of the folder: the weights that the other components load, and everything that holds no weights."""
    used = {file.path for name, files in model.files.items() if name != component for file in files}
    containers = {".safetensors", *weights.PICKLED, gguf.SUFFIX, *quantisation.CONTAINERS}
    for path in sorted(model.folder.rglob("*")):
        inner = path.relative_to(model.folder)
        listed = inner.parts[0] == component and path.name.endswith(weights.INDEX)
        hidden = any(part.startswith(".") for part in inner.parts)
        if path.is_file() and not hidden and not listed and (path in used or path.suffix.lower() not in containers):  # fmt: skip
            yield path


def _check_space(out: Path, needed: int) -> None:
    there, free, _ = disk_state(out)
    if free < needed:
        raise StorageError(
            f"The folder takes {needed / 1e9:.1f} GB and {there} has {free / 1e9:.1f} GB free; name another place with -o.",
            f"该文件夹需要 {needed / 1e9:.1f} GB，而 {there} 只剩 {free / 1e9:.1f} GB；请用 -o 换个位置。",
        )


def _pieces(network: nn.Module, layout: DenoiserLayout, formats: Mapping[str, str]) -> Iterator[Piece]:
    """Every parameter, in the order of the layout's tensors."""
    state, met = network.state_dict(), set[str]()
    for source, rows in layout.rows.items():
        kind = formats.get(source) or fixed_kind(layout, network, source)
        for name, theirs, ours in rows:
            if name in met or len(theirs) != (state[name].shape[0] if state[name].dim() else 1):
                raise Unfit(
                    f"{name} is made of several tensors of the file, whose formats may differ; write a GGUF: --format gguf.",
                    f"{name} 由文件中的多个张量组成，其格式可能不同；请写出 GGUF：--format gguf。",
                )
            met.add(name)
            yield Piece(name, source, kind, tuple(state[name].shape), theirs, ours)


def _size(piece: Piece) -> int:
    return bytes_of(piece.shape, piece.kind) + (len(DESCRIPTION) if piece.kind == INT8 else 0)


def _entries(piece: Piece) -> Iterator[tuple[str, str, list[int], int]]:
    """What a parameter is stored as: name, safetensors' dtype, shape and bytes of each tensor."""
    shape, size = list(piece.shape), bytes_of(piece.shape, piece.kind)
    if piece.kind == INT8:
        stem = piece.name.removesuffix("weight")
        yield piece.name, "I8", shape, prod(shape)
        yield f"{stem}weight_scale", "F32", [shape[0], 1], SCALE_BYTES * shape[0]
        yield f"{stem}comfy_quant", "U8", [len(DESCRIPTION)], len(DESCRIPTION)
    elif piece.kind in PLAIN:
        yield piece.name, piece.kind, shape, size
    else:
        yield piece.name, "U8", [shape[0], size // shape[0]], size


def _write_weights(
    file: BinaryIO, network: nn.Module, layout: DenoiserLayout, pieces: list[Piece], about: Mapping[str, Any],
    moments: Mapping[str, Tensor], counter: ProgressCounter,
) -> None:  # fmt: skip
    """The header, then each tensor at its place. The widest numbers come first, so that all of them are aligned."""
    blocks = {p.name: [p.kind, list(p.shape)] for p in pieces if p.kind in mixed.BLOCKS}
    metadata = {"format": "pt", KEY: json.dumps(dict(about), ensure_ascii=False)}
    header: dict[str, Any] = {"__metadata__": metadata | ({mixed.KEY: json.dumps(blocks)} if blocks else {})}
    entries, at = [entry for piece in pieces for entry in _entries(piece)], 0
    for name, dtype, shape, size in sorted(entries, key=lambda entry: (entry[1] != "F32", entry[1] not in PLAIN)):  # fmt: skip
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    file.truncate(8 + len(text) + at)
    source, rows = "", torch.empty(0)
    for piece in pieces:
        if piece.source != source:
            source = piece.source
            rows = _encoded(layout.weight(network, source), piece.kind, moments.get(source))
            counter.advance(Text(f"writing {source}", f"写出 {source}"))
        own = torch.empty(len(piece.theirs), rows.shape[1], dtype=torch.uint8)
        own[piece.theirs] = rows[piece.ours]
        for name, data in _stored(piece, own):
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(data)


def _encoded(values: Tensor, kind: str, moments: Tensor | None) -> Tensor:
    """uint8 [rows, bytes of a row]; a number alone is one row."""
    table = values.reshape(values.shape[0] if values.dim() else 1, -1)
    return quantise(table, kind, None if moments is None else moments.to(values.device)).cpu()


def _stored(piece: Piece, rows: Tensor) -> Iterator[tuple[str, bytes]]:
    if piece.kind != INT8:
        yield piece.name, rows.numpy().tobytes()
        return
    stem = piece.name.removesuffix("weight")
    yield piece.name, rows[:, SCALE_BYTES:].numpy().tobytes()
    yield f"{stem}weight_scale", rows[:, :SCALE_BYTES].numpy().tobytes()
    yield f"{stem}comfy_quant", DESCRIPTION
