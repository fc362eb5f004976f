"""The schema of the HTTP API and the server say the same: schemathesis asks every route for what the schema allows and forbids."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hung import TESTS, picture
from served import ask, listening

from starrynight.api import app as api
from starrynight.api import feed
from starrynight.api.access import Access, AccessMiddleware
from starrynight.gallery.store import Gallery
from starrynight.jobs.leases import Lease
from starrynight.jobs.queue import Queue
from starrynight.lab.run import PLAN
from starrynight.request import PaintRequest

EXAMPLES = 8  # requests for each route, beside those at each boundary of its schema
LAB_PICTURE = """
[[operations]]
include-path = "/api/lab/{run}/pictures/{name}"
parameters."path.name" = "a.png"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def paint_all(gallery: Gallery, stop: threading.Event) -> None:
    """End every job as a worker does, with a picture that is ready: requests of the schema take hours to paint."""
    lease = Lease(gallery.database, "machine/test")
    assert lease.acquire()
    while not stop.wait(0.01):
        while job := lease.claim():
            for index in range(job.request.count):
                ready = picture(seed=index)
                gallery.add(ready, also=partial(lease.finish_picture, job=job, index=index))
            lease.end(job)
    lease.release()


@pytest.fixture(scope="module")
def here(home: Path) -> Iterator[str]:
    stop = threading.Event()
    with pytest.MonkeyPatch.context() as patch, Gallery(home / "gallery") as gallery:
        patch.setenv("STARRY_HOME", str(home))
        for name in ("LONGEST", "KEEPALIVE"):
            patch.setattr(feed, name, 0.1)  # the stream of a job that waits would not end
        app = api.create_app(gallery, Queue(gallery), lambda: True)
        worker = threading.Thread(target=paint_all, args=(gallery, stop))
        worker.start()
        with listening(AccessMiddleware(app, Access.of("127.0.0.1", None))) as address:
            yield address
        stop.set()
        worker.join()


@pytest.fixture(scope="module")
def schema(here: str) -> dict[str, Any]:
    return ask(here, "/api/openapi.json").json


@pytest.fixture(scope="module")
def known(here: str, home: Path) -> dict[str, str]:
    """Path parameters that exist."""
    run = home / "lab" / "20260101-000000"
    (run / "pictures").mkdir(parents=True)
    (run / PLAN).write_text("{}")
    upload = ask(here, "/api/uploads", picture().encode()).json["init_image"].removeprefix("upload:")
    (run / "pictures" / "a.png").write_bytes(picture().encode())
    with Gallery(home / "gallery") as gallery:
        row = gallery.add(picture())
    job = ask(here, "/api/jobs", {"prompt": "x"}).json["id"]
    return {"picture": row.id, "name": upload, "job": job, "run": run.name}


@pytest.mark.parametrize("ids", ["ids that are there", "any ids"])
def test_schemathesis_finds_nothing(here: str, known: dict[str, str], tmp_path: Path, ids: str) -> None:
    settings = (TESTS / "attacks" / "schemathesis.toml").read_text("utf-8")
    if ids == "ids that are there":
        there = "\n".join(f'"path.{name}" = "{value}"' for name, value in known.items())
        settings = f"{settings}\n{LAB_PICTURE}\n[parameters]\n{there}\n"
    (tmp_path / "schemathesis.toml").write_text(settings, "utf-8")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{here}/api/openapi.json"]
    options = f"--no-color --max-examples {EXAMPLES} --generation-deterministic --warnings off"
    if ids == "any ids":
        options += r" --include-path-regex \{"  # the others have been asked
    done = subprocess.run(
        [*command, *options.split()], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    asked = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert asked is not None, done.stdout
    assert int(asked[1]) == int(asked[2]) > 300


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_names_its_errors_media_types_and_objects(schema: dict[str, Any]) -> None:
    assert len(list(operations(schema))) >= 30
    for name, operation in operations(schema):
        found = operation["responses"]
        missing = {"400", "401", "403", "408", "414", "421", "500", "503", "507"} - found.keys()
        assert not missing, (name, missing)
        assert ("404" in found) >= ("{" in name), name
        assert ("413" in found) == ("requestBody" in operation), name
        assert ("requestBody" in operation) >= (name.split()[0] in ("PUT",)), name
        for status, answer in found.items():
            content = answer.get("content", {})
            if status >= "400" and status != "416":
                form = "OpenAIError" if " /v1/" in name else "A1111Error" if " /sdapi/" in name else "Error"
                assert content == {
                    "application/json": {"schema": {"$ref": f"#/components/schemas/{form}"}}
                }, name
            for media_type, media in content.items():
                shape = media.get("schema") or media["itemSchema"]
                is_file = shape.get("format") == "binary"
                assert is_file == (media_type not in ("application/json", "text/event-stream")), (name, media)
                assert shape.keys() & {"$ref", "format", "properties", "additionalProperties"}, (name, media)
        assert "Retry-After" in found["503"]["headers"]
        assert "WWW-Authenticate" in found["401"]["headers"]
    assert "HTTPValidationError" not in str(schema)


def test_the_objects_are_those_that_are_answered(
    here: str, schema: dict[str, Any], known: dict[str, str]
) -> None:
    answered = {
        "Job": ask(here, f"/api/jobs/{known['job']}").json,
        "Jobs": ask(here, "/api/jobs?state=all").json,
        "SubmittedJob": ask(here, "/api/jobs", {"prompt": "y"}).json,
        "Picture": ask(here, f"/api/pictures/{known['picture']}").json,
        "Pictures": ask(here, "/api/pictures").json,
        "Health": ask(here, "/api/health").json,
        "Upload": ask(here, "/api/uploads", picture().encode()).json,
        "Reading": ask(here, "/api/prompt", {"prompt": "a tractor"}).json,
        "Error": ask(here, "/api/jobs/none").json,
    }
    for name, found in answered.items():
        described = schema["components"]["schemas"][name]
        assert list(described["properties"]) == list(found) or set(described["properties"]) == set(found), (
            name
        )
        assert set(described["required"]) == set(found), name
    fields = {field.name for field in dataclasses.fields(PaintRequest)}
    assert set(schema["components"]["schemas"]["PaintRequest"]["properties"]) == fields


NO_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "no target": b"GET\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a negative length": b"POST /api/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a head of 200 KB": b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
}  # fmt: skip


@pytest.mark.parametrize("case", NO_HTTP)
def test_what_is_no_http_gets_the_same_shape(here: str, case: str) -> None:
    with socket.create_connection(("127.0.0.1", int(here.rsplit(":", 1)[1])), timeout=30) as client:
        client.sendall(NO_HTTP[case])
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(65536):
                received += more
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["type"] == "BadRequest"
