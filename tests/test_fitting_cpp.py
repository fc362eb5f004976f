"""stable-diffusion.cpp, compiled in the wheel ``cyllama``, reads the GGUF files that ``starry fit`` writes.

Its own loader turns every tensor into float32 and writes what it read; those numbers are compared with ggml's Python.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from starrynight.fitting import blocks, layout, write
from starrynight.folding import calibrate
from starrynight.models import catalogue
from starrynight.models.load import denoiser, load
from tests import tiny
from tests.test_fitting_files import formats_for

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("cyllama") is None,
    reason="stable-diffusion.cpp is not here; install it with: pip install 'cyllama<0.3'",
)

# In a process of its own: its C++ code ends the process at what it cannot read. No rule names a tensor; an empty one is no string.
READ = """
import json, sys
import cyllama.sd as sd
for source, target in json.loads(sys.argv[1]):
    assert sd.convert_model(source, target, sd.SDType.F32, tensor_type_rules="no tensor=f32"), source
"""


def cpp(program: str, argument: Any) -> str:
    """What a program printed that imports stable-diffusion.cpp. GGML_NO_BACKTRACE: a failure starts no debugger."""
    environment = os.environ | {"GGML_NO_BACKTRACE": "1"}
    done = subprocess.run([sys.executable, "-c", program, json.dumps(argument)], env=environment, capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def numbers(path: Path) -> dict[str, np.ndarray]:
    """Name → float32 numbers by ggml's Python package, in one dimension."""
    return {
        tensor.name: package.quants.dequantize(tensor.data, tensor.tensor_type).reshape(-1)
        for tensor in package.GGUFReader(path).tensors
    }


def of_linears(path: Path) -> None:
    """A layer for each type that the fit chooses, with rows of 512."""
    kinds = [*blocks.TYPES, *blocks.PLAIN]
    network = nn.Module()
    for number, kind in enumerate(kinds):
        draw = torch.Generator().manual_seed(number)
        setattr(network, kind, nn.Parameter(torch.randn(24, 512, generator=draw)))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    rows = {name: [(name, torch.arange(24), torch.arange(24))] for name in shapes}
    own = layout.DenoiserLayout("flux", shapes, rows, tuple(shapes), False)
    write.write(path, network, own, {kind: kind for kind in kinds}, {"bits": 5.5})


def of_family(family: str, path: Path) -> None:
    """A tiny pipeline's denoiser, its layers in all types that their rows admit."""
    model = catalogue.resolve(str(tiny.save(family, path.with_suffix(""))))
    pipeline = load(model, calibrate.uniform(model, "float32"))
    own = layout.of_model(model, pipeline)
    write.write(path, denoiser(pipeline), own, formats_for(own), {"bits": 5.5})


def test_every_tensor_of_a_fit_is_read_with_its_name_and_its_numbers(tmp_path: Path) -> None:
    """Bit for bit, in every type and of every tiny architecture."""
    sources = [tmp_path / f"{name}.gguf" for name in ("types", *tiny.FAMILIES)]
    of_linears(sources[0])
    for source in sources[1:]:
        of_family(source.stem, source)
    cpp(READ, [[str(source), str(source.with_suffix(".f32.gguf"))] for source in sources])
    for source in sources:
        meant, found = numbers(source), numbers(source.with_suffix(".f32.gguf"))
        assert meant.keys() == found.keys(), source.stem
        for name, values in meant.items():
            np.testing.assert_array_equal(found[name], values, err_msg=f"{source.stem}: {name}")


# The decoder is random: the program loads no model without one.
LOAD = """
import json, sys
import cyllama.sd as sd
sd.set_log_callback(lambda level, message: print(message.strip()))
options = sd.SDContextParams()
options.diffusion_model_path, options.taesd_path = json.loads(sys.argv[1])
options.n_threads = 1
sd.SDContext(options)
print("loaded")
"""


def test_it_loads_a_fit_of_flux_as_what_it_is_and_keeps_its_types(tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    network, own = tiny.flux_in_cpp(heads=2, depth=(1, 2), text=512)
    kinds = ["Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q5_1", "Q4_0", "BF16"]
    chosen = {
        name: kinds[n % len(kinds)] if own.shapes[name][1] % 256 == 0 else "Q8_0"
        for n, name in enumerate(own.layers)
    }
    write.write(tmp_path / "flux.gguf", network, own, chosen, {"bits": 5.5})
    save_file(AutoencoderTiny(latent_channels=16).state_dict(), tmp_path / "decoder.safetensors")
    said = cpp(LOAD, [str(tmp_path / "flux.gguf"), str(tmp_path / "decoder.safetensors")])
    assert "Version: Flux" in said
    assert "depth = 1, depth_single_blocks = 2" in said
    assert "context_in_dim = 512, hidden_size = 256, num_heads = 2" in said
    assert f"({len(own.shapes)} tensors)" in said
    assert "loaded" in said.splitlines()
    (types,) = [line for line in said.splitlines() if "Diffusion model weight type stat" in line]
    told = dict(re.findall(r"(\w+): +(\d+)", types))
    for kind in set(chosen.values()):
        assert int(told[kind.lower().replace("_k", "_K")]) == list(chosen.values()).count(kind), types
