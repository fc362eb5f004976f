"""The wall in Chromium with 5,000 pictures: whatever the jump, there are pictures in view; and what the wall shows stands in
its address.
"""

from __future__ import annotations

import os
import re
import time

import many
import pytest
from browser import Visitor, served
from playwright.sync_api import Page, expect

from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery

PICTURES = 5000
TIMEOUT = 240_000  # ms
expect.set_options(timeout=TIMEOUT)

# [frames in view, pictures in view that are loaded, the lowest edge of a frame in view, frames in the document]
IN_VIEW = """() => {
  const host = [...document.querySelectorAll('*')].find((node) => node.shadowRoot?.querySelector('.wall'));
  const all = [...(host?.shadowRoot ?? document).querySelectorAll('.wall .picture')];
  const seen = all.filter((node) => { const box = node.getBoundingClientRect(); return box.bottom > 0 && box.top < innerHeight; });
  return [seen.length, seen.filter((node) => node.querySelector('img.on')).length, Math.max(0, ...seen.map((node) => node.getBoundingClientRect().bottom)), all.length];
}"""
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    os.environ["STARRY_HOME"] = str(home)
    with Gallery() as gallery:
        many.fill(gallery, PICTURES)
    with served(home) as served_at:
        yield served_at
    del os.environ["STARRY_HOME"]


@pytest.fixture
def visitor(browser, address):
    visitor = Visitor(browser, address, locale="en-GB")
    yield visitor
    visitor.leave()


def wall(visitor: Visitor, query: str = "") -> Page:
    page = visitor.go(f"?room=gallery{query}")
    page.locator(".wall[data-ready]").wait_for()
    return page


def filled(page: Page) -> None:
    """Every picture in view is loaded, and the wall fills the view or has come to its end."""
    page.wait_for_function(
        f"() => {{ const [seen, loaded] = ({IN_VIEW})(); return seen > 0 && seen === loaded; }}"
    )


def scroll_to(page: Page, share: float) -> None:
    """Drag the scroll bar to ``share`` of its way."""
    page.locator("[data-testid=stMain]").evaluate(
        "(main, share) => { main.scrollTop = share * (main.scrollHeight - main.clientHeight); }", share
    )


def test_the_order_and_shapes_of_all_pictures_are_those_of_the_pages(address) -> None:
    with Gallery() as gallery:
        for query in (
            Query(),
            Query(text="村庄"),
            Query(style="ink", oldest_first=True),
            Query(like=f"{7:032x}"),
        ):
            numbers, ratios = gallery.layout(query)
            rows = list(gallery.iter_rows(query))
            assert numbers == [row.number for row in rows]
            assert ratios == [round(row.width / row.height, 3) for row in rows]
            assert len(numbers) == gallery.count(query) > 100


def test_a_search_of_five_thousand_takes_no_time_that_one_notices(address) -> None:
    with Gallery() as gallery:
        gallery.layout("村庄")
        start = time.perf_counter()
        found = gallery.layout("村庄"), gallery.search("村庄", limit=48)
        assert len(found[0].numbers) == PICTURES / 5
        assert time.perf_counter() - start < 0.25  # 8 ms idle


@pytest.mark.parametrize("width", [390, 1280])
def test_no_jump_leads_to_an_empty_wall(browser, address, width) -> None:
    visitor = Visitor(browser, address, locale="en-GB", width=width)
    page = wall(visitor)
    expect(page.locator(".count")).to_contain_text("5,000 pictures")
    filled(page)
    jumps = [
        ("End", None),
        ("Home", None),
        ("End", None),
        (None, 0.5),
        (None, 0.123),
        (None, 0.999),
        (None, 0.0),
    ]
    for key, share in jumps:
        if key:
            before = page.locator("[data-testid=stMain]").evaluate("main => main.scrollTop")
            page.keyboard.press(key)
            page.wait_for_function(
                "before => document.querySelector('[data-testid=stMain]').scrollTop !== before", arg=before
            )
        else:
            scroll_to(page, share)
        page.evaluate(TWO_FRAMES)
        seen, _, lowest, hung = page.evaluate(IN_VIEW)
        assert seen > 0, (key, share)  # frames are there at once
        assert lowest > 500
        assert hung < 150  # and not all five thousand of them
        filled(page)
    visitor.leave()


def test_a_fast_wheel_finds_pictures_everywhere_and_a_button_leads_back(visitor) -> None:
    page = wall(visitor)
    filled(page)
    page.mouse.move(640, 500)
    for _ in range(25):
        page.mouse.wheel(0, 4000)
        page.evaluate(TWO_FRAMES)
        assert page.evaluate(IN_VIEW)[0] > 0
    filled(page)
    top = page.get_by_role("button", name="Back to top")
    top.click()
    expect(page.locator(".picture").first).to_be_in_viewport()
    expect(page.locator(".picture .prompt").first).to_have_text("清晨的睡莲池 4999")
    expect(top).to_be_hidden()
    filled(page)


def test_the_pictures_stand_in_order_and_are_counted_for_those_who_cannot_see_them(visitor) -> None:
    page = wall(visitor)
    scroll_to(page, 0.5)
    filled(page)
    cards = page.locator(".picture").evaluate_all(
        "all => all.map((card) => [Number(card.ariaPosInSet), Number(card.ariaSetSize), Number(card.querySelector('.prompt').textContent.split(' ').at(-1))])"
    )
    assert [at for at, _, _ in cards] == list(range(cards[0][0], cards[0][0] + len(cards)))
    assert {size for _, size, _ in cards} == {PICTURES}
    assert all(at + n == PICTURES for at, _, n in cards)


