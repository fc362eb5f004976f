"""Models put together from the user's own files: what a file is, where it belongs, which picture comes of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_loading import (
    ASK,
    copy,
    hub,  # noqa: F401  (a fixture)
    ldm_layout,
    ldm_vae_layout,
    original_layout,
    sgm_layout,
    url,
)

from starrynight.errors import BadFile, BadRequest, MissingFile, PickledFile, StarryError, Unfit, UnknownName
from starrynight.jobs.validate import installed
from starrynight.models import assembly, catalogue, download, lora, places, recognition, registry
from starrynight.request import PaintRequest

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
ENCODER = "text_encoder/model.safetensors"
DECODER = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STARRY_MODEL_PATHS", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {family: tiny.save(family, root / family) for family in ("zimage", "flux", "sd", "sdxl")}


@pytest.fixture(scope="module")
def zimage(families):
    return families["zimage"]


@pytest.fixture(scope="module")
def mine(zimage, tmp_path_factory):
    """A Z-Image whose three networks all differ from the base's: as a folder, as ComfyUI's split files, and as one file."""
    root = tmp_path_factory.mktemp("mine")
    folder = copy(zimage, root / "assembled")
    state = {part: load_file(folder / part) for part in (TRANSFORMER, ENCODER, DECODER)}
    for number, (part, tensors) in enumerate(state.items()):
        changed = {name: tensor * (1.1 + number / 10) for name, tensor in tensors.items()}
        save_file(changed, folder / part, metadata={"format": "pt"})
        state[part] = changed
    transformer = original_layout(state[TRANSFORMER], "")
    words = {"model." + name.removeprefix("model."): tensor for name, tensor in state[ENCODER].items()}
    pipeline = tiny.zimage()
    pipeline.vae.load_state_dict(state[DECODER])
    decoder = {
        name.removeprefix("first_stage_model."): tensor.contiguous()
        for name, tensor in ldm_vae_layout(pipeline.vae).items()
    }
    save_file(transformer, root / "z_image_turbo_bf16.safetensors")
    save_file(words, root / "qwen_3_4b.safetensors")
    save_file(decoder, root / "ae.safetensors")
    whole = {"model.diffusion_model." + name: tensor for name, tensor in transformer.items()}
    whole |= {"text_encoders.qwen3_4b.transformer." + name: tensor for name, tensor in words.items()}
    whole |= {"vae." + name: tensor for name, tensor in decoder.items()}
    save_file(whole, root / "z_all.safetensors")
    return root


def small(folder: Path, target: Path) -> Path:
    """What `pull --small` leaves: everything but weights."""
    return Path(shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors")))


def split(mine: Path, name: str = "mine", **more) -> registry.Entry:
    return assembly.add(
        name,
        mine / "z_image_turbo_bf16.safetensors",
        [mine / "qwen_3_4b.safetensors"],
        mine / "ae.safetensors",
        **more,
    )


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)


# What a file is


def part_files(families) -> dict[str, dict[str, torch.Tensor]]:
    """One file of every kind, with the names that published files have."""
    zimage, flux, sdxl = families["zimage"], families["flux"], families["sdxl"]
    transformer, diffusers = load_file(zimage / TRANSFORMER), load_file(zimage / DECODER)
    gate = {
        "model.layers.0.self_attn.q_proj.weight": torch.ones(1),
        "model.layers.0.mlp.gate_proj.weight": torch.ones(1),
    }
    one = torch.ones(1)
    return {
        "Z-Image transformer: diffusers": transformer,
        "Z-Image transformer: original": original_layout(transformer, ""),
        "Z-Image transformer: comfy": original_layout(transformer, "model.diffusion_model."),
        "Flux transformer: diffusers": load_file(flux / TRANSFORMER),
        "Flux transformer: original": {"double_blocks.0.img_attn.qkv.weight": one, "single_blocks.0.linear1.weight": one},
        "Chroma transformer": {"double_blocks.0.img_attn.qkv.weight": one, "single_blocks.0.linear1.weight": one,
                               "distilled_guidance_layer.in_proj.bias": one},
        "Qwen-Image transformer": {"transformer_blocks.0.img_mlp.net.0.proj.weight": one, "txt_norm.weight": one},
        "Stable Diffusion 3 transformer": {"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight": one},
        "Stable Diffusion XL U-Net": load_file(sdxl / "unet/diffusion_pytorch_model.safetensors"),
        "Stable Diffusion 1 U-Net": load_file(families["sd"] / "unet/diffusion_pytorch_model.safetensors"),
        "Qwen3 text encoder (16 wide)": load_file(zimage / ENCODER),
        "Llama text encoder": gate,
        "Qwen2 text encoder": {**gate, "model.layers.0.self_attn.q_proj.bias": one},
        "Gemma text encoder": {**gate, "model.layers.0.post_feedforward_layernorm.weight": one},
        "T5 text encoder (16 wide)": load_file(flux / "text_encoder_2/model.safetensors"),
        "CLIP text encoder (16 wide)": load_file(flux / ENCODER),
        "CLIP-L text encoder (768 wide)": {"text_model.embeddings.token_embedding.weight": torch.ones(2, 768)},
        "CLIP-G text encoder (1280 wide)": {"token_embedding.weight": torch.ones(2, 1280),
                                            "transformer.resblocks.0.attn.in_proj_weight": one},
        "autoencoder (VAE) of 4 latent channels: diffusers": diffusers,
        "autoencoder (VAE) of 4 latent channels: original": {
            name.removeprefix("first_stage_model."): tensor for name, tensor in ldm_vae_layout(tiny.zimage().vae).items()},
        "autoencoder (VAE) of 4 latent channels: prefixed": ldm_vae_layout(tiny.zimage().vae),
        "LoRA: PEFT": {"diffusion_model.layers.0.attention.to_q.lora_A.weight": one},
        "LoRA: kohya": {"lora_unet_layers_0_attention_to_q.lora_down.weight": one},
        "LoRA: LoKr": {"lycoris_layers_0.lokr_w1": one},
        "LoRA: LoHa": {"lycoris_layers_0.hada_w1_a": one},
        "LoRA: full difference": {"diffusion_model.layers.0.attention.to_q.diff": one},
        "Z-Image ControlNet": {"control_layers.0.adaLN_modulation.0.weight": one},
        "Stable Diffusion ControlNet": {"control_model.input_hint_block.0.weight": one},
        "Flux ControlNet": {"controlnet_x_embedder.weight": one, "transformer_blocks.0.norm1.linear.weight": one},
        "IP-Adapter": {"image_proj.proj.weight": one, "ip_adapter.1.to_k_ip.weight": one},
        "CLIP image encoder": {"vision_model.embeddings.class_embedding": one},
        "ESRGAN upscaler": {"conv_first.weight": one, "body.0.rdb1.conv1.weight": one},
        "textual inversion": {"emb_params": one},
        "unknown file": {"something": one},
    }  # fmt: skip


def test_a_file_is_told_by_its_tensors(families, tmp_path):
    for number, (title, tensors) in enumerate(part_files(families).items()):
        path = tmp_path / f"{number}.safetensors"
        save(tensors, path)
        found = recognition.of_file(path)
        assert found.title.en.split(" ", 1)[1] == title.split(":")[0], title
        assert found.title.zh


@pytest.mark.parametrize(("layout", "kinds"), [
    ("zimage", ["transformer Z-Image", "text_encoder Qwen3", "vae AutoencoderKL"]),
    ("flux", ["transformer Flux", "text_encoder CLIP", "text_encoder T5", "vae AutoencoderKL"]),
    ("sd", ["unet Stable Diffusion 1", "vae AutoencoderKL", "text_encoder CLIP"]),
    ("sdxl", ["unet Stable Diffusion XL", "vae AutoencoderKL", "text_encoder CLIP", "text_encoder OpenCLIP"]),
])  # fmt: skip
def test_the_networks_of_a_whole_checkpoint_are_told_apart(mine, families, tmp_path, layout, kinds):
    path = tmp_path / "whole.safetensors"
    if layout == "zimage":
        path = mine / "z_all.safetensors"
    elif layout == "flux":
        save_file(flux_all_in_one(families["flux"]), path)
    else:
        save_file(ldm_layout(tiny.sd()) if layout == "sd" else sgm_layout(tiny.sdxl()), path)
    found = recognition.of_file(path)
    assert sorted(f"{part.kind} {part.family}" for part in found.parts) == sorted(kinds)
    assert found.kind == "checkpoint"


def flux_all_in_one(folder: Path) -> dict[str, torch.Tensor]:
    prefixes = {TRANSFORMER: "model.diffusion_model.", ENCODER: "text_encoders.clip_l.transformer.",
                "text_encoder_2/model.safetensors": "text_encoders.t5xxl.transformer.", DECODER: "vae."}  # fmt: skip
    return {
        prefix + name: tensor
        for part, prefix in prefixes.items()
        for name, tensor in load_file(folder / part).items()
    }


# The picture


def test_split_files_paint_what_their_folder_paints(zimage, mine, home):
    small(zimage, home / "models" / "z-image-turbo")
    assert not catalogue.is_here(catalogue.find("z-image-turbo"))
    entry = split(mine)
    assert set(entry.parts) == {"transformer", "text_encoder", "vae"}
    assert "mine" in catalogue.names()
    assert catalogue.is_here(catalogue.find("MINE"))
    installed("mine")
    settings = {"width": 64, "height": 64, "guidance": 0.0}
    expected = picture(mine / "assembled", **settings)
    assert same(picture("mine", **settings), expected)
    assert same(picture(mine / "z_all.safetensors", **settings), expected)
    assert not same(picture(zimage, **settings), expected)


def same(one, other) -> bool:
    """Equal but for the rounding of kernels, which take other ways through memory that is aligned otherwise."""
    return bool(abs(one - other).max() < 1e-5)


def picture(model, **more):
    """Painted with a table row's limits lowered to the tiny size."""
    from starrynight.models import load, precision_plan
    from starrynight.painting.painter import Painter

    row = catalogue.resolve(
        dataclasses.replace(catalogue.find(str(model)), smallest=64, largest=2048, max_tokens=128)
    )
    plan = precision_plan.choose(row, "cpu", "float32")
    painter = Painter(load.load(row, plan), row, plan, torch.device("cpu"), "resident")
    return tiny.pixels_of(next(painter.paint(PaintRequest(**(ASK | more)))))


