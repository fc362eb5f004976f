"""The unmodified ``openai`` client against real servers: pictures, streams, edits, models and typed errors."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
from hung import picture
from PIL import Image
from served import Server, ask, gallery_in, until, without_worker

from starrynight.api.access import Access
from starrynight.errors import BrokenNumbers
from starrynight.gallery.store import Gallery
from starrynight.jobs import queue as queues
from starrynight.jobs.leases import Lease
from starrynight.metadata import read_recipe


def client(address: str, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address.rstrip('/')}/v1", api_key="any", max_retries=0, **more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`starry open` with Firefly."""
    opened = Server(tmp_path_factory.mktemp("studio"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with gallery_in(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def idle(gallery: Gallery) -> Iterator[str]:
    """A server without a worker."""
    with without_worker(gallery) as address:
        yield address


def decoded(image: Any) -> bytes:
    return base64.b64decode(image.b64_json)


def test_a_picture_is_the_one_that_our_own_route_paints(server: Server) -> None:
    found = client(server.address).images.generate(
        prompt="a lighthouse", size="128x128", n=2, response_format="b64_json",
        extra_body={"seed": 5, "num_inference_steps": 4, "guidance_scale": 3.0, "negative_prompt": "fog",
                    "style": "ink", "precision": "float32", "sampler": "heun"},
    )  # fmt: skip
    assert (found.size, found.output_format, found.background) == ("128x128", "png", "opaque")
    job = server.submit(
        "a lighthouse", steps=4, guidance=3.0, negative_prompt="fog", style="ink", precision="float32",
        sampler="heun", count=2,
    )  # fmt: skip
    painted = server.until(job, lambda now: now["state"] == "done")["painted"]
    assert [one.id for one in found.data] == [one["picture"] for one in painted]  # type: ignore[union-attr]
    assert [one.seed for one in found.data] == [5, 6]  # type: ignore[union-attr]
    assert read_recipe(decoded(found.data[1])).seed == 6  # type: ignore[index]
    assert server.ask(f"/api/pictures/{painted[0]['picture']}").status == 200  # it hangs in the gallery


@pytest.mark.parametrize(("kind", "quality"), [("webp", 40), ("jpeg", 100), ("png", None)])
def test_a_url_and_a_format(server: Server, kind: str, quality: int | None) -> None:
    more = {} if quality is None else {"output_compression": quality}
    found = client(server.address).images.generate(
        prompt="a lake",
        size="128x128",
        response_format="url",
        output_format=kind,
        extra_body={"seed": 3},
        **more,
    )  # type: ignore[call-overload]
    url = found.data[0].url
    assert url.startswith(server.address)
    file = ask(server.address, url.removeprefix(server.address.rstrip("/")))
    image = Image.open(io.BytesIO(file.body))
    assert (image.format, image.size) == (kind.upper(), (128, 128))
    assert read_recipe(file.body).prompt == "a lake"


def test_a_stream_has_partial_pictures_and_then_the_picture(server: Server) -> None:
    events = list(client(server.address).images.generate(
        prompt="a village under stars", size="128x128", stream=True, partial_images=2, output_format="webp",
        extra_body={"seed": 5, "num_inference_steps": 60},
    ))  # fmt: skip
    *partial, last = events
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 2
    assert [event.partial_image_index for event in partial] == [0, 1]  # type: ignore[union-attr]
    assert last.type == "image_generation.completed"
    for event in events:
        image = Image.open(io.BytesIO(decoded(event)))
        assert (image.format, image.size) == ("WEBP", (128, 128))
        assert (event.size, event.output_format, event.quality) == ("128x128", "webp", "auto")
    assert read_recipe(decoded(last)).seed == 5


def test_every_picture_of_a_stream_is_completed(server: Server) -> None:
    events = list(client(server.address).images.generate(
        prompt="a hill", size="128x128", stream=True, n=2, extra_body={"num_inference_steps": 2, "seed": 8}
    ))  # fmt: skip
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert [read_recipe(decoded(event)).seed for event in events] == [8, 9]


@pytest.mark.parametrize(("size", "becomes"), [("auto", "192x128"), ("128x128", "128x128")])
def test_an_edit_begins_from_the_picture(server: Server, size: str, becomes: str) -> None:
    image = Image.fromarray(picture(size=64).pixels).resize((197, 131))  # no multiple of 16
    out = io.BytesIO()
    image.save(out, "PNG")
    found = client(server.address).images.edit(
        image=("night.png", out.getvalue()), prompt="a snowy village", size=size, n=1,
        extra_body={"strength": 0.5, "seed": 4, "num_inference_steps": 4},
    )  # fmt: skip
    assert found.size == becomes
    recipe = read_recipe(decoded(found.data[0])).raw["request"]  # type: ignore[index]
    assert (recipe["strength"], recipe["steps"], recipe["seed"]) == (0.5, 4, 4)
    assert "uploads" in recipe["init_image"]


def test_an_edit_paints_where_the_mask_is_transparent_and_keeps_the_rest_to_the_bit(server: Server) -> None:
    first = picture(size=128)
    clear = np.full((128, 128, 4), 255, np.uint8)
    clear[32:96, 48:112, 3] = 0
    out = io.BytesIO()
    Image.fromarray(clear).save(out, "PNG")
    found = client(server.address).images.edit(
        image=("a.png", first.encode()), mask=("mask.png", out.getvalue()), prompt="a snowy village", size="128x128",
        extra_body={"num_inference_steps": 4},
    )  # fmt: skip
    after = np.array(Image.open(io.BytesIO(decoded(found.data[0]))))  # type: ignore[index]
    kept = clear[..., 3] == 255
    assert (after[kept] == first.pixels[kept]).all()
    assert (after[~kept] != first.pixels[~kept]).any()


def test_an_edit_streams(server: Server) -> None:
    events = list(client(server.address).images.edit(
        image=("a.png", picture(size=128).encode()), prompt="a snowy village", size="128x128", stream=True,
        partial_images=1, extra_body={"num_inference_steps": 60},
    ))  # fmt: skip
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]


def test_a_client_that_leaves_cancels_its_job(server: Server) -> None:
    def newest() -> dict[str, Any]:
        return server.ask("/api/jobs?state=all&limit=1").json["jobs"][0]

    body = json.dumps({"prompt": "endless", "size": "128x128", "num_inference_steps": 150, "n": 10})
    for stream in (False, True):
        url = urlsplit(server.address)
        connection = http.client.HTTPConnection(url.hostname or "", url.port)
        sent = body[:-1] + ', "stream": true}' if stream else body
        connection.request("POST", "/v1/images/generations", sent, {"Content-Type": "application/json"})
        until(lambda: newest()["state"] == "painting" and (newest()["step"] or 0) > 0)
        job = newest()["id"]
        if stream:
            connection.getresponse()
        connection.close()
        ended = server.until(job, lambda now: now["state"] not in ("waiting", "painting"))
        assert (ended["state"], ended["painted"]) == ("cancelled", [])


def test_models(idle: str) -> None:
    models = client(idle).models.list().data
    assert [model.id for model in models] == ["firefly"]
    assert client(idle).models.retrieve("firefly") == models[0]
    assert models[0].object == "model"
    with pytest.raises(openai.NotFoundError) as error:
        client(idle).models.retrieve("sdxl")  # in the catalogue, not on this machine
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


BAD = {  # what is asked → class, code, param
    "no prompt": ({}, openai.BadRequestError, "missing_required_parameter", "prompt"),
    "null prompt": ({"prompt": None}, openai.BadRequestError, "missing_required_parameter", "prompt"),
    "empty": ({"prompt": " "}, openai.BadRequestError, "invalid_value", "prompt"),
    "a number": ({"prompt": 7}, openai.BadRequestError, "invalid_value", "prompt"),
    "too long": ({"prompt": "x" * 5000}, openai.BadRequestError, "invalid_value", "prompt"),
    "model": ({"prompt": "x", "model": "dall-e-3"}, openai.NotFoundError, "model_not_found", "model"),
    "model not here": ({"prompt": "x", "model": "sdxl"}, openai.NotFoundError, "model_not_found", "model"),
    "model by path": ({"prompt": "x", "model": "/etc/passwd"}, openai.NotFoundError, "model_not_found", "model"),
    "n": ({"prompt": "x", "n": 11}, openai.BadRequestError, "invalid_value", "n"),
    "n as text": ({"prompt": "x", "n": "2"}, openai.BadRequestError, "invalid_value", "n"),
    "n true": ({"prompt": "x", "n": True}, openai.BadRequestError, "invalid_value", "n"),
    "no size": ({"prompt": "x", "size": "large"}, openai.BadRequestError, "invalid_size", "size"),
    "odd size": ({"prompt": "x", "size": "100x100"}, openai.BadRequestError, "invalid_size", "size"),
    "huge size": ({"prompt": "x", "size": "99999x99999"}, openai.BadRequestError, "invalid_size", "size"),
    "steps": ({"prompt": "x", "num_inference_steps": 151}, openai.BadRequestError, "invalid_value", "num_inference_steps"),
    "guidance": ({"prompt": "x", "guidance_scale": -1}, openai.BadRequestError, "invalid_value", "guidance_scale"),
    "seed": ({"prompt": "x", "seed": -1}, openai.BadRequestError, "invalid_value", "seed"),
    "style": ({"prompt": "x", "style": "cubist"}, openai.BadRequestError, "invalid_value", "style"),
    "precision": ({"prompt": "x", "precision": "int3"}, openai.BadRequestError, "invalid_value", "precision"),
    "lora": ({"prompt": "x", "lora": "none:0.5"}, openai.BadRequestError, "invalid_value", "lora"),
    "lora by path": ({"prompt": "x", "lora": {"name": "../x"}}, openai.BadRequestError, "invalid_value", "lora"),
    "lora weight": ({"prompt": "x", "lora": {"name": "x", "scale": "y"}}, openai.BadRequestError, "invalid_value", "lora"),
    "lora shape": ({"prompt": "x", "lora": {"scale": 1}}, openai.BadRequestError, "invalid_value", "lora"),
    "format": ({"prompt": "x", "output_format": "gif"}, openai.BadRequestError, "invalid_value", "output_format"),
    "compression": ({"prompt": "x", "output_compression": 101}, openai.BadRequestError, "invalid_value", "output_compression"),
    "answer": ({"prompt": "x", "response_format": "svg"}, openai.BadRequestError, "invalid_value", "response_format"),
    "stream": ({"prompt": "x", "stream": "yes"}, openai.BadRequestError, "invalid_value", "stream"),
    "partials": ({"prompt": "x", "partial_images": 4}, openai.BadRequestError, "invalid_value", "partial_images"),
    "transparent": ({"prompt": "x", "background": "transparent"}, openai.BadRequestError, "invalid_value", "background"),
    "mask": ({"prompt": "x", "mask": "y"}, openai.BadRequestError, "invalid_value", "mask"),
    "a slip": ({"prompt": "x", "sead": 1}, openai.BadRequestError, "unknown_parameter", "sead"),
    "our word": ({"prompt": "x", "steps": 1}, openai.BadRequestError, "unknown_parameter", "steps"),
    "strength": ({"prompt": "x", "strength": 0.5}, openai.BadRequestError, "invalid_value", "strength"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused_is_a_typed_error(idle: str, case: str) -> None:
    fields, kind, code, param = BAD[case]
    with pytest.raises(openai.APIStatusError) as raised:
        client(idle).post("/images/generations", body=fields, cast_to=object)
    error = raised.value
    assert (type(error), error.code, error.param, error.type) == (kind, code, param, "invalid_request_error")
    body = ask(idle, "/v1/images/generations", fields, Accept_Language="zh-CN").error
    assert (
        body["message"]
        == body["zh"]
        != body["en"]
        == ask(idle, "/v1/images/generations", fields).error["message"]
    )


EDITS = {
    "no picture": ({"prompt": "x"}, {"other": [b"a"]}, "missing_required_parameter", "image"),
    "two pictures": ({"prompt": "x"}, {"image[]": [b"a", b"b"]}, "invalid_value", "image"),
    "no such thing": ({"prompt": "x"}, {"image": [b"GIF89a"]}, "invalid_image", None),
    "mask that is no picture": ({"prompt": "x"}, {"image": [picture().encode()], "mask": [b"b"]}, "invalid_image", None),
    "n": ({"prompt": "x", "n": "many"}, {"image": [b"a"]}, "invalid_value", "n"),
    "strength": ({"prompt": "x", "strength": "0"}, {"image": [picture().encode()]}, "invalid_value", "strength"),
    "model by path": ({"prompt": "x", "model": "/etc"}, {"image": [picture().encode()]}, "model_not_found", "model"),
}  # fmt: skip


@pytest.mark.parametrize("case", EDITS)
def test_what_is_refused_of_an_edit(idle: str, case: str) -> None:
    fields, files, code, param = EDITS[case]
    sent = [(name, ("a.png", data)) for name, all_data in files.items() for data in all_data]
    with pytest.raises(openai.APIStatusError) as raised:
        client(idle).post(
            "/images/edits", body=fields, files=sent, cast_to=object,
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )  # fmt: skip
    assert (raised.value.code, raised.value.param) == (code, param)


def test_fields_without_effect_are_told(server: Server) -> None:
    found = client(server.address).images.generate(
        prompt="a field", size="128x128", quality="hd", style="vivid", user="me", moderation="low",
        extra_body={"num_inference_steps": 1, "vae_use_tiling": True},
    )  # fmt: skip
    told = " ".join(note["en"] for note in found.warnings)  # type: ignore[attr-defined]
    for name in ("quality", "style vivid", "user", "moderation", "vae_use_tiling"):
        assert name in told
    assert "seed" not in told


def test_a_full_queue_is_429_with_a_time(idle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_WAITING", 0)
    with pytest.raises(openai.RateLimitError) as raised:
        client(idle).images.generate(prompt="x")
    assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert int(raised.value.response.headers["retry-after"]) > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_picture_is_an_error_that_is_not_asked_again(
    idle: str, gallery: Gallery, stream: bool
) -> None:
    """The guard's refusal, as the worker records it."""
    lease = Lease(gallery.database, "machine/test")
    assert lease.acquire()

    def refuse() -> None:
        job = until(lease.claim)
        error = BrokenNumbers("NaN in the prediction.", "预测中有 NaN。")
        lease.refuse_picture(job, 0, error)
        lease.end(job, error)

    worker = threading.Thread(target=refuse)
    worker.start()
    asked = openai.OpenAI(base_url=f"{idle}/v1", api_key="any", max_retries=3)
    with pytest.raises(openai.APIError, match="NaN in the prediction") as raised:
        list(asked.images.generate(prompt="x", **({"stream": True} if stream else {})))  # type: ignore[call-overload]
    worker.join()
    assert (raised.value.code, raised.value.type) == ("broken_numbers", "server_error")
    assert lease.claim() is None  # it was asked once
    lease.release()


def test_a_wrong_or_missing_key(gallery: Gallery) -> None:
    with without_worker(gallery, Access.of("127.0.0.1", "sesame")) as address:
        with pytest.raises(openai.AuthenticationError) as raised:
            client(address).models.list()
        assert (raised.value.code, raised.value.type) == ("invalid_api_key", "invalid_request_error")
        assert openai.OpenAI(base_url=f"{address}/v1", api_key="sesame").models.list().data


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [("/v1/completions", {}, 404, "invalid_value"), ("/v1/images/generations", b"{", 400, "invalid_value"),
     ("/v1/images/generations", b"[]", 400, "invalid_value"), ("/v1/images/edits", {}, 400, "invalid_value"),
     ("/v1/images/generations", b"x" * (2 << 20), 413, "invalid_value"), ("/v1/models", {}, 405, "invalid_value")],
)  # fmt: skip
def test_other_routes_and_broken_bodies_have_the_same_form(
    idle: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = (
        ask(idle, path, body, Content_Type="application/json")
        if isinstance(body, bytes)
        else ask(idle, path, body)
    )
    assert answer.status == status
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", code)
