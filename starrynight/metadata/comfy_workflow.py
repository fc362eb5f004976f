"""Turn the workflow of ComfyUI's editor, with its nodes, links and widgets, into the API graph it would queue.

Follows the editor's ``graphToPrompt`` (github.com/Comfy-Org/ComfyUI_frontend): subgraphs are expanded, muted
nodes dropped, bypassed nodes and reroutes passed through, widgets named. Knows no recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_NODES, MAX_DEPTH = 5_000, 16
_NEVER, _BYPASS = 2, 4
_AFTER_SEED = ("fixed", "increment", "decrement", "randomize")
# Widgets in the order of the nodes' own source, for workflows whose inputs do not name them (before 2025).
_SAMPLER = ("steps", "cfg", "sampler_name", "scheduler")
WIDGETS: Mapping[str, tuple[str, ...]] = {
    "KSampler": ("seed", *_SAMPLER, "denoise"),
    "KSamplerAdvanced": ("add_noise", "noise_seed", *_SAMPLER, "start_at_step", "end_at_step", "return_with_leftover_noise"),
    "SamplerCustom": ("add_noise", "noise_seed", "cfg"),
    "RandomNoise": ("noise_seed",),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "FluxGuidance": ("guidance",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CLIPTextEncodeSDXL": ("width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "UnetLoaderGGUF": ("unet_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "EmptyFlux2LatentImage": ("width", "height", "batch_size"),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "SDXLPromptStyler": ("text_positive", "text_negative", "style", "log_prompt"),
    **dict.fromkeys(("PrimitiveNode", "PrimitiveInt", "PrimitiveFloat", "PrimitiveString", "PrimitiveStringMultiline"), ("value",)),
}  # fmt: skip


def api_graph(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The API graph of an editor's workflow; what is malformed is left out."""
    definitions = workflow.get("definitions")
    listed = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    subgraphs = {str(item.get("id")): item for item in _objects(listed)}
    editor = _Editor(subgraphs)
    editor.add(workflow, "", 0)
    return {
        name: {"class_type": str(node.get("type")), "inputs": editor.inputs(name, node)}
        for name, node in editor.nodes.items()
        if node.get("mode") not in (_NEVER, _BYPASS) and str(node.get("type")) not in subgraphs
    }


def _objects(items: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(items, list):
        yield from (item for item in items if isinstance(item, Mapping))


class _Editor:
    """Nodes by id ("57:3" is node 3 of the subgraph node 57), and the (node, output) that each link comes from."""

    def __init__(self, subgraphs: Mapping[str, Mapping[str, Any]]) -> None:
        self.subgraphs = subgraphs
        self.nodes: dict[str, Mapping[str, Any]] = {}
        self.links: dict[str, tuple[str, int]] = {}

    def add(self, graph: Mapping[str, Any], prefix: str, depth: int) -> None:
        links = graph.get("links")
        for link in links if isinstance(links, list) else []:
            if isinstance(link, Mapping):  # inside a subgraph
                link = [link.get("id"), link.get("origin_id"), link.get("origin_slot")]
            if isinstance(link, list) and len(link) >= 3 and isinstance(link[2], int):
                self.links[f"{prefix}{link[0]}"] = (f"{prefix}{link[1]}", link[2])
        for node in _objects(graph.get("nodes")):
            name = f"{prefix}{node.get('id')}"
            if len(self.nodes) >= MAX_NODES:
                return
            self.nodes[name] = node
            inner = self.subgraphs.get(str(node.get("type")))
            if inner and depth < MAX_DEPTH:
                self.add(inner, f"{name}:", depth + 1)

    def inputs(self, name: str, node: Mapping[str, Any]) -> dict[str, Any]:
        """Widgets, then links, which replace the widget of the same name."""
        found = _widgets(node)
        prefix = name.rpartition(":")[0]
        for item in _objects(node.get("inputs")):
            if item.get("link") is None:
                continue
            source = self._source(f"{prefix}:{item['link']}" if prefix else str(item["link"]))
            key = str(item.get("name"))
            if isinstance(source, tuple):
                found[key] = list(source)
            elif source is not None:
                found[key] = source.value
        return found

    def _source(self, link: str) -> tuple[str, int] | _Widget | None:
        """Where a link comes from, past bypassed nodes and the borders of subgraphs; ``None`` if nowhere."""
        for _ in range(200):
            if link not in self.links:
                return None
            origin, slot = self.links[link]
            node = self.nodes.get(origin)
            scope, _, local = origin.rpartition(":")
            if local == "-10":  # the subgraph's own input: the node outside feeds it, or its widget does
                outer = self.nodes.get(scope, {})
                items = list(_objects(outer.get("inputs")))
                item = items[slot] if 0 <= slot < len(items) else {}
                if item.get("link") is None:
                    widgets = _widgets(outer)
                    return (
                        _Widget(widgets[str(item.get("name"))]) if str(item.get("name")) in widgets else None
                    )
                link = _scoped(scope, item["link"])
            elif node is None:
                return origin, slot  # a link to a missing node: the reader says so
            elif node.get("mode") == _NEVER:
                return None
            elif node.get("mode") == _BYPASS or node.get("type") in ("Reroute", "Reroute (rgthree)"):
                following = _passed_through(node, slot)
                if following is None:
                    return None
                link = _scoped(origin, following)
            elif inner := self.subgraphs.get(str(node.get("type"))):
                outputs = list(_objects(inner.get("outputs")))
                ids = outputs[slot].get("linkIds") if 0 <= slot < len(outputs) else None
                if not isinstance(ids, list) or not ids:
                    return None
                link = f"{origin}:{ids[0]}"
            else:
                return origin, slot
        return None


class _Widget:
    """A value that a subgraph's node holds for a widget inside."""

    def __init__(self, value: object) -> None:
        self.value = value


def _scoped(node: str, link: object) -> str:
    """The key of a link in the graph that ``node`` stands in."""
    scope = node.rpartition(":")[0]
    return f"{scope}:{link}" if scope else str(link)


def _passed_through(node: Mapping[str, Any], slot: int) -> object:
    """The link that a bypassed node hands on: of the input with the output's type; a reroute has one."""
    outputs, inputs = list(_objects(node.get("outputs"))), list(_objects(node.get("inputs")))
    kind = outputs[slot].get("type") if 0 <= slot < len(outputs) else None
    same = [item for item in inputs if kind in (None, "*", item.get("type"))] or inputs[
        : node.get("mode") != _BYPASS
    ]
    return next((item["link"] for item in same if item.get("link") is not None), None)


def _widgets(node: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a node's widgets by name. After a seed stands what becomes of it, which has no name."""
    values = node.get("widgets_values")
    if isinstance(values, Mapping):
        return dict(values)
    if not isinstance(values, list):
        return {}
    named = [
        str(item.get("name"))
        for item in _objects(node.get("inputs"))
        if isinstance(item.get("widget"), Mapping)
    ]
    table = WIDGETS.get(str(node.get("type")))
    names = list(table or named)
    found, at = {}, 0
    for name in names:
        if at >= len(values):
            break
        found[name] = values[at]
        at += 1
        if name in ("seed", "noise_seed") and at < len(values) and values[at] in _AFTER_SEED:
            at += 1
    found |= {
        f"lora_{n}": value for n, value in enumerate(values) if isinstance(value, Mapping) and "lora" in value
    }
    return found
