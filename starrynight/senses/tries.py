"""Painting again with other seeds until a picture shows what its prompt asks for. Only the one that lacks the least is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starrynight.errors import BadRequest
from starrynight.i18n import Text
from starrynight.picture import Picture
from starrynight.request import MAX_SEED, PaintRequest
from starrynight.senses import asked
from starrynight.senses.choice import BUILT_IN, OFF, Choice, chosen
from starrynight.senses.eyes import Eyes

if TYPE_CHECKING:
    from starrynight.painting.results import Refused
    from starrynight.studio import SavedPicture

    # Paints a request, and saves its picture with what it is given.
    Paint = Callable[[PaintRequest, Callable[[Picture], Path]], Iterator[SavedPicture | Refused]]

ENTRY = "until_seen"  # in a recipe
NOTHING = Text(
    "until_seen: the prompt names no thing that can be looked for, so one picture is painted.",
    "until_seen：提示词没有点名能看出来的事物，因此只画一幅。",
)


def check(request: PaintRequest) -> None:
    """Raise BadRequest where seeds are to be tried and STARRY_EYES is off."""
    if request.until_seen > 1 and chosen("eyes").kind == OFF:
        raise BadRequest(
            "STARRY_EYES is off, so nobody sees what a picture lacks; set it to built-in, or leave out until_seen.",
            "STARRY_EYES 是 off，没有谁能看出画里缺什么；请设为 built-in，或不写 until_seen。",
            ENTRY,
        )


def warnings_for(request: PaintRequest) -> list[tuple[str, str]]:
    """That nothing in the prompt can be looked for, if seeds are to be tried."""
    return [(NOTHING.en, NOTHING.zh)] if request.until_seen > 1 and not asked.asked(request.prompt) else []


def missing(eyes: Eyes, picture: Picture) -> tuple[str, ...]:
    """The things that a picture's prompt asks for and that it surely does not show."""
    return eyes.look(picture.pixels, asked.drawn(picture.request.prompt, picture.recipe)).missing


def until_seen(
    request: PaintRequest, paint: Paint, save: Callable[[Picture], Path], eyes: Eyes | None = None
) -> Iterator[SavedPicture | Refused]:
    """Paint a request of one picture with up to ``request.until_seen`` seeds, its own first, until nothing that it asks for is
    missing. The picture's recipe is that of its own seed and says in ``until_seen`` how many were tried, and what is missing
    still. ``eyes``: by default the perceiver. If all are refused, so is the picture.
    """
    from starrynight.studio import SavedPicture

    eyes = eyes or Eyes(Choice("eyes", BUILT_IN))
    best: tuple[Picture, tuple[str, ...]] | None = None
    refused: Refused | None = None
    tried = 0
    while tried < request.until_seen and not (best is not None and not best[1]):
        seed = (request.seed_of(0) + tried) % (MAX_SEED + 1)
        tried += 1
        for outcome in paint(request.replace(seed=seed, until_seen=1), lambda _: Path()):
            if not isinstance(outcome, SavedPicture):
                refused = outcome
                continue
            lacks = missing(eyes, outcome.picture)
            if best is None or len(lacks) < len(best[1]):
                best = outcome.picture, lacks
    if best is not None:
        picture, lacks = best
        entry = {"tries": tried, "of": request.until_seen, "missing": list(lacks)}
        kept = replace(picture, recipe={**picture.recipe, ENTRY: entry})
        yield SavedPicture(kept, save(kept))
    elif refused is not None:
        yield refused


def told(recipe: dict[str, Any]) -> Text | None:
    """What was tried for a picture; None for one whose seed was not looked for."""
    entry = recipe.get(ENTRY)
    if not isinstance(entry, dict) or not {"tries", "of"} <= entry.keys():
        return None
    return Text(
        f"{entry['tries']} of up to {entry['of']} seeds tried",
        f"试了 {entry['tries']} 个种子（最多 {entry['of']} 个）",
    )
