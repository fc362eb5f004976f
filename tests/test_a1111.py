"""A1111's routes as Open WebUI, LibreChat and SillyTavern call them: the request bodies that they send, and what they read."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hung import picture
from PIL import Image
from served import Server, ask, gallery_in, until, without_worker

from starrynight.metadata import read_pixels, read_recipe

SMALL = {"width": 128, "height": 128}
# Open WebUI 0.6 (routers/images.py): width, height and steps are the operator's.
OPEN_WEBUI = {"prompt": "a lighthouse", "batch_size": 2, "steps": 4, "negative_prompt": "fog", **SMALL}
# LibreChat 0.8 (StableDiffusion.js) asks for 1024×1024.
LIBRECHAT = {"prompt": "a lighthouse", "negative_prompt": "fog", "cfg_scale": 4.5, "steps": 22, **SMALL}
# SillyTavern 1.13 (extensions/stable-diffusion, endpoints/stable-diffusion.js) sends its own address along.
SILLYTAVERN = {
    "url": "http://127.0.0.1:7860", "auth": "user:secret", "prompt": "a lighthouse", "negative_prompt": "fog",
    "sampler_name": "DDIM", "scheduler": "karras", "steps": 3, "cfg_scale": 7, "restore_faces": False, "enable_hr": False,
    "hr_upscaler": "Latent", "hr_scale": 1.0, "hr_additional_modules": [], "denoising_strength": 0.7, "hr_second_pass_steps": 0,
    "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"}, "override_settings_restore_afterwards": True,
    "clip_skip": 1, "save_images": True, "send_images": True, "do_not_save_grid": False, "do_not_save_samples": False, **SMALL,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    opened = Server(tmp_path_factory.mktemp("studio"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without a worker."""
    with gallery_in(tmp_path_factory.mktemp("home")) as gallery, without_worker(gallery) as address:
        yield address


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("body", "count"), [(OPEN_WEBUI, 2), (LIBRECHAT, 1), (SILLYTAVERN, 1)], ids=["Open WebUI", "LibreChat", "SillyTavern"]
)  # fmt: skip
def test_clients_get_what_they_read(server: Server, body: dict[str, Any], count: int) -> None:
    answer = server.ask("/sdapi/v1/txt2img", body)
    assert answer.status == 200, answer.body
    found, info = answer.json, json.loads(answer.json["info"])
    assert len(found["images"]) == len(info["infotexts"]) == len(info["all_seeds"]) == count
    for image, seed, text in zip(found["images"], info["all_seeds"], info["infotexts"], strict=True):
        data = base64.b64decode(image)
        assert Image.open(io.BytesIO(data)).size == (info["width"], info["height"]) == (128, 128)
        recipe = read_recipe(data)
        assert (recipe.prompt, recipe.negative_prompt, recipe.seed) == ("a lighthouse", "fog", seed)
        assert recipe.steps == info["steps"] == body["steps"]
        assert text.split("\n")[-1].startswith(f"Steps: {body['steps']}, Sampler: ")
    assert info["seed"] == info["all_seeds"][0]
    assert "auth" not in found["parameters"]
    assert b"secret" not in answer.body
    hung = server.ask(f"/api/pictures/{info['pictures'][0]}")
    assert hung.status == 200


def test_what_had_no_effect_is_told(server: Server) -> None:
    body = SILLYTAVERN | {
        "steps": 1,
        "seed": 5,
        "eta": 0.5,
        "forge_preset": "flux",
        "override_settings": {"CLIP_stop_at_last_layers": 2},
    }
    answer = server.ask("/sdapi/v1/txt2img", body)
    assert answer.status == 200, answer.body
    info = json.loads(answer.json["info"])
    told = " ".join(note["en"] for note in info["warnings"])
    for name in ("DDIM", "karras", "eta", "forge_preset", "CLIP_stop_at_last_layers", "save_images"):
        assert name in told
    assert info["sampler_name"] == "euler"  # Firefly's own


