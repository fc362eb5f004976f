"""OpenAI's Images API: /v1/images/generations, /v1/images/edits and /v1/models, for clients that are made for it.

https://developers.openai.com/api/reference/resources/images (read 2026-11). Beyond its fields it takes those of vLLM-Omni
(negative_prompt, num_inference_steps, guidance_scale, seed, lora) and ours (style, precision, sampler, strength).
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.sse import format_sse_event
from starlette.datastructures import UploadFile

from starrynight.api.bodies import Route
from starrynight.api.error_forms import openai_code, openai_type
from starrynight.api.jobs import upload_place
from starrynight.api.pools import DECODERS, FILES
from starrynight.api.schema import answers, body_of, errors, event_of, ref
from starrynight.api.submission import Studio, StudioDep, notes_on, sort_fields, stored_error
from starrynight.api.values import choice, flag, whole
from starrynight.errors import BadRequest, MissingField, StarryError, UnknownName, WrongSize
from starrynight.i18n import Text
from starrynight.jobs import validate
from starrynight.jobs.job import Job
from starrynight.jobs.uploads import MAX_BYTES, Uploads
from starrynight.models import catalogue, sizes
from starrynight.painting.styles import styles
from starrynight.picture import enlarged
from starrynight.text import excerpt

router = APIRouter(route_class=Route)
MOST, MOST_PARTIALS = 10, 3  # pictures of a request, partial pictures of one
FORMATS = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
DALLE_STYLES = ("vivid", "natural")  # of a model that OpenAI has retired; clients still send them

PAINTED = answers("OpenAIImages") | errors(404, 422, 429, 499, 501, 502)
PAINTED[200]["content"]["text/event-stream"] = {"itemSchema": event_of("OpenAIEvent")}

# Our fields by theirs. The other fields are read by name below.
OURS = {
    "prompt": "prompt", "negative_prompt": "negative_prompt", "model": "model", "style": "style",
    "num_inference_steps": "steps", "guidance_scale": "guidance", "seed": "seed", "precision": "precision",
    "sampler": "sampler", "strength": "strength",
}  # fmt: skip
THEIRS = {ours: theirs for theirs, ours in OURS.items()} | {
    "count": "n", "width": "size", "height": "size", "loras": "lora", "init_image": "image"
}  # fmt: skip
KNOWN = (
    *OURS, "n", "size", "lora", "response_format", "output_format", "output_compression", "stream", "partial_images",
    "background", "mask",
)  # fmt: skip
WHOLE, REAL, FLAGS = (
    ("n", "seed", "num_inference_steps", "output_compression", "partial_images"),
    ("guidance_scale", "strength"),
    ("stream",),
)
_NO_TIERS = Text(
    "models here have no tiers of it; num_inference_steps sets the effort",
    "这里的模型没有这种档次；请用 num_inference_steps",
)
_NOBODY = Text("no user is tracked here", "这里不记录用户")
INERT = {
    "quality": _NO_TIERS, "complexity": _NO_TIERS, "user": _NOBODY, "safety_identifier": _NOBODY,
    "moderation": Text("nothing is moderated here", "这里没有内容审核"),
    "input_fidelity": Text("strength sets how much of the picture stays", "保留原图的程度由 strength 决定"),
}  # fmt: skip


class _Asked:
    """A request in our words: ``fields`` of a PaintRequest, and how the pictures are to be answered.

    Raises BadRequest or UnknownField that names the field at fault.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        found, self.notes = sort_fields(given, KNOWN, INERT, THEIRS)
        if "prompt" not in found:
            raise MissingField(
                "prompt is missing; describe the picture.", "缺少 prompt；请写下想画什么。", "prompt"
            )
        self.fields = {ours: found[theirs] for theirs, ours in OURS.items() if theirs in found}
        self.fields["count"] = whole("n", found.get("n", 1), 1, MOST)
        self.auto = found.get("size", "auto") == "auto"
        if not self.auto:
            self.fields["width"], self.fields["height"] = _size(found["size"])
        if "lora" in found:
            self.fields["loras"] = _loras(found["lora"])
        self._read_style()
        self.by_url = (
            choice("response_format", found.get("response_format", "b64_json"), ("b64_json", "url")) == "url"
        )
        self.format = choice("output_format", found.get("output_format", "png"), tuple(FORMATS))
        self.quality = self._read_compression(found.get("output_compression"))
        if found.get("background", "auto") not in ("auto", "opaque"):
            raise BadRequest(
                "Pictures here have an opaque background; leave background out.",
                "这里的画背景都不透明；请不要写 background。", "background",
            )  # fmt: skip
        if "mask" in found:
            raise BadRequest(
                "mask is a file beside an image of /v1/images/edits.", "mask 是 /v1/images/edits 中随 image 一起发送的文件。", "mask"
            )  # fmt: skip
        self.stream = flag("stream", found.get("stream", False))
        self.partials = whole("partial_images", found.get("partial_images", 0), 0, MOST_PARTIALS)
        if self.partials and not self.stream:
            self.notes.append(
                Text("partial_images: only a stream has them", "partial_images：只有 stream 才有")
            )

    def _read_style(self) -> None:
        style = self.fields.get("style")
        if style in DALLE_STYLES and style not in styles():
            del self.fields["style"]
            known = ", ".join(styles())
            self.notes.append(
                Text(
                    f"style {style}: of DALL·E 3; here: {known}",
                    f"style {style}：属于 DALL·E 3；这里有：{known}",
                )
            )

    def _read_compression(self, given: object) -> int | None:
        if given is None:
            return None
        quality = whole("output_compression", given, 0, 100)
        if self.format == "png":
            self.notes.append(Text("output_compression: PNG is lossless", "output_compression：PNG 是无损的"))
            return None
        return max(1, quality)


