"""Peak bytes of activations beside the weights, for the full-size networks of Z-Image.

The networks run on torch's meta device, which computes nothing; the live tensors are counted. The overhead of an
allocator or a driver is not included.

python benchmarks/memory_needs.py
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GB = 1e9


class LiveBytes(TorchDispatchMode):
    """Tracks the bytes of the tensors created under it that are alive. ``peak`` is their maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        before = {
            t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage(), before)
        return result

    def _count(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        if storage._cdata in self._known or storage._cdata in before:
            return
        size, key = storage.nbytes(), storage._cdata
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)

        def release() -> None:
            self._known.discard(key)
            self.now -= size

        weakref.finalize(storage, release)


class FusedAttention(TorchFunctionMode):
    """Attention as a fused kernel does it. The meta device would allocate the matrix of scores, which a kernel never holds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict | None = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0] if args else (kwargs or {})["query"])
        return func(*args, **(kwargs or {}))


def decoder_peak(side: int) -> float:
    """GB at the peak while Z-Image's autoencoder decodes one picture of ``side``² in float32.

    It is Flux's autoencoder: 128, 256, 512 and 512 channels, 16 latent channels.
    """
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
        latents = torch.empty(1, 16, side // 8, side // 8)
    with torch.no_grad(), LiveBytes() as counter, FusedAttention():
        vae.decoder(latents)
    return counter.peak / GB


def block_peak(side: int, pictures: int) -> float:
    """GB at the peak of one of Z-Image's 34 blocks in bfloat16, with 512 text tokens.

    Blocks run one after another, so one block's peak is the transformer's.
    """
    from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock

    width, heads, tokens = 3840, 30, (side // 16) ** 2 + 512
    with torch.device("meta"):
        layer = ZImageTransformerBlock(0, width, heads, heads, 1e-5, True).bfloat16()
        hidden = torch.empty(pictures, tokens, width, dtype=torch.bfloat16)
        mask = torch.empty(pictures, tokens, dtype=torch.bool)
        turns = torch.empty(pictures, tokens, width // heads // 2, dtype=torch.complex64)
        times = torch.empty(pictures, min(width, 256), dtype=torch.bfloat16)
    with torch.no_grad(), LiveBytes() as counter, FusedAttention():
        layer(hidden, mask, turns, times)
    return (counter.peak + hidden.numel() * hidden.element_size()) / GB


def main() -> None:
    print("autoencoder's decoder, float32, one picture, whole (not in tiles)")
    for side in (512, 1024, 1280, 1536, 2048):
        print(f"  {side}²: {decoder_peak(side):5.2f} GB")
    print("transformer block, bfloat16, 512 text tokens")
    for side in (512, 1024, 1536, 2048):
        print(
            f"  {side}²: {block_peak(side, 1):5.2f} GB, with guidance (two at once) {block_peak(side, 2):5.2f} GB"
        )


if __name__ == "__main__":
    main()
