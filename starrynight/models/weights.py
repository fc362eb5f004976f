"""Whether a weight file is safe and complete, from its first bytes, its safetensors header and its length.

Loads no weights and imports no torch.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starrynight.errors import BadFile, LfsPointer, MissingFile, PickledFile, reason
from starrynight.models import fitted, gguf, mixed, quantisation, stored
from starrynight.models.fitted import Fitted
from starrynight.numerics.precision import fold_holds

# Suffixes of pickled formats, and the first bytes of a pickle (protocols 2 to 5) and a zip (torch.save).
PICKLED = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"})
PICKLE_OPENINGS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
LFS_OPENING = b"version https://git-lfs.github.com/spec/"

# The small configurations that a component is built from; a tokenizer's vocabulary is judged by its own library.
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "special_tokens_map.json",
           "preprocessor_config.json", "generation_config.json")  # fmt: skip

# What the name of a list of shards ends in.
INDEX = ".safetensors.index.json"

# What torch's FSDP, compile and activation checkpoints, and Lightning's Fabric, put between the names of modules.
_WRAPPER = re.compile(r"(?:(?<=\.)|^)_(?:fsdp_wrapped|fpw|orig|checkpoint_wrapped|forward|dp)_?mod(?:ule)?\.")

# Bytes; the format's own limit (safetensors 0.8: MAX_HEADER_SIZE).
MAX_HEADER = 100_000_000

# The header entry in which a written fold describes itself (``numerics.fold.HEADER``, which needs torch to import).
FOLD_HEADER = "starry_fold"


def find(name: str) -> Path | None:
    """The file or folder called ``name``, or None; also for a name that cannot be a path (too long, "~" of an
    unknown user).
    """
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def unwrapped(name: str) -> str:
    """A tensor's name without what wrappers of a training put between the names of modules: _orig_mod., _fsdp_wrapped_module."""
    return _WRAPPER.sub("", name)


def is_wrapped(path: Path) -> bool:
    """Whether a file's own names hold such wrappers. Raises as ``header``."""
    return any(unwrapped(name) != name for shard in shards(path) for name in _raw_header(shard))


def header(path: Path) -> dict[str, Any]:
    """The header of a .safetensors or .gguf file: name (``unwrapped``) → {dtype, shape, data_offsets}, and "__metadata__". Of a
    list of shards (``….safetensors.index.json``): all their headers in one.

    Raises MissingFile, LfsPointer, PickledFile, BadFile when the file is empty, cut short, neither format or cannot be
    read, or as ``gguf.header``.
    """
    try:
        return _header(path)
    except OSError as error:
        en, zh = reason(error)
        raise BadFile(f"“{path}” cannot be read: {en}.", f"无法读取“{path}”：{zh}。") from error


def _header(path: Path) -> dict[str, Any]:
    if path.name.endswith(INDEX) and path.is_file():
        return _merged(path)
    found: dict[str, Any] = {}
    for name, entry in _raw_header(path).items():
        if (bare := unwrapped(name)) in found:
            raise _broken(path, f"two tensors are called {bare}", f"有两个张量都叫 {bare}")
        found[bare] = entry
    return found


def _raw_header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFile(f"There is no file “{path}”.", f"找不到文件“{path}”。")
    length = path.stat().st_size
    with path.open("rb") as file:
        opening = file.read(64)
        _refuse_unsafe(path, opening)
        if path.suffix.lower() == gguf.SUFFIX or opening.startswith(gguf.MAGIC):
            return gguf.header(path)
        if len(opening) < 8:
            raise _broken(path, "it is empty", "文件为空")
        (size,) = struct.unpack("<Q", opening[:8])
        if size > min(length - 8, MAX_HEADER):
            raise _broken(path, "its header is cut short", "文件头不完整")
        file.seek(8)
        try:
            read = json.loads(file.read(size))
            expected = 8 + size + _extent(read)
        except (ValueError, RecursionError) as error:
            raise _broken(path, "its header cannot be read", "文件头无法解析") from error
    if length != expected:
        raise _broken(
            path,
            f"it has {length:,} bytes, but its header declares {expected:,}",
            f"文件长 {length:,} 字节，而文件头声明 {expected:,} 字节",
        )
    return mixed.meant(path, read)


