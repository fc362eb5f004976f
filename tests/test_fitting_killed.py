"""``starry fit``, killed and not stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from starrynight.fitting import fit, measure, table
from starrynight.models import catalogue
from tests import tiny

STARRY = Path(sys.executable).with_name("starry")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_killed_fit_keeps_every_measurement(tmp_path: Path, home: Path) -> None:
    """``tests/test_fitting.py`` goes on from such a table to the end. A turbo model: pictures of four steps."""
    model = catalogue.resolve(str(tiny.save("zimage", tmp_path / "a-turbo")))
    path, out = table.path_of(model), tmp_path / "z.gguf"
    command = [STARRY, "fit", model.path, "--bits", "6", "--pictures", "0", "-o", out]
    environment = {**os.environ, "STARRY_HOME": str(home), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 900
    while (begun := table.stored(path)) is None or not begun.errors:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(tmp_path.glob("z.gguf*"))
    known = table.stored(path)
    assert known is not None
    measured = sum(len(errors) for errors in known.errors.values())
    assert measured >= sum(len(errors) for errors in begun.errors.values())
    left = fit.prepare(model, fit.Goal("bits", 6.0), None, torch.device("cpu")).measurements
    assert left == measure.stages(known.signature) - measured
    assert left > 0
