"""Measure the shipped form of the perceiver: its numpy forward, with its thresholds, on pictures that neither its training nor
its thresholds have seen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from starrynight.firefly.drawing.scene import STYLES
from starrynight.firefly.training import captions, data
from starrynight.firefly.training import evaluate as firefly
from starrynight.metadata import read_pixels
from starrynight.senses.asked import judge, wanted_of
from starrynight.senses.describe import Facts, claims, described
from starrynight.senses.facts import CHOICES, THINGS
from starrynight.senses.perceiver import Perceiver, Sight, load
from starrynight.senses.training.truth import NOT_KNOWN, asked_of, by_eye, facts_of, hot, of_record

# Of scikit-image's pictures: what is a picture and no disparity map or cascade.
_PHOTOGRAPHS = (".png", ".jpg", ".tif", ".gif")
_UNREAD = ("multipage_rgb.tif",)  # planes of RGB, which no reader here takes
NOISE_SEEDS = range(40)
_KNOWN = "painted, prompt known"


def report(work: Path, weights: Path, sheet: Path | None = None) -> dict[str, Any]:
    """Everything measured, by set: the drawn "held-out" and Firefly's "painted" in ``work``, as far as they are there; the contact
    sheet of Firefly that ``python -m starrynight.firefly sheet`` wrote; and pictures that are none of ours.
    """
    perceiver = load(weights)
    found: dict[str, Any] = {"weights": perceiver.name, "bytes": weights.stat().st_size, "never_claimed": [
        name for name, limit in perceiver.thresholds.claims.items() if limit > 1
    ]}  # fmt: skip
    for name in ("held-out", "painted"):
        folder = work / name
        if (folder / "pictures.npy").exists():
            some = data.PictureSet(folder)
            started = time.perf_counter()
            sights = [perceiver.see(np.asarray(picture)) for picture in some.pictures]
            spent = 1000 * (time.perf_counter() - started) / max(1, len(sights))
            found[name] = of_pictures(perceiver, sights, some.records)
            found[name] |= {"milliseconds_a_picture": round(spent, 1)} | retrieval(
                perceiver, sights, some.records
            )
            if name == "painted":
                found[_KNOWN] = of_pictures(perceiver, sights, some.records, prompted=True)
                found["judged by eye"] = of_judged(perceiver, sights, some.records)
                found["judged by eye, prompt known"] = of_judged(
                    perceiver, sights, some.records, prompted=True
                )
    if sheet is not None:
        cells, records = sheet_cells(sheet)
        sights = [perceiver.see(one) for one in cells]
        found["sheet"] = of_pictures(perceiver, sights, records)
        found["sheet, prompt known"] = of_pictures(perceiver, sights, records, prompted=True)
    found["not ours"] = {
        "photographs": cannot_tell(perceiver, photographs()), "noise": cannot_tell(perceiver, noise())
    }  # fmt: skip
    return found


def of_pictures(
    perceiver: Perceiver, sights: Sequence[Sight], records: Sequence[dict[str, Any]], prompted: bool = False
) -> dict[str, Any]:
    """Accuracy of the heads; recall of the things that are there ("asked" for, of painted pictures); alt texts that are empty; and,
    of drawings, the share of claims of things that are not in the scene, and of alt texts with one.

    Of a painting only what its prompt states is counted: Firefly adds things that nobody asked for, and may leave out others.
    ``prompted``: what is said by one who knows the recipe.
    """
    found: dict[str, Any] = {"pictures": len(records)}
    truths = [of_record(record) for record in records]
    for name in CHOICES:
        found[f"{name}_accuracy"] = share([
            int(sight.choices[name].argmax()) == truth.choices[name]
            for sight, truth in zip(sights, truths, strict=True) if truth.choices[name] != NOT_KNOWN
        ])  # fmt: skip
    facts = _claimed(perceiver, sights, records, prompted)
    there = [set(record["shows"]["subjects"]) & set(record.get("asked", THINGS)) for record in records]
    found["things_named"] = share(
        [name in one.things for one, all_ in zip(facts, there, strict=True) for name in all_]
    )
    found["things_seen_at_half"] = share([
        sight.things[THINGS.index(name)] > 0.5 for sight, all_ in zip(sights, there, strict=True) for name in all_
    ])  # fmt: skip
    if "asked" not in records[0]:
        found |= _false_claims(facts, there)
    found["claims_of_another_kind"] = share([
        one.kind is not None and one.kind != record["shows"]["kind"] for one, record in zip(facts, records, strict=True)
    ])  # fmt: skip
    found["things_claimed_a_picture"] = round(float(np.mean([len(one.things) for one in facts])), 2)
    found["cannot_tell"] = share([not one for one in facts])
    texts = [described(one, "", 1.0).alt for one in facts if one]
    found["empty_texts"] = share([not (text.en and text.zh) for text in texts])
    lacking = [
        set(judge(record["captions"][0], perceiver, sight).missing) if "asked" in record
        else {name for name in all_ if sight.things[THINGS.index(name)] < perceiver.thresholds.absent[name]}
        for sight, record, all_ in zip(sights, records, there, strict=True)
    ]  # fmt: skip
    found["said_missing_and_there"] = share(
        [name in gone for gone, all_ in zip(lacking, there, strict=True) for name in all_]
    )
    return found


def _claimed(
    perceiver: Perceiver, sights: Sequence[Sight], records: Sequence[dict[str, Any]], prompted: bool
) -> list[Facts]:
    """What is said of Firefly's pictures, by one who knows their recipes or does not."""
    wanted = [wanted_of(record["captions"][0]) if prompted else frozenset[str]() for record in records]
    return [claims(perceiver, sight, some, prompted) for sight, some in zip(sights, wanted, strict=True)]


