"""The part of A1111's /sdapi/v1 that Open WebUI, LibreChat and SillyTavern call, over our own queue and gallery.

https://github.com/AUTOMATIC1111/stable-diffusion-webui (modules/api/models.py, 1.10). A1111 has one model, one job and one
set of options for all its callers: here they are those of this route family in this process.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request

from starrynight import __version__
from starrynight.api.bodies import Route
from starrynight.api.pools import DECODERS, FILES, WRITERS
from starrynight.api.schema import answers, body_of, errors, ref
from starrynight.api.submission import Studio, StudioDep, in_their_words, notes_on, sort_fields
from starrynight.errors import BadFile, BadRequest, MissingFile, NoRecipe, UnknownName
from starrynight.i18n import Text
from starrynight.jobs import validate
from starrynight.jobs.job import Job
from starrynight.jobs.uploads import MAX_BYTES, Uploads
from starrynight.metadata import OURS, a1111, read_recipe
from starrynight.models import catalogue, lora
from starrynight.painting import schedulers
from starrynight.painting.styles import styles
from starrynight.picture import enlarged
from starrynight.text import excerpt

router = APIRouter(route_class=Route)
MOST = 64  # pictures of a request
PAINTED = answers("A1111Pictures") | errors(404, 422, 429, 499, 501, 502)
LARGE = 2 * MAX_BYTES * 4 // 3 + (1 << 20)  # two pictures in Base64

SAMPLERS = {  # our samplers by A1111's names
    "Euler": "euler", "Euler a": "euler_a", "Heun": "heun", "LMS": "lms", "LCM": "lcm", "DDIM": "ddim", "PLMS": "pndm",
    "UniPC": "unipc", "DPM++ 2M": "dpmpp_2m", "DPM++ 2M Karras": "dpmpp_2m_karras", "DPM++ 2M SDE": "dpmpp_2m_sde",
}  # fmt: skip
# A1111's other samplers: a client may ask for one by default, and gets the model's own.
OTHERS = ("DPM++ SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart",
          "DDIM CFG++", *SAMPLERS)  # fmt: skip
SCHEDULES = ("automatic", "uniform", "karras", "exponential", "polyexponential", "sgm_uniform", "kl_optimal", "align_your_steps",
             "simple", "normal", "ddim", "beta", "turbo")  # fmt: skip

THEIRS = {
    "guidance": "cfg_scale", "strength": "denoising_strength", "count": "batch_size", "sampler": "sampler_name",
    "style": "styles", "init_image": "init_images", "variation": "subseed_strength", "variation_seed": "subseed",
}  # fmt: skip
READ = (
    "prompt", "negative_prompt", "steps", "cfg_scale", "width", "height", "seed", "subseed", "subseed_strength", "batch_size", "n_iter",
    "styles", "sampler_name", "sampler_index", "scheduler", "override_settings", "send_images", "enable_hr", "restore_faces", "tiling", "script_name", "alwayson_scripts",
)  # fmt: skip
READ_OF_EDITS = ("denoising_strength", "init_images", "mask", "inpainting_mask_invert")
REFUSED = {
    "enable_hr": Text("there is no second pass", "这里没有高清修复"), "restore_faces": Text("faces are not restored", "这里没有面部修复"),
    "tiling": Text("pictures do not tile", "这里不能生成可平铺的图"), "script_name": Text("there are no scripts", "这里没有脚本"),
    "alwayson_scripts": Text("there are no scripts", "这里没有脚本"),
}  # fmt: skip
# Sent by clients whatever they ask for; they belong to what REFUSED refuses, or to the client itself.
DORMANT = (
    "hr_upscaler", "hr_scale", "hr_second_pass_steps", "hr_additional_modules", "hr_resize_x", "hr_resize_y", "hr_prompt",
    "hr_negative_prompt", "hr_cfg", "hr_sampler_name", "hr_scheduler", "hr_checkpoint_name", "script_args", "url", "auth",
    "override_settings_restore_afterwards", "firstphase_width", "firstphase_height", "include_init_images",
)  # fmt: skip
_KEPT = Text("every picture is kept in the gallery", "每幅画都保存在画廊里")
_OWN = Text("the model's own sampler has no such setting", "模型的采样器没有这一项")
INERT = dict.fromkeys(("save_images", "do_not_save_samples", "do_not_save_grid"), _KEPT) | dict.fromkeys(
    ("eta", "s_churn", "s_tmax", "s_tmin", "s_noise", "s_min_uncond", "clip_skip"), _OWN
)  # fmt: skip


@router.post("/txt2img", responses=PAINTED, openapi_extra=body_of({"application/json": ref("A1111Request")}))
async def txt2img(fields: Annotated[dict[str, Any], Body()], studio: StudioDep) -> dict[str, Any]:
    """Paint ``batch_size`` × ``n_iter`` pictures. ``info`` is JSON text; its ``warnings`` tell what had no effect."""
    given = {
        name: value for name, value in fields.items() if name != "denoising_strength"
    }  # of the second pass
    asked, notes = await FILES.run(_read, given, READ, studio.request.app)
    return await _paint(studio, fields, asked, notes)


@router.post(
    "/img2img", max_body_size=LARGE, responses=PAINTED, openapi_extra=body_of({"application/json": ref("A1111EditRequest")})
)  # fmt: skip
async def img2img(fields: Annotated[dict[str, Any], Body()], studio: StudioDep) -> dict[str, Any]:
    """As ``txt2img``, from the one picture of ``init_images``; white in ``mask`` is painted."""
    asked, notes = await FILES.run(_read, fields, (*READ, *READ_OF_EDITS), studio.request.app)
    images = fields.get("init_images")
    if not isinstance(images, list) or len(images) != 1:
        raise BadRequest(
            "init_images is a list of one picture in Base64.",
            "init_images 应当是只含一幅 Base64 图片的列表。",
            "init_images",
        )
    stored, *_ = await DECODERS.run(Uploads().save, _decoded(images[0], "init_images"))
    asked["init_image"] = f"{validate.UPLOAD}{stored}"
    if fields.get("mask") is not None:
        invert = fields.get("inpainting_mask_invert") in (1, True)
        mask = await DECODERS.run(Uploads().save_mask, _decoded(fields["mask"], "mask"), False, invert)
        asked["mask"] = f"{validate.UPLOAD}{mask}"
    return await _paint(studio, fields, asked, notes)


@in_their_words(THEIRS)
def _read(given: Mapping[str, Any], known: tuple[str, ...], app: Any) -> tuple[dict[str, Any], list[Text]]:
    """The fields of a PaintRequest, and notes. Raises BadRequest for what cannot be done and would be asked for."""
    found, notes = sort_fields({k: v for k, v in given.items() if k not in DORMANT}, known, INERT, THEIRS)
    for name, why in REFUSED.items():
        if found.get(name):
            raise BadRequest(f"{name}: {why.en}; leave it out.", f"{name}：{why.zh}；请不要给出。", name)
    _check_kinds(found)
    same = ("prompt", "negative_prompt", "steps", "width", "height")
    asked = {name: found[name] for name in same if name in found}
    asked["prompt"] = found.get("prompt", "")
    asked |= {
        ours: found[theirs]
        for ours, theirs in (("guidance", "cfg_scale"), ("strength", "denoising_strength"))
        if theirs in found
    }
    if found.get("seed", -1) != -1:
        asked["seed"] = found["seed"]
    if found.get("subseed_strength"):
        asked["variation"] = found["subseed_strength"]
        asked |= {"variation_seed": found["subseed"]} if found.get("subseed", -1) != -1 else {}
    counts = [_count(name, found.get(name, 1)) for name in ("batch_size", "n_iter")]
    asked["count"] = _count("batch_size", counts[0] * counts[1])
    if (style := _style(found.get("styles"))) not in (None, ""):
        asked["style"] = style
    asked["model"] = _model(found.get("override_settings", {}), app, notes)
    if sampler := _sampler(found, validate.installed(asked["model"]), notes):
        asked["sampler"] = sampler
    return asked, notes


def _check_kinds(found: Mapping[str, Any]) -> None:
    """Raises BadRequest for a value of another type among those that are read here and not by ``PaintRequest``."""
    kinds: dict[str, type] = {
        "send_images": bool,
        "scheduler": str,
        "sampler_name": str,
        "inpainting_mask_invert": int,
    }
    for name, kind in kinds.items():
        value = found.get(name)
        if value is not None and (not isinstance(value, kind) or (kind is int and value not in (0, 1))):
            raise BadRequest(
                f"{name} is not valid: {excerpt(value)}.", f"{name} 无效：{excerpt(value)}。", name
            )


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise BadRequest(
            f"{name} must be a whole number, and with n_iter at most {MOST} pictures, not {excerpt(value)}.",
            f"{name} 应当是整数，与 n_iter 相乘不超过 {MOST} 幅，而不是 {excerpt(value)}。", name,
        )  # fmt: skip
    return value


def _style(value: object) -> object:
    if (
        not isinstance(value, list | None)
        or len(value or ()) > 1
        or not all(isinstance(one, str) for one in value or ())
    ):
        raise BadRequest("styles is a list of one style.", "styles 应当是只含一种风格的列表。", "styles")
    return value[0] if value else None


def _model(settings: object, app: Any, notes: list[Text]) -> str:
    """The model of ``override_settings``, else that of the options."""
    if not isinstance(settings, dict):
        raise BadRequest(
            "override_settings is an object.", "override_settings 应当是一个对象。", "override_settings"
        )
    for name, value in settings.items():
        neutral = value in (None, "", "Automatic", "None", [], 0, 1)
        if name != "sd_model_checkpoint" and not neutral:
            shown = excerpt(name)
            notes.append(
                Text(
                    f"{shown} is not set here and had no effect.",
                    f"这里没有 {shown} 这一设置，它没有起作用。",
                )
            )
    return _plain(settings.get("sd_model_checkpoint")) or _chosen(app)


def _plain(title: object) -> str:
    """The model's name in what A1111 shows as a title: "name [hash]"."""
    if title is not None and not isinstance(title, str):
        raise BadRequest(
            f"sd_model_checkpoint is a model's name, not {excerpt(title)}.",
            f"sd_model_checkpoint 应当是模型名，而不是 {excerpt(title)}。",
            "sd_model_checkpoint",
        )
    return (title or "").partition(" [")[0]


