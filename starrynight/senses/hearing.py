"""The ears: what a voice says, in words. No recogniser is built in, because no package ships one for Mandarin.

The order is: the model that STARRY_EARS names (a folder, a .gguf, an address); else the browser's own, which pages ask for
themselves and which may send the voice to the browser's maker; else a sentence that says how to get ears.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from starrynight.errors import BadRequest, NoSense, RemoteError
from starrynight.i18n import Text
from starrynight.senses import running, sound
from starrynight.senses.asking import Server, Timed
from starrynight.senses.choice import OFF, REMOTE, Choice, chosen
from starrynight.senses.languages import code_of, language_code
from starrynight.text import clean

HOTWORDS = 500  # characters: of longer hints, models write down the hints
SET = Text(
    "Set STARRY_EARS to a folder of Qwen3-ASR (its -hf layout), to MODEL.gguf+MMPROJ.gguf, or to an address such as "
    "http://127.0.0.1:8102/v1#model.",
    "请把 STARRY_EARS 设为 Qwen3-ASR（-hf 布局）文件夹、模型.gguf+MMPROJ.gguf，或 http://127.0.0.1:8102/v1#model 这样的地址。",
)
HOW = Text(
    SET.en + " In the pages, the browser's own recogniser works too, and may send the voice to its maker.",
    SET.zh + "在网页里也可以用浏览器自带的识别，它可能把声音发给浏览器厂商。",
)


@dataclass(frozen=True)
class Heard:
    """``text``: what was said, "" for silence. ``language``: an ISO code, the one asked for or the one that the model named; None
    where it named none. ``by``: what heard it. ``seconds``: the length of the recording. ``segments``: the words with their times in
    seconds, by the model where it gives them, else the pieces of at most half a minute that it heard. ``words``: each word's
    times, where they were asked for.
    """

    text: str
    language: str | None
    by: str
    seconds: float
    segments: tuple[Timed, ...] = ()
    words: tuple[Timed, ...] = ()


class Listening:
    """A recording that can be heard piece by piece. The recording, the language and the ears are checked when it is made; a model is
    asked at the first of ``pieces``.

    ``times``: what to ask the model the times of, "segment", "word" or both; only models at an address can be asked. Raises as
    ``transcribe``.
    """

    def __init__(
        self,
        recording: bytes | sound.Sound,
        language: str | None = None,
        hotwords: str = "",
        choice: Choice | None = None,
        times: Sequence[str] = (),
    ) -> None:
        self.choice = choice or chosen("ears")
        _need(self.choice)
        if "word" in times and self.choice.kind != REMOTE:
            raise _no_times_of_words(self.choice.name)
        self.code = language_code(language)
        self.sound = recording if isinstance(recording, sound.Sound) else sound.read(recording)
        self.hint, self.times = clean(hotwords), tuple(times) if self.choice.kind == REMOTE else ()
        if len(self.hint) > HOTWORDS:
            raise BadRequest(
                f"The hotwords have {len(self.hint)} characters; give at most {HOTWORDS}.",
                f"热词有 {len(self.hint)} 个字符；最多 {HOTWORDS} 个。",
                "prompt",
            )

    def pieces(self) -> Iterator[Heard]:
        """What each piece says, in order; none for silence, which starts no model. Raises what ``running.model`` raises, and
        RemoteError for a model that fails."""
        for piece in sound.pieces(self.sound):
            text, named, times = self._hear(piece)
            segments = times.get("segment") or ((Timed(piece.start, piece.end, text),) if text else ())
            code = self.code or code_of(named)
            yield Heard(
                text, code, self.choice.name, piece.end - piece.start, segments, times.get("word", ())
            )

    def _hear(self, piece: sound.Piece) -> tuple[str, str | None, dict[str, tuple[Timed, ...]]]:
        model = running.model(self.choice)
        if self.times and isinstance(model, Server):
            try:
                text, named, times = model.hear_times(piece.samples, self.code, self.hint, self.times)
            except RemoteError:
                if "word" in self.times:
                    raise
                self.times = ()  # a server that knows no verbose_json
            else:
                if "word" in times and text and not times["word"]:
                    raise _no_times_of_words(self.choice.name)
                return text, named, {kind: _moved(some, piece.start) for kind, some in times.items()}
        return *model.hear(piece.samples, self.code, self.hint), {}

    def whole(self) -> Heard:
        """All pieces as one. Raises as ``pieces``."""
        return self.joined(list(self.pieces()))

    def joined(self, heard: Sequence[Heard]) -> Heard:
        """Pieces as one."""
        return Heard(
            joined(one.text for one in heard),
            self.code or next((one.language for one in heard if one.language), None),
            self.choice.name,
            self.sound.seconds,
            tuple(segment for one in heard for segment in one.segments),
            tuple(word for one in heard for word in one.words),
        )


def transcribe(
    recording: bytes | sound.Sound,
    language: str | None = None,
    hotwords: str = "",
    choice: Choice | None = None,
    times: Sequence[str] = (),
) -> Heard:
    """What a recording says: the bytes of a WAV file (or of what soundfile reads), or a ``Sound``.

    ``language``: an ISO code such as "zh", "yue", "en", or its English name; None lets the model detect it. ``hotwords``: words
    that may occur. ``times``: see ``Listening``. Raises NoSense where there are no ears; BadFile, BadRequest or MissingPackage for a
    recording, a language or times that cannot be had; what ``running.model`` raises, and RemoteError for a model that fails.
    """
    return Listening(recording, language, hotwords, choice, times).whole()


def _moved(times: Sequence[Timed], start: float) -> tuple[Timed, ...]:
    return tuple(Timed(one.start + start, one.end + start, one.text) for one in times)


def _no_times_of_words(name: str) -> BadRequest:
    return BadRequest(
        f"{name} gives no times of words; ask for those of segments, or set STARRY_EARS to a server that gives them.",
        f"{name} 不给出逐词时间；请改要 segment，或把 STARRY_EARS 设为能给出的服务。",
        "timestamp_granularities",
    )


def _need(choice: Choice) -> None:
    if choice.kind == OFF:
        raise NoSense("STARRY_EARS is off. " + HOW.en, "STARRY_EARS 是 off。" + HOW.zh)
    if not choice.can:
        raise NoSense("There are no ears here. " + HOW.en, "这里没有能听写的模型。" + HOW.zh)


def joined(said: Iterable[str]) -> str:
    """Pieces of a text: a space between two that Latin letters would run together."""
    text = ""
    for one in filter(None, map(str.strip, said)):
        gap = text and text[-1].isascii() and one[0].isascii()
        text += (" " if gap else "") + one
    return text