@pytest.mark.parametrize("slot", ["transformer", "text_encoder", "vae"])
def test_one_file_replaces_one_part_of_a_full_base(zimage, mine, home, tmp_path, slot):
    copy(zimage, home / "models" / "z-image-turbo")
    file = {"transformer": "z_image_turbo_bf16", "text_encoder": "qwen_3_4b", "vae": "ae"}[slot]
    path = mine / f"{file}.safetensors"
    given = {"transformer": (path, [], None), "text_encoder": (None, [path], None), "vae": (None, [], path)}[
        slot
    ]
    assembly.add("part", *given, base="z-image-turbo")
    expected = copy(zimage, tmp_path / "expected")
    part = {"transformer": TRANSFORMER, "text_encoder": ENCODER, "vae": DECODER}[slot]
    shutil.copy(mine / "assembled" / part, expected / part)
    settings = {"width": 64, "height": 64, "guidance": 0.0}
    assert same(picture("part", **settings), picture(expected, **settings))
    assert catalogue.resolve("part").fingerprint != catalogue.resolve("z-image-turbo").fingerprint


def test_a_part_of_an_all_in_one_file_is_replaced_by_another_file(zimage, mine, home, tmp_path):
    small(zimage, home / "models" / "z-image-turbo")
    other = zimage / DECODER
    entry = assembly.add("mixed", mine / "z_all.safetensors", [], other)
    assert entry.parts["vae"] == other
    expected = copy(mine / "assembled", tmp_path / "expected")
    shutil.copy(other, expected / DECODER)
    settings = {"width": 64, "height": 64, "guidance": 0.0}
    assert same(picture("mixed", **settings), picture(expected, **settings))
    from_whole = assembly.add("decoder", zimage / TRANSFORMER, [zimage / ENCODER], mine / "z_all.safetensors")
    assert from_whole.parts["vae"] == mine / "z_all.safetensors"
    expected = copy(zimage, tmp_path / "decoder")
    shutil.copy(mine / "assembled" / DECODER, expected / DECODER)
    assert same(picture("decoder", **settings), picture(expected, **settings))


