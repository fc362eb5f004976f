"""Connections of a real server: Nagle off, deadlines for head, body and stalled readers, and a limit of their number."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Server, ask, running, until
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect as websocket

from starrynight import logs
from starrynight.serve.connections import MAX_MESSAGE, Limits

LARGE = 64 << 20  # bytes; more than the buffers of both ends hold


async def app(scope, receive, send) -> None:
    """Echoes the length of the body; /large answers with many bytes, /endless with a stream that does not end."""
    if scope["type"] != "http":
        return
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await receive()
        return
    body = bytes(LARGE) if scope["path"] == "/large" else str(length).encode()
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def serving(**limits: float) -> Iterator:
    with running(app, Limits(**limits)) as server:
        yield server


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def rest(client: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while more := client.recv(65536):
            received += more
    return received


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = len(b"HTTP/1.1 200 OK")


def test_accepted_sockets_do_not_wait_for_acknowledgements() -> None:
    with serving() as server, connect(server.port) as client:
        client.sendall(GET)
        assert client.recv(ANSWER) == b"HTTP/1.1 200 OK"
        (connection,) = server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def trickle(client: socket.socket, data: bytes, stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        for byte in data:
            client.sendall(bytes([byte]))
            if stop.wait(0.02):
                return


SLOW = {
    "nothing": (b"", b"", False),
    "half a head": (b"GET / HTTP/1.1\r\nHost", b"", True),
    "a head byte by byte": (b"GET / HTTP/1.1\r\nX: ", b"x" * 5000, True),
    "half a head after an answered request": (GET + b"GET / HT", b"", True),
    "half a body": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\nhalf", b"", True),
    "a body byte by byte": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n", b"y" * 5000, True),
    "half a chunk": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhal", b"", True),
}  # fmt: skip


@pytest.mark.parametrize("case", SLOW)
def test_a_slow_request_is_ended_with_408(case: str) -> None:
    first, slowly, answered = SLOW[case]
    stop = threading.Event()
    with serving(head=0.3, body=0.3, idle=1) as server, connect(server.port) as client:
        client.sendall(first)
        thread = threading.Thread(target=trickle, args=(client, slowly, stop))
        thread.start()
        received = rest(client)
        stop.set()
        thread.join()
        until(lambda: not server.server_state.connections)
    if case == "half a head after an answered request":
        assert received.startswith(b"HTTP/1.1 200 OK")  # then closed, by the deadline of idle connections
        return
    assert received.startswith(b"HTTP/1.1 408 ") == answered
    if answered:
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["type"] == "Timeout"


def test_a_body_that_keeps_its_pace_is_received_whole() -> None:
    with serving(body=0.2, body_rate=1000.0) as server, connect(server.port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6000\r\nConnection: close\r\n\r\n")
        for _ in range(6):
            client.sendall(bytes(1000))
            time.sleep(0.1)
        assert rest(client).endswith(b"6000\r\n0\r\n\r\n")


def test_a_body_that_goes_on_after_its_answer_is_ended() -> None:
    with serving(body=0.2, body_longest=0.5) as server, connect(server.port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - whichever write meets the end
            while True:
                client.sendall(b"400\r\n" + bytes(1024) + b"\r\n")
                time.sleep(0.01)


def test_a_client_that_does_not_read_its_answer_is_let_go() -> None:
    with serving(stalled=0.3) as server, connect(server.port) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.server_state.connections)
        until(lambda: not server.server_state.connections)
        assert len(rest(client)) < LARGE


def test_slow_connections_make_room_for_others() -> None:
    with serving(connections=8, head=600.0) as server:
        held = [connect(server.port) for _ in range(40)]
        for number, client in enumerate(held):
            with contextlib.suppress(OSError):
                client.sendall(b"GET / HTTP/1.1\r\n" if number % 2 else b"")
        for _ in range(20):
            assert ask(f"http://127.0.0.1:{server.port}", "/").status == 200
        assert len(server.server_state.connections) <= 8
        for client in held:
            client.close()


def test_without_a_free_connection_the_answer_is_503() -> None:
    with serving(connections=3) as server:
        held = [connect(server.port) for _ in range(3)]
        for client in held:
            client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(ANSWER) == b"HTTP/1.1 200 OK"
        with connect(server.port) as refused:
            answer = rest(refused)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 5" in answer
        assert "连接已满" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["zh"]
        for client in held:
            client.close()
        until(lambda: not server.server_state.connections)
        assert ask(f"http://127.0.0.1:{server.port}", "/").status == 200


async def socket_app(scope, receive, send) -> None:
    """Accepts a WebSocket and echoes the length of what arrives."""
    if scope["type"] != "websocket":
        await app(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(len(message.get("text") or message["bytes"]))})


def test_sockets_have_a_limit_of_their_number_and_of_a_message() -> None:
    with running(socket_app, Limits(sockets=3)) as server, contextlib.ExitStack() as held:
        address = f"ws://127.0.0.1:{server.port}/"
        sockets = [held.enter_context(websocket(address, max_size=None)) for _ in range(3)]
        with pytest.raises(InvalidStatus) as refused:
            websocket(address)
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "5"
        assert ask(f"http://127.0.0.1:{server.port}", "/").status == 200  # a page still comes
        sockets[0].send("x" * MAX_MESSAGE)
        assert sockets[0].recv(60) == str(MAX_MESSAGE)
        sockets[1].send("x" * (MAX_MESSAGE + 1))
        with pytest.raises(ConnectionClosedError) as closed:
            sockets[1].recv(60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009  # message too big, RFC 6455
        until(lambda: len(server.server_state.connections) == 2)
        held.enter_context(websocket(address))


def test_with_256_descriptors_300_slow_connections_keep_nobody_out(tmp_path: Path) -> None:
    server = Server(tmp_path, descriptors=256)
    try:
        port = int(server.address.rstrip("/").rsplit(":", 1)[1])
        held = [connect(port) for _ in range(300)]
        for client in held:
            with contextlib.suppress(OSError):
                client.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(20):
            assert server.ask("/api/health").status == 200
            assert server.ask("/api/pictures").status == 200
        for client in held:
            client.close()
    finally:
        server.close()
    assert (tmp_path / "server.log").stat().st_size < 4000


def test_a_log_has_one_line_of_each_kind() -> None:
    passing, lines = logs.OncePerInterval(interval=0.2), []

    def write(message: str, *values: object, name: str = "server", error: Exception | None = None) -> None:
        info = (type(error), error, None) if error else None
        record = logging.LogRecord(name, logging.WARNING, "", 0, message, values, info)
        if passing.filter(record):
            lines.append(record.getMessage())

    for number in range(1000):
        write("client %s failed", f"10.0.0.{number}")
        write(f"task {number} was never awaited")
    assert lines == ["client 10.0.0.0 failed", "task 0 was never awaited"]
    write("client %s failed", OSError("another kind"))
    write("client %s failed", "x", error=OSError())
    write("client %s failed", "x", name="another logger")
    assert len(lines) == 5
    time.sleep(0.25)
    write("client %s failed", "10.0.0.1")
    assert lines[-1] == "client 10.0.0.1 failed (and 999 more like it)"
    for number in range(2000):
        write("".join(chr(97 + int(digit)) for digit in str(number)))
    assert len(passing._kinds) <= logs.MAX_KINDS
