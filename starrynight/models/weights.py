"""Whether a weight file may be trusted and is whole, told from its first bytes and its length.

Knows the safetensors header and the look of what must not be opened; loads no weights, imports no torch.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from starrynight.errors import BadFile, LfsPointer, MissingFile, PickledFile

# Formats that are pickles inside, and the openings of a pickle (protocols 2 to 5), a zip (torch.save) and a tar.
PICKLED = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"})
PICKLE_OPENINGS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
LFS_OPENING = b"version https://git-lfs.github.com/spec/"

# The format's own limit on its header (safetensors 0.8: MAX_HEADER_SIZE).
MAX_HEADER = 100_000_000


def find(name: str) -> Path | None:
    """The file or folder that ``name`` spells, if there is one. What can be no path at all (too long for the disk, the
    home of nobody we know) is not there either."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def header(path: Path) -> dict[str, Any]:
    """The header of a .safetensors file: name → {dtype, shape, data_offsets}, and "__metadata__".

    Raises MissingFile, LfsPointer, PickledFile, or BadFile when the file is empty, cut short or not safetensors.
    """
    if not path.is_file():
        raise MissingFile(f"There is no file “{path}”.", f"找不到文件“{path}”。")
    length = path.stat().st_size
    with path.open("rb") as file:
        opening = file.read(64)
        _refuse_strangers(path, opening)
        if len(opening) < 8:
            raise _broken(path, "it is empty", "文件为空")
        (size,) = struct.unpack("<Q", opening[:8])
        if size > min(length - 8, MAX_HEADER):
            raise _broken(path, "its header is cut short", "文件头不完整")
        file.seek(8)
        try:
            read = json.loads(file.read(size))
            told = 8 + size + _extent(read)
        except (ValueError, RecursionError) as error:
            raise _broken(path, "its header cannot be read", "文件头无法解析") from error
    if length != told:
        raise _broken(
            path,
            f"it is {length:,} bytes long, and its header speaks of {told:,}",
            f"文件长 {length:,} 字节，而文件头声明 {told:,} 字节",
        )
    return read


def _extent(read: Any) -> int:
    """Bytes of tensors that a header speaks of. Raises ValueError for what is not of the form, so that nobody who reads
    the header after us meets a surprise."""
    if not isinstance(read, dict):
        raise ValueError("no object")
    end = 0
    for name, entry in read.items():
        if name == "__metadata__":
            if not (isinstance(entry, dict) and all(isinstance(text, str) for text in entry.values())):
                raise ValueError("metadata")
            continue
        if not (isinstance(entry, dict) and isinstance(entry.get("dtype"), str)):
            raise ValueError(name)
        start, stop = _whole(entry.get("data_offsets"), 2)
        _whole(entry.get("shape"))
        if start > stop:
            raise ValueError(name)
        end = max(end, stop)
    return end


def _whole(numbers: Any, count: int | None = None) -> list[int]:
    fits = isinstance(numbers, list) and count in (None, len(numbers))
    if not fits or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("numbers")
    return numbers


def _refuse_strangers(path: Path, opening: bytes) -> None:
    if opening.startswith(LFS_OPENING):
        raise LfsPointer(
            f"“{path.name}” is a Git LFS pointer, not the weights; run `git lfs pull` where it came from.",
            f"“{path.name}”只是 Git LFS 指针，不是权重；请在来源仓库运行 `git lfs pull`。",
        )
    if opening.startswith(PICKLE_OPENINGS) or path.suffix.lower() in PICKLED:
        raise PickledFile(
            f"“{path.name}” is a pickled checkpoint, which can run code when it is opened; use a .safetensors file.",
            f"“{path.name}”是 pickle 格式的检查点，打开即可能执行代码；请改用 .safetensors 文件。",
        )


def _broken(path: Path, en: str, zh: str) -> BadFile:
    return BadFile(
        f"“{path}” is damaged or not a safetensors file: {en}. Download it again.",
        f"“{path}”已损坏或不是 safetensors 文件：{zh}。请重新下载。",
    )


def check_folder(folder: Path) -> None:
    """Every weight file of a diffusers folder, before anything heavy is loaded: whole, trusted, and all there.

    Raises MissingFile, PickledFile, LfsPointer or BadFile.
    """
    for name in components(read_json(folder / "model_index.json")):
        _check_component(folder / name)


def components(index: dict[str, Any]) -> dict[str, list[str]]:
    """The parts that a model_index.json lists: name → [library, class]."""
    return {
        name: entry
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[0] is not None and not name.startswith("_")
    }


def _check_component(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingFile(
            f"The model's folder “{folder.name}” is missing from “{folder.parent}”; fetch the model again.",
            f"“{folder.parent}”缺少文件夹“{folder.name}”；请重新获取该模型。",
        )
    for shards in folder.glob("*.safetensors.index.json"):
        for name in _shards(shards):
            header(folder / name)
    for path in folder.glob("*.safetensors"):
        header(path)
    if not any(folder.glob("*.safetensors")) and (
        pickles := [p for p in folder.iterdir() if p.suffix in PICKLED]
    ):
        header(pickles[0])
    config = folder / "config.json"
    if config.is_file() and "_class_name" in read_json(config) and not any(folder.glob("*.safetensors")):
        raise MissingFile(
            f"“{folder}” holds a config but no .safetensors weights; fetch the model again.",
            f"“{folder}”只有配置，没有 .safetensors 权重；请重新获取该模型。",
        )


def _shards(index: Path) -> set[str]:
    """The files beside ``index`` that it names; a name is a name and leads nowhere else."""
    told = read_json(index).get("weight_map", {})
    names: list[Any] = list(told.values()) if isinstance(told, dict) else [None]
    if not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise BadFile(
            f"“{index}” does not name its weight files as it should; fetch the model again.",
            f"“{index}”没有正确列出权重文件；请重新获取该模型。",
        )
    return set(names)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises MissingFile, LfsPointer or BadFile."""
    if not path.is_file():
        raise MissingFile(f"There is no file “{path}”.", f"找不到文件“{path}”。")
    data = path.read_bytes()
    _refuse_strangers(path, data[:64])
    try:
        read = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadFile(
            f"“{path}” is not valid JSON: {error}.", f"“{path}”不是有效的 JSON：{error}。"
        ) from error
    if not isinstance(read, dict):
        raise BadFile(f"“{path}” should hold a JSON object.", f"“{path}”应为 JSON 对象。")
    return read
