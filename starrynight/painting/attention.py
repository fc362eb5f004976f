"""Attention back ends by short names: choose one for a pipeline, or switch during a picture.

A choice applies to the networks it is made for; diffusers' process-wide default is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from starrynight.errors import MissingPackage, UnknownName

BACKENDS = {
    "native": "native",
    "math": "_native_math",
    "xformers": "xformers",
    "flash": "flash",
    "sage": "sage",
}
PACKAGES = {"xformers": "xformers", "flash": "flash_attn", "sage": "sageattention"}


def choose(pipeline: Any, denoiser: Any, name: str) -> None:
    """Select the attention back end. Raises UnknownName, or MissingPackage when its package is not installed."""
    if name not in BACKENDS:
        raise UnknownName(("attention back end", "注意力后端"), name, BACKENDS)
    package = PACKAGES.get(name)
    if package and find_spec(package) is None:
        raise MissingPackage(
            f"Attention “{name}” needs the package {package}: pip install {package.replace('_', '-')}.",
            f"注意力后端“{name}”需要软件包 {package}：pip install {package.replace('_', '-')}。",
        )
    if name == "xformers" and hasattr(pipeline, "unet"):  # UNets' processors do not go through the dispatcher
        pipeline.enable_xformers_memory_efficient_attention()
    elif name != "native":
        with _default_kept():
            denoiser.set_attention_backend(BACKENDS[name])


@contextmanager
def _default_kept() -> Iterator[None]:
    """Restore diffusers' process-wide back end, which setting a network's changes as well."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as registry

    before = registry._active_backend
    try:
        yield
    finally:
        registry.set_active_backend(before)


def change(network: torch.nn.Module) -> tuple[str, Callable[[], None]] | None:
    """Switch ``network`` from fused to unfused attention, or back.

    Returns the new back end's name and a function that undoes the switch; None for a network that cannot be switched.
    """
    back: list[Callable[[], None]] = []
    names = {name for module in network.modules() if (name := _switch_layer(module, back))}
    name = _switch_transformers(network, back)
    names |= {name} if name else set()

    def undo() -> None:
        for step in reversed(back):
            step()

    return (", ".join(sorted(names)), undo) if names else None


def _switch_layer(module: Any, back: list[Callable[[], None]]) -> str | None:
    """One attention layer of diffusers: by its dispatched back end, or by its processor in older classes."""
    from diffusers.models.attention_dispatch import AttentionBackendName
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, XFormersAttnProcessor

    processor: Any = getattr(module, "processor", None)
    if hasattr(processor, "_attention_backend"):
        before = processor._attention_backend
        math = AttentionBackendName._NATIVE_MATH
        after = AttentionBackendName.NATIVE if before == math else math
        processor._attention_backend = after
        back.append(lambda: setattr(processor, "_attention_backend", before))
        return "native" if before == math else "math"
    if isinstance(processor, (AttnProcessor, AttnProcessor2_0, XFormersAttnProcessor)) and hasattr(
        module, "set_processor"
    ):
        fused = isinstance(processor, AttnProcessor2_0)
        module.set_processor(AttnProcessor() if fused else AttnProcessor2_0())
        back.append(lambda: module.set_processor(processor))
        return "math" if fused else "native"
    return None


def _switch_transformers(network: Any, back: list[Callable[[], None]]) -> str | None:
    before = getattr(getattr(network, "config", None), "_attn_implementation", None)
    if before is None or not hasattr(network, "set_attn_implementation"):
        return None
    after = "sdpa" if before == "eager" else "eager"
    network.set_attn_implementation(after)
    if network.config._attn_implementation != after:
        return None
    back.append(lambda: network.set_attn_implementation(before))
    return after
