"""The worker with Firefly in this process: the pictures it saves, and jobs on a full or read-only disk."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from starrynight.errors import Cancelled
from starrynight.gallery.store import Gallery
from starrynight.jobs.job import CANCELLED, DONE, FAILED, WAITING
from starrynight.jobs.leases import Lease
from starrynight.jobs.queue import Queue
from starrynight.jobs.worker import Worker
from starrynight.metadata import read_own, read_pixels, read_recipe
from starrynight.painting.painter import Painter
from starrynight.picture import Picture
from starrynight.studio import Studio, make_request


@pytest.fixture(scope="module")
def studio() -> Studio:
    """One studio for all tests, because loading the model is the slow part."""
    loaded = Studio(lambda picture: Path(), "cpu")
    loaded.ready(small_request())
    return loaded


@pytest.fixture
def worker(tmp_path: Path, studio: Studio) -> Iterator[Worker]:
    with Gallery(tmp_path / "gallery") as gallery:
        lease = Lease(gallery.database, "here/cpu")
        assert lease.acquire()
        made = Worker(gallery, "cpu", lease)
        studio.save, made._studio = made._save_picture, studio
        yield made


def small_request(prompt: str = "星夜", **more):
    return make_request(prompt=prompt, **({"width": 128, "height": 128, "steps": 2, "seed": 3} | more))


def claim_and_paint(worker: Worker, job: str) -> None:
    claimed = worker.lease.claim()
    assert claimed is not None
    assert claimed.id == job
    worker.paint(claimed)


def test_an_idle_worker_is_warm_before_the_first_job(worker: Worker, studio: Studio) -> None:
    painter = studio._painter
    assert isinstance(painter, Painter)
    painter.preview._map = None
    worker.preload()
    assert painter.preview._map is not None  # a first step was taken, and its preview was drawn
    assert studio._painter is painter
    assert (worker.gallery.count(), Queue(worker.gallery).counts()) == (0, {})


def test_queue_and_command_line_write_the_same_bytes(worker: Worker, studio: Studio, tmp_path: Path) -> None:
    queue, request = Queue(worker.gallery), small_request(count=2)
    job = queue.submit(request).id
    claim_and_paint(worker, job)
    found = queue.get(job)
    assert (found.state, len(found.pictures), worker.gallery.count()) == (DONE, 2, 2)
    files = [worker.gallery.read(worker.gallery.get(picture)) for picture in found.pictures]
    assert [read_recipe(file).seed for file in files] == [3, 4]
    direct = Studio(lambda picture: picture.write(tmp_path / f"{picture.seed}.png"), "cpu")
    direct._painter = studio._painter
    again = [saved.place.read_bytes() for saved in direct.paint(request, skip={0})]
    assert again == files[1:]  # the same bytes although picture 0 was skipped


def test_a_job_tries_seeds_until_all_that_it_asks_for_is_seen(
    worker: Worker, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starrynight.senses import tries
    from starrynight.senses.asked import Judged

    looked: list[int] = []

    def judged(_: object, picture: Picture) -> Judged:
        looked.append(picture.recipe["seed"])
        return {3: Judged(("moon",), ("boat",), 8), 4: Judged((), ("moon",), 5), 5: Judged((), (), 1)}[
            looked[-1]
        ]

    monkeypatch.setattr(tries, "judged", judged)  # two steps paint nothing that the perceiver can tell
    queue = Queue(worker.gallery)
    for most, kept, still in ((4, 5, []), (2, 4, ["moon"])):
        looked.clear()
        job = queue.submit(small_request(f"月亮 小船 {most}", until_seen=most))
        claimed = worker.lease.claim()
        assert claimed is not None
        worker.paint(claimed)
        (picture,) = queue.get(job.id).pictures
        recipe = worker.gallery.recipe(picture)
        assert (recipe["seed"], looked) == (kept, [3, 4, 5][: min(most, 3)])
        assert recipe["until_seen"] == {"tries": len(looked), "of": most, "missing": [], "unsure": still}
        alone = list(studio.paint(small_request(f"月亮 小船 {most}", seed=kept), save=lambda _: Path()))
        assert read_own(recipe).request()["seed"] == kept  # type: ignore[union-attr]
        np.testing.assert_array_equal(
            read_pixels(worker.gallery.read(worker.gallery.get(picture))), alone[0].picture.pixels
        )
    assert worker.gallery.count() == 2


def test_a_job_cancelled_before_its_first_step_paints_nothing(worker: Worker) -> None:
    queue = Queue(worker.gallery)
    job = queue.submit(small_request()).id
    claimed = worker.lease.claim()
    queue.cancel(job)
    worker.paint(claimed)
    assert (queue.get(job).state, queue.get(job).error["type"]) == (CANCELLED, Cancelled.__name__)
    assert worker.gallery.count() == 0


def test_a_stopped_worker_puts_its_job_back_in_the_middle_of_a_picture(worker: Worker) -> None:
    queue = Queue(worker.gallery)
    job = queue.submit(small_request(count=3)).id
    hang = worker.gallery.add

    def hang_and_stop(picture, **more):
        row = hang(picture, **more)
        worker.stop.set()
        return row

    worker.gallery.add = hang_and_stop
    claim_and_paint(worker, job)
    found = queue.get(job)
    assert (found.state, found.deaths, len(found.pictures)) == (WAITING, 0, 1)
    worker.gallery.add = hang
    worker.stop.clear()
    claim_and_paint(worker, job)
    assert (queue.get(job).state, len(queue.get(job).pictures)) == (DONE, 3)


def test_an_unwritable_gallery_fails_the_job_and_a_retry_succeeds(worker: Worker) -> None:
    queue, pictures = Queue(worker.gallery), Path(worker.gallery.files.root)
    job = queue.submit(small_request(count=2)).id
    pictures.write_text("a file where the folder should be")
    claim_and_paint(worker, job)
    failed = queue.get(job)
    assert (failed.state, failed.error["type"], failed.error["status"]) == (FAILED, "StorageError", 507)
    assert failed.pictures == []
    pictures.unlink()
    queue.retry(job)
    claim_and_paint(worker, job)
    assert (queue.get(job).state, len(queue.get(job).pictures)) == (DONE, 2)
    assert worker.gallery.verify().ok


def test_a_full_disk_fails_the_job_as_soon_as_the_database_can_be_written(worker: Worker) -> None:
    queue = Queue(worker.gallery)
    job = queue.submit(small_request()).id
    claimed = worker.lease.claim()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    freed = threading.Timer(5.0, resource.setrlimit, (resource.RLIMIT_FSIZE, (soft, hard)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # neither a picture nor the database's log fits
    freed.start()
    try:
        worker.paint(claimed)  # waits until the database can store how the job ended
    finally:
        freed.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    failed = queue.get(job)
    assert (failed.state, failed.error["type"]) == (FAILED, "StorageError")
    assert "free some space" in failed.error["en"].lower()
    assert worker.gallery.verify().ok
    queue.retry(job)
    claim_and_paint(worker, job)
    assert queue.get(job).state == DONE
