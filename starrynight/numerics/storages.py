"""What a trace knows of tensors beyond their ops: exponents by storage, modules that never ran, silent readers."""

from __future__ import annotations

import inspect
import math
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, lru_cache
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from starrynight.numerics.modules import Modules, named_modules, own_tensors, tensors_in
from starrynight.numerics.rules import MASK, MASKS

# The low quantile is taken from this many elements of a tensor; values below it may become subnormal in
# float16.
SAMPLE, QUANTILE = 2048, 0.1


def key_of(tensor: Tensor) -> int:
    """Identifies a tensor's storage, which all its views share."""
    return tensor.untyped_storage()._cdata


def has_storage(tensor: Tensor) -> bool:
    """Whether the tensor's numbers lie in one piece of memory: not for sparse, nested and oneDNN tensors, nor inside ``vmap``."""
    try:
        return (
            tensor.layout is torch.strided and not tensor.is_nested and tensor.untyped_storage() is not None
        )
    except (NotImplementedError, RuntimeError):
        return False


class Storages:
    """Exponent and peak of every live storage, shared by all views of it.

    The weak reference frees the data but keeps the storage's address from being reused, so that a stale entry
    cannot match a new tensor.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[StorageWeakRef, int, float]] = {}
        self._sweep_at = 1024

    def alive(self) -> set[int]:
        """The keys of the storages that some tensor still uses."""
        return {key for key, entry in self._entries.items() if not entry[0].expired()}

    def by_key(self, key: int) -> int:
        return self._entries[key][1]

    def get(self, tensor: Tensor) -> int | None:
        entry = self._entries.get(key_of(tensor)) if has_storage(tensor) else None
        return entry[1] if entry else None

    def peak(self, tensor: Tensor) -> float:
        entry = self._entries.get(key_of(tensor))
        return entry[2] if entry else 0.0

    def put(self, tensor: Tensor, exponent: int, peak: float = 0.0) -> None:
        storage = tensor.untyped_storage()
        old = self._entries.get(storage._cdata)
        self._entries[storage._cdata] = (old[0] if old else StorageWeakRef(storage), exponent, peak)
        if len(self._entries) > self._sweep_at:
            self._entries = {key: entry for key, entry in self._entries.items() if not entry[0].expired()}
            self._sweep_at = max(1024, 2 * len(self._entries))


# Modules that compute nothing of their own: their children are looked at one by one, or they pass their input on.
_TRANSPARENT = (nn.ModuleList, nn.ModuleDict, nn.Sequential, nn.ParameterList, nn.ParameterDict, nn.Identity, nn.Dropout,
                nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # fmt: skip


def idle_modules(modules: Modules, called: Collection[str], is_used: Callable[[Tensor], bool]) -> set[str]:
    """Names of the modules that never ran and might compute something.

    Not idle: one whose parameters another module's forward uses (``nn.MultiheadAttention`` uses its projection's), one
    whose children ran, and a second module of the same class with the same parameters as one that ran.
    """
    names = dict(named_modules(modules))
    active = {prefix for name in called for prefix in _around(name)}
    tensors = {name: list(own_tensors(module).values()) for name, module in names.items()}
    running = {key_of(t) for name in called for t in tensors.get(name, ())}
    twins = {(type(names[name]), *map(key_of, tensors[name])) for name in called if tensors.get(name)}
    idle = set()
    for name, module in names.items():
        own = tensors[name]
        if name in active or isinstance(module, _TRANSPARENT) or (type(module), *map(key_of, own)) in twins:
            continue
        by_hand = own and all(is_used(t) and key_of(t) not in running for t in own)
        if not by_hand and (own or not any(True for _ in module.children())):
            idle.add(name)
    return idle


def untaken_branches(
    modules: Modules, called: Collection[str], is_used: Callable[[Tensor], bool]
) -> set[str]:
    """Names of modules that ran and whose ``forward`` names a parameter of its own that no op read: in a branch not taken."""
    found = set()
    for name, module in named_modules(modules):
        if name not in called:
            continue
        unread = {own for own, tensor in _stored(module) if not is_used(tensor)}
        for own, child in module.named_children():
            if isinstance(child, nn.ParameterList | nn.ParameterDict):
                unread |= {own for _, tensor in _stored(child) if not is_used(tensor)}
        if unread and unread & _names_in_forward(module):
            found.add(name)
    return found


def looks_past_attributes(module: nn.Module) -> bool:
    """Whether a ``forward`` names ``type`` or ``__class__``, or a function that it names has a tensor in its closure or defaults.
    Effective weights give a module a class of its own, in which the attribute alone is another one.
    """
    if not own_tensors(module):
        return False
    functions = list(_functions_in_forward(module, of_torch=False))
    words = {word for function in functions for word in _words(function.__code__)}
    return bool({"type", "__class__"} & words) or any(
        isinstance(value, Tensor) for function in functions for value in _bound_to(function)
    )


def _bound_to(function: FunctionType) -> Iterator[Any]:
    """The values in a function's defaults and closure."""
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            yield cell.cell_contents


def _stored(module: nn.Module) -> list[tuple[str, Tensor]]:
    own = own_tensors(module).items()
    return [(name, tensor) for name, tensor in own if name not in module._non_persistent_buffers_set]


