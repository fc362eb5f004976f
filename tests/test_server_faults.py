"""Faults and hostile callers of a real server: a locked database, full queues, odd cookies, other programs' ports."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hung import picture
from served import Server, ask, events, until, without_worker
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets import Subprotocol
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websocket

from starrynight.api import feed
from starrynight.api import health as health_module
from starrynight.api import jobs as job_routes
from starrynight.api.access import Access
from starrynight.gallery.store import Gallery, gallery_identity
from starrynight.jobs.leases import Lease
from starrynight.jobs.queue import Queue
from starrynight.jobs.uploads import Uploads
from starrynight.lab.report import PAGE
from starrynight.lab.run import MACHINE, PLAN, RESULTS
from starrynight.serve import is_running
from starrynight.storage import write_atomic


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gallery]:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    with Gallery(lock_timeout=0.3) as opened:
        yield opened


@contextlib.contextmanager
def locked(gallery: Gallery) -> Iterator[None]:
    """Another program in the middle of a write."""
    other = sqlite3.connect(str(gallery.database.place), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def problems(address: str) -> set[str]:
    return {problem["kind"] for problem in ask(address, "/api/health").json["problems"]}


def test_writers_that_wait_for_a_lock_stop_neither_health_nor_readers(gallery: Gallery) -> None:
    gallery.add(picture())
    with without_worker(gallery) as here, ThreadPoolExecutor(50) as callers:
        assert ask(here, "/api/health").json["problems"] == []
        with locked(gallery):
            posts = [callers.submit(ask, here, "/api/jobs", {"prompt": "x"}) for _ in range(50)]
            for _ in range(10):
                assert ask(here, "/api/health").status == 200
                assert len(ask(here, "/api/pictures").json["pictures"]) == 1
            until(lambda: "locked" in problems(here))
            answers = [post.result() for post in posts]
        assert {answer.status for answer in answers} == {503}
        assert {answer.headers["retry-after"] for answer in answers} == {"5"}
        assert {answer.error["type"] for answer in answers} == {"Busy"}
        until(lambda: not problems(here))
        assert ask(here, "/api/jobs", {"prompt": "x"}).status == 201


def test_health_answers_while_a_disk_hangs(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, hangs = threading.Event(), threading.Event()
    count = gallery.count

    def hanging_count():
        if hangs.is_set():
            stuck.wait(60)
        return count()

    monkeypatch.setattr(gallery, "count", hanging_count)
    monkeypatch.setattr(health_module, "SLOW", 0.3)
    with without_worker(gallery) as here:
        assert ask(here, "/api/health").json["status"] == "ok"
        hangs.set()
        until(lambda: "database" in problems(here))
        stuck.set()
        hangs.clear()
        until(lambda: ask(here, "/api/health").json["status"] == "ok")


def test_health_tells_a_full_disk_and_a_queue_that_stands_still(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(gallery)
    with without_worker(gallery) as here:
        monkeypatch.setattr(health_module, "STILL_WITHOUT_WORKER", 0.1)
        assert problems(here) == set()
        job = queue.submit(job_request())
        until(lambda: problems(here) == {"queue"})
        held = Lease(gallery.database, "here/cpu")
        assert held.acquire()
        until(lambda: problems(here) == set())  # a worker lives: one step may take long
        held.release()
        queue.cancel(job.id)
        until(lambda: problems(here) == set())
        monkeypatch.setattr(health_module, "DISK_FULL", 1 << 80)
        until(lambda: problems(here) == {"disk"})
        answer = ask(here, "/api/health").json
        assert (answer["status"], answer["gallery"]) == ("degraded", gallery_identity())
        assert "腾出空间" in answer["problems"][0]["zh"]
        assert b"starry_ok 0" in ask(here, "/api/metrics").body


def test_health_tells_an_absent_worker(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "WORKER_ABSENT", 0.1)
    with without_worker(gallery) as here:
        until(lambda: problems(here) == {"worker"})
        assert ask(here, "/api/health").json["worker"] == "absent"
        held = Lease(gallery.database, "here/cpu")
        assert held.acquire()
        until(lambda: ask(here, "/api/health").json["worker"] == "alive")
        assert problems(here) == set()
        held.release()
        until(lambda: problems(here) == {"worker"})


def job_request():
    from starrynight.request import PaintRequest

    return PaintRequest(prompt="x", seed=1)


def test_a_full_queue_is_429_with_retry_after(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starrynight.jobs.queue.MAX_WAITING", 1)
    with without_worker(gallery) as here:
        assert ask(here, "/api/jobs", {"prompt": "x"}).status == 201
        refused = ask(here, "/api/jobs", {"prompt": "x"})
    assert (refused.status, refused.error["type"], refused.headers["retry-after"]) == (429, "QueueFull", "60")


def test_uploads_beyond_those_at_once_are_503(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_routes, "MAX_UPLOADS", 1)
    with without_worker(gallery) as here:
        port = int(here.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as held:
            held.sendall(b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nhalf")
            refused = until(lambda: (a := ask(here, "/api/uploads", b"x")).status == 503 and a)
            assert refused.headers["retry-after"] == "5"
        until(lambda: ask(here, "/api/uploads", picture().encode()).status == 201)


def test_one_poller_feeds_all_event_streams(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(gallery)
    job = queue.submit(job_request()).id
    reads, changed = [], Queue.changed
    monkeypatch.setattr(Queue, "changed", lambda self, seen: reads.append(seen) or changed(self, seen))
    monkeypatch.setattr(feed, "MAX_STREAMS", 30)
    with without_worker(gallery) as here, ThreadPoolExecutor(30) as readers:
        streams = [readers.submit(lambda: list(events(here, job))) for _ in range(30)]
        until(lambda: ask(here, f"/api/jobs/{job}/events", method="HEAD").status == 503)
        refused = ask(here, f"/api/jobs/{job}/events")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        began, first = time.monotonic(), len(reads)
        until(lambda: len(reads) >= first + 5)
        assert (
            len(reads) - first < 12 * (time.monotonic() - began) + 12
        )  # ten a second, whatever the number of streams
        queue.cancel(job)
        for stream in streams:
            names = [name for name, _ in stream.result(60)]
            assert names[0] == "job"
            assert names[-1] == "ended"
        assert ask(here, f"/api/jobs/{job}/events", method="HEAD").status == 200


COOKIES = {
    "another program's list": "a[]=1; {}",
    "another program's JSON": '{{"x": 1}}; {}',
    "a control character": "x=\x01; {}",
    "an unfinished quote": 'x="; {}',
    "no name": "=; ;; {}",
    "the same name before": "starry_token_1=other; {}",
    "the same name after": "{}; starry_token_1=other",
    "another port's": "starry_token_2=other; {}",
    "in quotes": "x=1; {}",
}  # fmt: skip


@pytest.mark.parametrize("case", COOKIES)
def test_no_foreign_cookie_locks_us_out(gallery: Gallery, case: str) -> None:
    with without_worker(gallery, Access.of("0.0.0.0", "sesame", port=1)) as here:
        ours = 'starry_token_1="sesame"' if case == "in quotes" else "starry_token_1=sesame"
        assert ask(here, "/api/health", Cookie=COOKIES[case].format(ours)).status == 200
        assert ask(here, "/api/health", Cookie=COOKIES[case].format("starry_token_1=sesam")).status == 401
        cookie = ask(here, "/?token=sesame").headers["set-cookie"]
        assert cookie.startswith("starry_token_1=sesame;")


def test_the_token_in_all_its_forms(gallery: Gallery) -> None:
    access = Access.of("127.0.0.1", "sesame", port=1, gallery="abc")  # --token on loopback
    access.codes.add("once")
    with without_worker(gallery, access) as here:
        for right in ("Bearer sesame", "bearer sesame", "BEARER  sesame"):
            assert ask(here, "/api/health", Authorization=right).status == 200
        for wrong in ("sesame", "Basic sesame", "Bearer", "Bearer sesame2", "Bearersesame"):
            refused = ask(here, "/api/health", Authorization=wrong)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert refused.headers["starry-gallery"] == "abc"
        assert ask(here, "/api/jobs?token=sesame", {"prompt": "x"}).status == 307  # the body is sent again
        assert ask(here, "/api/jobs?token=sesame").status == 303
        assert [ask(here, "/?token=once").status for _ in range(2)] == [303, 401]
        assert ask(here, "/api/health", Host="192.168.1.5").status == 421


FOREIGN = [
    ("GET", "cross-site", "navigate", 200), ("HEAD", "cross-site", "navigate", 200), ("GET", "cross-site", "cors", 403),
    ("POST", "cross-site", "navigate", 403), ("POST", "cross-site", "no-cors", 403), ("POST", "same-site", "cors", 403),
    ("DELETE", "cross-site", "navigate", 403), ("POST", "same-origin", "cors", 404), ("POST", "none", "navigate", 404),
]  # fmt: skip


@pytest.mark.parametrize(("method", "site", "mode", "status"), FOREIGN)
def test_a_page_elsewhere_can_link_here_but_change_nothing(
    gallery: Gallery, method: str, site: str, mode: str, status: int
) -> None:
    with without_worker(gallery) as here:
        path = (
            "/api/jobs/x/cancel" if method == "POST" else "/api/trash" if method == "DELETE" else "/api/jobs"
        )
        answer = ask(here, path, method=method, Sec_Fetch_Site=site, Sec_Fetch_Mode=mode)
        assert answer.status == status


def test_a_head_is_a_get_without_its_body(gallery: Gallery) -> None:
    row = gallery.add(picture())
    job = Queue(gallery).submit(job_request()).id
    with without_worker(gallery) as here:
        for path in (
            "/api/health",
            "/api/nothing",
            f"/api/pictures/{row.id}/file",
            "/api/pictures/none/file",
            "/api/openapi.json",
        ):
            head, got = ask(here, path, method="HEAD"), ask(here, path)
            assert (head.status, head.headers["content-type"]) == (got.status, got.headers["content-type"]), (
                path
            )
            assert head.body == b""
        stream = ask(here, f"/api/jobs/{job}/events", method="HEAD")
        assert (stream.status, stream.body) == (200, b"")
        for method in ("POST", "PATCH", "OPTIONS", "DELETE", "TRACE"):
            refused = ask(here, "/api/health", method=method)
            assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD"), method
            assert ask(here, "/api/nothing", method=method).status == 404
        assert ask(here, "/api/health").headers["cache-control"] == "no-store"


ODD = {
    "a NUL in a model's path": ("/api/jobs", {"prompt": "x", "model": "{home}/models/x\0"}, 404),
    "half a character in a model's path": ("/api/jobs", b'{"prompt": "x", "model": "{home}/models/\\ud800"}', 404),
    "a model's path of 100000": ("/api/jobs", {"prompt": "x", "model": "{home}/models/" + "m" * 100_000}, 404),
    "a picture's id of 200000": ("/api/jobs", {"prompt": "x", "init_image": "picture:" + "a" * 200_000}, 404),
    "a pattern for an id": ("/api/jobs", {"prompt": "x", "init_image": "picture:" + "%" * 100_000}, 404),
    "an id of 33": ("/api/pictures/" + "a" * 33, None, 404),
    "an id of 3000": ("/api/pictures/" + "a" * 3000, None, 414),
    "a file of 3000": ("/app/static/" + "x" * 3000, None, 414),
    "a file of 256": ("/app/static/" + "x" * 256, None, 414),
    "a file with a NUL": ("/app/static/x%00", None, 414),
    "a deep path": ("/api" + "/x" * 2000, None, 414),
}  # fmt: skip


ENCODINGS = {
    "utf-8": 201,
    "utf-8-sig": 201,
    "utf-16": 400,
    "utf-16-le": 400,
    "utf-16-be": 400,
    "utf-32": 400,
    "gb18030": 400,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_is_json_in_utf_8(gallery: Gallery, encoding: str) -> None:
    with without_worker(gallery) as here:
        answer = ask(
            here, "/api/jobs", '{"prompt": "星夜"}'.encode(encoding), Content_Type="application/json"
        )
        assert answer.status == ENCODINGS[encoding]
        if answer.status == 201:
            assert answer.json["request"]["prompt"] == "星夜"
        else:
            assert answer.error["message"] == "The body is not JSON in UTF-8."


def test_two_servers_of_a_host_keep_their_visitors(gallery: Gallery) -> None:
    """A browser sends the cookies of all ports of a host to each of them."""
    with (
        without_worker(gallery, Access.of("0.0.0.0", "one", port=1)) as first,
        without_worker(gallery, Access.of("0.0.0.0", "two", port=2)) as second,
    ):
        jar = [ask(here, f"/?token={token}").headers["set-cookie"].split(";")[0]
               for here, token in ((first, "one"), (second, "two"))]  # fmt: skip
        for here in (first, second):
            for order in (jar, jar[::-1]):
                assert ask(here, "/api/jobs", Cookie="; ".join(order)).status == 200
        assert ask(first, "/api/jobs", Cookie=jar[1]).status == 401


@pytest.mark.parametrize("case", ODD)
def test_odd_inputs_are_errors_of_the_caller(gallery: Gallery, tmp_path: Path, case: str) -> None:
    path, body, status = ODD[case]
    sent = json.dumps(body).encode() if isinstance(body, dict) else body
    if sent is not None:
        sent = sent.replace(b"{home}", str(tmp_path).encode())
    with without_worker(gallery) as here:
        answer = ask(here, path, sent, Content_Type="application/json")
        assert (answer.status, answer.error["zh"] != "") == (status, True), answer.body[:300]


ANSWERS = [b"[]", b"1", b'"x"', b"null", b"{}", b'{"version": "0.1"}', b'{"version": 1, "gallery": "other"}',
           b"[" * 60_000, b"<html>", b"\xff\xfe", b""]  # fmt: skip


@pytest.mark.parametrize("body", ANSWERS, ids=lambda body: body[:12].decode("latin-1"))
@pytest.mark.parametrize("status", [200, 401, 500])
def test_another_program_on_the_port_is_not_our_studio(body: bytes, status: int) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        assert not is_running("127.0.0.1", other.server_port, "ours")


def test_a_port_that_speaks_no_http_is_not_our_studio() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def speak() -> None:
            client, _ = other.accept()
            with client:
                client.recv(1000)
                client.sendall(b"220 mail ready\r\n")

        threading.Thread(target=speak, daemon=True).start()
        assert not is_running("127.0.0.1", other.getsockname()[1], "ours")


@pytest.mark.parametrize("token", [None, "sesame"])
def test_our_own_studio_is_recognised_without_a_proxy(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with without_worker(gallery, Access.of("127.0.0.1", token, gallery=gallery.identity)) as here:
        port = int(here.rsplit(":", 1)[1])
        assert is_running("127.0.0.1", port, gallery_identity())
        assert not is_running("127.0.0.1", port, gallery_identity("/elsewhere"))


def in_place_of(path: Path, what: str, elsewhere: Path) -> None:
    """Replace a picture's file, or the folder it is in."""
    data = path.read_bytes()
    if what == "a linked folder":
        path.parent.rename(elsewhere / "moved")
        path.parent.symlink_to(elsewhere / "moved")
        return
    path.unlink()
    if what == "a link":
        (elsewhere / "secret.png").write_bytes(data)
        path.symlink_to(elsewhere / "secret.png")
    elif what == "a FIFO":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    elif what == "text":
        path.write_text("root:x:0:0")
    elif what == "a link to nothing":
        path.symlink_to(elsewhere / "nothing")


