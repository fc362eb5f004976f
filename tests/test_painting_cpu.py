"""What paints bfloat16 faster on a CPU: the same numbers as torch and diffusers, to within the rounding of bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.models.normalization import RMSNorm
from torch.nn.attention import SDPBackend, sdpa_kernel

from starrynight.painting import cpu, painter
from starrynight.painting.encoding import Unpadded, unpadded
from starrynight.request import PaintRequest

CPU = torch.device("cpu")


def drawn(
    batch: int, heads: int, length: int, width: int, seed: int, keys: int | None = None
) -> list[torch.Tensor]:
    """Query, key and value in bfloat16, laid out as diffusers' processors leave them. Scores have a deviation near 3."""
    draw = torch.Generator().manual_seed(seed)
    lengths = (length, keys or length, keys or length)
    found = [torch.randn(batch, count, heads, width, generator=draw).transpose(1, 2) for count in lengths]
    found[0] *= 3
    found[1] += 5 * torch.randn(width, generator=draw)  # a part that all keys share, as in real networks
    return [one.bfloat16() for one in found]


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return (((found.double() - exact) ** 2).mean() / (exact**2).mean()).item()


@torch.no_grad()
@pytest.mark.parametrize(
    ("batch", "heads", "length", "width", "keys"),
    [
        (2, 2, 544, 64, None),
        (1, 2, 1300, 40, None),
        (2, 1, 300, 128, 513),
        (1, 1, 1030, 160, 2050),
        (1, 1, 512, 512, None),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_float64_to_within_rounding(
    batch: int, heads: int, length: int, width: int, keys: int | None, masked: bool
) -> None:
    query, key, value = drawn(batch, heads, length, width, seed=width, keys=keys)
    mask = None
    if masked:
        mask = torch.ones(batch, 1, 1, key.shape[2], dtype=torch.bool)
        mask[-1, ..., 100:] = False
        mask[0, ..., ::8] = False  # every key that is looked at for the shift
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), mask)
    with cpu.FastAttention():
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert not torch.equal(found, F.scaled_dot_product_attention(query, key, value, attn_mask=mask))
    assert error(found, exact) < 4e-5  # torch's own kernel: 3e-6; scores rounded unshifted: above 1e-4
    assert found.dtype is torch.bfloat16


@torch.no_grad()
def test_the_shift_is_what_keeps_the_error_small(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = drawn(1, 1, 600, 64, seed=1)
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    shifted = error(cpu.attended(query, key, value), exact)
    unshifted = torch.softmax((query * 64**-0.5) @ key.transpose(-1, -2), -1) @ value
    assert error(unshifted, exact) > 3 * shifted


def _short(call: Callable[..., Any]) -> Any:
    return call(*drawn(1, 1, 128, 64, seed=2))


def _float32(call: Callable[..., Any]) -> Any:
    return call(*(one.float() for one in drawn(1, 1, 600, 64, seed=2)))


def _causal(call: Callable[..., Any]) -> Any:
    return call(*drawn(1, 1, 600, 64, seed=2), is_causal=True)


def _square_mask(call: Callable[..., Any]) -> Any:
    return call(*drawn(1, 1, 600, 64, seed=2), attn_mask=torch.ones(600, 600, dtype=torch.bool).tril())


def _added_mask(call: Callable[..., Any]) -> Any:
    return call(*drawn(1, 1, 600, 64, seed=2), attn_mask=torch.zeros(1, 1, 1, 600, dtype=torch.bfloat16))


def _row_without_keys(call: Callable[..., Any]) -> Any:
    mask = torch.ones(2, 1, 1, 600, dtype=torch.bool)
    mask[1] = False
    return call(*drawn(2, 1, 600, 64, seed=2), attn_mask=mask)


def _fewer_key_heads(call: Callable[..., Any]) -> Any:
    query, key, value = drawn(1, 2, 600, 64, seed=2)
    return call(query, key[:, :1], value[:, :1], enable_gqa=True)


def _mathematics(call: Callable[..., Any]) -> Any:
    with sdpa_kernel(SDPBackend.MATH):
        return call(*drawn(1, 1, 600, 64, seed=2))


@torch.no_grad()
@pytest.mark.parametrize(
    "case",
    [_short, _float32, _causal, _square_mask, _added_mask, _row_without_keys, _fewer_key_heads, _mathematics],
)
def test_every_other_call_is_torchs_own_to_the_bit(case: Callable[..., Any]) -> None:
    expected = case(F.scaled_dot_product_attention)
    with cpu.FastAttention():
        found = case(F.scaled_dot_product_attention)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())


