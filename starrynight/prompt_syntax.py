"""The prompt syntax of other tools: weights, BREAK, AND, choices, wildcards, LoRA tags, embeddings.

``find`` returns every construct with its position; it decides nothing. ``read`` turns a written prompt into the text that a
model reads: choices are made by the seed, tags leave, and what cannot be applied becomes a note. A text without constructs
comes back unchanged.

The syntax is that of AUTOMATIC1111's wiki ("Features: Attention/emphasis, Prompt editing, Extra networks"), of
sd-dynamic-prompts ("SYNTAX.md"), of InvokeAI's compel and of ComfyUI (``embedding:``). Tags of SwarmUI (<segment:face>), words of
Regional Prompter (ADDCOL) and NovelAI's 1.5::word:: are found, and not applied. Only ASCII brackets are syntax:
（星夜：1.3） is Chinese punctuation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starrynight.i18n import Text
from starrynight.text import excerpt

BRACKET = 1.1  # the weight of (word); [word] has its reciprocal
LEFT_OUT = ("break", "hypernet")
PLAIN = ("choice", "schedule", "alternation", "braces", "wildcard", "embedding", "option", "and",
         "swarm", "regional", "emphasis", "compel")  # fmt: skip
DEEPEST = 8
_COMMAS = (",", "，")
_SEPARATORS = ",， \t\n"
CLOSING = {")": "(", "]": "[", "}": "{"}

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_COMPEL = re.compile(r"(?:(?P<number>\d{0,4}\.\d{1,4})|(?P<signs>\+{1,9}|-{1,9}))(?=[\s,;.!?)\]}|]|$)")
# {2$$…}, {1-3$$…}, {-2$$…} (1 to 2), {2-$$…} (2 to all), after the mark of a sampling that the seed replaces here
_SAMPLING = re.compile(r"\s*[@~!](?=\S)")
_MANY = re.compile(r"(?P<low>\d+)?(?P<to>-)?(?P<high>\d+)?\$\$(?:(?P<joint>[^$|{}]*)\$\$)?")
_WHEN = re.compile(r":\s*[\d.]+(?:%|(?:\s*,\s*[\d.]+)+)\s*$")  # [a:b:50%], [a:b:0.3,0.7]
_SHARE = re.compile(r"\s*(?P<share>\d+\.?\d*|\.\d+)::")
_TOKEN = re.compile(
    r"""
    (?P<escape> \\[()\[\]{}] )
  | (?P<tag> <\s*(?P<tag_kind>lora|lyco|hypernet)\s*:(?P<tag_body>[^<>\n]*)> )
  | (?P<swarm> <\s*[A-Za-z][\w-]*(?:\[[^\]<>\n]*\])?:(?!//)[^<>\n]*> )
  | (?P<emphasis> (?<![\w:.])[+-]?(?:\d{1,3}(?:\.\d{0,4})?|\.\d{1,4})::(?!\d) | (?<=\s)::[+-]?\d+(?:\.\d+)?(?!\w) )
  | (?P<compel> \)\.(?:blend|and|swap)\([^()\n]*\) | (?<![\w+])[^\W\d_]{2,}\+{2,9}(?!\w) )
  | (?P<embedding> (?<![\w-])embedding:[\w./\\-]*\w )
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
    - "wildcard": __name__; "embedding": embedding:name; "option": --ar 16:9.
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
        elif kind == "wildcard":
            name = token["wildcard_name"]
            found.append(Construct(kind, start, end, token[0], name, token.start("wildcard_name")))
        elif kind != "bracket":
            found.append(Construct(str(kind), start, end, token[0]))
        elif token[0] in "([{":
            opened.append((token[0], start))
        elif CLOSING[token[0]] in (bracket for bracket, _ in opened):
            while (last := opened.pop())[0] != CLOSING[token[0]]:
                pass
            if group := _group(text, last[1], end):
                found.append(group)
    return sorted(found, key=lambda one: (one.start, -one.end))


def loras(text: str) -> list[Construct]:
    """The tags <lora:name:weight> and <lyco:…>, by position."""
    return [one for one in find(text) if one.kind == "lora"]


def without_loras(text: str) -> str:
    """``text`` without its LoRA tags, and without the spaces and the comma that held them."""
    seams = _seams(text, loras(text))
    return _assembled(text, [1.0] * len(text), [], seams, ()).text if seams else text


def _group(text: str, start: int, end: int) -> Construct | None:
    """The construct of a pair of brackets at ``text[start:end]``; None for ordinary punctuation."""
    body, kind, weight, after = text[start + 1 : end - 1], "", 1.0, end
    if not any(map(str.isalnum, body)):
        return None
    if text[start] == "{":
        if '"' in body:  # JSON
            return None
        kind = "choice" if len(_split(body)) > 1 or _MANY.match(body) else "braces"
    elif text[start] == "[":
        if len(_split(body)) > 1:
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


