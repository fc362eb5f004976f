"""``starry models``: the catalogue as a list; ``starry models pull`` downloads one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from starrynight.cli.terminal import ProgressBar, app, help_page
from starrynight.cli.usage import CommandGroup
from starrynight.i18n import Text, t
from starrynight.settings import settings

if TYPE_CHECKING:
    from starrynight.models.catalogue import ModelSpec

models_app = CommandGroup(
    help=t(
        "List the models; `starry models pull NAME` downloads one.",
        "有哪些模型；`starry models pull 名字` 下载一个。",
    ),
    invoke_without_command=True,
)
app.add_typer(models_app, name="models")
LANGUAGES = {"zh": t("Chinese", "中文"), "en": t("English", "英文")}


@models_app.callback()
def models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        table()


def table() -> None:
    """Print two lines for each model, and a third if the user must act. No line is cut, whatever the terminal's width."""
    from rich.console import Console
    from rich.text import Text

    from starrynight.models import catalogue, download

    console, chosen = Console(highlight=False, soft_wrap=True), catalogue.default()
    for model in map(catalogue.find, catalogue.names()):
        habits = f"{model.width}×{model.height}".ljust(9) + t(
            f"  {model.steps:>2} steps  CFG {model.guidance:g}  ",
            f"  {model.steps:>2} 步  CFG {model.guidance:g}  ",
        )
        star = "★ " if model.name == chosen else "  "
        state = (model_state(model), "gold1" if catalogue.is_here(model) else "dim")
        console.print(Text.assemble((f"{star}{model.name:<17}", "bold"), "  ", habits, state))
        title = t(model.en, model.zh)
        about = [title] if title.lower() != model.name else []
        reads = t(", ", "、").join(LANGUAGES[lang] for lang in model.languages)
        console.print(Text("    " + " · ".join(filter(None, [*about, reads, model.licence])), "dim"))
        if model.hub is None and not model.path.exists():
            console.print(Text("    " + download.not_on_a_hub(model).message(settings().lang)))
    console.print(
        Text(
            t(
                "\n★ is the default. A hub id, a folder with model_index.json or a .safetensors file works too.",
                "\n★ 为默认模型。也可以用模型库 id、含 model_index.json 的文件夹或 .safetensors 文件。",
            ),
            "dim",
        )
    )


def model_state(model: ModelSpec) -> str:
    """Whether the model is installed, and if not, what is missing."""
    from starrynight.models.catalogue import is_here

    if is_here(model):
        return t("installed", "本机已有")
    if model.hub is None and not model.path.exists():
        return t("needs your own file", "需自备文件")
    if model.base and model.path.exists():
        return t(f"needs {model.base}", f"还缺底座 {model.base}")
    return t(f"to download: {model.bytes / 1e9:.1f} GB", f"可下载：{model.bytes / 1e9:.1f} GB")


@models_app.command(
    help=help_page(
        (
            "Download a model into STARRY_HOME and check it. An interrupted download continues.",
            "把模型下载到 STARRY_HOME，断点续传并校验。",
        ),
        "starry models pull z-image-turbo",
        ("starry models pull z-image-turbo --source modelscope", "from ModelScope", "从魔搭下载"),
    )
)
def pull(
    name: str = typer.Argument(
        help=t("A name of `starry models` or a hub id.", "`starry models` 里的名字或模型库 id。")
    ),
    source: str = typer.Option("hub", "--source", help=t("hub or modelscope.", "hub 或 modelscope。")),
) -> None:
    from starrynight.models import download

    with ProgressBar(name) as bar:

        def on_progress(done: int, total: int, file: Text) -> None:
            bar.update(done, total, message=f"{file.en} · {done / 1e9:.2f}/{total / 1e9:.2f} GB")

        place = download.pull(name, source, on_progress)
    print(f"✦ {name} → {place}")
