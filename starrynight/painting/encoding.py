"""Prompts encoded at their own length, where the pipeline throws the padding's embeddings away; and only once.

Z-Image's pipelines pad every prompt to ``max_sequence_length`` tokens, run the text encoder over all of them, and keep the
rows of the prompt. The encoder is causal, so rows of the prompt do not depend on the padding behind them: only rounding differs.
So float32 is left as diffusers encodes it, to the bit.
Other families feed the padding's rows to the denoiser, and are left as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from starrynight.numerics.rng import Float32Noise

# What a loaded model remembers of its prompts. 512 tokens of a width of 2560 are 2.6 MB in 16 bits.
REMEMBERED = 32 << 20  # bytes


class Unpadded:
    """A tokenizer that pads a batch to its longest text only; everything else is the wrapped one's."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tokenizer(*args, **{**kwargs, "padding": "longest"})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@contextmanager
def unpadded(pipeline: Any) -> Iterator[None]:
    """While it lasts, a Z-Image pipeline encodes prompts at their own length."""
    tokenizer = getattr(pipeline, "tokenizer", None)
    right = getattr(tokenizer, "padding_side", None) == "right"  # padding in front would move the positions
    exact = getattr(getattr(pipeline, "text_encoder", None), "dtype", torch.float32) is torch.float32
    if exact or not (type(pipeline).__name__.startswith("ZImage") and right):
        yield
        return
    vars(pipeline)["tokenizer"] = Unpadded(tokenizer)  # past diffusers' registration of components
    try:
        yield
    finally:
        vars(pipeline)["tokenizer"] = tokenizer


class PromptCache:
    """What ``encode_prompt`` returned lately, at most ``limit`` bytes of it, by everything that it was given.

    It belongs to one loaded model in one precision. Embeddings are kept with the state of the encoders, so who measures or changes
    those is never answered from memory; under a LoRA or a textual inversion it is ``bypassed``.
    """

    def __init__(self, limit: int = REMEMBERED) -> None:
        self.limit, self.size = limit, 0
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._bypassed = False

    def key(self, pipeline: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Of a call of ``pipeline.encode_prompt``, to be made before it, which changes lists; None where it cannot be remembered."""
        try:
            return None if self._bypassed else (type(pipeline), _plain(args), _plain(kwargs))
        except TypeError:  # embeddings that the caller brought
            return None

    def find(self, pipeline: Any, key: Any) -> Any:
        """A copy of the embeddings; None where there are none."""
        if key is None or (place := (key, _state(pipeline))) not in self._kept:
            return None
        self._kept.move_to_end(place)
        return _copy(self._kept[place])

    def keep(self, pipeline: Any, key: Any, embeddings: Any) -> None:
        """Called after encoding: transformers registers hooks of its own in an encoder's first run."""
        size = _size(embeddings)
        if key is None or size > self.limit or (place := (key, _state(pipeline))) in self._kept:
            return
        self._kept[place] = _copy(embeddings)
        self.size += size
        while self.size > self.limit:
            self.size -= _size(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        self._kept.clear()
        self.size = 0

    @contextmanager
    def bypassed(self, when: bool) -> Iterator[None]:
        self._bypassed = when
        try:
            yield
        finally:
            self._bypassed = False


def _state(pipeline: Any) -> tuple[Any, ...]:
    """Of the text encoders: formats and versions of their parameters, hooks, and functions put in the place of ``forward``."""
    encoders = (part for name, part in pipeline.components.items() if name.startswith("text_encoder"))
    return tuple(
        (*map(_version, module.parameters(recurse=False)), *_hooks(module), vars(module).get("forward"))
        for encoder in encoders
        if isinstance(encoder, nn.Module)
        for module in encoder.modules()
    )


def _version(parameter: torch.Tensor) -> tuple[torch.dtype, int]:
    return parameter.dtype, 0 if parameter.is_inference() else parameter._version


def _hooks(module: nn.Module) -> list[int]:
    """The ids of a module's hooks but those of the noise, which every picture registers anew and encoders draw none of."""
    hooks = [*module._forward_pre_hooks.items(), *module._forward_hooks.items()]
    return [number for number, hook in hooks if not isinstance(getattr(hook, "__self__", None), Float32Noise)]


def _plain(value: Any) -> Any:
    """A hashable copy of texts, numbers and devices in lists and dictionaries. Raises TypeError for anything else."""
    if value is None or isinstance(value, str | int | float | torch.device | torch.dtype):
        return type(value), value  # 1 and True are different arguments
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_plain, value))
    if isinstance(value, dict):
        return tuple((name, _plain(value[name])) for name in sorted(value))
    raise TypeError(type(value).__name__)


def _copy(value: Any) -> Any:
    """Pipelines may write into what they are given."""
    if isinstance(value, list | tuple):
        return type(value)(map(_copy, value))
    return value.clone() if isinstance(value, torch.Tensor) else value


def _size(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return value.nbytes if isinstance(value, torch.Tensor) else 0
