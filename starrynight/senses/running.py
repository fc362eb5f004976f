"""The models that stand for the senses in this process: an address is asked, a .gguf or a folder gets a process of its own.

Such a process is started when it is first needed, serves every later call, and ends with this one, also if this one is killed.
One that could not be started is not tried again for ``RETRY`` seconds, and its error is raised meanwhile.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from starrynight.errors import NoSense, StarryError
from starrynight.i18n import Text
from starrynight.senses.asking import Server
from starrynight.senses.choice import FOLDER, GGUF, REMOTE, Choice
from starrynight.senses.remote import Client

RETRY = 60.0  # seconds


class Model(Protocol):
    """What a model of a sense can be asked; each answers for its own sense only. All raise RemoteError where it fails."""

    def describe(self, pixels: np.ndarray) -> tuple[Text, Text]:
        """Alt text and caption of a picture, uint8 [H, W, 3]."""

    def hear(self, samples: np.ndarray, language: str | None, hotwords: str) -> tuple[str, str | None]:
        """The words in a piece of speech, float32 [N] at 16 kHz, and the language that the model names, if it does."""

    def rank(self, query: str, documents: Sequence[str]) -> list[float]:
        """How well each document answers the query, 0 to 1."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, float32 [N, D]."""

    def find(self, text: str, schema: Mapping[str, Any]) -> list[tuple[str, int, int]]:
        """Spans of a text: kind, start, end."""


class _Started(Protocol):
    @property
    def model(self) -> Model: ...

    @property
    def alive(self) -> bool: ...

    def stop(self) -> None: ...


_lock = threading.Lock()
_starting: dict[
    Choice, threading.Lock
] = {}  # a model that takes minutes to start holds up its own callers only
_started: dict[Choice, _Started] = {}
_failed: dict[Choice, tuple[float, StarryError]] = {}


def model(choice: Choice) -> Model:
    """The model of a choice that is none of ours. Raises NoSense for one without a model, and what starting it raises:
    MissingPackage, OutOfMemory, BadFile, Unfit, RemoteError.
    """
    if choice.kind == REMOTE and choice.remote is not None:
        return Server(Client(choice.sense, choice.remote))
    if choice.kind not in (GGUF, FOLDER):
        raise NoSense(f"No model stands for {choice.sense}.", f"{choice.sense} 没有可用的模型。")
    with _lock:
        own = _starting.setdefault(choice, threading.Lock())
    with own:
        there = _started.get(choice)
        if there is not None and there.alive:
            return there.model
        if there is not None:
            there.stop()
        when, error = _failed.get(choice, (-RETRY, None))
        if error is not None and time.monotonic() - when < RETRY:
            raise error
        try:
            _started[choice] = started = _start(choice)
        except StarryError as raised:
            _failed[choice] = time.monotonic(), raised
            raise
        _failed.pop(choice, None)
        return started.model


def _start(choice: Choice) -> _Started:
    if choice.kind == GGUF:
        from starrynight.senses.llama import LlamaServer

        return LlamaServer(choice)
    from starrynight.senses.local import Worker

    return Worker(choice)


@atexit.register
def stop() -> None:
    """End the processes that were started here."""
    while _started:
        _started.popitem()[1].stop()
    _failed.clear()
