"""Text in English and Chinese, and the one function that selects a language.

Errors, the command line, progress messages and the browser use ``Text``. It is a named tuple, so it unpacks
as ``en, zh``.
"""

from __future__ import annotations

from typing import NamedTuple

from starrynight.settings import terminal_language

LANGUAGES = ("zh", "en")


class Text(NamedTuple):
    """One message in both languages."""

    en: str
    zh: str

    def to(self, lang: str) -> str:
        """The message in ``lang``: Chinese for "zh" and its variants ("zh-CN"), English for anything else."""
        return self.zh if is_chinese(lang) else self.en


def is_chinese(lang: str) -> bool:
    """Whether a language tag ("zh", "zh-Hans", "en") names Chinese."""
    return lang.lower().startswith("zh")


def t(en: str, zh: str, lang: str | None = None) -> str:
    """The message in ``lang``, or in the terminal's language if none is given."""
    return Text(en, zh).to(lang or terminal_language())


def duration(seconds: float) -> Text:
    """ "40 s", "12 min", "3.5 h"."""
    for size, en, zh in ((3600, "h", "小时"), (60, "min", "分钟")):
        if seconds >= 1.5 * size:
            return Text(f"{seconds / size:.1f} {en}", f"{seconds / size:.1f} {zh}")
    return Text(f"{max(1, round(seconds))} s", f"{max(1, round(seconds))} 秒")
