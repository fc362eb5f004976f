"""A single-file checkpoint without its autoencoder or a text encoder: the base's is used and told, or a sentence says what to add."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_loading
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_kept import painter_of
from test_ledger import assert_same, numbers

from starrynight.errors import MissingFile, StarryError, Unfit
from starrynight.models import assembly, catalogue, load, precision_plan, single_file
from starrynight.request import PaintRequest

PREFIX = {
    "vae": "first_stage_model.",
    "text_encoder": "conditioner.embedders.0.",
    "text_encoder_2": "conditioner.embedders.1.",
}


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl") / "sdxl"
    tiny.FAMILIES["sdxl"](64).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, sdxl) -> Path:
    """The layout's small files are those of the tiny model."""
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    small = Path(shutil.copytree(sdxl, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors")))
    layouts = tuple(replace(one, folder=small) if one.folder else one for one in single_file.LAYOUTS)
    monkeypatch.setattr(single_file, "LAYOUTS", layouts)
    return tmp_path / "home"


def checkpoint(path: Path, *lacks: str) -> Path:
    state = test_loading.sgm_layout(tiny.sdxl(64))
    cut = tuple(PREFIX[name] for name in lacks) or ("-",)
    save_file({n: t.contiguous().clone() for n, t in state.items() if not n.startswith(cut)}, path)
    return path


def loaded(model: Any) -> Any:
    return load.load(model, precision_plan.choose(model, "cpu", "float32"))


def other_base(home: Path, sdxl: Path) -> Path:
    """A base whose networks hold other numbers than the checkpoint's."""
    base = Path(shutil.copytree(sdxl, home / "models" / "sdxl"))
    torch.manual_seed(9)
    for path in base.rglob("*.safetensors"):
        save_file({n: torch.randn_like(t) for n, t in load_file(path).items()}, path, {"format": "pt"})
    return base


@pytest.mark.parametrize("lacks", [("vae",), ("text_encoder",), ("vae", "text_encoder")])
@pytest.mark.parametrize("named", [False, True], ids=["the catalogue's base", "a base by name"])
def test_the_bases_network_is_used_and_told(lacks, named, home, sdxl, tmp_path):
    path, base = checkpoint(tmp_path / "x.safetensors", *lacks), other_base(home, sdxl)
    model = catalogue.resolve(str(path), base=str(base) if named else None)
    found, own, theirs = (
        numbers(loaded(model)),
        numbers(loaded(catalogue.resolve(str(checkpoint(tmp_path / "whole.safetensors"))))),
        numbers(loaded(catalogue.resolve(str(base)))),
    )
    assert_same(found, {n: theirs[n] if n.partition(".")[0] in lacks else own[n] for n in own})
    painter = painter_of(model, precision_plan.choose(model, "cpu", "float32"))
    assert set(painter.provenance["borrowed"]) == set(lacks)
    assert set(lacks) <= set(painter.provenance["tensors"])
    request = PaintRequest(prompt="a", model="x", width=64, height=64, steps=2, guidance=2.0)
    en, zh = painter.warnings(request)[-1]
    assert all(name in en and name in zh for name in ("x.safetensors", "sdxl", *lacks))
    before = model.fingerprint
    (weight,) = (base / lacks[0]).glob("*.safetensors")
    save_file({n: t + 1 for n, t in load_file(weight).items()}, weight, {"format": "pt"})
    assert catalogue.resolve(str(path), base=str(base) if named else None).fingerprint != before


def test_a_whole_file_borrows_nothing(home, sdxl, tmp_path):
    other_base(home, sdxl)
    model = catalogue.resolve(str(checkpoint(tmp_path / "x.safetensors")))
    painter = painter_of(model, precision_plan.choose(model, "cpu", "float32"))
    assert "borrowed" not in painter.provenance
    assert not model.borrowed


@pytest.mark.parametrize(
    ("lacks", "words"),
    [
        (("vae",), ["no vae", "--vae FILE", "--base sdxl", "starry models pull sdxl"]),
        (("text_encoder",), ["no text_encoder;", "--text-encoder FILE"]),
        (("text_encoder", "vae"), ["no text_encoder and no vae", "--text-encoder FILE --vae FILE"]),
        (("text_encoder_2",), ["--transformer x.safetensors", "--base sdxl"]),
        (
            ("text_encoder", "text_encoder_2", "vae"),
            ["Stable Diffusion XL U-Net", "starry models add NAME", "--base sdxl"],
        ),
    ],
)
def test_without_a_base_the_sentence_says_what_to_add(lacks, words, tmp_path):
    path = checkpoint(tmp_path / "x.safetensors", *lacks)
    with pytest.raises(Unfit) as caught:
        catalogue.resolve(str(path))
    assert all(word in caught.value.en for word in words), caught.value.en
    assert " a a " not in caught.value.en
    assert "starry models add" in caught.value.zh


def test_stable_diffusion_1_names_a_base_of_its_own_family(tmp_path):
    state = test_loading.ldm_layout(tiny.sd())
    for lacks in (("first_stage_model.",), ("first_stage_model.", "cond_stage_model.")):
        path = tmp_path / f"{len(lacks)}.safetensors"
        save_file({n: t.contiguous().clone() for n, t in state.items() if not n.startswith(lacks)}, path)
        with pytest.raises(Unfit) as caught:
            catalogue.resolve(str(path))
        assert "--base FOLDER (a diffusers folder of Stable Diffusion 1)" in caught.value.en


@pytest.mark.parametrize("lacks", [("vae",), ("text_encoder_2", "vae")])
def test_what_the_sentence_says_works(lacks, home, sdxl, tmp_path):
    """``starry models add`` with the files that the user has, over the base's small files or its weights."""
    base = other_base(home, sdxl)
    path = checkpoint(tmp_path / "x.safetensors", *lacks)
    (decoder,) = (sdxl / "vae").glob("*.safetensors")
    assembly.add("mine", path, [], decoder, base="sdxl")
    found, theirs = numbers(loaded(catalogue.resolve("mine"))), numbers(loaded(catalogue.resolve(str(base))))
    own = numbers(loaded(catalogue.resolve(str(sdxl))))
    assert_same(
        found, {n: theirs[n] if n.startswith("text_encoder_2.") and len(lacks) > 1 else own[n] for n in own}
    )


def test_an_all_in_one_transformer_without_its_decoder_borrows_it(home, tmp_path):
    folder = tiny.save("zimage", home / "models" / "z-image-turbo")
    state = {
        f"model.diffusion_model.{n}": t
        for n, t in load_file(next((folder / "transformer").glob("*.safetensors"))).items()
    }
    encoder = load_file(folder / "text_encoder" / "model.safetensors")
    state |= {f"text_encoders.qwen3_4b.transformer.model.{n}": t + 1 for n, t in encoder.items()}
    path = tmp_path / "aio.safetensors"
    save_file({n: t.contiguous().clone() for n, t in state.items()}, path)
    model = catalogue.resolve(str(path))
    assert model.borrowed == ["vae"]
    assert model.lender == "z-image-turbo"
    shutil.rmtree(folder / "vae")
    with pytest.raises(StarryError, match="vae"):
        loaded(catalogue.resolve(str(path)))
    with pytest.raises(MissingFile):
        catalogue.resolve(str(tmp_path / "gone.safetensors"))
