"""Values of fields that routes check by themselves, and pictures within JSON. Each is refused by the name of its field.

Nothing that a request names by address is fetched: a picture is in the request, or it is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

import numpy as np
from fastapi import Request

from starrynight.api.pools import DECODERS
from starrynight.errors import BadFile, BadRequest, MissingField
from starrynight.jobs.uploads import check_length
from starrynight.metadata.pixels import Limits, read_image
from starrynight.text import excerpt

_BASE64_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
# What is read of a picture within JSON: as an upload is, scaled to a side that every model of the senses sees whole.
SEEN = Limits(pixels=40_000_000, side=16_384, fit=1024)
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


def check_address(name: str, value: object) -> str:
    """``value``, if it looks like a data: URL in Base64. Raises BadRequest for any other address or text."""
    if not isinstance(value, str):
        raise BadRequest(
            f"{name} must be a data: URL with a picture, not {excerpt(value)}.",
            f"{name} 应当是带图片的 data: 地址，而不是 {excerpt(value)}。", name,
        )  # fmt: skip
    if not _BASE64_URL.match(value):
        shown = excerpt(value[:40])
        raise BadRequest(
            f"{name} is “{shown}”. Nothing is fetched from an address; send the picture as data:image/png;base64,….",
            f"{name} 是“{shown}”。这里不会去取任何地址；请以 data:image/png;base64,… 发送图片。", name,
        )  # fmt: skip
    return value


def pixels(name: str, value: object) -> np.ndarray:
    """The picture in a data: URL in Base64, uint8 [H, W, 3], scaled to at most 1024 pixels a side.

    Raises as ``check_address``, and BadFile for what is no whole picture.
    """
    body = check_address(name, value).partition(",")[2]
    try:
        data = base64.b64decode(body.replace("\n", "").replace("\r", ""), validate=True)
    except (ValueError, binascii.Error):
        raise BadFile(f"{name} is not Base64.", f"{name} 不是 Base64。", name) from None
    try:
        check_length(data)
        return np.asarray(read_image(data, SEEN))
    except BadFile as error:
        error.param = error.param or name
        raise
