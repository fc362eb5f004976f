"""What stands in front of Streamlit's pages: a limit for the files that visitors drop, and an answer to dead links.

Streamlit keeps each dropped file in memory until its visitor leaves, and answers every path with the page of ``/``.
"""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnected

from starrynight.api import error_response
from starrynight.i18n import Text
from starrynight.serve.connections import RETRY_AFTER

UPLOADS = "/_stcore/upload_file/"  # then the visitor's session and the file's id
MAX_OF_A_VISITOR, MAX_HELD = 32 << 20, 512 << 20  # bytes held, from which no further file is taken
MAX_RECEIVED = 4  # at once, of up to 32 MB each
FULL = Text(
    "Too many pictures were dropped onto the pages; reload the page, or try again later.",
    "拖进页面的图片太多；请刷新页面，或稍后再试。",
)


class DroppedFiles:
    """The pages behind this limit; beyond it a file is answered with 503."""

    def __init__(self, pages: ASGIApp) -> None:
        self.pages, self.receiving = pages, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "PUT" or not scope["path"].startswith(UPLOADS):
            with contextlib.suppress(
                WebSocketDisconnected
            ):  # a visitor who leaves in the middle of a message
                await self.pages(scope, receive, send)
            return None
        session = scope["path"].removeprefix(UPLOADS).partition("/")[0]
        held = _held()
        if (
            self.receiving >= MAX_RECEIVED
            or sum(held.values()) >= MAX_HELD
            or held.get(session, 0) >= MAX_OF_A_VISITOR
        ):
            refusal = error_response(HTTPConnection(scope), "Busy", FULL, 503)
            refusal.headers["Retry-After"] = str(RETRY_AFTER)
            return await refusal(scope, receive, send)
        self.receiving += 1
        try:
            return await self.pages(scope, receive, send)
        finally:
            self.receiving -= 1


class DeadLinks:
    """The pages behind this redirect: any other path that would be answered with a page leads to ``/?lost=`` the path.

    Below a path of two parts Streamlit's page would look for its own scripts, and stay empty.
    """

    def __init__(self, pages: ASGIApp) -> None:
        self.pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/":
            return await self.pages(scope, receive, send)
        elsewhere = False

        async def send_or_redirect(message: Message) -> None:
            nonlocal elsewhere
            if message["type"] == "http.response.start":
                is_page = Headers(raw=message["headers"]).get("content-type", "").startswith("text/html")
                if elsewhere := message["status"] == 200 and is_page:
                    to = RedirectResponse(f"/?{urlencode({'lost': scope['path']})}", 303)
                    await to(scope, receive, send)
            if not elsewhere:
                await send(message)

        return await self.pages(scope, receive, send_or_redirect)


def _held() -> dict[str, int]:
    """Bytes in memory of each session."""
    from streamlit.runtime import get_instance

    manager: Any = get_instance().uploaded_file_mgr
    return {
        session: sum(len(file.data) for file in list(files.values()))
        for session, files in list(manager.file_storage.items())
    }
