"""Sensitivities: each layer rounded alone, and what that does to small pictures, or to the velocity of a large model.

A small model paints short pictures, half the usual side. Of a large one (``calibrate.is_large``) one small picture is
painted once; its denoiser's inputs at a few steps are kept, and the error of its outputs there is measured instead. Whole
paintings with all layers rounded tell what such errors mean in a picture. Every measurement is stored at once, so that a killed run resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.fitting import table as tables
from starrynight.fitting.blocks import INT8, PLAIN, TYPES, int8_numbers, quantise
from starrynight.fitting.formats import FLOAT8, LARGEST_ALONE, candidates, probes, uniform
from starrynight.fitting.layout import DenoiserLayout
from starrynight.fitting.table import Sensitivity
from starrynight.folding import calibrate
from starrynight.folding.cache import CalibrationSample
from starrynight.i18n import Text
from starrynight.models import gguf
from starrynight.models.catalogue import LocalModel
from starrynight.models.fitted import FOLDER
from starrynight.models.load import denoiser
from starrynight.numerics.device import exact_float32
from starrynight.numerics.timing import best_of
from starrynight.progress import ProgressCounter

# Numbers of a layer, whole rows, on which the error of its weights in every type is measured.
SAMPLE = 1 << 19
# Columns of a layer whose inputs' products are kept together: 4 MB for every 1024 columns, 3 GB for six billion weights.
RUN = 1024
# Inputs of a layer that gets one a picture, with guidance.
GUIDED = 2
# The name under which moments are stored; those of "moments" had products of a few tokens, too.
MOMENTS = "moments-2"
# Denoiser calls of the small picture at which a large model's velocity is compared, and the steps of that picture.
CALLS, STEPS = 3, 4
# By how much errors may be larger in other pictures than in those that tell the scale: 3.5 dB, on the safe side.
MARGIN = 2.25
# The types in which whole pictures tell the scale, coarsest first. Where little is rounded, a picture whose composition
# hangs in the balance has a larger share in the mean than what is measured of layers alone tells (docs/fit.md).
SCALES = ("Q4_0", "Q5_0", "Q8_0")
# Prompts of the sensitivities; those on which results are judged are others. Layers that read the words matter for few
# prompts and then much: with two prompts Firefly's context refiner looked ninety times less sensitive than one held-out
# prompt found it (docs/fit.md), so there are eight, of both languages and all kinds.
PROMPTS = (
    *calibrate.CALIBRATION,
    "a red fox in a birch forest, watercolour",
    "樱花树下的小路，吉卜力风格",
    "portrait of an old fisherman, oil painting",
    "极简，一轮红日",
    "a bowl of oranges on a blue cloth, monet",
    "雪山与极光，水彩",
)


def samples_of(model: LocalModel) -> tuple[CalibrationSample, ...]:
    """The small pictures of the measurement: eight short ones of half the usual side, or one of a large model."""
    spec, first = model.spec, calibrate.usual(model)[0]
    if calibrate.is_large(model):
        return (CalibrationSample(PROMPTS[0], first.width, first.height, min(STEPS, first.steps), first.guidance, 11),)  # fmt: skip
    side = max(spec.smallest, first.width // 2 // spec.multiple * spec.multiple)
    steps = min(first.steps, max(STEPS, min(first.steps // 2, 2 * STEPS)))
    return tuple(
        CalibrationSample(prompt, side, side, steps, first.guidance, 11 + number)
        for number, prompt in enumerate(PROMPTS)
    )


def scale_samples(model: LocalModel) -> tuple[CalibrationSample, ...]:
    """The whole pictures that tell the scale: one of the usual side for each prompt, or the small one of a large model."""
    if calibrate.is_large(model):
        return samples_of(model)
    first = calibrate.usual(model)[0]
    return tuple(replace(first, prompt=prompt, seed=77 + n) for n, prompt in enumerate(PROMPTS))


def rounded(weights: Tensor, kind: str, moments: Tensor | None = None) -> Tensor:
    """The numbers that a weight means after it was stored in a type of GGUF, in INT8 or in float8; float32. ``moments``:
    ``blocks.quantise``.
    """
    if kind == FLOAT8:
        scale = weights.float().abs().amax().clamp_min(1e-30) / torch.finfo(torch.float8_e4m3fn).max
        return (weights.float() / scale).to(torch.float8_e4m3fn).float() * scale
    if kind in PLAIN:
        return weights.to(PLAIN[kind]).float()
    data = quantise(weights, kind, None if moments is None else moments.to(weights.device))
    if kind == INT8:
        return int8_numbers(data)
    return gguf.decode(data.reshape(-1), kind).reshape(weights.shape)


def published(weights: Tensor, kind: str, moments: Tensor | None = None) -> Tensor:
    """As ``rounded``, as files are published: the ``gguf`` package's scales, for the K types those of llama.cpp's search, which
    it has none of, and for INT8 the largest number of each row; no inputs are looked at.
    """
    if kind == INT8:
        scale = (weights.float().abs().amax(1, keepdim=True) / 127).clamp_min(1e-30)
        return (weights.float() / scale).round() * scale
    from gguf import GGMLQuantizationType as Kinds
    from gguf import quants

    if kind not in LARGEST_ALONE:
        return rounded(weights, kind)
    data = quants.quantize(weights.float().cpu().numpy(), Kinds[kind])
    return torch.from_numpy(quants.dequantize(data, Kinds[kind])).to(weights.device)


def nearest(weights: Tensor, kind: str, moments: Tensor | None = None) -> Tensor:
    """As ``rounded`` without GPTQ: errors count by column."""
    return rounded(weights, kind, None if moments is None else mean_squares(moments))


Rounding = Callable[[Tensor, str, Tensor | None], Tensor]


@dataclass
class Subject:
    """A loaded pipeline, the layout of its denoiser's file, and the second moments of the inputs of each layer."""

    model: LocalModel
    pipeline: Any
    layout: DenoiserLayout
    moments: dict[str, Tensor]

    @property
    def network(self) -> nn.Module:
        return denoiser(self.pipeline)

    @contextmanager
    def stored_as(self, formats: Mapping[str, str], how: Rounding = rounded) -> Iterator[None]:
        """The network with layers as they come back from these types."""
        with ExitStack() as stack:
            for name, kind in formats.items():
                weights = self.layout.weight(self.network, name)
                values = how(weights, kind, self.moments.get(name))
                stack.enter_context(self.layout.replaced(self.network, {name: values}))
            yield

    def paint(self, sample: CalibrationSample) -> Tensor:
        with exact_float32():
            return calibrate.paint(self.pipeline, self.model, sample).cpu()


