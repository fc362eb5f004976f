"""The gallery's database, SQLite in WAL mode or Postgres by its URL: opened, migrated, read and written.

SQLite's WAL mode lets readers continue while a picture is added. Every access goes through ``reading`` or
``writing``, which turn database errors into a ``StorageError`` with one sentence.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, make_url, text

from starrynight.errors import BadRequest, Busy, MissingPackage, StorageError, reason
from starrynight.gallery.snapshot import Snapshot, is_read_only
from starrynight.storage import make_folder

LOCK_TIMEOUT = 30  # seconds to wait for another writer
_MIGRATION_LOCK = 5047  # of Postgres; any number that no other program locks
STEPS = Path(__file__).with_name("migrations") / "versions"


class BrokenDatabase(StorageError):
    """The file at ``path`` is damaged or not a database."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"The gallery's database {path} is broken; `starry gallery rebuild` makes a new one from the pictures.",
            f"画廊数据库 {path} 已损坏；`starry gallery rebuild` 会根据图片重建。",
        )
        self.path = path


class ReadOnlyDatabase(StorageError):
    """The medium of the database at ``path`` cannot be written to."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"The gallery {path} cannot be written to, only looked at, searched and verified; change its permissions, "
            "or copy its folder to another place.",
            f"画廊 {path} 不可写入，只能查看、搜索和校验；请修改其权限，或把它的文件夹复制到别处。",
        )


class Database:
    """``url`` as SQLAlchemy reads it: ``sqlite:////home/me/gallery.db``. Opening creates or migrates the tables.

    Raises ``StorageError`` if the database cannot be opened, is damaged, or was made by a newer version, and
    ``MissingPackage`` if its driver is not installed. ``lock_timeout``: seconds to wait for another writer.
    ``read_only``: the medium cannot be written to; a copy of the database is read (snapshot.py).
    """

    def __init__(self, url: str | URL, lock_timeout: float | None = None) -> None:
        self.url = make_url(url)
        self.lock_timeout = LOCK_TIMEOUT if lock_timeout is None else lock_timeout
        self.place = self.url.database if self.is_sqlite else self.url.render_as_string(hide_password=True)
        self.damaged = False
        self._snapshot: Snapshot | None = None
        if self.is_sqlite and self.url.database:
            path = Path(self.url.database)
            self._make_folder(path.parent)
            self._snapshot = Snapshot(path) if is_read_only(path) else None
        self.engine = self._engine()
        with self._translate_errors():
            if self.is_sqlite:
                self._use_wal()
            self._migrate()

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def read_only(self) -> bool:
        return self._snapshot is not None

    @property
    def writable(self) -> bool:
        return not (self.damaged or self.read_only)

    def require_writable(self) -> None:
        """Raise ``BrokenDatabase`` or ``ReadOnlyDatabase`` if nothing may be written."""
        if self.read_only:
            raise ReadOnlyDatabase(str(self.place))
        if self.damaged:
            raise BrokenDatabase(str(self.place))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection with a consistent view of the database."""
        with self._translate_errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction. On SQLite it holds the write lock from the start."""
        self.require_writable()
        with self.checking() as connection:
            yield connection

    @contextmanager
    def checking(self) -> Iterator[Connection]:
        """A transaction for SQLite's own checks, which are INSERTs that change nothing."""
        options = {"writes": self.is_sqlite}
        with self._translate_errors(), self.engine.execution_options(**options).begin() as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()
        if self._snapshot is not None:
            self._snapshot.close()

    def _make_folder(self, folder: Path) -> None:
        try:
            make_folder(folder)
        except OSError as error:
            raise StorageError(
                f"The gallery's folder {folder} cannot be made: {error.strerror}; choose another place.",
                f"无法创建画廊文件夹 {folder}：{reason(error)[1]}；请换一个位置。",
            ) from error

    def _engine(self) -> Engine:
        # A page of the gallery requests many thumbnails at once.
        options: dict[str, Any] = {"pool_size": 16, "max_overflow": 48}
        options |= (
            {"connect_args": {"timeout": self.lock_timeout}} if self.is_sqlite else {"pool_pre_ping": True}
        )
        url = self.url.set(database=str(self._snapshot.path)) if self._snapshot else self.url
        try:
            engine = create_engine(url, **options)
        except ModuleNotFoundError as error:
            raise MissingPackage(
                f"This database needs the package {error.name}; for Postgres: pip install 'starry-night[postgres]'.",
                f"这个数据库需要软件包 {error.name}；若为 Postgres：pip install 'starry-night[postgres]'。",
            ) from error
        except exc.ArgumentError as error:
            raise _unknown_database(str(self.place)) from error
        if self.is_sqlite:
            event.listen(engine, "connect", partial(_set_up_sqlite, self.lock_timeout))
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _use_wal(self) -> None:
        """Switch the file to WAL mode permanently. SQLite's timeout does not cover this lock, so retry."""
        deadline = time.monotonic() + self.lock_timeout
        connection = self.engine.raw_connection()
        try:
            while True:
                try:
                    connection.cursor().execute("PRAGMA journal_mode=WAL")
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
        finally:
            connection.close()

    def _migrate(self) -> None:
        steps = sorted(file.stem[:4] for file in STEPS.glob("[0-9]*.py"))
        with self.engine.begin() as connection:
            if self._version(connection, steps) == steps[-1]:
                return
        with self.engine.execution_options(writes=True).begin() as connection:
            if not self.is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            if self._version(connection, steps) != steps[-1]:  # another process may have migrated it
                _upgrade(connection)

    def _version(self, connection: Connection, steps: list[str]) -> str | None:
        if not inspect(connection).has_table("alembic_version"):
            return None
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if version is not None and version not in steps:
            raise StorageError(
                f"The gallery {self.place} was made by a newer Starry Night (step {version}; this version supports "
                f"{steps[-1]}); upgrade Starry Night to open it.",
                f"画廊 {self.place} 由更新版本的璀璨星河创建（步骤 {version}，当前版本支持到 {steps[-1]}）；"
                "请升级后再打开。",
            )
        return version

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.TimeoutError as error:  # every connection of the pool is taken
            raise self._busy() from error
        except exc.DBAPIError as error:
            raise self._storage_error(error.orig) from error
        except sqlite3.Error as error:  # raised while connecting, before SQLAlchemy wraps it
            raise self._storage_error(error) from error
        except UnicodeEncodeError as error:
            raise BadRequest(
                "The text contains half a character (a lone surrogate), which cannot be stored or searched; remove it.",
                "文字里有半个字符（落单的代理项），无法保存或搜索；请删去它。",
            ) from error

    def check(self) -> bool:
        """Whether SQLite's own quick check finds the file whole. A damaged one is only read from then on: ``writing``
        raises ``BrokenDatabase``."""
        if self.is_sqlite:
            try:
                with self.reading() as connection:
                    found = connection.execute(text("PRAGMA quick_check(1)")).scalar()
                self.damaged = found != "ok"
            except BrokenDatabase:
                self.damaged = True
        return not self.damaged

    def is_locked(self, wait: float = 1.0) -> bool:
        """Whether another program has held the write lock of SQLite for ``wait`` seconds."""
        if not self.is_sqlite or self.read_only or self.url.database in (None, "", ":memory:"):
            return False
        connection = sqlite3.connect(str(self.url.database), timeout=wait, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
        finally:
            connection.close()
        return False

    def _busy(self) -> Busy:
        seconds = f"{self.lock_timeout:g}"
        return Busy(
            f"The gallery {self.place} has been locked by another program for more than {seconds} s; try again.",
            f"画廊 {self.place} 被另一个程序占用超过 {seconds} 秒；请重试。",
        )

    def _storage_error(self, error: BaseException | None) -> StorageError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return BrokenDatabase(str(self.place))
        if name.startswith("SQLITE_BUSY"):
            return self._busy()
        if getattr(error, "sqlstate", None) == _POSTGRES_READ_ONLY:  # a standby, or a session set so
            return ReadOnlyDatabase(str(self.place))
        for start, (en, zh) in _SQLITE_ERRORS.items():
            if name.startswith(start):
                return StorageError(f"The gallery {self.place} {en}", f"画廊 {self.place} {zh}")
        reason = " ".join(str(error).split())
        return StorageError(
            f"The gallery's database {self.place} does not answer: {reason}.",
            f"画廊数据库 {self.place} 没有响应：{reason}。",
        )


_POSTGRES_READ_ONLY = "25006"
_SQLITE_ERRORS = {
    "SQLITE_FULL": ("cannot grow: the disk (or your quota) is full. Free some space and try again.",
                    "无法写入：磁盘（或配额）已满。请腾出空间后重试。"),
    "SQLITE_READONLY": ("may not be written to; change its permissions or choose another place.",
                        "没有写入权限；请修改权限，或换一个位置。"),
    "SQLITE_CANTOPEN": ("cannot be opened; check that its folder exists and may be written to.",
                        "无法打开；请确认它的文件夹存在并且可以写入。"),
    "SQLITE_IOERR": ("cannot be read or written: the disk failed or is full; free some space and try again.",
                     "无法读写：磁盘出错或已满；请腾出空间后重试。"),
}  # fmt: skip


def set_aside(path: str) -> str:
    """Rename a broken database together with its log, so that a new one can take its place; return its new path."""
    aside = f"{path}.broken-{time.strftime('%Y%m%d-%H%M%S')}"
    for part in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(path + part, aside + part)
    return aside


def _set_up_sqlite(lock_timeout: float, connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # _begin_sqlite sends BEGIN; the driver would send it too late
    for pragma in (f"busy_timeout={int(lock_timeout * 1000)}", "foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: SQLite rejects one of two readers that both become writers."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(STEPS.parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _unknown_database(url: str) -> StorageError:
    return StorageError(
        f"{url} is not a supported database; use a folder, sqlite:///… or postgresql+psycopg://…",
        f"不支持数据库 {url}；请使用文件夹、sqlite:///… 或 postgresql+psycopg://…",
    )
