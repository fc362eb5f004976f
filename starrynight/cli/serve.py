"""``starry serve``: the service alone, without a browser, for programs, teams and machines."""

from __future__ import annotations

import typer

from starrynight.cli.open import HOST, PORT
from starrynight.cli.terminal import DEVICE, app, help_page
from starrynight.i18n import t
from starrynight.settings import settings

HELP = help_page(
    (
        "Serve the HTTP API, and the pages, until Ctrl-C or SIGTERM. Any address but 127.0.0.1 needs keys.",
        "提供 HTTP 接口与网页，直到 Ctrl-C 或 SIGTERM。127.0.0.1 以外的地址必须用密钥。",
    ),
    "starry serve",
    ("starry keys make office --rate 60", "a key for programs elsewhere", "给别处的程序一个密钥"),
    ("starry serve --host 0.0.0.0 --no-pages", "callers send such a key", "调用者须发送密钥"),
)


@app.command(help=HELP)
def serve(
    port: int = PORT,
    host: str = HOST,
    pages: bool = typer.Option(
        True, "--pages/--no-pages", help=t("Serve the pages too.", "同时提供网页。"), show_default=True
    ),
    require_key: bool = typer.Option(
        False, "--require-key", help=t("Ask for a key on 127.0.0.1 too.", "在 127.0.0.1 上也要密钥。")
    ),
    allow_host: list[str] = typer.Option(
        [],
        help=t(
            "A further name in the Host header, as behind a proxy; can be repeated.",
            "Host 头里另外接受的名字，例如在代理之后；可重复。",
        ),
    ),
    device: str | None = DEVICE,
) -> None:
    from starrynight.api.access import LOOPBACK
    from starrynight.serve import Options
    from starrynight.serve import serve as run

    required = require_key or host not in LOOPBACK
    run(
        Options(
            host, port, device, settings().lang, require_key=required, pages=pages, json_logs=True,
            names=tuple(allow_host),
        )
    )  # fmt: skip