def test_img2img_and_its_mask(server: Server) -> None:
    first = picture(size=128).pixels
    mask = np.zeros((128, 128), np.uint8)
    mask[:, 64:] = 255
    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    body = {
        "prompt": "a snowy village", "init_images": ["data:image/png;base64," + in_base64(picture(size=128).encode())],
        "denoising_strength": 0.75, "steps": 4, "seed": 7, "subseed": 3, "subseed_strength": 0.2, "sampler_name": "Heun", **SMALL,
    }  # fmt: skip
    whole = server.ask("/sdapi/v1/img2img", body)
    assert whole.status == 200, whole.body
    request = read_recipe(base64.b64decode(whole.json["images"][0])).raw["request"]
    assert (request["strength"], request["sampler"], request["variation"], request["variation_seed"]) == (
        0.75,
        "heun",
        0.2,
        3,
    )
    for invert, kept in ((0, slice(0, 64)), (1, slice(64, 128))):
        masked = server.ask(
            "/sdapi/v1/img2img", body | {"mask": in_base64(out.getvalue()), "inpainting_mask_invert": invert}
        )
        assert masked.status == 200, masked.body
        pixels = read_pixels(base64.b64decode(masked.json["images"][0]))
        assert (pixels[:, kept] == first[:, kept]).all()
        assert (pixels != first).any()


def test_progress_and_interrupt(server: Server) -> None:
    rest = server.ask("/sdapi/v1/progress").json
    assert (rest["progress"], rest["state"]["job_count"], rest["current_image"]) == (0.0, 0, None)
    answers = []
    body = {"prompt": "endless", "steps": 150, "batch_size": 4, **SMALL}
    client = threading.Thread(target=lambda: answers.append(server.ask("/sdapi/v1/txt2img", body)))
    client.start()
    now = until(lambda: (found := server.ask("/sdapi/v1/progress").json)["current_image"] and found)
    assert 0 < now["progress"] < 1
    assert (now["state"]["job_count"], now["state"]["sampling_steps"]) == (1, 150)
    assert Image.open(io.BytesIO(base64.b64decode(now["current_image"]))).size == (128, 128)
    assert server.ask("/sdapi/v1/progress?skip_current_image=true").json["current_image"] is None
    assert server.ask("/sdapi/v1/interrupt", b"", method="POST").status == 200
    client.join()
    assert answers[0].status == 499
    assert server.ask("/sdapi/v1/progress").json["state"]["job_count"] == 0


# What each client reads besides painting: Open WebUI's routers/images.py, SillyTavern's endpoints/stable-diffusion.js (LibreChat
# reads nothing). SillyTavern also asks for Forge's sd-modules, and takes sd-vae where there are none.
CALLS = {
    "Open WebUI": ("options", "sd-models"),
    "SillyTavern": ("options", "upscalers", "latent-upscale-modes", "sd-vae", "samplers", "schedulers", "sd-models", "progress"),
}  # fmt: skip
READ = {"upscalers": "name", "latent-upscale-modes": "name", "sd-vae": "model_name", "samplers": "name", "schedulers": "name",
        "sd-models": "title"}  # fmt: skip


@pytest.mark.parametrize("client", CALLS)
def test_every_address_that_a_client_reads_answers_what_it_reads(idle: str, client: str) -> None:
    for path in CALLS[client]:
        answer = ask(idle, f"/sdapi/v1/{path}")
        assert answer.status == 200, path
        if path in READ:
            assert all(isinstance(one[READ[path]], str) for one in answer.json), path
    assert "sd_model_checkpoint" in ask(idle, "/sdapi/v1/options").json
    progress = ask(idle, "/sdapi/v1/progress").json
    assert (progress["progress"], progress["state"]["job_count"]) == (0.0, 0)  # what SillyTavern waits for
    assert ask(idle, "/sdapi/v1/interrupt", b"", method="POST").status == 200


def test_what_there_is(idle: str) -> None:
    models = ask(idle, "/sdapi/v1/sd-models").json
    assert [(model["title"], model["model_name"]) for model in models] == [("firefly", "firefly")]
    names = [one["name"] for one in ask(idle, "/sdapi/v1/samplers").json]
    assert {"Euler", "Heun", "DPM++ 2M", "UniPC", "LCM"} <= set(names)
    assert "automatic" in [one["name"] for one in ask(idle, "/sdapi/v1/schedulers").json]
    assert [one["name"] for one in ask(idle, "/sdapi/v1/upscalers").json] == ["None"]
    for empty in ("latent-upscale-modes", "sd-vae", "loras"):
        assert ask(idle, f"/sdapi/v1/{empty}").json == []
    assert "ink" in [one["name"] for one in ask(idle, "/sdapi/v1/prompt-styles").json]


