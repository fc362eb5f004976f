"""The ladder: what is changed in a component whose numbers broke, one rung at a time, until they are whole again.

Every rung has one shape: ``climb(part, fault)`` changes how the part computes and says what it did, or returns None
where it cannot help (the part is float32 already, the fault has no place). All changes are taken back when the picture
is done, so that a picture depends on its request alone and not on what broke before it. Knows components and formats;
knows neither steps nor pictures, and does not judge whether a change helped (``guard`` does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from starrynight.numerics.fold import fold_epsilons
from starrynight.numerics.islands import Enter, Leave, inside
from starrynight.numerics.modules import join, named_modules, own_tensors
from starrynight.numerics.solve import FoldPlan
from starrynight.painting import attention, offload
from starrynight.verdict import Fault

HALVES = (torch.float16, torch.bfloat16)
NARROW = (torch.float8_e4m3fn, torch.float8_e5m2, *HALVES)


@dataclass
class Component:
    """A component as one stage sees it: its networks by the names they have in the pipeline.

    ``stores``: 16-bit formats whose results are right on this device. ``refill`` reads parameters anew from the model's
    files, in float32, by the same names. ``replan`` plans the folds anew with the picture that broke, and gives the
    difference to those in force and the weights so folded; None where there is nothing to plan.
    """

    name: str
    networks: Mapping[str, nn.Module]
    stores: frozenset[str] = frozenset(("bfloat16", "float16"))
    refill: Callable[[], Mapping[str, torch.Tensor]] | None = None
    replan: Callable[[], tuple[FoldPlan, Mapping[str, torch.Tensor]] | None] | None = None
    islands: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # by module, the hooks at its border
    climbed: set[str] = field(default_factory=set)
    _undo: ExitStack = field(default_factory=ExitStack)
    _held: list[torch.dtype] = field(default_factory=list)  # the property's answer, once it is known

    @property
    def held(self) -> torch.dtype:
        """The narrowest format its parameters are held in."""
        if not self._held:
            formats = {p.dtype for network in self.networks.values() for p in network.parameters()}
            self._held = [next((narrow for narrow in NARROW if narrow in formats), torch.float32)]
        return self._held[0]

    @property
    def narrow(self) -> torch.dtype | None:
        """The 16-bit format its parameters are held in; None once everything is float32."""
        return self.held if self.held in HALVES else None

    def find(self, name: str) -> nn.Module | None:
        """The module of that whole name."""
        for root, network in self.networks.items():
            if inside(name, (root,)):
                return dict(network.named_modules()).get(name[len(root) :].lstrip("."))
        return None

    def later_undo(self, undo: Callable[[], Any]) -> None:
        self._undo.callback(undo)

    def restore(self) -> None:
        """Take every change back."""
        self._undo.close()
        self.islands, self.climbed, self._held = {}, set(), []

    def refold(self, difference: FoldPlan, fresh: Mapping[str, torch.Tensor]) -> None:
        """The weights as another plan has them, from the model's files: what a new start would paint with. They stay."""
        for name, module in named_modules(self.networks):
            for own in own_tensors(module):
                offload.put(module, own, fresh[join(name, own)])
        fold_epsilons(self.networks, difference)
        self._held = []
        for island in difference.islands:
            if self.find(island) is not None and not inside(island, self.islands):
                self.make_island(island)
        self._undo.pop_all()

    def make_island(self, name: str) -> None:
        """One module computes in float32 from now on; borders within it fall."""
        module = self.find(name)
        assert module is not None
        for island in [island for island in self.islands if inside(island, (name,))]:
            for hook in self.islands.pop(island):
                hook.remove()
        around = self.held
        self.recast(torch.float32, within=name)
        self.islands[name] = (
            module.register_forward_pre_hook(Enter(), with_kwargs=True),
            module.register_forward_hook(Leave(around)),
        )
        for hook in self.islands[name]:
            self.later_undo(hook.remove)

    def recast(self, dtype: torch.dtype, within: str | None = None) -> None:
        """Hold 16-bit numbers in ``dtype``; all of them, or those of one module."""
        self._held = []  # first: memory may end half-way
        originals: list[Mapping[str, torch.Tensor]] = []
        for root, network in self.networks.items():
            for name, module in network.named_modules():
                full = f"{root}.{name}".rstrip(".")
                if within is None or inside(full, (within,)):
                    self._recast_module(full, module, dtype, originals)
                if within is None:  # islands there were already hand on what the rest is held in
                    for leave in [hook for hook in module._forward_hooks.values() if isinstance(hook, Leave)]:
                        self.later_undo(partial(setattr, leave, "dtype", leave.dtype))
                        leave.dtype = dtype

    def _recast_module(self, full: str, module: nn.Module, dtype: torch.dtype, originals: list[Any]) -> None:
        for name in own_tensors(module):
            tensor = offload.numbers(module, name).detach()
            if tensor.dtype in HALVES and tensor.dtype != dtype:
                offload.put(module, name, self._whole(f"{full}.{name}", tensor, dtype, originals))
                # by name, not by tensor, which offloading replaces; waiting where it takes no room beside the wide one
                self.later_undo(partial(offload.put, module, name, tensor.cpu()))

    def _whole(
        self, name: str, tensor: torch.Tensor, dtype: torch.dtype, originals: list[Any]
    ) -> torch.Tensor:
        """The tensor in ``dtype``; where rounding to 16 bits had made it infinite, from the model's files."""
        wide = tensor.to(dtype)
        if self.refill is None or bool(torch.isfinite(wide).all()):
            return wide
        if not originals:
            originals.append(self.refill())
        original = originals[0].get(name.replace(".base_layer", ""))  # where a LoRA sits on the layer
        return wide if original is None else original.to(tensor.device, dtype)


