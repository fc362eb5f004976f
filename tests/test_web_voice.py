"""A prompt that is spoken: a real recording of Chromium's own test tone goes to ears at an address, whose words land in the prompt and
are not painted; without ears the page says where a voice would go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Visitor, chromium, served
from playwright.sync_api import Browser, expect
from served import Elsewhere, ask

expect.set_options(timeout=60_000)
FAKE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
HEARD = "a lighthouse at dusk"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """With a microphone that plays a tone."""
    with chromium(*FAKE) as started:
        yield started


@pytest.fixture(scope="module")
def ears() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server of OpenAI's transcriptions that hears ``HEARD``, and the bodies it got."""
    bodies: list[bytes] = []

    def hear(_: str, body: bytes, __: dict[str, str]) -> tuple[int, bytes]:
        bodies.append(body)
        return 200, json.dumps({"text": HEARD}).encode()

    server = Elsewhere(hear)
    yield f"{server.url}#ears", bodies
    server.close()


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path, ears: tuple[str, list[bytes]]) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setenv("STARRY_EARS", ears[0])
        else:
            patch.delenv("STARRY_EARS", raising=False)
        assert ("STARRY_EARS" in os.environ) is request.param
        with served(tmp_path) as found:
            yield found


@pytest.mark.parametrize("address", [True], indirect=True, ids=["ears"])
def test_what_was_said_lands_in_the_prompt_and_is_not_painted(
    browser: Browser, address: str, ears: tuple[str, list[bytes]]
) -> None:
    visitor = Visitor(browser, address, locale="en-GB", permissions=["microphone"])
    page = visitor.go()
    box = page.get_by_label("What to paint")
    box.fill("a boat,")
    box.blur()
    page.get_by_role("button", name="Speak").click()
    page.get_by_role("button", name="Record").click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop recording").click()
    expect(box).to_have_value(f"a boat, {HEARD}")
    (body,) = ears[1]
    assert b"RIFF" in body
    assert b"WAVE" in body
    assert len(body) > 16000  # half a second at 16 kHz and 16 bits
    assert ask(address, "/api/jobs").json["jobs"] == []
    visitor.leave()


@pytest.mark.parametrize("address", [False], indirect=True, ids=["none"])
def test_without_ears_the_browsers_own_recogniser_is_offered_with_its_price(
    browser: Browser, address: str
) -> None:
    visitor = Visitor(browser, address, locale="zh-CN")
    page = visitor.page
    page.add_init_script("""window.SpeechRecognition = window.webkitSpeechRecognition = class {
      start() { window.language = this.lang; window.local = this.processLocally; setTimeout(() => { this.onresult({ results: [[{ transcript: "海上明月" }]] }); this.onend(); }, 50); }
      stop() {}
      static here = "downloadable";
      static async available({ langs, processLocally }) { return langs[0] === "zh-CN" && processLocally ? this.here : "unavailable"; }
      static async install() { this.here = "available"; return true; }
    };""")  # Chromium without its maker's server hears nothing; what it calls is the real interface
    visitor.go()
    page.get_by_role("button", name="说").last.click()
    expect(page.locator(".voice")).to_contain_text("可能把声音发给浏览器厂商")
    expect(page.locator(".voice")).to_contain_text("STARRY_EARS")
    page.get_by_role("button", name="下载这种语言，让声音留在本机").click()
    expect(page.locator(".voice")).to_contain_text("声音不会离开这里")
    expect(page.locator(".voice")).not_to_contain_text("可能把声音发给浏览器厂商。")
    page.get_by_role("button", name="让浏览器听写").click()
    expect(page.get_by_label("想画什么")).to_have_value("海上明月")
    assert page.evaluate("[window.language, window.local]") == ["zh-CN", True]
    visitor.leave()
