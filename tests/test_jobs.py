"""The queue and its leases, without a painter: what is waiting, who holds it, what became of it."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hung import finished, picture, process
from sqlalchemy import update

from starrynight.errors import BadFile, BadRequest, Cancelled, MissingFile, StorageError, UnknownName
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.jobs import job as words
from starrynight.jobs import leases, validate
from starrynight.jobs import uploads as upload_store
from starrynight.jobs.leases import ClaimedJob, Lease, LostLease, record_death, release_worker
from starrynight.jobs.queue import Queue
from starrynight.jobs.schema import jobs, workers
from starrynight.jobs.uploads import Uploads
from starrynight.request import PaintRequest
from starrynight.storage import PART_SUFFIX

DEAD = Text("killed by SIGKILL", "被 SIGKILL 终止")


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


def taken(held: Lease) -> ClaimedJob:
    job = held.claim()
    assert job is not None
    return job


def hang(gallery: Gallery, held: Lease, job: ClaimedJob, index: int) -> str:
    """As the worker does it: the picture and its place in the job in one transaction."""
    painting = picture(job.request.prompt, job.request.seed_of(index))
    note = lambda connection, picture: held.finish_picture(connection, job, index, picture)  # noqa: E731
    return gallery.hang(painting, also=note).id


def expire(gallery: Gallery) -> None:
    with gallery.database.writing() as connection:
        connection.execute(update(workers).values(until=0))


def test_a_job_goes_from_waiting_to_done(gallery: Gallery, queue: Queue) -> None:
    job = queue.submit(request(count=2, steps=4))
    assert (job.state, job.position, job.attempts, job.seconds_left) == (words.WAITING, 0, 0, None)
    held = lease(gallery)
    mine = taken(held)
    assert (mine.id, mine.request, mine.finished) == (job.id, request(count=2, steps=4), frozenset())
    held.report(mine, b"webp", picture=0, step=2, steps=4)
    now = queue.get(job.id)
    assert (now.state, now.picture, now.step, now.progress, now.attempts) == (words.PAINTING, 0, 2, 0.25, 1)
    assert queue.preview(job.id).image == b"webp"
    ids = [hang(gallery, held, mine, index) for index in range(2)]
    held.report(mine, pace=2.0)
    held.end(mine)
    done = queue.get(job.id)
    assert (done.state, done.pictures, done.progress, done.error) == (words.DONE, ids, 1.0, None)
    assert done.ended
    assert queue.preview(job.id) is None
    assert json.loads(json.dumps(done.to_dict()))["painted"][1] == {
        "index": 1,
        "picture": ids[1],
        "error": None,
    }
    # the pace of the last job is what the next is estimated by: 2 s for a step of a million pixels
    following = queue.submit(request(count=3, steps=10, width=1000 // 8 * 8, height=1000))
    assert following.seconds_left == pytest.approx(3 * 10 * 2.0, rel=0.01)
    assert queue.submit(request()).seconds_left > following.seconds_left
    assert held.claim().id == following.id


def test_every_change_is_a_new_revision_and_watchers_see_the_end(gallery: Gallery, queue: Queue) -> None:
    job = queue.submit(request())
    seen = []
    with ThreadPoolExecutor() as pool:
        watching = pool.submit(lambda: seen.extend(found.state for found in queue.watch(job.id, every=0.005)))
        held = lease(gallery)
        mine = taken(held)
        time.sleep(0.1)
        held.end(mine)
        watching.result(timeout=10)
    assert seen[0] == words.WAITING
    assert seen[-2:] == [words.PAINTING, words.DONE]


def test_order_can_be_changed_while_waiting(gallery: Gallery, queue: Queue) -> None:
    a, b, c, d = (queue.submit(request(name)).id for name in "abcd")
    queue.move(d, 0)
    queue.move(a, 99)
    assert [found.id for found in queue.list()] == [d, b, c, a]
    assert [found.position for found in queue.list()] == [0, 1, 2, 3]
    assert taken(lease(gallery)).id == d
    with pytest.raises(BadRequest, match="still waiting"):
        queue.move(d, 1)
    assert [found.id for found in queue.list()] == [d, b, c, a]  # the one being painted comes first
    queue.cancel(b)
    assert [found.id for found in queue.list((*words.ACTIVE, *words.ENDED))] == [d, c, a, b]
    assert queue.counts() == {words.PAINTING: 1, words.WAITING: 2, words.CANCELLED: 1}


def test_cancelling_reaches_the_painter_and_keeps_what_hangs(gallery: Gallery, queue: Queue) -> None:
    job = queue.submit(request(count=3))
    held = lease(gallery)
    mine = taken(held)
    first = hang(gallery, held, mine, 0)
    held.check(mine)
    assert queue.cancel(job.id).cancelling
    for tell in (held.check, held.report):
        with pytest.raises(Cancelled):
            tell(mine)
    held.end(mine, Cancelled())
    ended = queue.get(job.id)
    assert (ended.state, ended.pictures, ended.error["type"]) == (words.CANCELLED, [first], "Cancelled")
    assert queue.cancel(job.id) == ended

    again = queue.retry(job.id)
    assert (again.state, again.pictures, again.error) == (words.WAITING, [first], None)
    assert taken(held).finished == {0}  # what hangs is not painted twice


def test_refused_pictures_are_told_with_their_reason(gallery: Gallery, queue: Queue) -> None:
    held = lease(gallery)
    reason = BadRequest("Black.", "全黑。")
    some, none = queue.submit(request(count=2)).id, queue.submit(request()).id
    mine = taken(held)
    held.refuse_picture(mine, 0, reason)
    hang(gallery, held, mine, 1)
    held.end(mine)
    mine = taken(held)
    held.refuse_picture(mine, 0, reason)
    held.end(mine)
    found = queue.get(some)
    assert (found.state, found.painted[0].error["zh"], len(found.pictures)) == (words.DONE, "全黑。", 1)
    assert "1 of 2" in found.error["en"]
    assert (queue.get(none).state, queue.get(none).error["en"]) == (words.FAILED, "Black.")
    queue.retry(some)
    assert taken(held).finished == {1}  # the refused one is tried again


def test_a_job_whose_worker_dies_goes_on_and_the_second_death_sets_it_aside(
    gallery: Gallery, queue: Queue
) -> None:
    job, other = queue.submit(request(count=3)).id, queue.submit(request()).id
    first = lease(gallery)
    hung = hang(gallery, first, taken(first), 0)
    record_death(gallery.database, first.worker, DEAD)
    back = queue.get(job)
    assert (back.state, back.position, back.deaths, back.pictures) == (words.WAITING, 0, 1, [hung])

    second = lease(gallery)  # the device is free at once
    mine = taken(second)
    assert (mine.id, mine.finished) == (job, {0})
    record_death(gallery.database, second.worker, DEAD)
    aside = queue.get(job)
    assert (aside.state, aside.attempts, aside.deaths, aside.pictures) == (words.SET_ASIDE, 2, 2, [hung])
    assert "killed by SIGKILL" in aside.error["en"]
    assert "SIGKILL 终止" in aside.error["zh"]

    third = lease(gallery)
    assert taken(third).id == other  # the queue goes on
    assert queue.retry(job).deaths == 0


def test_a_lease_that_ran_out_is_a_death_and_the_late_worker_learns_it(
    gallery: Gallery, queue: Queue
) -> None:
    job = queue.submit(request(count=2)).id
    slept = lease(gallery)
    mine = taken(slept)
    other = Lease(gallery.database, "here/cpu")
    assert not other.acquire()
    assert other.claim() is None
    expire(gallery)
    assert other.acquire()
    assert not slept.acquire()
    theirs = taken(other)
    assert theirs.id == job
    for late in (lambda: slept.check(mine), lambda: slept.report(mine, picture=0)):
        with pytest.raises(LostLease):
            late()
    hang(gallery, slept, mine, 0)  # it was in the middle of hanging: the picture hangs, and is noted once
    hang(gallery, other, theirs, 0)
    slept.end(mine, StorageError("late", "迟了"))
    assert queue.get(job).state == words.PAINTING
    assert len(queue.get(job).pictures) == gallery.count() == 1
    assert queue.get(job).deaths == 1


def test_two_devices_paint_two_jobs_and_never_the_same(gallery: Gallery, queue: Queue) -> None:
    for name in "abcdef":
        queue.submit(request(name))
    held = [lease(gallery, f"here/cuda:{number}") for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        first = list(pool.map(Lease.claim, held))
        second = list(pool.map(Lease.claim, held))
    assert len({job.id for job in (*first, *second)}) == 6


def test_a_worker_that_is_asked_to_stop_hands_its_job_back(gallery: Gallery, queue: Queue) -> None:
    job = queue.submit(request()).id
    for give_up in (
        lambda held, mine: held.requeue(mine),
        lambda held, _: release_worker(gallery.database, held.worker),
    ):
        held = lease(gallery)
        give_up(held, taken(held))
        held.release()
        assert (queue.get(job).state, queue.get(job).deaths) == (words.WAITING, 0)


KILLED_WHILE_HANGING = """
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
    gallery.hang(picture(job.request.prompt, job.request.seed_of(0)))
