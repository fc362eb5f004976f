"""Folds for a whole pipeline: trace it while it paints, solve for powers of two, certify them on held-out prompts.

Text encoder, denoiser and decoder are traced together, over every step of a few pictures, in bfloat16. The result is
cached (``cache``); every measurement on the way is cached as well, so that a run that was killed resumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from starrynight.folding.cache import (
    CalibrationCache,
    CalibrationSample,
    Folds,
    OutputReplay,
    cached_folds,
    calibration_cache,
    folds_path,
)
from starrynight.i18n import Text
from starrynight.models import precision_plan
from starrynight.models.catalogue import LocalModel
from starrynight.models.load import call_arguments, denoiser, load, networks, quiet_networks
from starrynight.numerics import precision
from starrynight.numerics.certify import decibels, psnr, relative_error
from starrynight.numerics.device import exact_float32, free_bytes
from starrynight.numerics.measured import Trace
from starrynight.numerics.precision import Choice, PrecisionPlan
from starrynight.numerics.rng import Float32Noise, generator
from starrynight.numerics.solve import FoldPlan, solve_folds
from starrynight.numerics.step import compare_step
from starrynight.numerics.trace import trace_modules
from starrynight.progress import OnProgress, ProgressCounter
from starrynight.storage import write_cache

# The prompts that folds are measured on and certified on: long and short, Chinese and English. Ranges depend far less on
# the words than on the model, so two suffice, and three bits of headroom are kept for all others.
CALIBRATION = (
    "星夜下的静谧村庄，梵高风格，厚重的笔触",
    "neon skyline in rain, cyberpunk, reflections on wet streets, high contrast",
)
HELD_OUT = ("a sunflower field at noon, oil painting", "江雪，孤舟，水墨")

# From this many parameters on, one small picture is traced: a step of such a model takes minutes on a CPU.
LARGE = 1_000_000_000

CPU = torch.device("cpu")

# Bytes beside the weights while a small picture is traced or painted. The trace of a 6.15 B layout took 0.5 GB (docs/log.md).
ACTIVATIONS = 3_000_000_000

# The formats that are compared on the held-out pictures.
CERTIFIED = ("float32", "float32-folded", "float16-folded", "bfloat16")


def prepare(
    model: LocalModel,
    plan: PrecisionPlan,
    on_progress: OnProgress | None = None,
    device: torch.device = CPU,
) -> tuple[PrecisionPlan, FoldPlan | None]:
    """The folds that ``plan`` needs, made now on ``device`` if they are not cached; components they cannot help become
    float32.
    """
    folded = [choice for choice in plan if choice.folded]
    if not folded:
        return plan, None
    folds = cached_folds(model) or make(model, on_progress, device=device)
    unusable = [_unfoldable(choice) for choice in folded if not folds.usable(component_of(choice))]
    return plan.replaced(*unusable), folds.plan


def component_of(choice: Choice) -> str:
    return "vae" if choice.component.startswith("vae") else choice.component


def _unfoldable(choice: Choice) -> Choice:
    return Choice(choice.component, "float32", "no fold brings it inside float16's range",
                  "没有折叠方案能使其落入 float16 范围")  # fmt: skip


def device_for(model: LocalModel, device: torch.device, budget: int | None = None) -> torch.device:
    """Where the folds of a model are made: on ``device`` if it is a CUDA or ROCm card on which both 16-bit formats are right and
    whose free memory (or ``budget`` bytes) holds the whole model in 16 bits, else on the CPU.
    """
    if device.type != "cuda":
        return CPU
    free = free_bytes(device) if budget is None else budget
    fits = free is not None and 2 * sum(model.parameters.values()) + ACTIVATIONS <= free
    right = {"bfloat16", "float16"} <= precision_plan.stores(device.type)
    return device if fits and right else CPU


# -- making folds ----------------------------------------------------------------------------------------------------


def make(
    model: LocalModel,
    on_progress: OnProgress | None = None,
    also: Sequence[CalibrationSample] = (),
    keep: bool = True,
    device: torch.device = CPU,
) -> Folds:
    """Trace, solve, certify and cache. ``also``: pictures to trace besides the usual ones."""
    samples = (*usual(model), *also)
    counter = ProgressCounter(on_progress, sum(s.steps for s in samples) + certificate_pictures(model))
    plan = solve_folds(observe(model, samples, counter=counter, device=device))
    folds = Folds(plan, samples, certify(model, plan, counter, device=device))
    if keep:
        write_cache(folds_path(model), folds.to_json().encode())
    return folds


def replan(
    model: LocalModel,
    sample: CalibrationSample,
    on_progress: OnProgress | None = None,
    device: torch.device = CPU,
) -> Folds:
    """Folds that include the ranges of one more picture: the one whose numbers broke under the old folds."""
    known = cached_folds(model)
    also = (*(known.samples[len(usual(model)) :] if known else ()), sample)
    return make(model, on_progress, also, device=device)


def usual(model: LocalModel) -> tuple[CalibrationSample, ...]:
    """Two pictures of two shapes, all steps; of a large model one small picture.

    A model of several sizes is traced at 256: Firefly's activations are at most 0.95 bits larger at 512 (199 modules, two
    pictures, 2026-11-27), and folds keep three bits of headroom.
    """
    spec = model.spec
    side = max(256, spec.smallest) if is_large(model) or spec.trained else spec.size
    wide = max(side // 2 // spec.multiple * spec.multiple, spec.smallest)
    shapes = [(side, side), (side, wide)][: 1 if is_large(model) else 2]
    return tuple(
        CalibrationSample(prompt, *shape, steps=spec.steps, guidance=spec.guidance, seed=number)
        for number, (prompt, shape) in enumerate(zip(CALIBRATION, shapes, strict=False))
    )


def is_large(model: LocalModel) -> bool:
    return sum(model.parameters.values()) >= LARGE


def _held_out(model: LocalModel) -> tuple[CalibrationSample, ...]:
    """Pictures whose prompts and seeds were not traced."""
    first = usual(model)[0]
    steps = min(first.steps, 2) if is_large(model) else first.steps
    return tuple(
        CalibrationSample(prompt, first.width, first.height, steps, first.guidance, seed=100 + number)
        for number, prompt in enumerate(HELD_OUT[: 1 if is_large(model) else 2])
    )


# -- tracing ---------------------------------------------------------------------------------------------------------


def observe(
    model: LocalModel,
    samples: Sequence[CalibrationSample] = (),
    on_progress: OnProgress | None = None,
    counter: ProgressCounter | None = None,
    device: torch.device = CPU,
) -> Trace:
    """The trace of the whole pipeline over ``samples`` (default: the usual ones), painted in bfloat16 on ``device``.

    Samples traced by an earlier run, completely or in part, are not computed again.
    """
    samples = tuple(samples) or usual(model)
    counter = counter or ProgressCounter(on_progress, sum(sample.steps for sample in samples))
    found, done = _cached_trace(model, samples)
    if done:
        steps = sum(sample.steps for sample in samples[:done])
        counter.advance(Text("ranges measured before", "数值范围此前已测量"), steps)
    if done < len(samples):
        counter.announce(Text("loading the model", "加载模型"))
        pipeline = load(model, uniform(model, "bfloat16", device)).to(device)
        for number in range(done, len(samples)):
            found = _trace_last(pipeline, model, samples[: number + 1], found, counter)
    return found


def first_picture(model: LocalModel, samples: Sequence[CalibrationSample]) -> torch.Tensor | None:
    """The first picture that ``observe`` painted; None where the cache could not be written."""
    return _trace_cache(model, samples[:1]).stored("picture")


def _trace_cache(model: LocalModel, samples: Sequence[CalibrationSample]) -> CalibrationCache:
    return calibration_cache("trace", folds_path(model).stem, tuple(samples))


def _cached_trace(model: LocalModel, samples: Sequence[CalibrationSample]) -> tuple[Trace, int]:
    """The trace of the longest completed run of leading samples, and its length."""
    for count in range(len(samples), 0, -1):
        cached = _trace_cache(model, samples[:count]).trace()
        if cached is not None and cached[1] is None:
            return cached[0], count
    return Trace(), 0


def _trace_last(
    pipeline: Any,
    model: LocalModel,
    samples: Sequence[CalibrationSample],
    found: Trace,
    counter: ProgressCounter,
) -> Trace:
    """Trace the last of ``samples`` into ``found``, which holds those before it; resume where a run was killed."""
    cache = _trace_cache(model, samples)
    found, outputs = cache.trace() or (found, 0)
    replay = OutputReplay(cache, denoiser(pipeline), outputs or 0)

    def after_step() -> None:
        number = len(samples)
        counter.advance(Text(f"measuring ranges, picture {number}", f"测量数值范围，第 {number} 幅"))
        cache.store_trace(found, replay.given)

    def run() -> None:
        with replay.playing(), films_decoded_too(getattr(pipeline, "vae", None)):
            cache.store("picture", paint(pipeline, model, samples[-1], after_step))

    trace_modules(networks(pipeline), run, into=found)
    cache.store_trace(found, None)
    cache.remove("answer-*")
    return found


def takes_films(vae: Any) -> bool:
    """Whether an autoencoder has convolutions over time, so that its inputs are [batch, channels, frames, height, width]."""
    return any(parameter.dim() == 5 for parameter in vae.parameters())


# Latents of a film that is decoded beside a picture: three frames (the layers between frames run from the second on), this wide.
FRAMES, CORNER = 3, 16


@contextmanager
def films_decoded_too(vae: Any) -> Iterator[None]:
    """Decode the corner of every picture once more as a short film. Else the layers between frames would never run, and
    what such a layer meets cannot be folded (``solve.immovable``): the decoder of Wan and Qwen-Image would be an island.
    """
    if vae is None or not takes_films(vae):
        yield
        return
    decode = vae.decode

    def twice(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = decode(latents, *args, **kwargs)
        if latents.dim() == 5 and latents.shape[2] == 1:
            decode(latents[..., :CORNER, :CORNER].expand(-1, -1, FRAMES, -1, -1), *args, **kwargs)
        return result

    vae.decode = twice
    try:
        yield
    finally:
        del vae.decode


# -- certifying ------------------------------------------------------------------------------------------------------


def certificate_pictures(model: LocalModel) -> int:
    """How many pictures ``certify`` paints."""
    return len(CERTIFIED) * len(_held_out(model))


def certify(
    model: LocalModel,
    plan: FoldPlan,
    counter: ProgressCounter,
    exact: Sequence[str] = (),
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Paint the held-out pictures in every format on ``device`` and compare them with float32, after every op of one step.

    ``exact``: components that stay in float32 when the others are folded. Where float32 does not fit into memory, the
    certificate says of the pictures only whether folded float16 stayed finite.
    """
    pictures: dict[str, list[torch.Tensor]] = {}
    place = () if device.type == "cpu" else (device.type,)  # pictures of two devices are not compared
    cache = calibration_cache("proof", folds_path(model).stem, plan.to_json(), tuple(exact), *place)
    step = cache.record("step") or _compare_step(model, plan, counter, device)
    cache.store_record("step", step)
    for name in CERTIFIED:
        if name.startswith("float32") and not _float32_fits(model, device):
            continue
        formats = uniform(model, name, device)
        if "folded" in name:
            formats = formats.replaced(*(_unfoldable(c) for c in formats if component_of(c) in exact))
        loader = partial(_load_on, device, model, formats, plan if "folded" in name else None)
        with exact_float32():
            pictures[name] = _paint_held_out(model, name, loader, cache, counter)
    cache.remove()
    finite = all(bool(picture.isfinite().all()) for picture in pictures["float16-folded"])
    found: dict[str, Any] = {"pictures": len(_held_out(model)), "finite": finite, "step": step}
    if reference := pictures.pop("float32", None):
        for name, painted in pictures.items():
            error = relative_error(painted, reference)
            found[name] = {"error": error if math.isfinite(error) else None, "decibels": decibels(error),
                           "psnr": _worst_psnr(painted, reference)}  # fmt: skip
    return found


