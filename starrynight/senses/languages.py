"""The languages that recognisers know, by code, tag or English name."""

from __future__ import annotations

from starrynight.errors import BadRequest
from starrynight.text import clean, excerpt

# ISO codes of the languages that Qwen3-ASR was trained on, and their names in its prompt (transformers, processing_qwen3_asr).
LANGUAGES = {
    "ar": "Arabic", "yue": "Cantonese", "zh": "Chinese", "cs": "Czech", "da": "Danish", "nl": "Dutch", "en": "English",
    "fil": "Filipino", "fi": "Finnish", "fr": "French", "de": "German", "el": "Greek", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "mk": "Macedonian", "ms": "Malay", "fa": "Persian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "es": "Spanish", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "vi": "Vietnamese",
}  # fmt: skip
_CODES = {name.lower(): code for code, name in LANGUAGES.items()}
_CODES |= {"cmn": "zh", "mandarin": "zh", "zh-hk": "yue", "zh-yue": "yue"}


def language_code(language: str | None) -> str | None:
    """An ISO code of ``LANGUAGES`` for a code, a tag ("zh-CN", "yue-Hant-HK") or an English name; None for none or "auto".
    Raises BadRequest for another.
    """
    asked = clean(language).replace("_", "-")
    if not asked or asked.lower() == "auto":
        return None
    if found := code_of(asked):
        return found
    raise BadRequest(
        f"No ears know the language “{excerpt(language)}”; give one of {', '.join(sorted(LANGUAGES))}, or none.",
        f"没有能听“{excerpt(language)}”的识别模型；请给 {'、'.join(sorted(LANGUAGES))} 之一，或不给。",
        "language",
    )


def code_of(named: str | None) -> str | None:
    """The code of a language that a model named; None where it is not known."""
    name = clean(named).lower()
    return next(
        (
            code
            for one in (name, name.partition("-")[0])
            for code in (_CODES.get(one), one)
            if code in LANGUAGES
        ),
        None,
    )
