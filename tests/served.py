"""Real servers for tests: an application on a port of this process, and `starry open` as a process."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import uvicorn

from starrynight.api import app as api
from starrynight.api.access import Access, AccessMiddleware
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue
from starrynight.serve.connections import Config, Limits
from starrynight.serve.connections import Server as UvicornServer
from starrynight.serve.connections import listening as listening_socket

STARRY = Path(sys.executable).with_name("starry")


class Elsewhere:
    """A server of other people's on loopback: ``answer`` gets path, body and headers of each POST, and returns status and body.

    A status below 0 promises more bytes than it sends. ``url`` ends in /v1."""

    def __init__(self, answer: Callable[[str, bytes, dict[str, str]], tuple[int, bytes]]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, data = answer(self.path, body, dict(self.headers))
                with contextlib.suppress(ConnectionError):  # a caller that waits no longer
                    self.send_response(abs(status))
                    self.send_header("Content-Length", str(len(data) + 9 * (status < 0)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


def ask(address: str, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
    """``body``: bytes as they are, anything else as JSON. Underscores in header names become hyphens."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and not isinstance(body, bytes):
        body, sent = json.dumps(body).encode(), {"Content-Type": "application/json"} | sent
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def events(address: str, job: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, data) of a job's events until the server closes the stream."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=120)
    with contextlib.closing(connection):
        connection.request("GET", f"/api/jobs/{job}/events")
        name = ""
        for line in connection.getresponse():
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])


@contextlib.contextmanager
def gallery_in(home: Path) -> Iterator[Gallery]:
    """The gallery of ``home``, which is STARRY_HOME meanwhile."""
    with pytest.MonkeyPatch.context() as patch, Gallery(home / "gallery") as gallery:
        patch.setenv("STARRY_HOME", str(home))
        yield gallery


@contextlib.contextmanager
def without_worker(gallery: Gallery, access: Access | None = None) -> Iterator[str]:
    """The HTTP application behind its access rules, by default those of loopback; yields its address."""
    app = api.create_app(gallery, Queue(gallery), lambda: True)
    with listening(AccessMiddleware(app, access or Access.of("127.0.0.1", None))) as address:
        yield address


@contextlib.contextmanager
def listening(app: Any, limits: Limits | None = None) -> Iterator[str]:
    """Serve the application in a thread of this process, as `starry open` does; yields its address."""
    with running(app, limits) as server:
        yield f"http://127.0.0.1:{server.port}"  # type: ignore[attr-defined]


@contextlib.contextmanager
def running(app: Any, limits: Limits | None = None) -> Iterator[uvicorn.Server]:
    """``listening``, but yields uvicorn's server, with its ``port``."""
    server = UvicornServer(Config(app, limits))
    server.config.timeout_graceful_shutdown = 1
    with listening_socket("127.0.0.1", 0) as listener:
        server.port = listener.getsockname()[1]  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until(lambda: server.started)
        try:
            yield server
        finally:
            server.should_exit = True
            thread.join(20)


class Server:
    """`starry open`, or another command, and its workers, over the gallery of ``home``."""

    def __init__(
        self,
        home: Path,
        *options: str,
        command: tuple[str, ...] = ("open", "--no-browser"),
        descriptors: int | None = None,
        log: Path | None = None,
        **variables: str,
    ) -> None:
        """``descriptors``: the limit of open files. ``log``: by default in ``home``. ``variables``: of its environment."""
        environment = {**os.environ, "STARRY_HOME": str(home), "STARRY_LANG": "en", "OMP_NUM_THREADS": "1"}
        limit = (descriptors, descriptors)
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.log = open(log or home / "server.log", "ab")  # noqa: SIM115 - closed by close()
        self.process = subprocess.Popen(
            [str(STARRY), *command, "--port", "0", *options],
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            preexec_fn=None
            if descriptors is None
            else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().removeprefix("✦ ").strip()

    def ask(self, path: str, body: Any = None, **more: Any) -> Answer:
        return ask(self.address, path, body, **more)

    def submit(self, prompt: str, **fields: Any) -> str:
        answer = self.ask("/api/jobs", {"prompt": prompt, "width": 128, "height": 128, "seed": 5, **fields})
        assert answer.status == 201, answer.body
        return answer.json["id"]

    def job(self, job: str) -> dict[str, Any]:
        return self.ask(f"/api/jobs/{job}").json

    def until(self, job: str, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        return until(lambda: (found := self.job(job)) and what(found) and found)

    @property
    def worker(self) -> psutil.Process | None:
        return next(iter(psutil.Process(self.process.pid).children()), None)

    @property
    def workers(self) -> list[psutil.Process]:
        """All worker processes, also below Ray's."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "starrynight.jobs.worker" in process.cmdline():
                    found.append(process)
        return found

    def kill_worker(self) -> None:
        worker = until(lambda: self.worker)
        worker.kill()
        until(lambda: is_gone(worker))

    def kill(self) -> None:
        """Kill the server with SIGKILL; the worker has to notice by itself."""
        self.process.kill()
        self.process.wait()
        self.log.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self.log.close()


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, and its parent knows it or not yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return True


def until(what: Callable[[], Any], timeout: float = 300.0) -> Any:
    """Call ``what`` until it returns a true value, and return that."""
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found
