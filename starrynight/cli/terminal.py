"""What the commands share: the application, help pages, the progress bar, and messages on stderr.

Each command's module imports this one; it imports none of them. It imports neither torch nor, before a bar is drawn,
rich.
"""

from __future__ import annotations

import sys
import time
from typing import Self, TextIO

import typer

from starrynight import __version__
from starrynight.cli.usage import CommandGroup
from starrynight.errors import StarryError
from starrynight.i18n import t
from starrynight.settings import print_tracebacks, terminal_language

app = CommandGroup(
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

LINE_SECONDS = 10.0  # between two lines of progress in a pipe or a file


def _device(name: str | None) -> str | None:
    from starrynight.numerics.precision import parse_device

    if name is not None:
        parse_device(name)
    return name


# Shared by several commands.
DEVICE = typer.Option(
    None,
    help=t("cpu, cuda, mps …; by default the best there is.", "cpu、cuda、mps…… 不给则自动选择。"),
    callback=_device,
)
JSON = typer.Option(False, "--json", help=t("Print JSON.", "输出 JSON，供程序读取。"))
MODEL_HELP = t(
    "A name of `starry models`, a hub id, a folder or a .safetensors file.",
    "`starry models` 里的名字、模型库 id、文件夹或 .safetensors 文件。",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"starry {__version__}")
        raise typer.Exit


@app.callback()
def starry(
    version: bool = typer.Option(
        False,
        "--version",
        is_eager=True,
        callback=_print_version,
        help=t("Print the version and exit.", "显示版本。"),
    ),
    debug: bool = typer.Option(
        False,
        "--debug",
        help=t(
            "Print the traceback of an error, as STARRY_DEBUG=1 does.",
            "出错时显示调用栈，同 STARRY_DEBUG=1。",
        ),
    ),
) -> None:
    if debug:
        print_tracebacks()


def help_page(what: tuple[str, str], *examples: str | tuple[str, str, str]) -> str:
    """A command's help: what it does, then examples. An example is a command, or a command and a note (en, zh)."""
    heading = t("Example" if len(examples) == 1 else "Examples", "例子")
    lines = [one if isinstance(one, str) else f"{one[0]}    {t(*one[1:])}" for one in examples]
    return "\n\n".join([t(*what), f"[bold]{heading}[/bold]", *lines])


def plural(n: int, thing: str) -> str:
    """One picture is "1 picture", two are "2 pictures": for English sentences."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def print_error(error: StarryError) -> int:
    """One message on stderr. Returns the error's exit code."""
    print(f"✗ {error.message(terminal_language())}", file=sys.stderr)
    return error.exit_code


class ProgressBar:
    """A progress bar on stderr, drawn if stderr is a terminal. Calling it is an ``OnProgress``.

    ``timed``: estimate the time left from the speed so far. ``lines``: where stderr is no terminal, write a line at the
    beginning and then at most every ``LINE_SECONDS``.
    """

    def __init__(self, title: str, timed: bool = True, lines: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        stderr = Console(stderr=True)
        columns = (
            TextColumn("{task.description}", style="gold1", markup=False),
            BarColumn(style="grey23", complete_style="gold1", finished_style="gold1"),
            TextColumn("{task.fields[message]}", markup=False),
            *([TimeRemainingColumn()] if timed else []),
        )
        self._bar = Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
        self._task = self._bar.add_task(title, total=None, message="")
        self._title, self._lines, self._written = title, lines and not stderr.is_terminal, float("-inf")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int | None, message: tuple[str, str] | None = None) -> None:
        count = f"{done}/{total}" if total else str(done)
        self.update(done, total, message=t(*message) if message else count)

    def update(self, done: int, total: int | None, *, title: str | None = None, message: str = "") -> None:
        self._bar.update(self._task, completed=done, total=total, description=title, message=message)
        if self._lines and time.monotonic() - self._written >= LINE_SECONDS:
            self._written = time.monotonic()
            print(f"{title or self._title}: {message}", file=sys.stderr, flush=True)

    def print(self, line: str, file: TextIO) -> None:
        """Print one line above the bar."""
        self._bar.stop()
        print(line, file=file, flush=True)
        self._bar.start()
