"""Import of other tools' pictures and of hostile files, and export as a zip."""

from __future__ import annotations

import html
import io
import json
import os
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import pytest
from attacks.pictures import BROKEN, FORGED, forged_json, itxt, png, saved, with_comment, with_text
from hung import picture

from starrynight.errors import BadFile, BadRequest, LfsPointer, MissingFile, NoRecipe, StarryError
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.metadata import read_recipe

A1111 = "an oil painting of a village, 星夜\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 6.5, Seed: 7, Size: 8x8, Model: sd_xl"
COMFY = json.dumps(
    {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dreamshaper_8.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "lotus pavilion", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {"seed": 2**63 + 5, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1,
                       "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]},
        },
    }
)  # fmt: skip
INVOKE = json.dumps(
    {
        "positive_prompt": "neon alley",
        "seed": 3,
        "steps": 30,
        "model": {"name": "juggernaut"},
        "app_version": "5",
    }
)


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "gallery") as gallery:
        yield gallery


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_pictures_of_four_tools_are_imported_byte_for_byte(gallery: Gallery, source: Path) -> None:
    files = {
        "webui/00001-7.png": with_text(parameters=A1111),
        "webui/2026/00002.jpg": with_comment("JPEG", b"UNICODE\0" + A1111.replace("village", "harbour").encode("utf-16-be")),
        "comfy/ComfyUI_00001_.png": with_text(prompt=COMFY),
        "invoke/a.PNG": with_text(invokeai_metadata=INVOKE),
        "ours.webp": picture("江雪", seed=9).encode("webp"),
    }  # fmt: skip
    write(source, files)
    write(source, {"notes.txt": b"", ".hidden/x.png": b"", ".x.png": b""})  # ignored
    os.utime(source / "ours.webp", (1_600_000_000, 1_600_000_000))
    seen: list[tuple[int, int, str]] = []
    imported = gallery.import_pictures(
        source, on_progress=lambda done, total, message: seen.append((done, total, message.en))
    )
    assert (imported.added, imported.already_present, imported.refused) == (5, 0, ())
    assert sorted(name for _, _, name in seen) == sorted(files)
    assert [(done, total) for done, total, _ in seen] == [(n, 5) for n in range(1, 6)]
    assert {gallery.read(row) for row in gallery.iter_rows()} == set(files.values())
    tools = {row.prompt: (row.tool, row.model, row.seed) for row in gallery.iter_rows()}
    assert tools["lotus pavilion"][2] == 2**63 + 5  # too large for a signed 64-bit integer
    assert tools["neon alley"][1:] == ("juggernaut", 3)
    assert [row.made_at.year for row in gallery.search("江雪").rows] == [2020]
    assert gallery.count("星夜") == 2
    again = gallery.import_pictures(source)
    assert (again.added, again.already_present) == (0, 5)
    assert gallery.verify().ok


def test_invalid_files_are_refused_one_by_one_and_the_others_are_imported(
    gallery: Gallery, source: Path
) -> None:
    write(source, {f"{n:03}.png": data for n, data in enumerate(BROKEN.values())})
    write(source, {"good.png": with_text(parameters=A1111), "photo.jpg": saved("JPEG")})
    imported = gallery.import_pictures(source)
    assert imported.added == 1
    reasons = dict(imported.refused)
    assert len(reasons) == len(BROKEN) + 1
    assert isinstance(reasons["photo.jpg"], NoRecipe)
    for name, data in zip(sorted(reasons), BROKEN.values(), strict=False):
        kind = LfsPointer if data.startswith(b"version https://git-lfs") else (BadFile, NoRecipe)
        assert isinstance(reasons[name], kind)
        assert "\n" not in reasons[name].en
        assert reasons[name].zh
    assert gallery.count() == 1
    assert gallery.verify().ok


def test_forged_metadata_is_stored_as_text_or_refused_and_never_crashes(
    gallery: Gallery, source: Path
) -> None:
    write(source, {f"{n:03}.png": data for n, data in enumerate(FORGED.values())})
    imported = gallery.import_pictures(source)
    assert imported.added > len(FORGED) / 2
    assert imported.added + len(imported.refused) == len(FORGED)
    for row in gallery.iter_rows():
        assert len(row.prompt) <= 10_000
        assert "\x1b" not in row.prompt
        assert row in gallery.search(Query(text=row.prompt[:100])).rows
        assert isinstance(gallery.recipe(row.id), dict)
    assert gallery.verify().ok


def test_forged_verdict_style_and_plan_values_are_not_trusted(gallery: Gallery, source: Path) -> None:
    forged = forged_json(
        request={"prompt": "sea", "style": "\x1b[2J" * 500},
        verdict={"outcome": "admin"},
        plan={"unet": {"format": ["x"]}},
    )
    write(source, {"a.png": png(itxt("starry_night", forged))})
    assert gallery.import_pictures(source).added == 1
    (row,) = gallery.search().rows
    assert (row.verdict, row.precision) == ("unchecked", None)
    assert row.style is not None
    assert len(row.style) <= 200
    assert "\x1b" not in row.style


