"""The perceiver's training: what is known of drawings and paintings, batches, what the loss believes, and thresholds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_perceiver import header

from starrynight.firefly.drawing.scene import compose
from starrynight.firefly.training import data
from starrynight.firefly.training.corpus import to_signed
from starrynight.picture import make_recipe
from starrynight.request import PaintRequest
from starrynight.senses import asked
from starrynight.senses.asked import judge
from starrynight.senses.describe import Facts, claims
from starrynight.senses.facts import CHOICES, FACTS, THINGS, Lexicon, words
from starrynight.senses.perceiver import Perceiver, Sight, load
from starrynight.senses.training import batches, evaluate, painted, thresholds, truth
from starrynight.senses.training.augment import varied
from starrynight.senses.training.network import Network
from starrynight.senses.training.train import DISBELIEVED, losses
from starrynight.senses.training.truth import NOT_KNOWN, Truth, judged, names_kind, of_record

PAINTED = "a village under the stars, oil painting"


def painting(text: str = PAINTED) -> dict[str, object]:
    return painted.record(compose(3, style="oil", kind="village", hour="night", subjects=["stars"]), text)


def made(folder: Path, records: list[dict[str, object]]) -> batches.Gallery:
    """A set of random pixels with ``records``."""
    pictures = data.open_pictures(folder, len(records), 32)
    pictures[:] = np.random.default_rng(1).integers(0, 256, pictures.shape)
    for block in range(-(-len(records) // data.BLOCK)):
        some = records[block * data.BLOCK : (block + 1) * data.BLOCK]
        data.write_block(data.block_path(folder, block), some)
    return batches.Gallery(data.PictureSet(folder))


def test_everything_is_known_of_a_drawing() -> None:
    record = data.describe(compose(11), 2)
    truth = of_record(record)
    assert {name: CHOICES[name][place] for name, place in truth.choices.items()} == {
        name: record["shows"][name] for name in CHOICES
    }
    assert [name for name, there in zip(THINGS, truth.things, strict=True) if there] == record["shows"][
        "subjects"
    ]
    assert truth.known.all()
    assert not truth.doubted.any()


def test_of_a_painting_what_was_asked_is_there_what_is_impossible_is_not_and_the_rest_is_open() -> None:
    truth = of_record(painting())
    at = {name: place for place, name in enumerate(THINGS)}
    for name in ("stars", "village"):
        assert truth.things[at[name]] == truth.known[at[name]] == truth.doubted[at[name]] == 1
    for name in ("whale", "waterfall", "harbour"):
        assert (truth.things[at[name]], truth.known[at[name]]) == (0, 1)
    for name in ("church", "moon", "cypress"):
        assert truth.known[at[name]] == 0
        assert 0.004 < truth.facts[FACTS.index(name)] < 1
    assert truth.choices["weather"] == truth.choices["hour"] == NOT_KNOWN
    assert CHOICES["kind"][truth.choices["kind"]] == "village"
    assert CHOICES["style"][truth.choices["style"]] == "oil"


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [(PAINTED, "village", True), ("枫林，水墨", "forest", True), ("stars, oil painting", "village", False),
     ("Seaport at dusk", "harbour", True)],
)  # fmt: skip
def test_a_caption_names_its_kind_of_scene_or_not(text: str, kind: str, named: bool) -> None:
    assert names_kind(text, kind) == named


def test_changes_keep_shape_and_range_and_differ_between_pictures() -> None:
    ramp = np.linspace(0, 255, 64 * 64 * 3).reshape(1, 64, 64, 3).astype(np.uint8).repeat(24, 0)
    found = varied(ramp, np.random.default_rng(4))
    assert found.shape == (24, 3, 64, 64)
    assert found.abs().max() <= 1
    assert torch.equal(found, varied(ramp, np.random.default_rng(4)))
    assert len({float(one.mean()) for one in found}) == 24
    top, bottom = found[:, :, :16].mean((1, 2, 3)), found[:, :, 48:].mean((1, 2, 3))
    assert (bottom - top > 0.8).all()  # never upside down
    plain = to_signed(ramp).mean((2, 3))
    assert (found.mean((2, 3)) - plain).abs().max() < 0.35


def test_rare_things_come_more_often_and_pictures_in_pairs_that_are_alike(tmp_path: Path) -> None:
    common = [
        data.describe(compose(seed, kind="village", style="oil", subjects=["village"]), 2)
        for seed in range(47)
    ]
    for record in common:
        record["shows"]["subjects"] = ["village"]
    rare = data.describe(compose(5, kind="sea", style="ink", subjects=["whale"]), 2)
    gallery = made(tmp_path / "training", [*common, rare])
    rows = gallery.draw(np.random.default_rng(2), 2000)
    assert len(rows) == 2000
    assert rows.count(47) / 2000 > 4 / 48
    keys = [(gallery.records[row]["shows"]["kind"], gallery.records[row]["shows"]["style"]) for row in rows]
    assert keys[::2] == keys[1::2]


def test_a_batch_has_drawings_paintings_and_strangers(tmp_path: Path) -> None:
    drawn = made(tmp_path / "training", [data.describe(compose(seed), 2) for seed in range(24)])
    paintings = made(tmp_path / "painted-training", [painting() for _ in range(24)])
    lexicon = Lexicon(tuple(dict.fromkeys(words(PAINTED))))
    batch = batches.Sampler(drawn, paintings, lexicon, 0, strangers=12).draw(np.random.default_rng(0), 64)
    assert batch.pictures.shape == (batches.BATCH + batches.STRANGERS, 3, 64, 64)
    assert int(batch.doubted.any(1).sum()) == batches.PAINTED
    assert batch.things.shape == batch.known.shape == (batches.BATCH, len(THINGS))
    assert (batch.asked.sum(1) > 0).all()


def test_the_loss_passes_over_what_is_open_and_what_a_painter_left_out(tmp_path: Path) -> None:
    drawn = made(tmp_path / "training", [data.describe(compose(seed), 2) for seed in range(24)])
    paintings = made(tmp_path / "painted-training", [painting() for _ in range(24)])
    torch.manual_seed(0)
    lexicon = Lexicon(tuple(dict.fromkeys(words(PAINTED))))
    network = Network(len(lexicon.words))
    batch = batches.Sampler(drawn, paintings, lexicon, 0, strangers=12).draw(np.random.default_rng(0), 64)
    stars, church = THINGS.index("stars"), THINGS.index("church")
    bias = network.sight.subjects.bias
    with torch.no_grad():
        bias[stars] = np.log(DISBELIEVED) - 3  # nowhere seen, so no painting's "stars" is believed
    losses(network, batch)["things"].backward()
    drawn_only = batch.doubted[:, stars] == 0
    wanted = (DISBELIEVED / 20 - batch.things[drawn_only, stars]).sum()
    assert bias.grad is not None
    weights = float(batch.known.sum() - batch.doubted[:, stars].sum())
    assert float(bias.grad[stars]) * weights == pytest.approx(float(wanted), rel=0.1)
    assert batch.known[:, church].sum() == batches.BATCH - batches.PAINTED


def seen(count: int, seed: int) -> thresholds.Seen:
    """Sights with calibrated probabilities: half of the things common, the last never there."""
    rng = np.random.default_rng(seed)
    sights, truths = [], []
    for _ in range(count):
        things = rng.beta(0.02, 0.3, len(THINGS)).astype(np.float32)
        things[-1] = rng.uniform(0, 0.02)
        there = (rng.random(len(THINGS)) < things).astype(np.float32)
        there[-1] = 0
        choices = {name: np.eye(len(some), dtype=np.float32)[0] for name, some in CHOICES.items()}
        sights.append(Sight(choices, things, float(rng.uniform(0.5, 1)), np.zeros(4, np.float32)))
        truths.append(
            Truth(
                dict.fromkeys(CHOICES, 0),
                there,
                np.ones_like(there),
                np.zeros_like(there),
                np.zeros(4),
                np.zeros_like(there),
            )
        )
    return sights, truths


def test_few_texts_claim_what_is_not_there_and_rarely_is_something_said_to_be_missing() -> None:
    found = thresholds.thresholds(seen(1500, 1), ([], []))
    sights, truths = seen(1500, 2)
    limits, lowest = (
        np.array([found.claims[name] for name in THINGS]),
        np.array([found.absent[name] for name in THINGS]),
    )
    things, there = np.stack([one.things for one in sights]), np.stack([one.things for one in truths]) > 0
    claimed = things >= limits
    assert 0.01 < (claimed & ~there).any(1).mean() < 2 * thresholds.FALSE_TEXTS
    assert (claimed & there).sum() / there.sum() > 0.15
    assert ((things < lowest) & there).sum() / there.sum() < 0.04
    assert found.claims[THINGS[-1]] == thresholds.NEVER
    assert found.absent[THINGS[-1]] == 0
    assert sum(sight.confidence >= found.confidence for sight in sights) / 1500 > 0.9


def test_paintings_that_look_surer_than_they_are_raise_the_limits_and_a_prompt_lowers_those_of_what_it_asks() -> (
    None
):
    sights, truths = seen(90, 3)
    rng = np.random.default_rng(4)
    painters = []
    for one in truths:
        asked = (
            (rng.random(len(THINGS)) < 0.02) | ((one.things > 0) & (rng.random(len(THINGS)) < 0.7))
        ).astype(np.float32)
        there = one.things * (rng.random(len(THINGS)) < 0.5)
        painters.append(one._replace(things=there.astype(np.float32), asked=asked))
    alone = thresholds.thresholds(seen(1500, 1), ([], []))
    found = thresholds.thresholds(seen(1500, 1), (sights, painters))
    usable = [name for name in THINGS if found.claims[name] < 1]
    assert len(usable) > 20
    assert np.mean([found.claims[name] > alone.claims[name] for name in usable]) > 0.9
    assert all(found.asked[name] < found.unasked[name] for name in usable)


def test_platts_map_is_found_and_stays_near_its_prior_without_pictures() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, 4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-(1.7 * logits - 0.8)))
    slope, offset = thresholds.platt(logits, right, (1.0, 0.0))
    assert slope == pytest.approx(1.7, abs=0.15)
    assert offset == pytest.approx(-0.8, abs=0.15)
    assert thresholds.platt(logits[:0], right[:0], (1.2, -0.3)) == pytest.approx((1.2, -0.3))


def sight(*there: str, half: tuple[str, ...] = ()) -> Sight:
    """A sure look at an oil painting of a village that shows ``there``, and perhaps ``half``."""
    things = np.array(
        [0.9 if name in there else 0.3 if name in half else 0.01 for name in THINGS], np.float32
    )
    choices = {name: np.eye(len(some), dtype=np.float32)[0] for name, some in CHOICES.items()}
    return Sight(choices, things, 1.0, np.zeros(4, np.float32))


def test_what_a_person_saw_decides_what_is_false_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    perceiver = Perceiver({}, header(), "test")
    sights = [sight("village", "church"), sight("village", half=("stars",))]
    records = [painting() | {"seed": seed, "weights": "one"} for seed in (1, 2)]
    looked = {1: {"there": ["village"], "unsure": []}, 2: {"there": ["village", "stars"], "unsure": []}}
    monkeypatch.setattr(truth, "judged", lambda: ("one", looked))
    found = evaluate.of_judged(perceiver, sights, records)
    assert (found["pictures"], found["texts_empty"], found["claims_not_judged"]) == (2, 0, 0)
    assert found["things_named"] == round(2 / 3, 4)
    assert found["texts_with_an_absent_claim"] == 0.5
    assert found["claims_absent"] == round(1 / 3, 4)
    assert (found["said_missing"], found["said_missing_and_there"]) == (1, 0)
    known = evaluate.of_judged(perceiver, sights, records, prompted=True)
    assert known["things_named"] == 1.0  # the stars, asked for and half seen
    looked[1]["unsure"].append("church")
    undecided = evaluate.of_judged(perceiver, sights, records)
    assert (undecided["texts_with_an_absent_claim"], undecided["claims_not_judged"]) == (0, 1)
    sights[1] = sight("village")
    assert evaluate.of_judged(perceiver, sights, records)["said_missing_and_there"] == 1
    others = [record | {"weights": "two"} for record in records]
    assert evaluate.of_judged(perceiver, sights, others) == {"pictures": 0}


def test_what_looks_like_what_is_missing_is_not_held_against_it() -> None:
    perceiver, prompt = Perceiver({}, header(), "test"), "water lilies, watercolor"
    assert judge(prompt, perceiver, sight("lake")).missing == ("lilies",)
    assert judge(prompt, perceiver, sight("lake", "lotus")).missing == ()


def test_a_painting_that_a_person_looked_at_shows_what_was_seen_and_not_what_was_asked() -> None:
    weights, pictures = judged()
    (seed, seen), *_ = pictures.items()
    known = of_record(painting() | {"seed": seed, "weights": weights})
    for k, name in enumerate(THINGS):
        assert known.things[k] == (name in seen["there"])
        assert known.known[k] == (name not in seen["unsure"])
        assert known.asked[k] == (name in ("stars", "village"))
    assert not known.doubted.any()
    assert of_record(painting() | {"seed": seed, "weights": "others"}).doubted.any()


def test_every_judgement_names_things_and_no_set_is_judged_twice() -> None:
    weights, pictures = judged()
    assert weights == painted.weights()
    for seen in pictures.values():
        assert set(seen) == {"there", "unsure"}
        assert {*seen["there"], *seen["unsure"]} <= set(THINGS)
        assert not set(seen["there"]) & set(seen["unsure"])
    counted = {
        name: sum(first <= seed < first + 100_000 for seed in pictures)
        for name, first in painted.FIRST_SEEDS.items()
    }
    assert counted["painted"] >= 200
    assert counted["painted-calibration"] >= 200
    assert sum(counted.values()) == len(pictures)


def test_what_a_prompt_asks_for_is_believed_sooner_and_the_rest_later() -> None:
    perceiver = Perceiver({}, header(), "test")
    seen = sight("village", half=("stars", "church"))
    assert set(claims(perceiver, seen).things) == {"village"}
    assert set(claims(perceiver, seen, frozenset({"stars"})).things) == {"village", "stars"}
    seen.things[THINGS.index("village")] = 0.6
    assert set(claims(perceiver, seen).things) == {"village"}
    assert set(claims(perceiver, seen, frozenset({"stars"})).things) == {"stars"}


def test_of_an_own_painting_everything_but_its_kind_is_said_where_the_perceiver_cannot_tell() -> None:
    perceiver, seen = Perceiver({}, header(), "test"), sight("village")
    sure = claims(perceiver, seen)
    perceiver.thresholds = replace(perceiver.thresholds, confidence=0.9)
    seen.choices["kind"] *= 0.8
    assert sure.kind is not None
    assert claims(perceiver, seen) == Facts()
    assert claims(perceiver, seen, own=True) == replace(sure, kind=None)
    assert claims(perceiver, replace(seen, ours=0.5), own=True) == Facts()  # noise with Firefly's recipe


RECIPES = {
    "firefly": ({}, True), "another model": ({"model": "sdxl"}, False), "from a photograph": ({"init_image": "a.png"}, False)
}  # fmt: skip


@pytest.mark.parametrize("case", RECIPES)
def test_fireflys_own_are_those_that_it_painted_from_noise(case: str) -> None:
    changes, own = RECIPES[case]
    assert asked.own(make_recipe(PaintRequest(**{"prompt": "x", "model": "firefly"} | changes))) is own
    assert not asked.own({})


@pytest.mark.parametrize(
    ("found", "gains", "worth"),
    [([1.0, 0.0], [1.0, 0.0], 1.0), ([0.0, 1.0], [1.0, 0.0], 0.6309), ([], [1.0, 0.0], 0.0), ([1.0], [1.0, 1.0], 0.6131),
     ([0.0], [0.0, 0.0], 1.0)],
)  # fmt: skip
def test_the_gain_of_what_was_found(found: list[float], gains: list[float], worth: float) -> None:
    assert evaluate.ndcg_of(found, gains) == pytest.approx(worth, abs=1e-4)


def test_the_shipped_weights_know_fireflys_sheet_and_say_nothing_of_photographs() -> None:
    perceiver = load()
    cells, records = evaluate.sheet_cells(Path(__file__).parents[1] / "docs" / "firefly-sheet.jpg")
    found = evaluate.of_pictures(perceiver, [perceiver.see(one) for one in cells], records)
    assert found["pictures"] == 60
    assert min(found["style_accuracy"], found["hour_accuracy"]) >= 0.95
    assert found["kind_accuracy"] >= 0.9
    assert found["things_named"] >= 0.55
    assert found["said_missing_and_there"] <= 0.05
    assert found["cannot_tell"] <= 0.15
    assert evaluate.cannot_tell(perceiver, evaluate.photographs())["cannot_tell"] >= 0.9
    assert evaluate.cannot_tell(perceiver, evaluate.noise(128))["cannot_tell"] >= 0.9
