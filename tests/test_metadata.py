"""Reading recipes: other tools' files in their real form, and hostile files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import time

import numpy as np
import pytest
from attacks import pictures as attacks
from attacks.pictures import forged_json, itxt, png, saved, with_comment, with_text
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from starrynight.errors import BadFile, BadRequest, LfsPointer, MissingFile, NoRecipe, StarryError
from starrynight.metadata import Recipe, read_pixels, read_recipe
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest

# As Stable Diffusion WebUI 1.10 writes it: LoRA tags in the prompt, values with commas quoted as JSON.
A1111 = (
    "an oil painting of a (village:1.2) at night, stars <lora:ink_wash:0.8> <lora:gold:-0.5:lbw=1>\nsecond line\n"
    "Negative prompt: blurry, text,\nwatermark\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 965400086, Size: 512x768, "
    'Model hash: 45dee52b81, Model: sd_xl_base_1.0, Lora hashes: "ink_wash: aaf3c2a5f5c5, gold: 123", Version: v1.10.1'
)


def sampler_graph() -> dict:
    """The graph of ComfyUI's default workflow, with one LoRA and a seed from a primitive node."""
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": ["12", 0],
                "steps": 20,
                "cfg": 8.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
                "model": ["10", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dreamshaper_8.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "星夜下的村庄", "clip": ["10", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["11", 0], "clip": ["10", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "ComfyUI"}},
        "10": {
            "class_type": "LoraLoader",
            "inputs": {
                "lora_name": "ink.safetensors",
                "strength_model": 0.7,
                "strength_clip": 1.0,
                "model": ["4", 0],
                "clip": ["4", 1],
            },
        },
        "11": {"class_type": "PrimitiveString", "inputs": {"value": "text, watermark"}},
        "12": {"class_type": "PrimitiveInt", "inputs": {"value": 156680208700286}},
    }


def flux_graph(guider: dict) -> dict:
    """ComfyUI's Flux workflow: noise, guider, sampler and sigmas are separate nodes."""
    return {
        "5": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 1024, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["11", 0]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["11", 0]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["13", 0], "vae": ["10", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "flux"}},
        "12": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"},
        },
        "13": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": ["25", 0],
                "guider": ["22", 0],
                "sampler": ["16", 0],
                "sigmas": ["17", 0],
                "latent_image": ["5", 0],
            },
        },
        "16": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}},
        "17": {
            "class_type": "BasicScheduler",
            "inputs": {"scheduler": "simple", "steps": 24, "denoise": 1.0, "model": ["12", 0]},
        },
        "22": guider,
        "25": {"class_type": "RandomNoise", "inputs": {"noise_seed": 219670278747233}},
        "26": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["6", 0]}},
    }


CFG_GUIDER = {
    "class_type": "CFGGuider",
    "inputs": {"cfg": 4.0, "model": ["12", 0], "positive": ["6", 0], "negative": ["7", 0]},
}
BASIC_GUIDER = {"class_type": "BasicGuider", "inputs": {"model": ["12", 0], "conditioning": ["26", 0]}}

INVOKE_5 = {
    "app_version": "5.6.0",
    "generation_mode": "sdxl_txt2img",
    "positive_prompt": "digital artwork, oil painting",
    "negative_prompt": "grainy, blurry",
    "width": 1024,
    "height": 768,
    "seed": 3293022630,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "cfg_rescale_multiplier": 0,
    "steps": 35,
    "scheduler": "euler",
    "model": {"key": "k", "hash": "blake3:00", "name": "juggernautXL", "base": "sdxl", "type": "main"},
    "loras": [{"model": {"key": "l", "name": "ink", "base": "sdxl", "type": "lora"}, "weight": 0.75}],
}


# ── other tools ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_a1111(recipe: Recipe) -> None:
    assert recipe.tool == "A1111"
    assert recipe.prompt == "an oil painting of a (village:1.2) at night, stars\nsecond line"
    assert recipe.negative_prompt == "blurry, text,\nwatermark"
    assert (recipe.seed, recipe.steps, recipe.guidance) == (965400086, 20, 6.5)
    assert (recipe.width, recipe.height) == (512, 768)
    assert (recipe.sampler, recipe.model) == ("DPM++ 2M", "sd_xl_base_1.0")
    assert recipe.loras == (("ink_wash", 0.8), ("gold", -0.5))
    assert recipe.raw["Lora hashes"] == "ink_wash: aaf3c2a5f5c5, gold: 123"


def test_a1111_png() -> None:
    check_a1111(read_recipe(with_text(parameters=A1111)))
    check_a1111(read_recipe(png(itxt("parameters", A1111))))
    check_a1111(read_recipe(png(after=itxt("parameters", A1111, packed=True))))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le", "utf-16", "ascii"])
