"""Ranges by layer: overflowing layers are named, their folded peaks are given, and the plot is valid SVG."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import tiny
from test_numerics_fold import Model, traced

from starrynight.numerics.ranges import LIMITS, LayerRange, layer_ranges, overflowing_layers, range_plot


def test_overflowing_layers_are_named_and_folding_brings_them_into_range() -> None:
    found = {(layer.component, layer.name): layer for layer in layer_ranges(traced(Model(up=20, down=-10)))}
    overflowing = {name for _, name in found if name and found["block", name].headroom_bits("float16") < 0}
    assert overflowing == {"up"}
    # The block itself (name "") computes the gated product.
    assert {layer.name for layer in overflowing_layers(list(found.values()))} == {"up", ""}
    assert found["block", "up"].headroom_bits("bfloat16") > 100
    assert all(layer.folded <= 15 for layer in found.values())
    assert found["block", "gate"].folded == found["block", "gate"].peak
    fields = found["block", "up"].to_dict()
    assert fields["spare"]["float16"] == round(LIMITS["float16"] - found["block", "up"].peak, 2)


def test_the_plot_is_well_formed_for_any_names() -> None:
    hostile = LayerRange("<script>", "a&b\"'", "mm", 20.0, -3.0, 14.0)
    calm = LayerRange("vae", "decoder", "add", 4.0, float("inf"), 4.0)
    picture = range_plot([hostile, calm] * 40, "星夜 <b>", "1 & 2", ("gold", "red", "cap"))
    root = ElementTree.fromstring(picture)
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 80
    assert titles[0] == "<script>.a&b\"': 2^20.0, -4.0 bits, mm"
    assert "script" not in {element.tag.split("}")[1] for element in root.iter()}
    written = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"gold", "red", "cap", "星夜 <b>", "1 & 2"} <= written, "the legend is drawn"
    ElementTree.fromstring(range_plot([], "nothing", "ran", ()))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``starry ranges`` of a tiny model with options and variables; what was measured once is known the next time."""
    folder = tmp_path_factory.mktemp("ranges")
    model = tiny.save("zimage", folder / "mine [red]")
    starry = Path(sys.executable).with_name("starry")

    def run(*options: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "STARRY_HOME": str(folder), "OMP_NUM_THREADS": "1", **variables}
        return subprocess.run([starry, "ranges", model, *options], env=environment, capture_output=True, text=True)  # fmt: skip

    return run


def test_the_command_says_its_conclusion_first_and_its_progress_in_a_pipe(command: Any) -> None:
    done = command(STARRY_LANG="en")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert "float16" in first
    assert "headroom" in first
    assert done.stderr.startswith("measuring mine [red]: ")


def test_the_command_writes_the_plot(command: Any, tmp_path: Path) -> None:
    out = tmp_path / "ranges.svg"
    shown = {"FORCE_COLOR": "1", "COLUMNS": "200"}  # so that the bar shows
    done = command("--json", "-o", out, STARRY_LANG="zh", **shown)
    assert done.returncode == 0, done.stderr
    assert "mine [red]" in done.stderr, "a name is not markup"
    payload = json.loads(done.stdout)
    assert {layer["component"] for layer in payload["layers"]} == {"text_encoder", "transformer", "vae"}
    assert "每一层的数值范围" in out.read_text("utf-8")
    wrong = command("-o", "x.png")
    assert wrong.returncode == 2
    assert "x.svg" in wrong.stderr
    nowhere = out / "ranges.svg"
    wrong = command("-o", nowhere, STARRY_LANG="zh")
    assert wrong.returncode == 5
    assert f"✗ 无法写入 {nowhere}：已经存在。请换一个路径。\n" == wrong.stderr, (
        "reported before anything is measured"
    )
