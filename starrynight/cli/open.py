"""``starry open``: serves the studio and the gallery, and opens them in the browser."""

from __future__ import annotations

import typer

from starrynight.cli.terminal import DEVICE, app, help_page
from starrynight.i18n import t
from starrynight.settings import settings

HELP = help_page(
    (
        "Open the studio and the gallery in the browser. Ctrl-C closes them; what is being painted goes on next time.",
        "在浏览器中打开画室与画廊。按 Ctrl-C 关闭；没画完的下次接着画。",
    ),
    "starry open",
    ("starry open --port 9000 --no-browser", "only says where", "只说明地址"),
    (
        "starry open --host 0.0.0.0",
        "for others on this network, who need the printed address with its token",
        "让同一网络的人也能访问；他们需要打印出来的带令牌的地址",
    ),
)


@app.command("open", help=HELP)
def open_browser(
    port: int = typer.Option(8470, help=t("Where to listen.", "监听端口。"), min=0, max=65535),
    host: str = typer.Option(
        "127.0.0.1", help=t("Another address opens it to a network.", "换地址即向网络开放。")
    ),
    browser: bool = typer.Option(True, help=t("Open it in the browser.", "用浏览器打开。")),
    device: str | None = DEVICE,
) -> None:
    from starrynight.serve import serve

    serve(host, port, browser, device, settings().lang)
