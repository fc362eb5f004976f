"""The main path: ready a pipeline, dress it for a request, paint one picture after another.

Works for any text-to-image pipeline of diffusers and asks none for its family: what a pipeline can be told is read
from its signature. Pictures leave as float32; rounding, files and galleries are others' work.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from starrynight.errors import BadRequest, BrokenNumbers, Unfit
from starrynight.folding import calibrate
from starrynight.models import download, load, lora, precision_plan
from starrynight.models.catalogue import ModelSpec, resolve
from starrynight.numerics.fold import compose
from starrynight.numerics.modules import named_tensors
from starrynight.numerics.precision import PrecisionPlan
from starrynight.numerics.rng import Float32Noise, generator
from starrynight.numerics.solve import FoldPlan
from starrynight.painting import attention as attention_backends
from starrynight.painting import checking, fallback, guard, init_image, schedulers, styles
from starrynight.painting import offload as memory
from starrynight.painting.preview import Preview, StepRecorder
from starrynight.painting.results import GeneratedImage, Refused, Step
from starrynight.progress import OnProgress
from starrynight.request import PaintRequest
from starrynight.verdict import Verdict


class Painter:
    """A loaded model. Make one with ``Painter.ready``; it serves requests until another model is wanted."""

    def __init__(
        self,
        pipeline: Any,
        model: ModelSpec,
        plan: PrecisionPlan,
        device: torch.device,
        arrangement: memory.Arrangement,
    ) -> None:
        self.pipeline, self.model, self.plan, self.device = pipeline, model, plan, device
        self.arrangement = arrangement
        self.preview = Preview(pipeline)
        self.on_folding: OnProgress | None = None
        self._asked: tuple[Any, ...] = ()
        self._sitting: calibrate.CalibrationSample | None = (
            None  # the picture being painted, if folds could be measured on it
        )
        name = next(name for name, part in pipeline.components.items() if part is self.denoiser)
        parts = fallback.parts_of(
            pipeline, name, precision_plan.stores(device.type), partial(_originals, model, plan)
        )
        folded = {choice.component for choice in plan if choice.folded}
        for part in parts.values():
            if (
                part.name in folded
            ):  # its weights are not those of the files, but their folds can be made anew
                part.refill, part.replan = None, partial(self._replan, part)
        self.guard = guard.Guard(parts, name)
        self.guard.stand_at_networks(getattr(pipeline, "vae", None))
        self.guard.stand_at_prompt(pipeline)

    @classmethod
    def ready(
        cls,
        request: PaintRequest,
        plan: PrecisionPlan | None = None,
        device: str | None = None,
        attention: str = "native",
        memory_budget: int | None = None,
        on_folding: OnProgress | None = None,
    ) -> Painter:
        """Fetch what is not here, check the request, load the model. ``memory_budget`` is in bytes of the device.
        Folds that the plan asks for are made the first time, which ``on_folding`` hears of.

        Raises what ``checking.check``, ``hub.fetch``, ``loading.load`` and ``attention.choose`` raise.
        """
        model = resolve(request.model)
        checking.check(request, model)
        model = download.fetch(model)
        checking.check(request, model)  # once more: now its own files have been read
        asked = _wish(request, device, attention)
        plan = plan or precision_plan.choose(model, device, request.precision)
        where = torch.device(device) if device else _best_device()
        with _memory_errors():
            plan, folds = calibrate.prepare(model, plan, on_folding)
            pipeline = load.load(model, plan, folds)
            attention_backends.choose(pipeline, load.denoiser(pipeline), attention)
            arrangement = memory.choose(pipeline, where, memory_budget)
            memory.place(pipeline, where, arrangement)
        painter = cls(pipeline, model, plan, where, arrangement)
        painter._asked, painter.on_folding = asked, on_folding
        return painter

    def serves(self, request: PaintRequest, device: str | None = None, attention: str = "native") -> bool:
        """Whether this painter is what ``ready`` would make for the request."""
        return self._asked == _wish(request, device, attention)

    @property
    def denoiser(self) -> Any:
        return load.denoiser(self.pipeline)

    @property
    def provenance(self) -> dict[str, str]:
        """Which model painted, for the recipe: its name, pipeline, source and the fingerprint of its files."""
        from starrynight.models.fingerprint import fingerprint

        return {
            "name": self.model.name,
            "pipeline": type(self.pipeline).__name__,
            "source": self.model.hub or "",
            "licence": self.model.licence,
            "fingerprint": fingerprint(self.model),
        }

    def warnings(self, request: PaintRequest) -> list[tuple[str, str]]:
        """As ``checking.warnings_for``, with the prompt's length counted by the model's own tokenizer."""
        return checking.warnings_for(request, self.model, getattr(self.pipeline, "tokenizer", None))

    def paint(
        self,
        request: PaintRequest,
        on_step: Callable[[Step], None] | None = None,
        skip: Collection[int] = (),
    ) -> Iterator[GeneratedImage | Refused]:
        """``request.count`` pictures but those in ``skip``, picture i with seed + i, each the same alone or in a batch.
        One whose numbers broke comes as Refused, and the next begins.

        ``on_step`` may raise Cancelled (or anything), which ends the painting within that step. Raises OutOfMemory,
        Unfit, and what ``checking.check`` raises.
        """
        checking.check(request, self.model)
        offload = partial(memory.place, self.pipeline, self.device, self.arrangement)
        with (
            lora.applied(
                self.pipeline,
                request.loras,
                self.model.en,
                None if self.arrangement == "resident" else offload,
            ),
            self._pipeline_for(request) as pipeline,
        ):
            for index in range(request.count):
                if index in skip:
                    continue
                try:
                    yield self._paint_one(pipeline, request, index, on_step)
                except (BrokenNumbers, Blanked) as error:
                    verdict = Verdict("refuse", (error.en,), tuple(self.guard.attempts))
                    yield Refused(index, request.seed_of(index), error, verdict)

    @contextmanager
    def _pipeline_for(self, request: PaintRequest) -> Iterator[Any]:
        """The text-to-image pipeline or its img2img sibling over the same weights, with the sampler asked for."""
        own = self.pipeline.scheduler
        pipeline = self.pipeline if request.init_image is None else self._sibling()
        memory.tile(pipeline, request.width, request.height)
        pipeline.set_progress_bar_config(disable=True)
        try:
            pipeline.scheduler = schedulers.build(request.sampler, own)
            yield pipeline
        finally:
            pipeline.scheduler = own
            pipeline.maybe_free_model_hooks()

    def _sibling(self) -> Any:
        from diffusers import AutoPipelineForImage2Image

        try:
            sibling = AutoPipelineForImage2Image.from_pipe(self.pipeline)
        except ValueError as error:
            raise Unfit(
                f"{self.model.en} cannot begin from a picture.", f"{self.model.zh} 不支持以图生图。"
            ) from error
        if self.arrangement == "model":  # its hooks hang on a pipeline; layer by layer they hang on layers
            memory.place(sibling, self.device, self.arrangement)
        self.guard.stand_at_prompt(sibling)
        return sibling

    def _paint_one(
        self, pipeline: Any, request: PaintRequest, index: int, on_step: Callable[[Step], None] | None
    ) -> GeneratedImage:
        words, remarks = self._words(pipeline, request, index)
        seed = request.seed_of(index)
        pipeline.scheduler = schedulers.build(
            None, pipeline.scheduler
        )  # a picture leaves nothing to the next
        sampler, tape = schedulers.name_of(pipeline.scheduler), StepRecorder(pipeline.scheduler)

        def after_step(step: int, latents: torch.Tensor) -> None:
            if on_step is not None:
                look = partial(self._look, tape, latents, step, request)
                on_step(Step(index, step, _steps(pipeline), look, latents))

        self._sitting = self._as_sitting(request, words, seed)
        self.guard.stand_at_sampler(pipeline.scheduler, after_step)
        with self.guard.watch(), Float32Noise(generator(seed, stream=1)), _memory_errors():
            pixels = _pixels(pipeline(**words), self.guard)
        expected = self.guard.expected(pipeline, from_picture=request.init_image is not None)
        return GeneratedImage(
            pixels=pixels,
            index=index,
            seed=seed,
            prompt=words["prompt"],
            negative_prompt=words.get("negative_prompt") or "",
            sampler=sampler,
            verdict=self.guard.verdict(expected, remarks),
        )

    def _as_sitting(
        self, request: PaintRequest, words: dict[str, Any], seed: int
    ) -> calibrate.CalibrationSample | None:
        """What the folds could be measured on: a picture from words alone, without a LoRA."""
        if request.loras or request.init_image is not None:
            return None
        return calibrate.CalibrationSample(
            words["prompt"], request.width, request.height, request.steps, request.guidance, seed,
            words.get("negative_prompt") or "",
        )  # fmt: skip

    def _replan(self, part: fallback.Component) -> tuple[FoldPlan, dict[str, torch.Tensor]] | None:
        """Folds that know the picture being painted, as a difference to those in force, and the weights so folded; None
        where they cannot help.
        """
        if self._sitting is None:
            return None
        folds = calibrate.replan(self.model, self._sitting, self.on_folding)
        if not folds.usable(calibrate.component_of(self.plan[part.name])):
            return None
        before = self.pipeline.folds
        difference = fallback.difference(before, folds.plan, part)
        self.pipeline.folds = compose(before, difference)
        fresh = calibrate.networks_of(load.load(self.model, self.plan, folds.plan))
        return difference, {name: tensor for name, tensor, _ in named_tensors(fresh)}

    def _look(
        self, tape: StepRecorder, latents: torch.Tensor, step: int, request: PaintRequest
    ) -> np.ndarray | None:
        return self.preview(tape.guess(latents, step), request.width, request.height)

    def _words(
        self, pipeline: Any, request: PaintRequest, index: int
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """What this pipeline can be told of the request, by its own signature; and remarks for the recipe."""
        prompt, _ = styles.styled(request.prompt, request.style)
        words: dict[str, Any] = {
            "prompt": prompt,
            "negative_prompt": checking.negative_of(request, self.model) or None,
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance,
            "max_sequence_length": self.model.max_tokens,
            "generator": generator(request.seed_of(index)),
            "output_type": "pt",
        }
        remarks: tuple[str, ...] = ()
        if request.init_image is not None:
            picture, note = init_image.begin(request.init_image, request.width, request.height)
            words |= {"image": picture, "strength": request.strength}
            remarks = (note,) if note else ()
        understood = inspect.signature(pipeline.__call__).parameters
        return {
            word: value for word, value in words.items() if word in understood and value is not None
        }, remarks


class Blanked(BadRequest):
    """One picture of a batch, which the model's own checker would not show."""