def _false_claims(facts: Sequence[Facts], there: Sequence[set[str]]) -> dict[str, float]:
    return {
        "claims_absent": share(
            [name not in all_ for one, all_ in zip(facts, there, strict=True) for name in one.things]
        ),
        "texts_with_an_absent_claim": share(
            [bool(set(one.things) - all_) for one, all_ in zip(facts, there, strict=True)]
        ),
    }


def of_judged(
    perceiver: Perceiver,
    sights: Sequence[Sight],
    records: Sequence[dict[str, Any]],
    prompted: bool = False,
) -> dict[str, Any]:
    """Of Firefly's paintings that a person looked at: how much of what was asked for and is visibly there is named and how much is
    said to be missing; alt texts that claim what cannot be seen; of what is said to be missing, how much can be seen; and how many claims
    could not be decided.
    """
    looked = [
        (one, record, found)
        for one, record in zip(sights, records, strict=True)
        if (found := by_eye(record)) is not None
    ]
    if not looked:
        return {"pictures": 0}
    sights, records, eyes = zip(*looked, strict=True)
    seen = [set(one["there"]) for one in eyes]
    unsure = [set(one["unsure"]) for one in eyes]
    facts = _claimed(perceiver, sights, records, prompted)
    wanted = [one & set(record["asked"]) for one, record in zip(seen, records, strict=True)]
    lacking = [
        set(judge(record["captions"][0], perceiver, sight).missing)
        for sight, record in zip(sights, records, strict=True)
    ]
    named = [set(one.things) for one in facts]
    return {
        "pictures": len(records),
        "things_named": share(
            [name in one for one, all_ in zip(named, wanted, strict=True) for name in all_]
        ),
        "texts_with_an_absent_claim": share(
            [bool(a - b - c) for a, b, c in zip(named, seen, unsure, strict=True)]
        ),
        "claims_absent": share(
            [name not in b | c for a, b, c in zip(named, seen, unsure, strict=True) for name in a]
        ),
        "claims_not_judged": sum(len(a & c) for a, c in zip(named, unsure, strict=True)),
        "said_missing": sum(map(len, lacking)),
        "said_missing_and_there": sum(len(a & b) for a, b in zip(lacking, seen, strict=True)),
        "texts_empty": share([not (one and described(one, "", 1.0).alt.zh) for one in facts]),
    }