def _split(body: str) -> list[str]:
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


@dataclass(frozen=True)
class Filled:
    """``text``: a prompt whose wildcards are lines of their files. ``drawn``: (name, line) of each, in the order of drawing."""

    text: str
    drawn: tuple[tuple[str, str], ...] = ()


def fill(text: str, seed: int, lines_of: Callable[[str], Sequence[str]], longest: int) -> Filled:
    """``text`` with every wildcard __name__ replaced by one of ``lines_of(name)``, in proportion to their shares (3::red).

    A line may hold wildcards itself, to a depth of 8. One that has no lines stays as written. The picture's ``seed`` and the
    wildcard's number, from 0, decide through SHA-256. Filling ends once the text is longer than ``longest``.
    """
    draws = _draws(seed, "wildcard")
    drawn: list[tuple[str, str]] = []
    for _ in range(DEEPEST):
        pieces, at = [], 0
        for one in find(text) if len(text) <= longest else ():
            if one.kind == "wildcard" and (lines := lines_of(one.body)):
                line = _option(lines, next(draws))
                drawn.append((one.body, line))
                pieces += [text[at : one.start], line]
                at = one.end
        if not pieces:
            break
        text = "".join([*pieces, text[at:]])
    return Filled(text, tuple(drawn))


def _option(lines: Sequence[str], draw: float) -> str:
    shares = [float(share["share"]) if (share := _SHARE.match(line)) else 1.0 for line in lines]
    return _SHARE.sub("", lines[_drawn(list(range(len(lines))), shares, draw)], count=1).strip()


def choose(text: str, seed: int) -> str:
    """``text`` with every choice made: {a|b}, with shares {3::a|1::b}, several {2$$a|b|c}, joined {2$$ and $$a|b|c}.

    Choices inside choices are made to a depth of 8; deeper ones stay as written. The picture's ``seed`` and the choice's number, from 0, decide through SHA-256, so that a recipe repeats them.
    """
    draws = _draws(seed)
    for _ in range(DEEPEST):
        if not (chosen := [one for one in find(text) if one.kind == "choice"]):
            break
        pieces, at = [], 0
        for one in chosen:
            if one.start >= at:  # those inside it come when it has been chosen
                pieces += [text[at : one.start], _chosen(one.body, draws)]
                at = one.end
        text = "".join([*pieces, text[at:]])
    return text


def _chosen(body: str, draws: Iterator[float]) -> str:
    body = _SAMPLING.sub("", body, count=1)
    head = _MANY.match(body)
    options = _split(body[head.end() :] if head else body)
    low = int(head["low"] or 1) if head else 1
    high = int(head["high"] or (len(options) if head["to"] else low)) if head else 1
    shares = [float(share["share"]) if (share := _SHARE.match(option)) else 1.0 for option in options]
    options = [_SHARE.sub("", option, count=1).strip() for option in options]
    many = min(low + int(next(draws) * (max(high, low) - low + 1)), len(options)) if head else 1
    taken = []
    for _ in range(many):
        left = [number for number in range(len(options)) if number not in taken]
        taken.append(_drawn(left, [shares[number] for number in left], next(draws)))
    joint = head["joint"] if head and head["joint"] is not None else ", "
    return joint.join(options[number] for number in taken)


def _drawn(numbers: list[int], shares: list[float], draw: float) -> int:
    """One of ``numbers`` in proportion to ``shares``; evenly if all shares are 0."""
    shares = shares if sum(shares) > 0 else [1.0] * len(shares)
    at = draw * sum(shares)
    for number, share in zip(numbers, shares, strict=True):
        if at < share:
            return number
        at -= share
    return numbers[-1]


def _draws(seed: int, what: str = "choice") -> Iterator[float]:
    """Numbers in [0, 1) that depend on nothing but the seed and what they choose."""
    number = 0
    while True:
        digest = hashlib.sha256(f"{what} {seed} {number}".encode()).digest()
        yield int.from_bytes(digest[:6], "big") / 2**48
        number += 1


@dataclass(frozen=True)
class Words:
    """What a model reads: ``text``, and ``weights``, (start, end, factor) for the characters whose factor is not 1.

    ``notes``: what was written and could not be applied. ``filled``: the text whose wildcards were drawn before.
    """

    text: str
    weights: tuple[tuple[int, int, float], ...] = ()
    notes: tuple[Text, ...] = ()
    filled: Filled = Filled("")


def drawn_of(prompt: Words, negative: Words) -> dict[str, Any] | None:
    """For a recipe: ``drawn``, [name, line] of each wildcard of both prompts, and the two texts with them in place, from which
    the same picture is painted when a file has changed; None where none were drawn.
    """
    if not (drawn := [list(one) for words in (prompt, negative) for one in words.filled.drawn]):
        return None
    return {"drawn": drawn, "prompt": prompt.filled.text, "negative_prompt": negative.filled.text}


