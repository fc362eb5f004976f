"""Firefly's recipe, one verb per step: ``python -m starrynight.firefly VERB [--work FOLDER] ...``.

Each verb reads what earlier verbs wrote to the work folder (``STARRY_HOME/training`` by default) and resumes
from its own checkpoint, so any of them may be killed at any moment and started again. ``recipes/firefly.sh``
runs them in order.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from starrynight.firefly import model, twin
from starrynight.firefly.training import autoencoder, data, evaluate, optimise, train
from starrynight.firefly.training.optimise import ProcessGroup
from starrynight.models.catalogue import SHIPPED
from starrynight.settings import settings

HELD_OUT_FOR_PSNR = 64


def draw(options: argparse.Namespace) -> None:
    """Draw the training set and the held-out set."""
    data.draw(options.work / "held-out", options.held_out, data.HELD_OUT_SEED, workers=options.workers)
    data.draw(options.work / "training", options.pictures, data.TRAINING_SEED, workers=options.workers)


def begin(options: argparse.Namespace) -> None:
    """Start a work folder from saved weights: autoencoder, tokenizer, statistics and model."""
    pipe = model.load(options.weights)
    facts = provenance(options.weights)
    pipe.tokenizer.save_pretrained(options.work / "tokenizer")
    statistics = {"mean": pipe.vae.config.shift_factor, "deviation": 1 / pipe.vae.config.scaling_factor}
    (options.work / "statistics.json").write_text(json.dumps(statistics))

    def write(part: str, weights: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
        groups = {name: {k: v.detach().clone() for k, v in weights.items()} for name in ("model", "average")}
        optimise.write_checkpoint(options.work / f"{part}.safetensors", groups, header)

    channels = list(pipe.vae.config.block_out_channels)
    step = int(facts["autoencoder_steps"])
    write("autoencoder", pipe.vae.state_dict(), {"step": step, "channels": channels, "seed": 0})
    network = train.TextToImageModel(pipe.text_encoder, pipe.transformer)
    header = {
        "step": int(facts["painter_steps"]), "samples": int(facts["painter_samples"]),
        "dim": int(facts["dim"]),
        "vocabulary": len(pipe.tokenizer), "pad": pipe.tokenizer.pad_token_id, "seed": int(facts["seed"]),
        "history": [{"loss": float(facts["painter_loss"])}],
    }  # fmt: skip
    write("painter", dict(network.named_parameters()), header)


def provenance(weights: Path) -> dict[str, str]:
    """The header of saved weights: how they were made."""
    with safe_open(next((weights / "transformer").glob("*.safetensors")), "pt") as file:
        return dict(file.metadata())


def leaves(processes: ProcessGroup, options: argparse.Namespace) -> None:
    """Train the autoencoder's first steps on dead-leaves pictures, before any painting is drawn."""
    pictures = autoencoder.dead_leaves(400)
    checkpoint = options.work / "autoencoder.safetensors"
    autoencoder.train(processes, pictures[8:], pictures[:8], checkpoint, options.until)


def train_autoencoder(processes: ProcessGroup, options: argparse.Namespace) -> None:
    """Train the autoencoder on the drawn pictures."""
    checkpoint = options.work / "autoencoder.safetensors"
    autoencoder.train(processes, *_pictures(options.work), checkpoint, options.until, options.cooldown)


def polish(processes: ProcessGroup, options: argparse.Namespace) -> None:
    """Train the decoder alone, against a critic; the encoder stays."""
    pictures, work = _pictures(options.work), options.work
    autoencoder.polish(processes, *pictures, work, options.until, options.cooldown, dtype=options.dtype)


def _launch(job: Any, options: argparse.Namespace) -> None:
    """Run ``job(processes, options)`` in ``--team`` processes, which all compute in the fastest dtype."""
    options.dtype = optimise.fastest_dtype()
    optimise.launch(options.team, job, options)


