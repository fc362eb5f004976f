"""Read the recipes of tools that write one JSON object: SwarmUI, Fooocus and its relatives, NovelAI, Draw Things,
Easy Diffusion, mflux, TensorArt, and InvokeAI 3 and later.

``FORMS`` is the table of their keys, each taken from the tool's own source. A tool is recognised by keys that
no other tool writes. Knows neither the file nor the field that contains the object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starrynight.metadata.a1111 import take_loras
from starrynight.metadata.recipe import Loras, Recipe, left_over, real, true_guidance, whole
from starrynight.text import clean, parse_json

Object = Mapping[str, Any]
_SIZE = re.compile(r"\D*(\d{1,6})\D+(\d{1,6})\D*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class _Form:
    """The keys of one tool, by what they mean here; the first that is there counts.

    ``inner`` gives the object that holds the keys, or ``None`` if the object is not this tool's. ``size``: one
    key with both numbers. ``ignored``: keys that say nothing about how the picture was painted.
    """

    tool: str
    inner: Callable[[Object], Object | None]
    prompt: tuple[str, ...] = ("prompt",)
    negative: tuple[str, ...] = ("negative_prompt",)
    seed: tuple[str, ...] = ("seed",)
    steps: tuple[str, ...] = ("steps",)
    sampler: tuple[str, ...] = ("sampler",)
    guidance: tuple[str, ...] = ("guidance",)
    distilled: tuple[str, ...] = ()
    width: tuple[str, ...] = ("width",)
    height: tuple[str, ...] = ("height",)
    size: str = ""
    model: tuple[str, ...] = ("model",)
    loras: Callable[[Object], Loras] = field(default=lambda content: ())
    lora_keys: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read(content: Any) -> Recipe | None:
    """The recipe in a parsed JSON object, or ``None`` if it is of none of these tools."""
    if not isinstance(content, Mapping):
        return None
    for form in FORMS:
        if (inner := form.inner(content)) is not None:
            return _recipe(form, inner, content)
    return None


def _recipe(form: _Form, found: Object, content: Object) -> Recipe:
    def first(keys: tuple[str, ...]) -> Any:
        return next((found[key] for key in keys if found.get(key) not in (None, "", "None")), None)

    width, height = whole(first(form.width)), whole(first(form.height))
    if form.size and (pair := _SIZE.fullmatch(clean(found.get(form.size)))):
        width, height = int(pair[1]), int(pair[2])
    prompt, tags = take_loras(clean(first(form.prompt)))
    guidance, left = true_guidance(real(first(form.guidance)), real(first(form.distilled)))
    read_keys = {key for name in _FIELDS for key in getattr(form, name)}
    read_keys |= {form.size, *form.lora_keys, *form.ignored}
    return Recipe(
        tool=form.tool,
        prompt=prompt,
        negative_prompt=clean(first(form.negative)),
        seed=whole(first(form.seed)),
        steps=whole(first(form.steps)),
        sampler=clean(first(form.sampler)) or None,
        guidance=guidance,
        width=width,
        height=height,
        model=_model_name(first(form.model)),
        loras=form.loras(found) or tags,
        left=left + left_over({key: value for key, value in found.items() if key not in read_keys}),
        raw=dict(content),
    )


_FIELDS = (
    "prompt",
    "negative",
    "seed",
    "steps",
    "sampler",
    "guidance",
    "distilled",
    "width",
    "height",
    "model",
)


def _model_name(model: object) -> str | None:
    """A model is a name, or an object with its name under "name" (InvokeAI 4), "model_name" (3) or "label"."""
    if not isinstance(model, Mapping):
        return clean(model) or None
    return next((name for key in ("name", "model_name", "label") if (name := clean(model.get(key)))), None)


# ── LoRAs ───────────────────────────────────────────────────────────────────────────────────────────────────


def _paired(names: object, weights: object) -> Loras:
    """Two lists of equal order, as SwarmUI, Easy Diffusion and mflux keep them; a missing weight is 1."""
    listed, numbers = _items(names), _items(weights)
    numbers += [1.0] * (len(listed) - len(numbers))
    return tuple(
        (name, 1.0 if (weight := real(number)) is None else weight)
        for item, number in zip(listed, numbers, strict=False)
        if (name := clean(item)) and name != "None"
    )


def _items(values: object) -> list[Any]:
    """A list; a single value is a list of one; Easy Diffusion's PNGs hold the list as Python prints it."""
    if isinstance(values, str) and values.startswith("[") and len(values) < 10_000:
        return [
            quoted[1:-1] if quoted[0] in "'\"" else quoted
            for quoted in re.findall(r"'[^']*'|\"[^\"]*\"|[-\d.]+", values)
        ]
    return list(values) if isinstance(values, list) else [] if values in (None, "", "None") else [values]