def read(text: str, seed: int, weighted: bool) -> Words:
    """What a model reads of ``text`` in the picture of ``seed``.

    ``weighted``: the model applies weights (CLIP). Elsewhere (word:1.3) is read as “word”, and brackets without a number
    stay as they are written, because prose has them too. LoRA tags leave the text; ``loras`` finds them.
    """
    chosen = choose(text, seed)
    found = find(chosen)
    if not found:
        return Words(chosen)
    factors = [1.0] * len(chosen)
    gone: list[tuple[int, int]] = []
    for one in found:
        body_end = one.body_start + len(one.body)
        if one.kind == "escape":
            gone.append((one.start, one.start + 1))
        elif one.kind == "weight" or (weighted and one.kind in ("brackets", "square")):
            gone += [(one.start, one.body_start), (body_end, one.end)]
            for at in range(one.body_start, body_end) if weighted else ():
                factors[at] *= one.weight
    seams = _seams(chosen, [one for one in found if one.kind in ("lora", *LEFT_OUT)])
    return _assembled(chosen, factors, gone, seams, tuple(_notes(found, weighted)))


def _notes(found: list[Construct], weighted: bool) -> Iterator[Text]:
    plain = [one for one in found if one.kind in PLAIN]
    if not weighted:
        plain += [one for one in found if one.kind == "square" or _doubled(one)]
        if unused := _quoted([one for one in found if one.kind == "weight"]):
            yield Text(
                f"This model's text encoder takes no weights; brackets and numbers are left out: {unused[0]}.",
                f"此模型的文本编码器不支持权重，括号与数字已略去：{unused[1]}。",
            )
    if words := _quoted(plain):
        yield Text(f"Read as plain words: {words[0]}.", f"按普通文字读入：{words[1]}。")
    if words := _quoted([one for one in found if one.kind in LEFT_OUT]):
        yield Text(
            f"Left out of the prompt, because nothing here applies it: {words[0]}.",
            f"此处无法应用，已从提示词中略去：{words[1]}。",
        )


def _doubled(one: Construct) -> bool:
    body = one.body.strip()
    return one.kind == "brackets" and body.startswith("(") and body.endswith(")")


def _quoted(found: list[Construct]) -> Text | None:
    """The constructs as written, the outermost only, each once; None if there are none."""
    written, end = [], 0
    for one in sorted(found, key=lambda one: one.start):
        if one.start >= end:
            written.append(excerpt(one.written))
            end = one.end
    names = [f"“{each}”" for each in dict.fromkeys(written)]
    return Text(", ".join(names), "、".join(names)) if names else None


@dataclass(frozen=True)
class _Seam:
    """A span that is taken out with its spaces, and what joins its two sides."""

    start: int
    end: int
    joint: str


def _seams(text: str, left_out: list[Construct]) -> list[_Seam]:
    """Constructs that only separators part are one seam. Of the two commas around it one goes; BREAK leaves a comma."""
    groups: list[list[Construct]] = []
    for one in left_out:
        if groups and not text[groups[-1][-1].end : one.start].strip(_SEPARATORS):
            groups[-1].append(one)
        else:
            groups.append([one])
    seams = []
    for group in groups:
        before, after = text[: group[0].start].rstrip(), text[group[-1].end :].lstrip()
        if after[:1] in _COMMAS and (not before or before[-1] in _COMMAS):
            after = after[1:].lstrip()
        if not after:
            before = before.rstrip(_SEPARATORS)
        joint = ""
        if before and after and after[0] not in ",.，。":
            comma = before[-1].isalnum() and any(one.kind == "break" for one in group)
            joint = ", " if comma else " "
        seams.append(_Seam(len(before), len(text) - len(after), joint))
    return seams


def _assembled(
    text: str,
    factors: list[float],
    gone: list[tuple[int, int]],
    seams: list[_Seam],
    notes: tuple[Text, ...],
) -> Words:
    """``text`` without the spans ``gone`` and ``seams``, with the runs of its characters' factors."""
    spans = [*gone, *((seam.start, seam.end) for seam in seams)]
    skipped = {at for start, end in spans for at in range(start, end)}
    joints = {seam.end: seam.joint for seam in seams}
    letters: list[str] = []
    runs: list[list[float]] = []
    for at, letter in enumerate(text):
        letters += joints.get(at, "")
        if at in skipped:
            continue
        if factors[at] != 1:
            if runs and runs[-1][1] == len(letters) and runs[-1][2] == factors[at]:
                runs[-1][1] += 1
            else:
                runs.append([len(letters), len(letters) + 1, factors[at]])
        letters.append(letter)
    return Words("".join(letters), tuple((int(a), int(b), factor) for a, b, factor in runs), notes)
