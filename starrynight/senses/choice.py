"""Which sense is used, by one setting for each: STARRY_EYES and so on.

A setting is "perceiver" (the model in this package), "off", or the address of an API of OpenAI's shape with the model's name
there, ``http://127.0.0.1:8101/v1#qwen3-vl``. Only such an address, set by hand, ever receives a picture; its key is read from
the variable ``KEY_ENV`` where it is used. Local folders and .gguf files are refused by name until they can be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starrynight.errors import BadRequest
from starrynight.i18n import Text
from starrynight.models.remote import Remote, checked
from starrynight.settings import settings, variable
from starrynight.text import excerpt

BUILT_IN, OFF, REMOTE = "perceiver", "off", "remote"
KEY_ENV = "STARRY_SENSES_KEY"
# The senses and what each is for.
SENSES: dict[str, Text] = {
    "eyes": Text("says what a picture shows", "说出画里有什么"),
    "embedder": Text("finds pictures by meaning", "按意思找画"),
}


@dataclass(frozen=True)
class Choice:
    """``kind``: BUILT_IN, OFF or REMOTE; ``remote`` is None unless it is REMOTE."""

    sense: str
    kind: str
    remote: Remote | None = None

    @property
    def leaves_this_machine(self) -> bool:
        """Whether pictures or words are sent to another machine."""
        return self.remote is not None and not self.remote.is_loopback


def chosen(sense: str) -> Choice:
    """The choice that the settings make for a sense of ``SENSES``. Raises BadRequest for a value that is none."""
    return parse(sense, settings().senses.get(sense, ""))


def parse(sense: str, value: str) -> Choice:
    """The choice that ``value`` names, by default the built-in model. Raises BadRequest."""
    value = value.strip()
    if value.lower() in ("", BUILT_IN, OFF):
        return Choice(sense, value.lower() or BUILT_IN)
    name = f"STARRY_{sense.upper()}"
    if not value.startswith(("http://", "https://")):
        what = _local(value)
        raise BadRequest(
            f"{name} is “{excerpt(value)}”, {what.en}; set perceiver, off or an address such as "
            "http://127.0.0.1:8101/v1#model.",
            f"{name} 是“{excerpt(value)}”，{what.zh}；请设为 perceiver、off，或 http://127.0.0.1:8101/v1#model 这样的地址。",
        )
    if sense != "eyes":
        raise BadRequest(
            f"{name} cannot be an address yet; set perceiver or off.",
            f"{name} 还不能是地址；请设为 perceiver 或 off。",
        )
    url, _, model = value.partition("#")
    key = KEY_ENV if variable(KEY_ENV) else None
    return Choice(sense, REMOTE, checked(Remote(url, model or None, key_env=key)))


def _local(value: str) -> Text:
    if value.lower().endswith(".gguf"):
        return Text(
            "a GGUF file, which this version does not start; start llama-server with it and give its address",
            "是 GGUF 文件，本版本还不能直接启动；请用 llama-server 启动它并给出地址",
        )
    if Path(value).expanduser().is_dir():
        return Text(
            "a folder, which this version does not load; serve it with vLLM and give its address",
            "是文件夹，本版本还不能直接载入；请用 vLLM 提供服务并给出地址",
        )
    return Text("which names no sense", "不是任何可用的感官")
