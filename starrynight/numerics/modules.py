"""Names of modules and tensors, hooks around every forward, and the tensors inside nested values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

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

    After an exception ``leave`` is called as well, with None as the output.
    """
    handles = []
    names = {module: name for name, module in named_modules(modules)}

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        enter(names[module], module, (args, kwargs))

    def after(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
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
    """The tensors nested in tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dataclass_fields__"):
        for item in vars(value).values():
            yield from tensors_in(item)