FOREIGN_FILES = ["a link", "a linked folder", "a FIFO", "a folder", "text", "a link to nothing"]


@pytest.mark.parametrize("what", FOREIGN_FILES)
def test_only_a_picture_is_served_as_one(gallery: Gallery, tmp_path: Path, what: str) -> None:
    row = gallery.add(picture())
    run = tmp_path / "lab" / "20260101-000000"
    (run / "pictures").mkdir(parents=True)
    (run / PLAN).write_text("{}")
    shown = run / "pictures" / "a.png"
    shown.write_bytes(picture().encode())
    upload = tmp_path / "uploads" / f"{Uploads().save(picture().encode())[0]}.png"
    for path in (Path(gallery.path(row)), shown, upload):
        elsewhere = tmp_path / f"elsewhere-{path.stem}"
        elsewhere.mkdir()
        if path != upload or what != "a linked folder":
            in_place_of(path, what, elsewhere)
    with without_worker(gallery) as here:
        for path in (
            f"/api/pictures/{row.id}/file",
            f"/api/pictures/{row.id}/download",
            f"/api/pictures/{row.id}/thumb",
        ):
            assert ask(here, path).status == 422, path
        if what != "a linked folder":
            assert ask(here, f"/api/uploads/{upload.stem}").status in (404, 422)
        assert ask(here, "/api/lab/20260101-000000/pictures/a.png").status in (404, 422)
    assert not gallery.verify().ok


