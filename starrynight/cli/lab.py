"""``starry lab``: run experiments on number formats, rebuild a report, list runs, ask which precision to use."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli import LANG, app, progress_bar, t

if TYPE_CHECKING:
    from collections.abc import Callable

    from starrynight.lab.run import ExperimentRun
    from starrynight.lab.runner import Progress

lab_app = typer.Typer(
    no_args_is_help=True,
    help=t(
        "The precision lab: what every number format costs, measured here.",
        "精度实验室：每种数值格式的代价，就在本机测量。",
    ),
)
app.add_typer(lab_app, name="lab")

RUN_HELP = t(
    """Paint the same pictures in every number format and measure the difference; a killed run goes on where it was.

    [bold]Examples[/bold]

    starry lab run --quick -o my-run

    starry lab run --model z-image-turbo --formats float16,bfloat16 --prompts 3 -o turbo

    starry lab run -o my-run --seeds 10    # the same run, with more pictures

    starry lab run --claims C5,C9 --seeds 1 --pictures 100    # only: how many pictures break""",
    """用每种数值格式画同样的画，测量差别；中断之后从原处继续。

    [bold]例子[/bold]

    starry lab run --quick -o my-run

    starry lab run --model z-image-turbo --formats float16,bfloat16 --prompts 3 -o turbo

    starry lab run -o my-run --seeds 10    # 同一次实验，多画几幅

    starry lab run --claims C5,C9 --seeds 1 --pictures 100    # 只问：有多少幅会坏""",
)


@lab_app.command(help=RUN_HELP)
def run(
    quick: bool = typer.Option(
        False, "--quick", help=t("A small full report, in minutes.", "几分钟内的一份小而全的报告。")
    ),
    model: list[str] = typer.Option(
        [],
        "--model",
        "-m",
        help=t(
            "May be given again; firefly and its wide twin when left out.", "可重复；不给则为萤火及其宽孪生。"
        ),
    ),
    formats: str | None = typer.Option(
        None,
        help=t(
            "Of float16, float16-folded, bfloat16, float8; float32 is always there.",
            "从 float16、float16-folded、bfloat16、float8 中选；float32 总在其中。",
        ),
    ),
    prompts: int | None = typer.Option(None, help=t("How many prompts, 1 to 10.", "几条提示词，1 到 10。")),
    seeds: int | None = typer.Option(None, help=t("Seeds for each prompt.", "每条提示词几个种子。")),
    pictures: int | None = typer.Option(
        None,
        help=t(
            "In how many pictures of each model broken ones are counted, float16 and bfloat16; 50 when left out.",
            "float16 与 bfloat16 各画多少幅来数坏画；不给则为 50。",
        ),
    ),
    claims: str | None = typer.Option(
        None, help=t("Only these, as C5,C9; all when left out.", "只查这几条，如 C5,C9；不给则全部。")
    ),
    size: int | None = typer.Option(
        None, help=t("Pixels a side; what suits the model.", "边长（像素）；不给则随模型。")
    ),
    steps: int | None = typer.Option(None, help=t("Denoising steps.", "去噪步数。")),
    device: str | None = typer.Option(
        None, help=t("cpu, cuda, mps …; found when left out.", "cpu、cuda、mps……")
    ),
    out: Path | None = typer.Option(None, "--out", "-o", help=t("The run's folder.", "实验的文件夹。")),
) -> None:
    from starrynight.lab import runner, table

    folder = out or table.home() / time.strftime("%Y%m%d-%H%M%S")
    asked = {
        "models": tuple(model),
        "formats": split(formats),
        "prompts": prompts,
        "seeds": seeds,
        "counted": pictures,
        "claims": split(claims),
        "size": size,
        "steps": steps,
    }
    one = begin(folder, quick, {name: value for name, value in asked.items() if value not in (None, ())})
    print(f"✦ {folder}")
    with progress_bar(*columns()) as bar:
        runner.measure(one, device, advance(bar))
    show(one)


def split(names: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip()) if names else ()


def begin(folder: Path, quick: bool, asked: dict[str, Any]) -> ExperimentRun:
    """A new run, or the one that is there: as it is, or grown by what is asked for."""
    from dataclasses import replace

    from starrynight.lab import plan as plans
    from starrynight.lab.run import PLAN, ExperimentRun

    if (folder / PLAN).is_file() and not quick:
        return ExperimentRun.create(folder, replace(ExperimentRun.open(folder).plan, **asked))
    return ExperimentRun.create(folder, plans.quick(**asked) if quick else plans.ExperimentPlan(**asked))


