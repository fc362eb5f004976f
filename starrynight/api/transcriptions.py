"""POST /v1/audio/transcriptions, in OpenAI's shape: the ears write down a recording, as text, JSON or subtitles, whole or piece by piece.

https://developers.openai.com/api/reference/resources/audio (read 2026-11).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.sse import format_sse_event
from starlette.datastructures import FormData, UploadFile

from starrynight.api.bodies import Route
from starrynight.api.chat import named_model
from starrynight.api.error_forms import OPENAI, error_body
from starrynight.api.jobs import upload_place
from starrynight.api.pools import SENSES
from starrynight.api.schema import answers, body_of, errors, event_of, ref
from starrynight.api.submission import sort_fields
from starrynight.api.values import choice
from starrynight.errors import BadRequest, MissingField, StarryError
from starrynight.i18n import Text
from starrynight.senses import subtitles
from starrynight.senses.asking import Timed
from starrynight.senses.hearing import Heard, Listening, joined
from starrynight.text import excerpt

router = APIRouter(route_class=Route)
EARS = "starry-ears"
MAX_RECORDING = 64 << 20  # bytes: half an hour at 16 kHz and 16 bits
TIMES = ("word", "segment")
FORMS = ("json", "text", "srt", "vtt", "verbose_json")
WRITTEN = {"srt": (subtitles.srt, "application/x-subrip"), "vtt": (subtitles.vtt, "text/vtt")}
STREAMED = ("json", "text")
KNOWN = ("model", "language", "prompt", "response_format", "stream", "temperature", "timestamp_granularities")
_PIECES = Text(
    "the recording is cut where it is quiet, into pieces of half a minute", "录音总是在安静处切成半分钟的段"
)
_NO_CHANCES = Text("the models here give no probabilities", "这里的模型不给出概率")
_ALWAYS = Text(
    "temperature has no effect: the likeliest words are written", "temperature 不起作用：总是写下最可能的词"
)
WARNINGS = "Starry-Warnings"  # a header, where the body has no place for them: JSON in ASCII

TRANSCRIBED = answers("OpenAITranscription") | errors(422, 501, 502)
_TEXT = {"schema": {"type": "string", "format": "binary"}}
TRANSCRIBED[200]["content"] |= dict.fromkeys(("text/plain", *(kind for _, kind in WRITTEN.values())), _TEXT)
TRANSCRIBED[200]["content"]["text/event-stream"] = {"itemSchema": event_of("OpenAITranscriptEvent")}


@dataclass(frozen=True)
class _Asked:
    """A checked form: the recording's bytes, how to hear it and how to answer. ``notes``: what had no effect."""

    recording: bytes
    language: str | None
    prompt: str
    form: str
    stream: bool
    times: tuple[str, ...]
    notes: list[Text]

    def listening(self) -> Listening:
        timed = self.times or (("segment",) if self.form in (*WRITTEN, "verbose_json") else ())
        return Listening(self.recording, self.language, self.prompt, times=timed)

    def warnings(self) -> list[dict[str, str]]:
        return [note._asdict() for note in dict.fromkeys(self.notes)]


