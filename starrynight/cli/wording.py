"""What Typer says of its own accord, in the language of the terminal: the words around a command's help, and the
sentence for a command line that cannot be read.

Knows Typer's errors by the names of their types (their module is private, 0.29) and no command of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from starrynight import validation_messages
from starrynight.errors import BadRequest


def misused(error: typer.exceptions.TyperException) -> BadRequest:
    """One sentence in each language, and whose help to read."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "starry"
    en, zh = _told(error)
    return BadRequest(f"{en} See {path} --help.", f"{zh}用法见 {path} --help。")


def _told(error: Any) -> tuple[str, str]:
    kind = type(error).__name__
    text = error.format_message().rstrip(".")
    if kind == "MissingParameter":
        name = _name(error.param)
        return f"{name} is missing.", f"缺少 {name}。"
    if kind == "NoSuchOption":
        near = sorted(error.possibilities or ())
        return (
            f"There is no option {error.option_name}{_maybe('; did you mean ', ' or ', near, '?') or '.'}",
            f"没有选项 {error.option_name}{_maybe('；是不是 ', ' 或 ', near, '？') or '。'}",
        )
    if kind == "BadOptionUsage":
        takes = "does not take" in text
        return (
            f"{error.option_name} {'takes no value' if takes else 'needs a value'}.",
            f"{error.option_name} {'后面不跟值' if takes else '后面缺少值'}。",
        )
    if found := getattr(
        error.__cause__, "errors", None
    ):  # pydantic's, of a value that is not of its option's kind
        said = validation_messages.validation_error(_name(error.param), found()[0])
        return said.en, said.zh
    if kind == "UsageError":
        return _of_the_line(text, error.ctx)
    return f"{text}.", f"命令写法有误（{text}）。"


def _of_the_line(text: str, context: Any) -> tuple[str, str]:
    """Errors that Typer tells apart by their sentence alone."""
    if text.startswith("Missing command"):
        return "Say which command.", "请写明子命令。"
    if text.startswith("No such command"):
        name = text.split(text[16], 2)[1]  # between its first quotes; Typer's own guess may follow
        near = _maybe("; did you mean ", " or ", _near(name, context), "?")
        near_zh = _maybe("；是不是 ", " 或 ", _near(name, context), "？")
        return f"There is no command “{name}”{near or '.'}", f"没有命令“{name}”{near_zh or '。'}"
    if text.startswith("Got unexpected extra argument"):
        words = text[text.find("(", text.find("argument(s)") + 11) + 1 : -1]
        return (
            f"There are words too many: {words}; put what belongs together in quotes.",
            f"多出了几个词：{words}；属于同一句的请放进引号。",
        )
    return f"{text}.", f"命令写法有误（{text}）。"


def _name(parameter: Any) -> str:
    """An option by its longest spelling, an argument by its name in capitals: "--seed", "PROMPT"."""
    if parameter is None:
        return "?"
    spelt = [name for name in parameter.opts if name.startswith("-")]
    return max(spelt, key=len) if spelt else str(parameter.name).upper()


def _near(name: str, context: Any) -> list[str]:
    import difflib

    return difflib.get_close_matches(name.lower(), context.command.commands, n=2, cutoff=0.6)


def _maybe(before: str, between: str, names: list[str], after: str) -> str:
    return before + between.join(names) + after if names else ""


def in_chinese(command: Any) -> None:
    """Help pages under ``command`` say their headings in Chinese; to be called before one is shown, for it imports rich."""
    from typer import rich_utils

    rich_utils.ARGUMENTS_PANEL_TITLE = "参数"
    rich_utils.OPTIONS_PANEL_TITLE = "选项"
    rich_utils.COMMANDS_PANEL_TITLE = "命令"
    rich_utils.REQUIRED_LONG_STRING = "[必填]"
    rich_utils.DEFAULT_STRING = "[默认：{}]"

    class Formatter(command.context_class.formatter_class):
        def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
            super().write_usage(prog, args, prefix or "用法：")

    class Context(command.context_class):
        formatter_class = Formatter

    for one in _all(command):
        one.context_class = Context
        one.options_metavar = "[选项]"
        if hasattr(one, "commands"):
            one.subcommand_metavar = "命令 [参数]……"
        here = Context(one, help_option_names=command.context_settings["help_option_names"])
        if (help_option := one.get_help_option(here)) is not None:
            help_option.help = "显示本页。"


def _all(command: Any) -> Iterator[Any]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from _all(below)