def _chosen(app: Any) -> str:
    return getattr(app.state, "a1111_model", None) or catalogue.default()


def _sampler(found: Mapping[str, Any], spec: catalogue.ModelSpec, notes: list[Text]) -> str | None:
    """Our sampler for A1111's name and schedule; None for the model's own. Raises UnknownName for what nobody has."""
    name = found.get("sampler_name") or found.get("sampler_index")
    schedule = str(found.get("scheduler") or "automatic").lower().replace(" ", "_")
    if schedule not in SCHEDULES:
        raise UnknownName(("scheduler", "调度"), excerpt(schedule), SCHEDULES)
    if not isinstance(name, str) or not name:
        return None
    known, names = schedulers.names(spec.flow), {each.casefold(): each for each in OTHERS}
    base = name
    for ending in ("karras", "exponential"):
        if name.casefold().endswith(f" {ending}"):
            base, schedule = name[: -len(ending) - 1], ending
    key = SAMPLERS.get(names.get(base.casefold(), ""), schedulers.key_of(base))
    if schedule != "automatic" and f"{key}_{schedule}" in known:
        return f"{key}_{schedule}"
    if schedule != "automatic":
        notes.append(
            Text(
                f"scheduler {schedule}: the model's own is used", f"scheduler {schedule}：使用模型自己的调度"
            )
        )
    if key in known:
        return key
    if base.casefold() not in names:
        raise UnknownName(schedulers.KIND, excerpt(name), known)
    notes.append(Text(
        f"{base}: {spec.name} has no such sampler, its own is used; it has {', '.join(known)}.",
        f"{base}：{spec.name} 没有这种采样器，使用它自己的；可选：{'、'.join(known)}。",
    ))  # fmt: skip
    return None


