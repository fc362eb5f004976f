"""Open a URL through the proxy that the environment names, and say in words what went wrong on the way.

urllib reads HTTP_PROXY, HTTPS_PROXY and NO_PROXY; ALL_PROXY and SOCKS are added here. SOCKS takes the package PySocks. A
password in a proxy's address never reaches a message.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from starrynight.errors import BadRequest, MissingPackage
from starrynight.i18n import Text

TIMEOUT = 30  # seconds without a byte
SOCKS = {
    "socks": 2,
    "socks4": 1,
    "socks4a": 1,
    "socks5": 2,
    "socks5h": 2,
}  # → PySocks' numbers of the protocols
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


class WebPage(ValueError):
    """A page of HTML came in place of a listing or a file."""


@dataclass(frozen=True)
class Proxy:
    """``variable`` is the one that names it; ``url`` has a scheme."""

    variable: str
    url: str

    @property
    def scheme(self) -> str:
        return urllib.parse.urlsplit(self.url).scheme.lower()

    def __str__(self) -> str:
        """For messages: "HTTPS_PROXY=http://user:***@host:7890"."""
        parts = urllib.parse.urlsplit(self.url)
        login, at, place = parts.netloc.rpartition("@")
        user, colon, _ = login.partition(":")
        return f"{self.variable}={parts.scheme}://{user}{':***' if colon else ''}{at}{place}"


def proxy_for(url: str) -> Proxy | None:
    """The proxy on the way to ``url``, or None. An address without a scheme is an HTTP proxy's, as curl takes it."""
    parts = urllib.parse.urlsplit(url)
    if parts.hostname is None or urllib.request.proxy_bypass(parts.netloc):
        return None
    named = urllib.request.getproxies()
    for name in (parts.scheme, "all"):
        if address := named.get(name, "").strip():
            return Proxy(f"{name.upper()}_PROXY", address if "://" in address else f"http://{address}")
    return None


