"""The service: keys and their limits, every refusal, probes, metrics, logs, and `starry serve` as a process."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import STARRY, Answer, ask, listening, until

from starrynight import logs
from starrynight.api import app as api
from starrynight.api import limits
from starrynight.api.access import Access, AccessMiddleware
from starrynight.api.pools import Pool
from starrynight.api.requests import RequestLog
from starrynight.errors import BrokenNumbers, QueueFull, UnknownName
from starrynight.gallery.store import Gallery
from starrynight.jobs import tallies
from starrynight.jobs.keys import Keys
from starrynight.jobs.leases import Lease
from starrynight.jobs.queue import Queue
from starrynight.jobs.tallies import FALLBACKS, PICTURES, REFUSED, STEP_SECONDS, Tallies, count_picture
from starrynight.painting.results import Refused
from starrynight.request import PaintRequest
from starrynight.verdict import FallbackAttempt, Fault, Verdict

TOKEN = "sesame"


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gallery]:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    with Gallery(lock_timeout=0.3) as opened:
        yield opened


@contextlib.contextmanager
def serving(gallery: Gallery, alive: bool = True, **access: Any) -> Iterator[str]:
    """As `starry serve` builds it, without worker and pages."""
    app = api.create_app(gallery, Queue(gallery), lambda: alive)
    rules = Access.of(**({"host": "127.0.0.1", "token": None, "keys": Keys(gallery.database)} | access))
    with listening(RequestLog(AccessMiddleware(app, rules), app.state.metrics)) as address:
        yield address


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def kind_of(answer: Answer) -> str:
    """The type of an error, in the form of the API family that was asked."""
    error = answer.json["error"]
    if isinstance(error, str):  # A1111's
        return error
    return {"invalid_api_key": "Unauthorized", "rate_limit_exceeded": "TooMany"}.get(
        error["code"], error["type"]
    )


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"user:{key}".encode()).decode()}


def test_a_key_is_stored_as_its_hash_and_revoked_by_name_or_id(gallery: Gallery) -> None:
    keys = Keys(gallery.database)
    key, text = keys.make("office", rate=60, queue=3)
    assert keys.find(text) == key
    assert text.encode() not in Path(str(gallery.database.place)).read_bytes()
    secret = text.rsplit("-", 1)[1]
    for wrong in (text[:-1], text + "x", text.replace(key.id, "00000000"), secret, "", "starry-"):
        assert keys.find(wrong) is None, wrong
    other, _ = keys.make("lab")
    assert keys.revoke("office").id == key.id
    assert keys.find(text) is None
    assert keys.revoke(other.id).revoked_at is not None
    with pytest.raises(UnknownName):
        keys.revoke("office")
    assert keys.make("office")[0].id != key.id  # the name is free again
    assert [(one.name, one.revoked_at is None) for one in keys.all()] == [
        ("office", False), ("lab", False), ("office", True),
    ]  # fmt: skip


REFUSALS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no key": ({"path": "/api/jobs"}, 401, "Unauthorized"),
    "no key for OpenAI's routes": ({"path": "/v1/models"}, 401, "Unauthorized"),
    "no key for A1111's routes": ({"path": "/sdapi/v1/options"}, 401, "Unauthorized"),
    "no key for the metrics": ({"path": "/metrics"}, 401, "Unauthorized"),
    "another token": ({"path": "/api/jobs", **bearer("sk-none")}, 401, "Unauthorized"),
    "a wrong key": ({"path": "/api/jobs", **bearer("starry-0011aabb-" + "x" * 43)}, 401, "Unauthorized"),
    "half a key": ({"path": "/api/jobs", **bearer("starry-")}, 401, "Unauthorized"),
    "a password that is no key": ({"path": "/sdapi/v1/options", **basic("x")}, 401, "Unauthorized"),
    "Basic that is not base64": ({"path": "/api/jobs", "Authorization": "Basic ☆".encode()}, 401, "Unauthorized"),
    "a revoked key": ({"path": "/api/jobs", "key": "revoked"}, 401, "Unauthorized"),
    "too large a body": ({"path": "/api/jobs", "key": "good", "body": b'"' + b"x" * (2 << 20) + b'"'}, 413, "BadRequest"),
    "another site's page": ({"path": "/api/jobs", "key": "good", "Origin": "http://evil.example"}, 403, "Forbidden"),
    "another site's form": ({"path": "/api/jobs", "key": "good", "body": {"prompt": "x"}, "Sec_Fetch_Site": "cross-site"}, 403, "Forbidden"),
    "a rebound name": ({"path": "/api/jobs", "key": "good", "Host": "evil.example"}, 421, "Misdirected"),
    "a rebound name at a probe": ({"path": "/healthz", "Host": "evil.example"}, 421, "Misdirected"),
    "broken JSON": ({"path": "/api/jobs", "key": "good", "body": b'{"prompt": ', "Content_Type": "application/json"}, 400, "BadRequest"),
    "an unknown model": ({"path": "/api/jobs", "key": "good", "body": {"prompt": "x", "model": "no-such"}}, 404, "UnknownName"),
    "a size that does not fit": ({"path": "/api/jobs", "key": "good", "body": {"prompt": "x", "width": 250}}, 400, "WrongSize"),
    "a size beyond the largest": ({"path": "/api/jobs", "key": "good", "body": {"prompt": "x", "width": 1 << 20}}, 400, "WrongSize"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_refusal_has_its_status_and_says_why(gallery: Gallery, case: str, lang: str) -> None:
    asked, status, kind = REFUSALS[case]
    keys = Keys(gallery.database)
    texts = {name: keys.make(name)[1] for name in ("good", "revoked")}
    keys.revoke("revoked")
    sent = dict(asked)
    if name := sent.pop("key", None):
        sent |= bearer(texts[name])
    with serving(gallery, require_key=True) as address:
        answer = ask(address, sent.pop("path"), **sent, Accept_Language=lang)
        assert (answer.status, kind_of(answer)) == (status, kind), answer.body
        said = answer.json if isinstance(answer.json["error"], str) else answer.error
        assert said.get("message", said.get("detail")) == said[lang]
        assert not any(text[-20:].encode() in answer.body for text in texts.values())
        assert ("www-authenticate" in answer.headers) == (status == 401)
        for way in (bearer, basic):
            assert ask(address, "/api/jobs", **way(texts["good"])).json == {"jobs": []}


def test_an_open_server_lets_others_tokens_in_and_still_checks_keys(gallery: Gallery) -> None:
    keys = Keys(gallery.database)
    good, revoked = keys.make("good")[1], keys.make("revoked")[1]
    keys.revoke("revoked")
    with serving(gallery) as address:
        statuses = [ask(address, "/api/jobs", **headers).status for headers in (
            {}, bearer("sk-none"), bearer(good), bearer(revoked), bearer(good[:-1]))]  # fmt: skip
    assert statuses == [200, 200, 200, 401, 401]


def test_with_the_pages_token_a_key_opens_too(gallery: Gallery) -> None:
    key = Keys(gallery.database).make("good")[1]
    with serving(gallery, host="0.0.0.0", token=TOKEN, names=["art.example"]) as address:
        assert [ask(address, "/api/jobs", **h).status for h in ({}, bearer(TOKEN), bearer(key))] == [
            401,
            200,
            200,
        ]
        assert ask(address, "/api/jobs", **bearer(key), Host="ART.example").status == 200
        assert ask(address, "/api/jobs", **bearer(key), Host="other.example").status == 421


def test_a_revoked_key_is_refused_within_a_second(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FRESH", 0.2)
    key = Keys(gallery.database).make("good")[1]
    with serving(gallery, require_key=True) as address:
        assert ask(address, "/api/jobs", **bearer(key)).status == 200
        Keys(gallery.database).revoke("good")
        until(lambda: ask(address, "/api/jobs", **bearer(key)).status == 401)


def test_a_key_has_its_rate_and_its_number_of_jobs(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    take = limits.Bucket.take
    monkeypatch.setattr(
        limits.Bucket, "take", lambda bucket, now: take(bucket, bucket.filled)
    )  # no time passes
    keys = Keys(gallery.database)
    fast, slow = keys.make("fast", queue=2)[1], keys.make("slow", rate=2)[1]
    with serving(gallery, require_key=True) as address:

        def submit(key: str) -> Answer:
            return ask(address, "/api/jobs", {"prompt": "x"}, **bearer(key))

        first, second, third = submit(fast), submit(fast), submit(fast)
        assert (first.status, second.status, third.status) == (201, 201, 429)
        assert (third.error["type"], int(third.headers["retry-after"])) == (
            "QueueFull",
            QueueFull.retry_after,
        )
        ask(address, f"/api/jobs/{first.json['id']}/cancel", {}, **bearer(fast))
        assert submit(fast).status == 201  # one has ended
        assert [submit(slow).status for _ in range(2)] == [201, 201]
        refused = submit(slow)
        assert (refused.status, refused.error["type"]) == (429, "TooMany")
        assert int(refused.headers["retry-after"]) == 30
        ours = ask(address, "/v1/models", **bearer(slow))
        assert (ours.status, ours.error["type"], ours.error["code"]) == (
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
        )
        assert int(ours.headers["retry-after"]) >= 1
        assert submit(fast).status == 429  # by its queue: the rate of another key is not its own
    assert sorted(keys.jobs().values()) == [2, 3]


def test_a_bucket_is_refilled_evenly() -> None:
    bucket = limits.Bucket(60, 0.0)
    assert [bucket.take(0.0) for _ in range(60)] == [0.0] * 60
    assert bucket.take(0.0) == pytest.approx(1.0)
    assert bucket.take(0.5) == pytest.approx(0.5)
    assert bucket.take(1.01) == 0.0
    assert bucket.take(3600.0) == 0.0
    assert sum(bucket.take(3600.0) == 0.0 for _ in range(100)) == 59  # it never holds more than a minute's


def test_a_key_that_cannot_be_looked_up_is_asked_to_wait(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Keys(gallery.database).make("good")[1]
    monkeypatch.setattr(limits, "LOOKUPS", Pool("no lookups", threads=0, waiting=0, patience=0.01))
    with serving(gallery, require_key=True) as address:
        refused = ask(address, "/api/jobs", **bearer(key))
        assert (refused.status, int(refused.headers["retry-after"])) == (503, 5)
        assert ask(address, "/healthz").status == 200


def test_probes_tell_no_one_more_than_they_must(gallery: Gallery) -> None:
    with serving(gallery, require_key=True, alive=False) as address:
        assert ask(address, "/healthz").json == {"status": "ok"}
        unready = ask(address, "/readyz")
        assert (unready.status, "worker" in unready.error["en"]) == (503, True)
        assert int(unready.headers["retry-after"]) > 0
        assert ask(address, "/healthz/x").status == 401
    with serving(gallery) as address:
        assert ask(address, "/readyz").json == {"status": "ok"}
        gallery.database.damaged = True
        until(lambda: ask(address, "/readyz").status == 503)
        assert ask(address, "/healthz").status == 200


def samples(answer: Answer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def test_metrics_are_what_happened(gallery: Gallery) -> None:
    Queue(gallery).submit(PaintRequest(prompt="x"))
    counted, fault = Tallies(), Fault("decoder", "NaN", 3, 12)
    error = BrokenNumbers("x", "x")
    error.fault = fault
    tried = (FallbackAttempt("decoder", fault, False), FallbackAttempt("float32", fault, False))
    count_picture(counted, Refused(0, 1, error, Verdict("refuse", (), tried)), 0.5, "m")
    for seconds in (0.02, 0.025, 0.3, 400.0):
        counted.observe(STEP_SECONDS, seconds, model="m")
    counted.write(gallery.database)
    counted.add(PICTURES, model="m")
    counted.write(gallery.database)
    counted.add(PICTURES, model="m")
    counted.write(gallery.database)  # another time: added, not replaced
    assert Lease(gallery.database, "here/cpu").acquire(memory=12345)
    assert Lease(gallery.database, "here/cuda:1").acquire(memory=23456, card_memory=34567)
    with serving(gallery) as address:
        ask(address, "/api/jobs/nothing")
        answer = ask(address, "/metrics")
        found = samples(answer)
        assert samples(ask(address, "/api/metrics")).keys() >= found.keys()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert value("starry_jobs", state="waiting") == 1
    assert value("starry_pictures_painted_total", model="m") == 2
    assert value("starry_pictures_refused_total", model="m", stage="decoder") == 1
    assert value("starry_fallbacks_total", fallback="float32", stage="decoder", recovered="no") == 1
    assert value("starry_step_seconds_bucket", model="m", le="0.025") == 2
    assert value("starry_step_seconds_bucket", model="m", le="0.5") == 3
    assert value("starry_step_seconds_count", model="m") == 4
    assert value("starry_step_seconds_sum", model="m") == pytest.approx(400.345)
    assert value("starry_worker_memory_bytes", device="here/cpu") == 12345
    assert value("starry_worker_memory_bytes", device="here/cuda:1") == 23456
    cards = {labels: number for (name, labels), number in found.items() if name == "starry_card_memory_bytes"}
    assert cards == {(("device", "here/cuda:1"),): 34567}  # none for a CPU
    assert value("process_resident_memory_bytes") > 10e6
    assert value("starry_http_requests_total", method="GET", route="/api/jobs/{job}", status="404") == 1


def test_counts_that_could_not_be_written_are_kept(gallery: Gallery) -> None:
    counted = Tallies()
    counted.add(REFUSED, stage="picture", model="m")
    gallery.database.damaged = True
    with contextlib.suppress(Exception):
        counted.write(gallery.database)
    gallery.database.damaged = False
    counted.add(FALLBACKS, fallback="float32", stage="picture", recovered="yes")
    counted.write(gallery.database)
    assert [(one.name, one.value) for one in tallies.read(gallery.database)] == [
        (FALLBACKS, 1.0),
        (REFUSED, 1.0),
    ]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a server writes to stderr with JSON logs."""
    written, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.stderr", written)
    logs.set_up(logging.WARNING, json_lines=True)
    yield written
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger(logs.REQUESTS).handlers.clear()