def _decoded(image: object, name: str) -> bytes:
    try:
        if not isinstance(image, str):
            raise ValueError
        return base64.b64decode(image.rpartition(",")[2], validate=True)  # a data: URL or Base64 alone
    except (ValueError, binascii.Error):
        raise BadFile(f"{name} is a picture in Base64.", f"{name} 应当是 Base64 图片。", name) from None


async def _paint(
    studio: Studio, fields: Mapping[str, Any], asked: dict[str, Any], notes: list[Text]
) -> dict[str, Any]:
    job, warnings = await studio.submit(asked, THEIRS)
    active = _active(studio.request.app)
    active.append(job.id)
    try:
        job = await studio.finish(job)
    finally:
        active.remove(job.id)
    pictures = [one.picture for one in job.painted if one.picture]
    files = [await studio.file(picture) for picture in pictures] if fields.get("send_images", True) else []
    recipes = [await FILES.run(studio.gallery.recipe, picture) for picture in pictures]
    info = _info(job, pictures, recipes) | {
        "warnings": [{"en": note.en, "zh": note.zh} for note in [*notes, *warnings, *notes_on(job)]]
    }
    left_out = ("init_images", "mask", "auth")  # large, or secret
    return {
        "images": [base64.b64encode(data).decode() for data in files],
        "parameters": {name: value for name, value in fields.items() if name not in left_out},
        "info": json.dumps(info, ensure_ascii=False, allow_nan=False),
    }


