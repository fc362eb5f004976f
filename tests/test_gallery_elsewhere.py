"""A gallery with its files in a bucket (moto's S3 server on loopback) or its rows in a local Postgres
server."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hung import picture

from starrynight.errors import Cancelled, MissingFile, StorageError
from starrynight.gallery.database import ReadOnlyDatabase
from starrynight.gallery.descriptions import Seen
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.jobs.leases import Lease, record_death
from starrynight.jobs.queue import Queue
from starrynight.jobs.schema import metadata
from starrynight.request import PaintRequest

KEYS = {"key": "key", "secret": "secret", "client_kwargs": {"region_name": "us-east-1"}}


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict]:
    """The options with which s3fs reaches a bucket called "gallery"."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import fsspec

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = KEYS | {"client_kwargs": {"endpoint_url": f"http://{host}:{port}"}, "skip_instance_cache": True}
    fsspec.filesystem("s3", **options).mkdir("gallery")
    yield options
    server.stop()


def test_a_gallery_with_its_files_in_a_bucket(tmp_path: Path, bucket: dict) -> None:
    with Gallery(tmp_path, files="s3://gallery/pictures", **bucket) as gallery:
        row, lost, discarded = (gallery.add(picture(seed=seed)) for seed in range(3))
        assert gallery.path(row) == f"gallery/pictures/{row.id[:2]}/{row.id}.png"
        assert gallery.read(row) == picture(seed=0).encode("png")
        assert gallery.thumbnail(row, 256)
        assert gallery.verify().ok
        gallery.files.remove(gallery.files.name(lost.id, lost.format))
        gallery.files.system.pipe_file(gallery.path(row), b"changed")
        report = gallery.verify()
        assert (report.missing, len(report.corrupt), report.orphans) == ((lost.id,), 1, ())
        with pytest.raises(MissingFile):
            gallery.read(lost)
        gallery.trash.discard([discarded.id])
        gallery.delete_expired(timedelta(0))
        for seed in (0, 1):
            gallery.add(picture(seed=seed))
        assert gallery.verify().ok
        assert not (tmp_path / "pictures").exists()
    for file in tmp_path.glob("gallery.db*"):
        file.unlink()
    with Gallery(tmp_path, files="s3://gallery/pictures", **bucket) as gallery:
        assert gallery.rebuild().adopted == 2


