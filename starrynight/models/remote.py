"""Models that another server paints: an address with OpenAI's Images API, kept in the registry by ``starry models add --url``.

Only such an address, set by hand, is ever asked to paint. Its key is read where it is used, from an environment variable or a
file that the entry names; the key itself is never kept, printed or put into a message. Imports no network library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starrynight.errors import BadRequest, MissingFile
from starrynight.settings import variable
from starrynight.text import excerpt

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Remote:
    """``url``: up to and with "/v1". ``model``: its name there; None for that server's own. ``key_env`` or ``key_file``: where
    the bearer key is. ``size``, ``steps``, ``guidance``: what is asked for unless a request says otherwise.
    """

    url: str
    model: str | None = None
    key_env: str | None = None
    key_file: str | None = None
    size: int = 1024
    steps: int = 8
    guidance: float = 2.0

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def is_loopback(self) -> bool:
        return urlsplit(self.url).hostname in LOOPBACK

    def key(self) -> str | None:
        """The key, or None if none is named. Raises BadRequest for an empty variable, MissingFile."""
        if self.key_env:
            found = variable(self.key_env)
            if not found:
                raise BadRequest(
                    f"The key of {self.host} is to be in {self.key_env}, which is not set; set it where the worker starts.",
                    f"{self.host} 的密钥应当在环境变量 {self.key_env} 中，但它没有设置；请在启动处设置。",
                )
            return found.strip()
        if self.key_file:
            try:
                return Path(self.key_file).read_text("utf-8").strip()
            except (OSError, ValueError) as error:
                raise MissingFile(
                    f"The key of {self.host} cannot be read from “{self.key_file}”.",
                    f"无法从“{self.key_file}”读取 {self.host} 的密钥。",
                ) from error
        return None

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def checked(remote: Remote) -> Remote:
    """The same with an address without a closing slash. Raises BadRequest for what is no such address, or holds a password."""
    parts = urlsplit(remote.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise BadRequest(
            f"“{excerpt(remote.url)}” is no address of an API; write it as http://127.0.0.1:8470/v1.",
            f"“{excerpt(remote.url)}”不是接口地址；请写成 http://127.0.0.1:8470/v1。",
        )
    if parts.username or parts.password:
        raise BadRequest(
            "The address holds a password; name where the key is with --key-env or --key-file.",
            "地址中含有密码；请用 --key-env 或 --key-file 指明密钥所在。",
        )
    if remote.key_env and remote.key_file:
        raise BadRequest(
            "A key is in a variable or in a file; give one of them.", "密钥在环境变量或文件中，请只给一个。"
        )
    return Remote(**asdict(remote) | {"url": remote.url.rstrip("/")})


def read(content: object) -> Remote | None:
    """What ``to_dict`` wrote; None for anything else."""
    if not isinstance(content, Mapping):
        return None
    kinds: dict[str, tuple[type, ...]] = {
        "url": (str,), "model": (str,), "key_env": (str,), "key_file": (str,), "size": (int,), "steps": (int,), "guidance": (int, float)
    }  # fmt: skip
    right = all(name in kinds and isinstance(value, kinds[name]) for name, value in content.items())
    return Remote(**content) if right and "url" in content else None
