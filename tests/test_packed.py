"""Files that bitsandbytes, torchao and quanto wrote mean what these libraries make of them; whole models in such formats
and in GGUF paint as their numbers do.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf as package
import numpy as np
import pytest
import tiny
import torch
from gguf import GGMLQuantizationType
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from starrynight.cli.inspect import facts
from starrynight.errors import BadFile, Unfit
from starrynight.metadata.recipe import read_own
from starrynight.models import assembly, catalogue, load, precision_plan, stored, tensors, weights
from starrynight.painting.painter import Painter

HERE = Path(__file__).parent / "packed"
READ = sorted(path.stem for path in HERE.glob("*.safetensors") if path.stem != "quanto-qint4")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def zimage(tmp_path_factory):
    return tiny.save("zimage", tmp_path_factory.mktemp("zimage"))


@pytest.mark.parametrize("name", READ)
def test_a_packed_weight_is_what_its_library_makes_of_it(name):
    read = tensors.read(HERE / f"{name}.safetensors", lambda _: torch.float32)
    expected = read.meant.pop("expected")
    assert list(read.meant) == ["layer.weight"]
    assert set(read.names) - read.companions - {"expected", "layer.weight"} == set()
    # bitsandbytes multiplies int8 in float16
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if name == "bitsandbytes-int8" else {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(read.meant["layer.weight"], expected.float(), **tolerance)
    assert float(expected.float().std()) > 1  # it is the weight of make.py, spread 3, and no other numbers


@pytest.mark.parametrize("name", READ)
def test_a_missing_part_is_named(tmp_path, name):
    """Without any one of its parts a weight is refused; it is never painted from the rest."""
    stored = load_file(HERE / f"{name}.safetensors")
    harmless = ("weight_format", "input_scale", "output_scale")
    with safe_open(HERE / f"{name}.safetensors", "pt") as file:
        metadata = file.metadata()
    for part in [key for key in stored if key != "expected" and not key.endswith(harmless)]:
        path = tmp_path / f"{len(part)}.safetensors"
        save_file({key: tensor for key, tensor in stored.items() if key != part}, path, metadata)
        if part.endswith(("qdata", "._data")) or ".quant_state." in part:
            continue  # without its mark it is no longer that format: the ledger or ``refuse`` names what is left over
        with pytest.raises(Unfit, match="layer"):
            tensors.read(path, lambda _: torch.float32)


@pytest.mark.parametrize("name", READ)
def test_the_stored_format_names_the_library_and_counts_the_numbers(name):
    file = weights.of_file(HERE / f"{name}.safetensors")
    library, _, kind = name.removesuffix("-nested").partition("-")
    said = f"{library} {kind}" if library == "bitsandbytes" else library
    assert stored.stored_format([file]).startswith(f"{said} (")
    assert file.parameters == 2 * 6 * 64  # of the weight, and of what its library makes of it


def test_quantos_four_bits_are_refused_by_name():
    with pytest.raises(Unfit, match="quanto in 4 or 2 bits"):
        weights.of_file(HERE / "quanto-qint4.safetensors")


# -- whole models ----------------------------------------------------------------------------------------------------


def loaded(model, precision="float32", base=None):
    row = catalogue.resolve(str(model), base=base)
    return load.load(row, precision_plan.choose(row, "cpu", precision))


def quantise_folder(folder: Path, part: str = "transformer") -> dict[str, torch.Tensor]:
    """bitsandbytes' int8 for the matrices of one component; returns the numbers meant."""
    (file,) = (folder / part).glob("*.safetensors")
    stored, meant = {}, {}
    for name, tensor in load_file(file).items():
        meant[name] = tensor
        if (tensor.dim() == 2 and ".attention." in name) or (".self_attn." in name and "norm" not in name):
            scale = tensor.abs().amax(1).clamp_min(1e-6)
            stored[name] = (tensor / scale[:, None] * 127).round().to(torch.int8)
            stored[name.removesuffix("weight") + "SCB"] = scale
            meant[name] = stored[name].float() * (scale / 127)[:, None]
        else:
            stored[name] = tensor
    assert len(stored) > len(meant)
    save_file(stored, file, {"format": "pt"})
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    tiny.rewrite_json(folder / part / "config.json", quantization_config=config)
    return meant


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_a_bitsandbytes_folder_loads_as_its_numbers_without_a_gpu(tmp_path, part):
    folder = tiny.save("zimage", tmp_path / "bnb")
    meant = quantise_folder(folder, part)
    state = getattr(loaded(folder), part).state_dict()
    for name, tensor in meant.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            "bitsandbytes, but its weights are not stored so",
        ),
        ({"quant_method": "sdnq", "weights_dtype": "uint4"}, "SDNQ"),
        ({"quant_method": "nunchaku"}, "SVDQuant"),
        ({"quant_method": "gptq"}, "GPTQ"),
    ],
)
@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_a_folder_whose_config_says_another_format_is_one_sentence(tmp_path, zimage, config, words, part):
    folder = tiny.save("zimage", tmp_path / "m")
    tiny.rewrite_json(folder / part / "config.json", quantization_config=config)
    with pytest.raises(Unfit, match=words):
        catalogue.resolve(str(folder))


def comfy_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from test_loading import original_layout

    return original_layout(state, "model.diffusion_model.")


