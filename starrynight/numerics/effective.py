"""Effective weights: parameters that their module only uses with a number added, such as the 1 + weight of an RMSNorm.

A power of two cannot be multiplied into such a weight w itself: 2^k·(1 + w) − 1 has more digits than the format. The sum
1 + w has not. So a fold stores (1 + w)·2^k, rounded once as the module would round it, in place of w, and gives the module
a class in which reading the parameter returns an ``EffectiveWeight``. Adding the number to it, also after casts and views,
adds nothing. The parameter itself stays a plain parameter under its own name, so casts, offloading and state dicts
see nothing unusual. (``torch.nn.utils.parametrize`` also gives the module such a class, but renames the parameter.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.numerics.modules import Modules, join, named_modules

# Tensor methods that copy or cast; the result is still without the number's sum, for whoever adds it next.
_COPIES = frozenset(("to", "type", "type_as", "float", "double", "half", "bfloat16", "clone", "contiguous", "cpu", "cuda"))  # fmt: skip

# The attributes of a generated class: the class it was made from, and attribute → number.
_PLAIN, _NUMBERS = "_starry_plain_class", "_starry_effective_weights"


class EffectiveWeight(Tensor):
    """A view of a parameter that holds number + weight already: adding ``number`` adds 0 and returns a plain tensor.

    Everything else computes with what is stored, as with any folded weight.
    """

    number: float
    parameter: Tensor

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        own = next((value for value in args if isinstance(value, cls)), None)
        with torch._C.DisableTorchFunctionSubclass():
            if own is None:
                return func(*args, **kwargs)
            if func is Tensor.data.__set__:  # type: ignore[attr-defined]
                own.parameter.data = args[1]
            if not kwargs and _added(func, args) == own.number:
                return func(
                    own.as_subclass(Tensor), 0.0
                )  # the same op at the same place, for whoever compares ops
            result = func(*args, **kwargs)
            if (
                isinstance(result, Tensor)
                and result is not own
                and own is args[0]
                and _is_same(func, own, result)
            ):
                return _effective(result, own.number, own.parameter)
            return result


def _added(func: Any, args: tuple) -> float | None:
    """The number that an op adds to its tensor; None for other ops."""
    if len(args) != 2 or func.__name__ not in ("add", "sub"):
        return None
    numbers = [value for value in args if isinstance(value, int | float)]
    if len(numbers) != 1 or (func.__name__ == "sub" and numbers[0] is not args[1]):
        return None
    return float(numbers[0] if func.__name__ == "add" else -numbers[0])


def _is_same(func: Any, tensor: Tensor, result: Tensor) -> bool:
    """Whether ``result`` holds numbers of ``tensor``: a view or a cast."""
    return (
        func.__name__ in _COPIES
        or result.untyped_storage()._cdata == tensor.as_subclass(Tensor).untyped_storage()._cdata
    )


def _effective(tensor: Tensor, number: float, parameter: Tensor) -> EffectiveWeight:
    made = tensor.as_subclass(EffectiveWeight)
    made.number, made.parameter = number, parameter
    made._is_param = tensor is parameter  # for ``isinstance``, as ``nn.Module.get_parameter`` asks
    return made


def set_effective_weights(modules: Modules, numbers: Mapping[str, float]) -> None:
    """Let exactly the parameters named in ``numbers`` be effective weights; all others become plain again.

    ``numbers``: full name → the number that the module adds. The stored values are not touched.
    """
    for name, module in named_modules(modules):
        plain = vars(type(module)).get(_PLAIN, type(module))
        own = {key: numbers[full] for key in module._parameters if (full := join(name, key)) in numbers}
        wanted = _class_with(plain, tuple(sorted(own.items()))) if own else plain
        if type(module) is not wanted:
            module.__class__ = wanted


def effective_weights(modules: Modules) -> dict[str, float]:
    """Full name → number of the effective weights of ``modules``."""
    return {
        join(name, key): number
        for name, module in named_modules(modules)
        for key, number in vars(type(module)).get(_NUMBERS, {}).items()
    }


@contextmanager
def reading_parameters(
    by_attribute: Callable[[Tensor], None], seen: Callable[[Tensor], None]
) -> Iterator[None]:
    """Call ``by_attribute(parameter)`` for each that is read as a module's attribute, which a fold may change into an effective
    weight, and ``seen(parameter)`` for each that ``named_parameters`` or ``parameters`` gives.
    """
    original, attribute = nn.Module.named_parameters, nn.Module.__getattr__

    def read(self: nn.Module, name: str) -> Any:
        found = attribute(self, name)
        if isinstance(found, nn.Parameter):
            by_attribute(found)
        return found

    def watched(self: nn.Module, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in original(self, *args, **kwargs):
            seen(parameter)
            yield name, parameter

    nn.Module.named_parameters, nn.Module.__getattr__ = watched, read  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.named_parameters, nn.Module.__getattr__ = original, attribute  # type: ignore[method-assign]


@lru_cache(None)
def _class_with(plain: type[nn.Module], numbers: tuple[tuple[str, float], ...]) -> type[nn.Module]:
    """A class like ``plain``, also by name, in which reading the attributes returns effective weights."""
    return type(
        plain.__name__,
        (plain,),
        {
            **{key: _reader(key, number) for key, number in numbers},
            _PLAIN: plain,
            _NUMBERS: dict(numbers),
            "__module__": plain.__module__,
            "__qualname__": plain.__qualname__,
            "__doc__": plain.__doc__,
        },
    )


def _reader(key: str, number: float) -> property:
    def read(module: nn.Module) -> Any:
        held = module._parameters.get(key)
        return held if held is None else _effective(held, number, held)

    return property(read)
