"""A running service paints for `starry paint` of the same user and STARRY_HOME: importing torch and loading a model takes a
command longer than its picture.

The worker listens on a Unix socket in STARRY_HOME, whose folder is its owner's alone. It paints; the command saves, with
its own settings, so that the files are those of a command that paints by itself. A closed connection means that the
other side is gone: the worker then cancels, and the command paints the rest by itself. Imports no torch.

Messages are JSON objects with a ``kind``, each in one frame of ``multiprocessing.connection``; nothing is pickled. The
pixels of a picture follow its message in a frame of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import starrynight
from starrynight import errors
from starrynight.errors import Cancelled, StarryError
from starrynight.i18n import Text
from starrynight.painting.results import Refused, Step
from starrynight.picture import Picture
from starrynight.request import PaintRequest
from starrynight.settings import settings
from starrynight.verdict import Verdict

MAX_PATH = 100  # bytes of a socket's address; Linux takes 107, macOS 103
MAX_WAITING = 16  # commands that wait for a worker; one beyond paints by itself
GREETING_WITHIN = 5.0  # seconds until a worker must have said whether it takes a request
LOST = (
    EOFError,
    OSError,
    ValueError,
)  # what a connection raises when the other side is gone, or sends what is no JSON

log = logging.getLogger("starrynight.worker")
Message = dict[str, Any]


class Declined(Exception):
    """A worker is there and does not paint this: ``why``."""

    def __init__(self, why: Text) -> None:
        super().__init__(why.en)
        self.why = why


class Lost(Exception):
    """The worker is gone, or has failed."""


OTHER_VERSION = Text(
    "The running service is of another version or was started with other settings",
    "正在运行的服务版本不同，或启动时的设置不同",
)
CROWDED = Text("Too many commands wait for the running service", "等待正在运行的服务的命令太多")
NO_FOLDER = Text("The running service cannot enter this folder", "正在运行的服务无法进入当前文件夹")


@cache
def version() -> str:
    """What two processes must have in common to paint the same: the code, its packages, and where models are found."""
    root = Path(starrynight.__file__).parent
    code = sorted((path.stat().st_mtime_ns, str(path)) for path in root.rglob("*.py"))
    facts = (starrynight.__version__, sys.prefix, str(code), str(settings().model_paths))
    return hashlib.sha256("\0".join(facts).encode("utf-8", "surrogateescape")).hexdigest()


def address(device: str | None) -> Path | None:
    """The socket of the worker on ``device`` (None: the best one); None where there cannot be one."""
    home = settings().home
    if not hasattr(socket, "AF_UNIX") or not home.is_absolute():
        return None
    name = f"{(device or 'best').replace('/', '_')}.sock"
    path = home / "cache" / "painters" / name
    if len(os.fsencode(path)) > MAX_PATH:
        mark = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"starry-{os.getuid()}-{mark}" / name
    return path if len(os.fsencode(path)) <= MAX_PATH else None


def is_private(folder: Path) -> bool:
    """Whether a folder is this user's, and nobody else may write to it."""
    found = folder.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def send(connection: Connection, message: Mapping[str, Any]) -> None:
    connection.send_bytes(json.dumps(message, allow_nan=False).encode())


def receive(connection: Connection) -> Message:
    message = json.loads(connection.recv_bytes())
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message


# The worker's side


class Visit:
    """A command that waits for its pictures. Its methods are called by the painting thread; those that send raise
    ``Cancelled`` if the command is gone."""

    def __init__(self, connection: Connection, request: PaintRequest, folder: str, clamps: bool) -> None:
        self.connection, self.request, self.folder, self.clamps = connection, request, folder, clamps

    def send(self, kind: str, **facts: Any) -> None:
        try:
            send(self.connection, {"kind": kind} | facts)
        except LOST as error:
            raise Cancelled from error

    def check(self) -> None:
        """Raise ``Cancelled`` if the command is gone. It says nothing after its request."""
        try:
            gone = self.connection.poll(0)
        except LOST:
            gone = True
        if gone:
            raise Cancelled

    def step(self, step: Step) -> None:
        self.check()
        self.send("step", picture=step.picture, step=step.step, steps=step.steps)

    def picture(self, picture: Picture) -> None:
        self.send("picture", recipe=picture.recipe, shape=picture.pixels.shape)
        try:
            self.connection.send_bytes(picture.pixels.tobytes())
        except LOST as error:
            raise Cancelled from error

    def refused(self, refused: Refused) -> None:
        self.send(
            "refused", index=refused.index, seed=refused.seed, error=_payload(refused.error),
            verdict=refused.verdict.to_dict(),
        )  # fmt: skip

    def end(self, error: StarryError | None = None) -> None:
        with contextlib.suppress(Cancelled):
            self.send("end", error=error and _payload(error))
        self.connection.close()

    def close(self) -> None:
        self.connection.close()