@pytest.mark.parametrize("name", [PLAN, RESULTS, MACHINE, PAGE])
@pytest.mark.parametrize("what", [*FOREIGN_FILES[2:], "a row that is none"])
def test_a_lab_run_of_odd_files_is_answered(gallery: Gallery, tmp_path: Path, name: str, what: str) -> None:
    run = tmp_path / "lab" / "20260101-000000"
    run.mkdir(parents=True)
    (run / PLAN).write_text("{}")
    (run / name).write_text('[1]\n{"no": "key"}\n')
    if what != "a row that is none":
        in_place_of(run / name, what, tmp_path)
    with without_worker(gallery) as here:
        answer = ask(here, "/api/lab/20260101-000000/report")
        assert answer.status in (200, 404, 422, 507), answer.body[:500]
        assert ask(here, "/lab").status < 500
    if name == PLAN:
        assert answer.status == 404


def test_a_file_is_immutable_only_while_it_matches_its_name(gallery: Gallery) -> None:
    row, changed = gallery.add(picture()), gallery.add(picture(seed=2))
    Path(gallery.path(changed)).write_bytes(picture(seed=3).encode())
    with without_worker(gallery) as here:
        for kind in ("file", "thumb", "thumb", "download"):
            good, bad = (ask(here, f"/api/pictures/{one.id}/{kind}") for one in (row, changed))
            assert (good.status, bad.status) == (200, 200)
            assert "immutable" in good.headers["cache-control"], kind
            assert bad.headers["cache-control"] == "private, no-cache", kind
        Path(gallery.path(changed)).write_bytes(picture(seed=2).encode())
        assert "immutable" in ask(here, f"/api/pictures/{changed.id}/thumb").headers["cache-control"]


