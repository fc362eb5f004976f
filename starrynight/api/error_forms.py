"""The JSON object of an error in each API family: our own, OpenAI's below /v1/, A1111's below /sdapi/.

Each family's object holds the fields that its clients read, and both sentences besides. ``param`` names the field at
fault, in the family's own words, if it is known.
"""

from __future__ import annotations

import re
from typing import Any

from starrynight.i18n import Text

OURS, OPENAI, A1111 = "/api/", "/v1/", "/sdapi/"
ROOTS = (OURS, OPENAI, A1111)

# OpenAI's codes, where it has one for what our errors mean; the others are our own class in snake case.
_CODES = {
    "BadRequest": "invalid_value", "UnknownName": "invalid_value", "WrongSize": "invalid_size", "MissingField": "missing_required_parameter",
    "UnknownField": "unknown_parameter", "BadFile": "invalid_image", "MissingFile": "not_found",
    "Unauthorized": "invalid_api_key", "Forbidden": "forbidden", "QueueFull": "rate_limit_exceeded",
    "TooMany": "rate_limit_exceeded",
    "StarryError": "server_error",
}  # fmt: skip


def error_body(
    path: str, kind: str, error: Text, lang: str, status: int, param: str | None
) -> dict[str, Any]:
    """The answer to a request at ``path`` that failed. ``kind``: the error's class; ``lang``: of its message."""
    both = {"en": error.en, "zh": error.zh}
    message = error.to(lang)
    if path.startswith(A1111):  # as A1111's handle_exception writes it (modules/api/api.py)
        return {"error": kind, "detail": message, "body": "", "errors": message, "param": param, **both}
    if path.startswith(OPENAI):
        code = openai_code(kind, param)
        return {
            "error": {"message": message, "type": openai_type(status), "param": param, "code": code, **both}
        }
    return {"error": {"message": message, "type": kind, "param": param, "code": None, **both}}


def openai_type(status: int) -> str:
    """The type of OpenAI's errors with this status."""
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def openai_code(kind: str, param: str | None) -> str:
    if param == "model" and kind in ("UnknownName", "MissingFile"):
        return "model_not_found"
    return _CODES.get(kind) or re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
