"""The studio's form and repainting, without a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from starrynight.gallery.store import Gallery
from starrynight.models import catalogue, lora, sizes
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest
from starrynight.web import controls, shared


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    shared.gallery.clear()
    shared.queue.clear()
    return tmp_path


def loras_page() -> None:
    from starrynight.web import controls

    controls.loras()


def test_a_lora_in_a_sub_folder_is_listed_as_the_command_line_and_the_api_find_it(home: Path) -> None:
    path = home / "loras" / "flux" / "moonlight.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"weight": np.zeros(1, np.float32)}, path)
    page = AppTest.from_function(loras_page).run(timeout=60)
    assert not page.exception
    assert page.multiselect[0].options == ["moonlight"]
    assert lora.find("moonlight") == path  # what a request by name, from the command line or the API, loads


def menus_page() -> None:
    from starrynight.web import controls

    controls.restore_options()
    controls.more_settings()


def test_menus_keep_their_choice_when_the_language_changes(home: Path) -> None:
    page = AppTest.from_function(menus_page)
    page.session_state["lang"] = "en"
    page.session_state["precision"] = "自动"  # what Streamlit returns after a change from Chinese to English
    page.session_state["model"] = catalogue.find("firefly").zh
    page.run(timeout=60)
    assert not page.exception
    assert page.selectbox(key="precision").value == "auto"
    assert page.selectbox(key="model").value == "firefly"


def saved(gallery: Gallery, request: PaintRequest) -> str:
    pixels = np.random.default_rng(request.seed).integers(0, 255, (128, 128, 3), np.uint8)
    return gallery.add(Picture(pixels, make_recipe(request, verdict=Verdict("hang")))).id


def test_repaint_queues_the_same_request_and_vary_only_another_seed(home: Path) -> None:
    request = PaintRequest(
        prompt="江雪，孤舟", negative_prompt="blur", style="ink", width=128, height=192, steps=5, guidance=3.0,
        seed=7, precision="float32", sampler="heun", count=2,
    )  # fmt: skip
    picture = saved(shared.gallery(), request)
    again = shared.repaint(picture, vary=False).request
    assert again == request.replace(count=1)
    varied = shared.repaint(picture, vary=True).request
    assert varied.seed != 7
    assert varied.replace(seed=7) == again


@pytest.mark.parametrize("folder", ["uploads", "pictures"])
def test_repaint_uses_the_stored_init_image_again(home: Path, folder: str) -> None:
    first = saved(shared.gallery(), PaintRequest(prompt="a lake", seed=1, width=128, height=128))
    path = Path(shared.gallery().path(shared.gallery().get(first)))
    if folder == "uploads":
        from starrynight.jobs.uploads import Uploads

        path = Uploads().path(Uploads().save(path.read_bytes())[0])
    request = PaintRequest(prompt="a lake", seed=2, init_image=str(path), strength=0.4, width=128, height=128)
    again = shared.repaint(saved(shared.gallery(), request), vary=False).request
    assert again == request


def test_repaint_drops_an_init_image_from_elsewhere_with_its_strength(home: Path) -> None:
    request = PaintRequest(prompt="a lake", seed=2, init_image="/tmp/photo.png", strength=0.4)
    again = shared.repaint(saved(shared.gallery(), request), vary=False).request
    assert again == PaintRequest(prompt="a lake", seed=2)


@pytest.mark.parametrize("shape", controls.SHAPES)
@pytest.mark.parametrize("size", [128, 250, 2048])
def test_the_forms_size_fits_the_model(shape: str, size: int) -> None:
    model = catalogue.find("firefly")
    for side in sizes.of_format(model, controls.SHAPES[shape], size):
        assert model.smallest <= side <= model.largest
        assert side % model.multiple == 0