def _names_in_forward(module: nn.Module) -> set[str]:
    """Every name and text in the code of ``forward`` and of the functions that it names."""
    return {word for function in _functions_in_forward(module) for word in _words(function.__code__)}


def _functions_in_forward(module: nn.Module, of_torch: bool = True) -> Iterator[FunctionType]:
    """``forward`` and the functions that it names, on the object or beside it; torch's own too if ``of_torch``."""
    waiting: list[Any] = [getattr(type(module), "forward", None), vars(module).get("forward")]
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        while hasattr(function, "__wrapped__") or hasattr(function, "__func__"):
            function = getattr(function, "__wrapped__", None) or function.__func__
        if not isinstance(function, FunctionType) or id(function) in seen:
            continue
        if not of_torch and (function.__module__ or "").startswith("torch."):
            continue
        seen.add(id(function))
        yield function
        for word in _words(function.__code__):
            waiting += [inspect.getattr_static(module, word, None), function.__globals__.get(word)]


def _words(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)
        elif isinstance(constant, str):
            yield constant


def _around(name: str) -> Iterator[str]:
    """The name itself and those of the modules around it."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


@contextmanager
def reading_without_ops(seen: Callable[[Tensor], None]) -> Iterator[None]:
    """Call ``seen(tensor)`` where numbers leave a tensor without an op: ``tolist``, ``numpy``, DLPack."""

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            seen(self)
            return original(self, *args, **kwargs)

        return method

    own = {name: Tensor.__dict__.get(name) for name in ("tolist", "numpy", "__dlpack__")}
    for name in own:
        setattr(Tensor, name, watched(getattr(Tensor, name)))
    try:
        yield
    finally:
        for name, original in own.items():
            if original is None:
                delattr(Tensor, name)
            else:
                setattr(Tensor, name, original)


class _Elsewhere(TorchDispatchMode):
    """Calls ``seen(op)`` for each op of a thread on a tensor that ``knows`` recognises, until ``ended``."""

    def __init__(self, knows: Callable[[Tensor], bool], seen: Callable[[str], None]) -> None:
        super().__init__()
        self.knows, self.seen, self.ended = knows, seen, False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not self.ended and any(map(self.knows, tensors_in((args, kwargs)))):
            self.seen(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def watching_threads(knows: Callable[[Tensor], bool], seen: Callable[[str], None]) -> Iterator[None]:
    """Call ``seen(op)`` where a thread that starts meanwhile runs an op on a tensor that ``knows`` recognises. A dispatch mode is
    of one thread, so a trace sees none of these ops.
    """
    start, modes = threading.Thread.start, list[_Elsewhere]()

    def start_watched(self: threading.Thread) -> None:
        run = self.run

        def watched() -> None:
            with _Elsewhere(knows, seen) as own:
                modes.append(own)
                run()

        self.run = watched  # type: ignore[method-assign]
        start(self)

    threading.Thread.start = start_watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        for each in modes:
            each.ended = True  # a pool's thread lives on


@contextmanager
def every_op_seen() -> Iterator[None]:
    """Run compiled and scripted functions op by op, so that a dispatch mode sees what a fused kernel would hide."""
    with ExitStack() as stack:
        stack.enter_context(torch.jit.optimized_execution(False))
        if "torch._dynamo" in sys.modules:  # importing it takes seconds, and nothing is compiled without it
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def peak_and_quantile(tensor: Tensor) -> tuple[float, float]:
    """(max|x|, low quantile of |x|) without zeros and mask values. The peak is NaN if any value is NaN."""
    if not tensor.numel() or tensor.is_complex():
        return 0.0, math.inf
    peak = torch.linalg.vector_norm(tensor, math.inf).item()
    lowest = [number for number in _masks(tensor.dtype) if peak == -number]
    if peak > MASK or lowest:
        rest = tensor.abs()
        mask = rest > MASK
        for number in lowest:
            mask |= tensor == number
        peak = rest.masked_fill(mask, 0).amax().item()
    sample = tensor.reshape(-1)
    if len(sample) > 4 * SAMPLE:
        sample = sample[_sample_indices(len(sample)).to(tensor.device)]
    sample = sample.abs().float()
    sample = sample[(sample > 0) & (sample < MASK)]
    return peak, low_quantile(sample).item() if sample.numel() else math.inf


def low_quantile(sample: Tensor) -> Tensor:
    """``sample.quantile(QUANTILE)`` of float32 [N], the same bits, without sorting the rest of it."""
    place = torch.tensor(QUANTILE) * (len(sample) - 1)
    below = int(place)
    smallest = sample.topk(min(below + 2, len(sample)), largest=False).values
    return torch.lerp(smallest[below], smallest[-1], (place - below).to(sample.device))


@cache
def _masks(dtype: torch.dtype) -> list[float]:
    """MASKS as numbers of a format."""
    return torch.tensor(MASKS, dtype=dtype).tolist()


@lru_cache(256)
def _sample_indices(count: int) -> Tensor:
    """Indices of the elements to sample out of ``count``, the same every time.

    Random, because evenly spaced elements may all be in one channel: every 7680th is, at a width of 3840.
    """
    return torch.randint(count, (SAMPLE,), generator=torch.Generator().manual_seed(0))
