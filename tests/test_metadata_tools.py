"""Pictures of other tools: each tool's metadata as its own source writes it, and the values it means."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from attacks.pictures import chunk, itxt, png, saved, with_text
from PIL import Image

from starrynight.errors import NoRecipe
from starrynight.metadata import Recipe, a1111, read_recipe
from starrynight.text import parse_json, plain_json

PICTURES = Path(__file__).parent / "pictures"
LIGHTHOUSE = "a lighthouse in the snow, (warm light:1.2)"


def values(recipe: Recipe, *names: str) -> dict[str, object]:
    return {name: getattr(recipe, name) for name in names}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a1111-tail-line.png", {"prompt": "a lighthouse in the snow", "negative_prompt": "blurry", "seed": 7, "steps": 9, "model": "z_image_turbo"}),
        ("fooocus.png", {"tool": "Fooocus", "prompt": LIGHTHOUSE, "negative_prompt": "blurry, text", "seed": 8834915829939807712, "steps": 30,
                         "guidance": 4.0, "width": 1152, "height": 896, "loras": (("sd_xl_offset_example-lora_1.0", 0.1),)}),
        ("swarm.png", {"tool": "SwarmUI", "prompt": LIGHTHOUSE, "seed": 1480558011, "steps": 9, "guidance": 1.0, "loras": (("moonlight", 0.8),)}),
        ("swarm.jpg", {"tool": "SwarmUI", "prompt": LIGHTHOUSE, "negative_prompt": "blurry, text", "width": 1024, "loras": (("moonlight", 0.8),)}),
        ("wf.png", {"tool": "ComfyUI", "prompt": LIGHTHOUSE, "seed": 913211122837, "steps": 8, "guidance": 1.0, "sampler": "res_multistep"}),
        ("comfy-nan.png", {"tool": "ComfyUI", "prompt": LIGHTHOUSE, "seed": 913211122837, "width": 1024, "height": 768}),
        ("concat.png", {"prompt": "a lighthouse, in the snow"}),
        ("styler.png", {"prompt": LIGHTHOUSE, "negative_prompt": ""}),
        ("flux-forge.png", {"tool": "Forge", "prompt": LIGHTHOUSE, "guidance": 3.5, "loras": (("moonlight", 0.8),), "model": "flux1-dev-fp8"}),
    ],
)  # fmt: skip
def test_a_picture_from_a_bug_report_has_its_values(name: str, wanted: dict[str, object]) -> None:
    recipe = read_recipe(PICTURES / name)
    assert values(recipe, *wanted) == wanted
    plain_json(recipe.raw)  # raises for NaN


# ── A1111's text ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("sea\nNegative prompt: fog\nSteps: 9, Sampler: Euler, CFG scale: 2, Seed: 7, Size: 64x32\nTemplate: {sea|sky}\nNegative Template: fog", {"prompt": "sea", "negative_prompt": "fog", "seed": 7}),
        ("sea\r\nand sky\r\nNegative prompt: fog\r\nSteps: 9, Seed: 7, Size: 64x32\r\n", {"prompt": "sea\nand sky", "negative_prompt": "fog", "steps": 9}),
        ("Sampler: Euler, Seed: 7, CFG scale: 2", {"prompt": "", "seed": 7, "steps": None, "sampler": "Euler"}),
        ("sea\nSeed: 7, Size: 64x32, Sampler: Heun", {"prompt": "sea", "steps": None, "seed": 7, "width": 64, "height": 32}),
        ("a sign: “Negative prompt: no”\nSteps: 9, Seed: 7", {"prompt": "a sign: “Negative prompt: no”", "negative_prompt": ""}),
        ("sea\nNegative prompt: fog\nNegative prompt: rain\nSteps: 9, Seed: 7", {"negative_prompt": "fog\nNegative prompt: rain"}),
        ("sea\nNegative prompt: fog", {"prompt": "sea", "negative_prompt": "fog", "steps": None}),
        ('sea\nSteps: 9, VAE: "a, \\"b\\": c", Seed: 7, Model: x', {"seed": 7, "model": "x"}),
        ('sea\nSteps: 9, Hashes: {"model": "1", "lora:x": "2"}, Seed: 7, Model: x', {"seed": 7, "model": "x"}),
        ('sea\nSteps: 9, Seed: 7, Civitai resources: [{"type":"checkpoint","modelName":"Pony"},{"type":"lora","weight":0.8,"modelName":"ink"}], Clip skip: 2',
         {"model": "Pony", "loras": (("ink", 0.8),)}),
        ("sea\nSteps: 9, Seed: 7, Lora weights: \"ink: 0.5, gold: -1\", Version: Fooocus v2.5.5", {"tool": "Fooocus", "loras": (("ink", 0.5), ("gold", -1.0))}),
        ("sea\nSteps: 9, CFG scale: 3, Distilled CFG Scale: 2.5, Seed: 7, Version: f2.0.1", {"tool": "Forge", "guidance": 2.5}),
        ("sea\nSteps: 9, CFG scale: 7.000000, Guidance: 3.500000, Seed: 7, Size: 64x32, Sampler: euler_a, Version: stable-diffusion.cpp", {"tool": "stable-diffusion.cpp", "guidance": 7.0}),
        ("sea\nSteps: 9, Size: 64x32, Sampler: Default, Seed: 7, CFG scale: 6, App: SD.Next, Version: abc1234, Operations: txt2img", {"tool": "SD.Next", "guidance": 6.0}),
        ("Steps: three, a poem\nSteps: 9, Seed: 7", {"prompt": "Steps: three, a poem", "steps": 9}),
        ("sea\nSteps: 9, Sampler: Euler, odd piece, Seed: 7", {"seed": 7, "sampler": "Euler"}),
    ],
)  # fmt: skip
def test_a1111_texts(text: str, wanted: dict[str, object]) -> None:
    assert values(read_recipe(with_text(parameters=text)), *wanted) == wanted


def test_settings_without_a_field_are_left_and_said() -> None:
    recipe = read_recipe(
        with_text(parameters="sea\nSteps: 9, Seed: 7, CFG scale: 3, Distilled CFG Scale: 2.5, Clip skip: 2")
    )
    assert [line.en for line in recipe.left] == ["true CFG scale: 3.0", "Clip skip: 2"]


# ── one JSON object ─────────────────────────────────────────────────────────────────────────────────────────

RUINED = {
    "Prompt": "a sunflower field", "Negative": "anime", "steps": 30, "cfg": 8.5, "width": 1152, "height": 896, "seed": 3864674281,
    "sampler_name": "dpmpp_2m_sde_gpu", "scheduler": "karras", "base_model_name": "sd_xl.safetensors", "base_model_hash": "be9edd61",
    "loras": [["4852686128", "0.1 - offset.safetensors"]], "start_step": 0, "denoise": None, "clip_skip": 1, "software": "RuinedFooocus",
}  # fmt: skip
NOVELAI = {
    "prompt": "1girl, 星夜", "steps": 28, "height": 1216, "width": 832, "scale": 5.0, "uncond_scale": 0.0, "cfg_rescale": 0.0, "seed": 3417044607,
    "n_samples": 1, "noise_schedule": "karras", "sampler": "k_euler_ancestral", "uc": "lowres",
    "v4_prompt": {"caption": {"base_caption": "1girl, 星夜", "char_captions": [{"char_caption": "girl, silver hair", "centers": []}]}},
    "v4_negative_prompt": {"caption": {"base_caption": "lowres", "char_captions": []}},
}  # fmt: skip
NOVELAI_FIELDS = {
    "Title": "NovelAI generated image", "Description": "1girl, 星夜", "Software": "NovelAI", "Source": "NovelAI Diffusion V4.5 4BDE2A90",
    "Comment": json.dumps(NOVELAI),
}  # fmt: skip
EASY = {
    "prompt": "sea", "negative_prompt": "fog", "seed": 7, "use_stable_diffusion_model": "sd-v1-5", "clip_skip": False, "use_vae_model": None,
    "sampler_name": "euler_a", "width": 512, "height": 768, "num_inference_steps": 25, "guidance_scale": 7.5,
    "use_lora_model": ["ink", "gold"], "lora_alpha": [0.5, 0.8],
}  # fmt: skip
EASY_TEXT = {
    "Prompt": "sea", "Negative Prompt": "fog", "Seed": 7, "Stable Diffusion model": "sd-v1-5", "Sampler": "euler_a", "Width": 512, "Height": 768,
    "Steps": 25, "Guidance Scale": 7.5, "LoRA model": "ink, gold", "LoRA Strength": "0.5, 0.8",
}  # fmt: skip
DRAW_THINGS = {
    "c": "a red <cube>", "uc": "blue", "model": "model.ckpt", "sampler": "Euler A", "scale": 4.5, "seed": 2441935286, "size": "64x32", "steps": 8,
    "strength": 1, "seed_mode": "Scale Alike", "v2": {"loras": [{"file": "detail.ckpt", "weight": 0.8, "mode": "all"}]},
}  # fmt: skip
MFLUX = {
    "mflux_version": "0.9.0", "model": "dev", "seed": 7, "steps": 20, "guidance": 3.5, "prompt": "sea", "lora_paths": ["ink.safetensors"],
    "lora_scales": [0.7], "precision": "bfloat16", "quantize": 8,
}  # fmt: skip
TENSOR_ART = {
    "models": [{"label": "ink", "type": "LORA", "weight": 0.6}, {"label": "Pony", "type": "BASE_MODEL"}], "prompt": "sea", "negativePrompt": "fog",
    "seed": "7", "steps": 25, "samplerName": "euler", "cfgScale": 7, "width": 512, "height": 768, "baseModel": {"label": "Pony"},
}  # fmt: skip
INVOKE_FLUX = {
    "generation_mode": "flux_txt2img", "positive_prompt": "sea", "cfg_scale": 1, "guidance": 3.5, "steps": 20, "seed": 7, "scheduler": "euler",
    "width": 512, "height": 768, "model": {"key": "k", "name": "flux-dev"}, "loras": [{"model": {"name": "ink"}, "weight": 0.75}], "app_version": "5.6.0",
}  # fmt: skip
INVOKE_2 = {
    "model": "stable diffusion", "model_weights": "sd-1.5", "app_version": "2.3.0",
    "image": {"prompt": [{"prompt": "sea [fog]", "weight": 1.0}], "steps": 50, "cfg_scale": 7.5, "width": 512, "height": 768, "seed": 7, "sampler": "k_lms", "type": "txt2img"},
}  # fmt: skip
SIZES = {"width": 512, "height": 768}
EASY_VALUES = {"tool": "Easy Diffusion", "prompt": "sea", "negative_prompt": "fog", "seed": 7, "steps": 25, "guidance": 7.5, "sampler": "euler_a",
               "model": "sd-v1-5", "loras": (("ink", 0.5), ("gold", 0.8)), **SIZES}  # fmt: skip
NOVELAI_VALUES = {"tool": "NovelAI", "prompt": "1girl, 星夜", "negative_prompt": "lowres", "seed": 3417044607, "steps": 28, "guidance": 5.0,
                  "sampler": "k_euler_ancestral", "model": "NovelAI Diffusion V4.5 4BDE2A90", "width": 832, "height": 1216}  # fmt: skip


def with_comment(kind: str, comment: bytes) -> bytes:
    exif = Image.Exif()
    exif[0x0131] = "a tool"  # Pillow writes no EXIF of a PNG or AVIF whose main directory is empty
    exif.get_ifd(0x8769)[0x9286] = comment
    return saved(kind, exif=exif)


def comment(kind: str, content: object) -> bytes:
    return with_comment(kind, b"UNICODE\0" + json.dumps(content).encode("utf-16-be"))


def draw_things(kind: str, comment: bool = True) -> bytes:
    inner = f'<exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">{escape(json.dumps(DRAW_THINGS))}</rdf:li></rdf:Alt></exif:UserComment>'
    words = "a red &lt;cube&gt;&#xA;-blue&#xA;Steps: 8, Sampler: Euler A, Guidance Scale: 4.5, Seed: 2441935286, Size: 64x32, Model: model.ckpt"
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/">'
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{words}</rdf:li></rdf:Alt></dc:description>'
        f"<xmp:CreatorTool>Draw Things</xmp:CreatorTool>{inner if comment else ''}</rdf:Description></rdf:RDF></x:xmpmeta>"
    )  # fmt: skip
    return png(itxt("XML:com.adobe.xmp", packet)) if kind == "PNG" else saved(kind, xmp=packet.encode())


def latin_png(**fields: str) -> bytes:
    """UTF-8 in tEXt chunks, as NovelAI writes it."""
    return png(*(chunk(b"tEXt", key.encode() + b"\0" + text.encode()) for key, text in fields.items()))


def fooocus_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x9286] = json.dumps(
        {
            "metadata_scheme": "fooocus",
            "prompt": "sea",
            "steps": 30,
            "seed": "7",
            "base_model": "x",
            "lora_combined_1": "ink : 0.3",
        }
    )
    exif[0x0131], exif[0x927C] = "Fooocus v2.5.5", "fooocus"
    return saved("JPEG", exif=exif)


DRAW_THINGS_VALUES = {"tool": "Draw Things", "prompt": "a red <cube>", "negative_prompt": "blue", "seed": 2441935286, "steps": 8, "guidance": 4.5,
                      "sampler": "Euler A", "model": "model.ckpt", "width": 64, "height": 32}  # fmt: skip
INVOKE_2_VALUES = {
    "tool": "InvokeAI",
    "prompt": "sea",
    "negative_prompt": "fog",
    "seed": 7,
    "steps": 50,
    "guidance": 7.5,
    "sampler": "k_lms",
    **SIZES,
}


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (with_text(parameters=json.dumps(RUINED)), {"tool": "RuinedFooocus", "prompt": "a sunflower field", "negative_prompt": "anime", "guidance": 8.5,
                                                    "seed": 3864674281, "model": "sd_xl.safetensors", "loras": (("offset.safetensors", 0.1),)}),
        (with_text(parameters=json.dumps(RUINED | {"loras": "Loras:<ink:0.5>,<gold:1>"})), {"loras": (("ink", 0.5), ("gold", 1.0))}),
        (latin_png(**NOVELAI_FIELDS), NOVELAI_VALUES),
        (comment("WEBP", NOVELAI_FIELDS), NOVELAI_VALUES),
        (with_text(**{key: str(value) for key, value in EASY.items()}), EASY_VALUES),
        (comment("JPEG", EASY), EASY_VALUES),
        (with_text(**{key: str(value) for key, value in EASY_TEXT.items()}), EASY_VALUES),
        (comment("WEBP", EASY_TEXT), EASY_VALUES),
        (draw_things("PNG"), DRAW_THINGS_VALUES | {"loras": (("detail.ckpt", 0.8),)}),
        (draw_things("JPEG"), DRAW_THINGS_VALUES | {"loras": (("detail.ckpt", 0.8),)}),
        (draw_things("WEBP"), DRAW_THINGS_VALUES | {"loras": (("detail.ckpt", 0.8),)}),
        (draw_things("PNG", comment=False), DRAW_THINGS_VALUES),
        (with_comment("PNG", b"ASCII\0\0\0" + json.dumps(MFLUX).encode()), {"tool": "mflux", "seed": 7, "guidance": 3.5, "loras": (("ink.safetensors", 0.7),)}),
        (with_text(generation_data=json.dumps(TENSOR_ART) + "\0"), {"tool": "TensorArt", "prompt": "sea", "seed": 7, "guidance": 7.0, "model": "Pony", "loras": (("ink", 0.6),)}),
        (with_text(invokeai_metadata=json.dumps(INVOKE_FLUX)), {"tool": "InvokeAI", "guidance": 3.5, "model": "flux-dev", "loras": (("ink", 0.75),)}),
        (with_text(**{"sd-metadata": json.dumps(INVOKE_2), "Dream": '"sea [fog]" -s 50'}), INVOKE_2_VALUES | {"model": "sd-1.5"}),
        (with_text(Dream='"sea [fog]" -s 50 -S 7 -W 512 -H 768 -C 7.5 -A k_lms'), INVOKE_2_VALUES),
        (with_text(Description="a quiet sea --ar 3:2 --seed 5 --no fog, rain --v 6.1 Job ID: 0c1f", Author="x"),
         {"tool": "Midjourney", "prompt": "a quiet sea", "seed": 5, "negative_prompt": "fog, rain"}),
        (fooocus_jpeg(), {"tool": "Fooocus", "prompt": "sea", "seed": 7, "steps": 30, "loras": (("ink", 0.3),)}),
    ],
)  # fmt: skip
def test_a_tool_that_writes_json(data: bytes, wanted: dict[str, object]) -> None:
    assert values(read_recipe(data), *wanted) == wanted


A1111 = "星夜 sea\nNegative prompt: fog\nSteps: 8, Sampler: Euler, CFG scale: 2, Seed: 7, Size: 64x32"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "PNG"])
@pytest.mark.parametrize("code", ["utf-16-be", "utf-16-le", "utf-8"])
def test_a_user_comment_in_every_container_and_byte_order(kind: str, code: str) -> None:
    for text, prompt in ((A1111, "星夜 sea"), (json.dumps(EASY), "sea")):
        assert read_recipe(with_comment(kind, b"UNICODE\0" + text.encode(code))).prompt == prompt


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_in_every_chunk_of_a_png(packed: bool) -> None:
    import zlib

    latin = A1111.removeprefix("星夜 ").encode()
    body = b"parameters\0\0" + zlib.compress(latin) if packed else b"parameters\0" + latin
    assert read_recipe(png(chunk(b"zTXt" if packed else b"tEXt", body))).prompt == "sea"
    assert read_recipe(png(itxt("parameters", A1111, packed=packed))).prompt == "星夜 sea"


@pytest.mark.parametrize("name", ["stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp"])
@pytest.mark.parametrize("text", [A1111, json.dumps(NOVELAI_FIELDS)])
def test_a_text_hidden_in_the_pixels(name: str, text: str) -> None:
    payload = gzip.compress(text.encode()) if name.endswith("comp") else text.encode()
    data = name.encode() + (len(payload) * 8).to_bytes(4, "big") + payload
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    pixels = np.full((128, 128, 4), 254, np.uint8)
    bands = slice(0, 3) if "rgb" in name else slice(3, 4)
    flat = pixels[..., bands].transpose(1, 0, 2).reshape(-1).copy()  # down each column
    flat[: len(bits)] |= bits
    pixels[..., bands] = flat.reshape(128, 128, -1).transpose(1, 0, 2)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind, **options)
        recipe = read_recipe(out.getvalue())
        assert (recipe.prompt, recipe.tool) in (("星夜 sea", "A1111"), ("1girl, 星夜", "NovelAI"))


def test_pixels_that_only_begin_like_a_hidden_text_hold_none() -> None:
    data = np.unpackbits(np.frombuffer(b"stealth_pngcomp" + (10**9).to_bytes(4, "big"), np.uint8))
    pixels = np.full((128, 128, 4), 254, np.uint8)
    pixels[:, :, 3].T.reshape(-1)[:0] = 0
    alpha = np.full(128 * 128, 254, np.uint8)
    alpha[: len(data)] |= data
    pixels[..., 3] = alpha.reshape(128, 128).T
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    with pytest.raises(NoRecipe):
        read_recipe(out.getvalue())


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_json_has_not_becomes_its_text(literal: str) -> None:
    parsed = parse_json(f'{{"a": [{literal}], "b": 1.5}}')
    assert parsed == {"a": [literal], "b": 1.5}
    assert json.loads(plain_json(parsed)) == parsed


@pytest.mark.parametrize(
    ("written", "odd"),
    [
        ("Seed: 5", "Seed: 99999999999999999999999"), ("Seed: 5", "Seed: -1"), ("Steps: 20", "Steps: many"), ("CFG scale: 7", "CFG scale: nan"),
        ("Size: 512x768", "Size: large"),
    ],
)  # fmt: skip
def test_a_setting_of_a1111_that_cannot_be_read_is_listed(written, odd):
    text = "a lake\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 512x768, Model: x"
    assert not a1111.read(text).left
    found = a1111.read(text.replace(written, odd))
    assert [note.en for note in found.left] == [odd]
    assert found.prompt == "a lake"


def test_a_size_of_a1111_is_read_with_any_cross():
    found = a1111.read("a lake\nSteps: 20, Sampler: Euler, Seed: 5, Size: 512 × 768")
    assert (found.width, found.height) == (512, 768)
