"""The wide twin: the same Firefly, bit for bit, with numbers inside that float16 cannot hold.

Made by the inverse of a fold: weights are multiplied by powers of two where a later layer or a norm undoes it, until
the residual stream, a feed-forward's output, a gated product, attention's values and the decoder leave float16's range.
That is how Z-Image fails on cards without bfloat16, so guards, folds and experiments are tried on it. Every weight stays
exact in bfloat16. The epsilons that follow the scale stand in the header of the weights (``numerics.fold``); a tool that
does not read it paints the same picture up to those epsilons. Knows Firefly's folder; nothing of painters.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starrynight.numerics.solve import FoldPlan

NETWORKS = ("text_encoder", "transformer", "vae")
SHIPPED = Path(__file__).parents[1] / "weights" / "firefly"

# Where the numbers grow: (module, "in" for what enters it, "out" for what leaves it). The stream first.
PLACES = (
    ("transformer.layers.0", "out"),
    ("transformer.layers.2.feed_forward", "out"),
    ("transformer.layers.3.attention.to_out.0", "in"),
    ("transformer.layers.4.feed_forward.w2", "in"),
    ("vae.decoder.up_blocks.1.resnets.0.conv1", "out"),
    ("vae.decoder.mid_block", "out"),
)

# log2 of the size to which each place grows: sixteen times what float16 holds.
TARGET = 20

DONE = "twin.json"


def make(out: Path, weights: Path = SHIPPED, places: Sequence[tuple[str, str]] = PLACES) -> Path:
    """Write the twin of ``weights`` to ``out`` as a diffusers folder; one made earlier of the same weights is kept."""
    story = {"of": _stamp(weights), "places": places, "target": TARGET}
    told = json.dumps(story, indent=1)
    if (out / DONE).is_file() and (out / DONE).read_text("utf-8") == told:
        return out
    plan = widening(weights, places)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write(weights, partial, plan)
    (partial / DONE).write_text(told, "utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return out


def widening(weights: Path = SHIPPED, places: Sequence[tuple[str, str]] = PLACES) -> FoldPlan:
    """The plan that makes Firefly wide: traced over one short painting, then every place grown to 2^TARGET."""
    from starrynight.numerics.fold import compose
    from starrynight.numerics.solve import widen
    from starrynight.numerics.trace import trace_modules

    pipeline = _pipeline(weights)
    found = trace_modules({name: getattr(pipeline, name) for name in NETWORKS}, lambda: _paint(pipeline))
    plans = []
    for module, side in places:
        boundary = (found.outputs if side == "out" else found.inputs)[module]
        bits = TARGET - math.floor(math.log2(max(boundary.values())))
        plans.append(widen(found, boundary, bits))
    return compose(*plans)


def _pipeline(weights: Path) -> Any:
    import torch
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(weights, dtype=torch.bfloat16, local_files_only=True)
    pipeline.vae.register_to_config(force_upcast=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _paint(pipeline: Any) -> None:
    import torch

    pipeline("a starry night over a quiet village", height=128, width=128, num_inference_steps=2, guidance_scale=2.0,
             generator=torch.Generator().manual_seed(0), output_type="pt")  # fmt: skip


def _write(weights: Path, target: Path, plan: FoldPlan) -> None:
    from starrynight.numerics.fold import write_folded

    shutil.copytree(weights, target, ignore=shutil.ignore_patterns("*.safetensors"))
    for source in sorted(weights.rglob("*.safetensors")):
        place = target / source.relative_to(weights)
        write_folded(source, place, plan, prefix=source.parent.name, dtype=None)


def _stamp(weights: Path) -> dict[str, str]:
    import hashlib

    return {
        str(path.relative_to(weights)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(weights.rglob("*.safetensors"))
    }
