"""``Gallery``: the one thing a door needs to hang pictures, find them, and prove that none is lost.

It only joins its rooms: files (bytes), database (rows), search, marks, trash, thumbs, checking, exchange.
Knows nothing of torch, of painting, or of who is looking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from sqlalchemy import URL, Select, func, select

from starrynight.gallery import exchange, integrity
from starrynight.gallery.annotations import Marks, ambiguous, unknown
from starrynight.gallery.database import BrokenDatabase, Database, set_aside
from starrynight.gallery.exchange import Exported, Gathered
from starrynight.gallery.files import Files
from starrynight.gallery.insert import Also, keep
from starrynight.gallery.integrity import OnPicture, Rebuilt, Report
from starrynight.gallery.rows import Row, describe
from starrynight.gallery.schema import pictures, recipes
from starrynight.gallery.search import ROWS, Page, Query, Search, fill
from starrynight.gallery.thumbs import Thumbs
from starrynight.gallery.trash import KEPT_FOR, Trash
from starrynight.picture import Picture
from starrynight.settings import settings

FACETS = ("style", "model", "precision", "verdict", "tool")


class Gallery:
    """``place``: a folder (made if need be), by default ``gallery`` in STARRY_HOME, or a database's URL
    (``postgresql+psycopg://…``). ``files``: where the pictures are, a folder or an fsspec URL (``s3://bucket/pictures``)
    with ``options`` for it; by default ``pictures`` beside the database.

    May be used from any number of threads and processes. Opening migrates an older database. Raises ``StorageError``
    if it cannot be opened or was made by a newer version (``BrokenDatabase`` if it is broken; see ``mend``).
    """

    def __init__(
        self, place: Path | str | None = None, files: Path | str | None = None, **options: Any
    ) -> None:
        self.place, self.files_at = _spelt(place), _spelt(files)  # for who opens it in another process
        url, folder = _settle(place)
        self.files = Files(files or folder / "pictures", **options)
        self.database = Database(url)
        self.thumbs = Thumbs(folder / "thumbs")
        self.marks = Marks(self.database)
        self.trash = Trash(self.database, self.files, self.thumbs)
        self._search = Search(self.database)

    @classmethod
    def mend(
        cls,
        place: Path | str | None = None,
        files: Path | str | None = None,
        on_picture: OnPicture | None = None,
        **options: Any,
    ) -> Rebuilt:
        """``rebuild``, even of a gallery that cannot be opened: a broken database is set aside (renamed, never deleted)
        and a new one made from the files. What people added to rows stays behind in the broken one."""
        try:
            with cls(place, files, **options) as gallery:
                return gallery.rebuild(on_picture)
        except BrokenDatabase as broken:
            set_aside(broken.path)
        with cls(place, files, **options) as gallery:
            return gallery.rebuild(on_picture)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    # Hanging and looking

    def hang(self, picture: Picture, kind: str = "png", also: Also | None = None) -> Row:
        """Hang a picture as a png, jpeg or webp file; the same picture twice is one row. ``also`` (connection, picture)
        writes what belongs to it in the same transaction.

        Raises ``StorageError`` for a full disk or a place that may not be written: then nothing is left half-written
        (if only the database had no room, the whole file stays, and ``rebuild`` gives it its row).
        """
        data = picture.encode(kind)
        facts = describe(data, pixels=picture.pixels)
        keep(self.database, self.files, data, facts, also=also)
        return self.get(facts.columns["id"])

    def place_of(self, picture: Picture) -> Path:
        """Hang it and say where, for those who only need the place."""
        return Path(self.path(self.hang(picture)))

    def get(self, picture: str) -> Row:
        """The row with this id, or whose id alone begins so. Raises ``MissingFile``."""
        fits = (
            pictures.c.id.startswith(picture, autoescape=True)
            if len(picture) >= 4
            else pictures.c.id == picture
        )
        with self.database.reading() as connection:
            rows = fill(connection, ROWS.where(fits).limit(2))
        if len(rows) != 1:
            raise ambiguous(picture) if rows else unknown(picture)
        return rows[0]

    def recipe(self, picture: str) -> dict[str, Any]:
        """Everything the file says of its making: for our own pictures, ``picture.make_recipe``'s."""
        statement = select(recipes.c.recipe).join(pictures).where(pictures.c.id == picture)
        with self.database.reading() as connection:
            found = connection.execute(statement).scalar()
        if found is None:
            raise unknown(picture)
        return json.loads(found)

    def path(self, row: Row) -> str:
        """Where the file is: a path on this machine, or one in the bucket."""
        return self.files.path(self.files.name(row.id, row.format))

    def read(self, row: Row) -> bytes:
        """The file. Raises ``MissingFile`` if it is gone, ``StorageError`` if it cannot be read."""
        return self.files.read(self.files.name(row.id, row.format))

    def thumbnail(self, row: Row, size: int = 512) -> bytes:
        """WebP, ``size`` (256, 512 or 1024) pixels on the longer side; made on the first look, and kept."""
        return self.thumbs.get(row.id, size, lambda: self.read(row))

    # Finding

    def search(self, query: Query | str = "", after: str | None = None, limit: int = 60) -> Page:
        """A page of what ``query`` finds; ``after`` is the last page's ``next``. A string is a query's ``text``."""
        return self._search.page(_query(query), after, limit)

    def count(self, query: Query | str = "") -> int:
        return self._search.count(_query(query))

    def every(self, query: Query | str = "") -> Iterator[Row]:
        """All rows, page by page."""
        after: str | None = None
        while True:
            page = self.search(query, after, limit=500)
            yield from page.rows
            if (after := page.next) is None:
                return

    def facets(self) -> dict[str, dict[str, int]]:
        """For each of ``FACETS``, its values outside the trash and how many pictures have each, most frequent first."""
        with self.database.reading() as connection:
            return {name: dict(connection.execute(_counted(name)).tuples().all()) for name in FACETS}

    # Keeping whole

    def verify(self, on_picture: OnPicture | None = None) -> Report:
        """Prove that rows and files agree; reads every file."""
        return integrity.verify(self.database, self.files, on_picture)

    def rebuild(self, on_picture: OnPicture | None = None) -> Rebuilt:
        """Make the index again from the files; orphans get rows, what people added to rows stays."""
        self.trash.bury()
        self.thumbs.clear()
        rebuilt = integrity.rebuild(self.database, self.files, on_picture)
        self._search = Search(self.database)  # what it remembers of looks may be old
        return rebuilt

    def expire(self, kept_for: timedelta = KEPT_FOR) -> int:
        """Part for good from what has lain in the trash so long; a server does this once a day."""
        return self.trash.empty(kept_for)

    # From elsewhere and to elsewhere

    def gather(
        self, source: Path | str, bare: bool = False, on_file: Callable[[str], None] | None = None
    ) -> Gathered:
        """Take in the pictures of a folder, byte for byte. What is no picture or carries no recipe is refused with its
        reason and the rest goes on; ``bare`` takes pictures without a recipe too."""
        return exchange.gather(self.database, self.files, Path(source), bare, on_file)

    def export(
        self,
        query: Query | str,
        to: Path | str | BinaryIO,
        on_picture: Callable[[str], None] | None = None,
        lang: str = "en",
    ) -> Exported:
        """What ``query`` finds as a zip: ``pictures/``, ``recipes/``, and ``index.html``, a page in ``lang`` to look at
        them. A path gets the whole zip or none."""
        rows = ((row, self.recipe(row.id)) for row in self.every(query))
        return exchange.export(self.files, rows, Path(to) if isinstance(to, str) else to, on_picture, lang)


def _spelt(place: Path | str | None) -> str | None:
    """Absolute, unless it is a URL: another process may stand in another folder."""
    if place is None or "://" in str(place):
        return None if place is None else str(place)
    return str(Path(place).expanduser().absolute())


def _settle(place: Path | str | None) -> tuple[str | URL, Path]:
    """The database's URL, and the folder for what is kept on this machine."""
    if isinstance(place, str) and "://" in place:
        return place, settings().home / "gallery"
    folder = settings().home / "gallery" if place is None else Path(place).expanduser()
    return URL.create("sqlite", database=str(folder.absolute() / "gallery.db")), folder.absolute()


def _query(query: Query | str) -> Query:
    return Query(text=query) if isinstance(query, str) else query


def _counted(name: str) -> Select[str, int]:
    column, count = pictures.c[name], func.count()
    there = (column.is_not(None), column != "", pictures.c.trashed_at.is_(None))
    return select(column, count).where(*there).group_by(column).order_by(count.desc(), column)
