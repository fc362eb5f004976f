"""Every quantised weight format we know: how it is recognised, and whether it is read or refused.

One table, ``FORMATS``. A format is told by the names of its tensors in a file's header, by ``quantization_config`` in a
component's config.json, or by a file's suffix. A format that is not read exactly is refused by name: weights loaded
without their scales paint a picture that is wrong and looks finite. Reads headers and configs, imports no torch.

Sources of the tensor names: the formats' own writers, as of 2026-11 (nunchaku, SDNQ, AutoGPTQ/GPTQModel, AutoAWQ,
compressed-tensors, HQQ, ExLlama, bitsandbytes, torchao, optimum-quanto, ModelOpt, MLX, ComfyUI's QUANTIZATION.md).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.errors import BadFile, Unfit
from starrynight.i18n import Text

INSTEAD = Text(
    "take its bfloat16, fp8 or GGUF (Q8_0, Q4_K) file instead",
    "请改用它的 bfloat16、fp8 或 GGUF（Q8_0、Q4_K）文件",
)
# Formats of ComfyUI's comfy_quant entries that are read, and the keys that change nothing in the weights' values.
COMFY_READ = frozenset({"float8_e4m3fn", "float8_e5m2", "int8_tensorwise"})
COMFY_HARMLESS = frozenset({"format", "full_precision_matrix_mult"})
COMFY_BYTES = 4096  # a comfy_quant entry is a short JSON; more is no such entry


@dataclass(frozen=True)
class Format:
    """``name``: as its makers write it. ``tensors``: groups of endings of tensor names; one group whose endings all occur
    in a file is enough. ``methods``: values of ``quant_method``. ``read``: whether its numbers are read exactly.
    ``needs``: what runs it, where that is the reason to refuse.
    """

    name: str
    tensors: tuple[tuple[str, ...], ...] = ()
    methods: frozenset[str] = frozenset()
    read: bool = False
    needs: Text | None = None


def _methods(*names: str) -> frozenset[str]:
    return frozenset(names)


_KERNELS = Text(
    "its packing is undone only by CUDA kernels of its own", "它的打包方式只有专用的 CUDA 内核能还原"
)
_PACKAGE = Text("only its own package reads it", "只有它自己的软件包能读取")

# The first that matches wins: formats with more particular names come first.
FORMATS = (
    Format("SVDQuant (nunchaku)", ((".wscales",), (".smooth_factor",), (".proj_down", ".proj_up", ".qweight"),
                                   (".wtscale",), (".wcscales",)),
           _methods("nunchaku", "nunchaku_lite", "svdquant"), needs=_KERNELS),
    Format("bitsandbytes", ((".quant_state.bitsandbytes__nf4",), (".quant_state.bitsandbytes__fp4",), (".absmax",),
                            (".quant_map",), (".SCB",)), _methods("bitsandbytes"), read=True),
    Format("GPTQ", ((".qweight", ".g_idx"),), _methods("gptq"), needs=_PACKAGE),
    Format("AWQ", ((".qweight", ".qzeros"), (".qweight", ".scales")), _methods("awq"), needs=_PACKAGE),
    Format("EXL2", ((".q_weight", ".q_scale"), (".q_groups",)), _methods("exl2"), needs=_PACKAGE),
    Format("EXL3", ((".trellis",),), _methods("exl3"), needs=_PACKAGE),
    Format("HQQ", ((".W_q",),), _methods("hqq"), needs=_PACKAGE),
    Format("SDNQ", ((".svd_up",), (".svd_down",)), _methods("sdnq"), needs=_PACKAGE),
    Format("compressed-tensors", ((".weight_packed",), (".weight_global_scale",), (".weight_shape",)),
           _methods("compressed-tensors", "compressed_tensors"), needs=_PACKAGE),
    Format("NVFP4", ((".weight_scale_2",),), _methods("nvfp4", "fouroversix", "bfl"), needs=_KERNELS),
    Format("ModelOpt", ((".pre_quant_scale",), ("._amax",), (".weight_quantizer._scale",)), _methods("modelopt"),
           needs=_PACKAGE),
    Format("torchao", (("_weight_qdata",), ("weight_qdata",)), _methods("torchao"), read=True),
    Format("quanto", ((".weight._data", ".weight._scale"),), _methods("quanto"), read=True),
    Format("quanto in 4 or 2 bits", ((".weight._data._data",),), needs=_PACKAGE),
    Format("MXFP4", (("_blocks", "_scales"),), _methods("mxfp4"), needs=_KERNELS),
    Format("MLX", ((".scales", ".biases"),), _methods("mlx", "metal"), needs=_PACKAGE),
    Format("AQLM", ((".codes", ".codebooks"),), _methods("aqlm"), needs=_PACKAGE),
    Format("VPTQ", ((".centroids", ".indices"),), _methods("vptq"), needs=_PACKAGE),
    Format("SpQR", ((".dense_weights", ".row_offsets"),), _methods("spqr"), needs=_KERNELS),
    # no names of its own in the header: told by its config, or (SDNQ without its SVD) by an integer weight with a scale
    Format("AutoRound", (), _methods("auto-round", "autoround", "intel/auto-round"), needs=_PACKAGE),
    Format("EETQ", ((".weight_scales",),), _methods("eetq"), needs=_KERNELS),
    Format("MXFP8", (), _methods("mxfp8"), needs=_KERNELS),
    Format("FBGEMM fp8", (), _methods("fbgemm_fp8"), needs=_KERNELS),
    Format("fp8 in blocks", ((".weight_scale_inv",),), _methods("fp8"), read=True),
)  # fmt: skip

_INTEGERS = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"})

# Suffixes of whole other containers (pickles are refused in ``weights``).
CONTAINERS = {
    ".onnx": "ONNX", ".ort": "ONNX Runtime", ".engine": "TensorRT", ".plan": "TensorRT", ".trt": "TensorRT",
    ".mlmodel": "Core ML", ".mlpackage": "Core ML", ".mlmodelc": "Core ML", ".npz": "MLX or NumPy", ".npy": "NumPy",
    ".msgpack": "Flax", ".h5": "Keras", ".keras": "Keras", ".tflite": "TensorFlow Lite", ".pb": "TensorFlow",
    ".ggml": "GGML", ".ggjt": "GGML", ".llamafile": "llamafile", ".dduf": "DDUF", ".xml": "OpenVINO", ".ncnn": "ncnn",
    ".mnn": "MNN", ".rknn": "RKNN", ".tar": "tar", ".gz": "gzip", ".zip": "zip", ".7z": "7z", ".rar": "RAR",
}  # fmt: skip


def of_tensors(entries: Mapping[str, Any]) -> tuple[Format, str] | None:
    """The format that a file's tensors tell, and the tensor that tells it. ``entries``: a header, as ``weights.header``
    gives it.
    """
    names = [name for name in entries if name != "__metadata__"]
    for known in FORMATS:
        for group in known.tensors:
            found = [_ending(names, mark) for mark in group]
            if all(found):
                return known, str(found[0])
    if told := _integers_with_scales(entries):
        return told
    # an MXFP8 scale is an exponent: U8 or F8_E8M0, one for 32 numbers
    scale = next((name for name in names if name.endswith(".weight_scale") and _dtype(entries, name) in ("U8", "F8_E8M0")), None)  # fmt: skip
    return (_named("MXFP8"), scale) if scale else None


def _integers_with_scales(entries: Mapping[str, Any]) -> tuple[Format, str] | None:
    """Integer weights beside a scale, without other companions: ``weight`` and ``scale`` are SDNQ's, ``weight_scale`` is
    compressed-tensors' or ComfyUI's int8 (the latter brings a ``comfy_quant``, see ``_comfy``).
    """
    for name in entries:
        if name.endswith(".weight") and _dtype(entries, name) in _INTEGERS:
            stem = name.removesuffix("weight")
            if stem + "scale" in entries:
                return _named("SDNQ"), name
            if stem + "weight_scale" in entries and stem + "comfy_quant" not in entries:
                return _named("compressed-tensors"), name
    return None


def _ending(names: Iterable[str], mark: str) -> str | None:
    return next((name for name in names if name.endswith(mark)), None)


def _dtype(entries: Mapping[str, Any], name: str) -> str:
    return str(entries[name].get("dtype", ""))


def _named(name: str) -> Format:
    return next(known for known in FORMATS if known.name == name)


def of_config(config: Mapping[str, Any]) -> Format | None:
    """The format of a component's config.json, None if it says none. An unknown ``quant_method`` is a format of that name
    which is not read.
    """
    told = config.get("quantization_config")
    if not isinstance(told, Mapping):
        return (
            _named("SVDQuant (nunchaku)")
            if "nunchaku" in str(config.get("_class_name", "")).lower()
            else None
        )
    method = str(told.get("quant_method") or "").lower()
    if not method and (told.get("load_in_4bit") or told.get("load_in_8bit")):
        method = "bitsandbytes"
    if not method and told.get("quant_type"):
        method = "torchao"
    for known in FORMATS:
        if method in known.methods:
            return known
    return Format(method or "an unnamed quantisation")


def refuse_described(path: Path, entries: Mapping[str, Any]) -> None:
    """Raise Unfit if a file says that it is in a format that is not read, BadFile for a ``comfy_quant`` that cannot be read.
    ``entries``: the whole header of ``path``, as ``weights.header`` gives it.
    """
    for layer, told in _comfy(path, entries):
        kind = str(told.get("format", ""))
        if kind not in COMFY_READ or set(told) - COMFY_HARMLESS:
            more = ", ".join(sorted(set(told) - COMFY_HARMLESS))
            name = f"ComfyUI's {kind or 'unnamed'}{f' with {more}' if more else ''}"
            raise _unread(path, Format(name), f"{layer}.comfy_quant")


def refuse_tensors(path: Path, entries: Mapping[str, Any]) -> None:
    """Raise Unfit if the tensors of a file, or of files that belong together, are in a format that is not read."""
    if (found := of_tensors(entries)) and not found[0].read:
        raise _unread(path, *found)


def refuse_config(folder: Path, config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise Unfit if a component's config.json names a format that is not read, or one that its tensors are not in.
    ``folder``: the component's; ``names``: of its tensors.
    """
    known, names = of_config(config), list(names)
    if known is None:
        return
    if not known.read:
        raise _unread(folder, known, "config.json")
    if not any(all(_ending(names, mark) for mark in group) for group in known.tensors):
        raise Unfit(
            f"The config.json of “{folder.name}” says {known.name}, but its weights are not stored so; remove "
            "quantization_config from that file if they are plain, or download the model again.",
            f"“{folder.name}”的 config.json 写的是 {known.name}，但权重并非如此存储；若权重未量化，请从该文件中删除 "
            "quantization_config，否则请重新下载该模型。",
        )


