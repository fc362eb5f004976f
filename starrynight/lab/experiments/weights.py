"""What a card holds (X4): some scenes with the denoiser's weights in float8, INT8, GGUF's types and the fit, and their bytes.

The types are those of ``starry fit`` (docs/fit.md): uniform ones as they are published, the fit by the sensitivities of the model.
Those of Firefly come with the package; of another model the fit is left out until ``starry fit`` has measured them. Each
picture is kept in the run's folder at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from statistics import fmean
from typing import TYPE_CHECKING, Any

from starrynight.i18n import Text
from starrynight.lab.findings import EMPTY, MEASURED, Finding, Row, Rows, join_sentences, name_of, name_zh
from starrynight.lab.plan import REFERENCE, Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.fitting.measure import Subject
    from starrynight.fitting.table import Sensitivity
    from starrynight.lab.bench import Bench

# What is painted, the most telling first: types, and the bits of a fit.
SHOWN: tuple[str | float, ...] = (
    "Q4_0",
    4.5,
    "Q8_0",
    8.0,
    "INT8",
    7.0,
    "F8_E4M3",
    6.5,
    "Q6_K",
    5.5,
    "Q5_0",
    "Q5_K",
    "Q4_K",
)
CARDS = (8, 6, 12, 16)  # GB; the first is the answer
# Weights of Z-Image's transformer: a card is asked about a model of this size where the one measured is small.
PUBLISHED, LARGE = 6_154_908_736, 1_000_000_000


@dataclass(frozen=True)
class _Stored:
    """An assignment by name; ``fit``: of the programme. ``predicted``: PSNR in dB, None where nothing was measured."""

    name: str
    fit: bool
    formats: Mapping[str, str]
    predicted: float | None


def measure_weights(bench: Bench, point: Point) -> dict[str, Any]:
    """``weights`` whose format is chosen, bytes ``beside`` them in the file and for a ``step``, how many ``scenes``; of each of
    ``formats`` its ``name``, whether it is a ``fit``, ``bits`` a weight, ``bytes``, and the scenes' PSNR: ``predicted``, the mean in dB
    (``psnr``; null if one broke) and the ``worst``. One scene would tell by chance: some differ by 10 dB from their mean (docs/fit.md).
    """
    from starrynight.fitting import layout, measure, table, write
    from starrynight.lab import metrics
    from starrynight.painting.offload import STEPPING

    painter = bench.painter(point.model, REFERENCE)
    model = painter.painter.model
    subject = measure.Subject(model, painter.pipeline, layout.of_model(model, painter.pipeline), {})
    signature = subject.layout.signature
    count = sum(prod(shape) for shape in signature.values())
    scenes = min(bench.plan.weight_scenes, bench.plan.prompts)
    references = [
        bench.painting(Point("", point.model, REFERENCE, scene, 0)).pixels for scene in range(scenes)
    ]
    found = []
    shown = SHOWN[: bench.plan.weight_formats]
    for one in _assignments(subject, table.stored(table.path_of(model), signature), shown):
        bytes_ = sum(write.bytes_of(tuple(signature[layer]), kind) for layer, kind in one.formats.items())
        near = [
            None if reference is None or pixels is None else metrics.psnr(reference, pixels)
            for reference, pixels in zip(
                references, _pictures(bench, point.model, subject, one, scenes), strict=True
            )
        ]
        whole = [value for value in near if value is not None]
        psnr, worst = (fmean(whole), min(whole)) if len(whole) == scenes else (None, None)
        found.append({
            "name": one.name, "fit": one.fit, "bits": 8 * bytes_ / count, "bytes": bytes_, "predicted": one.predicted,
            "psnr": psnr, "worst": worst,
        })  # fmt: skip
    return {
        "scenes": scenes,
        "weights": count,
        "beside": write.fixed_bytes(subject.layout),
        "step": STEPPING,
        "formats": found,
        "known": any(one["predicted"] is not None for one in found),
    }


def _assignments(
    subject: Subject, known: Sensitivity | None, shown: tuple[str | float, ...]
) -> Iterator[_Stored]:
    """The types of ``shown`` that differ on this model, then the fit at its bits if the sensitivities are complete."""
    from starrynight.fitting import formats, measure, programme, table

    signature, network = subject.layout.signature, subject.network
    plain = known.plain if known else {
        layer: measure.plain_kind(subject.layout.weight(network, layer)) for layer in signature
    }  # fmt: skip
    complete = known if known and table.complete(known) else None
    if complete and any(isinstance(bits, float) for bits in shown):
        _watch_inputs(subject)
    if complete:
        complete = measure.weighed(subject, complete)
    for name, each in formats.references(signature, plain).items():
        if name in shown:
            yield _Stored(name, False, each, complete.predicted(each, by_others=True) if complete else None)
    for bits in sorted(bits for bits in shown if isinstance(bits, float)) if complete else ():
        assert complete is not None
        budget = int(sum(prod(shape) for shape in signature.values()) * bits / 8)
        if programme.smallest(complete.options()) <= budget:
            chosen, predicted = complete.best(budget)
            yield _Stored(f"fit-{bits:g}", True, chosen, predicted)


def _watch_inputs(subject: Subject) -> None:
    """The moments of the layers' inputs, by which the fit rounds: those that ``starry fit`` stored, or of its small pictures."""
    from starrynight.fitting import measure, table
    from starrynight.folding.cache import CalibrationCache

    inputs = CalibrationCache(table.path_of(subject.model).with_suffix(""))
    if (moments := inputs.stored(measure.MOMENTS)) is not None:
        subject.moments = moments
        return
    with measure.watching_inputs(subject):
        for sample in measure.samples_of(subject.model):
            subject.paint(sample)


