"""Several painters over one queue: processes of this machine, and Ray's replicas, one of which dies in the middle."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hung import picture
from served import STARRY, Server, events, is_gone, until

from starrynight.errors import BadRequest
from starrynight.gallery.store import Gallery, gallery_identity
from starrynight.jobs import cluster
from starrynight.jobs.queue import Queue

SERVE = ("serve", "--no-pages", "--workers", "2")
LONG = {"steps": 8, "count": 4}


def both_paint(server: Server, *jobs: str) -> bool:
    """Whether each job has taken a step of a picture and goes on."""
    return all(
        found["state"] == "painting" and found["picture"] is not None for found in map(server.job, jobs)
    )


def both_painting(server: Server, *seeds: int) -> list[str]:
    """A job for each seed, each being painted. Two jobs that nobody could finish come first: a worker that loads faster
    than the other would paint both short ones."""
    endless = [server.submit("等另一位画家", seed=seed, steps=100, count=64) for seed in seeds]
    until(lambda: both_paint(server, *endless))
    jobs = [server.submit(f"画 {seed}", seed=seed, **LONG) for seed in seeds]
    for job in endless:
        server.ask(f"/api/jobs/{job}/cancel", {})
    until(lambda: both_paint(server, *jobs))
    return jobs


def seeds_of(home: Path, job: dict[str, Any]) -> list[int | None]:
    with Gallery(home / "gallery") as gallery:
        return [gallery.get(one["picture"]).seed for one in job["painted"]]


class TestProcesses:
    @pytest.fixture(scope="class")
    def server(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        opened = Server(tmp_path_factory.mktemp("home"), command=SERVE)
        yield opened
        opened.close()

    def test_two_workers_paint_two_jobs_at_once_and_the_killed_ones_job_is_painted_once(
        self, server: Server
    ) -> None:
        jobs = both_painting(server, 100, 200)
        assert len(server.workers) == 2
        server.workers[0].kill()
        ended = [server.until(job, lambda found: found["state"] == "done") for job in jobs]
        assert sorted(job["attempts"] for job in ended) == [1, 2]
        for first, job in zip((100, 200), ended, strict=True):
            assert seeds_of(server.home, job) == list(range(first, first + LONG["count"]))
        with Gallery(server.home / "gallery") as gallery:
            assert sum(row.prompt.startswith("画 ") for row in gallery.iter_rows()) == 2 * LONG["count"]
            assert gallery.verify().ok


class TestRay:
    @pytest.fixture(scope="class")
    def server(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        pytest.importorskip("ray")
        opened = Server(tmp_path_factory.mktemp("home"), "--engine", "ray", command=SERVE)
        yield opened
        opened.close()

    def test_a_replica_streams_its_steps_and_previews_and_is_cancelled(self, server: Server) -> None:
        job = server.submit("一幅一幅地看", count=40, steps=30)
        steps, previews = set(), 0
        for name, found in events(server.address, job):
            if name == "preview":
                previews += 1
            elif name == "job" and found["picture"] is not None:
                steps.add((found["picture"], found["step"]))
                if previews and found["painted"] and not found["cancelling"]:
                    server.ask(f"/api/jobs/{job}/cancel", {})
        assert previews
        assert len(steps) > 5  # of the 30 of the first picture: progress is told a few times a second
        ended = server.job(job)
        assert ended["state"] == "cancelled"
        assert 1 <= len(ended["painted"]) < 40

    def test_a_dead_replicas_job_is_painted_once_by_another_and_ray_replaces_it(self, server: Server) -> None:
        """The actor and its worker die at once, as with their machine: nobody can give the job back."""
        jobs = both_painting(server, 300, 400)
        worker = server.workers[0]
        replica = worker.parents()[0]
        assert replica.name().startswith("ray::Replica")
        for process in (replica, worker):
            process.kill()
        ended = [server.until(job, lambda found: found["state"] == "done") for job in jobs]
        assert sorted(job["attempts"] for job in ended) == [1, 2]
        for first, job in zip((300, 400), ended, strict=True):
            assert seeds_of(server.home, job) == list(range(first, first + LONG["count"]))
        until(lambda: len(server.workers) == 2)
        with Gallery(server.home / "gallery") as gallery:
            assert gallery.verify().ok

    def test_a_replica_whose_worker_lives_gives_its_job_back_at_once(self, server: Server) -> None:
        job = server.submit("还给队列", seed=500, **LONG)
        painting = server.until(job, lambda found: found["picture"] is not None)
        assert painting["attempts"] == 1
        for worker in server.workers:  # whichever has it
            worker.parents()[0].kill()
        ended = server.until(job, lambda found: found["state"] == "done")
        assert seeds_of(server.home, ended) == list(range(500, 500 + LONG["count"]))
        with Gallery(server.home / "gallery") as gallery:
            assert Queue(gallery).get(job).deaths == 0

    def test_a_service_that_ends_takes_ray_with_it(self, server: Server) -> None:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        assert any("raylet" in process.name() for process in processes)
        server.submit("没画完", **LONG)
        server.close()
        until(lambda: all(map(is_gone, processes)))
        with Gallery(server.home / "gallery") as gallery:
            assert set(Queue(gallery).counts()) <= {"waiting", "done", "cancelled"}


REFUSED = {
    "an address without Ray": (["--engine", "ray", "--ray-address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
    "an address that is none": (["--engine", "ray", "--ray-address", "here"], "not host:port"),
    "an address without the engine": (["--ray-address", "127.0.0.1:1"], "needs --engine ray"),
    "an unknown engine": (["--engine", "steam"], "steam"),
    "no painter": (["--workers", "0"], "--workers"),
    "no core": (["--cores", "0"], "--cores"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_so_is_refused_by_name(case: str, tmp_path: Path) -> None:
    options, words = REFUSED[case]
    if "--engine" in options and "ray" in options:
        pytest.importorskip("ray")
    environment = {**os.environ, "STARRY_HOME": str(tmp_path), "STARRY_LANG": "en"}
    said = subprocess.run(
        [STARRY, "serve", "--port", "0", *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode == BadRequest.exit_code
    assert words in said.stderr
    assert "Traceback" not in said.stderr


def test_cores_are_shared_so_that_all_painters_find_room() -> None:
    """A painter's cores are of one machine: of machines with 8 and 4, three painters have 4 each."""
    machines = [cluster.Machine("a", 8, 0), cluster.Machine("b", 4, 0)]
    assert [cluster._share(machines, count) for count in (None, 1, 2, 3, 4, 12, 13)] == [4, 8, 4, 4, 2, 1, 1]
    assert "not for 13" in cluster._no_room(13, 12, 1, False).en
    assert "1 core each" in cluster._no_room(13, 12, 1, False).en


