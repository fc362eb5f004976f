"""One picture on a page that stands alone: no server, no script, no request. A file with the picture inside, or a folder.

Texts from files are escaped. The picture's own bytes are kept, with the recipe in them.
"""

from __future__ import annotations

import base64
import html
from urllib.parse import quote

from starrynight.errors import BadRequest
from starrynight.exhibition import texts
from starrynight.exhibition.prints import Shown
from starrynight.gallery.files import SUFFIXES
from starrynight.i18n import Text
from starrynight.text import printed_json

INDEX = "index.html"
AGAIN = Text("Paint it again", "再画一遍")
RECIPE = Text("The whole recipe", "完整配方")
PAGE = """<!doctype html>
<html lang="{lang}" prefix="og: https://ogp.me/ns#"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: 'self' file:; style-src 'unsafe-inline'">
<title>{title}</title>{tags}<style>
:root {{ color-scheme: dark }}
* {{ box-sizing: border-box }}
body {{ margin: 0; padding: clamp(28px, 7vh, 90px) max(5vw, 22px) 10vh; min-height: 100vh; color: #d9d3c3; background: #070b1a;
  background-image: radial-gradient(1px 1px at 20% 30%, #fff9, transparent), radial-gradient(1px 1px at 70% 15%, #fff7, transparent),
    radial-gradient(1.5px 1.5px at 45% 60%, #ffe9b0aa, transparent), radial-gradient(ellipse 90% 60% at 50% -10%, #1d2a5c, transparent);
  background-size: 310px 290px, 370px 410px, 530px 470px, 100% 100%; background-attachment: fixed;
  font: 16px/1.8 "Noto Serif SC", "Noto Serif CJK SC", "Songti SC", SimSun, Georgia, serif }}
main {{ max-width: 880px; margin: 0 auto }}
figure {{ margin: 0 }}
img {{ display: block; margin: 0 auto; max-width: 100%; max-height: 78vh; width: auto; height: auto; border: 12px solid #14110c; outline: 1px solid #8a6f35;
  box-shadow: 0 0 0 13px #1b1710, 0 0 0 14px #b8944a55, 0 24px 60px #000b, 0 -30px 90px #e8c97914 }}
h1 {{ margin: 56px 0 0; text-align: center; font-weight: 400; font-size: clamp(20px, 3.2vw, 28px); letter-spacing: .06em; color: #efe7d3; overflow-wrap: anywhere; white-space: pre-wrap }}
dl {{ display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 22px; width: fit-content; max-width: 100%; margin: 34px auto; font-size: 14.5px }}
dt {{ color: #a49e88; letter-spacing: .08em }} dd {{ margin: 0; overflow-wrap: anywhere }}
details {{ margin: 10px auto; max-width: 680px; font-size: 14px }}
summary {{ cursor: pointer; color: #cba75c; letter-spacing: .08em; padding: 6px 0 }}
code, pre {{ display: block; margin: 8px 0 0; padding: 12px 14px; background: #0d1330; border-radius: 5px; color: #cfc7b2;
  font: 12.5px/1.65 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; user-select: all }}
footer {{ margin-top: 52px; text-align: center; letter-spacing: .3em; font-size: 13px; color: #9d9785 }}
</style></head><body><main><figure><img src="{source}" alt="{title}" width="{width}" height="{height}"></figure>
<h1>{title}</h1><dl>{facts}</dl>{again}<details><summary>{recipe_label}</summary><pre>{recipe}</pre></details></main>
<footer>璀璨星河 · Starry Night</footer></body></html>
"""


def single_file(shown: Shown, lang: str = "en") -> bytes:
    """The page with the picture inside."""
    kind = f"image/{shown.row.format}"
    return _page(shown, f"data:{kind};base64,{base64.b64encode(shown.data).decode()}", "", lang)


def folder_of(shown: Shown, address: str = "", lang: str = "en") -> dict[str, bytes]:
    """The files of a folder: the page and the picture beside it. ``address``: where the folder will be on the web, for the
    preview that others show of a link; it begins with http. Raises BadRequest.
    """
    if address and not address.startswith(("https://", "http://")):
        raise BadRequest(
            "The address of the page begins with https:// or http://; give it as a browser shows it.",
            "网页地址以 https:// 或 http:// 开头；请按浏览器里的样子写。",
        )
    name = f"picture{SUFFIXES[shown.row.format]}"
    base = address.rstrip("/").removesuffix(f"/{INDEX}")
    return {INDEX: _page(shown, name, f"{base}/{name}" if base else "", lang), name: shown.data}


def _page(shown: Shown, source: str, preview: str, lang: str) -> bytes:
    row, recipe = shown.row, texts.recipe_of(shown.row, shown.recipe)
    title, facts = texts.title(row, lang), texts.facts(row, lang)
    again = ""
    if recipe.prompt and recipe.seed is not None:
        again = f"<details open><summary>{AGAIN.to(lang)}</summary><code>{html.escape(recipe.command())}</code></details>"
    page = PAGE.format(
        lang=lang, title=html.escape(title), tags=preview_tags(title, texts.line(row, lang), preview, preview and row),
        source=html.escape(quote(source) if not source.startswith("data:") else source), width=row.width, height=row.height,
        facts="".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts), again=again,
        recipe_label=RECIPE.to(lang), recipe=html.escape(printed_json(shown.recipe)),
    )  # fmt: skip
    return page.encode("utf-8", "replace")


def preview_tags(title: str, summary: str, image: str = "", row: object = None, address: str = "") -> str:
    """Open Graph's tags (ogp.me), from which others draw the preview of a link. ``image``, ``address``: absolute."""
    values = {
        "og:type": "website", "og:site_name": "Starry Night · 璀璨星河", "og:title": title, "og:description": summary,
        "og:image": image, "og:url": address,
    }  # fmt: skip
    if image and row:
        values |= {
            "og:image:width": str(getattr(row, "width", "")),
            "og:image:height": str(getattr(row, "height", "")),
        }
    return "".join(
        f'<meta property="{name}" content="{html.escape(value)}">' for name, value in values.items() if value
    ) + ('<meta name="twitter:card" content="summary_large_image">' if image else "")
