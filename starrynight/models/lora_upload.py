"""A LoRA that is sent to this machine: named safely, checked by its header, and kept in STARRY_HOME/loras. Imports no torch.

Only .safetensors is taken, which holds numbers and runs nothing. The file is received in STARRY_HOME/cache and moved to its place when it is whole and sound.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from starrynight.errors import BadFile, BadRequest, StarryError
from starrynight.models import recognition
from starrynight.models.lora import names
from starrynight.models.weights import PICKLED
from starrynight.settings import settings
from starrynight.storage import make_folder, storing
from starrynight.text import excerpt

SUFFIX = ".safetensors"
MAX_BYTES = (
    1 << 30
)  # the largest LoRAs of 2026 are of FLUX at rank 128, 1.2 GB in float32 and half of it in 16 bits
_STEM = re.compile(r"\w[\w .()+,-]{0,98}")


def checked_name(name: str) -> str:
    """The file's stem. Raises BadRequest for a name that is a path, hidden, of another suffix, or of odd characters, and for one
    of a pickle.
    """
    stem, suffix = name[: -len(SUFFIX)], name[-len(SUFFIX) :].lower()
    if Path(name).suffix.lower() in PICKLED:
        raise BadRequest(
            f"“{excerpt(name)}” may be a pickle, which can run code; send the LoRA as .safetensors.",
            f"“{excerpt(name)}”可能是 pickle，能执行代码；请上传 .safetensors 格式的 LoRA。",
        )
    if suffix != SUFFIX:
        raise BadRequest(
            f"“{excerpt(name)}” is no .safetensors file; only that format is taken.",
            f"“{excerpt(name)}”不是 .safetensors 文件；只接受这种格式。",
        )
    if not _STEM.fullmatch(stem) or stem != stem.strip(" ."):
        raise BadRequest(
            f"A LoRA cannot be called “{excerpt(name)}”; use up to 99 letters, digits, spaces and -_.()+, and no folder.",
            f"LoRA 不能叫“{excerpt(name)}”；请用至多 99 个文字、数字、空格与 -_.()+,，且不含文件夹。",
        )
    return stem


class Receiver:
    """Takes the bytes of one LoRA, which requests will find by ``name``. Raises BadFile beyond ``MAX_BYTES``."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name, self._file, self.size = name, file, 0
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > MAX_BYTES:
            raise BadFile(
                f"The LoRA is larger than {MAX_BYTES >> 20} MB; put it into {settings().loras} by hand.",
                f"LoRA 超过 {MAX_BYTES >> 20} MB；请直接放进 {settings().loras}。",
            )
        self.hash.update(data)
        self._file.write(data)


@contextmanager
def receiving(name: str) -> Iterator[Receiver]:
    """Write the LoRA's bytes into what this yields; at the end it is checked and kept. Sending the same file again changes
    nothing.

    Raises BadRequest for a name that is taken by another file and as ``checked_name``; BadFile for a file that is cut short,
    too large or no LoRA; StorageError.
    """
    stem = checked_name(name)
    part = (
        settings().cache / "receiving" / secrets.token_hex(8) / f"{stem}{SUFFIX}"
    )  # no request looks for LoRAs there
    with storing(part):
        make_folder(part.parent)
        try:
            with part.open("xb") as file:
                receiver = Receiver(stem, file)
                yield receiver
            _keep(part, receiver.hash.hexdigest())
        finally:
            shutil.rmtree(part.parent, ignore_errors=True)


def save(name: str, data: bytes) -> str:
    """Keep a whole LoRA and return the name by which a request finds it. Raises as ``receiving``."""
    with receiving(name) as receiver:
        receiver.write(data)
    return receiver.name


def _keep(part: Path, digest: str) -> None:
    """Move a received file to its place, if it is a LoRA and its name is free."""
    _check_is_lora(part)
    kept = settings().loras / part.name
    if kept.is_file() and _digest(kept) == digest:
        return
    if part.stem.casefold() in map(str.casefold, names()):
        raise BadRequest(
            f"Another LoRA is called “{part.stem}” already; rename the file.",
            f"已有另一个名为“{part.stem}”的 LoRA；请给文件换个名字。",
        )
    make_folder(kept.parent)
    part.rename(kept)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_is_lora(path: Path) -> None:
    """Raises BadFile for what is whole but no LoRA, and for what ``weights.header`` refuses."""
    try:
        kind = recognition.of_file(path).kind
    except StarryError as error:  # the sender knows the file by its name alone
        en, zh = (text.replace(str(path), path.name) for text in (error.en, error.zh))
        raise BadFile(en, zh) from error
    if kind != "lora":
        what = recognition.KINDS.get(kind, recognition.KINDS["unknown"])
        raise BadFile(
            f"“{path.name}” holds no LoRA layers (it is: {what.en}); models go into {settings().models}.",
            f"“{path.name}”里没有 LoRA 层（它是：{what.zh}）；模型请放进 {settings().models}。",
        )
