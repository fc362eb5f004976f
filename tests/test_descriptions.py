"""What was seen in a picture is stored with it, found by meaning, and goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hung import picture

from starrynight.gallery.descriptions import Seen
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery(tmp_path / "gallery") as opened:
        yield opened


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def test_a_row_says_what_was_seen_and_by_what(gallery: Gallery) -> None:
    row = gallery.add(picture())
    assert row.seen is None
    assert gallery.descriptions.missing("a", 9) == [row.id]
    assert gallery.descriptions.write(row.id, Seen("a", {"alt": {"en": "a village", "zh": "村庄"}}))
    assert gallery.get(row.id).seen == {"alt": {"en": "a village", "zh": "村庄"}}
    assert asdict(gallery.search("").rows[0])["seen"] == gallery.get(row.id).seen
    assert (gallery.descriptions.missing("a", 9), gallery.descriptions.missing("b", 9)) == ([], [row.id])
    assert gallery.descriptions.write(row.id, Seen("b", {"alt": {}}))  # takes the place of a's
    assert gallery.descriptions.missing("a", 9) == [row.id]
    assert not gallery.descriptions.write("0" * 32, Seen("a", {}))
    assert hash(gallery.get(row.id)) == hash(gallery.get(row.id))


def test_pictures_are_ranked_by_the_cosine_of_their_vectors(gallery: Gallery) -> None:
    rows = [gallery.add(picture(seed=seed, style="ink" if seed % 2 else "oil")) for seed in range(6)]
    vectors = [unit(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 1.5, 6)]
    for row, vector in list(zip(rows, vectors, strict=True))[3:]:
        gallery.descriptions.write(row.id, Seen("a", {}, vector, "m"))
    east = unit(1, 0)
    assert [row.id for row, _ in gallery.by_meaning(east, "m")] == [row.id for row in rows[3:]]
    for row, vector in list(zip(rows, vectors, strict=True))[:3]:  # older pictures, seen later
        gallery.descriptions.write(row.id, Seen("a", {}, vector, "m"))
    found = gallery.by_meaning(east, "m")
    assert [row.id for row, _ in found] == [row.id for row in rows]
    np.testing.assert_allclose([cosine for _, cosine in found], [east @ one for one in vectors], atol=1e-3)
    assert [row.id for row, _ in gallery.by_meaning(east, "m", Query(style="ink"), 2)] == [
        rows[1].id,
        rows[3].id,
    ]
    assert gallery.by_meaning(east, "another model") == []
    gallery.trash.discard([rows[0].id])
    assert gallery.by_meaning(east, "m")[0][0].id == rows[1].id
