"""Evaluate a saved Firefly with a small classifier that learnt style, subjects and hour from drawn pictures
only, and paint its contact sheet.

Pictures are generated from held-out captions; the same metrics on the held-out pictures of those captions are
the upper bound. The classifier never trains on a generated picture.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starrynight.firefly import model
from starrynight.firefly.drawing.scene import HOURS, STYLES, SUBJECTS, compose
from starrynight.firefly.training import captions, data
from starrynight.firefly.training.autoencoder import mean_psnr
from starrynight.firefly.training.corpus import to_signed
from starrynight.firefly.training.optimise import lr_factor, read_checkpoint, write_checkpoint

SIDE = 192
FEATURES = 128
# A subject counts as found when its probability is above this.
THRESHOLD = 0.5
CLASSIFIER_STEPS = 2400
# Drawn pictures that the classifier learns from, at most.
LEARNT_FROM = 8000
# Captions painted in one batch.
PAINTED_TOGETHER = 20

# The contact sheet's styles and scenes, each in Chinese and English.
SHEET_STYLES = (
    ("梵高油画，厚重的笔触", "Van Gogh oil painting, thick impasto"),
    ("莫奈印象派", "in the style of Monet"),
    ("敦煌壁画", "Dunhuang mural style"),
    ("水墨风格，留白", "chinese ink wash painting"),
    ("水彩，湿润的晕染", "soft watercolor"),
    ("赛博朋克，霓虹", "neon cyberpunk, glow"),
    ("浮世绘木版画", "japanese woodblock print"),
    ("点彩画", "pointillist painting"),
    ("色粉笔，绵软的质感", "pastel, velvety chalk"),
    ("剪纸艺术", "paper cut art"),
)
SHEET_SCENES = (
    ("星夜下的静谧村庄", "a quiet village under a starry night, a crescent moon"),
    ("池塘里的睡莲，小桥", "water lilies on a pond, an arched bridge"),
    ("群山与宝塔，一轮太阳，黄昏", "mountains and a pagoda, a glowing sun, dusk"),
    ("海上一叶小舟，圆月", "a lone boat on the sea, a full moon"),
    ("雨夜都市，霓虹，水中倒影", "a city skyline in the rain at night, reflections in the water"),
    ("向日葵花田，白天", "a sunflower field by day"),
)


class Classifier(nn.Module):
    """A small convolutional network: picture [B, 3, 192, 192] in -1..1 to logits of style, subjects, hour."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128, FEATURES)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU())
                for a, b in pairwise(widths)
            ),
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1),
            nn.GroupNorm(8, FEATURES),
            nn.SiLU(),
        )
        self.style = nn.Linear(2 * FEATURES, len(STYLES))
        self.subjects = nn.Linear(2 * FEATURES, len(SUBJECTS))
        self.hour = nn.Linear(2 * FEATURES, len(HOURS))

    def features(self, pictures: Tensor) -> Tensor:
        """Mean and maximum over the picture [B, 256]: the mean sees textures, the maximum small subjects."""
        found = self.body(pictures).flatten(2)
        return torch.cat([found.mean(-1), found.amax(-1)], 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.features(pictures)
        return self.style(features), self.subjects(features), self.hour(features)


def shrink(pictures: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Pictures [N, S, S, 3] at ``side`` (by default the classifier's), by area."""
    small = [cv2.resize(np.asarray(one), (side, side), interpolation=cv2.INTER_AREA) for one in pictures]
    return np.stack(small)


def labels(records: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """The true style [N], subjects [N, S] in 0/1, and hour [N] of ``records``."""
    shows = [record["shows"] for record in records]
    style = torch.tensor([STYLES.index(one["style"]) for one in shows])
    hour = torch.tensor([HOURS.index(one["hour"]) for one in shows])
    subjects = torch.tensor([[float(name in one["subjects"]) for name in SUBJECTS] for one in shows])
    return style, subjects, hour


def train_classifier(
    drawn: data.PictureSet,
    checkpoint: Path,
    device: torch.device,
    steps: int = CLASSIFIER_STEPS,
    batch: int = 64,
    seed: int = 0,
    seconds: float = math.inf,
) -> Classifier:
    """The classifier, read from ``checkpoint`` or else trained on drawn pictures and written there: ``steps``
    steps, or as many as ``seconds`` allow.
    """
    torch.manual_seed(seed)
    classifier: Any = Classifier()  # torch's stubs lack ``memory_format``
    classifier.to(device, memory_format=torch.channels_last)
    if checkpoint.exists():
        classifier.load_state_dict(read_checkpoint(checkpoint)[0]["model"])
        return classifier.eval()
    style, subjects, hour = (one.to(device) for one in labels(drawn.records[:LEARNT_FROM]))
    small = torch.from_numpy(shrink(drawn.pictures[:LEARNT_FROM])).to(device)
    optimiser = torch.optim.AdamW(classifier.parameters(), 2e-3, weight_decay=0.02)
    rng, begun, step = np.random.default_rng(seed), time.perf_counter(), 0
    while (spent := max(step / steps, (time.perf_counter() - begun) / seconds)) < 1:
        optimiser.param_groups[0]["lr"] = 3e-3 * lr_factor(step, spent, steps // 10 + 1, 0.8)
        rows = torch.from_numpy(rng.integers(len(small), size=batch)).to(device)
        predicted_style, predicted_subjects, predicted_hour = classifier(augment(small[rows], rng))
        loss = (
            F.cross_entropy(predicted_style, style[rows])
            + F.cross_entropy(predicted_hour, hour[rows])
            + 8 * F.binary_cross_entropy_with_logits(predicted_subjects, subjects[rows])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 200 == 0:
            print(json.dumps({"judge_step": step, "loss": round(loss.item(), 3)}), flush=True)
    write_checkpoint(checkpoint, {"model": dict(classifier.state_dict())}, {"steps": step, "seed": seed})
    return classifier.eval()


def augment(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Random mirror, shift and brightness, so that the classifier cannot memorise pixels."""
    batch = to_signed(pictures)
    if rng.random() < 0.5:
        batch = batch.flip(3)
    down, across = (int(v) for v in rng.integers(-6, 7, 2))
    return (batch.roll((down, across), (2, 3)) * rng.uniform(0.85, 1.1)).contiguous(
        memory_format=torch.channels_last
    )


@torch.no_grad()
def classify(classifier: Classifier, pictures: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, style logits, subject probabilities and hour logits of ``pictures`` uint8 [N, S, S, 3]."""
    small, device = shrink(pictures), next(classifier.parameters()).device
    rows = []
    for start in range(0, len(small), 64):
        features = classifier.features(to_signed(small[start : start + 64], device))
        subjects = classifier.subjects(features).sigmoid()
        rows.append((features, classifier.style(features), subjects, classifier.hour(features)))
    features, style, subjects, hour = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
    return features, style, subjects, hour


def frechet(one: Tensor, other: Tensor) -> float:
    """Fréchet distance between two sets of features [N, D] (Heusel 2017), with this classifier's features
    instead of Inception's.
    """
    from scipy.linalg import sqrtm

    a, b = one.double().numpy(), other.double().numpy()
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1]).real
    distance = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    return float(max(distance, 0.0))


@dataclass(frozen=True)
class EvaluationPrompt:
    """A held-out picture's record, one caption ``text`` that mentions its style, the ``subjects`` that the
    caption mentions, and whether it mentions the hour.
    """

    record: dict[str, Any]
    text: str
    subjects: tuple[str, ...]
    mentions_hour: bool


def evaluation_prompts(held_out: data.PictureSet, count: int) -> list[EvaluationPrompt]:
    """Up to ``count`` prompts, one for each held-out picture, from captions drawn anew."""
    prompts = []
    for record in held_out.records[:count]:
        scene = compose(record["seed"])
        rng = np.random.default_rng((record["seed"], 2))
        while not captions.mentions(text := captions.caption(scene, rng), "style", scene.style):
            pass
        subjects = tuple(subject for subject in scene.subjects if captions.mentions(text, "thing", subject))
        prompts.append(EvaluationPrompt(record, text, subjects, captions.mentions(text, "hour", scene.hour)))
    return prompts


def metrics(
    classifier: Classifier, pictures: np.ndarray, prompts: list[EvaluationPrompt]
) -> dict[str, float]:
    """Accuracy of the style, of the hour where the caption mentions it, and recall of mentioned subjects."""
    style, _, hour = labels([prompt.record for prompt in prompts])
    mentioned = np.array([[subject in prompt.subjects for subject in SUBJECTS] for prompt in prompts])
    timed = torch.tensor([prompt.mentions_hour for prompt in prompts])
    _, predicted_style, predicted_subjects, predicted_hour = classify(classifier, pictures)
    return {
        "style_accuracy": float((predicted_style.argmax(1) == style).float().mean()),
        "subject_recall": float((predicted_subjects > THRESHOLD).numpy()[mentioned].mean()),
        "hour_accuracy": float((predicted_hour.argmax(1) == hour)[timed].float().mean()),
    }


def by_name(classifier: Classifier, pictures: np.ndarray, prompts: list[EvaluationPrompt]) -> dict[str, Any]:
    """The counts behind ``metrics``: the confusion matrix of mentioned hours ("hours"), and for each subject
    how many pictures show it where the caption mentions it ("subjects": [found, mentioned]).
    """
    _, _, predicted_subjects, predicted_hour = classify(classifier, pictures)
    found = (predicted_subjects > THRESHOLD).numpy()
    hours = {hour: dict.fromkeys(HOURS, 0) for hour in HOURS}
    subjects = {subject: [0, 0] for subject in SUBJECTS}
    for row, prompt in enumerate(prompts):
        if prompt.mentions_hour:
            hours[prompt.record["shows"]["hour"]][HOURS[int(predicted_hour[row].argmax())]] += 1
        for subject in prompt.subjects:
            subjects[subject][0] += int(found[row, SUBJECTS.index(subject)])
            subjects[subject][1] += 1
    return {"hours": hours, "subjects": subjects}


def diversity(
    classifier: Classifier,
    pipe: Any,
    texts: list[str],
    side: int,
    steps: int,
    guidance: float,
    held_out: np.ndarray,
) -> dict[str, float]:
    """Mean feature distance between four seeds of one caption, and between different held-out pictures."""
    spreads = []
    for text in texts:
        made = model.paint(pipe, [text] * 4, seed=100, size=side, steps=steps, guidance=guidance)
        spreads.append(float(torch.pdist(classify(classifier, made)[0]).mean()))
    return {
        "over_seeds": float(np.mean(spreads)),
        "over_pictures": float(torch.pdist(classify(classifier, held_out)[0]).mean()),
    }


def nearest_distances(pictures: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Root mean square distance in 0..255 of each picture to its nearest training picture, at 32 x 32."""

    def thumbnails(many: np.ndarray) -> Tensor:
        return torch.from_numpy(shrink(many, 32).reshape(len(many), -1).astype(np.float32))

    known = thumbnails(training)
    return (torch.cdist(thumbnails(pictures), known).amin(1) / known.shape[1] ** 0.5).numpy()


def report(
    work: Path,
    weights: Path,
    count: int,
    steps: int,
    guidance: float,
    side: int,
    device: torch.device,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Paint ``count`` held-out captions, or as many as ``seconds`` allow, with ``weights`` in bfloat16, as the
    studio does, and compare the pictures with the held-out pictures of those captions. Trains the classifier if
    ``work`` has none, in a third of the time.
    """
    begun = time.perf_counter()
    training, held_out = data.PictureSet(work / "training"), data.PictureSet(work / "held-out")
    classifier = train_classifier(training, work / "judge.safetensors", device, seconds=seconds / 3)
    pipe = model.load(weights, torch.bfloat16).to(device)
    prompts = evaluation_prompts(held_out, count)
    texts, painted = [prompt.text for prompt in prompts], list[np.ndarray]()
    for first in range(0, len(texts), PAINTED_TOGETHER):
        if first and time.perf_counter() - begun > 0.8 * seconds:
            break
        part = texts[first : first + PAINTED_TOGETHER]
        painted.append(model.paint(pipe, part, 1 + first, side, steps, guidance, PAINTED_TOGETHER))
    made = np.concatenate(painted)
    prompts, texts = prompts[: len(made)], texts[: len(made)]
    real, other = held_out.pictures[: len(prompts)], held_out.pictures[len(prompts) :]
    features = {
        name: classify(classifier, some)[0]
        for name, some in (("made", made), ("real", real), ("other", other))
    }
    known = training.pictures[:5000]
    far = nearest_distances(made, known), nearest_distances(real, known)
    return {
        "conditions": {
            "pictures": len(texts), "steps": steps, "guidance": guidance, "side": side, "dtype": "bfloat16"
        },
        "generated": metrics(classifier, made, prompts),
        "held_out": metrics(classifier, real, prompts),
        "by_name": by_name(classifier, made, prompts),
        "by_name_held_out": by_name(classifier, real, prompts),
        "frechet": {
            "generated": frechet(features["made"], features["real"]),
            # Too few pictures leave the covariance of the features undetermined.
            "held_out": frechet(features["other"], features["real"]) if len(other) > FEATURES else None,
        },
        "diversity": diversity(classifier, pipe, texts[:8], side, steps, guidance, real[:200]),
        "nearest_training_picture": {
            "generated_least": float(far[0].min()), "generated_median": float(np.median(far[0])),
            "held_out_least": float(far[1].min()), "held_out_median": float(np.median(far[1])),
        },
        "autoencoder_psnr": mean_psnr(model.load(weights).vae, real[:64]),
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    made, real, far = report["generated"], report["held_out"], report["nearest_training_picture"]
    distance, spread = report["frechet"], report["diversity"]
    lines = [
        f"| {report['conditions']['pictures']} held-out captions | Firefly | held-out pictures | aim |",
        "|---|---|---|---|",
        f"| style recognised | {made['style_accuracy']:.1%} | {real['style_accuracy']:.1%} | 90 % |",
        f"| mentioned subjects found | {made['subject_recall']:.1%} | {real['subject_recall']:.1%} | 80 % |",
        f"| hour recognised | {made['hour_accuracy']:.1%} | {real['hour_accuracy']:.1%} | |",
        f"| Fréchet distance to held-out | {distance['generated']:.2f} | {distance['held_out'] or 0:.2f} | |",
        f"| autoencoder PSNR | {report['autoencoder_psnr']:.2f} dB | | 26 dB |",
        "| spread over seeds, over pictures "
        f"| {spread['over_seeds']:.2f} | {spread['over_pictures']:.2f} | |",
        "| nearest training picture (32², of 255) "
        f"| {far['generated_least']:.1f} least, {far['generated_median']:.1f} median "
        f"| {far['held_out_least']:.1f} least, {far['held_out_median']:.1f} median | |",
    ]
    return "\n".join(lines)


def sheet_prompts() -> list[str]:
    """The sheet's prompts, row by row: each scene in ten styles, Chinese and English alternating."""
    return [
        f"{scene[(row + column) % 2]}{('，', ', ')[(row + column) % 2]}{style[(row + column) % 2]}"
        for row, scene in enumerate(SHEET_SCENES)
        for column, style in enumerate(SHEET_STYLES)
    ]


def free_prompts() -> list[str]:
    """Sixty prompts as people type them, written without looking at the captions' phrases."""
    return json.loads((Path(__file__).parent / "free_prompts.json").read_text("utf-8"))


# The sheets: their prompts and the columns they are laid out in.
SHEETS: dict[str, tuple[Callable[[], list[str]], int]] = {
    "styles": (sheet_prompts, len(SHEET_STYLES)),
    "free": (free_prompts, 10),
}


def tile(pictures: np.ndarray, columns: int, gap: int = 4) -> np.ndarray:
    """``pictures`` [N, S, S, 3] in rows of ``columns`` on white, as one picture [H, W, 3]."""
    count, side = len(pictures), pictures.shape[1]
    rows = -(-count // columns)
    sheet = np.full((rows * (side + gap) + gap, columns * (side + gap) + gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = (gap + place * (side + gap) for place in divmod(index, columns))
        sheet[y : y + side, x : x + side] = picture
    return sheet


def write_sheet(
    folder: Path,
    out: Path,
    which: str = "styles",
    size: int = 512,
    steps: int = 8,
    guidance: float = 2.0,
    device: torch.device | None = None,
) -> None:
    """Paint one of SHEETS with the weights in ``folder`` and write it as a JPEG or PNG, at half size. It uses the
    stock ZImagePipeline, so it also shows that the weights load there.
    """
    from PIL import Image

    pipe = model.load(folder, torch.bfloat16).to(device or torch.device("cpu"))
    prompts, columns = SHEETS[which]
    pictures = model.paint(pipe, prompts(), size=size, steps=steps, guidance=guidance)
    Image.fromarray(tile(shrink(pictures, size // 2), columns)).save(out, quality=88)
