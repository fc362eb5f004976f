"""Hostile weight files, made by code: a safetensors header that lies, and an index that leads elsewhere."""

from __future__ import annotations

import json
from typing import Any


def file(header: bytes, body: bytes = b"", claimed: int | None = None) -> bytes:
    """A .safetensors file with this header, which says it is ``claimed`` bytes long."""
    size = len(header) if claimed is None else claimed
    return size.to_bytes(8, "little") + header + body


def told(**entries: Any) -> bytes:
    return json.dumps(entries).encode()


GOOD = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "a header of no bytes": file(b""),
    "a header longer than the file": file(b"{}", claimed=1 << 20),
    "a header longer than any memory": file(b"{}", claimed=2**63),
    "a header as long as numbers go": file(b"{}", claimed=2**64 - 1),
    "a list": file(b"[]"),
    "a number": file(b"7"),
    "half an object": file(b'{"a": '),
    "no text": file(b"\xff\xfe\xfd"),
    "nested 100000 deep": file(b"[" * 100_000 + b"]" * 100_000),
    "nested 100000 deep inside": file(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a number of 5000 digits": file(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, ' + b"9" * 5000 + b"]}}"),
    "an infinite offset": file(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, Infinity]}}'),
    "a negative offset": file(told(a=GOOD | {"data_offsets": [-4, 0]})),
    "offsets turned around": file(told(a=GOOD | {"data_offsets": [4, 0]}), b"1234"),
    "three offsets": file(told(a=GOOD | {"data_offsets": [0, 4, 8]}), b"1234"),
    "offsets that are true": file(told(a=GOOD | {"data_offsets": [False, True]}), b"1"),
    "a shape that is text": file(told(a=GOOD | {"shape": "1"}), b"1234"),
    "a negative shape": file(told(a=GOOD | {"shape": [-1]}), b"1234"),
    "no format": file(told(a={"shape": [1], "data_offsets": [0, 4]}), b"1234"),
    "an entry that is none": file(told(a=None)),
    "metadata that is a list": file(told(__metadata__=["x"], a=GOOD), b"1234"),
    "metadata of numbers": file(told(__metadata__={"x": 1}, a=GOOD), b"1234"),
    "more behind the tensors": file(told(a=GOOD), b"12345678"),
}  # fmt: skip
SOUND = file(told(__metadata__={"format": "pt"}, a=GOOD), b"1234")

INDEXES: dict[str, bytes] = {
    "a way out": told(weight_map={"a": "../../../etc/passwd"}),
    "an absolute way out": told(weight_map={"a": "/etc/passwd"}),
    "a list of names": told(weight_map=["a"]),
    "names that are lists": told(weight_map={"a": ["b"]}),
    "nested 100000 deep": b"[" * 100_000 + b"]" * 100_000,
}
