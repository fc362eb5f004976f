"""Noise that depends on the seed alone: drawn on the CPU in float32, for every device and number format.

diffusers draws noise in the prompt embeddings' format, and torch draws different numbers in 16 bits than in
float32. Under ``Float32Noise`` 16-bit normal noise is drawn in float32 and rounded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from starrynight.numerics.dtypes import HALVES


class SharedNoise(Exception):
    """Noise for several pictures at once was to be drawn by no generator, so it would not depend on their seeds alone."""


class Float32Noise(TorchFunctionMode):
    """A function mode that draws 16-bit normal noise in float32.

    ``draw``: the generator for calls that pass none, as some schedulers make at every step. Without it their
    noise depends on what the process drew before. ``networks`` draw none: the mode is off while one of them runs, because
    under a mode every operation goes through Python, which took a third of a small model's picture on a card.
    ``mix`` = (other, share) turns the noise of calls that pass a generator towards the other generator's, by ``share`` of a
    right angle: cos·a + sin·b of two independent normal draws is normal again, with the same variance. ``shared``: the noise
    is a batch's, and a call that passes no generator raises SharedNoise.
    """

    def __init__(
        self,
        draw: torch.Generator | None = None,
        networks: Iterable[nn.Module] = (),
        mix: tuple[torch.Generator, float] | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.draw, self._networks, self.mix, self.shared = draw, tuple(networks), mix, shared
        self._hooks: list[Any] = []
        self._running = 0  # calls of ``networks`` in progress

    def __enter__(self) -> Self:
        for network in self._networks:
            self._hooks.append(network.register_forward_pre_hook(self._off, prepend=True))
            self._hooks.append(network.register_forward_hook(self._on, always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if not self._running:  # an interrupt inside a network leaves it off
            super().__exit__(*error)
        self._running = 0
        while self._hooks:
            self._hooks.pop().remove()

    def _off(self, network: nn.Module, args: Any) -> None:
        if not self._running:
            super().__exit__(None, None, None)
        self._running += 1

    def _on(self, network: nn.Module, args: Any, output: Any) -> None:
        self._running -= 1
        if not self._running:
            super().__enter__()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.shared and (
            func is torch.randn_like or (func is torch.randn and kwargs.get("generator") is None)
        ):
            raise SharedNoise
        if self.draw is not None and func is torch.randn_like:
            like = args[0] if args else kwargs["input"]
            return torch.randn(like.shape, generator=self.draw).to(
                like.device, kwargs.get("dtype") or like.dtype
            )
        if func is not torch.randn:
            return func(*args, **kwargs)
        if self.draw is not None and kwargs.get("generator") is None:
            place = kwargs.get("device")
            kwargs = {**kwargs, "generator": self.draw, "device": "cpu"}
            return self.__torch_function__(func, types, args, kwargs).to(place)
        if self.mix is not None and kwargs.get("generator") not in (None, self.draw):
            return self._mixed(*args, **kwargs)
        if kwargs.get("dtype") in HALVES:
            return func(*args, **{**kwargs, "dtype": torch.float32}).to(kwargs["dtype"])
        return func(*args, **kwargs)

    def _mixed(self, *size: Any, **kwargs: Any) -> torch.Tensor:
        other, share = self.mix or (None, 0.0)
        options = {**kwargs, "dtype": torch.float32, "device": "cpu"}
        own, its = (
            torch.randn(*size, **{**options, "generator": one}) for one in (kwargs["generator"], other)
        )
        angle = share * math.pi / 2
        mixed = own * math.cos(angle) + its * math.sin(angle)
        return mixed.to(kwargs.get("device"), kwargs.get("dtype") or torch.float32)


def generator(seed: int, stream: int = 0) -> torch.Generator:
    """A CPU generator for a seed below 2⁶⁴. Each ``stream`` of a seed draws different numbers.

    The streams of neighbouring seeds must differ too, so a stream's seed is taken from a SHA-256 digest.
    """
    short = _to_32_bits(seed)
    if stream:
        short = int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:4])
    return torch.Generator("cpu").manual_seed(short)


def _to_32_bits(seed: int) -> int:
    """Reduce a seed to 32 bits, because torch's CPU generator silently ignores the others (2.13, 2026-11).

    A seed below 2³² is unchanged. The upper half of a longer one is mixed in, multiplied by an odd number
    (2³² divided by the golden ratio, as in Fibonacci hashing). That is a bijection on 32 bits, so seeds that
    share either half, as those of a batch do, never collide.
    """
    upper, lower = divmod(seed, 2**32)
    return lower ^ (upper * 0x9E3779B1 % 2**32)
