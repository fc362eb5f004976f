"""``starry hear``: what a recording says, in words, by the model that STARRY_EARS names."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import typer

from starrynight.cli.terminal import JSON, app, help_page
from starrynight.i18n import t
from starrynight.text import printed_json

HELP = help_page(
    (
        "Write down what a recording says. No recogniser is built in: STARRY_EARS names one.",
        "把录音写成字。没有自带的识别模型：由 STARRY_EARS 指定。",
    ),
    "STARRY_EARS=http://127.0.0.1:8102/v1#qwen3-asr starry hear prompt.wav",
    "STARRY_EARS=Qwen3-ASR-0.6B-hf starry hear prompt.wav --language zh",
    'starry paint "$(starry hear prompt.wav)"',
)


@app.command(help=HELP)
def hear(
    file: Path = typer.Argument(help=t("A WAV file.", "WAV 文件。")),
    language: str | None = typer.Option(
        None,
        "--language",
        help=t("zh, yue, en …; by default the model detects it.", "zh、yue、en……；默认由模型判断。"),
    ),
    as_json: bool = JSON,
) -> None:
    from starrynight.senses import sound
    from starrynight.senses.hearing import transcribe

    heard = transcribe(sound.read_file(file), language)
    if as_json:
        print(printed_json(asdict(heard)))
        return
    print(heard.text)
    if not heard.text:
        print(t("No words were heard in the recording.", "录音里没有听到话。"), file=sys.stderr)
