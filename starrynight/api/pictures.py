"""Routes of the gallery: search, one picture, its file, thumbnail, recipe, and a download in any format."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response

from starrynight.api.bodies import Route
from starrynight.api.files import CHECK_AGAIN, FOR_EVER, PICTURE, check_format, file_response
from starrynight.api.pools import DECODERS, FILES, UPSCALERS
from starrynight.api.schema import PARTS, answers, errors, files, one_of
from starrynight.gallery.files import SUFFIXES, id_of, slug
from starrynight.gallery.schema import Row
from starrynight.gallery.search import Query as GalleryQuery
from starrynight.gallery.store import Gallery
from starrynight.gallery.thumbs import SIZES
from starrynight.i18n import Text
from starrynight.metadata.pixels import read_with_alpha
from starrynight.painting import styles
from starrynight.painting import upscale as upscaler
from starrynight.picture import convert, with_pixels
from starrynight.senses.look import by_meaning

router = APIRouter(route_class=Route)
TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "avif": "image/avif"}
WRITTEN = ("png", "jpeg", "webp")  # the formats that a download is converted to
TIMES = [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"},
         {"type": "number", "minimum": -62_135_596_800_000, "maximum": 253_402_300_799_999, "description": "Seconds since 1970, or milliseconds from 20 billion on."}, {"type": "null"}]  # fmt: skip
# What OpenAPI says of the routes that answer with a file.
FILE: dict[str, Any] = {
    "response_class": Response, "openapi_extra": PARTS, "responses": files(*TYPES.values()) | errors(422)
}  # fmt: skip
THUMB = FILE | {"responses": files("image/webp") | errors(422)}
LARGER = FILE | {"responses": FILE["responses"] | errors(501)}
Size = Annotated[int, Query(json_schema_extra=one_of(*SIZES))]
Format = Annotated[str | None, Query(json_schema_extra=one_of(*WRITTEN))]
Time = Annotated[datetime | None, Query(json_schema_extra={"anyOf": TIMES})]


async def gallery_of(request: Request) -> Gallery:
    return request.app.state.gallery


GalleryDep = Annotated[Gallery, Depends(gallery_of)]


async def gallery_query(
    text: str = "",
    style: str | None = None,
    model: str | None = None,
    precision: str | None = None,
    verdict: str | None = None,
    starred: bool | None = None,
    tag: str | None = None,
    collection: str | None = None,
    like: str | None = None,
    colour: Annotated[str | None, Query(json_schema_extra={"pattern": "^(#?[0-9a-fA-F]{6})?$"})] = None,
    shows: Annotated[
        str | None, Query(json_schema_extra={"pattern": r"^((hour|weather|kind|thing)\..+)?$"})
    ] = None,
    since: Time = None,
    until: Time = None,
    trashed: bool = False,
) -> GalleryQuery:
    """The search that the URL's query string describes."""
    return GalleryQuery(
        text=text, style=styles.key_of(style), model=model, precision=precision, verdict=verdict, starred=starred, tag=tag,
        collection=collection, like=like, colour=colour, shows=shows, since=since, until=until, trashed=trashed,
    )  # fmt: skip


QueryDep = Annotated[GalleryQuery, Depends(gallery_query)]


@router.get("/pictures", responses=answers("Pictures") | errors(404))
def search(
    gallery: GalleryDep,
    query: QueryDep,
    after: Annotated[str | None, Query(json_schema_extra={"pattern": r"^\d{0,18}$"})] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 60,
) -> dict[str, Any]:
    """A page of pictures, newest first; pass ``next`` as ``after`` to get the following page."""
    page = gallery.search(query, after or None, limit)
    return {"pictures": [asdict(row) for row in page.rows], "next": page.next}


@router.get("/pictures/layout", responses=answers("Layout") | errors(404))
def layout(gallery: GalleryDep, query: QueryDep) -> dict[str, Any]:
    """The numbers, each of which ``GET /pictures`` takes as ``after``, and width / height of all pictures it finds."""
    return gallery.layout(query)._asdict()


