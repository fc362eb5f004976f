"""The page of an exported zip: each picture in a frame under a night sky, with the command that paints it
again.

The page works from any folder on disk and loads nothing from the network. Texts from files are escaped, never
markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from urllib.parse import quote

from starrynight.errors import StarryError
from starrynight.gallery.insert import denoiser_format
from starrynight.metadata import Recipe, read_recipe

PAGE = """<!doctype html>
<html lang="{lang}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<title>{title}</title><style>
:root {{ color-scheme: dark }}
* {{ box-sizing: border-box }}
body {{ margin: 0; padding: 8vh max(6vw, 28px) 12vh; min-height: 100vh; color: #d9d3c3; background: #070b1a;
  background-image: radial-gradient(1px 1px at 20% 30%, #fff9, transparent), radial-gradient(1px 1px at 70% 15%, #fff7, transparent),
    radial-gradient(1.5px 1.5px at 45% 60%, #ffe9b0aa, transparent), radial-gradient(1px 1px at 85% 75%, #fff6, transparent),
    radial-gradient(ellipse 90% 60% at 50% -10%, #1d2a5c, transparent);
  background-size: 310px 290px, 370px 410px, 530px 470px, 430px 350px, 100% 100%; background-attachment: fixed;
  font: 15px/1.7 "Noto Serif SC", "Songti SC", SimSun, Georgia, serif }}
h1 {{ margin: 0 0 7vh; text-align: center; font-weight: 400; font-size: 34px; letter-spacing: .35em; text-indent: .35em; color: #e8c979 }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(280px, 100%), 1fr)); gap: 72px 76px; align-items: start }}
figure {{ margin: 0 }}
img {{ display: block; width: 100%; height: auto; border: 10px solid #14110c; outline: 1px solid #8a6f35;
  box-shadow: 0 0 0 12px #1b1710, 0 0 0 13px #b8944a55, 0 24px 60px #000b, 0 -30px 90px #e8c97914 }}
figcaption {{ margin-top: 34px; text-align: center; overflow-wrap: anywhere }}
figcaption small {{ display: block; color: #8f8a7c; font-size: 12.5px }}
details {{ margin-top: 4px; font-size: 12.5px; color: #8f8a7c }}
summary {{ cursor: pointer; color: #b8944a }}
code {{ display: block; margin-top: 8px; padding: 10px 12px; text-align: left; background: #0d1330; border-radius: 4px;
  font: 12px/1.6 ui-monospace, monospace; white-space: pre-wrap; user-select: all }}
p.empty {{ text-align: center; font-size: 18px }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""

FRAME = """<figure><a href="{link}"><img src="{link}" alt="{alt}" loading="lazy" width="{width}" height="{height}"></a>
<figcaption>{prompt}<small>{facts}</small>{again}</figcaption></figure>"""


def page(frames: Iterable[str], lang: str) -> str:
    """The HTML page in ``lang`` ("zh" or "en"); ``frames`` are results of ``frame``."""
    empty = "墙上还空着。" if lang == "zh" else "Nothing hangs here."
    figures = "".join(frames)
    body = f"<main>{figures}</main>" if figures else f'<p class="empty">{empty}</p>'
    return PAGE.format(lang=lang, title="璀璨星河" if lang == "zh" else "Starry Night", body=body)


def frame(data: bytes, link: str, lang: str) -> str:
    """The HTML figure of a picture file with content ``data``; ``link`` is its path relative to the page."""
    try:
        recipe = read_recipe(data)
    except StarryError:
        recipe = Recipe(tool="")
    seed = f"{'种子' if lang == 'zh' else 'seed'} {recipe.seed}" if recipe.seed is not None else ""
    facts = " · ".join(fact for fact in (recipe.model, seed, denoiser_format(recipe), recipe.tool) if fact)
    again = ""
    if recipe.seed is not None and recipe.prompt:
        label = "再画一遍" if lang == "zh" else "Paint it again"
        again = f"<details><summary>{label}</summary><code>{html.escape(recipe.command())}</code></details>"
    return FRAME.format(
        link=html.escape(quote(link)), alt=html.escape(recipe.prompt), prompt=html.escape(recipe.prompt),
        facts=html.escape(facts), again=again, width=recipe.width or "", height=recipe.height or "",
    )  # fmt: skip
