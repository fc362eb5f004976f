"""Hostile weight files, generated: safetensors headers with false contents, and indexes with paths outside the model."""

from __future__ import annotations

import json
from typing import Any


def safetensors_file(header: bytes, body: bytes = b"", claimed: int | None = None) -> bytes:
    """A .safetensors file with this header, whose declared length is ``claimed``."""
    size = len(header) if claimed is None else claimed
    return size.to_bytes(8, "little") + header + body


def json_bytes(**entries: Any) -> bytes:
    return json.dumps(entries).encode()


GOOD = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "a header of no bytes": safetensors_file(b""),
    "a header longer than the file": safetensors_file(b"{}", claimed=1 << 20),
    "a header longer than any memory": safetensors_file(b"{}", claimed=2**63),
    "a header as long as numbers go": safetensors_file(b"{}", claimed=2**64 - 1),
    "a list": safetensors_file(b"[]"),
    "a number": safetensors_file(b"7"),
    "half an object": safetensors_file(b'{"a": '),
    "no text": safetensors_file(b"\xff\xfe\xfd"),
    "nested 100000 deep": safetensors_file(b"[" * 100_000 + b"]" * 100_000),
    "nested 100000 deep inside": safetensors_file(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a number of 5000 digits": safetensors_file(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, ' + b"9" * 5000 + b"]}}"),
    "an infinite offset": safetensors_file(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, Infinity]}}'),
    "a negative offset": safetensors_file(json_bytes(a=GOOD | {"data_offsets": [-4, 0]})),
    "offsets turned around": safetensors_file(json_bytes(a=GOOD | {"data_offsets": [4, 0]}), b"1234"),
    "three offsets": safetensors_file(json_bytes(a=GOOD | {"data_offsets": [0, 4, 8]}), b"1234"),
    "offsets that are true": safetensors_file(json_bytes(a=GOOD | {"data_offsets": [False, True]}), b"1"),
    "a shape that is text": safetensors_file(json_bytes(a=GOOD | {"shape": "1"}), b"1234"),
    "a negative shape": safetensors_file(json_bytes(a=GOOD | {"shape": [-1]}), b"1234"),
    "no format": safetensors_file(json_bytes(a={"shape": [1], "data_offsets": [0, 4]}), b"1234"),
    "an entry that is none": safetensors_file(json_bytes(a=None)),
    "metadata that is a list": safetensors_file(json_bytes(__metadata__=["x"], a=GOOD), b"1234"),
    "metadata of numbers": safetensors_file(json_bytes(__metadata__={"x": 1}, a=GOOD), b"1234"),
    "more behind the tensors": safetensors_file(json_bytes(a=GOOD), b"12345678"),
}  # fmt: skip
SOUND = safetensors_file(json_bytes(__metadata__={"format": "pt"}, a=GOOD), b"1234")

INDEXES: dict[str, bytes] = {
    "a way out": json_bytes(weight_map={"a": "../../../etc/passwd"}),
    "an absolute way out": json_bytes(weight_map={"a": "/etc/passwd"}),
    "a list of names": json_bytes(weight_map=["a"]),
    "names that are lists": json_bytes(weight_map={"a": ["b"]}),
    "nested 100000 deep": b"[" * 100_000 + b"]" * 100_000,
}
