"""``starry ranges`` and ``starry fold``: how large each layer's values get, and a model that float16 can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from starrynight.cli.terminal import JSON, MODEL_HELP, ProgressBar, app, help_page
from starrynight.errors import BadRequest
from starrynight.i18n import t
from starrynight.text import excerpt, printed_json

if TYPE_CHECKING:
    from starrynight.numerics.ranges import LayerRange

LAYERS = 6  # shown of each component unless all are asked for
RANGES_HELP = help_page(
    (
        "Measure every layer's values while the model paints, and compare them with each format's limits: overflows and headroom in bits.",
        "测量作画时每一层数值的大小，与各格式的上限相比：哪里溢出，余几位。",
    ),
    "starry ranges firefly",
    "starry ranges z-image-turbo -o ranges.svg",
    "starry ranges firefly --all --json",
)
FOLD_HELP = help_page(
    (
        """Write a model whose values fit float16: the same function, with weights multiplied by powers of two.

It measures the model over a few pictures first (minutes on a CPU for a large one), proves the result on other prompts, and writes the proof beside the weights. Run again after an interruption, it continues.""",
        """写出一个数值不超出 float16 的模型：函数不变，只是权重乘以 2 的幂。

先在几幅画上测量数值范围（大模型在 CPU 上需数分钟），再用其他提示词验证，并把证明写在权重旁边。中断后再次运行会接着做。""",
    ),
    "starry fold z-image-turbo -o z-image-turbo-float16",
    "starry fold firefly --to float16 -o firefly-float16 --json",
    (
        "starry fold fine-tune.safetensors -o folded",
        "a ComfyUI file keeps its layout",
        "ComfyUI 的文件仍写成 ComfyUI 的布局",
    ),
)


@app.command(help=RANGES_HELP)
def ranges(
    model: str = typer.Argument("firefly", help=MODEL_HELP),
    out: Path | None = typer.Option(
        None, "--out", "-o", help=t("Write a plot to this file (.svg).", "把图画到这里（.svg）。")
    ),
    everything: bool = typer.Option(
        False, "--all", help=t("Every layer, not only the largest.", "列出每一层。")
    ),
    as_json: bool = JSON,
) -> None:
    if out is not None and out.suffix.lower() != ".svg":
        raise BadRequest(
            f"The plot is an SVG file; name it {out.with_suffix('.svg').name}.",
            f"图是 SVG 格式；请命名为 {out.with_suffix('.svg').name}。",
        )
    from starrynight.folding import calibrate
    from starrynight.models import catalogue, download
    from starrynight.numerics.device import kind, torch_device
    from starrynight.numerics.ranges import float16_summary, layer_ranges
    from starrynight.storage import check_writable

    if out is not None:
        check_writable(out)
    found = catalogue.resolve(download.fetch(catalogue.find(model)))
    with ProgressBar(t(f"measuring {found.spec.en}", f"测量 {found.spec.zh}"), lines=True) as on_progress:
        device = calibrate.device_for(found, torch_device(kind()))
        measured = layer_ranges(calibrate.observe(found, on_progress=on_progress, device=device))
    summary = t(*float16_summary(measured))
    if out is not None:
        _draw(out, measured, t(found.spec.en, found.spec.zh), summary)
    if as_json:
        payload = {"model": found.spec.name, "layers": [layer.to_dict() for layer in measured]}
        print(printed_json(payload, indent=1))
        return
    print(summary)
    _print_table(measured, everything)
    if out is not None:
        print(f"✦ {out}")


def _draw(out: Path, measured: Sequence[LayerRange], name: str, summary: str) -> None:
    """Write the plot as SVG. Raises StorageError."""
    from starrynight.numerics.ranges import range_plot
    from starrynight.storage import storing, write_atomic

    title = t(f"{name}: every layer's range", f"{name}：每一层的数值范围")
    legend = (
        t("fits float16", "float16 容得下"),
        t("exceeds float16", "超出 float16"),
        t("peak after folding", "折叠后的峰值"),
    )
    text = range_plot(measured, title, summary, legend)
    with storing(out):
        write_atomic(out, text.encode(), overwrite=True)


def _print_table(measured: Sequence[LayerRange], everything: bool) -> None:
    """Print the layers with the largest values of each component, or all in the order in which they run."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="gold1")
    for heading, side in ((t("layer", "层"), "left"), (t("largest", "最大值"), "right"), ("float16", "right"),
                          (t("folded", "折叠后"), "right"), ("e5m2", "right"), ("e4m3", "right"), ("", "left")):  # fmt: skip
        width = 8 if side == "right" else None  # a narrow terminal shortens names, not numbers
        table.add_column(heading, justify=side, no_wrap=True, min_width=width)  # type: ignore[arg-type]
    for component in dict.fromkeys(layer.component for layer in measured):
        own = [layer for layer in measured if layer.component == component]
        shown = own if everything else sorted(own, key=lambda layer: -layer.peak)[:LAYERS]
        table.add_row(f"[gold1]{component}[/]")
        for layer in shown:
            table.add_row(*_row(layer))
        if len(shown) < len(own):
            table.add_row(
                f"[dim]  {t(f'… {len(own) - len(shown)} more layers with smaller values (--all)', f'……另有 {len(own) - len(shown)} 层数值较小（--all）')}[/]"
            )
    Console(highlight=False).print(table)
    print(
        t(
            "Headroom in each format, in bits; a negative number is an overflow.",
            "各格式的余量（位）；负数即溢出。",
        )
    )


def _row(layer: LayerRange) -> list[str]:
    """The cells of a layer: name, largest value, headroom in each format, and a bar of float16's headroom."""

    def bits(spare: float) -> str:
        return f"[red]{spare:+.1f}[/]" if spare < 0 else f"{spare:+.1f}"

    spare = layer.headroom_bits("float16")
    bar = (
        "[red]" + "█" * min(20, 1 + round(-spare)) + "[/]"
        if spare < 0
        else "[gold1]" + "▪" * min(20, round(spare)) + "[/]"
    )
    return [f"  {layer.name or layer.component}", f"{2**layer.peak:.3g}", bits(spare), bits(layer.headroom_bits("float16", folded=True)),
            bits(layer.headroom_bits("float8_e5m2")), bits(layer.headroom_bits("float8_e4m3")), bar]  # fmt: skip


@app.command(help=FOLD_HELP)
def fold(
    model: str = typer.Argument(help=MODEL_HELP),
    out: Path = typer.Option(..., "--out", "-o", help=t("A new folder.", "一个新文件夹。")),
    to: str = typer.Option("float16", "--to", help=t("float16.", "float16。")),
    as_json: bool = JSON,
) -> None:
    if to != "float16":
        raise BadRequest(
            f"Folding is for float16 only, not for “{excerpt(to)}”.",
            f"折叠只用于 float16，不用于“{excerpt(to)}”。",
        )
    from starrynight.folding import export
    from starrynight.models import catalogue, download

    found = catalogue.resolve(download.fetch(catalogue.find(model)))
    with ProgressBar(t(f"folding {found.spec.en}", f"折叠 {found.spec.zh}"), lines=True) as on_progress:
        written = export.write(found, out, on_progress)
    if as_json:
        payload = {
            "folder": str(out),
            "certificate": written.certificate,
            "float32": list(written.kept),
            "load": written.loading,
        }
        print(printed_json(payload | {"plan": json.loads(written.plan.to_json())}))
        return
    print(f"✦ {out}\n{t(written.message('en'), written.message('zh'))}\n{written.loading}")