RANGES = {
    "bytes=0-9": (206, slice(0, 10)), "bytes=5-": (206, slice(5, None)), "bytes=-7": (206, slice(-7, None)),
    "bytes=0-999999999": (206, slice(0, None)), "bytes=-999999999": (206, slice(0, None)),
    "bytes=999999999-": (416, None), "bytes=9-3": (416, None), "bytes=-0": (416, None), "bytes=-": (200, slice(0, None)),
    "bytes=0-1,4-5": (200, slice(0, None)), "lines=0-1": (200, slice(0, None)), "bytes=x": (200, slice(0, None)),
}  # fmt: skip


@pytest.mark.parametrize("wanted", RANGES)
def test_a_part_of_a_file_and_a_file_known_already(gallery: Gallery, wanted: str) -> None:
    row = gallery.add(picture())
    data, path, (status, part) = gallery.read(row), f"/api/pictures/{row.id}/file", RANGES[wanted]
    with without_worker(gallery) as here:
        answer = ask(here, path, Range=wanted)
        assert answer.status == status
        if part is not None:
            assert answer.body == data[part]
        if status == 206:
            start = data.index(answer.body)
            assert (
                answer.headers["content-range"] == f"bytes {start}-{start + len(answer.body) - 1}/{len(data)}"
            )
        tag = ask(here, path).headers["etag"]
        assert ask(here, path, Range=wanted, If_Range='"old"').status == 200
        for known in (tag, f'"x", {tag}', f"W/{tag}", "*"):
            seen = ask(here, path, If_None_Match=known)
            assert (seen.status, seen.body) == (304, b"")
        assert ask(here, path, If_None_Match='"x"').status == 200


