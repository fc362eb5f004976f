"""One line of JSON and one count for each request, and the id by which client, log and jobs speak of it.

The line has the path without its query, where a token may stand, and the key's id, never the key.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starrynight.api.access import PROBES
from starrynight.api.metrics import Metrics
from starrynight.logs import REQUEST_ID, REQUESTS
from starrynight.text import clean

HEADER = "X-Request-Id"
ACCEPTED = re.compile(r"[\w.:-]{1,128}", re.ASCII)
QUIET = (*PROBES, "/metrics")  # asked every few seconds: counted, not logged
PREFIXES = ("/api", "/v1", "/sdapi/v1")
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
CLOSED = 499  # nginx's status for a client that left before it was answered

log = logging.getLogger(REQUESTS)


class RequestLog:
    """ASGI middleware, outermost. A caller's ``X-Request-Id`` is kept if it is 1 to 128 letters, digits, and ``_.:-``."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get(HEADER, "")
        request = given if ACCEPTED.fullmatch(given) else secrets.token_hex(8)
        REQUEST_ID.set(
            request
        )  # of this request's task alone; not reset, for what uvicorn logs about it afterwards
        began = time.perf_counter()
        answered: list[tuple[int, float]] = []

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.append((message["status"], time.perf_counter() - began))
                MutableHeaders(raw=message.setdefault("headers", []))[HEADER] = request
            await send(message)

        try:
            return await self.app(scope, receive, send_with_id)
        finally:
            status, seconds = answered[0] if answered else (CLOSED, time.perf_counter() - began)
            self._record(scope, request, status, seconds)

    def _record(self, scope: Scope, request: str, status: int, seconds: float) -> None:
        state = scope.get("state", {})
        method = scope["method"] if scope["method"] in METHODS else "other"  # few label values, whoever calls
        self.metrics.count(method, _route(scope), status, seconds)
        if scope["path"] in QUIET:
            return
        client = scope.get("client")
        facts: dict[str, Any] = {
            "method": scope["method"], "path": clean(scope["path"])[:200], "status": status,
            "ms": round(seconds * 1000, 1), "client": client[0] if client else None,
            "key": key.id if (key := state.get("key")) else None, "job": state.get("job"),
        }  # fmt: skip
        log.info("request", extra={"facts": {"request_id": request} | facts})


def _route(scope: Scope) -> str:
    """The template of the path, few of which there are: "/api/jobs/{job}"; "pages", or "none" for no route."""
    found = scope.get("route")
    if found is None:
        return "none"
    path = str(getattr(found, "path", ""))
    # A route that was included with a prefix knows its own part only.
    prefix = next((one for one in PREFIXES if scope["path"].startswith(one + "/")), "")
    return (path if path.startswith(prefix) else prefix + path) or "pages"
