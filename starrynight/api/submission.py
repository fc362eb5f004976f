"""One way from the fields of any API family to finished pictures: sort the fields, submit a job, follow it, read the files.

The families (``openai``, ``a1111``) translate their words to those of a ``PaintRequest`` and what comes of it back to
theirs. A client that leaves before its job has ended cancels it.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from starrynight import errors
from starrynight.api.feed import JobFeed, Snapshot
from starrynight.api.jobs import feed_of, submit_as_caller
from starrynight.api.pools import DECODERS, WRITERS
from starrynight.errors import StarryError, UnknownField, WrongSize
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.jobs import validate
from starrynight.jobs.job import Job
from starrynight.jobs.queue import Queue
from starrynight.picture import convert
from starrynight.request import PaintRequest
from starrynight.text import excerpt

Fields = Mapping[str, Any]
NEAR = 0.75  # of difflib's ratio; a name this near to a known one is a slip, not another program's field


def sort_fields(
    given: Fields, known: Iterable[str], inert: Mapping[str, Text], words: Mapping[str, str]
) -> tuple[Fields, list[Text]]:
    """The fields that mean something here, without those that are null; and a note for each other.

    ``inert``: fields that clients send and that change nothing here, each with the reason. A field that nobody knows is
    noted as well, unless its name is nearly a known one or, by ``words``, ours for one: then ``UnknownField`` is raised.
    """
    names = list(known)
    kept, notes = {}, []
    for name, value in given.items():
        if value is None:
            continue
        if name in names:
            kept[name] = value
        elif name in inert:
            notes.append(Text(f"{name}: {inert[name].en}", f"{name}：{inert[name].zh}"))
        else:
            notes.append(_unknown(name, names, words))
    return kept, notes


def _unknown(name: str, names: list[str], words: Mapping[str, str]) -> Text:
    shown = excerpt(name)
    near = (
        [words[name]] if name in words else difflib.get_close_matches(name.lower(), names, n=1, cutoff=NEAR)
    )
    if near:
        raise UnknownField(
            f"There is no field “{shown}”; did you mean {near[0]}?",
            f"没有“{shown}”这一项；是不是 {near[0]}？",
            shown,
        )
    return Text(f"{shown} is not known here and had no effect.", f"这里没有 {shown} 这一项，它没有起作用。")


@contextlib.contextmanager
def in_their_words(words: Mapping[str, str]) -> Iterator[None]:
    """Let errors name fields as the family does. ``words``: our field → theirs."""
    try:
        yield
    except StarryError as error:
        if isinstance(error, WrongSize) and error.param is None:
            error.param = "width"
        if (theirs := words.get(error.param or "")) is not None:
            for lang in ("en", "zh"):
                message = getattr(error, lang)
                if message.startswith(f"{error.param} "):
                    setattr(error, lang, theirs + message.removeprefix(str(error.param)))
            error.args, error.param = (error.en,), theirs
        raise


@dataclass(frozen=True)
class Studio:
    """What a family needs of the server for one request."""

    request: Request
    gallery: Gallery
    queue: Queue
    feed: JobFeed

    async def submit(self, fields: Fields, words: Mapping[str, str]) -> tuple[Job, list[Text]]:
        """A job for ``fields``, those of a PaintRequest, and what of them will be ignored or was not trained.

        ``words``: see ``in_their_words``. Raises what ``validate_request`` and ``Queue.submit`` raise, and ``Busy``.
        """
        self.feed.check()

        def submit() -> tuple[Job, list[Text]]:
            with in_their_words(words):
                asked: PaintRequest = validate.validate_request(fields, self.gallery)
            return submit_as_caller(self.request, asked), [
                Text(*pair) for pair in validate.warnings_for(asked)
            ]

        return await WRITERS.run(submit)

    async def watch(self, job: Job) -> AsyncGenerator[Snapshot | None, None]:
        """The job after each change, at last ended; None now and then without one. If the client leaves, or the caller
        stops before the end, the job is cancelled. Raises ClientDisconnect, and MissingFile for a job that is deleted.
        """
        ended = False
        leaving = asyncio.ensure_future(_left(self.request))
        try:
            while not ended:
                async with contextlib.aclosing(self.feed.changes(job.id)) as changes:
                    async for change in _unless(leaving, changes):
                        ended = change is not None and change[0].ended
                        yield change
                        if ended:
                            return
                await WRITERS.run(
                    self.queue.get, job.id
                )  # the feed ends after an hour, and for a deleted job
        finally:
            leaving.cancel()
            if not ended:
                with anyio.CancelScope(shield=True), contextlib.suppress(StarryError):
                    await WRITERS.run(self.queue.cancel, job.id)

    async def finish(self, job: Job) -> Job:
        """Wait for the end of a job; see ``watch``. Raises the error of a job without a saved picture."""
        async with contextlib.aclosing(self.watch(job)) as changes:
            async for change in changes:
                job = change[0] if change is not None else job
        if not job.pictures and job.error is not None:
            raise stored_error(job.error)
        return job

    async def file(self, picture: str, kind: str = "png", quality: int | None = None) -> bytes:
        """A picture of the gallery as a file of ``kind``, with its recipe."""

        def read() -> bytes:
            row = self.gallery.get(picture)
            return convert(self.gallery.read(row), row.format, kind, quality)

        return await DECODERS.run(read)


async def studio_of(request: Request, feed: Annotated[JobFeed, Depends(feed_of)]) -> Studio:
    return Studio(request, request.app.state.gallery, request.app.state.queue, feed)


StudioDep = Annotated[Studio, Depends(studio_of)]


def stored_error(payload: Mapping[str, Any]) -> StarryError:
    """The error that ended a job or refused a picture, as the queue has stored it. The same request would fail again."""
    kind = getattr(errors, str(payload["type"]), StarryError)
    error: StarryError = kind.__new__(kind)
    StarryError.__init__(error, payload["en"], payload["zh"])
    error.status, error.final = payload["status"], True
    return error


def notes_on(job: Job) -> list[Text]:
    """Why pictures of a job that others of it were saved with were refused."""
    return [
        Text(f"Picture {one.index + 1}: {one.error['en']}", f"第 {one.index + 1} 幅：{one.error['zh']}")
        for one in job.painted
        if one.error is not None
    ]


async def _left(request: Request) -> None:
    """Return when the client has closed its connection; the body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _unless(
    leaving: asyncio.Future[None], changes: AsyncGenerator[Snapshot | None, None]
) -> AsyncGenerator[Snapshot | None, None]:
    """``changes``, until the client has left: then ClientDisconnect is raised."""
    while True:
        step: asyncio.Future[Snapshot | None] = asyncio.ensure_future(changes.__anext__())
        try:
            racing: set[asyncio.Future[Any]] = {step, leaving}
            await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not step.done():
                step.cancel()
                await asyncio.wait({step})
        if step.cancelled():
            raise ClientDisconnect
        try:
            change = step.result()
        except StopAsyncIteration:
            return
        yield change