def test_every_request_is_a_line_of_json_with_its_id_and_without_keys(
    gallery: Gallery, lines: io.StringIO
) -> None:
    key, text = Keys(gallery.database).make("good")
    with serving(gallery, host="127.0.0.1", token=TOKEN) as address:
        given = ask(address, "/api/jobs", {"prompt": "x"}, **bearer(text), X_Request_Id="my-id.7")
        assert given.headers["x-request-id"] == "my-id.7"
        refused = ask(
            address, f"/api/pictures?token=wrong-{TOKEN}&text=x", X_Request_Id="a\u00e9 b".encode("latin-1")
        )
        assert refused.status == 401
        assert len(refused.headers["x-request-id"]) == 16
        ask(address, f"/api/jobs?token={TOKEN}")
        ask(address, "/healthz")
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(one["path"], one["status"], one["key"]) for one in found] == [
        ("/api/jobs", 201, key.id), ("/api/pictures", 401, None), ("/api/jobs", 303, None),
    ]  # fmt: skip
    assert (found[0]["request_id"], found[0]["job"]) == ("my-id.7", given.json["id"])
    assert found[1]["request_id"] == refused.headers["x-request-id"]
    assert all(
        {"time", "level", "logger", "message", "ms", "client", "method"} <= one.keys() for one in found
    )
    assert TOKEN not in lines.getvalue()
    assert text.rsplit("-", 1)[1] not in lines.getvalue()