def test_flux_takes_two_encoders_in_any_order_and_all_in_one(families, home, tmp_path):
    flux = families["flux"]
    small(flux, home / "models" / "flux-schnell")
    encoders = [flux / "text_encoder_2/model.safetensors", flux / ENCODER]
    entry = assembly.add("split", flux / TRANSFORMER, encoders, flux / DECODER)
    assert (entry.base, entry.parts["text_encoder"]) == ("flux-schnell", flux / ENCODER)
    save_file(flux_all_in_one(flux), tmp_path / "all.safetensors")
    settings = {"width": 64, "height": 64, "guidance": 0.0}
    expected = picture(flux, **settings)
    assert same(picture("split", **settings), expected)
    assert same(picture(tmp_path / "all.safetensors", **settings), expected)


def test_sdxls_unet_encoders_and_decoder_are_parts_too(families, home):
    sdxl = families["sdxl"]
    small(sdxl, home / "models" / "sdxl")
    unet = sdxl / "unet/diffusion_pytorch_model.safetensors"
    encoders = [sdxl / ENCODER, sdxl / "text_encoder_2/model.safetensors"]
    entry = assembly.add("xl", None, encoders, sdxl / DECODER, base="sdxl")
    assert set(entry.parts) == {"text_encoder", "text_encoder_2", "vae"}
    assert catalogue.lacking(catalogue.find("xl")) == ["unet"]
    assembly.add("xl", unet, encoders, sdxl / DECODER, overwrite=True)
    settings = {"width": 64, "height": 64, "guidance": 2.0}
    assert same(picture("xl", **settings), picture(sdxl, **settings))


