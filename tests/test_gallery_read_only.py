"""A gallery on a medium that cannot be written to: looked at, searched, verified, served; never written to, never painted into."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hung import TESTS, picture

from starrynight.errors import MissingFile, StorageError
from starrynight.gallery import database, snapshot
from starrynight.gallery.database import BrokenDatabase, Database, ReadOnlyDatabase
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue
from starrynight.request import PaintRequest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can mount, and become a user without write permission"
)
MOUNTED = """
folder=$1; shift
mount --bind "$folder" "$folder" && mount -o remount,bind,ro "$folder" && exec "$@"
"""
# How a gallery can be closed to us: a mount, or permissions of its folder, of the file, or of both.
CLOSED = ["a mount", "its folder", "the file", "both"]

LOOK = """
import json, os, sys
from pathlib import Path
from hung import picture
from starrynight.errors import StarryError
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue
from starrynight.request import PaintRequest
if sys.argv[2] == "nobody":
    os.seteuid(65534)
home = Path(sys.argv[1])
refused = []
with Gallery(home / "gallery") as gallery:
    (row,) = gallery.search("星夜 冬天").rows
    found = {"id": row.id, "tags": row.tags, "count": gallery.count(), "facets": gallery.facets()["verdict"],
             "recipe": gallery.recipe(row.id)["request"]["prompt"], "thumb": len(gallery.thumbnail(row)) > 0,
             "verified": gallery.verify().ok, "jobs": len(Queue(gallery).list()), "locked": gallery.database.is_locked()}
    def tried(call, *given):
        try:
            call(*given)
        except StarryError as error:
            refused.append([type(error).__name__, error.en])
    tried(gallery.check_writable)
    tried(gallery.add, picture(seed=77))
    tried(gallery.annotations.star, [row.id])
    tried(gallery.trash.discard, [row.id])
    tried(gallery.import_pictures, home)
    tried(gallery.rebuild)
    tried(gallery.delete_expired)
    tried(Queue(gallery).submit, PaintRequest(prompt="x", seed=1))
    copied = gallery.database._snapshot.path.parent
print(json.dumps(found | {"refused": refused, "left": copied.exists()}))
"""


@cache
def can_mount() -> bool:
    try:
        return (
            subprocess.run(["unshare", "-m", "mount", "--bind", "/", "/"], capture_output=True).returncode
            == 0
        )
    except FileNotFoundError:
        return False


def closed(home: Path, how: str, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python code to which the gallery in ``home`` is closed; root is not stopped by permissions."""
    command = [sys.executable, "-c", code, str(home), "root" if how == "a mount" else "nobody", *words]
    if how == "a mount":
        if not can_mount():
            pytest.skip("this root may not mount, as in many containers")
        command = ["unshare", "-m", "sh", "-ec", MOUNTED, "sh", str(home), *command]
    else:
        for parent in [home, *home.parents][:4]:
            os.chmod(parent, 0o755)
        for path in home.rglob("*"):
            os.chmod(path, 0o777 if path.is_dir() else 0o666)
        os.chmod(home / "gallery", 0o777 if how == "the file" else 0o555)
        for path in home.glob("gallery/gallery.db*"):
            os.chmod(path, 0o666 if how == "its folder" else 0o444)
    environment = os.environ | {"STARRY_HOME": str(home)}
    return subprocess.run(command, capture_output=True, text=True, cwd=TESTS, env=environment, timeout=120)


