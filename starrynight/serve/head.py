"""What Streamlit's page lacks in its head: a manifest, so that a phone can install the pages, and the preview of a picture's link.

Programs that draw previews run no scripts, so these tags have to be in the page as it is sent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import starrynight
from starrynight.errors import StarryError
from starrynight.exhibition import page, texts
from starrynight.gallery.store import Gallery
from starrynight.i18n import is_chinese

MANIFEST = "/manifest.webmanifest"
ICONS = Path(starrynight.__file__).parent / "web" / "static"
# A phone asks for the manifest without cookies unless it is told otherwise, and the pages may want a token.
LINKS = (
    f'<link rel="manifest" href="{MANIFEST}" crossorigin="use-credentials"><meta name="theme-color" content="#060a18">'
    '<link rel="apple-touch-icon" href="/icon-192.png">'
)
APP: dict[str, Any] = {
    "name": "Starry Night · 璀璨星河", "short_name": "璀璨星河", "start_url": "/", "scope": "/", "display": "standalone",
    "background_color": "#060a18", "theme_color": "#060a18",
    "icons": [
        {"src": f"/icon-{side}.png", "sizes": f"{side}x{side}", "type": "image/png", "purpose": "any maskable"}
        for side in (192, 512)
    ],
}  # fmt: skip


class PageHead:
    """The pages with these tags, and the files that they name."""

    def __init__(self, pages: ASGIApp, gallery: Gallery) -> None:
        self.pages, self.gallery = pages, gallery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return await self.pages(scope, receive, send)
        if (answer := _file(scope["path"])) is not None:
            return await answer(scope, receive, send)
        if scope["path"] != "/" or scope["method"] == "HEAD":
            return await self.pages(scope, receive, send)
        tags = (LINKS + await to_thread.run_sync(self._preview, HTTPConnection(scope))).encode()
        plain = [
            one
            for one in scope["headers"]
            if one[0] not in (b"accept-encoding", b"range", b"if-none-match", b"if-modified-since")
        ]
        start: Message = {}
        parts: list[bytes] = []

        async def with_tags(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            body, headers = b"".join(parts), MutableHeaders(raw=list(start["headers"]))
            if Headers(raw=start["headers"]).get("content-type", "").startswith("text/html"):
                body = body.replace(b"</head>", tags + b"</head>", 1)
                headers["content-length"] = str(len(body))
                for name in ("etag", "last-modified"):  # of the page without the tags
                    if name in headers:
                        del headers[name]
            await send({**start, "headers": headers.raw})
            await send({"type": "http.response.body", "body": body})

        return await self.pages({**scope, "headers": plain}, receive, with_tags)

    def _preview(self, asked: HTTPConnection) -> str:
        """The preview of ``?picture=ID``; empty for a page without a picture, or with one that is not here."""
        query = parse_qs(asked.scope["query_string"].decode("latin-1"))
        picture = query.get("picture", [""])[0]
        if not picture:
            return ""
        try:
            row = self.gallery.get(picture)
        except StarryError:
            return ""
        lang = "zh" if is_chinese(query.get("lang", [asked.headers.get("accept-language", "")])[0]) else "en"
        base = str(asked.base_url).rstrip("/")
        return page.preview_tags(
            texts.title(row, lang), texts.line(row, lang), f"{base}/api/pictures/{row.id}/thumb?size=1024",
            address=f"{base}/?picture={row.id}",
        )  # fmt: skip


def _file(path: str) -> Response | None:
    """The manifest or an icon; None for another path."""
    if path == MANIFEST:
        return Response(
            json.dumps(APP, ensure_ascii=False, allow_nan=False), media_type="application/manifest+json"
        )
    if path in [icon["src"] for icon in APP["icons"]]:
        return Response((ICONS / path.removeprefix("/")).read_bytes(), media_type="image/png")
    return None
