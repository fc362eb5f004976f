"""``starry models``: the catalogue as a list; ``pull`` downloads a model, ``add`` puts one together from files, ``places`` names
folders of other programs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from starrynight.cli.terminal import MODEL_HELP, ProgressBar, app, help_page
from starrynight.cli.usage import CommandGroup
from starrynight.errors import BadRequest, MissingFile
from starrynight.i18n import Text, is_chinese, t
from starrynight.settings import settings

if TYPE_CHECKING:
    from starrynight.models.catalogue import ModelSpec

models_app = CommandGroup(
    help=t(
        "List the models; `starry models pull NAME` downloads one, `starry models add NAME` puts one together from files.",
        "有哪些模型；`starry models pull 名字` 下载，`starry models add` 用已有的文件拼装。",
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

    from starrynight.models import catalogue, download, registry

    console, chosen = Console(highlight=False, soft_wrap=True), catalogue.default()
    made = set(registry.names())
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
        if learnt := _learnt(model):
            console.print(Text(f"    {learnt}", "dim"))
        for component, path in model.parts.items() if model.name in made else ():
            console.print(Text(f"    {component}: {path}", "dim"))
        if model.name in made and not catalogue.is_here(model):
            console.print(Text("    " + download.incomplete(model).message(settings().lang)))
        elif model.hub is None and not model.path.exists():
            console.print(Text("    " + download.not_on_a_hub(model).message(settings().lang)))
    for name in sorted(set(registry.stems()) - made):
        console.print(Text.assemble((f"  {name:<17}", "bold"), "  ", t("cannot be read", "无法读取")))
    console.print(
        Text(
            t(
                "\n★ is the default. A hub id, a folder with model_index.json or a .safetensors file works too.",
                "\n★ 为默认模型。也可以用模型库 id、含 model_index.json 的文件夹或 .safetensors 文件。",
            ),
            "dim",
        )
    )


def _learnt(model: ModelSpec) -> str:
    """The sizes that a model was trained at, and how much it knows; empty if it does not say."""
    from starrynight.models import sizes
    from starrynight.painting.checking import vocabulary_of

    facts = [sizes.describe(model)]
    if known := vocabulary_of(model):
        things, styles = len(known.things), len(known.styles)
        facts.append(
            t(f"knows {things} things in {styles} styles: ", f"认识 {things} 种事物、{styles} 种风格：")
            + f"starry models words {model.name}"
        )
    return " · ".join(filter(None, facts))


def model_state(model: ModelSpec) -> str:
    """Whether the model is installed, and if not, what is missing."""
    from starrynight.models.catalogue import is_here

    if model.remote:
        return t(f"painted at {model.remote.host}", f"在 {model.remote.host} 作画")
    if is_here(model):
        return t("installed", "本机已有")
    if model.parts and not all(path.is_file() for path in model.parts.values()) and model.path.exists():
        return t("a file has moved", "有文件已移动")
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
        ("starry models pull z-image-turbo --small", "no weights", "不含权重"),
    )
)
def pull(
    name: str = typer.Argument(
        help=t("A name of `starry models` or a hub id.", "`starry models` 里的名字或模型库 id。")
    ),
    source: str = typer.Option("hub", "--source", help=t("hub or modelscope.", "hub 或 modelscope。")),
    small: bool = typer.Option(
        False,
        "--small",
        help=t(
            "Everything but the weights: a few MB, for files that you have.",
            "除权重外的一切：几 MB，配合已有的文件使用。",
        ),
    ),
) -> None:
    from starrynight.models import download

    with ProgressBar(name) as bar:

        def on_progress(done: int, total: int, file: Text) -> None:
            bar.update(done, total, message=f"{file.en} · {done / 1e9:.2f}/{total / 1e9:.2f} GB")

        place = download.pull(name, source, on_progress, small=small)
    print(f"✦ {name} → {place}")


@models_app.command(
    "list",
    help=help_page(("List the models.", "列出模型。"), "starry models list", "starry models list --places"),
)
def list_models(
    places: bool = typer.Option(
        False,
        "--places",
        help=t("What lies in the places to look, by kind.", "按种类列出各个查找位置里的文件。"),
    ),
) -> None:
    if places:
        print_places()
    else:
        table()


@models_app.command(
    help=help_page(
        ("What a model can paint: the words that it was trained on.", "模型能画什么：它学过的词。"),
        "starry models words",
        "starry models words firefly",
    )
)
def words(model: str | None = typer.Argument(None, help=MODEL_HELP)) -> None:
    from starrynight.models import catalogue
    from starrynight.painting.checking import vocabulary_of

    spec = catalogue.find(model or catalogue.default())
    known = vocabulary_of(spec)
    if known is None:
        raise MissingFile(
            f"“{spec.name}” does not say which words it was trained on; try any prompt.",
            f"“{spec.name}”没有写明学过哪些词；请直接试着画。",
        )
    titles = {
        "things": t("things", "事物"), "styles": t("styles", "风格"), "hours": t("hours", "时辰"),
        "weathers": t("weathers", "天气"),
    }  # fmt: skip
    for table, names in known.names("zh" if is_chinese(settings().lang) else "en").items():
        print(f"{titles[table]}{t(':', '：')} {t(', ', '、').join(names)}")


URL = typer.Option(
    None,
    "--url",
    help=t("A server with OpenAI's Images API, up to /v1.", "带 OpenAI 图像接口的服务器，写到 /v1。"),
)
REMOTE_MODEL = typer.Option(None, "--remote-model", help=t("The model's name there.", "模型在那里的名字。"))
KEY_VARIABLE = typer.Option(
    None, "--key-env", help=t("The variable that holds its key.", "存放密钥的环境变量。")
)
KEY_FILE = typer.Option(None, "--key-file", help=t("The file that holds its key.", "存放密钥的文件。"))
SIDE = typer.Option(
    1024, "--size", min=64, max=4096, help=t("Its usual side, in pixels.", "常用边长（像素）。")
)


@models_app.command(
    help=help_page(
        (
            "Put a model together from files that you have; they stay where they are. What no file replaces comes from the base.",
            "用已有的文件拼装一个模型；文件留在原处。没有给出的部分取自底座模型。",
        ),
        "starry models add mine --transformer z_image_turbo_bf16.safetensors --text-encoder qwen_3_4b.safetensors --vae "
        "ae.safetensors",
        "starry models add film --base flux-schnell --vae ae.safetensors",
        (
            "starry models add far --url https://host/v1 --key-env FAR_KEY",
            "another server paints",
            "由另一台服务器作画",
        ),
    )
)
def add(
    name: str = typer.Argument(help=t("The model's new name.", "新模型的名字。")),
    transformer: Path | None = typer.Option(
        None,
        "--transformer",
        help=t("A transformer, U-Net or all-in-one file.", "transformer、U-Net 或整合文件。"),
    ),
    text_encoder: list[Path] = typer.Option(
        [], "--text-encoder", help=t("A text encoder; may be given twice.", "文本编码器；可给两次。")
    ),
    vae: Path | None = typer.Option(None, "--vae", help=t("An autoencoder.", "自编码器（VAE）。")),
    base: str | None = typer.Option(
        None,
        "--base",
        help=t(
            "The model whose other files are used; found from the transformer by default.",
            "其余文件取自哪个模型；默认由 transformer 判断。",
        ),
    ),
    overwrite: bool = typer.Option(
        False, "--overwrite", help=t("Replace a model of this name.", "覆盖同名模型。")
    ),
    url: str | None = URL,
    remote_model: str | None = REMOTE_MODEL,
    key_env: str | None = KEY_VARIABLE,
    key_file: Path | None = KEY_FILE,
    size: int = SIDE,
) -> None:
    from starrynight.models import assembly, catalogue, download
    from starrynight.models.remote import Remote

    if url is not None:
        if transformer or text_encoder or vae or base:
            raise BadRequest(
                "A model is at --url or made of files, not both.",
                "模型要么在 --url，要么由文件拼装，不能兼有。",
            )
        kept = str(key_file.expanduser().absolute()) if key_file else None
        far = Remote(url, remote_model, key_env, kept, size)
        entry = assembly.add_remote(name, far, overwrite)
        print(f"✦ {entry.name} → starry paint … -m {entry.name}")
        return
    if remote_model or key_env or key_file:
        raise BadRequest("These options belong to --url.", "这些选项须与 --url 一起使用。")
    entry = assembly.add(name, transformer, text_encoder, vae, base, overwrite)
    for component, path in entry.parts.items():
        print(f"  {component}: {path}")
    print(f"✦ {entry.name} → starry paint … -m {entry.name}")
    spec = catalogue.find(entry.name)
    if not catalogue.is_here(spec):
        print(download.incomplete(spec).message(settings().lang))


@models_app.command(
    help=help_page(
        ("Forget a model made by `add`; its files stay.", "移除用 `add` 建立的模型；不删除它的文件。"),
        "starry models remove mine",
    )
)
def remove(name: str = typer.Argument(help=t("The model's name.", "模型的名字。"))) -> None:
    from starrynight.models import registry

    entry = registry.remove(name)
    print(
        f"✦ {name}: "
        + t("removed from the list; no weight file was deleted.", "已从列表移除；没有删除任何权重文件。")
    )
    for path in dict.fromkeys(entry.parts.values()) if entry else ():
        print(f"  {path}")


places_app = CommandGroup(
    help=t(
        "Folders of ComfyUI, A1111, Forge or InvokeAI, or any other, that are searched for models and LoRAs by name.",
        "按名字查找模型与 LoRA 的其他文件夹：ComfyUI、A1111、Forge、InvokeAI 或任意文件夹。",
    )
)
models_app.add_typer(places_app, name="places")


@places_app.command(
    "add",
    help=help_page(
        (
            "Name a folder, or an extra_model_paths.yaml, as a place to look.",
            "把文件夹或 extra_model_paths.yaml 设为查找位置。",
        ),
        "starry models places add ~/ComfyUI",
        "starry models places add ~/ComfyUI/extra_model_paths.yaml",
    ),
)
def add_place(folder: str = typer.Argument(help=t("The folder.", "文件夹。"))) -> None:
    from starrynight.models import places

    path = places.add(folder)
    found = len(places.survey([places.Place(path, kept=True)]).found)
    print(f"✦ {path}: {t(f'{found} files and folders of weights', f'{found} 个权重文件或文件夹')}")


@places_app.command(
    "list", help=help_page(("List the places to look.", "列出查找位置。"), "starry models places list")
)
def list_places() -> None:
    from starrynight.models import places

    known = places.all_places()
    for place in known:
        state = "" if place.is_there else t("  (not there)", "  （不在）")
        print(f"{place.path}{'' if place.kept else '  (STARRY_MODEL_PATHS)'}{state}")
    if not known:
        print(
            t(
                "None. Add one: starry models places add FOLDER",
                "还没有。添加：starry models places add 文件夹",
            )
        )


@places_app.command(
    "remove",
    help=help_page(
        ("Forget a place; its files stay.", "移除一个位置；文件不动。"),
        "starry models places remove ~/ComfyUI",
    ),
)
def remove_place(folder: str = typer.Argument(help=t("The folder.", "文件夹。"))) -> None:
    from starrynight.models import places

    print(f"✦ {places.remove(folder)}: " + t("no longer searched; its files stay.", "不再查找；文件不动。"))


def print_places() -> None:
    """What lies in the places, by kind, a line each."""
    from starrynight.errors import StarryError
    from starrynight.models import places
    from starrynight.models.recognition import KINDS, FileKind

    if not places.all_places():
        list_places()
        return
    titles = {
        "checkpoint": t("whole checkpoints", "完整检查点"),
        "folder": t("diffusers folders", "diffusers 文件夹"),
        "pickle": t("pickles, which are not opened", "pickle 文件（不会打开）"),
        "damaged": t("files that cannot be read", "无法读取的文件"),
    }
    survey = places.survey()
    for kind, found in places.by_kind(survey.found).items():
        print(titles.get(kind) or KINDS[kind].to(settings().lang))
        for one, held in found:
            note = f"  {held.title.to(settings().lang)}" if isinstance(held, FileKind) else ""
            note = f"  {held.message(settings().lang)}" if isinstance(held, StarryError) else note
            print(f"  {one.name}  {one.path}{note}")
    for folder in survey.skipped:
        print(t(f"Not searched: {folder}", f"没有查找：{folder}"))
