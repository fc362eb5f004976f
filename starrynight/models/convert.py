"""From the names and shapes of a single file to those of a network: which stored tensor fills which parameter.

Two ways, and the one that fills more parameters is taken: the network's own names under any prefix (diffusers' and
transformers' layouts, ComfyUI's text encoders), or diffusers' converter of the class (the makers' layouts). Row numbers
sent through the same way tell which stored tensors a parameter was made of. No copy of a converter's mapping is kept. The
row numbers also tell which rows of a packed weight (``kept``) a parameter is: such a weight is never multiplied out here.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.models.kept import PackedWeight, can_keep, keep
from starrynight.models.single_file import COMFY_PREFIX

# Prefixes of OpenCLIP's layout, whose converter needs to be told: SDXL's second encoder, SDXL's refiner, SD 2.
OPEN_CLIP = ("conditioner.embedders.1.model.", "conditioner.embedders.0.model.", "cond_stage_model.model.")

# Models of one layout that differ in a switch of their configuration, told by the tensors of a file: class → switch →
# beginnings of the names of the parameters that it adds. FLUX.1 dev embeds the guidance, schnell does not.
SWITCHES: dict[str, dict[str, tuple[str, ...]]] = {
    "FluxTransformer2DModel": {"guidance_embeds": ("guidance_in.", "time_text_embed.guidance_embedder.")}
}


@dataclass(frozen=True)
class Converted:
    """``state``: the network's own names → tensors. ``sources``: names of the stored tensors that they were made of.
    ``missing``: parameters and persistent buffers that nothing fills. ``misfits``: those whose shape differs, or that are
    whole numbers in place of floats. ``packed``: the network's names → weights that its layers keep packed.
    """

    state: dict[str, Tensor]
    sources: frozenset[str]
    missing: tuple[str, ...]
    misfits: tuple[str, ...]
    packed: dict[str, PackedWeight] = field(default_factory=dict)


def switches(kind: str, names: Iterable[str]) -> dict[str, bool]:
    """The entries of a class's configuration that tensor names decide."""
    bare = [name.removeprefix(COMFY_PREFIX) for name in names]
    return {
        switch: any(name.startswith(beginnings) for name in bare)
        for switch, beginnings in SWITCHES.get(kind, {}).items()
    }


def empty(kind: Any, folder: Path, names: Iterable[str] = ()) -> nn.Module:
    """A network of a diffusers or transformers class on the meta device, after the config.json in ``folder`` and the
    ``names`` of the tensors that are to fill it.
    """
    from accelerate import init_empty_weights

    with init_empty_weights():
        if hasattr(kind, "load_config"):
            config = kind.load_config(folder, local_files_only=True)
            return kind.from_config({**config, **switches(kind.__name__, names)})
        return kind(kind.config_class.from_pretrained(folder, local_files_only=True))