def test_options_are_read_changed_and_sent_back(idle: str) -> None:
    """Open WebUI sends all options back; SillyTavern sends the one that it changes."""
    options = ask(idle, "/sdapi/v1/options").json
    assert options["sd_model_checkpoint"] == "firefly"
    assert ask(idle, "/sdapi/v1/options", options).status == 200
    assert ask(idle, "/sdapi/v1/options", {"sd_model_checkpoint": "Firefly [0123]"}).status == 200
    for body, status, name in (
        ({"sd_model_checkpoint": "sdxl"}, 404, "model"), ({"CLIP_stop_at_last_layers": 2}, 400, "CLIP_stop_at_last_layers"),
        ({"show_progressbar": True}, 400, "show_progressbar"),
    ):  # fmt: skip
        refused = ask(idle, "/sdapi/v1/options", body)
        assert (refused.status, refused.json["param"]) == (status, name)
    assert ask(idle, "/sdapi/v1/options").json == options


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_png_info(idle: str, kind: str) -> None:
    found = ask(idle, "/sdapi/v1/png-info", {"image": in_base64(picture("a lake", seed=9).encode(kind))}).json
    assert found["info"].startswith("a lake\nSteps: ")
    assert found["parameters"]["seed"] == 9
    bare = io.BytesIO()
    Image.new("RGB", (8, 8)).save(bare, "PNG")
    assert ask(idle, "/sdapi/v1/png-info", {"image": in_base64(bare.getvalue())}).json["info"] == ""


BAD = {
    "prompt": ({}, 400, "prompt"),
    "model": ({"prompt": "x", "override_settings": {"sd_model_checkpoint": "sdxl"}}, 404, "model"),
    "model by path": ({"prompt": "x", "override_settings": {"sd_model_checkpoint": "/etc/passwd"}}, 404, "model"),
    "sampler": ({"prompt": "x", "sampler_name": "Eulre"}, 404, "sampler_name"),
    "scheduler": ({"prompt": "x", "scheduler": "fast"}, 404, None),
    "size": ({"prompt": "x", "width": 100, "height": 100}, 400, "width"),
    "steps": ({"prompt": "x", "steps": 0}, 400, "steps"),
    "guidance": ({"prompt": "x", "cfg_scale": 31}, 400, "cfg_scale"),
    "pictures": ({"prompt": "x", "batch_size": 9, "n_iter": 9}, 400, "batch_size"),
    "style": ({"prompt": "x", "styles": ["cubist"]}, 404, "styles"),
    "styles": ({"prompt": "x", "styles": ["ink", "oil"]}, 400, "styles"),
    "second pass": ({"prompt": "x", "enable_hr": True}, 400, "enable_hr"),
    "faces": ({"prompt": "x", "restore_faces": True}, 400, "restore_faces"),
    "tiling": ({"prompt": "x", "tiling": True}, 400, "tiling"),
    "scripts": ({"prompt": "x", "alwayson_scripts": {"ADetailer": {}}}, 400, "alwayson_scripts"),
    "a slip": ({"prompt": "x", "sampler_nam": "Euler"}, 400, "sampler_nam"),
    "model as a number": ({"prompt": "x", "override_settings": {"sd_model_checkpoint": 7}}, 400, "sd_model_checkpoint"),
    "settings": ({"prompt": "x", "override_settings": [1]}, 400, "override_settings"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused_is_in_that_apis_form(idle: str, case: str) -> None:
    body, status, param = BAD[case]
    answer = ask(idle, "/sdapi/v1/txt2img", body, Accept_Language="zh")
    assert (answer.status, answer.json["param"]) == (status, param), answer.body
    assert answer.json["detail"] == answer.json["errors"] == answer.json["zh"]
    assert isinstance(answer.json["error"], str)


@pytest.mark.parametrize(
    ("images", "status"), [(None, 400), ([], 400), (["a", "b"], 400), (["%%%"], 422), (["aGVsbG8="], 422)]
)
def test_what_is_no_picture_is_refused(idle: str, images: Any, status: int) -> None:
    answer = ask(idle, "/sdapi/v1/img2img", {"prompt": "x", "init_images": images})
    assert answer.status == status, answer.body
    assert ask(idle, "/sdapi/v1/nowhere").json["error"] == "BadRequest"
