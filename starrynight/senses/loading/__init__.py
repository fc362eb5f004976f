"""Real models of the senses in folders, by the classes of transformers: what a folder holds, and what answers for it.

Weights are safetensors; nothing is unpickled and no code of a folder runs. Imported only in ``senses.worker``, which holds torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from starrynight.models import weights
from starrynight.models.library_errors import library_errors
from starrynight.senses.loading.files import refuse_unsafe


class Loaded(Protocol):
    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question of ``local.Worker``. Raises what the library raises."""


def load(sense: str, folder: Path) -> Loaded:
    """The model in a folder, ready to answer for a sense.

    Raises MissingFile, LfsPointer, PickledFile or BadFile for files that are missing, pickled or damaged; Unfit for a model of
    another kind, for one that brings code, and for weights that fill only a part of it; MissingPackage, OutOfMemory.
    """
    config = weights.read_json(folder / "config.json")
    refuse_unsafe(sense, folder, config)
    with library_errors(folder):
        return _LOADERS[sense](folder, config)


def _eyes(folder: Path, config: dict[str, Any]) -> Loaded:
    from starrynight.senses.loading.pictures import Pictures

    return Pictures(folder, config)


def _ears(folder: Path, config: dict[str, Any]) -> Loaded:
    from starrynight.senses.loading.speech import open_speech

    return open_speech(folder, config)


def _facets(folder: Path, config: dict[str, Any]) -> Loaded:
    from starrynight.senses.loading.siamese import Extractor

    return Extractor(folder, config)


def _ranker(folder: Path, config: dict[str, Any]) -> Loaded:
    from starrynight.senses.loading.reranker import Reranker

    return Reranker(folder, config)


def _embedder(folder: Path, config: dict[str, Any]) -> Loaded:
    from starrynight.senses.loading.sentences import Sentences

    return Sentences(folder, config)


_LOADERS = {"eyes": _eyes, "ears": _ears, "facets": _facets, "ranker": _ranker, "embedder": _embedder}