def _compare_step(
    model: LocalModel, plan: FoldPlan, counter: ProgressCounter, device: torch.device
) -> dict[str, Any]:
    """A held-out picture in one step, in float32, before and after folding, compared op by op (``numerics.step``).

    The weights are loaded in bfloat16 and converted where they are used, so that a model of any size is compared.
    """
    counter.announce(Text("comparing every op of one step", "逐个算子比较一步"))
    pipeline = load(model, uniform(model, "bfloat16", device)).to(device)
    sample = replace(_held_out(model)[0], steps=1)
    with exact_float32():
        found = compare_step(networks(pipeline), plan, lambda: _image(pipeline, model, sample))
    return {
        "ops": found.ops,
        "error": found.error if math.isfinite(found.error) else None,
        "changed": found.changed,
        "exact": found.exact,
    }


def _load_on(device: torch.device, model: LocalModel, formats: PrecisionPlan, plan: FoldPlan | None) -> Any:
    return load(model, formats, plan, device).to(device)


def _paint_held_out(
    model: LocalModel,
    name: str,
    loader: Callable[[], Any],
    cache: CalibrationCache,
    counter: ProgressCounter,
) -> list[torch.Tensor]:
    """The held-out pictures in one format. The pipeline is loaded only if one is not cached, and freed afterwards."""
    message = Text(f"proving the folds: {name}", f"验证折叠：{name}")
    pipeline, pictures = None, []
    for number, sample in enumerate(_held_out(model)):
        picture = cache.stored(f"{name}-{number}")
        if picture is None:
            counter.announce(message)
            pipeline = loader() if pipeline is None else pipeline
            picture = paint(pipeline, model, sample).cpu()
            cache.store(f"{name}-{number}", picture)
        pictures.append(picture)
        counter.advance(message)
    return pictures


