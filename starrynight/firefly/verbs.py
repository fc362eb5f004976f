"""Firefly's recipe, one verb per step: ``python -m starrynight.firefly VERB [--work FOLDER] ...``.

Each verb reads what earlier verbs left in the work folder (``STARRY_HOME/training`` unless named) and goes on from
its own checkpoint, so any of them may be killed at any moment and started again. ``recipes/firefly.sh`` tells the
whole story in order.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from starrynight.firefly.training import train
    from starrynight.firefly.training.optimise import ProcessGroup

HELD_OUT_FOR_PSNR = 64


def draw(options: argparse.Namespace) -> None:
    """Draw the training set and the held-out set."""
    from starrynight.firefly.training import data

    data.draw(options.work / "held-out", options.held_out, data.HELD_OUT_SEED, workers=options.workers)
    data.draw(options.work / "training", options.pictures, data.TRAINING_SEED, workers=options.workers)


def begin(options: argparse.Namespace) -> None:
    """Start a work folder from saved weights: encoder, decoder, tokenizer, statistics and painter stay theirs."""

    from starrynight.firefly.training import evaluate, optimise, train

    pipe = evaluate.open_weights(options.weights)
    facts = provenance(options.weights)
    pipe.tokenizer.save_pretrained(options.work / "tokenizer")
    numbers = {"mean": pipe.vae.config.shift_factor, "deviation": 1 / pipe.vae.config.scaling_factor}
    (options.work / "statistics.json").write_text(json.dumps(numbers))

    def write(part: str, weights: dict[str, torch.Tensor], said: dict[str, Any]) -> None:
        groups = {name: {k: v.detach().clone() for k, v in weights.items()} for name in ("model", "average")}
        optimise.write_checkpoint(options.work / f"{part}.safetensors", groups, said)

    channels = list(pipe.vae.config.block_out_channels)
    step = int(facts["autoencoder_steps"])
    write("autoencoder", pipe.vae.state_dict(), {"step": step, "channels": channels, "seed": 0})
    painter = train.Painter(pipe.text_encoder, pipe.transformer)
    said = {
        "step": int(facts["painter_steps"]), "samples": int(facts["painter_samples"]), "dim": int(facts["dim"]),
        "vocabulary": len(pipe.tokenizer), "pad": pipe.tokenizer.pad_token_id, "seed": int(facts["seed"]),
        "history": [{"loss": float(facts["painter_loss"])}],
    }  # fmt: skip
    write("painter", dict(painter.named_parameters()), said)


def provenance(weights: Path) -> dict[str, str]:
    """What the header of saved weights says of their making."""
    from safetensors import safe_open

    with safe_open(next((weights / "transformer").glob("*.safetensors")), "pt") as file:
        return dict(file.metadata())


def leaves(options: argparse.Namespace) -> None:
    """Teach the autoencoder its first steps on dead leaves, before any painting is drawn."""
    from starrynight.firefly.training import optimise

    optimise.launch(options.team, _leaves, options)


def _leaves(team: ProcessGroup, options: argparse.Namespace) -> None:
    from starrynight.firefly.training import autoencoder, data

    pictures = data.leaves(400)
    autoencoder.train(
        team, pictures[8:], pictures[:8], options.work / "autoencoder.safetensors", options.until
    )


def learn_pixels(options: argparse.Namespace) -> None:
    """Train the autoencoder on the drawn pictures."""
    from starrynight.firefly.training import optimise

    optimise.launch(options.team, _learn_pixels, options)


def _learn_pixels(team: ProcessGroup, options: argparse.Namespace) -> None:
    from starrynight.firefly.training import autoencoder, data

    pictures = data.read(options.work / "training").pictures
    held_out = np.array(data.read(options.work / "held-out").pictures[:HELD_OUT_FOR_PSNR])
    checkpoint = options.work / "autoencoder.safetensors"
    autoencoder.train(team, pictures, held_out, checkpoint, options.until, options.cooldown)


def polish(options: argparse.Namespace) -> None:
    """Teach the decoder alone, against a critic; the encoder stays."""
    from starrynight.firefly.training import optimise

    optimise.launch(options.team, _polish, options, arithmetic())


def _polish(team: ProcessGroup, options: argparse.Namespace, kind: torch.dtype) -> None:
    from starrynight.firefly.training import data, polish

    pictures = data.read(options.work / "training").pictures
    held_out = np.array(data.read(options.work / "held-out").pictures[:HELD_OUT_FOR_PSNR])
    polish.train(team, pictures, held_out, options.work, options.until, options.cooldown, kind=kind)


def judge(options: argparse.Namespace) -> None:
    """Train the judge on the drawn pictures."""
    from starrynight.firefly.training import data, evaluate

    evaluate.train_judge(data.read(options.work / "training"), options.work / "judge.safetensors")


def encode(options: argparse.Namespace) -> None:
    """Cache the training set as latents at one side length, learn the tokenizer, measure the latents' statistics."""
    from starrynight.firefly import model
    from starrynight.firefly.training import autoencoder, data, train

    drawn = data.read(options.work / "training")
    words = options.work / "tokenizer"
    if not words.exists():
        model.tokenizer(drawn.all_captions()).save_pretrained(words)
    vae = autoencoder.load(options.work / "autoencoder.safetensors")
    cache = options.work / f"latents-{options.side}.npy"
    kind = arithmetic()
    latents = train.encode(vae, drawn.pictures, cache, options.side == 128, drawn.room, kind)
    statistics = options.work / "statistics.json"
    if not statistics.exists():
        sample = latents[:2000].astype(np.float64)
        statistics.write_text(json.dumps({"mean": float(sample.mean()), "deviation": float(sample.std())}))


