"""Samplers: short names to diffusers' schedulers, one table for flow matching and one for noise prediction.

Knows scheduler classes by name and imports diffusers only to build one. A sampler takes over the model's own
schedule (shift, betas, prediction type) and changes only how steps are taken.
"""

from __future__ import annotations

from typing import Any

from starrynight.errors import UnknownName

KIND = ("sampler", "采样器")

# name → (scheduler class, what to change in the model's own configuration)
FLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "euler_sde": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "lcm": ("FlowMatchLCMScheduler", {}),
}
NOISE: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),  # its warm-up fails below four steps
    "unipc": ("UniPCMultistepScheduler", {}),
}


def names(flow: bool) -> list[str]:
    return sorted(FLOW if flow else NOISE)


def find(name: str, flow: bool) -> tuple[str, dict[str, Any]]:
    """The scheduler class and changes behind a name; "DPM++ 2M Karras" is dpmpp_2m_karras. Raises UnknownName."""
    key = name.strip().lower().replace("++", "pp").replace(" ", "_").replace("-", "_")
    table = FLOW if flow else NOISE
    if key not in table:
        hint = ("This model predicts flow.", "该模型为流匹配模型。") if flow and key in NOISE else ("", "")
        raise UnknownName(KIND, name, table, hint)
    return table[key]


def build(name: str | None, scheduler: Any) -> Any:
    """A fresh scheduler for one picture: the model's own, or ``name`` with the model's own schedule."""
    import diffusers

    if name is None:
        return type(scheduler).from_config(scheduler.config)
    class_name, changes = find(name, flow="Flow" in type(scheduler).__name__)
    return getattr(diffusers, class_name).from_config(scheduler.config, **changes)


def name_of(scheduler: Any) -> str:
    """What to call a scheduler in a recipe: its short name here, or its class for one the tables do not have."""
    class_name = type(scheduler).__name__
    known = [
        (len(changes), name)
        for name, (its_class, changes) in (FLOW if "Flow" in class_name else NOISE).items()
        if its_class == class_name
        and all(scheduler.config.get(key) == value for key, value in changes.items())
    ]
    return max(known)[1] if known else class_name
