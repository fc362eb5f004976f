"""``starry paint``: paints a prompt, with a progress bar over all steps and one line for each picture."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from starrynight.cli import batch, seeing
from starrynight.cli.batch import PROMPT, PROMPTS
from starrynight.cli.options import (
    EXTEND,
    GUIDANCE,
    INIT_IMAGE,
    KEEP_PACKED,
    LORA,
    LORA_PARTIAL,
    MASK,
    MODEL,
    NEGATIVE,
    PRECISION,
    PREDICTION,
    SAMPLER,
    SEED,
    SIZE,
    STEPS,
    STRENGTH,
    STYLE,
    VARIATION,
    VARIATION_SEED,
    VARIETY,
    parse_extend,
    parse_lora,
    parse_size,
)
from starrynight.cli.terminal import DEVICE, ProgressBar, app, help_page
from starrynight.errors import Cancelled
from starrynight.i18n import t
from starrynight.verdict import OUTCOME_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from starrynight.jobs import shell
    from starrynight.painting.results import Refused, Step
    from starrynight.picture import Picture
    from starrynight.request import PaintRequest
    from starrynight.studio import SavedPicture, Studio

HELP = help_page(
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
        'starry paint "a red boat" --init-image sea.png --mask boat.png',
        'starry paint "红色的小船" --init-image sea.png --mask boat.png',
    ),
    t(
        'starry paint "a wide valley" --init-image hills.png --extend left=128,right=128',
        'starry paint "开阔的山谷" --init-image hills.png --extend left=128,right=128',
    ),
    "starry paint --prompts lines.txt --style ink -n 2 -o pictures",
    t(
        'starry paint "a quiet harbour" --model z-image-turbo --lora moonlight:0.8',
        'starry paint "宁静的港湾" --model z-image-turbo --lora moonlight:0.8',
    ),
)


CLAMPS = typer.Option(
    False,
    "--clamps",
    help=t(
        "Count the values that the libraries' own clamps change (slower).", "统计各库自行截断的数（较慢）。"
    ),
)
VERIFY = typer.Option(
    False,
    "--verify",
    help=t(
        "Compute one step in float32 too and tell the format's error.",
        "另以 float32 计算一步，并给出所选格式的误差。",
    ),
)
UPSCALE = typer.Option(None, help=t("Upscale each picture by 2 or 4.", "把每幅画放大 2 或 4 倍。"))
HERE = typer.Option(
    False,
    "--here",
    help=t("Paint in this process, even if a service is running.", "在本进程里画，即使有服务正在运行。"),
)
OUT = typer.Option(
    None,
    "--out",
    "-o",
    help=t(
        "Save to this file (.png .jpg .webp) or folder, not to the gallery.",
        "文件（.png .jpg .webp）或文件夹，而非画廊。",
    ),
)


@app.command(help=HELP)
def paint(
    prompt: str | None = PROMPT,
    prompts: Path | None = PROMPTS,
    style: str | None = STYLE,
    seed: int | None = SEED,
    size: str | None = SIZE,
    steps: int | None = STEPS,
    guidance: float | None = GUIDANCE,
    count: int | None = typer.Option(None, "-n", "--count", help=t("How many pictures.", "画几幅。")),
    model: str | None = MODEL,
    precision: str | None = PRECISION,
    keep_packed: bool = KEEP_PACKED,
    lora: list[str] = LORA,
    lora_partial: bool = LORA_PARTIAL,
    negative: str | None = NEGATIVE,
    sampler: str | None = SAMPLER,
    init_image: Path | None = INIT_IMAGE,
    strength: float | None = STRENGTH,
    mask: Path | None = MASK,
    extend: list[str] | None = EXTEND,
    variation: float | None = VARIATION,
    variation_seed: int | None = VARIATION_SEED,
    variety: float | None = VARIETY,
    prediction: str | None = PREDICTION,
    attention: str = typer.Option(
        "native", help=t("native (SDPA) or xformers.", "native（SDPA）或 xformers。")
    ),
    device: str | None = DEVICE,
    clamps: bool = CLAMPS,
    verify: bool = VERIFY,
    upscale: int | None = UPSCALE,
    out: Path | None = OUT,
    overwrite: bool = typer.Option(
        False, "--overwrite", help=t("Replace files of that name.", "覆盖同名文件。")
    ),
    here: bool = HERE,
    until_seen: int | None = seeing.UNTIL_SEEN,
) -> None:
    width, height = parse_size(size, model)
    fields = {
        "style": style, "seed": seed, "width": width, "height": height, "steps": steps, "guidance": guidance,
        "count": count, "model": model, "precision": precision, "loras": tuple(map(parse_lora, lora)) or None,
        "lora_partial": lora_partial or None,
        "negative_prompt": negative, "sampler": sampler, "init_image": str(init_image) if init_image else None, "strength": strength,
        "prediction": prediction, "mask": str(mask) if mask else None, "extend": parse_extend(",".join(extend or []) or None), "variation": variation,
        "variation_seed": variation_seed, "verify": verify or None, "variety": variety, "keep_packed": keep_packed or None,
        "until_seen": until_seen,
    }  # fmt: skip
    seeing.check(until_seen, [count or 1])
    requests = batch.requests(prompt, prompts, fields)
    hang = batch.Saver(_destination(out, sum(one.count for one in requests), overwrite), requests, upscale)
    batch.print_plan(requests, upscale or 1)
    studios: list[Studio] = []
    warned: list[tuple[str, str]] = []
    for request in requests:
        _warn_before_loading(request, warned, device=device, attention=attention != "native", clamps=clamps)
    _paint(
        [PaintJob(one, hang, device, attention, clamps, warned, studios) for one in requests],
        here,
    )


def _paint(jobs: list[PaintJob], here: bool) -> None:
    """Paint the requests one after another, with one loaded model. Raises what ``studio.batch_error`` finds."""
    from starrynight import studio

    total, refused = sum(job.request.count for job in jobs), []
    watcher = seeing.Watcher()
    with PaintProgress(total) as progress:
        for job in jobs:
            for outcome in _outcomes(job, here, watcher, progress):
                if isinstance(outcome, studio.SavedPicture):
                    progress.print(picture_line(outcome, watcher.note(outcome.picture)), sys.stdout)
                    continue
                refused.append(outcome)
                if total > 1:
                    progress.print(_refusal(outcome, total, progress.before), sys.stderr)
            progress.before += job.request.count
            if isinstance(job.hang, batch.Saver):
                job.hang.before = progress.before
    if error := studio.batch_error(refused, total):
        raise error


def _outcomes(
    job: PaintJob, here: bool, watcher: seeing.Watcher, progress: PaintProgress
) -> Iterator[SavedPicture | Refused]:
    def paint(request: PaintRequest, hang: Callable[[Picture], Path]) -> Iterator[SavedPicture | Refused]:
        one = replace(job, request=request, hang=hang)
        return one.paint_here(progress) if here else one.paint(progress)

    if job.request.until_seen > 1:
        from starrynight.senses import tries

        return tries.until_seen(job.request, paint, job.hang, watcher.eyes())
    return paint(job.request, job.hang)


@dataclass(frozen=True)
class PaintJob:
    """What is painted, how, and what ``hang`` saves. ``warned``: lines that were printed already; ``studios``: the one that painted
    the requests before, with its loaded model.
    """

    request: PaintRequest
    hang: Callable[[Picture], Path]
    device: str | None
    attention: str
    clamps: bool
    warned: list[tuple[str, str]]
    studios: list[Studio]

    def paint(self, progress: PaintProgress) -> Iterator[SavedPicture | Refused]:
        """By the worker of a running service, which has torch and perhaps the model loaded; what it does not paint, here."""
        from starrynight.jobs import shell

        finished: set[int] = set()
        worker = self._worker()
        if worker is not None:
            if worker.waits:
                progress.print(f"! {t(*WAITS)}", sys.stderr)
            try:
                with contextlib.closing(self._paint_by(worker, progress)) as outcomes:
                    for outcome in outcomes:
                        finished.add(outcome.index)
                        yield outcome
                return
            except shell.Lost:
                progress.print(f"! {t(*LOST)}", sys.stderr)
        if len(finished) < self.request.count:
            yield from self.paint_here(progress, finished)

    def paint_here(
        self, progress: PaintProgress, finished: Collection[int] = ()
    ) -> Iterator[SavedPicture | Refused]:
        """In this process, but the pictures in ``finished``."""
        from starrynight import studio
        from starrynight.models.imports import keep_freed_memory

        request = self.request
        if not self.studios:
            keep_freed_memory()
            made = studio.Studio(
                self.hang, self.device, self.attention, progress.on_folding, count_clamps=self.clamps
            )
            self.studios.append(made)
        painters = self.studios[0]
        # The loaded model's tokenizer can warn of more, such as a prompt that is too long.
        self._warn(painters.ready(request).warnings(request), progress)
        fits: tuple[Any, ...] = ()
        for outcome in painters.paint(request, progress.on_step, finished):
            if not fits:  # known from the first picture on
                fits = painters.ready(request).fits
                self._print_fits([fit.message() for fit in fits], progress)
            yield outcome

    def _worker(self) -> shell.WarmPainter | None:
        """The worker that takes the request; None if there is none, with a line if there is one that does not."""
        from starrynight.jobs import shell
        from starrynight.models import catalogue

        # A download is shown where it happens.
        if self.attention != "native" or not catalogue.is_here(catalogue.find(self.request.model)):
            return None
        try:
            return shell.WarmPainter.find(self.request, self.device, self.clamps)
        except shell.Declined as declined:
            en, zh = declined.why
            print(t(f"! {en}; painting here.", f"! {zh}；在本进程里画。"), file=sys.stderr)
            return None

    def _paint_by(
        self, worker: shell.WarmPainter, progress: PaintProgress
    ) -> Generator[SavedPicture | Refused]:
        from starrynight.painting.results import Refused
        from starrynight.picture import Picture
        from starrynight.studio import SavedPicture

        fits: list[tuple[str, str]] = []
        with contextlib.closing(worker.paint(progress.on_step, progress.on_folding)) as found:
            for one in found:
                if isinstance(one, Picture | Refused):
                    saved = SavedPicture(one, self.hang(one)) if isinstance(one, Picture) else one
                    self._print_fits(fits, progress)
                    fits = []
                    yield saved
                elif one.kind == "fits":
                    fits = list(one.texts)
                else:
                    self._warn(one.texts, progress)

    def _warn(self, warnings: Iterable[tuple[str, str]], progress: PaintProgress) -> None:
        for warning in warnings:
            if warning not in self.warned:
                self.warned.append(warning)
                progress.print(f"! {t(*warning)}", sys.stderr)

    def _print_fits(self, fits: Iterable[tuple[str, str]], progress: PaintProgress) -> None:
        for fit in fits:
            if fit not in self.warned:
                self.warned.append(fit)
                progress.print(f"LoRA {t(*fit)}", sys.stderr)


WAITS = (
    "The running service is painting something else and takes this next; --here does not wait.",
    "正在运行的服务在画别的，之后画这个；--here 不等待。",
)
LOST = ("The running service has ended; painting goes on here.", "正在运行的服务已退出；改在本进程里继续画。")


def _warn_before_loading(request: PaintRequest, warned: list[tuple[str, str]], **local: object) -> None:
    """Print what can be warned of before the model is loaded, and add it to ``warned``. Raises BadRequest for options in ``local``
    where another server paints.
    """
    from starrynight.models import catalogue
    from starrynight.painting import checking
    from starrynight.senses import tries

    model = catalogue.find(request.model)
    checking.check_local(model, **local)
    tries.check(request)
    for warning in checking.warnings_for(request, model) + tries.warnings_for(request):
        if warning not in warned:
            warned.append(warning)
            print(f"! {t(*warning)}", file=sys.stderr)


def _destination(out: Path | None, count: int, overwrite: bool) -> Callable[[Picture], Path]:
    """What saves a finished picture and returns its path: the gallery, or a folder or file if the user names one.

    Raises before anything is painted if the place cannot be written to.
    """
    from starrynight.gallery.files import OutputPath
    from starrynight.gallery.store import Gallery

    if out is None:
        gallery = Gallery()
        gallery.check_writable()
        return gallery.save
    folder = OutputPath(out, count, overwrite)
    folder.check()
    return folder


class PaintProgress(ProgressBar):
    """A bar over all steps of all pictures, which also remembers Ctrl-C.

    Python swallows a KeyboardInterrupt that is raised inside a destructor or a weak reference's callback. ``on_step``
    therefore raises Cancelled if an interrupt came before it. ``before``: pictures of the requests that are finished.
    """

    def __init__(self, count: int) -> None:
        super().__init__(t("loading the model", "正在载入模型"))
        self.count, self.before, self.interrupted = count, 0, False

    def __enter__(self) -> PaintProgress:
        self._handler = signal.signal(signal.SIGINT, self._interrupt)
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        signal.signal(signal.SIGINT, self._handler)

    def _interrupt(self, *_: Any) -> None:
        self.interrupted = True
        raise KeyboardInterrupt

    def on_step(self, step: Step) -> None:
        if self.interrupted:
            raise Cancelled
        at = self.before + step.picture
        self.update(
            at * step.steps + step.step + 1,
            self.count * step.steps,
            title=t(f"picture {at + 1}/{self.count}", f"第 {at + 1}/{self.count} 幅"),
            message=t(f"step {step.step + 1}/{step.steps}", f"第 {step.step + 1}/{step.steps} 步"),
        )

    def on_folding(self, done: int, total: int, message: tuple[str, str]) -> None:
        """An ``OnProgress`` for the folding of a model, which happens once."""
        title = t("folding the model for float16, once", "为 float16 折叠模型，只需一次")
        self.update(done, total, title=title, message=t(*message))


def picture_line(saved: SavedPicture, note: str = "") -> str:
    """Path, seed, number format with its reason, what the guard did, and ``note``."""
    recipe = saved.picture.recipe
    main = (
        recipe["plan"].get("transformer") or recipe["plan"].get("unet") or next(iter(recipe["plan"].values()))
    )
    reason = t(main["reason_en"], main["reason_zh"])
    verdict = saved.picture.verdict
    notes = [] if verdict.outcome == "hang" else [t(*OUTCOME_NAMES[verdict.outcome])]
    notes += [
        t(f"recovered: {attempt.message('en')}", f"已修复：{attempt.message('zh')}")
        for attempt in verdict.attempts
        if attempt.recovered
    ]
    if verdict.clamps is not None:
        count = sum(verdict.clamps.values())
        notes.append(t(f"{count} values clamped", f"有 {count} 个数被截断"))
    if verdict.verified is not None:
        notes.append(t(verdict.verified.message("en"), verdict.verified.message("zh")))
    notes += [note] if note else []
    facts = [f"{t('seed', '种子')} {recipe['seed']}", f"{main['format']}{t(': ', '：')}{reason}", *notes]
    return f"✦ {saved.place}  {' · '.join(facts)}"


def _refusal(refused: Refused, count: int, before: int) -> str:
    """Which picture is not saved, and why. ``before``: pictures of earlier requests."""
    number, seed = before + refused.index + 1, refused.seed
    return t(
        f"✗ picture {number} of {count} (seed {seed}): {refused.error.en}",
        f"✗ 第 {number}/{count} 幅（种子 {seed}）：{refused.error.zh}",
    )
