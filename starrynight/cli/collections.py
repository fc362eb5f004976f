"""``starry gallery collections``: lists collections, gives them other names, takes them apart."""

from __future__ import annotations

import typer

from starrynight.cli.gallery import gallery_app
from starrynight.cli.terminal import JSON, help_page, plural
from starrynight.cli.usage import CommandGroup
from starrynight.i18n import t
from starrynight.text import printed_json, without_bidi

collections_app = CommandGroup(
    help=t(
        "Collections; without a subcommand they are listed with their numbers of pictures.",
        "画集；不带子命令时列出各画集与幅数。",
    ),
    invoke_without_command=True,
)
gallery_app.add_typer(collections_app, name="collections")

NAME = typer.Argument(help=t("A collection.", "画集。"))


@collections_app.callback()
def collections(context: typer.Context, as_json: bool = JSON) -> None:
    if context.invoked_subcommand is not None:
        return
    from starrynight.gallery.store import Gallery

    with Gallery() as store:
        found = store.annotations.all_collections()
    if as_json:
        print(printed_json(found))
        return
    for name, count in found.items():
        print(f"{count:6}  {without_bidi(name)}")
    print(t(f"✦ {plural(len(found), 'collection')}", f"✦ {len(found)} 个画集"))


@collections_app.command(
    help=help_page(
        ("Give a collection another name.", "给画集改名。"),
        "starry gallery collections rename winter 冬夜",
    )
)
def rename(name: str = NAME, to: str = typer.Argument(help=t("Its new name.", "新名字。"))) -> None:
    from starrynight.gallery.store import Gallery

    with Gallery() as store:
        store.annotations.rename_collection(name, to)
    print(f"✦ {without_bidi(name)} → {without_bidi(to)}")


@collections_app.command(
    help=help_page(
        ("Take a collection apart; its pictures stay in the gallery.", "解散画集；其中的画仍在画廊里。"),
        "starry gallery collections delete winter",
    )
)
def delete(name: str = NAME) -> None:
    from starrynight.gallery.store import Gallery

    with Gallery() as store:
        ids = store.annotations.delete_collection(name)
    stay = t(f"{plural(len(ids), 'picture')} still in the gallery", f"{len(ids)} 幅画仍在画廊里")
    print(t(f"✦ taken apart: {without_bidi(name)}; {stay}", f"✦ 已解散：{without_bidi(name)}；{stay}"))
