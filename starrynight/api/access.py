"""Access control: an ASGI middleware in front of all routes and of the pages' sockets.

It keeps pages of other sites from reaching the server through a visitor's browser (a foreign Host header
means DNS rebinding, a foreign Origin a forged request), and requires a token when the server is open to a
network.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starrynight.api import error_response
from starrynight.i18n import Text

COOKIE = "starry_token"
COOKIE_AGE = 30 * 86400  # seconds
HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?", re.ASCII)  # a name or an address, and a port
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
)
API_POLICY = "default-src 'none'"
# Pages load nothing from other sites. Streamlit needs unsafe-eval, because it builds pages by evaluating
# code, and blob:, because it loads components from blobs.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline' blob:; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://{host} wss://{host} data: blob:; "
    "worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
)


@dataclass(frozen=True)
class Access:
    """``hosts``: names accepted in a Host header. ``token``: what a caller must send; None on a loopback
    address. ``any_address``: accept every IP address as Host too, as a server on a network must."""

    hosts: frozenset[str]
    token: str | None = None
    any_address: bool = False

    @classmethod
    def of(cls, host: str, token: str | None) -> Access:
        """The access rules of a server that listens on ``host``."""
        if token is None:
            return cls(frozenset(LOOPBACK))
        own = socket.gethostname().lower()
        return cls(frozenset({*LOOPBACK, host.lower(), own, f"{own}.local"}), token, any_address=True)

    def accepts_host(self, name: str) -> bool:
        return name in self.hosts or (self.any_address and _is_address(name))


class AccessMiddleware:
    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        caller = HTTPConnection(scope)
        if response := self._check(caller):
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close", "code": 1008})  # policy violation, RFC 6455
            return await response(scope, receive, send)
        if scope["type"] == "http":
            pages = PAGE_POLICY.format(host=caller.headers["host"])
            send = _with_headers(send, API_POLICY if scope["path"].startswith("/api/") else pages)
        return await self.app(scope, receive, send)

    def _check(self, caller: HTTPConnection) -> Response | None:
        """The response that refuses the caller (or sets its cookie); None to let the request through."""
        host = caller.headers.get("host", "")
        if not self.access.accepts_host(_host_name(host)):
            message = Text("This server does not answer to that Host.", "本服务器不接受这个 Host。")
            return error_response(caller, "Misdirected", message, 421)
        origin, site = caller.headers.get("origin"), caller.headers.get("sec-fetch-site")
        foreign = origin is not None and origin.lower().partition("://")[2] != host.lower()
        if foreign or (site == "cross-site" and caller.headers.get("sec-fetch-mode") != "navigate"):
            message = Text("Requests from other sites are refused.", "拒绝来自其他网站的请求。")
            return error_response(caller, "Forbidden", message, 403)
        return None if self.access.token is None else _check_token(caller, self.access.token)


def _check_token(caller: HTTPConnection, token: str) -> Response | None:
    """None for a valid cookie or Bearer token. ``?token=`` is exchanged for a cookie and removed from the
    address, so that it stays out of the browser's history and of Referer headers."""
    given = caller.query_params.get("token")
    if given is not None and _equal(given, token) and caller.scope["type"] == "http":
        rest = urlencode([pair for pair in parse_qsl(caller.url.query) if pair[0] != "token"])
        path = "/" + caller.url.path.lstrip("/")  # a path of two slashes would redirect to another site
        redirect = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        redirect.set_cookie(COOKIE, token, max_age=COOKIE_AGE, httponly=True, samesite="strict")
        return redirect
    bearer = caller.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if _equal(bearer, token) or _equal(_cookie(caller), token):
        return None
    message = Text(
        "This gallery needs its access token: open the address that `starry open` printed, "
        "or send it as a Bearer token.",
        "访问这座画廊需要令牌：请打开 `starry open` 打印的地址，或以 Bearer 令牌发送。",
    )
    return error_response(caller, "Unauthorized", message, 401)


def _with_headers(send: Send, policy: str) -> Send:
    """Add the security headers to a response, except those that its route has set more strictly."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in (*HEADERS, ("content-security-policy", policy)):
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers


def _host_name(host: str) -> str:
    """The Host header without its port, in lower case; "" if it is malformed."""
    return (urlsplit(f"//{host}").hostname or "").lower() if HOST.fullmatch(host) else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _equal(given: str, token: str) -> bool:
    """In constant time, so that the response time does not reveal how much of the token is right."""
    return hmac.compare_digest(given.encode(), token.encode())


def _cookie(caller: HTTPConnection) -> str:
    try:
        found = SimpleCookie(caller.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
