"""The queue and its leases without a painter: states, order, deaths of workers, uploads, validation."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hung import finished, picture, process
from sqlalchemy import Connection, event, update

from starrynight.errors import BadFile, BadRequest, Cancelled, MissingFile, StorageError, UnknownName
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.jobs import job as states
from starrynight.jobs import leases, validate
from starrynight.jobs import uploads as upload_store
from starrynight.jobs.leases import ClaimedJob, Lease, LostLease, record_death, release_worker
from starrynight.jobs.queue import Queue
from starrynight.jobs.schema import jobs, workers
from starrynight.jobs.uploads import Uploads
from starrynight.models import catalogue
from starrynight.request import PaintRequest
from starrynight.storage import PART_SUFFIX

CAUSE = Text("killed by SIGKILL", "被 SIGKILL 终止")


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "gallery") as opened:
        yield opened


@pytest.fixture
def queue(gallery: Gallery) -> Queue:
    return Queue(gallery)


def request(prompt: str = "星夜", **more) -> PaintRequest:
    return PaintRequest(prompt=prompt, seed=7, **more)


def lease(gallery: Gallery, device: str = "here/cpu") -> Lease:
    held = Lease(gallery.database, device)
    assert held.acquire()
    return held


def claim(held: Lease) -> ClaimedJob:
    job = held.claim()
    assert job is not None
    return job


def hang(gallery: Gallery, held: Lease, job: ClaimedJob, index: int) -> str:
    """Save a picture as the worker does: the file, and its place in the job in the same transaction."""
    painting = picture(job.request.prompt, job.request.seed_of(index))
    record = lambda connection, picture: held.finish_picture(connection, job, index, picture)  # noqa: E731
    return gallery.add(painting, also=record).id


def expire(gallery: Gallery) -> None:
    with gallery.database.writing() as connection:
        connection.execute(update(workers).values(until=0))


READERS = {"get_shown": Queue.get_shown, "changed": lambda queue, job: queue.changed({job: -1})[job]}


@pytest.mark.parametrize("reader", READERS)
def test_a_preview_is_never_of_a_later_step_than_its_job_tells(
    gallery: Gallery, queue: Queue, reader: str
) -> None:
    job = queue.submit(request(steps=8))
    held = lease(gallery)
    mine = claim(held)
    report = lambda step: held.report(mine, str(step).encode(), picture=0, step=step, steps=8)  # noqa: E731
    report(1)
    steps = [5, 4, 3, 2]

    def between(connection: Connection, cursor: object, statement: str, *_: object) -> None:
        """The worker goes on before each of the reader's statements."""
        if statement.startswith("SELECT") and threading.current_thread() is threading.main_thread() and steps:
            with ThreadPoolExecutor() as pool:
                pool.submit(report, steps.pop()).result()

    event.listen(gallery.database.engine, "before_cursor_execute", between)
    now, preview = READERS[reader](queue, job.id)
    assert len(steps) < 4
    assert now.step >= int(preview.image)


