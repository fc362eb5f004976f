"""Write trained weights as one file, with the thresholds that make the perceiver say only what it knows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from starrynight.firefly.training import data
from starrynight.firefly.training.optimise import read_checkpoint, read_facts
from starrynight.senses.facts import CHOICES, THINGS
from starrynight.senses.perceiver import FORMAT, Perceiver, Thresholds, load
from starrynight.senses.training import train
from starrynight.senses.training.thresholds import Seen, thresholds
from starrynight.senses.training.truth import of_record
from starrynight.storage import write_atomic

_UNUSED = ("texts.facts.",)  # heads that only training has


def write(work: Path, out: Path, weights: Path | None = None) -> Perceiver:
    """Write the average weights of the training in ``work``, or saved ``weights`` again, in float16, with thresholds from the sets
    ``calibration`` and ``painted-calibration`` in ``work``, if those are there.
    """
    tensors, header = _trained(work) if weights is None else _saved(weights)
    header |= {"version": "", "thresholds": asdict(Thresholds(0.0, {}, {}, {}, {}, {}))}
    perceiver = Perceiver({name: value.astype(np.float32) for name, value in tensors.items()}, header, "new")
    sets = (seen_of(perceiver, work / name) for name in ("calibration", "painted-calibration"))
    header["thresholds"] = asdict(thresholds(*sets))
    content = [value.tobytes() for value in tensors.values()] + [json.dumps(header["thresholds"]).encode()]
    version = header["version"] = hashlib.sha256(b"".join(content)).hexdigest()[:8]
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".part")
    save_file(tensors, unfinished, {"perceiver": json.dumps(header, ensure_ascii=False)})
    write_atomic(out, unfinished.read_bytes(), overwrite=True)
    unfinished.unlink()
    return Perceiver(perceiver.tensors, json.loads(json.dumps(header)), f"perceiver-{version}")


def _trained(work: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The average weights of a training, and what their header says of it."""
    groups, _ = read_checkpoint(work / "perceiver.safetensors")
    tensors = {
        name: value.to(torch.float16).numpy()
        for name, value in sorted(groups["average"].items())
        if not name.startswith(_UNUSED)
    }
    facts = read_facts(work / "perceiver.safetensors")
    return tensors, {
        "format": FORMAT,
        "names": {**CHOICES, "things": THINGS},
        "words": train.read_lexicon(work).words,
        "training": {name: facts[name] for name in ("step", "samples", "spent")} | {"licence": "Apache-2.0"},
    }


def _saved(weights: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Saved weights and their header."""
    known = load(weights)
    tensors = {name: value.astype(np.float16) for name, value in sorted(known.tensors.items())}
    return tensors, dict(known.header)


def seen_of(perceiver: Perceiver, folder: Path) -> Seen:
    """What the perceiver sees of a set's pictures, and the truth about them; nothing where the set is not there."""
    if not (folder / "pictures.npy").exists():
        return [], []
    found = data.PictureSet(folder)
    sights = [perceiver.see(np.asarray(picture)) for picture in found.pictures]
    return sights, [of_record(record) for record in found.records]