@router.get("/models", responses=answers("OpenAIModels"))
def models() -> dict[str, Any]:
    """The models whose files are on this machine."""
    found = [catalogue.find(name) for name in catalogue.names()]
    return {"object": "list", "data": [_model(spec) for spec in found if catalogue.is_here(spec)]}


@router.get("/models/{model}", responses=answers("OpenAIModel"))
def model(model: str) -> dict[str, Any]:
    here = [spec for spec in map(catalogue.find, catalogue.names()) if catalogue.is_here(spec)]
    for spec in here:
        if spec.name.casefold() == model.casefold():
            return _model(spec)
    raise UnknownName(catalogue.KIND, excerpt(model), [spec.name for spec in here])


def _model(spec: catalogue.ModelSpec) -> dict[str, Any]:
    try:
        created = int(spec.path.stat().st_mtime)
    except OSError:
        created = 0
    owner = (spec.hub or "starry-night").partition("/")[0]
    return {"id": spec.name, "object": "model", "created": created, "owned_by": owner}


@router.post(
    "/images/generations",
    response_model=None,
    responses=PAINTED,
    openapi_extra=body_of({"application/json": ref("OpenAIGeneration")}),
)
async def generations(fields: Annotated[dict[str, Any], Body()], studio: StudioDep) -> Response:
    """Paint ``n`` pictures; with ``stream`` as server-sent events, partial pictures first. The body's fields are those of
    OpenAI, and extensions."""
    return await _paint(studio, _Asked(fields), "image_generation")


@router.post(
    "/images/edits",
    response_model=None,
    max_body_size=2 * MAX_BYTES + (1 << 20),
    responses=PAINTED,
    openapi_extra=body_of({"multipart/form-data": ref("OpenAIEdit")}),
)
async def edits(request: Request, studio: StudioDep) -> Response:
    """Paint over a picture, only where ``mask`` is transparent if there is one. ``strength`` is the share of the steps that
    are taken from it: 0.6, or 1 with a mask. ``size`` is that of the picture, rounded to what the model paints, unless it
    is given.
    """
    async with upload_place(request):
        fields, image, mask = await _form(request)
        asked = _Asked(fields)
        name, width, height = await DECODERS.run(Uploads().save, image)
        if mask is not None:
            kept = await DECODERS.run(Uploads().save_mask, mask, True)
            asked.fields["mask"] = f"{validate.UPLOAD}{kept}"
    asked.fields["init_image"] = f"{validate.UPLOAD}{name}"
    if asked.auto:
        spec = await FILES.run(validate.installed, asked.fields.get("model", catalogue.default()))
        size = sizes.of_format(spec, width / height, max(width, height))
        asked.fields["width"], asked.fields["height"] = size
    return await _paint(studio, asked, "image_edit")


