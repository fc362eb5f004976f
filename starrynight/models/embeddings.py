"""Textual inversions (Gal et al., arXiv 2208.01618): which are here, by name, and what each file holds. Imports no torch.

A textual inversion is one vector or several that stand in a prompt where the tokens of a word would. Files lie in
STARRY_HOME/embeddings, in the places' folders of that name (``places.embedding_folders``), and inside LoRAs
(``bundle_emb.NAME.…``, as OneTrainer and kohya's scripts write them). A prompt names one by its file's name, as A1111 has it, by
``embedding:name``, as ComfyUI has it, or by its token, <cat-toy>, where diffusers' file has one. ``painting.inversion`` applies them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from starrynight.errors import BadFile, BadRequest, StarryError, Unfit
from starrynight.i18n import Text
from starrynight.models import places, weights
from starrynight.models.weights import PICKLED, header
from starrynight.prompt_syntax import embedding_name
from starrynight.settings import settings

BUNDLED = "bundle_emb."
ANY = ""  # of the one encoder that a model has
# A tensor's name → the component whose vectors it holds. clip_l and clip_g: SDXL's two encoders; text_encoders_0: diffusers'
# pivotal tuning (examples/advanced_diffusion_training).
SLOTS = {
    "emb_params": ANY, "string_to_param.*": ANY, "*": ANY, "clip_l": "text_encoder", "clip_h": "text_encoder", "clip_g": "text_encoder_2",
    "text_encoders_0": "text_encoder", "text_encoders_1": "text_encoder_2",
}  # fmt: skip
_BUNDLED = re.compile(
    rf"{re.escape(BUNDLED)}(?P<name>.+?)\.(?P<slot>string_to_param\.\*|[^.]+)"
)  # a name may hold dots
_SUFFIXES = (".safetensors", *PICKLED)
_NUMBERS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Source:
    """Where a textual inversion lies: a file, or a part of a LoRA's file, whose tensors' names begin with ``prefix``."""

    name: str
    path: Path
    prefix: str = ""


@dataclass(frozen=True)
class Inversion:
    """What a source holds: component (or ``ANY``) → the name of the tensor [vectors, width] or [width]; and their shapes."""

    source: Source
    tensors: Mapping[str, str]
    count: int
    widths: Mapping[str, int]

    @property
    def file(self) -> str:
        return self.source.path.name


# -- which are here --------------------------------------------------------------------------------------------------


def known(text: str = "", loras: Iterable[Path] = ()) -> dict[str, list[Source]]:
    """The textual inversions that a prompt can name: name in lower case → sources, those in ``loras`` first, then STARRY_HOME's.

    Tokens such as <cat-toy>, for which headers are opened, are looked for only where ``text`` has angle brackets. Raises as
    ``bundled``.
    """
    found: dict[str, list[Source]] = {}
    for path in _files():
        source = Source(path.stem, path)
        found.setdefault(embedding_name(path.name), []).append(source)
        if "<" in text and (token := _token(path)):
            found.setdefault(token.casefold(), []).append(source)
    for path in loras:
        for source in bundled(path):
            found.setdefault(source.name.casefold(), []).insert(0, source)
    return found


def bundled(path: Path) -> list[Source]:
    """The textual inversions inside a LoRA's file. Raises as ``weights.header``."""
    matches = (_BUNDLED.fullmatch(name) for name in header(path))
    names = dict.fromkeys(match["name"] for match in matches if match)
    return [Source(name, path, f"{BUNDLED}{name}.") for name in names]


def _files() -> Iterator[Path]:
    folders = [settings().embeddings]
    with suppress(
        StarryError
    ):  # a list of places that cannot be read; ``starry doctor`` and ``starry models`` tell
        folders += places.embedding_folders()
    visited: set[tuple[int, int]] = set()
    for folder in folders:
        yield from _below(folder, visited)


def _below(folder: Path, visited: set[tuple[int, int]]) -> Iterator[Path]:
    """The weight files below a folder by name, links followed, each folder once. Called for every prompt, so it opens none."""
    for base, inner, names in os.walk(folder, followlinks=True):
        status = os.stat(base)
        key = (status.st_dev, status.st_ino)
        deep = len(Path(base).parts) - len(folder.parts) > places.MAX_DEPTH
        inner[:] = (
            [] if key in visited or deep else sorted(name for name in inner if not name.startswith("."))
        )
        for name in sorted(names) if key not in visited else ():
            if name.lower().endswith(_SUFFIXES):
                yield Path(base, name)
        visited.add(key)


