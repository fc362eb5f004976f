"""Loading: what may be opened, what is refused and why, single files over a base, checkpoints without a network."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import pickle
import re
import shutil
import threading
import urllib.parse
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import tiny
import torch

from starrynight.errors import (
    BadFile,
    HubUnreachable,
    LfsPointer,
    MissingFile,
    MissingPackage,
    PickledFile,
    Unfit,
    UnknownName,
)  # fmt: skip
from starrynight.folding import export
from starrynight.models import catalogue, download, load, precision_plan, single_file
from starrynight.models import weights as files
from starrynight.models.library_errors import out_of_memory
from starrynight.painting import offload
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest

ASK = {"prompt": "a starry night", "width": 64, "height": 64, "steps": 2, "seed": 1, "precision": "float32"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def zimage(tmp_path_factory):
    return tiny.save("zimage", tmp_path_factory.mktemp("zimage"))


def paint(model, **more):
    request = PaintRequest(**ASK, model=str(model), **more)
    return tiny.pixels_of(next(Painter.ready(request).paint(request)))


def weights(folder: Path) -> Path:
    return folder / "transformer" / "diffusion_pytorch_model.safetensors"


def copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


# What must not be opened


class Bomb:
    def __reduce__(self):
        return (open, ("/tmp/a-pickle-was-opened", "w"))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "model.pth", "pretty.safetensors"])
def test_a_pickle_is_refused_unopened_whatever_its_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(PickledFile):
        catalogue.resolve(str(path))
    assert not Path("/tmp/a-pickle-was-opened").exists()


def test_a_torch_save_renamed_to_safetensors_is_refused(tmp_path):
    path = tmp_path / "lovely.safetensors"
    torch.save({"weight": torch.ones(2)}, path)
    assert zipfile.is_zipfile(path)
    with pytest.raises(PickledFile, match=r"lovely\.safetensors"):
        files.header(path)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 640 + (1 << 16)])
def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path, length):
    """A safetensors file begins with its header's length; 640 is 80 02, as a pickle of protocol 2 begins."""
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    path = tmp_path / "lovely.safetensors"
    text = json.dumps(header).encode().ljust(length)
    path.write_bytes(length.to_bytes(8, "little") + text + bytes(4))
    assert path.read_bytes().startswith(files.PICKLE_OPENINGS)
    assert files.header(path) == header
    assert set(safetensors.torch.load_file(path)) == {"w"}
    path.write_bytes(length.to_bytes(8, "little") + b"(" + text[1:] + bytes(4))  # no JSON object follows
    with pytest.raises(PickledFile):
        files.header(path)


def test_a_link_is_judged_by_its_own_name(zimage, fine_tune, home, tmp_path):
    """A hub's cache keeps files under their hash and links to them."""
    copy(zimage, home / "models" / "z-image-turbo")
    safetensors.torch.save_file(fine_tune, tmp_path / "2407613050b809ff")
    link = tmp_path / "z_image_turbo_bf16.safetensors"
    link.symlink_to(tmp_path / "2407613050b809ff")
    model = catalogue.resolve(str(link))
    assert (model.spec.en, model.path) == ("z_image_turbo_bf16", link)
    assert (
        load.load(model, precision_plan.choose(model, "cpu", "bfloat16")).transformer.dtype == torch.bfloat16
    )


def test_a_pickle_inside_a_folder_is_refused(zimage, tmp_path):
    folder = copy(zimage, tmp_path / "m")
    weights(folder).unlink()
    torch.save({}, folder / "transformer" / "diffusion_pytorch_model.bin")
    with pytest.raises(PickledFile):
        paint(folder)


def test_an_lfs_pointer_is_named(zimage, tmp_path):
    folder = copy(zimage, tmp_path / "m")
    weights(folder).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(LfsPointer, match="git lfs pull"):
        paint(folder)


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_file_cut_short_is_found_from_its_header(zimage, tmp_path, cut):
    folder = copy(zimage, tmp_path / "m")
    weights(folder).write_bytes(weights(folder).read_bytes()[:cut])
    with pytest.raises(BadFile) as caught:
        files.of_folder(folder)
    assert "Download it again" in caught.value.en
    assert "重新下载" in caught.value.zh


