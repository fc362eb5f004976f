"""Textual inversions in a picture: their vectors stand where the tokens of their names would.

While a picture is encoded, each vector has a character of Unicode's private use area in the text and an id in a copy of the
tokenizer; a hook replaces the encoder's rows at these ids by the vectors. diffusers' ``load_textual_inversion`` writes both into
the shared tokenizer and into a longer table of the encoder, which here may be offloaded, packed or folded, and whose ids mislead
encoders that pool at the largest id (transformers' CLIP with ``eos_token_id`` 2). The numbers are the same, and nothing remains.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.errors import BadFile, PickledFile, StarryError
from starrynight.i18n import Text
from starrynight.models import embeddings
from starrynight.models.embedding_vectors import load
from starrynight.models.embeddings import Inversion, Source
from starrynight.models.load import networks
from starrynight.prompt_syntax import Mention, Words

FIRST = 0xF0000  # of the first private use plane, which fonts leave free


@dataclass(frozen=True)
class Placement:
    """The words of one picture with their textual inversions.

    ``words``: as they are shown, with notes on names that are read as plain words. ``texts``: as CLIP's tokenizers read them,
    a character of its own for each of ``characters``. ``plain``: as other encoders of the model read them, without the names.
    ``vectors``: component → float32 [characters, width]. ``used``: for the recipe.
    """

    words: tuple[Words, Words]
    texts: tuple[Words, Words]
    plain: tuple[str, str] = ("", "")
    characters: str = ""
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    used: tuple[dict[str, Any], ...] = ()


def place(
    pipeline: Any, read: tuple[Words, Words], known: Mapping[str, list[Source]], model: str
) -> Placement:
    """``read``: the prompt and the negative prompt. ``known``: ``embeddings.known``; ``model``: its name, for messages.

    A name that is also a word of the prompt and cannot be applied is read as that word, with a note. Raises Unfit and BadFile
    for one that is written as embedding:name, and BadFile for a damaged one in any case.
    """
    if not any(words.mentions for words in read):
        return Placement(read, read)
    encoders = embeddings.clip_encoders(networks(pipeline))
    found: dict[str, tuple[Inversion, dict[str, Tensor]]] = {}
    words = []
    for each in read:
        kept, notes = [], []
        for one in each.mentions:
            try:
                if one.name not in found:
                    found[one.name] = load(embeddings.choose(one.name, known), encoders, model)
            except StarryError as error:
                damaged = isinstance(error, BadFile) and not isinstance(error, PickledFile)
                if one.explicit or damaged:
                    raise
                notes.append(as_plain_word(one, error))
                continue
            kept.append(one)
        words.append(replace(each, mentions=tuple(kept), notes=(*each.notes, *dict.fromkeys(notes))))
    return _placed(pipeline, (words[0], words[1]), found, encoders, model)


def told(pipeline: Any, places: Sequence[Callable[[], Placement]]) -> tuple[str | None, list[Text]]:
    """What can be said before painting: the first picture's prompt for counting tokens, with a short word for each vector, or
    None where it is as written; and the notes of all pictures. What ``place`` raises is left to the painting.
    """
    counted, notes = None, dict[Text, None]()
    with suppress(StarryError):
        for number, placed in enumerate(call() for call in places):
            notes |= dict.fromkeys(note for words in placed.words for note in words.notes)
            if number == 0 and placed.used and not _others(pipeline, placed.vectors):
                counted = placed.texts[0].text.translate(dict.fromkeys(map(ord, placed.characters), " a "))
    return counted, list(notes)


def as_plain_word(mention: Mention, error: StarryError) -> Text:
    """The note on a word of the prompt whose embedding cannot be applied."""
    return Text(
        f"“{mention.name}” is read as a plain word, because its embedding cannot be applied: {error.en}",
        f"“{mention.name}”按普通文字读入，因为同名的嵌入词无法应用：{error.zh}",
    )


def _placed(
    pipeline: Any,
    words: tuple[Words, Words],
    found: Mapping[str, tuple[Inversion, dict[str, Tensor]]],
    encoders: Mapping[str, int],
    model: str,
) -> Placement:
    if not found:
        return Placement(words, words)
    written = {*words[0].text, *words[1].text}
    free = (chr(code) for code in range(FIRST, 0x10FFFE) if chr(code) not in written)
    characters = {name: "".join(next(free) for _ in range(one.count)) for name, (one, _) in found.items()}
    others = _others(pipeline, encoders)
    if others:
        note = Text(
            f"{model}'s other text encoder reads the prompt without its embeddings.",
            f"{model} 的另一文本编码器读到的是去掉嵌入词的提示词。",
        )
        words = (replace(words[0], notes=(*words[0].notes, note)), words[1])
    return Placement(
        words,
        (substituted(words[0], characters), substituted(words[1], characters)),
        (_without(words[0]), _without(words[1])),
        "".join(characters.values()),
        {name: torch.cat([vectors[name] for _, vectors in found.values()]) for name in encoders},
        tuple(_entry(name, inversion, vectors, words) for name, (inversion, vectors) in found.items()),
    )


def _others(pipeline: Any, encoders: Container[str]) -> list[str]:
    """The pipeline's text encoders that are no CLIP."""
    return [name for name in networks(pipeline) if name.startswith("text_encoder") and name not in encoders]


