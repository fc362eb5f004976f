"""Which module is running, and what modules and tensors are called. Knows no numerics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Modules = nn.Module | Mapping[str, nn.Module]


def roots_of(modules: Modules) -> dict[str, nn.Module]:
    """One module is its own root, without a name."""
    return dict(modules) if isinstance(modules, Mapping) else {"": modules}


def named_modules(modules: Modules) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of every module, names prefixed by those of ``modules``."""
    for prefix, root in roots_of(modules).items():
        for name, module in root.named_modules():
            yield join(prefix, name), module


def named_tensors(modules: Modules) -> Iterator[tuple[str, Tensor, bool]]:
    """(name, tensor, stored in a checkpoint) of every floating parameter and buffer, tied ones under each name."""
    for name, module in named_modules(modules):
        for own, tensor in own_tensors(module).items():
            yield join(name, own), tensor, own not in module._non_persistent_buffers_set


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The floating parameters and buffers that the module holds itself, not its children."""
    own = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in own.items() if tensor is not None and tensor.is_floating_point()}


def join(*names: str) -> str:
    return ".".join(name for name in names if name)


@contextmanager
def watching(
    modules: Modules,
    enter: Callable[[str, nn.Module, Any], None],
    leave: Callable[[str, nn.Module, Any], None],
) -> Iterator[None]:
    """Call ``enter(name, module, inputs)`` and ``leave(name, module, output)`` around every module's forward.

    ``leave`` is called after an exception too, with the output None.
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
    """The tensors in nested tuples, lists, mappings and dataclasses."""
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