def convert(
    network: nn.Module,
    stored: Mapping[str, Tensor],
    packed: Mapping[str, PackedWeight] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Converted:
    """``stored`` and ``packed`` in the layout of ``network``; parameters that nothing fills are ``missing``. A packed weight
    that no layer can keep, because it is of another class or made of several tensors, is multiplied out to ``dtype``.
    """
    expected, packed = network.state_dict(), packed or {}
    shapes = {name: tensor.to("meta") for name, tensor in stored.items()}
    shapes |= {name: torch.empty(one.shape, device="meta") for name, one in packed.items()}
    best = _best_way(network, shapes)
    if best is None:
        return Converted({}, frozenset(), tuple(expected), ())
    rows = best(numbered({name: list(tensor.shape) for name, tensor in shapes.items()}))
    rows = {name: numbers for name, numbers in rows.items() if name in expected}
    columns = best({name: _columns(tensor.shape) for name, tensor in shapes.items()}) if packed else {}
    kept, others = _kept(network, expected, rows, columns, shapes, packed)
    wide = {
        name: packed[name].numbers(dtype) if name in others else _columns(packed[name].shape)
        for name in packed
    }
    state = {n: tensor for n, tensor in best({**stored, **wide}).items() if n in expected and n not in kept}
    found = state.keys() | kept.keys()
    return Converted(
        state,
        _sources(shapes, rows.values()),
        tuple(name for name in expected if name not in found and not _is_tied(network, name, found)),
        tuple(name for name, tensor in state.items() if not _fits(tensor, expected[name])),
        kept,
    )


def rows_of(network: nn.Module, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's names → the numbers of the rows of ``stored``, counted over all its tensors in order, that fill each;
    empty where nothing of ``stored`` (tensors, perhaps on the meta device) fits the network.
    """
    best = _best_way(network, stored)
    if best is None:
        return {}
    numbers = best(numbered({name: list(tensor.shape) for name, tensor in stored.items()}))
    return {name: rows for name, rows in numbers.items() if name in network.state_dict()}


def _best_way(network: nn.Module, stored: Mapping[str, Tensor]) -> Any | None:
    """The way of ``_ways`` that fills most parameters; None if none fills any."""
    expected = network.state_dict()
    shapes = {name: tensor.to("meta") for name, tensor in stored.items()}
    best, most = None, 0
    for way in _ways(network, expected, shapes):
        state = way(shapes)
        fits = sum(name in state and state[name].shape == tensor.shape for name, tensor in expected.items())
        if fits > most:
            best, most = way, fits
    return best


def _fits(tensor: Tensor, parameter: Tensor) -> bool:
    return tensor.shape == parameter.shape and tensor.is_floating_point() >= parameter.is_floating_point()


def _kept(
    network: nn.Module,
    expected: Mapping[str, Tensor],
    rows: Mapping[str, Tensor],
    columns: Mapping[str, Tensor],
    shapes: Mapping[str, Tensor],
    packed: Mapping[str, PackedWeight],
) -> tuple[dict[str, PackedWeight], set[str]]:
    """The parameters that are rows of one packed weight, and the names of packed weights that others are made of."""
    names = list(shapes)
    firsts = torch.tensor([0, *(_rows_of(tensor) for tensor in shapes.values())]).cumsum(0)[:-1]
    kept: dict[str, PackedWeight] = {}
    others: set[str] = set()
    for name, numbers in rows.items() if packed else ():
        index = numbers.reshape(-1)
        places = torch.searchsorted(firsts, index, right=True).unique() - 1
        sources = [names[place] for place in places.tolist()]
        one, shape = packed.get(sources[0]) if len(sources) == 1 else None, expected[name].shape
        if one and _is_rows(numbers, columns[name], shape, one.columns) and can_keep(network, name):
            first = int(firsts[places[0]])
            kept[name] = replace(one.rows(index - first), shape=shape)
        else:
            others |= packed.keys() & set(sources)
    return kept, others


def _is_rows(rows: Tensor, columns: Tensor, shape: torch.Size, count: int) -> bool:
    """Whether a parameter of ``shape`` holds whole rows of ``count`` numbers in their order, by its row and column numbers."""
    if not shape or not rows.dim() or prod(shape[1:]) != count or columns.shape != shape or not len(columns):
        return False
    ordered = torch.equal(columns[0].reshape(-1), torch.arange(count, dtype=columns.dtype))
    return len(rows) == rows.numel() == shape[0] and ordered


def _columns(shape: torch.Size) -> Tensor:
    """A tensor of column numbers that takes the memory of one row."""
    return (
        torch.arange(prod(shape[1:]), dtype=torch.int32).reshape(1, *shape[1:]).expand(shape)
        if shape
        else torch.zeros(())
    )


def _rows_of(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.dim() else 1


def _is_tied(network: nn.Module, name: str, state: Container[str]) -> bool:
    """Whether a class of transformers shares a parameter with one that is filled (T5's embedding)."""
    tied = getattr(network, "_tied_weights_keys", None)
    return isinstance(tied, dict) and tied.get(name) in state


def _ways(network: nn.Module, expected: Mapping[str, Tensor], shapes: Mapping[str, Tensor]) -> Iterator[Any]:
    """Functions from stored tensors, or their row numbers, to tensors by the network's names. A converter that does not
    know the layout raises; it is left out.
    """
    prefix = common_prefix(shapes, expected)
    if prefix is not None:
        yield lambda state: {
            name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
        }
    before = os.path.commonprefix(list(shapes)).rpartition(".")  # noqa: RUF071  (letters are compared)
    lead = (
        before[0] + before[1]
    )  # converters know the makers' names, not what a wrapper put before all of them
    for converter in _converters(network, shapes):
        for given in dict.fromkeys(("", lead)):
            with suppress(Exception):  # a converter meets a foreign layout with any error
                converter(_without(given, shapes))
                yield lambda state, converter=converter, given=given: converter(_without(given, state))
        if any(
            name.startswith("input_blocks.") for name in shapes
        ):  # a UNet's converter wants a whole checkpoint's prefix
            with suppress(Exception):
                converter(_under(COMFY_PREFIX, shapes))
                yield lambda state, converter=converter: converter(_under(COMFY_PREFIX, state))


def _without(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def _converters(network: nn.Module, stored: Mapping[str, Tensor]) -> Iterator[Any]:
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    if found := SINGLE_FILE_LOADABLE_CLASSES.get(type(network).__name__):
        mapping, config = found["checkpoint_mapping_fn"], dict(getattr(network, "config", {}))
        yield lambda state: mapping(checkpoint=dict(state), config=config)
    if type(network).__name__.startswith("CLIPText"):
        for prefix in OPEN_CLIP:
            if any(name.startswith(prefix) for name in stored):
                yield lambda state, prefix=prefix: convert_open_clip_checkpoint(network, dict(state), prefix)


def common_prefix(names: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """The prefix under which most of ``expected`` occur in ``names``; None if none occurs."""
    counts: Counter[str] = Counter()
    for name in names:
        pieces = name.split(".")
        for start in range(len(pieces)):
            if ".".join(pieces[start:]) in expected:
                counts["".join(f"{piece}." for piece in pieces[:start])] += 1
    return counts.most_common(1)[0][0] if counts else None


def numbered(shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """A tensor of row numbers for each tensor, unique over the file; all other dimensions are 1."""
    rows, first = {}, 0
    for name, shape in shapes.items():
        count = shape[0] if shape else 1
        rows[name] = torch.arange(first, first + count).reshape(
            [count] + [1] * (len(shape) - 1) if shape else []
        )
        first += count
    return rows


def _sources(stored: Mapping[str, Tensor], used: Iterable[Tensor]) -> frozenset[str]:
    """Names of the stored tensors of which every row arrived in ``used``, tensors of row numbers."""
    total = sum(map(_rows_of, stored.values()))
    reached = torch.zeros(total, dtype=torch.bool)
    for numbers in used:
        reached[numbers.reshape(-1)] = True
    found, first = set(), 0
    for name, tensor in stored.items():
        count = _rows_of(tensor)
        if bool(reached[first : first + count].all()) and count:
            found.add(name)
        first += count
    return frozenset(found)


def fill(
    network: nn.Module,
    state: Mapping[str, Tensor],
    dtype: torch.dtype,
    packed: Mapping[str, PackedWeight] | None = None,
) -> nn.Module:
    """Give every parameter of a network on the meta device its numbers, floating ones in ``dtype``; ``packed`` weights stay
    so and are multiplied out to ``dtype`` by their layers.

    A class of transformers that keeps modules in float32 beside float16 (T5's ``wo``) keeps them here too.
    """
    diffusers_class = hasattr(network, "load_config")
    in_float32 = (
        () if diffusers_class or dtype != torch.float16 else getattr(network, "_keep_in_fp32_modules", None)
    )

    def is_wide(name: str) -> bool:
        return bool(set(in_float32 or ()) & set(name.split(".")))

    packed = packed or {}
    wide = {name: one.numbers(dtype) for name, one in packed.items() if is_wide(name)}
    network.load_state_dict(
        {
            name: tensor.to(torch.float32 if is_wide(name) else dtype).contiguous()
            if tensor.is_floating_point()
            else tensor
            for name, tensor in {**state, **wide}.items()
        },
        strict=False,
        assign=True,
    )
    for name, one in packed.items():
        if name not in wide:
            keep(network, name, one, dtype)
    if getattr(network, "_tied_weights_keys", None):
        network.tie_weights()  # type: ignore[operator]
    if diffusers_class:  # its non-persistent buffers follow, as in from_single_file
        network.to(dtype)
    return network.eval()
