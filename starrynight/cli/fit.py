"""``starry fit``: a format for each layer of a model, so that a card or a file holds the best picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli.terminal import JSON, MODEL_HELP, ProgressBar, app, help_page
from starrynight.errors import BadRequest, UnknownName
from starrynight.i18n import t
from starrynight.models.fitted import CONTAINERS, FILE, FOLDER
from starrynight.models.gguf import SUFFIX
from starrynight.text import printed_json

if TYPE_CHECKING:
    from starrynight.fitting.fit import CurvePoint, FitResult
    from starrynight.models.catalogue import LocalModel
    from starrynight.models.fitted import Fitted

HELP = help_page(
    (
        """Choose a format for each layer, so that a card or a file of this size holds the best picture.

Each layer is rounded alone and the change of small pictures is measured (minutes for a small model); an integer programme then spends the bytes where they show. The result is a GGUF file of the denoiser that ComfyUI-GGUF, stable-diffusion.cpp and diffusers read, and this program paints with; or, with --format folder, a whole folder for this program, in which layers may also be int8 with a scale a row. Stopped and run again, it continues.""",
        """为每一层选择格式，使给定大小的显卡或文件能画出最好的画。

先逐层舍入，测量小画面的变化（小模型需数分钟），再以整数规划把字节用在看得见的地方。结果是去噪网络的 GGUF 文件，ComfyUI-GGUF、stable-diffusion.cpp、diffusers 与本程序都能读取；或以 --format folder 写出供本程序使用的整个文件夹，其中的层还可用每行一个缩放的 int8。中断后再次运行会接着做。""",
    ),
    "starry fit firefly --bits 5.5 -o firefly-5.5.gguf",
    "starry fit z-image-turbo --memory 8GB -o z-8gb.gguf --report z-8gb",
    ("starry fit firefly --bits 8 --format folder -o firefly-8", "int8 among the formats", "格式中包括 int8"),
    "starry fit fine-tune.safetensors --file-size 4GB --like z-image-turbo -o small.gguf",
    ("starry fit z-image-turbo --memory 8GB --dry-run", "says how long it will take", "先看需要多久"),
)


MEMORY = typer.Option(None, "--memory", help=t("Bytes of the card, such as 8GB.", "显卡的内存，如 8GB。"))
BITS = typer.Option(None, "--bits", help=t("Bits a weight, such as 5.5.", "每个权重的位数，如 5.5。"))
FILE_SIZE = typer.Option(
    None, "--file-size", help=t("Bytes of the file, such as 6GB.", "文件的大小，如 6GB。")
)
OUT = typer.Option(
    None,
    "--out",
    "-o",
    help=t(
        "The file (.gguf) or folder; by default NAME-BITS.gguf or NAME-BITS here.",
        "文件（.gguf）或文件夹；不给则为此处的 名字-位数.gguf 或 名字-位数。",
    ),
)
LIKE = typer.Option(
    None,
    "--like",
    help=t(
        "Take the sensitivities that were measured on this model of the same architecture.",
        "借用在同架构的这个模型上测得的敏感度。",
    ),
)
PICTURES = typer.Option(
    None,
    "--pictures",
    min=0,
    max=4,
    help=t(
        "Held-out pictures to paint and compare; by default 2, of a large model 0.",
        "画几幅未参与测量的画来对比；默认 2，大模型为 0。",
    ),
)
REPORT = typer.Option(
    None,
    "--report",
    help=t(
        "A new folder for the curve, and one scene in every format.", "写入曲线与各格式同一场景的新文件夹。"
    ),
)
FORMAT = typer.Option(
    "gguf",
    "--format",
    help=t(
        "gguf: one file for other tools too; folder: the whole pipeline for this program, int8 among the formats.",
        "gguf：单个文件，其他工具也能读；folder：供本程序使用的整个管线，格式中包括 int8。",
    ),
)
DRY_RUN = typer.Option(
    False,
    "--dry-run",
    help=t("Only say what it would do and how long it takes.", "只说明要做什么、需要多久。"),
)


@app.command(help=HELP)
def fit(
    model: str = typer.Argument(help=MODEL_HELP),
    memory: str | None = MEMORY,
    bits: float | None = BITS,
    file_size: str | None = FILE_SIZE,
    out: Path | None = OUT,
    like: str | None = LIKE,
    pictures: int | None = PICTURES,
    report: Path | None = REPORT,
    format_: str = FORMAT,
    dry_run: bool = DRY_RUN,
    as_json: bool = JSON,
) -> None:
    _check_out(out, report, format_)
    from starrynight.fitting import fit as fitting
    from starrynight.folding import calibrate
    from starrynight.models import catalogue, download
    from starrynight.numerics.device import kind, torch_device
    from starrynight.storage import check_writable

    goal = fitting.goal(bits, file_size, memory)
    found = catalogue.resolve(download.fetch(catalogue.find(model)))
    other = catalogue.resolve(like) if like else None
    where = calibrate.device_for(found, torch_device(kind()))
    prepared = fitting.prepare(found, goal, other, where, format_)
    if dry_run:
        _print_plan(prepared, as_json)
        return
    for path in (out, report):
        if path is not None:
            check_writable(path)
    print(t(*prepared.message), file=sys.stderr)
    large = calibrate.is_large(found)
    count = pictures if pictures is not None else 0 if large else 2
    with ProgressBar(t(f"fitting {found.spec.en}", f"适配 {found.spec.zh}")) as on_progress:
        result = fitting.fit(prepared, count, not large or bool(pictures), where, on_progress)
        path = out or Path(f"{_short(found)}-{result.chosen.bits:.1f}{'' if format_ == FOLDER else SUFFIX}")
        about = fitting.save(result, path, on_progress)
        if report is not None:
            from starrynight.fitting.report import write_report

            write_report(result, report, on_progress)
    _print_result(result, about, path, report, as_json)


def _print_result(result: FitResult, about: Fitted, path: Path, report: Path | None, as_json: bool) -> None:
    if as_json:
        print(printed_json({"file": str(path), "bytes": _size(path), **about.to_dict(), "layers": dict(result.formats), "unchanged": result.unchanged, "curve": [point.to_dict() for point in result.curve]}))  # fmt: skip
        return
    print_curve(result.curve)
    print(f"✦ {path} · {_size(path) / 1e6:,.1f} MB · {t(*about.message)}")
    print(_unchanged(result))
    print(_how_to_use(result, path))
    if report is not None:
        print(f"✦ {report / 'report.md'}")


def _size(path: Path) -> int:
    """Bytes of the denoiser that was written: of the file, or of its weights in the folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.glob(f"*/{FILE}"))


