"""The verbs of ``python -m starrynight.senses VERB --work FOLDER ...``, which train the perceiver.

``draw`` draws the sets, ``paint`` paints Firefly's, ``train`` trains, ``write`` writes the weights with their thresholds,
``evaluate`` measures them, and ``sheet`` shows what is said of Firefly's paintings. ``recipes/perceiver.sh`` runs them all. Each resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from starrynight.firefly.verbs import run
from starrynight.senses.perceiver import SHIPPED
from starrynight.settings import settings

# First seeds of the drawn sets, apart from each other and from those of Firefly's pictures.
FIRST_SEEDS = {"training": 1_000_000, "calibration": 7_000_000, "held-out": 9_000_000}
SIDE = 256  # pixels along a side of drawn and painted pictures


def draw(options: argparse.Namespace) -> None:
    """Draw a set of pictures, or as many of it as --seconds allow."""
    from starrynight.firefly.training import data

    first = FIRST_SEEDS[options.set]
    data.draw(
        options.work / options.set,
        options.pictures,
        first,
        SIDE,
        workers=options.workers,
        seconds=options.seconds,
    )


def paint(options: argparse.Namespace) -> None:
    """Paint a set of prompts with Firefly, for the training, the thresholds or the evaluation."""
    from starrynight.senses.training import painted

    _threads(options)
    painted.paint(options.work / options.set, options.pictures, options.side, options.steps, options.seconds)


def train(options: argparse.Namespace) -> None:
    """Train the perceiver on the sets "training" and "painted-training" for --seconds in all; they may still be drawn. With
    --begin it begins with the weights of another training's checkpoint.
    """
    from starrynight.senses.training import train as training

    _threads(options)
    training.train(options.work, options.seconds, options.begin if options.begin.name else None)


def write(options: argparse.Namespace) -> None:
    """Write the weights, with thresholds from the sets "calibration" and "painted-calibration"; with --weights those weights again."""
    from starrynight.senses.training import calibrate

    _threads(options)
    saved = options.weights if options.weights.name else None
    perceiver = calibrate.write(options.work, options.out, saved)
    print(json.dumps({"what": "written", "name": perceiver.name, "bytes": options.out.stat().st_size}))


def evaluate(options: argparse.Namespace) -> None:
    """Measure saved weights on held-out drawings, on Firefly's paintings and on pictures that are none of ours."""
    from starrynight.senses.training import evaluate as evaluation

    report = evaluation.report(
        options.work, options.weights, options.sheet if options.sheet.exists() else None
    )
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(evaluation.table(report))


def sheet(options: argparse.Namespace) -> None:
    """Write a sheet of painted pictures with what is said of them."""
    from starrynight.senses.training import sheet as sheets

    sheets.write(options.work / "painted", options.weights, options.out, options.pictures)


def _threads(options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(options.threads)


def arguments() -> argparse.ArgumentParser:
    """The command line: one subparser for each verb."""
    parser = argparse.ArgumentParser(
        prog="python -m starrynight.senses", description=__doc__, allow_abbrev=False
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(job: Any, *flags: tuple[str, Any]) -> None:
        sub = verbs.add_parser(job.__name__, help=job.__doc__, allow_abbrev=False)
        sub.add_argument("--work", type=Path, default=settings().home / "training-perceiver")
        for flag, default in flags:
            sub.add_argument(
                flag, type=type(default) if not isinstance(default, Path) else Path, default=default
            )
        sub.set_defaults(job=job)

    seconds, threads = ("--seconds", math.inf), ("--threads", 1)
    verb(draw, ("--set", "training"), ("--pictures", 16_800), ("--workers", 1), seconds)
    verb(paint, ("--set", "painted"), ("--pictures", 216), ("--side", SIDE), ("--steps", 8), seconds, threads)
    verb(train, ("--seconds", 3000.0), ("--begin", Path()), threads)
    verb(write, ("--out", Path("perceiver.safetensors")), ("--weights", Path()), threads)
    verb(
        evaluate,
        ("--weights", SHIPPED),
        ("--sheet", Path("docs/firefly-sheet.jpg")),
        ("--out", Path("perceiver-evaluation.json")),
    )
    verb(sheet, ("--weights", SHIPPED), ("--pictures", 60), ("--out", Path("perceiver-sheet.webp")))
    return parser


def main() -> None:
    run(arguments())