def _swarm_loras(content: Object) -> Loras:
    return _paired(content.get("loras"), content.get("loraweights"))


def _fooocus_loras(content: Object) -> Loras:
    """``loras``: [[name, weight, hash], …]; versions before 2.5 only ``lora_combined_1``: "name : weight"."""
    listed = [item for item in _items(content.get("loras")) if isinstance(item, list) and len(item) > 1]
    pairs = [(item[0], item[1]) for item in listed]
    if not pairs:
        combined = [
            clean(value).split(" : ") for key, value in content.items() if re.match(r"(?i)lora[_ ]", key)
        ]
        pairs = [(parts[-2], parts[-1]) for parts in combined if len(parts) > 1 and parts[0] != "False"]
    return _paired([name for name, _ in pairs], [weight for _, weight in pairs])


def _ruined_loras(content: Object) -> Loras:
    """[[hash, "weight - name"], …]; older versions "Loras:<name:weight>,…"."""
    if isinstance(content.get("loras"), str):
        pairs = re.findall(r"<([^:<>]{1,200}):(-?[\d.]{1,12})>", content["loras"])
    else:
        texts = [clean(item[-1]) for item in _items(content.get("loras")) if isinstance(item, list) and item]
        pairs = [(name, weight) for weight, dash, name in (text.partition(" - ") for text in texts) if dash]
    return _paired([name for name, _ in pairs], [weight for _, weight in pairs])


def _objects(items: object, names: tuple[str, ...]) -> Loras:
    """A list of objects with a weight and, under one of ``names``, a name or an object that has one."""
    found = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, Mapping) and (
            name := _model_name(next((item[n] for n in names if item.get(n)), None))
        ):
            weight = real(item.get("weight"))
            found.append((name, 1.0 if weight is None else weight))
    return tuple(found)


def _draw_things_loras(content: Object) -> Loras:
    newer = content.get("v2")
    if isinstance(newer, Mapping) and (loras := _objects(newer.get("loras"), ("file",))):
        return loras
    return _objects(content.get("lora"), ("model", "file"))


# ── the tools ───────────────────────────────────────────────────────────────────────────────────────────────


def _has(*keys: str) -> Callable[[Object], Object | None]:
    return lambda content: content if all(key in content for key in keys) else None


def _swarm(content: Object) -> Object | None:
    inner = content.get("sui_image_params")
    return inner if isinstance(inner, Mapping) else None


def _fooocus(content: Object) -> Object | None:
    named = content.get("metadata_scheme") == "fooocus" or "MRE" in clean(content.get("software"))
    return content if named or {"base_model", "guidance_scale", "performance"} <= content.keys() else None


def _novelai(content: Object) -> Object | None:
    """NovelAI's ``Comment``, with the description and source beside it (https://docs.novelai.net).

    Version 4 keeps the prompt of each character apart, with its place; these are left.
    """
    if not clean(content.get("Software") or content.get("Title")).startswith(("NovelAI", "AI generated")):
        return None
    comment = parse_json(clean(content.get("Comment")))
    if not isinstance(comment, Mapping):
        return None
    captions = {
        side: _mapping(_mapping(comment.get(key)).get("caption"))
        for side, key in (("prompt", "v4_prompt"), ("uc", "v4_negative_prompt"))
    }
    base = {side: clean(caption.get("base_caption")) for side, caption in captions.items()}
    characters = [
        words
        for item in _items(captions["prompt"].get("char_captions"))
        if (words := clean(_mapping(item).get("char_caption")))
    ]
    found = {**comment, "source": content.get("Source")}
    found["prompt"] = base["prompt"] or comment.get("prompt") or content.get("Description")
    found["uc"] = comment.get("uc") or base["uc"]
    return found | {f"character {n}": words for n, words in enumerate(characters, 1)}


