"""The process that paints: it leases one device, claims job after job and saves each picture in the gallery.

    python -m starrynight.jobs.worker       (its parent writes a line of JSON to stdin and keeps it open)

Only this process of the service imports torch. It exits when its stdin closes, so a killed server leaves no
worker.
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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from PIL import Image

from starrynight import logs
from starrynight.errors import Cancelled, StarryError, StorageError
from starrynight.gallery.store import Gallery
from starrynight.jobs.leases import LEASE_MS, ClaimedJob, Lease, LostLease, release_worker
from starrynight.jobs.queue import work_of
from starrynight.jobs.shell import Desk, Visit
from starrynight.jobs.sight import Watcher
from starrynight.jobs.tallies import Tallies, Timer
from starrynight.jobs.together import Batch, clock_of
from starrynight.painting.batching import Paces, shape
from starrynight.painting.results import Refused
from starrynight.picture import Picture
from starrynight.senses import tries
from starrynight.settings import settings

if TYPE_CHECKING:
    from starrynight.painting.results import Step
    from starrynight.studio import SavedPicture, Studio

POLL_INTERVAL = 0.1  # seconds between two reads of an empty queue
STANDBY_INTERVAL = 1.0  # seconds between two tries to lease a device that another worker has
REPORT_INTERVAL = 0.05  # seconds between two reports at least: each is a transaction, which takes time
SHUTDOWN_GRACE = 5.0  # seconds to stop after the parent is gone; loading a large model would take minutes
STORAGE_RETRY = 2.0  # seconds before trying again what a full or busy disk refused

log = logging.getLogger("starrynight.worker")


class WorkerStopped(BaseException):
    """Stdin closed, or SIGTERM. Not an Exception, so that no handler takes it for a failed picture."""


class Worker:
    """``card``: which of several devices of a kind it takes. ``for_shell``: whether it paints for commands, too. ``batch``:
    pictures painted as one, at most, where that is faster."""

    def __init__(
        self,
        gallery: Gallery,
        device: str | None,
        lease: Lease,
        card: int | None = None,
        for_shell: bool = True,
        batch: int = 1,
    ) -> None:
        self.batch = batch
        self._paces: Paces | None = None
        self.gallery, self.device, self.lease, self.card = gallery, device, lease, card
        self.stop = threading.Event()
        self.tallies, self.desk, self.watcher = Tallies(), Desk(device, for_shell), Watcher(gallery)
        self.has_device = False
        self._studio: Studio | None = None
        self._job: ClaimedJob | None = None
        self._visit: Visit | None = None
        self._preloaded = False

    def run(self) -> None:
        """Paint jobs, and for commands of the shell in turn with them, until ``stop`` is set."""
        threading.Thread(target=self._renew_lease, daemon=True).start()
        while not self.stop.is_set():
            try:
                if not self.has_device:
                    self.has_device = self.lease.acquire(resident(), self._card_memory())
                if not self.has_device:
                    self.stop.wait(STANDBY_INTERVAL)
                    continue
                self._import_painter()
                self.desk.open()
                self.desk.busy = True
                visit = self.desk.take()
                if visit is not None:
                    self.paint_for(visit)
                job = self.lease.claim()
            except StorageError as error:
                log.warning("%s", error)
                self.stop.wait(STORAGE_RETRY)
                continue
            if job is not None:
                self.paint(job)
            elif not self._preloaded:
                self.preload()
            elif not self.watcher.look():
                self.desk.busy = False
                self.desk.arrived.wait(POLL_INTERVAL)
        self.desk.close()
        self._until_stored(self.lease.release)

    def _renew_lease(self) -> None:
        """In a thread, renew every quarter of a lease, because one step may take longer than a lease."""
        while not self.stop.wait(LEASE_MS / 4000):
            with contextlib.suppress(StorageError):
                if self.has_device:
                    self.has_device = self.lease.acquire(resident(), self._card_memory())

    def _card_memory(self) -> int | None:
        """Bytes in use on the card that a model was loaded onto; None on a CPU, and before."""
        device = self._studio.loaded_on if self._studio is not None else None
        if device is None:
            return None
        from starrynight.numerics.device import used_bytes

        with contextlib.suppress(RuntimeError):  # a card that failed
            return used_bytes(device)
        return None

    def studio(self) -> Studio:
        if self._studio is None:
            self._studio = self._new_studio()
        return self._studio

    def _new_studio(self, count_clamps: bool = False) -> Studio:
        from starrynight.numerics.device import one_of
        from starrynight.studio import Studio

        device = self.device if self.card is None else one_of(self.device, self.card)
        return Studio(self._save_picture, device, on_folding=self._report_folding, count_clamps=count_clamps)

    def _import_painter(self) -> None:
        """Import torch and the rest before a job is claimed: a worker that dies meanwhile has nothing to do with it."""
        with contextlib.suppress(StarryError):  # the first job meets the same error and reports it
            self.studio()

    def preload(self) -> None:
        """Load the shipped model while the queue is empty and take one step of a picture, so that the first preview comes as
        soon as any: kernels, and the preview's map of colours, are made at their first use.
        """
        from starrynight.studio import make_request

        self._preloaded = True
        try:
            request = make_request(prompt="-")
            if request.model == "firefly":
                list(self.studio().ready(request).paint(request, self._warmed))
        except (WorkerStopped, StarryError):
            pass  # the first job meets the same error and reports it
        except Exception:
            log.exception("readying the painter")
        self.studio()

    @staticmethod
    def _warmed(step: Step) -> None:
        encode_preview(step.preview())
        raise Cancelled

    def paint(self, job: ClaimedJob) -> None:
        """Paint the unfinished pictures of a job, together with waiting jobs of its shape where that is faster."""
        of = shape(job.request) if self.batch > 1 else None
        if of is None:
            return self.paint_alone(job)
        self._paces = self._paces or self._new_paces(job)
        size = self._paces.size(of, self.batch)
        more = self.lease.claim_like(of, size - job.request.count + len(job.finished)) if size > 1 else []
        if not more and job.request.count - len(job.finished) < 2:
            return self.paint_alone(job)
        return self._paint_batch(Batch(self, [job, *more], of, size, self._paces))

    def paint_alone(self, job: ClaimedJob) -> None:
        """Paint the unfinished pictures of a job and record how it ended."""
        self._job = job
        ended = partial(self.lease.end, job)
        try:
            self._paint(job)
        except LostLease:
            return
        except WorkerStopped:
            ended = partial(self.lease.requeue, job)
        except StarryError as error:
            ended = partial(self.lease.end, job, error)
        except Exception as error:
            log.exception("job %s", job.id)
            ended = partial(self.lease.end, job, _unexpected(error))
        finally:
            self._job = None
        self._until_stored(ended)

    def _paint_batch(self, batch: Batch) -> None:
        """Paint it; what it leaves, because it was stopped or failed, goes back to the queue or fails."""
        error: StarryError | None = None
        try:
            batch.paint()
        except WorkerStopped:
            for job in batch.jobs.values():
                self._until_stored(partial(self.lease.requeue, job))
            return
        except StarryError as raised:
            error = raised
        except Exception as raised:
            log.exception("a batch of %d jobs", len(batch.jobs))
            error = _unexpected(raised)
        for job in list(batch.jobs.values()):
            self.end(job, error)

    def end(self, job: ClaimedJob, error: StarryError | None = None) -> None:
        self._until_stored(partial(self.lease.end, job, error))

    def reporter(self, job: ClaimedJob) -> StepReporter:
        return StepReporter(self, job)

    def save_for(self, job: ClaimedJob, picture: Picture) -> SavedPicture:
        from starrynight.studio import SavedPicture

        self._job = job
        try:
            return SavedPicture(picture, self._save_picture(picture))
        finally:
            self._job = None

    def clock(self) -> Callable[[], float]:
        return clock_of(self._device_type())

    def _new_paces(self, job: ClaimedJob) -> Paces:
        self.studio().ready(job.request)
        return Paces(settings().cache / "batching.json", self._device_type())

    def _device_type(self) -> str:
        return str(self.studio().loaded_on or "remote")

    def _paint(self, job: ClaimedJob) -> None:
        studio = self.studio()
        studio.ready(job.request)
        reporter, of = StepReporter(self, job), shape(job.request) if self.batch > 1 else None
        clock = self.clock()
        began = clock()
        for outcome in self._outcomes(job, studio, reporter):
            if isinstance(outcome, Refused):
                self.lease.refuse_picture(job, outcome.index, outcome.error)
            elif of is not None and self._paces is not None and not outcome.picture.verdict.attempts:
                self._paces.note(of, 1, clock() - began)
            reporter.picture_finished(outcome)
            began = clock()

    def _outcomes(
        self, job: ClaimedJob, studio: Studio, reporter: StepReporter
    ) -> Iterator[SavedPicture | Refused]:
        if job.request.until_seen == 1:
            return studio.paint(job.request, reporter, job.finished)
        if job.finished:  # by a worker that died before it ended the job
            return iter(())
        return tries.until_seen(
            job.request, lambda request, save: studio.paint(request, reporter, save=save), self._save_picture
        )

    def paint_for(self, visit: Visit) -> None:
        """Paint for a command, which saves the pictures. Its paths are those of its own folder."""
        self._visit = visit
        try:
            with contextlib.chdir(visit.folder):
                self._paint_visit(visit)
        except WorkerStopped:
            visit.close()  # the command paints the rest by itself
        except StarryError as error:
            visit.end(error)
        except Exception:
            log.exception("painting for the shell")
            visit.close()
        else:
            visit.end()
        finally:
            self._visit = None
        with contextlib.suppress(StorageError):
            self.tallies.write(self.gallery.database)

    def _paint_visit(self, visit: Visit) -> None:
        visit.check()
        request = visit.request
        relative = not os.path.isabs(request.model) and os.path.exists(request.model)
        if (
            relative or visit.clamps
        ):  # a painter of its own: this path may name another model for the next command
            self._studio = None  # free its memory first
            studio = self._new_studio(count_clamps=visit.clamps)
        else:
            studio = self.studio()
        visit.send("warnings", texts=studio.ready(request).warnings(request))
        timer, told = Timer(self.tallies, request.model), False

        def after_step(step: Step) -> None:
            nonlocal told
            if self.stop.is_set():
                raise WorkerStopped
            timer.step_taken(step)
            if not told:
                visit.send("fits", texts=[fit.message() for fit in studio.ready(request).fits])
                told = True
            visit.step(step)

        for outcome in studio.paint(request, after_step):
            timer.picture_finished(outcome)
            if isinstance(outcome, Refused):
                visit.refused(outcome)

    def _save_picture(self, picture: Picture) -> Path:
        if self._visit is not None:
            self._visit.picture(picture)
            return Path()
        job = self._job
        assert job is not None
        record = partial(self.lease.finish_picture, job=job, index=picture.recipe["index"])
        row = self.gallery.add(picture, also=record)
        return Path(self.gallery.path(row))

    def _report_folding(self, done: int, total: int, message: tuple[str, str]) -> None:
        """``OnProgress`` of folding, which takes minutes the first time; a job can be cancelled here."""
        if self.stop.is_set():
            raise WorkerStopped
        if self._visit is not None:
            self._visit.check()
            self._visit.send("folding", done=done, total=total, message=message)
        if self._job is not None:
            with contextlib.suppress(StorageError):
                self.lease.report(self._job, step=done, steps=total)

    def _until_stored(self, write: Callable[[], object]) -> None:
        """Repeat a database write until it succeeds. A stopped worker gives up; its lease then runs out."""
        while True:
            try:
                write()
                return
            except StorageError as error:
                log.warning("%s", error)
                if self.stop.wait(STORAGE_RETRY):
                    return


class StepReporter:
    """Called after every step: reports it with a preview; raises to end a cancelled or stopped job."""

    def __init__(self, worker: Worker, job: ClaimedJob) -> None:
        self.worker, self.job = worker, job
        self.reported, self.timer = 0.0, Timer(worker.tallies, job.request.model)
        worker.lease.report(job)

    def __call__(self, step: Step) -> None:
        if self.worker.stop.is_set():
            raise WorkerStopped
        self.timer.step_taken(step)
        lease = self.worker.lease
        if time.monotonic() - self.reported < REPORT_INTERVAL and step.step + 1 < step.steps:
            lease.check(self.job)
            return
        image = encode_preview(step.preview())
        with contextlib.suppress(StorageError):  # a full disk costs this report, not the picture
            lease.report(self.job, image, picture=step.picture, step=step.step + 1, steps=step.steps)
        self.reported = time.monotonic()

    def picture_finished(self, outcome: SavedPicture | Refused, together: int = 1) -> None:
        """Report the pace (seconds per step and megapixel), from which the queue estimates durations, and count. ``together``:
        pictures of its batch."""
        seconds = self.timer.picture_finished(outcome, together)
        with contextlib.suppress(StorageError):
            self.worker.lease.report(self.job, pace=seconds / work_of(self.job.request))
        with contextlib.suppress(StorageError):
            self.worker.tallies.write(self.worker.gallery.database)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


def encode_preview(pixels: Any) -> bytes | None:
    """uint8 [H, W, 3] as WebP of a few hundred bytes; None without pixels."""
    if pixels is None:
        return None
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=80)
    return out.getvalue()


def _unexpected(error: Exception) -> StarryError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return StarryError(
        f"Painting failed unexpectedly ({reason}); the server's log has the details.",
        f"作画时发生意外错误（{reason}）；详情见服务器日志。",
    )


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    payload = json.loads(sys.stdin.readline() or "null")
    if payload is None:  # the parent died before it wrote anything
        return 0
    logs.set_up(json_lines=payload["json_logs"])
    try:
        with Gallery(payload["place"], payload["files"]) as gallery:
            lease = Lease(gallery.database, payload["holds"], payload["worker"])
            worker = Worker(
                gallery, payload["device"], lease, payload["card"], payload["for_shell"], payload["batch"]
            )
            signal.signal(signal.SIGTERM, lambda *_: worker.stop.set())
            threading.Thread(target=_exit_with_parent, args=(worker,), daemon=True).start()
            worker.run()
    except StarryError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


def _exit_with_parent(worker: Worker) -> None:
    """Stop the worker when stdin closes; end the process ``SHUTDOWN_GRACE`` seconds later, whatever it does.

    A picture that is being saved at that moment is saved whole or not at all.
    """
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    worker.stop.set()
    time.sleep(SHUTDOWN_GRACE)
    with contextlib.suppress(Exception):
        release_worker(worker.gallery.database, worker.lease.worker)
    os._exit(0)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Everything is closed. A regular exit hung in torch's teardown while threads waited (2.13, 2026-11).
    os._exit(code)
