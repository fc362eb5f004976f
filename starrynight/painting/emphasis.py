"""Weights in a prompt, applied to CLIP's hidden states: each token's state is multiplied by its weight.

That is A1111's "No norm" (modules/sd_emphasis.py). Its "Original" also scales all states so that their mean stays what it
was; a mean near zero, which a final LayerNorm gives, makes that scale rounding noise. The pooled embedding stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from starrynight.prompt_syntax import Words


@contextmanager
def applied(pipeline: Any, prompt: Words, negative: Words) -> Iterator[None]:
    """While the context lasts, ``encode_prompt`` of a CLIP pipeline returns weighted embeddings."""
    if not (prompt.weights or negative.weights):
        yield
        return
    encode, own = pipeline.encode_prompt, "encode_prompt" in vars(pipeline)

    @wraps(encode)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        positive, against, *rest = encode(*args, **kwargs)
        against = None if against is None else weighted(pipeline, against, negative)
        return (weighted(pipeline, positive, prompt), against, *rest)

    pipeline.encode_prompt = encode_prompt
    try:
        yield
    finally:
        if own:
            pipeline.encode_prompt = encode
        else:
            del pipeline.encode_prompt


def weighted(pipeline: Any, embeddings: torch.Tensor, words: Words) -> torch.Tensor:
    """``embeddings`` [batch, tokens, width] of ``words.text`` under its weights, in their own format.

    SDXL's two encoders stand side by side in the width and read the same tokens.
    """
    if not words.weights:
        return embeddings
    factors = token_factors(pipeline.tokenizer, words, embeddings.shape[1])[:, None].to(embeddings.device)
    return (embeddings.float() * factors).to(embeddings.dtype)


def token_factors(tokenizer: Any, words: Words, length: int) -> torch.Tensor:
    """The weight of each of ``length`` tokens, float32 [length]; 1 for the beginning, the end and padding."""
    read = tokenizer(
        words.text, padding="max_length", max_length=length, truncation=True, return_offsets_mapping=True
    )
    factors = torch.ones(length)
    for number, (start, end) in enumerate(read["offset_mapping"]):
        for first, last, factor in words.weights:
            if start < end and first < end and start < last:
                factors[number] = factor
                break
    return factors
