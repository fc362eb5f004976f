"""What was seen in files outside the gallery, kept in the cache, so that ``starry describe`` goes on where it stopped.

One JSON object a line, ``{"id": the hash of the file's bytes, "content": ...}``; a line that a kill cut short is no object and is
left out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from starrynight.gallery.files import id_of
from starrynight.settings import settings
from starrynight.storage import make_folder, storing


class DescriptionCache:
    """What the eyes called ``by`` saw. ``fresh``: read nothing of it, and begin anew."""

    def __init__(self, by: str, fresh: bool = False) -> None:
        name = hashlib.sha256(by.encode()).hexdigest()[:16]
        self.path: Path = settings().cache / "described" / f"{name}.jsonl"
        self._known: dict[str, dict[str, Any]] = {}
        if fresh:
            self.path.unlink(missing_ok=True)
        elif self.path.exists():
            for line in self.path.read_text("utf-8", "replace").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._known[entry["id"]] = dict(entry["content"])
        except (ValueError, KeyError, TypeError):
            return

    def read(self, data: bytes) -> dict[str, Any] | None:
        """What was seen in a file with these bytes."""
        return self._known.get(id_of(data))

    def write(self, data: bytes, content: dict[str, Any]) -> None:
        """Keep what was seen. Raises StorageError."""
        line = json.dumps({"id": id_of(data), "content": content}, ensure_ascii=False)
        with storing(self.path):
            make_folder(self.path.parent)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}\n")
        self._known[id_of(data)] = content
