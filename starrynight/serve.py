"""``starry open``: one process that serves the pages, the API, events and thumbnails, and keeps a worker painting.

The one place where the doors meet: it puts them behind one address and says who may come in. Knows no route and no page.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import webbrowser
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import starrynight
from starrynight.api import app as api
from starrynight.api.door import LOOPBACK, Access, Door
from starrynight.errors import StorageError
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue
from starrynight.jobs.supervisor import Supervisor

PORT = 8470
PAGES = Path(starrynight.__file__).parent / "web" / "app.py"


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

    app = api.make(gallery, Queue(gallery), lambda: supervisor.alive, lifespan)
    app.mount("/", pages)
    return app


def serve(host: str = "127.0.0.1", port: int = PORT, browser: bool = True, device: str | None = None) -> None:
    """Until Ctrl-C. Raises ``StorageError`` for a gallery that cannot be opened or a port that is taken."""
    import uvicorn

    token = None if host in LOOPBACK else secrets.token_urlsafe(24)
    with Gallery() as gallery, _listening(host, port) as listener:
        supervisor = Supervisor(gallery, device)
        app = Door(build(gallery, supervisor), Access.of(host, token))
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, proxy_headers=False)
        address = f"http://{_shown(host)}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")
        print(f"✦ {address}", flush=True)
        if browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _listening(host: str, port: int) -> Any:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StorageError(
            f"Nothing can listen on {host}:{port} ({error.strerror}); is it open already? Choose another with --port.",
            f"无法监听 {host}:{port}（{error.strerror}）；是否已经打开？可用 --port 换一个端口。",
        ) from error
    with listener:
        yield listener


def _shown(host: str) -> str:
    """An address a browser on this machine can open."""
    if host in ("0.0.0.0", "::", ""):
        host = "127.0.0.1"
    return f"[{host}]" if ":" in host else host


logging.getLogger("starrynight").addHandler(logging.NullHandler())
