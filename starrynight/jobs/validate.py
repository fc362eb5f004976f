"""Check a request from an untrusted caller (a page, a program on the network) before it enters the queue.

A user at their own terminal may name any file; a caller over HTTP may not: the picture to start from is an
upload or a picture of the gallery, the model is installed, a LoRA is a name, and nothing is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starrynight.errors import BadRequest, MissingFile, UnknownName
from starrynight.gallery.store import Gallery
from starrynight.jobs.uploads import Uploads
from starrynight.models import catalogue, places, weights
from starrynight.models.catalogue import ModelSpec
from starrynight.models.recognition import MODEL_KINDS
from starrynight.painting import checking
from starrynight.prompt_syntax import without_wildcards
from starrynight.request import PaintRequest, take_lora_tags
from starrynight.senses import tries
from starrynight.senses.facets import facets
from starrynight.settings import settings
from starrynight.studio import make_request
from starrynight.text import clean

PICTURE, UPLOAD = "picture:", "upload:"  # prefixes of init_image and mask

JobRequest = Mapping[str, Any]  # the fields of a PaintRequest as an untrusted caller sends them


def validate_request(fields: JobRequest, gallery: Gallery) -> PaintRequest:
    """Return the checked request; a field that is left out or None gets the model's default.

    ``init_image`` and ``mask`` are "picture:ID" or "upload:ID". Raises ``BadRequest``, ``UnknownName``, ``BadFile`` or
    ``MissingFile``.
    """
    given = take_lora_tags({name: value for name, value in fields.items() if value is not None})
    if "model" in given:
        installed(given["model"])
    if isinstance(loras := given.get("loras"), list | tuple):
        given["loras"] = tuple(tuple(lora) if isinstance(lora, list) else lora for lora in loras)
        for lora in given["loras"]:
            _check_lora_name(lora[0] if isinstance(lora, tuple) and lora else lora)
    for field in ("init_image", "mask"):
        if field in given:
            given[field] = str(_stored_picture(field, given[field], gallery))
    request = make_request(**given)
    tries.check(request)
    return request


def warnings_for(request: PaintRequest) -> list[tuple[str, str]]:
    """What of a checked request the model will ignore or read as plain words, (en, zh), before it is loaded."""
    return checking.warnings_for(request, catalogue.find(request.model)) + tries.warnings_for(request)


def read_prompt(fields: JobRequest) -> dict[str, Any]:
    """How the chosen model, or the default one, understands a prompt: the words that it never read, with near ones that it
    knows, the styles that the prompt names, and its facets (``senses/facets.py``). ``vocabulary`` is False for a model that does
    not say what it knows.

    Raises ``BadRequest``, ``UnknownName`` or ``MissingFile``.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if others := [clean(str(name))[:60] for name in given if name not in ("prompt", "model")]:
        raise BadRequest(
            f"Only prompt and model are read here, not {others[0]}.",
            f"这里只读 prompt 与 model，没有 {others[0]}。",
        )
    if "model" in given:
        installed(given["model"])
    request = PaintRequest.from_dict({"model": catalogue.default(), **given})
    model = catalogue.find(request.model)
    known = checking.vocabulary_of(model)
    return {
        "model": model.name,
        "vocabulary": known is not None,
        "unknown": [
            {"word": word, "suggestions": list(near)}
            for word, near in checking.unknown_words(without_wildcards(request.prompt), model)
        ],
        "styles": list(known.styles_named(request.prompt)) if known else [],
        "facets": [asdict(span) for span in facets(request.prompt)],
    }


def installed(name: object) -> ModelSpec:
    """The model, if it is a name of the catalogue, or lies below STARRY_HOME/models or a place that the operator has named;
    and its files are here. Raises UnknownName, MissingFile.
    """
    known = isinstance(name, str) and (_is_named(name) or _is_below(name, settings().models))
    if not known or not isinstance(name, str):
        raise UnknownName(catalogue.KIND, clean(str(name))[:60], catalogue.names())
    model = catalogue.find(name)
    if not catalogue.is_here(model):
        raise MissingFile(
            f"{model.en} is not on this machine; download it first: starry models pull {model.name}",
            f"这台机器上还没有 {model.zh}；请先下载：starry models pull {model.name}",
            "model",
        )
    return model


def _is_below(name: str, folder: Path) -> bool:
    """Whether ``name`` is a path below ``folder`` or below a place that the operator has named."""
    try:
        path = Path(name)
        return path.is_absolute() and (
            path.resolve().is_relative_to(folder.resolve()) or places.contains(path)
        )
    except (OSError, ValueError):  # a NUL, half a character, a name too long
        return False


def _is_named(name: str) -> bool:
    """Whether it is a name of the catalogue, or of a file in the places; a name that exists as a path here is neither."""
    if name.casefold() in {known.casefold() for known in catalogue.names()}:
        return True
    plain = not re.search(r"[/\\]|^[.~]", name) and weights.find(name) is None
    return plain and places.find(name, (*MODEL_KINDS, "folder")) is not None


def _check_lora_name(name: object) -> None:
    """A name without a separator or a leading dot or tilde, or a path below STARRY_HOME/loras or a place that the operator
    has named.
    """
    allowed = isinstance(name, str) and (
        not re.search(r"[/\\]|^[.~]", name) or _is_below(name, settings().loras)
    )
    if not allowed:
        raise BadRequest(
            "Give a LoRA by its name here, not by a path.", "此处 LoRA 请用名字，不要用路径。", "loras"
        )


def _stored_picture(field: str, name: object, gallery: Gallery) -> Path:
    if isinstance(name, str) and name.startswith(PICTURE):
        row = gallery.get(name.removeprefix(PICTURE))
        if gallery.files.local:
            return Path(gallery.path(row))
        # The painter reads a local file; a picture in a bucket is copied to the uploads.
        return Uploads().path(Uploads().save(gallery.read(row))[0])
    if isinstance(name, str) and name.startswith(UPLOAD):
        return Uploads().path(name.removeprefix(UPLOAD))
    raise BadRequest(
        f"{field} is picture:ID of the gallery or upload:ID of an upload.",
        f"{field} 应当是画廊里的 picture:ID，或上传得到的 upload:ID。",
        field,
    )