def _merged(index: Path) -> dict[str, Any]:
    """The headers of all shards. Raises BadFile where two hold one tensor, or none holds one that the list names."""
    found: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for shard in shards(index):
        entries = header(shard)
        metadata |= entries.pop("__metadata__", {})
        for name in found.keys() & entries.keys():
            raise _broken(index, f"two shards hold {name}", f"有两个分片都含有 {name}")
        found |= entries
    for name in sorted(set(map(unwrapped, read_json(index).get("weight_map", {}))) - found.keys()):
        raise _broken(index, f"no shard holds {name}", f"没有分片含有 {name}")
    return found | {"__metadata__": metadata}


def check_format(place: Path, files: Iterable[Path]) -> None:
    """Raises Unfit if weights are in a quantised format that is not read. ``files`` belong together: a weight may lie in one
    and its scale in another. ``place`` is their name in the message.
    """
    entries: dict[str, Any] = {}
    for file in (shard for path in files for shard in shards(path)):
        own = header(file)
        quantisation.refuse_described(file, own)
        entries |= own
    quantisation.refuse_tensors(place, entries)


def shards(path: Path) -> list[Path]:
    """The files that hold the tensors of ``path``: itself, or those that a ``….safetensors.index.json`` names."""
    return [path.parent / name for name in sorted(_shards(path))] if path.name.endswith(INDEX) else [path]


def _extent(read: Any) -> int:
    """The bytes of tensors that a header declares. Raises ValueError for a malformed header, so that its
    later readers need no checks.
    """
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


def _refuse_unsafe(path: Path, opening: bytes) -> None:
    if opening.startswith(LFS_OPENING):
        raise LfsPointer(
            f"“{path.name}” is a Git LFS pointer, not the weights; run `git lfs pull` in its repository.",
            f"“{path.name}”只是 Git LFS 指针，不是权重；请在来源仓库运行 `git lfs pull`。",
        )
    pickle = opening.startswith(PICKLE_OPENINGS) and not _is_framed(path, opening)
    if pickle or path.suffix.lower() in PICKLED:
        raise pickled(path)


def _is_framed(path: Path, opening: bytes) -> bool:
    """Whether a file begins as safetensors does: eight bytes of header length, then a JSON object. The length of some
    headers looks like the first bytes of a pickle: 896 is 80 03, and every 640 + 65536·k begins with 80 02.
    """
    (size,) = struct.unpack("<Q", opening[:8].ljust(8, b"\xff"))
    return opening[8:9] == b"{" and size <= min(path.stat().st_size - 8, MAX_HEADER)


def pickled(path: Path) -> PickledFile:
    return PickledFile(
        f"“{path.name}” is a pickled checkpoint, which can run code when it is opened; use a .safetensors file.",
        f"“{path.name}”是 pickle 格式的检查点，打开即可能执行代码；请改用 .safetensors 文件。",
    )


def _broken(path: Path, en: str, zh: str) -> BadFile:
    return BadFile(
        f"“{path}” is damaged or not a safetensors file: {en}. Download it again.",
        f"“{path}”已损坏或不是 safetensors 文件：{zh}。请重新下载。",
    )


@dataclass(frozen=True)
class WeightFile:
    """One weight file, or one component's part of it, as its header describes it.

    ``dtypes`` are safetensors' names ("F16", "BF16", …). ``fold`` is the JSON text of the ``starry_fold``
    entry, or "". ``prefix``: what the names of the component's tensors begin with. ``unused``: the prefixes of networks in the
    same file that the model takes from elsewhere. ``names``: of its tensors. ``packed``: numbers and bytes of the weights that
    layers can keep as they are stored (``kept``). ``fitted``: what ``starry fit`` noted in it.
    """

    path: Path
    dtypes: frozenset[str]
    parameters: int
    fold: str = ""
    prefix: str = ""
    unused: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    packed: tuple[int, int] = (0, 0)
    fitted: Fitted | None = None


