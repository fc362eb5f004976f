"""What an ordinary checkpoint says of its epsilons: which key of a configuration sets which of them.

Found by building the same class twice, without memory, from two configurations that differ in that key: no class is named
here. Knows diffusers' and transformers' way of keeping a configuration.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from starrynight.numerics.modules import join, named_modules
from starrynight.numerics.solve import CheckpointConstraints


def checkpoint_constraints(
    networks: Mapping[str, torch.nn.Module], told: Mapping[str, int] | None = None
) -> CheckpointConstraints:
    """The keys of all networks, as "network.key"; ``told``: see ``CheckpointConstraints``."""
    keys = {}
    for name, network in networks.items():
        for key in _keys(network):
            if members := frozenset(_set_by(network, key, name)):
                keys[join(name, key)] = members
    return CheckpointConstraints(keys, told or {})


def _keys(network: torch.nn.Module) -> list[str]:
    """Keys of the configuration that hold a small positive number and are called an epsilon."""
    config: Any = getattr(network, "config", None) or {}
    entries = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return [key for key, value in entries.items() if "eps" in key and isinstance(value, float) and value > 0]


def _set_by(network: torch.nn.Module, key: str, prefix: str) -> Iterator[str]:
    """The epsilons ("module.attribute") that are twice as large when the key is."""
    one, two = (_rebuilt(network, key, factor) for factor in (1.0, 2.0))
    if one is None or two is None:
        return
    others = dict(named_modules(two))
    for name, module in named_modules(one):
        for attribute, value in vars(module).items():
            if "eps" in attribute and isinstance(value, float) and vars(others[name])[attribute] == 2 * value:
                yield join(prefix, name, attribute)


def _rebuilt(network: torch.nn.Module, key: str, factor: float) -> torch.nn.Module | None:
    """The same class from the same configuration but for one key, on no device; None if it cannot be built so."""
    config: Any = network.config
    cls: Any = type(network)
    with torch.device("meta"):
        try:
            if hasattr(config, "to_dict"):
                other = copy.deepcopy(config)
                setattr(other, key, getattr(config, key) * factor)
                return cls(other)
            # without its notes on itself: one of them would bring defaults back
            told = {name: value for name, value in config.items() if not name.startswith("_")}
            return cls.from_config({**told, key: told[key] * factor})
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            return None
