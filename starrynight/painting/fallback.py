"""The fallbacks: what may be changed in a component whose numbers are not finite, tried in a fixed order.

A fallback is a function ``change(component, fault)``. It changes how the component computes and returns a note of what it
did, or None where it does not apply (the component is float32 already, the faulty module is unknown). Every change is
undone when the picture is finished, so a picture depends on its request alone. The guard decides whether a change helped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from starrynight.models.kept import KeptLayer
from starrynight.models.load import denoiser_name, is_decoding, narrowest, networks
from starrynight.numerics.dtypes import HALVES
from starrynight.numerics.effective import set_effective_weights
from starrynight.numerics.fold import compose, fold_epsilons
from starrynight.numerics.islands import Enter, Leave, inside
from starrynight.numerics.modules import join, named_modules, own_tensors
from starrynight.numerics.solve import FoldPlan
from starrynight.painting import attention, offload
from starrynight.verdict import Fault


@dataclass
class Component:
    """The networks that one stage of the pipeline runs, by their names in the pipeline.

    ``stores``: 16-bit formats whose results are right on this device. ``stored``: the quantised format of its files, or "".
    ``format``: the plan's, "" where the parameters tell it. ``reload`` returns the parameters of the model's
    files in float32, by the same names. ``replan`` computes new folds that include the ranges of the broken picture, and
    returns the difference to the folds in force and the weights folded by it; None where nothing can be replanned.
    """

    name: str
    networks: Mapping[str, nn.Module]
    stores: frozenset[str] = frozenset(("bfloat16", "float16"))
    reload: Callable[[], Mapping[str, torch.Tensor]] | None = None
    replan: Callable[[], tuple[FoldPlan, Mapping[str, torch.Tensor]] | None] | None = None
    stored: str = ""
    format: str = ""
    islands: dict[str, tuple[Any, ...]] = field(
        default_factory=dict
    )  # by module, the hooks that cast at its border
    tried: set[str] = field(default_factory=set)
    _undo: ExitStack = field(default_factory=ExitStack)

    def held(self) -> torch.dtype:
        """The narrowest format its parameters are held in."""
        return narrowest([*self.networks.values()])

    def half(self) -> torch.dtype | None:
        """The 16-bit format its parameters are held in; None once everything is float32."""
        held = self.held()
        return held if held in HALVES else None

    def find(self, name: str) -> nn.Module | None:
        """The module of that full name."""
        for root, network in self.networks.items():
            if inside(name, (root,)):
                return dict(network.named_modules()).get(name[len(root) :].lstrip("."))
        return None

    def later_undo(self, undo: Callable[[], Any]) -> None:
        self._undo.callback(undo)

    def restore(self) -> None:
        """Undo every change."""
        self._undo.close()
        self.islands, self.tried = {}, set()

    def refold(self, difference: FoldPlan, fresh: Mapping[str, torch.Tensor]) -> None:
        """Replace the weights by ones folded by a new plan. This is kept: a restart would load the same weights."""
        for name, module in named_modules(self.networks):
            for own in own_tensors(module):
                offload.put(module, own, fresh[join(name, own)])
        fold_epsilons(self.networks, difference)
        set_effective_weights(self.networks, difference.offsets)
        for island in difference.islands:
            if self.find(island) is not None and not inside(island, self.islands):
                self.make_island(island)
        self._undo.pop_all()

    def make_island(self, name: str) -> None:
        """Let one module compute in float32; islands inside it become part of it."""
        module = self.find(name)
        assert module is not None
        for island in [island for island in self.islands if inside(island, (name,))]:
            for hook in self.islands.pop(island):
                hook.remove()
        around = self.held()
        self.recast(torch.float32, within=name)
        self.islands[name] = (
            module.register_forward_pre_hook(Enter(), with_kwargs=True),
            module.register_forward_hook(Leave(around)),
        )
        for hook in self.islands[name]:
            self.later_undo(hook.remove)

    def recast(self, dtype: torch.dtype, within: str | None = None) -> None:
        """Hold 16-bit parameters in ``dtype``: all of them, or those of one module."""
        originals: list[Mapping[str, torch.Tensor]] = []
        for root, network in self.networks.items():
            for name, module in network.named_modules():
                full = f"{root}.{name}".rstrip(".")
                if within is None or inside(full, (within,)):
                    self._recast_module(full, module, dtype, originals)
                if within is None:  # islands made at loading cast their results to what the rest is held in
                    for leave in [hook for hook in module._forward_hooks.values() if isinstance(hook, Leave)]:
                        self.later_undo(partial(setattr, leave, "dtype", leave.dtype))
                        leave.dtype = dtype

    def _recast_module(self, full: str, module: nn.Module, dtype: torch.dtype, originals: list[Any]) -> None:
        if isinstance(module, KeptLayer) and module.held in HALVES:
            self.later_undo(partial(setattr, module, "held", module.held))
            module.held = dtype
        for name in own_tensors(module):
            tensor = offload.numbers(module, name).detach()
            if tensor.dtype in HALVES and tensor.dtype != dtype:
                offload.put(module, name, self._widened(f"{full}.{name}", tensor, dtype, originals))
                # by name, because offloading replaces tensors; kept on the CPU, so that the device holds one copy
                self.later_undo(partial(offload.put, module, name, tensor.cpu()))

    def _widened(
        self, name: str, tensor: torch.Tensor, dtype: torch.dtype, originals: list[Any]
    ) -> torch.Tensor:
        """The tensor in ``dtype``; read from the model's files where rounding to 16 bits had made it infinite."""
        wide = tensor.to(dtype)
        if self.reload is None or bool(torch.isfinite(wide).all()):
            return wide
        if not originals:
            originals.append(self.reload())
        original = originals[0].get(name.replace(".base_layer", ""))  # PEFT's name for a layer under a LoRA
        return wide if original is None else original.to(tensor.device, dtype)