def recaption(options: argparse.Namespace) -> None:
    """Write the drawn training pictures' captions anew, when captions.py has learnt new words."""
    from starrynight.firefly.training import data

    print(data.recaption(options.work / "training", options.captions), "pictures captioned")


def learn(options: argparse.Namespace) -> None:
    """Train the transformer and the text encoder on cached latents."""
    from starrynight.firefly.training import optimise

    optimise.launch(options.team, _learn, options, arithmetic())


def _learn(team: ProcessGroup, options: argparse.Namespace, kind: torch.dtype) -> None:
    from starrynight.firefly.training import train

    captions, latents, statistics = lessons(options)
    run = begun(team, options, kind)
    checkpoint = options.work / "painter.safetensors"
    if checkpoint.exists():
        run.load(checkpoint)
    objective = partial(train.flow_loss, times=train.Times(options.shift, options.first))
    run.train(
        latents, captions, statistics, checkpoint, options.until, options.batch, options.cooldown,
        objective=objective, overlooked=options.overlooked,
    )  # fmt: skip


def distil(options: argparse.Namespace) -> None:
    """Teach the painter to cross each of the sampler's few steps as it crossed them in several."""
    from starrynight.firefly.training import optimise

    optimise.launch(options.team, _distil, options, arithmetic())


def _distil(team: ProcessGroup, options: argparse.Namespace, kind: torch.dtype) -> None:
    from starrynight.firefly.training import distil

    captions, latents, statistics = lessons(options)
    run = begun(team, options, kind)
    teacher, facts = read_painter(options.work / "painter.safetensors", options.group)
    checkpoint = distilled(options.work, facts)
    if checkpoint.exists():
        run.load(checkpoint)
    else:
        run.painter.load_state_dict(teacher.state_dict())
        run.average.restart()
    teacher.block, teacher.stride = run.painter.block, run.stride_for(latents)
    schedule = distil.Schedule(options.steps, options.sampler_shift, options.guidance, options.substeps)
    run.train(
        latents, captions, statistics, checkpoint, options.until, options.batch, options.cooldown, warmup=20,
        objective=distil.Distillation.of(teacher, captions, schedule), overlooked=options.overlooked,
    )  # fmt: skip