@pytest.mark.parametrize("inner", ["gallery/gallery.db", "lab/run/plan.json", "uploads/a.png", "file"])
def test_a_home_that_we_make_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    home = tmp_path / "deep" / "home"
    monkeypatch.setenv("STARRY_HOME", str(home))
    write_atomic(home / inner, b"x", overwrite=True)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    write_atomic(tmp_path / "own" / "out.png", b"x", overwrite=True)  # a folder of -o is as the umask has it
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == stat.S_IMODE((tmp_path / "deep").stat().st_mode)
    home.chmod(0o755)  # the user's choice stays
    write_atomic(home / "more" / "x", b"x", overwrite=True)
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


def test_a_damaged_database_is_read_and_said_and_not_written_to(gallery: Gallery) -> None:
    gallery.add(picture())
    assert gallery.database.check()
    gallery.database.close()  # merges the write-ahead log
    path = Path(str(gallery.database.place))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        index = "SELECT rootpage FROM sqlite_master WHERE name = 'tags_by_name'"
        (root,) = connection.execute(index).fetchone()
    with open(path, "r+b") as file:  # the pages of one index are noise; the rows can be read
        file.seek((root - 1) * size)
        file.write(b"\xa5" * size)
    assert not gallery.database.check()
    with without_worker(gallery) as here:
        until(lambda: problems(here) == {"damaged"})
        assert len(ask(here, "/api/pictures").json["pictures"]) == 1
        assert ask(here, "/api/jobs", {"prompt": "x"}).error["type"] == "BrokenDatabase"