def _steps(pipeline: Any) -> int:
    """How many steps this picture takes: img2img takes fewer than were asked for, some samplers more."""
    return int(getattr(pipeline, "num_timesteps", None) or len(pipeline.scheduler.timesteps))


def _originals(model: ModelSpec, plan: PrecisionPlan) -> dict[str, torch.Tensor]:
    """Every parameter of the model as its files have it, in float32, by component and name."""
    exact = PrecisionPlan(tuple(replace(choice, format="float32", emulated=False) for choice in plan))
    components = load.load(model, exact).components
    networks = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}
    return {
        f"{name}.{key}": tensor
        for name, part in networks.items()
        for key, tensor in part.state_dict().items()
    }


def _pixels(result: Any, sentry: guard.Guard) -> np.ndarray:
    """float32 [H, W, 3] in 0..1. A picture that the model's own safety checker has blanked is not handed over."""
    if any(getattr(result, "nsfw_content_detected", None) or ()):
        raise Blanked(
            "The model's own safety checker blanked this picture; change the prompt or the seed.",
            "模型自带的安全检查器抹去了这幅画；请修改提示词或种子。",
        )
    picture = sentry.picture(result.images[0])
    return picture.float().permute(1, 2, 0).cpu().contiguous().numpy()


def _wish(request: PaintRequest, device: str | None, attention: str) -> tuple[Any, ...]:
    return (request.model, request.precision, device, attention)


def _best_device() -> torch.device:
    from starrynight.numerics import device

    return device.torch_device(device.kind())


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (known := memory.out_of_memory(error)) is None:
            raise
        raise known from error
