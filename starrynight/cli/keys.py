"""``starry keys``: the bearer keys of the service: make, list and revoke them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from starrynight.cli.terminal import JSON, app, help_page, plural
from starrynight.cli.usage import CommandGroup
from starrynight.i18n import t
from starrynight.text import printed_json

if TYPE_CHECKING:
    from starrynight.jobs.keys import Key, Keys

keys_app = CommandGroup(
    help=t(
        "Keys with which programs use `starry serve` and `starry open`.",
        "程序使用 `starry serve` 与 `starry open` 的密钥。",
    )
)
app.add_typer(keys_app, name="keys")


@contextmanager
def _keys() -> Iterator[Keys]:
    from starrynight.gallery.store import Gallery
    from starrynight.jobs.keys import Keys

    with Gallery() as gallery:
        yield Keys(gallery.database)


@keys_app.command(
    help=help_page(
        (
            "Make a key. It is shown once: only its hash is stored.",
            "生成一个密钥。只显示一次：只保存其哈希。",
        ),
        "starry keys make office --rate 60 --queue 20",
    )
)
def make(
    name: str = typer.Argument(help=t("Who or what uses it.", "谁或什么程序使用它。")),
    rate: int | None = typer.Option(
        None, help=t("Requests a minute at most.", "每分钟最多的请求数。"), show_default=False
    ),
    queue: int | None = typer.Option(
        None, help=t("Unfinished jobs at once at most.", "同时未完成的任务最多几个。"), show_default=False
    ),
    json: bool = JSON,
) -> None:
    with _keys() as keys:
        key, text = keys.make(name, rate, queue)
    if json:
        print(printed_json(key.to_dict() | {"key": text}))
        return
    print(text)
    print(
        t(
            f"✦ Key {key.id} ({_limits(key)}). Send it as “Authorization: Bearer KEY”; it is not shown again.",
            f"✦ 密钥 {key.id}（{_limits(key)}）。以“Authorization: Bearer 密钥”发送；之后不再显示。",
        )
    )


@keys_app.command("list", help=t("List the keys, revoked ones too.", "列出密钥，包括已吊销的。"))
def list_keys(json: bool = JSON) -> None:
    with _keys() as keys:
        found, jobs = keys.all(), keys.jobs()
    if json:
        print(printed_json([key.to_dict() | {"jobs": jobs.get(key.id, 0)} for key in found]))
        return
    for key in found:
        count = jobs.get(key.id, 0)
        state = t("revoked", "已吊销") if key.revoked_at else t("in force", "有效")
        facts = [
            state,
            f"{key.created_at:%Y-%m-%d}",
            _limits(key),
            t(plural(count, "job"), f"{count} 个任务"),
        ]
        print(f"{key.id}  {key.name:<20}  {' · '.join(facts)}")
    if not found:
        print(
            t("There are no keys; make one: starry keys make NAME", "还没有密钥；生成：starry keys make 名字")
        )


@keys_app.command(help=t("Revoke a key by its id or name.", "按编号或名字吊销密钥。"))
def revoke(name: str = typer.Argument(help=t("Its id or name.", "编号或名字。"))) -> None:
    with _keys() as keys:
        key = keys.revoke(name)
    print(
        t(
            f"✦ Key {key.id} ({key.name}) is revoked; a running service refuses it within a second.",
            f"✦ 密钥 {key.id}（{key.name}）已吊销；正在运行的服务一秒内就会拒绝它。",
        )
    )


def _limits(key: Key) -> str:
    rate = t(f"{key.rate} requests a minute", f"每分钟 {key.rate} 次请求") if key.rate else None
    queue = t(f"{plural(key.queue, 'job')} at once", f"同时 {key.queue} 个任务") if key.queue else None
    return t(", ", "，").join(filter(None, [rate, queue])) or t("no limits", "无限制")
