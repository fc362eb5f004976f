"""From the names and shapes of a single file to those of a network: which stored tensor fills which parameter.

Two ways, and the one that fills more parameters is taken: the network's own names under any prefix (diffusers' and
transformers' layouts, ComfyUI's text encoders), or diffusers' converter of the class (the makers' layouts). Row numbers
sent through the same way tell which stored tensors a parameter was made of. No copy of a converter's mapping is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
    ``missing``: parameters and persistent buffers that nothing fills. ``misfits``: those whose shape differs.
    """

    state: dict[str, Tensor]
    sources: frozenset[str]
    missing: tuple[str, ...]
    misfits: tuple[str, ...]


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


def convert(network: nn.Module, stored: Mapping[str, Tensor]) -> Converted:
    """``stored`` in the layout of ``network``; parameters that nothing fills are ``missing``."""
    expected, best = network.state_dict(), _best_way(network, stored)
    if best is None:
        return Converted({}, frozenset(), tuple(expected), ())
    state = {name: tensor for name, tensor in best(stored).items() if name in expected}
    rows = best(numbered({name: list(tensor.shape) for name, tensor in stored.items()}))
    return Converted(
        state,
        _sources(stored, [rows[name] for name in state]),
        tuple(name for name in expected if name not in state and not _is_tied(network, name, state)),
        tuple(name for name, tensor in state.items() if tensor.shape != expected[name].shape),
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


def _is_tied(network: nn.Module, name: str, state: Mapping[str, Tensor]) -> bool:
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
    for converter in _converters(network, shapes):
        with suppress(Exception):  # a converter meets a foreign layout with any error
            converter(shapes)
            yield converter


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
    total = sum(tensor.shape[0] if tensor.dim() else 1 for tensor in stored.values())
    reached = torch.zeros(total, dtype=torch.bool)
    for numbers in used:
        reached[numbers.reshape(-1)] = True
    found, first = set(), 0
    for name, tensor in stored.items():
        count = tensor.shape[0] if tensor.dim() else 1
        if bool(reached[first : first + count].all()) and count:
            found.add(name)
        first += count
    return frozenset(found)


def fill(network: nn.Module, state: Mapping[str, Tensor], dtype: torch.dtype) -> nn.Module:
    """Give every parameter of a network on the meta device its numbers, floating ones in ``dtype``.

    A class of transformers that keeps modules in float32 beside float16 (T5's ``wo``) keeps them here too.
    """
    diffusers_class = hasattr(network, "load_config")
    keep = (
        () if diffusers_class or dtype != torch.float16 else getattr(network, "_keep_in_fp32_modules", None)
    )
    network.load_state_dict(
        {
            name: tensor.to(torch.float32 if set(keep or ()) & set(name.split(".")) else dtype).contiguous()
            if tensor.is_floating_point()
            else tensor
            for name, tensor in state.items()
        },
        strict=False,
        assign=True,
    )
    if getattr(network, "_tied_weights_keys", None):
        network.tie_weights()  # type: ignore[operator]
    if diffusers_class:  # its non-persistent buffers follow, as in from_single_file
        network.to(dtype)
    return network.eval()