def checked_server(address: str, variable: str) -> str:
    """A server's address without a closing slash. Raises BadRequest for one without http:// or https://."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme in ("http", "https") and parts.hostname:
        return address.rstrip("/")
    bare = address.rpartition("://")[2].strip("/") or "hf-mirror.com"
    raise BadRequest(
        f"{variable}={address} does not begin with https:// or http://; write {variable}=https://{bare}.",
        f"{variable}={address} 缺少开头的 https:// 或 http://；请写成 {variable}=https://{bare}。",
    )


def open_url(request: urllib.request.Request) -> Any:
    """The answer, opened through the proxy. Raises MissingPackage or BadRequest for a proxy that cannot be used, and what
    urllib raises; ``cause`` puts that into words.
    """
    proxy = proxy_for(request.full_url)
    if proxy is None:
        handler: Any = urllib.request.ProxyHandler()  # a redirect may lead to a host that takes one
    elif proxy.scheme in SOCKS:
        handler = _socks_handler(proxy)
    elif proxy.scheme in ("http", "https"):
        handler = urllib.request.ProxyHandler({"http": proxy.url, "https": proxy.url})
    else:
        raise BadRequest(
            f"{proxy} is no proxy that can be used; write http://HOST:PORT or socks5://HOST:PORT.",
            f"无法使用代理 {proxy}；请写成 http://主机:端口 或 socks5://主机:端口。",
        )
    return urllib.request.build_opener(handler).open(request, timeout=TIMEOUT)


def _socks_handler(proxy: Proxy) -> Any:
    try:
        import sockshandler
    except ImportError as error:
        raise MissingPackage(
            f"{proxy} is a SOCKS proxy, which needs the package PySocks; install it: pip install PySocks, or name an HTTP "
            "proxy.",
            f"{proxy} 是 SOCKS 代理，需要 PySocks；请安装：pip install PySocks，或改用 HTTP 代理。",
        ) from error
    parts = urllib.parse.urlsplit(proxy.url)
    by_proxy = proxy.scheme not in (
        "socks5",
        "socks4",
    )  # who looks up the host's name: "h" and "a" mean the proxy
    user, password = (
        urllib.parse.unquote(text) if text else None for text in (parts.username, parts.password)
    )
    return sockshandler.SocksiPyHandler(
        SOCKS[proxy.scheme], parts.hostname, parts.port or 1080, by_proxy, user, password
    )


def is_of_the_network(error: BaseException) -> bool:
    """Whether ``error`` came from the network or from what a server sent, not from the disk."""
    known = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError,
             socket.gaierror, ValueError, KeyError, TypeError, AttributeError)  # fmt: skip
    if isinstance(error, known):
        return True
    foreign = type(error).__module__ == "socks"  # PySocks' errors are OSErrors
    return foreign or (isinstance(error, OSError) and error.errno in _UNREACHABLE)


def cause(error: BaseException, server: str) -> Text:
    """What went wrong on the way to ``server``, as the clause of a sentence, with its proxy."""
    clause = _answered(error, server) if isinstance(error, urllib.error.HTTPError) else _failed(error, server)
    proxy = proxy_for(server)
    if proxy is None or str(proxy) in clause.en:
        return clause
    return Text(f"{clause.en} (through the proxy {proxy})", f"{clause.zh}（经过代理 {proxy}）")


def _answered(error: urllib.error.HTTPError, server: str) -> Text:
    """The words for a status: what it asks for."""
    wait = error.headers.get("Retry-After", "") if error.headers else ""
    if error.code == 407:
        return _login(server)
    if error.code == 429:
        seconds = f"{wait} s" if wait.isdecimal() else "a few minutes"
        zh = f" {wait} 秒" if wait.isdecimal() else "几分钟"
        return Text(
            f"{server} takes no more requests for now (429): wait {seconds}",
            f"{server} 暂时限流（429）：请等待{zh}",
        )
    return Text(f"{server} answers with the error {error.code}", f"{server} 返回错误 {error.code}")


def _login(server: str) -> Text:
    proxy = proxy_for(server)
    return Text(
        f"the proxy {proxy} wants a login (407): write it as http://USER:PASSWORD@HOST:PORT",
        f"代理 {proxy} 要求登录（407）：请写成 http://用户:密码@主机:端口",
    )


def _failed(error: BaseException, server: str) -> Text:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    proxy, text = proxy_for(server), str(inner)
    if isinstance(inner, WebPage | ValueError | KeyError | TypeError | AttributeError):
        return Text(
            f"{server} sends a web page or something else in place of the model's files; a login page of this network, a "
            "proxy or a wrong mirror does that",
            f"{server} 发来的不是模型文件，而是网页或别的内容；可能是本网络的登录页、代理或错误的镜像",
        )
    if isinstance(inner, ssl.SSLError):
        return Text(
            f"the TLS certificate or connection of {server} cannot be trusted ({_short(text)}); if a company's proxy opens "
            "TLS, name its certificate in SSL_CERT_FILE",
            f"{server} 的 TLS 证书或连接不可信（{_short(text)}）；若公司代理会解开 TLS，请用 SSL_CERT_FILE 指明其证书",
        )
    if "407" in text:
        return _login(server)
    if proxy is not None and ("Tunnel connection failed" in text or type(inner).__module__ == "socks"):
        return Text(
            f"the proxy {proxy} refuses the way to {server} ({_short(text)})",
            f"代理 {proxy} 拒绝连接 {server}（{_short(text)}）",
        )
    if isinstance(inner, TimeoutError):
        return Text(f"{server} sends nothing for {TIMEOUT} s", f"{server} 在 {TIMEOUT} 秒内没有回应")
    if proxy is not None and isinstance(inner, socket.gaierror | ConnectionRefusedError):
        return Text(f"the proxy {proxy} does not answer", f"代理 {proxy} 没有回应")
    if isinstance(inner, socket.gaierror):
        return Text(
            f"the name of {server} is not found (no network, or no DNS)",
            f"找不到 {server} 的域名（没有网络或 DNS）",
        )
    if isinstance(inner, ConnectionResetError | http.client.IncompleteRead | http.client.RemoteDisconnected):
        return Text(f"{server} cuts the connection again and again", f"{server} 一再中断连接")
    return Text(f"{server} does not answer", f"无法连接 {server}")


def _short(text: str) -> str:
    return " ".join(text.split())[:120].rstrip(".")
