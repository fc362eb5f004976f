"""The prompt syntax of other tools: weights, BREAK, AND, choices, wildcards, LoRA tags, embeddings, comments.

``prompt_grammar`` finds the constructs. ``read`` turns a written prompt into the text that a model reads: choices are made by the
seed, tags and comments leave, the names of textual inversions are found, and what cannot be applied becomes a note.
A text without constructs comes back unchanged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from starrynight.i18n import Text
from starrynight.prompt_grammar import MANY, Construct, find, split
from starrynight.text import excerpt

LEFT_OUT = ("break", "hypernet")
PLAIN = ("choice", "schedule", "alternation", "braces", "wildcard", "option", "and", "swarm", "regional", "emphasis", "compel",
         "hash", "number", "variable", "random")  # fmt: skip
# Within these no names of textual inversions are looked for.
_OPAQUE = ("embedding", "lora", "hypernet", "swarm", "comment", "wildcard", "hash", "variable")
_EMBEDDING_SUFFIXES = (".safetensors", ".pt", ".bin")
DEEPEST = 8
_COMMAS = (",", "，")
_SEPARATORS = ",， \t\n"

_SAMPLING = re.compile(r"\s*[@~!](?=\S)")
_SHARE = re.compile(r"\s*(?P<share>\d+\.?\d*|\.\d+)::")


def loras(text: str) -> list[Construct]:
    """The tags <lora:name:weight> and <lyco:…>, by position."""
    return [one for one in find(text) if one.kind == "lora"]


def without_loras(text: str) -> str:
    """``text`` without its LoRA tags, and without the spaces and the comma that held them."""
    seams = _seams(text, loras(text))
    return _assembled(text, [1.0] * len(text), [], seams, ()).text if seams else text


def without_wildcards(text: str) -> str:
    """``text`` with spaces in place of its wildcards."""
    for one in find(text):
        if one.kind == "wildcard":
            text = text[: one.start] + " " * (one.end - one.start) + text[one.end :]
    return text


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
    head = MANY.match(body)
    options = split(body[head.end() :] if head else body)
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
class Mention:
    """``text[start:end]`` names a textual inversion. ``name``: in lower case, as ``embedding_name`` gives it. ``explicit``:
    written as embedding:name or <embed:name>, whose name alone is no word of the prompt.
    """

    start: int
    end: int
    name: str
    explicit: bool = False


@dataclass(frozen=True)
class Words:
    """What a model reads: ``text``, and ``weights``, (start, end, factor) for the characters whose factor is not 1.

    ``notes``: what was written and could not be applied. ``filled``: the text whose wildcards were drawn before. ``mentions``:
    the textual inversions that ``text`` names.
    """

    text: str
    weights: tuple[tuple[int, int, float], ...] = ()
    notes: tuple[Text, ...] = ()
    filled: Filled = Filled("")
    mentions: tuple[Mention, ...] = ()

    def rewritten(self, change: Callable[[str], str]) -> Words:
        """With ``change`` applied to the text outside of ``mentions``, piece by piece between the places where weights change."""
        named = {one.start: one.end for one in self.mentions}
        places = {0, len(self.text), *named, *named.values()}
        places |= {place for start, end, _ in self.weights for place in (start, end)}
        text, moved = "", {0: 0}
        for start, end in pairwise(sorted(places)):
            piece = self.text[start:end]
            text += piece if start in named else change(piece)
            moved[end] = len(text)
        return replace(
            self,
            text=text,
            weights=tuple((moved[start], moved[end], factor) for start, end, factor in self.weights),
            mentions=tuple(replace(one, start=moved[one.start], end=moved[one.end]) for one in self.mentions),
        )


def drawn_of(prompt: Words, negative: Words) -> dict[str, Any] | None:
    """For a recipe: ``drawn``, [name, line] of each wildcard of both prompts, and the two texts with them in place, from which
    the same picture is painted when a file has changed; None where none were drawn.
    """
    if not (drawn := [list(one) for words in (prompt, negative) for one in words.filled.drawn]):
        return None
    return {"drawn": drawn, "prompt": prompt.filled.text, "negative_prompt": negative.filled.text}


def embedding_name(written: str) -> str:
    """The name of a textual inversion in lower case, without its folder and a file's suffix: sub/EasyNegative.safetensors."""
    name = written.strip().replace("\\", "/").rpartition("/")[2].casefold()
    return next((name.removesuffix(end) for end in _EMBEDDING_SUFFIXES if name.endswith(end)), name)