def fingerprint(home: Path) -> list[tuple[str, int, bytes]]:
    files = sorted(path for path in home.rglob("*"))
    return [
        (str(path), path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in files
    ]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One picture with a tag, and a job that waits."""
    with Gallery(tmp_path / "home" / "gallery") as gallery:
        row = gallery.add(picture())
        gallery.annotations.tag([row.id], "冬天")
        Queue(gallery).submit(PaintRequest(prompt="x", seed=1))
    return tmp_path / "home"


@pytest.mark.parametrize("how", CLOSED)
def test_it_is_looked_at_searched_and_verified_and_never_written_to(home: Path, how: str) -> None:
    with Gallery(home / "gallery") as gallery:
        (row,) = gallery.iter_rows()
    before = fingerprint(home / "gallery" / "pictures"), (home / "gallery" / "gallery.db").read_bytes()
    done = closed(home, how, LOOK)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    refused = found.pop("refused")
    assert found == {
        "id": row.id, "tags": ["冬天"], "count": 1, "facets": {"hang": 1}, "recipe": "星夜下的静谧村庄", "thumb": True,
        "verified": True, "jobs": 1, "locked": False, "left": False,
    }  # fmt: skip
    assert [kind for kind, _ in refused] == ["ReadOnlyDatabase"] * 8
    assert "only looked at, searched and verified" in refused[0][1]
    assert before == (
        fingerprint(home / "gallery" / "pictures"),
        (home / "gallery" / "gallery.db").read_bytes(),
    )
    assert not list(home.glob("gallery/gallery.db-*"))


def test_what_stands_in_the_log_alone_is_found(home: Path, tmp_path: Path) -> None:
    with Gallery(home / "gallery") as gallery:
        (row,) = gallery.iter_rows()
        gallery.annotations.untag([row.id], "冬天")
        gallery.annotations.tag([row.id], "星夜冬天")
        copied = tmp_path / "copy"  # copied while it was open: the tag is in gallery.db-wal
        shutil.copytree(home, copied)
    (copied / "gallery" / "gallery.db-shm").unlink()
    assert (copied / "gallery" / "gallery.db-wal").read_bytes() != b""
    done = closed(copied, "a mount", LOOK)
    assert json.loads(done.stdout)["tags"] == ["星夜冬天"], done.stderr


def test_an_older_one_is_migrated_in_the_copy_alone(tmp_path: Path) -> None:
    from test_gallery_crash import create_database

    (tmp_path / "gallery").mkdir()
    create_database(tmp_path / "gallery" / "gallery.db", "0001")
    before = (tmp_path / "gallery" / "gallery.db").read_bytes()
    code = """
import sys
from starrynight.gallery.store import Gallery
with Gallery(sys.argv[1] + "/gallery") as gallery:
    print(gallery.count(), gallery.facets()["style"], gallery.verify().ok)
"""
    assert closed(tmp_path, "a mount", code).stdout == "0 {} True\n"
    assert (tmp_path / "gallery" / "gallery.db").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["gallery"], 0, "1 picture hangs"),
        (["gallery", "search", "星夜"], 0, "星夜下的静谧村庄"),
        (["gallery", "verify"], 0, "all intact"),
        (["gallery", "rebuild"], 5, "cannot be written to"),
        (["gallery", "trash", "throw", "ID"], 5, "cannot be written to"),
        (["paint", "x"], 5, "cannot be written to, only looked at, searched and verified"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_commands_show_it_and_refuse_to_change_it(home: Path, words: list[str], code: int, said: str) -> None:
    with Gallery(home / "gallery") as gallery:
        (row,) = gallery.iter_rows()
    words = [row.id if word == "ID" else word for word in words]
    run = "import sys; sys.argv = ['starry', *sys.argv[3:]]; from starrynight.cli import main; main()"
    done = closed(home, "a mount", run, *words)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


SERVE = """
import json, sys
from pathlib import Path
from hung import picture
from served import Server
server = Server(Path(sys.argv[1]), log=Path(sys.argv[3]), TMPDIR=sys.argv[4])
print(json.dumps({
    "pictures": len(server.ask("/api/pictures").json["pictures"]),
    "page": server.ask("/").status,
    "upload": server.ask("/api/uploads", picture().encode()).status,
    "job": server.ask("/api/jobs", {"prompt": "x"}).error["type"],
    "health": server.ask("/api/health").json,
    "worker": server.worker is not None,
}))
server.close()
"""


def test_a_server_shows_it_and_starts_no_worker(home: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    done = closed(home, "a mount", SERVE, str(tmp_path / "server.log"), str(copies))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    health = found.pop("health")
    assert found == {"pictures": 1, "page": 200, "upload": 507, "job": "ReadOnlyDatabase", "worker": False}
    assert ([one["kind"] for one in health["problems"]], health["worker"]) == (["read_only"], "absent")
    assert not list(copies.iterdir())  # nothing is left of what it copied
    log = (tmp_path / "server.log").read_text("utf-8")
    assert log.count("\n") == 1
    assert "cannot be written to" in log


def test_a_copy_of_what_another_machine_changes_all_the_time_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "gallery" / "gallery.db"
    monkeypatch.setattr(snapshot.time, "sleep", lambda _: os.utime(path))
    monkeypatch.setattr(snapshot, "is_read_only", lambda _: True)
    copy = snapshot.shutil.copyfile

    def while_it_changes(source: Path, target: Path) -> None:
        copy(source, target)
        with sqlite3.connect(path) as other:
            other.execute("UPDATE jobs SET revision = revision + 1")
        other.close()

    monkeypatch.setattr(snapshot.shutil, "copyfile", while_it_changes)
    with pytest.raises(StorageError, match="another machine"):
        snapshot.Snapshot(path)


def test_a_damaged_one_and_none_at_all_are_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "is_read_only", lambda path: path.is_file())
    path = home / "gallery" / "gallery.db"
    with Gallery(home / "gallery") as gallery, pytest.raises(ReadOnlyDatabase):
        gallery.check_writable()
    with Gallery(home / "gallery") as gallery, pytest.raises(MissingFile):
        gallery.get("feed")
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(BrokenDatabase):
        Database(f"sqlite:///{path}")
