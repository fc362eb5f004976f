"""Weights in several files: a packed weight and its companions in different shards, and a sharded component as a part of a model
put together from files.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import test_ledger
import test_packed
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_kept import painter_of, plans, weights_of
from test_ledger import FP8, assert_same, numbers
from torch import Tensor

from starrynight.errors import BadFile, BadRequest, MissingFile, Unfit
from starrynight.models import assembly, catalogue, load, precision_plan, tensors, weights
from starrynight.models.fingerprint import fingerprint


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def zimage(tmp_path_factory) -> Path:
    return tiny.save("zimage", tmp_path_factory.mktemp("zimage"))


def loaded(model: str, precision: str = "float32") -> Any:
    found = catalogue.resolve(model)
    return load.load(found, precision_plan.choose(found, "cpu", precision))


def is_companion(name: str) -> bool:
    return not name.endswith(("weight", "bias")) or name.endswith("scale_weight")


def split(state: dict[str, Tensor], stem: str, folder: Path) -> Path:
    """Two shards, every scale and description in the second, and their list."""
    for old in folder.glob("*.safetensors"):
        old.unlink()
    owner = {name: f"{stem}-0000{1 + is_companion(name)}-of-00002.safetensors" for name in state}
    for file in set(owner.values()):
        own = {name: state[name].contiguous().clone() for name in state if owner[name] == file}
        save_file(own, folder / file, {"format": "pt"})
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": owner}))
    return index


TRANSFORMER = "diffusion_pytorch_model"


def packed_state(
    form: str, state: dict[str, Tensor], tmp_path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    if form == "bitsandbytes":
        folder = tiny.save("zimage", tmp_path / "bnb")
        meant = test_packed.quantise_folder(folder)
        return load_file(folder / "transformer" / f"{TRANSFORMER}.safetensors"), meant
    return test_ledger.scaled(state, form)


@pytest.mark.parametrize("form", ["kijai", "comfy", "channel", "block", "int8", "bitsandbytes"])
def test_a_weight_and_its_scale_lie_in_different_shards(form, zimage, tmp_path):
    state = load_file(zimage / "transformer" / f"{TRANSFORMER}.safetensors")
    stored, meant = packed_state(form, state, tmp_path)
    folder = Path(shutil.copytree(zimage, tmp_path / "m"))
    split(stored, TRANSFORMER, folder / "transformer")
    found = dict(loaded(str(folder)).transformer.state_dict())
    for name, tensor in meant.items():
        torch.testing.assert_close(found[name], tensor.float(), rtol=1e-6, atol=0)


def test_kept_weights_and_their_scales_lie_in_different_shards(zimage, tmp_path):
    state = load_file(zimage / "transformer" / f"{TRANSFORMER}.safetensors")
    folder = Path(shutil.copytree(zimage, tmp_path / "m"))
    split(test_ledger.scaled(state, "comfy")[0], TRANSFORMER, folder / "transformer")
    model = catalogue.resolve(str(folder))
    out, kept = (load.load(model, plan).transformer for plan in plans(model, "bfloat16"))
    expected = weights_of(out)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(kept).items())


def test_a_scale_that_no_shard_holds_is_named(zimage, tmp_path):
    stored, _ = test_ledger.scaled(load_file(zimage / "transformer" / f"{TRANSFORMER}.safetensors"), "kijai")
    lost = next(name for name in stored if name.endswith("scale_weight"))
    folder = Path(shutil.copytree(zimage, tmp_path / "m"))
    split(
        {name: tensor for name, tensor in stored.items() if name != lost}, TRANSFORMER, folder / "transformer"
    )
    with pytest.raises(Unfit, match=lost.removesuffix("scale_weight")):
        loaded(str(folder))


def test_a_tensor_in_two_shards_is_named(zimage, tmp_path):
    stored, _ = test_ledger.scaled(load_file(zimage / "transformer" / f"{TRANSFORMER}.safetensors"), "kijai")
    folder = Path(shutil.copytree(zimage, tmp_path / "m"))
    index = split(stored, TRANSFORMER, folder / "transformer")
    second = folder / "transformer" / f"{TRANSFORMER}-00002-of-00002.safetensors"
    save_file(load_file(second) | {"layers.0.attention.to_q.weight": torch.ones(32, 32)}, second)
    with pytest.raises(Unfit, match=r"layers\.0\.attention\.to_q\.weight.*two of its files"):
        loaded(str(folder))
    with pytest.raises(BadFile, match=r"two shards hold layers\.0\.attention\.to_q\.weight"):
        weights.header(index)


# -- as a part of a model put together from files --------------------------------------------------------------------


@pytest.fixture
def encoder(zimage, tmp_path) -> Path:
    """A folder with a sharded text encoder, beside a base that has none of its own."""
    shutil.copytree(zimage, tmp_path / "home" / "models" / "z-image-turbo")
    state = load_file(zimage / "text_encoder" / "model.safetensors")
    torch.manual_seed(2)
    folder = tmp_path / "encoder"
    folder.mkdir()
    names = sorted(state)
    other = {name: torch.randn_like(state[name]) for name in names}
    owner = {name: f"model-0000{1 + (number % 3)}-of-00003.safetensors" for number, name in enumerate(names)}
    for file in set(owner.values()):
        save_file({name: other[name] for name in names if owner[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": owner}))
    save_file(other, tmp_path / "whole.safetensors")
    return folder


@pytest.mark.parametrize("given", [".", "model.safetensors.index.json", "model-00002-of-00003.safetensors"])
def test_a_sharded_text_encoder_is_a_part(given, encoder, tmp_path):
    for name, path in {"whole": tmp_path / "whole.safetensors", "shards": encoder / given}.items():
        assembly.add(name, None, [path], None, base="z-image-turbo")
    assert_same(numbers(loaded("shards")), numbers(loaded("whole")))
    model = catalogue.resolve("shards")
    assert model.spec.parts["text_encoder"] == encoder / "model.safetensors.index.json"
    painter = painter_of(model, precision_plan.choose(model, "cpu", "float32"))
    ledger = painter.provenance["tensors"]["text_encoder"]
    assert ledger["used"] == ledger["of"] == len(load_file(tmp_path / "whole.safetensors"))


def test_a_sharded_part_in_8_bits_is_kept(encoder, tmp_path):
    for path in encoder.glob("*.safetensors"):
        save_file({n: t.to(FP8) if t.dim() > 1 else t for n, t in load_file(path).items()}, path)
    assembly.add("mine", None, [encoder], None, base="z-image-turbo")
    model = catalogue.resolve("mine")
    out, kept = (load.load(model, plan) for plan in plans(model, "bfloat16"))
    assert kept.ledgers.found["text_encoder"].kept > 0
    expected = weights_of(out.text_encoder)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(kept.text_encoder).items())


def test_a_changed_shard_is_another_model(encoder):
    index = encoder / "model.safetensors.index.json"
    before = fingerprint(index)
    path = encoder / "model-00002-of-00003.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    assert fingerprint(index) != before


def test_a_list_of_shards_that_is_wrong_is_one_sentence(encoder, tmp_path):
    index = encoder / "model.safetensors.index.json"
    listed = json.loads(index.read_text())["weight_map"]

    def add() -> None:
        assembly.add("mine", None, [index], None, base="z-image-turbo", overwrite=True)

    index.write_text(json.dumps({"weight_map": listed | {"unheard.of": next(iter(listed.values()))}}))
    with pytest.raises(BadFile, match=r"no shard holds unheard\.of"):
        add()
    for wrong in ({"weight_map": {"x": "../x.safetensors"}}, {"weight_map": [1]}):
        index.write_text(json.dumps(wrong))
        with pytest.raises(BadFile, match="invalid form"):
            add()
    index.write_text(json.dumps({}))
    with pytest.raises(Unfit, match="unknown file"):
        add()
    index.write_text(json.dumps({"weight_map": listed}))
    (encoder / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(MissingFile, match="model-00003-of-00003"):
        add()
    with pytest.raises(BadRequest, match="no weight files"):
        assembly.add("mine", None, [tmp_path / "home"], None, base="z-image-turbo")


def test_a_sharded_transformer_paints_by_its_list(zimage, tmp_path):
    state = load_file(zimage / "transformer" / f"{TRANSFORMER}.safetensors")
    folder = tmp_path / "t"
    folder.mkdir()
    owner = {
        name: f"t-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(state))
    }
    for file in set(owner.values()):
        save_file({name: state[name] for name in state if owner[name] == file}, folder / file)
    index = folder / "t.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": owner}))
    model = catalogue.resolve(str(index), base=str(zimage))
    found = load.load(model, precision_plan.choose(model, "cpu", "float32"))
    assert_same(numbers(found), numbers(loaded(str(zimage))))
    assert tensors.read(index, lambda _: torch.float32).meant.keys() == state.keys()
