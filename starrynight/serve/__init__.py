"""``starry open`` and ``starry serve``: one process that serves pages and API at one address, and whose engine paints.

It composes what other packages provide: the API's application, Streamlit's pages behind it, access control in
front of both, the engine, and a daily cleanup.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import secrets
import signal
import sys
import threading
import urllib.error
import urllib.request
import webbrowser
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from anyio import to_thread

import starrynight
from starrynight.api import app as api
from starrynight.api.access import GALLERY_HEADER, LOOPBACK, Access, AccessMiddleware
from starrynight.api.pools import READERS
from starrynight.api.requests import RequestLog
from starrynight.errors import BadRequest, StarryError, StorageError
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery, gallery_identity
from starrynight.i18n import t
from starrynight.jobs.keys import Keys
from starrynight.jobs.queue import Queue
from starrynight.jobs.supervisor import Supervisors, check_device
from starrynight.jobs.uploads import Uploads
from starrynight.serve.alone import StandingAlone
from starrynight.serve.connections import SHUTDOWN_TIMEOUT, Config, Limits, Server, listening
from starrynight.serve.head import PageHead
from starrynight.serve.pages import DeadLinks, DroppedFiles
from starrynight.serve.process import prepare

PORT = 8470
PAGES = Path(starrynight.__file__).parent / "web" / "app.py"
CLEANUP_INTERVAL = 86_400.0  # seconds
LOCK_TIMEOUT = (
    5.0  # seconds that a request waits for another program that writes; then it is answered with 503
)

RUNNING = (
    "The studio is open here already, on the device that it was opened with; --device is not used.",
    "画室已在这里打开，使用它打开时的设备；--device 不起作用。",
)

log = logging.getLogger("starrynight.serve")


@dataclass(frozen=True)
class Options:
    """``lang``: of what is printed. ``token``: ask for a token on loopback too (a network always gets one, unless
    ``require_key``). ``require_key``: refuse callers without a key of ``starry keys make``. ``pages``: serve them.
    ``json_logs``: log as JSON lines, with a line for each request. ``names``: further names in a Host header. ``ray``: paint
    on Ray, at ``ray_address`` if there is one. ``workers``: painters, None for one (on Ray, for as many as there are GPUs or
    machines); ``cores`` of each, None for an equal share; ``batch``: pictures that each paints as one, at most."""

    host: str = "127.0.0.1"
    port: int = PORT
    device: str | None = None
    lang: str = "en"
    token: bool = False
    require_key: bool = False
    pages: bool = True
    json_logs: bool = False
    names: tuple[str, ...] = ()
    ray: bool = False
    ray_address: str | None = None
    workers: int | None = None
    cores: int | None = None
    batch: int = 1


class Engine(Protocol):
    """What paints the queue's jobs between ``start`` and ``stop``. ``alive``: whether a painter is there, as far as is known."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    @property
    def alive(self) -> bool: ...


def open_studio(options: Options, browser: bool = True) -> None:
    """``starry open``: serve until Ctrl-C, and show it; if the studio is open here already, only show it. Raises as ``serve``."""
    address = _address(options.host, options.port)
    if is_running(options.host, options.port, gallery_identity()):
        check_device(options.device)
        if options.device is not None:
            print("! " + t(*RUNNING, options.lang), file=sys.stderr)
        show(address, address if browser else None)
    else:
        serve(options, browser)