# What is refused


@pytest.mark.parametrize(("slot", "file", "words"), [
    ("transformer", "ae", ["autoencoder", "--vae"]),
    ("transformer", "qwen_3_4b", ["Qwen3 text encoder", "--text-encoder"]),
    ("vae", "z_image_turbo_bf16", ["Z-Image transformer", "--transformer"]),
    ("text_encoder", "ae", ["autoencoder", "--vae"]),
    ("vae", "lora", ["LoRA", "--lora"]),
    ("transformer", "lora", ["LoRA", "--lora"]),
    ("transformer", "chroma", ["Chroma"]),
    ("transformer", "control", ["ControlNet"]),
    ("text_encoder", "t5", ["T5", "z-image-turbo takes a Qwen3"]),
    ("text_encoder", "wide", ["Qwen3 text encoder (24 wide)", "(16 wide)"]),
    ("vae", "deep", ["16 latent channels", "4 latent channels"]),
    ("transformer", "part-00001-of-00003", ["3 shards"]),
    ("vae", "missing", ["no file"]),
])  # fmt: skip
@pytest.mark.parametrize("here", [True, False], ids=["base here", "base not here"])
def test_a_file_in_the_wrong_place_is_refused_by_name(
    zimage, mine, families, home, tmp_path, slot, file, words, here
):
    if here:
        small(zimage, home / "models" / "z-image-turbo")
    elif file in ("wide", "deep"):
        pytest.skip("the published widths differ from the tiny ones")
    one = torch.ones(1)
    made = {
        "lora": {"diffusion_model.layers.0.attention.to_q.lora_A.weight": one},
        "chroma": part_files(families)["Chroma transformer"],
        "control": {"control_layers.0.adaLN_modulation.0.weight": one},
        "t5": load_file(families["flux"] / "text_encoder_2/model.safetensors"),
        "wide": {"model.embed_tokens.weight": torch.ones(2, 24), "model.layers.0.self_attn.q_norm.weight": one,
                 "model.layers.0.self_attn.q_proj.weight": one},
        "deep": {"decoder.conv_in.weight": torch.ones(2, 16, 3, 3), "decoder.up.0.block.0.conv1.weight": one},
        "part-00001-of-00003": load_file(zimage / TRANSFORMER),
    }  # fmt: skip
    if file in made:
        save(made[file], tmp_path / f"{file}.safetensors")
    path = (tmp_path if file in made else mine) / f"{file}.safetensors"
    given = {"transformer": (path, [], None), "text_encoder": (None, [path], None), "vae": (None, [], path)}[
        slot
    ]
    with pytest.raises(StarryError) as caught:
        assembly.add("wrong", *given, base="z-image-turbo")
    for word in (*words, path.stem):
        assert word in caught.value.en
    assert path.stem in caught.value.zh
    assert registry.names() == []


