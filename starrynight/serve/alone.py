"""The pages that stand alone, /see and /listen: files of ``web/alone`` that use the API, without Streamlit.

They are drawn by Vue's runtime (MIT, https://vuejs.org, from npm, as its makers built it) from render functions, so that their policy
forbids evaluated code, inline scripts and every other address.
"""

from __future__ import annotations

import json
import mimetypes
from functools import cache
from pathlib import Path

from anyio import to_thread
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

import starrynight
from starrynight.i18n import LANGUAGES
from starrynight.senses.describe import fact_names

FOLDER = Path(starrynight.__file__).parent / "web" / "alone"
ROOT = "/alone/"
PAGES = {"/see": "see.html", "/listen": "listen.html"}
FILES = (
    "page.css",
    "shared.js",
    "see.js",
    "listen.js",
    "recorder.js",
    "words.json",
    "vue.runtime.esm-browser.prod.js",
)
FACTS = "facts.json"  # what each fact is called in both languages
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {"content-security-policy": POLICY, "cache-control": "no-cache"}


class StandingAlone:
    """The pages behind these: their paths and files are answered here, everything else there."""

    def __init__(self, pages: ASGIApp) -> None:
        self.pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            path = scope["path"]
            name = PAGES.get(path.rstrip("/")) or path.removeprefix(ROOT)
            if name == FACTS and path.startswith(ROOT):
                answer: Response = await to_thread.run_sync(_facts)
                return await answer(scope, receive, send)
            if name in (*FILES, *PAGES.values()) and (name in FILES) == path.startswith(ROOT):
                kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
                found = FileResponse(FOLDER / name, media_type=kind, headers=HEADERS)
                return await found(scope, receive, send)
        return await self.pages(scope, receive, send)


def _facts() -> Response:
    return Response(_named(), media_type="application/json", headers=HEADERS)


@cache
def _named() -> str:
    return json.dumps(
        {language: fact_names(language) for language in LANGUAGES}, ensure_ascii=False, allow_nan=False
    )