def serve(options: Options, browser: bool = False) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises ``StorageError`` for a gallery that cannot be opened or a port that is taken,
    and ``BadRequest`` where keys are required and there are none, or the device is not here.
    """
    if not options.ray:  # else it is a device of whichever machine Ray chooses
        check_device(options.device)
    wants_token = options.token or (options.host not in LOOPBACK and not options.require_key)
    token = secrets.token_urlsafe(24) if wants_token else None
    with (
        listening(options.host, options.port) as listener,
        Gallery(lock_timeout=LOCK_TIMEOUT) as gallery,
        _daily_cleanup(gallery),
    ):
        keys = Keys(gallery.database)
        if options.require_key and not keys.some_in_force():
            raise BadRequest(
                f"On {options.host} every caller needs a key, and there is none yet; make one: starry keys make NAME",
                f"在 {options.host} 上每个调用者都需要密钥，而目前还没有；请先生成：starry keys make 名字",
            )
        gallery.database.check()
        try:
            gallery.database.require_writable()
        except StorageError as error:
            log.error("%s", error)
        port = listener.getsockname()[1]
        access = Access.of(
            options.host, token, port, gallery.identity, keys, options.require_key, options.names
        )
        config = Config(
            build(gallery, painters(gallery, options), access, options.pages),
            Limits(connections=prepare(options.json_logs)),
        )
        opened = None
        if browser:  # what a process is called with, everybody on the machine can read: a code works once
            code = secrets.token_urlsafe(24) if token else None
            access.codes.update([code] if code else [])
            opened = _address(options.host, port, code)
        show(_address(options.host, port, token), opened)
        signal.signal(signal.SIGTERM, _end)
        with contextlib.suppress(KeyboardInterrupt):
            Server(config).run(sockets=[listener])
        left = Queue(gallery).counts().get("waiting", 0)
    waiting = t(
        f" Waiting jobs: {left}; the next `starry open` paints them.",
        f"还有 {left} 个任务，下次打开时继续。",
        options.lang,
    )
    print("✦ " + t("Closed.", "已关闭。", options.lang) + (waiting if left else ""), flush=True)
    return


def _end(*_: object) -> None:
    """uvicorn passes SIGTERM on when it has ended. Leaving in order removes what lies in temporary folders."""
    raise SystemExit(128 + signal.SIGTERM)


def painters(gallery: Gallery, options: Options) -> Engine:
    """Raises ``BadRequest`` where Ray is asked for and cannot give them."""
    if not options.ray:
        count = options.workers or 1
        return Supervisors(
            gallery, options.device, options.json_logs, count=count, cores=options.cores, batch=options.batch
        )
    from starrynight.jobs.cluster import Cluster

    return Cluster(
        gallery,
        options.device,
        count=options.workers,
        cores=options.cores,
        address=options.ray_address,
        batch=options.batch,
    )


def build(gallery: Gallery, engine: Engine, access: Access, with_pages: bool = True) -> Any:
    """The API, with the pages mounted behind it, access control in front, and the log of requests around all.

    The engine runs while the application does.
    """
    pages = _pages() if with_pages else None
    pages_lifespan = pages.lifespan() if pages else contextlib.nullcontext

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = READERS
        async with pages_lifespan(app):
            if gallery.database.writable:
                engine.start()
            try:
                yield
            finally:
                engine.stop()

    app = api.create_app(gallery, Queue(gallery), lambda: engine.alive, lifespan)
    if pages:
        app.mount("/", PageHead(StandingAlone(DroppedFiles(DeadLinks(pages))), gallery))
    return RequestLog(AccessMiddleware(app, access), app.state.metrics)


def _pages() -> Any:
    import streamlit

    from starrynight.web.shared import tell_failure

    # tell_failure logs the same, as all else is logged.
    logging.getLogger("streamlit.error_util").disabled = True
    return streamlit.App(PAGES, on_script_error=tell_failure)


def show(address: str, opened: str | None) -> None:
    """Print the address (scripts read this line), and open ``opened`` in the browser if it is given."""
    print(f"✦ {address}", flush=True)
    if opened:
        webbrowser.open(opened)


def is_running(host: str, port: int, gallery: str) -> bool:
    """Whether the studio of this gallery answers at this address of this machine; nothing else counts."""
    if not port or host not in LOOPBACK:
        return False
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{_address(host, port)}api/health", timeout=2) as answer:
            found = json.loads(answer.read(1 << 16))
            return isinstance(found, dict) and found.get("gallery") == gallery
    except urllib.error.HTTPError as refusal:  # it wants its token
        return refusal.headers.get(GALLERY_HEADER) == gallery
    except (OSError, ValueError, http.client.HTTPException, RecursionError):
        return False


@contextlib.contextmanager
def _daily_cleanup(gallery: Gallery) -> Iterator[None]:
    """Once a day, delete expired pictures of the trash, expired jobs, and uploads that nothing needs."""
    closing = threading.Event()

    def clean_up() -> None:
        # The first similarity search reads every stored hash and palette; do that before a visitor waits.
        with contextlib.suppress(StarryError):
            gallery.count(Query(colour="#000000"))
        while gallery.database.writable and not closing.is_set():
            try:
                gallery.delete_expired()
                Queue(gallery).delete_expired()
                Uploads().sweep(gallery.database)
            except StarryError as error:
                log.warning("%s", error)
            closing.wait(CLEANUP_INTERVAL)

    thread = threading.Thread(target=clean_up, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join(SHUTDOWN_TIMEOUT)


def _address(host: str, port: int, token: str | None = None) -> str:
    """A URL that a browser on this machine can open; with ``token`` in its query if there is one."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # nothing is bound here  # nosec B104
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/" + (f"?token={token}" if token else "")
