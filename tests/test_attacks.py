"""Hostile weight files and HTTP requests: each is refused with one message and its status, never a server error.

Hostile pictures are in test_metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from attacks.weights import HEADERS, INDEXES, SOUND
from hung import picture
from served import ask, gallery_in, listening, without_worker

from starrynight.api import app as api
from starrynight.api.access import Access, AccessMiddleware
from starrynight.errors import BadFile
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue
from starrynight.models import weights


@pytest.mark.parametrize("case", HEADERS)
def test_a_false_header_is_a_bad_file(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(SOUND)
    assert weights.header(path)["a"]["dtype"] == "F32"
    path.write_bytes(HEADERS[case])
    with pytest.raises(BadFile) as caught:
        weights.header(path)
    assert re.search("[\u4e00-\u9fff]", caught.value.zh)


@pytest.mark.parametrize("case", INDEXES)
def test_an_index_cannot_name_files_elsewhere(tmp_path: Path, case: str) -> None:
    part = tmp_path / "transformer"
    part.mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"transformer": ["diffusers", "X"]}))
    (part / "x.safetensors.index.json").write_bytes(INDEXES[case])
    with pytest.raises(BadFile) as caught:
        weights.of_folder(tmp_path)
    assert "passwd" not in caught.value.en


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gallery_in(tmp_path_factory.mktemp("home")) as gallery:
        gallery.add(picture())
        with without_worker(gallery) as address:
            yield address


@pytest.fixture(scope="module")
def hung(here: str) -> str:
    """The id of the picture in the gallery."""
    return ask(here, "/api/pictures").json["pictures"][0]["id"]


HOSTILE = (
    "", "\0", "..", "../../etc/passwd", "%2e%2e%2f", "'; drop table pictures; --", '" OR *', "NEAR(a b)", "星" * 300, "x" * 3000,
    "-1", "1e400", "9" * 400, "NaN", "\u202e\ud7ff\U0001f319", "[[", "<script>", "2026-99-99", "0001-01-01", "9999-12-31T23:59:59Z",
)  # fmt: skip


def test_no_address_is_a_server_error(here: str) -> None:
    schema = ask(here, "/api/openapi.json").json
    asked = 0
    for path, methods in schema["paths"].items():
        if "get" not in methods or path.endswith("/events"):
            continue
        names = [
            one["name"]
            for one in methods["get"].get("parameters", [])
            if one["in"] == "query" and one["name"] != "lang"
        ]
        within = re.findall(r"\{(\w+)\}", path)
        for value in HOSTILE:
            addresses = [re.sub(r"\{\w+\}", quote(value or "-", safe=""), path)] if within else []
            addresses += [f"{re.sub(r'{.*?}', 'ab', path)}?{name}={quote(value)}" for name in names]
            for address in addresses:
                answer = ask(here, address, Accept_Language="zh")
                asked += 1
                assert answer.status < 500, (address, answer.body)
                if answer.status >= 400:
                    said = (
                        answer.json if isinstance(answer.json["error"], str) else answer.error
                    )  # A1111's form
                    assert said.get("message", said.get("detail")) == said["zh"], address
    assert asked > 300


# They answer with the picture, and no worker runs here: tests/test_openai.py and tests/test_a1111.py send them such bodies.
PAINT_AND_WAIT = ("/v1/images/generations", "/v1/images/edits", "/sdapi/v1/txt2img", "/sdapi/v1/img2img")
BODIES = {
    "nested 100000 deep": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 5000 digits": b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
    "half a character": b'{"pictures": ["\\ud800"], "prompt": "\\ud800", "name": "\\ud800", "position": 0}',
    "half a character in a name": b'{"pictures": ["ab"], "name": "\\ud800", "remove": true, "note": "\\ud800"}',
    "a NUL": b'{"pictures": ["\\u0000"], "prompt": "\\u0000", "name": "\\u0000", "position": 0}',
    "not a number": b'{"pictures": ["ab"], "prompt": "x", "guidance": NaN, "name": "x", "position": 0}',
    "an immense position": b'{"pictures": [], "prompt": "x", "model": "../x", "name": "", "position": 1' + b"0" * 400 + b"}",
    "a name of 100000": b'{"pictures": ["ab"], "prompt": "", "name": "' + b"x" * 100_000 + b'", "position": -1}',
    "a LoRA of 300": b'{"pictures": ["ab"], "prompt": "x", "loras": [["' + b"l" * 300 + b'", 1]], "name": "\\n", "position": 0}',
    "a model of 900": b'{"pictures": ["ab"], "prompt": "x", "model": "/' + b"m" * 900 + b'", "name": "x", "position": 0}',
}  # fmt: skip


def fields_of(schema: dict, operation: dict) -> set[str]:
    """The names of the fields that a route reads; it refuses others before it looks at any value."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return set(
        schema["components"]["schemas"].get(body.get("$ref", "").rpartition("/")[2], {}).get("properties", ())
    )


def only_fields(body: bytes, names: set[str]) -> bytes:
    try:
        return json.dumps({name: value for name, value in json.loads(body).items() if name in names}).encode()
    except (ValueError, RecursionError):
        return body


@pytest.mark.parametrize("case", BODIES)
def test_no_body_is_a_server_error(here: str, hung: str, case: str) -> None:
    schema = ask(here, "/api/openapi.json").json
    body = BODIES[case].replace(b'"ab"', b'"' + hung.encode() + b'"')
    for path, methods in schema["paths"].items():
        if path in PAINT_AND_WAIT:
            continue
        for method in {"post", "put", "patch"} & set(methods):
            address = re.sub(r"\{\w+\}", hung, path)
            for sent in (body, only_fields(body, fields_of(schema, methods[method]))):
                answer = ask(here, address, sent, method.upper(), Content_Type="application/json")
                assert answer.status < 500, (address, answer.body)
    assert ask(here, "/api/jobs?state=all").json == {"jobs": []}


def test_an_unreadable_host_or_origin_is_refused(here: str) -> None:
    for host in (
        "[::1",
        "[",
        "127.0.0.1:99999999",
        "localhost/x",
        "user@localhost",
        "localhost;x",
        "localhost, evil.example",
    ):
        assert ask(here, "/api/health", Host=host).status in (400, 421), host
    for origin in ("http://[", "http://", "://", "http://127.0.0.1@evil.example", "x"):
        assert ask(here, "/api/health", Origin=origin).status == 403, origin


def test_the_token_redirect_stays_on_this_site(here: str, tmp_path: Path) -> None:
    with Gallery(tmp_path / "gallery") as gallery:
        app = AccessMiddleware(
            api.create_app(gallery, Queue(gallery), lambda: True), Access.of("0.0.0.0", "sesame")
        )
        with listening(app) as network:
            for path in ("//evil.example/", "///evil.example", "//evil.example/a"):
                went = ask(network, f"{path}?token=sesame")
                assert (went.status, went.headers["location"][:2]) == (303, "/e"), path


def test_pages_may_connect_to_this_server_only(here: str) -> None:
    policy = ask(here, "/nothing-of-the-api").headers["content-security-policy"]
    reached = re.search(r"connect-src ([^;]*)", policy)
    assert reached
    own = here.removeprefix("http://")
    assert reached[1].split() == ["'self'", f"ws://{own}", f"wss://{own}", "data:", "blob:"]
    assert "http" not in policy