def _worst_psnr(painted: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> float | None:
    """dB, of the worst picture; None where numbers broke; 999 where nothing differs, because JSON has no infinity."""
    ratios = [psnr(((p - r).double() ** 2).mean().item()) for p, r in zip(painted, reference, strict=True)]
    if None in ratios:
        return None
    return round(min(999.0, *(ratio for ratio in ratios if ratio is not None)), 2)


def _float32_fits(model: LocalModel, device: torch.device) -> bool:
    import psutil

    free = free_bytes(device)
    available = psutil.virtual_memory().available if free is None else free
    return 4 * sum(model.parameters.values()) < 0.8 * available


# -- painting without the painter ------------------------------------------------------------------------------------


def uniform(model: LocalModel, name: str, device: torch.device = CPU) -> PrecisionPlan:
    """Every component in one format, on ``device``; encoding a picture stays float32. "float32-folded" is for certificates."""
    here = precision_plan.machine(str(device))
    folded = frozenset(model.parameters) if "folded" in name else frozenset()
    profile = precision.ModelProfile(model.pipeline_class, model.parameters, folded=folded)
    if name == "float32-folded":
        exact = [Choice(role, name, "a proof", "验证") for role in profile.roles if role != "vae_encode"]
        return precision.choose(here, profile, "float32").replaced(*exact)
    return precision.choose(here, profile, name)


def paint(
    pipeline: Any, model: LocalModel, sample: CalibrationSample, after_step: Callable[[], None] | None = None
) -> torch.Tensor:
    """One picture as float32 [1, 3, H, W], without a guard."""
    return _image(pipeline, model, sample, after_step)


def _image(
    pipeline: Any, model: LocalModel, sample: CalibrationSample, after_step: Callable[[], None] | None = None
) -> torch.Tensor:
    def on_step_end(_pipeline: Any, _step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
        if after_step is not None:
            after_step()
        return state

    words = call_arguments(
        pipeline, prompt=sample.prompt, negative_prompt=sample.negative_prompt or None, width=sample.width,
        height=sample.height, num_inference_steps=sample.steps, guidance_scale=sample.guidance,
        max_sequence_length=model.spec.max_tokens, generator=generator(sample.seed), output_type="pt",
        callback_on_step_end=on_step_end,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    with Float32Noise(networks=quiet_networks(pipeline)):
        result = pipeline(**words)
    return torch.as_tensor(result.images).float()
