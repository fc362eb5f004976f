"""``Gallery``: adds pictures, finds them, and proves that none is lost. Interfaces use this class.

It combines the modules of the package: files, database, insert, search, annotations, trash, thumbs, integrity
and exchange.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from sqlalchemy import URL, Select, func, make_url, select

from starrynight.gallery import exchange, integrity
from starrynight.gallery.annotations import Annotations, ambiguous_id, unknown_picture
from starrynight.gallery.database import BrokenDatabase, Database, set_aside
from starrynight.gallery.descriptions import Descriptions, counted
from starrynight.gallery.exchange import ExportResult, ImportedFile, ImportResult
from starrynight.gallery.files import Files
from starrynight.gallery.insert import AlsoWrite, add_picture, parse_file
from starrynight.gallery.integrity import IntegrityReport, RebuildResult
from starrynight.gallery.salvage import restore
from starrynight.gallery.schema import Row, pictures, recipes
from starrynight.gallery.search import FACETS, ROWS, Layout, Page, Query, Search, fetch_rows
from starrynight.gallery.snapshot import is_read_only
from starrynight.gallery.thumbs import Thumbs
from starrynight.gallery.trash import RETENTION, Trash
from starrynight.picture import Picture
from starrynight.progress import OnProgress
from starrynight.settings import settings
from starrynight.storage import check_writable


class Gallery:
    """``place``: a folder, created if needed, or the URL of a database (``postgresql+psycopg://…``); by default that of
    STARRY_GALLERY, else ``gallery`` in STARRY_HOME. ``files``: where the pictures are stored, a folder or an fsspec URL
    (``s3://bucket/pictures``) with ``options`` for it; by default that of STARRY_GALLERY_FILES, if ``place`` is the default
    too, else ``pictures`` beside the database.

    ``lock_timeout``: seconds that a writer waits for another, 30 by default.

    Any number of threads and processes may use one gallery. Opening it migrates an older database. Raises
    ``StorageError`` if the database cannot be opened or was made by a newer version, and ``BrokenDatabase``
    if it is damaged (see ``repair``).
    """

    def __init__(
        self,
        place: Path | str | None = None,
        files: Path | str | None = None,
        lock_timeout: float | None = None,
        **options: Any,
    ) -> None:
        place, files = _defaults(place, files)
        self.place, self.files_at = (
            _absolute(place),
            _absolute(files),
        )  # arguments for opening it in another process
        url, folder = _locate(place)
        self.identity = gallery_identity(self.place, self.files_at)
        self.files = Files(files or folder / "pictures", **options)
        self.database = Database(url, lock_timeout)
        self.thumbs = Thumbs(folder / "thumbs")
        self.annotations = Annotations(self.database)
        self.descriptions = Descriptions(self.database)
        self.trash = Trash(self.database, self.files, self.thumbs)
        self._search = Search(self.database)

    @classmethod
    def repair(
        cls,
        place: Path | str | None = None,
        files: Path | str | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> RebuildResult:
        """``rebuild``, also of a gallery whose database is broken: that is renamed, never deleted, and a new one is made
        from the files. Annotations and jobs that can still be read in the broken one are written into the new one.
        """
        try:
            with cls(place, files, **options) as gallery:
                gallery.database.check()
                return gallery.rebuild(on_progress)
        except BrokenDatabase as broken:
            if is_read_only(Path(broken.path)):
                raise
            aside = set_aside(broken.path)
        with cls(place, files, **options) as gallery:
            result = gallery.rebuild(on_progress)
            return replace(result, salvaged=restore(gallery.database, aside))

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    # Adding and reading pictures

    def add(self, picture: Picture, kind: str = "png", also: AlsoWrite | None = None) -> Row:
        """Add a picture as a png, jpeg or webp file; an equal picture gives the same row.

        ``also(connection, picture=id)`` writes related rows in the same transaction. Raises ``StorageError``
        if the disk is full or the place is not writable. Then there is no partial file; if only the database
        could not be written, the complete file remains and ``rebuild`` adds its row.
        """
        self.database.require_writable()
        data = picture.encode(kind)
        parsed = parse_file(data, pixels=picture.pixels)
        add_picture(self.database, self.files, data, parsed, also=also)
        return self.get(parsed.columns["id"])

    def add_file(self, data: bytes) -> ImportedFile:
        """Add a picture's file as it is, of any tool and with or without a recipe; a format that the gallery does not keep
        becomes a PNG. Raises ``BadFile`` for what is no whole picture, or ``StorageError``.
        """
        self.database.require_writable()
        return exchange.import_file(self.database, self.files, data)

    def save(self, picture: Picture) -> Path:
        """Add a picture and return the path of its file: the callback that ``Studio`` takes."""
        return Path(self.path(self.add(picture)))

    def get(self, picture: str) -> Row:
        """The row with this id or unique prefix of 4 characters or more. Raises ``MissingFile``."""
        if len(picture) > 32:  # no id is longer, and SQLite refuses long patterns
            raise unknown_picture(picture)
        prefix = pictures.c.id.startswith(picture, autoescape=True)
        with self.database.reading() as connection:
            rows = fetch_rows(
                connection, ROWS.where(prefix if len(picture) >= 4 else pictures.c.id == picture).limit(2)
            )
        if len(rows) != 1:
            raise ambiguous_id(picture) if rows else unknown_picture(picture)
        return rows[0]

    def recipe(self, picture: str) -> dict[str, Any]:
        """The recipe in the file of the picture with this id; see ``picture.make_recipe`` for our own."""
        statement = select(recipes.c.recipe).join(pictures).where(pictures.c.id == picture)
        with self.database.reading() as connection:
            found = connection.execute(statement).scalar()
        if found is None:
            raise unknown_picture(picture)
        return json.loads(found)

    def path(self, row: Row) -> str:
        """The file's path, on this machine or in the bucket."""
        return self.files.path(self.files.name(row.id, row.format))

    def read(self, row: Row) -> bytes:
        """The file's bytes. Raises ``MissingFile`` or, if the file cannot be read, ``StorageError``."""
        return self.files.read(self.files.name(row.id, row.format))

    def thumbnail(self, row: Row, size: int = 512) -> bytes:
        """WebP, at most ``size`` (256, 512 or 1024) pixels on the longer side; cached after first use."""
        return self.thumbs.get(row.id, size, lambda: self.read(row))

    # Searching

    def search(self, query: Query | str = "", after: str | None = None, limit: int = 60) -> Page:
        """A page of results; ``after`` is the previous page's ``next``. A string is a query's ``text``."""
        return self._search.page(_query(query), after, limit)

    def count(self, query: Query | str = "") -> int:
        """The number of results."""
        return self._search.count(_query(query))

    def by_meaning(
        self, vector: np.ndarray, by: str, query: Query | str = "", limit: int = 12
    ) -> list[tuple[Row, float]]:
        """The pictures nearest to a text's vector, with their cosines; see ``Search.by_meaning``."""
        return self._search.by_meaning(_query(query), vector, by, limit)

    def layout(self, query: Query | str = "") -> Layout:
        """The numbers and aspect ratios of all results, in order."""
        return self._search.layout(_query(query))

    def iter_rows(self, query: Query | str = "") -> Iterator[Row]:
        """All results, read page by page."""
        after: str | None = None
        while True:
            page = self.search(query, after, limit=500)
            yield from page.rows
            if (after := page.next) is None:
                return

    def facets(self) -> dict[str, dict[str, int]]:
        """For each of ``FACETS``, its values and their number of pictures outside the trash, most frequent
        first; ``shows``: what eyes saw."""
        with self.database.reading() as connection:
            found = {name: dict(connection.execute(_count_values(name)).tuples().all()) for name in FACETS}
            return found | {"shows": counted(connection)}

    # Integrity and maintenance

    def check_writable(self) -> None:
        """Check that a picture can be added, before one is painted. Raises ``StorageError``."""
        self.database.check()
        self.database.require_writable()
        if self.files.local:
            check_writable(self.files.local / "picture")

    def verify(self, on_progress: OnProgress | None = None) -> IntegrityReport:
        """Check that rows and files agree. Reads every file and changes nothing."""
        return integrity.verify(self.database, self.files, on_progress)

    def rebuild(self, on_progress: OnProgress | None = None) -> RebuildResult:
        """Make the index again from the files. Files without a row get one; annotations are kept."""
        self.database.require_writable()
        self.trash.delete_files()
        self.thumbs.clear()
        result = integrity.rebuild(self.database, self.files, on_progress)
        self._search = Search(self.database)  # drops cached descriptors, which the rebuild may have changed
        return result

    def delete_expired(self, older_than: timedelta = RETENTION) -> int:
        """Permanently delete what has been in the trash this long; return the number. The server runs it
        daily."""
        return self.trash.empty(older_than)

    # Import and export

    def import_pictures(
        self, source: Path | str, bare: bool = False, on_progress: OnProgress | None = None
    ) -> ImportResult:
        """Add the pictures of a folder, byte for byte. A file that is no picture or has no recipe is refused
        with the reason, and the import goes on; ``bare`` accepts pictures without a recipe."""
        self.database.require_writable()
        return exchange.import_pictures(self.database, self.files, Path(source), bare, on_progress)

    def export(
        self,
        query: Query | str,
        to: Path | str | BinaryIO,
        on_progress: OnProgress | None = None,
        lang: str = "en",
    ) -> ExportResult:
        """Write the results of ``query`` as a zip of ``pictures/``, ``recipes/`` and ``index.html``, a page
        in ``lang``. ``to`` is a stream or a path, which receives the complete zip or nothing."""
        rows = ((row, self.recipe(row.id)) for row in self.iter_rows(query))
        to = Path(to) if isinstance(to, str) else to
        return exchange.export_zip(self.files, rows, self.count(query), to, on_progress, lang)

    def export_rows(self, rows: Sequence[Row], to: BinaryIO, lang: str = "en") -> ExportResult:
        """``export`` of these pictures, in this order."""
        pairs = ((row, self.recipe(row.id)) for row in rows)
        return exchange.export_zip(self.files, pairs, len(rows), to, lang=lang)


def gallery_identity(place: Path | str | None = None, files: Path | str | None = None) -> str:
    """16 hex digits that tell a gallery of this machine from others; nothing is opened."""
    place, files = _defaults(place, files)
    url, folder = _locate(place)
    database = make_url(url).render_as_string(hide_password=True)
    text = "\0".join((socket.gethostname(), database, _absolute(files) or str(folder / "pictures")))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _defaults(
    place: Path | str | None, files: Path | str | None
) -> tuple[Path | str | None, Path | str | None]:
    if place is None:
        return settings().gallery, files or settings().gallery_files
    return place, files


def _absolute(place: Path | str | None) -> str | None:
    """An absolute path, because another process may have another working directory; a URL stays as it is."""
    if place is None or "://" in str(place):
        return None if place is None else str(place)
    return str(Path(place).expanduser().absolute())


def _locate(place: Path | str | None) -> tuple[str | URL, Path]:
    """The database's URL, and the local folder for thumbnails and, by default, pictures."""
    if isinstance(place, str) and "://" in place:
        return place, settings().home / "gallery"
    folder = settings().home / "gallery" if place is None else Path(place).expanduser()
    return URL.create("sqlite", database=str(folder.absolute() / "gallery.db")), folder.absolute()


def _query(query: Query | str) -> Query:
    return Query(text=query) if isinstance(query, str) else query


def _count_values(name: str) -> Select[str, int]:
    column, count = pictures.c[name], func.count()
    present = (column.is_not(None), column != "", pictures.c.trashed_at.is_(None))
    return select(column, count).where(*present).group_by(column).order_by(count.desc(), column)