async def _form(request: Request) -> tuple[dict[str, Any], bytes, bytes | None]:
    """The fields of a form, numbers and flags read from their texts, its one picture, and its mask."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest(
            "An edit is sent as multipart/form-data.", "修改图片的请求应以 multipart/form-data 发送。"
        )
    fields: dict[str, Any] = {}
    pictures: list[bytes] = []
    mask: bytes | None = None
    async with request.form(max_files=4, max_fields=64) as form:
        for name, value in form.multi_items():
            plain = name.removesuffix("[]")
            if plain == "image" and isinstance(value, UploadFile):
                pictures.append(await value.read())
            elif plain == "mask" and isinstance(value, UploadFile):
                mask = await value.read()
            elif isinstance(value, UploadFile):
                fields[plain] = "a file"
            else:
                fields[plain] = _read_text(plain, value)
    if len(pictures) != 1:
        raise (MissingField if not pictures else BadRequest)(
            f"image is one picture here, not {len(pictures)}; send one file in the field image.",
            f"这里的 image 是一幅图片，而不是 {len(pictures)} 幅；请在 image 字段中发送一个文件。", "image",
        )  # fmt: skip
    return fields, pictures[0], mask


def _read_text(name: str, text: str) -> Any:
    """A form's value as JSON would give it; a text that is no such value is refused where the field is checked."""
    if name in FLAGS:
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
    if name in (*WHOLE, *REAL) or (name == "lora" and text.startswith(("[", "{"))):
        try:
            return int(text) if name in WHOLE else float(text) if name in REAL else json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _size(value: object) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", value, re.ASCII) if isinstance(value, str) else None
    if found is None:
        raise WrongSize(
            f"size is WIDTHxHEIGHT in pixels, as 512x512, or auto; not {excerpt(value)}.",
            f"size 写作 宽x高（像素），例如 512x512，或 auto；而不是 {excerpt(value)}。", "size",
        )  # fmt: skip
    return int(found[1]), int(found[2])


def _loras(value: object) -> list[tuple[Any, Any]]:
    """LoRAs as they are sent: a name, "name:0.8", {"name", "scale"} as vLLM-Omni has it, or a list of these."""
    return [_lora(one) for one in (value if isinstance(value, list) else [value])]


def _lora(value: object) -> tuple[Any, Any]:
    if isinstance(value, str):
        name, colon, weight = value.rpartition(":")
        with_weight = colon and re.fullmatch(r"-?\d*\.?\d+", weight, re.ASCII)
        return (name, float(weight)) if with_weight else (value, 1.0)
    if isinstance(value, dict) and set(value) <= {"name", "scale", "weight"} and "name" in value:
        return value["name"], value.get("scale", value.get("weight", 1.0))
    raise BadRequest(
        f'lora is a name, "name:0.8" or {{"name", "scale"}}, not {excerpt(value)}.',
        f'lora 写作名字、"名字:0.8" 或 {{"name", "scale"}}，而不是 {excerpt(value)}。', "lora",
    )  # fmt: skip


# Painting and answering


async def _paint(studio: Studio, asked: _Asked, kind: str) -> Response:
    try:
        job, warnings = await studio.submit(asked.fields, THEIRS)
    except UnknownName as error:
        error.status = 404 if error.param == "model" else 400  # to OpenAI a name is a value like any other
        raise
    notes = [*asked.notes, *warnings]
    if asked.stream:
        return StreamingResponse(_events(studio, asked, job, notes, kind), media_type="text/event-stream")
    job = await studio.finish(job)
    pictures = [
        await _picture(studio, asked, job, one.index, one.picture) for one in job.painted if one.picture
    ]
    return JSONResponse(
        {
            "created": int(time.time()), **_facts(job, asked), "quality": None, "data": pictures, "usage": None,
            "warnings": _both([*notes, *notes_on(job)]),
        }
    )  # fmt: skip