def test_a_missing_bucket_gives_one_message(tmp_path: Path, bucket: dict) -> None:
    with Gallery(tmp_path, files="s3://nowhere/pictures", **bucket) as gallery:
        with pytest.raises((StorageError, MissingFile)) as caught:
            gallery.add(picture())
        assert "nowhere/pictures" in caught.value.en
        assert gallery.count() == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a temporary Postgres server on loopback. It does not run as root, so root starts it as
    “postgres”."""
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("Debian's postgresql is not installed, or its initdb and pg_ctl are not on PATH")
    pytest.importorskip("psycopg")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if user not in [entry.pw_name for entry in pwd.getpwall()]:
        pytest.skip("there is no user “postgres” to run the server as")
    folder = Path("/tmp") / f"starry-postgres-{os.getpid()}"  # pytest's folders are closed to other users
    folder.mkdir()
    shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*words: str) -> None:
        options = {"user": user} if os.geteuid() == 0 else {}
        subprocess.run(words, check=True, capture_output=True, cwd="/", timeout=120, **options)

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "starry", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        run(
            "pg_ctl",
            "-D",
            data,
            "-w",
            "-l",
            f"{folder}/log",
            "-o",
            f"-h 127.0.0.1 -p {port} -k {folder}",
            "start",
        )
        yield f"postgresql+psycopg://starry@127.0.0.1:{port}/postgres"
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_gallery_with_its_rows_in_postgres(tmp_path: Path, server: str) -> None:
    with Gallery(server, files=tmp_path) as gallery:
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(
                    lambda seed: gallery.add(picture("A Starry Night, 星夜下的村庄", seed)),
                    [*range(10), *range(10)],
                )
            )
        assert gallery.count() == 10
        row = gallery.add(picture("江雪，孤舟 café", 99, style="ink"))
        for text, count in (("村庄", 10), ("夜", 10), ("星夜下的村庄", 10), ("庄村", 0), ("idnigh", 0), ("tarr", 10), ("孤", 1),
                            ("cafe 江雪", 1), ("ink", 1), ("'; DROP TABLE pictures", 0)):  # fmt: skip
            assert gallery.count(text) == len(gallery.search(text).rows) == count, text
        gallery.annotations.tag([row.id, row.id], "冬天", "冬天")
        gallery.annotations.collect("walls", [row.id])
        gallery.annotations.star([row.id])
        assert gallery.search(Query(text="冬天", collection="walls", starred=True)).rows == (
            gallery.get(row.id),
        )
        assert gallery.get(row.id).tags == ("冬天",)
        assert len(gallery.search(Query(like=row.id)).rows) == 10
        page = gallery.search(Query(), limit=6)
        assert len(gallery.search(Query(), page.next).rows) == 5
        gallery.trash.discard([row.id])
        assert gallery.trash.empty() == 1
        orphan = picture("orphan", 7).encode("png")
        gallery.import_pictures(_written(tmp_path.parent / "in.png", orphan))
        assert gallery.verify().ok
        assert gallery.rebuild().updated == 11
    with Gallery(server, files=tmp_path) as gallery, gallery.database.engine.connect() as connection:
        assert gallery.count("orphan") == 1
        options = {"include_name": lambda name, kind, _: name != "recipes_by_words"}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_what_was_seen_is_found_and_counted_in_postgres(tmp_path: Path, server: str) -> None:
    """As in SQLite, beside which it is asked the same."""
    answers = []
    for place, options in ((server, {"files": tmp_path / "pg"}), (tmp_path / "sqlite", {})):
        with Gallery(place, **options) as gallery:
            for seed, (hour, things) in enumerate(
                [("night", ["moon", "boat"]), ("dusk", ["boat"]), ("night", [])]
            ):
                row = gallery.add(picture(f"seen {seed}", 500 + seed, style="ink" if seed else "oil"))
                vector = np.array([np.cos(seed), np.sin(seed)], np.float32)
                content = {"facts": {"hour": hour, "things": things, "kind": "sea"}}
                assert gallery.descriptions.write(row.id, Seen("eyes", content, vector, "m"))
            east = np.array([1, 0], np.float32)
            near = gallery.by_meaning(east, "m")
            counts = gallery.facets()["shows"]
            shown = {
                fact: [row.seed for row in gallery.search(Query(text="seen", shows=fact)).rows]
                for fact in ("thing.boat", "hour.night", "thing.fox")
            }
            answers.append(
                ([row.seed for row, _ in near], [round(cosine, 2) for _, cosine in near],
                 [row.seed for row, _ in gallery.by_meaning(east, "m", Query(style="ink", shows="hour.night"))], counts, shown)
            )  # fmt: skip
    assert answers[0] == answers[1]
    assert answers[0][0] == [500, 501, 502]
    assert answers[0][2] == [502]
    assert answers[0][3] == {"kind.sea": 3, "hour.night": 2, "thing.boat": 2, "hour.dusk": 1, "thing.moon": 1}
    assert answers[0][4] == {"thing.boat": [501, 500], "hour.night": [502, 500], "thing.fox": []}


def test_a_queue_with_its_tables_in_postgres(tmp_path: Path, server: str) -> None:
    with Gallery(server, files=tmp_path) as gallery:
        queue = Queue(gallery)
        ids = [queue.submit(PaintRequest(prompt=f"queue {n}", seed=n, count=2)).id for n in range(4)]
        queue.move(ids[3], 0)
        leases = [Lease(gallery.database, f"machine/{n}") for n in range(2)]
        assert [lease.acquire() for lease in leases] == [True, True]
        assert not Lease(gallery.database, "machine/0").acquire()
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(Lease.claim, leases)
        assert {first.id, second.id} == {ids[3], ids[0]}
        leases[0].report(first, b"webp", picture=0, step=1, steps=8)
        leases[0].report(first, b"newer", picture=0, step=2, steps=8)
        assert queue.preview(first.id).image == b"newer"

        def note(connection, picture):
            leases[0].finish_picture(connection, first, 0, picture)

        gallery.add(picture("queued", 50), also=note)
        queue.cancel(second.id)
        with pytest.raises(Cancelled):
            leases[1].check(second)
        leases[1].end(second, Cancelled())
        for _ in range(2):
            record_death(gallery.database, leases[0].worker, Text("killed", "被终止"))
            assert leases[0].acquire()
            again = leases[0].claim()
            leases[0].report(again, picture=0, step=1, steps=8)
        aside = queue.get(first.id)
        assert (aside.state, len(aside.pictures), again.id) == ("set_aside", 1, ids[1])
        assert queue.counts() == {"painting": 1, "waiting": 1, "cancelled": 1, "set_aside": 1}
        assert [found.id for found in queue.list()] == [ids[1], ids[2]]
        assert queue.delete_expired(timedelta(seconds=-1)) == 2


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_server_that_does_not_answer_gives_one_message_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StorageError) as caught:
        Gallery("postgresql+psycopg://starry:secret@127.0.0.1:1/x", files=tmp_path)
    assert "does not answer" in caught.value.en
    assert "secret" not in caught.value.en


@pytest.mark.parametrize("place", ["nonsense://x", "mysql+nodriver://x/y", "sqlite+nodriver:///x"])
def test_an_unsupported_database_url_gives_one_message(tmp_path: Path, place: str) -> None:
    with pytest.raises(StorageError) as caught:
        Gallery(place, files=tmp_path)
    assert "not a supported database" in caught.value.en


@pytest.mark.parametrize("files", ["nonsense://x", "s4://bucket/x"])
def test_an_unsupported_url_for_files_gives_one_message(tmp_path: Path, files: str) -> None:
    with pytest.raises(StorageError) as caught:
        Gallery(tmp_path, files=files)
    assert "no place for pictures" in caught.value.en


def test_a_postgres_that_may_only_be_read_is_looked_at_and_refuses_pictures(
    tmp_path: Path, server: str
) -> None:
    with Gallery(server, files=tmp_path) as gallery:
        row = gallery.add(picture("只读", 4321))
    with Gallery(f"{server}?options=-c%20default_transaction_read_only%3Don", files=tmp_path) as gallery:
        assert gallery.search("只读").rows == (row,)
        assert row.id not in gallery.verify().missing
        for change in (lambda: gallery.annotations.star([row.id]), lambda: gallery.add(picture(seed=4322))):
            with pytest.raises(ReadOnlyDatabase):
                change()
