"""Pydantic's validation errors as messages in both languages, for every interface.

Pydantic's own messages are English only. Its error types:
https://docs.pydantic.dev/latest/errors/validation_errors/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starrynight.errors import BadRequest
from starrynight.text import excerpt

# The expected type, by the first word of the error's type (int_parsing, int_type, int_from_float …).
EXPECTED = {
    "int": ("a whole number", "整数"),
    "float": ("a number", "数"),
    "finite": ("a finite number", "有限的数"),
    "bool": ("true or false", " true 或 false"),
    "string": ("text", "文字"),
    "list": ("a list", "列表"),
    "dict": ("an object of named fields", "一组带名字的字段"),
    "model": ("an object of named fields", "一组带名字的字段"),
    "datetime": ("a date, as 2026-11-25 or 2026-11-25T20:00:00Z", "日期，例如 2026-11-25 或 2026-11-25T20:00:00Z"),
}  # fmt: skip
BOUNDS = {
    "greater_than_equal": ("ge", "at least", "应当不小于"),
    "less_than_equal": ("le", "at most", "应当不大于"),
}
# Types of our own (api/bodies.py).
UNWANTED = {
    "unknown_field": ("There is no {field} here; what is read: {known}.", "这里没有 {field}；可用的有：{known}。"),
    "given_twice": ("{field} is given twice; give it once.", "{field} 给了两次；请只给一次。"),
    "no_body": ("This request takes no body; leave it out.", "这个请求不带请求体；请去掉它。"),
}  # fmt: skip


def validation_error(field: str, error: Mapping[str, Any]) -> BadRequest:
    """The message for one of pydantic's errors at ``field``."""
    kind, value = str(error["type"]), excerpt(error.get("input"))
    if kind in UNWANTED:
        known = ", ".join(error["ctx"]["known"]) or "—"
        return BadRequest(*(words.format(field=excerpt(field), known=known) for words in UNWANTED[kind]))
    if kind == "missing":
        return BadRequest(f"{field} is missing.", f"缺少 {field}。")
    if kind in BOUNDS:
        name, en, zh = BOUNDS[kind]
        bound = f"{error['ctx'][name]:g}"
        return BadRequest(
            f"{field} must be {en} {bound}, not {value}.", f"{field} {zh} {bound}，而不是 {value}。"
        )
    if expected := EXPECTED.get(kind.split("_")[0]):
        return BadRequest(
            f"{field} must be {expected[0]}, not {value}.", f"{field} 应当是{expected[1]}，而不是 {value}。"
        )
    return BadRequest(f"{field} is not valid: {value}.", f"{field} 无效：{value}。")
