"""``create_app``: the HTTP application over a gallery and its queue, with /api/health and /api/metrics.

Every error is answered as {"error": {...}} with its own status. Whatever is mounted behind the application
(the pages) gets the requests that no route takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from starrynight import __version__, validation_messages
from starrynight.api import annotations as annotation_routes
from starrynight.api import error_response, jobs, lab, pictures
from starrynight.errors import BadRequest, StarryError
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.jobs.queue import Queue
from starrynight.text import clean

MAX_BODY = 1 << 20  # bytes; the upload route sets its own limit
NO_ROUTE = Text("There is no {}; see docs/api.md.", "没有接口 {}；见 docs/api.md。")
HTTP_MESSAGES = {404: NO_ROUTE, 405: NO_ROUTE, 413: Text("The request is too large.", "请求体太大。")}

log = logging.getLogger("starrynight.api")
health_routes = APIRouter()


def create_app(
    gallery: Gallery, queue: Queue, worker_alive: Callable[[], bool], lifespan: Any = None
) -> FastAPI:
    app = FastAPI(
        title="Starry Night 璀璨星河", version=__version__, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url="/api/openapi.json",  # their pages load scripts from a CDN
    )  # fmt: skip
    app.state.gallery, app.state.queue, app.state.worker_alive = gallery, queue, worker_alive
    for router in (jobs.router, lab.router, annotation_routes.router, pictures.router, health_routes):
        app.include_router(router, prefix="/api", max_body_size=MAX_BODY)
    # Without this route the pages behind the application would answer an unknown /api path with HTML.
    app.add_api_route(
        "/api/{rest:path}", _no_route, methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False
    )
    app.add_exception_handler(StarryError, _on_starry_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_field)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected)
    return app


@health_routes.get("/health")
def health(request: Request) -> dict[str, Any]:
    state = request.app.state
    return {
        "status": "ok",
        "version": __version__,
        "worker": "alive" if state.worker_alive() else "starting",
        "jobs": state.queue.counts(),
        "pictures": state.gallery.count(),
    }


@health_routes.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus's text format, version 0.0.4."""
    found = health(request)
    lines = [
        "# TYPE starry_pictures gauge", f"starry_pictures {found['pictures']}",
        "# TYPE starry_worker_alive gauge", f"starry_worker_alive {int(found['worker'] == 'alive')}",
        "# TYPE starry_jobs gauge", *(f'starry_jobs{{state="{name}"}} {n}' for name, n in found["jobs"].items()),
    ]  # fmt: skip
    return Response("\n".join([*lines, ""]), media_type="text/plain; version=0.0.4")


def _no_route(rest: str) -> None:
    raise HTTPException(404, "Not found")


def _respond(
    request: Request, error: StarryError, status: int | None = None, param: str | None = None
) -> JSONResponse:
    message = Text(error.en, error.zh)
    return error_response(request, type(error).__name__, message, status or error.status, param)


def _on_starry_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarryError)
    return _respond(request, error)


def _on_invalid_field(request: Request, error: Exception) -> JSONResponse:
    """A field of the wrong type or out of range: 400 and a message in both languages, not FastAPI's 422."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _respond(request, BadRequest("The body is not JSON.", "请求体不是 JSON。"))
    field = ".".join(clean(str(part))[:60] for part in first["loc"][1:]) or "body"
    return _respond(request, validation_messages.validation_error(field, first), param=field)


def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: an unknown route, another method, a body that is too large."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {clean(request.url.path)[:100]}"
    if message := HTTP_MESSAGES.get(error.status_code):
        refused = BadRequest(message.en.format(asked), message.zh.format(asked))
    else:
        refused = BadRequest(f"{error.detail.rstrip('.')}: {asked}.", f"请求被拒绝：{asked}。")
    return _respond(request, refused, error.status_code)


def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _respond(
        request,
        StarryError(
            "The server failed unexpectedly; see its log for why.", "服务器发生意外错误；原因见日志。"
        ),
    )
