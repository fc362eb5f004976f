"""Integer unknowns, one for the scale of each tensor, and the linear relations between them."""

from __future__ import annotations

from collections import Counter
from typing import Any

# The unknown that stands for the number 0.
PINNED = 0


class Exponents:
    """Integer unknowns and the linear relations Σ coefficient · unknown = 0 between them.

    Equal unknowns are merged at once by union-find.
    """

    def __init__(self) -> None:
        self._parent = [PINNED]
        self._relations: dict[tuple[tuple[int, int], ...], None] = {}

    def new(self) -> int:
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def __len__(self) -> int:
        return len(self._parent)

    def root(self, unknown: int) -> int:
        while self._parent[unknown] != unknown:
            self._parent[unknown] = self._parent[self._parent[unknown]]
            unknown = self._parent[unknown]
        return unknown

    def same(self, *unknowns: int) -> None:
        roots = sorted({self.root(unknown) for unknown in unknowns})
        for other in roots[1:]:  # the smallest becomes the root, so that PINNED stays a root
            self._parent[other] = roots[0]

    def pin(self, *unknowns: int) -> None:
        self.same(PINNED, *unknowns)

    def relate(self, *terms: tuple[int, int]) -> None:
        """Σ coefficient · unknown = 0 over ``terms`` of (unknown, coefficient)."""
        self._relations[terms] = None

    def relations(self) -> list[dict[int, int]]:
        """The distinct relations between roots, as {root: coefficient}, in the order they were added."""
        distinct: dict[tuple[tuple[int, int], ...], None] = {}
        for terms in self._relations:
            total: Counter[int] = Counter()
            for unknown, coefficient in terms:
                total[self.root(unknown)] += coefficient
            reduced = tuple(sorted((u, c) for u, c in total.items() if c and u != PINNED))
            if reduced:
                distinct[reduced] = None
        return [dict(terms) for terms in distinct]

    def as_data(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {"parents": self._parent, "relations": list(self._relations)}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Exponents:
        """Read the output of ``as_data``."""
        found = cls()
        found._parent = list(data["parents"])
        for terms in data["relations"]:
            found.relate(*((unknown, coefficient) for unknown, coefficient in terms))
        return found
