"""Routes of the LoRAs in STARRY_HOME/loras: the list with their previews, and sending one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from starrynight.api.bodies import Route
from starrynight.api.jobs import uploading
from starrynight.api.pools import DECODERS, FILES
from starrynight.api.schema import answers, body_of, errors
from starrynight.metadata import thumbnails
from starrynight.models import lora, lora_upload, previews

router = APIRouter(route_class=Route)
BINARY = {"application/octet-stream": {"type": "string", "format": "binary"}}


@router.get("/loras", responses=answers("Loras"))
@DECODERS.route
def list_loras() -> list[dict[str, Any]]:
    """By name, as a request's ``loras`` names them; ``preview``: a small WebP as a data URI, if a picture lies beside the file or
    in its metadata.
    """
    return [
        {"name": name, "preview": thumbnails.data_uri(previews.find(lora.find(name)))}
        for name in lora.names()
    ]


@router.put(
    "/loras/{name}", status_code=201, max_body_size=lora_upload.MAX_BYTES + (1 << 20), dependencies=[Depends(uploading)],
    responses=answers("LoraKept", 201) | errors(422), openapi_extra=body_of(BINARY),
)  # fmt: skip
async def keep_lora(name: str, request: Request) -> dict[str, str]:
    """The body is a .safetensors file; ``name`` ends in its suffix. It is checked to be whole and a LoRA; another file of that name is
    not replaced.
    """
    with lora_upload.receiving(name) as receiver:
        async for data in request.stream():
            await FILES.run(receiver.write, data)
    return {"name": receiver.name}
