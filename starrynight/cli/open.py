"""``starry open``: serves the studio and the gallery, and opens them in the browser."""

from __future__ import annotations

import typer

from starrynight.cli.terminal import DEVICE, app, help_page
from starrynight.i18n import t
from starrynight.settings import settings

HELP = help_page(
    (
        "Open the studio and the gallery in the browser. Ctrl-C closes them; unfinished pictures continue next time.",
        "在浏览器中打开画室与画廊。按 Ctrl-C 关闭；没画完的下次接着画。",
    ),
    "starry open",
    ("starry open --port 9000 --no-browser", "only prints the address", "只显示地址"),
    (
        "starry open --host 0.0.0.0",
        "for others on this network, at the printed address with its token",
        "让同一网络的人也能访问；他们需要打印出来的带令牌的地址",
    ),
)


# Shared with ``starry serve``.
PORT = typer.Option(8470, help=t("The port to listen on.", "监听端口。"), min=0, max=65535)
HOST = typer.Option(
    "127.0.0.1",
    help=t(
        "The address to listen on; any but 127.0.0.1 opens it to a network.",
        "监听地址；127.0.0.1 以外即向网络开放。",
    ),
)


@app.command("open", help=HELP)
def open_browser(
    port: int = PORT,
    host: str = HOST,
    browser: bool = typer.Option(True, help=t("Open it in the browser.", "用浏览器打开。")),
    token: bool = typer.Option(
        False,
        "--token",
        help=t(
            "Ask for a token on this machine too: others who use it need the printed address.",
            "本机也要令牌： 同机的其他人 需要打印出的地址。",
        ),
    ),
    device: str | None = DEVICE,
) -> None:
    from starrynight.serve import Options, open_studio

    open_studio(Options(host, port, device, settings().lang, token), browser)
