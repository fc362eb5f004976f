"""A killed process, a full or read-only disk, a broken, older or newer database: no finished picture is lost,
and every failure is one clear message."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from hung import finished, picture, process

from starrynight.errors import BadFile, MissingFile, StorageError
from starrynight.gallery import database
from starrynight.gallery.database import STEPS, BrokenDatabase
from starrynight.gallery.files import Files
from starrynight.gallery.insert import parse_file
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.jobs.schema import metadata
from starrynight.storage import PART_SUFFIX

BETWEEN_FILE_AND_ROW = """
import os, signal, sys
from hung import picture
from starrynight.gallery.store import Gallery
gallery = Gallery(sys.argv[1])
gallery.database.writing = lambda: os.kill(os.getpid(), signal.SIGKILL)
gallery.add(picture("killed in between", seed=2))
"""

BETWEEN_ROW_AND_FILE = """
import os, signal, sys
from starrynight.gallery.store import Gallery
gallery = Gallery(sys.argv[1])
gallery.files.remove = lambda name: os.kill(os.getpid(), signal.SIGKILL)
gallery.trash.empty()
"""

ADD_FOREVER = """
import sys
from hung import picture
from starrynight.gallery.store import Gallery
gallery = Gallery(sys.argv[1])
for seed in range(int(sys.argv[2]), 10**9):
    print(gallery.add(picture("on and on", seed)).id, flush=True)
"""

FULL = """
import resource, sys
from hung import picture
from starrynight.errors import StorageError
from starrynight.gallery.store import Gallery
gallery = Gallery(sys.argv[1])
size, limit = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # a write beyond the limit fails with EFBIG, as on a full disk
try:
    for seed in range(1000):
        print(gallery.add(picture("until it is full", seed, size)).id, flush=True)
except StorageError as error:
    print("StorageError", error.en)
"""

READ_ONLY = """
import os, sys
import alembic.command
from hung import picture
from starrynight.errors import StorageError
from starrynight.gallery.store import Gallery
if sys.argv[2] == "open":
    os.seteuid(65534)
try:
    gallery = Gallery(sys.argv[1])
    os.chmod(sys.argv[1] + "/pictures", 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)
    gallery.add(picture(seed=2))
except StorageError as error:
    print("StorageError", error.en)
