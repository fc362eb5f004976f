"""A small lab run of the real Firefly: killed ten times and resumed, its verdicts, and its report in a real browser."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from safetensors.torch import load_file, save_file

from starrynight.errors import BadRequest, UnknownName
from starrynight.lab import advice, plan, report, table
from starrynight.lab.experiments import EXPERIMENTS, points
from starrynight.lab.findings import REFUTED, Rows
from starrynight.lab.plan import ExperimentPlan, Point
from starrynight.lab.run import RESULTS, ExperimentRun, number, read_rows
from starrynight.lab.runner import progress

SMALL: dict[str, Any] = {
    "weight_formats": 1,
    "formats": ("float32", "float16", "bfloat16"), "prompts": 2, "seeds": 1, "size": 128, "steps": 2,
    "noise_steps": 2, "repeats": 1, "training_steps": 1, "counted": 1,
}  # fmt: skip
KILLS = 10

# Imports once what every runner needs, then forks one for each line: a new process without eight seconds of imports.
FORKER = """
import os, sys, traceback
import torch
torch.set_num_threads(1)
import flip_evaluator, peft, skimage.color, skimage.metrics, scipy.stats
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import PreTrainedTokenizerFast, Qwen3Model
from pathlib import Path
from starrynight.lab import runner
from starrynight.lab.run import ExperimentRun
import starrynight.painting.painter
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            runner.measure(ExperimentRun.open(Path(line.strip())), "cpu")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runners:
    """Starts one runner process per folder; the test kills them."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, folder: Path) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        return int(self._line())

    def ended(self) -> int:
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the runner's process is gone"
        return line


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runners]:
    os.environ["STARRY_HOME"], before = str(tmp_path_factory.mktemp("home")), os.environ.get("STARRY_HOME")
    started = Runners()
    yield started
    started.process.kill()
    started.process.wait()
    if before is None:
        del os.environ["STARRY_HOME"]
    else:
        os.environ["STARRY_HOME"] = before


@pytest.fixture(scope="module")
def killed(runners: Runners, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentRun, list[bytes]]:
    """A finished run, and its results file at each of ten kills."""
    folder = tmp_path_factory.mktemp("lab") / "home" / "killed"
    ExperimentRun.create(folder, ExperimentPlan(models=("firefly",), **SMALL))
    draw, seen = random.Random(4), []
    while len(seen) < KILLS:
        child = runners.start(folder)
        wanted = _lines(folder) + draw.randint(0, 6)
        while _lines(folder) < wanted and _alive(child):
            time.sleep(0.01)
        time.sleep(draw.random() * 0.2)  # somewhere in the next measurement, or while a model is loading
        os.kill(child, signal.SIGKILL)
        assert runners.ended() == -signal.SIGKILL
        seen.append(_results(folder))
    runners.start(folder)
    assert runners.ended() == 0
    return ExperimentRun.open(folder), seen


def _results(folder: Path) -> bytes:
    return (folder / RESULTS).read_bytes() if (folder / RESULTS).is_file() else b""


def _lines(folder: Path) -> int:
    return _results(folder).count(b"\n")


def _alive(child: int) -> bool:
    return Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_run_killed_ten_times_loses_and_repeats_no_measurement(
    killed: tuple[ExperimentRun, list[bytes]],
) -> None:
    run, seen = killed
    rows = read_rows(run.folder / RESULTS)
    kept = [
        row["key"] for row in rows if "busy" not in row["result"]
    ]  # a timing that was not kept is taken again
    assert len(kept) == len(set(kept))
    keys = [row["key"] for row in rows]
    assert set(keys) == {point.key for point in points(run.plan)}
    final = _results(run.folder)
    for results in seen:
        whole = results[: results.rfind(b"\n") + 1]
        assert final.startswith(whole)  # every row stays as it was written
    assert len({len(results) for results in seen}) > 3  # the kills came at different points
    assert not (run.folder / "raw").exists()
    assert progress(run).done == progress(run).total


def test_half_a_line_is_removed_and_its_point_measured_again(tmp_path: Path) -> None:
    run = ExperimentRun.create(tmp_path / "run", ExperimentPlan(models=("firefly",), **SMALL))
    with run.measuring():
        run.add(Point("facts", "", ""), {"a": float("inf")}, 1.0, 1.0, 0.0)
    with (run.folder / RESULTS).open("ab") as file:
        file.write('{"key": "products||", "result": {"题'.encode()[:-1])
    again = ExperimentRun.open(run.folder)
    assert list(again.rows) == ["facts||"]
    with again.measuring():
        again.add(Point("products", "", ""), {}, 1.0, 1.0, 0.0)
    assert [row["key"] for row in read_rows(run.folder / RESULTS)] == ["facts||", "products||"]
    assert number(again.rows["facts||"]["result"]["a"]) == float("inf")


def test_only_one_process_measures_a_run(tmp_path: Path) -> None:
    run = ExperimentRun.create(tmp_path / "run", ExperimentPlan(models=("firefly",), **SMALL))
    with (
        run.measuring(),
        pytest.raises(BadRequest, match="Another process"),
        ExperimentRun.open(run.folder).measuring(),
    ):
        pass


def test_a_plan_can_grow_but_size_and_steps_cannot_change(tmp_path: Path) -> None:
    run = ExperimentRun.create(tmp_path / "run", ExperimentPlan(models=("firefly",), **SMALL))
    before = {point.key for point in points(run.plan)}
    grown = ExperimentRun.create(
        run.folder, ExperimentPlan(models=("firefly",), **(SMALL | {"seeds": 2, "formats": ("float8",)}))
    )
    assert before < {point.key for point in points(grown.plan)}
    assert grown.plan.formats == ("float32", "float16", "bfloat16", "float8")
    with pytest.raises(BadRequest, match="size"):
        ExperimentRun.create(run.folder, ExperimentPlan(**(SMALL | {"size": 256})))
    with pytest.raises(UnknownName):
        ExperimentPlan(formats=("float12",))


def test_a_run_that_is_started_again_keeps_its_plan_but_for_the_changes(tmp_path: Path) -> None:
    first = ExperimentRun.start(tmp_path / "run", {"seeds": 2, "claims": ("C5",), "size": 64})
    assert first.plan == ExperimentPlan(seeds=2, claims=("C5",), size=64)
    again = ExperimentRun.start(first.folder, {"seeds": 3})
    assert again.plan == ExperimentPlan(seeds=3, claims=("C5",), size=64)
    small = ExperimentRun.start(tmp_path / "small", {"models": ("firefly",)}, small=True)
    assert small.plan == plan.quick(models=("firefly",))
    assert (small.plan.size, plan.quick(models=("sdxl",)).size) == (256, None)
    grown = ExperimentRun.start(first.folder, {}, small=True)  # keeps the size that its pictures have
    assert grown.plan.size == 64


def test_a_plan_adds_pictures_for_the_nan_rate_and_limits_experiments_to_its_claims() -> None:
    every = ExperimentPlan(
        models=("firefly", plan.WIDE), formats=("float16", "float8"), prompts=2, seeds=2, counted=7
    )
    counted = [p for p in points(every) if p.experiment == "refusals" and p.model == "firefly"]
    tried = {f: {(p.prompt, p.seed) for p in counted if p.format == f} for f in every.formats}
    assert tried["float32"] == {(0, 0), (1, 0), (0, 1), (1, 1)}
    assert tried["float16"] == tried["float32"] | {
        (0, 2),
        (1, 2),
        (0, 3),
    }  # the compared pictures first, then more
    assert tried["float8"] == {(0, 0)}
    assert {(p.prompt, p.seed) for p in points(every) if p.experiment == "colour"} == tried["float32"]
    asked = ExperimentPlan(claims=("C9", "C5"), counted=7, seeds=1)
    assert asked.claims == ("C5", "C9")
    assert {p.experiment for p in points(asked)} == {"refusals"}
    assert asked.grown(ExperimentPlan(claims=("C3",), seeds=1)).claims == ("C3", "C5", "C9")
    assert asked.grown(ExperimentPlan(seeds=1)).claims == ()  # everything
    with pytest.raises(UnknownName, match="C99"):
        ExperimentPlan(claims=("C99",))


def test_every_claim_has_a_verdict_with_numbers(killed: tuple[ExperimentRun, list[bytes]]) -> None:
    rows = table.table(killed[0])
    assert [row["id"] for row in rows] == [*(f"C{n}" for n in range(1, 21)), "X1", "X2", "X3", "X4"]
    for row in rows:
        figures = [text for by_format in row["figures"].values() for text in by_format.values()]
        assert figures or "Too busy to tell" in row["why"]["en"], row["id"]
        assert all(any(c.isdigit() for c in text) for text in figures), row
        assert row["why"]["en"] != row["why"]["zh"]
        assert row["id"] == "X2" or any(c.isdigit() for c in row["gist"]["en"]), row  # the answer in one line
        assert not any(mark in str(row["figures"]) for mark in ("nan", "None")), row


def test_three_fraction_bits_are_about_18_decibels(killed: tuple[ExperimentRun, list[bytes]]) -> None:
    """A check of the whole chain: float16 has three fraction bits more, so it is nearer to float32 in every picture."""
    rows = Rows(killed[0])
    float16, bfloat16 = rows.pairs("likeness", "psnr", "firefly", "float16", "bfloat16")
    assert len(float16) == 2
    assert all(12 < h - b < 24 for h, b in zip(float16, bfloat16, strict=True))
    born = {f: rows.result("layers", "firefly", f)["layers"] for f in ("float16", "bfloat16")}
    gaps = [
        number(b["born"]) - number(h["born"]) for h, b in zip(born["float16"], born["bfloat16"], strict=True)
    ]
    middle = sorted(gap for gap in gaps if gap == gap)[len(gaps) // 2]
    assert 15 < middle < 21


def test_float16_and_bfloat16_take_the_same_bytes(killed: tuple[ExperimentRun, list[bytes]]) -> None:
    float16, bfloat16, float32 = (
        Rows(killed[0]).result("memory", "firefly", f) for f in ("float16", "bfloat16", "float32")
    )
    assert float16["one"] == bfloat16["one"] > 0
    assert float16["phases"] == bfloat16["phases"]
    assert float16["weights"] == bfloat16["weights"]
    assert 1.6 < float32["one"] / float16["one"] <= 2
    assert next(r for r in table.table(killed[0]) if r["id"] == "C11")["outcome"] == REFUTED


def test_loss_scaling_restores_gradients(killed: tuple[ExperimentRun, list[bytes]]) -> None:
    found = Rows(killed[0]).result("training", "firefly", "float16")
    assert number(found["scaled"]["flushed"][0]) <= number(found["plain"]["flushed"][0])
    assert number(found["scaled"]["error"][0]) < -30
    exact = Rows(killed[0]).result("training", "firefly", "float32")
    assert number(exact["plain"]["error"][0]) == -float("inf")  # float32 against itself


def test_the_memory_counter_gives_the_peak_computed_by_hand() -> None:
    """x [64, 256] → Linear 256→1024 → ReLU → Linear 1024→256. At the peak, inside ReLU, x and two hidden tensors are live:
    (256 + 2 · 1024) · 64 numbers.
    """
    import torch
    from torch import nn

    from starrynight.lab.instruments import MemoryCounter

    found = {}
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        network = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256)).to(dtype)
        x = torch.ones(64, 256, dtype=dtype)
        counter = MemoryCounter(network.parameters())
        with torch.no_grad(), counter, counter.phases({"relu": [network[1]], "last": [network[2]]}):
            network(x)
        size = x.element_size()
        assert counter.peak == counter.peaks["relu"] == (256 + 2 * 1024) * 64 * size
        # The first hidden tensor is freed by then: x, the second one and the result are live.
        assert counter.peaks["last"] == (256 + 1024 + 256) * 64 * size
        found[dtype] = counter.peak
    assert found[torch.float16] == found[torch.bfloat16] == found[torch.float32] // 2


def test_probed_formats_match_torch_finfo() -> None:
    import torch

    found = EXPERIMENTS["facts"].measure(None, Point("facts", "", ""))  # type: ignore[arg-type]  # needs no bench
    for name, facts in found.items():
        truth = torch.finfo(getattr(torch, name))
        assert facts["largest"] == truth.max
        assert facts["normal"] == truth.tiny
        assert 2.0 ** -facts["bits"][2] == truth.eps
        assert sum(facts["bits"]) == truth.bits
    assert found["float16"]["holds"] == {"100000": False, "1e-05": True, "1e+38": False, "1e-38": False}


def test_the_registry_covers_every_claim_once() -> None:
    ids = [claim for one in EXPERIMENTS.values() for claim in one.claims]
    assert sorted(ids) == sorted({*(f"C{n}" for n in range(1, 21)), "X1", "X2", "X3", "X4"})
    for name, one in EXPERIMENTS.items():
        assert one.name == name
        assert one.per in ("machine", "model", "format", "picture", "attempt")
        assert isinstance(one.reference, bool)
        assert isinstance(one.twin, bool)
        assert all(one.question)


# -- the report ------------------------------------------------------------------------------------------------------


def opened(browser: Any, page: Path, width: int = 1280) -> tuple[Any, list[str]]:
    """An opened page, and its problems: console errors, exceptions, requests to anything but itself."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, locale="zh-CN")
    wrong: list[str] = []
    tab.on(
        "console",
        lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None,
    )
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda r: wrong.append(r.url) if r.url.split(":")[0] not in ("file", "data") else None)
    tab.on(
        "request",
        lambda r: wrong.append(r.url) if r.url.startswith("file:") and r.url != page.as_uri() else None,
    )
    tab.goto(page.as_uri())
    return tab, wrong


