"""What the terminal says: one language at a time, nothing cut, and for every wrong word what to do instead."""

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

# What each wrong line gets, in English and in Chinese.
WRONG = {
    ("paint", "a", "quiet", "village"): ("quiet village; put", "quiet village；"),
    ("paint",): ("PROMPT is missing", "缺少 PROMPT"),
    ("paint", "x", "--seed", "seven"): ("--seed must be a whole number, not seven", "--seed 应当是整数，而不是 seven"),
    ("paint", "x", "--guidance", "much"): ("--guidance must be a number, not much", "--guidance 应当是数，而不是 much"),
    ("paint", "x", "--seed"): ("--seed needs a value", "--seed 后面缺少值"),
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


def asked(home: Path, lang: str, lines: list[list[str]]) -> list[tuple[str, str]]:
    """(what is said, exit code) for each command line, all in one process."""
    environment = {**os.environ, "STARRY_HOME": str(home), "STARRY_LANG": lang, "COLUMNS": "80"}
    command = [sys.executable, "-c", ASK, json.dumps(lines)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home, check=True
    )  # fmt: skip
    return [
        (said, code) for said, code in re.findall(r"(.*?)^-- (\w+)\n", done.stdout, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_command_line_that_cannot_be_read_gets_one_sentence_of_one_language(
    tmp_path: Path, lang: str
) -> None:
    told = asked(tmp_path, lang, [list(words) for words in WRONG])
    assert len(told) == len(WRONG)
    for (words, (en, zh)), (said, code) in zip(WRONG.items(), told, strict=True):
        assert code == "2", words
        assert said.startswith("✗ ")
        assert said.count("\n") == 1
        assert (zh if lang == "zh" else en) in said, said
        rest = said.replace("starry", "")
        for word in words:
            rest = rest.replace(word.split("=")[0], "")
        assert (
            re.search("[\u4e00-\u9fff]", rest) is None
            if lang == "en"
            else not re.search("[a-z]{4} [a-z]", rest)
        ), said
    assert not list(tmp_path.glob("*.zip"))


HELPED = [[], ["paint"], ["inspect"], ["models"], ["models", "pull"], ["doctor"], ["open"], ["fold"], ["ranges"], ["lab"],
          ["lab", "run"], ["lab", "report"], ["lab", "list"], ["lab", "advise"], ["gallery"], ["gallery", "search"],
          ["gallery", "verify"], ["gallery", "rebuild"], ["gallery", "import"], ["gallery", "export"], ["gallery", "trash"],
          ["gallery", "trash", "throw"], ["gallery", "trash", "restore"], ["gallery", "trash", "empty"]]  # fmt: skip


def test_help_speaks_the_language_of_the_terminal(tmp_path: Path) -> None:
    for words, (zh, code) in zip(
        HELPED, asked(tmp_path, "zh", [[*words, "--help"] for words in HELPED]), strict=True
    ):
        assert code == "0"
        assert "用法：starry" in zh
        assert not re.search("Usage|Options|Arguments|Commands|Show this|required|default:|Example", zh), (
            words,
            zh,
        )
        assert "-h" in zh
        assert "…" not in zh.replace("……", ""), f"something is cut at 80 columns: {zh}"
    ((en, _), (bare, code)) = asked(tmp_path, "en", [["paint", "-h"], []])
    assert "Usage: starry paint" in en
    assert ("Usage: starry" in bare, code) == (True, "0")


def test_a_terminal_without_our_signs_is_no_accident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    told = asked(tmp_path, "en", [["gallery"], ["models"], ["inspect", "x.png"]])
    assert [code for _, code in told] == ["0", "0", "3"]
    assert "0 pictures hang" in told[0][0]


def test_words_that_turn_text_around_are_shown_as_such(tmp_path: Path) -> None:
    with Gallery(tmp_path / "gallery") as gallery:
        row = gallery.hang(picture("sea \u202egnp.exe\u2066"))
        path = gallery.path(row)
    for said, _ in asked(tmp_path, "en", [["gallery", "search"], ["inspect", path]]):
        assert "sea \ufffdgnp.exe" in said


def test_the_version_is_told(tmp_path: Path) -> None:
    ((said, code),) = asked(tmp_path, "en", [["--version"]])
    assert re.fullmatch(r"starry \d+\.\d+\S*\n", said)
    assert code == "0"


def test_a_question_that_is_not_answered_deletes_nothing(tmp_path: Path) -> None:
    with Gallery(tmp_path / "gallery") as gallery:
        gallery.trash.throw([gallery.hang(picture()).id])
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
        said = child.stderr.read()  # type: ignore[union-attr]
    os.close(terminal)
    assert (child.returncode, said.strip()) == (130, "✗ Cancelled.")
    with Gallery(tmp_path / "gallery") as gallery:
        assert len(list(gallery.trash.files.all())) == 1


def test_a_model_that_no_hub_carries_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    place = tmp_path / "models" / "kook-zimage-turbo.safetensors"
    with pytest.raises(MissingFile) as caught:
        download.pull("kook-zimage-turbo")
    for said in (caught.value.en, caught.value.zh):
        assert str(place) in said
        assert "starry models pull z-image-turbo" in said
    models.table()
    shown = capsys.readouterr().out
    assert str(place) in shown
    for name in catalogue.names():
        assert re.search(rf"^(★ |  ){name} ", shown, re.MULTILINE)

    place.parent.mkdir()
    place.write_bytes(b"as if it were the file")
    assert models.model_state(catalogue.resolve("kook-zimage-turbo")) == "needs z-image-turbo"
    with pytest.raises(HubUnreachable, match="z-image-turbo"):  # now its base is what is pulled
        download.pull("kook-zimage-turbo", endpoint="http://127.0.0.1:9")
