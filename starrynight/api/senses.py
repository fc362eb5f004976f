"""The senses over HTTP: /v1/embeddings in OpenAI's shape, /v1/rerank in Jina's, POST /facets, GET /api/senses.

https://developers.openai.com/api/reference/resources/embeddings and https://api.jina.ai/redoc (read 2026-11).
The model is the one that the settings choose (docs/senses.md); answers say in ``model`` which it was.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from starrynight.api.bodies import Route
from starrynight.api.chat import named_model
from starrynight.api.jobs import upload_place
from starrynight.api.pools import DECODERS, SENSES
from starrynight.api.schema import answers, body_of, errors, ref
from starrynight.api.submission import sort_fields
from starrynight.api.values import MAX_BODY, choice, flag, given, json_object, text, whole
from starrynight.errors import BadRequest, StarryError
from starrynight.i18n import Text
from starrynight.models.wording import tokens
from starrynight.request import MAX_TEXT
from starrynight.senses import choice as choices
from starrynight.senses import embedding, finding, ranking
from starrynight.senses import given as senses_given
from starrynight.text import excerpt

router = APIRouter(route_class=Route)
facet_routes = APIRouter(route_class=Route)
about = APIRouter(route_class=Route)
EMBEDDER, RANKER = "starry-embedder", "starry-ranker"
LONGEST = 32_000  # characters of a text
_NOBODY = Text("nothing is kept of a request here", "这里不保存请求")


@router.post(
    "/embeddings",
    response_model=None,
    max_body_size=MAX_BODY,
    responses=answers("OpenAIEmbeddings") | errors(422, 502),
    openapi_extra=body_of({"application/json": ref("OpenAIEmbed")}),
)
async def embeddings(request: Request) -> Response:
    """Vectors of length 1 of texts and pictures. Those of the perceiver compare with each other: the cosine of a text and a
    picture says how much of the text the picture shows."""
    async with upload_place(request):
        fields = await json_object(request)
        known = ("model", "input", "encoding_format", "dimensions")
        found, notes = sort_fields(fields, known, {"user": _NOBODY}, {})
        notes += named_model(found.get("model"), (EMBEDDER,))
        form = choice("encoding_format", found.get("encoding_format", "float"), ("float", "base64"))
        inputs = _inputs(given(dict(found), "input"))
        entries = [
            value if kind == "text" else await DECODERS.run(senses_given.pixels, name, value)
            for kind, name, value in inputs
        ]
    made = await SENSES.run(senses_given.embed, entries)
    if "dimensions" in found and found["dimensions"] != made.vectors.shape[1]:
        raise BadRequest(
            f"dimensions is {excerpt(found['dimensions'])}; vectors here have {made.vectors.shape[1]}, leave it out.",
            f"dimensions 是 {excerpt(found['dimensions'])}；这里的向量是 {made.vectors.shape[1]} 维，请不要写。", "dimensions",
        )  # fmt: skip
    notes += [made.failed] if made.failed is not None else []
    vectors = await DECODERS.run(senses_given.written, made.vectors, form)
    rows = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(vectors)]
    read = sum(len(tokens(value)) for kind, _, value in inputs if kind == "text")
    usage = {"prompt_tokens": read, "total_tokens": read}
    return JSONResponse(
        {"object": "list", "data": rows, "model": made.by, "usage": usage, "warnings": both(notes)}
    )


Input = tuple[str, str, str]  # "text" or "image", the name of its field, the text or the data: URL


def _inputs(value: object) -> list[Input]:
    """The texts and pictures of ``input`` with their fields. Raises BadRequest for numbers of tokens."""
    several = value if isinstance(value, list) else [value]
    if not 0 < len(several) <= embedding.MOST:
        raise BadRequest(
            f"input has {len(several)} entries; give 1 to {embedding.MOST}.",
            f"input 有 {len(several)} 项；应为 1 到 {embedding.MOST} 项。", "input",
        )  # fmt: skip
    if any(isinstance(one, int | list) for one in several):
        raise BadRequest(
            "input holds numbers of tokens; each model has its own, so send texts.",
            "input 里是词元编号；每个模型的编号不同，请发送文字。", "input",
        )  # fmt: skip
    named = "input[{}]" if isinstance(value, list) else "input"
    return [text_or_picture(named.format(at), one) for at, one in enumerate(several)]


def text_or_picture(name: str, value: object) -> Input:
    """A text, a data: URL with a picture, {"text"} or {"image"}, as Jina's clients send them."""
    if isinstance(value, dict):
        if len(value) != 1 or (kind := next(iter(value))) not in ("text", "image"):
            raise BadRequest(
                f'{name} is text, {{"text"}} or {{"image"}}, not {excerpt(value)}.',
                f'{name} 是文字、{{"text"}} 或 {{"image"}}，而不是 {excerpt(value)}。', name,
            )  # fmt: skip
        name, value = f"{name}.{kind}", value[kind]
        if kind == "image":
            return "image", name, value  # type: ignore[return-value]  # refused where it is decoded
    if isinstance(value, str) and value.startswith("data:image/"):
        return "image", name, value
    return "text", name, text(name, value, LONGEST)


