"""The command line interface ``starry``: it translates words into calls of the layers below, and errors into exit codes.

Importing it imports no torch. ``terminal`` and ``usage`` are shared; every other module holds one command, or one group.
"""

from __future__ import annotations

import importlib
import io
import sys

import typer

from starrynight.cli import unexpected
from starrynight.cli.terminal import app, print_error
from starrynight.cli.usage import usage_error
from starrynight.errors import Cancelled

# Each module registers its command, or its group of commands.
COMMANDS = (
    "describe",
    "doctor",
    "fit",
    "gallery",
    "exhibition",
    "collections",
    "facets",
    "grid",
    "hear",
    "inspect",
    "keys",
    "lab",
    "models",
    "open",
    "paint",
    "ranges",
    "senses",
    "serve",
    "upscale",
)


def main() -> None:
    """Run one command and exit. Every error becomes one message on stderr and an exit code; see ``unexpected``."""
    for stream in (sys.stdout, sys.stderr):  # an encoding without ✦ (GBK) must not end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    unexpected.catch_threads()
    try:
        code = run(sys.argv[1:])
    except (KeyboardInterrupt, typer.Abort):  # before a command began, or at a question
        code = Cancelled.exit_code
    except typer.exceptions.TyperException as error:
        code = print_error(usage_error(error, getattr(error, "ctx", None)))
    except BaseException as error:
        if not unexpected.is_foreign(error):
            raise
        code = print_error(unexpected.sentence(error))
        unexpected.print_traceback(error)
    if code == Cancelled.exit_code:  # Typer turns Ctrl-C into this code without a message
        print_error(Cancelled())
    sys.exit(code if isinstance(code, int) else 0)


def run(words: list[str]) -> int | None:
    """Run the command that ``words`` name, or show the help page if there are none."""
    for name in COMMANDS:
        importlib.import_module(f"starrynight.cli.{name}")
    code: int | None = typer.main.get_command(app)(
        words or ["--help"], prog_name="starry", standalone_mode=False
    )
    return code
