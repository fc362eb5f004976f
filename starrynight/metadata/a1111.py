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

from starrynight.metadata.recipe import OURS, Recipe, real, whole
from starrynight.text import clean

TOOL = "A1111"
MAX_SETTINGS = 1 << 16  # characters of the last line that are parsed
_NEGATIVE = "Negative prompt:"
_MARKER = re.compile(r"(?i)(negative prompt)(?=:)")
# Bounded repetitions: unbounded ones take quadratic time on a hostile text of four million letters.
_FIELD = re.compile(r'\s?(\w[\w \-/]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_LORA = re.compile(r"<lora:([^:<>\n]{1,200})(?::(-?\d{1,4}(?:\.\d{1,8})?))?(?::[^<>\n]{0,50})?>")


def write(recipe: Mapping[str, Any]) -> str:
    """The A1111 text of a recipe of ``picture.make_recipe``."""
    request = recipe["request"]
    prompt = recipe["prompt"] + "".join(
        f" <lora:{_stem(name)}:{weight:g}>" for name, weight in request.get("loras", ())
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
    """The recipe in an A1111 text, or ``None`` if its last line is not settings with "Steps" and two more."""
    *lines, last = clean(content).split("\n")
    fields = {key.strip(): _unquote(value.strip()) for key, value in _FIELD.findall(last[:MAX_SETTINGS])}
    if "Steps" not in fields or len(fields) < 3:
        return None
    start = next((i for i, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).removeprefix(_NEGATIVE)
    prompt, loras = take_loras("\n".join(lines[:start]))
    size = re.fullmatch(r"(\d{1,6})x(\d{1,6})", fields.get("Size", ""), re.ASCII)
    return Recipe(
        tool=TOOL,
        prompt=prompt,
        negative_prompt=clean(negative),
        seed=whole(fields.get("Seed")),
        steps=whole(fields.get("Steps")),
        sampler=clean(fields.get("Sampler")) or None,
        guidance=real(fields.get("CFG scale")),
        width=int(size[1]) if size else None,
        height=int(size[2]) if size else None,
        model=clean(fields.get("Model")) or None,
        loras=loras,
        raw={"parameters": content, **fields, **(raw or {})},
    )


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
    return json.dumps(plain, ensure_ascii=False) if re.search(r'[,:"\n]', plain) else plain


def _unquote(value: str) -> str:
    if len(value) < 2 or not value.startswith('"') or not value.endswith('"'):
        return value
    try:
        return str(json.loads(value))
    except (ValueError, RecursionError):
        return value


def _precision(plan: Mapping[str, Any]) -> str:
    """The number formats used: "bfloat16", or "bfloat16 + float32" when components differ."""
    return " + ".join(dict.fromkeys(_bare(str(choice["format"])) for choice in plan.values()))


def software(recipe: Mapping[str, Any]) -> str:
    """The program that wrote the file: "Starry Night 0.1.0"."""
    return " ".join(filter(None, (OURS, _bare(str(recipe["versions"].get("starry-night", ""))))))