@router.post(
    "/rerank",
    response_model=None,
    max_body_size=MAX_BODY,
    responses=answers("JinaRanking") | errors(422, 502),
    openapi_extra=body_of({"application/json": ref("JinaRerank")}),
)
async def rerank(request: Request) -> Response:
    """Put up to 500 texts and pictures in the order in which they answer ``query``, the best first."""
    async with upload_place(request):
        fields = await json_object(request)
        known = ("model", "query", "documents", "top_n", "return_documents")
        found, notes = sort_fields(fields, known, {}, {})
        notes += named_model(found.get("model"), (RANKER,))
        query = text("query", given(dict(found), "query"), MAX_TEXT)
        inputs = _documents(given(dict(found), "documents"))
        top = whole("top_n", found.get("top_n", max(1, len(inputs))), 1, 1_000_000)
        with_documents = flag("return_documents", found.get("return_documents", True))
        documents = [await _document(one) for one in inputs]
    ranking_ = await SENSES.run(ranking.rank, query, documents)
    notes += [ranking_.failed] if ranking_.failed is not None else []
    results = [
        {"index": one.index, "relevance_score": one.score}
        | ({"document": _shown(inputs[one.index])} if with_documents else {})
        for one in ranking_.results[:top]
    ]
    read = len(tokens(query)) + sum(len(tokens(value)) for kind, _, value in inputs if kind == "text")
    return JSONResponse(
        {"model": ranking_.by, "results": results, "usage": {"total_tokens": read}, "warnings": both(notes)}
    )


def _documents(value: object) -> list[Input]:
    if not isinstance(value, list):
        raise BadRequest(
            "documents must be a list of texts and pictures.", "documents 应当是文字和图片的列表。", "documents"
        )  # fmt: skip
    if len(value) > ranking.MOST:
        raise BadRequest(
            f"There are {len(value)} documents; give at most {ranking.MOST}.",
            f"有 {len(value)} 个文档；最多 {ranking.MOST} 个。", "documents",
        )  # fmt: skip
    return [text_or_picture(f"documents[{at}]", one) for at, one in enumerate(value)]


async def _document(given_: Input) -> ranking.Document:
    """A text, or what the perceiver has of a picture: its vector, and for rankers that read words, its caption."""
    kind, name, value = given_
    if kind == "text":
        return ranking.Document(value)
    return await SENSES.run(senses_given.document, await DECODERS.run(senses_given.pixels, name, value))


def _shown(given_: Input) -> dict[str, str]:
    """A document as it was sent; a picture's data stay with the caller."""
    kind, _, value = given_
    return {"text": value} if kind == "text" else {"image": f"{value[: value.find(',') + 1]}…"}


@facet_routes.post(
    "/facets", responses=answers("Facets") | errors(502), openapi_extra=body_of({"application/json": ref("FacetsAsked")})
)  # fmt: skip
async def find_facets(request: Request) -> dict[str, Any]:
    """The words of ``text`` that name a style, a time, a weather, a place or a thing; ``schema``: the kinds that are wanted.
    ``start`` and ``end`` count Unicode code points."""
    found, notes = sort_fields(await json_object(request), ("text", "schema"), {}, {})
    words = text("text", given(dict(found), "text"), MAX_TEXT)
    kinds = _schema(found.get("schema"))
    answer = await SENSES.run(finding.find, words, kinds)
    notes += [answer.failed] if answer.failed is not None else []
    spans = [asdict(span) for span in answer.spans]
    return {"text": words, "facets": spans, "by": answer.by, "warnings": both(notes)}


def _schema(value: object) -> list[str] | dict[str, Any] | None:
    """The names of kinds: a list, or the keys of an object, as SiameseUIE's schemas are written."""
    if value is None:
        return None
    if not isinstance(value, dict | list) or not value or not all(isinstance(one, str) for one in value):
        raise BadRequest(
            'schema is a list of kinds, as ["style", "time"].', 'schema 是类别的列表，例如 ["风格", "时间"]。', "schema"
        )  # fmt: skip
    return value


@about.get("/senses", responses=answers("Senses"))
def senses() -> dict[str, Any]:
    """Each sense, which model it is, and whether what it is given leaves this machine."""
    return {"senses": [_about(name, purpose) for name, purpose in choices.SENSES.items()]}


def _about(name: str, purpose: Text) -> dict[str, Any]:
    found = {
        "name": name,
        "purpose": purpose._asdict(),
        "by": "",
        "there": False,
        "leaves": False,
        "error": None,
    }
    try:
        chosen = choices.chosen(name)
    except StarryError as error:
        return found | {"error": {"en": error.en, "zh": error.zh}}
    return found | {"by": chosen.name, "there": chosen.can, "leaves": chosen.leaves_this_machine}


def both(notes: list[Text]) -> list[dict[str, str]]:
    return [note._asdict() for note in dict.fromkeys(notes)]
