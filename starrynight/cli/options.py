"""The options that describe a picture, shared by the commands that paint, and how their words are read."""

from __future__ import annotations

import typer

from starrynight.cli.terminal import MODEL_HELP
from starrynight.errors import BadRequest
from starrynight.i18n import t
from starrynight.painting.styles import styles
from starrynight.text import excerpt

_STYLES = [(key, f"{key} {style.name['zh']}") for key, style in styles().items()]
STYLE = typer.Option(
    None, "--style", "-s",
    help=t(f"A style: {', '.join(en for en, _ in _STYLES)}.", f"风格：{'、'.join(zh for _, zh in _STYLES)}。"),
)  # fmt: skip
SEED = typer.Option(
    None,
    help=t("The same seed gives the same picture; random by default.", "同一种子，同一幅画；不给则随机。"),
)
SIZE = typer.Option(
    None,
    help=t("WIDTHxHEIGHT in pixels, one number, or a format: 3:2.", "宽x高（像素）、一个数，或比例如 3:2。"),
)
PRECISION = typer.Option(
    None,
    help=t(
        "auto, bfloat16, float16, float16-folded, float32, or int8 (products in 8 bits, on a CPU).",
        "auto、bfloat16、float16、 float16-folded（折叠）、float32，或 int8（CPU 上以 8 位整数相乘）。",
    ),
)
LORA = typer.Option(
    [], help=t("NAME or FILE, with :WEIGHT if you like; can be repeated.", "名字或文件，可带 :权重；可重复。")
)
LORA_PARTIAL = typer.Option(
    False,
    "--lora-partial",
    help=t(
        "Apply what fits of a LoRA, even if under half of its layers do.",
        "LoRA 的层不足一半匹配时也照用。",
    ),
)
KEEP_PACKED = typer.Option(
    False,
    "--keep-packed",
    help=t("Keep weights of 8 bits or fewer packed in memory.", "8 位及更少的权重在内存中不展开。"),
)
SAMPLER = typer.Option(
    None, help=t("The scheduler; by default the model's own.", "采样器；不给则用模型自带的。")
)
STRENGTH = typer.Option(
    None,
    help=t("How much of --init-image is repainted: above 0, up to 1.", "起始图重画的程度：大于 0，至多 1。"),
)
MASK = typer.Option(
    None,
    help=t(
        "Of the size of --init-image: white is painted, black is kept to the bit.",
        "与 --init-image 一样大：白处重画，黑处一位不改。",
    ),
)
EXTEND = typer.Option(
    None,
    help=t(
        "Paint around --init-image: left=128,right=128 (also top, bottom), or 128 for all sides.",
        "在 --init-image 四周续画：left=128,right=128（还有 top、bottom），或 128 表示四边。",
    ),
)
VARIATION = typer.Option(
    None,
    help=t(
        "Stay near the seed's picture: 0 is the same, 1 another one.",
        "贴近该种子的画：0 相同，1 完全另一幅。",
    ),
)
VARIATION_SEED = typer.Option(
    None,
    help=t("The seed that --variation mixes in; random by default.", "--variation 混入的种子；不给则随机。"),
)
VARIETY = typer.Option(
    None,
    help=t(
        "More variety between seeds, 0 to 1: noises the text in the first steps.",
        "让不同种子的画更不相同，0 到 1：在最初几步给文字加噪。",
    ),
)
PREDICTION = typer.Option(
    None,
    help=t(
        "What the model predicts, if its files do not say: epsilon, v_prediction, sample or flow.",
        "文件没有写明的预测类型：epsilon、 v_prediction、sample 或 flow。",
    ),
)
PROMPT = typer.Argument(help=t("What to paint, in Chinese or English.", "要画什么，中文英文皆可。"))
STEPS = typer.Option(None, help=t("Denoising steps.", "去噪步数。"))
GUIDANCE = typer.Option(None, help=t("Classifier-free guidance.", "提示词引导强度（CFG）。"))
MODEL = typer.Option(None, "--model", "-m", help=MODEL_HELP)
NEGATIVE = typer.Option(None, help=t("What the picture should not show.", "画面里不要什么。"))
INIT_IMAGE = typer.Option(None, help=t("A picture to start from (img2img).", "以这张图为起点（图生图）。"))


def parse_size(text: str | None, model: str | None = None) -> tuple[int | None, int | None]:
    """ "512x256" is (512, 256), "512" is a square, "3:2" is the size of this format that suits the model, None leaves the size
    to the model.
    """
    from starrynight.models import catalogue, sizes

    if text is None:
        return None, None
    if ratio := sizes.ratio_of(text):
        return sizes.of_format(catalogue.find(model or catalogue.default()), ratio)
    sides = text.lower().replace("×", "x").replace("*", "x").split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() and len(side) < 10 for side in sides):
        raise BadRequest(
            f"“{excerpt(text)}” is not a size; write it as 512x256, 256 for a square, or a format such as 3:2.",
            f"“{excerpt(text)}”不是尺寸；请写成 512x256，用 256 表示正方形，或写比例如 3:2。",
        )
    return int(sides[0]), int(sides[-1])


def parse_extend(text: str | None) -> tuple[int, ...] | None:
    """ "left=128,right=64" is (128, 0, 64, 0), "128" is that for all sides."""
    from starrynight.request import SIDES

    if text is None:
        return None
    if text.strip().isdecimal():
        return (int(text),) * len(SIDES)
    parts = [part.partition("=") for part in text.replace(" ", "").split(",")]
    given = {side: pixels for side, _, pixels in parts}
    if len(given) < len(parts) or given.keys() - set(SIDES) or not all(map(str.isdecimal, given.values())):
        raise BadRequest(
            f"“{excerpt(text)}” extends no side; write it as left=128,right=128 (also top, bottom), or 128 for all.",
            f"看不懂“{excerpt(text)}”；请写成 left=128,right=128（还有 top、bottom），或 128 表示四边。",
        )
    return tuple(int(given.get(side, 0)) for side in SIDES)


def parse_lora(text: str) -> tuple[str, float] | tuple[str, float, float]:
    """ "moonlight:0.8" is ("moonlight", 0.8); the weight is 1 if left out. Two weights are the text encoder's and the denoiser's.
    The colon of a drive letter is not taken for a weight's.
    """
    name, second = _split_weight(text)
    if second is None:
        return text, 1.0
    rest, first = _split_weight(name)
    return (name, second) if first is None else (rest, first, second)


def _split_weight(text: str) -> tuple[str, float | None]:
    name, colon, weight = text.rpartition(":")
    try:
        return (name, float(weight)) if colon and name else (text, None)
    except ValueError:
        return text, None