def _mapping(value: object) -> Object:
    return value if isinstance(value, Mapping) else {}


def _draw_things(content: Object) -> Object | None:
    return content if {"c", "uc"} <= content.keys() and ("steps" in content or "seed" in content) else None


def _tensor_art(content: Object) -> Object | None:
    if not {"prompt", "negativePrompt", "samplerName"} <= content.keys():
        return None
    return content | {"model": content.get("baseModel") or next(_typed(content, "BASE_MODEL"), None)}  # type: ignore[operator]


def _typed(content: Object, kind: str) -> Iterator[Object]:
    models = content.get("models")
    for item in models if isinstance(models, list) else []:
        if isinstance(item, Mapping) and item.get("type") == kind:
            yield item


def _invoke(content: Object) -> Object | None:
    known = ("positive_prompt", "generation_mode", "seed", "model", "app_version")
    newer = "positive_prompt" in content or {"generation_mode", "app_version"} & content.keys()
    return content if newer and any(key in content for key in known) else None


FORMS = (
    _Form(
        tool="SwarmUI", inner=_swarm, negative=("negativeprompt",), guidance=("cfgscale",), distilled=("fluxguidancescale",),
        loras=_swarm_loras, lora_keys=("loras", "loraweights"), ignored=("swarm_version", "images", "aspectratio"),
    ),
    _Form(
        tool="RuinedFooocus", inner=lambda content: content if content.get("software") == "RuinedFooocus" else None,
        prompt=("Prompt", "prompt"), negative=("Negative",), guidance=("cfg",), sampler=("sampler_name",),
        model=("base_model_name",), loras=_ruined_loras, lora_keys=("loras",), ignored=("software", "base_model_hash"),
    ),
    _Form(
        tool="Fooocus", inner=_fooocus, guidance=("guidance_scale", "cfg"), size="resolution", model=("base_model",),
        loras=_fooocus_loras, lora_keys=("loras", *(f"lora_combined_{n}" for n in range(1, 11))),
        ignored=("metadata_scheme", "version", "software", "base_model_hash", "created_by", "full_prompt", "full_negative_prompt"),
    ),
    _Form(
        tool="NovelAI", inner=_novelai, negative=("uc",), guidance=("scale",), model=("source",),
        ignored=("v4_prompt", "v4_negative_prompt", "signed_hash", "request_type", "n_samples", "version"),
    ),
    _Form(
        tool="Easy Diffusion", inner=_has("use_stable_diffusion_model"), sampler=("sampler_name",), steps=("num_inference_steps",),
        guidance=("guidance_scale",), model=("use_stable_diffusion_model",),
        loras=lambda content: _paired(content.get("use_lora_model"), content.get("lora_alpha")),
        lora_keys=("use_lora_model", "lora_alpha"),
    ),
    _Form(
        tool="Easy Diffusion", inner=_has("Stable Diffusion model"), prompt=("Prompt",), negative=("Negative Prompt",),
        seed=("Seed",), steps=("Steps",), sampler=("Sampler",), guidance=("Guidance Scale",), width=("Width",), height=("Height",),
        model=("Stable Diffusion model",), lora_keys=("LoRA model", "LoRA Strength"),
        loras=lambda content: _paired(
            *(clean(content.get(key)).split(", ") if content.get(key) else None for key in ("LoRA model", "LoRA Strength"))
        ),
    ),
    _Form(
        tool="mflux", inner=_has("mflux_version"),
        loras=lambda content: _paired(content.get("lora_paths"), content.get("lora_scales")),
        lora_keys=("lora_paths", "lora_scales"), ignored=("mflux_version", "generation_time_seconds", "created_at"),
    ),
    _Form(
        tool="TensorArt", inner=_tensor_art, negative=("negativePrompt",), sampler=("samplerName",), guidance=("cfgScale",),
        loras=lambda content: _objects(list(_typed(content, "LORA")), ("label", "modelFileName")),
        lora_keys=("models", "baseModel"),
    ),
    _Form(
        tool="Draw Things", inner=_draw_things, prompt=("c",), negative=("uc",), guidance=("scale",), size="size",
        loras=_draw_things_loras, lora_keys=("lora", "v2"), ignored=("profile",),
    ),
    _Form(
        tool="InvokeAI", inner=_invoke, prompt=("positive_prompt",), sampler=("scheduler",), guidance=("cfg_scale",),
        distilled=("guidance",), loras=lambda content: _objects(content.get("loras"), ("model", "lora")), lora_keys=("loras",),
        ignored=("app_version", "generation_mode"),
    ),
)  # fmt: skip


