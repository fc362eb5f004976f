"""``create_app``: the HTTP application over a gallery and its queue. Whatever is mounted behind it (the pages) gets what no
route here takes.

Every error leaves as {"error": {...}} with the error's own status. Knows neither processes nor ports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from starrynight import __version__, validation_messages
from starrynight.api import annotations as annotation_routes
from starrynight.api import jobs, lab, pictures, state
from starrynight.errors import BadRequest, StarryError
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue
from starrynight.text import clean

MAX_BODY = 1 << 20  # bytes; a route that takes pictures says more

log = logging.getLogger("starrynight.api")


def create_app(
    gallery: Gallery, queue: Queue, worker_alive: Callable[[], bool], lifespan: Any = None
) -> FastAPI:
    app = FastAPI(
        title="Starry Night 璀璨星河", version=__version__, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url="/api/openapi.json",  # their pages fetch scripts from elsewhere
    )  # fmt: skip
    app.state.gallery, app.state.queue, app.state.worker_alive = gallery, queue, worker_alive
    for room in (jobs, lab, annotation_routes, pictures, state):
        app.include_router(room.router, prefix="/api", max_body_size=MAX_BODY)
    app.add_api_route(
        "/api/{rest:path}", _nothing, methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False
    )
    app.add_exception_handler(StarryError, _known)
    app.add_exception_handler(RequestValidationError, _misshapen)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(Exception, _unexpected)
    return app


def answer(
    request: Request, error: StarryError, status: int | None = None, param: str | None = None
) -> JSONResponse:
    """The one shape of errors; ``message`` in the language the caller asks for."""
    lang = request.query_params.get("lang") or request.headers.get("accept-language", "")
    said = {"message": error.message(lang), "type": type(error).__name__, "param": param, "code": None}
    body = {"error": said | {"en": error.en, "zh": error.zh}}
    return JSONResponse(body, status or error.status, headers={"X-Content-Type-Options": "nosniff"})


def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarryError)
    return answer(request, error)


def _nothing(rest: str) -> None:
    """What no route takes must not fall through to the pages, which answer everything with a page."""
    raise HTTPException(404, "Not found")


def _misshapen(request: Request, error: Exception) -> JSONResponse:
    """What FastAPI would call 422: a field that is not what it should be."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return answer(request, BadRequest("The body is not JSON.", "请求体不是 JSON。"))
    field = ".".join(clean(str(part))[:60] for part in first["loc"][1:]) or "body"
    return answer(request, validation_messages.validation_error(field, first), param=field)


def _plain(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: no such route, no such method, too long a body."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {clean(request.url.path)[:100]}"
    en, zh = _PLAIN.get(error.status_code, (f"{error.detail}: {asked}.", f"请求被拒绝：{asked}。"))
    return answer(request, BadRequest(en.format(asked), zh.format(asked)), error.status_code)


_PLAIN = {
    404: ("There is no {}; see docs/api.md.", "没有接口 {}；见 docs/api.md。"),
    405: ("There is no {}; see docs/api.md.", "没有接口 {}；见 docs/api.md。"),
    413: ("The request is too large.", "请求体太大。"),
}


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return answer(
        request,
        StarryError("The server failed unexpectedly; its log tells why.", "服务器发生意外错误；原因见日志。"),
    )
