"""A small lab run, started, watched and stopped from its page in a real browser."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from browser import Visitor, served
from playwright.sync_api import Browser, expect

from starrynight.lab import background, table
from starrynight.lab.plan import ExperimentPlan
from starrynight.lab.run import ExperimentRun

TIMEOUT = 240_000  # ms
expect.set_options(timeout=TIMEOUT)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentRun:
    """A run without results yet: many measurements, but only seconds of work."""
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plan = ExperimentPlan(
        models=("firefly",), formats=("bfloat16",), prompts=10, seeds=10, counted=1,
        size=128, steps=1, claims=("C3", "C5", "C19")
    )  # fmt: skip
    return ExperimentRun.create(tmp_path / "lab" / "small", plan)


def test_a_run_is_started_watched_and_stopped_from_its_page(
    browser: Browser, small: ExperimentRun, tmp_path: Path
) -> None:
    with served(tmp_path) as address:
        visitor = Visitor(browser, address)
        page = visitor.go("?room=lab&run=small")
        bar = page.get_by_role("progressbar")
        expect(bar).to_have_attribute("aria-valuenow", "0")
        page.get_by_role("button", name="接着做").click()
        expect(page.get_by_role("button", name="停下")).to_be_visible()
        expect(bar).not_to_have_attribute("aria-valuenow", "0")
        page.get_by_role("button", name="停下").click()
        expect(page.get_by_role("button", name="接着做")).to_be_visible()
        visitor.leave()
    stopped = ExperimentRun.open(small.folder)
    done = table.progress(stopped).done
    assert 0 < done < table.progress(stopped).total
    assert not stopped.is_busy()
    assert not background.stop_requested(small.folder)
    time.sleep(1)
    assert table.progress(ExperimentRun.open(small.folder)).done == done  # no process is still measuring
    assert os.access(small.folder.parent / "small.log", os.R_OK)


def test_a_run_is_busy_while_it_is_measured(small: ExperimentRun) -> None:
    assert not small.is_busy()
    with small.measuring():
        assert ExperimentRun.open(small.folder).is_busy()
    assert not small.is_busy()
