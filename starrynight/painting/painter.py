"""The painter: one loaded model that turns requests into float32 images.

Works for any text-to-image pipeline of diffusers without asking for its family: which arguments a pipeline takes is read
from its signature. Rounding to eight bits, files and galleries come later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from starrynight.errors import BrokenNumbers, StarryError, Unfit
from starrynight.folding import calibrate
from starrynight.i18n import Text
from starrynight.models import catalogue, complete, download, lora, precision_plan
from starrynight.models.catalogue import LocalModel
from starrynight.models.fit import Fit
from starrynight.models.library_errors import library_errors, out_of_memory
from starrynight.models.load import call_arguments, denoiser, denoiser_name, load, networks, quiet_networks
from starrynight.models.stored import stored_format
from starrynight.numerics.device import named
from starrynight.numerics.modules import named_tensors
from starrynight.numerics.precision import INT8, PrecisionPlan
from starrynight.numerics.rng import Float32Noise, SharedNoise, generator
from starrynight.numerics.solve import FoldPlan
from starrynight.painting import attention as backends
from starrynight.painting import (
    batching,
    checking,
    cpu,
    emphasis,
    fallback,
    guard,
    int8,
    inversion,
    offload,
    schedulers,
)
from starrynight.painting.blending import Blend
from starrynight.painting.canvas import Canvas, canvas_of
from starrynight.painting.encoding import unpadded
from starrynight.painting.inversion import Placement
from starrynight.painting.loaded import fitted, float32_parameters, longest_tokenizer, stamps
from starrynight.painting.preview import Preview, predicted_final
from starrynight.painting.results import GeneratedImage, Refused, Step, of_pixels
from starrynight.painting.variety import annealed, annealing_of
from starrynight.progress import OnProgress
from starrynight.prompt_syntax import drawn_of
from starrynight.request import PaintRequest
from starrynight.verdict import Verdict


class Painter:
    """A loaded model. ``Painter.ready`` makes one for a request; it serves every request for that model and precision."""

    def __init__(
        self,
        pipeline: Any,
        model: LocalModel,
        plan: PrecisionPlan,
        device: torch.device,
        arrangement: offload.Arrangement,
        *,
        serves: tuple[Any, ...] = (),
        on_folding: OnProgress | None = None,
        recover: bool = True,
        count_clamps: bool = False,
    ) -> None:
        self.pipeline, self.model, self.plan, self.device = pipeline, model, plan, device
        self.arrangement, self.denoiser = arrangement, denoiser(pipeline)
        if device.type == "cpu":
            cpu.prepare(self.denoiser, getattr(pipeline, "vae", None))
        if plan[denoiser_name(pipeline)].format == INT8:
            int8.prepare(pipeline, model)
        self.preview = Preview(pipeline)
        self._serves, self._on_folding, self._files = serves, on_folding, stamps(model)
        self.fits: tuple[Fit, ...] = ()  # how the LoRAs of the current request fit
        self._sample: calibrate.CalibrationSample | None = (
            None  # the current picture, if folds can be measured on it
        )
        parts = fallback.components_of(
            pipeline, precision_plan.stores(device.type), partial(float32_parameters, model, plan, pipeline)
        )
        for choice in plan:
            if (part := parts.get(choice.component)) is None:
                continue
            part.stored, part.format = choice.stored, choice.format if choice.around else ""
            if choice.folded:
                # its weights are not those of the files; their folds can be planned anew instead
                part.reload, part.replan = None, partial(self._replan, part)
        late = device.type == "cuda"  # the host need not wait there
        self.guard = guard.Guard(parts, denoiser_name(pipeline), recover, count_clamps, late)
        self.guard.attach_to_networks(getattr(pipeline, "vae", None))
        self.guard.attach_to_prompt(pipeline)

    @classmethod
    def ready(
        cls,
        request: PaintRequest,
        plan: PrecisionPlan | None = None,
        device: str | None = None,
        attention: str = "native",
        memory_budget: int | None = None,
        on_folding: OnProgress | None = None,
        recover: bool = True,
        count_clamps: bool = False,
    ) -> Painter:
        """Fetch the model if it is not here, check the request, load the model.

        ``device`` is a torch device (None: the best here), ``attention`` a name of ``attention.BACKENDS``,
        ``memory_budget`` bytes of the device (None: what is free). Folds that the plan needs are made the first time;
        ``on_folding`` is called meanwhile. ``recover=False`` disables fallbacks, for benchmarks. ``count_clamps``: the
        verdict counts the numbers that the libraries' own clamps changed. Raises what ``checking.check``,
        ``download.fetch``, ``load.load`` and ``attention.choose`` raise.
        """
        spec = catalogue.find(request.model)
        checking.check(request, spec)
        if not catalogue.is_here(spec):
            spec = download.fetch(spec)
            checking.check(request, spec)  # its own configuration is known only now
        spec = checking.as_asked(request, spec)
        where = named(device)
        with library_errors(spec.path):
            model = catalogue.resolve(spec)
            plan = plan or precision_plan.choose(
                model, device, request.precision, memory_budget, request.keep_packed
            )
            folding_on = calibrate.device_for(model, where, memory_budget)
            plan, folds = calibrate.prepare(model, plan, on_folding, folding_on)
            pipeline = load(model, plan, folds, folding_on)
            backends.choose(pipeline, denoiser(pipeline), attention)
            arrangement = offload.choose(pipeline, where, memory_budget)
            offload.place(pipeline, where, arrangement)
            return cls(
                pipeline, model, plan, where, arrangement, serves=_key(request, device, attention),
                on_folding=on_folding, recover=recover, count_clamps=count_clamps,
            )  # fmt: skip

    def serves(self, request: PaintRequest, device: str | None = None, attention: str = "native") -> bool:
        """Whether ``ready`` would load the same model in the same way for the request: a file may have been replaced."""
        return self._serves == _key(request, device, attention) and self._files == stamps(self.model)

    @property
    def provenance(self) -> dict[str, Any]:
        """Which model painted, for the recipe: its name, pipeline, source, licence, the fingerprint of its files, the
        formats that they store, and how many of their tensors were used.
        """
        spec = self.model.spec
        return {
            "name": spec.name,
            "pipeline": type(self.pipeline).__name__,
            "source": spec.hub or "",
            "licence": spec.licence,
            "fingerprint": self.model.fingerprint,
            "stored": {name: stored_format(files) for name, files in self.model.files.items() if files},
            "tensors": self.pipeline.ledgers.to_dict(),
            **({"fitted": notes} if (notes := fitted(self.model)) else {}),
        } | (
            {"borrowed": dict.fromkeys(self.model.borrowed, self.model.lender)} if self.model.borrowed else {}
        )

    def warnings(self, request: PaintRequest) -> list[tuple[str, str]]:
        """As ``checking.warnings_for``, with the prompt's length counted by the model's own tokenizer; and what an all-in-one
        file lacks.
        """
        model = self.model
        places = [
            partial(self._placed, self.pipeline, request, request.seed_of(k)) for k in range(request.count)
        ]
        words, notes = inversion.told(self.pipeline, places)
        found = checking.warnings_for(request, model.spec, longest_tokenizer(self.pipeline), words)
        found += [note for note in notes if note not in found]
        return [*found, complete.note(model.path, model.lender, model.borrowed)] if model.borrowed else found

    def paint(
        self,
        request: PaintRequest,
        on_step: Callable[[Step], None] | None = None,
        skip: Collection[int] = (),
    ) -> Iterator[GeneratedImage | Refused]:
        """``request.count`` pictures but those in ``skip``, picture i with seed + i, each the same alone or in a batch.

        A picture whose numbers broke is returned as Refused, and the batch goes on. ``on_step`` may raise Cancelled (or
        anything), which ends the batch within that step, on a card within the next. Raises OutOfMemory, Unfit, and what ``checking.check`` raises.
        """
        request = request.without_tags()
        checking.check(request, self.model.spec)
        self.guard.verify = request.verify
        place = partial(offload.place, self.pipeline, self.device, self.arrangement)
        with (
            lora.applied(
                self.pipeline,
                request.loras,
                self.model.spec.en,
                None if self.arrangement == "resident" else place,
                request.lora_partial,
            ) as self.fits,
            self._pipeline_for(request) as pipeline,
        ):
            canvas = canvas_of(request)
            for index in range(request.count):
                if index in skip:
                    continue
                try:
                    yield self._paint_one(pipeline, request, index, canvas, on_step)
                except (BrokenNumbers, batching.Blanked) as error:
                    verdict = Verdict("refuse", (error.en,), tuple(self.guard.attempts))
                    yield Refused(index, request.seed_of(index), error, verdict)

    @contextmanager
    def _pipeline_for(self, request: PaintRequest) -> Iterator[Any]:
        """The text-to-image pipeline, or its img2img sibling over the same weights, with the scheduler asked for."""
        own = self.pipeline.scheduler
        pipeline = self.pipeline if request.init_image is None else self._image_to_image()
        offload.tile(pipeline, request.width, request.height)
        pipeline.set_progress_bar_config(disable=True)
        try:
            pipeline.scheduler = schedulers.build(request.sampler, own)
            yield pipeline
        finally:
            pipeline.scheduler = own
            pipeline.maybe_free_model_hooks()

    def _image_to_image(self) -> Any:
        from diffusers import AutoPipelineForImage2Image

        spec = self.model.spec
        try:
            sibling = AutoPipelineForImage2Image.from_pipe(self.pipeline)
        except ValueError as error:
            raise Unfit(f"{spec.en} cannot begin from a picture.", f"{spec.zh} 不支持以图生图。") from error
        if self.arrangement == "model":  # these hooks belong to a pipeline; sequential ones belong to layers
            offload.place(sibling, self.device, self.arrangement)
        self.guard.attach_to_prompt(sibling)
        return sibling

    def paint_together(
        self, pictures: Sequence[tuple[PaintRequest, int]], on_step: Callable[[int, Step], None]
    ) -> list[GeneratedImage] | None:
        """Pictures (request, index) of one ``batching.shape`` as one batch, each as alone to within the rounding of the
        precision. ``on_step`` gets the place in ``pictures`` as well.

        None where that cannot be (a broken number, too little memory, weighted words, noise at every step): they are then
        painted alone, where fallbacks and verdict are each picture's own. Raises what ``on_step`` raises.
        """
        request = pictures[0][0]
        self.guard.verify, recover = False, self.guard.recover
        self.guard.recover = False
        raised: list[BaseException] = []
        try:
            with (
                lora.applied(self.pipeline, (), self.model.spec.en, None, False) as self.fits,
                self._pipeline_for(request) as pipeline,
            ):
                return self._paint_batch(pipeline, pictures, None, on_step, raised)
        except (StarryError, SharedNoise, batching.Unalike) as error:
            if any(error is one for one in raised):
                raise
            return None
        finally:
            self.guard.recover = recover

    def _paint_one(
        self, pipeline: Any, request: PaintRequest, index: int, canvas: Canvas | None,
        on_step: Callable[[Step], None] | None,
    ) -> GeneratedImage:  # fmt: skip
        report = None if on_step is None else (lambda _, step: on_step(step))
        (image,) = self._paint_batch(pipeline, [(request, index)], canvas, report, [])
        return image

    def _paint_batch(
        self, pipeline: Any, pictures: Sequence[tuple[PaintRequest, int]], canvas: Canvas | None,
        on_step: Callable[[int, Step], None] | None, raised: list[BaseException],
    ) -> list[GeneratedImage]:  # fmt: skip
        """``raised``: gets what ``on_step`` raises, which is no fault of the model's."""
        request, _ = pictures[0]
        seeds = [each.seed_of(index) for each, index in pictures]
        placed = [self._placed(pipeline, each, each.seed_of(index)) for each, index in pictures]
        calls = [
            self._call(pipeline, each, words, seed, canvas)
            for (each, _), words, seed in zip(pictures, placed, seeds, strict=True)
        ]
        annealing = annealing_of(request, seeds[0], partial(_steps, pipeline))
        words = (
            calls[0][0]
            if len(pictures) == 1
            else batching.arguments([call for call, _ in calls], [one.words for one in placed])
        )

        after_step = self._reporter(pipeline, pictures, canvas, on_step, raised)

        def paint() -> list[np.ndarray]:
            # fresh ones, because a stateful scheduler or generator would carry a picture over to the next
            pipeline.scheduler = scheduler = schedulers.build(None, pipeline.scheduler)
            self.guard.attach_to_scheduler(scheduler, after_step)
            if canvas is not None and canvas.mask is not None:
                Blend(pipeline, canvas.mask).attach_to_scheduler(scheduler)
            if annealing is not None:
                annealing.attach_to_scheduler(scheduler)
            drawn = [generator(seed) for seed in seeds]
            source = call_arguments(pipeline, generator=drawn[0] if len(drawn) == 1 else drawn)
            with self._noise(pipeline, request, seeds):
                return batching.pixels_of(pipeline(**words, **source), self.guard)

        inverted = bool(placed[0].used)
        self._sample = self._as_sample(request, words, seeds[0], inverted) if len(pictures) == 1 else None
        with self._surroundings(pipeline, request, placed[0], annealing, raised):
            images = self.guard.watch(paint)
        expected = self.guard.expected(pipeline, from_picture=request.init_image is not None)
        return [
            self._generated(
                pipeline,
                index,
                seed,
                one,
                remarks,
                pixels if canvas is None else canvas.over(pixels),
                expected,
            )
            for (_, index), seed, one, (_, remarks), pixels in zip(
                pictures, seeds, placed, calls, images, strict=True
            )
        ]

    def _reporter(
        self, pipeline: Any, pictures: Sequence[tuple[PaintRequest, int]], canvas: Canvas | None,
        on_step: Callable[[int, Step], None] | None, raised: list[BaseException],
    ) -> guard.AfterStep:  # fmt: skip
        """Tells ``on_step`` of each picture's step; what it raises goes into ``raised`` as well."""

        def after_step(step: int, before: torch.Tensor, after: torch.Tensor, place: int | None) -> None:
            for k, (each, index) in enumerate(pictures if on_step is not None else ()):
                rows = (before, after) if len(pictures) == 1 else (before[k : k + 1], after[k : k + 1])
                now = self._step(pipeline, each, index, canvas, step, *rows, place)
                try:
                    on_step(k, now)  # type: ignore[misc]
                except BaseException as error:
                    if out_of_memory(error) is None:
                        raised.append(error)
                    raise

        return after_step

    @contextmanager
    def _surroundings(
        self,
        pipeline: Any,
        request: PaintRequest,
        placed: Placement,
        annealing: Any,
        raised: list[BaseException],
    ) -> Iterator[None]:
        """What is changed in the pipeline and around it while pictures are painted, and taken back afterwards."""
        name = Text(self.model.spec.en, self.model.spec.zh)
        with (
            library_errors(self.model.path, raised),
            inversion.applied(pipeline, placed),
            emphasis.applied(pipeline, *placed.texts),
            cpu.fast_attention(self.denoiser, self.device, request.width * request.height),
            unpadded(pipeline),
            self.guard.prompts.bypassed(bool(self.fits or placed.vectors)),
            annealed(denoiser(pipeline), annealing, name),
        ):
            yield

    def _placed(self, pipeline: Any, request: PaintRequest, seed: int) -> Placement:
        """What the model reads in the picture of ``seed``, with its textual inversions."""
        spec = self.model.spec
        read = checking.words_of(request, spec, seed)
        return inversion.place(pipeline, read, checking.inversions_of(request, spec), spec.en)

    @staticmethod
    def _noise(pipeline: Any, request: PaintRequest, seeds: Sequence[int]) -> Float32Noise:
        """Draws a picture's noise, or a batch's."""
        if len(seeds) > 1:
            return Float32Noise(networks=quiet_networks(pipeline), shared=True)
        other = None if not request.variation else (generator(request.variation_seed or 0), request.variation)
        return Float32Noise(generator(seeds[0], stream=1), quiet_networks(pipeline), other)

    def _generated(
        self, pipeline: Any, index: int, seed: int, placed: Placement, remarks: tuple[Text, ...], pixels: np.ndarray,
        expected: frozenset[str],
    ) -> GeneratedImage:  # fmt: skip
        prompt, negative = placed.words
        taken = call_arguments(pipeline, prompt=prompt.text, negative_prompt=negative.text or None)
        return GeneratedImage(
            pixels=pixels, index=index, seed=seed, prompt=taken["prompt"],
            negative_prompt=taken.get("negative_prompt", ""), sampler=schedulers.name_of(pipeline.scheduler),
            verdict=of_pixels(self.guard.verdict(expected, remarks), pixels), wildcards=drawn_of(prompt, negative),
            embeddings=placed.used,
        )  # fmt: skip

    def _call(
        self,
        pipeline: Any,
        request: PaintRequest,
        placed: Placement,
        seed: int,
        canvas: Canvas | None,
    ) -> tuple[dict[str, Any], tuple[Text, ...]]:
        """The pipeline's arguments for one picture but its generator, and remarks for its recipe."""
        image = canvas.picture if canvas else None
        remarks = canvas.remarks if canvas else ()
        trained = checking.notes_on_training(request, self.model.spec, seed)
        remarks += (*placed.words[0].notes, *placed.words[1].notes, *trained)
        prompt, negative = placed.texts
        words = call_arguments(
            pipeline,
            prompt=prompt.text,
            negative_prompt=negative.text or None,
            width=request.width,
            height=request.height,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            max_sequence_length=self.model.spec.max_tokens,
            clip_skip=self.model.spec.habits.clip_skip,
            output_type="pt",
            image=image,
            strength=None if image is None else request.strength,
            **inversion.arguments_of_others(pipeline, placed),
        )
        return words, remarks

    def _step(
        self, pipeline: Any, request: PaintRequest, index: int, canvas: Canvas | None, step: int,
        before: torch.Tensor, after: torch.Tensor, place: int | None,
    ) -> Step:  # fmt: skip
        """Step ``step`` of picture ``index``; see ``guard.AfterStep``."""
        scheduler = pipeline.scheduler

        def look() -> np.ndarray | None:
            final = predicted_final(scheduler, before, after, step, place)
            preview = self.preview(final, request.width, request.height)
            return preview if canvas is None else canvas.over_preview(preview)

        return Step(index, step, _steps(pipeline), look, after)

    # -- folds that a broken picture replans -------------------------------------------------------------------------

    def _as_sample(
        self, request: PaintRequest, words: dict[str, Any], seed: int, inverted: bool
    ) -> calibrate.CalibrationSample | None:
        """The picture as a calibration sample; None for img2img, under a LoRA, with a textual inversion and with variety, which
        calibration cannot repeat.
        """
        if request.loras or request.init_image is not None or request.variety or inverted:
            return None
        return calibrate.CalibrationSample(
            words["prompt"], request.width, request.height, request.steps, request.guidance, seed,
            words.get("negative_prompt") or "",
        )  # fmt: skip

    def _replan(self, part: fallback.Component) -> tuple[FoldPlan, dict[str, torch.Tensor]] | None:
        """New folds that include the current picture, as a difference to those in force, and the weights so folded.

        None where they cannot help.
        """
        if self._sample is None:
            return None
        place = calibrate.device_for(self.model, self.device)
        folds = calibrate.replan(self.model, self._sample, self._on_folding, place)
        if not folds.usable(calibrate.component_of(self.plan[part.name])):
            return None
        before = self.pipeline.folds
        difference = fallback.difference(before, folds.plan, part)
        self.pipeline.folds = fallback.updated(before, difference, part)
        fresh = networks(load(self.model, self.plan, folds.plan))
        return difference, {name: tensor for name, tensor, _ in named_tensors(fresh)}


def _key(request: PaintRequest, device: str | None, attention: str) -> tuple[Any, ...]:
    return (request.model, request.prediction, request.precision, request.keep_packed, device, attention)


def _steps(pipeline: Any) -> int:
    """How many steps this picture takes: img2img takes fewer than were asked for, some schedulers more."""
    return int(getattr(pipeline, "num_timesteps", None) or len(pipeline.scheduler.timesteps))
