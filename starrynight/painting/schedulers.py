"""Short sampler names to diffusers' schedulers: one table for flow matching, one for noise prediction.

A sampler keeps the model's own schedule (shift, betas, prediction type) and changes only how steps are taken. diffusers
is imported only to build one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starrynight.errors import BadRequest, UnknownName
from starrynight.models.habits import LEAST_ALPHA, configured

if TYPE_CHECKING:
    from torch import Tensor

KIND = ("sampler", "采样器")

# name → (scheduler class, what to change in the model's own configuration)
FLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "euler_sde": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "lcm": ("FlowMatchLCMScheduler", {}),
    "dpmpp_2m": (
        "DPMSolverMultistepScheduler",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ),
    "unipc": ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
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
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),  # Runge-Kutta warm-up fails below four steps
    "unipc": ("UniPCMultistepScheduler", {}),
}

# Samplers that keep the latents' variance at 1; the others of NOISE let it grow with the noise.
VARIANCE_PRESERVING = ("DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
                       "PNDMScheduler", "UniPCMultistepScheduler")  # fmt: skip

Conservative = Callable[["Tensor", "Tensor", int], "Tensor"]


def names(flow: bool) -> list[str]:
    return sorted(FLOW if flow else NOISE)


def find(name: str, flow: bool) -> tuple[str, dict[str, Any]]:
    """The scheduler class and changes behind a name; "DPM++ 2M Karras" is dpmpp_2m_karras. Raises UnknownName."""
    key, table = key_of(name), FLOW if flow else NOISE
    if key not in table:
        hint = ("This model predicts flow.", "该模型为流匹配模型。") if flow and key in NOISE else ("", "")
        raise UnknownName(KIND, name, table, hint)
    return table[key]


def key_of(name: str) -> str:
    """A sampler's name as the tables have it."""
    return name.strip().lower().replace("++", "pp").replace(" ", "_").replace("-", "_")


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler belongs to flow matching."""
    return "Flow" in type(scheduler).__name__ or bool(scheduler.config.get("use_flow_sigmas"))


def build(name: str | None, scheduler: Any) -> Any:
    """A fresh scheduler for one picture: the model's own, or ``name`` with the model's own schedule."""
    import diffusers

    if name is None:
        return _accepting_flow_arguments(configured(type(scheduler), scheduler.config))
    if type(scheduler).__name__.startswith("EDM"):
        raise BadRequest(
            f"This model is sampled by EDM's schedule; {name} has none. Leave the sampler out.",
            f"此模型采用 EDM 噪声调度，{name} 不支持；请不要指定采样器。",
        )
    class_name, changes = find(name, is_flow(scheduler))
    if "use_karras_sigmas" in changes and scheduler.config.get("rescale_betas_zero_snr"):
        # Its first noise levels would all round to the last timestep, and diffusers takes the second of them for the first.
        raise BadRequest(
            f"{name} has no steps for zero terminal SNR, which this model is trained to; use dpmpp_2m.",
            f"该模型训练到零终端信噪比，{name} 没有相应的步；请改用 dpmpp_2m。",
        )
    if "use_flow_sigmas" in changes:
        changes = changes | {
            "flow_shift": scheduler.config.get("shift", scheduler.config.get("flow_shift", 1.0))
        }
    return _accepting_flow_arguments(configured(getattr(diffusers, class_name), scheduler.config, **changes))


def _accepting_flow_arguments(scheduler: Any) -> Any:
    """Let ``set_timesteps`` accept what flow pipelines pass: ``mu``, a shift by the picture's size, and a list of sigmas; and
    give ``add_noise`` the name and order that their img2img siblings know.

    Schedulers other than the pipeline's own reject these arguments, so each gets only those that it takes.
    """
    if (
        not is_flow(scheduler)
        or "FlowMatchEuler" in type(scheduler).__name__
        or "LCM" in type(scheduler).__name__
    ):
        return scheduler
    choose = scheduler.set_timesteps
    by_sizes = scheduler.config.get("use_dynamic_shifting") and "mu" in inspect.signature(choose).parameters

    def set_timesteps(
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        by_size = {"mu": mu} if mu is not None and by_sizes else {}
        choose(len(sigmas) if num_inference_steps is None else num_inference_steps, device=device, **by_size)

    scheduler.set_timesteps = set_timesteps
    if not hasattr(scheduler, "scale_noise"):  # img2img of flow matching calls its noise so
        scheduler.scale_noise = lambda sample, timestep, noise: scheduler.add_noise(sample, noise, timestep)
    return scheduler


def name_of(scheduler: Any) -> str:
    """A scheduler's name in a recipe: its short name, or its class if the tables do not have it."""
    class_name = type(scheduler).__name__
    known = [
        (len(changes), name)
        for name, (its_class, changes) in (FLOW if is_flow(scheduler) else NOISE).items()
        if its_class == class_name
        and all(scheduler.config.get(key) == value for key, value in changes.items())
    ]
    return max(known)[1] if known else class_name


def conservative(scheduler: Any, first_time: Any) -> tuple[str, Conservative] | None:
    """A scheduler for steps that ``scheduler`` computes as NaN or Inf, between the same noise levels: Euler ancestral for
    noise prediction, Euler for flow matching. None if ``scheduler`` is that one, or is not in the tables.

    Returns its name and ``step(model_output, sample, number)``, which keeps no state between steps. ``first_time`` is the
    timestep of step 0; img2img begins later in the schedule.
    """
    name = "euler" if is_flow(scheduler) else "euler_a"
    class_name, changes = find(name, is_flow(scheduler))
    known = {its_class for its_class, _ in (FLOW if is_flow(scheduler) else NOISE).values()}
    if (
        type(scheduler).__name__ not in known
        or name_of(scheduler) == name
        or scheduler.config.get("prediction_type") == "sample"
    ):
        return None
    import diffusers

    plain = configured(getattr(diffusers, class_name), scheduler.config, stochastic_sampling=False, **changes)
    plain.sigmas, plain.timesteps = _sigmas(scheduler), scheduler.timesteps
    plain.is_scale_input_called = True  # the pipeline's own scheduler has done it
    first = int((scheduler.timesteps == first_time).nonzero()[0])
    preserving = type(scheduler).__name__ in VARIANCE_PRESERVING and not is_flow(scheduler)

    def step(model_output: Tensor, sample: Tensor, number: int) -> Tensor:
        here, there = plain.sigmas[first + number], plain.sigmas[first + number + 1]
        plain._step_index = first + number
        if preserving:
            sample = sample.float() * (1 + here**2) ** 0.5
        latents = plain.step(model_output, 0.0, sample, return_dict=False)[0]
        return latents / (1 + there**2) ** 0.5 if preserving else latents

    return name, step


def _sigmas(scheduler: Any) -> Tensor:
    """The noise level of each step, and 0 after the last: the scheduler's own list, or computed from its timesteps."""
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas
    alphas = scheduler.alphas_cumprod[scheduler.timesteps.long().cpu()].clamp(min=LEAST_ALPHA)
    return (((1 - alphas) / alphas) ** 0.5).new_tensor([*((1 - alphas) / alphas) ** 0.5, 0.0])
