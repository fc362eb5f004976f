"""The objects of the API families beside our own in /api/openapi.json: OpenAI's, A1111's and those of picture inspection.

Fields that the families' own documents name and that mean nothing here are left out; docs/api.md lists them.
"""

from __future__ import annotations

from starrynight.api.schema import (
    NAME,
    NUMBER,
    PROMPT,
    TEXT,
    WHOLE,
    YES,
    Schema,
    items,
    maybe,
    one_of,
    record,
    ref,
)
from starrynight.request import HIGHEST_SIZE, LOWEST_SIZE, MAX_LORAS, MAX_SEED, MAX_TEXT, PRECISIONS

BOTH = {"en": TEXT, "zh": TEXT}
BASE64 = {"type": "string", "format": "byte"}
BINARY = {"type": "string", "format": "binary"}
NOTES = items(
    record(BOTH), description="What of the request had no effect or was not trained, and refused pictures."
)


def components() -> Schema:
    return _openai()


def _openai() -> Schema:
    """https://developers.openai.com/api/reference/resources/images"""
    error = {"message": TEXT, "type": TEXT, "param": maybe(TEXT), "code": maybe(TEXT), **BOTH}
    one = {"id": TEXT, "object": one_of("model"), "created": WHOLE, "owned_by": TEXT}
    picture = record(
        {"id": TEXT, "seed": WHOLE},
        {"b64_json": BASE64, "url": {"type": "string", "format": "uri"}},
        description="`id` in the gallery; the file in Base64, or its address on this server.",
    )
    images = record({
        "created": WHOLE, "background": one_of("opaque"), "output_format": one_of("png", "webp", "jpeg"), "size": TEXT,
        "quality": {"type": "null"}, "data": items(picture), "usage": {"type": "null"}, "warnings": NOTES,
    })  # fmt: skip
    event = record(
        {"type": one_of(*(f"image_{of}.{name}" for of in ("generation", "edit") for name in ("partial_image", "completed"))),
         "created_at": WHOLE, "background": one_of("opaque"), "output_format": one_of("png", "webp", "jpeg"), "size": TEXT,
         "quality": one_of("auto")},
        {"partial_image_index": WHOLE, "id": TEXT, "seed": WHOLE, "b64_json": BASE64,
         "url": {"type": "string", "format": "uri"}, "usage": {"type": "null"}, "warnings": NOTES},
        description="The event's name is its `type`; a job that fails ends with an event `error`, an OpenAIError.",
    )  # fmt: skip
    edit = _painting() | {"strength": maybe({"type": "number", "exclusiveMinimum": 0, "maximum": 1})}
    return {
        "OpenAIError": record({"error": record(error)}),
        "OpenAIModel": record(one),
        "OpenAIModels": record({"object": one_of("list"), "data": items(ref("OpenAIModel"))}),
        "OpenAIImages": images,
        "OpenAIEvent": event,
        "OpenAIGeneration": record({"prompt": PROMPT}, _painting(), examples=[
            {"prompt": "星夜下的村庄", "size": "512x512", "n": 2},
            {"prompt": "a lighthouse at dawn", "model": "firefly", "size": "256x256", "stream": True, "partial_images": 2,
             "seed": 7, "num_inference_steps": 12, "style": "ink"},
        ]),
        "OpenAIEdit": record({"prompt": PROMPT, "image": BINARY}, edit),
    }  # fmt: skip


def _painting() -> Schema:
    """The fields of both routes beside the prompt; null is the model's default."""
    lora = {"anyOf": [NAME, record({"name": NAME}, {"scale": NUMBER}), items(NAME, maxItems=MAX_LORAS)]}
    found: dict[str, Schema] = {
        "model": NAME,
        "n": {"type": "integer", "minimum": 1, "maximum": 10},
        "size": {"type": "string", "pattern": "^(auto|[0-9]{2,4}x[0-9]{2,4})$",
                 "description": f"WIDTHxHEIGHT, each from {LOWEST_SIZE} to {HIGHEST_SIZE} as the model allows; or auto."},
        "response_format": one_of("b64_json", "url"),
        "output_format": one_of("png", "webp", "jpeg"),
        "output_compression": {"type": "integer", "minimum": 0, "maximum": 100},
        "background": one_of("auto", "opaque"),
        "stream": YES,
        "partial_images": {"type": "integer", "minimum": 0, "maximum": 3},
        "negative_prompt": {"type": "string", "maxLength": MAX_TEXT},
        "num_inference_steps": {"type": "integer", "minimum": 1, "maximum": 150},
        "guidance_scale": {"type": "number", "minimum": 0, "maximum": 30},
        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
        "lora": lora, "style": NAME, "precision": one_of(*PRECISIONS), "sampler": NAME,
    }  # fmt: skip
    return {name: maybe(schema) for name, schema in found.items()}
