"""One client for servers of OpenAI's shape that see: a chat completion with a picture, asked for sentences in both languages.

The picture is sent as a JPEG of at most 512 pixels a side. Whatever goes wrong is a RemoteError with the server's name.
"""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
from PIL import Image

from starrynight.errors import RemoteError
from starrynight.i18n import Text
from starrynight.models.remote import Remote
from starrynight.text import clean, parse_json

LONGEST = 512  # pixels: 256 tokens of Qwen3-VL
CONNECT, ANSWER = 5.0, 120.0  # seconds
TRIES = 2
MAX_ANSWER, MAX_TEXT = 1 << 20, 600  # bytes; characters kept of a sentence
FIELDS = ("alt_en", "alt_zh", "caption_en", "caption_zh")
ASKED = (
    "Describe this painting for a gallery. Answer with one JSON object and nothing else: "
    '"alt_en", "alt_zh": what it shows, in at most 15 words, in English and in Chinese; '
    '"caption_en", "caption_zh": one sentence, in English and in Chinese. Name only what you see.'
)
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "description",
        "strict": True,
        "schema": {
            "type": "object", "properties": {name: {"type": "string"} for name in FIELDS}, "required": list(FIELDS),
            "additionalProperties": False,
        },
    },
}  # fmt: skip
_THOUGHTS = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)


def sentences(remote: Remote, pixels: np.ndarray) -> tuple[Text, Text]:
    """Alt text and caption of a picture, uint8 [H, W, 3], by the model of another server. Raises RemoteError; BadRequest or
    MissingFile for its key.
    """
    request: dict[str, Any] = {
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": ASKED},
            {"type": "image_url", "image_url": {"url": data_url(pixels)}},
        ]}],
        "max_tokens": 400, "temperature": 0, "response_format": _SCHEMA,
    } | ({"model": remote.model} if remote.model else {})  # fmt: skip
    return _texts(remote, _content(remote, _ask(remote, request)))


def data_url(pixels: np.ndarray) -> str:
    """A picture as a JPEG of at most ``LONGEST`` pixels a side, in a data URL."""
    picture, out = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    picture.save(out, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _ask(remote: Remote, request: dict[str, Any]) -> Any:
    """The answer's JSON. A connection that fails, and the statuses 429 and 503, are tried once more."""
    import httpx2 as httpx

    key = remote.key()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(ANSWER, connect=CONNECT)
    with httpx.Client(timeout=timeout, trust_env=not remote.is_loopback, follow_redirects=False) as client:
        for left in reversed(range(TRIES)):
            try:
                status, body = _post(remote, client, request, headers)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if left and not isinstance(error, httpx.ReadTimeout):
                    continue
                why = type(error).__name__
                raise _failed(
                    remote, f"does not answer ({why}); is it running", f"没有响应（{why}）；它在运行吗"
                ) from error
            if status not in (429, 503) or not left:
                break
    answer = parse_json(body.decode("utf-8", "replace"))
    if status != 200:
        said = _reason(answer)
        said = said.replace(key, "***") if key else said
        raise _failed(remote, f"answered {status}: {said}", f"回答 {status}：{said}")
    return answer


def _post(remote: Remote, client: Any, request: dict[str, Any], headers: dict[str, str]) -> tuple[int, bytes]:
    """The status and the body, at most ``MAX_ANSWER`` bytes."""
    body = bytearray()
    with client.stream("POST", f"{remote.url}/chat/completions", json=request, headers=headers) as answer:
        for part in answer.iter_bytes():
            body += part
            if len(body) > MAX_ANSWER:
                raise _failed(remote, "answered with too much", "的回答太大")
        return answer.status_code, bytes(body)


def _reason(answer: Any) -> str:
    """The server's own sentence."""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return clean(message)[:300].rstrip(".。") or "no reason was given"


def _content(remote: Remote, answer: Any) -> str:
    """The text of the first choice, without a model's thoughts."""
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        content = None
    text = clean(_THOUGHTS.sub("", content)) if isinstance(content, str) else ""
    if not text:
        raise _failed(remote, "sent no description", "没有发来描述")
    return text


def _texts(remote: Remote, content: str) -> tuple[Text, Text]:
    """The four sentences. Servers that ignore ``response_format`` may put JSON between fences, or write plain sentences: those
    stand in every field.
    """
    start, end = content.find("{"), content.rfind("}")
    found = parse_json(content[start : end + 1]) if 0 <= start < end else None
    if isinstance(found, dict):
        said = {name: " ".join(clean(found.get(name)).split())[:MAX_TEXT] for name in FIELDS}
        if not all(said[name] for name in ("alt_en", "alt_zh")):
            raise _failed(remote, "sent no description", "没有发来描述")
        alt = Text(said["alt_en"], said["alt_zh"])
        return alt, Text(said["caption_en"] or alt.en, said["caption_zh"] or alt.zh)
    plain = " ".join(content.split())[:MAX_TEXT]
    return Text(plain, plain), Text(plain, plain)


def _failed(remote: Remote, en: str, zh: str) -> RemoteError:
    return RemoteError(f"The eyes at {remote.host}: the server {en}.", f"{remote.host} 的视觉服务{zh}。")
