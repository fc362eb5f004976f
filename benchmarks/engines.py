"""One Z-Image block in other engines beside ours: same weights, same inputs, one thread, CPU seconds, in turns.

    pip install openvino            # in an environment of its own; nothing here needs it otherwise
    python benchmarks/engines.py [--rounds 7]

OpenVINO 2026.4 does not convert the whole network (complex numbers, pad_sequence), so a block is compared, with its rotation in real
numbers. The error is the mean square of the block's update against float32, relative to the update.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock
from torch import nn

# (name, width, heads, tokens): Firefly's, a 270 M layout's and Z-Image's at 512², two prompts at once.
BLOCKS = (("Firefly", 384, 6, 1056), ("Z-Image of 270 M", 1280, 10, 1056), ("Z-Image", 3840, 30, 1056))


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


def ways(
    width: int, heads: int, tokens: int
) -> tuple[dict[str, Callable[[], torch.Tensor]], torch.Tensor, torch.Tensor]:
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
    found: dict[str, Callable[[], torch.Tensor]] = {
        "diffusers": lambda: Block(plain)(*narrow),
        "ours": lambda: ours(fast),
        "ours, int8": lambda: ours(eight),
    }
    try:
        import openvino
    except ImportError:
        print("OpenVINO is not installed here, so it is not compared.")
        return found, exact, given
    block.attention.set_processor(RealRotation())
    example = (given, torch.view_as_real(turned), embedding)
    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1}
    converted = openvino.convert_model(Block(block), example_input=example)
    request = openvino.Core().compile_model(converted, "CPU", options).create_infer_request()
    inputs = [one.numpy() for one in example]
    found[f"OpenVINO {openvino.__version__.split('-')[0]}"] = lambda: torch.from_numpy(
        next(iter(request.infer(inputs).values()))
    )
    return found, exact, given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with torch.no_grad():
        for name, width, heads, tokens in BLOCKS:
            found, exact, given = ways(width, heads, tokens)
            errors = {
                way: (((run().float() - exact) ** 2).mean() / ((exact - given) ** 2).mean()).item()
                for way, run in found.items()
            }
            taken: dict[str, list[float]] = {way: [] for way in found}
            for _ in range(rounds):
                for way, run in found.items():
                    begin = time.process_time()
                    run()
                    taken[way].append(time.process_time() - begin)
            for way, times in taken.items():
                ratio = statistics.median(
                    one / other for one, other in zip(taken["diffusers"], times, strict=True)
                )
                print(
                    f"{name:18} {way:20} {1e3 * statistics.median(times):7.1f} ms  {ratio:5.2f} ×  error {errors[way]:.2e}"
                )


if __name__ == "__main__":
    main()
