"""Styles: prompt presets in two languages, read from styles.json. The prompt's language chooses the words.

Firefly is trained on these ten styles, by these keys.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starrynight.errors import UnknownName

FILE = Path(__file__).with_name("styles.json")
KIND = ("style", "风格")


@dataclass(frozen=True)
class Style:
    """``prompt`` and ``negative`` by language: (prefix, suffix) around the user's words, and what to keep out."""

    key: str
    name: dict[str, str]
    aliases: tuple[str, ...]
    prompt: dict[str, tuple[str, str]]
    negative: dict[str, str]


@cache
def styles() -> dict[str, Style]:
    """Every style by key, in the file's order."""
    read = json.loads(FILE.read_text("utf-8"))
    return {
        key: Style(
            key=key,
            name=entry["name"],
            aliases=tuple(entry["aliases"]),
            prompt={lang: (words[0], words[1]) for lang, words in entry["prompt"].items()},
            negative=entry["negative"],
        )
        for key, entry in read.items()
    }


def find(name: str) -> Style:
    """A style by key or alias, in either language. Raises UnknownName with the nearest."""
    wanted = name.strip().lower()
    for style in styles().values():
        if wanted in (style.key, *style.aliases, *(text.lower() for text in style.name.values())):
            return style
    everything = [word for style in styles().values() for word in (style.key, *style.aliases)]
    near = difflib.get_close_matches(wanted, everything, cutoff=0.5)
    raise UnknownName(KIND, name, everything if near else styles())


def key_of(name: str | None) -> str | None:
    """The key of a style given by key or alias; any other name as it is, because a picture of another tool may have it."""
    try:
        return name and find(name).key
    except UnknownName:
        return name


def language(text: str) -> str:
    """ "zh" when the text holds a Han character, else "en"."""
    return (
        "zh"
        if any("\u3400" <= char <= "\u9fff" or "\U00020000" <= char <= "\U0003ffff" for char in text)
        else "en"
    )


def styled(prompt: str, style: str | None) -> tuple[str, str]:
    """The prompt with a style's words around it, and the style's negative prompt, both in the prompt's language."""
    if style is None:
        return prompt, ""
    found, lang = find(style), language(prompt)
    prefix, suffix = found.prompt[lang]
    return f"{prefix}{prompt.rstrip('，。,. ')}{suffix}", found.negative[lang]


def prefix(prompt: str, style: str | None) -> str:
    """What ``styled`` puts before the prompt."""
    return "" if style is None else find(style).prompt[language(prompt)][0]
