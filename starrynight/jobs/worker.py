"""The process that paints: holds one device, takes job after job, hangs what it paints, until its parent lets go.

    python -m starrynight.jobs.worker       (its parent writes one line of JSON to its stdin, and keeps that open)

The only process of the house that imports torch for the queue. It ends when stdin does: a server that was killed leaves
no worker behind. Knows neither HTTP nor pages.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from starrynight.errors import StarryError, StorageError
from starrynight.gallery.store import Gallery
from starrynight.jobs.leases import LEASE, Lease, LostLease, Taken, release
from starrynight.picture import Picture

if TYPE_CHECKING:
    from starrynight.painting.painter import Step
    from starrynight.studio import Studio

IDLE = 0.1  # seconds between two looks into an empty queue
SELDOM = 0.05  # seconds between two reports at least: a fast painter must not spend its time on them
GRACE = 5.0  # seconds to end by ourselves once our parent is gone; loading a large model takes minutes
PATIENCE = 2.0  # seconds before trying again what a full or busy disk refused

log = logging.getLogger("starrynight.worker")


class Stopped(BaseException):
    """Our parent let go, or asked us to end; not an Exception, so that nothing on the way takes it for a failure."""


class Worker:
    def __init__(self, gallery: Gallery, device: str | None, lease: Lease) -> None:
        self.gallery, self.device, self.lease = gallery, device, lease
        self.stop = threading.Event()
        self.held = False
        self._studio: Studio | None = None
        self._job: Taken | None = None

    def run(self) -> None:
        """Until ``stop`` is set."""
        threading.Thread(target=self._live, daemon=True).start()
        while not self.stop.is_set():
            try:
                if not self.held:
                    self.held = self.lease.hold()
                if not self.held:
                    self.stop.wait(1.0)  # another worker has this device; we stand by
                    continue
                job = self.lease.take()
            except StorageError as error:
                log.warning("%s", error)
                self.stop.wait(PATIENCE)
                continue
            if job is not None:
                self.paint(job)
            elif self._studio is None:
                self.warm_up()
            else:
                self.stop.wait(IDLE)
        self._insist(self.lease.let_go)

    def _live(self) -> None:
        """A sign of life every quarter of a lease, however long a step takes."""
        while not self.stop.wait(LEASE / 4000):
            with contextlib.suppress(StorageError):
                if self.held:
                    self.held = self.lease.hold()

    def studio(self) -> Studio:
        from starrynight.studio import Studio

        if self._studio is None:
            self._studio = Studio(self._hang, self.device, on_folding=self._folding)
        return self._studio

    def warm_up(self) -> None:
        """Load the shipped painter while nobody waits: the first picture then begins at once."""
        from starrynight.studio import fill

        try:
            request = fill(prompt="-")
            if request.model == "firefly":
                self.studio().ready(request)
        except (Stopped, StarryError):
            pass  # who asks for a picture will be told
        except Exception:
            log.exception("readying the painter")
        self.studio()

    def paint(self, job: Taken) -> None:
        """Paint what is left of a job, and say how it ended."""
        self._job = job
        ended = partial(self.lease.end, job)
        try:
            self._paint(job)
        except LostLease:
            return
        except Stopped:
            ended = partial(self.lease.hand_back, job)
        except StarryError as error:
            ended = partial(self.lease.end, job, error)
        except Exception as error:
            log.exception("job %s", job.id)
            ended = partial(self.lease.end, job, _unexpected(error))
        finally:
            self._job = None
        self._insist(ended)

    def _paint(self, job: Taken) -> None:
        studio = self.studio()
        studio.ready(job.request)
        progress = Progress(self, job)
        for outcome in studio.paint(job.request, progress, job.finished):
            if (error := getattr(outcome, "error", None)) is not None:
                self.lease.refuse_picture(job, outcome.index, error)
            progress.finished()

    def _hang(self, picture: Picture) -> Path:
        job = self._job
        assert job is not None
        note = partial(self.lease.finish_picture, job=job, index=picture.recipe["index"])
        row = self.gallery.hang(picture, also=note)
        return Path(self.gallery.path(row))

    def _folding(self, done: int, total: int, _what: tuple[str, str]) -> None:
        """A model's folds are made once and take their time; a job that waits for them can be cancelled all the same."""
        if self.stop.is_set():
            raise Stopped
        if self._job is not None:
            with contextlib.suppress(StorageError):
                self.lease.report(self._job, step=done, steps=total)

    def _insist(self, tell: Any) -> None:
        """What the database must learn it learns, when its disk has room again, or another takes over."""
        while True:
            try:
                return tell()
            except StorageError as error:
                log.warning("%s", error)
                if self.stop.wait(PATIENCE):
                    return None


class Progress:
    """Called after every step: reports it with a small picture, and lets a cancelled or stopped job end here."""

    def __init__(self, worker: Worker, job: Taken) -> None:
        self.worker, self.job = worker, job
        self.begun, self.reported = time.monotonic(), 0.0
        worker.lease.report(job)

    def __call__(self, step: Step) -> None:
        if self.worker.stop.is_set():
            raise Stopped
        lease = self.worker.lease
        if time.monotonic() - self.reported < SELDOM and step.step + 1 < step.steps:
            lease.ask(self.job)
            return
        image = webp(step.preview())
        with contextlib.suppress(StorageError):  # a report that finds no room is no reason to stop painting
            lease.report(self.job, image, picture=step.picture, step=step.step + 1, steps=step.steps)
        self.reported = time.monotonic()

    def finished(self) -> None:
        """One more picture hangs, or was refused."""
        took = time.monotonic() - self.begun
        request = self.job.request
        work = request.steps * request.width * request.height / 1e6
        with contextlib.suppress(StorageError):
            self.worker.lease.report(self.job, pace=took / work)
        self.begun = time.monotonic()


def webp(pixels: Any) -> bytes | None:
    """A preview as a file of a few hundred bytes."""
    if pixels is None:
        return None
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=80)
    return out.getvalue()


def _unexpected(error: Exception) -> StarryError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return StarryError(
        f"Painting failed unexpectedly ({reason}); the server's log tells more.",
        f"作画时发生意外错误（{reason}）；服务器日志里有更多信息。",
    )


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; our parent decides
    told = json.loads(sys.stdin.readline() or "null")
    if told is None:  # our parent died before it could say anything
        return 0
    try:
        with Gallery(told["place"], told["files"]) as gallery:
            worker = Worker(gallery, told["device"], Lease(gallery.database, told["holds"], told["worker"]))
            signal.signal(signal.SIGTERM, lambda *_: worker.stop.set())
            threading.Thread(target=_wait_for_the_end, args=(worker,), daemon=True).start()
            worker.run()
    except StarryError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


def _wait_for_the_end(worker: Worker) -> None:
    """Our stdin ends when our parent does. Whatever is still going on GRACE seconds later is cut off: a picture that is
    being hung at that moment is then whole or not there, as always."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    worker.stop.set()
    time.sleep(GRACE)
    with contextlib.suppress(Exception):
        release(worker.gallery.database, worker.lease.worker)
    os._exit(0)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(
        code
    )  # all is closed; taking torch down beside our waiting threads was seen to hang (2.13, 2026-11)
