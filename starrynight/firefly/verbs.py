"""The verbs of ``python -m starrynight.firefly VERB --work FOLDER ...``.

``train`` draws pictures, trains every network on them within a time budget, and saves the weights. It resumes
from its checkpoints, so it may be killed at any moment and started again. ``recipes/firefly.sh`` runs it and
judges what it made.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from starrynight.errors import StarryError
from starrynight.models import sizes
from starrynight.models.catalogue import SHIPPED
from starrynight.settings import settings

# The side of the pictures that weights are judged on, in pixels.
SIDE = 512


def draw(options: argparse.Namespace) -> None:
    """Draw a set of pictures, or as many of it as --seconds allow."""
    from starrynight.firefly.training import data

    first = options.seed or data.FIRST_SEEDS.get(options.set, data.FIRST_SEEDS["training"])
    data.draw(
        options.work / options.set, options.pictures, first, options.side, workers=options.workers,
        seconds=options.seconds,
    )  # fmt: skip


def train(options: argparse.Namespace) -> None:
    """Train Firefly from nothing to saved weights within --seconds, on the GPU if there is one."""
    from starrynight.firefly import model
    from starrynight.firefly.training import captions, evaluate, session
    from starrynight.firefly.training.optimise import choose_device

    device = choose_device(options.device)
    tokens = options.tokens or (96_000 if device.type == "cuda" else 6000)
    crops = options.crops or (64 if device.type == "cuda" else 8)
    plan = session.Plan(
        options.work, options.seconds, options.device, options.side, options.dim, options.layers,
        options.vocabulary, options.pictures, options.held_out, options.workers, tokens, crops,
        begin=options.begin if options.begin != Path() else None, seed=options.seed,
        onward=bool(options.onward), compiled=bool(options.compiled),
    )  # fmt: skip
    pipe = session.run(plan)
    header = {
        "made_by": "python -m starrynight.firefly (recipes/firefly.sh)", "recipe_tree": recipe_tree(),
        "licence": "Apache-2.0", "seed": str(plan.seed), "dim": str(plan.dim), "layers": str(plan.layers),
        "side": str(plan.side), **{key: str(value) for key, value in session.facts(plan.work).items()},
    }  # fmt: skip
    if plan.onward and plan.begin:
        header["onward_from"] = json.dumps(model.provenance(plan.begin))
    prompts = evaluate.sheet_prompts()[:: 1 if device.type == "cuda" else 12]
    header["rescaled"] = json.dumps(model.rescale(pipe.to(device), prompts, size=plan.side))
    model.save(pipe.to("cpu"), options.out, header)
    captions.vocabulary().write(options.out)
    shutil.copyfile(options.work / sizes.FILE, options.out / sizes.FILE)
    pieces = pack(options.out, options.pieces) if options.pieces else []
    print(json.dumps({"what": "saved", "folder": str(options.out), "pieces": pieces, **header}), flush=True)


def pack(folder: Path, megabytes: int) -> list[str]:
    """Write ``folder`` as FOLDER.tar.00, .01 ... of at most ``megabytes`` MiB, for ways that limit a file's size.
    ``cat FOLDER.tar.* | tar x`` unpacks them.
    """
    archive = folder.with_suffix(".tar")
    subprocess.run(["tar", "-cf", archive.name, folder.name], cwd=folder.parent, check=True)
    for stale in folder.parent.glob(f"{archive.name}.*"):
        stale.unlink()
    size, names = megabytes * 2**20, list[str]()
    with archive.open("rb") as file:
        while piece := file.read(size):
            names.append(f"{archive.name}.{len(names):02d}")
            (folder.parent / names[-1]).write_bytes(piece)
    os.unlink(archive)
    return names


def write_vocabulary(options: argparse.Namespace) -> None:
    """Write the vocabulary beside saved weights, without what an evaluation showed that they do not paint."""
    from starrynight.firefly.training import captions

    without = [name for name in options.without.split(",") if name]
    captions.vocabulary(without).write(options.weights)


def judge(options: argparse.Namespace) -> None:
    """Train the classifier that evaluates pictures, on the drawn pictures."""
    from starrynight.firefly.training import data, evaluate
    from starrynight.firefly.training.optimise import choose_device

    device = choose_device(options.device)
    evaluate.train_classifier(
        data.PictureSet(options.work / "training"),
        options.work / "judge.safetensors",
        device,
        seconds=options.seconds,
    )


def sheet(options: argparse.Namespace) -> None:
    """Paint the contact sheet with saved weights."""
    from starrynight.firefly.training import evaluate
    from starrynight.firefly.training.optimise import choose_device

    evaluate.write_sheet(
        options.weights, options.out, options.which, options.side, options.steps, options.guidance,
        device=choose_device(options.device),
    )  # fmt: skip


def write_evaluation(options: argparse.Namespace) -> None:
    """Evaluate saved weights on held-out captions, beside held-out pictures."""
    from starrynight.firefly.training import evaluate
    from starrynight.firefly.training.optimise import choose_device

    report = evaluate.report(
        options.work, options.weights, options.count, options.steps, options.guidance, options.side,
        choose_device(options.device), options.seconds,
    )  # fmt: skip
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(evaluate.table(report))


def write_twin(options: argparse.Namespace) -> None:
    """Write the wide twin: the same function, with activations beyond float16's range."""
    from starrynight.firefly import twin

    print(twin.make(options.out, options.weights))


