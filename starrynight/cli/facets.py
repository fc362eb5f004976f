"""``starry facets``: the words of a text that name a style, a time, a weather, a place or a thing."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from starrynight.cli.terminal import JSON, app, help_page
from starrynight.errors import BadRequest
from starrynight.i18n import LANGUAGES, t
from starrynight.request import MAX_TEXT
from starrynight.settings import terminal_language
from starrynight.text import excerpt, printed_json, without_bidi

if TYPE_CHECKING:
    from rich.console import Console

    from starrynight.senses.facets import Span

HELP = help_page(
    (
        "Find the words of a text that name a style, a time, a weather, a place or a thing.",
        "找出一句话里的风格、时间、天气、地点和事物。",
    ),
    "starry facets 星夜下的静谧村庄，梵高风格",
    ('starry facets "a fox in the snow at dusk" --json', "with offsets in code points", "带字符位置"),
    "echo 雨夜的霓虹都市 | starry facets -",
)
COLOURS = {"style": "gold1", "time": "sky_blue1", "weather": "grey70", "place": "pale_green3", "thing": "light_salmon1"}  # fmt: skip


@app.command(help=HELP)
def facets(
    text: str = typer.Argument(help=t("The text; - reads the standard input.", "文字；- 从标准输入读取。")),
    as_json: bool = JSON,
    lang: str | None = typer.Option(
        None, "--lang", help=t("Language of the kinds' names: zh or en.", "类别名称的语言：zh 或 en。")
    ),
) -> None:
    from starrynight.senses.facets import KINDS
    from starrynight.senses.finding import find

    language = _language(lang)
    text = _checked(sys.stdin.read(MAX_TEXT + 1) if text == "-" else text)
    answer = find(text)
    found = answer.spans
    if answer.failed is not None:
        failed = t(
            f"{answer.failed.en} The lexicon finds them instead.",
            f"{answer.failed.zh}改由词库来找。",
            language,
        )
        print(f"! {failed}", file=sys.stderr)
    if as_json:
        spans = [asdict(span) for span in found]
        print(printed_json({"text": text, "facets": spans, "by": answer.by}))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        _coloured(console, text, found)
    for span in found:
        name = KINDS[span.kind].to(language)
        console.print(f"{name}  {without_bidi(span.text)}  {span.value}", markup=False)
    if not found:
        print(t("No word of it is in the lexicon.", "词库里没有其中的词。", language), file=sys.stderr)


def _language(given: str | None) -> str:
    if given is not None and given not in LANGUAGES:
        raise BadRequest(
            f"--lang is zh or en, not “{excerpt(given)}”.", f"--lang 是 zh 或 en，而不是“{excerpt(given)}”。"
        )
    return given or terminal_language()


def _checked(text: str) -> str:
    if not text.strip():
        raise BadRequest("The text is empty; write some words.", "文字是空的；请写几个字。")
    if len(text) > MAX_TEXT:
        raise BadRequest(
            f"The text is longer than {MAX_TEXT} characters; shorten it.",
            f"文字超过 {MAX_TEXT} 个字符；请缩短。",
        )
    return text


def _coloured(console: Console, text: str, found: tuple[Span, ...]) -> None:
    """The text with each facet in its kind's colour."""
    from rich.text import Text

    shown = Text(without_bidi(text))
    for span in found:
        shown.stylize(f"bold {COLOURS[span.kind]}", span.start, span.end)
    console.print(shown)
