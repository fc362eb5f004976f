"""Names of modules and tensors, hooks around every forward, and the tensors inside nested values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.errors import Unfit

Modules = nn.Module | Mapping[str, nn.Module]


def roots_of(modules: Modules) -> dict[str, nn.Module]:
    """Name → module; a single module has the name ""."""
    return dict(modules) if isinstance(modules, Mapping) else {"": modules}


def named_modules(modules: Modules) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of every module; names start with the key in ``modules``."""
    for prefix, root in roots_of(modules).items():
        for name, module in root.named_modules():
            yield join(prefix, name), module


def named_tensors(modules: Modules) -> Iterator[tuple[str, Tensor, bool]]:
    """(name, tensor, stored in a checkpoint) of every floating-point parameter and buffer, for every name."""
    for name, module in named_modules(modules):
        for own, tensor in own_tensors(module).items():
            yield join(name, own), tensor, own not in module._non_persistent_buffers_set


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's own floating-point parameters and buffers, without its children's."""
    own = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in own.items() if tensor is not None and tensor.is_floating_point()}


def join(*names: str) -> str:
    """A dotted name; empty parts are left out."""
    return ".".join(name for name in names if name)


@contextmanager
def watching(
    modules: Modules,
    enter: Callable[[str, nn.Module, Any], None],
    leave: Callable[[str, nn.Module, Any], None],
) -> Iterator[None]:
    """Call ``enter(name, module, inputs)`` and ``leave(name, module, output)`` around every module's forward.

    After an exception ``leave`` is called as well, with None as the output. A copy that is made meanwhile, with its hooks, is
    another module and has no name.
    """
    handles = []
    names = {module: name for name, module in named_modules(modules)}

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if module in names:
            enter(names[module], module, (args, kwargs))

    def after(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if module in names:
            leave(names[module], module, output)

    for module in names:
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors nested in collections and in the attributes of plain objects. Modules are not entered."""
    found: list[Tensor] = []
    _collect(value, set(), found)
    return iter(found)


def _collect(value: Any, seen: set[int], found: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        found.append(value)
        return
    items = parts_of(value)
    if not items or id(value) in seen:
        return
    seen.add(id(value))
    for item in items:
        _collect(item, seen, found)


def parts_of(value: Any) -> list[Any]:
    """What a collection or a plain object holds; nothing for a number, a text, a class, a function or a module."""
    kind = type(value)
    if kind is tuple or kind is list:  # asked for at every op that is traced, mostly for these
        return list(value)
    if kind is dict:
        return list(value.values())
    if value is None or isinstance(value, _ATOMS):
        return []
    if isinstance(value, Mapping):
        return [*value.values(), *attributes_of(value).values()]
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [*value, *attributes_of(value).values()]
    return list(attributes_of(value).values())


def is_container(value: Any) -> bool:
    """Whether something can be put into ``value``: a list, a dictionary, a plain object, empty or not."""
    if value is None or isinstance(value, (*_ATOMS, Tensor)):
        return False
    return (
        isinstance(value, MutableMapping | list | deque)
        or hasattr(value, "__dict__")
        or bool(attributes_of(value))
    )


def replace_parts(value: Any, change: Callable[[Any], Any]) -> None:
    """Replace every part of a list, dictionary or plain object by ``change(part)``, in place."""
    if isinstance(value, MutableMapping):
        for key, item in list(value.items()):
            if (new := change(item)) is not item:
                value[key] = new
    elif isinstance(value, list | deque):
        for number, item in enumerate(value):
            if (new := change(item)) is not item:
                value[number] = new
    for name, item in attributes_of(value).items():
        if (new := change(item)) is not item:
            object.__setattr__(value, name, new)


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object, also of one with ``__slots__``."""
    slots = [name for cls in type(value).__mro__ for name in _slots(cls)]
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return found | getattr(value, "__dict__", {})


def _slots(cls: type) -> tuple[str, ...]:
    names = cls.__dict__.get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names)


_ATOMS = (bool, int, float, complex, str, bytes, type, ModuleType, FunctionType, BuiltinFunctionType, MethodType,
          nn.Module, torch.dtype, torch.device, torch.Generator, torch.layout, torch.memory_format)  # fmt: skip


def memory_groups(tensors: Iterable[tuple[str, Tensor]]) -> list[list[tuple[str, Tensor]]]:
    """The named tensors, grouped by the memory they lie in; in one group where their extents overlap.

    In the order of ``tensors``, not of addresses, which differ from run to run.
    """
    known: list[tuple[int, int, str, Tensor]] = []
    groups: list[list[tuple[str, Tensor]]] = []
    order: dict[str, int] = {}
    for name, tensor in tensors:
        order[name] = len(order)
        if tensor.numel() and not tensor.is_meta and tensor.layout is torch.strided:
            reach = sum(
                (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
            )
            start = tensor.data_ptr()
            known.append((start, start + (reach + 1) * tensor.element_size(), name, tensor))
        else:
            groups.append([(name, tensor)])
    end = -1
    for start, stop, name, tensor in sorted(known, key=lambda entry: entry[:3]):
        if start >= end:
            groups.append([])
        groups[-1].append((name, tensor))
        end = max(end, stop)
    for group in groups:
        group.sort(key=lambda entry: order[entry[0]])
    return sorted(groups, key=lambda group: order[group[0][0]])


def unregistered_tensors(modules: Modules) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of the tensors that modules keep as plain attributes, not as parameters or buffers."""
    for name, module in named_modules(modules):
        for attribute, value in vars(module).items():
            if attribute not in _REGISTERS and not attribute.endswith("_hooks"):
                for tensor in tensors_in(value):
                    yield join(name, attribute), tensor


_REGISTERS = frozenset(("_parameters", "_buffers", "_modules"))


def refuse_scripts(modules: Modules) -> None:
    """Raise ``Unfit`` for TorchScript: its modules take no hooks, and its executor hides ops."""
    for name, module in named_modules(modules):
        if isinstance(module, torch.jit.ScriptModule):
            raise Unfit(
                f"{name or 'The model'} is a TorchScript module, whose ops cannot all be seen, so the model is not folded. "
                "Use the Python module that it was made from, or bfloat16.",
                f"{name or '该模型'} 是 TorchScript 模块，无法看到其全部算子，因此不折叠。请使用生成它的 Python 模块，或 bfloat16。",
            )
