"""Read ComfyUI's recipe: the API graph in the ``prompt`` field, followed from saved picture to sampler.

A graph is ``{node id: {"class_type": …, "inputs": {name: value or [node id, output]}}}``. An input that is a
two-item list is a link to another node, whatever the node's class; so custom nodes need no table. The graph
is untrusted: links may be missing, circular or of the wrong type. No node is executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from starrynight.metadata.recipe import Recipe, real, whole
from starrynight.text import clean

TOOL = "ComfyUI"
# Bounds for a hostile graph: nodes visited per question, and samplers considered.
MAX_VISITS, MAX_SAMPLERS = 10_000, 20
_TEXTS = (
    "text",
    "text_g",
    "text_l",
    "t5xxl",
    "clip_l",
    "prompt",
    "string",
    "value",
    "positive",
    "populated_text",
)
_NUMBERS = ("value", "seed", "noise_seed", "int", "float", "number", "Number")
_NOT_TEXT = ("clip", "model", "vae", "image", "pixels", "control_net", "mask", "samples", "latent")
_MODELS = ("ckpt_name", "unet_name", "model_name", "base_ckpt_name")

Inputs = Mapping[str, Any]


def read(graph: Any) -> Recipe | None:
    """The recipe in an API graph (already parsed from JSON), or ``None`` if no sampler is in it."""
    if not isinstance(graph, Mapping):
        return None
    nodes = {str(name): node["inputs"] for name, node in graph.items() if _is_node(node)}
    kinds = {str(name): str(node["class_type"]) for name, node in graph.items() if _is_node(node)}
    search = _Graph(nodes, kinds)
    sampler = search.base_sampler()
    if sampler is None:
        return None
    guider = search.inputs(sampler.get("guider")) or sampler
    sigmas = search.inputs(sampler.get("sigmas")) or sampler
    noise = search.inputs(sampler.get("noise")) or sampler
    positive = guider.get("positive", guider.get("conditioning"))
    model, loras = search.model(guider.get("model", sampler.get("model")))
    width, height = search.size(sampler.get("latent_image", sampler.get("latent")))
    guidance = search.number(guider.get("cfg"), real)
    name = sampler.get("sampler_name") or (search.inputs(sampler.get("sampler")) or {}).get("sampler_name")
    return Recipe(
        tool=TOOL,
        prompt=search.texts(positive, 0),
        negative_prompt=search.texts(guider.get("negative"), 1),
        seed=search.number(noise.get("noise_seed", noise.get("seed")), whole),
        steps=search.number(sigmas.get("steps"), whole),
        sampler=clean(name) or None,
        guidance=search.flux_guidance(positive) if guidance is None else guidance,
        width=width,
        height=height,
        model=model,
        loras=loras,
        raw={"prompt": dict(graph)},
    )


def _is_node(node: object) -> bool:
    return isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping) and "class_type" in node


def _is_sampler(inputs: Inputs) -> bool:
    """KSampler, KSamplerAdvanced, SamplerCustom, SamplerCustomAdvanced and custom nodes of their form."""
    steered = "positive" in inputs or "guider" in inputs
    return (
        steered
        and ("steps" in inputs or "sigmas" in inputs)
        and ("latent_image" in inputs or "noise" in inputs)
    )


class _Graph:
    """Searches of one graph: each follows links upstream, nearest first, and visits a node once."""

    def __init__(self, nodes: Mapping[str, Inputs], kinds: Mapping[str, str]) -> None:
        self.nodes, self.kinds = nodes, kinds

    def inputs(self, link: object) -> Inputs | None:
        return self.nodes.get(_target(link) or "")

    def upstream(
        self, start: list[str], skip: tuple[str, ...] = (), only: tuple[str, ...] = ()
    ) -> Iterator[str]:
        """Node ids upstream of ``start``, through inputs not in ``skip`` (or only those in ``only``)."""
        seen, queue = set(start), list(start)
        for node in queue:
            if len(seen) > MAX_VISITS:
                return
            yield node
            for name, value in self.nodes.get(node, {}).items():
                if name in skip or (only and name not in only):
                    continue
                if (target := _target(value)) and target in self.nodes and target not in seen:
                    seen.add(target)
                    queue.append(target)

    def base_sampler(self) -> Inputs | None:
        """The first sampler in the saved picture's chain: its seed and size started the picture."""
        ends = [name for name, kind in self.kinds.items() if "SaveImage" in kind] or list(self.nodes)
        samplers = [node for node in self.upstream(ends) if _is_sampler(self.nodes[node])]
        for node in samplers[:MAX_SAMPLERS]:
            before = self.upstream([node], only=("latent_image", "latent", "samples", "pixels", "image"))
            if not any(other != node and _is_sampler(self.nodes[other]) for other in before):
                return self.nodes[node]
        return self.nodes[samplers[-1]] if samplers else None

    def number(self, value: object, kind: Any) -> Any:
        """``value`` itself, or the value of the primitive node it links to, converted by ``kind``."""
        for _ in range(8):
            inputs = self.inputs(value)
            if inputs is None:
                break
            value = next((inputs[name] for name in _NUMBERS if name in inputs), None)
        return kind(value)

    def texts(self, link: object, output: int) -> str:
        """The texts upstream of a conditioning link, joined by commas. ``output``: 0 positive, 1 negative."""
        side, other = ("positive", "negative") if output == 0 else ("negative", "positive")
        start = _target(link)
        found: dict[str, None] = {}
        queue: list[str] = [start] if start else []
        seen = set(queue)
        for node in queue:  # grows as it is walked
            inputs = self.nodes.get(node, {})
            if len(seen) > MAX_VISITS or self.kinds.get(node) == "ConditioningZeroOut":
                continue
            two_sided = "positive" in inputs and "negative" in inputs  # a ControlNet passes both through
            for name in [side] if two_sided else [n for n in inputs if n not in _NOT_TEXT and n != other]:
                if (name == side or name in _TEXTS) and (words := clean(inputs[name])):
                    found[words] = None
                elif (target := _target(inputs[name])) and target not in seen:
                    seen.add(target)
                    queue.append(target)
        return ", ".join(found)

    def flux_guidance(self, link: object) -> float | None:
        start = _target(link)
        nodes = self.upstream([start] if start else [], skip=_NOT_TEXT)
        return next(
            (real(self.nodes[n]["guidance"]) for n in nodes if "guidance" in self.nodes.get(n, {})), None
        )

    def model(self, link: object) -> tuple[str | None, tuple[tuple[str, float], ...]]:
        """The checkpoint's name, and the (name, weight) of each LoRA between it and the sampler."""
        start, loras = _target(link), []
        for node in self.upstream([start] if start else [], skip=("clip", "vae")):
            inputs = self.nodes.get(node, {})
            if lora := clean(inputs.get("lora_name")):
                weight = self.number(inputs.get("strength_model", inputs.get("strength", 1.0)), real)
                loras.append((lora, 1.0 if weight is None else weight))
            if name := next((clean(inputs[key]) for key in _MODELS if clean(inputs.get(key))), None):
                return name, tuple(reversed(loras))
        return None, tuple(reversed(loras))

    def size(self, link: object) -> tuple[int | None, int | None]:
        start = _target(link)
        for node in self.upstream([start] if start else []):
            inputs = self.nodes.get(node, {})
            width, height = self.number(inputs.get("width"), whole), self.number(inputs.get("height"), whole)
            if width and height:
                return width, height
        return None, None


def _target(link: object) -> str | None:
    """The id of the linked node, or ``None`` if the value is not a link."""
    if not isinstance(link, list) or len(link) != 2:
        return None
    return str(link[0]) if isinstance(link[0], str | int) and isinstance(link[1], int) else None
