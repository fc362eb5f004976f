"""Judge a saved Firefly with a small network that learnt from drawn pictures only to name style, subjects and hour.

Generated pictures come from held-out captions; the same figures on the held-out pictures of those captions are the
ceiling. The judge never sees a generated picture while it learns. Knows nothing of how the painter was trained.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starrynight.firefly.drawing.scene import HOURS, STYLES, SUBJECTS, compose
from starrynight.firefly.training import data
from starrynight.firefly.training.autoencoder import psnr, to_signed
from starrynight.firefly.training.captions import caption, names
from starrynight.firefly.training.optimise import ProcessGroup, launch, read_checkpoint, write_checkpoint

SIDE = 128
FEATURES = 96
# A subject is counted as recalled when the judge is surer than this.
SURE = 0.5
JUDGE_STEPS = 2400


class Classifier(nn.Module):
    """A small convolutional network: picture [B, 3, 128, 128] in -1..1 to features [B, 96] and three answers."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, 96, FEATURES)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU())
                for a, b in pairwise(widths)
            ),
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1),
            nn.SiLU(),
        )
        self.style = nn.Linear(2 * FEATURES, len(STYLES))
        self.subjects = nn.Linear(2 * FEATURES, len(SUBJECTS))
        self.hour = nn.Linear(2 * FEATURES, len(HOURS))

    def features(self, pictures: Tensor) -> Tensor:
        """Mean and maximum over the picture, so that both textures and small single things are seen."""
        found = self.body(pictures).flatten(2)
        return torch.cat([found.mean(-1), found.amax(-1)], 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.features(pictures)
        return self.style(features), self.subjects(features), self.hour(features)


def halved(pictures: np.ndarray) -> np.ndarray:
    """Pictures [N, S, S, 3] at the judge's side, by area."""
    import cv2

    return np.stack(
        [cv2.resize(np.asarray(one), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in pictures]
    )


def labels(facts: list[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """Style [N], subjects [N, S] in 0/1, hour [N]."""
    shows = [fact["shows"] for fact in facts]
    style = torch.tensor([STYLES.index(one["style"]) for one in shows])
    hour = torch.tensor([HOURS.index(one["hour"]) for one in shows])
    subjects = torch.tensor([[float(name in one["subjects"]) for name in SUBJECTS] for one in shows])
    return style, subjects, hour


def train_judge(
    drawn: data.PictureSet, checkpoint: Path, steps: int = JUDGE_STEPS, batch: int = 64, seed: int = 0
) -> Classifier:
    """The judge, read from ``checkpoint`` or trained on drawn pictures and written there."""
    torch.manual_seed(seed)
    judge: Any = Classifier()
    judge = judge.to(memory_format=torch.channels_last)
    if checkpoint.exists():
        judge.load_state_dict(read_checkpoint(checkpoint)[0]["model"])
        return judge.eval()
    style, subjects, hour = labels(drawn.facts)
    small = halved(drawn.pictures)
    optimiser = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        rows = rng.integers(len(small), size=batch)
        said = judge(jittered(small[rows], rng))
        loss = (
            F.cross_entropy(said[0], style[rows])
            + F.cross_entropy(said[2], hour[rows])
            + 5 * F.binary_cross_entropy_with_logits(said[1], subjects[rows])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 200 == 199:
            print(json.dumps({"judge_step": step + 1, "loss": round(loss.item(), 3)}), flush=True)
    write_checkpoint(checkpoint, {"model": dict(judge.state_dict())}, {"steps": steps, "seed": seed})
    return judge.eval()


def jittered(pictures: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Random mirror, brightness and shift, so that the judge learns things rather than pixels."""
    batch = to_signed(pictures)
    if rng.random() < 0.5:
        batch = batch.flip(3)
    down, across = (int(v) for v in rng.integers(-6, 7, 2))
    return (batch.roll((down, across), (2, 3)) * rng.uniform(0.85, 1.1)).contiguous(
        memory_format=torch.channels_last
    )


@torch.no_grad()
def judged(judge: Classifier, pictures: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, style, subjects (probabilities) and hour of ``pictures`` uint8 [N, S, S, 3]."""
    small = halved(pictures)
    rows = []
    for start in range(0, len(small), 64):
        features = judge.features(to_signed(small[start : start + 64]))
        rows.append(
            (features, judge.style(features), judge.subjects(features).sigmoid(), judge.hour(features))
        )
    features, style, subjects, hour = (torch.cat(column) for column in zip(*rows, strict=True))
    return features, style, subjects, hour


def frechet(one: Tensor, other: Tensor) -> float:
    """Frechet distance between two sets of features [N, D] (Heusel 2017, in this judge's features, not Inception's)."""
    from scipy.linalg import sqrtm

    a, b = one.double().numpy(), other.double().numpy()
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1]).real
    distance = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    return float(max(distance, 0.0))


@dataclass(frozen=True)
class Question:
    """A held-out picture's facts, one caption of it that names its style, and what else the caption names."""

    fact: dict[str, Any]
    text: str
    subjects: tuple[str, ...]
    names_hour: bool


def ask(held_out: data.PictureSet, count: int) -> list[Question]:
    """Up to ``count`` questions, one for each held-out picture, from captions drawn afresh."""
    questions = []
    for fact in held_out.facts[:count]:
        scene = compose(fact["seed"])
        rng = np.random.default_rng((fact["seed"], 2))
        while not names(text := caption(scene, rng), "style", scene.style):
            pass
        subjects = tuple(subject for subject in scene.subjects if names(text, "thing", subject))
        questions.append(Question(fact, text, subjects, names(text, "hour", scene.hour)))
    return questions


def figures(judge: Classifier, pictures: np.ndarray, questions: list[Question]) -> dict[str, float]:
    """Accuracy of style, of the hour where the caption names it, and recall of the subjects each caption names."""
    style, _, hour = labels([question.fact for question in questions])
    named = np.array([[subject in question.subjects for subject in SUBJECTS] for question in questions])
    timed = torch.tensor([question.names_hour for question in questions])
    _, said_style, said_subjects, said_hour = judged(judge, pictures)
    return {
        "style_accuracy": float((said_style.argmax(1) == style).float().mean()),
        "subject_recall": float((said_subjects > SURE).numpy()[named].mean()),
        "hour_accuracy": float((said_hour.argmax(1) == hour)[timed].float().mean()),
    }


def by_name(judge: Classifier, pictures: np.ndarray, questions: list[Question]) -> dict[str, Any]:
    """Where ``figures`` come from: how often each hour that a caption names was taken for which, and of each named
    subject how many pictures show it, as [found, named].
    """
    _, _, said_subjects, said_hour = judged(judge, pictures)
    found = (said_subjects > SURE).numpy()
    hours = {hour: dict.fromkeys(HOURS, 0) for hour in HOURS}
    subjects = {subject: [0, 0] for subject in SUBJECTS}
    for row, question in enumerate(questions):
        if question.names_hour:
            hours[question.fact["shows"]["hour"]][HOURS[int(said_hour[row].argmax())]] += 1
        for subject in question.subjects:
            subjects[subject][0] += int(found[row, SUBJECTS.index(subject)])
            subjects[subject][1] += 1
    return {"hours": hours, "subjects": subjects}


def diversity(
    judge: Classifier, pipe: Any, texts: list[str], steps: int, guidance: float, held_out: np.ndarray
) -> dict[str, float]:
    """Mean distance in features between four seeds of one caption, and between unrelated held-out pictures."""
    from starrynight.firefly.training.sheet import paint

    spreads = []
    for text in texts:
        features = judged(judge, paint(pipe, [text] * 4, seed=100, steps=steps, guidance=guidance))[0]
        spreads.append(float(torch.pdist(features).mean()))
    return {
        "over_seeds": float(np.mean(spreads)),
        "over_pictures": float(torch.pdist(judged(judge, held_out)[0]).mean()),
    }


def nearest(pictures: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Root mean square distance in 0..255 of each picture to its nearest training picture, both at 32 x 32."""
    import cv2

    def tiny(many: np.ndarray) -> Tensor:
        small = [cv2.resize(np.asarray(one), (32, 32), interpolation=cv2.INTER_AREA) for one in many]
        return torch.from_numpy(np.stack(small).reshape(len(many), -1).astype(np.float32))

    known = tiny(training)
    return (torch.cdist(tiny(pictures), known).amin(1) / known.shape[1] ** 0.5).numpy()


def paint_share(
    team: ProcessGroup, work: Path, weights: Path, count: int, steps: int, guidance: float
) -> None:
    """Paint this member's share of the questions and leave it in the work folder."""
    from starrynight.firefly.training.sheet import paint

    texts = [question.text for question in ask(data.read(work / "held-out"), count)]
    edges = [len(texts) * rank // team.size for rank in range(team.size + 1)]
    first, last = edges[team.rank], edges[team.rank + 1]
    pipe = open_weights(weights, torch.bfloat16)
    pictures = paint(pipe, texts[first:last], seed=1 + first, steps=steps, guidance=guidance)
    np.save(work / f"painted-{team.rank}.npy", pictures)


def open_weights(folder: Path, kind: torch.dtype = torch.float32) -> Any:
    """The saved pipeline, computing in ``kind``."""
    from diffusers import ZImagePipeline

    return ZImagePipeline.from_pretrained(folder, dtype=kind)


def report(
    work: Path, weights: Path, count: int, steps: int, guidance: float, team: int = 2
) -> dict[str, Any]:
    """Paint ``count`` held-out captions with ``weights``, in bfloat16 as the studio does, and judge them beside
    their held-out pictures.
    """
    training, held_out = data.read(work / "training"), data.read(work / "held-out")
    judge = train_judge(training, work / "judge.safetensors")
    launch(team, paint_share, work, weights, count, steps, guidance)
    made = np.concatenate([np.load(work / f"painted-{rank}.npy") for rank in range(team)])
    pipe = open_weights(weights, torch.bfloat16)
    questions = ask(held_out, count)
    texts = [question.text for question in questions]
    real, other = held_out.pictures[: len(questions)], held_out.pictures[len(questions) :]
    features = {
        name: judged(judge, some)[0] for name, some in (("made", made), ("real", real), ("other", other))
    }
    far = nearest(made, training.pictures), nearest(real, training.pictures)
    return {
        "conditions": {"pictures": len(texts), "steps": steps, "guidance": guidance, "side": 256, "dtype": "bfloat16"},
        "generated": figures(judge, made, questions),
        "held_out": figures(judge, real, questions),
        "by_name": by_name(judge, made, questions),
        "frechet": {
            "generated": frechet(features["made"], features["real"]),
            "held_out": frechet(features["other"], features["real"]) if len(other) > FEATURES else None,
        },
        "diversity": diversity(judge, pipe, texts[:8], steps, guidance, real[:200]),
        "nearest_training_picture": {
            "generated_least": float(far[0].min()), "generated_median": float(np.median(far[0])),
            "held_out_least": float(far[1].min()), "held_out_median": float(np.median(far[1])),
        },
        "autoencoder_psnr": psnr(open_weights(weights).vae, real[:64]),
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    made, real, far = report["generated"], report["held_out"], report["nearest_training_picture"]
    lines = [
        f"| {report['conditions']['pictures']} held-out captions | Firefly | held-out pictures | aim |",
        "|---|---|---|---|",
        f"| style recognised | {made['style_accuracy']:.1%} | {real['style_accuracy']:.1%} | 90 % |",
        f"| mentioned subjects found | {made['subject_recall']:.1%} | {real['subject_recall']:.1%} | 80 % |",
        f"| hour recognised | {made['hour_accuracy']:.1%} | {real['hour_accuracy']:.1%} | |",
        f"| Fréchet distance to held-out | {report['frechet']['generated']:.2f} | {report['frechet']['held_out'] or 0:.2f} | |",
        f"| autoencoder PSNR | {report['autoencoder_psnr']:.2f} dB | | 26 dB |",
        f"| spread over seeds, over pictures | {report['diversity']['over_seeds']:.2f} | {report['diversity']['over_pictures']:.2f} | |",
        f"| nearest training picture (32², of 255) | {far['generated_least']:.1f} least, {far['generated_median']:.1f} median "
        f"| {far['held_out_least']:.1f} least, {far['held_out_median']:.1f} median | |",
    ]
    return "\n".join(lines)
