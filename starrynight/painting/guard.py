"""The guard: stands at every stage of a painting, looks for NaN and Inf, and climbs the ladder where it finds any.

A stage whose numbers broke is computed again where it stands, from what went into it, so that the picture goes on from
its last good latents. Knows the stages of diffusers' pipelines and the rungs' order; what a rung changes is ``ladder``'s
affair, and what becomes of a refused picture the painter's. A dark picture is finite and passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import torch
from torch import nn

from starrynight.errors import BrokenNumbers, OutOfMemory
from starrynight.numerics.finite import ClampCounter, find_fault, locate_fault
from starrynight.painting import fallback, offload, schedulers
from starrynight.painting.fallback import FALLBACKS, HALVES, Component, cast
from starrynight.verdict import OUT_OF_MEMORY, FallbackAttempt, Fault, Verdict, names_of

# Networks that judge or prepare beside the painting, and make none of its numbers.
AUXILIARY_NETWORKS = ("safety_checker", "image_encoder")


class Guard:
    """Stands at a painter's pipelines. ``watch()`` is one picture; ``verdict()`` after it, what it saw.

    ``parts`` are the components by their roles in a precision plan. ``count_clamps``: also count the numbers that the
    libraries' own clamps change (each op then goes through Python, several times slower). ``mends`` may be set to False by
    who measures how a format breaks: then nobody climbs, and nobody looks for the module either.
    """

    def __init__(self, parts: Mapping[str, Component], denoiser: str, count_clamps: bool = False) -> None:
        self.parts, self.denoiser, self.count_clamps = parts, parts[denoiser], count_clamps
        self.recover = True
        self._begin()

    def _begin(self) -> None:
        self.step = 0
        self.attempts: list[FallbackAttempt] = []
        self.seen: set[str] = set()
        self.clamps: Counter[str] = Counter()
        self._times: list[Any] = []  # what the sampler was told at each step
        self._instead: Callable[..., Any] | None = None  # the conservative sampler, once it was needed
        self._busy = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """One picture. Whatever the ladder changed for it is taken back at its end."""
        self._begin()
        try:
            yield
        finally:
            for part in self.parts.values():
                part.restore()

    def expected(self, pipeline: Any, from_picture: bool) -> frozenset[str]:
        """The stages that a picture of this pipeline passes. One with networks of an unknown kind passes more than we see."""
        networks = {name for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
        known = {"vae", *self.denoiser.networks, *AUXILIARY_NETWORKS}
        strange = {name for name in networks - known if not name.startswith("text_encoder")}
        stages = {"prediction", "guidance", "latents", "picture", *strange}
        stages |= {"prompt"} if "text_encoder" in self.parts else set()
        if "vae" in networks:
            stages |= {"encoder", "decoder"} if from_picture else {"decoder"}
        return frozenset(stages)

    def verdict(self, expected: frozenset[str], remarks: tuple[str, ...] = ()) -> Verdict:
        """Of the picture just finished: "unchecked" if a stage in ``expected`` was never passed in the guard's sight."""
        unseen = sorted(expected - self.seen)
        reasons = (*remarks, *(f"not looked at: {stage}" for stage in unseen))
        clamps = dict(sorted(self.clamps.items())) if self.count_clamps else None
        return Verdict("unchecked" if unseen else "hang", reasons, tuple(self.attempts), clamps)

    # Where it stands

    def stand_at_networks(self, vae: Any) -> None:
        """At the denoiser and the autoencoder (None: the family paints pixels), which every pipeline over them shares."""
        (denoiser,) = self.denoiser.networks.values()
        denoiser.register_forward_pre_hook(self._to_denoiser, with_kwargs=True)
        denoiser.register_forward_hook(self._from_denoiser, with_kwargs=True)
        if vae is None:
            return
        for stage, role, verb in (("encoder", "vae_encode", "encode"), ("decoder", "vae_decode", "decode")):
            if role in self.parts and (work := getattr(vae, verb, None)) is not None:
                setattr(vae, verb, self._standing(stage, self.parts[role], work))
        for name, part in vae.named_children():
            if "decoder" in name:  # tiles are blended, and pixels stretched to 0..1, in float32
                part.register_forward_hook(lambda module, args, drawn: cast(drawn, torch.float32))

    def stand_at_prompt(self, pipeline: Any) -> None:
        """What the text encoders say is handed on in the denoiser's format."""
        encode = getattr(pipeline, "encode_prompt", None)
        if encode is None or "text_encoder" not in self.parts:
            return
        standing = self._standing("prompt", self.parts["text_encoder"], encode)

        @wraps(encode)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            return cast(standing(*args, **kwargs), self.denoiser.held)

        pipeline.encode_prompt = encode_prompt

    def stand_at_sampler(self, scheduler: Any, after_step: Callable[[int, torch.Tensor], None]) -> None:
        """``after_step(step, latents)`` is called once a step's latents are whole; it may raise to end the picture."""
        take_step = scheduler.step

        @wraps(take_step)  # pipelines read the signature to learn what a scheduler can be told
        def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen |= {"guidance", "latents"}
            if guided := _find(
                model_output, "guidance", self.step
            ):  # a sampler's clamps may hide it from the next look
                raise self._refuse(guided)
            if self._instead is not None:
                result: Any = (self._instead(model_output, sample, self.step),)
            else:
                result = take_step(model_output, timestep, sample, *args, **kwargs)
            self._times.append(timestep)
            if fault := _find(result[0], "latents", self.step):
                result = self._other_step(fault, scheduler, model_output, sample)
            self.step += 1
            after_step(self.step - 1, result[0])
            return result

        scheduler.step = step

    def picture(self, pixels: torch.Tensor) -> torch.Tensor:
        """The last look, before eight bits. There is no rung for it: whatever broke here broke after the networks."""
        self.seen.add("picture")
        if fault := _find(pixels, "picture", None):
            raise self._refuse(fault)
        return pixels

    # What it does there

    def _to_denoiser(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Latents and embeddings in the format that most of the network is in, whatever the ladder has changed.

        Times stay as they are: one number a picture, which loses its meaning in 16 bits.
        """
        target = self.denoiser.held

        def fit(value: Any, latents: bool) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(fit(item, latents) for item in value)
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                return value
            return value.to(target) if latents or (value.dtype in HALVES and value.dim() > 1) else value

        return tuple(fit(arg, number == 0) for number, arg in enumerate(args)), {
            key: fit(value, key in ("hidden_states", "sample")) for key, value in kwargs.items()
        }

    def _from_denoiser(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Handed on in float32: guidance multiplies, and steps add up, what 16 bits cannot hold."""
        if self._busy:
            return None
        self.seen.add("prediction")
        run = partial(module, *args, **kwargs)
        if self.count_clamps:
            output = self._counted(self.denoiser, run)
        return cast(self._sound("prediction", self.step, self.denoiser, run, output), torch.float32)

    def _standing(self, stage: str, part: Component, work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def look(*args: Any, **kwargs: Any) -> Any:
            if self._busy:
                return work(*args, **kwargs)
            self.seen.add(stage)
            run = partial(work, *args, **kwargs)
            value = self._counted(part, run) if self.count_clamps else run()
            return self._sound(stage, None, part, run, value)

        return look

    def _sound(
        self, stage: str, step: int | None, part: Component, run: Callable[[], Any], value: Any
    ) -> Any:
        """``value`` if it is whole, else what ``run`` gives on the first rung that makes it so. Raises BrokenNumbers."""
        fault = _find(value, stage, step)
        if fault is None:
            return value
        with self._alone():
            fault = replace(fault, format=str(part.narrow or torch.float32)[6:]).at(
                locate_fault(part.networks, run)
            )
            for rung in FALLBACKS if self.recover else ():
                if rung.name in part.climbed and not rung.grows:
                    continue
                while (detail := self._climb(rung, part, fault)) is not None:
                    part.climbed.add(rung.name)
                    value, again = _try(run, stage, step)
                    self._climbed(rung.name, fault, again is None, detail)
                    if again is None:
                        return value
                    if not rung.grows:
                        break
                    fault = again.at(locate_fault(part.networks, run)) if again.total else fault
        raise self._refuse(fault)

    def _climb(self, rung: fallback.Fallback, part: Component, fault: Fault) -> str | None:
        """What the rung did; None where it cannot help, be it for want of memory, which is told as tried in vain."""
        try:
            return rung.climb(part, fault)
        except (RuntimeError, MemoryError, OutOfMemory) as error:
            if offload.out_of_memory(error) is None:
                raise
            self._climbed(rung.name, fault, False, OUT_OF_MEMORY[0])
            return None

    def _other_step(self, fault: Fault, scheduler: Any, model_output: Any, sample: Any) -> Any:
        """The step again by the conservative sampler, which goes on for the rest of the picture."""
        fault = fault.at((type(scheduler).__name__, "step"))
        conservative = schedulers.conservative(scheduler, self._times[0])
        if conservative is None or self._instead is not None or not self.recover:
            raise self._refuse(fault)
        name, take_step = conservative
        latents = take_step(model_output, sample, self.step)
        again = _find(latents, "latents", self.step)
        self._climbed("sampler", fault, again is None, name)
        if again is not None:
            raise self._refuse(fault)
        self._instead = take_step
        return (latents,)

    def _climbed(self, name: str, fault: Fault, mended: bool, detail: str) -> None:
        """A rung that grows is told once for a fault, as it stood at the end."""
        last = self.attempts[-1] if self.attempts else None
        if (
            last
            and last.name == name
            and not last.recovered
            and (last.fault.stage, last.fault.step) == (fault.stage, fault.step)
        ):
            fault = last.fault
            self.attempts.pop()
        self.attempts.append(FallbackAttempt(name, fault, mended, detail))

    def _refuse(self, fault: Fault) -> BrokenNumbers:
        climbed = [rung for rung in self.attempts if rung.fault.stage == fault.stage and not rung.recovered]
        en, zh = (
            (f" Tried in vain: {names_of(climbed, 'en')}.", f"已试过：{names_of(climbed, 'zh')}，均无效。")
            if climbed
            else ("", "")
        )
        error = BrokenNumbers(
            f"The numbers broke: {fault.message('en')}.{en} There is no picture; try another seed or sampler, or check the "
            "model's files.",
            f"数值失效：{fault.message('zh')}。{zh}没有画面；请换种子或采样器，或检查模型文件。",
        )
        error.fault = fault
        return error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While a stage is computed again, the guard's own hooks let everything pass."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _counted(self, part: Component, run: Callable[[], Any]) -> Any:
        """The stage once more under the counter, which the first time had not been there."""
        counter = ClampCounter()
        with self._alone(), counter.following(part.networks), counter:
            value = run()
        for (module, op), count in counter.counts.items():
            if module:
                self.clamps[f"{module} {op}"] += count
        return value


def _try(run: Callable[[], Any], stage: str, step: int | None) -> tuple[Any, Fault | None]:
    """The stage once more; a change that the network cannot even run with has not helped."""
    try:
        value = run()
    except RuntimeError as error:
        return None, Fault(stage, f"“{str(error).splitlines()[0][:80]}”", 0, 0, step)
    return value, _find(value, stage, step)


def _find(value: Any, stage: str, step: int | None) -> Fault | None:
    for tensor in _tensors(value):
        if fault := find_fault(tensor, stage, step):
            return fault
    return None


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The float tensors of whatever a stage hands on; an encoder's distribution shows its parameters."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.device.type != "meta":
            yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(parameters := getattr(value, "parameters", None), torch.Tensor):
        yield parameters