def distilled(work: Path, teacher: dict[str, Any]) -> Path:
    """Where the student of that ``teacher`` is; one that has learnt on has none yet."""
    return work / f"distilled-{teacher['step']}.safetensors"


def lessons(options: argparse.Namespace) -> tuple[train.Captions, np.ndarray, tuple[float, float]]:
    """What the painter learns from: captions, latents at ``--side``, and the latents' mean and deviation."""
    from starrynight.firefly.training import data, train

    latents = train.cached(options.work / f"latents-{options.side}.npy")
    facts = data.read(options.work / "training").facts[: len(latents)]
    captions = train.Captions.encode(read_words(options.work), [fact["captions"] for fact in facts])
    numbers = json.loads((options.work / "statistics.json").read_text())
    return captions, latents, (numbers["mean"], numbers["deviation"])


def begun(team: ProcessGroup, options: argparse.Namespace, kind: torch.dtype) -> train.Run:
    """A run of the painter that has learnt nothing yet."""
    from starrynight.firefly import model
    from starrynight.firefly.training import train

    words = read_words(options.work)
    return train.Run(
        model.ModelConfig(options.dim), len(words), words.pad_token_id, options.rate, options.seed, team, kind,
        options.compiled,
    )  # fmt: skip


def read_painter(checkpoint: Path, group: str) -> tuple[train.Painter, dict[str, Any]]:
    """The painter of a checkpoint, its "average" or its live "model", and what the checkpoint says of it."""
    from starrynight.firefly import model
    from starrynight.firefly.training import optimise, train

    groups, facts = optimise.read_checkpoint(checkpoint)
    dial = model.ModelConfig(facts["dim"])
    painter = train.Painter(
        model.text_encoder(dial, facts["vocabulary"], facts["pad"]), model.transformer(dial)
    )
    painter.load_state_dict(groups[group])
    return painter, facts


def save(options: argparse.Namespace) -> None:
    """Write the weights (the averaged ones, or the live ones), kept inside float16, as a folder that
    ZImagePipeline.from_pretrained reads.
    """
    from starrynight.firefly import model, rescale
    from starrynight.firefly.training import sheet

    pipe, provenance = assemble(options.work, options.sampler_shift, options.group)
    provenance["quietened"] = json.dumps(rescale.quieten(pipe, sheet.prompts()))
    model.save(pipe, options.out, provenance)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(
        json.dumps(
            {"folder": str(options.out), "megabytes": round(size / 1e6, 2), **provenance}, ensure_ascii=False
        )
    )


def sheet(options: argparse.Namespace) -> None:
    """Paint the contact sheet with saved weights."""
    from starrynight.firefly.training import sheet

    sheet.write(options.weights, options.out, options.side, options.steps, options.guidance)


def evaluate(options: argparse.Namespace) -> None:
    """Judge saved weights on held-out captions, beside held-out pictures."""
    from starrynight.firefly.training import evaluate

    report = evaluate.report(options.work, options.weights, options.count, options.steps, options.guidance)
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(evaluate.table(report))


def twin(options: argparse.Namespace) -> None:
    """Write the wide twin: the same function, black in plain float16."""
    from starrynight.firefly import twin

    print(twin.make(options.out, options.weights))


def arithmetic() -> torch.dtype:
    """bfloat16 where this processor is faster at it, float32 elsewhere."""
    import torch

    from starrynight.firefly.training import optimise

    return torch.bfloat16 if optimise.bfloat16_pays() else torch.float32


