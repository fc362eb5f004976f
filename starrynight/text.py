"""Text from outside the program: cleaning it, and quoting it in a message. The one home of both.

Texts in requests, uploads and other people's files may hold control characters that drive a terminal, and
characters that XML 1.0 or UTF-8 cannot carry. A request refuses such characters (``request``), a file's texts
are cleaned of them (``clean``), a message shows a placeholder (``excerpt``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

# Control characters except newline and tab, lone surrogates (half of a UTF-16 pair), and two non-characters.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# Unicode's bidirectional overrides, embeddings and isolates: they reorder the letters after them.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_EXCERPT = 60  # characters


def unix_newlines(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\r", "\n")


def clean(value: object) -> str:
    """``value`` without unprintable characters and outer whitespace; "" if it is not text."""
    return UNPRINTABLE.sub("", unix_newlines(value)).strip() if isinstance(value, str) else ""


def excerpt(value: object) -> str:
    """``value`` as a message quotes it: one line of at most 60 characters. Never raises."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "an enormous number"  # Python refuses to print integers beyond 4300 digits
    text = UNPRINTABLE.sub("?", value if isinstance(value, str) else repr(value)).replace("\n", " ")
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 3] + "…"


def without_bidi(text: str) -> str:
    """``text`` with bidirectional controls, which can disguise a word, replaced by U+FFFD."""
    return _BIDI.sub("\ufffd", text)


def finite(value: Any) -> Any:
    """``value`` with NaN and infinities, which JSON cannot hold, as the texts "NaN", "Infinity", "-Infinity".

    Mappings become dicts with text keys; tuples and lists become lists.
    """
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def plain_json(value: Any, sort_keys: bool = False) -> str:
    """``value`` as JSON without spaces; only characters that XML or UTF-8 cannot hold are escaped.

    Raises ``ValueError`` for NaN and infinities: what this program computes must not contain them.
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=sort_keys, separators=(",", ":"), allow_nan=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def printed_json(value: Any, indent: int = 2) -> str:
    """``value`` as JSON for ``--json`` and report files: indented, NaN and infinities as ``finite`` writes them.

    What is neither JSON nor a number (a path, a date) is printed as its text.
    """
    return json.dumps(finite(value), ensure_ascii=False, indent=indent, default=str, allow_nan=False)


def parse_json(text: str) -> Any:
    """The parsed JSON of another program, or ``None`` if it is invalid or nested too deeply to parse.

    Python's and JavaScript's ``NaN`` and ``Infinity``, and numbers beyond float64, become their texts.
    """
    try:
        return json.loads(text, parse_constant=str, parse_float=_finite_float)
    except (ValueError, RecursionError):
        return None


def _finite_float(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits
