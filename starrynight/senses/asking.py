"""What a server of OpenAI's or Jina's shape is asked for each sense, and how its answers are read.

Servers differ in what they ignore, so answers are read leniently and checked strictly: an answer that does not hold what was
asked for is a RemoteError, never a guess.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from PIL import Image

from starrynight.i18n import Text
from starrynight.senses import sound
from starrynight.senses.remote import Client
from starrynight.text import clean, parse_json

LONGEST = 512  # pixels: 256 tokens of Qwen3-VL
MAX_TEXT = 600  # characters kept of a sentence
MAX_VECTORS = 64 << 20  # bytes of an answer with vectors
BODY = 8000  # characters of a document that are sent
FIELDS = ("alt_en", "alt_zh", "caption_en", "caption_zh")
ASKED = (
    "Describe this painting for a gallery. Answer with one JSON object and nothing else: "
    '"alt_en", "alt_zh": what it shows, in at most 15 words, in English and in Chinese; '
    '"caption_en", "caption_zh": one sentence, in English and in Chinese. Name only what you see.'
)
TOKENS = 600  # of a description in two languages
SPOKEN_TOKENS = 512  # of half a minute of speech; fast talkers need 200
# Qwen3-ASR's answers begin with the language unless it was forced: "language Chinese<asr_text>…".
_HEARD = re.compile(r"^\s*language\s+(?P<language>[^\n<]*?)\s*<asr_text>", re.IGNORECASE)
# Twenty times the same few characters: a loop, which Qwen3-ASR's own code too writes once (qwen_asr/inference/utils.py).
_ENDLESS = re.compile(r"(.{1,20}?)\1{19,}", re.DOTALL)
_THOUGHTS = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)


def _schema(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    inner = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": inner}}


class Timed(NamedTuple):
    """Words that were said, from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    text: str