def _check_out(out: Path | None, report: Path | None, format_: str) -> None:
    """Before anything is measured. Raises UnknownName, BadRequest."""
    if format_ not in CONTAINERS:
        raise UnknownName(("format", "格式"), format_, CONTAINERS)
    is_file = out is not None and out.suffix.lower() == SUFFIX
    if out is not None and format_ != FOLDER and not is_file:
        raise BadRequest(
            f"The result is a GGUF file; name it {out.with_suffix(SUFFIX).name}, or write a folder: --format folder.",
            f"结果是 GGUF 文件；请命名为 {out.with_suffix(SUFFIX).name}，或写出文件夹：--format folder。",
        )
    if out is not None and format_ == FOLDER and is_file:
        raise BadRequest(
            f"The result is a folder; name it {out.stem}, or write a GGUF file: --format gguf.",
            f"结果是文件夹；请命名为 {out.stem}，或写出 GGUF 文件：--format gguf。",
        )
    for path in (out, report):
        if path is not None and path.exists():
            raise BadRequest(f"“{path}” exists already; choose another name.", f"“{path}”已存在；请换一个名字。")  # fmt: skip


def _short(found: LocalModel) -> str:
    """A file name for the model: its own, without a folder or a suffix."""
    return Path(found.spec.name).stem or "model"


def _print_plan(prepared: Any, as_json: bool) -> None:
    if as_json:
        payload = {
            "layers": len(prepared.layout.layers), "bytes": prepared.budget, "measurements": prepared.measurements,
            "seconds": round(prepared.seconds, 1),
        }  # fmt: skip
        print(printed_json(payload))
    else:
        print(t(*prepared.message))


def print_curve(curve: Sequence[CurvePoint]) -> None:
    """Every point by its size, the fit itself first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="gold1")
    for heading in (t("formats", "格式"), t("bits", "位"), "MB", t("predicted", "预计"), t("measured", "实测"), t("worst", "最差")):  # fmt: skip
        table.add_column(heading, justify="left" if not table.columns else "right", no_wrap=True)
    for point in (curve[0], *sorted(curve[1:], key=lambda point: point.bits)):
        style = "gold1" if point.fit else ""
        name = point.name.replace("hand rule", t("hand rule", "手工规则")).replace("fit", t("fit", "适配"))
        cells = [f"{point.bits:.2f}", f"{point.bytes / 1e6:,.1f}", *(_decibels(v) for v in (point.predicted, point.measured, point.worst))]  # fmt: skip
        table.add_row(f"[{style}]{name}[/]" if style else name, *cells)
    Console(highlight=False).print(table)
    print(t("PSNR against float32, in dB; the worst of the pictures.", "与 float32 相比的 PSNR（dB）；最差为各画中最低者。"))  # fmt: skip


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _unchanged(result: FitResult) -> str:
    """What was not fitted, by name."""
    components, tensors = result.unchanged["components"], result.unchanged["tensors"]
    found = t(f"Not fitted: {', '.join(components)}", f"未适配：{'、'.join(components)}")
    if not tensors:
        return found + t(".", "。")
    some = ", ".join(tensors[:3]) + (", …" if len(tensors) > 3 else "")
    return found + t(
        f"; {len(tensors)} of the denoiser's tensors are no linear layers and stay in 16 bits ({some}).",
        f"；去噪网络中有 {len(tensors)} 个张量不是线性层，保持 16 位（{some}）。",
    )


def _how_to_use(result: FitResult, path: Path) -> str:
    if result.container == FOLDER:
        return t(
            f"Paint with it: starry paint --model {path} …; add --keep-packed to hold it so in memory. Other tools do not read it.",
            f"用它作画：starry paint --model {path} …；加 --keep-packed 则在内存中也保持这些格式。其他工具不能读取。",
        )
    if not result.subject.layout.makers:
        return t(
            "Its tensors have diffusers' names: diffusers reads it; ComfyUI-GGUF and stable-diffusion.cpp may not.",
            "其张量采用 diffusers 的名称：diffusers 可读；ComfyUI-GGUF 与 stable-diffusion.cpp 未必能读。",
        )
    return t(
        f"Paint with it: starry paint --model {path} …; or put it where ComfyUI-GGUF or stable-diffusion.cpp look.",
        f"用它作画：starry paint --model {path} …；或放入 ComfyUI-GGUF、stable-diffusion.cpp 的模型文件夹。",
    )