def _pictures(bench: Bench, model: str, subject: Subject, one: _Stored, scenes: int) -> list[Any]:
    """The scenes' pixels under an assignment, kept in the run's folder; None for one that broke."""
    from starrynight.fitting import measure

    places = [Point("", model, one.name, scene, 0) for scene in range(scenes)]
    if all(bench.run.raw(model, one.name, *place.picture).is_file() for place in places):
        return [bench.painting(place).pixels for place in places]
    painter = bench.painter(model, REFERENCE)
    with subject.stored_as(one.formats, measure.rounded if one.fit else measure.published):
        return [bench.painting(place, painter).pixels for place in places]


# -- the verdict -----------------------------------------------------------------------------------------------------


def judge_weights(rows: Rows) -> list[Finding]:
    found = {model: rows.result("weights", model, "") for model in rows.models}
    found = {model: result for model, result in found.items() if result.get("formats")}
    if not found:
        return []
    figures = {model: {"": _figure(result)} for model, result in found.items()}
    model, result = next(iter(found.items()))
    first, *others = (on_card(model, result, card) for card in CARDS)
    method = Text(
        f"Figures: bits a weight and {_of_scenes(result).en} against float32's, the denoiser's linear layers stored so.",
        f"数字：去噪网络线性层以该格式存储时，每个权重的位数，以及{_of_scenes(result).zh}（与 float32 相比）。",
    )
    missing = EMPTY if result["known"] else Text(
        f"The fit was not painted: the sensitivities of {name_of(model)} are not measured here (starry fit {model} --bits 5.5).",
        f"未画适配：此处尚未测量{name_zh(model)}的敏感度（starry fit {model} --bits 5.5）。",
    )  # fmt: skip
    return [Finding("X4", MEASURED, figures, join_sentences(method, first, *others, missing), first)]


def _figure(result: Row) -> str:
    shown = sorted(result["formats"], key=lambda one: one["bits"])
    return " · ".join(f"{one['name']} {one['bits']:.2f}: {decibels(one)}" for one in shown)