def write_gguf(
    path: Path, state: dict[str, torch.Tensor], dtype: str = "Q8_0", arch: str = "lumina2"
) -> dict[str, torch.Tensor]:
    """Matrices whose rows fill blocks in ``dtype``, the rest in float32; returns the numbers meant."""
    writer, meant, kind = package.GGUFWriter(path, arch), {}, GGMLQuantizationType[dtype]
    for name, tensor in state.items():
        data = tensor.float().numpy()
        if data.ndim == 2 and data.shape[1] % 32 == 0:
            packed = package.quants.quantize(np.ascontiguousarray(data), kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            meant[name] = torch.from_numpy(package.quants.dequantize(packed, kind))
        else:
            writer.add_tensor(name, np.ascontiguousarray(data))
            meant[name] = tensor.float()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


@pytest.mark.parametrize("layout", ["diffusers", "comfy"])
@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0", "BF16"])
def test_a_gguf_transformer_over_its_base_is_the_numbers_it_means(tmp_path, zimage, layout, dtype):
    (file,) = (zimage / "transformer").glob("*.safetensors")
    state = load_file(file)
    named = comfy_names(state) if layout == "comfy" else state
    meant = write_gguf(tmp_path / "model.gguf", named, dtype)
    assert any(not torch.equal(meant[name], named[name]) for name in named)
    found = loaded(tmp_path / "model.gguf", base=str(zimage)).transformer.state_dict()
    if layout == "diffusers":
        for name, tensor in meant.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    else:  # fused rows were split
        save_file(meant, tmp_path / "meant.safetensors")
        twin = loaded(tmp_path / "meant.safetensors", base=str(zimage)).transformer.state_dict()
        assert all(torch.equal(found[name], twin[name]) for name in twin)


def test_a_gguf_is_rounded_once_to_the_plans_format(tmp_path, zimage):
    (file,) = (zimage / "transformer").glob("*.safetensors")
    meant = write_gguf(tmp_path / "model.gguf", load_file(file))
    found = loaded(tmp_path / "model.gguf", "bfloat16", str(zimage)).transformer.state_dict()
    assert all(torch.equal(found[name], tensor.bfloat16()) for name, tensor in meant.items())


def test_containers_of_other_programs_are_named_where_a_model_is_asked_for(tmp_path):
    (tmp_path / "model.onnx").write_bytes(json.dumps({}).encode())
    with pytest.raises(BadFile, match="ONNX"):
        catalogue.resolve(str(tmp_path / "model.onnx"))


def llama_names(state: dict[str, torch.Tensor], arch: str) -> dict[str, torch.Tensor]:
    """A text encoder's tensors as llama.cpp's converter names them (its tables of tensor names, read backwards)."""
    model = {"qwen3": package.MODEL_ARCH.QWEN3, "t5encoder": package.MODEL_ARCH.T5ENCODER}[arch]
    names = package.get_tensor_name_map(model, 4)
    found = {}
    for name, tensor in state.items():
        full = name if arch == "t5encoder" else f"model.{name.removeprefix('model.')}"
        theirs = names.get_name(full, try_suffixes=(".weight", ".bias"))
        assert theirs, name
        found[theirs] = tensor
    return found


@pytest.mark.parametrize("dtype", ["Q8_0", "F32"])
@pytest.mark.parametrize(
    ("arch", "family", "base", "component"),
    [
        ("qwen3", "zimage", "z-image-turbo", "text_encoder"),
        ("t5encoder", "flux", "flux-schnell", "text_encoder_2"),
    ],
)
def test_a_gguf_text_encoder_of_llama_cpp_is_the_numbers_it_means(
    tmp_path, home, monkeypatch, arch, family, base, component, dtype
):
    folder = tiny.save(family, tmp_path / "home" / "models" / base)
    (file,) = (folder / component).glob("*.safetensors")
    torch.manual_seed(5)
    state = {name: torch.randn_like(tensor) for name, tensor in load_file(file).items()}
    path = tmp_path / "encoder.gguf"
    meant = write_gguf(path, llama_names(state, arch), dtype, arch)
    assembly.add("mine", None, [path], None, base=base)
    found = getattr(loaded("mine"), component).state_dict()
    back = dict(zip(llama_names(state, arch), state, strict=True))
    for theirs, tensor in meant.items():
        name = back[theirs].removeprefix("model.")
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_the_recipe_and_inspect_tell_the_stored_format(tmp_path, zimage):
    (file,) = (zimage / "transformer").glob("*.safetensors")
    write_gguf(tmp_path / "model.gguf", load_file(file), "Q4_0")
    row = catalogue.resolve(str(tmp_path / "model.gguf"), base=str(zimage))
    plan = precision_plan.choose(row, "cpu", "bfloat16")
    painter = Painter(load.load(row, plan), row, plan, torch.device("cpu"), "resident")
    assert painter.provenance["stored"] == {
        "transformer": "GGUF Q4_0, F32",
        "text_encoder": "F32",
        "vae": "F32",
    }
    recipe = {"starry_night": 1, "model": painter.provenance, "plan": plan.to_dict()}
    rows = dict(facts(read_own(recipe)))
    assert rows["weights · transformer"] == "GGUF Q4_0, F32, computed in bfloat16"


@pytest.mark.parametrize("stored", [None, 3, [], {"unet": 4}, {"unet": None}])
def test_inspect_survives_other_shapes_of_the_stored_formats(stored):
    facts(read_own({"starry_night": 1, "model": {"stored": stored}, "plan": {"unet": 3}}))