def test_the_report_in_a_real_browser(killed: tuple[ExperimentRun, list[bytes]], browser: Any) -> None:
    page = report.latest(killed[0])
    assert page.stat().st_size < 5_000_000
    tab, wrong = opened(browser, page)
    assert tab.locator("details.claim").count() == 24
    assert tab.locator("h1 span:visible").inner_text().startswith("每一种")
    tab.get_by_role("button", name="English").click()
    assert tab.locator("h1 span:visible").inner_text().startswith("What every")
    assert tab.locator("#C11 .verdict span:visible").inner_text() == "not reproduced"
    assert not tab.locator("#C11 .inside").is_visible()
    tab.locator("#C11 summary").click()
    assert tab.locator("#C11 .inside").is_visible()

    def edge() -> str:
        return tab.evaluate("getComputedStyle(document.querySelector('.stage .over')).clipPath")

    tab.locator(".stage").scroll_into_view_if_needed()
    before, box = edge(), tab.locator(".stage").bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 80)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 90, steps=4)
    tab.mouse.up()
    assert edge() != before
    assert 10 < float(tab.locator(".stage input").input_value()) < 30
    tab.locator(".stage input").press("ArrowRight")  # the divider works without a mouse
    for view in ("Difference", "Flicker", "Error map", "Divider"):
        tab.get_by_role("button", name=view, exact=True).click()
        assert tab.locator(".stage .under").evaluate("i => i.complete && i.naturalWidth > 0")
    assert tab.locator("figure svg").count() >= 6
    assert wrong == []


