"""The proof of folding: Firefly's wide twin on 1000 prompts and seeds outside the calibration.

    python benchmarks/numerics_twin.py [--pairs 1000] [--out proof.jsonl] [--report]

For every pair of prompt and seed: float32, bfloat16 and folded float16 (emulated where the processor's own is
slow), 128×128, 8 steps, CFG 2.0, in batches. It records whether every number is finite and the PSNR against
float32. The first 40 pairs also run in unfolded float16 and with ComfyUI's clamp (±65504 after attention,
feed-forward and gate; NaN becomes 0). Both also run on a milder twin, whose residual stream and decoder stay
within range, the case that the clamp is made for. Writes one JSON line a pair and continues where it was
stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

BATCH, SIDE, STEPS, GUIDANCE, COMPARED = 8, 128, 8, 2.0, 40

SUBJECTS = (
    ("a quiet village under swirling stars", "星空漩涡下的村庄"), ("a lone boat on a misty river", "雾江孤舟"),
    ("a lighthouse in a storm", "风暴中的灯塔"), ("lily pads on a still pond", "静水睡莲"),
    ("a pagoda among pines", "松间古塔"), ("sunflowers by a fence", "篱边向日葵"),
    ("a neon street in the rain", "雨夜霓虹街"), ("snow on a mountain pass", "雪岭关山"),
    ("an arched bridge over a stream", "小溪拱桥"), ("wheat fields and a cypress", "麦田与柏树"),
)  # fmt: skip
STYLES = (
    ("oil painting, thick strokes", "油画厚涂"), ("ink wash", "水墨"), ("watercolour", "水彩"), ("pastel", "粉彩"),
    ("woodblock print", "浮世绘"), ("cyberpunk", "赛博朋克"), ("Dunhuang mural", "敦煌壁画"), ("paper cut", "剪纸"),
    ("pointillism", "点彩"), ("Monet's manner", "莫奈风格"),
)  # fmt: skip
HOURS = (("at dawn", "清晨"), ("at noon", "正午"), ("at dusk", "黄昏"), ("at night", "深夜"), ("", ""))

# The twin that ComfyUI's clamp is made for: overflowing branches, a residual stream within range.
MILD = (
    ("transformer.layers.2.feed_forward", "out"),
    ("transformer.layers.3.attention.to_out.0", "in"),
    ("transformer.layers.4.feed_forward.w2", "in"),
)


def pairs() -> list[tuple[str, int]]:
    """1000 prompts, half English and half Chinese, each with its own seed."""
    made = []
    for subject, style, hour in itertools.product(SUBJECTS, STYLES, HOURS):
        made.append(", ".join(filter(None, (subject[0], style[0], hour[0]))))
        made.append("，".join(filter(None, (subject[1], style[1], hour[1]))))
    return [(prompt, 5000 + number) for number, prompt in enumerate(made)]


@torch.no_grad()
def paint(pipeline: Any, chosen: Sequence[tuple[str, int]]) -> Tensor:
    """Images as float32 [N, 3, H, W] in 0..1, not rounded to 8 bits."""
    generators = [torch.Generator().manual_seed(seed) for _, seed in chosen]
    result = pipeline([prompt for prompt, _ in chosen], height=SIDE, width=SIDE, num_inference_steps=STEPS,
                      guidance_scale=GUIDANCE, generator=generators, output_type="pt")  # fmt: skip
    return result.images.float()


def clamp(pipeline: Any) -> None:
    """ComfyUI #11057: nan_to_num into float16's range after attention, feed-forward and gate."""

    def tame(value: Tensor) -> Tensor:
        return torch.nan_to_num(value, nan=0.0, posinf=65504.0, neginf=-65504.0)

    for block in [
        *pipeline.transformer.noise_refiner,
        *pipeline.transformer.context_refiner,
        *pipeline.transformer.layers,
    ]:
        for part in (block.attention, block.feed_forward):
            part.register_forward_hook(lambda _m, _a, out: tame(out))
        gating = block.feed_forward._forward_silu_gating
        block.feed_forward._forward_silu_gating = lambda a, b, gating=gating: tame(gating(a, b))


def psnr(image: Tensor, reference: Tensor) -> float | None:
    """dB against float32 for the JSON line; None if the image is not finite or equals the reference."""
    from starrynight.numerics.certify import psnr as decibels

    found = decibels(((image - reference) ** 2).mean().item())
    return round(found, 2) if found is not None and math.isfinite(found) else None


class TwinPipelines:
    """The pipelines of one twin by format, loaded on first use."""

    def __init__(self, folder: Path) -> None:
        from starrynight.models.catalogue import resolve

        self.model = resolve(str(folder))
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        from starrynight.folding import calibrate
        from starrynight.models import load

        if name not in self._loaded:
            plan = calibrate.uniform(self.model, "float16" if name == "clamped" else name)
            folds = self._folds() if "folded" in name else None
            self._loaded[name] = load.load(self.model, plan, folds)
            self._loaded[name].set_progress_bar_config(disable=True)
            if name == "clamped":
                clamp(self._loaded[name])
        return self._loaded[name]

    def _folds(self) -> Any:
        """The plan. Exits if a whole component is an island: the result would measure float32, not folding."""
        from starrynight.folding import calibrate
        from starrynight.folding.cache import cached_folds

        folds = (cached_folds(self.model) or calibrate.make(self.model)).plan
        if whole := {"text_encoder", "transformer", "vae", "vae.decoder"} & set(folds.islands):
            raise SystemExit(
                f"{', '.join(sorted(whole))} cannot be folded and would run in float32; the run would not test folding"
            )
        print(f"{len(folds.parameters)} folds, islands: {', '.join(folds.islands) or 'none'}", flush=True)
        return folds


