"""The guard: checks every stage of a picture for NaN and Inf, and retries a broken stage with the fallbacks.

A stage whose numbers are not finite is computed again from the same inputs, with one change after another (``fallback``),
so the picture continues from its last good latents. If no change helps, the picture is refused with the stage, step and
module named. A dark picture is finite and passes.

On a card the steps are checked late (``flags``), so that the host never waits for the device within a step. If a step turns
out to be broken, the picture begins again on the denoiser's kept outputs, which takes it back to the last good latents at
once, and from there every stage is checked before the next. The verdict is the same.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any, TypeVar

import torch
from torch import nn

from starrynight.errors import BrokenNumbers, OutOfMemory
from starrynight.i18n import Text
from starrynight.models.library_errors import out_of_memory
from starrynight.models.load import forget_format, networks, note_format
from starrynight.numerics.device import exact_float32
from starrynight.numerics.dtypes import cast
from starrynight.numerics.finite import ClampCounter, locate_fault
from starrynight.numerics.modules import tensors_in
from starrynight.painting import fallback, schedulers
from starrynight.painting.encoding import PromptCache
from starrynight.painting.fallback import FALLBACKS, Component
from starrynight.painting.flags import Flags, Look, find
from starrynight.verdict import (
    OUT_OF_MEMORY,
    STAGES,
    FallbackAttempt,
    Fault,
    Verdict,
    Verified,
    names_of,
    split,
)

# Networks of a pipeline that produce none of the picture's numbers.
AUXILIARY_NETWORKS = ("safety_checker", "image_encoder")

# Called once a step's latents are known to be finite: (step from 0, latents before it, latents after it, the scheduler's index
# after it, None for a scheduler without one).
AfterStep = Callable[[int, torch.Tensor, torch.Tensor, int | None], None]

T = TypeVar("T")


class _GoBack(Exception):
    """A step that was checked late is broken."""

    def __init__(self, look: Look) -> None:
        super().__init__(look.stage, look.step)
        self.look = look


class Guard:
    """Watches the pipelines of one painter. ``watch()`` paints a picture; ``verdict()`` after it tells what was seen.

    ``parts`` are the components by their roles in a precision plan. ``recover=False`` disables fallbacks and the search
    for the faulty module, for benchmarks. ``count_clamps`` also counts the numbers that the libraries' own clamps change;
    every operation then goes through Python, which is several times slower. ``late`` checks the steps one step late.
    """

    def __init__(
        self,
        parts: Mapping[str, Component],
        denoiser: str,
        recover: bool = True,
        count_clamps: bool = False,
        late: bool = False,
    ) -> None:
        self.parts, self.denoiser = parts, parts[denoiser]
        self.recover, self.count_clamps, self.late = recover, count_clamps, late
        self.attempts: list[FallbackAttempt] = []
        self.seen: set[str] = set()
        self.clamps: Counter[str] = Counter()
        self.verify = False  # whether to compute the first prediction in float32 too
        self.verified: Verified | None = None
        self.prompts = PromptCache()
        self._told = 0  # steps of the picture that ``after_step`` was called for
        self._begin(self.late)

    def _begin(self, late: bool) -> None:
        self.step = 0
        self._timesteps: list[Any] = []
        self._conservative: schedulers.Conservative | None = None  # takes the steps once the scheduler failed
        self._busy = False
        self._flags = (
            Flags() if late and not self.count_clamps else None
        )  # None: each stage is checked at once
        self._outputs: list[Any] = []  # the denoiser's, kept while the steps are checked late
        self._untold: deque[Callable[[], None]] = deque()  # steps that were not checked yet
        self._known: Fault | None = None  # what was found late; its stage may not break again

    def watch(self, paint: Callable[[], T]) -> T:
        """What ``paint`` returns, which is called for one picture: twice, if a step that was checked late is broken.

        Whatever a fallback changed for the picture is undone at its end.
        """
        self.attempts, self.seen, self.clamps, self._told = [], set(), Counter(), 0
        self.verified = None
        self._begin(self.late)
        note_format(self._network)
        try:
            try:
                return paint()
            except _GoBack as back:
                found, outputs = back.look, self._outputs[: back.look.outputs]
            self._begin(late=False)
            # A broken prediction is among the kept outputs. What broke after them is taken as found.
            self._known = found.fault() if found.stage != "prediction" else None
            with self._replaying(outputs):
                return paint()
        finally:
            for part in self.parts.values():
                part.restore()
            self._begin(self.late)
            forget_format(self._network)

    @property
    def _network(self) -> nn.Module:
        (denoiser,) = self.denoiser.networks.values()
        return denoiser

    @contextmanager
    def _replaying(self, outputs: list[Any]) -> Iterator[None]:
        """The denoiser gives these outputs before it computes any."""
        denoiser = self._network
        given, covered, compute = iter(outputs), vars(denoiser).get("forward"), denoiser.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            output = None if self._busy else next(given, None)
            return compute(*args, **kwargs) if output is None else output

        denoiser.forward = forward
        try:
            yield
        finally:
            del denoiser.forward  # uncovers the class's own
            if covered is not None:  # accelerate's, where it offloads
                denoiser.forward = covered

    def expected(self, pipeline: Any, from_picture: bool) -> frozenset[str]:
        """The stages of a picture of this pipeline. A network of an unknown kind counts as a stage that is never seen."""
        found = set(networks(pipeline))
        known = {"vae", *self.denoiser.networks, *AUXILIARY_NETWORKS}
        unknown = {name for name in found - known if not name.startswith("text_encoder")}
        stages = {"prediction", "guidance", "latents", "picture", *unknown}
        stages |= {"prompt"} if "text_encoder" in self.parts else set()
        if "vae" in found:
            stages |= {"encoder", "decoder"} if from_picture else {"decoder"}
        return frozenset(stages)

    def verdict(self, expected: frozenset[str], remarks: tuple[Text, ...] = ()) -> Verdict:
        """Of the picture just finished: "unchecked" if the guard never saw one of the ``expected`` stages."""
        unseen = sorted(expected - self.seen)
        skipped = (
            Text(f"not looked at: {one}", f"未检查：{STAGES.get(one, Text(one, one)).zh}") for one in unseen
        )
        en, zh = split((*remarks, *skipped))
        clamps = dict(sorted(self.clamps.items())) if self.count_clamps else None
        outcome = "unchecked" if unseen else "hang"
        return Verdict(outcome, en, tuple(self.attempts), clamps, zh, self.verified)

    # -- where it is attached ----------------------------------------------------------------------------------------

    def attach_to_networks(self, vae: Any) -> None:
        """To the denoiser and the autoencoder (None: the family paints pixels), which all pipelines over them share."""
        self._network.register_forward_hook(self._after_denoiser, with_kwargs=True)
        if vae is None:
            return
        for stage, role, method in (
            ("encoder", "vae_encode", "encode"),
            ("decoder", "vae_decode", "decode"),
        ):
            if role in self.parts and (call := getattr(vae, method, None)) is not None:
                setattr(vae, method, self._checked(stage, self.parts[role], call))
        for name, part in vae.named_children():
            if "decoder" in name:  # tiles are blended, and pixels scaled to 0..1, in float32
                part.register_forward_hook(lambda module, args, output: cast(output, torch.float32))

    def attach_to_prompt(self, pipeline: Any) -> None:
        """Embeddings are checked and handed on in the denoiser's format."""
        encode = getattr(pipeline, "encode_prompt", None)
        if encode is None or "text_encoder" not in self.parts:
            return
        checked = self._checked("prompt", self.parts["text_encoder"], encode)

        @wraps(encode)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            key = None if self.count_clamps else self.prompts.key(pipeline, args, kwargs)
            if (embeddings := self.prompts.find(pipeline, key)) is None:
                embeddings = checked(*args, **kwargs)
                if self.attempts:  # what a fallback changed is undone, or changes later prompts too
                    self.prompts.clear()
                else:
                    self.prompts.keep(pipeline, key, embeddings)
            self.seen.add("prompt")
            return cast(embeddings, self.denoiser.held())

        pipeline.encode_prompt = encode_prompt

    def attach_to_scheduler(self, scheduler: Any, after_step: AfterStep) -> None:
        """``after_step`` may raise to end the picture. The only wrapper of ``scheduler.step``."""
        take_step = scheduler.step

        @wraps(take_step)  # pipelines read the signature to learn what a scheduler accepts
        def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen |= {"guidance", "latents"}
            # Before the step, because a scheduler's clamps may hide it from the check of the latents.
            if fault := self._look(model_output, "guidance"):
                raise self._refusal(fault)
            if self._conservative is not None:
                result: Any = (self._conservative(model_output, sample, self.step),)
            else:
                result = take_step(model_output, timestep, sample, *args, **kwargs)
            self._timesteps.append(timestep)
            if fault := self._look(result[0], "latents"):
                result = self._conservative_step(fault, scheduler, model_output, sample)
            index = getattr(scheduler, "step_index", None)
            self._untold.append(partial(self._tell, after_step, self.step, sample, result[0], index))
            self.step += 1
            self._end_step()
            return result

        scheduler.step = step

    def check_picture(self, pixels: torch.Tensor) -> torch.Tensor:
        """The last check, before eight bits. No fallback applies here: what broke, broke after the networks."""
        self.seen.add("picture")
        self._read_flags(0)
        if fault := find(pixels, "picture", None):
            raise self._refusal(fault)
        return pixels

    # -- what it does there ------------------------------------------------------------------------------------------

    def _look(self, value: Any, stage: str) -> Fault | None:
        """The fault in a stage of this step; None as well while it is not known."""
        if self._flags is not None:
            self._flags.look(Look(value, stage, self.step, len(self._outputs)))
            return None
        known = self._known
        if known is not None and (known.stage, known.step) == (stage, self.step):
            self._known = None
            return known
        return find(value, stage, self.step)

    def _end_step(self) -> None:
        if self._flags is not None:
            self._flags.close_step()
        self._read_flags(1)

    def _read_flags(self, leave: int) -> None:
        """Read the flags of all steps but the last ``leave``, and tell of the steps known to be finite."""
        while self._untold and (self._flags is None or len(self._flags) > leave):
            if self._flags is not None and (look := self._flags.read_step()):
                raise _GoBack(look)
            self._untold.popleft()()

    def _tell(self, after_step: AfterStep, step: int, *state: Any) -> None:
        if step >= self._told:  # else it was told before the picture went back
            self._told += 1
            after_step(step, *state)

    def _after_denoiser(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Predictions go on in float32: guidance multiplies, and steps add up, what 16 bits cannot hold."""
        if self._busy:
            return None
        self.seen.add("prediction")
        run = partial(module, *args, **kwargs)
        if self.verify and self.verified is None:
            self.verified = self._beside_float32(run, output)
        if self._flags is not None:
            self._outputs.append(output)
            self._look(output, "prediction")
            return cast(output, torch.float32, copy=True)  # the kept one stays as it is
        if self.count_clamps:
            output = self._count_clamps(self.denoiser, run)
        return cast(self._recovered("prediction", self.step, self.denoiser, run, output), torch.float32)

    def _beside_float32(self, run: Callable[[], Any], output: Any) -> Verified:
        """The first prediction again with the same inputs and weights, in float32; the weights are restored bit for bit."""
        held = self.denoiser.half()
        if held is None and not self.denoiser.format:
            return Verified("float32", 0.0)
        twin = Component(self.denoiser.name, self.denoiser.networks, self.denoiser.stores)
        error: float | None = None
        with self._hooks_off(), exact_float32():
            try:
                twin.recast(torch.float32)
                note_format(self._network)
                error = _relative_error(output, run())
            except (RuntimeError, MemoryError, OutOfMemory) as failure:
                if out_of_memory(failure) is None:
                    raise
            finally:
                twin.restore()
                note_format(self._network)
        return Verified(
            self.denoiser.format or str(held)[6:],
            error if error is not None and math.isfinite(error) else None,
        )

    def _checked(self, stage: str, part: Component, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if self._busy:
                return call(*args, **kwargs)
            self.seen.add(stage)
            run = partial(call, *args, **kwargs)
            value = self._count_clamps(part, run) if self.count_clamps else run()
            self._read_flags(0)  # of the steps before this stage, which is on its way already
            return self._recovered(stage, None, part, run, value)

        return checked

    def _recovered(
        self, stage: str, step: int | None, part: Component, run: Callable[[], Any], value: Any
    ) -> Any:
        """``value`` if it is finite, else what ``run`` returns under the first fallback that makes it so.

        Raises BrokenNumbers if none does.
        """
        fault = find(value, stage, step)
        if fault is None:
            return value
        with self._hooks_off():
            fault = replace(fault, format=str(part.half() or torch.float32)[6:], stored=part.stored)
            fault = fault.at(locate_fault(part.networks, run))
            for one in FALLBACKS if self.recover else ():
                if one.name in part.tried and not one.grows:
                    continue
                while (note := self._change(one, part, fault)) is not None:
                    part.tried.add(one.name)
                    value, still = _try(run, stage, step)
                    self._record(one.name, fault, still is None, note)
                    if still is None:
                        return value
                    if not one.grows:
                        break
                    if still.total:
                        fault = replace(still, stored=part.stored).at(locate_fault(part.networks, run))
        raise self._refusal(fault)

    def _change(self, one: fallback.Fallback, part: Component, fault: Fault) -> str | None:
        """What the fallback changed; None where it does not apply. One that runs out of memory is recorded as failed."""
        try:
            return one.change(part, fault)
        except (RuntimeError, MemoryError, OutOfMemory) as error:
            if out_of_memory(error) is None:
                raise
            self._record(one.name, fault, False, OUT_OF_MEMORY[0])
            return None
        finally:
            note_format(self._network)

    def _conservative_step(self, fault: Fault, scheduler: Any, model_output: Any, sample: Any) -> Any:
        """The step again by the conservative scheduler, which takes the remaining steps of the picture as well."""
        fault = fault.at((type(scheduler).__name__, "step"))
        found = schedulers.conservative(scheduler, self._timesteps[0])
        if found is None or self._conservative is not None or not self.recover:
            raise self._refusal(fault)
        name, take_step = found
        latents = take_step(model_output, sample, self.step)
        still = find(latents, "latents", self.step)
        self._record("sampler", fault, still is None, name)
        if still is not None:
            raise self._refusal(fault)
        self._conservative = take_step
        return (latents,)

    def _record(self, name: str, fault: Fault, recovered: bool, note: str) -> None:
        """One entry for a fallback that grows at the same stage and step: its last state, with the first fault."""
        last = self.attempts[-1] if self.attempts else None
        if (
            last
            and last.name == name
            and not last.recovered
            and (last.fault.stage, last.fault.step) == (fault.stage, fault.step)
        ):
            fault = last.fault
            self.attempts.pop()
        self.attempts.append(FallbackAttempt(name, fault, recovered, note))

    def _refusal(self, fault: Fault) -> BrokenNumbers:
        failed = [a for a in self.attempts if a.fault.stage == fault.stage and not a.recovered]
        en = f" Tried in vain: {names_of(failed, 'en')}." if failed else ""
        zh = f"已试过：{names_of(failed, 'zh')}，均无效。" if failed else ""
        error = BrokenNumbers(
            f"The numbers broke: {fault.message('en')}.{en} There is no picture; try another seed or sampler, or check the "
            "model's files.",
            f"数值失效：{fault.message('zh')}。{zh}没有画面；请换种子或采样器，或检查模型文件。",
        )
        error.fault = fault
        return error

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        """While a stage is computed again, the guard's own hooks check nothing."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _count_clamps(self, part: Component, run: Callable[[], Any]) -> Any:
        """Run the stage under the clamp counter."""
        counter = ClampCounter()
        with self._hooks_off(), counter.following(part.networks), counter:
            value = run()
        for (module, op), count in counter.counts.items():
            if module:
                self.clamps[f"{module} {op}"] += count
        return value


def _relative_error(value: Any, reference: Any) -> float:
    """‖x − r‖ / ‖r‖ over all numbers of two outputs."""
    pairs = list(zip(tensors_in(value), tensors_in(reference), strict=True))
    different = sum(float((x.double() - r.double()).square().sum()) for x, r in pairs)
    whole = sum(float(r.double().square().sum()) for _, r in pairs)
    return math.sqrt(different / whole) if whole else math.sqrt(different)


def _try(run: Callable[[], Any], stage: str, step: int | None) -> tuple[Any, Fault | None]:
    """The stage once more. A change under which the network cannot run has not helped."""
    try:
        value = run()
    except RuntimeError as error:
        return None, Fault(stage, f"“{str(error).splitlines()[0][:80]}”", 0, 0, step)
    return value, find(value, stage, step)
