"""The catalogue, the styles and the warnings: names in both languages, without importing torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tiny

from starrynight.errors import BadFile, MissingFile, UnknownName, WrongSize
from starrynight.models import catalogue, lora
from starrynight.painting import checking, styles
from starrynight.request import PaintRequest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def warnings_for(request):
    return checking.warnings_for(request, catalogue.find(request.model))


def ask(model, prompt="a starry night", **more) -> PaintRequest:
    row = catalogue.find(model)
    words = {"width": row.width, "height": row.height, "steps": row.steps, "guidance": row.guidance}
    return PaintRequest(prompt=prompt, model=model, **(words | more))


def test_every_model_accepts_its_own_defaults():
    assert catalogue.names()[0] == "firefly"
    for row in catalogue.MODELS:
        checking.check(ask(row.name), catalogue.find(row.name))
        assert warnings_for(ask(row.name)) == []
        assert row.en
        assert row.zh


def test_an_unknown_name_is_answered_with_similar_ones():
    assert catalogue.find("SDXL").name == "sdxl"
    with pytest.raises(UnknownName, match="z-image-turbo") as caught:
        catalogue.find("z-image-trubo")
    assert "模型" in caught.value.zh
    row = catalogue.find("someone/their-model")
    assert (row.hub, catalogue.is_here(row)) == ("someone/their-model", False)
    assert row.path.name == "someone--their-model"


def test_files_and_folders_that_are_not_models_are_named(tmp_path):
    with pytest.raises(MissingFile):
        catalogue.find(str(tmp_path / "none.safetensors"))
    with pytest.raises(BadFile, match=r"model_index\.json"):
        catalogue.find(str(tmp_path))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadFile):
        catalogue.find(str(tmp_path / "notes.txt"))


def test_a_name_that_cannot_be_a_path_is_refused():
    with pytest.raises(MissingFile):
        catalogue.find("~nobody-of-that-name/model")
    with pytest.raises(UnknownName):
        catalogue.find("m" * 300)
    with pytest.raises(UnknownName) as caught:
        lora.find("~nobody-of-that-name" + "l" * 300)
    assert len(caught.value.en) < 250


def test_a_folder_determines_its_size_multiple_and_prediction_type(tmp_path):
    flow = catalogue.find(str(tiny.save("zimage", tmp_path / "z")))
    noise = catalogue.find(str(tiny.save("sd", tmp_path / "s")))
    assert (flow.flow, flow.multiple) == (True, 4)
    assert (noise.flow, noise.multiple) == (False, 2)


def test_the_default_model_needs_no_download(home, tmp_path):
    assert catalogue.default() == "firefly"
    tiny.save("zimage", home / "models" / "z-image-turbo")
    import torch

    assert catalogue.default() == ("z-image-turbo" if torch.accelerator.is_available() else "firefly")


def test_a_wrong_size_is_refused_with_the_nearest_sizes():
    with pytest.raises(WrongSize, match="1008×1024"):
        checking.check(ask("z-image-turbo", width=1000), catalogue.find("z-image-turbo"))
    checking.check(ask("sdxl", width=1000), catalogue.find("sdxl"))


# Styles


def test_the_styles_are_the_ten_that_firefly_is_trained_on():
    ten = "oil monet dunhuang ink watercolor cyberpunk ukiyoe pointillism pastel papercut"
    assert list(styles.styles()) == ten.split()


def test_an_alias_belongs_to_one_style():
    words = [word.lower() for style in styles.styles().values() for word in {style.key, *style.aliases}]
    assert len(words) == len(set(words))
    for style in styles.styles().values():
        assert {*style.name} == {*style.prompt} == {*style.negative} == {"zh", "en"}
        for word in (style.key, *style.aliases, *style.name.values()):
            assert styles.find(word) is style


def test_the_prompts_language_selects_the_preset():
    assert styles.styled("星夜下的静谧村庄。", "oil")[0] == "星夜下的静谧村庄，油画，梵高风格，厚重的笔触"
    prompt, negative = styles.styled("a quiet village.", "敦煌")
    assert prompt == "a quiet village, Dunhuang cave mural, mineral pigments, weathered plaster"
    assert negative == "photograph, modern, plastic"
    assert styles.styled("as it is.", None) == ("as it is.", "")
    assert [styles.language(text) for text in ("Starry 星", "ночь 123", "𠮷")] == ["zh", "en", "zh"]


def test_an_unknown_style_is_answered_with_similar_ones():
    with pytest.raises(UnknownName, match="watercolor"):
        styles.find("watercolr")
    with pytest.raises(UnknownName, match="水墨"):
        styles.find("水墨山")
    with pytest.raises(UnknownName, match="papercut"):
        styles.find("zzzz")


def test_firefly_gets_no_negative_prompt_from_a_style():
    request = ask("firefly", style="ink", negative_prompt="fog")
    assert checking.negative_of(request, catalogue.find("firefly")) == "fog"
    assert checking.negative_of(request, catalogue.find("sdxl")).startswith("fog, photograph")


# Warnings


@pytest.mark.parametrize("model", ["sd-turbo", "sdxl", "flux-schnell"])
def test_a_chinese_prompt_for_an_english_text_encoder_gives_a_warning(model):
    (warning,) = warnings_for(ask(model, prompt="星夜"))
    assert "only English" in warning[0]
    assert "只懂英文" in warning[1]
    assert warnings_for(ask("z-image-turbo", prompt="星夜")) == []
    assert warnings_for(ask("firefly", prompt="星夜")) == []


def test_guidance_for_a_distilled_model_gives_a_warning():
    assert "0" in warnings_for(ask("flux-schnell", guidance=3.5))[0][0]
    assert any("negative" in warning[0] for warning in warnings_for(ask("sd-turbo", negative_prompt="fog")))
    assert warnings_for(ask("kook-zimage-turbo", guidance=2.0)) == []


def test_names_and_warnings_import_no_torch():
    """Importing torch takes seconds; `starry --help`, `starry models` and every refusal must not wait for it."""
    script = (
        "import sys; from starrynight.models import catalogue, download; from starrynight.painting import checking; "
        "from starrynight.request import PaintRequest; "
        "checking.check(PaintRequest(prompt='星', style='ink'), catalogue.find('firefly')); "
        "print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_transformers_position_table_limits_size_and_prompt(tmp_path):
    folder = tiny.save("zimage", tmp_path / "short")
    tiny.rewrite_json(folder / "transformer" / "config.json", axes_lens=[98, 32, 48])
    model = catalogue.find(str(folder))
    assert (model.multiple, model.largest, model.max_tokens) == (4, 128, 96)
    with pytest.raises(WrongSize, match="128×64"):
        checking.check(ask(str(folder), width=132, height=64), model)
    firefly = catalogue.find("firefly")
    # Its own limit is below that of its positions, 512 patches of 16.
    assert (firefly.largest, firefly.max_tokens) == (1024, 512)
