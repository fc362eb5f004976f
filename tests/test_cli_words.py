"""Messages of the terminal: one language at a time, never cut off, and for every usage error what to do instead."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hung import picture

from starrynight.cli import models
from starrynight.errors import HubUnreachable, MissingFile
from starrynight.gallery.store import Gallery
from starrynight.models import catalogue, download
from starrynight.numerics.ranges import LayerRange, float16_summary
from starrynight.painting.styles import styles

# Part of the message for each wrong command line, in English and in Chinese.
WRONG = {
    ("paint", "a", "quiet", "village"): ("quiet village; put", "quiet village；"),
    ("paint",): ("PROMPT is missing", "缺少 PROMPT"),
    ("paint", "x", "--seed", "seven"): ("--seed must be a whole number, not seven", "--seed 应当是整数，而不是 seven"),
    ("paint", "x", "--guidance", "much"): ("--guidance must be a number, not much", "--guidance 应当是数，而不是 much"),
    ("paint", "x", "--seed"): ("--seed needs a value. See starry paint --help", "--seed 后面缺少值。用法见 starry paint --help"),
    ("paint", "-n"): ("-n needs a value", "-n 后面缺少值"),
    ("paint", "-q"): ("no option -q.", "没有选项 -q。"),
    ("models", "pull", "a", "b"): ("Unexpected arguments: b; put", "多出了几个词：b；"),
    ("lab", "rnu"): ("no command “rnu”; did you mean run? See starry lab --help", "没有命令“rnu”；是不是 run？用法见 starry lab --help"),
    ("lab", "--"): ("Name a command. See starry lab --help", "请写明子命令。用法见 starry lab --help"),
    ("open", "--no-browser=1"): ("--no-browser takes no value", "--no-browser 后面不跟值"),
    ("paint", "x", "--overwrite=3"): ("--overwrite takes no value", "--overwrite 后面不跟值"),
    ("paint", "x", "--stel", "oil"): ("did you mean --size or --steps or --style?", "是不是 --size 或 --steps 或 --style？"),
    ("piant", "x"): ("did you mean paint?", "是不是 paint？"),
    ("星夜",): ("no command “星夜”.", "没有命令“星夜”。"),
    ("gallery", "search", "-n", "0"): ("--limit must be at least 1, not 0", "--limit 应当不小于 1，而不是 0"),
    ("models", "pull"): ("See starry models pull --help", "用法见 starry models pull --help"),
    ("paint", "x", "--size", "9" * 5000): ("is not a size", "不是尺寸"),
    ("paint", "x", "-m", "m" * 300): ("no model called", "没有名为"),
    ("paint", "x", "--lora", "l" * 300): ("no LoRA called", "没有名为"),
    ("paint", "x", "-o", "o" * 300 + ".png"): ("give -o another", "请用 -o 换一个"),
    ("gallery", "export", "-o", "x.zip"): ("so no zip was written", "因此没有写 zip"),
}  # fmt: skip

ASK = """
import sys, json
from starrynight import cli
for words in json.loads(sys.argv[1]):
    sys.argv = ["starry", *words]
    try: cli.main()
    except SystemExit as end: print(f"-- {end.code}", file=sys.stderr, flush=True)
