"""A field of a request that is not what it should be, in one sentence of each language.

FastAPI checks shapes with pydantic, whose own sentences are English alone; here its kinds of errors
(https://docs.pydantic.dev/latest/errors/validation_errors/) are told anew. Knows no route.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starrynight.errors import BadRequest
from starrynight.metadata.recipe import text

# What a field should be, by the first word of the error's kind (int_parsing, int_type, int_from_float …).
SHAPES = {
    "int": ("a whole number", "整数"),
    "float": ("a number", "数"),
    "finite": ("a number that is finite", "有限的数"),
    "bool": ("true or false", " true 或 false"),
    "string": ("text", "文字"),
    "list": ("a list", "列表"),
    "dict": ("an object of named fields", "一组带名字的字段"),
    "model": ("an object of named fields", "一组带名字的字段"),
    "datetime": ("a date, as 2026-11-25 or 2026-11-25T20:00:00Z", "日期，例如 2026-11-25 或 2026-11-25T20:00:00Z"),
}  # fmt: skip
BOUNDS = {
    "greater_than_equal": ("ge", "{field} is at least {bound}.", "{field} 不能小于 {bound}。"),
    "less_than_equal": ("le", "{field} is at most {bound}.", "{field} 不能大于 {bound}。"),
}


def told(error: Mapping[str, Any]) -> tuple[str, BadRequest]:
    """The field's name and the sentence for one of pydantic's errors."""
    kind = str(error["type"])
    field = ".".join(text(str(part))[:60] for part in error["loc"][1:])
    if kind == "json_invalid":
        return "body", BadRequest("The body is not JSON.", "请求体不是 JSON。")
    if not field:
        said = ("The body is an object of named fields, as JSON.", "请求体应当是 JSON：一组带名字的字段。")
        return "body", BadRequest(*said)
    if kind == "missing":
        return field, BadRequest(f"{field} is missing.", f"缺少 {field}。")
    if kind in BOUNDS:
        name, en, zh = BOUNDS[kind]
        bound = error["ctx"][name]
        return field, BadRequest(en.format(field=field, bound=bound), zh.format(field=field, bound=bound))
    shape = SHAPES.get(kind.split("_")[0])
    if shape is None:
        return field, BadRequest(
            f"{field} is not of the form that is wanted; see docs/api.md.",
            f"{field} 写法有误；见 docs/api.md。",
        )
    return field, BadRequest(f"{field} is {shape[0]}.", f"{field} 应当是{shape[1]}。")
