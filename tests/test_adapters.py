"""LoRAs: found, checked, put on with their weights in every layout, stacked, taken off without a trace."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from starrynight.errors import BadFile, BadRequest, LfsPointer, MissingFile, PickledFile, Unfit, UnknownName
from starrynight.jobs.validate import validate_request
from starrynight.metadata.recipe import read_own
from starrynight.models import lora
from starrynight.painting.loaded import float32_parameters
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest
from starrynight.studio import as_picture

# A layer of each family's denoiser, and its name in kohya's flat writing.
LAYERS = {
    "zimage": ("transformer", "layers.0.attention.to_q", 32),
    "sd": ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", 8),
    "sdxl": ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", 16),
    "flux": ("transformer", "transformer_blocks.0.attn.to_q", 32),
}
RANK = 4


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    (tmp_path / "loras").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def painters(tmp_path_factory):
    folders = {family: tiny.save(family, tmp_path_factory.mktemp(family)) for family in LAYERS}
    return {family: Painter.ready(ask(folder), device="cpu") for family, folder in folders.items()}


def ask(folder, **more):
    words = {
        "prompt": "a starry night",
        "width": 64,
        "height": 64,
        "steps": 2,
        "seed": 5,
        "precision": "float32",
    }
    return PaintRequest(model=str(folder), **(words | more))


def one(painter, loras=()) -> np.ndarray:
    return tiny.pixels_of(next(painter.paint(ask(painter.model.spec.name, loras=loras))))


def matrices(width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(RANK, width, generator=draw) * 2, torch.randn(width, RANK, generator=draw) * 2


def write(home, name: str, family: str, layout: str = "diffusers", seed: int = 0) -> str:
    part, layer, width = LAYERS[family]
    down, up = matrices(width, seed)
    if layout == "diffusers":
        state = {f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}
    elif layout == "comfy":
        state = {f"diffusion_model.{layer}.lora_A.weight": down, f"diffusion_model.{layer}.lora_B.weight": up}
    else:
        flat = f"lora_unet_{layer.replace('.', '_')}"
        state = {
            f"{flat}.lora_down.weight": down,
            f"{flat}.lora_up.weight": up,
            f"{flat}.alpha": torch.tensor(float(RANK)),
        }
    save_file(state, home / "loras" / f"{name}.safetensors")
    return name


@pytest.mark.parametrize("family", list(LAYERS))
def test_a_lora_changes_the_picture_and_leaves_no_trace(painters, home, family):
    painter, name = painters[family], write(home, "moonlight", family)
    plain = one(painter)
    dressed = one(painter, ((name, 1.0),))
    assert not (dressed == plain).all()
    assert (one(painter) == plain).all()
    assert np.abs(one(painter, ((name, 0.0),)) - plain).max() < 1e-5
    half = one(painter, ((name, 0.5),))
    assert not (half == dressed).all()
    assert (one(painter) == plain).all()


def test_a_lora_is_what_adding_its_product_to_the_weight_is(painters, home):
    painter = painters["zimage"]
    name = write(home, "moonlight", "zimage")
    down, up = matrices(32)
    dressed = one(painter, ((name, 0.7),))
    weight = painter.denoiser.layers[0].attention.to_q.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 0.7 * up @ down
    merged = one(painter)
    with torch.no_grad():
        weight.copy_(before)
    assert np.abs(merged - dressed).max() < 1e-5


@pytest.mark.parametrize(("family", "layout"), [("zimage", "comfy"), ("zimage", "kohya"), ("sd", "kohya")])
def test_other_tools_layouts_mean_the_same(painters, home, family, layout):
    ours = one(painters[family], ((write(home, "ours", family), 0.8),))
    theirs = one(painters[family], ((write(home, "theirs", family, layout), 0.8),))
    assert np.abs(ours - theirs).max() < 1e-5
    assert not (ours == one(painters[family])).all()


def test_loras_stack_with_their_weights(painters, home):
    painter = painters["zimage"]
    first, second = write(home, "first", "zimage"), write(home, "second", "zimage", seed=1)
    both = one(painter, ((first, 0.6), (second, -0.4)))
    weight = painter.denoiser.layers[0].attention.to_q.weight
    before = weight.detach().clone()
    with torch.no_grad():
        for factor, seed in ((0.6, 0), (-0.4, 1)):
            down, up = matrices(32, seed)
            weight += factor * up @ down
    merged = one(painter)
    with torch.no_grad():
        weight.copy_(before)
    assert np.abs(merged - both).max() < 1e-5
    twice = one(painter, ((first, 0.3), (first, 0.3)))  # one file on two hooks
    assert np.abs(twice - one(painter, ((first, 0.6),))).max() < 1e-5


@pytest.mark.parametrize("kind", ["names", "shapes"])
@pytest.mark.parametrize("family", list(LAYERS))
def test_a_lora_that_fits_no_layer_is_unfit_and_harms_nothing(painters, home, family, kind):
    part, layer, width = LAYERS[family]
    target = layer if kind == "shapes" else "nowhere.to_q"
    width += 8 if kind == "shapes" else 0
    down, up = matrices(width)
    state = {f"{part}.{target}.lora_A.weight": down, f"{part}.{target}.lora_B.weight": up}
    save_file(state, home / "loras" / "stranger.safetensors")
    plain = one(painters[family])
    with pytest.raises(Unfit) as caught:
        one(painters[family], (("stranger", 1.0),))
    assert "stranger.safetensors" in caught.value.en
    assert painters[family].model.spec.en in caught.value.en
    assert (one(painters[family]) == plain).all()


def test_names_and_paths_of_loras_and_the_files_that_are_refused(home):
    write(home, "moonlight", "sd")
    path = home / "loras" / "moonlight.safetensors"
    assert lora.find("moonlight") == lora.find("moonlight.safetensors") == lora.find(str(path)) == path
    assert lora.names() == ["moonlight"]
    with pytest.raises(UnknownName, match="moonlight"):
        lora.find("moonlite")
    with pytest.raises(MissingFile):
        lora.find(str(home / "nothing.safetensors"))
    torch.save({}, home / "old.pt")
    with pytest.raises(PickledFile):
        lora.find(str(home / "old.pt"))
    (home / "loras" / "cut.safetensors").write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BadFile):
        lora.find("cut")
    (home / "loras" / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(LfsPointer):
        lora.find("pointer")


def test_a_merged_lora_leaves_no_trace_and_its_recipe_tells_how_it_fitted(painters, home):
    painter = painters["zimage"]
    state = {f"diffusion_model.layers.0.attention.to_q.{name}": tensor for name, tensor in zip(
        ("lora_A.weight", "lora_B.weight", "dora_scale"), (*matrices(32), torch.full((32, 1), 5.0)), strict=True)}  # fmt: skip
    save_file(state | {"diffusion_model.nowhere.diff": torch.ones(2)}, home / "loras" / "dora.safetensors")
    plain = one(painter)
    request = ask(painter.model.spec.name, prompt="a starry night <lora:dora:0.8>")
    image = next(painter.paint(request))
    assert image.prompt == "a starry night"
    assert (tiny.pixels_of(image) == one(painter, (("dora", 0.8),))).all()
    assert not (tiny.pixels_of(image) == plain).all()
    assert (one(painter) == plain).all()
    for _ in painter.paint(request):
        fit = painter.fits[0].to_dict()
    assert (fit["fit"], fit["layers"], fit["left"], fit["kinds"]) == (
        1,
        2,
        ["diffusion_model.nowhere"],
        {"DoRA": 1},
    )
    picture = as_picture(image, request.without_tags(), painter)
    assert picture.recipe["loras"] == [fit]
    assert read_own(picture.recipe).request()["loras"] == [["dora", 0.8]]


def test_weights_read_again_from_the_files_carry_what_is_merged(painters, home):
    """A fallback reads the float32 weights of the model's files; a merged LoRA stays on."""
    painter = painters["zimage"]
    name = "transformer.layers.0.attention.to_q"
    save_file({f"{name}.diff": torch.ones(32, 32)}, home / "loras" / "whole.safetensors")
    plain = float32_parameters(painter.model, painter.plan, painter.pipeline)[f"{name}.weight"]
    with lora.applied(painter.pipeline, [("whole", 0.5)], "it"):
        merged = float32_parameters(painter.model, painter.plan, painter.pipeline)[f"{name}.weight"]
    assert torch.allclose(merged, plain + 0.5)


def test_a_tag_over_http_names_no_path(home):
    with pytest.raises(BadRequest, match="not by a path"):
        validate_request({"prompt": "a <lora:../../secret.safetensors:1>"}, None)
