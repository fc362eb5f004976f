"""POST /v1/pictures/inspect: what picture files say of themselves and what their pixels show. Nothing is stored or painted."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile

from starrynight.api.bodies import Route
from starrynight.api.jobs import upload_place
from starrynight.api.pools import DECODERS
from starrynight.api.schema import answers, body_of
from starrynight.errors import BadFile, BadRequest, MissingField, UnknownField
from starrynight.gallery.inspection import inspect_picture
from starrynight.jobs.uploads import MAX_BYTES, check_length
from starrynight.text import excerpt

router = APIRouter(route_class=Route)
MAX_FILES = 100  # of one request
MAX_BODY = 8 * MAX_BYTES
_FILE = {"type": "string", "format": "binary"}
SENT = dict.fromkeys(("image/png", "image/jpeg", "image/webp", "image/avif", "image/tiff"), _FILE) | {
    "multipart/form-data": {
        "type": "object",
        "properties": {"file": {"type": "array", "items": _FILE, "minItems": 1, "maxItems": MAX_FILES}},
        "required": ["file"],
        "additionalProperties": False,
    }
}


@router.post(
    "/pictures/inspect", max_body_size=MAX_BODY, responses=answers("Inspections"), openapi_extra=body_of(SENT)
)
async def inspect(request: Request) -> dict[str, Any]:
    """The body is one picture, or a form with one or many files ``file``. A file that is no picture has an ``error``."""
    async with upload_place(request):
        if not request.headers.get("content-type", "").startswith("multipart/"):
            if not (data := await request.body()):
                raise MissingField("The body is empty; send a picture.", "请求体是空的；请发送图片。", "file")
            return {"pictures": [await _inspected("", data)]}
        async with request.form(max_files=MAX_FILES, max_fields=8) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    shown = excerpt(name)
                    raise UnknownField(
                        f"“{shown}” is no file; send files only.", f"“{shown}”不是文件；请只发送文件。", shown
                    )
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not files:
                raise BadRequest("The form has no file.", "表单里没有文件。", "file")
            return {"pictures": [await _inspected(file.filename or "", await file.read()) for file in files]}


async def _inspected(name: str, data: bytes) -> dict[str, Any]:
    try:
        check_length(data)
        found = await DECODERS.run(inspect_picture, data)
    except BadFile as error:
        return {
            "name": excerpt(name),
            "error": {"type": type(error).__name__, "en": error.en, "zh": error.zh},
        }
    return {"name": excerpt(name), "error": None, **found}
