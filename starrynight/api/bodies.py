"""What a route reads of a request, and that it refuses the rest: an unknown parameter or field is never ignored.

JSON bodies are UTF-8 (RFC 8259). Python's reader also takes UTF-16 and UTF-32, which other programs read otherwise.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

# Taken by every route: the language of an error, and the access token (api/access.py).
EVERYWHERE = frozenset({"lang", "token"})


class Utf8Request(Request):
    async def json(self) -> Any:
        """The body. Raises ``json.JSONDecodeError``."""
        body = await self.body()
        try:
            return json.loads(body.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise json.JSONDecodeError("not UTF-8", "", error.start) from error
        except RecursionError as error:
            raise json.JSONDecodeError("nested too deep", "", 0) from error


class Route(APIRoute):
    """A route that reads JSON bodies so, and takes only the parameters and fields that it declares."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        parameters = EVERYWHERE | {one.alias for part in _parts(self.dependant) for one in part.query_params}
        fields = [one for part in _parts(self.dependant) for one in part.body_params]
        whole = len(fields) == 1 and not getattr(fields[0].field_info, "embed", False)
        reads_itself = whole or "requestBody" in (self.openapi_extra or {})

        async def handle_checked(request: Request) -> Response:
            _check_parameters(request, parameters)
            read = Utf8Request(request.scope, request.receive)
            if request.method not in ("GET", "HEAD") and not reads_itself:
                await _check_fields(read, [one.alias for one in fields])
            return await handle(read)

        return handle_checked


def _parts(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for one in dependant.dependencies:
        yield from _parts(one)


def _check_parameters(request: Request, known: frozenset[str]) -> None:
    """Raises RequestValidationError for a query parameter that the route does not read, or that is given twice."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if name not in known:
            raise _refused("unknown_field", "query", name, known - {"token"})
        if count > 1:
            raise _refused("given_twice", "query", name)


async def _check_fields(request: Utf8Request, known: list[str]) -> None:
    """Raises RequestValidationError for a field that the route does not read. What is not JSON is FastAPI's to refuse, but
    for a route without a body, which may get none.
    """
    try:
        body = await request.json() if await request.body() else {}
    except ValueError:
        body = {} if known else None
    if not known and not isinstance(body, dict):
        raise _refused("no_body", "body", "body")
    for name in body if isinstance(body, dict) else ():
        if name not in known:
            raise _refused("unknown_field", "body", name, known)


def _refused(kind: str, place: str, name: str, known: Any = ()) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": (place, name), "ctx": {"known": sorted(known)}}])
