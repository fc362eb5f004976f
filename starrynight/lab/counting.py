"""Memory counted from live tensors: what a computation holds at its peak, whatever the allocator does with it.

A dispatch mode sees every op; each result's storage counts from then until nobody holds it. Scratch space inside a
kernel is not a tensor and is not counted. Knows storages, not models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from starrynight.numerics.modules import tensors_in


class Counter(TorchDispatchMode):
    """``with Counter(weights) as count: …``; then ``count.peak`` in bytes, and ``count.peaks`` by phase.

    ``weights``: tensors that are there anyway and do not count. Enter it inside an emulation, so that it counts the
    format's tensors and not the emulation's float32 ones.
    """

    def __init__(self, weights: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self._kept = {t.untyped_storage()._cdata: t for t in weights}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._phases: list[str] = []
        self.peak = 0
        self.peaks: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        for tensor in tensors_in((args, kwargs)):
            self._count(tensor)
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self._count(tensor)
        self._look()
        return result

    def _count(self, tensor: Tensor) -> None:
        if tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._kept:
            return
        known = self._live.get(key)
        if known is None or known[0].expired():
            self._live[key] = (StorageWeakRef(storage), storage.nbytes())

    def _look(self) -> None:
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        held = sum(size for _, size in self._live.values())
        self.peak = max(self.peak, held)
        for phase in self._phases:
            self.peaks[phase] = max(self.peaks.get(phase, 0), held)

    @contextmanager
    def phases(self, modules: dict[str, list[nn.Module]]) -> Iterator[None]:
        """Note the peak while any module of a phase is running, under the phase's name."""
        handles = []
        for phase, parts in modules.items():
            for part in parts:
                enter = part.register_forward_pre_hook(lambda *_, phase=phase: self._phases.append(phase))
                leave = part.register_forward_hook(lambda *_: self._leave(), always_call=True)
                handles += [enter, leave]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self) -> None:
        if self._phases:
            self._phases.pop()
