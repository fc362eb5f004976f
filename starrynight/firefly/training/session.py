"""Train Firefly from nothing to saved weights within a time budget, on whatever device there is.

Pictures are drawn in the background while networks train on those that are finished. Each phase gets its share
of the time that is left, so that the whole ends within the budget. Every phase saves a checkpoint each minute: a
session that was killed goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from starrynight.firefly import model
from starrynight.firefly.drawing.scene import SUBJECTS
from starrynight.firefly.training import autoencoder, data, train
from starrynight.firefly.training.corpus import Corpus, Shape
from starrynight.firefly.training.optimise import (
    TrainingLoop,
    autocast,
    choose_device,
    fastest_dtype,
    generator,
    read_facts,
)
from starrynight.models import sizes
from starrynight.models.vocabulary import Vocabulary

# Shares of the time that is left when the first pictures are there. "saving" is what follows the training.
SHARES = {"autoencoder": 0.15, "polish": 0.05, "painter": 0.67, "distillation": 0.08, "saving": 0.05}
# The share of the painter's training after which larger and oblong pictures take over.
LARGER_AFTER = 0.45
# The share of samples whose subject is drawn before the picture (Corpus.sample).
NAMED_SHARE = 0.45
# Pictures of ``Plan.side`` as they are. What stands in where too few pictures have a window of another shape.
WHOLE = Shape("whole", early=0.32, late=0.47)
# Held-out pictures that losses are compared on.
EXAMS = 48

# (latents [B, C, H, W], (tokens, mask), generator) to a loss.
HeldOutLoss = Callable[[Tensor, tuple[Tensor, Tensor], torch.Generator], Tensor]


@dataclass(frozen=True)
class Plan:
    """What a session does. ``side`` is the side of most pictures in pixels; others have half and one and a half
    of it. ``tokens`` is the number of patches and caption tokens in a step of the painter, ``crops`` and
    ``crop`` the number and side of the autoencoder's crops. ``begin`` are weights whose autoencoder is trained
    further; None starts from nothing. ``onward`` trains their transformer and text encoder further too, stresses
    the subjects that their vocabulary lacks, and leaves the autoencoder, whose latents they know, and the
    tokenizer as they are. With no ``workers``, the sets are
    drawn by others (the verb ``draw``). Blocks are ``compiled`` on a GPU only: on a CPU it costs a minute and gains
    less.
    """

    work: Path
    seconds: float
    device: str = "auto"
    side: int = 512
    dim: int = 384
    layers: int = 6
    vocabulary: int = 4096
    pictures: int = 16_000
    held_out: int = 600
    workers: int = 2
    tokens: int = 6000
    crops: int = 8
    crop: int = 256
    begin: Path | None = None
    onward: bool = False
    seed: int = 0
    compiled: bool = True


class Session:
    """One run of a plan: its device, its clock and its work folder."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.work, self.device = plan, plan.work, choose_device(plan.device)
        self.dtype = fastest_dtype(self.device)
        self.deadline = time.perf_counter() + plan.seconds - self._already_spent()
        self.left = dict(SHARES)
        self.weights: Any = model.load(plan.begin) if plan.begin else None
        self.stressed: frozenset[str] = frozenset()
        if plan.onward:
            if plan.begin is None:
                raise ValueError("onward needs weights to begin with")
            model.undo_rescale(self.weights, model.rescaled(model.provenance(plan.begin)))
            known = Vocabulary.read(plan.begin)
            self.stressed = frozenset(SUBJECTS).difference(known.things if known else SUBJECTS)
            del self.left["autoencoder"], self.left["polish"]
        torch.manual_seed(plan.seed)
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True

    def _already_spent(self) -> float:
        """The seconds that trainings of this folder have spent in earlier runs."""
        return sum(
            float(read_facts(path)["spent"])
            for path in (self.checkpoint(name) for name in SHARES)
            if path.exists()
        )

    def checkpoint(self, name: str) -> Path:
        return self.work / f"{name}.safetensors"

    def seconds_for(self, phase: str) -> float:
        """This phase's share of the time that is left; it is then no longer waited for."""
        share = self.left[phase] / sum(self.left.values())
        del self.left[phase]
        return max(0.0, self.deadline - time.perf_counter()) * share

    def say(self, what: str, **facts: Any) -> None:
        """Print what has happened as a line of JSON."""
        memory = {}
        if self.device.type == "cuda":
            memory = {"gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)}
        left = round(self.deadline - time.perf_counter(), 1)
        print(json.dumps({"what": what, **facts, "seconds_left": left, **memory}), flush=True)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw the sets in background processes; they end with the block."""
        if not self.plan.workers:
            yield
            return
        plan, share = self.plan, max(1, self.plan.workers // 5)
        sets = (
            ("held-out", plan.held_out, plan.side, 1),
            ("training", plan.pictures, plan.side, max(1, plan.workers - share - 1)),
            ("large", plan.pictures // 5, plan.side * 3 // 2, share),
        )
        processes = []
        for name, count, side, workers in sets:
            command = [
                sys.executable, "-m", "starrynight.firefly", "draw", "--work", str(self.work), "--set", name,
                "--pictures", str(count), "--side", str(side), "--workers", str(workers),
                "--seconds", str(max(1.0, self.deadline - time.perf_counter())),
            ]  # fmt: skip
            processes.append(
                subprocess.Popen(
                    ["nice", "-n", "5", *command], start_new_session=True, stdout=subprocess.DEVNULL
                )
            )
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                process.wait()

    def wait_for_pictures(self, least: int) -> None:
        """Wait until every set has its first pictures and the training set ``least``."""
        sets = {name: data.PictureSet(self.work / name) for name in data.FIRST_SEEDS}
        while time.perf_counter() < self.deadline:
            for drawn in sets.values():
                drawn.refresh()
            counts = {name: len(drawn) for name, drawn in sets.items()}
            if counts["training"] >= least and min(counts.values()) > 0:
                return self.say("pictures", **counts)
            time.sleep(0.5)
        raise TimeoutError("no pictures were drawn within the budget")

    def tokenizer(self) -> Any:
        """The tokenizer in the work folder, trained on captions of composed scenes if there is none."""
        from transformers import AutoTokenizer

        folder = self.work / "tokenizer"
        if not folder.exists() and self.plan.onward:
            self.weights.tokenizer.save_pretrained(folder)
        if not folder.exists():
            first = data.FIRST_SEEDS["training"]
            model.tokenizer(
                data.scene_captions(range(first, first + 6000)), self.plan.vocabulary
            ).save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)  # a folder  # nosec B615

    def network(self, vocabulary: int, pad: int) -> train.TextToImageModel:
        """The transformer and text encoder: those to go on from, or untrained ones."""
        if self.plan.onward:
            made = train.TextToImageModel(self.weights.text_encoder, self.weights.transformer)
            return made.to(self.device).train()
        return new_network(self.plan, vocabulary, pad).to(self.device)

    def autoencoder(self) -> Any:
        """The autoencoder, trained, with its decoder refined against a critic."""
        vae = self.weights.vae if self.weights else model.autoencoder()
        vae = vae.to(self.device).to(memory_format=torch.channels_last).float()
        if self.plan.onward:
            return vae.eval().requires_grad_(False)
        crops = autoencoder.Crops([self.work / "training", self.work / "large"], self.device)
        held_out = data.PictureSet(self.work / "held-out").pictures[:48]
        size = min(self.plan.crop, self.plan.side)
        found = {"before": autoencoder.mean_psnr(vae, held_out)}
        for name, learn in (("autoencoder", autoencoder.train), ("polish", autoencoder.polish)):
            learn(
                vae, crops, self.checkpoint(name), self.seconds_for(name), self.dtype, self.plan.crops, size,
                seed=self.plan.seed,
            )  # fmt: skip
            found[name] = autoencoder.mean_psnr(vae, held_out)
        self.say("autoencoder", psnr={name: round(value, 2) for name, value in found.items()})
        return vae.eval().requires_grad_(False)


class PainterTraining:
    """The training of transformer and text encoder on a session's pictures, and their distillation."""

    def __init__(self, session: Session, vae: Any, tokenizer: Any) -> None:
        self.session, self.vae, self.device, self.dtype = session, vae, session.device, session.dtype
        names = {"held-out": (1, 2), "training": (1, 2), "large": (1,)}
        self.corpora = {
            name: Corpus(session.work / name, tokenizer, self.device, shrinks, stressed=session.stressed)
            for name, shrinks in names.items()
        }
        for name, corpus in self.corpora.items():
            tenth = (session.deadline - time.perf_counter()) / 10
            corpus.refresh(vae, self.dtype, EXAMS if name == "held-out" else 2**31, tenth / 2)
        self.mean, self.deviation = self._statistics()
        self.shapes = self._shapes()
        self.network = session.network(len(tokenizer), tokenizer.pad_token_id)
        self.refreshed = time.perf_counter()
        self.per_shape: dict[str, int] = {}
        self.exams = 1 if self.device.type == "cpu" else 6

    def _statistics(self) -> tuple[float, float]:
        """Mean and deviation of the latents: those of the weights to go on from, or of the first run's pictures."""
        file = self.session.work / "statistics.json"
        if self.session.plan.onward:
            known = self.session.weights.vae.config
            return known.shift_factor, 1 / known.scaling_factor
        if not file.exists():
            mean, deviation = self.corpora["training"].statistics()
            file.write_text(json.dumps({"mean": mean, "deviation": deviation}))
        found = json.loads(file.read_text())
        return found["mean"], found["deviation"]

    def _shapes(self) -> list[tuple[Corpus, Shape]]:
        """Every shape of samples with its corpus."""
        side, large = self.corpora["training"], self.corpora["large"]
        whole, wide = side.latents[1].shape[-1], large.latents[1].shape[-1]
        three, two, half = (
            int(full * part) // 2 * 2 for full, part in ((whole, 0.75), (wide, 2 / 3), (wide, 0.5))
        )
        return [
            (side, Shape("half", 2, early=0.35, late=0.18)),
            (side, Shape("half spread", 2, stride=2, early=0.33)),
            (side, WHOLE),
            (side, Shape("whole 4:3", rows=three, late=0.06)),
            (side, Shape("whole 3:4", columns=three, late=0.06)),
            (large, Shape("large", late=0.07)),
            (large, Shape("large 3:2", rows=two, late=0.06)),
            (large, Shape("large 2:3", columns=two, late=0.06)),
            (large, Shape("large 2:1", rows=half, late=0.04)),
        ]

    def sizes(self) -> set[tuple[int, int]]:
        """Width and height in pixels of every shape of samples."""
        sides = [corpus.side(shape) for corpus, shape in self.shapes]
        return {(8 * width, 8 * height) for height, width in sides}

    def draw(
        self, rng: np.random.Generator, late: bool, tokens: int, **shares: float
    ) -> tuple[Shape, Any, Any]:
        """A shape, and a batch of it: normalised latents and (tokens, mask)."""
        chances = np.array([one.late if late else one.early for _, one in self.shapes])
        corpus, shape = self.shapes[rng.choice(len(self.shapes), p=chances / chances.sum())]
        if len(corpus.usable(shape)) < 4:
            corpus, shape = self.corpora["training"], WHOLE
        height, width = corpus.side(shape)
        count = max(2, tokens // (height * width // 4 + 38))
        latents, words, mask = corpus.sample(shape, count, rng, **shares)
        self.per_shape[shape.name] = self.per_shape.get(shape.name, 0) + count
        return shape, (latents - self.mean) / self.deviation, (words, mask)

    def learn(self) -> None:
        """Train by flow matching: composition at half size first, then mostly whole, large and oblong pictures."""
        plan = self.session.plan
        loop = TrainingLoop(self.network, train.optimiser(self.network, 2e-3, self.dtype), 0.988)
        checkpoint = self.session.checkpoint("painter")
        if checkpoint.exists():
            loop.restore(checkpoint)
        late = loop.spent > 0

        def loss_at(step: int, spent: float) -> tuple[Tensor, int]:
            nonlocal late
            self._refresh(30.0)
            if spent >= LARGER_AFTER and not late:
                loop.restart_average()
            late = spent >= LARGER_AFTER
            rng = np.random.default_rng((plan.seed, step, 1))
            shape, clean, text = self.draw(rng, late, plan.tokens, named_share=NAMED_SHARE)
            sigmas = train.SigmaSampler(shift_for(clean), 0.3)
            draw = generator(self.device, plan.seed * 1_000_003 + step)
            with autocast(self.device, self.dtype):
                return train.flow_loss(self.network, clean, text, draw, sigmas, shape.stride), len(clean)

        loop.run(loss_at, self.session.seconds_for("painter"), checkpoint, warmup=100, cooldown=0.3)
        live, mean = self.exam(self.network), self.exam(loop.average.module)
        if sum(mean.values()) <= sum(live.values()):
            self.network.load_state_dict(loop.average.module.state_dict())
        counts = {name: corpus.count for name, corpus in self.corpora.items()}
        self.session.say(
            "painter", steps=loop.step, samples=loop.samples, live=live, average=mean, pictures=counts,
            shapes=self.per_shape,
        )  # fmt: skip

    def _refresh(self, every: float) -> None:
        if time.perf_counter() - self.refreshed > every:
            for name in ("training", "large"):
                self.corpora[name].refresh(self.vae, self.dtype, seconds=every / 10)
            self.refreshed = time.perf_counter()

    def exam(self, network: Any) -> dict[str, float]:
        """The flow loss on held-out pictures at half and whole size, always with the same noise."""
        loss = partial(train.flow_loss, network)
        shapes = (Shape("half", 2), WHOLE)
        return {shape.name: round(self._held_out_loss(loss, shape, seed=99), 4) for shape in shapes}

    @torch.no_grad()
    def _held_out_loss(self, loss: HeldOutLoss, shape: Shape, seed: int) -> float:
        """The mean of ``loss`` over held-out pictures, always of the same captions and noise."""
        losses = []
        for part in range(self.exams):
            rng = np.random.default_rng((seed, part))
            latents, words, mask = self.corpora["held-out"].sample(shape, 8, rng, empty_share=0.0)
            clean, draw = (latents - self.mean) / self.deviation, generator(self.device, part)
            with autocast(self.device, self.dtype):
                losses.append(loss(clean, (words, mask), draw).item())
        return float(np.mean(losses))

    def distil(self) -> None:
        """Teach each of the sampler's eight steps what four of the trained model's do."""
        plan, checkpoint = self.session.plan, self.session.checkpoint("distillation")
        teacher = copy.deepcopy(self.network).eval().requires_grad_(False)
        empty = torch.from_numpy(self.corpora["training"].captions.empty).to(self.device)
        objective = train.Distillation(teacher, empty)
        loop = TrainingLoop(self.network, train.optimiser(self.network, 5e-4, self.dtype), 0.92)
        if checkpoint.exists():
            loop.restore(checkpoint)
        held_out = partial(self._held_out_loss, partial(objective, self.network), WHOLE, seed=98)
        before = held_out()

        def loss_at(step: int, _spent: float) -> tuple[Tensor, int]:
            rng = np.random.default_rng((plan.seed, step, 2))
            _, clean, text = self.draw(rng, True, plan.tokens // 3, named_share=0.2, empty_share=0.0)
            with autocast(self.device, self.dtype):
                return objective(self.network, clean, text, generator(self.device, step)), len(clean)

        loop.run(loss_at, self.session.seconds_for("distillation"), checkpoint, warmup=20, cooldown=0.5)
        after = held_out()
        if not after < before:
            self.network.load_state_dict(teacher.state_dict())
        self.session.say(
            "distillation", steps=loop.step, samples=loop.samples, before=round(before, 6),
            after=round(after, 6), kept=after < before,
        )  # fmt: skip


def shift_for(latents: Tensor) -> float:
    """The shift of the training sigmas: 3 at 256 x 256 and growing with the number of patches, since larger
    pictures need more noise to be as unclear.
    """
    return 3.0 * (latents.shape[-1] * latents.shape[-2] / 4 / 256) ** 0.2


def new_network(plan: Plan, vocabulary: int, pad: int) -> train.TextToImageModel:
    """An untrained transformer and text encoder."""
    config = model.ModelConfig(plan.dim, plan.layers)
    return train.TextToImageModel(model.text_encoder(config, vocabulary, pad), model.transformer(config))


def run(plan: Plan) -> Any:
    """Carry out ``plan``. Returns the trained ``ZImagePipeline``, in float32 on the CPU."""
    plan.work.mkdir(parents=True, exist_ok=True)
    session = Session(plan)
    with session.drawing():
        tokenizer = session.tokenizer()
        session.say("tokenizer", tokens=len(tokenizer))
        if plan.compiled and session.device.type == "cuda":
            block = model.transformer(model.ModelConfig(plan.dim, 1)).layers[0].to(session.device)
            session.say(
                "compiled", difference=train.compile_block(block, (288, 1056, 2336, 800), session.dtype)
            )
        session.wait_for_pictures(min(200, plan.pictures))
        vae = session.autoencoder()
        painter = PainterTraining(session, vae, tokenizer)
        painter.learn()
    sizes.write(plan.work, plan.side, painter.sizes())
    painter.distil()
    return assemble(session, painter, tokenizer)


def assemble(session: Session, painter: PainterTraining, tokenizer: Any) -> Any:
    """The trained parts as a pipeline in float32 on the CPU."""
    vae, network = painter.vae.float().cpu(), painter.network.float().cpu().eval()
    vae.register_to_config(shift_factor=painter.mean, scaling_factor=1 / painter.deviation)
    return model.pipeline(
        vae, tokenizer, network.encoder, network.transformer, train.DistillationSchedule().shift
    )


def facts(work: Path) -> dict[str, Any]:
    """What the checkpoints in ``work`` say of the training, for the headers of the weights."""
    found: dict[str, Any] = {}
    for name in ("autoencoder", "polish", "painter", "distillation"):
        path = work / f"{name}.safetensors"
        if path.exists():
            known = read_facts(path)
            found |= {f"{name}_steps": known["step"], f"{name}_samples": known["samples"]}
            found[f"{name}_seconds"] = round(known["spent"])
            found[f"{name}_loss"] = known["history"][-1]["loss"] if known["history"] else None
    return found
