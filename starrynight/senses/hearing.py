"""The ears: what a voice says, in words. No recogniser is built in, because no package ships one for Mandarin.

The order is: the model that STARRY_EARS names (a folder, a .gguf, an address); else the browser's own, which pages ask for
themselves and which may send the voice to the browser's maker; else a sentence that says how to get ears.
"""

from __future__ import annotations

from dataclasses import dataclass

from starrynight.errors import BadRequest, NoSense
from starrynight.i18n import Text
from starrynight.senses import running, sound
from starrynight.senses.choice import OFF, Choice, chosen
from starrynight.senses.languages import code_of, language_code
from starrynight.text import clean

HOTWORDS = 500  # characters: of longer hints, models write down the hints
HOW = Text(
    "Set STARRY_EARS to a folder of Qwen3-ASR (its -hf layout), to MODEL.gguf+MMPROJ.gguf, or to an address such as "
    "http://127.0.0.1:8102/v1#model; in the pages, the browser's own recogniser works too, and may send the voice to its maker.",
    "请把 STARRY_EARS 设为 Qwen3-ASR（-hf 布局）文件夹、模型.gguf+MMPROJ.gguf，或 http://127.0.0.1:8102/v1#model 这样的地址；"
    "在网页里也可以用浏览器自带的识别，它可能把声音发给浏览器厂商。",
)


@dataclass(frozen=True)
class Heard:
    """``text``: what was said, "" for silence. ``language``: an ISO code, the one asked for or the one that the model named; None
    where it named none. ``by``: what heard it. ``seconds``: the length of the recording.
    """

    text: str
    language: str | None
    by: str
    seconds: float


def transcribe(
    recording: bytes | sound.Sound,
    language: str | None = None,
    hotwords: str = "",
    choice: Choice | None = None,
) -> Heard:
    """What a recording says: the bytes of a WAV file (or of what soundfile reads), or a ``Sound``.

    ``language``: an ISO code such as "zh", "yue", "en", or its English name; None lets the model detect it. ``hotwords``: words
    that may occur. Raises NoSense where there are no ears; BadFile, BadRequest or MissingPackage for a recording or a language
    that cannot be taken; what ``running.model`` raises, and RemoteError for a model that fails.
    """
    choice = choice or chosen("ears")
    _need(choice)
    code = language_code(language)
    heard = recording if isinstance(recording, sound.Sound) else sound.read(recording)
    hint = clean(hotwords)
    if len(hint) > HOTWORDS:
        raise BadRequest(
            f"The hotwords have {len(hint)} characters; give at most {HOTWORDS}.",
            f"热词有 {len(hint)} 个字符；最多 {HOTWORDS} 个。",
        )
    said, named = list[str](), None
    for piece in sound.pieces(heard):  # none for silence, which starts nothing
        text, found = running.model(choice).hear(piece, code, hint)
        named = named or found
        said.append(text)
    return Heard(_joined(said), code or code_of(named), choice.name, heard.seconds)


def _need(choice: Choice) -> None:
    if choice.kind == OFF:
        raise NoSense("STARRY_EARS is off. " + HOW.en, "STARRY_EARS 是 off。" + HOW.zh)
    if not choice.can:
        raise NoSense("There are no ears here. " + HOW.en, "这里没有能听写的模型。" + HOW.zh)


def _joined(said: list[str]) -> str:
    """Pieces of a text: a space between two that Latin letters would run together."""
    text = ""
    for one in filter(None, map(str.strip, said)):
        gap = text and text[-1].isascii() and one[0].isascii()
        text += (" " if gap else "") + one
    return text