def read(text: str, seed: int, weighted: bool, names: Collection[str] = ()) -> Words:
    """What a model reads of ``text`` in the picture of ``seed``.

    ``weighted``: the model applies weights (CLIP). Elsewhere (word:1.3) is read as “word”, and brackets without a number
    stay as they are written, because prose has them too. LoRA tags leave the text; ``loras`` finds them. ``names``: those of
    textual inversions (``embedding_name``); they are found as whole words, in <angle brackets> and as embedding:name.
    """
    chosen = choose(text, seed)
    found = find(chosen)
    named = _named(chosen, found, names)
    if not found and not named:
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
    seams = _seams(chosen, [one for one in found if one.kind in ("lora", "comment", *LEFT_OUT)])
    notes = tuple(_notes([one for one in found if one.start not in {each.start for each in named}], weighted))
    return _assembled(chosen, factors, gone, seams, notes, named)


def _named(text: str, found: list[Construct], names: Collection[str]) -> list[Mention]:
    """The textual inversions that a text names, by position; of names within one another the longest."""
    explicit = [one for one in found if one.kind == "embedding" and embedding_name(one.body) in names]
    mentions = [Mention(one.start, one.end, embedding_name(one.body), explicit=True) for one in explicit]
    taken = [(one.start, one.end) for one in found if one.kind in _OPAQUE]
    lower = text.casefold()
    for name in sorted((name for name in names if name in lower), key=len, reverse=True):
        plain = rf"<{re.escape(name)}>|(?<![A-Za-z0-9_-]){re.escape(name)}(?![A-Za-z0-9_-])"
        for one in re.finditer(plain, text, re.IGNORECASE):
            if not any(start < one.end() and one.start() < end for start, end in taken):
                taken.append(one.span())
                mentions.append(Mention(*one.span(), name))
    return sorted(mentions, key=lambda one: one.start)


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
    if words := _quoted([one for one in found if one.kind == "embedding"]):
        yield Text(
            f"No embedding of this name is here, so it is read as plain words: {words[0]}.",
            f"这里没有此名称的嵌入词，按普通文字读入：{words[1]}。",
        )
    if words := _quoted([one for one in found if one.kind == "comment"]):
        yield Text(f"Left out as a comment: {words[0]}.", f"作为注释略去：{words[1]}。")
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
    named: Collection[Mention] = (),
) -> Words:
    """``text`` without the spans ``gone`` and ``seams``, with the runs of its characters' factors and the places of names."""
    spans = [*gone, *((seam.start, seam.end) for seam in seams)]
    skipped = {at for start, end in spans for at in range(start, end)}
    joints = {seam.end: seam.joint for seam in seams}
    letters: list[str] = []
    runs: list[list[float]] = []
    places: dict[int, int] = {}  # of each character that stays
    for at, letter in enumerate(text):
        letters += joints.get(at, "")
        if at in skipped:
            continue
        if factors[at] != 1:
            if runs and runs[-1][1] == len(letters) and runs[-1][2] == factors[at]:
                runs[-1][1] += 1
            else:
                runs.append([len(letters), len(letters) + 1, factors[at]])
        places[at] = len(letters)
        letters.append(letter)
    mentions = tuple(
        replace(one, start=places[one.start], end=places[one.end - 1] + 1)
        for one in named
        if all(at in places for at in range(one.start, one.end))
    )
    weights = tuple((int(a), int(b), factor) for a, b, factor in runs)
    return Words("".join(letters), weights, notes, mentions=mentions)
