"""``Keys``: the bearer keys of a gallery's service. Programs send one as ``Authorization: Bearer KEY``.

A key is ``starry-ID-SECRET``. The database holds the id and the SHA-256 of the secret. The secret is 256 random bits, so
that a fast hash is enough: it cannot be guessed from its hash as a password can (OWASP, Secrets Management).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select, update

from starrynight.errors import BadRequest, UnknownName
from starrynight.gallery.database import Database
from starrynight.gallery.schema import from_milliseconds
from starrynight.i18n import Text
from starrynight.jobs.queue import now_ms
from starrynight.jobs.schema import jobs, keys
from starrynight.text import excerpt

PREFIX = "starry-"
SHAPE = re.compile(rf"{PREFIX}([0-9a-f]{{8}})-([\w-]{{43}})", re.ASCII)
MAX_NAME, MAX_LIMIT = 64, 1_000_000


@dataclass(frozen=True)
class Key:
    """``rate``: requests a minute; ``queue``: jobs of this key that may wait or be painted at once; None is no limit."""

    id: str
    name: str
    rate: int | None
    queue: int | None
    created_at: datetime
    revoked_at: datetime | None

    def to_dict(self) -> dict[str, Any]:
        times = {"created_at": self.created_at.isoformat(),
                 "revoked_at": self.revoked_at and self.revoked_at.isoformat()}  # fmt: skip
        return {"id": self.id, "name": self.name, "rate": self.rate, "queue": self.queue} | times


class Keys:
    """Makes, lists, finds and revokes keys. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def make(self, name: str, rate: int | None = None, queue: int | None = None) -> tuple[Key, str]:
        """A new key and its text, which can be read only here.

        Raises ``BadRequest`` for a name that is taken, empty or longer than 64 characters, or a limit below 1.
        """
        name = _checked_name(name)
        for option, limit in (("--rate", rate), ("--queue", queue)):
            if limit is not None and not 1 <= limit <= MAX_LIMIT:
                raise BadRequest(
                    f"{option} is a number from 1 to {MAX_LIMIT}.", f"{option} 应为 1 到 {MAX_LIMIT} 的数。"
                )
        identity, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        with self.database.writing() as connection:
            taken = select(keys.c.id).where(keys.c.name == name, keys.c.revoked_at.is_(None))
            if connection.execute(taken).scalar() is not None:
                raise BadRequest(
                    f"There is a key called “{name}” already; choose another name, or revoke it first.",
                    f"已有名为“{name}”的密钥；请换一个名字，或先吊销它。",
                )
            connection.execute(
                insert(keys).values(
                    id=identity, name=name, hash=_hash(secret), rate=rate, queue=queue, created_at=now_ms()
                )
            )
        return self._read(keys.c.id == identity)[0], f"{PREFIX}{identity}-{secret}"

    def all(self) -> list[Key]:
        """All keys, revoked ones too, in the order in which they were made."""
        return self._read()

    def some_in_force(self) -> bool:
        """Whether there is a key that is not revoked."""
        return bool(self._read(keys.c.revoked_at.is_(None)))

    def revoke(self, name: str) -> Key:
        """Revoke the key of this id or name. Its jobs stay. Raises ``UnknownName`` if no key in force has it."""
        live = keys.c.revoked_at.is_(None)
        found = self._read(live, (keys.c.id == name) | (keys.c.name == name))
        if not found:
            known = [known for key in self._read(live) for known in (key.id, key.name)]
            raise UnknownName(Text("key", "密钥"), excerpt(name), known)
        with self.database.writing() as connection:
            connection.execute(update(keys).where(keys.c.id == found[0].id).values(revoked_at=now_ms()))
        return self._read(keys.c.id == found[0].id)[0]

    def find(self, text: str) -> Key | None:
        """The key in force with this text, or None."""
        shape = SHAPE.fullmatch(text)
        if shape is None:
            return None
        with self.database.reading() as connection:
            stored = connection.execute(select(keys.c.hash).where(keys.c.id == shape[1])).scalar()
        if stored is None or not hmac.compare_digest(stored, _hash(shape[2])):
            return None
        return next(iter(self._read(keys.c.id == shape[1], keys.c.revoked_at.is_(None))), None)

    def jobs(self) -> dict[str, int]:
        """Key id → number of the jobs that it has submitted and that are not deleted yet."""
        counted = select(jobs.c.key, func.count()).where(jobs.c.key.is_not(None)).group_by(jobs.c.key)
        with self.database.reading() as connection:
            return dict(connection.execute(counted).tuples().all())

    def _read(self, *where: ColumnElement[bool]) -> list[Key]:
        with self.database.reading() as connection:
            rows = connection.execute(select(keys).where(*where).order_by(keys.c.created_at, keys.c.id)).all()
        return [
            Key(row.id, row.name, row.rate, row.queue, from_milliseconds(row.created_at),
                from_milliseconds(row.revoked_at) if row.revoked_at else None)
            for row in rows
        ]  # fmt: skip


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise BadRequest(
            f"A key's name is one line of 1 to {MAX_NAME} characters.",
            f"密钥的名字应为一行，1 到 {MAX_NAME} 个字符。",
        )
    return name


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
