"""Who may come in: an ASGI layer before everything else, the pages' sockets too.

A page of another site may not reach us through its visitor's browser (foreign Host: DNS rebinding; foreign Origin:
forged requests), and on a network nobody may without the token. Knows no route.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "starry_token"
HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?", re.ASCII)  # a name or an address, and a port
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
)
CLOSED = "default-src 'none'"
# Pages fetch nothing from elsewhere. Streamlit's own scripts need the rest: it builds its pages by evaluating, and loads
# components from blobs.
PAGES = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline' blob:; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://{host} wss://{host} data: blob:; "
    "worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
)


@dataclass(frozen=True)
class Access:
    """``hosts``: names we answer to. ``token``: what a caller must know, None on this machine alone. ``any_address``:
    answer to every IP address too, as a server on a network must."""

    hosts: frozenset[str]
    token: str | None = None
    any_address: bool = False

    @classmethod
    def of(cls, host: str, token: str | None, names: tuple[str, ...] = ()) -> Access:
        if token is None:
            return cls(frozenset(LOOPBACK))
        own = socket.gethostname().lower()
        return cls(frozenset({*LOOPBACK, host.lower(), own, f"{own}.local", *names}), token, any_address=True)

    def answers_to(self, name: str) -> bool:
        return name in self.hosts or (self.any_address and _is_address(name))


class AccessMiddleware:
    def __init__(self, app: Callable[..., Awaitable[None]], access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        caller = HTTPConnection(scope)
        if refused := self._refused(caller):
            return await _turn_away(refused, scope, receive, send)
        if scope["type"] == "http":
            pages = PAGES.format(host=caller.headers["host"])
            send = _guarded(send, CLOSED if scope["path"].startswith("/api/") else pages)
        return await self.app(scope, receive, send)

    def _refused(self, caller: HTTPConnection) -> Response | None:
        host = caller.headers.get("host", "")
        if not self.access.answers_to(_name(host)):
            return _no("This server does not answer to that Host.", "本服务器不接受这个 Host。", 421)
        origin, site = caller.headers.get("origin"), caller.headers.get("sec-fetch-site")
        foreign = origin is not None and origin.lower().partition("://")[2] != host.lower()
        if foreign or (site == "cross-site" and caller.headers.get("sec-fetch-mode") != "navigate"):
            return _no("Requests from other sites are refused.", "拒绝来自其他网站的请求。", 403)
        return None if self.access.token is None else self._without_token(caller, self.access.token)

    def _without_token(self, caller: HTTPConnection, token: str) -> Response | None:
        given = caller.query_params.get("token")
        if given is not None and _same(given, token) and caller.scope["type"] == "http":
            rest = urlencode([pair for pair in parse_qsl(caller.url.query) if pair[0] != "token"])
            path = "/" + caller.url.path.lstrip("/")  # two slashes would lead to another site
            answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(COOKIE, token, max_age=30 * 86400, httponly=True, samesite="strict")
            return answer
        bearer = caller.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if _same(bearer, token) or _same(_cookie(caller), token):
            return None
        return _no(
            "This gallery needs its access token: open the address that `starry open` printed, or send it as a Bearer token.",
            "访问这座画廊需要令牌：请打开 `starry open` 打印的地址，或以 Bearer 令牌发送。",
            401,
        )


def _no(en: str, zh: str, status: int) -> Response:
    kind = {401: "Unauthorized", 403: "Forbidden"}.get(status, "Misdirected")
    said = {"message": en, "type": kind, "param": None, "code": None, "en": en, "zh": zh}
    return JSONResponse({"error": said}, status)


def _guarded(send: Send, policy: str) -> Send:
    """What every answer says to browsers, unless a route said something stricter."""

    async def guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in (*HEADERS, ("content-security-policy", policy)):
                headers.setdefault(name, value)
        await send(message)

    return guarded


async def _turn_away(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await answer(scope, receive, send)


def _name(host: str) -> str:
    """The Host header without its port; nothing where it is none."""
    if not HOST.fullmatch(host):
        return ""
    name = urlsplit(f"//{host}").hostname
    return (name or "").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _cookie(caller: HTTPConnection) -> str:
    try:
        found = SimpleCookie(caller.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
