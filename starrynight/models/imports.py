"""The imports of torch, diffusers and transformers, without the parts that only compiling and rare schedulers use.

Half of the time from the shell to a picture was Python importing modules that no picture runs (docs/speed.md). Two things are changed:

- Garbage collection waits while modules are imported: they make many objects and hardly any garbage.
- ``torch._dynamo``, the compiler's front end, ``scipy.stats`` and ``scipy.integrate``, which schedulers with beta sigmas and LMS use, and
  ``scipy.optimize``, of which transformers' losses take a function, are imported when something first asks for one of their
  attributes. Until then a ``Deferred`` module stands in ``sys.modules``.

diffusers and transformers decorate functions for the compiler while they are imported. As nothing is compiled before the compiler
is imported, those decorators return what they are given, and are applied when it is imported (``Marks``).
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

_taken_away = threading.Lock()


class Deferred(ModuleType):
    """Stands for a module in ``sys.modules`` until an attribute or a submodule is asked for; then the module is imported as always.

    ``own``: attributes that it answers without importing anything. ``on_import`` is called with the module. ``apart``: the full names of
    submodules that are imported without it, because they need nothing of it.
    """

    def __init__(
        self,
        name: str,
        own: dict[str, Any],
        on_import: Callable[[ModuleType], None],
        apart: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name)
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        self.__spec__, self.__file__, self.__loader__ = spec, spec.origin, spec.loader
        if spec.submodule_search_locations is not None:
            self.__path__ = list(spec.submodule_search_locations)
        self.apart, self._own, self._on_import = apart, set(own), on_import
        vars(self).update(own)
        if not any(isinstance(finder, _Submodules) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Submodules())

    def withhold(self, attribute: str, own: Any) -> None:
        """Answer ``attribute`` by ``own`` until the module is imported."""
        self._own.add(attribute)
        vars(self)[attribute] = own

    def load(self) -> ModuleType:
        """Import the module, if that has not happened, and return it."""
        with _taken_away:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        for name in self._own:  # who holds this object still gets the module's
            vars(self).pop(name, None)
        for name, child in vars(self).items():  # submodules that were imported before it
            if isinstance(child, ModuleType):
                vars(module).setdefault(name, child)
        self._on_import(module)
        return module

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # asked by who looks through all modules
            raise AttributeError(f"module {self.__name__!r} has no attribute {attribute!r}")
        return getattr(self.load(), attribute)


class _Submodules(MetaPathFinder, Loader):
    """Imports a deferred package before a submodule of it. Python then goes on to load the submodule, and gets the one that the
    package has, not a second one.
    """

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package = sys.modules.get(name.rpartition(".")[0])
        if not isinstance(package, Deferred) or name in package.apart:
            return None
        package.load()
        module = importlib.import_module(name)
        return ModuleSpec(name, self, loader_state=module.__spec__)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


class Marks:
    """The compiler's decorators, applied when it is imported: ``allow_in_graph`` and ``assume_constant_result`` return the same
    function, ``disable`` one that calls it.
    """

    def __init__(self) -> None:
        self._waiting: list[Callable[[ModuleType], None]] = []

    def apply(self, compiler: ModuleType) -> None:
        waiting, self._waiting = self._waiting, []
        for decorate in waiting:
            decorate(compiler)

    def allow_in_graph(self, function: Any) -> Any:
        self._waiting.append(lambda compiler: compiler.allow_in_graph(function))
        return function

    def assume_constant_result(self, function: Any) -> Any:
        self._waiting.append(lambda compiler: compiler.assume_constant_result(function))
        return function

    def disable(self, function: Any = None, recursive: bool = True, **options: Any) -> Any:
        if function is None:
            return functools.partial(self.disable, recursive=recursive, **options)
        if not isinstance(function, FunctionType):  # a class or a module is changed by its decoration
            return importlib.import_module("torch.compiler").disable(function, recursive, **options)
        called: list[Callable[..., Any]] = [function]

        def disable(compiler: ModuleType) -> None:
            called[0] = compiler.disable(function, recursive, **options)

        @functools.wraps(function)
        def undecorated(*args: Any, **kwargs: Any) -> Any:
            return called[0](*args, **kwargs)

        self._waiting.append(disable)
        return undecorated


class Uncompiled:
    """``torch._dynamo.eval_frame`` before the compiler is imported: diffusers asks whether a network is compiled."""

    class OptimizedModule:
        """Nothing is an instance of it yet."""

    def __init__(self, compiler: Deferred) -> None:
        self._compiler = compiler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiler.load().eval_frame, name)


def defer_unused() -> None:
    """Defer the imports named above, those that have not happened. Idempotent. Imports torch and scipy, their packages."""
    if "torch._dynamo" not in sys.modules:
        _defer_compiler()
    for name in ("scipy.stats", "scipy.integrate"):
        if name not in sys.modules:
            sys.modules[name] = Deferred(name, {}, lambda _: None)
    if "scipy.optimize" not in sys.modules:
        _defer_assignment()


def _defer_assignment() -> None:
    """transformers' losses of detectors import ``linear_sum_assignment`` by name; they get one that imports it when it is called."""

    def linear_sum_assignment(*args: Any, **kwargs: Any) -> Any:
        return optimize.load().linear_sum_assignment(*args, **kwargs)

    optimize = sys.modules["scipy.optimize"] = Deferred("scipy.optimize", {}, lambda _: None)
    optimize.withhold("linear_sum_assignment", linear_sum_assignment)


def _defer_compiler() -> None:
    marks = Marks()
    own: dict[str, Any] = {
        name: getattr(marks, name) for name in ("allow_in_graph", "assume_constant_result", "disable")
    }
    # transformers' masks want a class of this submodule
    apart = ("torch._dynamo._trace_wrapped_higher_order_op",)
    compiler = sys.modules["torch._dynamo"] = Deferred("torch._dynamo", own, marks.apply, apart)
    compiler.withhold("eval_frame", Uncompiled(compiler))


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause garbage collection while modules are imported. What the first imports of diffusers leave is never looked at again."""
    first, enabled = "diffusers" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if first and "diffusers" in sys.modules:
            gc.freeze()
        if enabled:
            gc.enable()


# Of glibc's mallopt (malloc.h), and the largest threshold that every version takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGEST = -1, -3, 32 << 20


def keep_freed_memory() -> bool:
    """For a process that paints and ends: glibc keeps what is freed, where it would give it back to the system and get it again page
    by page. The peak of memory is the same; how much sooner a picture is there: docs/speed.md. Returns whether there is a glibc to
    be told.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows, macOS
        return False
    large = mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_THRESHOLD, _LARGEST)
    return bool(large and mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