def test_a1111_in_exif_in_any_byte_order(kind, order) -> None:
    code = b"ASCII\0\0\0" if order == "ascii" else b"UNICODE\0"
    check_a1111(read_recipe(with_comment(kind, code + A1111.encode(order))))
    if order != "ascii":
        chinese = "星夜\nSteps: 8, Seed: 7, Size: 64x64"
        assert read_recipe(with_comment(kind, code + chinese.encode(order))).prompt == "星夜"


def test_a1111_without_a_negative_prompt_or_a_size() -> None:
    recipe = read_recipe(with_text(parameters="sea\nSteps: 9, Sampler: Euler a, CFG scale: 7, Seed: 5"))
    assert (recipe.prompt, recipe.negative_prompt, recipe.steps) == ("sea", "", 9)
    assert (recipe.width, recipe.height) == (8, 8)  # the picture's own
    with pytest.raises(BadFile, match="parameters"):
        read_recipe(with_text(parameters="just a note about steps"))


def test_comfyui_sampler() -> None:
    recipe = read_recipe(with_text(prompt=json.dumps(sampler_graph()), workflow="{}"))
    assert (recipe.tool, recipe.prompt, recipe.negative_prompt) == (
        "ComfyUI",
        "星夜下的村庄",
        "text, watermark",
    )
    assert (recipe.seed, recipe.steps, recipe.guidance, recipe.sampler) == (156680208700286, 20, 8.0, "euler")
    assert (recipe.width, recipe.height, recipe.model) == (512, 768, "dreamshaper_8.safetensors")
    assert recipe.loras == (("ink.safetensors", 0.7),)


def test_comfyui_advanced_sampler_and_a_second_pass() -> None:
    graph = sampler_graph()
    first = graph["3"]
    first["class_type"] = "KSamplerAdvanced"
    first["inputs"] |= {"noise_seed": 42, "add_noise": "enable"}
    del first["inputs"]["seed"]
    graph["20"] = {
        "class_type": "LatentUpscale",
        "inputs": {"width": 1024, "height": 1536, "samples": ["3", 0]},
    }
    again = {"seed": 1, "steps": 5, "latent_image": ["20", 0], "noise_seed": 1}
    graph["21"] = {"class_type": "KSampler", "inputs": first["inputs"] | again}
    graph["8"]["inputs"]["samples"] = ["21", 0]
    recipe = read_recipe(with_text(prompt=json.dumps(graph)))
    assert (recipe.seed, recipe.steps, recipe.width, recipe.height) == (42, 20, 512, 768)


def test_comfyui_prompts_through_a_control_net_and_a_zeroed_negative() -> None:
    graph = sampler_graph()
    both = {"positive": ["6", 0], "negative": ["7", 0], "control_net": ["31", 0], "image": ["32", 0]}
    graph["30"] = {"class_type": "ControlNetApplyAdvanced", "inputs": both}
    graph["32"] = {"class_type": "LoadImage", "inputs": {"image": "a.png", "text": "not a prompt"}}
    graph["3"]["inputs"] |= {"positive": ["30", 0], "negative": ["30", 1]}
    recipe = read_recipe(with_text(prompt=json.dumps(graph)))
    assert (recipe.prompt, recipe.negative_prompt) == ("星夜下的村庄", "text, watermark")
    graph["33"] = {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["6", 0]}}
    graph["3"]["inputs"]["negative"] = ["33", 0]
    assert read_recipe(with_text(prompt=json.dumps(graph))).negative_prompt == ""


@pytest.mark.parametrize(
    ("guider", "negative", "guidance"), [(CFG_GUIDER, "fog", 4.0), (BASIC_GUIDER, "", 3.5)]
)
def test_comfyui_custom_sampler(guider, negative, guidance) -> None:
    recipe = read_recipe(with_text(prompt=json.dumps(flux_graph(guider))))
    assert (recipe.prompt, recipe.negative_prompt, recipe.guidance) == ("a fox", negative, guidance)
    assert (recipe.seed, recipe.steps, recipe.sampler) == (219670278747233, 24, "dpmpp_2m")
    assert (recipe.width, recipe.height, recipe.model) == (1024, 512, "flux1-dev.safetensors")


def test_comfyui_webp_and_the_nan_it_writes() -> None:
    graph = json.dumps(
        sampler_graph() | {"40": {"class_type": "X", "inputs": {}, "is_changed": [float("nan")]}}
    )
    exif = Image.Exif()
    exif[0x0110], exif[0x010F] = f"prompt:{graph}", "workflow:{}"
    assert read_recipe(saved("WEBP", exif=exif)).seed == 156680208700286


