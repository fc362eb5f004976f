"""The real server and the real worker, killed at each state of a job: nothing finished is lost, the queue goes on."""

from __future__ import annotations

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


def test_killed_idle_readying_and_painting_it_is_set_aside_and_goes_on_when_retried(
    server: Open, home: Path
) -> None:
    """The worker dies once with nothing to do, once while loading, once in the middle of a picture."""
    server.kill_worker()
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
    more = server.until(job, lambda found: len(found["painted"]) > len(hung) and found["step"])
    assert [one["picture"] for one in more["painted"]][: len(hung)] == hung
    with Gallery(home / "gallery") as gallery:
        assert gallery.verify().ok


def test_a_killed_server_leaves_no_worker_behind_and_the_next_two_go_on(server: Open, home: Path) -> None:
    """It dies while one job is painted and one waits; two servers on one gallery then share the work."""
    (job,) = [found["id"] for found in server.ask("/api/jobs?state=painting").json["jobs"]]
    waiting, worker = server.submit("还在等", steps=1), server.worker
    assert worker is not None
    server.kill()
    until(lambda: not psutil.pid_exists(worker.pid) or worker.status() == psutil.STATUS_ZOMBIE)
    with Gallery(home / "gallery") as gallery:
        found = Queue(gallery).get(job)
        assert (found.state, found.deaths) == ("waiting", 0)
        assert gallery.verify().ok
    servers = [Open(home), Open(home)]
    try:
        goes_on_with_two(servers, job, waiting, found.pictures)
    finally:
        for one in servers:
            one.close()
    with Gallery(home / "gallery") as gallery:
        assert gallery.verify().ok


def goes_on_with_two(servers: list[Open], job: str, waiting: str, hung: list[str]) -> None:
    one, other = servers
    found = one.until(job, lambda found: len(found["painted"]) > len(hung))
    assert [painted["picture"] for painted in found["painted"]][: len(hung)] == hung
    other.ask(f"/api/jobs/{job}/cancel", {})  # whichever paints it
    assert [name for name, _ in events(one.address, job)][-1] == "ended"
    assert other.until(waiting, lambda found: found["state"] == "done")["attempts"] == 1
    painter, standing_by = sorted(servers, key=memory, reverse=True)
    assert memory(painter) > 2 * memory(standing_by)  # who stands by has not even loaded torch
    late = standing_by.submit("换一台来画", steps=1)
    painter.kill()
    assert len(standing_by.until(late, lambda found: found["state"] == "done")["painted"]) == 1


def memory(server: Open) -> int:
    """Bytes that the worker holds."""
    worker = server.worker
    return 0 if worker is None else worker.memory_info().rss
