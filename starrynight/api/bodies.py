"""JSON bodies are UTF-8 (RFC 8259). Python's reader also takes UTF-16 and UTF-32, which other programs read otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class Utf8Request(Request):
    async def json(self) -> Any:
        """The body. Raises ``json.JSONDecodeError``."""
        body = await self.body()
        try:
            return json.loads(body.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise json.JSONDecodeError("not UTF-8", "", error.start) from error


class Route(APIRoute):
    """A route that reads JSON bodies so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_utf8(request: Request) -> Response:
            return await handle(Utf8Request(request.scope, request.receive))

        return handle_utf8
