"""``starry grid``: one prompt over two axes, on one labelled sheet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from starrynight.cli.options import (
    GUIDANCE,
    INIT_IMAGE,
    LORA,
    MODEL,
    NEGATIVE,
    PRECISION,
    PROMPT,
    SAMPLER,
    SEED,
    SIZE,
    STEPS,
    STRENGTH,
    STYLE,
    parse_lora,
    parse_size,
)  # fmt: skip
from starrynight.cli.terminal import DEVICE, ProgressBar, app, help_page
from starrynight.i18n import t
from starrynight.lab.axes import FIELDS, parse_axis

if TYPE_CHECKING:
    from starrynight.lab import grid as grids

HELP = help_page(
    (
        "Paint one prompt over two axes, on one labelled sheet.",
        "一行诗，沿两个坐标轴作画，汇成一张总览图。",
    ),
    'starry grid "a quiet village at night" --x style=oil,ink,monet --y seed=1..3 -o village',
    'starry grid "江雪，孤舟" --x steps=4,8,16 --y guidance=1,2,4 -o river',
    'starry grid "lily pond at dawn" --x precision=bfloat16,float32 --y seed=1..4 -o formats',
    'starry grid "a harbour" --lora moonlight --x lora=0,0.5,1 -o moonlight',
)
_AXES = ", ".join(FIELDS)
X = typer.Option(
    help=t(
        f"The columns: AXIS=VALUE,VALUE…, also 1..4. An axis is one of {_AXES} (its weight).",
        f"各列：轴=值,值……，也可写 1..4。轴可以是 {_AXES}（其权重）。",
    )
)
Y = typer.Option(None, help=t("The rows, in the same form.", "各行，写法相同。"))
OUT = typer.Option(
    Path("grid"),
    "--out",
    "-o",
    help=t("The folder of the sheet and its pictures.", "总览图与各幅画的文件夹。"),
)


@app.command(help=HELP)
def grid(
    prompt: str = PROMPT,
    x: str = X,
    y: str | None = Y,
    style: str | None = STYLE,
    seed: int | None = SEED,
    size: str | None = SIZE,
    steps: int | None = STEPS,
    guidance: float | None = GUIDANCE,
    model: str | None = MODEL,
    precision: str | None = PRECISION,
    lora: list[str] = LORA,
    negative: str | None = NEGATIVE,
    sampler: str | None = SAMPLER,
    init_image: Path | None = INIT_IMAGE,
    strength: float | None = STRENGTH,
    device: str | None = DEVICE,
    out: Path = OUT,
) -> None:
    from starrynight.lab import grid as grids
    from starrynight.models import catalogue
    from starrynight.painting import checking

    width, height = parse_size(size, model)
    fields = {
        "prompt": prompt, "style": style, "seed": seed, "width": width, "height": height, "steps": steps,
        "guidance": guidance, "model": model, "precision": precision, "loras": tuple(map(parse_lora, lora)) or None,
        "negative_prompt": negative, "sampler": sampler, "init_image": str(init_image) if init_image else None,
        "strength": strength,
    }  # fmt: skip
    plan = grids.plan(fields, parse_axis(x), parse_axis(y) if y else None, out)
    checking.check_local(catalogue.find(plan.cells[0].request.model), device=device)
    print(plan.message(), file=sys.stderr)
    _paint(plan, device)


def _paint(plan: grids.Grid, device: str | None) -> None:
    from starrynight import studio
    from starrynight.gallery.files import OutputPath
    from starrynight.models.imports import keep_freed_memory
    from starrynight.painting.results import Refused, Step

    keep_freed_memory()
    refused, done = [], 0
    with ProgressBar(t("painting", "正在作画")) as bar:

        def on_step(step: Step) -> None:
            bar.update(
                done * step.steps + step.step + 1, len(plan.cells) * step.steps,
                message=t(f"picture {done + 1} of {len(plan.cells)}", f"第 {done + 1}/{len(plan.cells)} 幅"),
            )  # fmt: skip

        for cell, outcome in plan.paint(studio.Studio(OutputPath(plan.folder), device), on_step):
            done += 1
            if isinstance(outcome, Refused):
                refused.append(outcome)
                bar.print(f"✗ {cell.name}: {t(outcome.error.en, outcome.error.zh)}", sys.stderr)
        bar.print(f"✦ {plan.save_sheet()}", sys.stdout)
    if error := studio.batch_error(refused, len(plan.cells)):
        raise error
