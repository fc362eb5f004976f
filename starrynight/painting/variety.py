"""More variety between seeds: the text is noised in the first steps, which settle the composition, and comes back for the rest.

Few-step (turbo) models answer a prompt with nearly one composition, whatever the seed. CADS (Sadat et al., “CADS: Unleashing the
Diversity of Diffusion Models through Condition-Annealed Sampling”, ICLR 2024, https://arxiv.org/abs/2310.17347) noises the
condition y at time t (1: pure noise, 0: the picture), with n of y's own standard deviation:

    ŷ = √γ y + s √(1 − γ) n,    γ(t) = 1 for t ≤ τ₁, 0 for t ≥ τ₂, linear between,

and scales ŷ back to the mean and deviation of y (their ψ = 1); τ₁ = 0.6, τ₂ = 0.9 and s = 0.25 are theirs. Ours is ``amount`` in
(0, 1], how long the text stays noised: τ₁ = 1 − 0.4 amount, τ₂ = 1 − 0.1 amount, so that 1 is CADS and little is the first step
alone. Multiplying 1 − γ by the amount instead did nothing below 1: at s = 1 seeds were as far apart at 0.6 as at 0, because a text
half of noise is still read. The positive and the negative prompt get the same noise. Every step's noise is drawn from the
picture's seed and the step's number: a step that the guard takes again gets the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.errors import Unfit
from starrynight.i18n import Text
from starrynight.numerics.rng import generator
from starrynight.request import PaintRequest

START, END = 0.6, 0.9  # τ₁, τ₂ at amount 1
SCALE = 0.25  # s
STREAM = 1000  # of the picture's generators: the noise of step k is drawn from stream STREAM + k
# What denoisers of diffusers call the arguments that hold the text; ``text_embeds`` stands in U-Nets' ``added_cond_kwargs``.
SEQUENCES = ("encoder_hidden_states", "encoder_hidden_states_t5", "cap_feats", "text_bth", "clip_text")
POOLED = ("pooled_projections", "text_embeds", "clip_text_pooled")  # one vector a prompt
NESTED = "added_cond_kwargs"


class Annealing:
    """Noises the text of one picture by ``amount``. ``start``: the time at the first step, below 1 for a picture that begins from
    another. ``steps``: called for how many steps the picture takes, when they begin.
    """

    def __init__(self, amount: float, seed: int, steps: Callable[[], int], start: float = 1.0) -> None:
        self.amount, self.seed, self.steps, self.start = amount, seed, steps, start
        self.step, self.found = 0, False

    @property
    def gamma(self) -> float:
        """γ of the coming step."""
        time = self.start * (1 - self.step / max(self.steps(), 1))
        low, high = (1 - self.amount * (1 - tau) for tau in (START, END))
        return min(max((high - time) / (high - low), 0.0), 1.0) if self.amount else 1.0

    def attach_to_scheduler(self, scheduler: Any) -> None:
        """Count the steps of a fresh scheduler; every attempt at a picture has its own."""
        self.step, own = 0, scheduler.step

        @wraps(own)
        def counted(*args: Any, **kwargs: Any) -> Any:
            result = own(*args, **kwargs)
            self.step += 1
            return result

        scheduler.step = counted

    def hook(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """A forward pre-hook of the denoiser."""
        call = inspect.signature(module.forward).bind(*args, **kwargs)
        inner = call.arguments.get(NESTED)
        nested = inner if isinstance(inner, Mapping) else {}
        texts = [name for name in (*SEQUENCES, *POOLED) if call.arguments.get(name) is not None]
        pooled = [name for name in POOLED if name in nested]
        self.found |= bool(texts or pooled)
        if self.gamma < 1:
            for name in texts:
                call.arguments[name] = self._noised(call.arguments[name], name in POOLED)
            if pooled:
                call.arguments[NESTED] = {
                    **nested,
                    **{name: self._noised(nested[name], True) for name in pooled},
                }
        return call.args, call.kwargs

    def _noised(self, value: Any, pooled: bool) -> Any:
        """Each prompt by itself, so that its noise depends on no other's."""
        if isinstance(value, list | tuple):
            return type(value)(self._noised(one, pooled) for one in value)
        if value.dim() > (1 if pooled else 2):
            return torch.stack([self._noised(one, pooled) for one in value])
        return self._of_one(value)

    def _of_one(self, text: Tensor) -> Tensor:
        """ŷ of the embedding of one prompt, [tokens, width] or [width]."""
        y = text.float()
        mean, deviation = y.mean(), y.std()
        if not deviation > 0:
            return text
        drawn = torch.randn(y.shape, generator=generator(self.seed, stream=STREAM + self.step)).to(y.device)
        noised = self.gamma**0.5 * y + SCALE * (1 - self.gamma) ** 0.5 * deviation * drawn
        return ((noised - noised.mean()) / noised.std() * deviation + mean).to(text.dtype)


def annealing_of(request: PaintRequest, seed: int, steps: Callable[[], int]) -> Annealing | None:
    """Of the picture of ``seed``, which takes ``steps()``; None without variety."""
    if not request.variety:
        return None
    return Annealing(request.variety, seed, steps, 1.0 if request.init_image is None else request.strength)


@contextmanager
def annealed(denoiser: nn.Module, annealing: Annealing | None, name: Text) -> Iterator[None]:
    """Noise the text that ``denoiser`` gets. Raises Unfit, after a picture, if no argument of its holds the text."""
    if annealing is None:
        yield
        return
    with denoiser.register_forward_pre_hook(annealing.hook, with_kwargs=True):
        yield
    if not annealing.found:
        raise Unfit(
            f"variety cannot be applied to {name.en}: its denoiser takes the text in no known way; leave it out.",
            f"{name.zh} 无法使用 variety：不知道其去噪网络怎样接收文字；请去掉它。",
        )
