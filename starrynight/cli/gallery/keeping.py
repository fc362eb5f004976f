"""``starry gallery verify`` and ``rebuild``: is every picture whole, and what to do where one is not."""

from __future__ import annotations

import typer

from starrynight.cli import LANG, page, t
from starrynight.cli.gallery.group import Bar, gallery_app
from starrynight.errors import BadFile


@gallery_app.command(
    help=page(
        ("Prove that every picture is whole and can be found. Reads every file; changes nothing.",
         "证明每一幅画都完好、都找得到。会读遍所有文件，不作任何改动。"),
        "starry gallery verify",
    )
)  # fmt: skip
def verify() -> None:
    from starrynight.gallery.store import Gallery

    with Gallery() as hung, Bar(t("reading", "正在读取")) as bar:
        report = hung.verify(bar)
    for names, en, zh in (
        (report.missing, "its file is missing", "文件缺失"),
        (report.corrupt, "changed since it was hung", "挂上之后被改动过"),
        (report.orphans, "a picture without a row; `starry gallery rebuild` adopts it", "没有记录的图片；`starry gallery rebuild` 会收回"),
        (report.strangers, "not one of ours (harmless)", "不是画廊的文件（无害）"),
    ):  # fmt: skip
        for name in names:
            print(f"  {name}: {t(en, zh)}")
    if not report.index_sound:
        print(t("  The search index is not sound; `starry gallery rebuild` makes it anew.",
                "  搜索索引不完好；`starry gallery rebuild` 会重建。"))  # fmt: skip
    if not report.ok:
        raise BadFile(
            f"{report.pictures} pictures: {len(report.missing)} missing, {len(report.corrupt)} changed, "
            f"{len(report.orphans)} without a row. `starry gallery rebuild` mends what can be mended.",
            f"{report.pictures} 幅画：缺失 {len(report.missing)}，被改动 {len(report.corrupt)}，"
            f"没有记录 {len(report.orphans)}。`starry gallery rebuild` 会修复能修复的。",
        )
    print(t(f"✦ {report.pictures} pictures, all whole", f"✦ {report.pictures} 幅画，全部完好"))


@gallery_app.command(
    help=page(
        ("Make the index again from the pictures themselves; a broken database is set aside, never deleted.",
         "根据图片本身重建索引；损坏的数据库会改名留存，绝不删除。"),
        "starry gallery rebuild",
    )
)  # fmt: skip
def rebuild() -> None:
    from starrynight.gallery.store import Gallery

    with Bar(t("reading", "正在读取")) as bar:
        rebuilt = Gallery.mend(on_picture=bar)
    for name, error in rebuilt.refused:
        print(f"  {name}: {error.message(LANG)}")
    print(t(f"✦ {rebuilt.kept} pictures read anew, {rebuilt.adopted} found again, {len(rebuilt.refused)} refused",
            f"✦ 重新读取 {rebuilt.kept} 幅，找回 {rebuilt.adopted} 幅，拒绝 {len(rebuilt.refused)} 幅"))  # fmt: skip
    if rebuilt.refused:
        raise typer.Exit(BadFile.exit_code)
