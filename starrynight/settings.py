"""The only reader of environment variables; every setting from outside is listed here.

All files of the product are under one folder, ``STARRY_HOME``.
"""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SENSES = ("eyes", "ears", "facets", "ranker", "embedder")  # each is set by STARRY_ and its name


class NoHome(RuntimeError):
    """There is no home folder for the name it holds. ``cli.unexpected`` has its sentence: errors.py imports this module."""


@dataclass(frozen=True)
class Settings:
    """``home``: the folder of pictures, models, LoRAs, embeddings and caches. ``lang``: "zh" or "en". ``producer``: the
    maker in the AIGC label of GB 45438-2025. ``hub_endpoint``: the URL of a mirror of the model hub. ``model_paths``:
    folders that are searched for models and LoRAs as well. ``senses``: what each sense is set to, such as "off"; a sense that
    is not set is not in it. ``llama_server``: the program that serves .gguf files; None: the one in PATH or in a package. ``gallery``: its folder or the URL of its database, and
    ``gallery_files``: where its pictures are, a folder or an fsspec URL; None: in ``home``.
    """

    home: Path
    lang: str
    producer: str
    hub_endpoint: str | None
    model_paths: tuple[Path, ...] = ()
    senses: Mapping[str, str] = field(default_factory=dict)
    gallery: str | None = None
    gallery_files: str | None = None
    llama_server: Path | None = None

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def loras(self) -> Path:
        return self.home / "loras"

    @property
    def embeddings(self) -> Path:
        return self.home / "embeddings"

    @property
    def pictures(self) -> Path:
        return self.home / "pictures"

    @property
    def cache(self) -> Path:
        return self.home / "cache"


def terminal_language(environ: dict[str, str] | os._Environ[str] = os.environ) -> str:
    """ "zh" if STARRY_LANG or the POSIX locale variables, in POSIX order, name Chinese; else "en"."""
    for variable in ("STARRY_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environ.get(variable):
            return "zh" if value.lower().startswith("zh") else "en"
    try:
        found = locale.getlocale()[0] or ""
    except ValueError:  # a locale that Python does not know
        found = ""
    return "zh" if found.lower().startswith(("zh", "chinese")) else "en"


def debugging() -> bool:
    """Whether tracebacks are printed: STARRY_DEBUG is set, and not to 0."""
    return os.environ.get("STARRY_DEBUG", "0") not in ("", "0")


def print_tracebacks() -> None:
    """As if STARRY_DEBUG were 1, here and in the processes that this one starts."""
    os.environ["STARRY_DEBUG"] = "1"


def settings() -> Settings:
    """The settings of the current environment. Cheap, so callers read them anew instead of keeping a copy.

    Raises NoHome.
    """
    return Settings(
        home=_home(os.environ.get("STARRY_HOME")),
        lang=terminal_language(),
        producer=os.environ.get("STARRY_PRODUCER", "Starry Night"),
        hub_endpoint=os.environ.get("HF_ENDPOINT"),
        model_paths=_paths(os.environ.get("STARRY_MODEL_PATHS", "")),
        senses={name: value for name in SENSES if (value := os.environ.get(f"STARRY_{name.upper()}"))},
        gallery=os.environ.get("STARRY_GALLERY") or None,
        gallery_files=os.environ.get("STARRY_GALLERY_FILES") or None,
        llama_server=Path(named) if (named := os.environ.get("STARRY_LLAMA_SERVER")) else None,
    )


def _home(named: str | None) -> Path:
    try:
        return Path(named).expanduser() if named else Path.home() / ".starrynight"
    except RuntimeError as error:  # "~nobody", or a user without a home
        raise NoHome(named or "~") from error


def variable(name: str) -> str | None:
    """An environment variable that an entry of the user's names, such as where a key is."""
    return os.environ.get(name)


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that is to be started, with ``more`` in it."""
    return {**os.environ, **more}


def set_for_libraries(**variables: str) -> None:
    """What a library reads from the environment and takes by no other way."""
    os.environ.update(variables)


def _paths(listed: str) -> tuple[Path, ...]:
    """The absolute paths in a list like PATH's, in order, each once."""
    paths = [os.path.abspath(os.path.expanduser(path)) for path in listed.split(os.pathsep) if path.strip()]
    return tuple(map(Path, dict.fromkeys(paths)))
