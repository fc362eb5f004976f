"""What /api/openapi.json says beyond the signatures of the routes: the objects of requests and answers, media types,
and every status of an error with its one shape.

Routes name their answers with ``answers``, ``files`` and ``errors``; ``complete`` adds what holds for all of them.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from datetime import datetime
from typing import Any

from starrynight.api.error_forms import A1111, OPENAI
from starrynight.gallery.annotations import MAX_COLLECTION, MAX_NOTE, MAX_TAG
from starrynight.gallery.schema import Row
from starrynight.jobs.job import STATE_GROUPS
from starrynight.request import (
    HIGHEST_SIZE,
    LOWEST_SIZE,
    MAX_LORAS,
    MAX_NAME,
    MAX_SEED,
    MAX_TEXT,
    MAX_TRIES,
    PRECISIONS,
    PREDICTIONS,
)

Schema = dict[str, Any]
Answers = dict[int | str, dict[str, Any]]

STATES = list(STATE_GROUPS["all"])
PROBLEMS = ("locked", "damaged", "read_only", "database", "disk", "queue", "worker")
ERRORS = {
    400: "A parameter, a field or the request itself is not valid; `param` names the field, if one is at fault.",
    401: "The key or access token is missing, wrong or revoked (where the server asks for one, or a key was sent).",
    403: "A page of another site sent the request.",
    404: "There is no such thing, or no model, style, sampler or LoRA of that name.",
    408: "The request arrived too slowly.",
    409: "Something else has this name.",
    413: "The body is too large.",
    414: "The address is too long, or no file system takes it.",
    416: "The file has no such part.",
    421: "The Host header names another server.",
    422: "A picture or its file is damaged, of the wrong type or unsafe.",
    429: "As many jobs wait as may wait, or this key has sent as many requests, or has as many jobs, as it may.",
    499: "The job was cancelled by another caller.",
    500: "The server failed; its log says why.",
    501: "An optional package is not installed.",
    502: "The server that paints this model failed, or does not answer.",
    503: "Too many callers, or another program, hold what is needed.",
    507: "The disk is full, or the gallery is damaged or cannot be written to.",
}
EVERYWHERE = (400, 401, 403, 408, 414, 421, 429, 500, 503, 507)
HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": "Seconds after which to try again."},
    503: {"Retry-After": "Seconds after which to try again."},
}
ERROR_FORMS = {OPENAI: "OpenAIError", A1111: "A1111Error"}  # others are answered as "Error"
DESCRIPTION = (
    "Every error is an `Error` with its own status, in the language of `?lang=en`, `?lang=zh` or `Accept-Language`. "
    "A query parameter or a field of a body that a route does not name, or a parameter given twice, is a 400. "
    "A HEAD is a GET without its body; another method than those named here is a 405 with `Allow`. "
    "See docs/api.md for limits, events and access."
)


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def answers(schema: str | Schema, status: int = 200) -> Answers:
    """A JSON answer: the name of a component, or a schema."""
    body = ref(schema) if isinstance(schema, str) else schema
    return {status: {"description": "The answer.", "content": {"application/json": {"schema": body}}}}


def event_of(schema: str, last: str | None = None) -> Schema:
    """A server-sent event whose data are a component in JSON (OpenAPI 3.2, 4.14.4). ``last``: what the last one has instead."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(schema)}
    if last is not None:
        data = {"type": "string", "if": {"const": last}, "else": data}
    return {"type": "object", "properties": {"event": {"type": "string"}, "data": data}}