def _pictures(work: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training pictures and the held-out pictures that PSNR is measured on."""
    held_out = data.read(work / "held-out").pictures[:HELD_OUT_FOR_PSNR]
    return data.read(work / "training").pictures, np.array(held_out)


def judge(options: argparse.Namespace) -> None:
    """Train the classifier that evaluates pictures, on the drawn pictures."""
    evaluate.train_classifier(data.read(options.work / "training"), options.work / "judge.safetensors")


def encode(options: argparse.Namespace) -> None:
    """Train the tokenizer, cache the training set as latents at one size, measure the latents' statistics."""
    drawn = data.read(options.work / "training")
    tokenizer = options.work / "tokenizer"
    if not tokenizer.exists():
        model.tokenizer(drawn.all_captions()).save_pretrained(tokenizer)
    vae = autoencoder.load(options.work / "autoencoder.safetensors")
    cache = options.work / f"latents-{options.side}.npy"
    latents = autoencoder.cache_latents(
        vae, drawn.pictures, cache, options.side == 128, drawn.planned, optimise.fastest_dtype()
    )
    statistics = options.work / "statistics.json"
    if not statistics.exists():
        sample = latents[:2000].astype(np.float64)
        statistics.write_text(json.dumps({"mean": float(sample.mean()), "deviation": float(sample.std())}))


def recaption(options: argparse.Namespace) -> None:
    """Write the captions of the drawn training pictures again, after a change of the phrases."""
    print(data.recaption(options.work / "training", options.captions), "pictures captioned")


def learn(processes: ProcessGroup, options: argparse.Namespace) -> None:
    """Train the transformer and the text encoder on cached latents."""
    run = new_run(processes, options)
    checkpoint = options.work / "painter.safetensors"
    if checkpoint.exists():
        run.restore(checkpoint)
    objective = partial(train.flow_loss, sigmas=train.SigmaSampler(options.shift, options.first))
    run.train(
        *training_data(options), checkpoint, options.until, options.batch, options.cooldown,
        objective=objective, omitted_share=options.overlooked,
    )  # fmt: skip


def distil(processes: ProcessGroup, options: argparse.Namespace) -> None:
    """Distil the model: each of the sampler's few steps learns what the teacher does in several."""
    latents, captions, statistics = training_data(options)
    run = new_run(processes, options)
    teacher, facts = read_model(options.work / "painter.safetensors", options.group)
    checkpoint = distilled(options.work, facts)
    if checkpoint.exists():
        run.restore(checkpoint)
    else:
        run.model.load_state_dict(teacher.state_dict())
    teacher.block, teacher.stride = run.model.block, run.stride_for(latents)
    schedule = train.DistillationSchedule(
        options.steps, options.sampler_shift, options.guidance, options.substeps
    )
    run.train(
        latents, captions, statistics, checkpoint, options.until, options.batch, options.cooldown, warmup=20,
        objective=train.Distillation.of(teacher, captions, schedule), omitted_share=options.overlooked,
    )  # fmt: skip


def distilled(work: Path, teacher: dict[str, Any]) -> Path:
    """The checkpoint distilled from a teacher with these facts. It is named by the teacher's step, so a
    teacher that was trained further has none yet.
    """
    return work / f"distilled-{teacher['step']}.safetensors"


def training_data(
    options: argparse.Namespace,
) -> tuple[np.ndarray, data.TokenizedCaptions, tuple[float, float]]:
    """The cached latents at ``--side``, their captions, and the latents' mean and deviation."""
    latents = autoencoder.cached_latents(options.work / f"latents-{options.side}.npy")
    records = data.read(options.work / "training").records[: len(latents)]
    captions = data.TokenizedCaptions.encode(
        read_tokenizer(options.work), [record["captions"] for record in records]
    )
    statistics = json.loads((options.work / "statistics.json").read_text())
    return latents, captions, (statistics["mean"], statistics["deviation"])


def new_run(processes: ProcessGroup, options: argparse.Namespace) -> train.TrainingRun:
    """An untrained model with its optimiser, as the command line configures it."""
    tokenizer = read_tokenizer(options.work)
    return train.TrainingRun(
        model.ModelConfig(options.dim), len(tokenizer), tokenizer.pad_token_id, options.rate, options.seed,
        processes, options.dtype, options.compiled,
    )  # fmt: skip


def read_model(checkpoint: Path, group: str) -> tuple[train.TextToImageModel, dict[str, Any]]:
    """The weights ``group`` of a checkpoint ("average", or the live "model"), and the checkpoint's facts."""
    groups, facts = optimise.read_checkpoint(checkpoint)
    config = model.ModelConfig(facts["dim"])
    network = train.TextToImageModel(
        model.text_encoder(config, facts["vocabulary"], facts["pad"]), model.transformer(config)
    )
    network.load_state_dict(groups[group])
    return network, facts


def save(options: argparse.Namespace) -> None:
    """Write the weights (averaged or live), rescaled for float16, as a folder for ZImagePipeline."""
    pipe, provenance = assemble(options.work, options.sampler_shift, options.group)
    provenance["quietened"] = json.dumps(model.rescale(pipe, evaluate.sheet_prompts()))
    model.save(pipe, options.out, provenance)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    summary = {"folder": str(options.out), "megabytes": round(size / 1e6, 2), **provenance}
    print(json.dumps(summary, ensure_ascii=False))


def sheet(options: argparse.Namespace) -> None:
    """Paint the contact sheet with saved weights."""
    evaluate.write_sheet(options.weights, options.out, options.side, options.steps, options.guidance)


def write_evaluation(options: argparse.Namespace) -> None:
    """Evaluate saved weights on held-out captions, beside held-out pictures."""
    report = evaluate.report(options.work, options.weights, options.count, options.steps, options.guidance)
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(evaluate.table(report))


def write_twin(options: argparse.Namespace) -> None:
    """Write the wide twin: the same function, with activations beyond float16's range."""
    print(twin.make(options.out, options.weights))


def read_tokenizer(work: Path) -> Any:
    """The tokenizer of a work folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(work / "tokenizer")  # a folder  # nosec B615


def assemble(work: Path, sampler_shift: float, group: str = "average") -> tuple[Any, dict[str, str]]:
    """The pipeline from the newest checkpoints in ``work``, and the header that records how it was made."""
    network, facts = read_model(work / "painter.safetensors", group)
    student: dict[str, Any] = {"step": 0}
    if distilled(work, facts).exists():
        network, student = read_model(distilled(work, facts), group)
    vae = autoencoder.load_polished(work)
    statistics = json.loads((work / "statistics.json").read_text())
    vae.register_to_config(shift_factor=statistics["mean"], scaling_factor=1 / statistics["deviation"])
    provenance = {
        "made_by": "python -m starrynight.firefly (recipes/firefly.sh)",
        "recipe_tree": recipe_tree(),
        "licence": "Apache-2.0",
        "seed": str(facts["seed"]),
        "dim": str(facts["dim"]),
        "painter_steps": str(facts["step"]),
        "painter_samples": str(facts["samples"]),
        "painter_loss": str(facts["history"][-1]["loss"]),
        "distilled_steps": str(student["step"]),
        "autoencoder_steps": str(optimise.read_checkpoint(work / "autoencoder.safetensors")[1]["step"]),
    }
    tokenizer = read_tokenizer(work)
    return model.pipeline(vae, tokenizer, network.encoder, network.transformer, sampler_shift), provenance


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
    parser = argparse.ArgumentParser(prog="python -m starrynight.firefly", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(job: Any, name: str, *flags: tuple[str, Any]) -> None:
        sub = verbs.add_parser(name, help=job.__doc__)
        sub.add_argument("--work", type=Path, default=settings().home / "training")
        for flag, default in flags:
            sub.add_argument(flag, type=Path if isinstance(default, Path) else type(default), default=default)
        sub.set_defaults(job=partial(_launch, job) if team in flags else job)

    # --team is the number of processes; --first is SigmaSampler's ``high_noise``, --overlooked the
    # ``omitted_share``.
    team = ("--team", 2)
    learning = (("--until", 1000), ("--cooldown", 0), team)
    painting = (("--steps", 8), ("--guidance", 2.0))
    verb(draw, "draw", ("--pictures", 10_000), ("--held-out", 1000), ("--workers", 2))
    verb(begin, "begin", ("--weights", SHIPPED))
    verb(leaves, "leaves", *learning)
    verb(train_autoencoder, "autoencoder", *learning)
    verb(polish, "polish", *learning)
    verb(judge, "judge")
    verb(encode, "encode", ("--side", 128))
    verb(recaption, "recaption", ("--captions", 12))
    verb(
        learn, "learn", *learning, ("--side", 128), ("--batch", 32), ("--dim", 256), ("--rate", 2e-3),
        ("--seed", 0), ("--shift", 1.5), ("--first", 0.0), ("--overlooked", 0.0), ("--compiled", 0),
    )  # fmt: skip
    verb(
        distil, "distil", *learning, ("--side", 256), ("--batch", 16), ("--dim", 256), ("--rate", 5e-4),
        ("--seed", 0), ("--overlooked", 0.0), ("--compiled", 0), ("--group", "model"), *painting,
        ("--sampler-shift", 5.0), ("--substeps", 4),
    )  # fmt: skip
    verb(save, "save", ("--out", SHIPPED), ("--sampler-shift", 5.0), ("--group", "average"))
    verb(sheet, "sheet", ("--weights", SHIPPED), ("--out", Path("sheet.jpg")), ("--side", 256), *painting)
    weights, out = ("--weights", SHIPPED), ("--out", Path("evaluation.json"))
    verb(write_evaluation, "evaluate", weights, out, ("--count", 500), *painting)
    verb(write_twin, "twin", weights, ("--out", Path("firefly-wide")))
    return parser


def main() -> None:
    options = arguments().parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.job(options)