def read_words(work: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(work / "tokenizer")


def assemble(work: Path, sampler_shift: float, group: str = "average") -> tuple[Any, dict[str, str]]:
    """The pipeline from the newest checkpoints in ``work``, and where its weights come from."""
    from starrynight.firefly import model
    from starrynight.firefly.training import optimise, polish

    words = read_words(work)
    painter, facts = read_painter(work / "painter.safetensors", group)
    last: dict[str, Any] = {"step": 0}
    if distilled(work, facts).exists():
        painter, last = read_painter(distilled(work, facts), group)
    vae = polish.polished(work)
    numbers = json.loads((work / "statistics.json").read_text())
    vae.register_to_config(shift_factor=numbers["mean"], scaling_factor=1 / numbers["deviation"])
    _, crops = optimise.read_checkpoint(work / "autoencoder.safetensors")
    provenance = {
        "made_by": "python -m starrynight.firefly (recipes/firefly.sh)",
        "recipe_tree": recipe_tree(),
        "licence": "Apache-2.0",
        "seed": str(facts["seed"]),
        "dim": str(facts["dim"]),
        "painter_steps": str(facts["step"]),
        "painter_samples": str(facts["samples"]),
        "painter_loss": str(facts["history"][-1]["loss"]),
        "distilled_steps": str(last["step"]),
        "autoencoder_steps": str(crops["step"]),
    }
    return model.pipeline(vae, words, painter.encoder, painter.transformer, sampler_shift), provenance


def recipe_tree() -> str:
    """Git's hash of this package's files as committed (`git rev-parse COMMIT:starrynight/firefly` finds it again, after
    any rebase), or "unknown" outside its repository.
    """
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD:./"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def arguments() -> argparse.ArgumentParser:
    from starrynight.settings import settings

    parser = argparse.ArgumentParser(prog="python -m starrynight.firefly", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(job: Any, name: str, *flags: tuple[str, Any]) -> None:
        sub = verbs.add_parser(name, help=job.__doc__)
        sub.add_argument("--work", type=Path, default=settings().home / "training")
        for flag, default in flags:
            sub.add_argument(flag, type=Path if isinstance(default, Path) else type(default), default=default)
        sub.set_defaults(job=job)

    weights = Path(__file__).parents[1] / "weights" / "firefly"
    learning = (("--until", 1000), ("--cooldown", 0), ("--team", 2))
    verb(draw, "draw", ("--pictures", 10_000), ("--held-out", 1000), ("--workers", 2))
    verb(begin, "begin", ("--weights", weights))
    verb(leaves, "leaves", *learning)
    verb(learn_pixels, "autoencoder", *learning)
    verb(polish, "polish", *learning)
    verb(judge, "judge")
    verb(encode, "encode", ("--side", 128))
    verb(recaption, "recaption", ("--captions", 12))
    verb(
        learn, "learn", *learning, ("--side", 128), ("--batch", 32), ("--dim", 256), ("--rate", 2e-3), ("--seed", 0),
        ("--shift", 1.5), ("--first", 0.0), ("--overlooked", 0.0), ("--compiled", 0),
    )  # fmt: skip
    verb(
        distil, "distil", *learning, ("--side", 256), ("--batch", 16), ("--dim", 256), ("--rate", 5e-4), ("--seed", 0),
        ("--overlooked", 0.0), ("--compiled", 0), ("--group", "model"), ("--steps", 8), ("--sampler-shift", 5.0),
        ("--guidance", 2.0), ("--substeps", 4),
    )  # fmt: skip
    verb(save, "save", ("--out", weights), ("--sampler-shift", 5.0), ("--group", "average"))
    verb(
        sheet,
        "sheet",
        ("--weights", weights),
        ("--out", Path("sheet.jpg")),
        ("--side", 256),
        ("--steps", 8),
        ("--guidance", 2.0),
    )
    verb(
        evaluate, "evaluate", ("--weights", weights), ("--out", Path("evaluation.json")), ("--count", 500), ("--steps", 8),
        ("--guidance", 2.0),
    )  # fmt: skip
    verb(twin, "twin", ("--weights", weights), ("--out", Path("firefly-wide")))
    return parser


def main() -> None:
    options = arguments().parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.job(options)
