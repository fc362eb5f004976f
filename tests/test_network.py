"""Faults between this machine and a hub: real servers and proxies that misbehave; each is one sentence with its cause."""

from __future__ import annotations

import builtins
import contextlib
import http.server
import json
import os
import socket
import socketserver
import threading

import pytest

from starrynight.errors import BadRequest, HubUnreachable, MissingFile, MissingPackage, StarryError
from starrynight.models import download, network

LISTING = json.dumps({"siblings": [{"rfilename": "model_index.json", "size": 2}]}).encode()
PAGE = b"<!DOCTYPE html><html><body>Please log in to the hotel's network</body></html>"


@pytest.fixture(autouse=True)
def clean_environment(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "HF_ENDPOINT":
            monkeypatch.delenv(name)
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(network, "TIMEOUT", 2)


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one model, or one that misbehaves as ``server.fault`` says; as a proxy it answers for every host."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        fault = self.server.fault
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
            return
        if fault == "silent":
            self.server.wait.wait(10)
            return
        if isinstance(fault, int):
            self.answer(fault, b"{}", **{"Retry-After": "17"})
        elif "/api/" in self.path:
            self.answer(
                200,
                {"page": PAGE, "list": b"[]", "garbage": b"\xff\xfe", "null": b"null"}.get(fault, LISTING),
            )
        else:
            self.answer(200, PAGE[:2] if fault == "" else PAGE if fault == "page for a file" else b"{}")

    do_CONNECT = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(kind=Hub, fault: object = None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    server.fault, server.asked, server.wait = fault, [], threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.wait.set()
        server.shutdown()
        server.server_close()


def place(server) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


def refused(kind: type[StarryError], endpoint: str | None = None) -> str:
    with pytest.raises(kind) as caught:
        download.pull("someone/tiny", endpoint=endpoint)
    assert caught.value.en.endswith(".")
    assert caught.value.zh.endswith("。")
    return caught.value.en


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (401, MissingFile, "HF_TOKEN"), (403, MissingFile, "HF_TOKEN"), (404, MissingFile, "check the id"),
        (429, HubUnreachable, "429): wait 17 s"), (500, HubUnreachable, "error 500"), (502, HubUnreachable, "error 502"),
        (503, HubUnreachable, "error 503"), (418, HubUnreachable, "error 418"),
        ("page", HubUnreachable, "web page"), ("page for a file", HubUnreachable, "web page"),
        ("list", HubUnreachable, "in place of"), ("null", HubUnreachable, "in place of"),
        ("garbage", HubUnreachable, "in place of"),
        ("reset", HubUnreachable, "cuts the connection"), ("silent", HubUnreachable, "sends nothing for 2 s"),
    ],
)  # fmt: skip
def test_a_hub_that_misbehaves_is_one_sentence(fault, kind, words):
    with serving(fault=fault) as server:
        assert words in refused(kind, f"http://{place(server)}")


def test_a_page_in_place_of_a_file_leaves_no_model(tmp_path):
    with serving(fault="page for a file") as server:
        refused(HubUnreachable, f"http://{place(server)}")
    assert not (tmp_path / "home" / "models" / "someone--tiny").exists()
    with serving() as server:
        assert download.pull("someone/tiny", endpoint=f"http://{place(server)}").is_dir()


def test_a_server_that_speaks_no_tls_or_is_not_trusted_is_said():
    with serving() as server:
        assert "TLS" in refused(HubUnreachable, f"https://{place(server)}")


def test_no_server_and_no_name():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "does not answer" in refused(HubUnreachable, f"http://127.0.0.1:{port}")
    assert "is not found" in refused(HubUnreachable, "http://no-such-host.invalid")


@pytest.mark.parametrize(
    "value", ["hf-mirror.com", "hf-mirror.com/", "ftp://hf-mirror.com", "//hf-mirror.com", "https://"]
)
def test_a_mirror_without_its_scheme_is_named(monkeypatch, value):
    monkeypatch.setenv("HF_ENDPOINT", value)
    assert "write HF_ENDPOINT=https://hf-mirror.com" in refused(BadRequest)


