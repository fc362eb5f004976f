"""Prompt lists: one a line, remarks, the standard input, every bad line named; a plan told before; one loaded model."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from starrynight import prompts, studio
from starrynight.cli import batch as cli_batch
from starrynight.errors import BadFile, BadRequest, MissingField, MissingFile, StarryError, StorageError
from starrynight.gallery.store import Gallery
from starrynight.jobs import batch
from starrynight.jobs.queue import Queue
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import MAX_TEXT, PaintRequest


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\nb", [(1, "a"), (2, "b")]),
        (
            "\n# a remark\n  江雪，孤舟  \r\n\r\nb # not a remark\n",
            [(3, "江雪，孤舟"), (5, "b # not a remark")],
        ),
        ("#only\nx", [(2, "x")]),
        ("{red|blue} boat", [(1, "{red|blue} boat")]),
    ],
)
def test_a_list_has_one_prompt_a_line(text: str, found: list[tuple[int, str]]) -> None:
    assert prompts.parse(text) == found


@pytest.mark.parametrize("text", ["", "\n\n", "# a\n  # b\n"])
def test_a_list_without_a_prompt_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="holds no prompt"):
        prompts.parse(text)


def test_a_list_that_is_too_long_is_refused() -> None:
    with pytest.raises(BadRequest, match="1001 prompts; 1000"):
        prompts.parse("x\n" * 1001)


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (None, MissingFile, "There is no file"),
        ("folder", StorageError, "cannot be read"),
        (b"a\n\xff\xfe\n", BadFile, "Line 2 of .* is no UTF-8"),
        (b"x" * (prompts.MAX_BYTES + 1), BadFile, "too large"),
    ],
)
def test_a_file_that_is_no_list_is_named(tmp_path: Path, data: object, error: type, said: str) -> None:
    path = tmp_path / "list.txt"
    if data == "folder":
        path.mkdir()
    elif isinstance(data, bytes):
        path.write_bytes(data)
    with pytest.raises(error, match=said):
        prompts.read(path)


def test_a_byte_order_mark_and_the_standard_input_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeff江雪\n".encode())
    assert prompts.read(path) == [(1, "江雪")]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("孤舟\n".encode())))
    assert prompts.read(Path("-")) == [(1, "孤舟")]


def test_every_line_becomes_a_request_with_the_same_options(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# three\n江雪\n\n{boat|pine}\nmoon\n")
    found = cli_batch.requests(None, path, {"style": "ink", "count": 2, "seed": 7})
    assert [(one.prompt, one.style, one.count, one.seed) for one in found] == [
        ("江雪", "ink", 2, 7), ("{boat|pine}", "ink", 2, 7), ("moon", "ink", 2, 7)
    ]  # fmt: skip
    assert len({one.seed for one in cli_batch.requests(None, path, {})}) == 3  # none given: each its own


@pytest.mark.parametrize(
    ("line", "said"),
    [("x" * (MAX_TEXT + 1), "Line 3: .*4001 characters"), ("<lora:nowhere:1> a", "Line 3: .*nowhere")],
)
def test_a_bad_line_is_named_before_anything_is_painted(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"a\n\n{line}\nb\n")
    with pytest.raises(StarryError, match=said) as found:
        cli_batch.requests(None, path, {})
    assert found.value.zh.startswith("第 3 行：")


def test_a_prompt_and_a_list_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(MissingField, match="--prompts"):
        cli_batch.requests(None, None, {})
    with pytest.raises(BadRequest, match="not both"):
        cli_batch.requests("a", tmp_path / "list.txt", {})


def test_the_plan_tells_how_many_how_long_and_how_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    wanted = [PaintRequest(prompt=p, seed=1, count=3, width=512, height=256, steps=8) for p in "ab"]
    with Gallery() as gallery:
        before = batch.plan(wanted, gallery)
        assert (before.pictures, before.prompts, before.seconds, before.known) == (6, 2, None, False)
        assert before.message.en == (
            "6 pictures of 2 prompts, 512×256: at most 2.4 MB, how long is known after the first, "
            "because this model has painted nothing here yet."
        )
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        row = gallery.add(Picture(pixels, make_recipe(wanted[0], verdict=Verdict("hang"))))
        queue = Queue(gallery)
        job = queue.submit(PaintRequest(prompt="a", seed=1, width=256, height=256, steps=8))
        from sqlalchemy import update

        from starrynight.jobs.schema import jobs

        with gallery.database.writing() as connection:
            painted = update(jobs).where(jobs.c.id == job.id).values(pace=2.0, ended_at=1, state="done")
            connection.execute(painted)
        after = batch.plan(wanted, gallery, enlarged=2)
        assert after.seconds == pytest.approx(2.0 * 6 * 8 * 512 * 256 / 1e6)
        assert after.bytes == round(row.size / 64**2 * 6 * 512 * 256 * 4)
        assert after.message.en.startswith("6 pictures of 2 prompts, 1024×512: about ")
        assert after.message.en.endswith("about 13 s.")
        assert after.message.zh.startswith("2 条提示词，6 幅画，1024×512：约")


def test_numbered_files_go_on_over_the_prompts(tmp_path: Path) -> None:
    from starrynight.gallery.files import OutputPath

    request = PaintRequest(prompt="a", seed=1, count=2)
    saver = cli_batch.Saver(OutputPath(tmp_path / "p.png", 4), [request, request], None)
    pixels = np.zeros((8, 8, 3), np.uint8)
    for before in (0, 2):
        saver.before = before
        for index in (0, 1):
            recipe = make_recipe(request, verdict=Verdict("hang")) | {"index": index}
            saver(Picture(pixels, recipe))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p-1.png", "p-2.png", "p-3.png", "p-4.png"]


def test_a_list_is_painted_with_one_loaded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from starrynight.cli import paint

    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    wanted = [
        studio.make_request(prompt=p, seed=3, width=128, height=128, steps=1) for p in ("江雪", "a moon")
    ]
    saver = cli_batch.Saver(paint._destination(tmp_path / "out", 2, False), wanted, None)
    studios: list[studio.Studio] = []
    jobs = [paint.PaintJob(one, saver, "cpu", "native", False, [], studios) for one in wanted]
    paint._paint(jobs[:1], True)
    painter = studios[0]._painter
    assert painter is not None
    paint._paint(jobs[1:], True)
    assert len(studios) == 1
    assert studios[0]._painter is painter
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert capsys.readouterr().out.count("✦") == 2


def test_the_command_reads_a_list_and_wants_one_or_the_other(tmp_path: Path) -> None:
    import os
    import subprocess

    def starry(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from starrynight.cli import main; main()", "paint", *words]
        home = {"STARRY_HOME": str(tmp_path / "home"), "LANG": "en_US.UTF-8", "LC_ALL": "C.UTF-8"}
        return subprocess.run(command, env=os.environ | home, input=given, capture_output=True, text=True)

    neither = starry()
    assert (neither.returncode, neither.stdout) == (2, "")
    assert neither.stderr.count("\n") == 1
    assert "--prompts" in neither.stderr
    words = ["--prompts", "-", "--size", "128", "--steps", "1", "--here", "-o", str(tmp_path / "p.png")]
    done = starry(*words, given="a moon\n# none\n江雪\n")
    assert done.returncode == 0, done.stderr
    assert "2 pictures of 2 prompts, 128×128" in done.stderr
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["p-1.png", "p-2.png"]