def test_a_failure_is_logged_with_the_id_of_its_request(
    gallery: Gallery, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "get", lambda *_: 1 / 0)
    with serving(gallery) as address:
        assert ask(address, "/api/jobs/x", X_Request_Id="seven").status == 500
    failed = [one for one in map(json.loads, lines.getvalue().splitlines()) if "exception" in one]
    assert {one["request_id"] for one in failed} == {"seven"}
    assert "ZeroDivisionError" in failed[0]["exception"]


def starry(home: Path, *words: str, lang: str = "en") -> subprocess.CompletedProcess[str]:
    environment = {"STARRY_HOME": str(home), "STARRY_LANG": lang, "PATH": "/usr/bin", "COLUMNS": "200"}
    environment |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    return subprocess.run([STARRY, *words], env=environment, capture_output=True, text=True, timeout=120)


def test_keys_are_made_listed_and_revoked_in_the_terminal(tmp_path: Path) -> None:
    made = starry(tmp_path, "keys", "make", "办公室", "--rate", "60")
    assert made.returncode == 0, made.stderr
    text = made.stdout.splitlines()[0]
    with Gallery(tmp_path / "gallery") as gallery:
        key = Keys(gallery.database).find(text)
    assert key is not None
    assert (key.name, key.rate, key.queue) == ("办公室", 60, None)
    assert starry(tmp_path, "keys", "make", "办公室").returncode == 2
    assert starry(tmp_path, "keys", "make", "x", "--rate", "0").returncode == 2
    listed = starry(tmp_path, "keys", "list", lang="zh")
    assert key.id in listed.stdout
    assert "每分钟 60 次" in listed.stdout
    assert starry(tmp_path, "keys", "revoke", "办公室").returncode == 0
    found = json.loads(starry(tmp_path, "keys", "list", "--json").stdout)
    assert [(one["id"], one["revoked_at"] is None) for one in found] == [(key.id, False)]
    assert text.rsplit("-", 1)[1] not in json.dumps(found) + listed.stdout
    unknown = starry(tmp_path, "keys", "revoke", "nobody")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)