# Proxies


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("form", ["http://{}", "{}", "http://user:secret@{}", "http://{}/"])
def test_a_proxy_is_used_however_it_is_named(monkeypatch, variable, form):
    if variable == "HTTP_PROXY":
        monkeypatch.delenv("REQUEST_METHOD", raising=False)  # urllib ignores HTTP_PROXY in CGI
    with serving() as proxy:
        monkeypatch.setenv(variable, form.format(place(proxy)))
        assert download.pull("someone/tiny", endpoint="http://hub.invalid").is_dir()
        assert all(path.startswith("http://hub.invalid/") for path in proxy.asked)


def test_no_proxy_goes_around_it(monkeypatch):
    with serving() as hub, serving(fault=500) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{place(proxy)}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert download.pull("someone/tiny", endpoint=f"http://{place(hub)}").is_dir()
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("fault", "endpoint", "words"),
    [
        (502, "http://hub.invalid", "error 502 (through the proxy ALL_PROXY=http://user:***@"),
        (407, "http://hub.invalid", "wants a login (407)"),
        (407, "https://hub.invalid", "wants a login (407)"),
        (403, "https://hub.invalid", "refuses the way to https://hub.invalid"),
        ("page", "http://hub.invalid", "web page"),
        ("reset", "http://hub.invalid", "ALL_PROXY=http://user:***@"),
    ],
)
def test_a_proxy_that_misbehaves_is_named_without_its_password(monkeypatch, fault, endpoint, words):
    with serving(fault=fault) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://user:secret@{place(proxy)}")
        message = refused(HubUnreachable, endpoint)
    assert words in message
    assert "ALL_PROXY=http://user:***@127.0.0.1" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9", "127.0.0.1:9", "localhost:9", "http://no-such-host.invalid:1"]
)
def test_a_proxy_that_is_not_there_is_named(monkeypatch, address):
    monkeypatch.setenv("HTTPS_PROXY", address)
    message = refused(HubUnreachable)
    assert f"the proxy HTTPS_PROXY=http://{address.removeprefix('http://')} does not answer" in message


@pytest.mark.parametrize("address", ["ftp://127.0.0.1:9", "quic://127.0.0.1:9"])
def test_a_proxy_of_another_kind_is_refused_by_name(monkeypatch, address):
    monkeypatch.setenv("ALL_PROXY", address)
    assert f"ALL_PROXY={address} is no proxy" in refused(BadRequest)


class Socks5(socketserver.BaseRequestHandler):
    """RFC 1928 without a login: connects to ``server.target``, whatever host is asked for."""

    def handle(self) -> None:
        _, count = self.request.recv(2)
        self.request.recv(count)
        self.request.sendall(b"\5\0")
        _, _, _, kind = self.request.recv(4)
        name = self.request.recv(self.request.recv(1)[0]) if kind == 3 else self.request.recv(4)
        self.request.recv(2)
        self.server.asked.append((kind, name))
        if self.server.target is None:
            self.request.sendall(b"\5\2\0\1\0\0\0\0\0\0")  # not allowed by the rules
            return
        with socket.create_connection(self.server.target) as far:
            self.request.sendall(b"\5\0\0\1\0\0\0\0\0\0")
            far.sendall(self.request.recv(65536))
            while data := far.recv(65536):
                self.request.sendall(data)


@contextlib.contextmanager
def socks(target):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Socks5) as server:
        server.daemon_threads, server.target, server.asked = True, target, []
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("scheme", ["socks5h", "socks"])
def test_a_socks_proxy_works(monkeypatch, scheme):
    pytest.importorskip("sockshandler")
    with serving() as hub, socks(hub.server_address) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{place(proxy)}")
        assert download.pull("someone/tiny", endpoint="http://hub.invalid").is_dir()
        assert proxy.asked[0] == (3, b"hub.invalid")  # the proxy looks the name up


def test_a_socks_proxy_that_refuses_is_named(monkeypatch):
    pytest.importorskip("sockshandler")
    with socks(None) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{place(proxy)}")
        assert f"the proxy ALL_PROXY=socks5h://{place(proxy)} refuses" in refused(
            HubUnreachable, "http://hub.invalid"
        )


def test_a_socks_proxy_without_its_package_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "sockshandler":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:9")
    message = refused(MissingPackage, "http://hub.invalid")
    assert "pip install PySocks" in message
    assert "secret" not in message
