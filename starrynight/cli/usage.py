"""Typer in both languages: the fixed words of a help page, and the message for a command line that cannot be parsed.

``Command`` and ``Group`` extend Typer's classes and turn each usage error into a ``BadRequest``. The message is built
from the error's class and attributes, never from Typer's English text.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from starrynight import validation_messages
from starrynight.errors import BadRequest
from starrynight.i18n import Text, is_chinese, t
from starrynight.settings import terminal_language
from starrynight.text import excerpt


class _TwoLanguages:
    """What ``Command`` and ``Group`` change in Typer's classes."""

    options_metavar: str | None

    def parse_args(self, context: Any, words: list[str]) -> list[str]:
        try:
            return super().parse_args(context, words)  # type: ignore[misc]
        except typer.exceptions.TyperException as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # its constructor prints the help page
                raise typer.Exit(BadRequest.exit_code) from error
            raise usage_error(error, context) from error

    def format_help(self, context: Any, formatter: Any) -> None:
        if is_chinese(terminal_language()):
            self.options_metavar = "[选项]"
            self.subcommand_metavar = "命令 [参数]……"
            self.get_help_option(context).help = "显示本页。"  # type: ignore[attr-defined]
            _translate_panels()
        super().format_help(context, formatter)  # type: ignore[misc]

    def format_usage(self, context: Any, formatter: Any) -> None:
        pieces = " ".join(self.collect_usage_pieces(context))  # type: ignore[attr-defined]
        formatter.write_usage(context.command_path, pieces, t("Usage: ", "用法："))


def _translate_panels() -> None:
    """Give the panels of a help page Chinese titles. Imports rich, hence called only when a page is shown."""
    from typer import rich_utils

    rich_utils.ARGUMENTS_PANEL_TITLE = "参数"
    rich_utils.OPTIONS_PANEL_TITLE = "选项"
    rich_utils.COMMANDS_PANEL_TITLE = "命令"
    rich_utils.REQUIRED_LONG_STRING = "[必填]"
    rich_utils.DEFAULT_STRING = "[默认：{}]"


class Command(_TwoLanguages, TyperCommand):
    allow_extra_args = True  # so that Typer hands over the words it cannot place, and parse_args names them

    def parse_args(self, context: Any, words: list[str]) -> list[str]:
        rest = super().parse_args(context, words)
        if rest:
            extra = " ".join(map(excerpt, rest))
            raise bad_usage(context, Text(
                f"Unexpected arguments: {extra}; put words that belong together in quotes.",
                f"多出了几个词：{extra}；属于同一句的请放进引号。",
            ))  # fmt: skip
        return rest


class Group(_TwoLanguages, TyperGroup):
    def resolve_command(self, context: Any, words: list[str]) -> Any:
        name = words[0]
        if self.get_command(context, name) is None:
            near = difflib.get_close_matches(name.lower(), self.commands, n=2, cutoff=0.6)
            unknown = Text(f"There is no command “{excerpt(name)}”", f"没有命令“{excerpt(name)}”")
            raise bad_usage(context, _with_suggestions(unknown, near))
        return super().resolve_command(context, words)


class CommandGroup(typer.Typer):
    """A Typer application, or a part of one, made of ``Group`` and ``Command``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=Group, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=Command, **options)


def bad_usage(context: Any, message: Text) -> BadRequest:
    """``message``, followed by the command whose help page explains the usage."""
    path = context.command_path if context else "starry"
    return BadRequest(f"{message.en} See {path} --help.", f"{message.zh}用法见 {path} --help。")


def usage_error(error: Any, context: Any) -> BadRequest:
    """The message for a Typer exception. Its classes are private to Typer (``typer._click``), hence known by name here."""
    match type(error).__name__:
        case "MissingParameter":
            name = _spelling(error.param)
            message = Text(f"{name} is missing.", f"缺少 {name}。")
        case "NoSuchOption":
            name = excerpt(error.option_name)
            unknown = Text(f"There is no option {name}", f"没有选项 {name}")
            message = _with_suggestions(unknown, sorted(error.possibilities or ()))
        case "BadOptionUsage":
            message = _bad_option_usage(error.option_name, context)
        case "BadParameter" if errors := getattr(error.__cause__, "errors", None):  # pydantic's
            found = validation_messages.validation_error(_spelling(error.param), errors()[0])
            message = Text(found.en, found.zh)
        case "UsageError" if isinstance(error.cmd, Group):  # Group raises it where no command is named
            message = Text("Name a command.", "请写明子命令。")
        case _:
            text = error.format_message().rstrip(".")
            message = Text(f"{text}.", f"命令写法有误（{text}）。")
    return bad_usage(context, message)


def _bad_option_usage(name: str, context: Any) -> Text:
    """A flag was given a value, or an option was given none."""
    flags = {spelling for option in context.command.params if getattr(option, "is_flag", False)
             for spelling in (*option.opts, *option.secondary_opts)}  # fmt: skip
    if name in flags:
        return Text(f"{name} takes no value.", f"{name} 后面不跟值。")
    return Text(f"{name} needs a value.", f"{name} 后面缺少值。")


def _spelling(parameter: Any) -> str:
    """An option by its longest spelling, an argument by its name in capitals: "--seed", "PROMPT"."""
    options = [name for name in parameter.opts if name.startswith("-")]
    return max(options, key=len) if options else str(parameter.name).upper()


def _with_suggestions(message: Text, names: Iterable[str]) -> Text:
    """Close ``message``, with the names that may have been meant."""
    if not names:
        return Text(f"{message.en}.", f"{message.zh}。")
    return Text(
        f"{message.en}; did you mean {' or '.join(names)}?", f"{message.zh}；是不是 {' 或 '.join(names)}？"
    )
