"""Answers that are files: with an ETag, 304 for one that the caller has, and a part of it for a Range (RFC 9110)."""

from __future__ import annotations

import re

from fastapi import Request, Response

from starrynight.errors import BadFile
from starrynight.gallery.files import has_format, id_of

# A browser must treat the file as a picture, whatever its bytes are.
PICTURE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
CHECK_AGAIN = {"Cache-Control": "private, no-cache"}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def check_format(data: bytes, kind: str) -> bytes:
    """The data, if they are a picture of the format that their name says. Raises ``BadFile``."""
    if not has_format(data, kind):
        raise BadFile(
            f"The file is no {kind} picture; it was changed after it was added. `starry gallery verify` lists such files.",
            f"这个文件不是 {kind} 图片；它存入之后被改动过。`starry gallery verify` 会列出这样的文件。",
        )
    return data


def file_response(request: Request, data: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """The file, the part that ``Range`` asks for (206, or 416 if there is none), or 304."""
    tag = f'"{id_of(data)}"'
    headers = headers | {"ETag": tag, "Accept-Ranges": "bytes"}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    wanted = _RANGE.fullmatch(request.headers.get("range", ""))
    if wanted is None or wanted[0] == "bytes=-" or request.headers.get("if-range", tag) != tag:
        return Response(data, media_type=media_type, headers=headers)
    size, (first, last) = len(data), wanted.groups()
    start, end = (int(first), int(last or size)) if first else (max(0, size - int(last)), size)
    end = min(end, size - 1)
    if start > end:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return Response(data[start : end + 1], 206, headers, media_type)
