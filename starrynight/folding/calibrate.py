"""Folds for a model, made once and kept: watch it paint, choose the powers of two, prove them on other prompts.

The whole pipeline is traced at once, text encoder to decoder, over every step of a few pictures; the plan and its
certificate are cached under STARRY_HOME/cache/folds by the weights' fingerprint and the versions of what computed them.
What was measured or painted for it is written down step by step (``calibration_cache``): a run that was killed goes on. Knows how a pipeline is called; what a fold is, ``numerics`` knows.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from starrynight import numerics
from starrynight.folding.cache import CalibrationCache, OutputReplay, calibration_cache
from starrynight.i18n import Text
from starrynight.models import load as loading
from starrynight.models import precision_plan
from starrynight.models.catalogue import ModelSpec
from starrynight.models.fingerprint import fingerprint
from starrynight.numerics import precision
from starrynight.numerics.certify import decibels, relative_error
from starrynight.numerics.precision import Choice, PrecisionPlan
from starrynight.numerics.rng import Float32Noise, generator
from starrynight.numerics.solve import FoldPlan, solve_folds
from starrynight.numerics.trace import Trace, trace_modules
from starrynight.progress import OnProgress, ProgressCounter
from starrynight.settings import settings
from starrynight.storage import write_cache

# What the folds are measured on, and proved on. Long and short, Chinese and English; ranges hang far less on the words
# than on the model, so few are needed, and three bits of headroom are kept for the rest.
CALIBRATION = (
    "星夜下的静谧村庄，梵高风格，厚重的笔触",
    "neon skyline in rain, cyberpunk, reflections on wet streets, high contrast",
)
HELD_OUT = ("a sunflower field at noon, oil painting", "江雪，孤舟，水墨")

# From this many parameters on one small picture is traced: a step of it takes minutes on a CPU.
LARGE = 1_000_000_000

# Which files decide what a plan comes out as: a change in one of them makes old plans stale.
SOURCES = ("rules.py", "modules.py", "trace.py", "solve.py", "islands.py")


@dataclass(frozen=True)
class CalibrationSample:
    """One picture to be traced."""

    prompt: str
    width: int
    height: int
    steps: int
    guidance: float
    seed: int = 0
    negative_prompt: str = ""


@dataclass(frozen=True)
class Folds:
    """A plan for the whole pipeline, names prefixed by component; what it was made from; how it fared on other prompts.

    ``certificate``: format → relative error and PSNR in dB against float32, the worst of the held-out pictures (null
    where numbers broke or float32 was too large to run). ``finite``: folded float16 painted all of them.
    """

    plan: FoldPlan
    sittings: tuple[CalibrationSample, ...]
    certificate: dict[str, Any] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        return bool(self.certificate.get("finite"))

    def usable(self, component: str) -> bool:
        """Whether the component runs in float16 by these folds; one that would be an island as a whole does not."""
        return self.finite and not {"", component, f"{component}.decoder"} & set(self.plan.islands)

    def to_json(self) -> str:
        return json.dumps(
            {**asdict(self), "plan": json.loads(self.plan.to_json())}, ensure_ascii=False, indent=1
        )

    @classmethod
    def from_json(cls, text: str) -> Folds:
        told = json.loads(text)
        sittings = tuple(CalibrationSample(**sitting) for sitting in told["sittings"])
        return cls(FoldPlan.from_json(json.dumps(told["plan"])), sittings, told["certificate"])


def prepare(
    model: ModelSpec, plan: PrecisionPlan, on_progress: OnProgress | None = None
) -> tuple[PrecisionPlan, FoldPlan | None]:
    """The folds that ``plan`` asks for, made now if they never were; components they cannot help become float32."""
    folded = [choice for choice in plan if choice.folded]
    if not folded:
        return plan, None
    folds = recall(model) or make(model, on_progress)
    return plan.replaced(*(_given_up(c) for c in folded if not folds.usable(component_of(c)))), folds.plan


def component_of(choice: Choice) -> str:
    return "vae" if choice.component.startswith("vae") else choice.component


def _given_up(choice: Choice) -> Choice:
    return Choice(choice.component, "float32", "no fold brings it inside float16's range",
                  "没有折叠方案能使其落入 float16 范围")  # fmt: skip


# -- the cache -------------------------------------------------------------------------------------------------------


def kept_at(model: ModelSpec) -> Path:
    """Where the folds of exactly these weights, by exactly this code, are kept."""
    made_by = [version(name) for name in ("torch", "diffusers", "transformers")]
    sources = [(Path(numerics.__file__).parent / name).read_bytes() for name in SOURCES]
    digest = hashlib.sha256("\n".join([fingerprint(model), *made_by]).encode())
    for source in sources:
        digest.update(source)
    return settings().cache / "folds" / f"{digest.hexdigest()[:32]}.json"


def recall(model: ModelSpec) -> Folds | None:
    """The folds made earlier, if any that can be read."""
    try:
        return Folds.from_json(kept_at(model).read_text("utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        return None


# -- making them -----------------------------------------------------------------------------------------------------


def make(
    model: ModelSpec,
    on_progress: OnProgress | None = None,
    also: Sequence[CalibrationSample] = (),
    keep: bool = True,
) -> Folds:
    """Trace, solve, certify and keep. ``also``: pictures to be traced besides the usual ones."""
    sittings = (*usual(model), *also)
    tell = ProgressCounter(on_progress, sum(s.steps for s in sittings) + proofs_to_paint(model))
    plan = solve_folds(observe(model, sittings, tell=tell))
    folds = Folds(plan, sittings, certify(model, plan, tell))
    if keep:
        write_cache(kept_at(model), folds.to_json().encode())
    return folds


def replan(model: ModelSpec, sitting: CalibrationSample, on_progress: OnProgress | None = None) -> Folds:
    """Folds that know the ranges of one more picture: the one whose numbers broke under the old ones."""
    known = recall(model)
    return make(model, on_progress, (*(known.sittings[len(usual(model)) :] if known else ()), sitting))


def usual(model: ModelSpec) -> tuple[CalibrationSample, ...]:
    """Two pictures of two shapes, all steps; of a large model one small picture."""
    side = max(256, model.smallest) if is_large(model) else model.size
    wide = max(side // 2 // model.multiple * model.multiple, model.smallest)
    shapes = [(side, side), (side, wide)][: 1 if is_large(model) else 2]
    return tuple(
        CalibrationSample(prompt, *shape, steps=model.steps, guidance=model.guidance, seed=number)
        for number, (prompt, shape) in enumerate(zip(CALIBRATION, shapes, strict=False))
    )


def is_large(model: ModelSpec) -> bool:
    return sum(precision_plan.parameters(model).values()) >= LARGE


def _proofs(model: ModelSpec) -> tuple[CalibrationSample, ...]:
    """The held-out pictures: words and seeds that the trace never saw."""
    first = usual(model)[0]
    steps = min(first.steps, 2) if is_large(model) else first.steps
    return tuple(
        CalibrationSample(prompt, first.width, first.height, steps, first.guidance, seed=100 + number)
        for number, prompt in enumerate(HELD_OUT[: 1 if is_large(model) else 2])
    )


def proofs_to_paint(model: ModelSpec) -> int:
    """How many pictures ``certify`` paints."""
    return len(FORMATS) * len(_proofs(model))


def observe(
    model: ModelSpec,
    sittings: Sequence[CalibrationSample] = (),
    on_progress: OnProgress | None = None,
    tell: ProgressCounter | None = None,
) -> Trace:
    """What the whole pipeline taught while it painted ``sittings`` (the usual ones) in bfloat16.

    What was watched before, to its end or not, is not watched again.
    """
    sittings = tuple(sittings) or usual(model)
    tell = tell or ProgressCounter(on_progress, sum(sitting.steps for sitting in sittings))
    found, watched = _watched(model, sittings)
    if watched:
        steps = sum(sitting.steps for sitting in sittings[:watched])
        tell.advance(Text("ranges measured before", "数值范围此前已测量"), steps)
    if watched < len(sittings):
        tell.announce(Text("loading the model", "加载模型"))
        pipeline = loading.load(model, uniform(model, "bfloat16"))
        for number in range(watched, len(sittings)):
            found = _watch(pipeline, model, sittings[: number + 1], found, tell)
    return found


def painted(model: ModelSpec, sittings: Sequence[CalibrationSample]) -> torch.Tensor | None:
    """The first picture that ``observe`` watched; None where the cache could not be written."""
    return _book(model, sittings[:1]).kept("picture")


def _book(model: ModelSpec, sittings: Sequence[CalibrationSample]) -> CalibrationCache:
    return calibration_cache("trace", kept_at(model).stem, tuple(sittings))


def _watched(model: ModelSpec, sittings: Sequence[CalibrationSample]) -> tuple[Trace, int]:
    """What the most of these sittings taught that were watched to their end, and how many those are."""
    for count in range(len(sittings), 0, -1):
        kept = _book(model, sittings[:count]).trace()
        if kept is not None and kept[1] is None:
            return kept[0], count
    return Trace(), 0


def _watch(
    pipeline: Any,
    model: ModelSpec,
    sittings: Sequence[CalibrationSample],
    found: Trace,
    tell: ProgressCounter,
) -> Trace:
    """The last of ``sittings``, after what those before it taught; gone on with where it was broken off."""
    book = _book(model, sittings)
    found, answers = book.trace() or (found, 0)
    tape = OutputReplay(book, loading.denoiser(pipeline), answers or 0)

    def after_step() -> None:
        number = len(sittings)
        tell.advance(Text(f"measuring ranges, picture {number}", f"测量数值范围，第 {number} 幅"))
        book.keep_trace(found, tape.given)

    def sit() -> None:
        with tape.playing():
            book.keep("picture", paint(pipeline, model, sittings[-1], after_step))

    trace_modules(networks_of(pipeline), sit, into=found)
    book.keep_trace(found, None)
    book.forget("answer-*")
    return found


FORMATS = ("float32", "float32-folded", "float16-folded", "bfloat16")


def certify(
    model: ModelSpec, plan: FoldPlan, tell: ProgressCounter, exact: Sequence[str] = ()
) -> dict[str, Any]:
    """Paint the held-out pictures in every format; where float32 does not fit into memory, bfloat16 stands alone.

    ``exact``: components that stay in float32 when the others are folded.
    """
    pictures: dict[str, list[torch.Tensor]] = {}
    book = calibration_cache("proof", kept_at(model).stem, plan.to_json(), tuple(exact))
    for name in FORMATS:
        if name.startswith("float32") and not _float32_fits(model):
            continue
        formats = uniform(model, name)
        if "folded" in name:
            formats = formats.replaced(*(_given_up(c) for c in formats if component_of(c) in exact))
        load = partial(loading.load, model, formats, plan if "folded" in name else None)
        pictures[name] = _prove(model, name, load, book, tell)
    book.forget()
    finite = all(bool(picture.isfinite().all()) for picture in pictures["float16-folded"])
    found: dict[str, Any] = {"pictures": len(_proofs(model)), "finite": finite}
    if reference := pictures.pop("float32", None):
        for name, painted in pictures.items():
            error = relative_error(painted, reference)
            found[name] = {"error": error if math.isfinite(error) else None, "decibels": decibels(error),
                           "psnr": _psnr(painted, reference)}  # fmt: skip
    return found


def _prove(
    model: ModelSpec, name: str, load: Callable[[], Any], book: CalibrationCache, tell: ProgressCounter
) -> list[torch.Tensor]:
    """The held-out pictures in one format, those that were not painted before. The pipeline is gone afterwards."""
    pipeline, pictures = None, []
    for number, sitting in enumerate(_proofs(model)):
        picture = book.kept(f"{name}-{number}")
        if picture is None:
            tell.announce(Text(f"proving the folds: {name}", f"验证折叠：{name}"))
            pipeline = load() if pipeline is None else pipeline
            picture = paint(pipeline, model, sitting).cpu()
            book.keep(f"{name}-{number}", picture)
        pictures.append(picture)
        tell.advance(Text(f"proving the folds: {name}", f"验证折叠：{name}"))
    return pictures


def _psnr(painted: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> float | None:
    """dB, of the worst picture; None where numbers broke; 999 where nothing differs, so that JSON can hold it."""
    errors = [((p - r).double() ** 2).mean().item() for p, r in zip(painted, reference, strict=True)]
    if not all(math.isfinite(error) for error in errors):
        return None
    worst = max(errors)
    return round(-10 * math.log10(worst), 2) if worst else 999.0


def _float32_fits(model: ModelSpec) -> bool:
    import psutil

    return 4 * sum(precision_plan.parameters(model).values()) < 0.8 * psutil.virtual_memory().available


def uniform(model: ModelSpec, name: str) -> PrecisionPlan:
    """Every component in one format, on the CPU; encoding a picture stays float32. "float32-folded" is for proofs."""
    record = precision.ModelProfile(precision_plan.family(model), precision_plan.parameters(model),
                             folded=frozenset(precision_plan.parameters(model)) if "folded" in name else frozenset())  # fmt: skip
    if name == "float32-folded":
        exact = [Choice(role, name, "a proof", "验证") for role in record.roles if role != "vae_encode"]
        return precision.choose(precision_plan.processor(), record, "float32").replaced(*exact)
    return precision.choose(precision_plan.processor(), record, name)


def networks_of(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def paint(
    pipeline: Any, model: ModelSpec, sitting: CalibrationSample, after_step: Callable[[], None] | None = None
) -> torch.Tensor:
    """One picture as float32 [1, 3, H, W], by what this pipeline's signature understands."""

    def on_step_end(_pipeline: Any, _step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
        if after_step is not None:
            after_step()
        return state

    words = {
        "prompt": sitting.prompt, "negative_prompt": sitting.negative_prompt or None, "width": sitting.width,
        "height": sitting.height, "num_inference_steps": sitting.steps, "guidance_scale": sitting.guidance,
        "max_sequence_length": model.max_tokens, "generator": generator(sitting.seed), "output_type": "pt",
        "callback_on_step_end": on_step_end,
    }  # fmt: skip
    understood = inspect.signature(pipeline.__call__).parameters
    pipeline.set_progress_bar_config(disable=True)
    with Float32Noise():
        result = pipeline(**{k: v for k, v in words.items() if k in understood and v is not None})
    return torch.as_tensor(result.images).float()
