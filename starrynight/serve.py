"""``starry open``: one process that serves the pages, the API, events and thumbnails, and keeps a worker painting.

The one place where the doors meet: it puts them behind one address and says who may come in. Knows no route and no page.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import socket
import threading
import urllib.request
import webbrowser
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import starrynight
from starrynight.api import app as api
from starrynight.api.access import LOOPBACK, Access, AccessMiddleware
from starrynight.errors import StarryError, StorageError, reason
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue
from starrynight.jobs.supervisor import Supervisor
from starrynight.jobs.uploads import Uploads

PORT = 8470
PAGES = Path(starrynight.__file__).parent / "web" / "app.py"
A_DAY = 86_400.0  # seconds
GOODBYE = 3  # seconds that open connections get when the server ends

log = logging.getLogger("starrynight.serve")


def serve(
    host: str = "127.0.0.1",
    port: int = PORT,
    browser: bool = True,
    device: str | None = None,
    lang: str = "en",
) -> None:
    """Until Ctrl-C. Raises ``StorageError`` for a gallery that cannot be opened or a port that is taken."""
    import uvicorn

    if is_open(host, port):
        return announce(_address(host, port), browser)
    token = None if host in LOOPBACK else secrets.token_urlsafe(24)
    with Gallery() as gallery, _listening(host, port) as listener, _tidying(gallery):
        app = AccessMiddleware(build(gallery, Supervisor(gallery, device)), Access.of(host, token))
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=GOODBYE, proxy_headers=False, server_header=False
        )  # fmt: skip
        announce(_address(host, listener.getsockname()[1], token), browser)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        left = Queue(gallery).counts().get("waiting", 0)
    goodbye = (
        ("Closed.", "已关闭。"),
        (f" {left} jobs wait for the next time.", f"还有 {left} 个任务，下次打开时继续。"),
    )
    print("✦ " + "".join(part[lang == "zh"] for part in goodbye[: 2 if left else 1]), flush=True)
    return None


def build(gallery: Gallery, supervisor: Supervisor) -> Any:
    """The whole application, pages and all; the worker lives as long as it does."""
    import streamlit

    pages = streamlit.App(PAGES)
    within = pages.lifespan()

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with within(app):
            supervisor.start()
            try:
                yield
            finally:
                supervisor.stop()

    app = api.create_app(gallery, Queue(gallery), lambda: supervisor.alive, lifespan)
    app.mount("/", pages)
    return app


def announce(address: str, browser: bool) -> None:
    print(f"✦ {address}", flush=True)
    if browser:
        webbrowser.open(address)


def is_open(host: str, port: int) -> bool:
    """Whether the studio is open here already: then there is nothing to start, only to show."""
    if not port or host not in LOOPBACK:
        return False
    try:
        with urllib.request.urlopen(f"{_address(host, port)}api/health", timeout=2) as answer:
            return json.load(answer).get("version") is not None
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # who comes before the server is ready waits, and is not turned away
    except OSError as error:
        listener.close()
        raise StorageError(
            f"Nothing can listen on {host}:{port} ({error.strerror}); choose another with --port.",
            f"无法监听 {host}:{port}（{reason(error)[1]}）；可用 --port 换一个端口。",
        ) from error
    with listener:
        yield listener


@contextlib.contextmanager
def _tidying(gallery: Gallery) -> Iterator[None]:
    """Once a day, what has lain in the trash long enough goes, and so do jobs long ended and uploads nobody needs."""
    closing = threading.Event()

    def tidy() -> None:
        with contextlib.suppress(
            StarryError
        ):  # the first question about likeness reads all looks; it is asked now
            gallery.count(Query(colour="#000000"))
        while not closing.is_set():
            try:
                gallery.expire()
                Queue(gallery).delete_expired()
                Uploads().sweep(gallery.database)
            except StarryError as error:
                log.warning("%s", error)
            closing.wait(A_DAY)

    thread = threading.Thread(target=tidy, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join(GOODBYE)


def _address(host: str, port: int, token: str | None = None) -> str:
    """One that a browser on this machine can open."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/" + (f"?token={token}" if token else "")
