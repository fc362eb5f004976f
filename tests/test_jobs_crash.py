"""A real server and worker, killed in each state of a job: finished pictures stay, the queue continues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Server, events, is_gone, until

from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue

LONG = {"steps": 8, "count": 40}  # long enough to be killed in the middle


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    opened = Server(home)
    yield opened
    opened.close()


def test_a_job_set_aside_after_two_kills_continues_when_retried(server: Server, home: Path) -> None:
    """The worker is killed while idle, while loading the model, and in the middle of a picture."""
    server.kill_worker()
    job = server.submit("被杀死两次", **LONG)
    behind = server.submit("排在后面", steps=2)
    server.until(job, lambda found: found["state"] == "painting")  # often the model is being loaded
    server.kill_worker()
    found = server.until(job, lambda found: len(found["painted"]) >= 1 and found["step"])
    assert (found["attempts"], found["state"]) == (2, "painting")
    server.kill_worker()
    if (
        server.until(job, lambda found: found["attempts"] == 3 or found["state"] == "set_aside")["state"]
        != "set_aside"
    ):
        server.until(job, lambda found: found["picture"] is not None and found["attempts"] == 3)
        server.kill_worker()  # the first death was while loading, which does not count
    aside = server.until(job, lambda found: found["state"] == "set_aside")
    assert "killed by SIGKILL" in aside["error"]["en"]
    saved = [one["picture"] for one in aside["painted"]]
    assert len(saved) >= 1

    next_job = server.until(behind, lambda found: found["state"] == "done")
    assert next_job["attempts"] == 1  # the queue continues
    again = server.ask(f"/api/jobs/{job}/retry", {}).json
    assert [one["picture"] for one in again["painted"]] == saved
    more = server.until(job, lambda found: len(found["painted"]) > len(saved) and found["step"])
    assert [one["picture"] for one in more["painted"]][: len(saved)] == saved
    with Gallery(home / "gallery") as gallery:
        assert gallery.verify().ok


def test_a_killed_server_leaves_no_worker_and_two_new_servers_continue(server: Server, home: Path) -> None:
    """The server is killed while one job is painted and one waits; then two servers share the gallery."""
    (job,) = [found["id"] for found in server.ask("/api/jobs?state=painting").json["jobs"]]
    waiting, worker = server.submit("还在等", steps=1), server.worker
    assert worker is not None
    server.kill()
    until(lambda: is_gone(worker))
    with Gallery(home / "gallery") as gallery:
        found = Queue(gallery).get(job)
        assert (found.state, found.deaths) == ("waiting", 0)
        assert gallery.verify().ok
    servers = [Server(home), Server(home)]
    try:
        two_servers_continue(servers, job, waiting, found.pictures)
    finally:
        for one in servers:
            one.close()
    with Gallery(home / "gallery") as gallery:
        assert gallery.verify().ok


def two_servers_continue(servers: list[Server], job: str, waiting: str, saved: list[str]) -> None:
    one, other = servers
    found = one.until(job, lambda found: len(found["painted"]) > len(saved))
    assert [painted["picture"] for painted in found["painted"]][: len(saved)] == saved
    other.ask(f"/api/jobs/{job}/cancel", {})  # asked of either server
    assert [name for name, _ in events(one.address, job)][-1] == "ended"
    assert other.until(waiting, lambda found: found["state"] == "done")["attempts"] == 1
    painter, standing_by = sorted(servers, key=memory, reverse=True)
    assert memory(painter) > 2 * memory(standing_by)  # the worker on standby has not loaded torch
    late = standing_by.submit("换一台来画", steps=1)
    painter.kill()
    assert len(standing_by.until(late, lambda found: found["state"] == "done")["painted"]) == 1


def memory(server: Server) -> int:
    """Resident bytes of the worker."""
    worker = server.worker
    return 0 if worker is None else worker.memory_info().rss