"""


def run_lines(home: Path, lang: str, lines: list[list[str]]) -> list[tuple[str, str]]:
    """(output, exit code) of each command line, all run in one process."""
    environment = {**os.environ, "STARRY_HOME": str(home), "STARRY_LANG": lang, "COLUMNS": "80"}
    command = [sys.executable, "-c", ASK, json.dumps(lines)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home, check=True
    )  # fmt: skip
    return [
        (output, code)
        for output, code in re.findall(r"(.*?)^-- (\w+)\n", done.stdout, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_usage_error_is_one_line_in_one_language_with_exit_code_2(tmp_path: Path, lang: str) -> None:
    results = run_lines(tmp_path, lang, [list(words) for words in WRONG])
    assert len(results) == len(WRONG)
    for (words, (en, zh)), (message, code) in zip(WRONG.items(), results, strict=True):
        assert code == "2", words
        assert message.startswith("✗ ")
        assert message.count("\n") == 1
        assert (zh if lang == "zh" else en) in message, message
        rest = message.replace("starry", "")
        for word in words:
            rest = rest.replace(word.split("=")[0], "")
        assert (
            re.search("[\u4e00-\u9fff]", rest) is None
            if lang == "en"
            else not re.search("[a-z]{4} [a-z]", rest)
        ), message
    assert not list(tmp_path.glob("*.zip"))


HELP_PAGES = [[], ["paint"], ["inspect"], ["models"], ["models", "pull"], ["models", "words"], ["doctor"], ["open"], ["fold"], ["ranges"], ["upscale"], ["lab"],
          ["lab", "run"], ["lab", "report"], ["lab", "list"], ["lab", "advise"], ["gallery"], ["gallery", "search"],
          ["gallery", "verify"], ["gallery", "rebuild"], ["gallery", "import"], ["gallery", "export"], ["gallery", "trash"],
          ["gallery", "trash", "throw"], ["gallery", "trash", "restore"], ["gallery", "trash", "empty"]]  # fmt: skip


def test_help_pages_are_in_the_language_of_the_terminal(tmp_path: Path) -> None:
    for words, (zh, code) in zip(
        HELP_PAGES, run_lines(tmp_path, "zh", [[*words, "--help"] for words in HELP_PAGES]), strict=True
    ):
        assert code == "0"
        assert "用法：starry" in zh
        assert not re.search("Usage|Options|Arguments|Commands|Show this|required|default:|Example", zh), (
            words,
            zh,
        )
        assert "-h" in zh
        assert "…" not in zh.replace("……", ""), f"something is cut at 80 columns: {zh}"
    ((en, _), (bare, code)) = run_lines(tmp_path, "en", [["paint", "-h"], []])
    assert "Usage: starry paint" in en
    assert not [key for key in styles() if key not in en], "the styles are named"
    assert ("Usage: starry" in bare, code) == (True, "0")


def test_a_terminal_whose_encoding_lacks_our_symbols_gets_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    results = run_lines(tmp_path, "en", [["gallery"], ["models"], ["inspect", "x.png"]])
    assert [code for _, code in results] == ["0", "0", "3"]
    assert "0 pictures hang" in results[0][0]


def test_bidirectional_control_characters_are_made_visible(tmp_path: Path) -> None:
    with Gallery(tmp_path / "gallery") as gallery:
        row = gallery.add(picture("sea \u202egnp.exe\u2066"))
        path = gallery.path(row)
    for output, _ in run_lines(tmp_path, "en", [["gallery", "search"], ["inspect", path]]):
        assert "sea \ufffdgnp.exe" in output


def test_the_version_is_printed(tmp_path: Path) -> None:
    ((output, code),) = run_lines(tmp_path, "en", [["--version"]])
    assert re.fullmatch(r"starry \d+\.\d+\S*\n", output)
    assert code == "0"


def test_nothing_is_deleted_if_the_question_is_not_answered(tmp_path: Path) -> None:
    with Gallery(tmp_path / "gallery") as gallery:
        gallery.trash.discard([gallery.add(picture()).id])
    environment = {**os.environ, "STARRY_HOME": str(tmp_path), "STARRY_LANG": "en"}
    command = [sys.executable, "-c", "from starrynight.cli import main; main()", "gallery", "trash", "empty"]
    terminal, end = pty.openpty()
    with subprocess.Popen(
        command, env=environment, stdin=end, stdout=end, stderr=subprocess.PIPE, text=True
    ) as child:
        os.close(end)
        shown = b""
        while b"sure" not in shown and b"?" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, b"\x04")  # Ctrl-D
        message = child.stderr.read()  # type: ignore[union-attr]
    os.close(terminal)
    assert (child.returncode, message.strip()) == (130, "✗ Cancelled.")
    with Gallery(tmp_path / "gallery") as gallery:
        assert len(list(gallery.trash.files.all())) == 1


def test_a_model_that_no_hub_has_is_refused_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    place = tmp_path / "models" / "kook-zimage-turbo.safetensors"
    with pytest.raises(MissingFile) as caught:
        download.pull("kook-zimage-turbo")
    for message in (caught.value.en, caught.value.zh):
        assert str(place) in message
        assert "starry models pull z-image-turbo" in message
    models.table()
    shown = capsys.readouterr().out
    assert str(place) in shown
    for name in catalogue.names():
        assert re.search(rf"^(★ |  ){name} ", shown, re.MULTILINE)

    place.parent.mkdir()
    place.write_bytes(b"as if it were the file")
    assert models.model_state(catalogue.find("kook-zimage-turbo")) == "needs z-image-turbo"
    with pytest.raises(HubUnreachable, match="z-image-turbo"):  # now the base model is downloaded
        download.pull("kook-zimage-turbo", endpoint="http://127.0.0.1:9")


def test_the_summary_of_ranges_names_the_worst_layer_and_the_headroom() -> None:
    calm, loud = LayerRange("vae", "up", "mm", 4.0, 1.0, 4.0), LayerRange("dit", "w2", "mm", 20.0, 1.0, 14.0)
    assert float16_summary([]).zh == "没有任何 16 位计算。"
    assert float16_summary([calm]).en.endswith("the least headroom is 12.0 bits, at vae.up.")
    summary = float16_summary([calm, loud])
    assert (
        "in 1 of 2 layers, by up to 4.0 bits at dit.w2; after folding the headroom is +2.0 bits."
        in summary.en
    )
    assert "2 层中的 1 层溢出，最多超出 4.0 位（dit.w2）；折叠后余量 +2.0 位。" in summary.zh