def test_links_special_files_and_hostile_names_are_refused(
    gallery: Gallery, source: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(with_text(parameters=A1111))
    (source / "link.png").symlink_to(secret)
    (source / "folder").symlink_to(tmp_path)
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe.png")
    (source / "folder.png").mkdir()
    write(source, {"\x1b[2J;rm -rf ~.png": saved("PNG")})
    (source / os.fsdecode(b"\xff\xfe.png")).write_bytes(saved("PNG"))
    imported = gallery.import_pictures(source)
    assert imported.added == gallery.count() == 0
    names = {name for name, _ in imported.refused}
    assert len(names) == 4
    for name in names:
        assert "\x1b" not in name
        name.encode()  # can be printed


def test_bare_imports_pictures_without_a_recipe(gallery: Gallery, source: Path) -> None:
    write(source, {"photo.jpg": saved("JPEG")})
    assert gallery.import_pictures(source, bare=True).added == 1
    (row,) = gallery.search().rows
    assert (row.prompt, row.tool, row.verdict) == ("", "", "unchecked")


def test_one_file_can_be_imported_and_a_missing_folder_raises(gallery: Gallery, source: Path) -> None:
    write(source, {"one.png": with_text(parameters=A1111)})
    assert gallery.import_pictures(source / "one.png").added == 1
    with pytest.raises(MissingFile):
        gallery.import_pictures(source / "nowhere")


def test_a_zip_contains_pictures_and_recipes_under_safe_names(
    gallery: Gallery, source: Path, tmp_path: Path
) -> None:
    prompts = ["星夜，村庄", "../../etc/passwd", "CON", "a/b\\c:*?", "x" * 300, "<script>", "."]
    rows = [gallery.add(picture(prompt, seed)) for seed, prompt in enumerate(prompts)]
    write(source, {"old.png": with_text(parameters="../../../sea\nSteps: 8, Seed: 7, Size: 8x8")})
    os.utime(source / "old.png", (0, 0))  # before the first date that a zip can store
    gallery.import_pictures(source)
    gallery.annotations.tag([rows[0].id], "冬天")
    to = tmp_path / "out.zip"
    assert gallery.export("", to).pictures == 8
    with zipfile.ZipFile(to) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        page = archive.read("index.html").decode()
        assert page.count("<figure>") == 8
        assert all(html.escape(quote(name)) in page for name in names if name.startswith("pictures/"))
        for name in names[:-1]:
            parts = PurePosixPath(name).parts
            assert len(parts) == 2
            assert parts[0] in ("pictures", "recipes")
            assert not set(name) & set('\\:*?"<>|\x00')
            assert ".." not in name
            assert len(name) < 100
        images = [name for name in names if name.startswith("pictures/")]
        assert {archive.read(name) for name in images} == {gallery.read(row) for row in gallery.iter_rows()}
        (starry,) = [name for name in images if "星夜-村庄" in name]
        sidecar = json.loads(archive.read(starry.replace("pictures", "recipes").replace(".png", ".json")))
        assert (sidecar["prompt"], sidecar["tags"], sidecar["seed"]) == ("星夜，村庄", ["冬天"], 0)
        assert sidecar["recipe"] == gallery.recipe(rows[0].id)
        assert read_recipe(archive.read(starry)).prompt == "星夜，村庄"
    with pytest.raises(BadRequest):
        gallery.export("", to)


def test_a_search_is_exported_to_a_stream_and_unreadable_files_are_reported(gallery: Gallery) -> None:
    kept, lost = gallery.add(picture("night one", 1)), gallery.add(picture("night two", 2))
    gallery.add(picture("day", 3))
    os.remove(gallery.path(lost))
    stream = io.BytesIO()
    exported = gallery.export("night", stream)
    assert (exported.pictures, exported.unreadable) == (1, (lost.id,))
    with zipfile.ZipFile(stream) as archive:
        stem = f"00001-night-one-{kept.id[:8]}"
        assert archive.namelist() == [f"pictures/{stem}.png", f"recipes/{stem}.json", "index.html"]


@pytest.mark.parametrize("date", [-(10**9), 0, 2**33, 10**11])
def test_a_file_of_any_date_is_imported_and_exported(gallery: Gallery, source: Path, date: int) -> None:
    write(source, {"a.png": with_text(parameters=A1111)})
    os.utime(source / "a.png", (date, date))
    gallery.import_pictures(source)
    (row,) = gallery.search().rows
    assert row.made_at.timestamp() == pytest.approx(
        max(min((source / "a.png").stat().st_mtime, 253_402_300_799), 0)
    )
    assert gallery.export("", io.BytesIO()).pictures == 1
    assert gallery.rebuild().updated == 1


def test_an_export_can_be_imported_into_another_gallery(gallery: Gallery, tmp_path: Path) -> None:
    rows = [
        gallery.add(picture(f"picture {seed}", seed), kind)
        for seed, kind in enumerate(("png", "jpeg", "webp"))
    ]
    gallery.export("", tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        archive.extractall(tmp_path / "out")
    with Gallery(tmp_path / "other") as other:
        assert other.import_pictures(tmp_path / "out").added == 3
        assert {row.id for row in other.iter_rows()} == {row.id for row in rows}


def test_a_zip_that_cannot_be_written_gives_one_message_and_leaves_no_partial_file(
    gallery: Gallery, tmp_path: Path
) -> None:
    gallery.add(picture())
    with pytest.raises(StarryError) as caught:
        gallery.export("", tmp_path / "no such folder" / "out.zip")
    assert "cannot be written" in caught.value.en
    assert not list(tmp_path.rglob("*starry-part"))
