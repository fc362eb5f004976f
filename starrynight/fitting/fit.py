"""``starry fit``: from a model and so many bytes to a format for each layer, a curve, and a file.

``prepare`` reads headers only and says what the work will take; ``fit`` measures, chooses and paints the held-out pictures;
``save`` writes the GGUF or the folder. Whatever was measured before is not measured again.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from starrynight.errors import BadRequest, Unfit
from starrynight.fitting import folder, formats, layout, measure, programme, table, write
from starrynight.fitting.layout import DenoiserLayout
from starrynight.fitting.measure import Judge, Subject
from starrynight.fitting.table import Sensitivity
from starrynight.folding import calibrate
from starrynight.folding.cache import CalibrationCache, CalibrationSample
from starrynight.i18n import Text, duration
from starrynight.models import catalogue
from starrynight.models.catalogue import LocalModel
from starrynight.models.fitted import FOLDER, GGUF, Fitted
from starrynight.models.load import denoiser_name, load
from starrynight.numerics.device import free_bytes
from starrynight.numerics.timing import BUSY, Timings, best_of
from starrynight.painting.offload import STEPPING
from starrynight.progress import OnProgress, ProgressCounter

# Bits a weight at which the curve is drawn, where the layers' types allow them.
CURVE = (3.5, 4.0, 4.25, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 10.0)
# Prompts on which a fit is judged; none of them is measured on.
HELD_OUT = (*calibrate.HELD_OUT, "a lighthouse by the sea under a full moon", "秋天的枫林与瀑布，浮世绘")
UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
# Words that a pipeline reads beside the patches of a small picture: an upper guess, for the time it takes.
WORDS = 128
PRODUCT = 768  # side of the matrices whose product is timed


# -- what is asked for -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """``kind``: "bits" a weight, bytes of the "file", or bytes of the card's "memory"."""

    kind: str
    value: float

    def budget(self, own: DenoiserLayout, container: str = GGUF) -> int:
        """Bytes for the layers whose format is chosen. Raises Unfit where not even the fewest bits fit."""
        count = sum(prod(shape) for shape in own.signature.values())
        beside = (write if container == GGUF else folder).fixed_bytes(own)
        if self.kind == "bits":
            budget = int(count * self.value / 8)
        else:
            budget = int(self.value) - beside - (STEPPING if self.kind == "memory" else 0)
        if (least := least_bytes(own, container)) > budget:
            raise self._too_small(own, least, beside)
        return budget

    def _too_small(self, own: DenoiserLayout, least: int, beside: int) -> Unfit:
        if self.kind == "bits":
            bits = 8 * least / sum(prod(shape) for shape in own.signature.values())
            return Unfit(
                f"The layers' formats have at least {bits:.2f} bits a weight; ask for more: --bits {bits + 0.1:.1f}.",
                f"各层的格式每个权重至少 {bits:.2f} 位；请放宽：--bits {bits + 0.1:.1f}。",
            )
        whole = least + beside + (STEPPING if self.kind == "memory" else 0)
        option, size = f"--{'file-size' if self.kind == 'file' else 'memory'}", f"{whole / 1e9:.3g}"
        room = (
            Text(f", {STEPPING / 1e9:.1f} GB of it for one step", f"，其中 {STEPPING / 1e9:.1f} GB 供一步计算使用")
            if self.kind == "memory"
            else Text("", "")
        )  # fmt: skip
        return Unfit(
            f"In the fewest bits the model needs {size} GB{room.en}; ask for more: {option} {whole / 1e9 + 0.01:.2f}GB.",
            f"即使用最少的位数，该模型也需要 {size} GB{room.zh}；请放宽：{option} {whole / 1e9 + 0.01:.2f}GB。",
        )


def goal(bits: float | None, file_size: str | None, memory: str | None) -> Goal:
    """The goal of three options of which exactly one is given. Raises BadRequest."""
    given = [(kind, value) for kind, value in (("bits", bits), ("file", file_size), ("memory", memory)) if value is not None]  # fmt: skip
    if len(given) != 1:
        raise BadRequest(
            "Say how large the result may be, in one way: --memory 8GB, --file-size 6GB or --bits 5.5.",
            "请用一种方式说明结果可以多大：--memory 8GB、--file-size 6GB 或 --bits 5.5。",
        )
    ((kind, value),) = given
    if isinstance(value, str):
        return Goal(kind, size_of(value))
    if not 1 <= value <= 16:
        raise BadRequest(f"--bits is between 1 and 16, not {value:g}.", f"--bits 应在 1 与 16 之间，而不是 {value:g}。")  # fmt: skip
    return Goal(kind, value)


