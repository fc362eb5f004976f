"""``starry doctor``: the device, its measured speed in each number format, and the formats a model will use."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli.terminal import JSON, app, help_page
from starrynight.i18n import t
from starrynight.settings import settings

if TYPE_CHECKING:
    from rich.console import Console

    from starrynight.numerics.precision import Device, PrecisionPlan

HELP = help_page(
    (
        "Examine this machine: device, number formats (measured), memory, and what will be used and why.",
        "检查这台机器：设备、实测的数值格式、内存，以及将用什么、为什么。",
    ),
    "starry doctor",
    "starry doctor --model z-image-turbo",
    "starry doctor --json",
)

# Optional packages: import name → (device kind that needs it, "" for any; its purpose; how to install it).
OPTIONAL = {
    "xformers": (
        "cuda",
        t("another attention backend", "另一种注意力后端"),
        "pip install 'starry-night[xformers]'",
    ),
    "cv2": (
        "",
        t("draw Firefly's paintings and train it", "绘制萤火的训练画并训练它"),
        "pip install 'starry-night[train]'",
    ),
}


@app.command(help=HELP)
def doctor(
    model: str | None = typer.Option(
        None, "--model", "-m", help=t("The model to choose formats for.", "为哪个模型选择精度。")
    ),
    as_json: bool = JSON,
) -> None:
    from starrynight.models import catalogue, precision_plan
    from starrynight.numerics.device import probe

    model_spec = catalogue.resolve(model or catalogue.default())
    device = probe()
    plan = precision_plan.choose(model_spec, device=None, asked="auto")
    if as_json:
        report = {
            "device": asdict(device),
            "model": model_spec.name,
            "plan": plan.to_dict(),
            "missing": missing_packages(device.kind),
        }
        print(
            json.dumps(
                report | {"home": storage_facts(settings().home)}, ensure_ascii=False, indent=2, default=str
            )
        )
        return
    from rich.console import Console

    console = Console(highlight=False)
    _print_machine(console, device)
    _print_rates(console, device)
    _print_plan(console, t(model_spec.en, model_spec.zh), plan)
    _print_missing(console, missing_packages(device.kind))


def missing_packages(kind: str) -> list[dict[str, str]]:
    """The optional packages that this kind of device would use and that are not installed."""
    return [
        {"package": name, "for": purpose, "install": command}
        for name, (needs, purpose, command) in OPTIONAL.items()
        if needs in ("", kind) and importlib.util.find_spec(name) is None
    ]


def storage_facts(folder: Path) -> dict[str, Any]:
    """STARRY_HOME, the free bytes on its disk, and whether it can be written to. It need not exist yet."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return {
        "folder": str(folder),
        "free": shutil.disk_usage(existing).free,
        "writable": os.access(existing, os.W_OK),
    }


def _print_machine(console: Console, device: Device) -> None:
    from starrynight.studio import versions

    place = storage_facts(settings().home)
    memory = f" · {device.memory / 2**30:.0f} GB" if device.memory else ""
    warning = "" if place["writable"] else t(" · NOT WRITABLE", " · 不可写")
    rows = {
        t("device", "设备"): f"{device.kind} · {device.name}{memory}",
        t(
            "kept in", "存放于"
        ): f"{place['folder']} · {place['free'] / 1e9:.0f} GB {t('free', '可用')}{warning}",
        t("versions", "版本"): " · ".join(f"{name} {number}" for name, number in versions().items()),
    }
    for label, value in rows.items():
        console.print(f"[gold1]{label}[/]  ", end="")
        console.print(value, markup=False)


def _print_rates(console: Console, device: Device) -> None:
    """One bar for each format, as long as its measured speed compared with the fastest."""
    if not device.rates:
        return
    console.print(
        f"\n[gold1]{t('Matrix products, measured now (GFLOP/s)', '矩阵乘法，刚刚实测（GFLOP/s）')}[/]"
    )
    fastest = max(device.rates.values())
    for name, rate in device.rates.items():
        bar = "█" * max(1, round(32 * rate / fastest))
        note = t("fast here", "适合本机") if name in device.native else ""
        console.print(f"  {name:<9} [gold1]{bar:<32}[/] {rate:8.1f}  [dim]{note}[/]")


def _print_plan(console: Console, title: str, plan: PrecisionPlan) -> None:
    from rich.markup import escape

    title = escape(title)  # a folder may be called anything
    console.print(f"\n[gold1]{t(f'What {title} will run in, and why', f'{title} 将使用的精度与理由')}[/]")
    for choice in plan:
        console.print(
            f"  {choice.component:<13} {choice.format:<15} [dim]{t(choice.reason_en, choice.reason_zh)}[/]"
        )


def _print_missing(console: Console, packages: list[dict[str, str]]) -> None:
    console.print()
    if not packages:
        console.print(t("Nothing is missing.", "什么都不缺。"))
    for package in packages:
        console.print(f"{package['package']}: {package['for']} → {package['install']}", markup=False)