def retrieval(
    perceiver: Perceiver, sights: Sequence[Sight], records: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A caption of each picture as a query over all: whether its own picture is first or among ten, and nDCG@10 with the squared
    share of the caption's facts as the gain, in Chinese and in English.
    """
    vectors = np.stack([sight.vector for sight in sights])
    facts = np.stack([hot(facts_of(record["shows"])) for record in records])
    found: dict[str, list[tuple[bool, bool, float]]] = {"zh": [], "en": []}
    for row, record in enumerate(records):
        for language, text in _one_of_each(record["captions"]).items():
            scores = vectors @ perceiver.read(text).vector
            asked = hot(asked_of(text, record["shows"]))
            gains = (facts @ asked / asked.sum()) ** 2
            rank = int((scores > scores[row]).sum())
            found[language].append((rank < 1, rank < 10, ndcg(scores, gains)))
    return {
        f"retrieval_{language}": {
            "queries": len(some), "first": share([one[0] for one in some]), "in_ten": share([one[1] for one in some]),
            "ndcg_10": round(float(np.mean([one[2] for one in some])), 3),
        }
        for language, some in found.items() if some
    }  # fmt: skip


def ndcg(scores: np.ndarray, gains: np.ndarray, count: int = 10) -> float:
    """Normalised discounted cumulative gain of the first ``count`` (Järvelin & Kekäläinen 2002)."""
    return ndcg_of(gains[np.argsort(-scores, kind="stable")], gains, count)


def ndcg_of(
    found: Sequence[float] | np.ndarray, gains: Sequence[float] | np.ndarray, count: int = 10
) -> float:
    """As ``ndcg``, of the gains of what was found, in its order; it may leave out some."""
    discounts = 1 / np.log2(np.arange(count) + 2)
    first, ideal = np.array(found[:count], float), np.sort(np.array(gains, float))[::-1][:count]
    best = ideal @ discounts[: len(ideal)]
    return float(first @ discounts[: len(first)] / best) if best else 1.0


def _one_of_each(texts: Sequence[str]) -> dict[str, str]:
    """The first text in each language."""
    found: dict[str, str] = {}
    for text in texts:
        found.setdefault("zh" if any("\u4e00" <= sign <= "\u9fff" for sign in text) else "en", text)
    return found


# What the rows of Firefly's contact sheet show: kind, hour (None: not asked for) and weather.
_SHEET_ROWS = (
    ("village", "night", "clear"), ("pond", None, "clear"), ("mountain", "dusk", "clear"), ("sea", "night", "clear"),
    ("city", "night", "rain"), ("sunflowers", "noon", "clear"),
)  # fmt: skip


def sheet_cells(path: Path) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """The pictures of Firefly's contact sheet, uint8 [H, W, 3], and records like those of painted pictures: styles by column in
    the order of STYLES, and what the prompts name.
    """
    sheet, gap = read_pixels(path), 4  # firefly.training.evaluate.tile
    cells, records = [], []
    columns = len(firefly.SHEET_STYLES)
    side = (sheet.shape[1] - gap) // columns - gap
    for place, text in enumerate(firefly.sheet_prompts()):
        row, column = divmod(place, columns)
        top, left = gap + row * (side + gap), gap + column * (side + gap)
        cells.append(np.ascontiguousarray(sheet[top : top + side, left : left + side]))
        kind, hour, weather = _SHEET_ROWS[row]
        asked = {*captions.named_in(text), STYLES[column], *([hour] if hour else [])}
        shows = {"style": STYLES[column], "kind": kind, "hour": hour or "", "weather": weather}
        records.append(
            {
                "shows": shows | {"subjects": sorted(asked & set(THINGS))},
                "asked": sorted(asked),
                "captions": [text],
            }
        )
    return cells, records


def cannot_tell(perceiver: Perceiver, pictures: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many pictures nothing is said of, and those of which something is."""
    told = [name for name, pixels in pictures.items() if claims(perceiver, perceiver.see(pixels))]
    return {
        "pictures": len(pictures),
        "cannot_tell": share([name not in told for name in pictures]),
        "told": told,
    }


def photographs() -> dict[str, np.ndarray]:
    """The pictures that scikit-image carries, mostly photographs and micrographs, uint8 [H, W, 3] by name."""
    import skimage

    found = {}
    for path in sorted((Path(skimage.__file__).parent / "data").iterdir()):
        if path.suffix in _PHOTOGRAPHS and path.name not in _UNREAD:
            found[path.name] = read_pixels(path)
    return found


def noise(side: int = 256) -> dict[str, np.ndarray]:
    """White noise, blocks of it, grey, ramps, in turn."""
    found = {}
    for seed in NOISE_SEEDS:
        rng = np.random.default_rng(seed)
        kind = ("white", "blocks", "grey", "ramp")[seed % 4]
        if kind == "grey":
            made = np.full((side, side, 3), rng.integers(0, 256), np.uint8)
        elif kind == "ramp":
            made = np.linspace(0, 255, side * side * 3).reshape(side, side, 3).astype(np.uint8)
            made = np.rot90(made, seed // 4 % 4)
        else:
            block = 1 if kind == "white" else 2 ** int(rng.integers(2, 6))
            cells = rng.integers(0, 256, (side // block, side // block, 3), dtype=np.uint8)
            made = cells.repeat(block, 0).repeat(block, 1)
        found[f"{kind}-{seed}"] = np.ascontiguousarray(made)
    return found


def share(some: Sequence[Any]) -> float:
    """The share that is true, to four digits; 0 of none."""
    return round(float(np.mean([bool(one) for one in some])), 4) if len(some) else 0.0


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    columns = [name for name in ("held-out", "painted", _KNOWN, "sheet") if name in report]
    lines = [f"| {report['weights']} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for key, value in report[columns[0]].items():
        if isinstance(value, dict):
            for inner in value:
                cells = [str(report[name].get(key, {}).get(inner, "")) for name in columns]
                lines.append(f"| {key} {inner} | " + " | ".join(cells) + " |")
        else:
            lines.append(
                f"| {key} | " + " | ".join(str(report[name].get(key, "")) for name in columns) + " |"
            )
    for key, value in report["not ours"].items():
        lines.append(
            f"\n{key}: cannot tell {value['cannot_tell']:.0%} of {value['pictures']}; told: {', '.join(value['told'])}"
        )
    return "\n".join(lines)
