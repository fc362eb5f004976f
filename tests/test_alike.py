"""The wall over HTTP: what looks like the words beneath what they find, and pictures filtered by what eyes saw in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from served import ask, gallery_in, without_worker

from starrynight.firefly.drawing.landscape import render
from starrynight.firefly.drawing.scene import compose
from starrynight.gallery.descriptions import FACTS
from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest
from starrynight.senses import choice, look
from starrynight.senses.eyes import Eyes
from starrynight.web.views.gallery import seen_names

KINDS = ("sunflowers", "city", "desert", "pond")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Four drawn scenes whose prompt is their kind, and one more of sunflowers whose prompt says so in other words."""
    with gallery_in(tmp_path_factory.mktemp("home")) as gallery:
        eyes = Eyes(choice.Choice("eyes", choice.BUILT_IN))
        for seed, kind in enumerate((*KINDS, "sunflowers")):
            pixels = np.asarray(render(compose(20 + seed, kind=kind, style="oil"), 160))
            prompt = kind if seed < len(KINDS) else "a field of sunflowers"
            recipe = make_recipe(PaintRequest(prompt=prompt, seed=seed))
            look.look(gallery, eyes, gallery.add(Picture(pixels, recipe)), pixels)
        yield gallery


@pytest.fixture(scope="module")
def address(gallery: Gallery) -> Iterator[str]:
    with without_worker(gallery) as address:
        yield address


def prompts(address: str, path: str) -> list[str]:
    answer = ask(address, path)
    assert answer.status == 200, answer.body
    return [row["prompt"] for row in answer.json["pictures"]]


def test_what_looks_like_the_words_is_what_they_do_not_find(address: str) -> None:
    assert prompts(address, "/api/pictures?text=field") == ["a field of sunflowers"]
    alike = prompts(address, f"/api/pictures/alike?text={quote('sunflower field')}")
    assert alike[0] == "sunflowers"
    assert "a field of sunflowers" not in alike
    assert prompts(address, f"/api/pictures/alike?text={quote('金黄的向日葵')}&limit=2")[:1] in (
        ["sunflowers"], ["a field of sunflowers"],
    )  # fmt: skip
    for nothing in (
        "",
        "?text=zxqv",
        f"?text={quote('sunflowers')}&trashed=true",
        f"?text={quote('sunflower field')}&style=ink",
    ):
        assert prompts(address, f"/api/pictures/alike{nothing}") == []


def test_pictures_are_filtered_by_every_fact_that_was_seen(address: str, gallery: Gallery) -> None:
    counts = ask(address, "/api/facets").json["shows"]
    rows = list(gallery.iter_rows())
    seen: dict[str, int] = {}
    for row in rows:
        assert row.seen is not None
        facts = row.seen["facts"]
        for fact in (
            *(f"{kind}.{facts[kind]}" for kind in FACTS if facts.get(kind)),
            *(f"thing.{one}" for one in facts["things"]),
        ):
            seen[fact] = seen.get(fact, 0) + 1
    assert counts == seen
    assert len(seen) > 3
    for fact, number in seen.items():
        assert len(prompts(address, f"/api/pictures?shows={fact}")) == number
        assert ask(address, f"/api/pictures/count?shows={fact}").json["count"] == number
        assert seen_names("en")[fact]
        assert seen_names("zh")[fact]
    missing = [one for row in rows for one in (row.seen or {})["missing"] if f"thing.{one}" not in seen]
    for thing in missing:  # what a picture lacks is not what it shows
        assert prompts(address, f"/api/pictures?shows=thing.{thing}") == []


@pytest.mark.parametrize("fact", ["moon", "style.oil", "hour.", ".night", "things.moon"])
def test_what_is_no_fact_is_refused_by_name(address: str, fact: str) -> None:
    answer = ask(address, f"/api/pictures?shows={fact}")
    assert (answer.status, answer.error["param"]) == (400, "shows")


def test_a_hostile_value_finds_nothing(address: str, tmp_path: Path) -> None:
    for value in ('x" or 1=1', "%", "'", "[*]", '$.a"'):
        assert prompts(address, f"/api/pictures?shows=thing.{quote(value)}") == []
        assert prompts(address, f"/api/pictures?shows=hour.{quote(value)}") == []
