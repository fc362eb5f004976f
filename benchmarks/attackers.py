"""The clients of attack.py, each kind in a process of its own, so that they do not wait for one another."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from typing import Any

SIZE = {"steps": 4, "width": 128, "height": 128}


class Client:
    def __init__(self, port: int) -> None:
        self.port, self.socket = port, None

    def send(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> tuple[int, float]:
        """(status, seconds); status 0 if the connection broke."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        began = time.perf_counter()
        try:
            if self.socket is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(head.encode() + body)
            status = self._receive()
        except OSError:
            self.close()
            return 0, time.perf_counter() - began
        return status, time.perf_counter() - began

    def _receive(self) -> int:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, rest = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"content-length" in fields:
            left = int(fields[b"content-length"]) - len(rest)
            while left > 0:
                left -= len(self._more())
        else:
            while not rest.endswith(b"0\r\n\r\n"):
                rest += self._more()
        if fields.get(b"connection") == b"close":
            self.close()
        return int(head[9:12])

    def _more(self) -> bytes:
        assert self.socket is not None
        if not (data := self.socket.recv(1 << 16)):
            raise ConnectionResetError
        return data

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket = None


def hammer(port: int, kind: str, clients: int, seconds: float, ids: list[str], results: Any) -> None:
    """In a process of its own: ``clients`` threads that ask one thing after another. Puts the statuses' numbers."""
    found: Counter[int] = Counter()
    end = time.monotonic() + seconds

    def one(number: int) -> None:
        client, chance = Client(port), random.Random(number)
        while time.monotonic() < end:
            found[client.send(*wanted(kind, chance, ids))[0]] += 1
        client.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(dict(found))


def wanted(kind: str, chance: random.Random, ids: list[str]) -> tuple[str, str, bytes]:
    if kind == "submit":
        return (
            "POST",
            "/api/jobs",
            json.dumps({"prompt": "x", "seed": chance.getrandbits(32), **SIZE}).encode(),
        )
    picture = chance.choice(ids)
    paths = ("/api/pictures?text=%E6%98%9F%E5%A4%9C", f"/api/pictures?like={picture}", "/api/jobs", "/api/facets",
             f"/api/pictures/{picture}", f"/api/pictures/{picture}/file", f"/api/pictures/{picture}/thumb")  # fmt: skip
    return "GET", chance.choice(paths), b""


def watch(port: int, started: Any, stop: Any, results: Any) -> None:
    """In a process of its own: ask for the health every 50 ms, each time over a new connection."""
    times, statuses = [], Counter[int]()
    while not stop.is_set():
        client = Client(port)
        status, seconds = client.send("GET", "/api/health")
        client.close()
        times.append(seconds)
        statuses[status] += 1
        started.set()
        stop.wait(max(0.0, 0.05 - seconds))
    results.put((times, dict(statuses)))
