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
    return _openai() | _a1111() | _inspection()


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
        "OpenAIEdit": record({"prompt": PROMPT, "image": BINARY}, edit | {"mask": BINARY}),
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


def _a1111() -> Schema:
    """https://github.com/AUTOMATIC1111/stable-diffusion-webui, modules/api/models.py"""
    count = {"type": "integer", "minimum": 1, "maximum": 64}
    painting: dict[str, Schema] = {
        "negative_prompt": {"type": "string", "maxLength": MAX_TEXT},
        "steps": {"type": "integer", "minimum": 1, "maximum": 150},
        "cfg_scale": {"type": "number", "minimum": 0, "maximum": 30},
        "width": {"type": "integer", "minimum": LOWEST_SIZE, "maximum": HIGHEST_SIZE},
        "height": {"type": "integer", "minimum": LOWEST_SIZE, "maximum": HIGHEST_SIZE},
        "seed": {"type": "integer", "minimum": -1, "maximum": MAX_SEED}, "batch_size": count, "n_iter": count,
        "sampler_name": TEXT, "scheduler": TEXT, "styles": items(TEXT, maxItems=1), "send_images": YES,
        "override_settings": record({}, {"sd_model_checkpoint": maybe(TEXT)}),
    }  # fmt: skip
    edit: dict[str, Schema] = {"denoising_strength": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "mask": BASE64,
            "inpainting_mask_invert": one_of(0, 1)}  # fmt: skip
    state = ("skipped", "interrupted", "stopping_generation"), ("job", "job_timestamp"), (
        "job_count", "job_no", "sampling_step", "sampling_steps"
    )  # fmt: skip
    kinds = {name: kind for names, kind in zip(state, (YES, TEXT, WHOLE), strict=True) for name in names}
    options: dict[str, Schema] = {
        "sd_model_checkpoint": NAME, "sd_vae": TEXT, "CLIP_stop_at_last_layers": WHOLE, "samples_save": YES, "samples_format": TEXT
    }  # fmt: skip
    model = {
        "title": TEXT,
        "model_name": TEXT,
        "hash": maybe(TEXT),
        "sha256": maybe(TEXT),
        "filename": TEXT,
        "config": maybe(TEXT),
    }
    return {
        "A1111Error": record({"error": TEXT, "detail": TEXT, "body": TEXT, "errors": TEXT, "param": maybe(TEXT), **BOTH}),
        "A1111Request": record({"prompt": PROMPT}, {k: maybe(v) for k, v in painting.items()}, examples=[
            {"prompt": "a lighthouse", "negative_prompt": "fog", "steps": 8, "cfg_scale": 2, "width": 512, "height": 512,
             "sampler_name": "Euler", "seed": -1},
        ]),
        "A1111EditRequest": record(
            {"prompt": PROMPT, "init_images": items(BASE64, minItems=1, maxItems=1)},
            {k: maybe(v) for k, v in (painting | edit).items()},
        ),
        "A1111Pictures": record({
            "images": items(BASE64), "parameters": {"type": "object"},
            "info": {"type": "string", "contentMediaType": "application/json",
                     "description": "A1111's: seed, all_seeds, width, height, infotexts …; and ours: warnings, pictures (ids)."},
        }),
        "A1111Progress": record({
            "progress": NUMBER, "eta_relative": NUMBER, "state": record(kinds), "current_image": maybe(BASE64), "textinfo": maybe(TEXT),
        }),
        "A1111Options": record({}, options),
        "A1111Model": record(model),
        "A1111Models": items(ref("A1111Model")),
        "A1111Names": items(record({"name": TEXT})),
        "A1111Nothing": record({}, additionalProperties=False),
        "A1111Image": record({"image": BASE64}),
        "A1111Info": record({"info": TEXT, "items": {"type": "object"}, "parameters": {"type": "object"}}),
    }  # fmt: skip


def _inspection() -> Schema:
    colours = record({"palette": items(record({"colour": TEXT, "share": NUMBER})), "fields": items(TEXT)})
    health = record(
        {"finite": YES},
        {"uniform": YES, "clipped": record({"black": NUMBER, "white": NUMBER}), "mean": NUMBER, "deviation": NUMBER},
    )  # fmt: skip
    facts = {
        "format": TEXT, "width": WHOLE, "height": WHOLE, "mode": TEXT, "bytes": WHOLE, "sha256": TEXT,
        "recipe": maybe({"type": "object", "description": "tool, prompt, seed …, and what the tool wrote as raw."}),
        "recipe_error": maybe(record(BOTH)), "health": health, "colours": maybe(colours), "perceptual_hash": maybe(TEXT),
    }  # fmt: skip
    one = record({"name": TEXT, "error": maybe(record({"type": TEXT, **BOTH}))}, facts)
    return {"Inspections": record({"pictures": items(one)})}