def test_a_network_without_a_key_is_not_served(tmp_path: Path) -> None:
    for lang, words in (("en", "make one: starry keys make NAME"), ("zh", "请先生成")):
        refused = starry(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0", "--no-pages", lang=lang)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert words in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_a_service_on_a_network_starts_with_a_key_and_ends_in_order(tmp_path: Path) -> None:
    text = starry(tmp_path, "keys", "make", "office").stdout.splitlines()[0]
    environment = {**os.environ, "STARRY_HOME": str(tmp_path), "STARRY_LANG": "en", "OMP_NUM_THREADS": "1"}
    command = [STARRY, "serve", "--host", "0.0.0.0", "--port", "0", "--no-pages"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("✦ ").strip()
        assert "token" not in address
        assert ask(address, "/api/jobs").status == 401
        assert ask(address, "/").status == 401
        assert ask(address, "/", **bearer(text)).error["type"] == "BadRequest"  # no pages
        job = ask(address, "/api/jobs", {"prompt": "x"}, **bearer(text)).json["id"]
        assert ask(address, "/healthz").status == 200
    finally:
        server.terminate()
        server.wait(60)
    with Gallery(tmp_path / "gallery") as gallery:
        assert Queue(gallery).get(job).state in ("waiting", "done")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    assert any(line.get("job") == job for line in lines)
    assert text.rsplit("-", 1)[1] not in json.dumps(lines)