def note(connection, picture):
    lease.finish_picture(connection, job, 0, picture)
    if sys.argv[2] == "before the transaction ends":
        kill()
gallery.hang(picture(job.request.prompt, job.request.seed_of(0)), also=note)
kill()
"""


@pytest.mark.parametrize("when", ["before its row", "before the transaction ends", "after it"])
def test_killed_while_hanging_a_picture_it_hangs_once_and_is_noted(
    gallery: Gallery, queue: Queue, when: str
) -> None:
    job = queue.submit(request(count=2)).id
    finished(process(KILLED_WHILE_HANGING, gallery.place, when), killed=True)
    assert (gallery.count(), len(queue.get(job).pictures)) == ((1, 1) if when == "after it" else (0, 0))
    expire(gallery)
    held = lease(gallery)
    mine = taken(held)
    assert mine.finished == ({0} if when == "after it" else frozenset())
    for index in {0, 1} - mine.finished:
        hang(gallery, held, mine, index)
    held.end(mine)
    assert (gallery.count(), len(queue.get(job).pictures), queue.get(job).state) == (2, 2, words.DONE)
    assert gallery.verify().ok


def test_previews_do_not_bloat_the_database(gallery: Gallery, queue: Queue, tmp_path: Path) -> None:
    queue.submit(request(steps=100))
    held = lease(gallery)
    mine = taken(held)
    size = lambda: sum(file.stat().st_size for file in (tmp_path / "gallery").glob("gallery.db"))  # noqa: E731
    held.report(mine, bytes(3000), picture=0, step=0, steps=100)
    gallery.database.close()
    before = size()
    for step in range(120):
        held.report(mine, bytes(3000), picture=0, step=step, steps=120)
    gallery.database.close()  # the last to leave folds the log into the database
    assert size() - before < 64_000
    assert len(queue.preview(mine.id).image) == 3000


def test_a_job_that_this_version_cannot_read_fails_alone(gallery: Gallery, queue: Queue) -> None:
    strange, good = queue.submit(request("from the future")).id, queue.submit(request()).id
    with gallery.database.writing() as connection:
        odd = json.dumps(request("from the future").to_dict() | {"brushes": 9})
        connection.execute(update(jobs).where(jobs.c.id == strange).values(request=odd))
    assert [found.request.prompt for found in queue.list()] == ["from the future", "星夜"]
    held = lease(gallery)
    assert held.claim() is None
    assert taken(held).id == good
    assert queue.get(strange).error["type"] == "BadRequest"


def test_the_queue_has_an_end_and_forgets(
    gallery: Gallery, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_unknown_jobs_are_one_sentence(queue: Queue) -> None:
    for ask in (queue.get, queue.cancel, queue.retry, queue.revision, lambda job: queue.move(job, 0)):
        with pytest.raises(MissingFile, match="There is no job"):
            ask("no\x1bthing")


def test_a_stranger_names_neither_files_nor_models_that_are_not_here(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    (tmp_path / "secret.png").write_bytes(picture().encode("png"))
    settled = validate.validate_request({"prompt": "星夜", "style": None}, gallery)
    assert (settled.model, settled.width, settled.style) == ("firefly", 256, None)
    for words_, error in (
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
            validate.validate_request(words_, gallery)
    row = gallery.hang(picture())
    name, width, height = Uploads().save(picture(size=128).encode("webp"))
    assert (width, height) == (128, 128)
    assert validate.validate_request(
        {"prompt": "x", "init_image": f"picture:{row.id}"}, gallery
    ).init_image == gallery.path(row)
    assert validate.validate_request(
        {"prompt": "x", "init_image": f"upload:{name}"}, gallery
    ).init_image.endswith(f"{name}.png")


def test_an_upload_is_pixels_and_nothing_else(tmp_path: Path) -> None:
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


def test_an_upload_goes_when_nobody_needs_it_and_not_before(
    gallery: Gallery, queue: Queue, tmp_path: Path
) -> None:
    uploads = Uploads(tmp_path / "uploads")
    needs = ("a waiting job", "an ended job", "a picture", "a picture in the trash", "a desk", "nobody")
    names = {who: uploads.save(picture(seed=number).encode())[0] for number, who in enumerate(needs)}
    first = {who: str(uploads.path(name)) for who, name in names.items()}
    queue.submit(request(init_image=first["a waiting job"]))
    queue.cancel(queue.submit(request(init_image=first["an ended job"])).id)
    gallery.hang(picture(init_image=first["a picture"]))
    gallery.trash.throw([gallery.hang(picture(seed=2, init_image=first["a picture in the trash"])).id])
    half, foreign = uploads.folder / f".0{PART_SUFFIX}", uploads.folder / "mine.png"
    for path in (half, foreign):
        path.write_bytes(b"half")
    for path in uploads.folder.iterdir():
        os.utime(path, (0, 0))
    uploads.path(names["a desk"])  # shown, or handed in with a wish, this moment
    assert uploads.sweep(gallery.database, older_than=timedelta(days=7)) == 2
    assert not half.exists()
    assert foreign.exists()
    for who, name in names.items():
        assert (uploads.folder / f"{name}.png").exists() == (who != "nobody"), who
    with pytest.raises(MissingFile):
        uploads.path(names["nobody"])
    assert uploads.sweep(gallery.database) == 0


def test_an_upload_asked_for_while_it_leaves_stays(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(tmp_path / "uploads")
    name, *_ = uploads.save(picture().encode())
    os.utime(uploads.folder / f"{name}.png", (0, 0))
    named = upload_store._referenced_names

    def meanwhile(database):  # somebody hands in a wish after the sweep has looked who needs what
        found = named(database)
        uploads.path(name)
        return found

    monkeypatch.setattr(upload_store, "_referenced_names", meanwhile)
    assert uploads.sweep(gallery.database) == 0
    assert uploads.path(name).read_bytes()


def test_the_doors_to_the_queue_leave_torch_outside(tmp_path: Path) -> None:
    code = "import sys, starrynight.serve, starrynight.jobs.worker, starrynight.jobs.validate; print('torch' in sys.modules)"
    assert finished(process(code)).strip() == "False"
    assert leases.MAX_DEATHS == 2