@pytest.mark.parametrize(
    "name", ["firefly", "Z-Image-Turbo", "a/b", "..", "", "x.safetensors", "~me", "-x", "x" * 90]
)
def test_a_name_that_is_taken_or_no_name_is_refused(zimage, mine, home, name):
    small(zimage, home / "models" / "z-image-turbo")
    with pytest.raises(BadRequest):
        split(mine, name)


def test_a_pickle_a_folder_nothing_and_two_of_a_kind_are_refused(zimage, mine, home, tmp_path):
    small(zimage, home / "models" / "z-image-turbo")
    torch.save({"w": torch.ones(1)}, tmp_path / "old.ckpt")
    with pytest.raises(PickledFile):
        assembly.add("x", tmp_path / "old.ckpt", [], None)
    with pytest.raises(BadRequest, match="folder"):
        assembly.add("x", zimage, [], None)
    with pytest.raises(BadRequest, match="--transformer"):
        assembly.add("x", None, [], None)
    with pytest.raises(BadRequest, match="--base"):
        assembly.add("x", None, [], mine / "ae.safetensors")
    encoder = mine / "qwen_3_4b.safetensors"
    shutil.copy(encoder, tmp_path / "again.safetensors")
    with pytest.raises(BadRequest, match="both"):
        assembly.add("x", None, [encoder, tmp_path / "again.safetensors"], None, base="z-image-turbo")


def test_an_entry_is_replaced_only_when_asked_and_removed_without_its_files(zimage, mine, home):
    small(zimage, home / "models" / "z-image-turbo")
    split(mine)
    with pytest.raises(BadRequest, match="--overwrite"):
        split(mine, "Mine")
    split(mine, "mine", overwrite=True)
    before = sorted(mine.rglob("*"))
    registry.remove("mine")
    assert sorted(mine.rglob("*")) == before
    assert "mine" not in catalogue.names()
    with pytest.raises(UnknownName):
        registry.remove("mine")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"starry_model": 9}', '{"starry_model": 1, "base": "sdxl", "parts": {"vae": 3}}'],
)
def test_a_damaged_entry_is_one_sentence_and_hides_no_other(home, text):
    (home / "models").mkdir(parents=True)
    (home / "models" / "mine.json").write_text(text)
    assert catalogue.names() == catalogue.table_names()
    with pytest.raises(BadFile, match="mine"):
        catalogue.find("mine")


def test_a_file_that_has_moved_is_named(zimage, mine, home, tmp_path):
    small(zimage, home / "models" / "z-image-turbo")
    moved = Path(shutil.copy(mine / "ae.safetensors", tmp_path / "moving.safetensors"))
    assembly.add("mine", mine / "z_image_turbo_bf16.safetensors", [mine / "qwen_3_4b.safetensors"], moved)
    moved.unlink()
    assert not catalogue.is_here(catalogue.find("mine"))
    with pytest.raises(MissingFile, match="moving") as caught:
        download.fetch(catalogue.find("mine"))
    assert "starry models add mine --overwrite" in caught.value.en
    assert "moving" in caught.value.zh


@pytest.mark.parametrize("has_small", [True, False])
def test_a_lone_transformer_names_both_ways_to_the_rest(zimage, mine, home, has_small):
    if has_small:
        small(zimage, home / "models" / "z-image-turbo")
    with pytest.raises(MissingFile) as caught:
        download.fetch(catalogue.find(str(mine / "z_image_turbo_bf16.safetensors")))
    for message in (caught.value.en, caught.value.zh):
        assert (
            "starry models add NAME --transformer z_image_turbo_bf16.safetensors --text-encoder FILE --vae FILE"
            in message
        )
        assert "starry models pull z-image-turbo" in message


