"""What people say of pictures: stars, notes, tags, collections. Text is kept as it was typed, markup and all, but for
control characters; showing it as text is the door's part.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Select, Table, delete, func, select, update

from starrynight.errors import BadRequest, MissingFile
from starrynight.gallery.database import Database
from starrynight.gallery.insert import insert_new
from starrynight.gallery.rows import tell
from starrynight.gallery.schema import collected, collections, pictures, recipes, tags
from starrynight.text import clean

LONGEST_TAG, LONGEST_COLLECTION, LONGEST_NOTE = 64, 100, 4000  # characters
MOST_TAGS = 64  # of one picture


class Marks:
    """Every verb takes ids of pictures, does all of them or none, and raises ``MissingFile`` for an unknown id."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def star(self, ids: Iterable[str], starred: bool = True) -> None:
        with self.database.writing() as connection:
            chosen = pictures.c.number.in_(numbers(connection, ids))
            connection.execute(update(pictures).where(chosen).values(starred=starred))

    def note(self, picture: str, note: str) -> None:
        """Replace the note; "" removes it."""
        note = clean(note)
        if len(note) > LONGEST_NOTE:
            raise BadRequest(
                f"A note has at most {LONGEST_NOTE} characters, not {len(note)}.",
                f"备注最多 {LONGEST_NOTE} 个字符，现在有 {len(note)} 个。",
            )
        with self.database.writing() as connection:
            (number,) = numbers(connection, [picture])
            connection.execute(update(pictures).where(pictures.c.number == number).values(note=note))
            reword(connection, [number])

    def tag(self, ids: Iterable[str], *names: str) -> None:
        cleaned = [_name(name, LONGEST_TAG, ("tag", "标签")) for name in names]
        with self.database.writing() as connection:
            chosen = numbers(connection, ids)
            rows = [{"number": number, "name": name} for number in chosen for name in cleaned]
            _add(connection, tags, rows)
            most = select(func.count()).where(tags.c.number.in_(chosen)).group_by(tags.c.number)
            if max(connection.execute(most).scalars(), default=0) > MOST_TAGS:
                raise BadRequest(
                    f"A picture has at most {MOST_TAGS} tags.", f"一幅画最多 {MOST_TAGS} 个标签。"
                )
            reword(connection, chosen)

    def untag(self, ids: Iterable[str], *names: str) -> None:
        with self.database.writing() as connection:
            chosen = numbers(connection, ids)
            connection.execute(delete(tags).where(tags.c.number.in_(chosen), tags.c.name.in_(names)))
            reword(connection, chosen)

    def collect(self, collection: str, ids: Iterable[str] = ()) -> None:
        """Put pictures into a collection, which is made if there is none of that name."""
        name = _name(collection, LONGEST_COLLECTION, ("collection", "画集"))
        with self.database.writing() as connection:
            _add(connection, collections, [{"name": name}])
            key = _collection(connection, name)
            _add(connection, collected, [{"collection": key, "number": n} for n in numbers(connection, ids)])

    def uncollect(self, collection: str, ids: Iterable[str]) -> None:
        with self.database.writing() as connection:
            inside = collected.c.collection == _collection(connection, collection)
            chosen = numbers(connection, ids)
            connection.execute(delete(collected).where(inside, collected.c.number.in_(chosen)))

    def rename(self, collection: str, new_name: str) -> None:
        name = _name(new_name, LONGEST_COLLECTION, ("collection", "画集"))
        with self.database.writing() as connection:
            key = _collection(connection, collection)
            taken = connection.execute(select(collections.c.collection).where(collections.c.name == name))
            if taken.scalar() not in (None, key):
                raise BadRequest(f"There is already a collection “{name}”.", f"已经有名为“{name}”的画集。")
            connection.execute(update(collections).where(collections.c.collection == key).values(name=name))

    def disband(self, collection: str) -> None:
        """The collection goes, its pictures stay."""
        with self.database.writing() as connection:
            key = _collection(connection, collection)
            connection.execute(delete(collections).where(collections.c.collection == key))

    def all_tags(self) -> dict[str, int]:
        """Every tag and how many pictures outside the trash have it."""
        return self._counted(select(tags.c.name, func.count()).join(pictures).group_by(tags.c.name))

    def all_collections(self) -> dict[str, int]:
        """Every collection and how many pictures outside the trash are in it; 0 for an empty one."""
        with self.database.reading() as connection:
            empty = dict.fromkeys(connection.execute(select(collections.c.name)).scalars(), 0)
        inside = (
            select(collections.c.name, func.count()).select_from(collected).join(collections).join(pictures)
        )
        return dict(sorted((empty | self._counted(inside.group_by(collections.c.name))).items()))

    def _counted(self, statement: Select[str, int]) -> dict[str, int]:
        with self.database.reading() as connection:
            found = connection.execute(statement.where(pictures.c.trashed_at.is_(None))).all()
            return dict(sorted((name, count) for name, count in found))


def numbers(connection: Connection, ids: Iterable[str]) -> list[int]:
    """The pictures' numbers; raises ``MissingFile`` for the first id that is none of ours."""
    wanted = list(dict.fromkeys(ids))
    found: dict[str, int] = {}
    for at in range(0, len(wanted), 500):  # a statement holds a limited number of values
        some = select(pictures.c.id, pictures.c.number).where(pictures.c.id.in_(wanted[at : at + 500]))
        found |= dict(connection.execute(some).tuples().all())
    for picture in wanted:
        if picture not in found:
            raise unknown(picture)
    return [found[picture] for picture in wanted]


def unknown(picture: str) -> MissingFile:
    shown = clean(picture)[:40]
    return MissingFile(
        f"No picture “{shown}” hangs in this gallery; search for it with `starry gallery search`.",
        f"这座画廊里没有图片“{shown}”；可用 `starry gallery search` 查找。",
    )


def ambiguous(beginning: str) -> MissingFile:
    shown = clean(beginning)[:40]
    return MissingFile(
        f"The ids of several pictures begin with “{shown}”; give more of the one that is meant.",
        f"有好几幅图片的 id 以“{shown}”开头；请多写几个字符。",
    )


def reword(connection: Connection, chosen: Iterable[int]) -> None:
    """Write anew what the search reads of these pictures."""
    for number in chosen:
        whole = select(pictures, recipes.c.recipe).join(recipes).where(pictures.c.number == number)
        columns = connection.execute(whole).mappings().one()
        names = connection.execute(select(tags.c.name).where(tags.c.number == number)).scalars()
        told = tell(columns, columns["recipe"], columns["note"], *names)
        connection.execute(update(recipes).where(recipes.c.number == number).values(words=told))


def _add(connection: Connection, table: Table, rows: list[dict]) -> None:
    """Those that are there already stay as they are."""
    if rows:
        connection.execute(insert_new(connection, table), rows)


def _name(value: str, longest: int, what: tuple[str, str]) -> str:
    name = " ".join(clean(value).split())
    if not 0 < len(name) <= longest:
        raise BadRequest(
            f"The name of a {what[0]} has 1 to {longest} characters.",
            f"{what[1]}的名字应有 1 到 {longest} 个字符。",
        )
    return name


def _collection(connection: Connection, name: str) -> int:
    found = connection.execute(select(collections.c.collection).where(collections.c.name == name)).scalar()
    if found is None:
        shown = clean(name)[:LONGEST_COLLECTION]
        raise MissingFile(f"There is no collection “{shown}”.", f"没有名为“{shown}”的画集。")
    return found
