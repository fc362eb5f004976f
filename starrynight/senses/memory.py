"""The memory that a model of a sense needs, from the sizes of its files, and whether this machine has it free."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from starrynight.errors import OutOfMemory
from starrynight.senses.choice import Choice

# Beside the weights: llama-server's context and buffers; Python, torch and transformers.
BESIDE_GGUF, BESIDE_FOLDER = 400 << 20, 700 << 20  # bytes


def needed(choice: Choice) -> int | None:
    """Bytes that a .gguf or a folder takes while it runs; None for others, whose memory is small or another machine's."""
    if choice.files:
        return _size(choice.files) + BESIDE_GGUF
    if choice.folder is not None:
        return _size(choice.folder.glob("*.safetensors")) + BESIDE_FOLDER
    return None


def free() -> int:
    """Bytes of memory that programs can have now."""
    import psutil

    return int(psutil.virtual_memory().available)


def check(choice: Choice) -> None:
    """Raises OutOfMemory where a model needs more than is free now."""
    wanted, left = needed(choice), free()
    if wanted is not None and wanted > left:
        raise OutOfMemory(
            f"“{choice.name}” needs about {gigabytes(wanted)} of memory and {gigabytes(left)} are free; take a smaller file, or an "
            "address of another machine.",
            f"“{choice.name}”约需 {gigabytes(wanted)} 内存，现有 {gigabytes(left)} 可用；请换小一些的文件，或用另一台机器的地址。",
        )


def gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"


def _size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())
