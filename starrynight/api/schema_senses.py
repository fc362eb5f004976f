"""The objects of the senses' routes in /api/openapi.json: OpenAI's chat completions, transcriptions and embeddings, Jina's
rerank, and ours.

Fields that the families' own documents name and that mean nothing here are left out; docs/api.md lists them.
"""

from __future__ import annotations

from starrynight.api.chat import LONGEST, MOST, ROLES
from starrynight.api.schema import NUMBER, TEXT, WHOLE, YES, Schema, items, maybe, one_of, record, ref
from starrynight.api.schema_families import BINARY, BOTH, NOTES
from starrynight.api.transcriptions import FORMS, TIMES
from starrynight.request import MAX_TEXT
from starrynight.senses import embedding, ranking
from starrynight.senses.facets import KINDS
from starrynight.senses.hearing import HOTWORDS

PICTURE = {
    "type": "string", "pattern": "^data:image/[a-z0-9.+-]+;base64,[A-Za-z0-9+/]+=*$",
    "description": "A data: URL. Nothing is fetched from other addresses.",
}  # fmt: skip
MODEL = {"type": "string", "minLength": 1, "maxLength": 1000, "pattern": r"\S",
         "description": "Any name; the answer's `model` says which it was."}  # fmt: skip
WORDS = {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": r"\S"}
EXAMPLE_PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
DESCRIPTIONS = items(
    ref("Described"), description="The facts of each picture, and its sentences in both languages."
)
_USAGE = record(
    {"prompt_tokens": WHOLE, "total_tokens": WHOLE}, {"completion_tokens": WHOLE}, description="Words."
)


def components() -> Schema:
    return _chat() | _recordings() | _vectors() | _ranking() | _ours()


def _chat() -> Schema:
    part = {
        "oneOf": [
            record({"type": one_of("text"), "text": {"type": "string", "maxLength": LONGEST}}),
            record({"type": one_of("image_url"), "image_url": record({"url": PICTURE}, {"detail": TEXT})}),
        ]
    }
    content = {
        "anyOf": [
            {"type": "string", "maxLength": LONGEST},
            items(part, description=f"At most {MOST} pictures."),
        ]
    }
    message = record({"role": one_of(*ROLES), "content": content})
    form = record({"type": one_of("text", "json_object", "json_schema")}, {"json_schema": {"type": "object"}})
    asked = record(
        {"messages": items(message, minItems=1)},
        {
            "model": maybe(MODEL), "stream": maybe(YES), "stream_options": maybe(record({}, {"include_usage": YES})),
            "n": maybe(one_of(1)), "response_format": maybe(form),
        },
        examples=[{"model": "starry-eyes", "messages": [{"role": "user", "content": [
            {"type": "text", "text": "这幅画画的是什么？"}, {"type": "image_url", "image_url": {"url": EXAMPLE_PICTURE}},
        ]}]}],
    )  # fmt: skip
    said = record({"role": one_of("assistant"), "content": TEXT, "refusal": {"type": "null"}})
    ended = record(
        {"index": WHOLE, "message": said, "logprobs": {"type": "null"}, "finish_reason": one_of("stop")}
    )
    head = {"id": TEXT, "created": WHOLE, "model": TEXT}
    delta = record({"index": WHOLE, "delta": record({}, {"role": TEXT, "content": TEXT}), "logprobs": {"type": "null"},
                    "finish_reason": maybe(one_of("stop"))})  # fmt: skip
    told = {"description": DESCRIPTIONS, "warnings": NOTES}
    return {
        "OpenAIChat": asked,
        "OpenAIChatCompletion": record(
            {"object": one_of("chat.completion"), **head, "choices": items(ended), "usage": _USAGE, **told}
        ),
        "OpenAIChatChunk": record(
            {"object": one_of("chat.completion.chunk"), **head, "choices": items(delta)}, {"usage": _USAGE, **told},
            description="The last event's data are [DONE].",
        ),
        "Described": record({
            "by": TEXT, "confidence": NUMBER, **{name: record(BOTH) for name in ("alt", "caption", "prompt")},
            "facts": record({**{name: maybe(TEXT) for name in ("style", "hour", "weather", "kind")}, "things": items(TEXT)})}),
    }  # fmt: skip


def _recordings() -> Schema:
    times = {"start": NUMBER, "end": NUMBER}
    segment, word = record({"id": WHOLE, **times, "text": TEXT}), record({**times, "word": TEXT})
    return {
        "OpenAITranscribe": record(
            {"file": BINARY},
            {
                "model": MODEL, "language": TEXT, "prompt": {"type": "string", "maxLength": HOTWORDS}, "response_format": one_of(*FORMS),
                "stream": YES, "temperature": {"type": "number", "minimum": 0, "maximum": 1},
                "timestamp_granularities[]": items(one_of(*TIMES), description="With `verbose_json` only."),
            },
        ),
        "OpenAITranscription": record(
            {"text": TEXT, "model": TEXT, "language": maybe(TEXT), "duration": NUMBER, "warnings": NOTES},
            {"task": one_of("transcribe"), "segments": items(segment), "words": items(word)},
        ),
        "OpenAITranscriptEvent": record(
            {"type": one_of("transcript.text.delta", "transcript.text.done", "error")},
            {"delta": TEXT, "text": TEXT, "model": TEXT, "language": maybe(TEXT), "warnings": NOTES, "error": {"type": "object"}},
        ),
    }  # fmt: skip


def _entry() -> Schema:
    return {
        "anyOf": [
            WORDS,
            record({"text": WORDS}, additionalProperties=False),
            record({"image": PICTURE}, additionalProperties=False),
        ]
    }


def _vectors() -> Schema:
    vector = {"anyOf": [items(NUMBER), {"type": "string", "format": "byte"}]}
    row = record({"object": one_of("embedding"), "index": WHOLE, "embedding": vector})
    return {
        "OpenAIEmbed": record(
            {"input": {"anyOf": [_entry(), items(_entry(), minItems=1, maxItems=embedding.MOST)]}},
            {"model": maybe(MODEL), "encoding_format": maybe(one_of("float", "base64")), "dimensions": maybe(WHOLE)},
            examples=[{"model": "starry-embedder", "input": ["雪夜的村庄", "a village in the snow at night"]}],
        ),
        "OpenAIEmbeddings": record(
            {"object": one_of("list"), "data": items(row), "model": TEXT, "usage": _USAGE, "warnings": NOTES}
        ),
    }  # fmt: skip


def _ranking() -> Schema:
    document = record({}, {"text": TEXT, "image": TEXT})
    result = record({"index": WHOLE, "relevance_score": NUMBER}, {"document": document})
    asked = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": r"\S"}
    return {
        "JinaRerank": record(
            {"query": asked, "documents": items(_entry(), maxItems=ranking.MOST)},
            {"model": maybe(MODEL), "top_n": maybe({"type": "integer", "minimum": 1, "maximum": 1_000_000}),
             "return_documents": maybe(YES)},
            examples=[{"query": "雪夜", "documents": ["a village at noon", "雪夜的村庄"], "top_n": 1}],
        ),
        "JinaRanking": record(
            {"model": TEXT, "results": items(result), "usage": record({"total_tokens": WHOLE}), "warnings": NOTES}
        ),
    }  # fmt: skip


def _ours() -> Schema:
    span = record({"kind": TEXT, "text": TEXT, "start": WHOLE, "end": WHOLE, "value": TEXT})
    kinds = one_of(*KINDS, *(name.zh for name in KINDS.values()))
    sense = {
        "name": TEXT,
        "purpose": record(BOTH),
        "by": TEXT,
        "there": YES,
        "leaves": YES,
        "error": maybe(record(BOTH)),
    }
    asked = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": r"\S"}
    return {
        "FacetsAsked": record(
            {"text": asked}, {"schema": maybe(items(kinds, minItems=1))},
            examples=[{"text": "星夜下的静谧村庄，梵高风格", "schema": ["风格", "时间"]}],
        ),
        "Facets": record({"text": TEXT, "facets": items(span), "by": TEXT, "warnings": NOTES}),
        "Senses": record({"senses": items(record(sense))}),
    }  # fmt: skip
