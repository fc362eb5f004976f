"""Events of a page that arrive while earlier ones are still worked on, and a page that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import OPEN, Visitor, served
from playwright.sync_api import Browser, expect

from starrynight.web.shared import words

PRESSES = 12
# ms between a slider's key and the press; Streamlit sends the slider's value after 200.
LATER = (120, 160, 200, 240)
# Streamlit looks through a session's widgets at the start of every run. Here it takes its time, as on a busy machine.
SLOW = f"""
import time
from streamlit.runtime.state.session_state import WStates

def slowly(self):
    for key in self.states:
        time.sleep(0.003)
        yield key

WStates.__iter__ = slowly
{OPEN}
"""
FAILING = f"""
from starrynight.web import lines

def requests(fields):
    raise ZeroDivisionError("of this test")

lines.requests = requests
{OPEN}
"""


def test_no_press_is_lost_to_an_event_just_before_it(browser: Browser, tmp_path: Path) -> None:
    """Two threads of one visitor broke each other here: 9 of 12 presses left an empty page (fastReruns, .streamlit/config.toml)."""
    with served(tmp_path, SLOW) as address:
        visitor = Visitor(browser, address)
        page = visitor.go()
        page.set_default_timeout(60_000)
        page.get_by_label("想画什么").fill("星夜下的静谧村庄")
        expect(page.get_by_role("button", name="作画")).to_be_enabled()
        for at in range(PRESSES):
            before = page.url
            page.get_by_role("slider", name="步数").press("ArrowLeft" if at % 2 else "ArrowRight")
            page.wait_for_timeout(LATER[at % len(LATER)])
            page.get_by_role("button", name="作画").click()
            page.wait_for_function("before => location.href !== before", arg=before, timeout=60_000)
            for job in page.request.get(f"{address}/api/jobs").json()["jobs"]:
                page.request.post(f"{address}/api/jobs/{job['id']}/cancel")
        visitor.leave()


BROKEN = f"""
from starrynight.web.views import lab

def show():
    raise ZeroDivisionError("of this page")

lab.show = show
{OPEN}
"""


def test_a_page_that_fails_is_one_sentence_below_the_masthead(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, BROKEN) as address:
        visitor = Visitor(browser, address)
        page = visitor.go("?room=lab")
        expect(page.get_by_text(words("zh")["failed"])).to_be_visible()
        page.locator("nav a[data-page=gallery]").click()
        expect(page.locator(".wall")).to_be_visible()
        log = (tmp_path / "server.log").read_text("utf-8")
        assert log.count("ZeroDivisionError: of this page") == 1
        visitor.leave()


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_press_that_fails_is_one_sentence_and_the_log_has_the_reason(
    browser: Browser, tmp_path: Path, lang: str
) -> None:
    with served(tmp_path, FAILING) as address:
        visitor = Visitor(browser, address, locale="zh-CN" if lang == "zh" else "en-GB")
        page = visitor.go()
        said = words(lang)
        for _ in range(2):
            page.get_by_role("button", name=said["act.paint"]).click()
            expect(page.get_by_text(said["failed"])).to_be_visible()
            page.reload()
        expect(page.get_by_role("button", name=said["act.paint"])).to_be_visible()
        log = (tmp_path / "server.log").read_text("utf-8")
        assert log.count("ZeroDivisionError: of this test") == 1  # one of a kind a minute
        visitor.leave()
