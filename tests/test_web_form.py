"""The studio's form and repainting, without a browser."""

from __future__ import annotations

import gc
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from starrynight.firefly.drawing.landscape import render
from starrynight.firefly.drawing.scene import compose
from starrynight.gallery.store import Gallery
from starrynight.models import catalogue, lora, places, sizes
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest
from starrynight.senses.facets import facets
from starrynight.web import choices, controls, shared
from starrynight.web.shared import words
from starrynight.web.views import device, studio


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    shared.gallery.clear()
    shared.queue.clear()
    choices._searched.clear()
    return tmp_path


def loras_page() -> None:
    from starrynight.web import loras

    loras.show()


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


def sd15(path: Path, **markers: np.ndarray) -> Path:
    """A file that is told to be a whole Stable Diffusion 1 checkpoint; its header is all that a menu reads."""
    unet = "model.diffusion_model."
    names = (
        f"{unet}input_blocks.0.0.weight", f"{unet}output_blocks.0.0.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.zeros((4, 4), np.float32) for name in names} | markers, path)
    return path


def lora_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"unet.up_blocks.0.lora_A.weight": np.zeros((1, 4), np.float32)}, path)
    return path


def test_files_of_other_programs_are_in_the_menus_and_what_is_chosen_is_queued(
    home: Path, tmp_path: Path
) -> None:
    comfy = tmp_path / "ComfyUI" / "models"
    dream = sd15(comfy / "checkpoints" / "dream.safetensors")
    lora_file(home / "loras" / "glow.safetensors")
    twin, only = (lora_file(comfy / "loras" / f"{name}.safetensors") for name in ("Glow", "mist"))
    save_file({"decoder.conv_in.weight": np.zeros((4, 4, 3, 3), np.float32), "decoder.up.0.weight": np.zeros(1, np.float32)},
              comfy / "checkpoints" / "ae.safetensors")  # fmt: skip
    lora_file(comfy / "checkpoints" / "x").with_suffix(".part").write_bytes(b"")
    sd15(comfy / "checkpoints" / "half-00001-of-00002.safetensors")
    places.add(str(comfy.parent))

    page = AppTest.from_function(menus_page)
    page.session_state["lang"] = "en"
    page.session_state["model"] = str(dream)
    page.run(timeout=60)
    assert not page.exception
    assert page.selectbox(key="model").options[-1] == "checkpoints/dream.safetensors"
    assert [one.value for one in page.caption if "as they are: 1." in one.value]
    assert page.multiselect(key="loras").options == ["glow", "mist", "loras/Glow.safetensors"]
    assert not page.selectbox(key="prediction").disabled  # a U-Net may predict noise or v
    for name in choices.loras():
        fields = {
            "prompt": "a lake",
            "model": str(dream),
            "loras": [[name, 0.5]],
            "prediction": "v_prediction",
        }
        job = shared.submit(fields)
        assert (job.request.model, job.request.prediction) == (str(dream), "v_prediction")
    assert [lora.find(name) for name in choices.loras()] == [home / "loras/glow.safetensors", only, twin]
    dream.unlink()
    page.run(timeout=60)
    assert not page.exception


def test_a_place_that_cannot_be_read_is_told_in_the_menu(home: Path) -> None:
    (home / "places.json").write_text("{")
    page = AppTest.from_function(menus_page).run(timeout=60)
    assert not page.exception
    assert any("places.json" in one.value for one in page.text)
    assert page.selectbox(key="prediction").disabled  # Firefly matches flow


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


def pressed_page() -> None:
    import streamlit as st
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    from starrynight.web.shared import uncut

    def cut() -> None:
        raise RuntimeError("another event has arrived")

    def press() -> None:
        st.session_state["pressed"] = st.session_state.get("pressed", 0) + 1

    session = get_script_run_ctx().session_state
    look = session._yield_callback
    object.__setattr__(session, "_yield_callback", cut)  # what Streamlit does once another event has arrived
    try:
        press()
    except RuntimeError:
        plain = "cut"
    uncut(press)()
    try:
        st.session_state["pressed"]
    except RuntimeError:
        after = "cut"
    object.__setattr__(session, "_yield_callback", look)
    st.text(f"{plain} {after} {st.session_state['pressed']}")


def test_a_press_is_not_cut_off_by_a_later_event(home: Path) -> None:
    page = AppTest.from_function(pressed_page).run(timeout=60)
    assert not page.exception
    assert page.text[0].value == "cut cut 1"


def draft_page() -> None:
    import streamlit as st

    from starrynight.web import controls, draft

    if kept := st.session_state.pop("kept", None):
        draft.restore(kept[0])
    st.text_area("prompt", key="prompt")
    controls.sliders()
    controls.seed_row()
    st.session_state["form"] = draft.form()


@pytest.mark.parametrize(
    "kept", ["a line", 7, ["x"], {}, {"prompt": 7, "count": "many", "seed": ["x"], "steps": {}, "style": "oyl", "model": [1]},
             {"count": 10**9, "steps": -(10**9), "seed": "9" * 400, "width": 10**12, "height": -1}],
)  # fmt: skip
def test_a_draft_from_a_browser_may_be_anything(home: Path, kept: object) -> None:
    page = AppTest.from_function(draft_page)
    page.session_state["kept"] = [kept]
    page.run(timeout=60)
    assert not page.exception
    assert 1 <= page.session_state["form"]["count"] <= controls.MAX_PICTURES
    assert 1 <= page.session_state["form"]["steps"] <= controls.MAX_STEPS