# -- what the columns of a layer are multiplied by -------------------------------------------------------------------


def run_width(columns: int) -> int:
    """Columns of a run: whole blocks of 256, or of 32, at most ``RUN`` where there are such; 0 where rows fill no blocks."""
    unit = next((block for block in (256, 32) if columns % block == 0), 0)
    if not unit:
        return 0
    blocks = columns // unit
    return unit * max(n for n in range(1, blocks + 1) if blocks % n == 0 and (n == 1 or n * unit <= RUN))


def moment_bytes(signature: Mapping[str, Any]) -> int:
    """Bytes of the moments of all layers."""
    return 4 * sum(columns * max(1, run_width(columns)) for _, columns in signature.values())


def mean_squares(moments: Tensor) -> Tensor:
    """The mean squares [columns] of ``moments``."""
    return moments if moments.dim() == 1 else moments.diagonal(dim1=1, dim2=2).reshape(-1)


def products(x: Tensor) -> Tensor:
    """Σ x xᵀ within runs of columns [runs, width, width] of inputs x [n, columns]; the squares alone without blocks."""
    width = run_width(x.shape[1])
    if not width:
        return x.square().sum(0)
    runs = x.reshape(len(x), -1, width).transpose(0, 1)
    return runs.transpose(1, 2) @ runs


@contextmanager
def watching_inputs(subject: Subject) -> Iterator[None]:
    """Fill ``subject.moments`` with the mean products of the inputs of every layer, over what runs meanwhile.

    A layer of tokens that met fewer different ones than a run has columns (those that read the words) keeps the mean squares
    alone: its products are singular, and GPTQ would push the errors where no token was seen and other prompts' lie (docs/fit.md).
    Layers that get one input a picture keep their products: other pictures have the same times.
    """
    modules, sums = dict(subject.network.named_modules()), dict[str, tuple[Tensor, int]]()
    met: dict[str, set[int]] = {}

    def hook(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0].detach().float().reshape(-1, args[0].shape[-1])
            total, count = sums.get(name, (0, 0))
            sums[name] = total + products(x), count + len(x)
            if len(x) > GUIDED and len(different := met.setdefault(name, set())) < RUN:
                different.update(_marks(x))

        return note

    hooks = []
    for layer in subject.layout.layers:
        module = modules[subject.layout.rows[layer][0][0].removesuffix(".weight")]
        hooks.append(module.register_forward_pre_hook(hook(layer)))
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
    means = {name: total / max(count, 1) for name, (total, count) in sums.items()}
    subject.moments = {
        name: mean_squares(mean) if len(met.get(name, range(RUN))) < mean.shape[-1] else mean
        for name, mean in means.items()
    }


def _marks(x: Tensor) -> list[int]:
    """A number for each of the inputs x [n, columns], equal for equal ones and for those that differ by rounding."""
    return (1e5 * x.sum(1) / x.abs().sum(1).clamp_min(1e-30)).round().int().tolist()


# -- two measures of an error ----------------------------------------------------------------------------------------


