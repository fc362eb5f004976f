"""Which model is each sense, by one setting: STARRY_EYES, STARRY_EARS, STARRY_FACETS, STARRY_RANKER, STARRY_EMBEDDER.

A setting is one of

- ``built-in``, the default, also by its own name: the perceiver, the lexicon; there are no ears built in;
- a folder of safetensors, which transformers loads in a process of its own (``local``);
- ``MODEL.gguf`` or ``MODEL.gguf+MMPROJ.gguf``, for which a llama-server is started on this machine (``llama``);
- the address of an API of OpenAI's or Jina's shape with the model's name there, ``http://127.0.0.1:8101/v1#qwen3-vl``;
- ``off``.

Only such an address, set by hand, ever receives a picture, a voice or a word; its key is read from the variable ``KEY_ENV``
where it is used. Reads settings and the names of files; loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starrynight.errors import BadRequest
from starrynight.i18n import Text
from starrynight.models.remote import Remote, checked
from starrynight.settings import settings, variable
from starrynight.text import excerpt

BUILT_IN, OFF, REMOTE, FOLDER, GGUF = "built-in", "off", "remote", "folder", "gguf"
KEY_ENV = "STARRY_SENSES_KEY"
# The senses and what each is for.
SENSES: dict[str, Text] = {
    "eyes": Text("says what a picture shows", "说出画里有什么"),
    "ears": Text("writes down what a voice says", "把说的话写成字"),
    "facets": Text("finds style, hour, place and things in words", "从文字里找出风格、时间、地点和事物"),
    "ranker": Text("puts search results in order", "给搜索结果排序"),
    "embedder": Text("turns texts into vectors for other programs", "为其他程序把文字变成向量"),
}
# What the built-in model of a sense is called; there are no ears.
BUILT_IN_NAMES = {"eyes": "perceiver", "facets": "lexicon", "ranker": "perceiver", "embedder": "perceiver"}
_SUFFIX = ".gguf"
_WITH_PROJECTOR = (
    "eyes",
    "ears",
)  # their .gguf is two files: the language model, and what reads pictures or sound for it


@dataclass(frozen=True)
class Choice:
    """``kind``: BUILT_IN, OFF, REMOTE, FOLDER or GGUF. ``remote``, ``folder`` and ``files`` (the model, then its mmproj) are
    there for theirs only.
    """

    sense: str
    kind: str
    remote: Remote | None = None
    folder: Path | None = None
    files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """What stands as ``by`` beside what this model says; "" where there is none. The perceiver adds its version."""
        if self.remote is not None:
            return f"{self.remote.host}#{self.remote.model or ''}"
        if self.folder is not None:
            return self.folder.name
        if self.files:
            return self.files[0].name
        return BUILT_IN_NAMES.get(self.sense, "") if self.kind == BUILT_IN else ""

    @property
    def leaves_this_machine(self) -> bool:
        """Whether pictures, voices or words are sent to another machine."""
        return self.remote is not None and not self.remote.is_loopback

    @property
    def can(self) -> bool:
        """Whether there is such a sense at all: it is not off, and not the ears that nobody has built in."""
        return self.kind != OFF and bool(self.name)


def chosen(sense: str) -> Choice:
    """The choice that the settings make for a sense of ``SENSES``. Raises BadRequest for a value that is none."""
    return parse(sense, settings().senses.get(sense, ""))


def parse(sense: str, value: str) -> Choice:
    """The choice that ``value`` names, by default the built-in model. Raises BadRequest."""
    value = value.strip()
    if value.lower() in ("", BUILT_IN, BUILT_IN_NAMES.get(sense, BUILT_IN)):
        return Choice(sense, BUILT_IN)
    if value.lower() == OFF:
        return Choice(sense, OFF)
    if value.startswith(("http://", "https://")):
        url, _, model = value.partition("#")
        key = KEY_ENV if variable(KEY_ENV) else None
        return Choice(sense, REMOTE, checked(Remote(url, model or None, key_env=key)))
    if value.lower().endswith(_SUFFIX):
        return Choice(sense, GGUF, files=_files(sense, value))
    folder = _path(value)
    if folder is not None and folder.is_dir():
        if (folder / "config.json").is_file():
            return Choice(sense, FOLDER, folder=folder.resolve())
        raise _refused(sense, value, Text("a folder without config.json", "是没有 config.json 的文件夹"))
    raise _refused(sense, value, Text("which names no sense", "不是任何可用的感官"))


def _files(sense: str, value: str) -> tuple[Path, ...]:
    """The model and, where a sense needs one, its mmproj: named after "+", or the only one in the model's folder."""
    whole = _path(value)
    at = -1 if whole is not None and whole.is_file() else value.lower().rfind(_SUFFIX + "+")
    first, second = (value, "") if at < 0 else (value[: at + len(_SUFFIX)], value[at + len(_SUFFIX) + 1 :])
    model = _path(first)
    if model is None or not model.is_file():
        raise _refused(sense, value, Text("but that file is not there", "但这个文件不存在"))
    if second:
        projector = _path(second)
        if projector is not None and not projector.is_file():
            projector = model.parent / second
        if projector is None or not projector.is_file():
            raise _refused(sense, value, Text("but the file after “+” is not there", "但“+”后面的文件不存在"))
        return model.resolve(), projector.resolve()
    if sense not in _WITH_PROJECTOR:
        return (model.resolve(),)
    beside = [one for one in model.parent.glob(f"*mmproj*{_SUFFIX}") if one != model]
    if len(beside) != 1:
        what = Text("without the mmproj file that reads pictures or sound for it; write MODEL.gguf+MMPROJ.gguf",
                    "缺少为它读取图片或声音的 mmproj 文件；请写成 模型.gguf+MMPROJ.gguf")  # fmt: skip
        raise _refused(sense, value, what)
    return model.resolve(), beside[0].resolve()


def _path(value: str) -> Path | None:
    """None for what cannot be a path."""
    try:
        path = Path(value).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    return path


def _refused(sense: str, value: str, what: Text) -> BadRequest:
    name = f"STARRY_{sense.upper()}"
    return BadRequest(
        f"{name} is “{excerpt(value)}”, {what.en}. Set built-in, off, a folder of safetensors, MODEL.gguf or an address such as "
        "http://127.0.0.1:8101/v1#model.",
        f"{name} 是“{excerpt(value)}”，{what.zh}。请设为 built-in、off、safetensors 文件夹、模型.gguf，"
        "或 http://127.0.0.1:8101/v1#model 这样的地址。",
    )
