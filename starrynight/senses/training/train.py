"""Train the perceiver on drawn pictures, which may still be drawn meanwhile, and Firefly's paintings, within a time budget;
resumable.

The loss is a sum: cross-entropy of style, hour, weather and kind; binary cross-entropy of the things, of being one of ours,
and of the facts that a text states; and, for every text and picture of a batch, binary cross-entropy between their cosine and
the squared share of the text's facts that the picture shows (a graded form of SigLIP, Zhai et al. 2023, arXiv:2303.15343).

A painter may leave out what a prompt asks for. So what was asked of a painting is learnt with smoothed labels, and not at all
where the perceiver strongly disagrees (hard bootstrapping, Reed et al. 2014, arXiv:1412.6596).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starrynight.firefly.training import captions, data
from starrynight.firefly.training.optimise import Optimiser, TrainingLoop, read_checkpoint
from starrynight.senses.facts import Lexicon, words
from starrynight.senses.training.batches import Batch, Gallery, Sampler
from starrynight.senses.training.network import SIDE, Network, Seen
from starrynight.senses.training.truth import NOT_KNOWN
from starrynight.storage import write_atomic

LEXICON_SCENES = range(20_000_000, 20_004_000)  # scenes of no set, whose captions give the lexicon
# Up to this share of the time, the pictures' side: small ones are cheap and teach style, hour and kind; large ones the things. A
# training that begins with weights has large ones only.
SIDES = ((0.3, 64), (0.65, 96), (1.0, SIDE))
RATE, HIDDEN_RATE, DECAY = 2e-3, 4e-3, 0.99
ASKED, DISBELIEVED = (
    0.9,
    0.1,
)  # the label of what a painting was asked for, and from where on it is not believed
_WEIGHTS = {
    "style": 1.0,
    "hour": 1.0,
    "weather": 1.0,
    "kind": 1.0,
    "things": 12.0,
    "ours": 1.0,
    "texts": 12.0,
    "match": 12.0,
}


def make_lexicon() -> Lexicon:
    """The words of the captions of scenes that are in no set, in the order of their first use, and of all phrases."""
    texts = [*data.scene_captions(LEXICON_SCENES), *_phrases(captions.PHRASES)]
    return Lexicon(tuple(dict.fromkeys(word for text in texts for word in words(text))))


def _phrases(table: Any) -> Iterator[str]:
    """Every string in a nested table."""
    if isinstance(table, str):
        yield table
    else:
        for one in table.values() if isinstance(table, Mapping) else table:
            yield from _phrases(one)


def losses(network: Network, batch: Batch) -> dict[str, Tensor]:
    """The parts of the loss by name, unweighted."""
    seen = as_float(network, batch.pictures)
    vectors, stated = network.texts(batch.rows)
    ours = len(batch.rows)
    found = {
        name: F.cross_entropy(seen.choices[name][:ours], true, ignore_index=NOT_KNOWN)
        for name, true in batch.choices.items()
    }
    found["things"] = _of_things(seen.things[:ours], batch)
    own = (torch.arange(len(batch.pictures)) < ours).float()
    found["ours"] = F.binary_cross_entropy_with_logits(seen.ours, own)
    found["texts"] = F.binary_cross_entropy_with_logits(stated, batch.asked)
    shares = batch.asked @ batch.facts.T / batch.asked.sum(1, keepdim=True)
    wanted = F.pad(shares.square(), (0, len(batch.pictures) - ours))
    cosines = vectors @ seen.vectors.T
    found["match"] = F.binary_cross_entropy_with_logits(network.scale * cosines + network.offset, wanted)
    return found


def as_float(network: Network, pictures: Tensor) -> Seen:
    """What the network sees, its convolutions in bfloat16 (nearly twice as fast on processors that have it), its logits as float32."""
    with torch.autocast(pictures.device.type, torch.bfloat16):
        seen = network.see(pictures)
    choices = {name: one.float() for name, one in seen.choices.items()}
    return Seen(choices, seen.things.float(), seen.ours.float(), seen.vectors.float())


def _of_things(logits: Tensor, batch: Batch) -> Tensor:
    """The loss of the things that are known, [B, T] to a number."""
    believed = 1 - batch.doubted * (logits.detach().sigmoid() < DISBELIEVED)
    labels = torch.where(batch.doubted > 0, ASKED * batch.things, batch.things)
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    weights = batch.known * believed
    return (each * weights).sum() / weights.sum()


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Muon's parameters: the kernels of the convolutions but the first, which sees pixels."""
    return parameter.ndim > 2 and not name.startswith("sight.body.0.")


def read_lexicon(work: Path) -> Lexicon:
    """The lexicon of the training in ``work``, made and written at its first start: its words are rows of weights."""
    path = work / "lexicon.json"
    if path.exists():
        return Lexicon(tuple(json.loads(path.read_text("utf-8"))))
    lexicon = make_lexicon()
    write_atomic(path, json.dumps(lexicon.words, ensure_ascii=False).encode(), overwrite=True)
    return lexicon


def train(work: Path, seconds: float, begin: Path | None = None, seed: int = 0) -> None:
    """Train on the sets ``training`` and ``painted-training``, if it is there, in ``work`` for ``seconds`` in all; the checkpoint is
    ``perceiver.safetensors`` there, written every minute. Run again, it goes on with the time that is left.

    ``begin``: the checkpoint of an earlier training with the same lexicon, whose average weights the first ones are.
    """
    torch.manual_seed(seed)
    lexicon, checkpoint = read_lexicon(work), work / "perceiver.safetensors"
    network: Any = Network(len(lexicon.words))  # torch's stubs lack ``memory_format``
    if begin is not None:
        network.load_state_dict(read_checkpoint(begin)[0]["average"], strict=False)
    loop = TrainingLoop(network, Optimiser(network.named_parameters(), _is_hidden, RATE, HIDDEN_RATE), DECAY)
    if checkpoint.exists():
        loop.restore(checkpoint)
    paintings = work / "painted-training"
    painted = Gallery(data.PictureSet(paintings)) if (paintings / "pictures.npy").exists() else None
    sampler = Sampler(Gallery(data.PictureSet(work / "training")), painted, lexicon, seed)
    sides = SIDES if begin is None else SIDES[-1:]

    def loss_at(step: int, spent: float) -> tuple[Tensor, int]:
        side = next(side for until, side in sides if spent <= until)
        batch = sampler.draw(np.random.default_rng((seed, step, 4)), side)
        found = losses(network, batch)
        if step % 100 == 0:
            parts = {name: round(float(one.detach()), 4) for name, one in found.items()}
            print(json.dumps({"step": step, "side": side, "pictures": sampler.count, **parts}), flush=True)
        total = torch.stack([_WEIGHTS[name] * one for name, one in found.items()]).sum()
        return total, len(batch.rows)

    loop.run(loss_at, max(0.0, seconds - loop.spent), checkpoint, warmup=50, cooldown=0.6)