def of_file(path: Path, prefix: str = "", unused: tuple[str, ...] = ()) -> WeightFile:
    """The summary of a file, or of its tensors whose names begin with ``prefix``. Raises as ``header``,
    and Unfit for a quantised format that is not read.
    """
    check_format(path, [path])
    return _part(path, prefix, unused)


def _part(path: Path, prefix: str = "", unused: tuple[str, ...] = ()) -> WeightFile:
    entries = header(path)
    own = {name: entry for name, entry in entries.items() if name.startswith((prefix, "__metadata__"))}
    return replace(_summary(path, own), prefix=prefix, unused=unused)


def of_folder(folder: Path, but: Container[str] = ()) -> dict[str, tuple[WeightFile, ...]]:
    """The weight files of each component of a diffusers folder, without those in ``but``.

    Checks first that every file is present, complete and safe. Raises MissingFile, PickledFile, LfsPointer or
    BadFile.
    """
    names = components(read_json(folder / "model_index.json"))
    for name in names:
        if name not in but:
            _check_component(folder / name)
            _refuse_quantised(folder / name)
            check_format(folder / name, weight_files(folder / name))
    return {name: tuple(map(_part, weight_files(folder / name))) for name in names if name not in but}


def _refuse_quantised(folder: Path) -> None:
    """Raise Unfit where a component's config.json names a quantised format that is not read or not there."""
    config = folder / "config.json"
    read = read_json(config) if config.is_file() else {}
    if quantisation.of_config(read) is not None:
        quantisation.refuse_config(
            folder, read, [name for path in weight_files(folder) for name in header(path)]
        )


def of_checkpoint(path: Path, parts: Mapping[str, str]) -> dict[str, tuple[WeightFile, ...]]:
    """A whole single-file checkpoint, split into components by the ``parts`` (prefix of tensor names →
    component).
    """
    check_format(path, [path])
    entries = header(path)
    metadata = entries.pop("__metadata__", {})
    found: dict[str, dict[str, Any]] = {}
    for name, entry in entries.items():
        for prefix, part in parts.items():
            if name.startswith(prefix):
                found.setdefault(part, {})[name] = entry
    return {part: (_summary(path, {**own, "__metadata__": metadata}),) for part, own in found.items()}


def _summary(path: Path, entries: Mapping[str, Any]) -> WeightFile:
    tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
    packed = {name: entry for name, entry in tensors.items() if stored.can_stay_packed(name, tensors)}
    return WeightFile(
        path,
        frozenset(entry["dtype"] for entry in tensors.values()),
        stored.numbers(tensors),
        entries.get("__metadata__", {}).get(FOLD_HEADER, ""),
        names=tuple(tensors),
        packed=(
            stored.numbers(packed),
            sum(stop - start for start, stop in (e["data_offsets"] for e in packed.values())),
        ),
        fitted=fitted.read(entries.get("__metadata__", {})),
    )


def fold_is_proved(fold: str) -> bool:
    """Whether the text of a ``starry_fold`` entry carries a certificate that holds."""
    try:
        return certificate_holds(json.loads(fold or "{}").get("certificate", {}))
    except (ValueError, AttributeError):
        return False


def certificate_holds(certificate: Mapping[str, Any]) -> bool:
    """Whether a pipeline's fold certificate holds, in the sense of ``precision.fold_holds``.

    Judged by the errors that it records, not by its own "holds": files written before 2026-11-27 say so of
    every fold that stayed finite, and one whose float32 was not run has no errors. Nor does one hold whose traced step
    changed; older ones have none.
    """
    try:
        if not certificate.get("step", {"exact": True})["exact"]:
            return False
        errors = [certificate[name]["error"] for name in ("float32-folded", "float16-folded", "bfloat16")]
        return bool(certificate["finite"]) and fold_holds(*errors)
    except (KeyError, TypeError, AttributeError):
        return False


