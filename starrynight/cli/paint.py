"""``starry paint``: from a prompt to pictures, with a bar that moves every step and one line for each picture."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli import app, page, progress_bar, t
from starrynight.errors import BadRequest, Cancelled
from starrynight.request import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from starrynight.painting.results import Refused, Step
    from starrynight.picture import Picture
    from starrynight.studio import SavedPicture

HELP = page(
    ("Paint a line of poetry.", "画一行诗。"),
    t(
        'starry paint "a starry night over a quiet village" --style oil',
        'starry paint "星夜下的静谧村庄，梵高风格，厚重的笔触"',
    ),
    'starry paint "江雪，孤舟" --style ink -n 4 --seed 7',
    t(
        'starry paint "neon skyline in rain" --style cyberpunk --size 512x256 -o skyline.webp',
        'starry paint "雨夜的霓虹都市" --style cyberpunk --size 512x256 -o skyline.webp',
    ),
    t(
        'starry paint "lily pond at dawn" --init-image sketch.png --strength 0.6',
        'starry paint "清晨的睡莲池" --init-image sketch.png --strength 0.6',
    ),
    t(
        'starry paint "a quiet harbour" --model z-image-turbo --lora moonlight:0.8',
        'starry paint "宁静的港湾" --model z-image-turbo --lora moonlight:0.8',
    ),
)


@app.command(help=HELP)
def paint(
    prompt: str = typer.Argument(help=t("What to paint, in Chinese or English.", "要画什么，中文英文皆可。")),
    style: str | None = typer.Option(
        None, "--style", "-s", help=t("A style: oil, ink, monet …", "风格：oil 油画、ink 水墨、monet 莫奈……")
    ),
    seed: int | None = typer.Option(
        None, help=t("One seed is one picture; drawn when left out.", "同一种子，同一幅画；不给则随机。")
    ),
    size: str | None = typer.Option(
        None, help=t("WIDTHxHEIGHT in pixels, or one number.", "宽x高（像素），或一个数。")
    ),
    steps: int | None = typer.Option(None, help=t("Denoising steps.", "去噪步数。")),
    guidance: float | None = typer.Option(
        None, help=t("Classifier-free guidance.", "提示词引导强度（CFG）。")
    ),
    count: int | None = typer.Option(None, "-n", "--count", help=t("How many pictures.", "画几幅。")),
    model: str | None = typer.Option(
        None,
        "--model",
        "-m",
        help=t(
            "A name of `starry models`, a hub id, a folder or a .safetensors file.",
            "`starry models` 里的名字、模型库 id、文件夹或 .safetensors 文件。",
        ),
    ),
    precision: str | None = typer.Option(
        None,
        help=t(
            "auto, bfloat16, float16, float16-folded or float32.",
            "auto、bfloat16、float16、 float16-folded（折叠）或 float32。",
        ),
    ),
    lora: list[str] = typer.Option(
        [], help=t("NAME or FILE, with :WEIGHT; may be given again.", "名字或文件，可带 :权重；可重复。")
    ),
    negative: str | None = typer.Option(None, help=t("What to keep out of the picture.", "画面里不要什么。")),
    sampler: str | None = typer.Option(
        None, help=t("The model's own when left out.", "采样器；不给则用模型自带的。")
    ),
    init_image: Path | None = typer.Option(None, help=t("A picture to begin from.", "以这张图为起点。")),
    strength: float | None = typer.Option(
        None, help=t("How far to leave it, above 0 up to 1.", "离开起点多远，大于 0，至多 1。")
    ),
    attention: str = typer.Option(
        "native", help=t("native (SDPA) or xformers.", "native（SDPA）或 xformers。")
    ),
    device: str | None = typer.Option(
        None, help=t("cpu, cuda, mps …; found when left out.", "cpu、cuda、mps……；不给则自动选择。")
    ),
    clamps: bool = typer.Option(
        False,
        "--clamps",
        help=t(
            "Count the numbers that the libraries' own clamps change (slower).",
            "统计各库自行截断的数（较慢）。",
        ),
    ),
    out: Path | None = typer.Option(
        None,
        "--out",
        "-o",
        help=t(
            "A file (.png .jpg .webp) or a folder, instead of the gallery.",
            "文件（.png .jpg .webp）或文件夹；写在那里而不挂进画廊。",
        ),
    ),
    overwrite: bool = typer.Option(
        False, "--overwrite", help=t("Replace files of that name.", "覆盖同名文件。")
    ),
) -> None:
    from starrynight import studio
    from starrynight.models import catalogue
    from starrynight.painting import checking

    width, height = parse_size(size)
    request = studio.fill(
        prompt=prompt, style=style, seed=seed, width=width, height=height, steps=steps, guidance=guidance,
        count=count, model=model, precision=precision, loras=tuple(map(parse_lora, lora)) or None,
        negative_prompt=negative, sampler=sampler, init_image=str(init_image) if init_image else None, strength=strength,
    )  # fmt: skip
    hang = hanger(out, request.count, overwrite)
    warned = checking.warnings_for(request, catalogue.resolve(request.model))
    for warning in warned:
        print(f"! {t(*warning)}", file=sys.stderr)
    with Progress(request.count) as progress:
        refused = []
        room = studio.Studio(hang, device, attention, progress.folding, count_clamps=clamps)
        for warning in room.ready(request).warnings(
            request
        ):  # its tokenizer knows more: how long the prompt is
            if warning not in warned:
                progress.warn(f"! {t(*warning)}")
        for outcome in room.paint(request, progress):
            if isinstance(outcome, studio.SavedPicture):
                progress.message(line(outcome))
                continue
            refused.append(outcome)
            if request.count > 1:
                progress.warn(refusal(outcome, request.count))
    if error := studio.account(refused, request.count):
        raise error


def hanger(out: Path | None, count: int, overwrite: bool) -> Callable[[Picture], Path]:
    """Into the gallery; or, where the user named a place, there and only there. Raises before anything is painted."""
    from starrynight.gallery.folder import Folder
    from starrynight.gallery.store import Gallery

    if out is None:
        return Gallery().place_of
    folder = Folder(out, count, overwrite)
    folder.check()
    return folder


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """ "512x256" is (512, 256), "512" is a square, None leaves the size to the model."""
    if text is None:
        return None, None
    sides = text.lower().replace("×", "x").replace("*", "x").split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() and len(side) < 10 for side in sides):
        raise BadRequest(
            f"“{shown(text)}” is not a size; write it as 512x256, or 256 for a square.",
            f"“{shown(text)}”不是尺寸；请写成 512x256，或用 256 表示正方形。",
        )
    return int(sides[0]), int(sides[-1])


def parse_lora(text: str) -> tuple[str, float]:
    """ "moonlight:0.8" is ("moonlight", 0.8); without a weight it is 1. A drive letter's colon is no weight."""
    name, colon, weight = text.rpartition(":")
    try:
        return (name, float(weight)) if colon and name else (text, 1.0)
    except ValueError:
        return text, 1.0


