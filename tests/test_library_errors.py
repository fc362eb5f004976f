"""Whatever is wrong with a model's files is one sentence, from every interface: each file damaged in each way, and what the
libraries raise translated by its cause.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from starrynight.errors import (
    BadFile,
    Cancelled,
    MissingFile,
    MissingPackage,
    OutOfMemory,
    StarryError,
    StorageError,
    Unfit,
)
from starrynight.models.library_errors import explain, library_errors
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest

ASK = {"prompt": "a starry night", "width": 64, "height": 64, "steps": 1, "seed": 1, "precision": "float32"}
TRANSFORMER, ENCODER = "transformer/config.json", "text_encoder/config.json"
TOKENIZER, INDEX = "tokenizer/tokenizer.json", "model_index.json"
JSONS = (
    INDEX, TRANSFORMER, ENCODER, "vae/config.json", "scheduler/scheduler_config.json", TOKENIZER,
    "tokenizer/tokenizer_config.json",
)  # fmt: skip
WEIGHTS = (
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)
CONTENTS = {
    "empty": b"", "garbage": bytes(range(256)) * 20, "a list": b"[]", "a number": b"3", "null": b"null",
    "a text": b'"config"', "half": b'{"_class_name": "Z', "deep": b"[" * 100_000,
}  # fmt: skip
VALUES = ("x", -1, 0, None, [], {}, [[]], True, 1.5)


@pytest.fixture(scope="module")
def zimage(tmp_path_factory):
    return tiny.save("zimage", tmp_path_factory.mktemp("zimage"))


@pytest.fixture
def folder(zimage, tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    return Path(shutil.copytree(zimage, tmp_path / "m"))


def paint(model: Path):
    request = PaintRequest(**ASK, model=str(model))
    return tiny.pixels_of(next(Painter.ready(request).paint(request)))


def refused(model: Path) -> StarryError:
    with pytest.raises(StarryError) as caught:
        paint(model)
    is_a_sentence(caught.value)
    return caught.value


def is_a_sentence(error: StarryError) -> None:
    for text, stop in ((error.en, "."), (error.zh, "。")):
        assert text.endswith(stop), text
        assert "\n" not in text
        assert 20 < len(text) < 900 or stop == "。", text
    assert error.en != error.zh


@pytest.mark.parametrize("file", [*JSONS, *WEIGHTS])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_of_the_wrong_content_is_a_sentence(folder, file, content):
    (folder / file).write_bytes(CONTENTS[content])
    error = refused(folder)
    if file not in (TOKENIZER,):
        assert Path(file).name in error.en, error.en  # the file is named


@pytest.mark.parametrize("file", [INDEX, TRANSFORMER, ENCODER, "vae/config.json", *WEIGHTS, TOKENIZER])
def test_a_missing_file_is_a_sentence(folder, file):
    (folder / file).unlink()
    error = refused(folder)
    assert Path(file).parent.name in error.en or Path(file).name in error.en


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae", "scheduler", "tokenizer"])
def test_a_missing_folder_is_named(folder, part):
    shutil.rmtree(folder / part)
    assert f"“{part}”" in refused(folder).en


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae", "scheduler", "tokenizer"])
@pytest.mark.parametrize("entry", [None, "x", 3, [], ["diffusers"], [None, None], ["diffusers", "NoSuchClass"], ["mine", "Mine"],
                                   ["diffusers", 3], [3, "x"], ["transformers", "Qwen3Config"]])  # fmt: skip
def test_an_index_that_names_no_class_of_the_libraries_is_a_sentence(folder, part, entry):
    tiny.rewrite_json(folder / INDEX, **{part: entry})
    refused(folder)


def keys() -> list[tuple[str, str]]:
    """Every key of the configurations of the three networks and the scheduler."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel

    made = ((TRANSFORMER, ZImageTransformer2DModel), ("vae/config.json", AutoencoderKL),
            ("scheduler/scheduler_config.json", FlowMatchEulerDiscreteScheduler))  # fmt: skip
    import inspect

    return [(file, key) for file, kind in made for key in inspect.signature(kind.__init__).parameters if key != "self"] + [
        (ENCODER, key) for key in ("hidden_size", "num_hidden_layers", "vocab_size", "head_dim", "architectures",
                                   "model_type", "hidden_act", "rope_parameters", "num_attention_heads", "dtype")
    ]  # fmt: skip