"""


def test_a_kill_between_file_and_row_leaves_an_orphan_that_rebuild_adopts(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        gallery.add(picture("before", seed=1))
        finished(process(BETWEEN_FILE_AND_ROW, tmp_path), killed=True)
        report = gallery.verify()
        assert (report.pictures, len(report.orphans), report.ok) == (1, 1, False)
        rebuilt = gallery.rebuild()
        assert (rebuilt.updated, rebuilt.adopted, rebuilt.refused) == (1, 1, ())
        assert gallery.verify().ok
        assert [row.seed for row in gallery.search("between").rows] == [2]


def test_a_kill_at_a_random_moment_loses_no_picture_that_was_added(tmp_path: Path) -> None:
    added: set[str] = set()
    with Gallery(tmp_path) as gallery:
        for turn in range(3):
            child = process(ADD_FOREVER, tmp_path, turn * 1000)
            added.add(child.stdout.readline().strip())
            time.sleep(random.Random(turn).uniform(0.0, 0.4))
            child.send_signal(signal.SIGKILL)
            lines = finished(child, killed=True).split("\n")
            added |= set(lines[:-1])  # the last line may be incomplete
        assert added <= {row.id for row in gallery.iter_rows()}
        report = gallery.verify()
        assert not report.missing
        assert not report.corrupt
        assert report.index_ok
        gallery.rebuild()
        assert gallery.verify().ok


def test_a_picture_whose_deletion_was_killed_stays_deleted(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        gallery.add(picture(seed=1))
        gallery.trash.discard([gallery.add(picture(seed=2)).id])
        finished(process(BETWEEN_ROW_AND_FILE, tmp_path), killed=True)
        assert len(list(gallery.files.all())) == 2  # the file still exists
        assert gallery.verify().ok  # its tombstone says that it is being deleted
        assert (gallery.rebuild().adopted, gallery.count()) == (0, 1)
        assert len(list(gallery.files.all())) == 1


def test_a_picture_whose_deletion_was_killed_can_be_added_again(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        gallery.trash.discard([gallery.add(picture()).id])
        finished(process(BETWEEN_ROW_AND_FILE, tmp_path), killed=True)
        row = gallery.add(picture())
        gallery.trash.delete_files()
        assert os.path.exists(gallery.path(row))
        assert gallery.verify().ok


def test_a_full_disk_gives_one_message_and_leaves_no_partial_file(tmp_path: Path) -> None:
    out = finished(process(FULL, tmp_path, 256, 100_000))  # the picture's file, 200 KB, does not fit
    assert out.startswith("StorageError The disk (or your quota) is full")
    with Gallery(tmp_path) as gallery:
        assert gallery.count() == 0
        assert [path for path in (tmp_path / "pictures").rglob("*") if path.is_file()] == []
        assert gallery.verify().ok


def test_a_disk_that_fills_up_under_the_database_loses_no_picture_that_was_added(tmp_path: Path) -> None:
    *added, last = (
        finished(process(FULL, tmp_path, 64, 400_000)).strip().split("\n")
    )  # the files fit, the log does not
    assert added
    assert last.startswith("StorageError The gallery")
    assert "free some space" in last.lower()
    with Gallery(tmp_path) as gallery:
        assert set(added) == {row.id for row in gallery.iter_rows()}
        report = gallery.verify()
        assert (len(report.orphans), report.missing, report.corrupt) == (
            1,
            (),
            (),
        )  # the file without a row is intact
        gallery.rebuild()
        assert gallery.verify().ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to a user without write permission")
@pytest.mark.parametrize(
    ("when", "sentence"), [("hang", "may not be written to"), ("open", "cannot be opened")]
)
def test_a_read_only_folder_gives_one_message(tmp_path: Path, when: str, sentence: str) -> None:
    for folder in (tmp_path, tmp_path / "pictures"):
        folder.mkdir(exist_ok=True)
    for parent in [*tmp_path.parents][:3]:
        os.chmod(parent, 0o755)
    os.chmod(tmp_path, 0o555)
    out = finished(process(READ_ONLY, tmp_path, when))
    assert out.startswith("StorageError")
    assert sentence in out
    assert not [path for path in (tmp_path / "pictures").rglob("*") if path.is_file()]


def test_a_file_in_place_of_the_gallerys_folder_gives_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        Gallery(tmp_path / "file")
    assert "choose another place" in caught.value.en


def test_a_writer_that_waits_too_long_for_the_lock_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.2)
    with Gallery(tmp_path) as gallery:
        other = sqlite3.connect(tmp_path / "gallery.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert gallery.count() == 0  # reading is not blocked
        with pytest.raises(StorageError) as caught:
            gallery.add(picture())
        assert "another program" in caught.value.en
        other.execute("ROLLBACK")
        gallery.add(picture())


def test_verify_reports_missing_corrupt_orphaned_and_unknown_files(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        rows = [gallery.add(picture(seed=seed)) for seed in range(4)]
        paths = [Path(gallery.path(row)) for row in rows]
        assert gallery.verify().ok
        paths[0].unlink()
        data = bytearray(paths[1].read_bytes())
        data[len(data) // 2] ^= 1
        paths[1].write_bytes(data)
        orphan = picture(seed=9).encode("png")
        name = gallery.files.name(parse_file(orphan).columns["id"], "png")
        gallery.files.write(name, orphan)
        half = paths[2].parent / f".0123{PART_SUFFIX}"
        half.write_bytes(b"\x89PNG")
        (tmp_path / "pictures" / "notes.txt").write_text("hello")
        report = gallery.verify()
        assert report.missing == (rows[0].id,)
        assert report.corrupt == (gallery.files.name(rows[1].id, "png"),)
        assert report.orphans == (name,)
        assert set(report.unknown) == {"notes.txt", str(half.relative_to(tmp_path / "pictures"))}
        assert not report.ok

        rebuilt = gallery.rebuild()
        assert (rebuilt.updated, rebuilt.adopted) == (2, 1)
        assert [(name, type(error)) for name, error in rebuilt.refused] == [(report.corrupt[0], BadFile)]
        assert half.exists()  # another process may still be writing it
        os.utime(half, (1, 1))
        gallery.rebuild()
        assert not half.exists()
        gallery.add(picture(seed=0))  # adding them again repairs both
        gallery.add(picture(seed=1))
        assert gallery.verify().ok


def test_verify_detects_a_wrong_search_index_and_rebuild_repairs_it(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        gallery.add(picture("星夜"))
        with gallery.database.writing() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO concordance(concordance) VALUES ('delete-all')"))
        assert gallery.search("星夜").rows == ()
        assert not gallery.verify().index_ok
        gallery.rebuild()
        assert gallery.count("星夜") == 1
        assert gallery.verify().ok


def test_a_lost_database_is_rebuilt_from_the_files_in_their_order(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        before = [gallery.add(picture(f"picture {seed}", seed, style="ink")) for seed in range(5)]
        for second, row in enumerate(before):
            os.utime(gallery.path(row), (1_700_000_000 + second,) * 2)
    for file in tmp_path.glob("gallery.db*"):
        file.unlink()
    with Gallery(tmp_path) as gallery:
        assert gallery.rebuild().adopted == 5
        after = list(gallery.iter_rows(Query(oldest_first=True)))
        assert [(row.id, row.prompt, row.style) for row in after] == [
            (row.id, row.prompt, row.style) for row in before
        ]
        assert gallery.verify().ok


def test_rebuild_keeps_annotations(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        one = gallery.add(picture()).id
        gallery.annotations.star([one])
        gallery.annotations.tag([one], "冬天")
        gallery.annotations.collect("walls", [one])
        before = gallery.get(one)
        gallery.rebuild()
        assert gallery.get(one) == before
        assert gallery.search("冬天").rows == (before,)


@pytest.mark.parametrize("harm", ["text", "half", "noise"])
def test_a_broken_database_is_reported_and_repaired_from_the_files(tmp_path: Path, harm: str) -> None:
    with Gallery(tmp_path) as gallery:
        ids = {gallery.add(picture(seed=seed)).id for seed in range(3)}
    path = tmp_path / "gallery.db"
    data = path.read_bytes()
    noise = np.random.default_rng(0).bytes(len(data) - 4096)
    path.write_bytes(
        {"text": b"no database " * 1000, "half": data[: len(data) // 2], "noise": data[:4096] + noise}[harm]
    )
    with pytest.raises(BrokenDatabase) as caught, Gallery(tmp_path) as gallery:
        list(gallery.iter_rows())
    assert "starry gallery rebuild" in caught.value.zh
    assert Gallery.repair(tmp_path).adopted == 3
    with Gallery(tmp_path) as gallery:
        assert {row.id for row in gallery.iter_rows()} == ids
        assert gallery.verify().ok
    assert list(tmp_path.glob("gallery.db.broken-*"))  # renamed, not deleted


def create_database(path: Path, step: str) -> None:
    """Create a database with the migrations up to ``step``."""
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(STEPS.parent))
        config.attributes["connection"] = connection
        command.upgrade(config, step)
    engine.dispose()


def test_opening_a_gallery_of_an_older_version_migrates_it_with_all_its_pictures(tmp_path: Path) -> None:
    create_database(tmp_path / "gallery.db", "0001")
    data = picture("星夜", style="ink").encode("png")
    facts = parse_file(data)
    files = Files(tmp_path / "pictures")
    files.write(files.name(facts.columns["id"], "png"), data)
    old = {name: value for name, value in facts.columns.items() if name not in ("hash", "colours")}
    old |= {"made_at": 1_700_000_000_000, "hung_at": 1_700_000_000_000}
    with sqlite3.connect(tmp_path / "gallery.db") as connection:
        placeholders = ", ".join("?" * len(old))
        connection.execute(
            f"INSERT INTO pictures ({', '.join(old)}) VALUES ({placeholders})", list(old.values())
        )
        connection.execute("INSERT INTO recipes VALUES (1, ?, '星夜 夜')", [facts.recipe])
    connection.close()
    with Gallery(tmp_path) as gallery:
        (row,) = gallery.search(Query(text="星夜", style="ink")).rows
        assert row.prompt == "星夜"
        with pytest.raises(MissingFile, match="rebuild"):
            gallery.search(Query(like=row.id))  # it has no descriptor yet
        new = gallery.add(picture(seed=5))
        assert gallery.search(Query(like=new.id)).rows == ()
        gallery.rebuild()
        assert gallery.search(Query(like=row.id)).rows == (new,)
        assert len(gallery.search(Query(like=new.id)).rows) == 1
        assert gallery.verify().ok


def test_a_gallery_of_a_newer_version_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        gallery.add(picture())
    with sqlite3.connect(tmp_path / "gallery.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StorageError) as caught:
        Gallery(tmp_path)
    assert "9999" in caught.value.en
    assert "upgrade Starry Night" in caught.value.en
    assert "升级" in caught.value.zh
    with sqlite3.connect(tmp_path / "gallery.db") as connection:
        assert connection.execute("SELECT count(*) FROM pictures").fetchone() == (1,)


def test_the_migrations_create_exactly_the_tables_of_the_gallery_and_of_the_queue(tmp_path: Path) -> None:
    assert {"pictures", "jobs", "workers"} <= set(metadata.tables)
    with Gallery(tmp_path) as gallery, gallery.database.engine.connect() as connection:
        options = {
            "include_name": lambda name, kind, _: not (kind == "table" and name.startswith("concordance"))
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_opening_an_up_to_date_gallery_imports_neither_alembic_nor_torch(tmp_path: Path) -> None:
    Gallery(tmp_path).close()
    code = "import sys; from starrynight.gallery.store import Gallery; Gallery(sys.argv[1]); print('alembic' in sys.modules, 'torch' in sys.modules)"
    assert finished(process(code, tmp_path)) == "False False\n"
