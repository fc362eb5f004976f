"""Keep Firefly inside float16: the loudest numbers of its transformer and text encoder, made smaller by powers of two.

A feed-forward's result goes straight into an RMS norm, which undoes any scale, so training lets it grow as it likes: after
200,000 samples one reached 133,120, twice what float16 holds. The text encoder's residual stream is read by norms only,
too, and stood at 32,883. Every large model of this layout goes the same way. The matrices that write those numbers
are divided by powers of two, which changes no picture; ``numerics`` does the same to any model, with a proof, but a
model that ships should not need it. Knows nothing of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

# The largest number wanted: an eighth of float16's end (65504), for prompts louder than those that were watched.
CEILING = 2.0**13


def feed_forwards(transformer: Any) -> Iterator[tuple[str, Any]]:
    """Every block's feed-forward, w2(silu(w1 x) * w3 x), by the name of its module."""
    for room in ("noise_refiner", "context_refiner", "layers"):
        for number, block in enumerate(getattr(transformer, room)):
            yield f"{room}.{number}.feed_forward", block.feed_forward


# The name of the text encoder's residual stream among what is loud.
STREAM = "text_encoder"


def loudness(pipe: Any, texts: Sequence[str]) -> dict[str, float]:
    """The largest absolute result of every feed-forward, and of the text encoder's stream ("text_encoder"), while ``texts``
    are painted in 8 steps.
    """
    from starrynight.firefly.training import sheet

    peaks: dict[str, float] = {}

    def watch(name: str) -> Any:
        def note(_module: Any, _inputs: Any, result: Any) -> None:
            result = result[0] if isinstance(result, tuple) else result
            peaks[name] = max(peaks.get(name, 0.0), result.abs().max().item())

        return note

    hooks = [part.register_forward_hook(watch(name)) for name, part in feed_forwards(pipe.transformer)]
    hooks += [layer.register_forward_hook(watch(STREAM)) for layer in pipe.text_encoder.layers]
    try:
        sheet.paint(pipe, texts)
    finally:
        for hook in hooks:
            hook.remove()
    return peaks


@torch.no_grad()
def quieten(pipe: Any, texts: Sequence[str], ceiling: float = CEILING) -> dict[str, int]:
    """Bring all of them under ``ceiling`` on ``texts``. Returns the powers of two taken out, of those that changed.

    Of a feed-forward, half is taken from ``w3``, so that the product before ``w2`` grows quieter too, the rest from ``w2``;
    only the eps of the norm behind (1e-5) notices. The text encoder's own eps is made smaller with its stream.
    """
    peaks = loudness(pipe, texts)
    powers = {
        name: math.ceil(math.log2(peak / ceiling)) for name, peak in sorted(peaks.items()) if peak > ceiling
    }
    for name, part in feed_forwards(pipe.transformer):
        if power := powers.get(name, 0):
            part.w3.weight.mul_(2.0 ** -(power // 2))
            part.w2.weight.mul_(2.0 ** -(power - power // 2))
    if power := powers.get(STREAM, 0):
        _quieten_stream(pipe.text_encoder, power)
    return powers


def _quieten_stream(encoder: Any, power: int) -> None:
    """Divide everything that writes into the stream by 2^power, and its norms' eps by the square of that."""
    writers = [encoder.embed_tokens]
    for layer in encoder.layers:
        writers += [layer.self_attn.o_proj, layer.mlp.down_proj]
    for writer in writers:
        writer.weight.mul_(2.0**-power)
    eps = encoder.config.rms_norm_eps * 4.0**-power
    encoder.config.rms_norm_eps = eps
    for layer in encoder.layers:
        layer.input_layernorm.variance_epsilon = layer.post_attention_layernorm.variance_epsilon = eps
        layer.self_attn.q_norm.variance_epsilon = layer.self_attn.k_norm.variance_epsilon = eps
    encoder.norm.variance_epsilon = eps