def test_a_header_of_any_nonsense_is_a_bad_file(tmp_path):
    for number, header in enumerate(
        [b"[]", b"{", b'{"a": 1}', b'{"a": {"data_offsets": [0, "x"]}}', b"\xff\xfe"]
    ):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(BadFile):
            files.header(path)
    huge = tmp_path / "huge.safetensors"
    huge.write_bytes(b"\xff" * 16)
    with pytest.raises(BadFile):
        files.header(huge)


def test_missing_weights_shards_and_folders_are_named(zimage, tmp_path):
    bare = copy(zimage, tmp_path / "bare")
    weights(bare).unlink()
    with pytest.raises(MissingFile, match="transformer"):
        paint(bare)
    sharded = copy(zimage, tmp_path / "sharded")
    index = {"metadata": {}, "weight_map": {"a": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    (sharded / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(MissingFile, match="00002-of-00002"):
        paint(sharded)
    headless = copy(zimage, tmp_path / "headless")
    shutil.rmtree(headless / "vae")
    with pytest.raises(MissingFile, match="vae"):
        paint(headless)


def test_weights_of_another_architecture_are_unfit(zimage, tmp_path):
    wrong = copy(zimage, tmp_path / "wrong")
    tiny.rewrite_json(wrong / "transformer" / "config.json", dim=48)
    with pytest.raises(Unfit):
        paint(wrong)
    lacking = copy(zimage, tmp_path / "lacking")
    tiny.rewrite_json(lacking / "transformer" / "config.json", n_layers=3)
    with pytest.raises(
        Unfit, match=r"layers\.2"
    ):  # the library would paint with random numbers in their place
        paint(lacking)


def test_a_folder_that_brings_its_own_code_is_refused(zimage, tmp_path):
    folder = copy(zimage, tmp_path / "m")
    (folder / "evil.py").write_text("open('/tmp/a-pipeline-ran', 'w')\nclass Evil: pass\n")
    tiny.rewrite_json(folder / "model_index.json", _class_name=["evil", "Evil"])
    with pytest.raises(Unfit):
        paint(folder)
    assert not Path("/tmp/a-pipeline-ran").exists()


# Single files


def original_layout(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Z-Image's own names, as ComfyUI's files carry them: fused qkv, unnumbered embedders."""
    names = {"all_final_layer.2-1.": "final_layer.", "all_x_embedder.2-1.": "x_embedder.",
             ".attention.to_out.0.": ".attention.out.", ".attention.norm_k.": ".attention.k_norm.",
             ".attention.norm_q.": ".attention.q_norm."}  # fmt: skip
    found = {}
    for key, tensor in state.items():
        if key.endswith(".attention.to_q.weight"):
            stem = key.removesuffix("to_q.weight")
            fused = torch.cat([state[f"{stem}to_{part}.weight"] for part in "qkv"])
            found[f"{prefix}{stem}qkv.weight"] = fused
        elif not key.endswith((".attention.to_k.weight", ".attention.to_v.weight")):
            for ours, theirs in names.items():
                key = key.replace(ours, theirs)
            found[prefix + key] = tensor
    return found


@pytest.fixture(scope="module")
def fine_tune():
    """Another transformer for the same base."""
    torch.manual_seed(7)
    transformer = tiny.zimage_transformer()
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return {key: tensor.contiguous() for key, tensor in transformer.state_dict().items()}


@pytest.mark.parametrize("layout", ["diffusers", "original", "comfy"])
def test_a_transformer_file_is_laid_over_its_base(zimage, fine_tune, home, tmp_path, layout):
    prefix = "model.diffusion_model." if layout == "comfy" else ""
    state = fine_tune if layout == "diffusers" else original_layout(fine_tune, prefix)
    safetensors.torch.save_file(state, tmp_path / "kook.safetensors")
    copy(zimage, home / "models" / "z-image-turbo")
    whole = copy(zimage, tmp_path / "whole")
    safetensors.torch.save_file(fine_tune, weights(whole))
    expected = paint(whole, guidance=2.0)
    assert not (paint(zimage, guidance=2.0) == expected).all()
    row = catalogue.resolve(
        dataclasses.replace(catalogue.find(str(tmp_path / "kook.safetensors")), smallest=64)
    )
    plan = precision_plan.choose(row, "cpu", "float32")
    painter = Painter(load.load(row, plan), row, plan, torch.device("cpu"), "resident")
    assert (next(painter.paint(PaintRequest(**ASK, guidance=2.0))).pixels == expected).all()


WRAPPED = (
    "",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "model.",
    "module.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_forward_module.module.",
    "pipe.dit.",
    "ema_model.",
    "student.net.",
    "net.",
)
# Names between those of modules: FSDP and torch.compile around each block, activation checkpoints, an older FSDP.
WITHIN = (
    "_fsdp_wrapped_module.",
    "_orig_mod.",
    "_checkpoint_wrapped_module.",
    "_fsdp_wrapped_module._fpw_module.",
)


@pytest.mark.parametrize("prefix", WRAPPED)
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_what_a_wrapper_puts_before_all_names_changes_nothing(zimage, home, tmp_path, prefix, layout):
    copy(zimage, home / "models" / "z-image-turbo")
    own = safetensors.torch.load_file(weights(zimage))
    named = original_layout(own, "") if layout == "original" else own
    path = tmp_path / "one.safetensors"
    safetensors.torch.save_file({prefix + name: tensor.contiguous() for name, tensor in named.items()}, path)
    model = catalogue.resolve(str(path))
    pipeline = load.load(model, precision_plan.choose(model, "cpu", "float32"))
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(tensor, own[name]), name


def wrapped_within(state: dict[str, torch.Tensor], wrapper: str) -> dict[str, torch.Tensor]:
    return {
        wrapper + re.sub(r"((?:layers|blocks)\.\d+\.)", rf"\1{wrapper}", name): tensor.contiguous()
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("wrapper", WITHIN)
@pytest.mark.parametrize("held", ["original", "diffusers", "a folder", "a folder's shards"])
def test_what_a_wrapper_puts_between_names_changes_nothing(zimage, home, tmp_path, wrapper, held):
    own = safetensors.torch.load_file(weights(zimage))
    path = tmp_path / "one.safetensors"
    if held.startswith("a folder"):
        path = copy(zimage, tmp_path / "it")
        file = weights(path)
        file.unlink()
        if held == "a folder":
            safetensors.torch.save_file(wrapped_within(own, wrapper), file)
        else:
            in_shards(file.parent, wrapped_within(own, wrapper))
            (file.parent / "m.safetensors.index.json").rename(
                file.parent / "diffusion_pytorch_model.safetensors.index.json"
            )
    else:
        copy(zimage, home / "models" / "z-image-turbo")
        named = original_layout(own, "") if held == "original" else own
        safetensors.torch.save_file(wrapped_within(named, wrapper), path)
    model = catalogue.resolve(str(path))
    pipeline = load.load(model, precision_plan.choose(model, "cpu", "float32"))
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(tensor, own[name]), name
    (counted,) = (one for name, one in pipeline.ledgers.to_dict().items() if name == "transformer")
    assert counted["used"] == counted["of"] > 60
    with pytest.raises(Unfit, match="wrapper"):
        export.write(model, tmp_path / "folded")


def test_a_folder_whose_names_begin_with_a_wrapper_loads(zimage, tmp_path):
    folder = copy(zimage, tmp_path / "it")
    own = safetensors.torch.load_file(weights(folder))
    safetensors.torch.save_file({f"module.{name}": tensor for name, tensor in own.items()}, weights(folder))
    model = catalogue.resolve(str(folder))
    pipeline = load.load(model, precision_plan.choose(model, "cpu", "float32"))
    assert all(torch.equal(tensor, own[name]) for name, tensor in pipeline.transformer.state_dict().items())


@pytest.mark.parametrize("place", ["file", "folder"])
def test_two_tensors_of_one_name_and_flat_parameters_are_refused_by_name(zimage, home, tmp_path, place):
    copy(zimage, home / "models" / "z-image-turbo")
    own = safetensors.torch.load_file(weights(zimage))
    folder = copy(zimage, tmp_path / "it")
    path = weights(folder) if place == "folder" else tmp_path / "one.safetensors"
    named = folder if place == "folder" else path
    name = next(iter(own))
    safetensors.torch.save_file(own | {f"_orig_mod.{name}": own[name].clone()}, path)
    with pytest.raises(BadFile, match=re.escape(name)):
        catalogue.resolve(str(named))
    flat = {n: t for n, t in own.items() if not n.startswith("layers.1.")}
    flat["layers.1._fsdp_wrapped_module._flat_param"] = torch.zeros(100)
    safetensors.torch.save_file(flat, path)
    model = catalogue.resolve(str(named))
    with pytest.raises(Unfit, match=r"layers\.1\."):
        load.load(model, precision_plan.choose(model, "cpu", "float32"))


def in_shards(folder: Path, state: dict[str, torch.Tensor]) -> None:
    for number, names in enumerate((list(state)[::2], list(state)[1::2]), 1):
        safetensors.torch.save_file(
            {name: state[name].contiguous() for name in names},
            folder / f"m-0000{number}-of-00002.safetensors",
        )
    places = {name: f"m-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(state)}
    (folder / "m.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("held", ["a file", "shards", "a component"])
def test_a_folder_with_one_weight_file_is_that_file(zimage, home, tmp_path, held):
    copy(zimage, home / "models" / "z-image-turbo")
    state = safetensors.torch.load_file(weights(zimage))
    folder = tmp_path / "it"
    if held == "a component":
        shutil.copytree(zimage / "transformer", folder)
    else:
        folder.mkdir()
        in_shards(folder, state) if held == "shards" else safetensors.torch.save_file(
            original_layout(state, ""), folder / "z.safetensors"
        )
    model = catalogue.resolve(str(folder))
    pipeline = load.load(model, precision_plan.choose(model, "cpu", "float32"))
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_folder_with_none_or_several_says_what_to_name(zimage, tmp_path):
    state = safetensors.torch.load_file(weights(zimage))
    for name, files_, words in (
        ("none", {}, "holds no weight file; give"), ("several", {"a.safetensors": 1, "b.gguf": 1}, r"2 models \(a.safetensors, b.gguf\)"),
        ("bare shards", None, "shards without their list; download"),
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        for file in files_ or ():
            (folder / file).write_bytes(b"x")
        if files_ is None:
            in_shards(folder, state)
            (folder / "m.safetensors.index.json").unlink()
        with pytest.raises(BadFile, match=words):
            catalogue.find(str(folder))


def test_kook_is_read_from_the_models_folder(zimage, fine_tune, home):
    copy(zimage, home / "models" / "z-image-turbo")
    assert not catalogue.is_here(catalogue.find("kook-zimage-turbo"))
    with pytest.raises(MissingFile, match=r"kook-zimage-turbo\.safetensors"):
        download.pull("kook-zimage-turbo")
    safetensors.torch.save_file(fine_tune, home / "models" / "kook-zimage-turbo.safetensors")
    model = catalogue.resolve("kook-zimage-turbo")
    assert (model.spec.steps, model.spec.guidance) == (8, 2.0)
    pipeline = load.load(model, precision_plan.choose(model, "cpu", "bfloat16"))
    assert pipeline.transformer.dtype == torch.bfloat16
    key = "layers.0.attention.to_q.weight"
    assert torch.equal(pipeline.transformer.state_dict()[key], fine_tune[key].bfloat16())


def test_a_transformer_that_does_not_fit_its_base_is_unfit(zimage, fine_tune, tmp_path):
    lacking = {key: tensor for key, tensor in fine_tune.items() if not key.startswith("layers.1.")}
    safetensors.torch.save_file(lacking, tmp_path / "lacking.safetensors")
    model = catalogue.resolve(str(tmp_path / "lacking.safetensors"), base=str(zimage))
    with pytest.raises(Unfit):
        load.load(model, precision_plan.choose(model, "cpu", "float32"))


def ldm_layout(pipeline) -> dict[str, torch.Tensor]:
    """The tiny Stable Diffusion under the names of CompVis' checkpoints."""
    state = {}
    for key, tensor in pipeline.unet.state_dict().items():
        state["model.diffusion_model." + ldm_unet_name(key)] = tensor
    state |= ldm_vae_layout(pipeline.vae)
    for key, tensor in pipeline.text_encoder.state_dict().items():
        state["cond_stage_model.transformer.text_model." + key.removeprefix("text_model.")] = tensor
    return {key: tensor.contiguous() for key, tensor in state.items()}


def ldm_vae_layout(vae) -> dict[str, torch.Tensor]:
    state = {}
    for key, tensor in vae.state_dict().items():
        key = ldm_vae_name(key)
        is_projection = ".attn_1." in key and key.endswith("weight") and ".norm." not in key
        state["first_stage_model." + key] = tensor[:, :, None, None] if is_projection else tensor
    return state


def renamed(key: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        key = key.replace(ours, theirs)
    return key


def ldm_unet_name(key: str) -> str:
    places = {
        "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
        "conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
        "down_blocks.0.resnets.0.": "input_blocks.1.0.", "down_blocks.0.attentions.0.": "input_blocks.1.1.",
        "down_blocks.0.downsamplers.0.conv.": "input_blocks.2.0.op.", "down_blocks.1.resnets.0.": "input_blocks.3.0.",
        "mid_block.resnets.0.": "middle_block.0.", "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.", "up_blocks.0.resnets.0.": "output_blocks.0.0.",
        "up_blocks.0.resnets.1.": "output_blocks.1.0.", "up_blocks.0.upsamplers.0.": "output_blocks.1.1.",
        "up_blocks.1.resnets.0.": "output_blocks.2.0.", "up_blocks.1.attentions.0.": "output_blocks.2.1.",
        "up_blocks.1.resnets.1.": "output_blocks.3.0.", "up_blocks.1.attentions.1.": "output_blocks.3.1.",
    }  # fmt: skip
    inside = {".conv1.": ".in_layers.2.", ".conv2.": ".out_layers.3.", ".time_emb_proj.": ".emb_layers.1.",
              ".conv_shortcut.": ".skip_connection."}  # fmt: skip
    if ".resnets." in key:
        inside |= {".norm1.": ".in_layers.0.", ".norm2.": ".out_layers.0."}
    return renamed(renamed(key, inside), places)


def ldm_vae_name(key: str) -> str:
    return renamed(key, {
        "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1",
        "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "conv_norm_out": "norm_out",
        "down_blocks.": "down.", "up_blocks.0": "up.1x", "up_blocks.1": "up.0x", "x.": ".", ".resnets.": ".block.",
        "downsamplers.0": "downsample", "upsamplers.0": "upsample", "conv_shortcut": "nin_shortcut",
    })  # fmt: skip


def sgm_layout(pipeline) -> dict[str, torch.Tensor]:
    """The tiny Stable Diffusion XL under the names of Stability's checkpoints."""
    places = {
        "down_blocks.1.resnets.0.": "input_blocks.3.0.", "down_blocks.1.attentions.0.": "input_blocks.3.1.",
        "up_blocks.0.resnets.0.": "output_blocks.0.0.", "up_blocks.0.attentions.0.": "output_blocks.0.1.",
        "up_blocks.0.resnets.1.": "output_blocks.1.0.", "up_blocks.0.attentions.1.": "output_blocks.1.1.",
        "up_blocks.0.upsamplers.0.": "output_blocks.1.2.", "up_blocks.1.resnets.0.": "output_blocks.2.0.",
        "up_blocks.1.resnets.1.": "output_blocks.3.0.", "add_embedding.linear_1.": "label_emb.0.0.",
        "add_embedding.linear_2.": "label_emb.0.2.",
    }  # fmt: skip
    state = {}
    for key, tensor in pipeline.unet.state_dict().items():
        place = next((place for place in places if key.startswith(place)), None)
        if place is None:
            name = ldm_unet_name(key)
        else:
            inside = key[len(place) :]
            block = ldm_unet_name(f".resnets.{inside}").removeprefix(".resnets.")
            name = places[place] + (block if "resnets" in place else inside)
        state["model.diffusion_model." + name] = tensor
    state |= ldm_vae_layout(pipeline.vae)
    for key, tensor in pipeline.text_encoder.state_dict().items():
        name = "text_model." + key.removeprefix("text_model.")
        state["conditioner.embedders.0.transformer." + name] = tensor
    second = {
        "conditioner.embedders.1.model." + key: t
        for key, t in open_clip_layout(pipeline.text_encoder_2).items()
    }
    return {key: tensor.contiguous() for key, tensor in (state | second).items()}


def open_clip_layout(encoder) -> dict[str, torch.Tensor]:
    """OpenCLIP's names: fused projections, and a projection of the text that lies the other way round."""
    names = {"text_model.embeddings.position_embedding.weight": "positional_embedding", "layer_norm1": "ln_1",
             "text_model.embeddings.token_embedding": "token_embedding", "layer_norm2": "ln_2", ".fc1.": ".c_fc.",
             "text_model.final_layer_norm": "ln_final", "text_model.encoder.layers.": "transformer.resblocks.",
             ".fc2.": ".c_proj.", ".self_attn.": ".attn."}  # fmt: skip
    state, found = encoder.state_dict(), {}
    for key, tensor in state.items():
        if key == "text_projection.weight":
            found["text_projection"] = tensor.T
        elif ".q_proj." in key:
            fused = torch.cat([state[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"])
            found[renamed(key, names).replace("q_proj.", "in_proj_")] = fused
        elif ".k_proj." not in key and ".v_proj." not in key:
            found[renamed(key, names)] = tensor
    return found


def test_a_whole_checkpoint_needs_no_network(tmp_path):
    folder = tiny.save("sd", tmp_path / "sd")
    path = tmp_path / "merged.safetensors"
    safetensors.torch.save_file(ldm_layout(tiny.sd()), path)
    layout = single_file.recognise(path)
    assert layout.name == "Stable Diffusion 1"
    assert layout.folder.is_dir()
    model = catalogue.resolve(str(path), base=str(folder))  # the shipped shapes are the full-size model's
    pipeline = load.load(model, precision_plan.choose(model, "cpu", "float32"))
    for name in ("unet", "vae", "text_encoder"):
        ours = getattr(
            load.load(catalogue.resolve(str(folder)), precision_plan.choose(model, "cpu", "float32")), name
        )
        theirs = getattr(pipeline, name).state_dict()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.state_dict().items()), name


@pytest.mark.parametrize(
    ("layout", "part", "count"),
    # The counts of the published networks.
    [("sd15", "unet", 859_520_964), ("sd15", "vae", 83_653_863), ("sd15", "text_encoder", 123_060_480),
     ("sdxl", "unet", 2_567_463_684), ("sdxl", "text_encoder_2", 694_659_840)],
)  # fmt: skip
def test_the_shipped_shapes_are_the_published_ones(layout, part, count):
    import diffusers
    import transformers
    from accelerate import init_empty_weights

    folder = single_file.HERE / layout
    library, name = json.loads((folder / "model_index.json").read_text())[part]
    kind = getattr({"diffusers": diffusers, "transformers": transformers}[library], name)
    with init_empty_weights():
        if library == "diffusers":
            network = kind.from_config(kind.load_config(folder / part))
        else:
            network = kind(kind.config_class.from_pretrained(folder / part))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_the_shipped_tokenizer_speaks_clip():
    tokenizer = single_file.clip_tokenizer()
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(tokenizer) == 49408
    assert single_file.clip_tokenizer("!").pad_token_id == 0


def test_a_lora_given_as_a_model_is_told_apart(tmp_path):
    path = tmp_path / "moonlight.safetensors"
    safetensors.torch.save_file({"lora_unet_x.lora_down.weight": torch.ones(1)}, path)
    with pytest.raises(Unfit, match="--lora"):
        catalogue.resolve(str(path))
    safetensors.torch.save_file({"something": torch.ones(1)}, path)
    with pytest.raises(Unfit, match="Stable Diffusion XL"):
        catalogue.resolve(str(path))


# The plan


def test_the_plan_does_not_change_with_how_busy_the_machine_is(zimage, home, monkeypatch):
    from starrynight.numerics import device

    precision_plan._probed.cache_clear()
    model = catalogue.resolve(str(zimage))
    busy = device.MatmulRates({"float32": 1.0, "bfloat16": 9.0}, waited=0.5)
    monkeypatch.setattr(device, "matmul_rates", lambda _: busy)
    assert precision_plan.machine("cpu").busy
    assert not (home / "cache" / "rates.json").exists()  # what a busy machine measured is not kept
    precision_plan._probed.cache_clear()
    monkeypatch.setattr(
        device, "matmul_rates", lambda _: device.MatmulRates({"float32": 9.0, "bfloat16": 1.0}, waited=0.0)
    )
    first = precision_plan.choose(model, "cpu", "auto")
    (key,) = json.loads((home / "cache" / "rates.json").read_text())
    assert torch.__version__ in key
    precision_plan._probed.cache_clear()
    monkeypatch.setattr(device, "matmul_rates", lambda _: pytest.fail("measured again"))
    assert precision_plan.choose(model, "cpu", "auto") == first
    precision_plan._probed.cache_clear()
    (home / "cache" / "rates.json").write_text('{"an older torch": {}}')
    monkeypatch.setattr(
        device, "matmul_rates", lambda _: device.MatmulRates({"float32": 1.0, "bfloat16": 9.0}, 0.0)
    )
    assert precision_plan.choose(model, "cpu", "auto")["transformer"].dtype == "bfloat16"
    precision_plan._probed.cache_clear()


# Memory and attention


@pytest.mark.parametrize(
    ("weights", "free", "arrangement"),
    [
        ({"unet": 3, "vae": 1}, 24, "resident"),
        ({"transformer": 12, "text_encoder": 8, "vae": 1}, 32, "resident"),
        ({"transformer": 12, "text_encoder": 8, "vae": 1}, 24, "model"),  # decoding would find no room
        ({"transformer": 12, "text_encoder": 8, "vae": 1}, 16, "model"),
        ({"transformer": 12, "text_encoder": 8, "vae": 1}, 8, "sequential"),
        ({"transformer": 12, "text_encoder": 8, "vae": 1}, 14, "sequential"),  # no room beside it to work in
        ({}, 4, "resident"),
    ],
)
def test_the_arrangement_follows_from_sizes(weights, free, arrangement):
    gigabytes = {name: size * 10**9 for name, size in weights.items()}
    assert offload.arrange(gigabytes, free * 10**9) == arrangement


def test_sizes_are_counted_in_bytes(zimage):
    model = catalogue.resolve(str(zimage))
    pipeline = load.load(model, precision_plan.choose(model, "cpu", "bfloat16"))
    counts = model.parameters
    assert offload.sizes(pipeline)["transformer"] >= 2 * counts["transformer"]
    assert counts["transformer"] == sum(p.numel() for p in pipeline.transformer.parameters())
    assert offload.choose(pipeline, torch.device("cpu"), 1) == "resident"


def test_attention_back_ends(zimage):
    request = PaintRequest(**ASK, model=str(zimage))
    plain = next(Painter.ready(request).paint(request)).pixels
    exact = next(Painter.ready(request, attention="math").paint(request)).pixels
    assert abs(plain - exact).max() < 1e-4
    with pytest.raises(UnknownName, match="xformers"):
        Painter.ready(request, attention="xformer")
    try:
        import xformers  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPackage, match="pip install xformers"):
            Painter.ready(request, attention="xformers")


def test_out_of_memory_is_told_from_other_errors():
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert out_of_memory(RuntimeError("shapes differ")) is None
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert out_of_memory(caught.value)


# Downloads, from an HTTP server on this machine


class HubHandler(http.server.BaseHTTPRequestHandler):
    """Lists and sends the files of ``server.root`` as the hub and ModelScope do, with ranges.

    ``server.drop``: files whose first answer ends half-way. ``server.spoil``: files sent as zeros.
    """

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        root: Path = self.server.root
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        if "/nobody/" in url.path:
            self.send_error(404)
        elif url.path == "/api/models/someone/tiny":
            self.reply(
                {"siblings": [self.listed(root, path, "rfilename", "size", hub=True) for path in paths]}
            )
        elif url.path.endswith("/repo/files"):
            listed = [self.listed(root, path, "Path", "Size") for path in paths]
            self.reply(
                {"Code": 200, "Data": {"Files": [{"Path": "vae", "Type": "tree", "Size": 0}, *listed]}}
            )
        else:
            name = query["FilePath"][0] if "FilePath" in query else url.path.split("/resolve/main/")[1]
            self.send((root / urllib.parse.unquote(name)).read_bytes())

    def listed(self, root, path, name, size, hub=False):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entry = {name: path.relative_to(root).as_posix(), size: path.stat().st_size}
        return entry | ({"lfs": {"sha256": digest}} if hub else {"Sha256": digest, "Type": "blob"})

    def reply(self, value):
        self.send(json.dumps(value).encode(), ranges=False)

    def send(self, data: bytes, ranges=True):
        asked = self.headers.get("Range") if ranges else None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.server.asked.append((self.path, start))
        if ranges and self.server.spoil in self.path:
            data = bytes(len(data))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        sent = data[start:]
        if ranges and self.server.drop in self.path and not asked:
            sent = sent[: len(sent) // 2]  # the connection ends half-way
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(zimage, tmp_path):
    root = copy(zimage, tmp_path / "hub")
    (root / "README.md").write_text("hello")
    (root / "whole.safetensors").write_bytes(b"a whole checkpoint")
    (root / "transformer" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"a variant")
    (root / "transformer" / "model.onnx").write_bytes(b"another format")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.root, server.asked, server.drop, server.spoil = root, [], "\0", "\0"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def url(server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_model_is_pulled_from_a_mirror_and_paints(hub, monkeypatch, home):
    monkeypatch.setenv("HF_ENDPOINT", url(hub))
    seen = []
    folder = download.pull("someone/tiny", on_progress=lambda done, total, name: seen.append((done, total)))
    assert folder == home / "models" / "someone--tiny"
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert "model_index.json" in names
    assert "tokenizer/tokenizer.json" in names
    assert not names & {"README.md", "whole.safetensors", "transformer/model.onnx"}
    assert not any(".fp16." in name for name in names)
    assert paint("someone/tiny").shape == (64, 64, 3)


def test_a_dropped_connection_resumes_within_the_file(hub, zimage, home):
    hub.drop = "diffusion_pytorch_model"
    folder = download.pull("someone/tiny", source="modelscope", endpoint=url(hub))
    assert weights(folder).read_bytes() == weights(zimage).read_bytes()
    resumed = [
        start for path, start in hub.asked if "transformer%2Fdiff" in path or "transformer/diff" in path
    ]
    assert resumed == [0, weights(zimage).stat().st_size // 2]


def test_an_interrupted_pull_leaves_no_model_and_resumes(hub, home):
    calls = []

    def kill(done, total, name):
        calls.append(name)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.pull("someone/tiny", source="modelscope", endpoint=url(hub), on_progress=kill)
    assert not catalogue.is_here(catalogue.find("someone/tiny"))
    before = {path for path, _ in hub.asked}
    hub.asked.clear()
    download.pull("someone/tiny", source="modelscope", endpoint=url(hub))
    again = {path for path, _ in hub.asked} & before
    assert len(again) <= 2  # the listing, and at most the unfinished file
    assert catalogue.is_here(catalogue.find("someone/tiny"))


def test_a_file_with_a_wrong_checksum_is_refused_and_deleted(hub, home):
    hub.spoil = "diffusion_pytorch_model"
    with pytest.raises(BadFile, match="SHA-256"):
        download.pull("someone/tiny", source="modelscope", endpoint=url(hub))
    assert not list(home.rglob("diffusion_pytorch_model*"))


def test_an_unreachable_hub_names_the_next_steps(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubUnreachable) as caught:
        Painter.ready(PaintRequest(**ASK, model="someone/tiny"))
    for word in ("modelscope", "HF_ENDPOINT", "someone--tiny"):
        assert word in caught.value.en
        assert word in caught.value.zh


def test_an_unknown_source_is_refused():
    with pytest.raises(UnknownName, match="modelscope"):
        download.pull("sdxl", source="modelscop")


def test_a_model_that_the_hub_lacks_is_a_missing_file(hub):
    with pytest.raises(MissingFile, match="404"):
        download.pull("nobody/nothing", endpoint=url(hub))


@pytest.mark.parametrize("path", ["../evil.safetensors", "/etc/evil.json", "a/../../b.json", "a\\b.json"])
def test_a_listing_cannot_write_outside_the_models_folder(path):
    with pytest.raises(BadFile):
        download._safe_path(path)
