"""The studio's further controls as a visitor uses them: LoRAs pressed, weighted and sent, variety, many prompts, the chips of a
prompt's facets. A real server that paints with Firefly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import PHONE, Visitor, served
from PIL import Image
from playwright.sync_api import Browser, expect
from safetensors.numpy import save_file
from test_web_axe import findings

from starrynight.gallery.store import Gallery

AUDIT, LAYOUT = ((Path(__file__).parent / name).read_text("utf-8") for name in ("audit.js", "layout.js"))
expect.set_options(timeout=60_000)
WIDTH, RANK = 384, 2  # of Firefly's attention; of the LoRAs here


def lora(path: Path, seed: int) -> Path:
    """A LoRA of one layer of Firefly's denoiser."""
    draw = np.random.default_rng(seed)
    layer = "diffusion_model.layers.0.attention.to_q"
    shapes = {"lora_A": (RANK, WIDTH), "lora_B": (WIDTH, RANK)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            f"{layer}.{name}.weight": draw.normal(0, 0.3, shape).astype(np.float32)
            for name, shape in shapes.items()
        },
        path,
    )
    return path  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    os.environ["STARRY_HOME"] = str(home)
    for seed, name in enumerate(("moonlight", "mist")):
        path = lora(home / "loras" / f"{name}.safetensors", seed)
    Image.new("RGB", (64, 64), (40, 60, 160)).save(path.with_name("moonlight.png"))
    yield home
    del os.environ["STARRY_HOME"]


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    with served(home) as served_at:
        yield served_at


def test_loras_variety_and_many_prompts_are_set_and_painted(
    browser: Browser, address: str, home: Path, tmp_path: Path
) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go()
    page.get_by_role("slider", name="Steps").press("Home")
    page.get_by_role("slider", name="Size").press("Home")
    page.locator(".st-key-more summary").click()

    card = page.locator(".st-key-lora-cards button")
    expect(card).to_have_count(1)  # of the LoRA with a picture
    card.click()
    expect(card).to_have_attribute("aria-pressed", "true")
    moonlight = page.get_by_role("slider", name="moonlight")
    expect(moonlight).to_have_attribute("aria-valuetext", "1.00")
    moonlight.press("ArrowLeft")
    expect(moonlight).to_have_attribute("aria-valuetext", "0.95")
    page.locator("[data-test-script-state=notRunning]").wait_for()  # else the list closes again
    page.get_by_role("combobox", name="LoRA").click()
    page.get_by_role("option", name="mist").click()
    page.keyboard.press("Escape")
    page.get_by_role("slider", name="mist").wait_for()
    for wrong in (f"({AUDIT})(24)", f"({LAYOUT})()"):
        page.wait_for_function(f"() => {wrong}.length === 0", timeout=30_000)
    assert findings(page) == []

    send = page.locator(".st-key-lora-file input[type=file]")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    send.set_input_files(tmp_path / "broken.safetensors")
    expect(page.get_by_text("✦ “broken")).to_be_visible()
    send.set_input_files(lora(tmp_path / "glow.safetensors", 3))
    page.get_by_role("slider", name="glow").wait_for()  # it is chosen
    assert (home / "loras" / "glow.safetensors").read_bytes() == (tmp_path / "glow.safetensors").read_bytes()
    assert not (home / "loras" / "broken.safetensors").exists()
    card.click()
    expect(moonlight).to_have_count(0)
    card.click()
    expect(moonlight).to_have_attribute("aria-valuetext", "0.95")  # as it was left

    variety = page.get_by_role("slider", name="More variety between seeds")
    variety.press("ArrowRight")
    expect(variety).to_have_attribute("aria-valuetext", "0.05")
    lines = page.get_by_role("textbox", name="Many prompts, one a line")
    lines.fill("a boat in the snow\n# not painted\n\na lighthouse at dusk")
    lines.blur()
    expect(page.locator(".st-key-words")).to_contain_text("2 pictures of 2 prompts")
    page.get_by_role("button", name="Paint").first.click()
    page.wait_for_url("**job=*.*")
    expect(page.locator(".canvas img[src*='/file'].on")).to_have_count(2)

    with Gallery() as gallery:
        requests = [gallery.recipe(row.id)["request"] for row in gallery.search(limit=5).rows]
    assert [one["prompt"] for one in requests] == ["a lighthouse at dusk", "a boat in the snow"]
    assert [one["variety"] for one in requests] == [0.05, 0.05]
    assert {tuple(map(tuple, one["loras"])) for one in requests} == {
        (("mist", 1.0), ("glow", 1.0), ("moonlight", 0.95))
    }
    visitor.leave()


@pytest.mark.parametrize(
    ("screen", "lang", "text", "at", "dawn", "without"),
    [
        ({}, "zh", "星夜下的村庄，梵高风格", "星夜", "清晨的村庄，梵高风格", "村庄，梵高风格"),
        (
            PHONE,
            "en",
            "a lighthouse at dusk, ink wash",
            "at dusk",
            "a lighthouse at dawn, ink wash",
            "a lighthouse, ink wash",
        ),
    ],
    ids=["desk", "phone"],
)
def test_a_chip_says_a_facet_otherwise_or_leaves_it_out(
    browser: Browser,
    address: str,
    screen: dict[str, Any],
    lang: str,
    text: str,
    at: str,
    dawn: str,
    without: str,
) -> None:
    visitor = Visitor(browser, address, locale={"zh": "zh-CN", "en": "en-GB"}[lang], **screen)
    page = visitor.go()
    box, chip = page.locator(".st-key-prompt textarea"), page.locator("[data-facet=time]")
    box.press_sequentially(text)  # and the box is not left
    expect(chip).to_have_text(re.compile(f"{at}$"))
    chip.click()
    for wrong in (f"({AUDIT})({44 if screen else 24})", f"({LAYOUT})()"):
        page.wait_for_function(f"() => {wrong}.length === 0", timeout=30_000)
    assert findings(page) == []
    page.locator(".choices [data-value=dawn]").click()
    expect(box).to_have_value(dawn)
    page.locator("[data-test-script-state=notRunning]").wait_for()
    expect(chip).not_to_have_text(re.compile(f"{at}$"))
    chip.click()
    page.keyboard.press("Escape")
    expect(page.locator(".choices")).to_be_hidden()
    chip.click()
    page.locator(".choices .without").click()
    expect(box).to_have_value(without)
    expect(page.get_by_role("radio", name={"zh": "油画", "en": "Ink wash"}[lang])).to_have_attribute(
        "aria-checked", "true"
    )
    page.locator("[data-facet=style]").click()
    page.locator(".choices [data-value=monet]").click()  # the card follows the words
    expect(page.get_by_role("radio", name={"zh": "莫奈", "en": "Monet"}[lang])).to_have_attribute(
        "aria-checked", "true"
    )
    visitor.leave()
