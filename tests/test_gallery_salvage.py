"""``rebuild`` of a broken database keeps what no picture's file holds: jobs and annotations, page by page."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from hung import picture

from starrynight.errors import BrokenNumbers
from starrynight.gallery.database import BrokenDatabase
from starrynight.gallery.store import Gallery
from starrynight.jobs.leases import Lease
from starrynight.jobs.queue import Queue
from starrynight.request import PaintRequest

JOBS, PICTURES = 40, 6


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Pictures with annotations, one in the trash; jobs that wait, one that is painted and one that has ended."""
    with Gallery(tmp_path) as gallery:
        rows = [gallery.add(picture(seed=seed)) for seed in range(PICTURES)]
        for row in rows:
            gallery.annotations.note(row.id, f"note of {row.seed} {'x' * 900}")
            gallery.annotations.tag([row.id], f"tag{row.seed}", "冬天")
        gallery.annotations.star([rows[0].id])
        gallery.annotations.collect("walls", [rows[1].id, rows[2].id])
        gallery.trash.discard([rows[3].id])
        queue = Queue(gallery)
        for number in range(JOBS):  # long prompts, so that the table has several pages
            queue.submit(PaintRequest(prompt=f"job {number} " + "word " * 200, seed=number))
        lease = Lease(gallery.database, "here/cpu")
        assert lease.acquire()
        ended = lease.claim()
        assert ended is not None
        lease.refuse_picture(ended, 0, BrokenNumbers("broken", "坏"))
        lease.end(ended)
        assert lease.claim() is not None
    return tmp_path


def state(place: Path) -> dict:
    with Gallery(place) as gallery:
        kept = {
            "rows": {row.id: (row.starred, row.note, row.tags, row.collections, row.trashed_at is not None)
                     for trashed in (False, True) for row in gallery.iter_rows(query(trashed))},
            "jobs": [(job.id, job.request, job.painted) for job in Queue(gallery).list(("waiting", "painting", "failed"), 500)],
            "searched": gallery.count("冬天"),
        }  # fmt: skip
        assert gallery.verify().ok
        assert gallery.database.check()
    return kept


def query(trashed: bool):
    from starrynight.gallery.search import Query

    return Query(trashed=trashed)


def pages_of(path: Path, name: str) -> list[int]:
    """Numbers of the pages of a table or index, its root first."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [name]).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    data, found, pages = path.read_bytes(), [], [root]
    while pages:
        page = pages.pop(0)
        found.append(page)
        raw = data[(page - 1) * size : page * size]
        if raw[0] in (
            2,
            5,
        ):  # an interior page: 4-byte children in its cells, and the right-most one in its header
            cells = int.from_bytes(raw[3:5], "big")
            starts = [int.from_bytes(raw[12 + 2 * n : 14 + 2 * n], "big") for n in range(cells)]
            pages += [int.from_bytes(raw[start : start + 4], "big") for start in starts]
            pages.append(int.from_bytes(raw[8:12], "big"))
    return found


def spoil(path: Path, *pages: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with open(path, "r+b") as file:
        for page in pages:
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)


# Indexes and search tables: everything else can be read. The table of recipes is made again from the files.
WHOLE = ["tags_by_name", "jobs_by_state", "sqlite_autoindex_jobs_1", "sqlite_autoindex_pictures_1", "collected_by_number",
         "concordance_data", "recipes", "looks", "workers"]  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_everything_is_kept_while_its_tables_can_be_read(place: Path, name: str) -> None:
    before, path = state(place), place / "gallery.db"
    spoil(path, *pages_of(path, name))
    salvaged = Gallery.repair(place).salvaged
    assert state(place) == before
    if salvaged is None:  # the search index alone; nothing of it is needed
        assert name == "concordance_data"
        return
    assert (salvaged.lost_jobs, salvaged.annotated, salvaged.complete) == ((), PICTURES, True)
    assert salvaged.jobs == {"waiting": JOBS - 2, "painting": 1, "failed": 1}
    assert Path(salvaged.path).is_file()


@pytest.mark.parametrize("which", ["the first", "one in the middle", "two in the middle", "the last"])
def test_jobs_on_damaged_pages_are_named_and_the_others_kept(place: Path, which: str) -> None:
    before, path = state(place), place / "gallery.db"
    _, *leaves = pages_of(path, "jobs")
    assert len(leaves) >= 6
    middle = len(leaves) // 2
    spoilt = {"the first": leaves[:1], "one in the middle": leaves[middle : middle + 1],
              "two in the middle": [leaves[2], leaves[-3]], "the last": leaves[-1:]}[which]  # fmt: skip
    spoil(path, *spoilt)
    salvaged = Gallery.repair(place).salvaged
    after = state(place)
    assert salvaged is not None
    kept = {job[0] for job in after["jobs"]}
    assert set(salvaged.lost_jobs) == {job[0] for job in before["jobs"]} - kept
    assert JOBS - 12 <= len(kept) < JOBS
    assert [job for job in before["jobs"] if job[0] in kept] == after["jobs"]
    assert after["rows"] == before["rows"]
    assert not salvaged.complete


def test_what_cannot_be_read_at_all_is_said(place: Path) -> None:
    before, path = state(place), place / "gallery.db"
    names = ("jobs", "sqlite_autoindex_jobs_1", "tags", "sqlite_autoindex_tags_1")
    spoil(path, *(page for name in names for page in pages_of(path, name)))
    salvaged = Gallery.repair(place).salvaged
    after = state(place)
    assert salvaged is not None
    assert (salvaged.jobs, salvaged.lost_jobs, salvaged.complete) == ({}, (), False)
    assert after["jobs"] == []
    assert {key: value[:2] for key, value in after["rows"].items()} == {
        key: value[:2] for key, value in before["rows"].items()
    }


def test_impossible_values_are_left(place: Path) -> None:
    path = place / "gallery.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number, change in enumerate(
            (
                "request = 'no JSON'",
                "request = '[]'",
                "count = 'many'",
                "submitted_at = x'00ff'",
                "error = '1'",
            )
        ):
            connection.execute(f"UPDATE jobs SET {change} WHERE number = ?", [number + 10])
        connection.execute("UPDATE pictures SET note = x'00', starred = 7 WHERE number = 1")
        connection.execute("UPDATE pictures SET trashed_at = 5 WHERE number = 4")
    spoil(path, *pages_of(path, "tags_by_name"))
    salvaged = Gallery.repair(place).salvaged
    assert salvaged is not None
    assert (sum(salvaged.jobs.values()), len(salvaged.lost_jobs), salvaged.complete) == (JOBS - 5, 5, False)
    with Gallery(place) as gallery:
        assert len(Queue(gallery).list(limit=500)) == JOBS - 6
        assert gallery.delete_expired() == 0  # a time of 1970 does not delete it at once


def test_the_command_tells_what_came_out_and_what_did_not(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from starrynight.cli.gallery import rebuild

    home = place.rename(place.with_name("gallery")).parent
    monkeypatch.setenv("STARRY_HOME", str(home))
    path = home / "gallery" / "gallery.db"
    _, first, *_ = pages_of(path, "jobs")
    spoil(path, first)
    rebuild()
    said = capsys.readouterr().out
    assert f"{path}.broken-" in said
    assert f"the annotations of {PICTURES} pictures" in said
    assert "submit them again: " in said


def test_nothing_is_painted_into_a_damaged_database(place: Path) -> None:
    path = place / "gallery.db"
    spoil(path, *pages_of(path, "tags_by_name"))
    with Gallery(place) as gallery, pytest.raises(BrokenDatabase):
        gallery.check_writable()