class Progress:
    """A bar over all steps of all pictures. On a terminal it moves; in a pipe it is silent. Calling it is a step.

    While it is entered, Ctrl-C is also remembered: an interrupt that arrives inside a destructor or a weak reference's
    callback is swallowed by Python, and would otherwise be lost.
    """

    def __init__(self, count: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

        self.count, self.interrupted = count, False
        self.out = Console(soft_wrap=True, highlight=False)
        columns = (
            "[gold1]{task.description}",
            BarColumn(style="grey23", complete_style="gold1", finished_style="gold1"),
        )
        self.bar = progress_bar(*columns, TextColumn("{task.fields[note]}"), TimeRemainingColumn())
        self.task = self.bar.add_task(t("readying the painter", "请画家就位"), total=None, note="")

    def __enter__(self) -> Progress:
        self.before = signal.signal(signal.SIGINT, self.interrupt)
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()
        signal.signal(signal.SIGINT, self.before)

    def interrupt(self, *_: Any) -> None:
        """At once where that can be; else at the next step."""
        self.interrupted = True
        raise KeyboardInterrupt

    def __call__(self, step: Step) -> None:
        if self.interrupted:
            raise Cancelled
        done = step.picture * step.steps + step.step + 1
        which = t(f"picture {step.picture + 1}/{self.count}", f"第 {step.picture + 1}/{self.count} 幅")
        note = t(f"step {step.step + 1}/{step.steps}", f"第 {step.step + 1}/{step.steps} 步")
        self.bar.update(
            self.task, description=which, completed=done, total=self.count * step.steps, note=note
        )

    def folding(self, done: int, total: int, doing: tuple[str, str]) -> None:
        """Folds are being made, once for each model."""
        which = t("folding the model for float16, once", "为 float16 折叠模型，只需一次")
        self.bar.update(self.task, description=which, completed=done, total=total, note=t(*doing))

    def message(self, sentence: str) -> None:
        """One line on stdout, above the bar."""
        from rich.text import Text

        self.bar.stop()
        self.out.print(Text(sentence))
        self.bar.start()

    def warn(self, sentence: str) -> None:
        """One line on stderr, above the bar."""
        self.bar.stop()
        print(sentence, file=sys.stderr)
        self.bar.start()


def line(hung: SavedPicture) -> str:
    """File, seed, precision and why: what the user needs to find this picture and paint it again."""
    recipe = hung.picture.recipe
    painter = (
        recipe["plan"].get("transformer") or recipe["plan"].get("unet") or next(iter(recipe["plan"].values()))
    )
    reason = t(painter["reason_en"], painter["reason_zh"])
    verdict = hung.picture.verdict
    notes = [] if verdict.outcome == "hang" else [t("not checked", "未检查")]
    notes += [
        t(f"mended: {rung.message('en')}", f"已修复：{rung.message('zh')}")
        for rung in verdict.attempts
        if rung.recovered
    ]
    if verdict.clamps is not None:
        count = sum(verdict.clamps.values())
        notes.append(t(f"{count} numbers clamped", f"有 {count} 个数被截断"))
    facts = [f"{t('seed', '种子')} {recipe['seed']}", f"{painter['format']}{t(': ', '：')}{reason}", *notes]
    return f"✦ {hung.place}  {' · '.join(facts)}"


def refusal(refused: Refused, count: int) -> str:
    """Which picture does not hang, and why."""
    number, seed = refused.index + 1, refused.seed
    return t(
        f"✗ picture {number} of {count} (seed {seed}): {refused.error.en}",
        f"✗ 第 {number}/{count} 幅（种子 {seed}）：{refused.error.zh}",
    )
