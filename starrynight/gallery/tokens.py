"""Texts cut into words that a search can find, in Chinese and in English: any part of any word.

A text becomes a row of tokens, one for each place where a search may begin:
  星夜村庄   星夜 夜村 村庄 庄       pairs of characters, and the last one alone
  Night 7    night ight ght ht t 7   every word's endings
So a Chinese word of two characters or more is a phrase of pairs, one character is the beginning of a pair, and a part
of an English word is the beginning of an ending. Case, width (Ａ, ａ, A) and accents do not matter.
Knows nothing of databases; search.py says what is done with the tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

LONGEST = 16  # characters of an ending that are kept; longer needles are sought piece by piece

# Han, kana and what stands among them: scripts that write no spaces.
_UNSPACED = r"々〇〻\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = re.compile(rf"([{_UNSPACED}]+)|((?:(?![{_UNSPACED}_])\w)+)|([^\w\s])")


def fold(text: str) -> str:
    """``text`` as the search compares it: lower case, one width, no accents."""
    bare = (c for c in unicodedata.normalize("NFKD", text.casefold()) if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFKC", "".join(bare))


def write(*texts: str) -> str:
    """The tokens of ``texts``, with single spaces between them: what the index holds."""
    return " ".join(token for text in texts for token in _tokens(fold(text)))


def needles(text: str) -> list[tuple[str, ...]]:
    """What a row must hold, all of it, to be found by ``text``. Each is a phrase: its tokens stand side by side, and
    the last may go on."""
    return [needle for piece in _pieces(fold(text)) for needle in _needles(*piece)]


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Runs of one kind, and whether they are of an unspaced script. Of the rest only pictographs (🌙 ★) are words."""
    for run, word, sign in _PIECE.findall(text):
        if run:
            yield run, True
        elif word or unicodedata.category(sign) == "So":
            yield word or sign, False


def _tokens(text: str) -> Iterator[str]:
    for piece, unspaced in _pieces(text):
        width = 2 if unspaced else LONGEST
        yield from (piece[at : at + width] for at in range(len(piece)))


def _needles(piece: str, unspaced: bool) -> Iterator[tuple[str, ...]]:
    if not unspaced:
        yield from ((piece[at : at + LONGEST],) for at in range(0, len(piece), LONGEST))
    elif len(piece) == 1:
        yield (piece,)
    else:
        yield tuple(piece[at : at + 2] for at in range(len(piece) - 1))