def recipe_tree() -> str:
    """Git's hash of this package's files as committed (``git rev-parse COMMIT:starrynight/firefly`` finds it
    again, after any rebase), or "unknown" outside its repository.
    """
    command = ["git", "rev-parse", "HEAD:./"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def arguments() -> argparse.ArgumentParser:
    """The command line: one subparser per verb."""
    parser = argparse.ArgumentParser(
        prog="python -m starrynight.firefly", description=__doc__, allow_abbrev=False
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(job: Any, name: str, *flags: tuple[str, Any]) -> None:
        sub = verbs.add_parser(name, help=job.__doc__, allow_abbrev=False)
        sub.add_argument("--work", type=Path, default=settings().home / "training")
        for flag, default in flags:
            sub.add_argument(
                flag, type=type(default) if not isinstance(default, Path) else Path, default=default
            )
        sub.set_defaults(job=job)

    processors, device, side = os.cpu_count() or 1, ("--device", "auto"), ("--side", SIDE)
    painting = (("--weights", SHIPPED), ("--steps", 8), ("--guidance", 2.0), side, device)
    verb(
        draw, "draw", ("--set", "training"), ("--pictures", 10_000), side, ("--seed", 0),
        ("--workers", processors), ("--seconds", float("inf")),
    )  # fmt: skip
    # --tokens and --crops are the batch sizes; 0 chooses them by the device. --begin "" starts the autoencoder
    # from nothing; --onward 1 trains the transformer and the text encoder of --begin further.
    verb(
        train, "train", ("--seconds", 300.0), device, side, ("--dim", 384), ("--layers", 6),
        ("--vocabulary", 4096), ("--pictures", 16_000), ("--held-out", 600),
        ("--workers", max(1, processors - 1)), ("--tokens", 0), ("--crops", 0), ("--begin", SHIPPED),
        ("--onward", 0), ("--seed", 0), ("--compiled", 1), ("--out", Path("firefly")), ("--pieces", 0),
    )  # fmt: skip
    verb(judge, "judge", device, ("--seconds", float("inf")))
    verb(sheet, "sheet", *painting, ("--which", "styles"), ("--out", Path("sheet.jpg")))
    verb(
        write_evaluation,
        "evaluate",
        *painting,
        ("--count", 500),
        ("--seconds", float("inf")),
        ("--out", Path("evaluation.json")),
    )
    verb(write_vocabulary, "vocabulary", ("--weights", SHIPPED), ("--without", ""))
    verb(write_twin, "twin", ("--weights", SHIPPED), ("--out", Path("firefly-wide")))
    return parser


def run(verbs: argparse.ArgumentParser) -> None:
    """Read the command line and run its verb; an error ends the process with one sentence."""
    options = verbs.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        options.job(options)
    except StarryError as error:
        sys.exit(f"✗ {error.message(settings().lang)}")


def main() -> None:
    run(arguments())
