"""Write and read the text form of Stable Diffusion WebUI (A1111), which nearly every tool reads.

    <prompt>
    Negative prompt: <negative prompt>
    Steps: 8, Sampler: Euler, CFG scale: 2, Seed: 7, Size: 256x256, Model: firefly

A value with a comma, colon or newline is quoted as JSON. A prompt cannot be quoted, so "Negative prompt:"
inside one gets a space before its colon; this package's own recipe, in the same file, keeps the prompt
exactly. Knows neither the file nor the field that contains the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from starrynight.i18n import Text
from starrynight.metadata.recipe import OURS, Loras, Recipe, left_over, real, true_guidance, whole
from starrynight.text import clean

TOOL = "A1111"
MAX_SETTINGS = 1 << 16  # characters of the last line that are parsed
_NEGATIVE = "Negative prompt:"
_MARKER = re.compile(r"(?i)(negative prompt)(?=:)")
# Bounded repetitions: unbounded ones take quadratic time on a hostile text of four million letters.
_KEY = re.compile(r"\s{0,8}(\w[\w \-/|.]{0,60}):[ \t]{0,8}")
_DECODER = json.JSONDecoder(parse_constant=str)
MAX_BROKEN = 8  # values of one line that begin like JSON and are not; each is parsed to the line's end
_KNOWN = {
    "Steps",
    "Seed",
    "Sampler",
    "CFG scale",
    "Size",
    "Model",
    "Model hash",
    "Schedule type",
    "Guidance Scale",
    "Version",
}
_READ = {
    *(
        "Steps",
        "Seed",
        "Sampler",
        "CFG scale",
        "CFG Scale",
        "Guidance Scale",
        "Distilled CFG Scale",
        "Size",
        "Size-1",
        "Size-2",
    ),
    *("Model", "Lora weights", "Version", "App"),
}
# How the text's last settings begin in the tools that write it.
_PROGRAMS = {
    "f": "Forge",
    "neo": "Forge",
    "SD.Next": "SD.Next",
    "Fooocus": "Fooocus",
    "ComfyUI": "ComfyUI",
    "stable-diffusion.cpp": "stable-diffusion.cpp",
}
_LORA = re.compile(r"<lora:([^:<>\n]{1,200})(?::(-?\d{1,4}(?:\.\d{1,8})?))?(?::[^<>\n]{0,50})?>")


def write(recipe: Mapping[str, Any]) -> str:
    """The A1111 text of a recipe of ``picture.make_recipe``."""
    request = recipe["request"]
    prompt = recipe["prompt"] + "".join(
        f" <lora:{_stem(name)}:{':'.join(f'{weight:g}' for weight in weights)}>"
        for name, *weights in request.get("loras", ())
    )
    model = recipe["model"]
    fields = {
        "Steps": request["steps"],
        "Sampler": _bare(recipe.get("sampler") or request.get("sampler") or "default"),
        "CFG scale": f"{request['guidance']:g}",
        "Seed": recipe["seed"],
        "Size": f"{request['width']}x{request['height']}",
        "Model hash": _bare(str(model.get("hash") or model.get("fingerprint") or ""))[:10],
        "Model": _bare(_stem(model.get("name") or request["model"])),
        "Denoising strength": f"{request['strength']:g}" if request.get("init_image") else None,
        "Styles": _bare(request.get("style") or ""),
        "Precision": _precision(recipe["plan"]),
        "Version": software(recipe),
    }
    settings = ", ".join(
        f"{key}: {_quote(value)}" for key, value in fields.items() if value not in (None, "")
    )
    lines = [_escape_marker(prompt)]
    if recipe["negative_prompt"]:
        lines.append(f"{_NEGATIVE} {_escape_marker(recipe['negative_prompt'])}")
    return "\n".join([*lines, settings])


def read(content: str, raw: Mapping[str, Any] | None = None) -> Recipe | None:
    """The recipe in an A1111 text, or ``None`` if no line is settings and none begins a negative prompt.

    The settings are the last line with two of ``_KNOWN`` or more. Extensions write lines after it
    (``Template: …``, ``extraJsonMetaInfo: {…}``); their settings count too.
    """
    lines = clean(content).split("\n")
    at = next((i for i in reversed(range(len(lines))) if _is_settings(lines[i])), len(lines))
    start = next((i for i in range(at) if lines[i].strip().startswith(_NEGATIVE)), at)
    if at == len(lines) == start:
        return None
    fields: dict[str, Any] = {}
    for line in reversed(lines[at:]):  # the settings line last: its values win
        fields |= _settings(line)
    negative = (
        "\n".join([lines[start].strip().removeprefix(_NEGATIVE), *lines[start + 1 : at]])
        if start < at
        else ""
    )
    prompt, loras = take_loras("\n".join(lines[:start]))
    width, height = _size(fields)
    guidance, left = _guidance(fields)
    seed, steps = whole(fields.get("Seed")), whole(fields.get("Steps"))
    understood = {"Seed": seed, "Steps": steps, "Size": width, "CFG scale": guidance}
    left += left_over(
        {key: fields[key] for key, value in understood.items() if value is None and fields.get(key)}
    )
    return Recipe(
        tool=_tool(fields),
        prompt=prompt,
        negative_prompt=clean(negative),
        seed=seed,
        steps=steps,
        sampler=clean(fields.get("Sampler")) or None,
        guidance=guidance,
        width=width,
        height=height,
        model=clean(fields.get("Model")) or _resource(fields, "checkpoint"),
        loras=loras or _other_loras(fields),
        left=left + left_over({key: value for key, value in fields.items() if key not in _READ}),
        raw={"parameters": content, **fields, **(raw or {})},
    )


def _is_settings(line: str) -> bool:
    return len(line) > 8 and ":" in line[:64] and len(_KNOWN & _settings(line).keys()) >= 2


def _settings(line: str) -> dict[str, Any]:
    """The ``key: value`` pairs of a line. A value is quoted JSON text, a JSON object or list, or ends at a comma."""
    fields: dict[str, Any] = {}
    line, at, broken = line[:MAX_SETTINGS], 0, 0
    while at < len(line):
        if not (found := _KEY.match(line, at)):  # a piece without a key
            at = comma + 1 if (comma := line.find(",", at)) >= 0 else len(line)
            continue
        key, start = found[1].strip(), found.end()
        value: Any = None
        if line[start : start + 1] in ("[", "{", '"') and broken < MAX_BROKEN:
            try:
                value, end = _DECODER.raw_decode(line, start)
            except (ValueError, RecursionError):
                broken += 1
        if value is None:
            end = line.find(",", start)
            end = len(line) if end < 0 else end
            value = line[start:end].strip()
        comma = line.find(",", end)
        at = len(line) if comma < 0 else comma + 1
        fields.setdefault(key, value)
    return fields


def _size(fields: Mapping[str, Any]) -> tuple[int | None, int | None]:
    size = re.fullmatch(r"(\d{1,6})\s*[x×]\s*(\d{1,6})", clean(fields.get("Size")), re.ASCII)
    if size:
        return int(size[1]), int(size[2])
    return whole(fields.get("Size-1")), whole(fields.get("Size-2"))


def _guidance(fields: Mapping[str, Any]) -> tuple[float | None, tuple[Text, ...]]:
    """Forge writes "Distilled CFG Scale" for models distilled from guidance only. stable-diffusion.cpp writes
    "Guidance" for every model, whether it reads it or not, so that one is left."""
    scale = next(
        (real(fields[key]) for key in ("CFG scale", "CFG Scale", "Guidance Scale") if key in fields), None
    )
    return true_guidance(scale, real(fields.get("Distilled CFG Scale")))


def _tool(fields: Mapping[str, Any]) -> str:
    program = clean(fields.get("App")) or clean(fields.get("Version"))
    return next((tool for start, tool in _PROGRAMS.items() if program.startswith(start)), TOOL)


def _resources(fields: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """The entries of Civitai's list of models that are of this kind and have a name."""
    extra = fields.get("extraJsonMetaInfo")
    found = fields.get("Civitai resources") or (
        extra.get("Civitai resources") if isinstance(extra, Mapping) else None
    )
    items = [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []
    return [item for item in items if item.get("type") == kind and clean(item.get("modelName"))]


def _resource(fields: Mapping[str, Any], kind: str) -> str | None:
    found = _resources(fields, kind)
    return clean(found[0]["modelName"]) if found else None


def _other_loras(fields: Mapping[str, Any]) -> Loras:
    """LoRAs that no tag in the prompt names: Fooocus's "Lora weights", Civitai's resources."""
    pairs = [part.rpartition(": ") for part in clean(fields.get("Lora weights")).split(", ")]
    named = [(name, weight) for name, colon, weight in pairs if colon]
    named += [(item["modelName"], item.get("weight", 1.0)) for item in _resources(fields, "lora")]
    return tuple((clean(name), w) for name, weight in named if (w := real(weight)) is not None)


def take_loras(prompt: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """``prompt`` without its ``<lora:name:weight>`` tags, and each (name, weight); a missing weight is 1."""
    loras = tuple((clean(name), real(weight or "1") or 0.0) for name, weight in _LORA.findall(prompt))
    return (clean(re.sub(r"[ \t]?" + _LORA.pattern, "", prompt)) if loras else clean(prompt)), loras


def _escape_marker(prompt: str) -> str:
    return _MARKER.sub(r"\1 ", prompt)


def _stem(name: str) -> str:
    """A checkpoint's or LoRA's name without folder, suffix and the characters that end a LoRA tag."""
    return re.sub(r"[:<>\n]", " ", re.sub(r"^.*[/\\]", "", name).removesuffix(".safetensors"))


def _bare(name: str) -> str:
    """``name`` without commas, colons, quotes and newlines, as A1111 does for readers without quoting."""
    return re.sub(r'[,:"\n]', "", name)


def _quote(value: object) -> str:
    plain = str(value)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False) if re.search(r'[,:"\n]', plain) else plain


def _precision(plan: Mapping[str, Any]) -> str:
    """The number formats used: "bfloat16", or "bfloat16 + float32" when components differ."""
    return " + ".join(dict.fromkeys(_bare(str(choice["format"])) for choice in plan.values()))


def software(recipe: Mapping[str, Any]) -> str:
    """The program that wrote the file: "Starry Night 0.1.0"."""
    return " ".join(filter(None, (OURS, _bare(str(recipe["versions"].get("starry-night", ""))))))
