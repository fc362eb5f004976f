"""The constructs of other tools' prompt syntax, each with its place in a text. Decides nothing; ``prompt_syntax`` reads them.

The syntax is that of AUTOMATIC1111's wiki ("Features: Attention/emphasis, Prompt editing, Extra networks"), of
sd-dynamic-prompts ("SYNTAX.md"), of InvokeAI's compel and of ComfyUI (``embedding:``). Tags of SwarmUI (<segment:face>), words of
Regional Prompter (ADDCOL) and NovelAI's 1.5::word:: are found, and not applied. Comments are those of A1111
(modules/processing_scripts/comments.py), Forge and ComfyUI: from # or // to the end of the line, and /* … */; a # before a letter
within a line stays, for it may be a hashtag or a colour. Only ASCII brackets are syntax: （星夜：1.3） is Chinese punctuation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BRACKET = 1.1  # the weight of (word); [word] has its reciprocal
CLOSING = {")": "(", "]": "[", "}": "{"}

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_COMPEL = re.compile(r"(?:(?P<number>\d{0,4}\.\d{1,4})|(?P<signs>\+{1,9}|-{1,9}))(?=[\s,;.!?)\]}|]|$)")
_WHEN = re.compile(r":\s*[\d.]+(?:%|(?:\s*,\s*[\d.]+)+)\s*$")  # [a:b:50%], [a:b:0.3,0.7]
# {2$$…}, {1-3$$…}, {-2$$…} (1 to 2), {2-$$…} (2 to all)
MANY = re.compile(r"(?P<low>\d+)?(?P<to>-)?(?P<high>\d+)?\$\$(?:(?P<joint>[^$|{}]*)\$\$)?")
_TOKEN = re.compile(
    r"""
    (?P<comment> (?m:^[^\S\n]*)\#[^\n]* | (?<=\s)\#(?!\S)[^\n]* | (?<!\S)//[^\n]* | (?s:/\*.*?\*/) | <\s*comment\s*:[^<>]*> )
  | (?P<hash> (?<!\S)\#[^\s,]+ )
  | (?P<escape> \\[()\[\]{}] )
  | (?P<tag> <\s*(?P<tag_kind>lora|lyco|hypernet)\s*:(?P<tag_body>[^<>\n]*)> )
  | (?P<embed> <\s*embed(?:ding)?\s*:(?P<embed_name>[^<>:\n]+)> )
  | (?P<swarm> <\s*[A-Za-z][\w-]*(?:\[[^\]<>\n]*\])?:(?!//)[^<>\n]*> )
  | (?P<emphasis> (?<![\w:.])[+-]?(?:\d{1,3}(?:\.\d{0,4})?|\.\d{1,4})::(?!\d) | (?<=\s)::[+-]?\d+(?:\.\d+)?(?!\w) )
  | (?P<compel> \)\.(?:blend|and|swap)\([^()\n]*\) | (?<![\w+])[^\W\d_]{2,}\+{2,9}(?!\w) )
  | (?P<embedding> (?<![\w-])embedding:(?P<embedding_name>[\w./\\-]*\w) )
  | (?P<number> (?:(?<=[^\W\d])|(?<=[^\W\d]\s)):[+-]?(?:\d*\.\d+(?![\w.])|\d+,\d+(?=\))) )
  | (?P<variable> (?<!\w)%[A-Za-z_][\w.]*(?::[^%\n]{1,24})?%(?!\w) )
  | (?P<random> \|\|[^|\n]+(?:\|[^|\n]+)+\|\| )
  | (?P<wildcard> (?<![A-Za-z0-9_])__[~@!]?(?P<wildcard_name>(?:[^\W_]|\*)(?:[\w*/. -]{0,98}?[\w*])??)__(?![A-Za-z0-9_]) )
  | (?P<option> (?<!\S)--(?:ar|aspect|v|version|niji|style|stylize|s|chaos|c|q|quality|seed|no|iw|tile|weird|raw|sref|cref)
      (?!\S)(?:\s+[\d:.]+(?!\S))? )
  | (?P<word> \b(?:BREAK|AND|ADDBASE|ADDCOL|ADDROW|ADDCOMM|COUPLE|MASK|AREA)\b )
  | (?P<bracket> [()\[\]{}] )
    """,
    re.VERBOSE,
)
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|「[^」\n]*」|『[^』\n]*』")


@dataclass(frozen=True)
class Construct:
    """``text[start:end]`` is the construct as written; ``kind`` one of

    - "weight": (word:1.3), (word)1.3, (word)++; "brackets": (word); "square": [word]. ``body`` is what it weights.
    - "schedule": [from:to:0.5]; "alternation": [a|b].
    - "choice": {a|b}, with ``body`` between the braces; "braces": {word}, NovelAI's emphasis.
    - "wildcard": __name__; "embedding": embedding:name, <embed:name>, ``body`` the name; "option": --ar 16:9.
    - "comment": from # or // to the end of the line, /* … */. "hash": #word within a line.
    - "number": a :1.3 that weights nothing, outside brackets. "variable": %date%. "random": ||a|b||.
    - "break", "and": the words in capitals. "regional": ADDCOL, COUPLE and the like.
    - "swarm": <segment:face>; "emphasis": 1.5::, ::2; "compel": word++ without brackets, .blend(…).
    - "lora": <lora:name:0.8>, and "hypernet"; ``body`` is what follows the first colon.
    - "escape": a backslash before a bracket.

    ``body_start`` is the body's position in the text. ``weight`` is the factor on the prompt's embedding.
    """

    kind: str
    start: int
    end: int
    written: str
    body: str = ""
    body_start: int = 0
    weight: float = 1.0


def find(text: str) -> list[Construct]:
    """Every construct in ``text``, nested ones after the one that holds them, by position.

    A bracket without its partner is a plain character. Inside quotation marks BREAK and AND are words to be shown.
    """
    found: list[Construct] = []
    opened: list[tuple[str, int]] = []
    quoted = [match.span() for match in _QUOTED.finditer(text)]
    shouted = text == text.upper()  # a text all in capitals uses AND as a word
    for token in _TOKEN.finditer(text):
        start, end = token.span()
        kind = token.lastgroup
        if kind == "word":
            if not shouted and not any(low < start < high for low, high in quoted):
                word = token[0].lower()
                found.append(
                    Construct(word if word in ("break", "and") else "regional", start, end, token[0])
                )
        elif kind == "tag":
            tag = "hypernet" if token["tag_kind"] == "hypernet" else "lora"
            found.append(Construct(tag, start, end, token[0], token["tag_body"], token.start("tag_body")))
        elif kind in ("embed", "embedding", "wildcard"):
            name = f"{kind}_name"
            kind = "embedding" if kind == "embed" else kind
            found.append(Construct(kind, start, end, token[0], token[name], token.start(name)))
        elif kind != "bracket":
            found.append(Construct(str(kind), start, end, token[0]))
        elif token[0] in "([{":
            opened.append((token[0], start))
        elif CLOSING[token[0]] in (bracket for bracket, _ in opened):
            while (last := opened.pop())[0] != CLOSING[token[0]]:
                pass
            if group := _group(text, last[1], end):
                found.append(group)
    # the number of (word:1.3) belongs to it, as do those of [a:b:0.5] and of choices
    own = {one.body_start + len(one.body) for one in found if one.kind == "weight"}
    held, reached = [], 0
    for one in sorted(found, key=lambda one: (one.start, -one.end)):
        if one.kind != "number" or not (one.start in own or one.start < reached):
            held.append(one)
        if one.kind in ("schedule", "choice"):
            reached = max(reached, one.end)
    return held


def _group(text: str, start: int, end: int) -> Construct | None:
    """The construct of a pair of brackets at ``text[start:end]``; None for ordinary punctuation."""
    body, kind, weight, after = text[start + 1 : end - 1], "", 1.0, end
    if not any(map(str.isalnum, body)):
        return None
    if text[start] == "{":
        if '"' in body:  # JSON
            return None
        kind = "choice" if len(split(body)) > 1 or MANY.match(body) else "braces"
    elif text[start] == "[":
        if len(split(body)) > 1:
            kind = "alternation"
        elif _weighted(body) or _WHEN.search(body):
            kind = "schedule"
        else:
            kind, weight = "square", 1 / BRACKET
    elif found := _weighted(body):
        kind, (body, weight) = "weight", found
    elif sign := _COMPEL.match(text, end):
        signs, after = sign["signs"] or "", sign.end()
        kind = "weight"
        weight = float(sign["number"]) if sign["number"] else (1.1 if "+" in signs else 0.9) ** len(signs)
    else:
        kind, weight = "brackets", BRACKET
    return Construct(kind, start, after, text[start:after], body, start + 1, weight)


def _weighted(body: str) -> tuple[str, float] | None:
    """The words and the number of “words:1.3”. “at 12:30”, “16:9” and “Genesis 1:3” are prose."""
    words, _, number = body.rpartition(":")
    number = number.strip()
    if not words.strip() or len(number) > 12 or not _NUMBER.fullmatch(number):
        return None
    if words[-1].isdigit() and "." not in number:
        return None
    return words, float(number)


def split(body: str) -> list[str]:
    """``body`` at each | that stands in no bracket of its own."""
    parts, depth, begin = [], 0, 0
    for at, char in enumerate(body):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth = max(depth - 1, 0)
        elif char == "|" and depth == 0:
            parts.append(body[begin:at])
            begin = at + 1
    return [*parts, body[begin:]]
