"""Access control: an ASGI middleware in front of all routes and of the pages' sockets.

It keeps pages of other sites from reaching the server through a visitor's browser (a foreign Host header
means DNS rebinding, a foreign Origin a forged request), and requires a token or a key when the server is open to a
network. The token is the pages' (``starry open --host`` prints it); keys are for programs (``starry keys make``) and
are looked up in the gallery's database. A key that is sent is checked on an open server too, and its limits hold.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starrynight.api import error_response
from starrynight.api.limits import KeyCheck
from starrynight.errors import StarryError
from starrynight.i18n import Text
from starrynight.jobs.keys import PREFIX, Key, Keys

COOKIE = "starry_token"
COOKIE_AGE = 30 * 86400  # seconds
GALLERY_HEADER = "Starry-Gallery"
MAX_PATH, MAX_NAME = 2048, 255  # characters; bytes of one part, as file systems have it
HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?", re.ASCII)  # a name or an address, and a port
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
)
API_PATHS = ("/api/", "/v1/", "/sdapi/", "/healthz", "/readyz", "/metrics", "/facets")
# Pages that hold nothing of a gallery: they ask their visitor for a key, and send it with what they ask of the API.
OPEN_PAGES, OPEN_FILES = ("/see", "/listen"), "/alone/"
PROBES = ("/healthz", "/readyz")  # asked by process managers, which send no key; they tell nothing but "ok"
API_POLICY = "default-src 'none'"
# Pages load nothing from other sites. Streamlit needs unsafe-eval, because it builds pages by evaluating
# code, and blob:, because it loads components from blobs.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline' blob:; media-src 'self' blob:; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://{host} wss://{host} data: blob:; "
    "worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
)


@dataclass(frozen=True)
class Access:
    """``hosts``: names accepted in a Host header. ``token``: what a caller must send, unless it has a key; None for no
    token. ``required``: whether a caller without token and key is refused. ``keys``: the gallery's; None for none.
    ``any_address``: accept every IP address as Host too, as a server on a network must. ``port``: cookies are
    shared by all ports of a host, so a server's cookie bears its own. ``gallery``: its identity, which a refusal
    for want of a token tells. ``codes``: each exchanged once for the token's cookie."""

    hosts: frozenset[str]
    token: str | None = None
    any_address: bool = False
    port: int | None = None
    gallery: str = ""
    codes: set[str] = field(default_factory=set)
    required: bool = False
    keys: KeyCheck | None = None

    @classmethod
    def of(
        cls,
        host: str,
        token: str | None,
        port: int | None = None,
        gallery: str = "",
        keys: Keys | None = None,
        require_key: bool = False,
        names: Iterable[str] = (),
    ) -> Access:
        """The access rules of a server that listens on ``host``; ``names``: further names of a Host header, as behind
        a proxy. ``require_key``: refuse callers without a key even where there is no token."""
        required = token is not None or require_key
        check = None if keys is None else KeyCheck(keys)
        hosts = {*LOOPBACK, *(name.lower() for name in names)}
        if required and host not in LOOPBACK:
            own = socket.gethostname().lower()
            hosts |= {host.lower(), own, f"{own}.local"}
        any_address = required and host not in LOOPBACK
        return cls(frozenset(hosts), token, any_address, port, gallery, required=required, keys=check)

    def accepts_host(self, name: str) -> bool:
        return name in self.hosts or (self.any_address and _is_address(name))

    @property
    def cookie(self) -> str:
        return COOKIE if self.port is None else f"{COOKIE}_{self.port}"

    def exchanges(self, given: str) -> bool:
        """Whether ``?token=`` may be exchanged for the cookie: the token, or a code that is used up now."""
        if self.token is not None and _equal(given, self.token):
            return True
        if given in self.codes:
            self.codes.discard(given)
            return True
        return False