@router.get("/pictures/alike", responses=answers("Alike") | errors(404))
@DECODERS.route
def alike(
    gallery: GalleryDep, query: QueryDep, limit: Annotated[int, Query(ge=1, le=100)] = 12
) -> dict[str, Any]:
    """Pictures that show what ``text`` means and that its words do not find, the most fitting first; ``next`` is null.
    ``warnings``: why the ranker that is set did not rank, {en, zh}: the perceiver did."""
    exact = set(gallery.layout(query).numbers)  # and refuses a condition that is none, whatever the words
    failed: list[Text] = []
    rows = [
        match.row for match in by_meaning(gallery, query, 500, failed.append) if match.row.number not in exact
    ]
    warnings = [one._asdict() for one in failed]
    return {"pictures": [asdict(row) for row in rows[:limit]], "next": None, "warnings": warnings}


@router.get("/pictures/{picture}", responses=answers("Picture"))
def one(picture: str, gallery: GalleryDep) -> dict[str, Any]:
    return asdict(gallery.get(picture))


@router.get("/pictures/{picture}/recipe", responses=answers("Recipe"))
def recipe(picture: str, gallery: GalleryDep) -> dict[str, Any]:
    """The recipe stored in the file."""
    return gallery.recipe(gallery.get(picture).id)


@router.get("/pictures/{picture}/file", **FILE)
@FILES.route
def file(picture: str, request: Request, gallery: GalleryDep) -> Response:
    row = gallery.get(picture)
    data = check_format(gallery.read(row), row.format)
    return file_response(request, data, TYPES[row.format], PICTURE | _age(id_of(data) == row.id))


@router.get("/pictures/{picture}/thumb", **THUMB)
async def thumb(picture: str, request: Request, gallery: GalleryDep, size: Size = 512) -> Response:
    """WebP; ``size`` is 256, 512 or 1024."""
    row = await FILES.run(gallery.get, picture)
    data = await FILES.run(gallery.thumbs.cached, row.id, size)
    intact = data is not None
    if data is None:
        data = await DECODERS.run(gallery.thumbnail, row, size)
        intact = await FILES.run(gallery.thumbs.cached, row.id, size) is not None
    return file_response(request, data, "image/webp", PICTURE | _age(intact))


@router.get("/pictures/{picture}/download", **FILE)
@DECODERS.route
def download(
    picture: str,
    request: Request,
    gallery: GalleryDep,
    format: Format = None,  # noqa: A002
    quality: Annotated[int | None, Query(json_schema_extra={"minimum": 1, "maximum": 100})] = None,
) -> Response:
    """An attachment with a readable name: the file itself, or converted to ``format`` with its recipe."""
    row = gallery.get(picture)
    kind = format or row.format
    stored = check_format(gallery.read(row), row.format)
    data = convert(stored, row.format, kind, quality)
    return _attachment(request, row, kind, data, id_of(stored) == row.id)


@router.get("/pictures/{picture}/upscaled", **LARGER)
@UPSCALERS.route
def upscaled(
    picture: str,
    request: Request,
    gallery: GalleryDep,
    factor: Annotated[int, Query(json_schema_extra=one_of(*upscaler.FACTORS))] = 2,
    model: Annotated[str, Query(json_schema_extra=one_of(*upscaler.NETWORKS))] = "fast",
    format: Format = None,  # noqa: A002
) -> Response:
    """``download`` of the picture made larger by 2 or 4; the gallery keeps the picture as it is."""
    row = gallery.get(picture)
    upscaler.check(row.width, row.height, factor, model)
    data, kind = check_format(gallery.read(row), row.format), format or row.format
    pixels = upscaler.upscale(read_with_alpha(data, flat=kind == "jpeg"), factor, model)
    larger = with_pixels(data, pixels, kind, upscaled=upscaler.recipe_entry(factor, model))
    return _attachment(request, row, kind, larger, id_of(data) == row.id, f"-x{factor}")


def _attachment(request: Request, row: Row, kind: str, data: bytes, intact: bool, mark: str = "") -> Response:
    name = f"{slug(row.prompt)}-{row.id[:8]}{mark}{SUFFIXES[kind]}"
    ascii_name = f"starry-{row.id[:8]}{mark}{SUFFIXES[kind]}"  # for clients without RFC 6266's filename*
    attachment = f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name)}"
    headers = PICTURE | _age(intact) | {"Content-Disposition": attachment}
    return file_response(request, data, TYPES[kind], headers)


def _age(intact: bool) -> dict[str, str]:
    """A file that matches its name never changes, because its name is the hash of its content."""
    return FOR_EVER if intact else CHECK_AGAIN
