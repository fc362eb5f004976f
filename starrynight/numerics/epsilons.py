"""Which numbers of a run come from a module's epsilon, an attribute such as ``eps`` or ``norm_epsilon``.

torch hands an op the number alone. So that it can be recognised, every epsilon is replaced during a trace by one
that differs from all others in its last bits (relative 1e-10 at most, far below a float32's own rounding). An epsilon
that is also used in another way, as a factor or a floor, must not be rescaled; arithmetic in Python is noticed
because the stand-in is a subclass of float. A function of the C library that reads it (``math.sqrt``) is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from starrynight.numerics.modules import Modules, named_modules

# "eps" or "epsilon" as a whole word: in ``num_steps`` it is none.
_WORD = re.compile(r"(?:(?:^|_)eps|(?:^|_|(?<=[a-z0-9]))Eps)(?:ilon)?(?=_|\d|[A-Z]|$)")

# Each stand-in differs from the next by this relative amount, 16 units in the last place of a float64.
_STEP = 2.0**-48


def names_epsilon(name: str) -> bool:
    """Whether an attribute or a configuration key is called an epsilon."""
    return _WORD.search(name) is not None


@dataclass(frozen=True)
class Owner:
    """The attribute that holds an epsilon, and its value."""

    module: str
    attribute: str
    value: float

    @property
    def name(self) -> str:
        """As in ``FoldPlan.epsilons``."""
        return f"{self.module}.{self.attribute}"


class WatchedEpsilons:
    """Recognises the epsilons of ``modules``. ``on_arithmetic(owner)`` is called where Python computes with one."""

    def __init__(self, modules: Modules, on_arithmetic: Callable[[Owner], None]) -> None:
        self._owners: dict[float, Owner] = {}
        self._modules, self._on_arithmetic = modules, on_arithmetic

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Replace the epsilons within this context."""
        originals: list[tuple[dict[str, Any], str, float]] = []
        for name, module in named_modules(self._modules):
            own = vars(module)
            for attribute, value in list(own.items()):
                if type(value) is float and value > 0 and names_epsilon(attribute):
                    originals.append((own, attribute, value))
                    own[attribute] = self._stand_in(Owner(name, attribute, value))
        try:
            yield
        finally:
            for own, attribute, value in originals:
                own[attribute] = value

    def _stand_in(self, owner: Owner) -> float:
        value = owner.value
        while value == owner.value or value in self._owners:
            value = (
                owner.value * (1 + _STEP * (len(self._owners) + 1))
                if value == owner.value
                else value * (1 + _STEP)
            )
        self._owners[value] = owner
        return _Epsilon.of(value, lambda: self._on_arithmetic(owner))

    def owner(self, value: Any) -> Owner | None:
        """The owner of a number that an op received."""
        return self._owners.get(value) if isinstance(value, float) else None

    def owners_of(self, tensor: Tensor) -> list[Owner]:
        """The owners of a number that was made a tensor, whose format may not tell them apart."""
        if tensor.numel() != 1 or not tensor.is_floating_point() or tensor.is_meta:
            return []
        number = tensor.reshape(())
        return [owner for value, owner in self._owners.items() if bool(number == number.new_full((), value))]


class _Epsilon(float):
    """A float that reports arithmetic with other numbers; arithmetic with tensors is an op and is seen there."""

    report: Callable[[], None]

    @classmethod
    def of(cls, value: float, report: Callable[[], None]) -> _Epsilon:
        made = cls(value)
        made.report = report
        return made

    def __reduce__(self) -> tuple[type, tuple[float]]:  # a copy is a plain number
        return float, (float.__pos__(self),)

    def __deepcopy__(self, memo: dict) -> float:
        return float.__pos__(self)


# A comparison with 0 has the same answer at every scale.
_ORDERS = frozenset(("__lt__", "__le__", "__gt__", "__ge__"))


def _reporting(name: str) -> Callable[..., Any]:
    compute = getattr(float, name)

    def method(self: _Epsilon, *others: Any) -> Any:
        result = compute(self, *others)
        if result is not NotImplemented and not (name in _ORDERS and others[0] == 0):
            self.report()
        return result

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "radd", "rsub", "rmul", "rtruediv", "rfloordiv",
              "rmod", "rpow", "neg", "abs", "round", "trunc", "int", "lt", "le", "gt", "ge"):  # fmt: skip
    setattr(_Epsilon, f"__{_name}__", _reporting(f"__{_name}__"))
