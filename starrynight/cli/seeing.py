"""What ``starry paint`` says of what it painted: what was asked for and is not seen; and ``--until-seen``, which tries again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from starrynight.errors import BadRequest, StarryError
from starrynight.i18n import Text, t
from starrynight.request import MAX_TRIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starrynight.gallery.schema import Row
    from starrynight.gallery.search import Query
    from starrynight.gallery.store import Gallery
    from starrynight.picture import Picture
    from starrynight.senses.eyes import Eyes

UNTIL_SEEN = typer.Option(
    None,
    "--until-seen",
    help=t(
        "Try up to this many seeds until everything asked for is seen; the best is kept.",
        "最多换几个种子，直到看见所要的。",
    ),
)


class Watcher:
    """Looks at finished pictures with the perceiver; one that cannot is silent after one line."""

    def __init__(self) -> None:
        self._eyes: Eyes | None = None
        self._ready = False

    def eyes(self) -> Eyes | None:
        """The perceiver; None if STARRY_EYES is off or it cannot be read, which is said once."""
        if not self._ready:
            from starrynight.senses.choice import BUILT_IN, OFF, Choice, chosen
            from starrynight.senses.eyes import Eyes

            self._ready = True
            try:
                self._eyes = None if chosen("eyes").kind == OFF else Eyes(Choice("eyes", BUILT_IN))
            except StarryError as error:
                print(f"! {t(error.en, error.zh)}", file=sys.stderr)
        return self._eyes

    def missing(self, picture: Picture) -> tuple[str, ...]:
        """The things that were asked for and are surely not there."""
        from starrynight.senses import tries

        eyes = self.eyes()
        return () if eyes is None else tries.judged(eyes, picture).missing

    def note(self, picture: Picture) -> str:
        """What a line about a picture adds: how many seeds were tried, and what is missing; "" if there is nothing to say."""
        from starrynight.senses import tries
        from starrynight.senses.describe import named

        missing, tried = self.missing(picture), tries.told(picture.recipe)
        things = t(named(missing, "en"), named(missing, "zh"))
        notes = [t(*tried)] if tried is not None else []
        notes += [f"{t('asked for but not seen: ', '要了却没看见：')}{things}"] if missing else []
        return " · ".join(notes)


def _say(failed: Text) -> None:
    print(
        f"! {t(f'{failed.en} The perceiver ranks instead.', f'{failed.zh}改由感知模型排序。')}",
        file=sys.stderr,
    )


def looks_like(gallery: Gallery, query: Query, found: Sequence[Row], limit: int = 8) -> list[Row]:
    """Pictures that show what the words mean, without those that the words found; none where nothing can see."""
    from starrynight.senses.look import by_meaning

    if not query.text:
        return []
    try:
        matches = by_meaning(gallery, query, limit + len(found), _say)
    except StarryError as error:
        print(f"! {t(error.en, error.zh)}", file=sys.stderr)
        return []
    known = {row.id for row in found}
    return [match.row for match in matches if match.row.id not in known][:limit]


def check(until_seen: int | None, counts: list[int]) -> None:
    """Raises BadRequest where several pictures of one prompt are asked for, or a number of tries outside 1 to MAX_TRIES."""
    if until_seen is not None and not 1 <= until_seen <= MAX_TRIES:
        raise BadRequest(
            f"--until-seen takes 1 to {MAX_TRIES} tries, not {until_seen}.",
            f"--until-seen 应为 1 到 {MAX_TRIES} 次，而不是 {until_seen}。",
        )
    if until_seen is not None and max(counts) > 1:
        raise BadRequest(
            "--until-seen tries seeds for one picture of a prompt; leave out -n.",
            "--until-seen 为一幅画换种子；请不要同时给 -n。",
        )