def test_invokeai() -> None:
    recipe = read_recipe(with_text(invokeai_metadata=json.dumps(INVOKE_5), invokeai_graph="{}"))
    assert (recipe.tool, recipe.prompt) == ("InvokeAI", "digital artwork, oil painting")
    assert (recipe.negative_prompt, recipe.seed, recipe.steps) == ("grainy, blurry", 3293022630, 35)
    assert (recipe.guidance, recipe.width, recipe.height) == (7.5, 1024, 768)
    assert (recipe.sampler, recipe.model, recipe.loras) == ("euler", "juggernautXL", (("ink", 0.75),))
    old = INVOKE_5 | {
        "model": {"model_name": "sd-1", "base_model": "sd-1"},
        "loras": [{"lora": {"model_name": "x", "base_model": "sd-1"}, "weight": 0.5}],
    }
    recipe = read_recipe(with_text(invokeai_metadata=json.dumps(old)))
    assert (recipe.model, recipe.loras) == ("sd-1", (("x", 0.5),))


def test_only_fields_with_the_same_meaning_become_a_request() -> None:
    wanted = {"prompt", "negative_prompt", "seed", "steps", "guidance", "width", "height"}
    for data in (with_text(parameters=A1111), with_text(prompt=json.dumps(sampler_graph()))):
        recipe = read_recipe(data)
        assert set(recipe.request()) == wanted
        # torch's CPU generator reads the lower 32 bits only
        assert PaintRequest(**recipe.request()).seed == recipe.seed % 2**32
    huge = read_recipe(
        with_text(parameters=f"sea\nSteps: 900, CFG scale: 99, Seed: {2**64 - 1}, Size: 9999x64")
    )
    assert huge.seed == 2**64 - 1
    assert huge.request() == {"prompt": "sea", "negative_prompt": "", "height": 64, "seed": 2**32 - 1}
    assert f"--seed {2**32 - 1}" in huge.command()


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def parse(command: str) -> tuple[str, dict[str, list[str]]]:
    """Parse a command as a shell and getopt do: the prompt, and every option with its values."""
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("starry", "paint")
    options: dict[str, list[str]] = {}
    while words and words[0] != "--" and words[0].startswith("--"):
        name, equals, value = words.pop(0).partition("=")
        options.setdefault(name, []).append(value if equals else words.pop(0))
    if words[0] == "--":
        words.pop(0)
    (prompt,) = words
    return prompt, options


def test_an_own_recipe_becomes_the_command_that_repaints_it() -> None:
    request = PaintRequest(
        prompt='it\'s "night"; $(rm -rf ~) `id`\n--seed 3 星夜',
        negative_prompt="-blurry",
        style="水墨",
        model="/models/a b.safetensors",
        width=320,
        height=192,
        steps=9,
        guidance=2.123456789,
        seed=40,
        count=4,
        precision="float16",
        loras=(("ink", 0.8), ("C:\\gold", -1)),
        sampler="euler",
        init_image="sea; rm.png",
        strength=0.35,
    )
    recipe = read_recipe(Picture(np.zeros((8, 8, 3), np.uint8), make_recipe(request, index=2)).encode("jpeg"))
    prompt, options = parse(recipe.command())
    assert prompt == request.prompt
    assert options == {
        "--size": ["320x192"],
        "--model": ["/models/a b.safetensors"],
        "--steps": ["9"],
        "--guidance": ["2.123456789"],
        "--seed": ["42"],
        "--negative": ["-blurry"],
        "--style": ["水墨"],
        "--precision": ["float16"],
        "--sampler": ["euler"],
        "--init-image": ["sea; rm.png"],
        "--strength": ["0.35"],
        "--lora": ["ink:0.8", "C:\\gold:-1"],
    }


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.text(st.characters(codec="utf-8"), max_size=40))
def test_no_prompt_breaks_out_of_the_command(prompt, negative) -> None:
    recipe = read_recipe(
        png(itxt("starry_night", forged_json(prompt=prompt + "x", negative_prompt=negative, request={})))
    )
    words, options = parse(recipe.command())
    assert words == recipe.prompt
    assert options.get("--negative", [""]) == [recipe.negative_prompt]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", recipe.command())


def test_a_prompt_that_begins_with_a_dash_is_not_an_option() -> None:
    recipe = read_recipe(attacks.FORGED["a dash in front"])
    assert parse(recipe.command())[0] == "--out=/etc/passwd"


def test_a_recipe_without_a_prompt_has_no_command() -> None:
    recipe = read_recipe(with_text(parameters="Steps: 8, Seed: 7, Size: 64x64"))
    with pytest.raises(BadRequest, match="no prompt"):
        recipe.command()


def test_the_known_fields_of_a_newer_recipe_are_read() -> None:
    newer = forged_json(
        starry_night=9, dreams=["x"], request={"prompt": "sea", "seed": 7, "steps": 4, "mood": "calm"}
    )
    recipe = read_recipe(png(itxt("starry_night", newer)))
    assert (recipe.prompt, recipe.steps, recipe.raw["dreams"]) == ("sea", 4, ["x"])
    assert PaintRequest(**recipe.request()).steps == 4