def test_a_draft_comes_back_as_it_was_kept(home: Path) -> None:
    kept = {
        "prompt": "an unfinished li", "negative_prompt": "fog", "style": "", "model": "firefly", "width": 384, "height": 256,
        "steps": 12, "guidance": 3.5, "seed": "4711", "locked": False, "count": 3, "precision": "float32", "prediction": "auto",
    }  # fmt: skip
    page = AppTest.from_function(draft_page)
    page.session_state["kept"] = [kept]
    page.run(timeout=60)
    assert not page.exception
    assert page.text_area(key="prompt").value == "an unfinished li"
    assert {name: page.session_state["form"][name] for name in ("steps", "guidance", "seed", "locked", "count", "precision")} == {
        name: kept[name] for name in ("steps", "guidance", "seed", "locked", "count", "precision")
    }  # fmt: skip


def taken_page() -> None:
    import streamlit as st

    from starrynight.web import origin

    st.session_state["lang"] = "zh"
    origin._take("sent")


@pytest.mark.parametrize("typed", ["", "我自己的话"])
def test_a_first_picture_becomes_words_in_an_empty_prompt_and_no_words_are_overwritten(
    home: Path, typed: str
) -> None:
    out = io.BytesIO()
    Image.fromarray(np.asarray(render(compose(20, kind="sunflowers", style="oil"), 160))).save(out, "PNG")
    page = AppTest.from_function(taken_page)
    page.session_state["sent"], page.session_state["prompt"] = out, typed
    page.run(timeout=60)
    assert not page.exception
    words = page.session_state["start_seen"].zh
    assert {span.value for span in facets(words)} & {"sunflowers", "oil"}
    assert page.session_state["prompt"] == (typed or words)
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(noise, "PNG")
    page.session_state["sent"], page.session_state["prompt"] = noise, ""
    page.run(timeout=60)
    assert (page.session_state["start_seen"].zh, page.session_state["prompt"]) == (
        "",
        "",
    )  # it cannot be told


def senses_section() -> None:
    import streamlit as st

    from starrynight.web.views import device

    st.markdown(device.senses())


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_device_page_tells_which_model_is_each_sense_and_what_leaves_the_machine(
    home: Path, monkeypatch: pytest.MonkeyPatch, lang: str
) -> None:
    monkeypatch.setenv("STARRY_EYES", "https://eyes.example/v1#<b>model")
    monkeypatch.setenv("STARRY_RANKER", "no such thing")
    monkeypatch.setenv("STARRY_EMBEDDER", "off")
    page = AppTest.from_function(senses_section)
    page.query_params["lang"] = lang
    page.run(timeout=60)
    assert not page.exception
    rows = page.markdown[0].value.split("<li>")[1:]
    leaves = {"en": "is sent to another machine", "zh": "会发送到另一台机器"}[lang]
    assert [leaves in row for row in rows] == [True, False, False, False, False]
    assert "eyes.example#&lt;b&gt;model" in rows[0]
    assert {"en": "none", "zh": "没有"}[lang] in rows[1]
    assert "lexicon" in rows[2]
    assert "STARRY_RANKER" in rows[3]
    assert f'href="/listen?lang={lang}"' in rows[4]


def test_after_a_press_the_painting_is_drawn_once_and_before_the_rest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first preview waits for is short: the page is not drawn twice, nor its form before the easel."""
    drawn: list[str] = []

    def noted(name: str) -> None:
        whole = getattr(studio, name)

        def draw(*values: Any) -> None:
            drawn.append(" ".join([name, *(job.id for jobs in values for job in jobs)]))
            whole(*values)

        monkeypatch.setattr(studio, name, draw)

    noted("watch")
    noted("describe")
    page = AppTest.from_file(str(Path(studio.__file__).parents[1] / "app.py"), default_timeout=100).run()
    drawn.clear()
    page.button(key="paint").click().run()
    assert not page.exception
    (job,) = (found.id for found in shared.queue().list())
    assert page.query_params["job"] in (job, [job])
    assert drawn == [f"watch {job}", "describe"]
    assert gc.get_freeze_count() > 10_000  # what is imported is not looked at after every run


def device_page() -> None:
    from starrynight.web.views import device

    device.show()


def test_where_the_machine_cannot_be_measured_the_device_page_still_tells_the_rest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "TIMEOUT", 0.01)  # seconds; the report takes about fifteen
    device.doctor.clear()
    page = AppTest.from_function(device_page).run(timeout=100)
    assert not page.exception
    assert page.text[0].value in {words(lang)["device.failed"] for lang in ("en", "zh")}
    assert page.button(key="measure-again")
    shown = "".join(html.proto.body for html in page.get("html"))
    assert shown.count("<section") == 3  # storage, models, senses
    assert str(home) in shown
