"""Annotations of pictures by people: stars, notes, tags and collections.

Text is stored as typed, markup included; an interface escapes it for display. Control characters and halves of
characters are refused, because leaving them out could empty a note in silence.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Select, Table, delete, func, select, update

from starrynight.errors import BadRequest, MissingFile, NameTaken
from starrynight.gallery.database import Database
from starrynight.gallery.insert import insert_or_ignore, search_tokens
from starrynight.gallery.schema import collected, collections, pictures, recipes, tags
from starrynight.i18n import Text
from starrynight.text import UNPRINTABLE, clean, unix_newlines

MAX_TAG, MAX_COLLECTION, MAX_NOTE = 64, 100, 4000  # characters
MAX_TAGS = 64  # of one picture
_NOTE, _TAG, _COLLECTION = Text("note", "备注"), Text("tag", "标签"), Text("collection", "画集")


class Annotations:
    """Each method changes all the pictures it is given or none, and raises ``MissingFile`` for an unknown id
    or collection and ``BadRequest`` for an invalid name or note."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def star(self, ids: Iterable[str], starred: bool = True) -> None:
        with self.database.writing() as connection:
            chosen = pictures.c.number.in_(find_numbers(connection, ids))
            connection.execute(update(pictures).where(chosen).values(starred=starred))

    def note(self, picture: str, note: str) -> None:
        """Replace the picture's note; "" removes it."""
        note = _typed(note, _NOTE)
        if len(note) > MAX_NOTE:
            raise BadRequest(
                f"A note has at most {MAX_NOTE} characters, not {len(note)}.",
                f"备注最多 {MAX_NOTE} 个字符，现在有 {len(note)} 个。",
            )
        with self.database.writing() as connection:
            (number,) = find_numbers(connection, [picture])
            connection.execute(update(pictures).where(pictures.c.number == number).values(note=note))
            update_search_tokens(connection, [number])

    def tag(self, ids: Iterable[str], *names: str) -> None:
        cleaned = [_clean_name(name, MAX_TAG, _TAG) for name in names]
        with self.database.writing() as connection:
            chosen = find_numbers(connection, ids)
            rows = [{"number": number, "name": name} for number in chosen for name in cleaned]
            _insert_new(connection, tags, rows)
            counts = select(func.count()).where(tags.c.number.in_(chosen)).group_by(tags.c.number)
            if max(connection.execute(counts).scalars(), default=0) > MAX_TAGS:
                raise BadRequest(f"A picture has at most {MAX_TAGS} tags.", f"一幅画最多 {MAX_TAGS} 个标签。")
            update_search_tokens(connection, chosen)

    def untag(self, ids: Iterable[str], *names: str) -> None:
        with self.database.writing() as connection:
            chosen = find_numbers(connection, ids)
            connection.execute(delete(tags).where(tags.c.number.in_(chosen), tags.c.name.in_(names)))
            update_search_tokens(connection, chosen)

    def collect(self, collection: str, ids: Iterable[str] = ()) -> None:
        """Add pictures to a collection, which is created if it does not exist."""
        name = _clean_name(collection, MAX_COLLECTION, _COLLECTION)
        with self.database.writing() as connection:
            _insert_new(connection, collections, [{"name": name}])
            key = _find_collection(connection, name)
            rows = [{"collection": key, "number": number} for number in find_numbers(connection, ids)]
            _insert_new(connection, collected, rows)

    def uncollect(self, collection: str, ids: Iterable[str]) -> None:
        with self.database.writing() as connection:
            inside = collected.c.collection == _find_collection(connection, collection)
            chosen = find_numbers(connection, ids)
            connection.execute(delete(collected).where(inside, collected.c.number.in_(chosen)))

    def rename_collection(self, collection: str, new_name: str) -> None:
        name = _clean_name(new_name, MAX_COLLECTION, _COLLECTION)
        with self.database.writing() as connection:
            key = _find_collection(connection, collection)
            taken = connection.execute(select(collections.c.collection).where(collections.c.name == name))
            if taken.scalar() not in (None, key):
                raise NameTaken(f"There is already a collection “{name}”.", f"已经有名为“{name}”的画集。")
            connection.execute(update(collections).where(collections.c.collection == key).values(name=name))

    def delete_collection(self, collection: str) -> list[str]:
        """Delete a collection but not its pictures, whose ids are returned."""
        with self.database.writing() as connection:
            key = _find_collection(connection, collection)
            inside = select(pictures.c.id).join(collected).where(collected.c.collection == key)
            ids = list(connection.execute(inside.order_by(pictures.c.number)).scalars())
            connection.execute(delete(collections).where(collections.c.collection == key))
        return ids

    def all_tags(self) -> dict[str, int]:
        """Each tag and its number of pictures outside the trash."""
        return self._count(select(tags.c.name, func.count()).join(pictures).group_by(tags.c.name))

    def all_collections(self) -> dict[str, int]:
        """Each collection and its number of pictures outside the trash, which may be 0."""
        with self.database.reading() as connection:
            empty = dict.fromkeys(connection.execute(select(collections.c.name)).scalars(), 0)
        count = select(collections.c.name, func.count()).select_from(collected)
        count = count.join(collections).join(pictures).group_by(collections.c.name)
        return dict(sorted((empty | self._count(count)).items()))

    def _count(self, statement: Select[str, int]) -> dict[str, int]:
        with self.database.reading() as connection:
            found = connection.execute(statement.where(pictures.c.trashed_at.is_(None))).all()
            return dict(sorted((name, count) for name, count in found))