def measure(
    twin: TwinPipelines, mild: Callable[[], TwinPipelines], first: int, chosen: Sequence[tuple[str, int]]
) -> list[dict[str, Any]]:
    """One row for each pair. Its seconds are those of painting, without loading and folding, which happen once."""
    kinds = ("float32", "bfloat16", "float16-folded")
    pipelines = [twin[name] for name in kinds]
    if first < COMPARED:
        compared = {name: twin[name] for name in ("float16", "clamped")}
        milder = {name: mild()[name] for name in ("float32", "float16", "clamped", "float16-folded")}
    start = time.perf_counter()
    reference, bfloat16, folded = (paint(one, chosen) for one in pipelines)
    rows: list[dict[str, Any]] = []
    for number, (prompt, seed) in enumerate(chosen):
        rows.append({"index": first + number, "prompt": prompt, "seed": seed,
                     "finite": bool(folded[number].isfinite().all()), "folded": psnr(folded[number], reference[number]),
                     "bfloat16": psnr(bfloat16[number], reference[number])})  # fmt: skip
    if first < COMPARED:
        others = {name: paint(one, chosen) for name, one in compared.items()}
        soft = {name: paint(one, chosen) for name, one in milder.items()}
        for number, row in enumerate(rows):
            row["plain finite"] = bool(others["float16"][number].isfinite().all())
            row["clamped"] = psnr(others["clamped"][number], reference[number])
            row["mild plain finite"] = bool(soft["float16"][number].isfinite().all())
            row["mild clamped"] = psnr(soft["clamped"][number], soft["float32"][number])
            row["mild folded"] = psnr(soft["float16-folded"][number], soft["float32"][number])
    for row in rows:
        row["seconds"] = round((time.perf_counter() - start) / len(chosen), 2)
    return rows


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The rows summarised as Markdown."""

    def mean(name: str) -> str:
        values = [row[name] for row in rows if row.get(name) is not None]
        broken = sum(name in row and row[name] is None for row in rows)
        text = f"{sum(values) / len(values):.1f} dB (worst {min(values):.1f})" if values else "–"
        return text + (f", {broken} broken" if broken else "")

    compared = [row for row in rows if "plain finite" in row]
    refused = sum(not row["finite"] for row in rows)
    gains = [row["folded"] - row["bfloat16"] for row in rows if None not in (row["folded"], row["bfloat16"])]
    return "\n".join([
        f"| {len(rows)} held-out pairs, {SIDE}×{SIDE}, {STEPS} steps, CFG {GUIDANCE:g} | refused | PSNR against float32, mean |",
        "|---|---|---|",
        f"| folded float16 | {refused} of {len(rows)} | {mean('folded')} |",
        f"| bfloat16 | {sum(row['bfloat16'] is None for row in rows)} of {len(rows)} | {mean('bfloat16')} |",
        f"| plain float16 | {sum(not r['plain finite'] for r in compared)} of {len(compared)} | – |",
        f"| float16, clamped as ComfyUI does | – ({len(compared)} pairs) | {mean('clamped')} |",
        f"| milder twin (branches loud, stream not): plain float16 | {sum(not r['mild plain finite'] for r in compared)} of {len(compared)} | – |",
        f"| milder twin, clamped as ComfyUI does | – ({len(compared)} pairs) | {mean('mild clamped')} |",
        f"| milder twin, folded float16 | – ({len(compared)} pairs) | {mean('mild folded')} |",
        f"Folded float16 over bfloat16 by pairs: median {median(gains):.1f} dB, least {min(gains):.1f}, below 12 in "
        f"{sum(gain < 12 for gain in gains)}." if gains else "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("proof.jsonl"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "starry-proof")
    parser.add_argument("--report", action="store_true", help="only print what was measured so far")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if not options.report:
        os.environ.setdefault("STARRY_HOME", str(options.work / "home"))
        from starrynight.firefly import twin as twins

        options.work.mkdir(parents=True, exist_ok=True)
        twin = TwinPipelines(twins.make(options.work / "wide"))
        kept: list[TwinPipelines] = []

        def mild() -> TwinPipelines:
            if not kept:
                kept.append(TwinPipelines(twins.make(options.work / "mild", places=MILD)))
            return kept[0]

        everything = pairs()[: options.pairs]
        for first in range(len(rows), len(everything), BATCH):
            found = measure(twin, mild, first, everything[first : first + BATCH])
            rows += found
            with options.out.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
            print(f"{len(rows)} of {len(everything)}, {found[0]['seconds']} s a pair", flush=True)
    print(report(rows))


if __name__ == "__main__":
    main()
