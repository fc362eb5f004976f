"""Write trained weights as one file, with the thresholds that make the perceiver say only what it knows.

Every threshold is found on pictures that it was not trained on and that its evaluation does not use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from starrynight.firefly.training import data
from starrynight.firefly.training.optimise import read_checkpoint, read_facts
from starrynight.senses.facts import CHOICES, THINGS
from starrynight.senses.perceiver import FORMAT, Perceiver, Sight, Thresholds
from starrynight.senses.training import train
from starrynight.storage import write_atomic

NEVER = 2.0  # a threshold that no probability reaches
PRECISION = 0.96  # of what is said to be there, at least
MISSED = 0.03  # of what is there, at most this share is said not to be
FEWEST = 20  # pictures that show a thing, or are said to, before a threshold of its own is found
KNOWN_KEPT = 0.95  # the share of our pictures of which the perceiver says something
_UNUSED = ("texts.facts.",)  # heads that only training has


def write(work: Path, out: Path) -> Perceiver:
    """Write the average weights of the training in ``work`` in float16, with thresholds from its set ``calibration``."""
    groups, _ = read_checkpoint(work / "perceiver.safetensors")
    tensors = {
        name: value.to(torch.float16).numpy()
        for name, value in sorted(groups["average"].items())
        if not name.startswith(_UNUSED)
    }
    version = hashlib.sha256(b"".join(value.tobytes() for value in tensors.values())).hexdigest()[:8]
    facts = read_facts(work / "perceiver.safetensors")
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": version,
        "names": {**CHOICES, "things": THINGS},
        "words": train.read_lexicon(work).words,
        "training": {name: facts[name] for name in ("step", "samples", "spent")} | {"licence": "Apache-2.0"},
        "thresholds": asdict(Thresholds(0.0, {}, {}, {})),
    }
    perceiver = Perceiver({name: value.astype(np.float32) for name, value in tensors.items()}, header, "new")
    calibration = data.PictureSet(work / "calibration")
    sights = [perceiver.see(np.asarray(picture)) for picture in calibration.pictures]
    header["thresholds"] = asdict(thresholds(sights, [record["shows"] for record in calibration.records]))
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".part")
    save_file(tensors, unfinished, {"perceiver": json.dumps(header, ensure_ascii=False)})
    write_atomic(out, unfinished.read_bytes(), overwrite=True)
    unfinished.unlink()
    return Perceiver(perceiver.tensors, json.loads(json.dumps(header)), f"perceiver-{version}")


def thresholds(sights: Sequence[Sight], shows: Sequence[dict[str, Any]]) -> Thresholds:
    """Thresholds from what was seen of pictures and what they show."""
    confidence = float(np.quantile([sight.confidence for sight in sights], 1 - KNOWN_KEPT))
    choices = {}
    for name, some in CHOICES.items():
        right = [
            some[int(sight.choices[name].argmax())] == one[name]
            for sight, one in zip(sights, shows, strict=True)
        ]
        choices[name] = claim(np.array([sight.choices[name].max() for sight in sights]), np.array(right), 0.0)
    seen = np.stack([sight.things for sight in sights])
    there = np.array([[name in one["subjects"] for name in THINGS] for one in shows])
    pooled = claim(seen.ravel(), there.ravel(), 0.5)
    claims, absent = {}, {}
    for place, name in enumerate(THINGS):
        own = claim(seen[:, place], there[:, place], 0.5)
        claims[name] = max(own, pooled) if own < NEVER else NEVER
        positive = seen[there[:, place], place]
        absent[name] = float(np.quantile(positive, MISSED)) if len(positive) >= FEWEST else 0.0
    return Thresholds(confidence, choices, claims, absent)


def claim(probabilities: np.ndarray, right: np.ndarray, lowest: float) -> float:
    """The lowest probability, at least ``lowest``, from which on ``PRECISION`` of the claims are right; NEVER where there
    is none, or fewer than FEWEST / 2 claims.
    """
    order = np.argsort(-probabilities, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero((precision >= PRECISION) & (probabilities[order] >= lowest))
    if not len(good) or good[-1] + 1 < FEWEST // 2:
        return NEVER
    return float(probabilities[order][good[-1]])
