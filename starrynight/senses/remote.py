"""One client for servers of OpenAI's or Jina's shape. Whatever goes wrong is a RemoteError that names the sense and the server.

A connection that fails and the statuses 429 and 503 are tried once more. The key goes into a header and nowhere else.
"""

from __future__ import annotations

import time
from typing import Any

from starrynight.errors import RemoteError
from starrynight.i18n import Text
from starrynight.models.remote import Remote
from starrynight.text import clean, parse_json

CONNECT, ANSWER = 5.0, 120.0  # seconds
TRIES = 2
PAUSE = 5.0  # seconds at most before the second try, where the server names a time
MAX_ANSWER = 1 << 20  # bytes
WHO = {
    "eyes": Text("The eyes", "视觉服务"),
    "ears": Text("The ears", "听写服务"),
    "facets": Text("The facets", "词语服务"),
    "ranker": Text("The ranker", "排序服务"),
    "embedder": Text("The embedder", "向量服务"),
}


class Client:
    """``name``: what messages call the server; by default its host. ``key``: a bearer key in place of the one that ``remote``
    names. ``seconds``: how long an answer may take, by default ``ANSWER``.
    """

    def __init__(
        self, sense: str, remote: Remote, name: str | None = None, key: str | None = None, seconds: float | None = None
    ) -> None:  # fmt: skip
        self.sense, self.remote, self.name, self._key = sense, remote, name or remote.host, key
        self._seconds = seconds

    def post(
        self, path: str, json: Any = None, *, fields: dict[str, Any] | None = None, file: tuple[str, bytes, str] | None = None,
        most: int = MAX_ANSWER,
    ) -> Any:  # fmt: skip
        """The JSON that the server answers to ``json``, or to a form with ``fields`` and one ``file`` (name, bytes, type). ``path``
        is below the address, or a whole path of the host if it begins with two slashes.

        ``most``: bytes of an answer. Raises RemoteError; BadRequest or MissingFile for the key.
        """
        import httpx2 as httpx

        key = self._key or self.remote.key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(self._seconds or ANSWER, connect=CONNECT)
        sent: dict[str, Any] = (
            {"json": json} if file is None else {"data": fields or {}, "files": {"file": file}}
        )
        own = self.remote.is_loopback
        with httpx.Client(timeout=timeout, trust_env=not own, follow_redirects=False) as client:
            for left in reversed(range(TRIES)):
                try:
                    status, body, pause = self._post(client, self._url(path), sent, headers, most)
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    if left and not isinstance(error, httpx.ReadTimeout):
                        continue
                    why = type(error).__name__
                    raise self.failed(
                        f"does not answer ({why}); is it running", f"没有响应（{why}）；它在运行吗"
                    ) from error
                if status not in (429, 503) or not left:
                    break
                time.sleep(pause)
        answer = parse_json(body.decode("utf-8", "replace"))
        if status != 200:
            said = _reason(answer)
            said = said.replace(key, "***") if key else said
            raise self.failed(f"answered {status}: {said}", f"回答 {status}：{said}")
        return answer

    def failed(self, en: str, zh: str) -> RemoteError:
        who = WHO[self.sense]
        return RemoteError(f"{who.en} at {self.name}: the server {en}.", f"{self.name} 的{who.zh}{zh}。")

    def _url(self, path: str) -> str:
        if path.startswith("//"):
            scheme, _, rest = self.remote.url.partition("://")
            return f"{scheme}://{rest.partition('/')[0]}{path[1:]}"
        return f"{self.remote.url}{path}"

    def _post(
        self, client: Any, url: str, sent: dict[str, Any], headers: dict[str, str], most: int
    ) -> tuple[int, bytes, float]:
        """The status, the body of at most ``most`` bytes, and the seconds after which the server wants to be asked again."""
        body = bytearray()
        with client.stream("POST", url, headers=headers, **sent) as answer:
            for part in answer.iter_bytes():
                body += part
                if len(body) > most:
                    raise self.failed("answered with too much", "的回答太大")
            after = answer.headers.get("Retry-After", "")
            return answer.status_code, bytes(body), min(PAUSE, float(after)) if after.isdecimal() else 0.0


def _reason(answer: Any) -> str:
    """The server's own sentence."""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if message is None and isinstance(answer, dict):
        message = answer.get("detail") or answer.get("message")  # FastAPI's and Cohere's
    return clean(message)[:300].rstrip(".。") or "no reason was given"
