"""The keys that callers send, looked up in the database and held to their rate; and the answer to a body that is too
large.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starrynight.api import error_response
from starrynight.api.pools import Pool
from starrynight.errors import BadRequest
from starrynight.i18n import Text
from starrynight.jobs.keys import Key, Keys

FRESH = 1.0  # seconds that a key found is not looked up again: a revoked one is refused after that
MAX_KNOWN = 1000  # keys remembered
TOO_LARGE = Text("The request is too large.", "请求体太大。")
LOOKUPS = Pool("keys", threads=2, waiting=256, patience=5.0)


class TooMany(BadRequest):
    """The key has sent as many requests as it may. ``retry_after``: seconds until it may send the next."""

    status = 429


class Bucket:
    """Token bucket (RFC 2697's idea, for requests): ``rate`` at once, refilled by ``rate`` a minute."""

    def __init__(self, rate: int, now: float) -> None:
        self.rate, self.tokens, self.filled = rate, float(rate), now

    def take(self, now: float) -> float:
        """0 if a request may pass, else the seconds until one may."""
        self.tokens = min(float(self.rate), self.tokens + (now - self.filled) * self.rate / 60.0)
        self.filled = now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) * 60.0 / self.rate


class KeyCheck:
    """Of one server: its requests are counted in its own memory."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._known: OrderedDict[str, tuple[Key, float]] = OrderedDict()  # text of the key → key, when found
        self._buckets: dict[str, Bucket] = {}

    async def find(self, text: str) -> Key | None:
        """The key in force with this text, or None. Raises ``TooMany`` beyond its rate, and ``StorageError``."""
        now = asyncio.get_running_loop().time()
        key, found = self._known.get(text, (None, -math.inf))
        if now - found > FRESH:
            key = await LOOKUPS.run(self.keys.find, text)
            self._known.pop(text, None)
            if key is not None:
                self._known[text] = key, now
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        if key is not None and key.rate is not None:
            self._take(key, key.rate, now)
        return key

    def _take(self, key: Key, rate: int, now: float) -> None:
        bucket = self._buckets.setdefault(key.id, Bucket(rate, now))
        if wait := bucket.take(now):
            error = TooMany(
                f"This key may send {rate} requests a minute; try again in {math.ceil(wait)} s.",
                f"这个密钥每分钟最多 {rate} 次请求；请 {math.ceil(wait)} 秒后再试。",
            )
            error.retry_after = math.ceil(wait)
            raise error


class TooLargeInJson:
    """ASGI middleware: Starlette answers a Content-Length beyond a route's limit in plain text, by itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        replaced = False

        async def send_json(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 413:
                replaced = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
                if replaced:
                    answer = error_response(HTTPConnection(scope), "BadRequest", TOO_LARGE, 413)
                    return await answer(scope, receive, send)
            if not replaced:
                await send(message)
            return None

        return await self.app(scope, receive, send_json)