# The small files


def test_the_small_files_are_pulled_alone_and_completed_later(hub, zimage, mine, monkeypatch, home):  # noqa: F811
    monkeypatch.setenv("HF_ENDPOINT", url(hub))
    folder = download.pull("someone/tiny", small=True)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"model_index.json", "tokenizer.json", "scheduler_config.json"} <= names
    assert not any(name.endswith(".safetensors") for name in names)
    assert not catalogue.is_here(catalogue.find("someone/tiny"))
    split(mine, base="someone/tiny")
    assert catalogue.is_here(catalogue.find("mine"))
    hub.asked.clear()
    assert download.pull("someone/tiny", small=True) == folder
    assert hub.asked == []
    download.pull("someone/tiny")
    assert catalogue.is_here(catalogue.find("someone/tiny"))
    assert (folder / TRANSFORMER).read_bytes() == (zimage / TRANSFORMER).read_bytes()
    assert not folder.with_name(folder.name + ".part").exists()


# Places to look


@pytest.fixture
def comfy(mine, tmp_path):
    """ComfyUI's folders, with links, a loop, a pickle and files of other kinds among them."""
    root = tmp_path / "ComfyUI"
    for kind, name in {
        "diffusion_models": "z_image_turbo_bf16",
        "text_encoders": "qwen_3_4b",
        "vae": "ae",
    }.items():
        (root / "models" / kind).mkdir(parents=True)
        (root / "models" / kind / f"{name}.safetensors").symlink_to(mine / f"{name}.safetensors")
    (root / "models" / "loras" / "deep").mkdir(parents=True)
    save_file({"diffusion_model.layers.0.attention.to_q.lora_A.weight": torch.ones(1)},
              root / "models" / "loras" / "deep" / "Glow.safetensors")  # fmt: skip
    (root / "models" / "loop").symlink_to(root / "models")
    (root / "models" / "vae" / "broken.safetensors").symlink_to(tmp_path / "nowhere")
    (root / "models" / "checkpoints").mkdir()
    torch.save({}, root / "models" / "checkpoints" / "old.ckpt")
    (root / "venv").mkdir()
    shutil.copy(mine / "ae.safetensors", root / "venv" / "ae.safetensors")
    return root


@pytest.mark.parametrize("how", ["kept", "setting", "models", "yaml"])
def test_files_of_another_program_are_found_by_name(comfy, mine, zimage, home, tmp_path, monkeypatch, how):
    copy(zimage, home / "models" / "z-image-turbo")
    if how == "yaml":
        text = f"comfyui:\n  base_path: {comfy}\n  is_default: true\n  loras: models/loras\n  diffusion_models: |\n"
        text += "    models/diffusion_models\n    models/unet  # older\n"
        (tmp_path / "extra_model_paths.yaml").write_text(text)
    place = {"models": comfy / "models", "yaml": tmp_path / "extra_model_paths.yaml"}.get(how, comfy)
    before = sorted(path.as_posix() for path in comfy.rglob("*"))
    if how == "setting":
        monkeypatch.setenv("STARRY_MODEL_PATHS", str(place))
    else:
        places.add(str(place))
    for name in ("z_image_turbo_bf16", "Z_Image_Turbo_bf16.safetensors"):
        assert catalogue.resolve(name).path.name == "z_image_turbo_bf16.safetensors"
    assert lora.find("glow").name == "Glow.safetensors"
    assert lora.find("deep/Glow.safetensors").name == "Glow.safetensors"
    installed("z_image_turbo_bf16")
    assert sorted(path.as_posix() for path in comfy.rglob("*")) == before
    if how == "kept":
        places.remove(str(place))
        assert places.all_places() == []