class Server:
    """``client``: the server that stands for a sense."""

    longest: int | None = (
        None  # characters of a sentence, where the server holds the model to them; OpenAI's own takes no limit
    )

    def __init__(self, client: Client) -> None:
        self.client = client

    # -- eyes --------------------------------------------------------------------------------------------------------

    def describe(self, pixels: np.ndarray) -> tuple[Text, Text]:
        """Alt text and caption of a picture, uint8 [H, W, 3]. Raises RemoteError; BadRequest or MissingFile for its key."""
        limits = {} if self.longest is None else {"minLength": 1, "maxLength": self.longest}
        schema = _schema("description", {name: {"type": "string", **limits} for name in FIELDS})
        found = sentences(self.see(pixels, ASKED, TOKENS, schema))
        if found is None:
            raise self.client.failed("sent no description", "没有发来描述")
        return found

    def see(self, pixels: np.ndarray, text: str, tokens: int, schema: dict[str, Any] | None = None) -> str:
        """What the model writes to ``text`` about a picture: at most ``tokens`` tokens, the likeliest one each time."""
        address = data_url(pixels, lossless=self.client.remote.is_loopback)
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": address}}]
        return self._chat([{"role": "user", "content": content}], tokens, schema)

    def _chat(self, messages: list[dict[str, Any]], tokens: int, schema: dict[str, Any] | None = None) -> str:
        request = {"messages": messages, "max_tokens": tokens, "temperature": 0, **self._model()}
        if schema is not None:
            request["response_format"] = schema
        answer = self.client.post("/chat/completions", request)
        try:
            content = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            content = None
        text = whole(_THOUGHTS.sub("", content)) if isinstance(content, str) else ""
        if not text:
            raise self.client.failed("sent no text", "没有发来文字")
        return text

    def _model(self) -> dict[str, str]:
        return {"model": self.client.remote.model} if self.client.remote.model else {}

    # -- ears --------------------------------------------------------------------------------------------------------

    def hear(self, samples: np.ndarray, language: str | None, hotwords: str) -> tuple[str, str | None]:
        """What a piece of speech, float32 [N] at 16 kHz, says, and the language that the model names, if it does. ``language``:
        an ISO code."""
        said, named, _ = self._transcribed(samples, language, hotwords, {"response_format": "json"})
        return said, named

    def hear_times(
        self, samples: np.ndarray, language: str | None, hotwords: str, kinds: Sequence[str]
    ) -> tuple[str, str | None, dict[str, tuple[Timed, ...]]]:
        """As ``hear``, with the times of the ``kinds`` "segment" and "word" that the server gives: seconds from the first sample."""
        fields = {"response_format": "verbose_json", "timestamp_granularities[]": list(kinds)}
        said, named, answer = self._transcribed(samples, language, hotwords, fields)
        longest = len(samples) / sound.RATE
        return said, named, {kind: timed(answer, kind, longest) for kind in kinds}

    def _transcribed(
        self, samples: np.ndarray, language: str | None, hotwords: str, form: dict[str, Any]
    ) -> tuple[str, str | None, dict[str, Any]]:
        fields = {"temperature": "0", **form, **self._model()}
        fields |= {"language": language} if language else {}
        fields |= {"prompt": hotwords} if hotwords else {}
        file = ("speech.wav", sound.wav(samples), "audio/wav")
        answer = self.client.post("/audio/transcriptions", fields=fields, file=file)
        text = answer.get("text") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise self.client.failed("sent no transcript", "没有发来文字记录")
        found = answer.get("language")
        said, named = spoken(text)
        return said, named or (found if isinstance(found, str) else None), answer

    # -- ranker ------------------------------------------------------------------------------------------------------

    def rank(self, query: str, documents: Sequence[str]) -> list[float]:
        """How well each document answers the query, 0 to 1, in their order."""
        request = {
            "query": query, "documents": [one[:BODY] for one in documents], "top_n": len(documents),
            "return_documents": False, **self._model(),
        }  # fmt: skip
        answer = self.client.post("/rerank", request, most=MAX_VECTORS)
        rows = answer.get("results", answer.get("data")) if isinstance(answer, dict) else answer
        scores: dict[int, float] = {}
        for row in filter(lambda one: isinstance(one, dict), rows if isinstance(rows, list) else []):
            index, score = row.get("index"), row.get("relevance_score", row.get("score"))
            known = type(index) is int and 0 <= index < len(documents)
            if known and index not in scores and _is_number(score):
                scores[index] = float(score)
        if len(scores) != len(documents):
            raise self.client.failed(
                f"ranked {len(scores)} of {len(documents)} documents",
                f"只给 {len(documents)} 个文档中的 {len(scores)} 个打了分",
            )
        return _probabilities([scores[index] for index in range(len(documents))])

    # -- embedder ----------------------------------------------------------------------------------------------------

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, float32 [N, D], of texts."""
        request = {"input": list(texts), "encoding_format": "float", **self._model()}
        answer = self.client.post("/embeddings", request, most=MAX_VECTORS)
        rows = answer.get("data") if isinstance(answer, dict) else None
        found: dict[int, list[float]] = {}
        for at, row in enumerate(rows if isinstance(rows, list) else []):
            vector = row.get("embedding") if isinstance(row, dict) else None
            index = row.get("index", at) if isinstance(row, dict) else None
            if type(index) is int and isinstance(vector, list) and vector and all(map(_is_number, vector)):
                found[index] = vector
        if sorted(found) != list(range(len(texts))) or len({len(one) for one in found.values()}) > 1:
            raise self.client.failed("sent no vector for each text", "没有为每段文字发来向量")
        vectors = np.array([found[at] for at in range(len(texts))], np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise self.client.failed("sent a vector without a direction", "发来的向量没有方向")
        return vectors / lengths

    # -- facets ------------------------------------------------------------------------------------------------------

    def find(self, text: str, schema: Mapping[str, Any]) -> list[tuple[str, int, int]]:
        """The spans of ``text`` that a language model names: (kind, start, end), kinds of ``schema``. A span that does not stand
        in the text is left out."""
        kinds = sorted(schema)
        ask = (
            f"Find in the text below every span of these kinds: {', '.join(kinds)}. Copy each span exactly as it stands. Answer "
            f'with one JSON object and nothing else: {{"spans": [{{"kind": one of the kinds, "text": the span}}]}}.\n\n{text}'
        )
        span = {"kind": {"type": "string", "enum": kinds}, "text": {"type": "string"}}
        item = _schema("span", span)["json_schema"]["schema"]
        shape = _schema("spans", {"spans": {"type": "array", "items": item}})
        found = json_object(self._chat([{"role": "user", "content": ask}], 1000, shape))
        spans = found.get("spans") if found is not None else None
        if not isinstance(spans, list):
            raise self.client.failed("sent no list of spans", "没有发来词语列表")
        return places(
            text, [(one.get("kind"), one.get("text")) for one in spans if isinstance(one, dict)], kinds
        )


def timed(answer: Mapping[str, Any], kind: str, longest: float) -> tuple[Timed, ...]:
    """The "segment"s or "word"s of a verbose_json answer with their times, in order; () where one of them has none, or an
    impossible one. ``longest``: seconds of the recording.
    """
    rows = answer.get(f"{kind}s")
    found, last = list[Timed](), 0.0
    for row in rows if isinstance(rows, list) else []:
        one: dict[str, Any] = row if isinstance(row, dict) else {}
        start, end, words = one.get("start"), one.get("end"), one.get("word" if kind == "word" else "text")
        if not (isinstance(words, str) and _is_number(start) and _is_number(end)):
            return ()
        if not last <= (last := float(start)) <= float(end):
            return ()
        found.append(Timed(min(last, longest), min(float(end), longest), spoken(words)[0].strip()))
    return tuple(one for one in found if one.text)


def places(text: str, named: Sequence[tuple[Any, Any]], kinds: Sequence[str]) -> list[tuple[str, int, int]]:
    """Where named spans stand, each after the last one of the same words."""
    after: dict[tuple[str, str], int] = {}
    found = []
    for kind, words in named:
        if kind in kinds and isinstance(words, str) and words.strip():
            start = text.find(words.strip(), after.get((kind, words), 0))
            if start >= 0:
                after[kind, words] = end = start + len(words.strip())
                found.append((kind, start, end))
    return sorted(found, key=lambda one: one[1:])


def png(pixels: np.ndarray, side: int = LONGEST) -> bytes:
    """A picture of at most ``side`` pixels a side as PNG."""
    return _encoded(pixels, side, "PNG")


def _encoded(pixels: np.ndarray, side: int, form: str) -> bytes:
    picture, out = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    picture.save(out, form, **({"quality": 90} if form == "JPEG" else {"compress_level": 1}))
    return out.getvalue()


def data_url(pixels: np.ndarray, lossless: bool = False) -> str:
    """A picture of at most ``LONGEST`` pixels a side in a data URL: a JPEG, or a PNG where it stays on this machine."""
    form = "PNG" if lossless else "JPEG"
    return f"data:image/{form.lower()};base64,{base64.b64encode(_encoded(pixels, LONGEST, form)).decode()}"


def sentences(content: str) -> tuple[Text, Text] | None:
    """Alt text and caption in what a model wrote; None where it wrote neither. Servers that ignore ``response_format`` may put
    JSON between fences, or write plain sentences: those stand in every field.
    """
    found = json_object(content)
    if found is not None:
        said = {name: " ".join(clean(found.get(name)).split())[:MAX_TEXT] for name in FIELDS}
        if not all(said[name] for name in ("alt_en", "alt_zh")):
            return None
        alt = Text(said["alt_en"], said["alt_zh"])
        return alt, Text(said["caption_en"] or alt.en, said["caption_zh"] or alt.zh)
    plain = " ".join(clean(content).split())[:MAX_TEXT]
    return None if not plain or plain[0] in "{[`" else (Text(plain, plain), Text(plain, plain))


def spoken(content: str) -> tuple[str, str | None]:
    """The words and the language in what a speech model wrote, "language Chinese<asr_text>你好" or the words alone."""
    content = _THOUGHTS.sub("", content)
    named = _HEARD.match(content)
    words = re.sub("^(<asr_text>)+", "", content[named.end() :] if named else content)
    language = named["language"] if named else ""
    return whole(_ENDLESS.sub(r"\1", words)), language if language and language.lower() != "none" else None


def whole(written: str) -> str:
    """``written`` without control characters, and without a last character of which the limit of tokens left only a part."""
    return clean(written).rstrip("\ufffd").rstrip()


def json_object(content: str) -> dict[str, Any] | None:
    """The object between the first and the last brace."""
    start, end = content.find("{"), content.rfind("}")
    found = parse_json(content[start : end + 1]) if 0 <= start < end else None
    return found if isinstance(found, dict) else None


def _is_number(value: Any) -> TypeGuard[float]:
    """Finite, and within float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e30 < value < 1e30


def _probabilities(scores: list[float]) -> list[float]:
    """Scores between 0 and 1; logits, as cross-encoders without an activation give them, through the logistic function."""
    if all(0 <= one <= 1 for one in scores):
        return scores
    return [0.5 * (1 + math.tanh(one / 2)) for one in scores]
