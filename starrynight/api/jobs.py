"""Routes of the queue: submit, watch, cancel, reorder and retry jobs; upload pictures to start from."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio.lowlevel import RunVar
from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.datastructures import UploadFile

from starrynight.api.access import key_of
from starrynight.api.bodies import Route
from starrynight.api.feed import JobFeed
from starrynight.api.files import CHECK_AGAIN, PICTURE, check_format, file_response
from starrynight.api.pools import DECODERS, FILES, WRITERS
from starrynight.api.schema import PARTS, answers, body_of, errors, files, one_of, ref
from starrynight.errors import BadRequest, Busy, MissingFile
from starrynight.jobs import validate
from starrynight.jobs.job import STATE_GROUPS, Job
from starrynight.jobs.queue import Queue
from starrynight.jobs.uploads import MAX_BYTES, Uploads
from starrynight.metadata.pixels import notes
from starrynight.request import PaintRequest
from starrynight.storage import read_regular, storing

router = APIRouter(route_class=Route)
_FILE = {"type": "string", "format": "binary"}
PICTURES = ("png", "jpeg", "webp", "avif", "tiff", "gif", "bmp", "jp2", "heic")
UPLOADED = {f"image/{kind}": _FILE for kind in PICTURES} | {
    "multipart/form-data": {
        "type": "object",
        "properties": {"file": _FILE},
        "required": ["file"],
        "additionalProperties": False,
    }
}
MAX_UPLOADS = 8  # received or decoded at once; each takes up to 33 MB until it is decoded
_FEED: RunVar[JobFeed] = RunVar("starrynight.feed")


async def queue_of(request: Request) -> Queue:
    return request.app.state.queue


QueueDep = Annotated[Queue, Depends(queue_of)]


@router.post(
    "/jobs",
    status_code=201,
    responses=answers("SubmittedJob", 201) | errors(404, 422, 429, 501),
    openapi_extra=body_of({"application/json": ref("PaintRequest")}),
)
@WRITERS.route
def submit(fields: Annotated[dict[str, Any], Body()], request: Request) -> dict[str, Any]:
    """The body is the fields of a PaintRequest; only ``prompt`` is required. ``warnings``: what will be ignored, {en, zh}."""
    asked = validate.validate_request(fields, request.app.state.gallery)
    warnings = [{"en": en, "zh": zh} for en, zh in validate.warnings_for(asked)]
    return submit_as_caller(request, asked).to_dict() | {"warnings": warnings}


def submit_as_caller(request: Request, asked: PaintRequest) -> Job:
    """Submit a checked request under the caller's key, within its limit; the request's log line names the job.

    Every route that paints submits here. Raises ``QueueFull``.
    """
    key = key_of(request)
    job = request.app.state.queue.submit(asked, key and key.id, key and key.queue)
    request.state.job = job.id
    return job


@router.post(
    "/prompt",
    responses=answers("Reading") | errors(404),
    openapi_extra=body_of({"application/json": ref("Prompt")}),
)
def prompt(fields: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """What of ``prompt`` the ``model`` never read, with near words that it knows, and the styles that the prompt names."""
    return validate.read_prompt(fields)


@router.get("/jobs", responses=answers("Jobs"))
def listed(
    queue: QueueDep,
    state: Annotated[str, Query(json_schema_extra=one_of(*STATE_GROUPS, *STATE_GROUPS["all"]))] = "active",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    """``state``: active, ended, all, or the name of one state."""
    if state not in (known := [*STATE_GROUPS, *STATE_GROUPS["all"]]):
        raise BadRequest(f"state is one of {', '.join(known)}.", f"state 可选：{'、'.join(known)}。")
    return {"jobs": [job.to_dict() for job in queue.list(STATE_GROUPS.get(state, (state,)), limit)]}


@router.get("/jobs/{job}", responses=answers("Job"))
def one(job: str, queue: QueueDep) -> dict[str, Any]:
    return queue.get(job).to_dict()


@router.post("/jobs/{job}/cancel", responses=answers("Job"))
@WRITERS.route
def cancel(job: str, queue: QueueDep) -> dict[str, Any]:
    return queue.cancel(job).to_dict()


@router.post("/jobs/{job}/move", responses=answers("Job"))
@WRITERS.route
def move(
    job: str, position: Annotated[int, Body(embed=True, ge=0, strict=True)], queue: QueueDep
) -> dict[str, Any]:
    return queue.move(job, position).to_dict()


@router.post("/jobs/{job}/retry", responses=answers("Job"))
@WRITERS.route
def retry(job: str, queue: QueueDep) -> dict[str, Any]:
    return queue.retry(job).to_dict()


@router.get("/jobs/{job}/preview", response_class=Response, responses=files("image/webp", parts=False))
def preview(job: str, queue: QueueDep) -> Response:
    if (newest := queue.preview(job)) is None:
        raise MissingFile("This job has no preview yet.", "这个任务还没有预览。")
    return Response(newest.image, media_type="image/webp", headers={"Cache-Control": "no-store"})


async def feed_of(queue: QueueDep) -> JobFeed:
    """The feed of this event loop."""
    try:
        return _FEED.get()
    except LookupError:
        _FEED.set(feed := JobFeed(queue))
        return feed


FeedDep = Annotated[JobFeed, Depends(feed_of)]


def found(job: str, queue: QueueDep, feed: FeedDep) -> Job:
    """Read the job before the stream begins, so that an unknown job is a 404 and not an empty stream."""
    feed.check()
    return queue.get(job)


@router.get("/jobs/{job}/events", response_class=EventSourceResponse)
async def events(first: Annotated[Job, Depends(found)], feed: FeedDep) -> AsyncIterator[ServerSentEvent]:
    """Server-Sent Events: ``job`` at each change, ``preview``, ``picture`` when finished, ``ended`` last."""
    yield ServerSentEvent(retry=1000, comment="starry night")
    shown, finished = -1, 0
    async with contextlib.aclosing(feed.changes(first.id)) as changes:
        async for change in changes:
            if change is None:  # a comment keeps proxies from closing the connection
                yield ServerSentEvent(comment="still here")
                continue
            job, newest = change
            yield ServerSentEvent(event="job", data=job.to_dict(), id=str(job.revision))
            if newest is not None and newest.revision != shown:
                shown = newest.revision
                yield ServerSentEvent(event="preview", data=_preview(job, newest.image))
            for picture in job.painted[finished:]:
                yield ServerSentEvent(event="picture", data=vars(picture))
            finished = len(job.painted)
            if job.ended:
                yield ServerSentEvent(event="ended", data=job.to_dict())
                return


def _preview(job: Job, image: bytes) -> dict[str, Any]:
    url = f"data:image/webp;base64,{base64.b64encode(image).decode()}"
    return {"picture": job.picture, "step": job.step, "steps": job.steps, "image": url}


async def uploading(request: Request) -> AsyncIterator[None]:
    """A place among the uploads that are received at once. Raises ``Busy`` if there is none."""
    state = request.app.state
    if state.uploading >= MAX_UPLOADS:
        raise Busy(
            "Too many uploads at once; try again in a few seconds.", "同时上传的图片太多；请几秒后再试。"
        )
    state.uploading += 1
    try:
        yield
    finally:
        state.uploading -= 1


upload_place = contextlib.asynccontextmanager(uploading)


@router.post(
    "/uploads", status_code=201, max_body_size=MAX_BYTES + (1 << 20), dependencies=[Depends(uploading)],
    responses=answers("Upload", 201) | errors(422), openapi_extra=body_of(UPLOADED),
)  # fmt: skip
async def upload(request: Request) -> dict[str, Any]:
    """The body is the picture, or a form with ``file``. Only its pixels are kept; ``warnings``: what of them is not, {en, zh}."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        async with request.form(max_files=1, max_fields=0) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise BadRequest("The form has no file in its field “file”.", "表单的“file”字段里没有文件。")
            data = await file.read()
    else:
        data = await request.body()
    name, width, height = await DECODERS.run(Uploads().save, data)
    warnings = [{"en": en, "zh": zh} for en, zh in await DECODERS.run(notes, data)]
    return {"init_image": f"{validate.UPLOAD}{name}", "width": width, "height": height, "warnings": warnings}


@router.get(
    "/uploads/{name}",
    response_class=Response,
    responses=files("image/png") | errors(422),
    openapi_extra=PARTS,
)
@FILES.route
def uploaded(name: str, request: Request) -> Response:
    """An upload, as it was stored."""
    path = Uploads().path(name)
    with storing(path):
        data = check_format(read_regular(path.parent, path.name), "png")
    return file_response(request, data, "image/png", PICTURE | CHECK_AGAIN)
