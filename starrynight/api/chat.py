"""POST /v1/chat/completions, in OpenAI's shape: the eyes say what pictures show, in the language of the question.

https://developers.openai.com/api/reference/resources/chat (read 2026-11). Scripts that are written for a model which sees
(Qwen3-VL behind llama-server or vLLM) run here as they are: any name of a model is taken, and the answer says what saw.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.sse import format_sse_event

from starrynight.api.bodies import Route
from starrynight.api.jobs import upload_place
from starrynight.api.pools import DECODERS, SENSES
from starrynight.api.schema import answers, body_of, errors, event_of, ref
from starrynight.api.submission import sort_fields
from starrynight.api.values import (
    MAX_BODY,
    choice,
    flag,
    given,
    json_object,
    text,
    whole,
)
from starrynight.errors import BadRequest, NoSense
from starrynight.i18n import Text, is_chinese
from starrynight.models.wording import HAN_RUN, tokens
from starrynight.senses.describe import Description, style_named
from starrynight.senses.eyes import Look, eyes
from starrynight.senses.given import check_address, pixels
from starrynight.text import excerpt

router = APIRouter(route_class=Route)
MODEL = "starry-eyes"
DONE = "[DONE]"  # the last event's data
MOST = 8  # pictures of a request
LONGEST = 32_000  # characters of a message
ROLES = ("system", "developer", "user", "assistant", "tool")
KNOWN = ("model", "messages", "stream", "stream_options", "n", "response_format")
_SHORT = Text("sentences here are short and always the same", "这里的句子很短，而且总是一样的")
_NO_ORDERS = Text(
    "system messages have no effect: this model describes pictures", "系统消息不起作用：这个模型只描述图片"
)
_ALONE = Text("this model describes pictures and does nothing else", "这个模型只描述图片")
INERT = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "stop", "temperature", "top_p", "top_k", "min_p", "seed",
                     "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "verbosity"), _SHORT),
    **dict.fromkeys(("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "modalities", "audio",
                     "web_search_options", "prediction", "logprobs", "top_logprobs", "reasoning_effort",
                     "chat_template_kwargs"), _ALONE),
    **dict.fromkeys(("user", "store", "metadata", "safety_identifier", "service_tier", "prompt_cache_key"),
                    Text("nothing is kept of a request here", "这里不保存请求")),
}  # fmt: skip
CANNOT_TELL = Text("I cannot tell what this picture shows.", "看不出这幅画画的是什么。")
NO_PICTURE = Text(
    "I only describe pictures: send one as image_url with a data: URL.",
    "我只会描述图片：请在 image_url 里以 data: 地址发送一张。",
)
STYLE = Text("Style: {}.", "风格：{}。")
# What a JSON answer may hold of a picture.
FIELDS = tuple(f"{name}_{lang}" for name in ("alt", "caption", "prompt") for lang in ("en", "zh"))

ANSWERED = answers("OpenAIChatCompletion") | errors(422)
ANSWERED[200]["content"]["text/event-stream"] = {"itemSchema": event_of("OpenAIChatChunk", DONE)}


class _Asked:
    """A request: ``question``, the words beside the last pictures; those ``pictures`` as data: URLs with the names of their
    fields; and how to answer. Raises BadRequest or UnknownField that names the field at fault.
    """

    def __init__(self, fields: Mapping[str, Any], language: str) -> None:
        found, self.notes = sort_fields(fields, KNOWN, INERT, {})
        self.notes += named_model(found.get("model"), (MODEL,))
        whole("n", found.get("n", 1), 1, 1)
        self.stream = flag("stream", found.get("stream", False))
        self.usage = self._read_stream_options(found.get("stream_options"))
        self.fields = _response_fields(found.get("response_format"))
        self.question, self.pictures = self._read_messages(given(dict(found), "messages"))
        chinese = bool(HAN_RUN.search(self.question)) if self.question.strip() else is_chinese(language)
        self.lang = "zh" if chinese else "en"

    def _read_stream_options(self, options: object) -> bool:
        if options is None:
            return False
        if not isinstance(options, dict):
            raise BadRequest(
                "stream_options must be an object.", "stream_options 应当是一个对象。", "stream_options"
            )
        return flag("stream_options.include_usage", options.get("include_usage", False))

    def _read_messages(self, messages: object) -> tuple[str, list[tuple[str, object]]]:
        if not isinstance(messages, list) or not messages:
            raise BadRequest(
                "messages must be a list of at least one message.", "messages 应当是至少有一条消息的列表。", "messages"
            )  # fmt: skip
        words, pictures = "", list[tuple[str, object]]()
        for at, message in enumerate(messages):
            said, shown = _read_message(f"messages[{at}]", message)
            if message["role"] in ("system", "developer") and said.strip():
                self.notes.append(_NO_ORDERS)
            if message["role"] != "user":
                continue
            words = said if said.strip() else words
            pictures = shown or pictures
        if len(pictures) > MOST:
            raise BadRequest(
                f"A message has {len(pictures)} pictures; send at most {MOST}.",
                f"一条消息里有 {len(pictures)} 张图片；最多 {MOST} 张。", "messages",
            )  # fmt: skip
        return words, pictures


def named_model(model: object, known: tuple[str, ...]) -> list[Text]:
    """A note for the name of a model that is not ours: it is answered by the one that is set. Raises BadRequest for no text."""
    if model is None or model in known:
        return []
    shown = excerpt(text("model", model, 1000))
    return [
        Text(f"model {shown}: answered by {known[0]}, as set here", f"model {shown}：由这里设定的 {known[0]} 回答")
    ]  # fmt: skip


def _read_message(name: str, message: object) -> tuple[str, list[tuple[str, object]]]:
    """The words of a message, and its pictures with the names of their fields."""
    if not isinstance(message, dict):
        raise BadRequest(f"{name} must be an object.", f"{name} 应当是一个对象。", name)
    role = choice(f"{name}.role", message.get("role"), ROLES)
    content = message.get("content")
    if content is None and role == "assistant":
        return "", []
    if isinstance(content, str):
        return text(f"{name}.content", content, LONGEST, blank=True), []
    if not isinstance(content, list):
        raise BadRequest(
            f"{name}.content must be text or a list of parts.", f"{name}.content 应当是文字，或由若干部分组成的列表。",
            f"{name}.content",
        )  # fmt: skip
    words, pictures = list[str](), list[tuple[str, object]]()
    for at, part in enumerate(content):
        where = f"{name}.content[{at}]"
        kind = part.get("type") if isinstance(part, dict) else None
        choice(f"{where}.type", kind, ("text", "image_url"))
        if kind == "text":
            words.append(text(f"{where}.text", part.get("text"), LONGEST, blank=True))
        else:
            address = part.get("image_url")
            url, field = (address.get("url"), ".url") if isinstance(address, dict) else (address, "")
            pictures.append((f"{where}.image_url{field}", check_address(f"{where}.image_url{field}", url)))
    if pictures and role != "user":
        raise BadRequest(
            f"{name} is no message of a user; put its pictures into one.",
            f"{name} 不是用户的消息；请把图片放到用户的消息里。", f"{name}.role",
        )  # fmt: skip
    return " ".join(words), pictures


def _response_fields(form: object) -> tuple[str, ...]:
    """The fields of a JSON answer, or () for sentences. Raises BadRequest for a schema that asks for others."""
    if form is None:
        return ()
    kind = form.get("type") if isinstance(form, dict) else form
    kind = choice("response_format.type", kind, ("text", "json_object", "json_schema"))
    if not isinstance(form, dict) or not isinstance(form.get("json_schema", {}), dict):
        raise BadRequest(
            "response_format.json_schema must be an object.", "response_format.json_schema 应当是一个对象。", "response_format"
        )  # fmt: skip
    if kind == "text":
        return ()
    if kind == "json_object":
        return FIELDS
    try:
        asked = form["json_schema"]["schema"]["properties"]
        names = tuple(asked)
    except (KeyError, TypeError):
        names = ()
    if not names or (strange := [name for name in names if name not in FIELDS]):
        shown = excerpt(strange[0]) if names else "json_schema"
        raise BadRequest(
            f"response_format asks for “{shown}”; this model fills {', '.join(FIELDS)}.",
            f"response_format 要求“{shown}”；这个模型能填写 {'、'.join(FIELDS)}。", "response_format",
        )  # fmt: skip
    return names


@router.post(
    "/chat/completions",
    response_model=None,
    max_body_size=MAX_BODY,
    responses=ANSWERED,
    openapi_extra=body_of({"application/json": ref("OpenAIChat")}),
)
async def chat(request: Request) -> Response:
    """Say what the pictures of the last message show, in its language; ``description`` has the facts of each. Pictures are
    data: URLs: nothing is fetched. With ``stream`` as server-sent events."""
    async with upload_place(request):
        language = request.query_params.get("lang") or request.headers.get("accept-language", "")
        asked = _Asked(await json_object(request), language)
        shown = [await DECODERS.run(pixels, name, url) for name, url in asked.pictures]
    looks = await SENSES.run(_look, shown) if shown else []
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": MODEL}
    asked.notes += [look.failed for look in looks if look.failed is not None]
    content = _content(asked, looks)
    extra = {
        "usage": _usage(asked.question, content),
        "description": [look.description.to_dict() for look in looks],
        "warnings": [note._asdict() for note in dict.fromkeys(asked.notes)],
    }
    if asked.stream:
        return StreamingResponse(_events(head, content, extra, asked.usage), media_type="text/event-stream")
    message = {"role": "assistant", "content": content, "refusal": None}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    return JSONResponse({"object": "chat.completion", **head, "choices": choices, **extra})


def _look(pictures: list[Any]) -> list[Look]:
    """What the eyes see. Raises NoSense where they are off."""
    opened = eyes()
    if opened is None:
        raise NoSense("STARRY_EYES is off; set it to built-in.", "STARRY_EYES 是 off；请设为 built-in。")
    return [opened.look(one) for one in pictures]


def _content(asked: _Asked, looks: list[Look]) -> str:
    if not looks:
        return NO_PICTURE.to(asked.lang)
    said = [
        _fields(one.description, asked.fields) if asked.fields else _sentences(one, asked.lang)
        for one in looks
    ]
    return said[0] if len(said) == 1 else "\n".join(f"{at}. {one}" for at, one in enumerate(said, 1))


def _fields(seen: Description, names: tuple[str, ...]) -> str:
    found = {name: getattr(getattr(seen, name[:-3]), name[-2:]) for name in names}
    cannot = {"en": CANNOT_TELL.en, "zh": CANNOT_TELL.zh}
    return json.dumps(
        {name: value or ("" if name.startswith("prompt") else cannot[name[-2:]]) for name, value in found.items()},
        ensure_ascii=False, allow_nan=False,
    )  # fmt: skip


def _sentences(look: Look, lang: str) -> str:
    """The caption, and the style where the perceiver wrote and the caption does not name it."""
    seen = look.description
    if not seen.told:
        return CANNOT_TELL.to(lang)
    caption, style = seen.caption.to(lang), style_named(seen.facts, lang)
    if seen.by != look.vector_by or not style or style.lower() in caption.lower():
        return caption
    return caption + ("" if lang == "zh" else " ") + STYLE.to(lang).format(style)


def _usage(question: str, content: str) -> dict[str, int]:
    """Words, as the perceiver counts them: Han characters one by one."""
    asked, said = len(tokens(question)), len(tokens(content))
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _events(head: dict[str, Any], content: str, extra: dict[str, Any], usage: bool) -> Iterator[bytes]:
    """The role, the content in parts, the end, with ``usage`` the counts, and what OpenAI's clients wait for at last."""
    base = {"object": "chat.completion.chunk", **head}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": part} for part in _parts(content)]
    for delta in deltas:
        yield _event(base | {"choices": [_choice_of(delta, None)]})
    told = {name: extra[name] for name in ("description", "warnings")}
    yield _event(base | {"choices": [_choice_of({}, "stop")], **told})
    if usage:
        yield _event(base | {"choices": [], "usage": extra["usage"]})
    yield format_sse_event(data_str=DONE)


def _choice_of(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _parts(content: str) -> list[str]:
    """The content in pieces of a few words."""
    return [content[start : start + 24] for start in range(0, len(content), 24)]


def _event(data: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False, allow_nan=False))
