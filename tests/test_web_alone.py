"""The pages /see and /listen in a browser: what they show, a recording from microphone to minutes, refusals, axe, their policy."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import CHROMIUM, FLAGS, PHONE, TIMEOUT, Visitor, audited, served
from failing import KEY, WAYS, Broken
from PIL import Image
from playwright.sync_api import Browser, Page
from scipy.io import wavfile
from served import Elsewhere, ask, gallery_in, listening

from starrynight.api import app as api
from starrynight.api.access import Access, AccessMiddleware
from starrynight.firefly.drawing.landscape import render
from starrynight.firefly.drawing.scene import compose
from starrynight.gallery.store import Gallery
from starrynight.jobs.keys import Keys
from starrynight.jobs.queue import Queue
from starrynight.senses import remote
from starrynight.senses.choice import KEY_ENV
from starrynight.serve.alone import FILES, FOLDER, PAGES, StandingAlone
from starrynight.serve.head import PageHead

TONE = 440.0  # Hz
WIDTHS = [("zh-CN", 1440), ("en-GB", 390)]


class Ears(Elsewhere):
    """A recogniser of OpenAI's shape, which keeps the recordings that it got."""

    def __init__(self) -> None:
        self.recordings: list[tuple[int, np.ndarray]] = []
        super().__init__(self._hear)

    def _hear(self, _: str, body: bytes, __: dict[str, str]) -> tuple[int, bytes]:
        self.recordings.append(wavfile.read(io.BytesIO(body[body.index(b"RIFF") :])))
        return 200, json.dumps({"text": "雪夜的村庄。一轮明月！"}).encode()


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ears]:
    made = Ears()
    monkeypatch.setenv("STARRY_EARS", f"{made.url}#ears")
    monkeypatch.delenv(KEY_ENV, raising=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with gallery_in(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(gallery: Gallery) -> Iterator[str]:
    """The API and these pages, without Streamlit's behind them."""
    app = api.create_app(gallery, Queue(gallery), lambda: True)
    access = Access.of("127.0.0.1", None, names=("gallery.test",))
    with listening(AccessMiddleware(PageHead(StandingAlone(app), gallery), access)) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("files")
    drawn = np.asarray(render(compose(11, kind="sunflowers", style="oil", hour="noon"), 160))
    Image.fromarray(drawn).save(found / "sunflowers.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(
        found / "noise.png"
    )
    (found / "broken.png").write_bytes((found / "sunflowers.png").read_bytes()[:200])
    moments = np.arange(48_000 * 20) / 48_000
    wavfile.write(found / "tone.wav", 48_000, (12_000 * np.sin(2 * np.pi * TONE * moments)).astype(np.int16))
    return found


def go(visitor: Visitor, path: str) -> Page:
    visitor.page.goto(f"{visitor.address}{path}")
    visitor.page.locator("h1").wait_for()
    return visitor.page


def findings(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for one in found
        for node in one["nodes"]
    ]


def drop(page: Page, file: Path) -> None:
    """Drop a file onto the box, as from another program."""
    content = list(file.read_bytes())
    page.evaluate(
        """([content, name]) => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(content)], name, { type: "image/png" }));
          for (const kind of ["dragover", "drop"])
            document.querySelector(".drop").dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        [content, file.name],
    )


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("page", PAGES)
def test_what_is_pressed_is_large_enough_and_what_is_read_is_clear(
    browser: Browser, address: str, page: str, lang: str
) -> None:
    for smallest, more in ((24, {}), (44, PHONE)):
        visitor = Visitor(browser, address, **more)
        audited(go(visitor, f"{page}?lang={lang}"), smallest)
        visitor.leave()


@pytest.mark.parametrize(("locale", "width"), WIDTHS)
def test_a_dropped_picture_is_described_in_both_languages(
    browser: Browser, address: str, folder: Path, locale: str, width: int
) -> None:
    visitor = Visitor(browser, address, width=width, locale=locale)
    page = go(visitor, "/see")
    assert findings(page) == []
    drop(page, folder / "sunflowers.png")
    page.locator(".chips li").first.wait_for()
    text = page.locator("main").inner_text()
    assert "向日葵" in page.locator(".caption:lang(zh)").inner_text()
    assert "sunflower" in page.locator(".caption:lang(en)").inner_text().lower()
    assert ("梵高风格" if locale == "zh-CN" else "van gogh style") in text
    assert ("向日葵" if locale == "zh-CN" else "unflower") in (
        page.locator("main img").get_attribute("alt") or ""
    )
    assert page.locator(".chips li").count() >= 2
    assert findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visitor.leave()


def test_a_picture_is_chosen_by_keyboard_and_the_language_changes_everything(
    browser: Browser, address: str, folder: Path
) -> None:
    visitor = Visitor(browser, address, permissions=["clipboard-read", "clipboard-write"])
    page = go(visitor, "/see?lang=en")
    assert page.locator("html").get_attribute("lang") == "en"
    page.on("filechooser", lambda _: None)  # Chromium is asked to hand over choosers before a key opens one
    page.locator(".language").focus()
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(folder / "sunflowers.png")
    page.get_by_role("button", name="Copy as prompt").click()
    page.get_by_text("Copied.").wait_for()
    assert "van gogh" in page.evaluate("navigator.clipboard.readText()")
    page.get_by_role("button", name="用中文阅读").click()
    page.locator(".chips li", has_text="梵高风格").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "画里有什么？"
    assert "lang=zh" in page.url
    visitor.leave()


@pytest.mark.parametrize(
    ("file", "said"), [("noise.png", "看不出这幅画画的是什么"), ("broken.png", "损坏|不完整|无法|截断")]
)
def test_what_cannot_be_seen_is_said(
    browser: Browser, address: str, folder: Path, file: str, said: str
) -> None:
    visitor = Visitor(browser, address)
    page = go(visitor, "/see")
    page.set_input_files("input[type=file]", folder / file)
    page.locator("[aria-busy=false] > :is(.caption, .warn)").wait_for()
    assert re.search(said, page.locator("main").inner_text())
    assert "{" not in page.locator("main").inner_text()
    visitor.problems[:] = [
        one for one in visitor.problems if "422" not in one
    ]  # the browser logs the refusal itself
    visitor.leave()


# The file that the page sends, kept where the test finds it.
KEEP_FILE = """
const append = FormData.prototype.append;
FormData.prototype.append = function (name, value, ...more) {
  if (value instanceof File) window.sent = value;
  return append.call(this, name, value, ...more);
};
"""


def with_microphone(browser: Browser, *flags: str) -> Browser:
    return browser.browser_type.launch(
        executable_path=CHROMIUM, args=[*FLAGS, "--use-fake-device-for-media-stream", *flags]
    )


@pytest.mark.parametrize(("locale", "width"), WIDTHS)
def test_a_voice_is_recorded_written_down_and_becomes_minutes(
    browser: Browser, address: str, folder: Path, ears: Ears, locale: str, width: int
) -> None:
    flags = (
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={folder / 'tone.wav'}%noloop",
    )
    other = with_microphone(browser, *flags)
    visitor = Visitor(other, address, width=width, locale=locale, permissions=["microphone"])
    visitor.page.add_init_script(KEEP_FILE)
    page = go(visitor, "/listen")
    assert findings(page) == []
    chinese = locale == "zh-CN"
    page.get_by_role("button", name="录音" if chinese else "Record", exact=True).click()
    page.locator("[role=timer]", has_text=re.compile("0:(0[2-9]|[1-9])|[1-9]:")).wait_for()
    assert findings(page) == []
    page.get_by_role("button", name="停止" if chinese else "Stop").click()
    page.locator("textarea").wait_for()
    heard_in = len(ears.recordings)  # pieces of half a minute: a busy machine takes long to press stop
    assert page.locator("textarea").input_value() == "雪夜的村庄。一轮明月！" * heard_in
    assert "- 雪夜的村庄。\n- 一轮明月！" in page.locator("pre").inner_text()
    assert findings(page) == []
    sent = page.evaluate("sent.arrayBuffer().then((data) => [...new Uint8Array(data)])")
    rate, recorded = wavfile.read(io.BytesIO(bytes(sent)))
    assert (rate, recorded.dtype, recorded.ndim) == (16_000, np.int16, 1)
    assert len(recorded) > rate
    (heard_rate, heard), *_ = ears.recordings
    loudness = np.abs(np.fft.rfft(heard[:heard_rate].astype(np.float64)))
    assert abs(float(loudness.argmax()) * heard_rate / heard_rate - TONE) <= 2  # bins of 1 Hz
    page.locator("textarea").fill("雪夜的村庄。")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Markdown").click()
    written = Path(saved.value.path()).read_text("utf-8")
    assert written.startswith("# 纪要" if chinese else "# Minutes")
    assert written.endswith("- 雪夜的村庄。\n")
    visitor.leave()
    other.close()


def test_a_recording_is_chosen(browser: Browser, address: str, folder: Path, ears: Ears) -> None:
    visitor = Visitor(browser, address)
    page = go(visitor, "/listen")
    page.set_input_files("input[type=file]", folder / "tone.wav")
    page.locator("textarea").wait_for()
    assert len(ears.recordings) == 1
    visitor.leave()


def test_a_denied_or_a_missing_microphone_is_explained(browser: Browser, address: str, ears: Ears) -> None:
    other = with_microphone(browser, "--deny-permission-prompts")
    for opened, said in ((other, "没有允许使用麦克风"), (browser, "没有允许使用麦克风|没有麦克风")):
        visitor = Visitor(opened, address)
        page = go(visitor, "/listen")
        page.get_by_role("button", name="录音", exact=True).click()
        page.get_by_role("alert").wait_for()
        assert re.search(said, page.get_by_role("alert").inner_text())
        assert page.get_by_role("button", name="录音", exact=True).is_enabled()
        visitor.leave()
    other.close()


def test_on_a_network_without_tls_the_page_says_why_there_is_no_microphone(
    browser: Browser, address: str, ears: Ears
) -> None:
    other = with_microphone(browser, "--host-resolver-rules=MAP gallery.test 127.0.0.1")
    visitor = Visitor(other, address.replace("127.0.0.1", "gallery.test"))
    page = go(visitor, "/listen?lang=en")
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert "https" in page.get_by_role("alert").inner_text()
    assert f"127.0.0.1:{address.rsplit(':', 1)[1]}/listen" in page.get_by_role("alert").inner_text()
    visitor.leave()
    other.close()


# A browser's recogniser; what it calls is the real interface (Web Speech API), which Chromium without its maker's server has only in name.
RECOGNISER = """(state) => {
  window.asked = [];
  window.SpeechRecognition = window.webkitSpeechRecognition = class {
    start() { window.used = { lang: this.lang, local: this.processLocally === true }; setTimeout(() => { this.onresult({ results: [[{ transcript: "海上明月" }]] }); this.onend(); }, 20); }
    stop() {}
  };
  if (state === "old") return;
  SpeechRecognition.available = async (options) => { asked.push(options); return state; };
  SpeechRecognition.install = async () => { if (window.fails) return false; state = "available"; return true; };
}"""
HERE, AWAY = "the voice stays here.", "send the voice to their maker"


@pytest.mark.parametrize("state", ["available", "unavailable", "old"])
def test_the_browsers_recogniser_works_on_the_device_where_it_can_and_the_note_is_true(
    browser: Browser, address: str, state: str
) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    visitor.page.add_init_script(f"({RECOGNISER})({json.dumps(state)})")
    page = go(visitor, "/listen")
    page.locator("select").select_option("yue")
    here = state == "available"
    page.locator(".note" if here else ".warn", has_text=HERE if here else AWAY).wait_for()
    assert (AWAY if here else HERE) not in page.locator("main").inner_text()
    assert page.get_by_role("button", name="Download the language").count() == 0
    page.get_by_role("button", name="Use the browser's recogniser").click()
    page.locator("pre", has_text="on this device" if here else "the browser's recogniser").wait_for()
    assert page.evaluate("used") == {"lang": "yue-Hant-HK", "local": here}
    if state != "old":
        assert page.evaluate("asked.at(-1)") == {"langs": ["yue-Hant-HK"], "processLocally": True}
    visitor.leave()


def test_a_language_is_downloaded_for_the_browser_when_asked(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address, locale="zh-CN")
    visitor.page.add_init_script(f"({RECOGNISER})('downloadable'); window.fails = true")
    page = go(visitor, "/listen")
    assert "多数浏览器会把声音发给浏览器厂商" in page.locator("main").inner_text()
    button = page.get_by_role("button", name="下载这种语言，让声音留在本机")
    button.click()
    page.get_by_role("alert", name=None).filter(has_text="没能下载这种语言").wait_for()
    page.evaluate("window.fails = false")
    button.click()
    page.locator(".note", has_text="声音不会离开这里").wait_for()
    assert button.count() == 0
    assert findings(page) == []
    visitor.leave()


@pytest.fixture(scope="module")
def guarded(gallery: Gallery) -> Iterator[tuple[str, str]]:
    """A service that asks for a key, and one."""
    keys = Keys(gallery.database)
    _, key = keys.make("pages")
    access = Access.of("127.0.0.1", None, keys=keys, require_key=True)
    app = api.create_app(gallery, Queue(gallery), lambda: True)
    with listening(AccessMiddleware(PageHead(StandingAlone(app), gallery), access)) as found:
        yield found, key


def test_a_service_with_keys_is_asked_for_one_that_only_this_tab_keeps(
    browser: Browser, guarded: tuple[str, str], folder: Path, ears: Ears
) -> None:
    address, key = guarded
    visitor = Visitor(browser, address, locale="en-GB")
    page = go(visitor, "/see")
    assert "asks for a key" in page.get_by_role("alert").inner_text()
    assert page.locator(".drop").count() == 0
    assert findings(page) == []
    audited(page, 24)
    page.get_by_label("Key").fill("starry-0011aabb-" + "x" * 43)
    page.get_by_role("button", name="Enter").click()
    page.get_by_role("alert").filter(has_text="There is no such key").wait_for()
    assert page.evaluate("sessionStorage.length") == 0
    page.get_by_label("Key").fill(key)
    page.keyboard.press("Enter")
    page.set_input_files("input[type=file]", folder / "sunflowers.png")
    page.locator(".caption:lang(en)", has_text="unflower").wait_for()
    assert page.get_by_role("button", name="Paint").count() == 0  # the studio takes no keys
    assert page.get_by_role("link", name="Studio").count() == 0
    go(visitor, "/listen")
    page.set_input_files("input[type=file]", folder / "tone.wav")
    page.locator("textarea").wait_for()
    assert len(ears.recordings) == 1
    assert page.evaluate("[sessionStorage.getItem('starry/key'), localStorage.length, document.cookie]") == [
        key,
        0,
        "",
    ]
    assert key not in page.url
    assert page.context.cookies() == []
    visitor.problems[:] = [
        one for one in visitor.problems if "401" not in one
    ]  # the browser logs refusals itself
    visitor.leave()
    other = Visitor(browser, address, locale="zh-CN")
    assert "此服务需要密钥" in go(other, "/listen").get_by_role("alert").inner_text()
    other.problems.clear()
    refused = other.page.goto(f"{address}/")  # what the studio answers to a person
    assert refused is not None
    assert refused.status == 401
    assert "starry open --host" in other.page.locator("body").inner_text()
    assert other.page.get_by_role("link", name="/listen").count() == 1
    other.problems[:] = [one for one in other.problems if "401" not in one]
    other.leave()


def test_only_the_pages_that_hold_nothing_are_open(guarded: tuple[str, str]) -> None:
    address, _ = guarded
    for path in (*PAGES, "/alone/see.js", "/alone/facts.json"):
        assert ask(address, path).status == 200, path
    for path in ("/", "/api/senses", "/see/../api/jobs", "/seen", "/listen.html", "/api/pictures"):
        refused = ask(address, path)
        assert refused.status == 401, path
        assert refused.error["zh"]
    assert ask(address, "/see", {}).status == 401
    assert ask(address, "/v1/rerank", {}, Sec_Fetch_Mode="navigate").error["code"] == "invalid_api_key"


@pytest.mark.parametrize("own", [True, False])
def test_without_ears_the_page_offers_the_browsers_own_or_says_how_to_get_them(
    browser: Browser, address: str, own: bool
) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    if not own:
        visitor.page.add_init_script("delete window.SpeechRecognition; delete window.webkitSpeechRecognition")
    page = go(visitor, "/listen")
    assert page.get_by_role("button", name="Use the browser's recogniser").count() == int(own)
    text = page.locator("main").inner_text()
    assert ("send the voice to their maker" if own else "no recogniser of its own") in text
    assert "STARRY_EARS" in text
    assert findings(page) == []
    visitor.leave()


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_fails_is_a_sentence_and_the_page_goes_on(
    browser: Browser, address: str, folder: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    failing = Broken(way)
    for sense in ("EYES", "EARS", "FACETS"):
        monkeypatch.setenv(f"STARRY_{sense}", f"{failing.url}#m")
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setattr(remote, "ANSWER", 0.2)
    visitor = Visitor(browser, address, locale="en-GB")
    page = go(visitor, "/see")
    page.set_input_files("input[type=file]", folder / "sunflowers.png")
    page.locator(".caption:lang(en)", has_text="unflower").wait_for()
    assert page.locator(".warn", has_text=failing.host).count() == 2  # eyes and facets
    assert page.locator(".warn", has_text="The built-in model answers instead.").count() == 2
    assert page.locator(".chips li").count() >= 2
    go(visitor, "/listen")
    for _ in range(2):  # it can be tried again
        page.set_input_files("input[type=file]", folder / "tone.wav")
        page.get_by_role("alert").filter(has_text=failing.host).wait_for()
        assert page.get_by_role("button", name="Record", exact=True).is_enabled()
    assert KEY not in page.content()
    visitor.problems[:] = [one for one in visitor.problems if "502" not in one]  # the browser logs it itself
    visitor.leave()
    failing.over.set()
    failing.close()


def test_a_page_says_when_pictures_leave_this_machine(
    browser: Browser, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    assert "another machine" not in go(visitor, "/see").locator("main").inner_text()
    monkeypatch.setenv("STARRY_EYES", "https://eyes.example/v1#qwen3-vl")
    assert "another machine: eyes.example#qwen3-vl" in go(visitor, "/see").locator("main").inner_text()
    visitor.leave()


def test_their_policy_forbids_evaluated_code_and_other_addresses(address: str) -> None:
    for path in PAGES:
        answer = ask(address, path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "unsafe-eval" not in policy
        assert "http" not in policy
        assert "<script>" not in answer.body.decode()
    for name in (*FILES, "facts.json"):
        assert ask(address, f"/alone/{name}").status == 200, name
    for path in (
        "/alone/",
        "/alone/see.html",
        "/alone/../app.py",
        "/alone/%2e%2e/app.py",
        "/see/x",
        "/page.css",
        "/alone/vue.LICENSE",
    ):
        assert ask(address, path).status == 404, path
    assert ask(address, "/alone/page.css", method="HEAD").body == b""


def test_words_are_there_in_both_languages_and_vue_with_its_licence() -> None:
    words = json.loads((FOLDER / "words.json").read_text("utf-8"))
    assert list(words["en"]) == list(words["zh"])
    assert all(
        re.findall(r"\{\w+\}", words["en"][name]) == re.findall(r"\{\w+\}", words["zh"][name])
        for name in words["en"]
    )
    sources = "".join((FOLDER / name).read_text("utf-8") for name in ("shared.js", "see.js", "listen.js"))
    used = set(re.findall(r'\bt\("([\w.]+)"', sources)) | set(re.findall(r'"((?:see|listen)\.\w+)"', sources))
    assert used - {"see.js", "listen.js"} <= set(words["en"])
    vue = (FOLDER / "vue.runtime.esm-browser.prod.js").read_text("utf-8")
    assert "@license MIT" in vue[:200]
    assert not re.search(r"\bnew Function\b|\beval\(", vue)
    assert "Permission is hereby granted" in (FOLDER / "vue.LICENSE").read_text("utf-8")
    assert {path.name for path in FOLDER.iterdir()} == {*FILES, *PAGES.values(), "vue.LICENSE"}


def test_words_of_a_picture_are_in_the_studios_box(browser: Browser, folder: Path, tmp_path: Path) -> None:
    with served(tmp_path) as studio:
        visitor = Visitor(browser, studio, locale="en-GB")
        page = go(visitor, "/see")
        page.set_input_files("input[type=file]", folder / "sunflowers.png")
        page.get_by_role("button", name="Paint something like it").click()
        box: Any = page.locator(".st-key-prompt textarea")
        box.wait_for(timeout=TIMEOUT)
        page.wait_for_function(
            "document.querySelector('.st-key-prompt textarea').value.includes('sunflower')", timeout=TIMEOUT
        )
        visitor.leave()