class Paintings:
    """The mean square error of a few small pictures."""

    how = "paintings"

    def __init__(self, subject: Subject, samples: Iterable[CalibrationSample]) -> None:
        self.subject, self.samples = subject, tuple(samples)
        self.whole: list[Tensor] = []
        with watching_inputs(subject):
            self.references = [subject.paint(sample) for sample in self.samples]
            for sample in calibrate.usual(subject.model):  # all noise levels that a usual picture passes
                subject.paint(sample)

    def error(self) -> float:
        errors = [
            float((self.subject.paint(sample) - reference).square().mean())
            for sample, reference in zip(self.samples, self.references, strict=True)
        ]
        return sum(errors) / len(errors)

    def painted(self, formats: Mapping[str, str], how: Rounding) -> float:
        """The error whose PSNR is the mean PSNR of whole pictures of the usual side under an assignment, of other noise than was
        watched.
        """
        samples = scale_samples(self.subject.model)
        self.whole = self.whole or [self.subject.paint(sample) for sample in samples]
        with self.subject.stored_as(formats, how):
            found = [self.subject.paint(sample) for sample in samples]
        return tables.mean_error(
            [float((f - w).square().mean()) for f, w in zip(found, self.whole, strict=True)]
        )


class Velocity:
    """The squared error of what the denoiser answers at a few steps of one small picture, relative to its square."""

    how = "velocity"

    def __init__(self, subject: Subject, samples: Iterable[CalibrationSample]) -> None:
        self.subject, (self.sample, *_) = subject, tuple(samples)
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

        def note(module: nn.Module, args: tuple[Any, ...], words: dict[str, Any], output: Any) -> None:
            self.calls.append((args, words, _answers(output)))

        hook = subject.network.register_forward_hook(note, with_kwargs=True)
        try:
            with watching_inputs(subject):
                self.reference = subject.paint(self.sample)
        finally:
            hook.remove()
        last = len(self.calls) - 1
        self.calls = [self.calls[n] for n in sorted({last * k // max(CALLS - 1, 1) for k in range(CALLS)})]

    @torch.no_grad()
    def error(self) -> float:
        found = 0.0
        with exact_float32():
            for args, words, meant in self.calls:
                answers = _answers(self.subject.network(*args, **words))
                wrong = sum(float((a - m).square().sum()) for a, m in zip(answers, meant, strict=True))
                found += wrong / max(sum(float(m.square().sum()) for m in meant), 1e-30)
        return found / len(self.calls)

    def painted(self, formats: Mapping[str, str], how: Rounding) -> float:
        """The mean square error of the whole picture under an assignment."""
        with self.subject.stored_as(formats, how):
            return float((self.subject.paint(self.sample) - self.reference).square().mean())


def _answers(output: Any) -> list[Tensor]:
    """The tensors of a denoiser's output, detached, in float32: a tuple, a list within one, or an object with ``sample``."""
    if isinstance(output, Tensor):
        return [output.detach().float()]
    if isinstance(output, list | tuple):
        return [answer for part in output for answer in _answers(part)]
    return _answers(output.sample)


def meter(subject: Subject) -> Paintings | Velocity:
    """The measure for a model of this size. It paints the references, and watches the layers' inputs meanwhile."""
    kind = Velocity if calibrate.is_large(subject.model) else Paintings
    return kind(subject, samples_of(subject.model))


# -- the table -------------------------------------------------------------------------------------------------------


def plain_kind(weights: Tensor) -> str:
    """BF16 where the numbers are bfloat16's own or beyond float16, else F16, which is nearer."""
    exact = torch.equal(weights.bfloat16().to(weights.dtype), weights)
    return "BF16" if exact or float(weights.abs().max()) > torch.finfo(torch.float16).max else "F16"


def weight_errors(weights: Tensor, kinds: Iterable[str], moments: Tensor | None, how: Rounding = nearest) -> dict[str, float]:  # fmt: skip
    """The squared error of the weights in every type, relative to their squares, columns weighted by their inputs' squares."""
    rows = weights[: max(1, SAMPLE // weights.shape[1])].float()
    factor = torch.ones(rows.shape[1]) if moments is None else mean_squares(moments)
    factor = factor.to(rows.device)
    whole = max(float((factor * rows.square()).sum()), 1e-30)
    return {kind: float((factor * (how(rows, kind, moments) - rows).square()).sum()) / whole for kind in kinds}  # fmt: skip


def empty_table(subject: Subject, how: str) -> Sensitivity:
    """A table without errors of pictures: shapes, and the errors of the weights."""
    model, layout = subject.model, subject.layout
    return weighed(subject, Sensitivity(model.spec.name, model.fingerprint, how, layout.signature, {}))


def weighed(subject: Subject, found: Sensitivity) -> Sensitivity:
    """``found`` with the errors of the weights in every type that it lacks; tables of before know fewer types."""
    layout, network = subject.layout, subject.network
    for layer in layout.layers:
        weights, moments = layout.weight(network, layer), subject.moments.get(layer)
        plain = found.plain.setdefault(layer, plain_kind(weights))
        kinds = candidates(tuple(weights.shape), plain, FOLDER)
        for errors, wanted, how in ((found.weights, kinds, nearest), (found.published, (*kinds, FLOAT8), published)):  # fmt: skip
            known = errors.setdefault(layer, {})
            known |= weight_errors(weights, [kind for kind in wanted if kind not in known], moments, how)
    return found


def measurements(signature: Mapping[str, Any], known: Sensitivity | None = None) -> list[tuple[str, str]]:
    """(layer, type) that are still to be measured."""
    done = known.errors if known else {}
    return [(layer, kind) for layer, shape in signature.items() for kind in probes(shape) if kind not in done.get(layer, {})]  # fmt: skip


def whole(known: Sensitivity | None = None) -> int:
    """In how many types, of both ways to round, whole pictures are still to be painted."""
    scales = (known.scale, known.published_scale) if known else 2 * (tables.UNSCALED,)
    return len(SCALES) * scales.count(tables.UNSCALED)


def stages(signature: Mapping[str, Any]) -> int:
    """What ``measure`` counts: every measurement, and the whole pictures in each type of both ways to round."""
    return len(measurements(signature)) + whole()


def measure(
    subject: Subject, measure: Paintings | Velocity, found: Sensitivity, path: Path, counter: ProgressCounter
) -> Sensitivity:
    """Measure what is missing in ``found`` and store it at ``path`` after every step."""
    left = measurements(found.signature, found)
    counter.advance(Text("measured before", "此前已测"), len(measurements(found.signature)) - len(left))
    for layer, kind in left:
        with subject.stored_as({layer: kind}, nearest):
            found.errors.setdefault(layer, {})[kind] = measure.error()
        tables.store(path, found)
        counter.advance(Text(f"rounding {layer}", f"舍入 {layer}"))
    for own, how in (("scale", rounded), ("published_scale", published)):
        if getattr(found, own) == tables.UNSCALED:
            setattr(found, own, picture_scale(measure, found, how, counter))
            tables.store(path, found)
        else:
            counter.advance(Text("measured before", "此前已测"), len(SCALES))
    return found


def picture_scale(measure: Paintings | Velocity, found: Sensitivity, how: Rounding, counter: ProgressCounter) -> float:  # fmt: skip
    """From the sum of the layers' errors to that of a whole picture: the largest of those in ``SCALES``, and a margin."""
    scales = []
    errors = found.weights if how is rounded else found.published
    for kind in SCALES:
        message = Text(f"whole pictures in {kind}", f"以 {kind} 画整幅")
        counter.announce(message)
        assigned = uniform(found.signature, kind, found.plain)
        least = found.least()
        alone = sum(found.measured(layer, errors[layer][each], least) for layer, each in assigned.items())
        scales.append(measure.painted(assigned, how) / max(alone, 1e-30))
        counter.advance(message)
    return MARGIN * max(scales)


# -- pictures that judge ---------------------------------------------------------------------------------------------


class Judge:
    """Held-out pictures in float32, painted once, and how far an assignment's are from them."""

    def __init__(
        self, subject: Subject, samples: Iterable[CalibrationSample], found: Sensitivity, path: Path
    ) -> None:
        self.subject, self.samples, self.found, self.path = subject, tuple(samples), found, path
        self._references: dict[CalibrationSample, Tensor] = {}

    def errors(self, formats: Mapping[str, str], how: Rounding = rounded) -> list[float]:
        """The mean square error of each picture under an assignment; what was painted before is not painted again."""
        keys = [tables.assignment_key(formats, how.__name__, sample) for sample in self.samples]
        known = self.found.judged
        missing = [n for n, key in enumerate(keys) if key not in known]
        for number in missing:  # before the network is changed
            sample = self.samples[number]
            if sample not in self._references:
                self._references[sample] = self.subject.paint(sample)
        if missing:
            with self.subject.stored_as(formats, how):
                for number in missing:
                    picture = self.subject.paint(self.samples[number])
                    error = (picture - self._references[self.samples[number]]).square().mean()
                    known[keys[number]] = float(error)
                    tables.store(self.path, self.found)
        return [known[key] for key in keys]


def rounding_rates(kinds: Iterable[str] = (*TYPES, INT8)) -> dict[str, float]:
    """Seconds a weight that this machine takes to store it in each type and read it back, from a small sample."""
    sample = torch.randn(64, 512)
    best = best_of({kind: partial(rounded, sample, kind) for kind in kinds}, rounds=2)
    return {kind: seconds / sample.numel() for kind, seconds in best.seconds.items()}