def _info(job: Job, pictures: list[str], recipes: list[dict[str, Any]]) -> dict[str, Any]:
    """What A1111's ``Processed.js`` writes (modules/processing.py), as far as it has a meaning here."""
    request, seeds = job.request, [job.request.seed_of(one.index) for one in job.painted if one.picture]
    texts = [a1111.write(recipe) for recipe in recipes]
    return {
        "prompt": request.prompt, "all_prompts": [recipe["prompt"] for recipe in recipes],
        "negative_prompt": request.negative_prompt, "all_negative_prompts": [recipe["negative_prompt"] for recipe in recipes],
        "seed": seeds[0], "all_seeds": seeds, "width": request.width, "height": request.height,
        "sampler_name": recipes[0]["sampler"], "cfg_scale": request.guidance, "steps": request.steps, "batch_size": request.count,
        "restore_faces": False, "sd_model_name": request.model, "sd_model_hash": "", "denoising_strength": request.strength,
        "extra_generation_params": {}, "index_of_first_image": 0, "infotexts": texts, "styles": [request.style] if request.style else [],
        "job_timestamp": job.submitted_at.strftime("%Y%m%d%H%M%S"), "clip_skip": 1, "version": __version__, "pictures": pictures,
    }  # fmt: skip


# What is going on


def _active(app: Any) -> list[str]:
    """The jobs of this family that its callers wait for, oldest first."""
    if not hasattr(app.state, "a1111_jobs"):
        app.state.a1111_jobs = []
    found: list[str] = app.state.a1111_jobs
    return found


@router.get("/progress", responses=answers("A1111Progress"))
async def progress(studio: StudioDep, skip_current_image: bool = False) -> dict[str, Any]:
    """Of the oldest job of this family; without one everything is 0."""
    job, image = await FILES.run(_current, studio, not skip_current_image)
    share, left = (job.progress, job.seconds_left or 0.0) if job else (0.0, 0.0)
    now = datetime.now(UTC) if job is None else job.submitted_at
    state = {
        "skipped": False, "interrupted": bool(job and job.cancelling), "stopping_generation": False, "job": job.id if job else "",
        "job_count": len(_active(studio.request.app)), "job_timestamp": now.strftime("%Y%m%d%H%M%S"),
        "job_no": (job.picture or 0) if job else 0, "sampling_step": (job.step or 0) if job else 0,
        "sampling_steps": (job.steps or 0) if job else 0,
    }  # fmt: skip
    return {"progress": share, "eta_relative": left, "state": state, "current_image": image, "textinfo": None}


def _current(studio: Studio, with_image: bool) -> tuple[Job | None, str | None]:
    for name in _active(studio.request.app):
        try:
            job, preview = studio.queue.get_shown(name) if with_image else (studio.queue.get(name), None)
        except MissingFile:  # deleted meanwhile
            continue
        if preview is None:
            return job, None
        large = enlarged(preview.image, job.request.width, job.request.height, "png")
        return job, base64.b64encode(large).decode()
    return None, None


@router.post("/interrupt", responses=answers("A1111Nothing"))
async def interrupt(studio: StudioDep) -> dict[str, Any]:
    """Cancel every job of this family; its callers get the pictures that are finished."""
    for job in list(_active(studio.request.app)):
        await WRITERS.run(studio.queue.cancel, job)
    return {}