class Desk:
    """Where commands come to a worker: ``open`` begins to listen, ``take`` gives the next one. One of a service's workers is
    ``reachable``."""

    def __init__(self, device: str | None, reachable: bool = True) -> None:
        self.device, self.reachable, self.busy = device, reachable, False
        self.arrived = threading.Event()
        self._visits: queue.SimpleQueue[Visit] = queue.SimpleQueue()
        self._listener: Listener | None = None

    def open(self) -> None:
        """Listen, once, in a thread. Where that is not possible commands paint by themselves."""
        path = address(self.device) if self.reachable else None
        if self._listener is not None or path is None:
            return
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(path.parent, 0o700)
            path.unlink(missing_ok=True)
            self._listener = Listener(str(path), backlog=MAX_WAITING)
        except OSError as error:
            log.warning("no socket for `starry paint`: %s", error)
            return
        threading.Thread(target=self._welcome, args=(self._listener,), daemon=True).start()

    def take(self) -> Visit | None:
        """The next command; None if none waits."""
        self.arrived.clear()
        with contextlib.suppress(queue.Empty):
            return self._visits.get_nowait()
        return None

    def close(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.close()

    def _welcome(self, listener: Listener) -> None:
        while True:
            try:
                connection = listener.accept()
            except OSError:  # closed
                return
            try:
                self._greet(connection)
            except (*LOST, StarryError, TypeError, KeyError):
                connection.close()

    def _greet(self, connection: Connection) -> None:
        if not connection.poll(GREETING_WITHIN):
            raise EOFError
        asked = receive(connection)
        declined = self._decline(asked)
        if declined is not None:
            send(connection, {"kind": "declined", "en": declined.en, "zh": declined.zh})
            connection.close()
            return
        request = PaintRequest.from_dict(asked["request"])
        send(connection, {"kind": "accepted", "waits": self.busy or not self._visits.empty()})
        self._visits.put(Visit(connection, request, asked["folder"], bool(asked["clamps"])))
        self.arrived.set()

    def _decline(self, asked: Message) -> Text | None:
        if asked["version"] != version():
            return OTHER_VERSION
        if self._visits.qsize() >= MAX_WAITING:
            return CROWDED
        return None if os.access(asked["folder"], os.R_OK | os.X_OK) else NO_FOLDER


def _payload(error: StarryError) -> Message:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return {"kinds": kinds, "en": error.en, "zh": error.zh}


# The command's side


def _rebuilt(payload: Message) -> StarryError:
    """The error, of the nearest of its classes that ``errors`` has: its exit code and messages are the same."""
    known = (getattr(errors, kind, None) for kind in payload["kinds"])
    kind = next((one for one in known if isinstance(one, type) and issubclass(one, StarryError)), StarryError)
    error = kind.__new__(kind)
    StarryError.__init__(error, payload["en"], payload["zh"])
    return error


class Told(NamedTuple):
    """What the loaded model says before it paints: ``warnings`` or, about LoRAs, ``fits``, each (en, zh)."""

    kind: str
    texts: tuple[Text, ...]


class WarmPainter:
    """A worker that has taken a request. ``waits``: it paints something else before."""

    def __init__(self, connection: Connection, waits: bool) -> None:
        self.connection, self.waits = connection, waits

    @classmethod
    def find(cls, request: PaintRequest, device: str | None, clamps: bool) -> WarmPainter | None:
        """The worker of this STARRY_HOME on ``device``, or None. Raises ``Declined`` if it does not take the request."""
        path = address(device)
        try:
            if path is None or not is_private(path.parent):
                return None
            connection = Client(str(path))
        except OSError:
            return None
        try:
            asked = {
                "version": version(),
                "request": request.to_dict(),
                "folder": os.getcwd(),
                "clamps": clamps,
            }
            send(connection, asked)
            if not connection.poll(GREETING_WITHIN):
                raise EOFError
            answer = receive(connection)
            if answer["kind"] == "declined":
                raise Declined(Text(answer["en"], answer["zh"]))
            return cls(connection, bool(answer["waits"]))
        except (*LOST, KeyError):
            connection.close()
            return None
        except Declined:
            connection.close()
            raise

    def paint(
        self,
        on_step: Callable[[Step], None],
        on_folding: Callable[[int, int, tuple[str, str]], None],
    ) -> Generator[Picture | Refused | Told]:
        """What ``Studio.paint`` would, but unsaved pictures. Raises its errors, and ``Lost``. Leaving it cancels."""
        with self.connection as connection:
            while True:
                try:
                    message = receive(connection)
                    found = _read(connection, message)
                except (*LOST, KeyError, TypeError) as error:
                    raise Lost from error
                if isinstance(found, Step):
                    on_step(found)
                elif isinstance(found, StarryError):
                    raise found
                elif found is not None:
                    yield found
                elif message["kind"] == "folding":
                    on_folding(message["done"], message["total"], Text(*message["message"]))
                else:
                    return


def _read(connection: Connection, message: Message) -> Picture | Refused | Told | Step | StarryError | None:
    """The value of a message; None for one of folding, and for the end without an error."""
    match message["kind"]:
        case "step":
            return Step(message["picture"], message["step"], message["steps"], lambda: None, None)
        case "picture":
            pixels = np.frombuffer(connection.recv_bytes(), np.uint8).reshape(message["shape"])
            return Picture(pixels, message["recipe"], producer=settings().producer)
        case "refused":
            verdict = Verdict.from_dict(message["verdict"])
            error = _rebuilt(message["error"])
            return Refused(message["index"], message["seed"], error, verdict)
        case "warnings" | "fits" as kind:
            return Told(kind, texts(message["texts"]))
        case "end" if message["error"] is not None:
            return _rebuilt(message["error"])
        case "end" | "folding":
            return None
        case _:
            raise ValueError(message["kind"])


def texts(pairs: Sequence[Sequence[str]]) -> tuple[Text, ...]:
    return tuple(Text(*pair) for pair in pairs)
