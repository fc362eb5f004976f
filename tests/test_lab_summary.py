"""The report answers first: which format to use, what it costs, one pair of pictures, and whose claims are tested."""

from __future__ import annotations

import shutil
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from starrynight.errors import MissingFile
from starrynight.lab import report, table
from starrynight.lab.plan import ExperimentPlan, Point
from starrynight.lab.report import html
from starrynight.lab.run import PLAN, RESULTS, ExperimentRun
from starrynight.lab.summary import SOURCE, TOO_EARLY, summary

FORMATS = ("float32", "float16", "bfloat16")


def measured(
    folder: Path,
    times: dict[str, float] | None,
    psnr: dict[str, float],
    broken: tuple[str, ...] = (),
    emulated: tuple[str, ...] = (),
) -> ExperimentRun:
    """A run with four pictures in each format. ``times``: seconds a picture; None: the machine was too busy."""
    run = ExperimentRun.create(
        folder, ExperimentPlan(models=("firefly",), formats=FORMATS, prompts=2, seeds=2)
    )

    def add(experiment: str, format_: str, result: dict[str, Any], at: tuple[int, int] | None = None) -> None:
        prompt, seed = at or (None, None)
        run.add(Point(experiment, "firefly", format_, prompt, seed), result, 1.0, 1.0, 0.0)

    run.pictures.mkdir(exist_ok=True)
    for format_ in FORMATS:
        for at in ((0, 0), (1, 0), (0, 1), (1, 1)):
            why = ["It broke.", "坏了。"] if format_ in broken else None
            add(
                "refusals",
                format_,
                {"refused": why is not None, "stage": "denoise", "step": 1, "why": why},
                at,
            )
            if why is None:
                Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(run.picture("firefly", format_, *at))
            if format_ in psnr:
                add("likeness", format_, {"psnr": psnr[format_]}, at)
                add("colour", format_, {"mean": 0.4}, at)
    found = {"busy": 0.5}
    if times is not None:
        both = {f: {"wall": [s, s], "cpu": [s, s]} for f, s in times.items()}
        found = {"times": both, "emulated": list(emulated), "device": "cpu"}
    add("speed", "", found)
    return run


PSNR = {"float16": 70.0, "bfloat16": 50.0}


@pytest.mark.parametrize(
    ("times", "broken", "emulated", "use", "cost", "pair"),
    [
        ({"float32": 4, "float16": 2, "bfloat16": 1}, (), (), "Use bfloat16 for Firefly here: no picture broke, and one takes 0.25", "bfloat16: 0 of 4 pictures broke", "bfloat16"),
        # as fast as the other and nearer to float32
        ({"float32": 4, "float16": 2, "bfloat16": 2}, (), (), "Use float16", "70 dB", "float16"),
        ({"float32": 4, "float16": 1, "bfloat16": 2}, ("float16",), (), "Use bfloat16", "50 dB", "bfloat16"),
        ({"float32": 4, "float16": 1, "bfloat16": 6}, (), ("float16",), "Use float32 for Firefly here: nothing faster keeps its numbers (bfloat16 takes 1.5", "float16: 0 of 4", "float16"),
        (None, (), (), "Use float32 for Firefly here: the times of the other formats have not been measured", "float16: 0 of 4", "float16"),
        ({"float32": 4}, ("float16", "bfloat16"), (), "Use float32 for Firefly here: in every other format a picture broke", "float16: all of 4 pictures broke", None),
    ],
)  # fmt: skip
def test_the_answer_follows_the_numbers(
    tmp_path: Path, times: Any, broken: Any, emulated: Any, use: str, cost: str, pair: str | None
) -> None:
    run = measured(tmp_path / "run", times, PSNR, broken, emulated)
    found = summary(run)
    assert found.use.en.startswith(use)
    assert cost in found.cost.en
    assert found.use.zh != found.use.en
    if pair is None:
        assert found.pair is None
    else:
        assert found.pair is not None
        assert [one["format"] for one in found.pair] == ["float32", pair]
        assert (found.pair[0]["prompt"], found.pair[0]["seed"]) == (
            found.pair[1]["prompt"],
            found.pair[1]["seed"],
        )


