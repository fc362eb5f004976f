"""The command line as a user runs it: real processes, a small real model, real files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hung import picture
from served import gallery_in

from starrynight.errors import Cancelled
from starrynight.painting.results import Step
from tests import tiny

STARRY = Path(sys.executable).with_name("starry")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("zimage", tmp_path_factory.mktemp("model"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def starry(
    home: Path, *words: str | Path, lang: str = "en", **more: object
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STARRY_HOME": str(home), "STARRY_LANG": lang, "COLUMNS": "200"}
    command = [STARRY, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, **more)  # type: ignore[call-overload]


def test_help_is_instant_and_has_examples(home: Path) -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = starry(home, "paint", "--help", lang="zh")
        times.append(time.perf_counter() - start)
    assert done.returncode == 0
    assert "例子" in done.stdout
    assert "starry paint" in done.stdout
    probe = "import sys; sys.argv = ['starry', 'paint', '-h']\nfrom starrynight import cli\ntry: cli.main()\nexcept SystemExit: print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip().endswith("False")
    assert min(times) < 3, "importing torch and diffusers alone takes longer than this"


def test_the_command_that_inspect_prints_repeats_the_same_bytes(home: Path, model: Path) -> None:
    out = home / "张灯.png"
    words = ["paint", '灯 & "quotes" $HOME', "-m", model, "--size", "64x96", "--steps", "2", "--seed", "7"]
    done = starry(home, *words, "-o", out)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert "seed 7" in done.stdout
    assert "float" in done.stdout
    first = out.read_bytes()

    again = starry(home, "inspect", out, "--command").stdout.strip()
    words = shlex.split(again)
    assert words[:2] == ["starry", "paint"]
    out.unlink()
    assert starry(home, *words[1:], "-o", out).returncode == 0
    assert out.read_bytes() == first

    shown = starry(home, "inspect", out, lang="zh")
    assert "quotes" in shown.stdout
    assert "64×96" in shown.stdout
    assert "数值已查验" in shown.stdout
    raw = json.loads(starry(home, "inspect", out, "--json").stdout)
    assert raw["seed"] == 7
    assert {choice["reason_zh"] for choice in raw["plan"].values()}


def test_seeds_are_tried_until_what_is_asked_for_is_seen(home: Path, model: Path) -> None:
    words = [
        "paint",
        "a full moon",
        "-m",
        model,
        "--size",
        "64",
        "--steps",
        "1",
        "--seed",
        "7",
        "--until-seen",
        "2",
    ]
    done = starry(home, *words, "-o", home / "moon.png")
    assert done.returncode == 0, done.stderr
    assert "1 of up to 2 seeds tried" in done.stdout  # of noise the perceiver cannot tell what is missing
    refused = starry(home, *words, "-n", "2")
    assert refused.returncode == 2
    assert "--until-seen" in refused.stderr


def test_a_batch_is_saved_to_the_gallery_or_as_numbered_files(home: Path, model: Path) -> None:
    done = starry(
        home, "paint", "三幅", "-m", model, "--size", "64", "--steps", "1", "-n", "3", "--seed", "4"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(starry(home, "gallery", "search", "三幅", "--json").stdout)
    assert [row["seed"] for row in found] == [6, 5, 4]
    assert all(row["path"] in done.stdout for row in found)
    files = [home / f"many-{i}.webp" for i in (1, 2)]
    words = [
        "paint",
        "两幅",
        "-m",
        model,
        "--size",
        "64",
        "--steps",
        "1",
        "-n",
        "2",
        "-o",
        home / "many.webp",
    ]
    assert starry(home, *words).returncode == 0
    assert all(file.read_bytes()[8:12] == b"WEBP" for file in files)


REFUSED = {
    "an empty prompt": (["paint", "  "], 2),
    "no such style": (["paint", "x", "--style", "oli"], 2),
    "no such model": (["paint", "x", "--model", "firefli"], 2),
    "a size that does not fit": (["paint", "x", "--size", "250x256"], 2),
    "not a size": (["paint", "x", "--size", "big"], 2),
    "too many steps": (["paint", "x", "--steps", "1000"], 2),
    "guidance that is no number": (["paint", "x", "--guidance", "nan"], 2),
    "no pictures at all": (["paint", "x", "-n", "0"], 2),
    "a seed below zero": (["paint", "x", "--seed=-1"], 2),
    "no such sampler": (["paint", "x", "--sampler", "eulr"], 2),
    "no such LoRA": (["paint", "x", "--lora", "moonlight:0.5"], 2),
    "no such format": (["paint", "x", "-o", "night.tiff"], 2),
    "a missing file": (["inspect", "nowhere.png"], 3),
    "a missing first picture": (["paint", "x", "--init-image", "nowhere.png"], 3),
    "an unknown option": (["paint", "x", "--stpes", "8"], 2),
    "an unknown model to pull": (["models", "pull", "firefli"], 2),
}


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_request_prints_one_line_and_writes_nothing(
    home: Path, tmp_path: Path, case: str, lang: str
) -> None:
    words, code = REFUSED[case]
    done = starry(home, *words, lang=lang, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("✗ ")
    assert any("\u4e00" <= char <= "\u9fff" for char in done.stderr) == (lang == "zh")
    assert done.stdout == ""
    assert not list(tmp_path.rglob("*.*"))


def test_the_nearest_names_and_sizes_are_offered(home: Path) -> None:
    assert "oil" in starry(home, "paint", "x", "--style", "oli").stderr
    assert "firefly" in starry(home, "paint", "x", "--model", "firefli").stderr
    assert "256×256" in starry(home, "paint", "x", "--size", "250x256").stderr


def test_an_existing_file_is_kept_without_overwrite(home: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.png"
    out.write_bytes(b"precious")
    words = ["paint", "x", "-m", model, "--size", "64", "--steps", "1", "-o", out]
    assert starry(home, *words).returncode == 2
    assert out.read_bytes() == b"precious"
    assert starry(home, *words, "--overwrite").returncode == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_partial_picture(
    home: Path, model: Path, tmp_path: Path, sign: signal.Signals
) -> None:
    environment = {**os.environ, "STARRY_HOME": str(home), "STARRY_LANG": "en"}
    words = ["paint", "x", "-m", model, "--size", "64", "--steps", "2", "-n", "64", "-o", tmp_path / "out"]
    command = [STARRY, *words]
    run = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline().startswith("✦")  # the first picture is saved; the others are still to come
    run.send_signal(sign)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == (130 if sign == signal.SIGINT else -sign)
    if sign == signal.SIGINT:
        assert "Cancelled" in errors
    kept = list((tmp_path / "out").glob("*.png"))
    assert kept
    assert all(starry(home, "inspect", path).returncode == 0 for path in kept[:2])


def test_an_interrupt_that_python_swallows_stops_the_run_at_the_next_step() -> None:
    """Python swallows a KeyboardInterrupt raised inside a destructor."""
    from starrynight.cli.paint import PaintProgress

    step = Step(0, 0, 2, lambda: None, torch.zeros(1))
    with PaintProgress(1) as progress:
        progress.on_step(step)
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Cancelled):
            progress.on_step(step)


def test_a_prompt_beyond_the_token_limit_gets_a_warning(home: Path, tmp_path: Path) -> None:
    words = ["paint", "星夜，" * 1300, "-m", "firefly", "--size", "256", "--steps", "1"]
    done = starry(home, *words, "-o", tmp_path / "x.png", lang="zh")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"! 提示词共 \d{4} 个词元，.*只读前 512 个。\n", done.stderr)
    assert (tmp_path / "x.png").exists()


def test_nan_in_every_picture_exits_with_6_and_writes_no_file(home: Path, tmp_path: Path) -> None:
    broken = tiny.save("zimage", tmp_path / "broken")
    tiny.poison(broken / "vae" / "diffusion_pytorch_model.safetensors", "decoder.conv_out.bias")
    words = ["paint", "x", "-m", broken, "--size", "64", "--steps", "1", "-n", "2", "--seed", "4"]
    done = starry(home, *words)
    assert done.returncode == 6
    told, first, second, total = done.stderr.splitlines()
    assert told.startswith("2 pictures, 64×64: ")
    assert "picture 1 of 2 (seed 4)" in first
    assert "decoder" in first
    assert "seed 5" in second
    assert "0 of 2 pictures hang" in total
    assert done.stdout == ""
    assert not list(home.rglob("*.png"))


def test_models_lists_the_catalogue_and_doctor_reports_the_device(home: Path) -> None:
    models = starry(home, "models", lang="zh").stdout
    for name in ("firefly", "z-image-turbo", "kook-zimage-turbo", "sd-turbo", "sdxl", "flux-schnell"):
        assert name in models
    found = json.loads(starry(home, "doctor", "--json").stdout)
    assert found["device"]["rates"]["float32"] > 0
    assert found["plan"]
    assert found["home"]["folder"] == str(home)
    assert found["senses"]["eyes"]["model"] == "perceiver"
    assert found["senses"]["ears"]["model"] is None
    report = starry(home, "doctor", lang="zh").stdout
    assert "float32" in report
    assert "█" in report


def test_an_unwritable_folder_exits_with_5(home: Path, model: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    done = starry(
        home, "paint", "x", "-m", model, "--size", "64", "--steps", "1", "-o", blocked / "deep" / "x.png"
    )
    assert done.returncode == 5
    assert done.stderr.startswith("✗ ")


def test_collections_are_listed_renamed_and_taken_apart(home: Path) -> None:
    with gallery_in(home) as gallery:
        gallery.annotations.collect("winter", [gallery.add(picture()).id])
    assert starry(home, "gallery", "collections").stdout == "     1  winter\n✦ 1 collection\n"
    assert (
        starry(home, "gallery", "collections", "rename", "winter", "冬夜", lang="zh").stdout
        == "✦ winter → 冬夜\n"
    )
    assert json.loads(starry(home, "gallery", "collections", "--json").stdout) == {"冬夜": 1}
    gone = starry(home, "gallery", "collections", "delete", "winter")
    assert (gone.returncode, gone.stdout) == (3, "")
    assert "There is no collection “winter”" in gone.stderr
    apart = starry(home, "gallery", "collections", "delete", "冬夜", lang="zh")
    assert apart.stdout == "✦ 已解散：冬夜；1 幅画仍在画廊里\n"