class AccessMiddleware:
    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        caller = HTTPConnection(scope)
        if response := self._check(caller) or _unless_open(caller, await self._identify(caller)):
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close", "code": 1008})  # policy violation, RFC 6455
            return await response(scope, receive, send)
        if scope["type"] == "http":
            pages = PAGE_POLICY.format(host=caller.headers["host"])
            is_api = scope["path"].startswith(API_PATHS)
            send = _with_headers(send, API_POLICY if is_api else pages, "no-store" if is_api else None)
            if is_api and scope["method"] == "HEAD":
                scope, send = {**scope, "method": "GET"}, _head_only(send)
        return await self.app(scope, receive, send)

    def _check(self, caller: HTTPConnection) -> Response | None:
        """The response that refuses the caller (or sets its cookie); None to let the request through."""
        host = caller.headers.get("host", "")
        if not self.access.accepts_host(_host_name(host)):
            message = Text("This server does not answer to that Host.", "本服务器不接受这个 Host。")
            return error_response(caller, "Misdirected", message, 421)
        if _is_foreign(caller, host):
            message = Text("Requests from other sites are refused.", "拒绝来自其他网站的请求。")
            return error_response(caller, "Forbidden", message, 403)
        if _is_malformed(caller.scope["path"]):
            message = Text("The address is too long or not valid.", "地址太长或无效。")
            return error_response(caller, "BadRequest", message, 414)
        return None

    async def _identify(self, caller: HTTPConnection) -> Response | None:
        """The response to a caller who may not come in; None for one who may, whose key is then in ``state``."""
        access = self.access
        if caller.scope["path"] in PROBES:
            return None
        sent = _sent_key(caller)
        if access.keys is not None and sent.startswith(PREFIX):
            try:
                key = await access.keys.find(sent)
            except StarryError as error:
                return _refused(caller, error)
            if key is not None:
                caller.scope.setdefault("state", {})["key"] = key
                return None
            return _unauthorized(caller, access, _NO_SUCH_KEY)
        if access.token is not None:
            return _check_token(caller, access, sent)
        return _unauthorized(caller, access, _NEEDS_KEY) if access.required else None


def _unless_open(caller: HTTPConnection, response: Response | None) -> Response | None:
    """None in place of a refusal for want of a key, for the pages that ask for one."""
    if response is None or response.status_code != 401 or caller.scope.get("method") not in ("GET", "HEAD"):
        return response
    path = caller.scope["path"]
    return None if path.rstrip("/") in OPEN_PAGES or path.startswith(OPEN_FILES) else response


def key_of(caller: HTTPConnection) -> Key | None:
    """The key that the caller has sent, with its limits; None on an open server, and for the pages' token."""
    return caller.scope.get("state", {}).get("key")


def _sent_key(caller: HTTPConnection) -> str:
    """What follows ``Bearer``, or the password of ``Basic``, which is all that clients of A1111's API can send."""
    scheme, _, sent = caller.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return sent.strip()
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):  # not base64, or not UTF-8
            return base64.b64decode(sent.strip(), validate=True).decode().partition(":")[2]
    return ""


def _is_foreign(caller: HTTPConnection, host: str) -> bool:
    """Whether a page of another site sent this. A link from elsewhere may be followed, a form not be submitted."""
    origin, site = caller.headers.get("origin"), caller.headers.get("sec-fetch-site")
    if origin is not None and origin.lower().partition("://")[2] != host.lower():
        return True
    method = caller.scope.get("method", "GET")  # a socket has none
    if method in ("GET", "HEAD"):
        return site == "cross-site" and caller.headers.get("sec-fetch-mode") != "navigate"
    return site in ("cross-site", "same-site")


def _is_malformed(path: str) -> bool:
    """Whether no file system takes the path, so that a route for files would fail."""
    names = path.encode("utf-8", "replace").split(b"/")
    return b"\0" in path.encode("utf-8", "replace") or len(path) > MAX_PATH or max(map(len, names)) > MAX_NAME


def _check_token(caller: HTTPConnection, access: Access, sent: str) -> Response | None:
    """None for a valid cookie or Bearer token (``sent``). ``?token=`` is exchanged for a cookie and removed from the
    address, so that it stays out of the browser's history and of Referer headers."""
    token = access.token or ""
    given = caller.query_params.get("token")
    if given is not None and caller.scope["type"] == "http" and access.exchanges(given):
        rest = urlencode([pair for pair in parse_qsl(caller.url.query) if pair[0] != "token"])
        path = "/" + caller.url.path.lstrip("/")  # a path of two slashes would redirect to another site
        # 307 keeps the method and the body of what is no reading.
        status = 303 if caller.scope["method"] in ("GET", "HEAD") else 307
        redirect = RedirectResponse(path + (f"?{rest}" if rest else ""), status)
        redirect.set_cookie(access.cookie, token, max_age=COOKIE_AGE, httponly=True, samesite="strict")
        return redirect
    if _equal(sent, token) or any(_equal(value, token) for value in _cookies(caller, access.cookie)):
        return None
    return _unauthorized(caller, access, _NEEDS_TOKEN)