@router.post(
    "/audio/transcriptions",
    response_model=None,
    max_body_size=MAX_RECORDING,
    responses=TRANSCRIBED,
    openapi_extra=body_of({"multipart/form-data": ref("OpenAITranscribe")}),
)
async def transcriptions(request: Request) -> Response:
    """Write down what a recording says: WAV, and what soundfile reads where it is installed. 503 where no ears are set. With
    ``stream`` as server-sent events, one for each piece of at most half a minute."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest(
            "A recording is sent as multipart/form-data.", "录音应以 multipart/form-data 发送。", "file"
        )
    async with upload_place(request), request.form(max_files=2, max_fields=32) as form:
        asked = await _read(form)
    listening = await SENSES.run(asked.listening)
    if asked.stream:
        return StreamingResponse(_events(listening, asked.warnings()), media_type="text/event-stream")
    heard = await SENSES.run(listening.whole)
    warnings = asked.warnings()
    headers = {WARNINGS: json.dumps(warnings, allow_nan=False)} if warnings else {}
    if asked.form == "text":
        return PlainTextResponse(f"{heard.text}\n", headers=headers)
    if asked.form in WRITTEN:
        write, kind = WRITTEN[asked.form]
        return PlainTextResponse(write(heard.segments), headers=headers, media_type=kind)
    more = _verbose(heard, asked.times) if asked.form == "verbose_json" else {}
    head = {"language": heard.language, "duration": round(heard.seconds, 3)}
    return JSONResponse({"text": heard.text, "model": heard.by, **head, **more, "warnings": warnings})


def _verbose(heard: Heard, times: tuple[str, ...]) -> dict[str, Any]:
    """Segments, unless only words were asked for; words where they were."""
    found: dict[str, Any] = {"task": "transcribe"}
    if times != ("word",):
        found["segments"] = [
            {"id": at, **_times(one), "text": one.text} for at, one in enumerate(heard.segments)
        ]
    if "word" in times:
        found["words"] = [{**_times(one), "word": one.text} for one in heard.words]
    return found


def _times(one: Timed) -> dict[str, float]:
    return {"start": round(one.start, 3), "end": round(one.end, 3)}


async def _events(listening: Listening, warnings: list[dict[str, str]]) -> AsyncIterator[bytes]:
    """The words of each piece as they are written down, then all; or in their place the sentence of an error."""
    pieces, heard = listening.pieces(), list[Heard]()
    try:
        while (piece := await SENSES.run(next, pieces, None)) is not None:
            before = joined(one.text for one in heard)
            heard.append(piece)
            if delta := joined(one.text for one in heard)[len(before) :]:
                yield _event({"type": "transcript.text.delta", "delta": delta})
    except StarryError as error:
        said = error_body(
            OPENAI, type(error).__name__, Text(error.en, error.zh), "en", error.status, error.param
        )
        yield _event({"type": "error", **said})
        return
    found = listening.joined(heard)
    yield _event(
        {
            "type": "transcript.text.done",
            "text": found.text,
            "model": found.by,
            "language": found.language,
            "warnings": warnings,
        }
    )


def _event(data: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False, allow_nan=False))


async def _read(form: FormData) -> _Asked:
    """The form, checked. Raises BadRequest, MissingField or UnknownField that names the field at fault."""
    fields: dict[str, Any] = {}
    recordings: list[bytes] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) != (name == "file"):
            raise BadRequest(
                "A form has one file, in the field file.", "表单里只有一个文件，放在 file 字段中。", excerpt(name)
            )  # fmt: skip
        if isinstance(value, UploadFile):
            recordings.append(await value.read())
        elif name.removesuffix("[]") == "timestamp_granularities":
            fields.setdefault("timestamp_granularities", []).append(value)
        else:
            fields[name.removesuffix("[]")] = value
    if len(recordings) != 1:
        raise (MissingField if not recordings else BadRequest)(
            f"file is one recording, not {len(recordings)}; send one in the field file.",
            f"file 是一段录音，而不是 {len(recordings)} 段；请在 file 字段中发送一段。", "file",
        )  # fmt: skip
    inert = {"include": _NO_CHANCES, "chunking_strategy": _PIECES}
    found, notes = sort_fields(fields, KNOWN, inert, {"hotwords": "prompt", "keywords": "prompt"})
    notes += named_model(found.get("model"), (EARS,))
    form_of = choice("response_format", found.get("response_format", "json"), FORMS)
    return _Asked(
        recordings[0], found.get("language"), found.get("prompt", ""), form_of, _stream(found, form_of),
        _granularities(found, form_of), [*notes, *_temperature(found.get("temperature"))],
    )  # fmt: skip


def _stream(fields: Mapping[str, Any], form: str) -> bool:
    value = choice("stream", str(fields.get("stream", "false")).lower(), ("true", "false", "1", "0"))
    if (wanted := value in ("true", "1")) and form not in STREAMED:
        raise BadRequest(
            f"stream sends the words only; leave it out for response_format {form}.",
            f"stream 只发送文字；response_format 为 {form} 时请不要写。", "stream",
        )  # fmt: skip
    return wanted


def _granularities(fields: Mapping[str, Any], form: str) -> tuple[str, ...]:
    name = "timestamp_granularities"
    asked = tuple(dict.fromkeys(choice(name, one, TIMES) for one in fields.get(name, ())))
    if asked and form != "verbose_json":
        raise BadRequest(
            f"{name} needs response_format verbose_json, not {form}.",
            f"{name} 需要 response_format 为 verbose_json，而不是 {form}。", name,
        )  # fmt: skip
    return asked


def _temperature(value: str | None) -> list[Text]:
    """A note that it changes nothing, unless it asks for what is done. Raises BadRequest for no number from 0 to 1."""
    try:
        found = float(value or 0)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise BadRequest(
            f"temperature is a number from 0 to 1, not {excerpt(value)}.", f"temperature 是 0 到 1 的数，而不是 {excerpt(value)}。",
            "temperature",
        )  # fmt: skip
    return [_ALWAYS] if found else []