def test_the_same_name_twice_is_refused_unless_the_kinds_differ(comfy, mine, zimage, home):
    copy(zimage, home / "models" / "z-image-turbo")
    places.add(str(comfy))
    shutil.copy(
        comfy / "models/loras/deep/Glow.safetensors", comfy / "models/vae/z_image_turbo_bf16.safetensors"
    )
    assert catalogue.find("z_image_turbo_bf16").path.parent.name == "diffusion_models"
    shutil.copy(mine / "z_image_turbo_bf16.safetensors", comfy / "models/checkpoints")
    with pytest.raises(BadRequest) as caught:
        catalogue.find("z_image_turbo_bf16")
    for folder in ("checkpoints", "diffusion_models"):
        assert folder in caught.value.en
        assert folder in caught.value.zh


def test_what_lies_in_the_places_is_listed_by_kind(comfy, home):
    places.add(str(comfy))
    found = places.by_kind(places.survey().found)
    assert {kind: [one.name for one, _ in held] for kind, held in found.items()} == {
        "pickle": ["old"], "transformer": ["z_image_turbo_bf16"], "text_encoder": ["qwen_3_4b"], "vae": ["ae"], "lora": ["Glow"],
    }  # fmt: skip
    with pytest.raises(PickledFile):
        catalogue.find("old")
    with pytest.raises(Unfit, match="starry models add NAME"):
        catalogue.find("ae")


@pytest.mark.parametrize("text", ["[", "- a", "a: b", "a:\n  loras: 3", "a: &x\n  b: *x"])
def test_a_yaml_that_names_no_places_is_one_sentence(home, tmp_path, text):
    path = tmp_path / "extra_model_paths.yaml"
    path.write_text(text)
    with pytest.raises(BadFile, match="names no places") as caught:
        places.add(str(path))
    assert "没有给出位置" in caught.value.zh


@pytest.mark.parametrize("layout", ["Stable-diffusion", "sdxl/main", "any/vae"])
def test_other_programs_folders_are_searched(mine, home, tmp_path, layout):
    folder = tmp_path / "webui" / "models" / layout
    folder.mkdir(parents=True)
    shutil.copy(mine / "z_all.safetensors", folder / "dream.safetensors")
    places.add(str(tmp_path / "webui"))
    assert places.find("dream", ("transformer",)) == folder / "dream.safetensors"


def test_a_place_that_is_gone_or_never_was(home, tmp_path):
    with pytest.raises(MissingFile):
        places.add(str(tmp_path / "none"))
    (tmp_path / "disk").mkdir()
    places.add(str(tmp_path / "disk"))
    (tmp_path / "disk").rmdir()
    assert [place.is_there for place in places.all_places()] == [False]
    with pytest.raises(UnknownName):
        catalogue.find("anything")
    with pytest.raises(UnknownName):
        places.remove(str(tmp_path / "other"))


# The command line


def test_the_commands(comfy, mine, zimage, home):
    def starry(*words, code=0, lang="en"):
        script = "from starrynight.cli import main; main()"
        environment = {
            "STARRY_HOME": str(home),
            "STARRY_LANG": lang,
            "PATH": "/usr/bin:/bin",
            "COLUMNS": "200",
        }
        done = subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True,
                              env=environment, cwd=Path(__file__).parent.parent)  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    starry("models", "places", "add", comfy)
    assert str(comfy) in starry("models", "places", "list")
    assert "qwen_3_4b" in starry("models", "list", "--places")
    # by their names in the places; the base is not here yet
    added = starry(
        "models",
        "add",
        "mine",
        "--transformer",
        "z_image_turbo_bf16",
        "--vae",
        mine / "z_all.safetensors",
        code=3,
    )
    assert "z-image-turbo takes" in added  # the tiny decoder has 4 channels, the published base 16
    small(zimage, home / "models" / "z-image-turbo")
    added = starry("models", "add", "mine", "--transformer", "z_image_turbo_bf16", "--vae", "ae")
    assert "--text-encoder FILE" in added
    listed = starry("models", lang="zh")
    assert "mine" in listed
    assert "ae.safetensors" in listed
    assert "删除" in starry("models", "remove", "mine", lang="zh")
    assert json.loads((home / "places.json").read_text())["places"] == [str(comfy)]
