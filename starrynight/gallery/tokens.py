"""Tokens for full-text search in Chinese and English, which finds any part of any word.

Every position where a match may begin becomes a token:
  星夜村庄   星夜 夜村 村庄 庄       pairs of characters, and the last one alone
  Night 7    night ight ght ht t 7   every suffix of every word
A query of two or more Chinese characters is a phrase of pairs, one Chinese character is a prefix of a pair,
and a part of an English word is a prefix of a suffix. Case, width (Ａ, ａ, A) and accents are ignored.
search.py turns a query's phrases into SQL.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

MAX_TOKEN = 16  # characters kept of a suffix; a longer word of a query is split into pieces

# Scripts written without spaces: Han, kana and the marks that occur within them.
_UNSPACED = r"々〇〻\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = re.compile(rf"([{_UNSPACED}]+)|((?:(?![{_UNSPACED}_])\w)+)|([^\w\s])")


def normalise(text: str) -> str:
    """``text`` in lower case and one width, without accents."""
    bare = (c for c in unicodedata.normalize("NFKD", text.casefold()) if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFKC", "".join(bare))


def tokenize(*texts: str) -> str:
    """The tokens of ``texts`` in order, separated by single spaces: the content of the search index."""
    return " ".join(token for text in texts for token in _tokens(normalise(text)))


def query_phrases(text: str) -> list[tuple[str, ...]]:
    """The phrases that a row must contain to match ``text``. The tokens of a phrase are adjacent in the row,
    and the last one may be a prefix."""
    return [phrase for piece in _pieces(normalise(text)) for phrase in _phrases(*piece)]


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """(piece, whether its script is unspaced). Punctuation is dropped; pictographs (🌙 ★) are words."""
    for unspaced, word, sign in _PIECE.findall(text):
        if unspaced:
            yield unspaced, True
        elif word or unicodedata.category(sign) == "So":
            yield word or sign, False


def _tokens(text: str) -> Iterator[str]:
    for piece, unspaced in _pieces(text):
        width = 2 if unspaced else MAX_TOKEN
        yield from (piece[at : at + width] for at in range(len(piece)))


def _phrases(piece: str, unspaced: bool) -> Iterator[tuple[str, ...]]:
    if not unspaced:
        yield from ((piece[at : at + MAX_TOKEN],) for at in range(0, len(piece), MAX_TOKEN))
    elif len(piece) == 1:
        yield (piece,)
    else:
        yield tuple(piece[at : at + 2] for at in range(len(piece) - 1))
