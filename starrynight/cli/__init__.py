"""The door of the terminal: it turns words on a command line into calls of the studio, and answers in sentences.

It knows nothing of models or numbers, imports torch only once there is something to paint, and decides exit codes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from starrynight import __version__
from starrynight.errors import BadRequest, Cancelled, StarryError
from starrynight.settings import settings

if TYPE_CHECKING:
    from rich.progress import Progress

LANG = settings().lang


def t(en: str, zh: str) -> str:
    """The sentence in the language of the terminal."""
    return zh if LANG == "zh" else en


app = typer.Typer(
    name="starry",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=t(
        "Starry Night: paint a line of poetry, in Chinese or English. Never a black picture.",
        "璀璨星河：一行诗，一幅画。中文英文皆可，绝不给你一张黑图。",
    ),
)


@app.callback()
def starry(
    version: bool = typer.Option(
        False, "--version", is_eager=True, help=t("Print the version and stop.", "显示版本。")
    ),
) -> None:
    if version:
        print(f"starry {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; every error the house knows becomes one sentence on stderr and its own exit code."""
    from starrynight.cli import doctor, fold, gallery, inspect, lab, models, open, paint, ranges  # noqa: A004, F401  (each registers its command)

    try:
        code = app(standalone_mode=False)
    except StarryError as error:
        sys.exit(complain(error))
    except typer.exceptions.TyperException as error:
        code = complain(misused(error)) if str(error) else 2  # no words at all: the help has been shown
    if code == Cancelled.exit_code:  # Typer turns Ctrl-C into this code and says nothing
        complain(Cancelled())
    sys.exit(code if isinstance(code, int) else 0)


def progress_bar(*columns: Any) -> Progress:
    """A bar on stderr that moves on a terminal and says nothing into a pipe."""
    from rich.console import Console
    from rich.progress import Progress

    stderr = Console(stderr=True)
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


def complain(error: StarryError) -> int:
    """One sentence on stderr, in the terminal's language; the error's exit code."""
    print(f"✗ {error.say(LANG)}", file=sys.stderr)
    return error.exit_code


def misused(error: typer.exceptions.TyperException) -> BadRequest:
    """An option that does not exist or cannot be read; Typer's own sentence, which names it, is English only."""
    text = (error.format_message() if hasattr(error, "format_message") else str(error)).rstrip(".")
    return BadRequest(f"{text}. See starry --help.", f"命令写法有误（{text}）用法见 starry --help。")