_NEEDS_TOKEN = Text(
    "This gallery needs its access token or a key: open the address that `starry open` printed, "
    "or send the token, or a key of `starry keys make`, as a Bearer token.",
    "访问这座画廊需要令牌或密钥：请打开 `starry open` 打印的地址，"
    "或以 Bearer 令牌发送该令牌或 `starry keys make` 的密钥。",
)
_NEEDS_KEY = Text(
    "This service needs a key: make one with `starry keys make NAME`, and send it as a Bearer token.",
    "访问此服务需要密钥：请用 `starry keys make 名字` 生成，并以 Bearer 令牌发送。",
)
_NO_SUCH_KEY = Text(
    "There is no such key, or it was revoked; `starry keys list` shows those in force.",
    "没有这个密钥，或已被吊销；有效的密钥见 `starry keys list`。",
)


# What a browser shows in place of a page.
_CLOSED = Text(
    "Programs send it; in a browser, the pages below ask for a key, and the studio opens at the address that `starry open --host` prints.",
    "程序发送密钥；在浏览器里，下面两页会向你要密钥，画室则用 `starry open --host` 打印的地址打开。",
)
_CLOSED_PAGE = (
    '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Starry Night · 璀璨星河</title>'
    '<body style="background:#060a18;color:#d9d1bd;font:1rem/1.9 serif;max-width:46rem;margin:12vh auto;padding:0 1.4rem">'
    '<p lang="zh">{zh}</p><p lang="en">{en}</p><p>{links}</p>'
)
_CLOSED_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def _closed_page(message: Text) -> Response:
    links = " · ".join(
        f'<a style="color:#e8c979;display:inline-block;min-height:44px;padding:0 .6rem" href="{path}">{path}</a>'
        for path in OPEN_PAGES
    )
    page = _CLOSED_PAGE.format(zh=message.zh + _CLOSED.zh, en=f"{message.en} {_CLOSED.en}", links=links)
    return HTMLResponse(
        page, 401, headers={"content-security-policy": _CLOSED_POLICY, "cache-control": "no-store"}
    )


def _unauthorized(caller: HTTPConnection, access: Access, message: Text) -> Response:
    """The sentence as the path's family writes it, and as a page where a person's browser asks for a page."""
    is_api = caller.scope["path"].startswith(API_PATHS)
    visits = caller.headers.get("sec-fetch-mode") == "navigate" and not is_api
    refusal = _closed_page(message) if visits else error_response(caller, "Unauthorized", message, 401)
    refusal.headers["WWW-Authenticate"] = "Bearer"
    if access.gallery:
        refusal.headers[GALLERY_HEADER] = access.gallery
    return refusal


def _refused(caller: HTTPConnection, error: StarryError) -> Response:
    """Too many requests of a key, or a database that does not answer."""
    refusal = error_response(caller, type(error).__name__, Text(error.en, error.zh), error.status)
    if error.retry_after is not None:
        refusal.headers["Retry-After"] = str(error.retry_after)
    return refusal


def _head_only(send: Send) -> Send:
    """Send the head of an answer and end it there, so that a HEAD of an event stream ends too."""
    ended = False

    async def send_head(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            ended = True
        elif not ended:
            await send(message)

    return send_head


def _with_headers(send: Send, policy: str, cache: str | None) -> Send:
    """Add the security headers to a response, except those that its route has set more strictly."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in (*HEADERS, ("content-security-policy", policy)):
                headers.setdefault(name, value)
            if cache is not None:
                headers.setdefault("cache-control", cache)
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


def _cookies(caller: HTTPConnection, name: str) -> list[str]:
    """All values of a cookie. Other programs on this host may have set odd cookies, or one of the same name."""
    pairs = [pair.partition("=") for header in caller.headers.getlist("cookie") for pair in header.split(";")]
    return [value.strip().strip('"') for key, _, value in pairs if key.strip() == name]
