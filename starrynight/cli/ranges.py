"""``starry ranges``: how large every layer's numbers get, and where which format breaks: a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from starrynight.cli import app, followed, t
from starrynight.errors import BadRequest

if TYPE_CHECKING:
    from starrynight.numerics.ranges import LayerRange

HELP = t(
    """Measure every layer's numbers while the model paints, against each format's limits: where it breaks, bits to spare.

    [bold]Examples[/bold]

    starry ranges firefly

    starry ranges z-image-turbo -o ranges.svg

    starry ranges firefly --all --json""",
    """测量作画时每一层数值的大小，与各格式的上限相比：哪里溢出，余几位。

    [bold]例子[/bold]

    starry ranges firefly

    starry ranges z-image-turbo -o ranges.svg

    starry ranges firefly --all --json""",
)

# Layers shown of each component unless all are asked for.
SHOWN = 6


@app.command(help=HELP)
def ranges(
    model: str = typer.Argument(
        "firefly",
        help=t(
            "A name of `starry models`, a hub id, a folder or a .safetensors file.",
            "`starry models` 里的名字、模型库 id、文件夹或 .safetensors 文件。",
        ),
    ),
    out: Path | None = typer.Option(
        None, "--out", "-o", help=t("Draw the picture here (.svg).", "把图画到这里（.svg）。")
    ),
    everything: bool = typer.Option(False, "--all", help=t("Every layer, not the loudest.", "列出每一层。")),
    as_json: bool = typer.Option(False, "--json", help=t("For machines.", "供程序读取。")),
) -> None:
    if out is not None and out.suffix.lower() != ".svg":
        raise BadRequest(
            f"The picture is an SVG; name it {out.with_suffix('.svg').name}.",
            f"图是 SVG 格式；请命名为 {out.with_suffix('.svg').name}。",
        )
    from starrynight.folding import calibrate
    from starrynight.models import catalogue, download
    from starrynight.numerics.ranges import layer_ranges, overflowing_layers
    from starrynight.storage import check_writable

    if out is not None:
        check_writable(out)
    found = download.fetch(catalogue.resolve(model))
    with followed(t(f"watching {found.en} paint", f"观察 {found.zh} 作画")) as on_progress:
        measured = layer_ranges(calibrate.observe(found, on_progress=on_progress))
    if out is not None:
        _draw(out, measured, t(found.en, found.zh))
    if as_json:
        told = {"model": found.name, "layers": [layer.to_dict() for layer in measured]}
        print(json.dumps(told, ensure_ascii=False, indent=1))
        return
    _show(measured, everything)
    print(_verdict(measured, len(overflowing_layers(measured))))
    if out is not None:
        print(f"✦ {out}")


def _draw(out: Path, measured: Sequence[LayerRange], name: str) -> None:
    from starrynight.numerics.ranges import overflowing_layers, range_plot
    from starrynight.storage import storing, write_atomic

    title = t(f"{name}: every layer's range", f"{name}：每一层的数值范围")
    legend = (
        t("held by float16", "float16 容得下"),
        t("beyond float16", "超出 float16"),
        t("peak after folding", "折叠后的峰值"),
    )
    text = range_plot(measured, title, _verdict(measured, len(overflowing_layers(measured))), legend)
    with storing(out):
        write_atomic(out, text.encode(), overwrite=True)


def _verdict(measured: Sequence[LayerRange], broken: int) -> str:
    """One sentence: float16 as it is, and folded."""
    from starrynight.numerics.ranges import LIMITS

    if not measured:
        return t("Nothing ran in 16 bits.", "没有任何 16 位计算。")
    worst = max(measured, key=lambda layer: layer.peak)
    left = LIMITS["float16"] - max(layer.folded for layer in measured)
    if not broken:
        spare = worst.headroom_bits("float16")
        return t(
            f"float16 holds all {len(measured)} layers, with {spare:.1f} bits to spare at {worst.component}.{worst.name}.",
            f"float16 容得下全部 {len(measured)} 层，最紧处 {worst.component}.{worst.name} 还余 {spare:.1f} 位。",
        )
    return t(
        f"float16 breaks in {broken} of {len(measured)} layers, by up to {-worst.headroom_bits('float16'):.1f} bits at "
        f"{worst.component}.{worst.name}; folded, {left:+.1f} bits remain.",
        f"float16 在 {len(measured)} 层中的 {broken} 层溢出，最多超出 {-worst.headroom_bits('float16'):.1f} 位（{worst.component}.{worst.name}）；"
        f"折叠后余量 {left:+.1f} 位。",
    )


def _show(measured: Sequence[LayerRange], everything: bool) -> None:
    """The loudest layers of each component, or all of them in the order in which they run."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="gold1")
    for heading, side in ((t("layer", "层"), "left"), (t("largest", "最大值"), "right"), ("float16", "right"),
                          (t("folded", "折叠后"), "right"), ("e5m2", "right"), ("e4m3", "right"), ("", "left")):  # fmt: skip
        width = 8 if side == "right" else None  # a narrow terminal shortens names, not numbers
        table.add_column(heading, justify=side, no_wrap=True, min_width=width)  # type: ignore[arg-type]
    for component in dict.fromkeys(layer.component for layer in measured):
        own = [layer for layer in measured if layer.component == component]
        shown = own if everything else sorted(own, key=lambda layer: -layer.peak)[:SHOWN]
        table.add_row(f"[gold1]{component}[/]")
        for layer in shown:
            table.add_row(*_row(layer))
        if len(shown) < len(own):
            table.add_row(
                f"[dim]  {t(f'… {len(own) - len(shown)} quieter layers (--all)', f'……另有 {len(own) - len(shown)} 层更安静（--all）')}[/]"
            )
    Console(highlight=False).print(table)
    print(t("Bits to spare in each format; negative is an overflow.", "各格式的余量（位）；负数即溢出。"))


def _row(layer: LayerRange) -> list[str]:
    def bits(spare: float) -> str:
        return f"[red]{spare:+.1f}[/]" if spare < 0 else f"{spare:+.1f}"

    from starrynight.numerics.ranges import LIMITS

    spare = layer.headroom_bits("float16")
    bar = (
        "[red]" + "█" * min(20, 1 + round(-spare)) + "[/]"
        if spare < 0
        else "[gold1]" + "▪" * min(20, round(spare)) + "[/]"
    )
    return [f"  {layer.name or layer.component}", f"{2**layer.peak:.3g}", bits(spare), bits(LIMITS["float16"] - layer.folded),
            bits(layer.headroom_bits("float8_e5m2")), bits(layer.headroom_bits("float8_e4m3")), bar]  # fmt: skip
