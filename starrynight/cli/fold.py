"""``starry fold``: a model written out so that any tool paints with it in float16, without overflowing."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from starrynight.cli import app, followed, t
from starrynight.errors import BadRequest

HELP = t(
    """Write a model whose numbers float16 can hold: the same function, weights multiplied by powers of two.

    It measures the model over a few pictures first (minutes on a CPU for a large one), proves the result on other
    prompts, and writes the proof beside the weights. Run again, it goes on where it was stopped.

    [bold]Examples[/bold]

    starry fold z-image-turbo -o z-image-turbo-float16

    starry fold firefly --to float16 -o firefly-float16 --json

    starry fold fine-tune.safetensors -o folded     (a ComfyUI file stays a ComfyUI file)""",
    """写出一个数值不超出 float16 的模型：函数不变，只是权重乘以 2 的幂。

    先在几幅画上测量数值范围（大模型在 CPU 上需数分钟），再用其他提示词验证，并把证明写在权重旁边。中断后再次运行会接着做。

    [bold]例子[/bold]

    starry fold z-image-turbo -o z-image-turbo-float16

    starry fold firefly --to float16 -o firefly-float16 --json

    starry fold fine-tune.safetensors -o folded     （ComfyUI 的文件仍写成 ComfyUI 的布局）""",
)


@app.command(help=HELP)
def fold(
    model: str = typer.Argument(
        help=t(
            "A name of `starry models`, a hub id, a folder or a .safetensors file.",
            "`starry models` 里的名字、模型库 id、文件夹或 .safetensors 文件。",
        )
    ),
    out: Path = typer.Option(..., "--out", "-o", help=t("A new folder.", "一个新文件夹。")),
    to: str = typer.Option("float16", "--to", help=t("float16.", "float16。")),
    as_json: bool = typer.Option(False, "--json", help=t("For machines.", "供程序读取。")),
) -> None:
    if to != "float16":
        raise BadRequest(
            f"“{to}” is no format to fold for; float16 is the one whose range is too small.",
            f"不能折叠到“{to}”；只有 float16 的范围不够，需要折叠。",
        )
    from starrynight.folding import export
    from starrynight.models import catalogue, download

    found = download.fetch(catalogue.resolve(model))
    with followed(t(f"folding {found.en}", f"折叠 {found.zh}")) as on_progress:
        written = export.write(found, out, on_progress)
    if as_json:
        told = {
            "folder": str(out),
            "certificate": written.certificate,
            "float32": list(written.kept),
            "load": written.loading,
        }
        print(json.dumps(told | {"plan": json.loads(written.plan.to_json())}, ensure_ascii=False, indent=2))
        return
    print(f"✦ {out}\n{t(written.message('en'), written.message('zh'))}\n{written.loading}")
