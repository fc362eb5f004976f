"""The real server and the real worker, killed at each state of a job: nothing finished is lost, the queue goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from served import Open, events, until

from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue

LONG = {"steps": 8, "count": 40}  # long enough to be killed in the middle


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Open]:
    opened = Open(home)
    yield opened
    opened.close()


def test_killed_while_readying_and_while_painting_it_is_set_aside_and_retried(
    server: Open, home: Path
) -> None:
    """The worker dies twice of one job: first while loading, then in the middle of a picture."""
    job = server.submit("被杀死两次", **LONG)
    behind = server.submit("排在后面", steps=2)
    server.until(job, lambda found: found["state"] == "painting")  # the painter is being readied
    server.kill_worker()
    found = server.until(job, lambda found: len(found["painted"]) >= 1 and found["step"])
    assert (found["attempts"], found["state"]) == (2, "painting")
    server.kill_worker()
    aside = server.until(job, lambda found: found["state"] == "set_aside")
    assert "killed by SIGKILL" in aside["error"]["en"]
    hung = [one["picture"] for one in aside["painted"]]
    assert len(hung) >= 1

    assert server.until(behind, lambda found: found["state"] == "done")["attempts"] == 1  # the queue goes on
    again = server.ask(f"/api/jobs/{job}/retry", {}).json
    assert [one["picture"] for one in again["painted"]] == hung
    more = server.until(job, lambda found: len(found["painted"]) > len(hung))
    assert [one["picture"] for one in more["painted"]][: len(hung)] == hung
    server.ask(f"/api/jobs/{job}/cancel", {})
    server.until(job, lambda found: found["state"] == "cancelled")
    with Gallery(home / "gallery") as gallery:
        assert gallery.verify().ok


def test_killed_while_nothing_is_painted_the_next_worker_is_there(server: Open) -> None:
    before = until(lambda: server.worker)
    server.kill_worker()
    job = server.submit("谁来画", steps=1)
    server.until(job, lambda found: found["state"] == "done")
    assert server.worker is not None
    assert server.worker.pid != before.pid


def test_a_killed_server_leaves_no_worker_behind_and_the_next_goes_on(home: Path) -> None:
    """The server dies while one job is painted and one waits; two servers on one gallery then share the work."""
    first = Open(home)
    try:
        job, waiting = first.submit("服务器被杀死", **LONG), first.submit("还在等", steps=1)
        first.until(job, lambda found: len(found["painted"]) >= 1 and found["step"])
        worker = first.worker
        first.kill()
        until(lambda: not psutil.pid_exists(worker.pid) or worker.status() == psutil.STATUS_ZOMBIE, 60)
        with Gallery(home / "gallery") as gallery:
            found = Queue(gallery).get(job)
            assert (found.state, found.deaths) == ("waiting", 0)
            hung = found.pictures
            assert gallery.verify().ok
    finally:
        first.process.kill()
    with_two(home, job, waiting, hung)


def with_two(home: Path, job: str, waiting: str, hung: list[str]) -> None:
    servers = [Open(home), Open(home)]
    try:
        one, other = servers
        found = one.until(job, lambda found: len(found["painted"]) > len(hung))
        assert [painted["picture"] for painted in found["painted"]][: len(hung)] == hung
        assert other.job(job)["attempts"] == found["attempts"]  # one worker paints; the other stands by
        start = time.monotonic()
        other.ask(f"/api/jobs/{job}/cancel", {})  # whoever asks
        names = [name for name, _ in events(one.address, job)]
        assert names[-1] == "ended"
        assert time.monotonic() - start < 10
        one.until(waiting, lambda found: found["state"] == "done")
        painter = min(
            servers, key=lambda server: -_threads(server)
        )  # the one whose worker has loaded a painter
        late = other.submit("换一台来画", steps=1)
        painter.kill()
        left = next(server for server in servers if server is not painter)
        assert left.until(late, lambda found: found["state"] == "done")["deaths"] == 0
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.close()
    with Gallery(home / "gallery") as gallery:
        assert gallery.verify().ok


def _threads(server: Open) -> int:
    worker = server.worker
    return 0 if worker is None else worker.memory_info().rss
