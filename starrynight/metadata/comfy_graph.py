"""ComfyUI's graph: its links followed, and the texts and numbers that its nodes give, without running a node.

A graph is ``{node id: {"class_type": …, "inputs": {name: value or [node id, output]}}}``. An input that is a
two-item list is a link to another node, whatever the node's class. The graph is untrusted: links may be
missing, circular or of the wrong type. A value that a node computes in a way unknown here is left out, and
``unknown`` says which node and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from starrynight.i18n import Text
from starrynight.text import clean, excerpt

Inputs = Mapping[str, Any]
MAX_VISITS, MAX_DEPTH = 10_000, 40  # bounds for a hostile graph: nodes visited per question, links in a chain
MAX_TEXTS = 2_000
MAX_WORDS = 1 << 20  # characters that concatenations may build
TEXTS = (
    *("text", "text_g", "text_l", "t5xxl", "clip_l", "clip_g", "llama", "prompt", "string", "value", "positive"),
    *("populated_text", "text_positive", "String", "Text", "prompt_text", "multiline_text"),
)  # fmt: skip
_NUMBERS = ("value", "seed", "noise_seed", "int", "float", "number", "Number", "Value")
# Nodes whose output is not the text or number in their inputs.
_COMPUTES = re.compile(
    r"(?i)ollama|llm|gpt|gemini|claude|florence|caption|translat|enhanc|expan|tagger|interrogat|vision|regex|deep"
    r"|random ?prompt|wildcard|shuffle|tokenize|tipo|onebutton"
)
_CALCULATES = re.compile(
    r"(?i)random|math|expression|calc|arith|compar|operation|scale|ratio|aspect|length|count|divi|multipl"
)
_PLAIN = re.compile(
    r"(?i)text|string|prompt|primitive|literal|note|value|constant|reroute|positive|negative|show|display|encode"
)
_NUMBERED = re.compile(r"(?i)(?:string|text|prompt|str|input|any|value)[_ ]?(?:(\d{1,3})|([a-z]))")
_DELIMITERS = ("delimiter", "separator", "separation", "joiner")


class Graph:
    """Searches of one graph. ``nodes``: inputs by id; ``kinds``: class by id."""

    def __init__(self, nodes: Mapping[str, Inputs], kinds: Mapping[str, str]) -> None:
        self.nodes, self.kinds = nodes, kinds
        self.unknown: dict[str, Text] = {}  # by node id
        self._asked = 0  # texts asked for; a node that joins itself twice doubles them at each link

    def inputs(self, link: object) -> Inputs | None:
        return self.nodes.get(target(link) or "")

    def upstream(
        self, start: list[str], skip: tuple[str, ...] = (), only: tuple[str, ...] = ()
    ) -> Iterator[str]:
        """Node ids upstream of ``start``, nearest first, through inputs not in ``skip`` (or only those in ``only``)."""
        seen, queue = set(start), list(start)
        for node in queue:
            if len(seen) > MAX_VISITS:
                return
            yield node
            for name, value in self.nodes.get(node, {}).items():
                if name in skip or (only and name not in only):
                    continue
                if (linked := target(value)) and linked in self.nodes and linked not in seen:
                    seen.add(linked)
                    queue.append(linked)

    def first(self, link: object, key: str) -> object:
        """The input ``key`` of the nearest node upstream of ``link`` that has it, or ``None``."""
        start = target(link)
        nodes = self.upstream([start] if start else [])
        return next((self.nodes[node][key] for node in nodes if key in self.nodes.get(node, {})), None)

    def number(self, value: object, kind: Any) -> Any:
        """``value`` itself, or the value of the constant that it links to, converted by ``kind``."""
        for _ in range(MAX_DEPTH):
            node = target(value)
            if node is None:
                return kind(value)
            inputs = self.nodes.get(node)
            if inputs is None:
                return self.leave(node, "is not in the graph", "不在图里")
            if (chosen := self._chosen(node, inputs)) is not None:
                value = inputs.get(chosen)
                continue
            names = [name for name in _NUMBERS if name in inputs]
            links = [item for item in inputs.values() if target(item)]
            if _CALCULATES.search(self.kinds[node]) or not (names or len(links) == 1):
                return self.leave(node, "computes a number", "要计算一个数")
            value = inputs[names[0]] if names else links[0]
        return None

    def text(self, value: object, depth: int = 0) -> str | None:
        """The text itself, or the one that the linked node gives; ``None`` if that is unknown."""
        node = target(value)
        if node is None:
            return clean(value) if isinstance(value, str) else None
        inputs = self.nodes.get(node)
        self._asked += 1
        if inputs is None or depth > MAX_DEPTH or self._asked > MAX_TEXTS:
            return self.leave(node, "is not in the graph, or links to itself", "不在图里，或者连回了自己")
        kind, output = self.kinds[node], value[1]  # type: ignore[index]
        if clean(inputs.get("populated_text")):  # a wildcard node keeps the text that it chose
            return clean(inputs["populated_text"])
        if (chosen := self._chosen(node, inputs)) is not None:
            return self.text(inputs.get(chosen), depth + 1)
        if "text_positive" in inputs and "text_negative" in inputs:
            return self._styled(node, inputs, output, depth)
        if re.search(r"(?i)concat|join", kind):
            return self._joined(node, inputs, depth)
        if re.search(r"(?i)replace", kind) and {"find", "replace"} <= inputs.keys():
            parts = [self.text(inputs.get(name), depth + 1) for name in ("string", "find", "replace")]
            if None not in parts and parts[1]:
                return parts[0].replace(parts[1], parts[2])[:MAX_WORDS]  # type: ignore[union-attr, arg-type]
        return self._single(node, inputs, depth)

    def _single(self, node: str, inputs: Inputs, depth: int) -> str | None:
        """The text of a node that has one; a node of an unknown class is said, because it may change the text."""
        kind = self.kinds[node]
        names = [name for name in TEXTS if name in inputs]
        if not names:
            names = [name for name, item in inputs.items() if target(item)]
        if len(names) != 1 or _COMPUTES.search(kind):
            return self.leave(node, "computes a text", "要计算一段文字")
        found = self.text(inputs[names[0]], depth + 1)
        if found and not _PLAIN.search(kind):
            en = f"node {excerpt(node)} ({excerpt(kind)}): its text is taken as it stands"
            self.unknown[node] = Text(en, f"节点 {excerpt(node)}（{excerpt(kind)}）：按原样采用它的文字")
        return found

    def _styled(self, node: str, inputs: Inputs, output: object, depth: int) -> str | None:
        """A styler's own words. Its style's are in a file of ComfyUI's; the style "base" adds none."""
        style = clean(inputs.get("style")) or clean(inputs.get("styles"))
        if style.lower() not in ("", "base", "no style", "none"):
            en = f"node {excerpt(node)}: the style “{excerpt(style)}” adds words that the file does not hold"
            self.unknown[node] = Text(en, f"节点 {excerpt(node)}：风格“{excerpt(style)}”添加的词不在文件里")
        return self.text(inputs["text_negative" if output == 1 else "text_positive"], depth + 1)

    def _joined(self, node: str, inputs: Inputs, depth: int) -> str | None:
        names = sorted((name for name in inputs if _NUMBERED.fullmatch(name)), key=_order)
        pieces = [(name, self.text(inputs[name], depth + 1)) for name in names]
        between = next((inputs[name] for name in _DELIMITERS if isinstance(inputs.get(name), str)), None)
        if not pieces or any(piece is None for _, piece in pieces) or between is None:
            return self.leave(node, "joins texts that are not all known", "拼接的文字不全知道")
        words = [inputs[name] if isinstance(inputs[name], str) else piece or "" for name, piece in pieces]
        if clean(inputs.get("clean_whitespace")) == "true":
            words = [word.strip() for word in words if word.strip()]
        if sum(map(len, words)) > MAX_WORDS:
            return None
        return clean(between.replace("\\n", "\n").join(words))

    def _chosen(self, node: str, inputs: Inputs) -> str | None:
        """The name of the input that a switch passes on, or ``None`` if the node is no switch or does not say."""
        if not re.search(r"(?i)switch|selector", self.kinds[node]):
            return None
        selector = next((inputs[name] for name in _SELECTORS if name in inputs), None)
        if target(selector):
            selector = self.number(selector, lambda found: found)
        if isinstance(selector, str) and re.fullmatch(r"\d{1,3}", selector):
            selector = int(selector)
        if isinstance(selector, bool):
            side = "on_true" if selector else "on_false"
            return next((name for name in (side, side.removeprefix("on_")) if name in inputs), None)
        numbered = {_order(name)[1]: name for name in inputs if _NUMBERED.fullmatch(name)}
        if isinstance(selector, int):
            return numbered.get(selector)
        # rgthree's "Any Switch" takes the first that is linked.
        linked = [numbered[n] for n in sorted(numbered) if target(inputs[numbered[n]]) in self.nodes]
        return linked[0] if selector is None and linked else None

    def leave(self, node: str, en: str, zh: str) -> Any:
        """Note why a node's value is left out; returns ``None``."""
        kind = excerpt(self.kinds.get(node, "?"))
        self.unknown[node] = Text(
            f"node {excerpt(node)} ({kind}) {en}", f"节点 {excerpt(node)}（{kind}）{zh}"
        )


_SELECTORS = ("select", "input", "Input", "boolean", "switch", "index", "choice", "selected")


def _order(name: str) -> tuple[int, int]:
    found = _NUMBERED.fullmatch(name)
    assert found
    return (0, int(found[1])) if found[1] else (1, ord(found[2].lower()) - ord("a") + 1)


def target(link: object) -> str | None:
    """The id of the linked node, or ``None`` if the value is not a link."""
    if not isinstance(link, list) or len(link) != 2 or isinstance(link[1], bool):
        return None
    return str(link[0]) if isinstance(link[0], str | int) and isinstance(link[1], int) else None
