"""Painting again with other seeds until all that the prompt asks for is seen. Only the picture that shows the most of it is saved."""

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
from starrynight.senses.describe import named
from starrynight.senses.eyes import Eyes
from starrynight.senses.facts import THINGS

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


def judged(eyes: Eyes, picture: Picture) -> asked.Judged:
    """How much of what a picture's prompt asks for it shows."""
    prompt, recipe = asked.drawn(picture.request.prompt, picture.recipe), picture.recipe
    return asked.judge(prompt, eyes.perceiver, eyes.perceiver.see(picture.pixels), asked.own(recipe))


def until_seen(
    request: PaintRequest, paint: Paint, save: Callable[[Picture], Path], eyes: Eyes | None = None
) -> Iterator[SavedPicture | Refused]:
    """Paint a request of one picture with up to ``request.until_seen`` seeds, its own first, until everything that it asks for is
    seen, or nobody can tell. Kept is the picture that lacks the fewest things, of those the likeliest to show all. Its recipe is that
    of its own seed and says in ``until_seen`` how many were tried, what is missing still and what is not sure. ``eyes``: by default the
    perceiver. If all are refused, so is the picture.
    """
    from starrynight.studio import SavedPicture

    eyes = eyes or Eyes(Choice("eyes", BUILT_IN))
    best: tuple[Picture, asked.Judged] | None = None
    refused: Refused | None = None
    tried, done = 0, False
    while tried < request.until_seen and not done:
        seed = (request.seed_of(0) + tried) % (MAX_SEED + 1)
        tried += 1
        for outcome in paint(request.replace(seed=seed, until_seen=1), lambda _: Path()):
            if not isinstance(outcome, SavedPicture):
                refused = outcome
                continue
            found = judged(eyes, outcome.picture)
            done = not (found.missing or found.unsure)
            if best is None or _lack(found) < _lack(best[1]):
                best = outcome.picture, found
    if best is not None:
        picture, found = best
        entry = {"tries": tried, "of": request.until_seen, "missing": list(found.missing), "unsure": list(found.unsure)}  # fmt: skip
        kept = replace(picture, recipe={**picture.recipe, ENTRY: entry})
        yield SavedPicture(kept, save(kept))
    elif refused is not None:
        yield refused


def _lack(found: asked.Judged) -> tuple[int, float]:
    return len(found.missing), found.doubt


def told(recipe: dict[str, Any]) -> Text | None:
    """What was tried for a picture; None for one whose seed was not looked for."""
    entry = recipe.get(ENTRY)
    if not isinstance(entry, dict) or not {"tries", "of"} <= entry.keys():
        return None
    stated = entry.get("unsure")
    unsure = [name for name in THINGS if name in stated] if isinstance(stated, list) else []
    doubts = Text(named(unsure, "en"), named(unsure, "zh"))
    return Text(
        f"{entry['tries']} of up to {entry['of']} seeds tried"
        + (f", not sure of {doubts.en}" if unsure else ""),
        f"试了 {entry['tries']} 个种子（最多 {entry['of']} 个）"
        + (f"，拿不准有没有{doubts.zh}" if unsure else ""),
    )
