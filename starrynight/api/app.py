"""``create_app``: the HTTP application over a gallery and its queue, with its health, probes and metrics.

Every error is answered as {"error": {...}} with its own status. Whatever is mounted behind the application
(the pages) gets the requests that no route takes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from starrynight import __version__, validation_messages
from starrynight.api import (
    a1111,
    chat,
    error_response,
    exhibition,
    inspect,
    jobs,
    lab,
    loras,
    openai,
    pictures,
    schema,
    schema_families,
    schema_senses,
    senses,
    transcriptions,
)
from starrynight.api import annotations as annotation_routes
from starrynight.api.bodies import Route
from starrynight.api.error_forms import A1111, OPENAI, ROOTS
from starrynight.api.health import Health
from starrynight.api.limits import TOO_LARGE, TooLargeInJson
from starrynight.api.metrics import MEDIA_TYPE, Metrics
from starrynight.api.schema import answers, errors, files
from starrynight.errors import BadRequest, Busy, StarryError
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.jobs.queue import Queue
from starrynight.text import clean

METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]  # a HEAD arrives as GET
MAX_BODY = 1 << 20  # bytes; the upload route sets its own limit
NO_ROUTE = Text("There is no {}; see docs/api.md.", "没有接口 {}；见 docs/api.md。")
HTTP_MESSAGES = {404: NO_ROUTE, 405: NO_ROUTE, 413: TOO_LARGE}

log = logging.getLogger("starrynight.api")
health_routes = APIRouter(route_class=Route)
probes = APIRouter(route_class=Route)


def create_app(
    gallery: Gallery, queue: Queue, worker_alive: Callable[[], bool], lifespan: Any = None
) -> FastAPI:
    app = FastAPI(
        title="Starry Night 璀璨星河", version=__version__, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url="/api/openapi.json",  # their pages load scripts from a CDN
    )  # fmt: skip
    app.state.gallery, app.state.queue, app.state.uploading = gallery, queue, 0
    app.state.health, app.state.metrics = Health(gallery, queue, worker_alive), Metrics()
    for router in (
        jobs.router,
        lab.router,
        loras.router,
        annotation_routes.router,
        exhibition.router,
        pictures.router,
        senses.about,
        health_routes,
    ):
        app.include_router(router, prefix="/api", max_body_size=MAX_BODY)
    app.include_router(probes)
    app.include_router(openai.router, prefix=OPENAI.rstrip("/"), max_body_size=MAX_BODY)
    app.include_router(inspect.router, prefix=OPENAI.rstrip("/"))
    app.include_router(chat.router, prefix=OPENAI.rstrip("/"))
    app.include_router(senses.router, prefix=OPENAI.rstrip("/"))
    app.include_router(transcriptions.router, prefix=OPENAI.rstrip("/"))
    app.include_router(senses.facet_routes, max_body_size=MAX_BODY)
    app.include_router(a1111.router, prefix=f"{A1111}v1", max_body_size=MAX_BODY)
    for root in ROOTS:  # the pages behind the application would answer an unknown path with HTML
        app.add_api_route(f"{root}{{rest:path}}", _no_route, methods=METHODS, include_in_schema=False)
    app.add_middleware(TooLargeInJson)
    app.add_exception_handler(StarryError, _on_starry_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_field)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_unexpected)
    schema.complete(app.openapi(), schema_families.components() | schema_senses.components())
    return app


@health_routes.get("/health", responses=answers("Health"))
async def health(request: Request) -> dict[str, Any]:
    """``status`` is ok or degraded; ``problems`` names what is wrong. Answers at once, whatever hangs."""
    return await request.app.state.health.read()


@health_routes.get("/metrics", response_class=Response, responses=files("text/plain", parts=False))
@probes.get(
    "/metrics", response_class=Response, responses=files("text/plain", parts=False), operation_id="scrape"
)
async def metrics(request: Request) -> Response:
    """Prometheus's text format, version 0.0.4."""
    state = request.app.state
    found = await state.health.read()
    return Response(
        state.metrics.render(found, state.health.tallies, state.health.memory), media_type=MEDIA_TYPE
    )


@probes.get("/healthz", responses=answers("Probe"))
async def healthz() -> dict[str, str]:
    """200 as long as the server answers at all: restart it if this does not come. Needs no key."""
    return {"status": "ok"}


@probes.get("/readyz", responses=answers("Probe") | errors(503))
async def readyz(request: Request) -> dict[str, str]:
    """200 if a job that is submitted now is painted, else 503: send requests elsewhere meanwhile. Needs no key."""
    ready, kinds = await request.app.state.health.ready()
    if not ready:
        raise Busy(
            f"Not ready to paint: {', '.join(kinds)}; /api/health says more.",
            f"还不能作画：{'、'.join(kinds)}；详情见 /api/health。",
        )
    return {"status": "ok"}


def _no_route(request: Request, rest: str) -> None:
    """405 and what is allowed for a path that exists, else 404."""
    for path, methods in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.scope["path"]):
            allowed = sorted({name.upper() for name in methods} | ({"HEAD"} if "get" in methods else set()))
            raise HTTPException(405, "Method not allowed", {"Allow": ", ".join(allowed)})
    raise HTTPException(404, "Not found")


def _respond(
    request: Request, error: StarryError, status: int | None = None, param: str | None = None
) -> JSONResponse:
    message = Text(error.en, error.zh)
    answer = error_response(
        request, type(error).__name__, message, status or error.status, param or error.param
    )
    if error.final:
        answer.headers["X-Should-Retry"] = "false"  # OpenAI's clients send a request again after a 5xx
    elif error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _on_starry_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarryError)
    return _respond(request, error)


def _on_invalid_field(request: Request, error: Exception) -> JSONResponse:
    """A field of the wrong type or out of range: 400 and a message in both languages, not FastAPI's 422."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _respond(request, BadRequest("The body is not JSON in UTF-8.", "请求体不是 UTF-8 的 JSON。"))
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
    answer = _respond(request, refused, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; without this the log would call it a failure


def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _respond(
        request,
        StarryError(
            "The server failed unexpectedly; see its log for why.", "服务器发生意外错误；原因见日志。"
        ),
    )