def size_of(text: str) -> int:
    """ "8GB" is 8·10⁹ bytes, "7.5GiB" 7.5·2³⁰, "8G" as 8GB. Raises BadRequest."""
    found = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*([a-zA-Z]{0,3})\s*", text)
    unit = found[2].upper() if found else ""
    unit = f"{unit}B" if unit in ("K", "M", "G", "T") else unit
    if not found or unit not in UNITS or float(found[1]) <= 0:
        raise BadRequest(f"“{text[:40]}” is no size; write it as 8GB or 900MB.", f"“{text[:40]}”不是大小；请写成 8GB 或 900MB。")  # fmt: skip
    return int(float(found[1]) * UNITS[unit])


def least_bytes(own: DenoiserLayout, container: str = GGUF) -> int:
    """Bytes of the layers with the fewest bits each."""
    return sum(
        min(write.bytes_of(tuple(shape), kind) for kind in formats.candidates(shape, container=container))
        for shape in own.signature.values()
    )


# -- beforehand ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """``measurements`` that are left, whole pictures among them, and the ``seconds`` that they take on this machine at its best
    measured rates. ``waited``: the share of the time that other programs took meanwhile.
    """

    model: LocalModel
    layout: DenoiserLayout
    budget: int
    measurements: int
    seconds: float
    waited: float
    borrowed: Sensitivity | None
    container: str = GGUF

    @property
    def message(self) -> Text:
        """What will be done and how long it takes."""
        layers, weights = len(self.layout.layers), sum(prod(s) for s in self.layout.signature.values())
        made = Text(f"{layers} layers, {weights / 1e6:,.1f} M weights, {self.budget / 1e9:.3f} GB for them",
                    f"{layers} 层，{weights / 1e6:,.1f} M 个权重，可用 {self.budget / 1e9:.3f} GB")  # fmt: skip
        if not self.measurements:
            return Text(f"{made.en}; their sensitivities are known.", f"{made.zh}；敏感度已知。")
        time_en, time_zh = duration(self.seconds)
        busy = Text("", "")
        if self.waited > BUSY:
            busy = Text(
                f", and longer while other programs take {self.waited:.0%} of its time as now",
                f"；此刻其他程序占去 {self.waited:.0%} 的时间，照此会更久",
            )
        return Text(
            f"{made.en}; {self.measurements} measurements, about {time_en} on this machine{busy.en}.",
            f"{made.zh}；需测量 {self.measurements} 次，在本机约需 {time_zh}{busy.zh}。",
        )


def prepare(
    model: LocalModel, goal: Goal, like: LocalModel | None, device: torch.device, container: str = GGUF
) -> Prepared:
    """Everything that can be said before the weights are loaded. ``container``: of ``formats.CONTAINERS``. Raises Unfit, and
    MissingFile where ``like`` has no table.
    """
    if container == FOLDER:
        folder.check(model)
    own = layout.of_files(model)
    budget = goal.budget(own, container)
    other = table.like(like.spec.name, table.path_of(like), own.signature) if like else None
    known = table.stored(table.path_of(model), own.signature)
    alone = 0 if other else len(measure.measurements(own.signature, known))
    whole = 0 if other else measure.whole(known)
    return Prepared(
        model, own, budget, alone + whole, *_seconds(model, own, alone, whole, device), other, container
    )


def _seconds(
    model: LocalModel, own: DenoiserLayout, alone: int, whole: int, device: torch.device
) -> tuple[float, float]:
    """Of so many layers rounded alone and so many types of whole pictures, from the rates of a product and of rounding, measured
    now; and the share of the time that other programs took.
    """
    if not alone + whole:
        return 0.0, 0.0
    weights = sum(prod(shape) for shape in own.signature.values())
    small, large = measure.samples_of(model), measure.scale_samples(model)
    called = measure.CALLS if calibrate.is_large(model) else passes(small)
    # every weight meets every token: an upper bound
    products = 2 * weights * tokens(model, small[0]) * called
    painted = 2 * weights * tokens(model, large[0]) * passes(large)
    shapes, rates = own.signature.values(), measure.rounding_rates()
    rounding = sum(prod(shape) * rates[kind] for shape in shapes for kind in formats.probes(shape))
    measured = sum(len(formats.probes(shape)) for shape in shapes)
    product = time_product(device)
    rate = 2 * PRODUCT**3 / product.seconds[""]  # operations a second
    seconds = alone * (products / rate + rounding / max(measured, 1)) + whole * painted / rate
    return seconds, product.waited


def tokens(model: LocalModel, sample: CalibrationSample) -> int:
    """Patches of a picture, and words."""
    return (sample.width // model.spec.multiple) * (sample.height // model.spec.multiple) + WORDS


def passes(samples: Sequence[CalibrationSample]) -> int:
    """Passes through the denoiser while these pictures are painted."""
    return sum(s.steps * (2 if s.guidance > 1 else 1) for s in samples)


def time_product(device: torch.device) -> Timings:
    """Seconds of a float32 product of two matrices [PRODUCT, PRODUCT]."""
    a = torch.randn(PRODUCT, PRODUCT, device=device)
    return best_of({"": lambda: (a @ a)[0, 0].item()}, rounds=4)


# -- the work --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CurvePoint:
    """An assignment on the curve. ``measured`` and ``worst``: mean and least PSNR of the held-out pictures; None if it was
    not painted. ``fit``: of the programme, not a reference.
    """

    name: str
    fit: bool
    bits: float
    bytes: int
    predicted: float
    measured: float | None = None
    worst: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class FitResult:
    """``formats``: layer → type. ``curve``: the fit itself first. ``pictures``: how many were painted to judge it."""

    subject: Subject
    table: Sensitivity
    formats: Mapping[str, str]
    curve: tuple[CurvePoint, ...]
    pictures: int
    container: str = GGUF

    @property
    def chosen(self) -> CurvePoint:
        return self.curve[0]

    @property
    def unchanged(self) -> dict[str, list[str]]:
        """What is not fitted: the pipeline's other ``components``, and the denoiser's ``tensors`` that are no linear layers
        (convolutions, tables) and larger than ``layout.SMALL``; those stay in 16 bits.
        """
        own, network = self.subject.layout, self.subject.network
        parts = self.subject.pipeline.components.items()
        others = [name for name, part in parts if isinstance(part, nn.Module) and part is not network]
        fixed = [
            name
            for name, shape in own.shapes.items()
            if name not in own.layers and write.stored_as(shape) == "F16"
        ]
        return {"components": others, "tensors": fixed}

    def about(self, base: str) -> Fitted:
        """For the file's metadata."""
        one = self.chosen
        return Fitted(
            round(one.bits, 3), round(one.predicted, 2), base, _rounded(one.measured), _rounded(one.worst), self.pictures,
            dict(Counter(self.formats.values())),
        )  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def fit(
    prepared: Prepared,
    pictures: int,
    compare: bool,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> FitResult:
    """Measure what is not known, choose, and paint ``pictures`` held-out pictures (at most four) with the result, and with
    the references too if ``compare``. Raises Unfit where the model does not fit into memory.
    """
    model, own = prepared.model, prepared.layout
    judged = pictures * (1 + (len(formats.UNIFORM) + 1) * compare)
    counter = ProgressCounter(on_progress, measure.stages(own.signature) + judged)
    counter.announce(Text("loading the model", "加载模型"))
    subject = _subject(model, own, device)
    found = _sensitivities(prepared, subject, counter)
    chosen, predicted = found.best(prepared.budget, prepared.container)
    references = formats.references(own.signature, found.plain)
    path = table.path_of(model)  # borrowed errors are not stored as this model's own
    judge = Judge(subject, held_out(model, pictures), found, path.with_suffix(".like.json") if prepared.borrowed else path)  # fmt: skip

    def point(
        name: str, assigned: Mapping[str, str], predicted: float, fitted: bool, paint: bool
    ) -> CurvePoint:
        message = Text(f"painting with {name}", f"以 {name} 作画")
        counter.announce(message)
        errors = judge.errors(assigned, measure.rounded if fitted else measure.published) if paint else []
        counter.advance(message, len(errors))
        each = [table.decibels(error) for error in errors]
        mean, worst = (sum(each) / len(each), min(each)) if each else (None, None)
        return CurvePoint(name, fitted, found.bits(assigned), found.bytes(assigned), predicted, mean, worst)  # fmt: skip

    curve = [point("fit", chosen, predicted, True, bool(pictures))]
    curve += [
        point(name, each, found.predicted(each, by_others=True), False, compare and bool(pictures))
        for name, each in references.items()
    ]
    curve += [point(f"fit {bits:g}", each, its, True, False) for bits, each, its in along(found, prepared.container)]  # fmt: skip
    return FitResult(subject, found, chosen, tuple(curve), pictures, prepared.container)


def along(found: Sensitivity, container: str = GGUF) -> list[tuple[float, dict[str, str], float]]:
    """The choice at every size of the curve that the types allow: bits a weight, types, predicted PSNR."""
    options = found.options(container)
    count = sum(prod(shape) for shape in found.signature.values())
    least, most = programme.smallest(options), sum(max(o.bytes for o in own) for own in options.values())
    return [(bits, *found.best(int(count * bits / 8), container)) for bits in CURVE if least <= count * bits / 8 <= most]  # fmt: skip


def held_out(model: LocalModel, pictures: int) -> tuple[CalibrationSample, ...]:
    """Pictures of the usual small side, whose prompts and seeds were not measured on."""
    first = measure.samples_of(model)[0] if calibrate.is_large(model) else calibrate.usual(model)[0]
    return tuple(
        CalibrationSample(prompt, first.width, first.height, first.steps, first.guidance, 1000 + number)
        for number, prompt in enumerate(HELD_OUT[:pictures])
    )


def _subject(model: LocalModel, own: DenoiserLayout, device: torch.device) -> Subject:
    """The model in float32 where memory holds it, else in bfloat16; its own and the changed layers both."""
    import psutil

    free = free_bytes(device)
    available = psutil.virtual_memory().available if free is None else free
    count, beside = sum(model.parameters.values()), measure.moment_bytes(own.signature)
    needed = {name: 1.1 * size * count + beside for name, size in (("float32", 4), ("bfloat16", 2))}
    dtype = next((name for name, size in needed.items() if size < available), None)
    if dtype is None:
        least = min(needed.values()) / 1e9
        raise Unfit(
            f"Measuring {model.spec.en} takes {least:.1f} GB of memory, and {available / 1e9:.1f} GB are free; "
            "run it on a larger machine.",
            f"测量 {model.spec.zh} 需要 {least:.1f} GB 内存，而只剩 {available / 1e9:.1f} GB；请换更大的机器。",
        )
    pipeline = load(model, calibrate.uniform(model, dtype, device)).to(device)
    return Subject(model, pipeline, own, {})


def _sensitivities(prepared: Prepared, subject: Subject, counter: ProgressCounter) -> Sensitivity:
    """The table of this model: the stored one, measured to its end, or with errors borrowed from another's."""
    path = table.path_of(prepared.model)
    found, inputs = table.stored(path, prepared.layout.signature), CalibrationCache(path.with_suffix(""))
    moments = inputs.stored(measure.MOMENTS)
    total = measure.stages(prepared.layout.signature)
    if prepared.borrowed is None and found is not None and table.complete(found) and moments is not None:
        subject.moments = moments
        counter.advance(Text("sensitivities known", "敏感度已知"), total)
        return measure.weighed(subject, found)
    counter.announce(Text("reference pictures", "参考画面"))
    meter = measure.meter(subject)
    inputs.store(measure.MOMENTS, subject.moments)
    if prepared.borrowed is not None:
        found = measure.empty_table(subject, meter.how)
        found.borrowed(prepared.borrowed)
        counter.advance(Text("sensitivities borrowed", "借用敏感度"), total)
        return found
    found = measure.weighed(subject, found) if found else measure.empty_table(subject, meter.how)
    return measure.measure(subject, meter, found, path, counter)


# -- the file --------------------------------------------------------------------------------------------------------


def save(result: FitResult, path: Path, on_progress: OnProgress | None = None) -> Fitted:
    """Write the denoiser to the file ``path``, or the pipeline to the folder ``path``. Raises as ``write.write`` or
    ``folder.write``.
    """
    about = result.about(base_of(result.subject.model, path))
    subject = result.subject
    if result.container == FOLDER:
        component = denoiser_name(subject.pipeline)
        folder.write(
            path, subject.model, component, subject.network, subject.layout, result.formats, about.to_dict(), subject.moments, on_progress
        )  # fmt: skip
        return about
    write.write(
        path, subject.network, subject.layout, result.formats, about.to_dict(), subject.moments, on_progress
    )
    return about


def base_of(model: LocalModel, path: Path) -> str:
    """The name of the model that brings the other components: of the catalogue, or a folder's path from the file's."""
    spec = model.spec
    if model.lone_transformer or (spec.base and spec.parts):
        return spec.base or ""
    if not model.is_folder:
        return ""
    if spec.hub or spec.name in catalogue.names():
        return spec.name
    try:
        return Path(os.path.relpath(spec.path, path.absolute().parent)).as_posix()
    except ValueError:  # two drives of Windows
        return spec.path.as_posix()
