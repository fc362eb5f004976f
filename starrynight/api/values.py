"""Values of fields that routes check by themselves. Each is refused by the name of its field."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request

from starrynight.api.pools import DECODERS
from starrynight.errors import BadRequest, MissingField
from starrynight.text import excerpt

MAX_BODY = 48 << 20  # bytes: a picture of 32 MB in Base64, and words


def whole(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadRequest(
            f"{name} must be a whole number from {low} to {high}, not {excerpt(value)}.",
            f"{name} 应当是 {low} 到 {high} 之间的整数，而不是 {excerpt(value)}。", name,
        )  # fmt: skip
    return value


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(
            f"{name} must be true or false, not {excerpt(value)}.", f"{name} 应当是 true 或 false，而不是 {excerpt(value)}。", name
        )  # fmt: skip
    return value


def choice(name: str, value: object, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        raise BadRequest(
            f"{name} is one of {', '.join(known)}, not {excerpt(value)}.",
            f"{name} 可选：{'、'.join(known)}，而不是 {excerpt(value)}。", name,
        )  # fmt: skip
    return value


def text(name: str, value: object, longest: int, blank: bool = False) -> str:
    """A text of at most ``longest`` characters that is more than spaces, unless it may be ``blank``."""
    if not isinstance(value, str):
        raise BadRequest(
            f"{name} must be text, not {excerpt(value)}.",
            f"{name} 应当是文字，而不是 {excerpt(value)}。",
            name,
        )
    if not value.strip() and not blank:
        raise BadRequest(f"{name} is empty; write some words.", f"{name} 是空的；请写几个字。", name)
    if len(value) > longest:
        raise BadRequest(
            f"{name} has {len(value)} characters; at most {longest} are read.",
            f"{name} 有 {len(value)} 个字符；最多 {longest} 个。", name,
        )  # fmt: skip
    return value


def given(fields: dict[str, Any], name: str) -> Any:
    """A field that must be there. Raises MissingField."""
    if fields.get(name) is None:
        raise MissingField(f"{name} is missing.", f"缺少 {name}。", name)
    return fields[name]


async def json_object(request: Request) -> dict[str, Any]:
    """The body's object, read outside the event loop: with pictures in it, reading takes a while. Raises BadRequest."""
    return await DECODERS.run(_object, await request.body())


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not JSON in UTF-8.", "请求体不是 UTF-8 的 JSON。") from error
    if not isinstance(found, dict):
        raise BadRequest(
            "The body must be an object of named fields.", "请求体应当是一组带名字的字段。", "body"
        )
    return found
