"""A server of a sense that fails in each of the ways in which servers do."""

from __future__ import annotations

import json
import threading

from served import Elsewhere

KEY = "sk-very-secret"
# Way → status and body of every answer; None hangs. A status below 0 ends before all of the body was sent.
WAYS: dict[str, tuple[int, bytes] | None] = {
    "wrong key": (401, json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode()),
    "429": (429, b'{"error": "slow down"}'),
    "timeout": None,
    "cut stream": (-200, b'{"choices": [{"message": {"content": "A bo'),
    "nonsense": (200, b"<html>\xff\x00 welcome"),
}


class Broken(Elsewhere):
    """Fails in one of ``WAYS``."""

    def __init__(self, way: str) -> None:
        self.answer, self.over = WAYS[way], threading.Event()
        super().__init__(self._fail)
        self.host = self.url[7:-3]

    def _fail(self, *_: object) -> tuple[int, bytes]:
        if self.answer is None:
            self.over.wait(60)
        return self.answer or (500, b"")
