"""Routes of what leaves the gallery or comes into it as a file: a page that stands alone, posters, catalogues, zips, imports."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Annotated, Any, BinaryIO, cast
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from starrynight.api.annotations import Pictures
from starrynight.api.annotations import checked as checked_ids
from starrynight.api.bodies import Route
from starrynight.api.files import CHECK_AGAIN, PICTURE, check_format
from starrynight.api.jobs import PICTURES, UPLOADED, uploading
from starrynight.api.pictures import GalleryDep, QueryDep
from starrynight.api.pools import DECODERS, UPSCALERS
from starrynight.api.schema import answers, body_of, errors, files, one_of
from starrynight.errors import BadRequest
from starrynight.exhibition import page as pages
from starrynight.exhibition import prints
from starrynight.gallery.files import slug
from starrynight.gallery.schema import Row
from starrynight.gallery.store import Gallery
from starrynight.i18n import is_chinese
from starrynight.jobs import uploads
from starrynight.painting import upscale
from starrynight.text import clean

router = APIRouter(route_class=Route)
MAX_TITLE = 200
MAX_HELD = 8 << 20  # bytes of a zip that are held in memory; the rest lies in a temporary file
CHUNK = 1 << 20
PAGE = PICTURE | {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
}
PDF: dict[str, Any] = {
    "response_class": Response, "responses": files("application/pdf", parts=False) | errors(404, 422, 501)
}  # fmt: skip
Title = Annotated[str, Body(json_schema_extra={"maxLength": MAX_TITLE})]
Few = Annotated[list[str], Body(json_schema_extra={"minItems": 1, "maxItems": prints.MOST})]


@router.post(
    "/pictures", status_code=201, max_body_size=uploads.MAX_BYTES + (1 << 20), dependencies=[Depends(uploading)],
    responses=answers("Imported", 201) | errors(422), openapi_extra=body_of({f"image/{kind}": UPLOADED[f"image/{kind}"] for kind in PICTURES}),
)  # fmt: skip
async def add(request: Request, gallery: GalleryDep) -> dict[str, Any]:
    """Hang the picture that is the body, with the recipe in it, of whatever tool. ``new`` is false for one that hangs already."""
    data = await request.body()

    def hang() -> dict[str, Any]:
        uploads.check_picture(data)
        found = gallery.add_file(data)
        warnings = [{"en": note.en, "zh": note.zh} for note in found.notes]
        return {"id": found.id, "new": found.new, "warnings": warnings}

    return await DECODERS.run(hang)


@router.get(
    "/pictures/{picture}/page", response_class=Response, responses=files("text/html", parts=False) | errors(422)
)  # fmt: skip
@DECODERS.route
def page(picture: str, request: Request, gallery: GalleryDep) -> Response:
    """An HTML file that shows the picture, its recipe and its verdict without a server, in the language of ``lang``."""
    shown = _shown(gallery, picture)
    data = pages.single_file(shown, _language(request))
    return _attachment(data, "text/html; charset=utf-8", shown.row, ".html", PAGE)


@router.get("/pictures/{picture}/poster", **PDF)
@UPSCALERS.route
def poster(
    picture: str,
    request: Request,
    gallery: GalleryDep,
    paper: Annotated[str, Query(json_schema_extra=one_of(*prints.PAPERS))] = "a4",
    factor: Annotated[int | None, Query(json_schema_extra=one_of(1, *upscale.FACTORS))] = None,
) -> Response:
    """A PDF of one sheet, with the QR code of the recipe. ``factor``: enlarge so many times first; by default as 300 dpi ask."""
    shown = _shown(gallery, picture)
    made = prints.poster(shown, paper, factor, _language(request))
    return _attachment(made.data, "application/pdf", shown.row, f"-{paper}.pdf", PICTURE)


@router.get("/catalogue", **PDF)
@DECODERS.route
def catalogue(request: Request, gallery: GalleryDep, query: QueryDep) -> Response:
    """A PDF of the pictures that ``GET /pictures`` finds, at most 200: a cover, then a page each."""
    return _catalogue(request, query.collection or "", lambda: prints.found(gallery, query))


@router.post("/catalogue", **PDF)
@DECODERS.route
def catalogue_of(pictures: Few, request: Request, gallery: GalleryDep, title: Title = "") -> Response:
    """A PDF of these pictures, in this order."""
    prints.check_count(len(pictures))
    return _catalogue(request, title, lambda: [prints.shown(gallery, gallery.get(one)) for one in pictures])


@router.post("/zip", response_class=Response, responses=files("application/zip", parts=False) | errors(404))
@DECODERS.route
def zipped(pictures: Pictures, request: Request, gallery: GalleryDep) -> Response:
    """A zip of these pictures and their recipes, with a page that shows them without a server."""
    rows = [gallery.get(one) for one in checked_ids(pictures)]
    if not rows:
        raise BadRequest("Name at least one picture.", "请至少给出一幅画。", "pictures")
    held = tempfile.SpooledTemporaryFile(MAX_HELD)  # noqa: SIM115 - closed when it has been sent
    gallery.export_rows(rows, cast(BinaryIO, held), _language(request))
    held.seek(0)

    def sent() -> Iterator[bytes]:
        with held:
            while chunk := held.read(CHUNK):
                yield chunk

    named = {"Content-Disposition": 'attachment; filename="starry-night.zip"'}
    return StreamingResponse(sent(), media_type="application/zip", headers=PICTURE | CHECK_AGAIN | named)


def _shown(gallery: Gallery, picture: str) -> prints.Shown:
    """Raises as ``prints.shown``, and for a picture that is not here or whose file is of another format."""
    shown = prints.shown(gallery, gallery.get(picture))
    check_format(shown.data, shown.row.format)
    return shown


def _catalogue(request: Request, title: str, read: Callable[[], list[prints.Shown]]) -> Response:
    if len(title) > MAX_TITLE:
        raise BadRequest(
            f"The title has {len(title)} letters, more than {MAX_TITLE}; shorten it.",
            f"标题有 {len(title)} 个字，超过 {MAX_TITLE} 个；请缩短。",
            "title",
        )
    data = prints.catalogue(read(), clean(title), _language(request))
    return _attachment(data, "application/pdf", None, f"{slug(title) or 'starry-night'}.pdf", PICTURE)


def _language(request: Request) -> str:
    asked = request.query_params.get("lang") or request.headers.get("accept-language", "")
    return "zh" if is_chinese(asked) else "en"


def _attachment(data: bytes, kind: str, row: Row | None, end: str, headers: dict[str, str]) -> Response:
    """``end``: of the name that the file gets after the picture's, or all of it without a row."""
    name = f"{slug(row.prompt)}-{row.id[:8]}{end}" if row else end
    plain = (
        f"starry-{row.id[:8]}{end}" if row else "starry-night.pdf"
    )  # for clients without RFC 6266's filename*
    named = {"Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"}
    return Response(data, media_type=kind, headers=headers | CHECK_AGAIN | named)
