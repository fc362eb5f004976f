"""The models and LoRAs that can be chosen here and now, for a menu. Imports no torch.

A model of the catalogue goes by its name. A file or folder in STARRY_HOME/models or below the places goes by its path, and a
LoRA by its name where only one file has it, else by its path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starrynight.errors import StarryError
from starrynight.i18n import Text
from starrynight.models import catalogue, lora, places
from starrynight.models.places import Found, Place
from starrynight.models.recognition import MODEL_KINDS
from starrynight.settings import settings


@dataclass(frozen=True)
class Menu:
    """``models`` and ``loras``: what a request names → the title to show. ``left_out``: model files that cannot be painted
    with as they are (a base is missing, a format is not read); ``starry models list --places`` shows them.
    """

    models: Mapping[str, Text]
    loras: Mapping[str, str]
    left_out: int = 0


def own() -> Menu:
    """The catalogue's models that are here, those put together from files, and the LoRAs of STARRY_HOME/loras."""
    models = {name: _title_if_usable(name) for name in catalogue.names()}
    return Menu(
        {name: title for name, title in models.items() if title}, {name: name for name in lora.names()}
    )


def of_places(searched: Sequence[Place]) -> Menu:
    """What lies below these places and in STARRY_HOME/models, without what ``own`` lists. Opens the header of every file.

    Raises BadFile for a place whose YAML cannot be read.
    """
    kinds = places.by_kind(places.survey([Place(settings().models, kept=False), *searched]).found)
    taken, models, left_out = set(_own_paths()), {}, 0
    for one in _each_once(kinds, "folder", "checkpoint", *MODEL_KINDS):
        if one.path.resolve() in taken:
            continue
        if _title_if_usable(str(one.path)):
            models[str(one.path)] = one
        else:
            left_out += 1
    loras = _each_once(kinds, "lora")
    counts = Counter([one.name.casefold() for one in loras] + [name.casefold() for name in lora.names()])
    shared = {str(one.path): one for one in loras if counts[one.name.casefold()] > 1}
    unique = {one.name: one.name for one in loras if counts[one.name.casefold()] == 1}
    titles = {path: Text(title, title) for path, title in _titles(models).items()}
    return Menu(titles, unique | _titles(shared), left_out)


def _each_once(kinds: Mapping[str, Iterable[tuple[Found, object]]], *wanted: str) -> list[Found]:
    """What was found of these kinds; of a file that is linked to from elsewhere only the first."""
    found = [one for kind in wanted for one, _ in kinds.get(kind, ())]
    return list({one.path.resolve(): one for one in reversed(found)}.values())[::-1]


def _own_paths() -> Iterable[Path]:
    for name in catalogue.names():
        try:
            yield catalogue.find(name).path.resolve()
        except StarryError:  # put together from files that are gone
            continue


def _title_if_usable(name: str) -> Text | None:
    try:
        model = catalogue.find(name)
        return Text(model.en, model.zh) if catalogue.is_here(model) else None
    except (StarryError, OSError):
        return None


def _titles(found: Mapping[str, Found]) -> dict[str, str]:
    """Each by its path below the place; by its whole path where two places have that."""
    counts = Counter(one.relative for one in found.values())
    return {key: one.relative if counts[one.relative] == 1 else str(one.path) for key, one in found.items()}