def parts_of(
    pipeline: Any, denoiser: str, stores: frozenset[str], refill: Callable[[], Mapping[str, torch.Tensor]]
) -> dict[str, Component]:
    """A pipeline's components by their roles in a precision plan."""
    networks = {n: part for n, part in pipeline.components.items() if isinstance(part, nn.Module)}
    roles: dict[str, dict[str, nn.Module]] = {denoiser: {denoiser: networks[denoiser]}}
    roles["text_encoder"] = {name: part for name, part in networks.items() if name.startswith("text_encoder")}
    for name, part in networks["vae"].named_children() if "vae" in networks else ():
        decodes = "decoder" in name or "post_quant" in name
        roles.setdefault("vae_decode" if decodes else "vae_encode", {})[f"vae.{name}"] = part
    return {role: Component(role, networks, stores, refill) for role, networks in roles.items() if networks}


def difference(before: FoldPlan, after: FoldPlan, part: Component) -> FoldPlan:
    """What turns a part folded by ``before`` into one folded by ``after``."""

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
    )


@dataclass(frozen=True)
class Fallback:
    """``climb`` says what it changed (a name, or an empty string), or None where it cannot help. One that ``grows`` is
    climbed again, for as long as it can.
    """

    name: str
    climb: Callable[[Component, Fault], str | None]
    grows: bool = False


def replan(part: Component, fault: Fault) -> str | None:
    """Folds that know what was just seen. They are kept with the model, so every later picture begins with them."""
    if part.replan is None or part.narrow is None or (planned := part.replan()) is None:
        return None
    part.refold(*planned)
    return ""


def float32_decoder(part: Component, fault: Fault) -> str | None:
    return _recast(part, torch.float32) if part.name == "vae_decode" else None


def float32_island(part: Component, fault: Fault) -> str | None:
    """The module that broke computes in float32; where it already does, its result did not fit: the one around it."""
    if part.narrow is None or not fault.module:
        return None
    name = _island_around(part, fault.module)
    if name is None:
        return None
    part.make_island(name)
    return ", ".join(part.islands)


def _island_around(part: Component, name: str) -> str | None:
    """The smallest module at or above ``name`` that is called and is no island yet; None when only the whole is left."""
    while name not in part.networks:
        module = part.find(name)
        if module is not None and not inside(name, part.islands) and _is_called(module):
            return name
        if "." not in name:
            return None
        name = name.rpartition(".")[0]
    return None


def _is_called(module: nn.Module) -> bool:
    return not isinstance(module, nn.ModuleList | nn.ModuleDict)


def bfloat16_model(part: Component, fault: Fault) -> str | None:
    usable = part.narrow == torch.float16 and "bfloat16" in part.stores
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
    if part.narrow is None:
        return None
    part.recast(dtype)
    return ""


def cast(value: Any, dtype: torch.dtype, sources: tuple[torch.dtype, ...] | None = None) -> Any:
    """Floats within ``value`` (those of the formats ``sources``, if given) as ``dtype``; all else as it is."""
    if isinstance(value, torch.Tensor):
        wanted = value.is_floating_point() if sources is None else value.dtype in sources
        return value.to(dtype) if wanted else value
    if isinstance(value, Mapping):  # a model's output is a mapping that must keep its type
        items = {key: cast(item, dtype, sources) for key, item in value.items()}
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(cast(item, dtype, sources) for item in value)
    return value