@pytest.mark.parametrize(("file", "key"), keys(), ids=lambda one: str(one).split("/")[0])
def test_a_value_of_the_wrong_kind_paints_or_is_a_sentence(folder, file, key):
    """A key that the architecture ignores changes nothing; every other is refused in words, at loading or at painting."""
    whole = (folder / file).read_text("utf-8")
    for value in VALUES[hash_of(key) % 9 :: 9]:
        (folder / file).write_text(json.dumps(json.loads(whole) | {key: value}), "utf-8")
        try:
            assert paint(folder).shape == (64, 64, 3)
        except StarryError as error:
            is_a_sentence(error)


def hash_of(text: str) -> int:
    return sum(map(ord, text))


# What the libraries raise, by cause


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ModuleNotFoundError("No module named 'gguf'", name="gguf"), MissingPackage, "pip install gguf"),
        (ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install -U bitsandbytes`"),
         MissingPackage, "pip install bitsandbytes"),
        (ImportError("\nT5Tokenizer requires the SentencePiece library but it was not found in your environment."),
         MissingPackage, "pip install sentencepiece"),
        (ImportError("cannot import name 'Foo' from 'diffusers'", name="diffusers"), MissingPackage, "pip install -U diffusers"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), OutOfMemory, "memory"),
        (MemoryError(), OutOfMemory, "memory"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), OutOfMemory, "memory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/a"), StorageError, "/disk/a"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/root/a"), StorageError, "permissions"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/ro/a"), StorageError, "/ro/a"),
        (ValueError("loading it requires you to execute code; set `trust_remote_code=True`"), Unfit, "code of its own"),
        (KeyError("layers.0"), Unfit, "KeyError 'layers.0'"),
        (AssertionError(), Unfit, "AssertionError"),
        (RecursionError("maximum recursion depth exceeded"), Unfit, "recursion depth"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, BaseException) else None,
)  # fmt: skip
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_error_is_translated_by_its_cause(error, kind, words, wrapped):
    if (
        wrapped
        and not isinstance(error, KeyError | AssertionError | RecursionError)
        and "remote" not in str(error)
    ):
        outer = OSError("Can't load the model.")
        outer.__cause__ = error
        error = outer
    found = explain(error, Path("/models/m"))
    is_a_sentence(found)
    assert type(found) is kind
    assert words in found.en


def test_our_own_errors_ctrl_c_and_a_callbacks_error_pass():
    for error in (Cancelled(), KeyboardInterrupt(), SystemExit(2), MissingFile("There is none.", "没有。")):
        with pytest.raises(type(error)) as caught, library_errors(Path("m")):
            raise error
        assert caught.value is error
    mine = ValueError("a callback's")
    with pytest.raises(ValueError, match="a callback's"), library_errors(Path("m"), [mine]):
        raise mine
    with pytest.raises(Unfit, match="theirs"), library_errors(Path("m"), [mine]):
        raise ValueError("it is theirs")


def test_an_error_of_on_step_reaches_its_caller(zimage):
    def mine(step):
        raise ZeroDivisionError("mine")

    request = PaintRequest(**ASK, model=str(zimage))
    with pytest.raises(ZeroDivisionError, match="mine"):
        next(Painter.ready(request).paint(request, mine))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_a_storage_error(folder):
    (folder / WEIGHTS[0]).chmod(0)
    with pytest.raises(StorageError):
        paint(folder)


@pytest.mark.parametrize("file", [INDEX, ENCODER, TOKENIZER])
def test_the_command_line_prints_one_sentence(folder, file):
    (folder / file).write_bytes(b"[]")
    words = [
        "paint",
        "a starry night",
        "-m",
        str(folder),
        "--size",
        "64",
        "--steps",
        "1",
        "-o",
        str(folder / "a.png"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", "from starrynight.cli import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (BadFile.exit_code, Unfit.exit_code)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("✗") == 1