def files(*media_types: str, parts: bool = True) -> Answers:
    """An answer that is a file of one of these types; ``parts``: it has an ETag and answers a Range."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    found: Answers = {200: {"description": "The file.", "content": content}}
    if parts:
        found[206] = {"description": "The part that `Range` asks for.", "content": content}
        found[304] = {"description": "The caller has the file: `If-None-Match` names its ETag."}
        found[416] = {"description": ERRORS[416]}
    return found


def errors(*statuses: int) -> Answers:
    return {status: _error(status) for status in statuses}


def one_of(*values: Any) -> Schema:
    """``json_schema_extra`` of a parameter whose values the route checks itself."""
    return {"enum": list(values)}


def body_of(content: dict[str, Schema]) -> Schema:
    """``openapi_extra`` of a route that reads its body itself: media type → schema."""
    return {
        "requestBody": {"required": True, "content": {kind: {"schema": s} for kind, s in content.items()}}
    }


# The parts of a file that a caller may ask for; ``openapi_extra`` of the routes with ``files``.
PARTS = {
    "parameters": [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
        for name in ("Range", "If-Range", "If-None-Match")
    ]
}
LANGUAGE = {
    "name": "lang", "in": "query", "required": False, "description": "Of an error's `message`: en or zh.",
    "schema": {"type": "string"},
}  # fmt: skip


def complete(document: Schema, families: Schema) -> Schema:
    """Add to FastAPI's document what it does not know, and take out its 422, which is never answered here. ``families``: the
    objects of the other API families."""
    document["info"]["description"] = DESCRIPTION
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, body in schemas.items():
        if name.startswith("Body_"):  # FastAPI's names of bodies whose fields are arguments of the route
            body["additionalProperties"] = False
    schemas.update(_components() | families)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            _complete(path, operation)
    return document


def _complete(path: str, operation: Schema) -> None:
    operation["security"] = [{}, {"token": []}]  # a server that everybody may use asks for none
    operation["parameters"] = [*operation.get("parameters", []), LANGUAGE]
    found = operation["responses"]
    if _names_fastapis_422(found):
        del found["422"]
    statuses = [*EVERYWHERE, *([404] if "{" in path else []), *([413] if "requestBody" in operation else [])]
    for status in statuses:
        found.setdefault(str(status), _error(status))
    if form := next((name for root, name in ERROR_FORMS.items() if path.startswith(root)), None):
        for status, answer in found.items():
            if status >= "400" and "content" in answer:
                answer["content"] = {"application/json": {"schema": ref(form)}}
    for media in [*_media(found), *_media({"body": operation.get("requestBody", {})})]:
        if "$ref" in media.get("schema", {}):  # FastAPI merges ours with what it has guessed
            media["schema"] = {"$ref": media["schema"]["$ref"]}
    operation["responses"] = dict(sorted(found.items()))


def _names_fastapis_422(found: Schema) -> bool:
    return any("HTTPValidationError" in str(media) for media in _media({"422": found.get("422", {})}))


def _media(responses: Schema) -> list[Schema]:
    return [media for one in responses.values() for media in one.get("content", {}).values()]


def _error(status: int) -> Schema:
    found = {"description": ERRORS[status], "content": {"application/json": {"schema": ref("Error")}}}
    if names := HEADERS.get(status):
        found["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in names.items()
        }
    return found


# The objects


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    return {"type": "object", "properties": required | (optional or {}), "required": list(required), **more}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def items(each: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": each, **more}


TEXT, WHOLE, NUMBER, YES = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
TIME = {"type": "string", "format": "date-time"}
_BOTH = {"en": TEXT, "zh": TEXT}
_STORED_ERROR = record({"type": TEXT, **_BOTH, "status": WHOLE})
_UNPRINTABLE = (
    r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffe\uffff"  # text.UNPRINTABLE; \r is made \n
)
# Text that is more than spaces, and name in one line.
PROMPT = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": r"\S"}
NAME = {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": r"^[^\n\t]*\S[^\n\t]*$"}
_OF_A_TYPE = {str: TEXT, int: WHOLE, float: NUMBER, bool: YES, datetime: TIME, dict[str, Any]: ref("Seen")}


def _components() -> dict[str, Schema]:
    job = _job()
    return {
        "Error": record({"error": record(
            {"message": TEXT, "type": TEXT, "param": maybe(TEXT), "code": maybe(TEXT), **_BOTH})}),
        "PaintRequest": _paint_request(),
        "Job": job,
        "SubmittedJob": job | {
            "properties": job["properties"] | {"warnings": items(record(_BOTH))},
            "required": [*job["required"], "warnings"]},
        "Prompt": record(
            {"prompt": PROMPT}, {"model": maybe(NAME)}, additionalProperties=False, examples=[{"prompt": "a tractor at dusk"}]),
        "Reading": record({
            "model": TEXT, "vocabulary": YES, "styles": items(TEXT),
            "unknown": items(record({"word": TEXT, "suggestions": items(TEXT)})),
            "facets": items(record({"kind": TEXT, "text": TEXT, "start": WHOLE, "end": WHOLE, "value": TEXT}))}),
        "Jobs": record({"jobs": items(ref("Job"))}),
        "Upload": record({"init_image": TEXT, "width": WHOLE, "height": WHOLE, "warnings": items(record(_BOTH))}),
        "Loras": items(record({"name": TEXT, "preview": maybe(TEXT)})),
        "LoraKept": record({"name": TEXT}),
        "Imported": record({"id": TEXT, "new": YES, "warnings": items(record(_BOTH))}),
        "Picture": _picture(),
        "Seen": record({
            "by": TEXT, "confidence": NUMBER, "missing": items(TEXT), **{name: record(_BOTH) for name in ("alt", "caption", "prompt", "lacks")},
            "facts": record({**{name: maybe(TEXT) for name in ("style", "hour", "weather", "kind")}, "things": items(TEXT)})}),
        "Pictures": record({"pictures": items(ref("Picture")), "next": maybe(TEXT)}),
        "Alike": record({"pictures": items(ref("Picture")), "next": {"type": "null"}, "warnings": items(record(_BOTH))}),
        "Layout": record({"numbers": items(WHOLE), "ratios": items(NUMBER)}),
        "Recipe": {"type": "object", "description": "What the file says of itself, as its tool wrote it."},
        "Counts": {"type": "object", "additionalProperties": WHOLE},
        "Probe": record({"status": one_of("ok")}),
        "Health": record({
            "status": one_of("ok", "degraded"), "version": TEXT, "worker": one_of("alive", "starting", "absent"),
            "jobs": ref("Counts"), "pictures": WHOLE, "seconds_old": NUMBER, "gallery": TEXT,
            "problems": items(record({"kind": one_of(*PROBLEMS), **_BOTH}))}),
    }  # fmt: skip


def _paint_request() -> Schema:
    """The fields of ``PaintRequest`` as a caller over HTTP may give them; null is the model's default."""
    side = {"type": "integer", "minimum": LOWEST_SIZE, "maximum": HIGHEST_SIZE}
    stored = {"type": "string", "pattern": "^(picture|upload):[0-9a-f]{4,32}$"}
    weights = {"type": "array", "minItems": 2, "maxItems": 3, "prefixItems": [NAME, NUMBER, NUMBER]}
    optional = {
        "negative_prompt": {"type": "string", "maxLength": MAX_TEXT},
        "style": NAME, "model": NAME, "sampler": NAME, "width": side, "height": side,
        "steps": {"type": "integer", "minimum": 1, "maximum": 150},
        "guidance": {"type": "number", "minimum": 0, "maximum": 30},
        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
        "count": {"type": "integer", "minimum": 1, "maximum": 64},
        "precision": one_of(*PRECISIONS), "prediction": one_of(*PREDICTIONS),
        "loras": items(weights, maxItems=MAX_LORAS), "lora_partial": YES, "verify": YES, "keep_packed": YES,
        "until_seen": {"type": "integer", "minimum": 1, "maximum": MAX_TRIES},
        "init_image": stored, "mask": stored,
        "extend": {"type": "array", "minItems": 4, "maxItems": 4,
                   "items": {"type": "integer", "minimum": 0, "maximum": HIGHEST_SIZE}},
        "variation": {"type": "number", "minimum": 0, "maximum": 1},
        "variety": {"type": "number", "minimum": 0, "maximum": 1},
        "variation_seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
        "strength": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    }  # fmt: skip
    return record(
        {"prompt": PROMPT},
        {name: maybe(s) for name, s in optional.items()},
        additionalProperties=False,
        examples=[
            {"prompt": "江雪，孤舟", "style": "ink", "count": 4},
            {"prompt": "a lighthouse at dawn", "width": 512, "seed": 7},
        ],
    )