def components_of(
    pipeline: Any, formats: frozenset[str], reload: Callable[[], Mapping[str, torch.Tensor]]
) -> dict[str, Component]:
    """A pipeline's components by their roles in a precision plan. ``formats``: see ``Component.stores``."""
    parts, denoiser = networks(pipeline), denoiser_name(pipeline)
    roles: dict[str, dict[str, nn.Module]] = {denoiser: {denoiser: parts[denoiser]}}
    roles["text_encoder"] = {name: part for name, part in parts.items() if name.startswith("text_encoder")}
    for name, part in parts["vae"].named_children() if "vae" in parts else ():
        roles.setdefault("vae_decode" if is_decoding(name) else "vae_encode", {})[f"vae.{name}"] = part
    return {role: Component(role, found, formats, reload) for role, found in roles.items() if found}


def difference(before: FoldPlan, after: FoldPlan, part: Component) -> FoldPlan:
    """The plan that turns ``part`` folded by ``before`` into ``part`` folded by ``after``; its offsets are all of ``after``."""

    def powers(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
        names = [name for name in sorted({*old, *new}) if inside(name, part.networks)]
        return {
            name: new.get(name, 0) - old.get(name, 0)
            for name in names
            if new.get(name, 0) != old.get(name, 0)
        }

    islands = tuple(i for i in after.islands if inside(i, part.networks) and not inside(i, before.islands))
    return replace(
        after,
        parameters=powers(before.parameters, after.parameters),
        epsilons=powers(before.epsilons, after.epsilons),
        islands=islands,
        offsets={name: number for name, number in after.offsets.items() if inside(name, part.networks)},
    )


def updated(before: FoldPlan, changed: FoldPlan, part: Component) -> FoldPlan:
    """The plan in force once ``part``, folded by ``before``, is changed by a ``difference``."""
    elsewhere = {name: n for name, n in before.offsets.items() if not inside(name, part.networks)}
    return replace(compose(before, changed), offsets=elsewhere | dict(changed.offsets))


@dataclass(frozen=True)
class Fallback:
    """``change`` returns a note of what it changed (may be empty), or None where it does not apply. A fallback that
    ``grows`` is tried again, each time changing more, until it returns None.
    """

    name: str
    change: Callable[[Component, Fault], str | None]
    grows: bool = False


def replan(part: Component, fault: Fault) -> str | None:
    """New folds that include the ranges just seen. They are cached with the model, so later pictures start with them."""
    if part.replan is None or part.half() is None or (planned := part.replan()) is None:
        return None
    part.refold(*planned)
    return ""


def float32_decoder(part: Component, fault: Fault) -> str | None:
    return _recast(part, torch.float32) if part.name == "vae_decode" else None


def float32_island(part: Component, fault: Fault) -> str | None:
    """Let the faulty module compute in float32; if it already does, its result did not fit, so take the module around it."""
    if part.half() is None or not fault.module:
        return None
    name = _island_around(part, fault.module)
    if name is None:
        return None
    part.make_island(name)
    return ", ".join(part.islands)


def _island_around(part: Component, name: str) -> str | None:
    """The smallest called module at or above ``name`` that is no island yet; None if only the whole network is left."""
    while name not in part.networks:
        module = part.find(name)
        called = module is not None and not isinstance(module, nn.ModuleList | nn.ModuleDict)
        if called and not inside(name, part.islands):
            return name
        if "." not in name:
            return None
        name = name.rpartition(".")[0]
    return None


def bfloat16_model(part: Component, fault: Fault) -> str | None:
    usable = part.half() == torch.float16 and "bfloat16" in part.stores
    return _recast(part, torch.bfloat16) if usable else None


def float32_model(part: Component, fault: Fault) -> str | None:
    return _recast(part, torch.float32)


def other_attention(part: Component, fault: Fault) -> str | None:
    names = []
    for network in part.networks.values():
        if changed := attention.change(network):
            name, back = changed
            names.append(name)
            part.later_undo(back)
    return ", ".join(dict.fromkeys(names)) or None


FALLBACKS = (
    Fallback("replan", replan),
    Fallback("decoder", float32_decoder),
    Fallback("islands", float32_island, grows=True),
    Fallback("bfloat16", bfloat16_model),
    Fallback("float32", float32_model),
    Fallback("attention", other_attention),
)


def _recast(part: Component, dtype: torch.dtype) -> str | None:
    if part.half() is None:
        return None
    part.recast(dtype)
    return ""
