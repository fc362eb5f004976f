"""GGUF files: headers and numbers against the ``gguf`` package's own reader, and what is refused, by name."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import gguf as package
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from starrynight.errors import BadFile, LfsPointer, MissingFile, PickledFile, Unfit
from starrynight.models import gguf, weights

TYPES = sorted(gguf.READ)


def blocks(dtype: str, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random rows in a GGUF type, as bytes. The scales of random blocks are made finite by the caller's comparison."""
    kind = GGMLQuantizationType[dtype]
    block, size = GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(seed)
    if dtype in gguf.PLAIN:
        return package.quants.quantize(random.standard_normal((rows, columns)).astype(np.float32), kind)
    return random.integers(0, 256, (rows, columns // block * size), dtype=np.uint8)


def write(path: Path, tensors: dict[str, tuple[np.ndarray, str]], arch: str = "lumina2", **metadata) -> Path:
    writer = package.GGUFWriter(path, arch)
    for key, value in metadata.items():
        writer.add_key_value(key.replace("__", "."), *value)
    for name, (data, dtype) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=GGMLQuantizationType[dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def file(tmp_path):
    """One tensor of 3 rows of 512 in each type that is read, a vector and a vocabulary."""
    tensors = {dtype.lower(): (blocks(dtype, 3, 512, seed), dtype) for seed, dtype in enumerate(TYPES)}
    tensors["norm"] = (np.arange(5, dtype=np.float32), "F32")
    words = ([f"word {n}" for n in range(200)], package.GGUFValueType.ARRAY, package.GGUFValueType.STRING)
    return write(tmp_path / "all.gguf", tensors, tokenizer__tokens=words)


def test_a_header_is_what_the_packages_own_reader_reads(file):
    read, theirs = gguf.header(file), package.GGUFReader(file)
    assert read.pop("__metadata__") == {"general.architecture": "lumina2"}  # the vocabulary is passed over
    assert read == {
        tensor.name: {
            "dtype": tensor.tensor_type.name,
            "shape": tensor.shape[::-1].tolist(),
            "data_offsets": [tensor.data_offset, tensor.data_offset + tensor.n_bytes],
        }
        for tensor in theirs.tensors
    }
    assert weights.header(file).keys() == read.keys() | {"__metadata__"}
    assert weights.of_file(file).parameters == len(TYPES) * 3 * 512 + 5


def test_tensors_are_the_numbers_that_ggml_means(file):
    """Bit for bit, also where a random block's scale is Inf or NaN."""
    with np.errstate(all="ignore"):
        found = {name: tensor for name, _, tensor in gguf.tensors(file)}
        for tensor in package.GGUFReader(file).tensors:
            meant = package.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(found[tensor.name].float().numpy(), meant, err_msg=tensor.name)
    assert {found[name].dtype for name in ("f16", "bf16", "q4_k")} == {
        torch.float16,
        torch.bfloat16,
        torch.float32,
    }


@pytest.mark.parametrize("dtype", ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16", "F32"])
def test_numbers_come_back_as_near_as_the_type_allows(tmp_path, dtype):
    """Against the numbers before quantising, so that a mistake of the package's reader would show too."""
    meant = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    data = package.quants.quantize(meant, GGMLQuantizationType[dtype])
    file = write(tmp_path / "one.gguf", {"w": (data, dtype)})
    ((_, _, read),) = gguf.tensors(file)
    error = (read.float() - torch.from_numpy(meant)).norm() / np.linalg.norm(meant)
    assert error < {"Q8_0": 1e-2, "Q5_1": 5e-2, "Q5_0": 5e-2, "Q4_1": 1e-1, "Q4_0": 1e-1}.get(dtype, 3e-3)


def test_a_tensor_that_was_laid_out_in_rows_of_256_gets_its_shape_back(tmp_path):
    """ComfyUI-GGUF stores convolutions so."""
    data = np.arange(2 * 32 * 4 * 4, dtype=np.float16).reshape(4, 256)
    shape = ([2, 32, 4, 4], package.GGUFValueType.ARRAY, package.GGUFValueType.INT32)
    file = write(tmp_path / "conv.gguf", {"w": (data, "F16")}, **{gguf.ORIGINAL_SHAPE + "w": shape})
    ((_, _, read),) = gguf.tensors(file)
    torch.testing.assert_close(read, torch.arange(1024, dtype=torch.float16).reshape(2, 32, 4, 4))
    wrong = ([2, 32, 4, 5], *shape[1:])
    bad = write(tmp_path / "bad.gguf", {"w": (data, "F16")}, **{gguf.ORIGINAL_SHAPE + "w": wrong})
    with pytest.raises(BadFile, match="shape it gives for w"):
        gguf.header(bad)


def test_only_the_wanted_tensors_are_read(file):
    wanted = {"norm": gguf.header(file)["norm"]}
    assert [(name, tensor.tolist()) for name, _, tensor in gguf.tensors(file, wanted)] == [
        ("norm", [0, 1, 2, 3, 4])
    ]


# What is refused


def test_a_file_cut_anywhere_is_one_sentence(file):
    data = file.read_bytes()
    end = max(entry["data_offsets"][1] for name, entry in gguf.header(file).items() if name != "__metadata__")
    for cut in [0, 2, 4, 8, 23, *range(24, 6000, 97), len(data) // 2, end - 1]:
        file.write_bytes(data[:cut])
        with pytest.raises(BadFile) as caught:
            weights.header(file)
        assert "Download it again" in caught.value.en
        assert "重新下载" in caught.value.zh


def test_a_header_with_any_byte_changed_is_read_or_refused(file):
    """A changed byte is a changed name or number, or an error of ours; nothing else is ever raised."""
    data = bytearray(file.read_bytes())
    random = np.random.default_rng(3)
    for at in random.integers(4, 2500, 400):
        kept, data[at] = data[at], int(random.integers(256))
        file.write_bytes(data)
        with contextlib.suppress(BadFile, Unfit):
            gguf.header(file)
        data[at] = kept


@pytest.mark.parametrize(
    ("opening", "error", "words"),
    [
        (b"GGUF" + struct.pack("<I", 1), Unfit, "version 1"),
        (b"GGUF" + struct.pack(">I", 3), Unfit, "big-endian"),
        (b"tjgg" + bytes(40), Unfit, "GGJT"),
        (b"lmgg" + bytes(40), Unfit, "GGML"),
        (b"<html>not found</html>", BadFile, "does not begin as GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid", LfsPointer, "git lfs pull"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00", PickledFile, "pickled"),
        (b"", BadFile, "empty"),
    ],
)
def test_what_only_bears_the_name_is_refused_by_name(tmp_path, opening, error, words):
    path = tmp_path / "model.gguf"
    path.write_bytes(opening)
    with pytest.raises(error, match=words):
        weights.header(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFile, match=r"no\.gguf"):
        gguf.header(tmp_path / "no.gguf")


@pytest.mark.parametrize("dtype", ["Q8_1", "Q8_K", "TQ1_0", "TQ2_0", "MXFP4", "I8", "I32", "F64"])
def test_a_type_that_is_not_read_is_named_with_its_tensor(tmp_path, dtype):
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]]
    path = write(tmp_path / "odd.gguf", {"w": (np.zeros((2, 256 // block * size), np.uint8), dtype)})
    with pytest.raises(Unfit, match=f"stores w in the GGUF type {dtype}"):
        gguf.header(path)


def test_a_type_of_the_future_and_a_part_of_a_split_file_are_refused(tmp_path):
    path = write(tmp_path / "new.gguf", {"w": (np.zeros(8, np.float32), "F32")})
    data = path.read_bytes()
    at = data.index(struct.pack("<Q", 8), data.index(b"w") + 1) + 8  # after the one dimension stands the type
    path.write_bytes(data[:at] + struct.pack("<I", 777) + data[at + 4 :])
    with pytest.raises(Unfit, match="number 777"):
        gguf.header(path)
    part = (3, package.GGUFValueType.UINT16)
    split = write(
        tmp_path / "m-00001-of-00003.gguf", {"w": (np.zeros(8, np.float32), "F32")}, split__count=part
    )
    with pytest.raises(Unfit, match=r"one of 3 parts.*llama-gguf-split --merge"):
        gguf.header(split)


def test_a_gguf_of_another_name_is_read_as_what_it_is(file, tmp_path):
    renamed = tmp_path / "model.safetensors"
    renamed.write_bytes(file.read_bytes())
    assert weights.header(renamed) == weights.header(file)