def test_every_form_of_the_report_answers_before_the_claims(tmp_path: Path) -> None:
    run = measured(tmp_path / "run", {"float32": 4, "float16": 2, "bfloat16": 1}, PSNR)
    found = summary(run)
    page, text = html.page(run), report.markdown(run)
    assert page.index(escape(found.use.en)) < page.index(SOURCE.en[:40]) < page.index('id="C5"')
    assert text.index(found.use.zh) < text.index(found.use.en) < text.index(SOURCE.zh) < text.index("| C5 |")
    assert report.as_data(run)["answer"]["use"] == found.use._asdict()
    assert page.count("<figure><img") == 2


def test_a_run_without_pictures_has_no_answer_yet(tmp_path: Path) -> None:
    run = ExperimentRun.create(tmp_path / "run", ExperimentPlan(models=("firefly",)))
    found = summary(run)
    assert (found.use, found.cost.en, found.pair) == (TOO_EARLY, "", None)
    assert TOO_EARLY.en in html.page(run)


def test_the_example_is_a_finished_run_with_every_file_it_names() -> None:
    run = table.example()
    state = table.summarised(run)
    assert state.done
    assert state.progress.busy == 0
    assert {row["id"] for row in table.table(run)} >= {"X4", *(f"C{n}" for n in range(1, 21))}
    assert all(one["path"] or one["refused"] for one in table.pictures(run))
    found = summary(run)
    assert found.pair is not None
    size = sum(file.stat().st_size for file in run.folder.rglob("*") if file.is_file())
    assert size < 2_000_000


def test_the_example_is_served_and_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starrynight.api import lab

    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    before = sorted(file.name for file in table.example().folder.rglob("*"))
    assert lab.found("example").folder == table.example().folder
    picture = next(one["path"] for one in table.pictures(table.example()) if one["path"])
    assert lab._read(picture)[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(file.name for file in table.example().folder.rglob("*")) == before
    with pytest.raises(MissingFile):
        lab.found("another")
    # a run of one's own with that name is that run
    own = tmp_path / "lab" / "example"
    shutil.copytree(table.example().folder, own)
    assert lab.found("example").folder == own


@pytest.mark.parametrize(
    ("done", "busy", "measuring", "said"),
    [
        (1, 0, False, "stopped at 1 of 2; about 1 min of work left"),
        (1, 0, True, "measuring: 1 of 2; about 1 min of work left"),
        (2, 1, False, "done; the machine was too busy for 1 timing, resume to take them"),
        (2, 0, False, "done"),
        (0, 0, False, "stopped at 0 of 2"),
    ],
)
def test_a_runs_state_is_said(tmp_path: Path, done: int, busy: int, measuring: bool, said: str) -> None:
    run = ExperimentRun.create(tmp_path / "run", ExperimentPlan(models=("firefly",), claims=("C17", "C18")))
    for number, name in enumerate(("facts", "products")[:done]):
        run.add(Point(name, "", ""), {"busy": 0.5} if number < busy else {}, 1.0, 1.0, 0.0)
    if measuring:
        with run.measuring():
            state = table.summarised(ExperimentRun.open(run.folder)).state()
    else:
        state = table.summarised(run).state()
    assert state.en == said
    assert (run.folder / PLAN).is_file()
    assert (run.folder / RESULTS).is_file() == bool(done)


def test_a_report_is_small_enough_to_mail(monkeypatch):
    run = table.example()
    whole = html.page(run)
    assert len(whole.encode()) <= html.BUDGET
    scenes = len(html.comparisons(run, html.BUDGET))
    assert scenes > 1
    monkeypatch.setattr(html, "BUDGET", len(whole.encode()) - 1000)
    smaller = html.page(run)
    assert 0.3 * len(whole) < len(smaller) < len(whole) - 1000
    assert len((Path(__file__).parents[1] / "docs" / "lab-report" / "report.html").read_bytes()) <= 4_800_000
