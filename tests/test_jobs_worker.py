"""The worker itself, with Firefly in this process: what it hangs, what a full or blocked disk does to a job."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from starrynight.errors import Cancelled
from starrynight.gallery.store import Gallery
from starrynight.jobs.job import CANCELLED, DONE, FAILED, WAITING
from starrynight.jobs.leases import Lease
from starrynight.jobs.queue import Queue
from starrynight.jobs.worker import Worker
from starrynight.metadata import read_recipe
from starrynight.studio import Studio, fill


@pytest.fixture(scope="module")
def studio() -> Studio:
    """One painter for all: loading it is the slow part."""
    loaded = Studio(lambda picture: Path(), "cpu")
    loaded.ready(wish())
    return loaded


@pytest.fixture
def worker(tmp_path: Path, studio: Studio) -> Iterator[Worker]:
    with Gallery(tmp_path / "gallery") as gallery:
        lease = Lease(gallery.database, "here/cpu")
        assert lease.hold()
        one = Worker(gallery, "cpu", lease)
        studio.hang, one._studio = one._save_picture, studio
        yield one


def wish(prompt: str = "星夜", **more):
    return fill(prompt=prompt, **({"width": 128, "height": 128, "steps": 2, "seed": 3} | more))


def painted(worker: Worker, job: str) -> None:
    taken = worker.lease.claim()
    assert taken is not None
    assert taken.id == job
    worker.paint(taken)


def test_what_the_queue_paints_is_what_the_terminal_paints(
    worker: Worker, studio: Studio, tmp_path: Path
) -> None:
    queue, request = Queue(worker.gallery), wish(count=2)
    job = queue.submit(request).id
    painted(worker, job)
    found = queue.get(job)
    assert (found.state, len(found.pictures), worker.gallery.count()) == (DONE, 2, 2)
    files = [worker.gallery.read(worker.gallery.get(picture)) for picture in found.pictures]
    assert [read_recipe(file).seed for file in files] == [3, 4]
    direct = Studio(lambda picture: picture.write(tmp_path / f"{picture.seed}.png"), "cpu")
    direct._painter = studio._painter
    again = [hung.place.read_bytes() for hung in direct.paint(request, skip={0})]
    assert again == files[1:]  # same request, same bytes, whatever was skipped


def test_a_job_that_is_cancelled_while_waiting_for_its_painter_paints_nothing(worker: Worker) -> None:
    queue = Queue(worker.gallery)
    job = queue.submit(wish()).id
    taken = worker.lease.claim()
    queue.cancel(job)
    worker.paint(taken)
    assert (queue.get(job).state, queue.get(job).error["type"]) == (CANCELLED, Cancelled.__name__)
    assert worker.gallery.count() == 0


def test_a_worker_that_is_stopped_hands_its_job_back_in_the_middle_of_a_picture(worker: Worker) -> None:
    queue = Queue(worker.gallery)
    job = queue.submit(wish(count=3)).id
    hang = worker.gallery.hang

    def hang_and_stop(picture, **more):
        row = hang(picture, **more)
        worker.stop.set()
        return row

    worker.gallery.hang = hang_and_stop
    painted(worker, job)
    found = queue.get(job)
    assert (found.state, found.deaths, len(found.pictures)) == (WAITING, 0, 1)
    worker.gallery.hang = hang
    worker.stop.clear()
    painted(worker, job)
    assert (queue.get(job).state, len(queue.get(job).pictures)) == (DONE, 3)


def test_a_place_that_cannot_be_written_fails_the_job_in_one_sentence_and_a_retry_goes_on(
    worker: Worker,
) -> None:
    queue, pictures = Queue(worker.gallery), Path(worker.gallery.files.root)
    job = queue.submit(wish(count=2)).id
    pictures.write_text("a file where the folder should be")
    painted(worker, job)
    failed = queue.get(job)
    assert (failed.state, failed.error["type"], failed.error["status"]) == (FAILED, "StorageError", 507)
    assert failed.pictures == []
    pictures.unlink()
    queue.retry(job)
    painted(worker, job)
    assert (queue.get(job).state, len(queue.get(job).pictures)) == (DONE, 2)
    assert worker.gallery.verify().ok


def test_a_full_disk_under_everything_fails_the_job_once_there_is_room_to_say_so(worker: Worker) -> None:
    queue = Queue(worker.gallery)
    job = queue.submit(wish()).id
    taken = worker.lease.claim()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = threading.Timer(5.0, resource.setrlimit, (resource.RLIMIT_FSIZE, (soft, hard)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # neither a picture nor the database's log fits
    room.start()
    try:
        worker.paint(taken)  # waits for room to tell its end
    finally:
        room.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    failed = queue.get(job)
    assert (failed.state, failed.error["type"]) == (FAILED, "StorageError")
    assert "free some space" in failed.error["en"].lower()
    assert worker.gallery.verify().ok
    queue.retry(job)
    painted(worker, job)
    assert queue.get(job).state == DONE
