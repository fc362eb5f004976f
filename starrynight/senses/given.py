"""Pictures and texts as a request gives them to the senses. Nothing is fetched: a picture is in the request, or it is refused."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from starrynight.errors import BadFile, BadRequest
from starrynight.metadata.pixels import Limits, read_image
from starrynight.senses import embedding, perceiver
from starrynight.senses.choice import BUILT_IN, OFF, chosen
from starrynight.senses.describe import describe
from starrynight.senses.embedding import Embedded
from starrynight.senses.ranking import Document
from starrynight.text import excerpt

MAX_BYTES = 32 << 20
# What is read of a picture: as an upload is, scaled to a side that every model of the senses sees whole.
SEEN = Limits(pixels=40_000_000, side=16_384, fit=1024)
_BASE64_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


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
        if len(data) > MAX_BYTES:
            raise BadFile(
                f"{name} is larger than {MAX_BYTES >> 20} MB; make it smaller first.",
                f"{name} 超过 {MAX_BYTES >> 20} MB；请先缩小。",
            )
        return np.asarray(read_image(data, SEEN))
    except BadFile as error:
        error.param = error.param or name
        raise


def embed(entries: Sequence[str | np.ndarray]) -> Embedded:
    """Vectors of texts and pictures, float32 [N, D] in their order. Raises as ``embedding.embed``, and BadRequest for pictures where
    the embedder is not the perceiver.
    """
    choice = chosen("embedder")
    pictures = [one for one in entries if not isinstance(one, str)]
    texts = [one for one in entries if isinstance(one, str)]
    if not pictures or choice.kind == OFF:
        return embedding.embed(texts, choice)
    if choice.kind != BUILT_IN:
        raise BadRequest(
            f"{choice.name} has no vectors of pictures; send texts, or set STARRY_EMBEDDER to built-in.",
            f"{choice.name} 不能为图片生成向量；请只发文字，或把 STARRY_EMBEDDER 设为 built-in。", "input",
        )  # fmt: skip
    seen = embedding.embed_pictures(pictures)
    read = embedding.embed(texts, choice).vectors if texts else seen.vectors[:0]
    rows, others = iter(seen.vectors), iter(read)
    return Embedded(np.stack([next(others if isinstance(one, str) else rows) for one in entries]), seen.by)


def written(vectors: np.ndarray, form: str) -> list[Any]:
    """Vectors as JSON has them: lists of numbers, or for "base64" texts of little-endian float32."""
    if form == "float":
        return vectors.tolist()
    return [base64.b64encode(one.astype("<f4").tobytes()).decode() for one in vectors]


def document(picture: np.ndarray) -> Document:
    """A picture, uint8 [H, W, 3], as a ranker takes it: the perceiver's vector, and for those that read words its sentences."""
    model = perceiver.load()
    sight = model.see(picture)
    said = describe(model, sight)
    return Document(" ".join(filter(None, (*said.caption, said.prompt.en))), sight.vector)
