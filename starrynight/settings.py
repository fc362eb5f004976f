"""The only reader of environment variables. Everything the product keeps lies under one folder, ``STARRY_HOME``.

Knows nothing of models or pictures; a value that is not here is not configurable from outside.
"""

from __future__ import annotations

import locale
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """``home``: the folder that holds pictures, models, LoRAs, plans and caches. ``lang``: "zh" or "en".
    ``producer``: who GB 45438-2025's AIGC label names as the maker. ``hub_endpoint``: a mirror of the model hub.
    """

    home: Path
    lang: str
    producer: str
    hub_endpoint: str | None

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def loras(self) -> Path:
        return self.home / "loras"

    @property
    def pictures(self) -> Path:
        return self.home / "pictures"

    @property
    def cache(self) -> Path:
        return self.home / "cache"


def terminal_language(environ: dict[str, str] | os._Environ[str] = os.environ) -> str:
    """ "zh" when STARRY_LANG or the POSIX locale variables (in POSIX order) name Chinese, else "en"."""
    for variable in ("STARRY_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environ.get(variable):
            return "zh" if value.lower().startswith("zh") else "en"
    return "zh" if (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"


def settings() -> Settings:
    """Read the environment now; cheap, so nobody keeps a stale copy."""
    home = os.environ.get("STARRY_HOME")
    return Settings(
        home=Path(home).expanduser() if home else Path.home() / ".starrynight",
        lang=terminal_language(),
        producer=os.environ.get("STARRY_PRODUCER", "Starry Night"),
        hub_endpoint=os.environ.get("HF_ENDPOINT"),
    )