def _facts(job: Job, asked: _Asked) -> dict[str, Any]:
    request = job.request
    return {
        "background": "opaque",
        "output_format": asked.format,
        "size": f"{request.width}x{request.height}",
    }


async def _picture(studio: Studio, asked: _Asked, job: Job, index: int, picture: str) -> dict[str, Any]:
    """A picture as a URL of this server or in Base64, with its id in the gallery and its seed."""
    found: dict[str, Any] = {"id": picture, "seed": job.request.seed_of(index)}
    if asked.by_url:
        quality = f"&quality={asked.quality}" if asked.quality else ""
        path = f"api/pictures/{picture}/download?format={asked.format}{quality}"
        return found | {"url": f"{studio.request.base_url}{path}"}
    data = await studio.file(picture, asked.format, asked.quality)
    return found | {"b64_json": base64.b64encode(data).decode()}


async def _events(
    studio: Studio, asked: _Asked, job: Job, notes: list[Text], kind: str
) -> AsyncIterator[bytes]:
    """``partial_image`` events at even shares of a picture's steps, ``completed`` for each picture, ``error`` at last if
    the job failed."""
    sent, finished = 0, 0
    try:
        async with contextlib.aclosing(studio.watch(job)) as changes:
            async for change in changes:
                if change is None:
                    yield format_sse_event(comment="still here")
                    continue
                job, preview = change
                for one in job.painted[finished:]:
                    sent = 0
                    if one.picture:
                        yield await _completed(studio, asked, job, one.index, one.picture, notes, kind)
                    elif job.request.count > 1 and one.error:
                        notes = [*notes, Text(one.error["en"], one.error["zh"])]
                finished = len(job.painted)
                share = (job.step or 0) / job.steps if job.steps and job.picture is not None else 0.0
                due = sent < asked.partials and share >= (sent + 1) / (asked.partials + 1)
                if due and preview is not None and job.picture == finished:
                    yield await _partial(asked, job, preview.image, sent, kind)
                    sent += 1
        if job.error is not None and not job.pictures:
            raise stored_error(job.error)
    except StarryError as error:
        yield _error_event(studio.request, error)


async def _completed(
    studio: Studio, asked: _Asked, job: Job, index: int, picture: str, notes: list[Text], kind: str
) -> bytes:
    found = await _picture(studio, asked, job, index, picture)
    return _event(f"{kind}.completed", job, asked, found | {"usage": None, "warnings": _both(notes)})


async def _partial(asked: _Asked, job: Job, preview: bytes, index: int, kind: str) -> bytes:
    """The preview, one pixel for each latent, at the size of the picture."""

    request = job.request
    large = await DECODERS.run(enlarged, preview, request.width, request.height, asked.format)
    data = base64.b64encode(large).decode()
    return _event(f"{kind}.partial_image", job, asked, {"b64_json": data, "partial_image_index": index})


def _event(name: str, job: Job, asked: _Asked, more: dict[str, Any]) -> bytes:
    data = {"type": name, "created_at": int(time.time()), **_facts(job, asked), "quality": "auto", **more}
    return format_sse_event(event=name, data_str=json.dumps(data, ensure_ascii=False, allow_nan=False))


def _error_event(request: Request, error: StarryError) -> bytes:
    lang = request.query_params.get("lang") or request.headers.get("accept-language", "")
    kind = type(error).__name__
    body = {
        "message": error.message(lang), "type": openai_type(error.status), "param": error.param,
        "code": openai_code(kind, error.param), "en": error.en, "zh": error.zh,
    }  # fmt: skip
    return format_sse_event(
        event="error", data_str=json.dumps({"error": body}, ensure_ascii=False, allow_nan=False)
    )


def _both(notes: list[Text]) -> list[dict[str, str]]:
    return [{"en": note.en, "zh": note.zh} for note in notes]
