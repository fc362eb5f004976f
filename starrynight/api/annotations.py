"""Routes for what people say of pictures: stars, notes, tags, collections, the trash; and what there is to filter by."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from starrynight.api.pictures import Asked, Hung
from starrynight.errors import BadRequest

router = APIRouter()
MOST = 1000  # pictures in one request
Pictures = Annotated[list[str], Body(embed=True)]


@router.get("/facets")
def facets(gallery: Hung) -> dict[str, dict[str, int]]:
    """Each filter's values, collections and tags, and how many pictures outside the trash have them."""
    return gallery.facets() | {
        "collections": gallery.marks.all_collections(),
        "tags": gallery.marks.all_tags(),
    }


@router.get("/pictures/count")
def count(gallery: Hung, query: Asked) -> dict[str, int]:
    """How many ``GET /pictures`` would find, page after page."""
    return {"count": gallery.count(query)}


@router.post("/stars")
def star(pictures: Pictures, gallery: Hung, starred: Annotated[bool, Body()] = True) -> dict[str, bool]:
    gallery.marks.star(_few(pictures), starred)
    return {"starred": starred}


@router.put("/pictures/{picture}/note")
def note(picture: str, note: Annotated[str, Body(embed=True)], gallery: Hung) -> dict[str, str]:
    gallery.marks.note(picture, note)
    return {"note": gallery.get(picture).note}


@router.post("/tags")
def tag(
    name: Annotated[str, Body()], pictures: Pictures, gallery: Hung, remove: Annotated[bool, Body()] = False
) -> dict[str, int]:
    (gallery.marks.untag if remove else gallery.marks.tag)(_few(pictures), name)
    return gallery.marks.all_tags()


@router.post("/collections")
def collect(
    name: Annotated[str, Body()], pictures: Pictures, gallery: Hung, remove: Annotated[bool, Body()] = False
) -> dict[str, int]:
    (gallery.marks.uncollect if remove else gallery.marks.collect)(name, _few(pictures))
    return gallery.marks.all_collections()


@router.post("/trash")
def throw(pictures: Pictures, gallery: Hung) -> dict[str, Any]:
    """Out of sight; ``restore`` undoes it for thirty days."""
    gallery.trash.throw(_few(pictures))
    return {"thrown": len(pictures)}


@router.post("/trash/restore")
def restore(pictures: Pictures, gallery: Hung) -> dict[str, Any]:
    gallery.trash.bring_back(_few(pictures))
    return {"restored": len(pictures)}


@router.delete("/trash")
def empty(gallery: Hung) -> dict[str, int]:
    """Part for good with all that lies in the trash."""
    return {"gone": gallery.trash.empty()}


def _few(pictures: list[str]) -> list[str]:
    if len(pictures) > MOST:
        raise BadRequest(f"At most {MOST} pictures at once.", f"一次最多 {MOST} 幅画。")
    return pictures
