"""Fault injection for the guard's tests: puts NaN or Inf into one stage of a real pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import pytest
import torch

from starrynight.painting.painter import Painter

KINDS = {"NaN": math.nan, "+Inf": math.inf, "−Inf": -math.inf}
ALWAYS = frozenset((torch.float16, torch.bfloat16, torch.float32))
HALF = frozenset((torch.float16,))

# The layer of the tiny Z-Image that is broken for each stage inside a network.
LAYERS = {
    "prompt": "text_encoder.layers.0.mlp.down_proj",
    "encoder": "vae.encoder.conv_out",
    "prediction": "transformer.layers.1.feed_forward.w2",
    "decoder": "vae.decoder.conv_out",
}


class Saboteur:
    """Breaks one number of one stage at ``step``, ``times`` times, in the number formats ``where``.

    For a stage inside a network it changes the output of a layer; guidance is broken after the guard has
    checked the denoiser.
    """

    def __init__(
        self,
        painter: Painter,
        stage: str,
        step: int | None,
        value: float,
        where: frozenset[torch.dtype],
        times: int,
    ) -> None:
        self.painter, self.stage, self.step, self.value = painter, stage, step, value
        self.where, self.left, self.scheduler = where, times, None
        component, _, layer = LAYERS.get(stage, "").partition(".")
        self.layer = getattr(painter.pipeline, component).get_submodule(layer) if component else None

    def due(self, dtype: torch.dtype) -> bool:
        now = self.step is None or self.painter.guard.step == self.step
        return now and self.left > 0 and dtype in self.where

    def broken(self, tensor: torch.Tensor) -> torch.Tensor:
        if not self.due(self.layer.weight.dtype if self.layer is not None else torch.float32):
            return tensor
        self.left -= 1
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        tensor.view(-1)[3] += self.value
        return tensor

    def broken_output(self, module: Any, args: Any, output: Any) -> Any:
        """A denoiser's output is a tensor, or a list of them, in a tuple."""
        (first,) = output
        rest = [] if isinstance(first, torch.Tensor) else list(first)
        return (self.broken(first),) if not rest else ([self.broken(rest[0]), *rest[1:]],)

    @contextmanager
    def at_work(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patch, ExitStack() as closing:
            if self.layer is not None:  # a hook, which stays where offloading or a LoRA wraps the layer
                hook = self.layer.register_forward_hook(lambda layer, args, output: self.broken(output))
                closing.callback(hook.remove)
            elif self.stage == "guidance":
                hook = self.painter.denoiser.register_forward_hook(self.broken_output)
                closing.callback(hook.remove)
            elif self.stage == "latents":
                scheduler = self.scheduler or type(self.painter.pipeline.scheduler)
                take = scheduler.step
                patch.setattr(
                    scheduler, "step", _signed(take, lambda *a, **k: (self.broken(take(*a, **k)[0]),))
                )
            else:
                post = self.painter.pipeline.image_processor.postprocess
                patch.setattr(
                    self.painter.pipeline.image_processor,
                    "postprocess",
                    lambda *a, **k: self.broken(post(*a, **k)),
                )
            yield


def _signed(like: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    return wraps(like)(function)
