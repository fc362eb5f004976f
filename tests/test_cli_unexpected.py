"""No traceback leaves the command line: an error that nothing else has put into words is one sentence, with its traceback in a
file. Real processes; the commands that fail are added to the real application.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from starrynight.errors import BadRequest
from starrynight.models import places, precision_plan, registry
from starrynight.numerics import device
from starrynight.numerics.precision import parse_device

ROOT = Path(__file__).parent.parent
BOOM = """
import sys, threading, errno
from starrynight.cli import main
from starrynight.cli.terminal import app
class PanicException(BaseException):
    "As pyo3 raises it: no Exception."
class Loud:
    def __del__(self): raise KeyError("destroyed")
def deep(): deep()
def boom():
    {code}
app.command(name="boom")(boom)
main()
"""
# What is raised, the exit code, and a word of the sentence.
FAULTS = {
    "KeyError": ("{}['sampler']", 1, "KeyError"),
    "AssertionError": ("assert 1 == 2", 1, "AssertionError"),
    "a library's words": ("raise ValueError('shapes (3, 4) and (5,) not aligned')", 1, "not aligned"),
    "no words": ("raise RuntimeError", 1, "RuntimeError"),
    "recursion": ("deep()", 1, "recursion"),
    "many lines": ("raise TypeError('one\\ntwo\\x1b[31m\\nthree')", 1, "one two"),
    "a panic in Rust": ("raise PanicException('called `Option::unwrap()`')", 1, "unwrap"),
    "memory": ("raise MemoryError", 7, "memory"),
    "a full disk": ("raise OSError(errno.ENOSPC, 'No space left on device', '/tmp/x.png')", 5, "/tmp/x.png: No space"),
    "a host that is not found": ("raise OSError(-2, 'Name or service not known')", 1, "not known"),
    "a missing module": ("import starrynight.nothing", 4, "starrynight.nothing"),
}  # fmt: skip


def starry(
    home: Path | str, *words: str, script: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script or "from starrynight.cli import main; main()", *words]
    environment = os.environ | {"STARRY_HOME": str(home), "STARRY_LANG": "en", "PYTHONPATH": str(ROOT)} | env
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unexpected_error_is_one_sentence_and_its_traceback_a_file(tmp_path: Path, fault: str) -> None:
    code, exit_code, word = FAULTS[fault]
    done = starry(tmp_path, "boom", script=BOOM.replace("{code}", code))
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.startswith("✗ ")
    assert done.stderr.count("\n") == 1
    assert word in done.stderr
    assert "\x1b" not in done.stderr
    log = tmp_path / "cache" / "last-error.txt"
    assert str(log) in done.stderr
    assert "Traceback" in log.read_text("utf-8")
    assert "in boom" in log.read_text("utf-8")


def test_the_traceback_is_printed_where_it_is_asked_for(tmp_path: Path) -> None:
    script = BOOM.replace("{code}", "raise KeyError(1)")
    for words, env in ((["--debug", "boom"], {}), (["boom"], {"STARRY_DEBUG": "1"})):
        shown = starry(tmp_path, *words, script=script, **env)
        assert shown.stderr.startswith("✗ ")
        assert "Traceback" in shown.stderr
    zh = starry(tmp_path, "boom", script=script, STARRY_LANG="zh", STARRY_DEBUG="0")
    assert "详情见" in zh.stderr
    assert "Traceback" not in zh.stderr


@pytest.mark.parametrize(
    "code", ["t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()", "Loud()"]
)
def test_an_error_beside_the_command_is_told_and_does_not_end_it(tmp_path: Path, code: str) -> None:
    done = starry(tmp_path, "boom", script=BOOM.replace("{code}", code))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("! ")
    assert done.stderr.count("\n") == 1


def test_without_a_place_for_the_file_it_says_how_to_see_the_details(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = starry(tmp_path / "file", "boom", script=BOOM.replace("{code}", "raise KeyError(1)"))
    assert done.stderr.count("\n") == 1
    assert "STARRY_DEBUG=1" in done.stderr


@pytest.mark.parametrize("words", [["models"], ["gallery", "search", "x"], ["doctor"]])
def test_a_home_that_is_no_folder_is_one_sentence(words: list[str]) -> None:
    done = starry("~nobody-of-this-name/x", *words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "STARRY_HOME" in done.stderr


WRONG = [
    "gpu",
    "",
    "meta",
    "0",
    "cuda:-1",
    "cuda:x",
    "cuda:",
    "cuda:0:1",
    "cuda:٣",
    "cuda:99999",
    "hpu",
    "cpu,cuda",
]


@pytest.mark.parametrize("name", WRONG)
def test_what_names_no_device_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_device(name)
    assert f"“{name}”" in caught.value.en
    with pytest.raises(BadRequest):
        device.named(name)


def test_a_device_that_is_not_here_is_refused(tmp_path: Path) -> None:
    absent = "cuda:63"
    with pytest.raises(BadRequest, match="cuda:63 on this machine; it has: cpu"):
        device.named(absent)
    with pytest.raises(BadRequest, match="it has: cpu"):
        precision_plan.machine(absent)
    assert device.named("CPU:0") == device.named("cpu")
    refused = starry(tmp_path, "open", "--no-browser", "--device", "gpu")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["paint", "x"], 1),
        (["grid", "x", "--x", "seed=1..2"], 2),  # the plan of the grid comes first
        (["lab", "run", "--quick"], 1),
        (["lab", "advise", "firefly"], 1),
        (["open", "--no-browser", "--port", "0"], 1),
        (["serve", "--no-pages", "--port", "0"], 1),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_every_command_refuses_a_device_that_is_not_here(
    tmp_path: Path, words: list[str], lines: int
) -> None:
    done = starry(tmp_path, *words, "--device", "cuda:63")
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, lines, ""), done.stderr
    assert "There is no cuda:63 on this machine; it has: cpu" in done.stderr
    assert not any((tmp_path / name).exists() for name in ("lab", "grid"))


@pytest.mark.parametrize("content", ["{", "[]", '{"places": 3}'])
def test_a_damaged_list_of_places_or_model_says_how_to_make_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    for path in (tmp_path / "places.json", tmp_path / "models" / "mine.json"):
        path.write_text(content)
    with pytest.raises(Exception, match="starry models places add"):
        places.all_places()
    with pytest.raises(Exception, match="starry models add mine"):
        registry.read("mine")


def test_a_link_to_itself_in_a_place_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "loop.safetensors").symlink_to("loop.safetensors")
    places.add(str(tmp_path / "place"))
    survey = places.survey()
    assert (survey.found, survey.skipped) == ((), (tmp_path / "place" / "loop.safetensors",))
