"""GGUF: the container of llama.cpp and ComfyUI-GGUF. The header without torch, and tensors in the numbers they mean.

A GGUF file is a magic number, key-value metadata, one record per tensor (name, dimensions from the innermost outwards,
type, offset) and the aligned data; all little-endian (ggml's docs/gguf.md). ``header`` answers as ``weights.header`` does
and gives the same guarantees. Block types are multiplied out in float32 by diffusers' torch functions, on any device, or by
the ``gguf`` package, ggml's own Python, where diffusers has none; both give the same bits. diffusers' own layers call its
functions in float16, where scales round (1e-3 relative) and large ones overflow.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starrynight.errors import BadFile, MissingFile, Unfit

if TYPE_CHECKING:
    import torch

SUFFIX = ".gguf"
MAGIC = b"GGUF"
FOREIGN = {b"tjgg": "GGJT", b"fmgg": "GGMF", b"lmgg": "GGML", b"algg": "GGLA"}  # older containers of ggml
VERSIONS = (2, 3)
PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Types that the gguf package multiplies out; the others are refused by name.
READ = frozenset(PLAIN) | frozenset(
    [
        "Q8_0",
        "Q6_K",
        "Q5_K",
        "Q5_1",
        "Q5_0",
        "Q4_K",
        "Q4_1",
        "Q4_0",
        "Q3_K",
        "Q2_K",
        "IQ4_NL",
        "IQ4_XS",
        "IQ3_S",
        "IQ3_XXS",
        "IQ2_S",
        "IQ2_XS",
        "IQ2_XXS",
        "IQ1_M",
        "IQ1_S",
    ]
)
# Types that diffusers multiplies out as well, on the device: weights in them may stay packed there (``kept``).
ON_DEVICE = frozenset(
    ("Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K", "IQ4_NL", "IQ4_XS")
)
# Metadata arrays longer than this (a tokenizer's vocabulary) are skipped.
LONGEST_ARRAY = 64
DEEPEST_ARRAY = 4
ORIGINAL_SHAPE = (
    "comfy.gguf.orig_shape."  # ComfyUI-GGUF: the shape of a tensor that was stored in rows of 256
)

# llama.cpp's names of a text encoder's tensors (its gguf-py/gguf/tensor_mapping.py) → those of transformers, by
# ``general.architecture``. These families' rows are stored in transformers' order; llama's own are not (its q and k rows are
# permuted), and Gemma's norms are stored plus one, so their files are refused as unknown.
_DECODER = {
    "token_embd.": "embed_tokens.", "output_norm.": "norm.", "output.": "lm_head.", "blk.": "layers.",
    ".attn_norm.": ".input_layernorm.", ".attn_q.": ".self_attn.q_proj.", ".attn_k.": ".self_attn.k_proj.",
    ".attn_v.": ".self_attn.v_proj.", ".attn_output.": ".self_attn.o_proj.", ".attn_q_norm.": ".self_attn.q_norm.",
    ".attn_k_norm.": ".self_attn.k_norm.", ".ffn_norm.": ".post_attention_layernorm.", ".ffn_gate.": ".mlp.gate_proj.",
    ".ffn_up.": ".mlp.up_proj.", ".ffn_down.": ".mlp.down_proj.",
}  # fmt: skip
_T5 = {
    "token_embd.": "shared.", "enc.output_norm.": "encoder.final_layer_norm.", "enc.blk.": "encoder.block.",
    ".attn_norm.": ".layer.0.layer_norm.", ".attn_q.": ".layer.0.SelfAttention.q.", ".attn_k.": ".layer.0.SelfAttention.k.",
    ".attn_v.": ".layer.0.SelfAttention.v.", ".attn_o.": ".layer.0.SelfAttention.o.",
    ".attn_rel_b.": ".layer.0.SelfAttention.relative_attention_bias.", ".ffn_norm.": ".layer.1.layer_norm.",
    ".ffn_gate.": ".layer.1.DenseReluDense.wi_0.", ".ffn_up.": ".layer.1.DenseReluDense.wi_1.",
    ".ffn_down.": ".layer.1.DenseReluDense.wo.",
}  # fmt: skip
LLAMA_NAMES = {"qwen2": _DECODER, "qwen3": _DECODER, "t5": _T5, "t5encoder": _T5}

# Metadata value types: number → struct format; 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def is_gguf(path: Path) -> bool:
    """Whether a file that is here is called GGUF or begins as one."""
    with path.open("rb") as file:
        return path.suffix.lower() == SUFFIX or file.read(4) == MAGIC


def header(path: Path, any_type: bool = False) -> dict[str, Any]:
    """The header of a GGUF file: tensor name → {"dtype": "Q4_K", "shape": rows first, "data_offsets": bytes from the
    start of the file}, and "__metadata__": key → text, whole arrays of up to 64 numbers as "[1, 2]".

    llama.cpp's names of text encoders are given as transformers' (``LLAMA_NAMES``). ``any_type``: also of tensors that only
    llama.cpp reads.

    Git LFS pointers and pickles are refused before, by ``weights.header``. Raises MissingFile; BadFile when the file is empty, cut short, contradicts itself or is not GGUF; Unfit for one part of
    a split file, a version or a type that is not read.
    """
    if not path.is_file():
        raise MissingFile(f"There is no file “{path}”.", f"找不到文件“{path}”。")
    if path.stat().st_size < 4:
        raise _broken(path, "it is empty", "文件为空")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _refuse_foreign(path, data[:4])
        try:
            read = _Parser(path, data, any_type).header()
        except (struct.error, UnicodeDecodeError, OverflowError) as error:
            raise _broken(
                path, "its header is cut short or cannot be read", "文件头不完整或无法解析"
            ) from error
    names = LLAMA_NAMES.get(read["__metadata__"].get("general.architecture", ""), {})
    if names is _T5 and not any(
        ".ffn_gate." in name for name in read
    ):  # T5 before 1.1 has one projection, not a gate
        names = _T5 | {".ffn_up.": ".layer.1.DenseReluDense.wi."}
    return {_renamed(name, names): entry for name, entry in read.items()}


def _renamed(name: str, names: dict[str, str]) -> str:
    """llama.cpp's name of a tensor in transformers' words; the first piece of a name stands at its beginning."""
    for theirs, ours in names.items():
        if theirs.startswith("."):
            name = name.replace(theirs, ours)
        elif name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    return name


def _refuse_foreign(path: Path, opening: bytes) -> None:
    if opening == MAGIC:
        return
    if opening in FOREIGN:
        kind = FOREIGN[opening]
        raise Unfit(
            f"“{path.name}” is a {kind} file, which came before GGUF; take a .gguf or .safetensors file of the model.",
            f"“{path.name}”是 GGUF 之前的 {kind} 文件；请改用该模型的 .gguf 或 .safetensors 文件。",
        )
    raise _broken(path, "it does not begin as GGUF does", "文件开头不是 GGUF")


class _Parser:
    """One pass over a header. Reads beyond the end raise struct.error."""

    def __init__(self, path: Path, data: mmap.mmap, any_type: bool = False) -> None:
        self.path, self.data, self.at, self.any_type = path, data, 4, any_type
        self.metadata: dict[str, str] = {}

    def header(self) -> dict[str, Any]:
        version = self.number("I")
        if version not in VERSIONS:
            big = version & 0xFFFF == 0
            what = ("big-endian", "大端序") if big else (f"of version {version}", f"版本 {version}")
            raise Unfit(
                f"“{self.path.name}” is a GGUF file {what[0]}; versions 2 and 3, little-endian, are read. Convert it again.",
                f"“{self.path.name}”是{what[1]}的 GGUF 文件；只读取小端序的版本 2 和 3。请重新转换。",
            )
        tensors, pairs = self.number("Q"), self.number("Q")
        for _ in range(pairs):
            key = self.text()
            value = self.value(self.number("I"))
            if value is not None:
                self.metadata[key] = value
        self.refuse_part()
        return self.tensors(tensors) | {"__metadata__": self.metadata}

    def number(self, kind: str) -> Any:
        (value,) = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return value

    def text(self) -> str:
        length = self.number("Q")
        if length > len(self.data) - self.at:
            raise struct.error("text")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> str | None:
        """A metadata value as text; None for an array that is long or holds text."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY and depth < DEEPEST_ARRAY:
            return self.array(depth)
        if kind not in _SCALARS:
            raise struct.error("value type")
        return str(self.number(_SCALARS[kind]))

    def array(self, depth: int) -> str | None:
        kind, count = self.number("I"), self.number("Q")
        if kind not in _SCALARS:
            for _ in range(count):
                self.value(kind, depth + 1)
            return None
        size = struct.calcsize("<" + _SCALARS[kind])
        if count * size > len(self.data) - self.at:
            raise struct.error("array")
        if count <= LONGEST_ARRAY:
            return str([self.number(_SCALARS[kind]) for _ in range(count)])
        self.at += count * size
        return None

    def refuse_part(self) -> None:
        parts = self.metadata.get("split.count", "0")
        if parts.isdigit() and int(parts) > 1:
            raise Unfit(
                f"“{self.path.name}” is one of {parts} parts of a split GGUF; join them first: "
                "llama-gguf-split --merge FIRST-PART OUT.gguf.",
                f"“{self.path.name}”是拆分 GGUF 的 {parts} 个分卷之一；请先合并：llama-gguf-split --merge 第一卷 输出.gguf。",
            )

    def tensors(self, count: int) -> dict[str, Any]:
        """The tensor records. Their data must follow each other, aligned, as ggml demands, and end within the file."""
        records = [self.record() for _ in range(count)]
        step = self.metadata.get("general.alignment", "32")
        alignment = int(step) if step.isdigit() else 0
        if alignment == 0 or alignment & (alignment - 1):
            raise _broken(self.path, f"its alignment is {step}", f"对齐为 {step}")
        start, end, found = _aligned(self.at, alignment), 0, {}
        for name, dtype, shape, offset, size in records:
            if name in found or offset != _aligned(end, alignment):
                raise _broken(
                    self.path, f"its entry of {name} contradicts the others", f"{name} 的条目自相矛盾"
                )
            end = offset + size
            found[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start + offset, start + end]}
        if start + end > len(self.data):
            raise _broken(
                self.path,
                f"it has {len(self.data):,} bytes, but its header declares {start + end:,}",
                f"文件长 {len(self.data):,} 字节，而文件头声明 {start + end:,} 字节",
            )
        return found

    def record(self) -> tuple[str, str, list[int], int, int]:
        """One tensor: name, type, shape, offset and bytes."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self.text()
        dimensions = self.number("I")
        if dimensions > 8:
            raise struct.error("dimensions")
        shape = [self.number("Q") for _ in range(dimensions)][::-1]
        number, offset = self.number("I"), self.number("Q")
        known = number in GGMLQuantizationType.__members__.values()
        dtype = GGMLQuantizationType(number).name if known else f"number {number}"
        if not known or (dtype not in READ and not self.any_type):
            raise Unfit(
                f"“{self.path.name}” stores {name} in the GGUF type {dtype}, which is not read here; take a file in Q8_0, "
                "Q6_K, Q5_K, Q4_K or BF16.",
                f"“{self.path.name}”中的 {name} 以 GGUF 类型 {dtype} 存储，这里不能读取；请改用 Q8_0、Q6_K、Q5_K、Q4_K 或 BF16 的文件。",
            )
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]]
        if (shape[-1] if shape else 1) % block:
            raise _broken(
                self.path, f"the rows of {name} do not fill its blocks", f"{name} 的行长不是块长的整数倍"
            )
        length = prod(shape) // block * size
        return name, dtype, self.original(name, shape), offset, length

    def original(self, name: str, shape: list[int]) -> list[int]:
        """The shape a tensor had before ComfyUI-GGUF laid it out in rows of 256."""
        told = self.metadata.get(ORIGINAL_SHAPE + name, "")
        if not told:
            return shape
        numbers = [int(number) for number in told.strip("[]").split(",") if number.strip().isdigit()]
        if prod(numbers) != prod(shape):
            raise _broken(
                self.path, f"the shape it gives for {name} contradicts the data", f"{name} 的形状与数据不符"
            )
        return numbers


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _broken(path: Path, en: str, zh: str) -> BadFile:
    return BadFile(
        f"“{path}” is damaged or not a GGUF file: {en}. Download it again.",
        f"“{path}”已损坏或不是 GGUF 文件：{zh}。请重新下载。",
    )


# -- tensors ---------------------------------------------------------------------------------------------------------


def stored(
    path: Path, entries: dict[str, Any] | None = None
) -> Iterator[tuple[str, str, list[int], torch.Tensor]]:
    """The tensors of a file, one at a time, as they are stored: (name, type, shape, flat bytes). ``entries``: those wanted,
    of ``header``; all if None. Raises as ``header``.
    """
    import numpy as np
    import torch

    data = np.memmap(path, mode="r")
    for name, entry in (header(path) if entries is None else entries).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield name, entry["dtype"], entry["shape"], torch.from_numpy(np.array(data[begin:end]))


def tensors(path: Path, entries: dict[str, Any] | None = None) -> Iterator[tuple[str, str, torch.Tensor]]:
    """As ``stored``, in numbers: (name, type, tensor), F32, F16 and BF16 as they are stored, block types multiplied out in
    float32.
    """
    for name, dtype, shape, data in stored(path, entries):
        yield name, dtype, decode(data, dtype).reshape(shape)


def fills_rows(dtype: str, shape: list[int]) -> bool:
    """Whether each row of a tensor begins with a block of its own."""
    import gguf

    block: int = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[dtype]][0]
    return prod(shape[1:]) % block == 0


def decode(data: torch.Tensor, dtype: str) -> torch.Tensor:
    """Flat uint8 bytes in a GGUF type as the numbers they mean, flat, on the same device."""
    import torch

    if dtype in PLAIN:
        return data.view(getattr(torch, PLAIN[dtype]))
    import gguf

    kind = gguf.GGMLQuantizationType[dtype]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = data.reshape(-1, size)
    if dtype in ON_DEVICE:
        from diffusers.quantizers.gguf.utils import dequantize_functions

        found: torch.Tensor = dequantize_functions[kind](rows, block, size, dtype=torch.float32)
        return found.flatten()
    return torch.from_numpy(gguf.quants.dequantize(rows.numpy(), kind)).flatten()
