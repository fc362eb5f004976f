"""Routes of stars, notes, tags, collections and the trash, and of the gallery's filters."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from starrynight.api import schema
from starrynight.api.bodies import Route
from starrynight.api.pictures import GalleryDep, QueryDep
from starrynight.api.pools import WRITERS
from starrynight.api.schema import errors
from starrynight.errors import BadRequest

router = APIRouter(route_class=Route)
MAX_PICTURES = 1000  # in one request
Pictures = Annotated[list[str], Body(embed=True, json_schema_extra={"maxItems": MAX_PICTURES})]
TagName = Annotated[str, Body(json_schema_extra=schema.TAG_NAME)]
CollectionName = Annotated[str, Body(json_schema_extra=schema.COLLECTION_NAME)]
CollectionQuery = Annotated[str, Query(json_schema_extra=schema.COLLECTION_NAME)]
Yes = Annotated[bool, Body(strict=True)]  # true or false, not 1 or "no"


@router.get("/facets")
def facets(gallery: GalleryDep) -> dict[str, dict[str, int]]:
    """Each filter's values, the collections and the tags, each with its number of untrashed pictures."""
    return gallery.facets() | {
        "collections": gallery.annotations.all_collections(),
        "tags": gallery.annotations.all_tags(),
    }


@router.get("/pictures/count", responses=errors(404))
def count(gallery: GalleryDep, query: QueryDep) -> dict[str, int]:
    """The number of pictures that ``GET /pictures`` finds on all pages."""
    return {"count": gallery.count(query)}


@router.post("/stars", responses=errors(404))
@WRITERS.route
def star(pictures: Pictures, gallery: GalleryDep, starred: Yes = True) -> dict[str, bool]:
    gallery.annotations.star(checked(pictures), starred)
    return {"starred": starred}


@router.put("/pictures/{picture}/note")
@WRITERS.route
def note(
    picture: str, note: Annotated[str, Body(embed=True, json_schema_extra=schema.NOTE)], gallery: GalleryDep
) -> dict[str, str]:
    gallery.annotations.note(picture, note)
    return {"note": gallery.get(picture).note}


@router.post("/tags", responses=errors(404))
@WRITERS.route
def tag(name: TagName, pictures: Pictures, gallery: GalleryDep, remove: Yes = False) -> dict[str, int]:
    (gallery.annotations.untag if remove else gallery.annotations.tag)(checked(pictures), name)
    return gallery.annotations.all_tags()


@router.post("/collections", responses=errors(404))
@WRITERS.route
def collect(
    name: CollectionName, pictures: Pictures, gallery: GalleryDep, remove: Yes = False
) -> dict[str, int]:
    (gallery.annotations.uncollect if remove else gallery.annotations.collect)(name, checked(pictures))
    return gallery.annotations.all_collections()


@router.patch("/collections", responses=errors(404, 409))
@WRITERS.route
def rename_collection(name: CollectionName, to: CollectionName, gallery: GalleryDep) -> dict[str, int]:
    """Give a collection another name. One that another collection has is refused."""
    gallery.annotations.rename_collection(name, to)
    return gallery.annotations.all_collections()


@router.delete("/collections", responses=errors(404))
@WRITERS.route
def delete_collection(name: CollectionQuery, gallery: GalleryDep) -> dict[str, list[str]]:
    """Take a collection apart; its pictures stay where they hang, and their ids are answered."""
    return {"pictures": gallery.annotations.delete_collection(name)}


@router.post("/trash", responses=errors(404))
@WRITERS.route
def throw(pictures: Pictures, gallery: GalleryDep) -> dict[str, Any]:
    """Move pictures to the trash; ``restore`` brings them back within thirty days."""
    gallery.trash.discard(checked(pictures))
    return {"thrown": len(pictures)}


@router.post("/trash/restore", responses=errors(404))
@WRITERS.route
def restore(pictures: Pictures, gallery: GalleryDep) -> dict[str, Any]:
    gallery.trash.restore(checked(pictures))
    return {"restored": len(pictures)}


@router.delete("/trash")
@WRITERS.route
def empty(gallery: GalleryDep) -> dict[str, int]:
    """Delete the pictures in the trash permanently."""
    return {"gone": gallery.trash.empty()}


def checked(pictures: list[str]) -> list[str]:
    """Raises BadRequest for too many."""
    if len(pictures) > MAX_PICTURES:
        raise BadRequest(f"At most {MAX_PICTURES} pictures at once.", f"一次最多 {MAX_PICTURES} 幅画。")
    return pictures
