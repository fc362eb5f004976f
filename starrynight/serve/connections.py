"""The server's socket and its connections: how many there may be, and how long each part of a request may take.

uvicorn limits neither the time of a request's head and body nor that of a reader who stops reading. A connection
here has a deadline for each. When all places are taken, the connection that has waited longest for a request makes
room, so slow connections cannot keep others out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from starrynight.errors import StorageError, reason

BACKLOG = 512  # connections that the system holds until they are accepted; one beyond waits a second
# Connections that are accepted before others are closed to make room: fewer than there are spare descriptors, because
# asyncio accepts nothing for a second once it finds none.
ACCEPTED_AT_ONCE = 32
SHUTDOWN_TIMEOUT = 3  # seconds that open connections (events, sockets) get when the server ends
RETRY_AFTER = 5  # seconds
MAX_MESSAGE = 4 << 20  # bytes of a page's message over its socket; a form's is a few KB


@dataclass(frozen=True)
class Limits:
    """``connections`` at once, ``sockets`` of them WebSockets (a page has one). The others are seconds: ``head`` for the head of a request; ``body`` for a body,
    and more as long as ``body_rate`` bytes a second arrive, up to ``body_longest``; ``stalled`` for a client that
    does not read its answer; ``idle`` between two requests of a connection."""

    connections: int = 1000
    sockets: int = 256
    head: float = 10.0
    body: float = 30.0
    body_rate: float = 8192.0
    body_longest: float = 900.0
    stalled: float = 60.0
    idle: int = 30


class Config(uvicorn.Config):
    """uvicorn's configuration with ``limits``."""

    def __init__(self, app: Any, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        super().__init__(
            app, http=Connection, loop="asyncio", log_config=None, log_level="warning", backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=self.limits.idle, timeout_graceful_shutdown=SHUTDOWN_TIMEOUT, proxy_headers=False,
            server_header=False, ws_max_size=MAX_MESSAGE,
        )  # fmt: skip


class Server(uvicorn.Server):
    """uvicorn's server. asyncio takes one number for those accepted at once and for those that the system holds."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens. Raises ``StorageError`` for a port that is taken.

    asyncio turns Nagle's algorithm off only for sockets whose protocol is named. Nagle's algorithm holds the body of
    an answer until the client acknowledges its head, which takes 40 ms on a connection that is kept alive.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(
            BACKLOG
        )  # a browser that connects before uvicorn is ready waits instead of being refused
    except OSError as error:
        listener.close()
        raise StorageError(
            f"Cannot listen on {host}:{port} ({error.strerror}); choose another port with --port.",
            f"无法监听 {host}:{port}（{reason(error)[1]}）；可用 --port 换一个端口。",
        ) from error
    with listener:
        yield listener


class Connection(H11Protocol):
    """One connection. ``waiting_since``: when it began to wait for a request; None while one is answered."""

    config: Config

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting_since: float | None = self.loop.time()
        self._answered = 0
        self._head: asyncio.TimerHandle | None = None
        self._body: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._body_began, self._body_bytes = 0.0, 0
        self._wait_for_head()
        if len(self.connections) > self.config.limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._body_bytes += len(data)
        self._set_timers()

    def on_response_complete(self) -> None:
        self._answered += 1
        self.waiting_since = self.loop.time()
        super().on_response_complete()
        self._set_timers()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        sockets = sum(not isinstance(other, Connection) for other in self.connections)
        if sockets >= self.config.limits.sockets:
            return self._end(_answer(503, _FULL))
        self._cancel_timers()  # the socket's own protocol pings its peer
        return super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        self._end(_answer(400, _INVALID))

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.config.limits.stalled, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled = _cancel(self._stalled)

    def _set_timers(self) -> None:
        """Start and stop the timers of head and body by what the client is sending."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        state = self.conn.their_state
        if self.cycle is not None and not self.cycle.response_complete:
            self.waiting_since = None
        if state is h11.IDLE:
            if self.timeout_keep_alive_task is None and self.waiting_since is not None:
                self._wait_for_head()
        else:
            self._head = _cancel(self._head)
        if state is not h11.SEND_BODY:
            self._body = _cancel(self._body)
        elif self._body is None:
            self._body_began, self._body_bytes = self.loop.time(), 0
            self._body = self.loop.call_later(self.config.limits.body, self._check_body)

    def _wait_for_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.config.limits.head, self._time_out)

    def _check_body(self) -> None:
        """End a body that arrives more slowly than it may, or goes on for ever."""
        if self.flow.read_paused:  # the application takes its time, not the client
            self._body_began, self._body_bytes = self.loop.time(), 0
        limits, taken = self.config.limits, self.loop.time() - self._body_began
        allowed = min(limits.body + self._body_bytes / limits.body_rate, limits.body_longest)
        if taken < allowed:
            self._body = self.loop.call_later(min(limits.body, allowed - taken), self._check_body)
        else:
            self._time_out()

    def _time_out(self) -> None:
        started = self.cycle is not None and self.cycle.response_started
        self._end(None if started or not self._has_sent_something() else _answer(408, _SLOW))

    def _has_sent_something(self) -> bool:
        return self.conn.their_state is not h11.IDLE or bool(self.conn.trailing_data[0])

    def _make_room(self) -> None:
        """Close the connection that has waited longest for a request, first of those that never sent one."""
        waiting = [
            other for other in self.connections
            if isinstance(other, Connection) and other is not self and other.waiting_since is not None
        ]  # fmt: skip
        if waiting:
            min(waiting, key=lambda other: (other._answered > 0, other.waiting_since))._end(None)
        else:
            self._end(_answer(503, _FULL))

    def _end(self, answer: bytes | None) -> None:
        self._cancel_timers()
        if self.cycle is not None:
            self.cycle.disconnected = True
        if answer and not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
        else:
            self.transport.abort()
        self.connections.discard(self)

    def _cancel_timers(self) -> None:
        self._head, self._body = _cancel(self._head), _cancel(self._body)
        self._stalled = _cancel(self._stalled)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None


_SLOW = ("Timeout", "The request took too long to arrive; send it again.", "请求发送得太慢；请重新发送。")
_INVALID = ("BadRequest", "That is not a valid HTTP request.", "这不是有效的 HTTP 请求。")
_FULL = (
    "Busy",
    "The server has no free connection; try again in a few seconds.",
    "服务器连接已满；请几秒后再试。",
)


def _answer(status: int, error: tuple[str, str, str]) -> bytes:
    """An answer to a connection without a request, so nothing tells its language."""
    kind, en, zh = error
    payload = {"message": en, "type": kind, "param": None, "code": None, "en": en, "zh": zh}
    body = json.dumps({"error": payload}, ensure_ascii=False, allow_nan=False).encode()
    phrase = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}[status]
    retry = "" if status == 400 else f"Retry-After: {RETRY_AFTER}\r\n"
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"{retry}Connection: close\r\n\r\n"
    )
    return head.encode() + body
