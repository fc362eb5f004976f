"""The pages' texts have the same keys and placeholders in both languages, and every key that the code uses
exists.
"""

from __future__ import annotations

import re
from pathlib import Path

import starrynight.web
from starrynight.gallery.store import FACETS
from starrynight.painting.styles import styles
from starrynight.verdict import OUTCOMES
from starrynight.web import controls
from starrynight.web.shared import words

WEB = Path(starrynight.web.__file__).parent
ZH, EN = words("zh"), words("en")


def placeholders(sentence: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", sentence))


def test_both_languages_have_the_same_keys_and_placeholders():
    assert list(ZH) == list(EN)
    assert {key: placeholders(ZH[key]) for key in ZH} == {key: placeholders(EN[key]) for key in EN}
    assert not [key for key in ZH if not ZH[key].strip() or not EN[key].strip()]


def test_chinese_is_chinese_and_english_is_english():
    han = re.compile("[\u4e00-\u9fff]")
    assert not [key for key, word in EN.items() if han.search(word) and key not in ("title", "nav.language")]
    assert len([key for key, word in ZH.items() if han.search(word)]) > 0.9 * len(ZH)


def test_every_key_used_in_the_code_exists():
    python = "\n".join(path.read_text("utf-8") for path in WEB.rglob("*.py"))
    scripts = "\n".join(path.read_text("utf-8") for path in (WEB / "parts").glob("*.js"))
    used = set(re.findall(r'\bt\(\s*"([\w.]+)"', python)) | set(
        re.findall(r'\bt\((?:this\.)?words, "([\w.]+)"', scripts)
    )
    used |= {f"shape.{name}" for name in controls.SHAPES} | {f"verdict.{name}" for name in OUTCOMES}
    used |= {f"fact.{name}" for name in FACETS} | {
        f"act.{name}" for name in re.findall(r'(?:this\.)?button\("(\w+)"', scripts)
    }
    assert len(used) > 60
    assert used <= set(ZH)


def test_every_style_has_its_card():
    assert {path.stem for path in (WEB / "static" / "styles").glob("*.webp")} == set(styles())
    assert all(path.stat().st_size < 20_000 for path in (WEB / "static" / "styles").glob("*.webp"))