def find_numbers(connection: Connection, ids: Iterable[str]) -> list[int]:
    """The numbers of the pictures with these ids. Raises ``MissingFile`` for the first unknown id."""
    wanted = list(dict.fromkeys(ids))
    found: dict[str, int] = {}
    for at in range(0, len(wanted), 500):  # a statement has a limited number of parameters
        batch = select(pictures.c.id, pictures.c.number).where(pictures.c.id.in_(wanted[at : at + 500]))
        found |= dict(connection.execute(batch).tuples().all())
    for picture in wanted:
        if picture not in found:
            raise unknown_picture(picture)
    return [found[picture] for picture in wanted]


def unknown_picture(picture: str) -> MissingFile:
    shown = clean(picture)[:40]
    return MissingFile(
        f"There is no picture “{shown}” in this gallery; search for it with `starry gallery search`.",
        f"这座画廊里没有图片“{shown}”；可用 `starry gallery search` 查找。",
    )


def ambiguous_id(prefix: str) -> MissingFile:
    shown = clean(prefix)[:40]
    return MissingFile(
        f"The ids of several pictures begin with “{shown}”; type more characters of the id.",
        f"有好几幅图片的 id 以“{shown}”开头；请多写几个字符。",
    )


def update_search_tokens(connection: Connection, numbers: Iterable[int]) -> None:
    """Write the search tokens of these pictures again, after a change of prompt, tags or note."""
    for number in numbers:
        joined = select(pictures, recipes.c.recipe).join(recipes).where(pictures.c.number == number)
        columns = connection.execute(joined).mappings().one()
        names = connection.execute(select(tags.c.name).where(tags.c.number == number)).scalars()
        words = search_tokens(columns, columns["recipe"], columns["note"], *names)
        connection.execute(update(recipes).where(recipes.c.number == number).values(words=words))


def _insert_new(connection: Connection, table: Table, rows: list[dict]) -> None:
    """Insert ``rows``; those that exist stay unchanged."""
    if rows:
        connection.execute(insert_or_ignore(connection, table), rows)


def _typed(value: str, what: Text) -> str:
    """``value`` with "\\n" for every end of a line, and no space around it. Raises ``BadRequest``."""
    value = unix_newlines(value)
    if found := UNPRINTABLE.search(value):
        code = f"U+{ord(found[0]):04X}"
        raise BadRequest(
            f"The {what.en} contains an unprintable character ({code} at position {found.start()}); remove it.",
            f"{what.zh}含有不可打印的字符（{code}，位置 {found.start()}）；请删去它。",
        )
    return value.strip()


def _clean_name(value: str, max_length: int, what: Text) -> str:
    name = " ".join(_typed(value, what).split())
    if not 0 < len(name) <= max_length:
        raise BadRequest(
            f"The name of a {what.en} has 1 to {max_length} characters.",
            f"{what.zh}的名字应有 1 到 {max_length} 个字符。",
        )
    return name


def _find_collection(connection: Connection, name: str) -> int:
    found = connection.execute(select(collections.c.collection).where(collections.c.name == name)).scalar()
    if found is None:
        shown = clean(name)[:MAX_COLLECTION]
        raise MissingFile(f"There is no collection “{shown}”.", f"没有名为“{shown}”的画集。")
    return found
