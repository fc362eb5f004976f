"""The wide twin: Firefly with activations that float16 cannot hold, painting the same pictures bit for bit.

It is made by the inverse of a fold. Weights are multiplied by powers of two where a later layer or a norm
undoes it, until the residual stream, a feed-forward's output, a gated product, attention's values and the
decoder leave float16's range. Z-Image fails that way on cards without bfloat16, so guards, folds and
experiments are tested on the twin. Every weight stays exact in bfloat16. The epsilons that follow the scale
are in the weights' header (``numerics.fold``); a tool that does not read it paints the same picture up to
those epsilons.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from starrynight.firefly import model
from starrynight.models.catalogue import SHIPPED
from starrynight.numerics.fold import compose, write_folded
from starrynight.numerics.solve import FoldPlan, widen
from starrynight.numerics.trace import trace_modules

NETWORKS = ("text_encoder", "transformer", "vae")

# The activations that grow: (module, "in" for its input or "out" for its output). The residual stream comes
# first.
PLACES = (
    ("transformer.layers.0", "out"),
    ("transformer.layers.2.feed_forward", "out"),
    ("transformer.layers.3.attention.to_out.0", "in"),
    ("transformer.layers.4.feed_forward.w2", "in"),
    ("vae.decoder.up_blocks.1.resnets.0.conv1", "out"),
    ("vae.decoder.mid_block", "out"),
)

# log2 of the magnitude to which each activation grows: sixteen times float16's largest number.
TARGET = 20

# Written last: a folder with this file is complete, and its content says which weights it was made of.
STAMP = "twin.json"


def make(out: Path, weights: Path = SHIPPED, places: Sequence[tuple[str, str]] = PLACES) -> Path:
    """Write the twin of ``weights`` to ``out`` as a diffusers folder. An existing twin of them is kept."""
    stamp = json.dumps({"of": _hashes(weights), "places": places, "target": TARGET}, indent=1)
    if (out / STAMP).is_file() and (out / STAMP).read_text("utf-8") == stamp:
        return out
    plan = widening(weights, places)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write(weights, partial, plan)
    (partial / STAMP).write_text(stamp, "utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return out


def widening(weights: Path = SHIPPED, places: Sequence[tuple[str, str]] = PLACES) -> FoldPlan:
    """The plan that grows every activation of ``places`` to 2^TARGET, traced over one short painting."""
    pipeline = _pipeline(weights)
    found = trace_modules({name: getattr(pipeline, name) for name in NETWORKS}, lambda: _paint(pipeline))
    plans = []
    for module, side in places:
        boundary = (found.outputs if side == "out" else found.inputs)[module]
        bits = TARGET - math.floor(math.log2(max(boundary.values())))
        plans.append(widen(found, boundary, bits))
    return compose(*plans)


def _pipeline(weights: Path) -> Any:
    pipeline = model.load(weights, torch.bfloat16)
    pipeline.vae.register_to_config(force_upcast=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _paint(pipeline: Any) -> None:
    pipeline("a starry night over a quiet village", height=128, width=128, num_inference_steps=2, guidance_scale=2.0,
             generator=torch.Generator().manual_seed(0), output_type="pt")  # fmt: skip


def _write(weights: Path, target: Path, plan: FoldPlan) -> None:
    shutil.copytree(weights, target, ignore=shutil.ignore_patterns("*.safetensors"))
    for source in sorted(weights.rglob("*.safetensors")):
        place = target / source.relative_to(weights)
        write_folded(source, place, plan, prefix=source.parent.name, dtype=None)


def _hashes(weights: Path) -> dict[str, str]:
    return {
        str(path.relative_to(weights)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(weights.rglob("*.safetensors"))
    }