def refuse_suffix(path: Path) -> None:
    """Raise BadFile for a file of another container, by its suffix."""
    if (container := CONTAINERS.get(path.suffix.lower())) is not None:
        raise BadFile(
            f"“{path.name}” is a file of {container}, which is not read here; take the model's .safetensors or .gguf "
            "file, or its diffusers folder.",
            f"“{path.name}”是 {container} 文件，这里不能读取；请改用该模型的 .safetensors 或 .gguf 文件，或 diffusers 文件夹。",
        )


def _unread(path: Path, known: Format, told_by: str) -> Unfit:
    en = f", and {known.needs.en}" if known.needs else ""
    zh = f"，{known.needs.zh}" if known.needs else ""
    return Unfit(
        f"“{path.name}” is quantised as {known.name} (told by {told_by}), which is not read here{en}; {INSTEAD.en}.",
        f"“{path.name}”以 {known.name} 格式量化（见 {told_by}），这里不能读取{zh}；{INSTEAD.zh}。",
    )


def _comfy(path: Path, entries: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """What ComfyUI wrote about each layer's format: (layer, {"format": …}), from ``comfy_quant`` tensors, which hold
    JSON, and from the ``_quantization_metadata`` of the header.
    """
    layers = _json(entries.get("__metadata__", {}).get("_quantization_metadata", "{}")).get("layers", {})
    if isinstance(layers, Mapping):
        yield from ((layer, told) for layer, told in layers.items() if isinstance(told, Mapping))
    names = [name for name in entries if name.endswith(".comfy_quant")]
    if not names:
        return
    with path.open("rb") as file:
        start = 8 + struct.unpack("<Q", file.read(8))[0]
        for name in names:
            begin, end = entries[name]["data_offsets"]
            file.seek(start + begin)
            told = _json(file.read(end - begin) if end - begin <= COMFY_BYTES else b"")
            if not told:
                raise BadFile(
                    f"“{path.name}” has a {name} that is no JSON object; download the file again.",
                    f"“{path.name}”中的 {name} 不是 JSON 对象；请重新下载该文件。",
                )
            yield name.removesuffix(".comfy_quant"), told


def _json(text: str | bytes) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
