"""A long calibration that is killed goes on: what was watched or painted is not done again, and nothing comes out otherwise."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from safetensors import safe_open

from starrynight.folding import calibrate
from starrynight.folding.cache import calibration_cache
from starrynight.models import catalogue
from starrynight.numerics.solve import solve_folds
from starrynight.progress import ProgressCounter

STARRY = Path(sys.executable).with_name("starry")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> catalogue.LocalModel:
    """Too loud for float16 in one layer. Called turbo, so its usual pictures take 9 steps without guidance, not 50 with it."""
    return catalogue.resolve(
        str(tiny.save("zimage", tmp_path_factory.mktemp("loud") / "loud-turbo", loud=1e4))
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def steps_computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each time that a transformer really computes."""
    from diffusers import ZImageTransformer2DModel

    forward, computed = ZImageTransformer2DModel.forward, []

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        computed.append(1)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(ZImageTransformer2DModel, "forward", counted)
    return computed


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "STARRY_HOME": str(home),
        "STARRY_LANG": "en",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
    }


def answers_of(home: Path) -> int:
    """How far the begun trace is written down: after so many answers of the transformer."""
    for path in home.glob("cache/calibrations/*/trace.json"):
        if (answers := json.loads(path.read_text("utf-8"))["answers"]) is not None:
            return int(answers)
    return 0


def kill_when(command: list[Any], home: Path, ready: Callable[[], bool]) -> None:
    process = subprocess.Popen(command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 600
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_calibration_resumes_and_the_command_then_writes_the_model(
    model: catalogue.LocalModel,
    home: Path,
    tmp_path: Path,
    steps_computed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kill_when([STARRY, "ranges", model.path], home, lambda: answers_of(home) >= 1)
    known = answers_of(home)
    resumed = calibrate.observe(model)
    computed = len(steps_computed)
    with monkeypatch.context() as patch:
        patch.setenv("STARRY_HOME", str(tmp_path / "another"))
        whole = calibrate.observe(model)
    assert computed == len(steps_computed) - computed - known
    assert solve_folds(resumed) == solve_folds(whole)
    assert resumed.sites == whole.sites
    steps_computed.clear()
    assert calibrate.observe(model).to_json() == resumed.to_json()
    assert steps_computed == [], "nothing is watched twice"
    # and the command goes on from there to its end, on a terminal that shows what it does
    out = tmp_path / "folded"
    shown, text = on_a_terminal([STARRY, "fold", model.path, "--to", "float16", "-o", out, "--json"], home)
    for words in ("folding", "ranges measured before", "proving the folds: float16-folded", "writing"):
        assert words in shown, shown[-2000:]
    assert text["certificate"]["finite"] is True
    assert text["float32"] == []
    assert text["plan"]["parameters"]
    assert not out.with_name("folded.partial").exists()
    for name in ("transformer", "text_encoder", "vae"):
        (weights,) = (out / name).glob("*.safetensors")
        with safe_open(weights, "pt") as file:
            assert "starry_fold" in file.metadata()
            assert {str(file.get_tensor(key).dtype) for key in file.keys()} == {"torch.float16"}  # noqa: SIM118
    assert json.loads((out / "starry_fold.json").read_text("utf-8"))["plan"] == text["plan"]


def on_a_terminal(command: list[Any], home: Path) -> tuple[str, Any]:
    """(what was shown on stderr, what was printed as JSON) by a command that ends well."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [str(word) for word in command],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # how a terminal says that nobody writes to it any more
            break
        if not piece:
            break
        shown += piece
    os.close(screen)
    printed, _ = process.communicate()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert process.returncode == 0, text
    return text, json.loads(printed)


def test_pictures_of_an_interrupted_certificate_are_not_painted_again(
    model: catalogue.LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, paint, painted = solve_folds(calibrate.observe(model)), calibrate.paint, []

    def counted(*words: Any) -> Any:
        painted.append(1)
        return paint(*words)

    def stop(done: int, total: int, doing: tuple[str, str]) -> None:
        if done == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(calibrate, "paint", counted)
    total = calibrate.certificate_pictures(model)
    with pytest.raises(KeyboardInterrupt):
        calibrate.certify(model, plan, ProgressCounter(stop, total))
    assert len(painted) == 5
    resumed = calibrate.certify(model, plan, ProgressCounter(None, total))
    assert len(painted) == total
    assert calibrate.certify(model, plan, ProgressCounter(None, total)) == resumed
    assert len(painted) == 2 * total, "a finished proof leaves nothing behind"


def test_a_cache_that_cannot_be_read_or_written_only_costs_time(
    model: catalogue.LocalModel, home: Path, steps_computed: list[int]
) -> None:
    first = calibrate.observe(model)
    once = len(steps_computed)
    for path in home.glob("cache/calibrations/*/trace.json"):
        path.write_text(path.read_text("utf-8")[:-40], "utf-8")
    assert calibrate.observe(model).sites == first.sites
    assert len(steps_computed) == 2 * once
    book = calibration_cache("anything")
    book.folder.parent.mkdir(parents=True, exist_ok=True)
    book.folder.write_text("a file where a folder should be", "utf-8")
    book.store("answer-0", ([],))
    assert book.stored("answer-0") is None
