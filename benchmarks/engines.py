"""Other engines beside ours, in turns: a Z-Image block with the same weights and inputs, and the steps of a small Flux.

    pip install openvino onnxruntime onnx      # in an environment of its own; nothing here needs them otherwise
    python benchmarks/engines.py [--rounds 7]                      # a block: one thread, CPU seconds
    python benchmarks/engines.py --sd-cpp stable-diffusion.cpp/build/bin/sd-cli    # a Flux: all threads, by the clock

OpenVINO 2026.4 does not convert the whole network (complex numbers, pad_sequence), and ONNX has no complex numbers, so a block is
compared, with its rotation in real numbers. The error is the mean square of the block's update against float32, relative to the update.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

# (name, width, heads, tokens): Firefly's, a 270 M layout's and Z-Image's at 512², two prompts at once.
BLOCKS = (("Firefly", 384, 6, 1056), ("Z-Image of 270 M", 1280, 10, 1056), ("Z-Image", 3840, 30, 1056))

Run = Callable[[], torch.Tensor]


class RealRotation:
    """Z-Image's attention with rotary embeddings as cosines and sines [batch, tokens, width / 2, 2]."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, *_: Any, freqs_cis: torch.Tensor, **__: Any
    ) -> torch.Tensor:
        query, key, value = (
            layer(hidden_states).unflatten(-1, (attn.heads, -1))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        cosine, sine = (freqs_cis[..., i].unsqueeze(2) for i in (0, 1))

        def rotated(one: torch.Tensor) -> torch.Tensor:
            real, imaginary = (one.unflatten(-1, (-1, 2))[..., i] for i in (0, 1))
            turned = (real * cosine - imaginary * sine, real * sine + imaginary * cosine)
            return torch.stack(turned, -1).flatten(-2)

        heads = (rotated(attn.norm_q(query)), rotated(attn.norm_k(key)), value)
        joined = F.scaled_dot_product_attention(*(one.transpose(1, 2) for one in heads))
        return attn.to_out[0](joined.transpose(1, 2).flatten(2, 3))


class Block(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, tokens: torch.Tensor, rotation: torch.Tensor, time_embedding: torch.Tensor
    ) -> torch.Tensor:
        return self.block(tokens, None, rotation, time_embedding)


def ways(width: int, heads: int, tokens: int) -> tuple[dict[str, Run], torch.Tensor, torch.Tensor]:
    """What is compared, the exact result, and the block's input."""
    from starrynight.painting import cpu, int8

    torch.manual_seed(0)
    block = ZImageTransformerBlock(0, width, heads, heads, 1e-5, True).eval().requires_grad_(False)
    given, angles, embedding = (
        torch.randn(2, tokens, width),
        torch.randn(2, tokens, width // heads // 2),
        torch.randn(2, 256),
    )
    turned = torch.polar(torch.ones_like(angles), angles)
    exact = Block(block)(given, turned, embedding)
    plain = copy.deepcopy(block).bfloat16()
    fast = copy.deepcopy(plain)
    cpu.make_norms_fast(fast)
    narrow = (given.bfloat16(), turned, embedding.bfloat16())

    def ours(block: nn.Module) -> torch.Tensor:
        with cpu.FastAttention():
            return Block(block)(*narrow)

    eight = copy.deepcopy(fast)
    int8.convert(layer for layer in eight.modules() if type(layer) is nn.Linear and layer.in_features > 256)
    found: dict[str, Run] = {
        "diffusers": lambda: Block(plain)(*narrow),
        "ours": lambda: ours(fast),
        "ours, int8": lambda: ours(eight),
    }
    block.attention.set_processor(RealRotation())
    example = (given, torch.view_as_real(turned), embedding)
    for engine, needs in ((in_openvino, ("openvino",)), (in_onnx_runtime, ("onnxruntime", "onnx"))):
        if absent := [name for name in needs if importlib.util.find_spec(name) is None]:
            print(f"Not compared, because it is not installed here: {', '.join(absent)}.")
            continue
        found |= engine(Block(block), example)
    return found, exact, given


def in_openvino(block: nn.Module, example: tuple[torch.Tensor, ...]) -> dict[str, Run]:
    """A float32 block that OpenVINO computes in bfloat16."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1}
    converted = openvino.convert_model(block, example_input=example)
    request = openvino.Core().compile_model(converted, "CPU", options).create_infer_request()
    inputs = [one.numpy() for one in example]

    def run() -> torch.Tensor:
        return torch.from_numpy(next(iter(request.infer(inputs).values())))

    return {f"OpenVINO {openvino.__version__.split('-')[0]}, bf16": run}


def in_onnx_runtime(block: nn.Module, example: tuple[torch.Tensor, ...]) -> dict[str, Run]:
    """A block in float32, and with its layers in int8, inputs quantised as they come. On this architecture ONNX Runtime has no
    product in bfloat16.
    """
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    names = [f"input{k}" for k in range(len(example))]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    found: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(folder) / f"{kind}.onnx" for kind in ("float32", "int8")}
        torch.onnx.export(block, example, files["float32"], input_names=names, opset_version=18, dynamo=False)
        quantize_dynamic(files["float32"], files["int8"], op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)  # fmt: skip
        for kind, file in files.items():
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            inputs = {name: one.numpy() for name, one in zip(names, example, strict=True)}
            found[f"ONNX Runtime {onnxruntime.__version__}, {kind}"] = lambda session=session, inputs=inputs: (
                torch.from_numpy(session.run(None, inputs)[0])
            )
    return found


def small_flux(folder: Path) -> Any:
    """Write a random Flux of 279 million parameters as stable-diffusion.cpp reads it, with a text encoder and a decoder; returns the
    transformer in bfloat16.
    """
    import tiny
    from diffusers import AutoencoderTiny
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    from starrynight.fitting import write

    network, own = tiny.flux_in_cpp(heads=10, depth=(2, 6), text=4096)
    write.write(folder / "flux.gguf", network, own, dict.fromkeys(own.layers, "BF16"), {"bits": 16})
    words = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, vocab_size=49408))  # fmt: skip
    named = {
        f"text_model.{name.removeprefix('text_model.')}": one
        for name, one in words.half().state_dict().items()
    }
    save_file(named, folder / "clip_l.safetensors")
    save_file(AutoencoderTiny(latent_channels=16).state_dict(), folder / "decoder.safetensors")
    return network.eval().requires_grad_(False).bfloat16()


def in_stable_diffusion_cpp(program: Path, folder: Path, kind: str, steps: int) -> Callable[[], float]:
    """Paints ``small_flux`` at 512² and returns the seconds of a step by the program's own clock. ``kind``: what it turns the weights
    into as it loads them.
    """
    files = (
        ("diffusion-model", "flux.gguf"),
        ("clip_l", "clip_l.safetensors"),
        ("taesd", "decoder.safetensors"),
    )
    command = [str(program), "-p", "a", "-o", str(folder / "out.png"), "-W", "512", "-H", "512", "--cfg-scale", "1", "-v"]  # fmt: skip
    command += ["--steps", str(steps), "-t", str(torch.get_num_threads()), "--type", kind]
    command += [word for option, name in files for word in (f"--{option}", str(folder / name))]

    def run() -> float:
        done = subprocess.run(command, capture_output=True, text=True)
        found = re.search(r"sampling completed, taking ([\d.]+)s", done.stdout + done.stderr)
        if done.returncode or found is None:
            raise SystemExit(f"{program} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        return float(found[1]) / steps

    return run


def of_torch(network: Any, fast: bool, steps: int) -> Callable[[], float]:
    """As many steps of the same network over as many tokens: 1024 of the picture, 256 of an empty text."""
    from starrynight.painting import cpu

    if fast:
        cpu.make_norms_fast(network)
    latents, text, pooled = (torch.randn(1, *shape).bfloat16() for shape in ((1024, 64), (256, 4096), (768,)))
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(32.0), torch.arange(32.0))

    def run() -> float:
        with cpu.FastAttention() if fast else contextlib.nullcontext():
            begin = time.perf_counter()
            for _ in range(steps):
                network(latents, text, pooled, torch.full((1,), 0.5).bfloat16(), places, torch.zeros(256, 3))
            return (time.perf_counter() - begin) / steps

    return run


def pictures(program: Path, rounds: int, steps: int = 4) -> None:
    """The steps of a picture in stable-diffusion.cpp, in diffusers, and here. Their noise differs, so the pictures are not compared."""
    from starrynight.painting import int8

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        network = small_flux(Path(folder))
        eight = copy.deepcopy(network)
        int8.convert(
            one
            for name, one in eight.named_modules()
            if type(one) is nn.Linear and "norm" not in name and "embed" not in name
        )
        found = {
            "diffusers": of_torch(copy.deepcopy(network), False, steps),
            "ours": of_torch(network, True, steps),
            "ours, int8": of_torch(eight, True, steps),
            **{
                f"stable-diffusion.cpp, {kind}": in_stable_diffusion_cpp(program, Path(folder), kind, steps)
                for kind in ("bf16", "f16", "q8_0")
            },
        }
        taken = in_turns(found, rounds)
    report("Flux of 279 M", taken)


def in_turns(found: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The seconds of every way in every round, after one that does not count."""
    for run in found.values():
        run()
    taken: dict[str, list[float]] = {way: [] for way in found}
    for _ in range(rounds):
        for way, run in found.items():
            taken[way].append(run())
            print(f"{way}: {taken[way][-1]:.3f} s", file=sys.stderr)
    return taken


def report(what: str, taken: dict[str, list[float]], more: dict[str, str] | None = None) -> None:
    """Medians, and those of the ratios of each round to the first way's time."""
    first = next(iter(taken.values()))
    for way, times in taken.items():
        ratio = statistics.median(one / other for one, other in zip(first, times, strict=True))
        said = (more or {}).get(way, "")
        print(
            f"{what:18} {way:30} {1e3 * statistics.median(times):8.1f} ms  {ratio:5.2f} ×  {said}", flush=True
        )


def timed(run: Run) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def blocks(rounds: int) -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        for name, width, heads, tokens in BLOCKS:
            found, exact, given = ways(width, heads, tokens)
            update = ((exact - given) ** 2).mean()
            errors = {
                way: f"error {((run().float() - exact) ** 2).mean() / update:.1e}"
                for way, run in found.items()
            }
            report(name, in_turns({way: partial(timed, run) for way, run in found.items()}, rounds), errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sd-cpp", type=Path, metavar="PROGRAM", help="stable-diffusion.cpp's sd-cli: compare a picture's steps with it, instead of blocks")  # fmt: skip
    given = parser.parse_args()
    if given.sd_cpp is None:
        blocks(given.rounds)
    else:
        pictures(given.sd_cpp, given.rounds)


if __name__ == "__main__":
    main()
