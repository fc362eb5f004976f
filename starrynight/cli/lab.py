"""``starry lab``: runs experiments on number formats, rebuilds reports, lists runs, and recommends a precision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli.terminal import DEVICE, MODEL_HELP, ProgressBar, app, help_page
from starrynight.cli.usage import CommandGroup
from starrynight.errors import BadRequest
from starrynight.i18n import t
from starrynight.settings import settings

if TYPE_CHECKING:
    from starrynight.lab.run import ExperimentRun

lab_app = CommandGroup(
    no_args_is_help=True,
    help=t(
        "The precision lab: what every number format costs, measured here.",
        "精度实验室：每种数值格式的代价，就在本机测量。",
    ),
)
app.add_typer(lab_app, name="lab")

QUICK = typer.Option(
    False, "--quick", help=t("A small run with a full report, in minutes.", "几分钟内的一份小而全的报告。")
)
MODELS = typer.Option(
    [],
    "--model",
    "-m",
    help=t("Can be repeated; by default firefly and its wide twin.", "可重复；不给则为萤火及其宽孪生。"),
)
FORMATS = typer.Option(
    None,
    help=t(
        "Some of float16, float16-folded, bfloat16, float8, int8; float32 is always included.",
        "从 float16、float16-folded、bfloat16、 float8、int8 中选； float32 总在其中。",
    ),
)
PICTURES = typer.Option(
    None,
    help=t(
        "Pictures of each model, in float16 and in bfloat16, that estimate how many break; by default 50.",
        "每个模型用 float16 与 bfloat16 各画多少幅来估计坏画的比例；默认 50。",
    ),
)
CLAIMS = typer.Option(
    None,
    help=t("Only these claims, for example C5,C9; by default all.", "只查这几条，如 C5,C9；不给则全部。"),
)
COLOURS = {"reproduced": "green3", "not reproduced": "indian_red1", "needs hardware": "sky_blue2"}


@lab_app.command(
    help=help_page(
        (
            "Paint the same pictures in every number format and measure the differences. A killed run continues where it stopped.",
            "用每种数值格式画同样的画，测量差别；中断之后从原处继续。",
        ),
        "starry lab run --quick -o my-run",
        "starry lab run --model z-image-turbo --formats float16,bfloat16 --prompts 3 -o turbo",
        (
            "starry lab run -o my-run --seeds 10",
            "# the same run, with more pictures",
            "# 同一次实验，多画几幅",
        ),
        (
            "starry lab run --claims C5,C9 --seeds 1 --pictures 100",
            "# only how many pictures break",
            "# 只问：有多少幅会坏",
        ),
    )
)
def run(
    quick: bool = QUICK,
    model: list[str] = MODELS,
    formats: str | None = FORMATS,
    prompts: int | None = typer.Option(None, help=t("Number of prompts, 1 to 10.", "几条提示词，1 到 10。")),
    seeds: int | None = typer.Option(None, help=t("Seeds for each prompt.", "每条提示词几个种子。")),
    pictures: int | None = PICTURES,
    claims: str | None = CLAIMS,
    size: int | None = typer.Option(
        None, help=t("Pixels a side; by default the model's own.", "边长（像素）；不给则随模型。")
    ),
    steps: int | None = typer.Option(None, help=t("Denoising steps.", "去噪步数。")),
    device: str | None = DEVICE,
    out: Path | None = typer.Option(None, "--out", "-o", help=t("The run's folder.", "实验的文件夹。")),
) -> None:
    plan = {
        "models": tuple(model),
        "formats": _names("--formats", formats),
        "prompts": prompts,
        "seeds": seeds,
        "counted": pictures,
        "claims": _names("--claims", claims),
        "size": size,
        "steps": steps,
    }
    _measure(out, quick, {name: value for name, value in plan.items() if value not in (None, ())}, device)


def _names(option: str, text: str | None) -> tuple[str, ...]:
    """ "C5, C9" is ("C5", "C9"); None is (). Raises BadRequest for an option that names nothing."""
    names = tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()
    if text is not None and not names:
        raise BadRequest(f"{option} names nothing; leave it out for all.", f"{option} 是空的；不写即为全部。")
    return names


def _measure(out: Path | None, quick: bool, plan: dict[str, Any], device: str | None) -> None:
    """Bring the run in ``out`` to its end, and print its verdicts. None is a new folder in STARRY_HOME."""
    from starrynight.lab import background, runner, table
    from starrynight.lab.run import ExperimentRun
    from starrynight.numerics.device import named

    named(device)  # before there is a folder
    folder = out or background.new_folder(table.home())
    experiment = ExperimentRun.start(folder, plan, quick)
    print(f"✦ {folder}")
    with ProgressBar("", timed=False) as bar:

        def on_progress(progress: runner.RunProgress) -> None:
            point = progress.point
            title = " · ".join(filter(None, (point.experiment, point.format))) if point else ""
            left = f"{int(progress.left // 60)}:{int(progress.left % 60):02d}" if progress.left else ""
            left = t(f" · {left} left", f" · 还需 {left}") if left else ""
            bar.update(
                progress.done, progress.total, title=title, message=f"{progress.done}/{progress.total}{left}"
            )

        try:
            runner.measure(experiment, device, on_progress)
        except KeyboardInterrupt:
            state = table.summarised(ExperimentRun.open(folder)).state()
            bar.print(
                t(
                    f"{folder}: {state.en}. It goes on with: starry lab run -o {folder}",
                    f"{folder}：{state.zh}。继续：starry lab run -o {folder}",
                ),
                sys.stderr,
            )
            raise
    _print_verdicts(experiment)
    if runner.progress(experiment).busy:
        state = table.summarised(experiment).state()
        print(t(f"! {state.en}.", f"! {state.zh}。"), file=sys.stderr)


def _print_verdicts(experiment: ExperimentRun) -> None:
    """Print the run's answer, then each claim with its verdict and gist, then the report's path."""
    from rich.console import Console

    from starrynight.lab import report as reports
    from starrynight.lab import table
    from starrynight.lab.summary import SOURCE, summary

    console, lang, answer = Console(highlight=False), settings().lang, summary(experiment)
    console.print(answer.use.to(lang), style="gold1", markup=False)
    for part in (answer.cost, answer.card):
        if part.en:
            console.print(part.to(lang), markup=False)
    console.print(f"{SOURCE.to(lang)}\n", style="dim", markup=False)
    for row in table.table(experiment):
        console.print(f"[dim]{row['id']:<4}[/][{COLOURS.get(row['outcome'], 'gold1')}]●[/] ", end="")
        console.print(f"{row['title'][lang]}  ", markup=False, end="")
        console.print(row["verdict"][lang], style="dim")
        if row["gist"][lang]:
            console.print(f"      {row['gist'][lang]}", style="dim", markup=False)
    print(f"✦ {reports.latest(experiment)}")


@lab_app.command(
    help=help_page(
        (
            "Rebuild report.html, report.md and report.json of a run from its raw results.",
            "由原始结果重新生成一次实验的 report.html、report.md 与 report.json。",
        ),
        "starry lab report my-run",
    )
)
def report(
    folder: Path = typer.Argument(metavar="RUN", help=t("The run's folder.", "实验的文件夹。")),
) -> None:
    from starrynight.lab import report as reports
    from starrynight.lab.run import ExperimentRun

    reports.write(ExperimentRun.open(folder))
    print(f"✦ {folder / reports.PAGE}")


@lab_app.command(
    "list",
    help=help_page(
        ("List the runs on this machine and the progress of each.", "本机上的实验，以及各自的进度。"),
        "starry lab list",
    ),
)
def list_runs(
    folder: Path | None = typer.Argument(
        None,
        help=t(
            "The folder to look in, instead of STARRY_HOME/lab.", "在这个文件夹里找，而不是 STARRY_HOME/lab。"
        ),
    ),
) -> None:
    from starrynight.lab import table

    known = table.runs(folder)
    if not known:
        place = folder or table.home()
        print(
            t(
                f"No runs in {place}; start one: starry lab run --quick.",
                f"{place} 里还没有实验；开始一次：starry lab run --quick。",
            )
        )
    for one in known:
        print(f"{one.folder}  {t(*one.state())}  {', '.join(one.models)}")


@lab_app.command(
    help=help_page(
        (
            "Recommend a precision for a model on this device, with its measured costs.",
            "推荐某个模型在这台机器上该用的精度，并给出实测的代价。",
        ),
        "starry lab advise firefly",
        "starry lab advise z-image-turbo --measure",
    )
)
def advise(
    model: str = typer.Argument(help=MODEL_HELP),
    device: str | None = DEVICE,
    measure: bool = typer.Option(
        False, "--measure", help=t("Measure first if no run has yet.", "若尚无实验，先测量。")
    ),
) -> None:
    from starrynight.lab import advice

    if measure and advice.evidence(model) is None:
        _measure(None, True, {"models": (model,)}, device)
    print(t(*advice.advise(model, device)))