def test_a_broken_recipe_falls_back_to_the_next_text() -> None:
    recipe = read_recipe(png(itxt("starry_night", "{"), itxt("parameters", A1111)))
    check_a1111(recipe)


def test_the_recipe_is_read_from_an_xmp_attribute_too() -> None:
    attribute = forged_json().replace("&", "&amp;").replace('"', "&quot;")
    packet = attacks.xmp("").replace(b'recipe/1.0/">', f'recipe/1.0/" starry:Recipe="{attribute}">'.encode())
    assert read_recipe(saved("WEBP", xmp=packet)).seed == 7


# ── hostile ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", attacks.BROKEN)
def test_a_hostile_file_gives_one_message(name, tmp_path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(attacks.BROKEN[name])
    for source in (path, str(path), attacks.BROKEN[name]):
        started = time.process_time()
        with pytest.raises(BadFile) as caught:
            read_recipe(source)
        assert time.process_time() - started < 5
        assert caught.value.exit_code == 3
        for sentence in (caught.value.en, caught.value.zh):
            assert len(sentence) < 300
            assert sentence.isprintable()
        assert "root:" not in caught.value.en


@pytest.mark.parametrize("name", attacks.FORGED)
def test_a_forged_recipe_is_read_without_its_hostile_parts(name) -> None:
    started = time.process_time()
    recipe = read_recipe(attacks.FORGED[name])
    request = recipe.request()
    if "prompt" in request:
        PaintRequest(**request)
        assert "\x1b" not in recipe.command()
    assert time.process_time() - started < 5
    for words in (recipe.prompt, recipe.negative_prompt, recipe.model or "", recipe.sampler or ""):
        words.encode()
        assert "\x1b" not in words
    for number in (recipe.seed, recipe.steps, recipe.width, recipe.height):
        assert number is None or 0 <= number < 2**64


def test_each_kind_of_file_has_its_message(tmp_path) -> None:
    cases: dict[str, tuple[type[StarryError], str]] = {
        "svg": (BadFile, "is an SVG drawing"),
        "gif": (NoRecipe, "carries no recipe"),
        "half a header": (BadFile, "truncated or broken"),
        "60000 by 60000": (BadFile, "million pixels"),
        "9000 by 9999": (BadFile, "million pixels"),
        "git lfs": (LfsPointer, "git lfs pull"),
        "recipe of 10 MB": (BadFile, "cannot be read"),
        "recipe cut short": (BadFile, "cannot be read"),
    }
    for name, (error, sentence) in cases.items():
        with pytest.raises(error, match=sentence):
            read_recipe(attacks.BROKEN[name])
    with pytest.raises(NoRecipe, match="carries no recipe"):
        read_recipe(saved("JPEG"))
    with pytest.raises(NoRecipe, match="carries no recipe"):
        read_recipe(png())
    with pytest.raises(MissingFile, match="no file"):
        read_recipe(tmp_path / "nothing.png")
    with pytest.raises(MissingFile):
        read_recipe("a\0b.png")
    with pytest.raises(BadFile, match="folder"):
        read_recipe(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadFile, match="device"):
        read_recipe(tmp_path / "pipe")


def valid(kind: str) -> bytes:
    request = PaintRequest(prompt="星夜 <b>", negative_prompt="fog", seed=7)
    return Picture(np.full((8, 8, 3), 90, np.uint8), make_recipe(request)).encode(kind)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["png", "jpeg", "webp"]), st.data())
def test_a_damaged_file_gives_a_bad_file_or_a_recipe(kind, data) -> None:
    whole = valid(kind)
    cut = data.draw(st.integers(0, len(whole)))
    damaged = bytearray(whole[:cut] if data.draw(st.booleans()) else whole)
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8)
    ):
        if place < len(damaged):
            damaged[place] = byte
    try:
        recipe = read_recipe(bytes(damaged))
        recipe.request()
    except BadFile:
        pass
    with contextlib.suppress(BadFile):
        read_pixels(bytes(damaged))


def test_every_truncation_gives_a_bad_file_or_a_recipe() -> None:
    for kind in ("png", "jpeg", "webp"):
        whole = valid(kind)
        for length in range(0, len(whole), 7):
            try:
                assert read_recipe(whole[:length]).tool in ("Starry Night", "A1111")
            except BadFile:
                continue


def test_pixels_are_upright_and_opaque() -> None:
    red = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    red.save(out, "PNG", exif=exif)
    pixels = read_pixels(out.getvalue())
    assert pixels.shape == (4, 2, 3)
    assert (pixels == 255).all()
    for name in ("svg", "60000 by 60000", "half a jpeg"):
        with pytest.raises(BadFile):
            read_pixels(attacks.BROKEN[name])