def _of_scenes(result: Row) -> Text:
    """Whose PSNR the figures are. Runs from before ``scenes`` painted one."""
    scenes = result.get("scenes", 1)
    if scenes == 1:
        return Text("the PSNR of one scene", "一个场景的 PSNR")
    return Text(f"the mean PSNR of {scenes} scenes, the worst in brackets,", f"{scenes} 个场景的平均 PSNR（括号内为最差者）")  # fmt: skip


def decibels(one: Mapping[str, Any]) -> str:
    """The mean PSNR of one of ``formats``, and the worst where there are several scenes; ✗ where one broke."""
    value = number(one["psnr"])
    if value != value:
        return "✗"
    several = one.get("worst") not in (None, one["psnr"])
    return f"{value:.1f} dB" + (f" ({number(one['worst']):.1f})" if several else "")


def on_card(model: str, result: Row, card: int) -> Text:
    """What to take on a card of so many GB, and what the best uniform type that fits would give."""
    own = result["weights"] >= LARGE
    count, beside = (result["weights"], result["beside"]) if own else (PUBLISHED, 0)
    room = card * 10**9 - result["step"] - beside
    size = (
        Text(f"{name_of(model)}'s {count / 1e9:.2f} billion weights", f"{name_zh(model)}的 {count / 1e8:.1f} 亿个权重")
        if own
        else Text(f"a model of Z-Image's size ({count / 1e9:.2f} billion weights)", f"Z-Image 大小（{count / 1e8:.1f} 亿个权重）的模型")
    )  # fmt: skip
    if 2 * count <= room:
        return Text(
            f"On a card of {card} GB take bfloat16: {size.en} fits as it is.",
            f"{card} GB 的显卡请用 bfloat16：{size.zh}可直接放下。",
        )
    fitting = [one for one in result["formats"] if one["bits"] * count / 8 <= room and number(one["psnr"]) == number(one["psnr"])]  # fmt: skip
    if not fitting:
        return Text(f"On a card of {card} GB no format fits for {size.en}.", f"{card} GB 的显卡放不下{size.zh}的任何格式。")  # fmt: skip
    best = max(fitting, key=lambda one: number(one["psnr"]))
    plain = max((one for one in fitting if not one["fit"]), key=lambda one: number(one["psnr"]), default=best)
    taken = best["bits"] * count / 8e9
    uniform = Text(
        f"; with the best single type that fits, {plain['name']}, {decibels(plain)}",
        f"；放得下的最好单一类型 {plain['name']} 为 {decibels(plain)}",
    )
    name, near = _words(best), _nearness(result, best)
    return Text(
        f"On a card of {card} GB take {name.en} for {size.en}: {taken:.1f} GB beside {result['step'] / 1e9:.1f} GB for a step. {near.en}{'' if plain is best else uniform.en}.",
        f"{card} GB 的显卡，{size.zh}请用{name.zh}：占 {taken:.1f} GB，另需 {result['step'] / 1e9:.1f} GB 供一步计算；{near.zh}{'' if plain is best else uniform.zh}。",
    )


def _nearness(result: Row, one: Mapping[str, Any]) -> Text:
    scenes, psnr = result.get("scenes", 1), f"{number(one['psnr']):.1f} dB"
    if scenes == 1:
        return Text(f"The scene is then {psnr} from float32's", f"该场景与 float32 相比为 {psnr}")
    worst = f"{number(one['worst']):.1f}"
    return Text(
        f"The mean of {scenes} scenes is then {psnr} from float32 (the worst {worst})",
        f"{scenes} 个场景与 float32 相比平均 {psnr}（最差 {worst}）",
    )


def _words(one: Mapping[str, Any]) -> Text:
    bits = f"{one['bits']:.2f}"
    if one["fit"]:
        return Text(
            f"the fit at {bits} bits a weight (starry fit)", f"每个权重 {bits} 位的适配（starry fit）"
        )
    return Text(f"{one['name']} ({bits} bits a weight)", f" {one['name']}（每个权重 {bits} 位）")