def weight_files(folder: Path) -> list[Path]:
    """The weight files a component loads: the plain ones, or the fp16 variant where there is nothing else."""
    files = sorted(folder.glob("*.safetensors"))
    return [path for path in files if not is_variant(path.name)] or files


def is_variant(name: str) -> bool:
    """Whether a weight file is a variant beside the plain one: model.fp16.safetensors, …fp16-00001-of-00002…"""
    return any(mark in name for mark in (".fp16.", ".fp16-", ".bf16.", ".bf16-", ".non_ema.", ".non_ema-"))


def components(index: dict[str, Any]) -> dict[str, list[str]]:
    """The components in a model_index.json: name → [library, class]."""
    return {
        name: entry
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[0] is not None and not name.startswith("_")
    }


def is_network(kind: Sequence[str]) -> bool:
    """Whether a component of this [library, class] has weights: anything but schedulers, tokenizers and processors."""
    return not any(word in kind[1] for word in ("Scheduler", "Tokenizer", "Processor", "FeatureExtractor"))


def any_weights(folder: Path) -> bool:
    """Whether a component's folder holds weight files, whatever their format."""
    suffixes = (".safetensors", ".gguf", *PICKLED)
    return folder.is_dir() and any(path.suffix.lower() in suffixes for path in folder.iterdir())


def _check_component(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingFile(
            f"The model's folder “{folder.name}” is missing from “{folder.parent}”; download the model again.",
            f"“{folder.parent}”缺少文件夹“{folder.name}”；请重新下载该模型。",
        )
    for name in CONFIGS:
        if (folder / name).is_file():
            read_json(folder / name)
    for shards in folder.glob("*.safetensors.index.json"):
        for name in _shards(shards):
            header(folder / name)
    for path in folder.glob("*.safetensors"):
        header(path)
    if any(folder.glob("*.safetensors")):
        read_json(
            folder / "config.json"
        )  # without it, transformers would take the largest model of the class
        return
    for path in folder.iterdir():
        if path.suffix in PICKLED:
            raise pickled(path)
    config = folder / "config.json"
    if config.is_file() and "_class_name" in read_json(config):
        raise MissingFile(
            f"“{folder}” has a config but no .safetensors weights; download the model again.",
            f"“{folder}”只有配置，没有 .safetensors 权重；请重新下载该模型。",
        )


def _shards(index: Path) -> set[str]:
    """The files in its folder that ``index`` names. Raises BadFile for a name with a folder in it."""
    weight_map = read_json(index).get("weight_map", {})
    names: list[Any] = list(weight_map.values()) if isinstance(weight_map, dict) else [None]
    if not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise BadFile(
            f"“{index}” lists weight files in an invalid form; download the model again.",
            f"“{index}”没有正确列出权重文件；请重新下载该模型。",
        )
    return set(names)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises MissingFile, LfsPointer or BadFile."""
    if not path.is_file():
        raise MissingFile(f"There is no file “{path}”.", f"找不到文件“{path}”。")
    data = path.read_bytes()
    _refuse_unsafe(path, data[:64])
    try:
        read = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadFile(
            f"“{path}” is not valid JSON ({error}); download it again.",
            f"“{path}”不是有效的 JSON（{error}）；请重新下载。",
        ) from error
    if not isinstance(read, dict):
        raise BadFile(
            f"“{path}” must contain a JSON object; download it again.",
            f"“{path}”应为 JSON 对象；请重新下载。",
        )
    return read


def config_or_empty(path: Path) -> dict[str, Any]:
    """A small configuration; empty if it cannot be read, which is an error only when the model is loaded."""
    try:
        read = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
