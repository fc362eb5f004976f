"""From words of a stranger (a page, a program on the network) to a request that may be painted.

What a person types at their own terminal may name any file; what comes through a browser may not: a first picture is
one that was uploaded or hangs here, a model is one that is installed, and nothing is fetched unasked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starrynight.errors import BadRequest, MissingFile, UnknownName
from starrynight.gallery.store import Gallery
from starrynight.jobs.uploads import Uploads
from starrynight.metadata.recipe import text
from starrynight.models import catalogue
from starrynight.request import PaintRequest
from starrynight.settings import settings
from starrynight.studio import fill

PICTURE, UPLOAD = "picture:", "upload:"


def validate_request(words: Mapping[str, Any], gallery: Gallery) -> PaintRequest:
    """A checked request: what is left out (or None) is what suits the model. ``init_image`` is "picture:ID" or
    "upload:ID". Raises BadRequest, UnknownName, BadFile, MissingFile as one sentence."""
    given = {name: value for name, value in words.items() if value is not None}
    if "model" in given:
        _installed(given["model"])
    if isinstance(loras := given.get("loras"), list | tuple):
        given["loras"] = tuple(tuple(lora) if isinstance(lora, list) else lora for lora in loras)
        for lora in given["loras"]:
            _plain(lora[0] if isinstance(lora, tuple) and lora else lora)
    if "init_image" in given:
        given["init_image"] = str(_first_picture(given["init_image"], gallery))
    return fill(**given)


def _installed(name: object) -> None:
    """A name of the catalogue, or a path below STARRY_HOME/models; and it must be here."""
    known = isinstance(name, str) and (name.lower() in catalogue.names() or _is_below_models(name))
    if not known or not isinstance(name, str):
        raise UnknownName(catalogue.KIND, text(str(name))[:60], catalogue.names())
    model = catalogue.resolve(name)
    if not model.here:
        raise MissingFile(
            f"{model.en} is not on this machine; fetch it first: starry models pull {model.name}",
            f"这台机器上还没有 {model.zh}；请先获取：starry models pull {model.name}",
        )


def _is_below_models(name: str) -> bool:
    path = Path(name)
    return path.is_absolute() and path.resolve().is_relative_to(settings().models.resolve())


def _plain(name: object) -> None:
    if not isinstance(name, str) or re.search(r"[/\\]|^[.~]", name):
        raise BadRequest(
            "A LoRA is called by its name here, not by a path.", "此处 LoRA 请用名字，不要用路径。"
        )


def _first_picture(name: object, gallery: Gallery) -> Path:
    if isinstance(name, str) and name.startswith(PICTURE):
        row = gallery.get(name.removeprefix(PICTURE))
        if gallery.files.local:
            return Path(gallery.path(row))
        return Uploads().path(
            Uploads().take(gallery.read(row))[0]
        )  # from a bucket, for the painter reads files
    if isinstance(name, str) and name.startswith(UPLOAD):
        return Uploads().path(name.removeprefix(UPLOAD))
    raise BadRequest(
        "init_image is picture:ID of the gallery or upload:ID of an upload.",
        "init_image 应当是画廊里的 picture:ID，或上传得到的 upload:ID。",
    )