# What there is


def _here() -> list[catalogue.ModelSpec]:
    return [spec for spec in map(catalogue.find, catalogue.names()) if catalogue.is_here(spec)]


@router.get("/sd-models", responses=answers("A1111Models"))
def sd_models() -> list[dict[str, Any]]:
    return [
        {
            "title": spec.name,
            "model_name": spec.name,
            "hash": None,
            "sha256": None,
            "filename": spec.name,
            "config": None,
        }
        for spec in _here()
    ]


@router.get("/options", responses=answers("A1111Options"))
def options(request: Request) -> dict[str, Any]:
    return {"sd_model_checkpoint": _chosen(request.app), "sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1,
            "samples_save": True, "samples_format": "png"}  # fmt: skip


@router.post(
    "/options", responses=answers("A1111Nothing") | errors(404), openapi_extra=body_of({"application/json": ref("A1111Options")})
)  # fmt: skip
def set_options(fields: Annotated[dict[str, Any], Body()], request: Request) -> dict[str, Any]:
    """Choose ``sd_model_checkpoint`` for all callers of this family until the server ends; the others cannot be changed."""
    now = options(request)
    for name, value in fields.items():
        if name not in now or (name != "sd_model_checkpoint" and value != now[name]):
            shown = excerpt(name)
            raise BadRequest(
                f"The option “{shown}” cannot be set here; only sd_model_checkpoint can.",
                f"这里不能设置“{shown}”；只能设置 sd_model_checkpoint。", shown,
            )  # fmt: skip
    if (given := fields.get("sd_model_checkpoint")) is not None:
        request.app.state.a1111_model = validate.installed(_plain(given) or given).name
    return {}


@router.get("/samplers", responses=answers("A1111Names"))
def samplers(request: Request) -> list[dict[str, Any]]:
    """Those of the chosen model, by A1111's names where it has them."""
    names = {ours: theirs for theirs, ours in SAMPLERS.items()}
    flow = catalogue.find(_chosen(request.app)).flow
    return [{"name": names.get(key, key), "aliases": [key], "options": {}} for key in schedulers.names(flow)]


@router.get("/schedulers", responses=answers("A1111Names"))
def schedules() -> list[dict[str, Any]]:
    return [
        {"name": name, "label": name.title(), "aliases": None, "default_rho": -1.0, "need_inner_model": False}
        for name in ("automatic", "karras")
    ]


@router.get("/loras", responses=answers("A1111Names"))
def loras() -> list[dict[str, Any]]:
    return [{"name": name, "alias": name, "path": name, "metadata": {}} for name in lora.names()]


@router.get("/prompt-styles", responses=answers("A1111Names"))
def prompt_styles() -> list[dict[str, Any]]:
    return [
        {
            "name": key,
            "prompt": "{prompt}".join(style.prompt["en"]),
            "negative_prompt": style.negative.get("en", ""),
        }
        for key, style in styles().items()
    ]


@router.get("/upscalers", responses=answers("A1111Names"))
def upscalers() -> list[dict[str, Any]]:
    """For a second pass, which is not offered: A1111's “None” alone."""
    return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}]


@router.get("/latent-upscale-modes", responses=answers("A1111Names"))
def latent_upscale_modes() -> list[dict[str, Any]]:
    return []


@router.get("/sd-vae", responses=answers("A1111Names"))
def sd_vae() -> list[dict[str, Any]]:
    return []


@router.post(
    "/png-info", max_body_size=LARGE, responses=answers("A1111Info") | errors(422),
    openapi_extra=body_of({"application/json": ref("A1111Image")}),
)  # fmt: skip
async def png_info(fields: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """The recipe in a picture's file, of any tool, as A1111's text; empty without one."""
    sort_fields(fields, ("image",), {}, {})
    data = _decoded(fields.get("image"), "image")
    try:
        recipe = await DECODERS.run(read_recipe, data)
    except NoRecipe:
        return {"info": "", "items": {}, "parameters": {}}
    text = a1111.write(recipe.raw) if recipe.tool == OURS else str(recipe.raw.get("parameters", ""))
    return {"info": text, "items": {"parameters": text}, "parameters": recipe.request()}