def test_a_job_goes_from_waiting_to_done(gallery: Gallery, queue: Queue) -> None:
    job = queue.submit(request(count=2, steps=4))
    assert (job.state, job.position, job.attempts, job.seconds_left) == (states.WAITING, 0, 0, None)
    held = lease(gallery)
    mine = claim(held)
    assert (mine.id, mine.request, mine.finished) == (job.id, request(count=2, steps=4), frozenset())
    held.report(mine, b"webp", picture=0, step=2, steps=4)
    now = queue.get(job.id)
    assert (now.state, now.picture, now.step, now.progress, now.attempts) == (states.PAINTING, 0, 2, 0.25, 1)
    assert queue.preview(job.id).image == b"webp"
    ids = [hang(gallery, held, mine, index) for index in range(2)]
    held.report(mine, pace=2.0)
    held.end(mine)
    done = queue.get(job.id)
    assert (done.state, done.pictures, done.progress, done.error) == (states.DONE, ids, 1.0, None)
    assert done.ended
    assert queue.preview(job.id) is None
    assert json.loads(json.dumps(done.to_dict()))["painted"][1] == {
        "index": 1,
        "picture": ids[1],
        "error": None,
    }
    # The next estimate uses the pace of the last job: 2 s per step and megapixel.
    assert queue.seconds([request(count=2, steps=5, width=1000, height=1000)] * 2) == pytest.approx(40.0)
    assert queue.seconds([request(model="another")]) is None
    following = queue.submit(request(count=3, steps=10, width=1000 // 8 * 8, height=1000))
    assert following.seconds_left == pytest.approx(3 * 10 * 2.0, rel=0.01)
    assert queue.submit(request()).seconds_left > following.seconds_left
    assert held.claim().id == following.id


def test_watching_a_job_yields_every_change_until_it_has_ended(gallery: Gallery, queue: Queue) -> None:
    job = queue.submit(request())
    seen = []
    with ThreadPoolExecutor() as pool:
        watching = pool.submit(lambda: seen.extend(found.state for found in queue.watch(job.id, every=0.005)))
        held = lease(gallery)
        mine = claim(held)
        time.sleep(0.1)
        held.end(mine)
        watching.result(timeout=10)
    assert seen[0] == states.WAITING
    assert seen[-2:] == [states.PAINTING, states.DONE]


def test_a_waiting_job_can_be_moved(gallery: Gallery, queue: Queue) -> None:
    a, b, c, d = (queue.submit(request(name)).id for name in "abcd")
    queue.move(d, 0)
    queue.move(a, 99)
    assert [found.id for found in queue.list()] == [d, b, c, a]
    assert [found.position for found in queue.list()] == [0, 1, 2, 3]
    assert claim(lease(gallery)).id == d
    with pytest.raises(BadRequest, match="still waiting"):
        queue.move(d, 1)
    assert [found.id for found in queue.list()] == [d, b, c, a]  # the one being painted comes first
    queue.cancel(b)
    assert [found.id for found in queue.list((*states.ACTIVE, *states.ENDED))] == [d, c, a, b]
    assert queue.counts() == {states.PAINTING: 1, states.WAITING: 2, states.CANCELLED: 1}


def test_cancelling_reaches_the_worker_and_keeps_saved_pictures(gallery: Gallery, queue: Queue) -> None:
    job = queue.submit(request(count=3))
    held = lease(gallery)
    mine = claim(held)
    first = hang(gallery, held, mine, 0)
    held.check(mine)
    assert queue.cancel(job.id).cancelling
    for call in (held.check, held.report):
        with pytest.raises(Cancelled):
            call(mine)
    held.end(mine, Cancelled())
    ended = queue.get(job.id)
    assert (ended.state, ended.pictures, ended.error["type"]) == (states.CANCELLED, [first], "Cancelled")
    assert queue.cancel(job.id) == ended

    again = queue.retry(job.id)
    assert (again.state, again.pictures, again.error) == (states.WAITING, [first], None)
    assert claim(held).finished == {0}  # a saved picture is not painted twice


def test_refused_pictures_carry_their_reason(gallery: Gallery, queue: Queue) -> None:
    held = lease(gallery)
    reason = BadRequest("Black.", "全黑。")
    one_of_two, none = queue.submit(request(count=2)).id, queue.submit(request()).id
    mine = claim(held)
    held.refuse_picture(mine, 0, reason)
    hang(gallery, held, mine, 1)
    held.end(mine)
    mine = claim(held)
    held.refuse_picture(mine, 0, reason)
    held.end(mine)
    found = queue.get(one_of_two)
    assert (found.state, found.painted[0].error["zh"], len(found.pictures)) == (states.DONE, "全黑。", 1)
    assert "1 of 2" in found.error["en"]
    assert (queue.get(none).state, queue.get(none).error["en"]) == (states.FAILED, "Black.")
    queue.retry(one_of_two)
    assert claim(held).finished == {1}  # the refused one is tried again


def test_one_death_requeues_a_job_and_the_second_sets_it_aside(gallery: Gallery, queue: Queue) -> None:
    job, other = queue.submit(request(count=3)).id, queue.submit(request()).id
    first = lease(gallery)
    begun = claim(first)
    saved = hang(gallery, first, begun, 0)
    first.report(begun, picture=1, step=1, steps=4)
    record_death(gallery.database, first.worker, CAUSE)
    back = queue.get(job)
    assert (back.state, back.position, back.deaths, back.pictures) == (states.WAITING, 0, 1, [saved])

    second = lease(gallery)  # the device is free at once
    mine = claim(second)
    assert (mine.id, mine.finished) == (job, {0})
    second.report(mine, picture=1, step=1, steps=4)
    record_death(gallery.database, second.worker, CAUSE)
    aside = queue.get(job)
    assert (aside.state, aside.attempts, aside.deaths, aside.pictures) == (states.SET_ASIDE, 2, 2, [saved])
    assert "killed by SIGKILL" in aside.error["en"]
    assert "SIGKILL 终止" in aside.error["zh"]

    third = lease(gallery)
    assert claim(third).id == other  # the queue goes on
    assert queue.retry(job).deaths == 0


def test_an_expired_lease_counts_as_a_death_and_stops_the_late_worker(gallery: Gallery, queue: Queue) -> None:
    job = queue.submit(request(count=2)).id
    late = lease(gallery)
    mine = claim(late)
    late.report(mine, picture=0, step=1, steps=4)
    other = Lease(gallery.database, "here/cpu")
    assert not other.acquire()
    assert other.claim() is None
    expire(gallery)
    assert other.acquire()
    assert not late.acquire()
    theirs = claim(other)
    assert theirs.id == job
    for call in (lambda: late.check(mine), lambda: late.report(mine, picture=0)):
        with pytest.raises(LostLease):
            call()
    hang(gallery, late, mine, 0)  # it was saving the picture just then: it is saved, and recorded once
    hang(gallery, other, theirs, 0)
    late.end(mine, StorageError("late", "迟了"))
    assert queue.get(job).state == states.PAINTING
    assert len(queue.get(job).pictures) == gallery.count() == 1
    assert queue.get(job).deaths == 1


HOURS = 8 * 3_600_000  # ms


@pytest.mark.parametrize("hours", [-8, 8])
def test_a_clock_that_is_set_neither_ends_nor_prolongs_a_lease(
    gallery: Gallery, queue: Queue, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    job = queue.submit(request()).id
    held = lease(gallery)
    mine = claim(held)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    other = Lease(gallery.database, "here/cpu")
    assert not other.acquire()  # it runs still
    assert other.claim() is None
    assert held.acquire()
    held.report(mine)
    expire(gallery)
    assert other.acquire()  # and has ended
    assert claim(other).id == job


@pytest.mark.parametrize("until", [0, 1, 10**6, 10**9, 1_700_000_000_000, 1_700_000_000_000 + HOURS, 2**62])
def test_a_lease_of_another_clock_is_none(gallery: Gallery, queue: Queue, until: int) -> None:
    """After a power cut the lease that the database holds was given before the machine started anew."""
    now = int(time.monotonic() * 1000)
    if now <= until <= now + leases.LEASE_MS:
        pytest.skip("this machine has run for just so long")
    job = queue.submit(request()).id
    claim(lease(gallery))
    with gallery.database.writing() as connection:
        connection.execute(update(workers).values(until=until))
    assert leases.living_workers(gallery.database) == 0
    after = lease(gallery)
    assert leases.living_workers(gallery.database) == 1
    assert claim(after).id == job


def test_a_worker_that_dies_while_loading_does_not_count_against_the_job(
    gallery: Gallery, queue: Queue
) -> None:
    job = queue.submit(request()).id
    for _ in range(leases.MAX_LOADING_DEATHS - 1):
        loading = lease(gallery)
        loading.report(claim(loading))
        record_death(gallery.database, loading.worker, CAUSE)
        assert (queue.get(job).state, queue.get(job).deaths) == (states.WAITING, 0)
    painting = lease(gallery)
    painting.report(claim(painting), picture=0, step=1, steps=4)
    record_death(gallery.database, painting.worker, CAUSE)
    assert (queue.get(job).state, queue.get(job).deaths) == (states.WAITING, 1)
    last = lease(gallery)  # a model that kills whoever loads it ends nevertheless
    claim(last)
    record_death(gallery.database, last.worker, CAUSE)
    assert queue.get(job).state == states.SET_ASIDE
    assert queue.retry(job).deaths == 0


def test_devices_claim_different_jobs(gallery: Gallery, queue: Queue) -> None:
    for name in "abcdef":
        queue.submit(request(name))
    held = [lease(gallery, f"here/cuda:{number}") for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        first = list(pool.map(Lease.claim, held))
        second = list(pool.map(Lease.claim, held))
    assert len({job.id for job in (*first, *second)}) == 6


def test_a_stopped_worker_puts_its_job_back_without_a_death(gallery: Gallery, queue: Queue) -> None:
    job = queue.submit(request()).id
    for put_back in (
        lambda held, mine: held.requeue(mine),
        lambda held, _: release_worker(gallery.database, held.worker),
    ):
        held = lease(gallery)
        put_back(held, claim(held))
        held.release()
        assert (queue.get(job).state, queue.get(job).deaths) == (states.WAITING, 0)


KILLED_WHILE_SAVING = """
import os, signal, sys
from hung import picture
from starrynight.gallery.store import Gallery
from starrynight.jobs.leases import Lease
gallery = Gallery(sys.argv[1])
lease = Lease(gallery.database, "here/cpu")
assert lease.acquire()
job = lease.claim()
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before its row":
    gallery.database.writing = kill
    gallery.add(picture(job.request.prompt, job.request.seed_of(0)))
def record(connection, picture):
    lease.finish_picture(connection, job, 0, picture)
    if sys.argv[2] == "before the transaction ends":
        kill()
gallery.add(picture(job.request.prompt, job.request.seed_of(0)), also=record)
kill()
"""


@pytest.mark.parametrize("when", ["before its row", "before the transaction ends", "after it"])
def test_a_kill_while_saving_loses_and_doubles_nothing(gallery: Gallery, queue: Queue, when: str) -> None:
    job = queue.submit(request(count=2)).id
    finished(process(KILLED_WHILE_SAVING, gallery.place, when), killed=True)
    assert (gallery.count(), len(queue.get(job).pictures)) == ((1, 1) if when == "after it" else (0, 0))
    expire(gallery)
    held = lease(gallery)
    mine = claim(held)
    assert mine.finished == ({0} if when == "after it" else frozenset())
    for index in {0, 1} - mine.finished:
        hang(gallery, held, mine, index)
    held.end(mine)
    assert (gallery.count(), len(queue.get(job).pictures), queue.get(job).state) == (2, 2, states.DONE)
    assert gallery.verify().ok


def test_previews_do_not_grow_the_database(gallery: Gallery, queue: Queue, tmp_path: Path) -> None:
    queue.submit(request(steps=100))
    held = lease(gallery)
    mine = claim(held)
    size = lambda: sum(file.stat().st_size for file in (tmp_path / "gallery").glob("gallery.db"))  # noqa: E731
    held.report(mine, bytes(3000), picture=0, step=0, steps=100)
    gallery.database.close()
    before = size()
    for step in range(120):
        held.report(mine, bytes(3000), picture=0, step=step, steps=120)
    gallery.database.close()  # closing the last connection merges the write-ahead log
    assert size() - before < 64_000
    assert len(queue.preview(mine.id).image) == 3000


def test_a_job_this_version_cannot_read_fails_and_the_next_is_painted(gallery: Gallery, queue: Queue) -> None:
    unreadable, good = queue.submit(request("from the future")).id, queue.submit(request()).id
    with gallery.database.writing() as connection:
        odd = json.dumps(request("from the future").to_dict() | {"brushes": 9})
        connection.execute(update(jobs).where(jobs.c.id == unreadable).values(request=odd))
    assert [found.request.prompt for found in queue.list()] == ["from the future", "星夜"]
    held = lease(gallery)
    assert held.claim() is None
    assert claim(held).id == good
    assert queue.get(unreadable).error["type"] == "BadRequest"


def test_the_queue_is_limited_and_expires(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starrynight.jobs.queue.MAX_WAITING", 3)
    ids = [queue.submit(request()).id for _ in range(3)]
    with pytest.raises(BadRequest, match="waiting already"):
        queue.submit(request())
    queue.cancel(ids[0])
    queue.submit(request())
    assert queue.delete_expired() == 0
    assert queue.delete_expired(timedelta(seconds=-1)) == 1
    with pytest.raises(MissingFile):
        queue.get(ids[0])
    assert len(queue.list()) == 3


def test_an_unknown_job_is_an_error_with_a_message(queue: Queue) -> None:
    for call in (queue.get, queue.cancel, queue.retry, queue.revision, lambda job: queue.move(job, 0)):
        with pytest.raises(MissingFile, match="There is no job"):
            call("no\x1bthing")


def test_an_untrusted_request_names_neither_files_nor_missing_models(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    (tmp_path / "secret.png").write_bytes(picture().encode("png"))
    valid = validate.validate_request({"prompt": "星夜", "style": None}, gallery)
    assert (valid.model, valid.width, valid.style) == ("firefly", catalogue.find("firefly").size, None)
    for fields, error in (
        ({"prompt": "x", "model": "z-image-turbo"}, MissingFile),
        ({"prompt": "x", "model": "someone/something"}, UnknownName),
        ({"prompt": "x", "model": str(tmp_path)}, UnknownName),
        ({"prompt": "x", "model": str(tmp_path / "models" / ".." / "secret.png")}, UnknownName),
        ({"prompt": "x", "model": 7}, UnknownName),
        ({"prompt": "x", "init_image": str(tmp_path / "secret.png")}, BadRequest),
        ({"prompt": "x", "init_image": "upload:../secret"}, MissingFile),
        ({"prompt": "x", "init_image": "picture:../../secret"}, MissingFile),
        ({"prompt": "x", "loras": [["../secret", 1.0]]}, BadRequest),
        ({"prompt": "x", "loras": 5}, BadRequest),
        ({"prompt": ""}, BadRequest),
        ({"prompt": "x", "secret": 1}, BadRequest),
    ):
        with pytest.raises(error):
            validate.validate_request(fields, gallery)
    row = gallery.add(picture())
    name, width, height = Uploads().save(picture(size=128).encode("webp"))
    assert (width, height) == (128, 128)
    assert validate.validate_request(
        {"prompt": "x", "init_image": f"picture:{row.id}"}, gallery
    ).init_image == gallery.path(row)
    assert validate.validate_request(
        {"prompt": "x", "init_image": f"upload:{name}"}, gallery
    ).init_image.endswith(f"{name}.png")


def test_a_stored_upload_holds_pixels_alone(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    name, *_ = uploads.save(picture("a secret prompt").encode("png") + b"<script>alert(1)</script>")
    kept = uploads.path(name).read_bytes()
    assert b"secret" not in kept
    assert b"script" not in kept
    assert uploads.save(picture("a secret prompt").encode("png"))[0] == name
    for bad in (
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n<svg/>",
        picture().encode()[:200],
    ):
        with pytest.raises(BadFile):
            uploads.save(bad)
    assert len(list(tmp_path.iterdir())) == 1


def test_unneeded_uploads_are_removed(gallery: Gallery, queue: Queue, tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads")
    needs = (
        "a waiting job",
        "an ended job",
        "a picture",
        "a picture in the trash",
        "an open page",
        "nothing",
    )
    names = {need: uploads.save(picture(seed=number).encode())[0] for number, need in enumerate(needs)}
    first = {need: str(uploads.path(name)) for need, name in names.items()}
    queue.submit(request(init_image=first["a waiting job"]))
    queue.cancel(queue.submit(request(init_image=first["an ended job"])).id)
    gallery.add(picture(init_image=first["a picture"]))
    gallery.trash.discard([gallery.add(picture(seed=2, init_image=first["a picture in the trash"])).id])
    half, foreign = uploads.folder / f".0{PART_SUFFIX}", uploads.folder / "mine.png"
    for path in (half, foreign):
        path.write_bytes(b"half")
    for path in uploads.folder.iterdir():
        os.utime(path, (0, 0))
    uploads.path(names["an open page"])  # requested a moment ago
    assert uploads.sweep(gallery.database, older_than=timedelta(days=7)) == 2
    assert not half.exists()
    assert foreign.exists()
    for need, name in names.items():
        assert (uploads.folder / f"{name}.png").exists() == (need != "nothing"), need
    with pytest.raises(MissingFile):
        uploads.path(names["nothing"])
    assert uploads.sweep(gallery.database) == 0


def test_an_upload_requested_during_the_sweep_stays(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(tmp_path / "uploads")
    name, *_ = uploads.save(picture().encode())
    os.utime(uploads.folder / f"{name}.png", (0, 0))
    referenced = upload_store._referenced_names

    def meanwhile(database):  # a request names the upload after the sweep has read what is needed
        found = referenced(database)
        uploads.path(name)
        return found

    monkeypatch.setattr(upload_store, "_referenced_names", meanwhile)
    assert uploads.sweep(gallery.database) == 0
    assert uploads.path(name).read_bytes()


def test_the_queue_and_its_interfaces_do_not_import_torch(tmp_path: Path) -> None:
    code = "import sys, starrynight.serve, starrynight.jobs.worker, starrynight.jobs.validate; print('torch' in sys.modules)"
    assert finished(process(code)).strip() == "False"
    assert leases.MAX_DEATHS == 2
