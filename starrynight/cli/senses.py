"""``starry senses``: which senses there are, by which model, the memory it takes, and what each says of a sample."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from starrynight.cli.terminal import app, help_page
from starrynight.errors import StarryError
from starrynight.i18n import Text, t
from starrynight.text import excerpt

if TYPE_CHECKING:
    from starrynight.senses.choice import Choice

HELP = help_page(
    (
        "The senses: which model sees, hears, names, ranks and compares, the memory it needs, and what it says of a sample.",
        "感官：谁在看、听、认词、排序、比较，需要多少内存，对样例说了什么。",
    ),
    "starry senses",
    "STARRY_EYES=http://127.0.0.1:8101/v1#qwen3-vl starry senses",
    "STARRY_EYES=Qwen3VL-8B-Q4_K_M.gguf+mmproj.gguf starry senses",
    "STARRY_EARS=Qwen3-ASR-0.6B-hf starry senses",
)
SAMPLE_SEED, SAMPLE_SIDE = 7, 256
SAMPLE_WORDS = "梵高风格的星夜，黄昏的小村"
SAMPLE_QUERY, SAMPLE_DOCUMENTS = "星夜", ("sunflowers at noon", "a starry night over a village")


@app.command(help=HELP)
def senses() -> None:
    from starrynight.senses.choice import SENSES, chosen

    failed: StarryError | None = None
    for name, purpose in SENSES.items():
        print(f"{name}  {t(*purpose)}", flush=True)
        try:
            choice = chosen(name)
            for line in _described(choice):
                print(f"  {line}", flush=True)
            for line in _tried(choice) if choice.can else []:
                print(f"  {line}", flush=True)
        except StarryError as error:
            failed = error
            print(f"  {t(error.en, error.zh)}")
    if failed is not None:
        raise typer.Exit(failed.exit_code)


def _described(choice: Choice) -> list[str]:
    """What a sense is set to, where it runs and the memory it takes."""
    from starrynight.senses import memory
    from starrynight.senses.choice import BUILT_IN, OFF
    from starrynight.senses.hearing import HOW

    if choice.kind == OFF:
        found = (
            t("; searches by meaning find nothing", "；不再按意思找画") if choice.sense == "embedder" else ""
        )
        return [t("off", "已关闭") + found]
    if not choice.can:
        return [t(*HOW)]
    lines = [choice.name]
    if choice.sense == "embedder" and choice.kind != BUILT_IN:
        lines.append(
            t("pictures are found by the perceiver's vectors all the same", "找画仍用感知模型的向量")
        )
    if choice.leaves_this_machine:
        lines.append(t("what it is given is sent to another machine", "交给它的内容会发送到另一台机器"))
    if (wanted := memory.needed(choice)) is not None:
        size, free = memory.gigabytes(wanted), memory.gigabytes(memory.free())
        lines.append(
            t(f"needs about {size} of memory, {free} are free", f"约需 {size} 内存，现有 {free} 可用")
        )
    return lines


def _tried(choice: Choice) -> list[str]:
    """What it answered to a sample, and how long that took."""
    began = time.monotonic()
    said, failed = _SAMPLES[choice.sense](choice)
    lines = [f"{said} · {time.monotonic() - began:.1f} s"]
    if failed is not None:
        lines.insert(
            0, t(f"{failed.en} The built-in one answers instead.", f"{failed.zh}改由自带的模型回答。")
        )
    return lines


def _eyes(choice: Choice) -> tuple[str, Text | None]:
    from starrynight.firefly.drawing.landscape import render
    from starrynight.firefly.drawing.scene import compose
    from starrynight.senses.eyes import Eyes

    eyes = Eyes(choice)
    look = eyes.look(render(compose(SAMPLE_SEED), SAMPLE_SIDE))
    said = t(*look.description.caption) or t("it cannot tell", "看不出来")
    size = f" · {eyes.perceiver.megabytes:.1f} MB" if look.description.by == eyes.perceiver.name else ""
    return f"{look.description.by}{size} · {t('of a sample', '对样画')}: {said}", look.failed


def _ears(choice: Choice) -> tuple[str, Text | None]:
    from starrynight.senses import hearing, sound

    heard = hearing.transcribe(sound.hum(), choice=choice)
    return (
        f"{t('of a second of a hum', '对一秒嗡声')}: {excerpt(heard.text) or t('no words', '没有话')}",
        None,
    )


def _facets(choice: Choice) -> tuple[str, Text | None]:
    from starrynight.senses.finding import find

    found = find(SAMPLE_WORDS, choice=choice)
    return (
        f"{found.by} · {SAMPLE_WORDS}: {' · '.join(span.text for span in found.spans) or '–'}",
        found.failed,
    )


def _ranker(choice: Choice) -> tuple[str, Text | None]:
    from starrynight.senses.ranking import rank

    found = rank(SAMPLE_QUERY, SAMPLE_DOCUMENTS, choice)
    order = " › ".join(f"{SAMPLE_DOCUMENTS[one.index]} {one.score:.2f}" for one in found.results)
    return f"{found.by} · {SAMPLE_QUERY}: {order}", found.failed


def _embedder(choice: Choice) -> tuple[str, Text | None]:
    from starrynight.senses.embedding import embed

    found = embed([SAMPLE_QUERY, *SAMPLE_DOCUMENTS], choice)
    near = " · ".join(
        f"{words} {float(found.vectors[0] @ vector):.2f}"
        for words, vector in zip(SAMPLE_DOCUMENTS, found.vectors[1:], strict=True)
    )
    return f"{found.by} · {SAMPLE_QUERY} ~ {near}", found.failed


_SAMPLES: dict[str, Callable[[Choice], tuple[str, Text | None]]] = {
    "eyes": _eyes,
    "ears": _ears,
    "facets": _facets,
    "ranker": _ranker,
    "embedder": _embedder,
}
