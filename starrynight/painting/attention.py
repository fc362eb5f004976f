"""Attention back ends by short names: choosing one for a pipeline, and changing to another in the middle of a picture.

Knows diffusers' attention processors and transformers' switch; knows no model by name. A choice holds for the networks
it was made for: the library's process-wide default is left as it was.
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
    """diffusers makes a network's back end the whole process's; another painter must not inherit it."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as registry

    before = registry._active_backend
    try:
        yield
    finally:
        registry.set_active_backend(before)


def change(network: torch.nn.Module) -> tuple[str, Callable[[], None]] | None:
    """Let ``network`` compute its attention the other way: step by step instead of fused, or fused if it was not.

    Returns the new way's name and how to go back; None for a network whose attention cannot be changed.
    """
    back: list[Callable[[], None]] = []
    names = {name for module in network.modules() if (name := _other(module, back))}
    name = _other_of_transformers(network, back)
    names |= {name} if name else set()

    def undo() -> None:
        for step in reversed(back):
            step()

    return (", ".join(sorted(names)), undo) if names else None


def _other(module: Any, back: list[Callable[[], None]]) -> str | None:
    """One attention layer of diffusers: dispatched ones by their back end, older ones by their processor."""
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


def _other_of_transformers(network: Any, back: list[Callable[[], None]]) -> str | None:
    before = getattr(getattr(network, "config", None), "_attn_implementation", None)
    if before is None or not hasattr(network, "set_attn_implementation"):
        return None
    after = "sdpa" if before == "eager" else "eager"
    network.set_attn_implementation(after)
    if network.config._attn_implementation != after:
        return None
    back.append(lambda: network.set_attn_implementation(before))
    return after