def test_gradients_are_torchs_own() -> None:
    tensors = [one.requires_grad_() for one in drawn(1, 1, 600, 64, seed=3)]
    with cpu.FastAttention():
        F.scaled_dot_product_attention(*tensors).float().sum().backward()
    assert all(one.grad is not None for one in tensors)


@torch.no_grad()
def test_a_norm_rounds_once() -> None:
    draw = torch.Generator().manual_seed(4)
    norm = RMSNorm(384, 1e-5)
    norm.weight.copy_(torch.randn(384, generator=draw))
    norm = norm.bfloat16()
    given = torch.randn(2, 500, 384, generator=draw).bfloat16() * 4
    double, weight = given.double(), norm.weight.double()
    exact = double * (double.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * weight
    before = norm(given)
    assert cpu.make_norms_fast(torch.nn.ModuleList([norm, RMSNorm(8, 1e-5, elementwise_affine=False)])) == 1
    assert isinstance(norm, RMSNorm)
    assert error(norm(given), exact) < 0.7 * error(before, exact)
    assert torch.equal(norm.float()(given.float()), norm.float()(given.float()))
    fresh = RMSNorm(384, 1e-5)
    fresh.load_state_dict(norm.state_dict())
    assert torch.equal(norm(given.float()), fresh(given.float()))  # other formats as before


@torch.no_grad()
def test_a_prompt_is_encoded_at_its_own_length_and_alike() -> None:
    from starrynight.models.catalogue import SHIPPED

    pipeline = DiffusionPipeline.from_pretrained(SHIPPED, dtype=torch.float32, local_files_only=True)
    with unpadded(pipeline):
        assert not isinstance(pipeline.tokenizer, Unpadded)  # float32 is diffusers' own
    pipeline.text_encoder = pipeline.text_encoder.bfloat16()
    own, seen = pipeline.tokenizer, []
    hook = pipeline.text_encoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )

    def encoded(*prompts: str) -> list[torch.Tensor]:
        return pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=128
        )[0]

    padded = encoded("星夜下的村庄", "a lighthouse above the sea, with waves")
    with unpadded(pipeline):
        found = encoded("星夜下的村庄", "a lighthouse above the sea, with waves")
    hook.remove()
    assert pipeline.tokenizer is own
    assert seen[0] == 128 > seen[1]
    for one, other in zip(padded, found, strict=True):
        assert one.shape == other.shape
        assert error(other, one.double()) < 1e-4


@torch.no_grad()
def test_a_decoder_with_channels_last_decodes_alike() -> None:
    decoder = AutoencoderKL(latent_channels=4, block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
                            up_block_types=("UpDecoderBlock2D",) * 2)  # fmt: skip
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    before = decoder.decode(latents).sample
    cpu.prepare(torch.nn.Linear(2, 2), decoder)
    assert torch.equal(decoder.decode(latents).sample, before)  # a float32 denoiser: nothing is changed
    cpu.prepare(torch.nn.Linear(2, 2).bfloat16(), decoder)
    found = decoder.decode(latents).sample
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert error(found, before.double()) < 1e-10


def test_a_picture_is_not_further_from_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Firefly at 384², four steps: with and without what is faster, beside float32."""
    asked = {
        "prompt": "星夜下的静谧村庄，梵高风格",
        "model": "firefly",
        "width": 384,
        "height": 384,
        "steps": 4,
        "seed": 5,
    }

    def painted(precision: str) -> torch.Tensor:
        request = PaintRequest(**asked, precision=precision)
        (found,) = painter.Painter.ready(request, device="cpu").paint(request)
        return torch.from_numpy(found.pixels)

    exact, fast = painted("float32"), painted("bfloat16")
    monkeypatch.setattr(cpu, "prepare", lambda denoiser, decoder: None)
    monkeypatch.setattr(cpu, "LEAST_PIXELS", 10**9)
    plain = painted("bfloat16")
    assert not torch.equal(fast, plain)
    assert error(fast, exact.double()) < 1.3 * error(plain, exact.double())
