"""Read ComfyUI's recipe: the API graph in the ``prompt`` field, followed from saved picture to sampler.

Where a file has only the editor's ``workflow``, ``comfy_workflow`` turns that into an API graph. Civitai keeps
an API graph with the user's own settings beside it, in ``extraMetadata``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from starrynight.i18n import Text
from starrynight.metadata import comfy_workflow
from starrynight.metadata.comfy_graph import MAX_VISITS, TEXTS, Graph, Inputs, target
from starrynight.metadata.recipe import Loras, Recipe, left_over, real, true_guidance, whole
from starrynight.text import clean, excerpt, parse_json

TOOL = "ComfyUI"
MAX_SAMPLERS = 20
_NOT_TEXT = ("clip", "model", "vae", "image", "pixels", "control_net", "mask", "samples", "latent")
_NOT_MODEL = ("clip", "vae", "positive", "negative", "conditioning", "image", "latent_image", "samples")
_MODELS = ("ckpt_name", "unet_name", "model_name", "base_ckpt_name", "model_path", "gguf_name")
_LATENTS = ("latent_image", "latent", "samples", "pixels", "image", "images")
_PIPES = ("pipe", "basic_pipe", "context", "base_ctx", "sdxl_tuple")


def read(content: Any) -> Recipe | None:
    """The recipe in a parsed API graph, an editor's workflow, Civitai's graph, or an object with a ``prompt`` and a
    ``workflow``. ``None`` if no sampler is in it."""
    if not isinstance(content, Mapping):
        return None
    if "nodes" in content and isinstance(content["nodes"], list):
        recipe = _from_graph(comfy_workflow.api_graph(content))
        return recipe and dataclasses.replace(recipe, raw={"workflow": dict(content)})
    for key in ("prompt", "workflow"):
        inner = content.get(key)
        inner = parse_json(inner) if isinstance(inner, str) and inner.lstrip().startswith("{") else inner
        if isinstance(inner, Mapping) and "class_type" not in inner and (recipe := read(inner)):
            return recipe
    recipe = _from_graph(content)
    extra = content.get("extraMetadata")
    settings = parse_json(extra) if isinstance(extra, str) else extra
    if isinstance(settings, Mapping) and clean(settings.get("prompt")):
        return _with_civitai(recipe, settings, content)
    return recipe and dataclasses.replace(recipe, raw={"prompt": dict(content)})


def _with_civitai(recipe: Recipe | None, settings: Inputs, content: Inputs) -> Recipe:
    """What the graph does not say, from the user's settings; an upscaler's graph has no sampler at all."""
    known = recipe or Recipe(tool="Civitai")
    extra = content.get("extra")
    airs = extra.get("airs") if isinstance(extra, Mapping) else None
    names = {
        name.rpartition("@")[2]: name
        for name in map(clean, airs if isinstance(airs, list) else [])
        if ":" in name
    }
    listed = settings.get("resources")
    resources = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    loras = [
        (names[str(item.get("modelVersionId"))], real(item.get("strength")))
        for item in resources
        if ":lora" in names.get(str(item.get("modelVersionId")), "")
    ]
    model = next((name for name in names.values() if ":checkpoint:" in name), None)
    read_keys = (
        "prompt",
        "negativePrompt",
        "seed",
        "steps",
        "sampler",
        "cfgScale",
        "width",
        "height",
        "resources",
    )
    left = left_over({key: value for key, value in settings.items() if key not in read_keys})
    return dataclasses.replace(
        known,
        tool="Civitai",
        prompt=known.prompt or clean(settings.get("prompt")),
        negative_prompt=known.negative_prompt or clean(settings.get("negativePrompt")),
        seed=_known(known.seed, whole(settings.get("seed"))),
        steps=_known(known.steps, whole(settings.get("steps"))),
        sampler=known.sampler or clean(settings.get("sampler")) or None,
        guidance=_known(known.guidance, real(settings.get("cfgScale"))),
        width=_known(known.width, whole(settings.get("width"))),
        height=_known(known.height, whole(settings.get("height"))),
        model=known.model or model or clean(settings.get("baseModel")) or None,
        loras=known.loras or tuple((name, 1.0 if weight is None else weight) for name, weight in loras),
        left=known.left + left,
        raw=dict(content),
    )


def _known(first: Any, second: Any) -> Any:
    return second if first is None else first


def _from_graph(graph: Inputs) -> Recipe | None:
    nodes = {str(name): node["inputs"] for name, node in graph.items() if _is_node(node)}
    kinds = {str(name): str(node["class_type"]) for name, node in graph.items() if _is_node(node)}
    search = _Search(nodes, kinds)
    sampler = search.base_sampler()
    if sampler is None:
        return None
    pipe = next((sampler[name] for name in _PIPES if target(sampler.get(name))), None)
    guider = search.inputs(sampler.get("guider")) or sampler
    noise = search.inputs(sampler.get("noise")) or sampler
    positive = guider.get("positive", guider.get("conditioning", guider.get("cond1", pipe)))
    model, loras = search.model(guider.get("model", sampler.get("model", pipe)))
    width, height = search.size(sampler.get("latent_image", sampler.get("latent", pipe)))
    steps = sampler.get("steps", search.first(sampler.get("sigmas"), "steps"))
    scale = search.number(guider.get("cfg", guider.get("cfg_conds")), real)
    guidance, left = true_guidance(scale, search.flux_guidance(positive))
    name = sampler.get("sampler_name") or search.first(sampler.get("sampler"), "sampler_name")
    settings = {"scheduler": sampler.get("scheduler", search.first(sampler.get("sigmas"), "scheduler"))}
    if (denoise := real(sampler.get("denoise"))) not in (None, 1.0):
        settings["denoise"] = denoise
    return Recipe(
        tool=TOOL,
        prompt=search.texts(positive, 0),
        negative_prompt=search.texts(guider.get("negative", None if guider is not sampler else pipe), 1),
        seed=search.number(noise.get("noise_seed", noise.get("seed")), whole),
        steps=search.number(steps, whole),
        sampler=clean(search.text(name)) or None,
        guidance=guidance,
        width=width,
        height=height,
        model=model,
        loras=loras,
        left=left + left_over({k: v for k, v in settings.items() if not isinstance(v, list)}) + search.said(),
    )


def _is_node(node: object) -> bool:
    return isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping) and "class_type" in node


def _is_sampler(inputs: Inputs) -> bool:
    """KSampler, KSamplerAdvanced, SamplerCustom, SamplerCustomAdvanced and custom nodes of their form."""
    if any(target(inputs.get(name)) for name in _PIPES) and "steps" in inputs:
        return "seed" in inputs or "noise_seed" in inputs
    if {"seed", "steps", "cfg", "sampler_name"} <= inputs.keys() and "image" not in inputs:
        return True  # a KSampler whose links are not in the file
    steered = "positive" in inputs or "guider" in inputs or "conditioning" in inputs
    starts = "latent_image" in inputs or "noise" in inputs
    return steered and starts and ("steps" in inputs or "sigmas" in inputs)


class _Search(Graph):
    """What a recipe asks of a graph."""

    def base_sampler(self) -> Inputs | None:
        """The first sampler in the saved picture's chain: its seed and size started the picture.

        A graph may save several pictures, and a file does not tell which of them it is: then the first is
        taken, and ``said`` tells so.
        """
        saves = [name for name, kind in self.kinds.items() if re.search(r"(?i)save.*image|image.*save", kind)]
        previews = [name for name, kind in self.kinds.items() if "PreviewImage" in kind]
        bases: dict[str, None] = {}
        for end in saves or previews:
            if base := self._base_of([end]):
                bases[base] = None
        if not bases and (base := self._base_of(list(self.nodes))):
            bases[base] = None
        if len(bases) > 1:
            names = ", ".join(map(excerpt, bases))
            self.unknown["\0samplers"] = Text(
                f"several samplers ({names}) lead to a saved picture; the first is shown",
                f"有多个采样器（{names}）通向保存的图片；这里显示第一个",
            )
        return self.nodes[next(iter(bases))] if bases else None

    def _base_of(self, ends: list[str]) -> str | None:
        samplers = [node for node in self.upstream(ends) if _is_sampler(self.nodes[node])]
        for node in samplers[:MAX_SAMPLERS]:
            before = self.upstream([node], only=_LATENTS)
            if not any(other != node and _is_sampler(self.nodes[other]) for other in before):
                return node
        return samplers[-1] if samplers else None

    def said(self) -> tuple[Text, ...]:
        return tuple(self.unknown.values())[:20]

    def texts(self, link: object, output: int) -> str:
        """The texts upstream of a conditioning link, joined by commas. ``output``: 0 positive, 1 negative."""
        side, other = ("positive", "negative") if output == 0 else ("negative", "positive")
        start = target(link)
        found: dict[str, None] = {}
        queue: list[str] = [start] if start else []
        if start and start not in self.nodes:
            self.leave(start, "is not in the graph", "不在图里")
        seen = set(queue)
        for node in queue:  # grows as it is walked
            inputs = self.nodes.get(node, {})
            if len(seen) > MAX_VISITS or self.kinds.get(node) == "ConditioningZeroOut":
                continue
            two_sided = "positive" in inputs and "negative" in inputs  # a ControlNet passes both through
            for name in [side] if two_sided else [n for n in inputs if n not in _NOT_TEXT and n != other]:
                linked = target(inputs[name])
                is_text = name in TEXTS and not two_sided
                if isinstance(inputs[name], str) and (is_text or name == side):
                    words: str | None = clean(inputs[name])
                elif is_text and linked and len(seen) < MAX_VISITS:
                    words = self.text(inputs[name])
                else:
                    words = None
                    if linked and linked not in seen:
                        seen.add(linked)
                        queue.append(linked)
                if words:
                    found[words] = None
        return ", ".join(found)

    def flux_guidance(self, link: object) -> float | None:
        start = target(link)
        for node in self.upstream([start] if start else [], skip=_NOT_TEXT):
            if "guidance" in self.nodes.get(node, {}):
                return self.number(self.nodes[node]["guidance"], real)
        return None

    def model(self, link: object) -> tuple[str | None, Loras]:
        """The checkpoint's name, and the (name, weight) of each LoRA between it and the sampler."""
        start, models = target(link), []
        stacks: list[Loras] = []
        for node in self.upstream([start] if start else [], skip=_NOT_MODEL):
            inputs = self.nodes.get(node, {})
            if loras := self._loras(node, inputs):
                stacks.append(loras)
            if name := next((clean(inputs[key]) for key in _MODELS if clean(inputs.get(key))), None):
                models.append(name)
        if len(models) > 1:
            line = left_over({"other models": ", ".join(models[1:5])})[0]
            self.unknown["\0models"] = line
        ordered = [lora for stack in reversed(stacks) for lora in stack]
        return (models[0] if models else None), tuple(dict.fromkeys(ordered))

    def _loras(self, node: str, inputs: Inputs) -> Loras:
        """The LoRAs that one node applies, in its order: one, a stack with numbered inputs, or a list of objects."""
        count = self.number(inputs.get("lora_count", inputs.get("num_loras")), whole)
        found = []
        for name, value in list(inputs.items())[:500]:
            if isinstance(value, Mapping):  # rgthree's Power Lora Loader, LoRA Manager
                listed = value.get("__value__")
                for item in listed if isinstance(listed, list) else [value]:
                    found.append(self._object(item) if isinstance(item, Mapping) else None)
            elif (key := re.fullmatch(r"lora(?:_name)?(?:_(\d{1,3}))?(?:_name)?", name)) and clean(
                value
            ) not in ("", "None"):
                number = key[1] or ""
                if not self._is_off(inputs, number) and (count is None or not number or int(number) <= count):
                    found.append((clean(value), self._weight(node, clean(value), inputs, number)))
        return tuple((name, weight) for name, weight in filter(None, found) if weight is not None)

    def _object(self, item: Inputs) -> tuple[str, float | None] | None:
        name = clean(item.get("lora")) or clean(item.get("name"))
        if name in ("", "None") or not item.get("on", item.get("active", True)):
            return None
        return name, real(item.get("strength", 1.0))

    def _is_off(self, inputs: Inputs, number: str) -> bool:
        states = (
            inputs.get(name)
            for name in (
                f"switch_{number}",
                f"lora_{number}_enabled",
                "toggle",
                "bypass" if not number else "",
            )
        )
        off = any(
            state in ("Off", False)
            for state in states
            if not isinstance(state, list) and state is not None and state is not True
        )
        return off and "bypass" not in inputs

    def _weight(self, node: str, name: str, inputs: Inputs, number: str) -> float | None:
        n = f"_{number}" if number else ""
        keys = (
            *(f"{key}{n}" for key in ("strength_model", "strength", "model_weight", "lora_wt", "model_str", "lora_strength", "weight")),
            *(f"lora{n}_{key}" for key in ("model_strength", "strength", "weight")),
        )  # fmt: skip
        value = next((inputs[key] for key in keys if key in inputs), 1.0)
        weight: float | None = self.number(value, real)
        if weight is None:
            en = f"the weight of the LoRA {excerpt(name)} is computed"
            self.unknown[f"{node}\0{name}"] = Text(en, f"LoRA {excerpt(name)} 的权重由节点计算")
        return weight

    def size(self, link: object) -> tuple[int | None, int | None]:
        start = target(link)
        for node in self.upstream([start] if start else []):
            inputs = self.nodes.get(node, {})
            if "width" in inputs and "height" in inputs:
                width, height = self.number(inputs["width"], whole), self.number(inputs["height"], whole)
                if width and height:
                    return width, height
        return None, None