def test_search_filter_and_place_survive_a_reload_and_back(visitor) -> None:
    page = wall(visitor)
    count = page.locator(".count span")
    page.get_by_role("searchbox").fill("村庄")
    expect(count).to_have_text("1,000 pictures")
    page.wait_for_url(re.compile("text="))
    page.reload()
    expect(count).to_have_text("1,000 pictures")
    expect(page.get_by_role("searchbox")).to_have_value("村庄")
    page.get_by_role("searchbox").fill("")
    expect(count).to_have_text("5,000 pictures")
    page.locator("select[data-filter=style]").select_option("ink")
    expect(count).to_have_text("1,000 pictures")
    page.wait_for_url(re.compile("style=ink"))
    page.locator("[data-act=trash]").click()
    expect(page.locator(".no-results")).to_be_visible()
    page.go_back()
    expect(count).to_have_text("1,000 pictures")
    expect(page.locator("select[data-filter=style]")).to_have_value("ink")
    page.go_back()
    expect(count).to_have_text("5,000 pictures")
    scroll_to(page, 0.5)
    page.wait_for_function("() => history.state?.wall")
    place = "() => document.querySelector('[data-testid=stMain]').scrollTop"
    before = page.evaluate(place)
    page.reload()
    page.wait_for_function(f"before => Math.abs(({place})() - before) < 50", arg=before)
    filled(page)


def test_a_sent_link_opens_the_search_the_picture_and_the_pair(browser, address) -> None:
    sent = Visitor(browser, address, locale="en-GB")
    page = wall(sent, f"&text=lighthouse&picture={12:032x}")
    expect(page.locator("dialog h2")).to_have_text("a lighthouse in a storm 12")
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog h2")).to_have_text("a lighthouse in a storm 7")
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    expect(page.locator(".count span")).to_have_text("1,000 pictures")
    sent.leave()
    sent = Visitor(browser, address, locale="en-GB")
    page = wall(sent)
    page.locator("[data-act=select]").click()
    for at in (0, 3):
        page.locator(".wall .picture a").nth(at).click()
    page.locator(".selection-bar [data-act=compare]").click()
    expect(page.locator(".pair img")).to_have_count(2)
    pair = page.url
    page.go_back()
    expect(page.locator("dialog[open]")).to_have_count(0)
    sent.leave()
    other = Visitor(browser, address, locale="en-GB")
    other.page.goto(pair)
    expect(other.page.locator(".pair img")).to_have_count(2)
    assert [image.split("/")[-2] for image in other.page.locator(".pair img").evaluate_all("all => all.map((one) => one.src)")] == [
        f"{4999:032x}", f"{4996:032x}"
    ]  # fmt: skip
    other.leave()


def test_similar_pictures_are_the_nearest_24_and_a_selection_does_not_leak_into_the_trash(visitor) -> None:
    page = wall(visitor)
    page.locator(".wall .picture a").first.click()
    page.locator("dialog [data-act=similar]").click()
    expect(page.locator(".count span")).to_have_text("the 24 most similar pictures")
    page.locator("[data-act=select]").click()
    page.locator(".wall .picture a").first.click()
    expect(page.locator(".selection-bar")).to_contain_text("1 chosen")
    page.locator("[data-act=trash].pill").first.click()
    expect(page.locator(".selection-bar")).to_be_hidden()
    page.locator("[data-act=clear]").click()
    page.locator("[data-act=select]").click()
    expect(page.locator(".selection-bar")).to_contain_text("0 chosen")


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    ("link", "place", "answers"),
    [
        ("?picture=deadbeef", ".toast", ("There is no picture", "没有图片")),
        ("?compare=deadbeef.deadbee2&room=gallery", ".toast", ("There is no picture", "没有图片")),
        ("?job=deadbeef", ".st-key-error", ("There is no job", "没有任务")),
        ("?from=deadbeef", ".st-key-error", ("There is no picture", "没有图片")),
        ("?room=cellar", "[data-testid=stText]", ("There is nothing at “cellar”", "“cellar”处什么也没有")),
        ("nothing/here", "[data-testid=stText]", ("There is nothing at “/nothing/here”", "“/nothing/here”处什么也没有")),
    ],
)  # fmt: skip
def test_a_dead_link_is_answered_in_the_pages_language(browser, address, link, place, answers, lang) -> None:
    visitor = Visitor(browser, address, locale={"en": "en-GB", "zh": "zh-CN"}[lang])
    visitor.page.goto(f"{address}/{link}")
    expect(visitor.page.locator(place)).to_contain_text(answers[lang == "zh"])
    visitor.page.locator("nav a").first.wait_for()
    visitor.page.context.close()
    assert all("404" in problem for problem in visitor.problems)


def test_what_is_typed_counts_when_a_filter_is_chosen_at_once(visitor) -> None:
    page = wall(visitor)
    box, style = page.get_by_role("searchbox"), page.locator("select[data-filter=style]")
    style.locator("option[value=ink]").wait_for(state="attached")  # the choices come after the wall
    box.fill("nothing at all")
    expect(page.locator(".count")).to_contain_text("0 pictures")
    page.evaluate(  # within one task, before the pause after the last key is over
        """() => {
          const host = [...document.querySelectorAll("*")].find((node) => node.shadowRoot?.querySelector(".wall"));
          const root = host?.shadowRoot ?? document, box = root.querySelector("input[type=search]"), select = root.querySelector("select[data-filter=style]");
          box.value = "";
          box.dispatchEvent(new Event("input"));
          select.value = "ink";
          select.dispatchEvent(new Event("change"));
        }"""
    )
    page.wait_for_url(re.compile(r"style=ink"))
    assert "text=" not in page.url
    expect(page.locator(".count")).to_contain_text("1,000 pictures")
    expect(style).to_have_value("ink")