def test_ray_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(BadRequest, match=r"pip install 'starry-night\[ray\]'"):
        cluster._connect(None)


@pytest.mark.parametrize(
    ("place", "files", "reached"),
    [
        (None, None, False),
        ("/data", "s3://b/p", False),
        ("sqlite:////data/g.db", "s3://b/p", False),
        ("postgresql+psycopg://db/g", None, False),
        ("postgresql+psycopg://db/g", "file:///data", False),
        ("postgresql+psycopg://db/g", "s3://b/p", True),
    ],
)
def test_which_galleries_other_machines_reach(place: str | None, files: str | None, reached: bool) -> None:
    assert cluster.reached_from_elsewhere(SimpleNamespace(place=place, files_at=files)) is reached  # type: ignore[arg-type]


def test_the_gallery_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STARRY_GALLERY", str(tmp_path / "rows"))
    monkeypatch.setenv("STARRY_GALLERY_FILES", str(tmp_path / "files"))
    with Gallery() as gallery:
        row = gallery.add(picture())
        assert gallery.identity == gallery_identity()
    assert (tmp_path / "rows" / "gallery.db").is_file()
    assert list((tmp_path / "files").rglob(f"{row.id}.png"))
    assert not (tmp_path / "home" / "gallery").exists()
    with Gallery(tmp_path / "other") as gallery:  # a named one is as it was
        gallery.add(picture())
    assert list((tmp_path / "other" / "pictures").rglob("*.png"))