def test_the_report_on_a_phone_does_not_overflow(
    killed: tuple[ExperimentRun, list[bytes]], browser: Any
) -> None:
    tab, wrong = opened(browser, report.latest(killed[0]), width=390)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert wrong == []


def test_the_report_is_rebuilt_from_raw_results_alone(
    killed: tuple[ExperimentRun, list[bytes]], tmp_path: Path
) -> None:
    run = killed[0]
    report.write(run)
    before = {name: (run.folder / name).read_bytes() for name in ("report.html", "report.md", "report.json")}
    for name in before:
        (run.folder / name).unlink()
    command = [
        sys.executable,
        "-c",
        "from starrynight.cli import main; main()",
        "lab",
        "report",
        str(run.folder),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "report.html" in finished.stdout
    assert {name: (run.folder / name).read_bytes() for name in before} == before
    data = json.loads(before["report.json"])
    assert len(data["rows"]) == len(run.rows)
    assert before["report.md"].decode().count("\n| C") == 40  # twenty claims in two languages


def test_hostile_text_is_escaped(
    killed: tuple[ExperimentRun, list[bytes]], browser: Any, tmp_path: Path
) -> None:
    """A model's folder may have any name."""
    hostile = "</script><img src=x onerror=document.title='x'>"
    run = ExperimentRun.create(tmp_path / "run", ExperimentPlan(models=(hostile,), **SMALL))
    for row in killed[0].rows.values():
        point = Point(
            row["experiment"], hostile if row["model"] else "", row["format"], row["prompt"], row["seed"]
        )
        run.add(point, row["result"], 1.0, 1.0, 0.0)
    tab, wrong = opened(browser, report.latest(run))
    assert tab.title() == "精度实验室 · The precision lab"
    assert tab.locator("details.claim").count() == 24
    assert wrong == []


def test_advice_contains_numbers(
    killed: tuple[ExperimentRun, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "home", lambda: killed[0].folder.parent)
    en, zh = advice.advise("firefly", "cpu")
    assert "Firefly" in en
    assert "MB" in en
    assert "bfloat16: 0 of 2 pictures broke (95 %: below 78 in 100), ΔE 0." in en
    assert f"({killed[0].folder.name}) against float32" in en
    assert "萤火" in zh
    monkeypatch.setattr(table, "home", lambda: killed[0].folder / "nowhere")
    assert "not been measured" in advice.advise("firefly", "cpu")[0]


# -- a model whose pictures break ---------------------------------------------------------------------------------------


def test_a_broken_model_still_gets_a_report(runners: Runners, browser: Any, tmp_path: Path) -> None:
    model = tiny.save("zimage", tmp_path / "broken")
    weights = next((model / "transformer").glob("*.safetensors"))
    tensors = load_file(weights)
    tensors["layers.0.feed_forward.w2.weight"].fill_(float("nan"))
    save_file(tensors, weights, metadata={"format": "pt"})
    run = ExperimentRun.create(
        tmp_path / "run", ExperimentPlan(models=(str(model),), **(SMALL | {"size": 64, "prompts": 1}))
    )
    runners.start(run.folder)
    assert runners.ended() == 0
    run = ExperimentRun.open(run.folder)
    shown = table.pictures(run)
    assert len(shown) == 3
    assert all(picture["refused"] and picture["path"] is None for picture in shown)
    black = next(row for row in table.table(run) if row["id"] == "C5")
    assert black["figures"][str(model)]["float32"].startswith("1/1: 100 %")
    tab, wrong = opened(browser, report.latest(run))
    tab.get_by_role("button", name="English").click()
    assert "NaN" in tab.locator(".refusal").inner_text()
    assert wrong == []


def test_the_quick_plan_runs_every_experiment() -> None:
    small = plan.quick()
    assert {point.experiment for point in points(small)} == set(EXPERIMENTS)
    assert set(small.models) == {"firefly", plan.WIDE}


def test_an_unreadable_run_does_not_hide_the_others(tmp_path: Path) -> None:
    for name, text in (
        ("2026-good", ExperimentPlan(prompts=1, seeds=1).to_json()),
        ("2026-torn", '{"models": ['),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text(text, "utf-8")
    assert [known.folder.name for known in table.runs(tmp_path)] == ["2026-good"]
