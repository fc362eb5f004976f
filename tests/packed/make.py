"""Writes the files beside it with the libraries themselves: ``python make.py bnb | torchao | quanto``.

Each holds one packed weight of 6 × 64 and, as "expected", what the library itself makes of it. Written with bitsandbytes
0.50.2, torchao 0.18.0 and optimum-quanto 0.2.7, which are not needed to read them.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.manual_seed(0)
WEIGHT = torch.randn(6, 64) * 3


def bnb() -> None:
    import bitsandbytes.functional as library

    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            packed, state = library.quantize_4bit(
                WEIGHT, blocksize=64, compress_statistics=nested, quant_type=kind
            )
            parts = {"layer.weight." + name: part for name, part in state.as_dict(packed=True).items()}
            parts |= {"layer.weight": packed, "expected": library.dequantize_4bit(packed, state)}
            save_file(parts, HERE / f"bitsandbytes-{kind}{'-nested' if nested else ''}.safetensors")
    packed, scale, _ = library.int8_vectorwise_quant(WEIGHT.half())
    parts = {
        "layer.weight": packed,
        "layer.SCB": scale,
        "layer.weight_format": torch.zeros((), dtype=torch.uint8),
    }
    parts["expected"] = library.int8_vectorwise_dequant(packed, scale)
    save_file(parts, HERE / "bitsandbytes-int8.safetensors")


def torchao() -> None:
    import torchao.quantization as library
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    groups = library.PerGroup(32)
    for name, config in {
        "int8": library.Int8WeightOnlyConfig(),
        "float8": library.Float8WeightOnlyConfig(),
        "intx-int4": library.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=groups),
    }.items():
        model = torch.nn.ModuleDict({"layer": torch.nn.Linear(64, 6, bias=False)})
        model["layer"].weight = torch.nn.Parameter(WEIGHT.clone())
        library.quantize_(model, config)
        parts, metadata = flatten_tensor_state_dict(model.state_dict())
        expected = model["layer"].weight.dequantize().float().detach()
        save_file(
            {key: part.contiguous() for key, part in (parts | {"expected": expected}).items()},
            HERE / f"torchao-{name}.safetensors",
            metadata,
        )


def quanto() -> None:
    import optimum.quanto as library

    for name in ("qint8", "qfloat8", "qint4"):
        layer = library.QLinear(64, 6, bias=False, weights=getattr(library, name))
        layer.weight = torch.nn.Parameter(WEIGHT.clone())
        layer.freeze()
        parts = {"layer." + key: part.contiguous() for key, part in layer.state_dict().items()}
        parts["expected"] = layer.weight.dequantize().detach().contiguous()
        save_file(parts, HERE / f"quanto-{name}.safetensors")


if __name__ == "__main__":
    {"bnb": bnb, "torchao": torchao, "quanto": quanto}[sys.argv[1]]()
