"""``starry senses``: which senses there are, by which model, and what each says of a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from starrynight.cli.terminal import app, help_page
from starrynight.errors import StarryError
from starrynight.i18n import t

if TYPE_CHECKING:
    from starrynight.senses.choice import Choice

HELP = help_page(
    (
        "The senses: what sees the pictures, where it runs, and what it says of a sample.",
        "感官：谁在看画，在哪里运行，对一张样画说了什么。",
    ),
    "starry senses",
    "STARRY_EYES=http://127.0.0.1:8101/v1#qwen3-vl starry senses",
    "STARRY_EYES=off starry senses",
)
SAMPLE_SEED, SAMPLE_SIDE = 7, 256


@app.command(help=HELP)
def senses() -> None:
    from starrynight.senses.choice import SENSES, chosen

    failed: StarryError | None = None
    for name, purpose in SENSES.items():
        try:
            lines = _tried(chosen(name))
        except StarryError as error:
            failed, lines = error, [t(error.en, error.zh)]
        print(f"{name}  {t(*purpose)}")
        for line in lines:
            print(f"  {line}")
    if failed is not None:
        raise typer.Exit(failed.exit_code)


def _tried(choice: Choice) -> list[str]:
    """What a chosen sense is, and what it answered."""
    from starrynight.senses.choice import OFF

    if choice.kind == OFF:
        return [t("off", "已关闭")]
    where = (
        [t("pictures are sent to another machine", "图片会发送到另一台机器")]
        if choice.leaves_this_machine
        else []
    )
    return [*where, *(_eyes(choice) if choice.sense == "eyes" else _embedder())]


def _eyes(choice: Choice) -> list[str]:
    from starrynight.firefly.drawing.landscape import render
    from starrynight.firefly.drawing.scene import compose
    from starrynight.senses.eyes import Eyes

    eyes = Eyes(choice)
    look = eyes.look(render(compose(SAMPLE_SEED), SAMPLE_SIDE))
    said = t(*look.description.caption) or t("it cannot tell", "看不出来")
    lines = [f"{eyes.name} · {eyes.perceiver.megabytes:.1f} MB · {t('of a sample', '对样画')}: {said}"]
    if look.failed is not None:
        lines.insert(
            0, t(f"{look.failed.en} The perceiver looks instead.", f"{look.failed.zh}改由感知模型来看。")
        )
    return lines


def _embedder() -> list[str]:
    from starrynight.senses import perceiver

    model = perceiver.load()
    known = model.read("星夜下的村庄").known
    sample = t("of its sample words it knows", "样句中认得的词占")
    return [f"{model.name} · {sample} {known:.0%}"]
