"""``starry serve``: the service alone, without a browser, for programs, teams and machines."""

from __future__ import annotations

from enum import StrEnum

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
    ("starry serve --engine ray", "a painter for each GPU of a Ray cluster", "Ray 集群里每块 GPU 一个画师"),
)


class Engine(StrEnum):
    """Where painters run."""

    LOCAL = "local"
    RAY = "ray"


PAGES = typer.Option(
    True, "--pages/--no-pages", help=t("Serve the pages too.", "同时提供网页。"), show_default=True
)
REQUIRE_KEY = typer.Option(
    False, "--require-key", help=t("Ask for a key on 127.0.0.1 too.", "在 127.0.0.1 上也要密钥。")
)
ALLOW_HOST = typer.Option(
    [],
    help=t(
        "A further name in the Host header, as behind a proxy; can be repeated.",
        "Host 头里另外接受的名字，例如在代理之后；可重复。",
    ),
)
ENGINE = typer.Option(
    Engine.LOCAL,
    help=t(
        "Where painters run: processes of this machine, or Ray's.", "画师在哪里运行：本机的进程，或 Ray。"
    ),
)
WORKERS = typer.Option(
    None,
    min=1,
    max=256,
    help=t(
        "Painters at once; by default one, with Ray one for each GPU or machine.",
        "同时作画的画师数；默认一个，用 Ray 时每块 GPU 或每台机器一个。",
    ),
)
CORES = typer.Option(
    None,
    min=1,
    max=1024,
    help=t("Cores for each painter; by default an equal share.", "每个画师的核心数；默认均分。"),
)
BATCH = typer.Option(
    1,
    min=1,
    max=16,
    help=t(
        "Pictures of one shape painted as one, at most, where that is measured to be faster; their rounding differs.",
        "同样尺寸与设置的画最多几幅一起画（实测更快时才用）；舍入略有不同。",
    ),
)
RAY_ADDRESS = typer.Option(
    None,
    help=t(
        "A running Ray cluster, host:port; by default RAY_ADDRESS, else one on this machine.",
        "正在运行的 Ray 集群 host:port；默认 RAY_ADDRESS，否则在本机启动一个。",
    ),
)


@app.command(help=HELP)
def serve(
    port: int = PORT,
    host: str = HOST,
    pages: bool = PAGES,
    require_key: bool = REQUIRE_KEY,
    allow_host: list[str] = ALLOW_HOST,
    device: str | None = DEVICE,
    engine: Engine = ENGINE,
    workers: int | None = WORKERS,
    cores: int | None = CORES,
    batch: int = BATCH,
    ray_address: str | None = RAY_ADDRESS,
) -> None:
    from starrynight.api.access import LOOPBACK
    from starrynight.errors import BadRequest
    from starrynight.serve import Options
    from starrynight.serve import serve as run

    if ray_address is not None and engine is not Engine.RAY:
        raise BadRequest("--ray-address needs --engine ray.", "--ray-address 需要 --engine ray。")
    required = require_key or host not in LOOPBACK
    run(
        Options(
            host, port, device, settings().lang, require_key=required, pages=pages, json_logs=True,
            names=tuple(allow_host), ray=engine is Engine.RAY, workers=workers, cores=cores, batch=batch, ray_address=ray_address,
        )
    )  # fmt: skip
