"""Quantised formats are told by their tensors' names, by config.json or by their suffix, and refused by name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from starrynight.errors import BadFile, Unfit
from starrynight.models import quantisation, weights

LAYER = "transformer_blocks.0.attn.to_q."
I8, U8, I32 = torch.int8, torch.uint8, torch.int32
F32, F16, BF16, F8 = torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn

# Format → the tensors of one of its layers, as its own writer names and types them.
FILES = {
    "SVDQuant (nunchaku)": [
        {"qweight": I8, "wscales": BF16, "smooth_factor": BF16, "smooth_factor_orig": BF16, "proj_down": BF16, "proj_up": BF16},
        {"qweight": I8, "wscales": F8, "wcscales": BF16, "wtscale": BF16, "lora_down": BF16, "lora_up": BF16, "smooth": BF16},
        {"qweight": I8, "wscales": BF16, "wzeros": BF16},
    ],
    "SDNQ": [
        {"weight": U8, "scale": BF16, "zero_point": BF16, "svd_up": BF16, "svd_down": BF16},
        {"weight": U8, "scale": BF16, "zero_point": BF16},
        {"weight": I8, "scale": F32},
    ],
    "GPTQ": [{"qweight": I32, "qzeros": I32, "scales": F16, "g_idx": I32}],
    "AWQ": [{"qweight": I32, "qzeros": I32, "scales": F16}, {"qweight": I32, "scales": F16}],
    "compressed-tensors": [
        {"weight_packed": I32, "weight_scale": BF16, "weight_shape": I32},
        {"weight": I8, "weight_scale": BF16},
        {"weight_packed": U8, "weight_scale": F8, "weight_global_scale": F32},
    ],
    "HQQ": [{"W_q": U8, "scale": F16, "zero": F16}],
    "EXL2": [{"q_weight": I32, "q_scale": I32, "q_scale_max": F16, "q_groups": I32, "q_invperm": I32}],
    "EXL3": [{"trellis": I32, "suh": F16, "svh": F16}],
    "NVFP4": [{"weight": U8, "weight_scale": F8, "weight_scale_2": F32, "input_scale": F32}],
    "MXFP8": [{"weight": F8, "weight_scale": U8}],
    "MXFP4": [{"down_proj_blocks": U8, "down_proj_scales": U8}],
    "MLX": [{"weight": I32, "scales": F16, "biases": F16}],
    "ModelOpt": [{"weight": F8, "pre_quant_scale": BF16}],
    "AQLM": [{"codes": U8, "codebooks": F16, "scales": F16}],
    "EETQ": [{"weight": I8, "weight_scales": F16}],
}  # fmt: skip
CASES = [(name, layer) for name, layers in FILES.items() for layer in layers]


def write(path, layer, prefix=LAYER, metadata=None):
    """A file of one quantised layer beside plain ones."""
    tensors = {prefix + name: torch.zeros(2, 2).to(dtype) for name, dtype in layer.items()}
    save_file(
        {**tensors, "x_embedder.weight": torch.zeros(2, 2), "norm.scale": torch.ones(2)}, path, metadata
    )
    return path


@pytest.mark.parametrize("prefix", [LAYER, "model.diffusion_model.layers.0.qkv."])
@pytest.mark.parametrize(("name", "layer"), CASES, ids=[f"{name}-{len(layer)}" for name, layer in CASES])
def test_a_file_is_refused_by_its_formats_name(tmp_path, name, layer, prefix):
    path = write(tmp_path / "model.safetensors", layer, prefix)
    with pytest.raises(Unfit) as caught:
        weights.check_format(path, [path])
    for message in (caught.value.en, caught.value.zh):
        assert name in message
        assert "GGUF" in message  # what to take instead


@pytest.mark.parametrize(
    "layer",
    [
        {"weight": BF16, "bias": BF16},
        {"weight": F8},
        {"weight": F8, "scale_weight": F32, "scale_input": F32},
        {"weight": F8, "weight_scale": F32},
        {"weight": F8, "weight_scale_inv": F32},
        {"weight": F16, "lora_A.weight": F16, "alpha": F32},
    ],
)
def test_files_that_are_read_pass(tmp_path, layer):
    path = write(tmp_path / "model.safetensors", layer)
    weights.check_format(path, [path])
    found = quantisation.of_tensors(weights.header(path))
    assert found is None or found[0].read


def comfy(tmp_path, told: bytes, weight=F8):
    tensors = {
        LAYER + "weight": torch.zeros(2, 2).to(weight),
        LAYER + "weight_scale": torch.ones(()),
        LAYER + "comfy_quant": torch.tensor(list(told), dtype=U8),
    }
    path = tmp_path / "comfy.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "int8_tensorwise"])
def test_comfyuis_fp8_passes(tmp_path, kind):
    path = comfy(tmp_path, json.dumps({"format": kind, "full_precision_matrix_mult": True}).encode())
    weights.check_format(path, [path])


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"format": "nvfp4"}, "ComfyUI's nvfp4"),
        ({"format": "mxfp8"}, "ComfyUI's mxfp8"),
        ({"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 256}, "with convrot"),
        ({"format": "float8_e4m3fn", "convrot": True}, "float8_e4m3fn with convrot"),
        ({}, None),
        ([1], None),
    ],
)
def test_comfyuis_other_formats_are_named_from_what_the_file_says(tmp_path, told, words):
    path = comfy(tmp_path, json.dumps(told).encode())
    with pytest.raises(Unfit if words else BadFile, match=words or "no JSON object"):
        weights.check_format(path, [path])


def test_comfyuis_formats_in_the_header_count_too(tmp_path):
    told = {"format_version": "1.0", "layers": {"layers.0.qkv": {"format": "nvfp4"}}}
    path = write(
        tmp_path / "m.safetensors", {"bias": F32}, metadata={"_quantization_metadata": json.dumps(told)}
    )
    with pytest.raises(Unfit, match="nvfp4"):
        weights.check_format(path, [path])


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"quantization_config": {"quant_method": "sdnq", "weights_dtype": "uint4"}}, "SDNQ"),
        ({"quantization_config": {"quant_method": "svdquant"}}, "SVDQuant"),
        ({"quantization_config": {"quant_method": "nunchaku_lite"}}, "SVDQuant"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "GPTQ"),
        ({"quantization_config": {"quant_method": "awq"}}, "AWQ"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "hqq"}}, "HQQ"),
        ({"quantization_config": {"quant_method": "exl2"}}, "EXL2"),
        ({"quantization_config": {"quant_method": "auto-round"}}, "AutoRound"),
        ({"quantization_config": {"quant_method": "modelopt"}}, "ModelOpt"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "MXFP4"),
        ({"quantization_config": {"quant_method": "quark"}}, "quark"),
        ({"quantization_config": {"quant_method": "of-the-future"}}, "of-the-future"),
        ({"quantization_config": {}}, "unnamed quantisation"),
        ({"_class_name": "NunchakuFluxTransformer2dModel"}, "SVDQuant"),
    ],
)
def test_a_folders_config_is_refused_by_its_methods_name(tmp_path, config, name):
    folder = tmp_path / "transformer"
    with pytest.raises(Unfit, match=f"transformer.*{name}.*config.json"):
        quantisation.refuse_config(folder, config, [])


@pytest.mark.parametrize(
    "config", [{}, {"quantization_config": None}, {"_class_name": "FluxTransformer2DModel"}]
)
def test_a_plain_config_passes(tmp_path, config):
    quantisation.refuse_config(tmp_path, config, [])


@pytest.mark.parametrize(("suffix", "container"), [(".onnx", "ONNX"), (".engine", "TensorRT"), (".PLAN", "TensorRT"),
                                                   (".msgpack", "Flax"), (".npz", "MLX"), (".h5", "Keras")])  # fmt: skip
def test_another_container_is_named(tmp_path, suffix, container):
    with pytest.raises(BadFile, match=container):
        quantisation.refuse_suffix(tmp_path / f"model{suffix}")
    quantisation.refuse_suffix(tmp_path / "model.safetensors")
