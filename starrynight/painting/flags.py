"""Whether numbers are finite, told by flags that stay on the device and are read one step late.

Reading a number back makes the host wait for the device, and the device then waits for the host's next command. Here each
look at a stage leaves one number on the device for each tensor, its max norm. The norms of a step are copied to the host
without blocking, and read when the next step's commands have been given.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from starrynight.numerics.dtypes import HALVES
from starrynight.numerics.finite import find_fault
from starrynight.verdict import Fault


@dataclass(frozen=True)
class Look:
    """A look at one stage's result. ``outputs``: how many outputs the denoiser had given by then."""

    value: Any
    stage: str
    step: int
    outputs: int

    def fault(self) -> Fault | None:
        return find(self.value, self.stage, self.step)


class Flags:
    """The looks of one picture that have not been read yet; ``len()`` is the number of their closed steps."""

    def __init__(self) -> None:
        self._looks: list[Look] = []
        self._norms: list[torch.Tensor] = []
        self._closed: deque[tuple[list[Look], torch.Tensor, torch.cuda.Event | None]] = deque()

    def __len__(self) -> int:
        return len(self._closed)

    def look(self, look: Look) -> None:
        """Leave the max norm of every tensor in the look's value on the device."""
        self._looks.append(look)
        for tensor in tensors(look.value):
            if tensor.numel():
                wide = torch.float32 if tensor.dtype in HALVES else None
                norm = torch.linalg.vector_norm(tensor.detach(), math.inf, dtype=wide)
                self._norms.append(norm.float())

    def close_step(self) -> None:
        """Begin to copy the step's norms to the host."""
        norms = torch.stack(self._norms) if self._norms else torch.zeros(0)
        copied = None
        if norms.is_cuda:
            host = torch.empty(norms.shape, pin_memory=True)
            norms = host.copy_(norms, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._closed.append((self._looks, norms, copied))
        self._looks, self._norms = [], []

    def read_step(self) -> Look | None:
        """The first broken look of the oldest closed step, which is forgotten; None if all of its numbers are finite."""
        looks, norms, copied = self._closed.popleft()
        if copied is not None:
            copied.synchronize()
        if bool(norms.isfinite().all()):
            return None
        return next((look for look in looks if look.fault()), None)


def find(value: Any, stage: str, step: int | None) -> Fault | None:
    """The first fault in the tensors of a stage's output; waits for the device."""
    for tensor in tensors(value):
        if fault := find_fault(tensor, stage, step):
            return fault
    return None


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The floating tensors in a stage's output; of an encoder's distribution, its parameters."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.device.type != "meta":
            yield value
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif isinstance(parameters := getattr(value, "parameters", None), torch.Tensor):
        yield parameters
