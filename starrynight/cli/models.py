"""``starry models``: the catalogue as a table, and ``starry models pull`` to fetch one of them."""

from __future__ import annotations

import typer

from starrynight.cli import app, progress_bar, t

models_app = typer.Typer(
    help=t(
        "The models there are; `starry models pull NAME` fetches one.",
        "有哪些模型；`starry models pull 名字` 下载一个。",
    ),
    invoke_without_command=True,
)
app.add_typer(models_app, name="models")


@models_app.callback()
def models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        table()


def table() -> None:
    from rich.console import Console
    from rich.table import Table

    from starrynight.painting import catalogue

    chosen = catalogue.default()
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="gold1")
    for heading in (t("name", "名字"), "", t("size", "尺寸"), t("steps", "步数"), "CFG", t("languages", "语言"),
                    t("licence", "许可"), t("here", "本机")):  # fmt: skip
        rows.add_column(heading, no_wrap=True)
    for model in map(catalogue.resolve, catalogue.names()):
        here = t("yes", "有") if model.here else f"{t('pull', '需下载')} {model.bytes / 1e9:.1f} GB"
        star = "★ " if model.name == chosen else "  "
        rows.add_row(
            f"{star}{model.name}", t(model.en, model.zh), f"{model.width}×{model.height}", str(model.steps),
            f"{model.guidance:g}", "·".join(model.languages), model.licence, here,
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(rows)
    console.print(
        t(
            "\n★ is used when none is named. A hub id, a folder with model_index.json or a .safetensors file will do too.",
            "\n★ 为默认模型。也可以用模型库 id、含 model_index.json 的文件夹或 .safetensors 文件。",
        ),
        style="dim",
    )


@models_app.command(
    help=t(
        """Fetch a model into STARRY_HOME, going on where an earlier try stopped, and check it.

    [bold]Examples[/bold]

    starry models pull z-image-turbo

    starry models pull kook-zimage-turbo --source modelscope""",
        """把模型下载到 STARRY_HOME，断点续传并校验。

    [bold]例子[/bold]

    starry models pull z-image-turbo

    starry models pull kook-zimage-turbo --source modelscope""",
    )
)
def pull(
    name: str = typer.Argument(
        help=t("A name of `starry models` or a hub id.", "`starry models` 里的名字或模型库 id。")
    ),
    source: str = typer.Option("hub", "--source", help=t("hub or modelscope.", "hub 或 modelscope。")),
) -> None:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    from starrynight.painting import hub

    columns = (TextColumn("[gold1]{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with progress_bar(*columns) as bar:
        task = bar.add_task(name, total=None)

        def on_progress(done: int, total: int, file: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{name} · {file}")

        place = hub.pull(name, source, on_progress)
    print(f"✦ {name} → {place}")
