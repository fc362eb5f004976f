"""The HTTP interface: it translates requests into calls of gallery and queue. See docs/api.md.

The names of route functions are operation ids in /api/openapi.json: renaming one breaks generated clients.
"""

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from starrynight.api.error_forms import error_body
from starrynight.i18n import Text


def error_response(
    caller: HTTPConnection, kind: str, error: Text, status: int, param: str | None = None
) -> JSONResponse:
    """The JSON object of every error, in the form of the API family that was asked. Its message is in the language of
    ``?lang=`` or ``Accept-Language``.

    ``kind``: the error's type. ``param``: the field at fault, if it is known.
    """
    lang = caller.query_params.get("lang") or caller.headers.get("accept-language", "")
    body = error_body(caller.scope["path"], kind, error, lang, status, param)
    return JSONResponse(body, status, headers={"X-Content-Type-Options": "nosniff"})