def _entry(
    name: str, inversion: Inversion, vectors: Mapping[str, Tensor], words: Sequence[Words]
) -> dict[str, Any]:
    """For the recipe: name, file, SHA-256 of the file (of one inside a LoRA, of its vectors), number of vectors, where named."""
    source, where = inversion.source, ("prompt", "negative_prompt")
    if source.prefix:
        digest = hashlib.sha256(b"".join(rows.numpy().tobytes() for rows in vectors.values())).hexdigest()
    else:
        with source.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": source.name, "file": inversion.file, "sha256": digest, "vectors": inversion.count,
        "in": [at for at, each in zip(where, words, strict=True) if any(one.name == name for one in each.mentions)],
    }  # fmt: skip


def substituted(words: Words, characters: Mapping[str, str]) -> Words:
    """``words`` with each name replaced by the characters of its vectors, under the weight that the name has."""
    factors = [1.0] * len(words.text)
    for start, end, factor in words.weights:
        factors[start:end] = [factor] * (end - start)
    text, weights, at = "", [], 0
    for one in (*words.mentions, None):
        start = one.start if one else len(words.text)
        text += words.text[at:start]
        weights += factors[at:start]
        if one:
            text += characters[one.name]
            weights += [factors[one.start]] * len(characters[one.name])
            at = one.end
    runs, begin = [], 0
    for factor, run in groupby(weights):
        end = begin + len(list(run))
        if factor != 1:
            runs.append((begin, end, factor))
        begin = end
    return Words(text, tuple(runs))


def _without(words: Words) -> str:
    """The text without the names, for an encoder that has no vectors for them. Never empty: diffusers would take the prompt."""
    text, at = "", 0
    for one in words.mentions:
        text, at = text + words.text[at : one.start], one.end
    parts = [" ".join(part.split()) for part in (text + words.text[at:]).split(",")]
    return ", ".join(part for part in parts if part) or " "


def arguments_of_others(pipeline: Any, placement: Placement) -> dict[str, str]:
    """``prompt_2`` and the like for the pipeline's text encoders that are no CLIP."""
    found: dict[str, str] = {}
    for name in _others(pipeline, placement.vectors) if placement.vectors else ():
        number = name.removeprefix("text_encoder")
        found |= {f"prompt{number}": placement.plain[0], f"negative_prompt{number}": placement.plain[1]}
    return found


@contextmanager
def applied(pipeline: Any, placement: Placement) -> Iterator[None]:
    """While the context lasts, the pipeline's CLIP encoders read ``placement.texts`` with its vectors."""
    with ExitStack() as undo:
        for component, vectors in placement.vectors.items():
            encoder = getattr(pipeline, component)
            slot = component.replace("text_encoder", "tokenizer")
            own = getattr(pipeline, slot)
            undo.callback(setattr, pipeline, slot, own)
            tokenizer, first = _extended(own, placement.characters)
            setattr(pipeline, slot, tokenizer)
            rows = vectors * 2.0 ** _power(pipeline, component, encoder)
            for handle in _hooks(encoder, rows, first):
                undo.callback(handle.remove)
        yield


def _extended(tokenizer: Any, characters: str) -> tuple[Any, int]:
    """A copy of a tokenizer to which each character is a token of its own, and the id of the first; the others follow it."""
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens(list(characters))
    return extended, int(extended.convert_tokens_to_ids(characters[0]))


def _power(pipeline: Any, component: str, encoder: nn.Module) -> int:
    """The power of two by which folds have scaled the encoder's table of tokens."""
    table = encoder.get_input_embeddings()  # type: ignore[operator]
    name = next(name for name, module in encoder.named_modules() if module is table)
    return int(pipeline.folds.parameters.get(f"{component}.{name}.weight", 0))


def _hooks(encoder: nn.Module, rows: Tensor, first: int) -> list[Any]:
    """Hooks that let ids from ``first`` on mean ``rows``. The encoder itself never sees such an id: CLIP pools at the largest."""
    places: list[
        Tensor
    ] = []  # of the call that is running: [batch, tokens], the row of each id, negative for the table's own

    def hide(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ids = args[0] if args else kwargs["input_ids"]
        places[:] = [ids - first]
        ids = torch.where(ids >= first, 0, ids)
        return ((ids, *args[1:]), kwargs) if args else (args, {**kwargs, "input_ids": ids})

    def fill(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        index = places[0].to(output.device).reshape(output.shape[:-1])
        filled = output.clone()
        filled[index >= 0] = rows.to(output.device, output.dtype)[index[index >= 0]]
        return filled

    table = encoder.get_input_embeddings()  # type: ignore[operator]
    return [encoder.register_forward_pre_hook(hide, with_kwargs=True), table.register_forward_hook(fill)]