def _job() -> Schema:
    painted = record({"index": WHOLE, "picture": maybe(TEXT), "error": maybe(_STORED_ERROR)})
    return record({
        "id": TEXT, "state": one_of(*STATES),
        "request": record({"prompt": TEXT}, description="The fields of POST /api/jobs, those left out filled in."),
        "count": WHOLE, "picture": maybe(WHOLE), "step": maybe(WHOLE), "steps": maybe(WHOLE),
        "progress": {"type": "number", "minimum": 0, "maximum": 1}, "painted": items(painted),
        "position": maybe(WHOLE), "seconds_left": maybe(NUMBER), "attempts": WHOLE, "cancelling": YES,
        "submitted_at": TIME, "started_at": maybe(TIME), "ended_at": maybe(TIME),
        "error": maybe(_STORED_ERROR), "revision": WHOLE,
    })  # fmt: skip


def _picture() -> Schema:
    hints = typing.get_type_hints(Row)
    return record({field.name: _of_type(hints[field.name]) for field in dataclasses.fields(Row)})


def _of_type(hint: Any) -> Schema:
    if isinstance(hint, types.UnionType):
        (kind,) = (one for one in hint.__args__ if one is not type(None))
        return maybe(_of_type(kind))
    if typing.get_origin(hint) is tuple:
        return items(_of_type(hint.__args__[0]))
    return _OF_A_TYPE[hint]


# ``json_schema_extra`` of the fields of annotations, which the gallery checks
NOTE = {"maxLength": MAX_NOTE, "pattern": f"^[^{_UNPRINTABLE}]*$"}
NAMED = f"^[^{_UNPRINTABLE}]*[^{_UNPRINTABLE}\\s][^{_UNPRINTABLE}]*$"
TAG_NAME = {"minLength": 1, "maxLength": MAX_TAG, "pattern": NAMED}
COLLECTION_NAME = {"minLength": 1, "maxLength": MAX_COLLECTION, "pattern": NAMED}
