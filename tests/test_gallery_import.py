"""Import: which files of a folder become pictures, and what is said of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from attacks.pictures import png, saved, with_text
from hung import picture
from typer.testing import CliRunner

from starrynight.errors import BadFile, StorageError
from starrynight.gallery import insert
from starrynight.gallery.find import DANGLING, HIDDEN, LOOP, SPECIAL, find_pictures
from starrynight.gallery.store import Gallery

PICTURES = Path(__file__).parent / "pictures"
TEXT = "sea\nSteps: 8, Seed: 7, Size: 8x8"


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "gallery") as gallery:
        yield gallery


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.PNG", saved("PNG"), "png"),
        ("a.jfif", (PICTURES / "pic.jfif").read_bytes(), "jpeg"),
        ("a.JPE", saved("JPEG"), "jpeg"),
        ("a.avif", (PICTURES / "pic.avif").read_bytes(), "avif"),
        ("a.png", saved("WEBP"), "webp"),
        ("a.txt", saved("PNG"), "png"),
        ("no suffix", saved("AVIF"), "avif"),
    ],
)
def test_every_whole_picture_is_taken_whatever_its_suffix(
    gallery: Gallery, source: Path, name: str, data: bytes, kind: str
) -> None:
    (source / name).write_bytes(data)
    imported = gallery.import_pictures(source, bare=True)
    assert (imported.added, imported.refused, imported.passed) == (1, (), ())
    (row,) = gallery.search().rows
    assert (row.format, gallery.read(row)) == (kind, data)
    assert gallery.thumbnail(row, 256)
    assert gallery.verify().ok
    assert gallery.rebuild().updated == 1


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.png", b"", "is empty"),
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(40), "truncated or broken"),
        ("a.jxl", b"\xff\x0a" + bytes(40), "is a JPEG XL picture"),
        ("a.png", png()[:50], "truncated or broken"),
        ("a.avif", saved("AVIF")[:200], "truncated or broken"),
    ],
)
def test_a_picture_that_cannot_be_taken_is_refused_with_the_reason(
    gallery: Gallery, source: Path, name: str, data: bytes, reason: str
) -> None:
    (source / name).write_bytes(data)
    ((refused, error),) = gallery.import_pictures(source, bare=True).refused
    assert refused == name
    assert isinstance(error, BadFile)
    assert reason in error.en


def test_linked_folders_are_entered_once_and_everything_passed_over_is_named(
    gallery: Gallery, source: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk2"
    disk.mkdir()
    (disk / "far.png").write_bytes(with_text(parameters=TEXT))
    (disk / "back").symlink_to(source)
    (source / "2026-11").symlink_to(disk)
    (source / "again").symlink_to(disk)
    (source / "up").symlink_to(tmp_path)
    (source / "gone.png").symlink_to(tmp_path / "nothing")
    (source / "self").symlink_to("self")
    (source / "linked.png").symlink_to(disk / "far.png")
    (source / "notes.txt").write_text("x")
    (source / ".cache").mkdir()
    os.mkfifo(source / "pipe")
    imported = gallery.import_pictures(source)
    assert imported.added == 1
    assert [name for name, _ in imported.refused] == ["linked.png"]
    assert dict(imported.passed) == {
        "2026-11/back": LOOP, "again": LOOP, "up": LOOP, "gone.png": DANGLING, "self": DANGLING, ".cache": HIDDEN, "pipe": SPECIAL,
        "notes.txt": dict(imported.passed)["notes.txt"],
    }  # fmt: skip
    assert dict(imported.passed)["notes.txt"].en == ".txt file, not a picture"


def test_a_second_import_decodes_nothing(
    gallery: Gallery, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(12):
        (source / f"{n}.png").write_bytes(picture(f"sea {n}", n).encode())
    (source / "copy.png").write_bytes((source / "0.png").read_bytes())
    decoded = []
    read_pixels = insert.read_pixels
    monkeypatch.setattr(insert, "read_pixels", lambda data: decoded.append(1) or read_pixels(data))
    first = gallery.import_pictures(source)
    assert (first.added, first.already_present, len(decoded)) == (12, 1, 12)
    again = gallery.import_pictures(source)
    assert (again.added, again.already_present, len(decoded)) == (0, 13, 12)
    row = gallery.search("“sea 3”".strip("“”")).rows[0]
    gallery.trash.discard([row.id])
    os.remove(gallery.path(row))
    gallery.import_pictures(source)
    assert gallery.count() == 12  # restored from the trash, and the lost file written again
    assert len(decoded) == 12
    assert gallery.verify().ok


def test_bare_takes_a_picture_whose_recipe_cannot_be_read_and_says_so(gallery: Gallery, source: Path) -> None:
    (source / "a.png").write_bytes(with_text(prompt="{}"))
    assert len(gallery.import_pictures(source).refused) == 1
    imported = gallery.import_pictures(source, bare=True)
    assert (imported.added, [name for name, _ in imported.unread]) == (1, ["a.png"])


def test_an_unreadable_file_is_refused_and_the_import_goes_on(
    gallery: Gallery, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starrynight.gallery import exchange

    (source / "a.png").write_bytes(with_text(parameters=TEXT))
    (source / "b.png").write_bytes(with_text(parameters=TEXT + "0"))
    read_bytes = exchange.read_bytes

    def denied(path: Path) -> tuple[str, bytes]:  # root, who runs these tests, may read every file
        if path.name == "a.png":
            raise StorageError("a.png cannot be read: Permission denied.", "无法读取 a.png：没有权限。")
        return read_bytes(path)

    monkeypatch.setattr(exchange, "read_bytes", denied)
    imported = gallery.import_pictures(source)
    assert (imported.added, [name for name, _ in imported.refused]) == (1, ["a.png"])


def test_the_command_counts_by_reason_and_names_each_in_json(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starrynight.cli.gallery import app

    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STARRY_LANG", "en")
    for n in range(5):
        (source / f"{n}.txt").write_text("x")
    (source / "photo.jpg").write_bytes(saved("JPEG"))
    (source / "good.png").write_bytes(with_text(parameters=TEXT))
    run = CliRunner().invoke(app, ["gallery", "import", str(source)])
    assert run.exit_code == 0, run.output
    assert "5 × .txt file, not a picture: 0.txt, 1.txt, 2.txt, … (+2)" in run.output
    assert "1 hung, 0 already in the gallery, 1 refused, 5 passed over" in run.output
    assert "4.txt" in CliRunner().invoke(app, ["gallery", "import", str(source), "--verbose"]).output
    report = json.loads(CliRunner().invoke(app, ["gallery", "import", str(source), "--json"]).output)
    assert (report["already_present"], len(report["passed_over"]), report["refused"][0]["file"]) == (
        1,
        5,
        "photo.jpg",
    )


def test_one_file_is_a_picture_whatever_it_is_called(source: Path) -> None:
    (source / "x.dat").write_bytes(saved("PNG"))
    assert find_pictures(source / "x.dat").pictures == [source / "x.dat"]
