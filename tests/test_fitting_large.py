"""``starry fit`` on a model as large as they come: planned from headers alone; and a run that is killed, not stopped."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights

from starrynight.fitting import fit, measure, table
from starrynight.models import catalogue
from tests import tiny

STARRY = Path(sys.executable).with_name("starry")
# Bytes of a plan beside what was there before: the layout's row numbers, not the 12.3 GB of the weights.
PLAN = 1_000_000_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def full_size(folder: Path) -> Path:
    """A tiny pipeline whose transformer is of Z-Image's published size: a true header, and a file of holes behind it."""
    from diffusers import ZImageTransformer2DModel

    tiny.save("zimage", folder)
    with init_empty_weights():
        network = ZImageTransformer2DModel()
    for file in (folder / "transformer").iterdir():
        file.unlink()
    network.save_config(folder / "transformer")
    header, end = {}, 0
    for name, tensor in network.state_dict().items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "transformer" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def test_six_billion_weights_are_planned_without_reading_them(tmp_path: Path) -> None:
    model = catalogue.resolve(str(full_size(tmp_path / "whole")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepared = fit.prepare(model, fit.goal(None, None, "8GB"), None, torch.device("cpu"))
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < PLAN
    layers = prepared.layout.signature
    assert sum(rows * columns for rows, columns in layers.values()) == pytest.approx(6.15e9, rel=0.01)
    assert prepared.layout.makers
    assert prepared.measurements == 2 * len(layers)
    # a measurement is three passes of a small picture: no machine that this runs on takes less than a second or more than a day
    assert prepared.measurements < prepared.seconds < prepared.measurements * 86_400
    for words in (f"{len(layers)} layers", f"{prepared.measurements} measurements, about "):
        assert words in prepared.message.en
    assert f"需测量 {prepared.measurements} 次，在本机约需" in prepared.message.zh
    assert fit.passes(model) == measure.CALLS


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
    assert left == len(measure.measurements(known.signature)) - measured
    assert left > 0