def columns() -> tuple[Any, ...]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    return (
        TextColumn("[gold1]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )


def advance(bar: Any) -> Callable[[Progress], None]:
    """Move the bar: what is being measured, and the time left."""
    task = bar.add_task("", total=None, left="")

    def moved(progress: Progress) -> None:
        words = (
            " · ".join(p for p in (progress.point.experiment, progress.point.format) if p)
            if progress.point
            else ""
        )
        left = (
            "" if not progress.left else t(f"{minutes(progress.left)} left", f"还需 {minutes(progress.left)}")
        )
        bar.update(task, completed=progress.done, total=progress.total, description=words, left=left)

    return moved


def minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def show(one: ExperimentRun) -> None:
    """Verdicts on the terminal, each with its answer in a line, then where the report is."""
    from rich.console import Console

    from starrynight.lab import table

    console = Console(highlight=False)
    colours = {"reproduced": "green3", "not reproduced": "indian_red1", "needs hardware": "sky_blue2"}
    for row in table.table(one):
        console.print(f"[dim]{row['id']:<4}[/][{colours.get(row['outcome'], 'gold1')}]●[/] ", end="")
        console.print(f"{row['title'][LANG]}  ", markup=False, end="")
        console.print(row["verdict"][LANG], style="dim")
        if row["gist"][LANG]:
            console.print(f"      {row['gist'][LANG]}", style="dim", markup=False)
    report = table.report(one)
    print(f"✦ {report}")


@lab_app.command(help=t(
    """Rebuild report.html, report.md and report.json of a run from its raw results.

    [bold]Example[/bold]

    starry lab report my-run""",
    """由原始结果重新生成一次实验的 report.html、report.md 与 report.json。

    [bold]例子[/bold]

    starry lab report my-run""",
))  # fmt: skip
def report(
    folder: Path = typer.Argument(metavar="RUN", help=t("The run's folder.", "实验的文件夹。")),
) -> None:
    from starrynight.lab import report as reports
    from starrynight.lab import table
    from starrynight.lab.run import ExperimentRun

    one = ExperimentRun.open(folder)
    reports.write(one)
    print(f"✦ {folder / table.REPORT}")


@lab_app.command("list", help=t(
    """The runs on this machine, and how far each is.

    [bold]Example[/bold]

    starry lab list""",
    """本机上的实验，以及各自的进度。

    [bold]例子[/bold]

    starry lab list""",
))  # fmt: skip
def list_runs(
    folder: Path | None = typer.Argument(None, help=t("Look here instead.", "改在此处寻找。")),
) -> None:
    from starrynight.lab import table

    known = table.runs(folder)
    if not known:
        place = folder or table.home()
        print(
            t(
                f"No runs in {place}; begin one: starry lab run --quick.",
                f"{place} 里还没有实验；开始一次：starry lab run --quick。",
            )
        )
    for one in known:
        state = t("done", "完成") if one.done else f"{one.progress.done}/{one.progress.total}"
        print(f"{one.folder}  {state}  {', '.join(one.models)}")


@lab_app.command(help=t(
    """Which precision to use for a model on this device, and what it costs: a paragraph with numbers.

    [bold]Examples[/bold]

    starry lab advise firefly

    starry lab advise z-image-turbo --measure""",
    """这台机器上某个模型该用哪种精度、代价是什么：一段带数字的话。

    [bold]例子[/bold]

    starry lab advise firefly

    starry lab advise z-image-turbo --measure""",
))  # fmt: skip
def advise(
    model: str = typer.Argument(
        help=t(
            "A name of `starry models`, a hub id, a folder or a file.",
            "`starry models` 里的名字、模型库 id、文件夹或文件。",
        )
    ),
    device: str | None = typer.Option(
        None, help=t("cpu, cuda, mps …; found when left out.", "cpu、cuda、mps……")
    ),
    measure: bool = typer.Option(
        False, "--measure", help=t("Measure first, unless a run already has.", "若尚无实验，先测量。")
    ),
) -> None:
    from starrynight.lab import advice

    if measure and advice.evidence(model) is None:
        run(
            quick=True,
            model=[model],
            formats=None,
            prompts=None,
            seeds=None,
            pictures=None,
            claims=None,
            size=None,
            steps=None,
            device=device,
            out=None,
        )
    print(advice.advise(model, device)[LANG == "zh"])