def _token(path: Path) -> str:
    """The token of diffusers' layout: the name of the only tensor, in angle brackets."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return _token_of(path, status.st_mtime_ns, status.st_size)


@lru_cache(4096)
def _token_of(path: Path, changed: int, size: int) -> str:
    if path.suffix.lower() in PICKLED:
        return ""
    try:
        names = [name for name in header(path) if name != "__metadata__"]
    except StarryError:
        return ""
    return names[0] if len(names) == 1 and re.fullmatch(r"<.+>", names[0]) else ""


def choose(name: str, sources: Mapping[str, list[Source]]) -> Source:
    """The source of a name. Raises BadRequest where several files of the places have it, PickledFile where only pickles do."""
    whole = [one for one in sources[name] if one.path.suffix.lower() not in PICKLED]
    if not whole:
        raise weights.pickled(sources[name][0].path)
    first = whole[0]
    if first.prefix or first.path.is_relative_to(settings().embeddings) or len(_distinct(whole)) == 1:
        return first
    paths = [f"“{path}”" for path in _distinct(whole)[:6]]
    raise BadRequest(
        f"The embedding “{name}” could be {' or '.join(paths)}; put the one to use into {settings().embeddings}.",
        f"嵌入词“{name}”可能是{'、'.join(paths)}；请把要用的放进 {settings().embeddings}。",
    )


def _distinct(sources: Iterable[Source]) -> list[Path]:
    return list({one.path.resolve(): one.path for one in sources}.values())


# -- what one holds --------------------------------------------------------------------------------------------------


def read(source: Source) -> Inversion:
    """What a source holds, by its header. Raises BadFile for a file that is no textual inversion or holds something besides,
    and as ``weights.header``.
    """
    entries = {
        name.removeprefix(source.prefix): entry
        for name, entry in header(source.path).items()
        if name != "__metadata__" and name.startswith(source.prefix)
    }
    lone = len(entries) == 1 and next(iter(entries)) not in SLOTS
    tensors, counts, widths = {}, set(), {}
    for name, entry in entries.items():
        slot, shape = ANY if lone else SLOTS.get(name), entry["shape"]
        if slot is None or slot in tensors:
            raise _odd(source, name, "which is not applied", "此处不支持")
        if len(shape) not in (1, 2) or 0 in shape:
            raise _odd(
                source,
                name,
                f"of the shape {shape}, which is no row of vectors",
                f"其形状 {shape} 不是一组向量",
            )
        if entry["dtype"] not in _NUMBERS:
            raise _odd(
                source, name, f"in {entry['dtype']}, which is no float", f"其格式 {entry['dtype']} 不是浮点数"
            )
        tensors[slot], widths[slot] = source.prefix + name, shape[-1]
        counts.add(shape[0] if len(shape) == 2 else 1)
    if len(counts) != 1:
        counted = Text("no vectors", "没有向量") if not counts else Text(
            f"{' and '.join(map(str, sorted(counts)))} vectors for its encoders", f"各编码器的向量数不同（{'、'.join(map(str, sorted(counts)))}）")  # fmt: skip
        raise BadFile(
            f"The embedding “{source.path.name}” holds {counted.en}; take another version of it.",
            f"嵌入词“{source.path.name}”：{counted.zh}；请换一个版本。",
        )
    return Inversion(source, tensors, counts.pop(), widths)


def _odd(source: Source, tensor: str, en: str, zh: str) -> BadFile:
    return BadFile(
        f"The embedding “{source.path.name}” holds {tensor}, {en}; take another version of it.",
        f"嵌入词“{source.path.name}”含有 {tensor}，{zh}；请换一个版本。",
    )


def clip_encoders(networks: Mapping[str, Any]) -> dict[str, int]:
    """The width of each CLIP text encoder among a pipeline's networks, by component."""
    return {
        name: int(part.config.hidden_size)
        for name, part in networks.items()
        if name.startswith("text_encoder") and type(part).__name__.startswith("CLIPText")
    }


def tensors_for(inversion: Inversion, encoders: Mapping[str, int], model: str) -> dict[str, str]:
    """Component → the name of its tensor, for ``encoders``: the CLIP text encoders of a model by component, with their widths.

    Raises Unfit that names both widths where it was made for another model, and for a model without CLIP.
    """
    if not encoders:
        raise Unfit(
            f"“{inversion.file}” is a textual inversion, which only CLIP text encoders read, and {model} has none; describe it in "
            "words.",
            f"“{inversion.file}”是文本反转嵌入，只有 CLIP 文本编码器能读，而 {model} 没有；请改用文字描述。",
        )
    slots = dict(inversion.tensors)
    if ANY in slots and len(encoders) == 1:
        slots = {next(iter(encoders)): slots[ANY]}
    widths = dict(zip(slots, inversion.widths.values(), strict=True))
    if widths != dict(encoders):
        held, wanted = (
            " + ".join(str(sizes[name]) for name in sorted(sizes)) for sizes in (widths, encoders)
        )
        raise Unfit(
            f"The embedding “{inversion.file}” was made for another model: its vectors are {held} wide, and {model} reads {wanted}.",
            f"嵌入词“{inversion.file}”是为别的模型训练的：它的向量宽 {held}，而 {model} 需要 {wanted}。",
        )
    return slots