def test_readers_and_submitters_at_once_lose_nothing(gallery: Gallery) -> None:
    row = gallery.add(picture())
    paths = ["/api/pictures?text=%E6%98%9F%E5%A4%9C", f"/api/pictures?like={row.id}", f"/api/pictures/{row.id}/file",
             "/api/facets", "/api/jobs", f"/api/pictures/{row.id}/thumb", "/api/health"]  # fmt: skip
    with without_worker(gallery) as here, ThreadPoolExecutor(40) as callers:
        reads = [callers.submit(ask, here, path) for path in paths * 20]
        posts = [callers.submit(ask, here, "/api/jobs", {"prompt": f"job {n}"}) for n in range(100)]
        assert {read.result().status for read in reads} == {200}
        answers = [post.result() for post in posts]
    assert {answer.status for answer in answers} <= {201, 503}
    accepted = [answer.json["id"] for answer in answers if answer.status == 201]
    queued = [job.id for job in Queue(gallery).list(limit=500)]
    assert sorted(queued) == sorted(accepted)  # each accepted one once, and no refused one
    assert len(accepted) >= 50


def visit(server: Server) -> tuple[ClientConnection, str, str]:
    """Open the pages as a browser does: its socket, the session's id, and the token against forged requests."""
    port = server.address.rstrip("/").rsplit(":", 1)[1]
    page = websocket(
        f"ws://127.0.0.1:{port}/_stcore/stream", subprotocols=[Subprotocol("streamlit")], max_size=None
    )
    wanted = BackMsg()
    wanted.rerun_script.query_string = ""
    page.send(wanted.SerializeToString())
    while True:
        message = ForwardMsg.FromString(page.recv(60))  # type: ignore[arg-type]
        if message.HasField("new_session"):
            cookie = (
                server.ask("/_stcore/host-config").headers.get("set-cookie")
                or server.ask("/_stcore/health").headers["set-cookie"]
            )
            return page, message.new_session.initialize.session_id, cookie.split(";")[0].partition("=")[2]


def test_files_dropped_onto_the_pages_have_a_limit(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        page, session, token = visit(server)

        def drop(number: int, size: int) -> Any:
            edge = "edge"
            head = f'--{edge}\r\nContent-Disposition: form-data; name="f"; filename="{number}.png"\r\n\r\n'
            body = head.encode() + bytes(size) + f"\r\n--{edge}--\r\n".encode()
            return server.ask(f"/_stcore/upload_file/{session}/{number}", body, method="PUT",
                              Content_Type=f"multipart/form-data; boundary={edge}",
                              X_Xsrftoken=token, Cookie=f"_streamlit_xsrf={token}")  # fmt: skip

        answers = [drop(number, size) for number, size in enumerate((31 << 20, 1 << 20, 1000))]
        assert [answer.status for answer in answers] == [204, 204, 503]
        assert (answers[2].error["type"], answers[2].headers["retry-after"]) == ("Busy", "5")
        page.close()  # Streamlit keeps a session for a while; another visitor is served
        second, session, token = visit(server)
        assert drop(9, 1000).status == 204
        second.close()
    finally:
        server.close()