# ── texts that are not JSON ─────────────────────────────────────────────────────────────────────────────────


def read_invoke_2(content: Any) -> Recipe | None:
    """InvokeAI 2's field ``sd-metadata``: the settings are under "image", the negative prompt in [brackets]."""
    image = _mapping(_mapping(content).get("image"))
    prompt = image.get("prompt")
    if isinstance(prompt, list):  # [{"prompt": …, "weight": …}, …]
        prompt = ", ".join(clean(_mapping(part).get("prompt")) for part in prompt)
    if not isinstance(prompt, str):
        return None
    return _invoke_recipe(
        prompt, image, content, clean(content.get("model_weights")) or clean(content.get("model"))
    )


def read_dream(content: str) -> Recipe | None:
    """InvokeAI 1's field ``Dream``: ``"prompt [negative]" -s 50 -S 7 -W 512 -H 512 -C 7.5 -A k_lms``."""
    if not (
        found := re.fullmatch(
            r'"(.{0,100000})"((?:\s+-{1,2}[\w-]{1,40}(?:[ =][^\s-]\S{0,200})?){1,60})\s*', content, re.DOTALL
        )
    ):
        return None
    options = dict(re.findall(r"\s-(\w)\s?(\S+)", found[2]))
    names = {"s": "steps", "S": "seed", "W": "width", "H": "height", "C": "cfg_scale", "A": "sampler"}
    values = {names.get(key, f"-{key}"): value for key, value in options.items()}
    return _invoke_recipe(found[1], values, {"Dream": content}, "")


def _invoke_recipe(prompt: str, values: Object, raw: Object, model: str) -> Recipe:
    negative = [clean(words) for words in re.findall(r"\[([^\[\]]*)\]", prompt)]
    used = ("prompt", "steps", "seed", "width", "height", "cfg_scale", "sampler")
    return Recipe(
        tool="InvokeAI",
        prompt=" ".join(re.sub(r"\[[^\[\]]*\]", " ", prompt).split()),
        negative_prompt=", ".join(filter(None, negative)),
        seed=whole(values.get("seed")),
        steps=whole(values.get("steps")),
        sampler=clean(values.get("sampler")) or None,
        guidance=real(values.get("cfg_scale")),
        width=whole(values.get("width")),
        height=whole(values.get("height")),
        model=model or None,
        left=left_over({key: value for key, value in values.items() if key not in used}),
        raw=dict(raw),
    )


def read_midjourney(content: str) -> Recipe | None:
    """Midjourney's ``Description``: ``prompt --ar 3:2 --seed 5 --no fog Job ID: …``."""
    words, job, rest = content.partition("Job ID:")
    if not job or len(content) > 100_000:
        return None
    prompt, *options = re.split(r"\s--(?=[a-z])", words)
    values = dict((clean(option) + " ").split(" ", 1) for option in options)
    left = {f"--{name}": value.strip() for name, value in values.items() if name not in ("seed", "no")}
    return Recipe(
        tool="Midjourney",
        prompt=clean(prompt),
        negative_prompt=clean(values.get("no")),
        seed=whole(values.get("seed")),
        left=left_over(left | {"Job ID": rest.strip()}),
        raw={"Description": content},
    )
