"""The door of the terminal: it turns words on a command line into calls of the studio, and answers in sentences.

It knows nothing of models or numbers, imports torch only once there is something to paint, and decides exit codes.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def page(said: tuple[str, str], *examples: str | tuple[str, str, str]) -> str:
    """A command's help in the language of the terminal: what it does, then examples (command, or command and a note)."""
    heading = t("Example" if len(examples) == 1 else "Examples", "例子")
    lines = [one if isinstance(one, str) else f"{one[0]}    {t(*one[1:])}" for one in examples]
    return "\n\n".join([t(*said), f"[bold]{heading}[/bold]", *lines])


app = typer.Typer(
    name="starry",
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=t(
        "Starry Night: paint a line of poetry, in Chinese or English. Never a black picture.",
        "璀璨星河：一行诗，一幅画。中文英文皆可，绝不给你一张黑图。",
    ),
)


def tell_version(asked: bool) -> None:
    if asked:
        print(f"starry {__version__}")
        raise typer.Exit


@app.callback()
def starry(
    version: bool = typer.Option(
        False,
        "--version",
        is_eager=True,
        callback=tell_version,
        help=t("Print the version and stop.", "显示版本。"),
    ),
) -> None:
    pass


def main() -> None:
    """Run a command; every error the house knows becomes one sentence on stderr and its own exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal in GBK has no ✦ and must not be an error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = run(sys.argv[1:])
    except StarryError as error:
        code = complain(error)
    except (KeyboardInterrupt, typer.Abort):  # before a command began, or at a question
        code = Cancelled.exit_code
    except typer.exceptions.TyperException as error:
        from starrynight.cli.wording import misused

        code = (
            complain(misused(error)) if str(error) else BadRequest.exit_code
        )  # else its help has been shown
    if code == Cancelled.exit_code:  # Typer turns Ctrl-C into this code and says nothing
        complain(Cancelled())
    sys.exit(code if isinstance(code, int) else 0)


def run(words: list[str]) -> int | None:
    """The command that ``words`` name; none at all ask for help."""
    from starrynight.cli import doctor, fold, gallery, inspect, lab, models, open, paint, ranges  # noqa: A004, F401  (each registers its command)

    words = words or ["--help"]
    command = typer.main.get_command(app)
    silent = getattr(command, "commands", {}).get(words[-1])  # a group named alone shows its help
    if LANG == "zh" and ({"-h", "--help"} & set(words) or getattr(silent, "no_args_is_help", False)):
        from starrynight.cli.wording import in_chinese

        in_chinese(command)
    code: int | None = command(words, prog_name="starry", standalone_mode=False)
    return code


def progress_bar(*columns: Any) -> Progress:
    """A bar on stderr that moves on a terminal and says nothing into a pipe."""
    from rich.console import Console
    from rich.progress import Progress

    stderr = Console(stderr=True)
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


@contextmanager
def followed(what: str) -> Iterator[Callable[[int, int, tuple[str, str]], None]]:
    """A bar named ``what`` and its listener, for long work that tells how much is done, of how much, and what it does."""
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    with progress_bar(
        "[gold1]{task.description}", BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn()
    ) as bar:
        task = bar.add_task(escape(what), total=None, note="")
        yield lambda done, total, doing: bar.update(task, completed=done, total=total, note=t(*doing))


def plain(text: str) -> str:
    """What a stranger wrote, without what turns text around: on a terminal it would make one word look like another."""
    return re.sub("[\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


def complain(error: StarryError) -> int:
    """One sentence on stderr, in the terminal's language; the error's exit code."""
    print(f"✗ {error.message(LANG)}", file=sys.stderr)
    return error.exit_code
