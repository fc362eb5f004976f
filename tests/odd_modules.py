"""More modules that are hard to fold, by what papers and libraries do: see ``adversaries``, into whose tables they are entered."""

from __future__ import annotations

import functools
import math
from collections import deque
from typing import Any

import torch
from adversaries import (
    MIDDLES,
    MODELS,
    WIDTH,
    Net,
    Sparing,
    call,
    given_input,
    image,
    kinds,
    layers,
    on,
    parameter,
    picture,
    plus,
    spared,
)
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

KNOWN = frozenset((*MIDDLES, *MODELS))


# -- hooks and calls -------------------------------------------------------------------------------------------------


def hook_with_words(s: Net) -> None:
    s.a = nn.Linear(WIDTH, WIDTH)
    s.a.register_forward_hook(lambda module, args, words, out: out.clamp(-3e4, 3e4), with_kwargs=True, always_call=True)  # fmt: skip


def hook_in_place(s: Net) -> None:
    s.up.register_forward_hook(lambda module, args, out: out.mul_(0.5).add_(100.0))


def hook_averages(s: Net) -> None:
    s.recent = deque(maxlen=2)

    def average(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        s.recent.append(out.mean(0))
        return out - sum(s.recent) / len(s.recent)

    s.up.register_forward_hook(average)


def hook_on_the_parent(s: Net) -> None:
    s.up.register_forward_hook(
        lambda module, args, out: setattr(s, "kept_norm", out.norm(dim=-1, keepdim=True))
    )


def hook_first(s: Net) -> None:
    s.up.register_forward_hook(lambda module, args, out: out + 5.0)
    s.up.register_forward_hook(lambda module, args, out: out * 3.0, prepend=True)


def hook_removed(s: Net) -> None:
    handles: list[Any] = []

    def once(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        handles.pop().remove()
        return out + 1000.0

    handles.append(s.up.register_forward_hook(once))


def tied_by_call(s: Net, x: Tensor) -> Tensor:
    return functional_call(s.a, {"weight": s.up.weight, "bias": s.b.bias}, (x,))


def scaled_by_call(s: Net, x: Tensor) -> Tensor:
    return functional_call(s.a, {"weight": s.up.weight * 2 + s.a.weight, "bias": s.a.bias}, (x,))


def ensemble(s: Net, x: Tensor) -> Tensor:
    weights, buffers = stack_module_state([s.up, s.a])
    return torch.vmap(lambda w, b: functional_call(s.b, (w, b), (x,)))(weights, buffers).sum(0)


@functools.lru_cache(8)
def slopes(count: int) -> Tensor:
    return torch.linspace(0.5, 2, count)


def by_shape(s: Net, x: Tensor) -> Tensor:
    """The layer gets vectors, matrices and batches."""
    return torch.stack([s.up(x[0]), *s.up(x[None, 1:3])[0], s.up(x[3:])[0]])


# -- buffers and caches ----------------------------------------------------------------------------------------------


def running_peak(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    s.p.copy_(torch.maximum(s.p, y.abs().amax(0)))
    return y / (s.p + 1e-3)


def ring(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    s.p[s.calls % len(s.p)] = y.mean(0)
    s.calls += 1
    return y + s.p.mean(0)


def warmed_up(s: Net, x: Tensor) -> Tensor:
    s.p += 1
    return s.up(x) * torch.clamp(s.p / 3, max=1) + x


def kept_keys(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    s.memory = y if s.calls == 0 or s.memory.dtype != y.dtype else torch.cat([s.memory[-4:], y])
    s.calls += 1
    return torch.softmax(s.a(x) @ s.b(x).T, -1) @ s.memory[-4:]


def first_scale(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    if s.calls == 0:
        s.memory = float(y.std())
    s.calls += 1
    return y / s.memory + x


def by_identity(s: Net, x: Tensor) -> Tensor:
    s.memory = getattr(s, "memory", {})
    return s.up(x) + s.memory.setdefault(id(s.up), s.a.weight.detach().mean(0)).to(x.dtype)


# -- weights ---------------------------------------------------------------------------------------------------------


def normed_whole(s: Net) -> None:
    s.up = parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH), dim=None)
    with torch.no_grad():
        s.up.parametrizations.weight.original0 *= 2.0**18


class ByBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.linspace(1, 2, WIDTH)[:, None])

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.gain.to(weight.dtype)


class Circulant(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return torch.stack([weight[0].roll(k) for k in range(len(weight))])


class Antisymmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu(1) - weight.triu(1).T


class Softened(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return torch.tanh(weight * 1e-5) * 1e5


def parametrized_by(make: type[nn.Module]) -> Any:
    return lambda s: parametrize.register_parametrization(s.up, "weight", make())


def dora(s: Net, x: Tensor) -> Tensor:
    w = s.up.weight + s.a.weight[:, :4] @ s.b.weight[:4]
    return F.linear(x, w / w.norm(dim=1, keepdim=True) * s.p[:, None], s.up.bias)


def lora(s: Net, x: Tensor) -> Tensor:
    return s.up(x) + F.linear(F.linear(x, s.a.weight[:4]), s.b.weight[:, :4]) * 0.25


def demodulated(s: Net, x: Tensor) -> Tensor:
    """StyleGAN 2: the weight scaled by a style, and normed."""
    w = s.up.weight[None] * s.a(x)[:, None]
    w = w * torch.rsqrt(w.square().sum(-1, keepdim=True) + 1e-8)
    return torch.einsum("boi,bi->bo", w, x)


def generated(s: Net, x: Tensor) -> Tensor:
    return F.linear(x, (s.up(x).T @ s.a(x)) / 4, s.b.bias)


def halves_swapped(s: Net, x: Tensor) -> Tensor:
    return torch.cat(
        [F.linear(x, s.up.weight[8:], s.up.bias[8:]), F.linear(x, s.up.weight[:8]) + s.a.bias[:8]], 1
    )


def fake_quantised(s: Net, x: Tensor) -> Tensor:
    scale = s.up.weight.abs().amax(1, keepdim=True) / 127
    return F.linear(x, (s.up.weight / scale).round() * scale, s.up.bias)


def ternary(s: Net, x: Tensor) -> Tensor:
    """BitNet b1.58: the weight's signs times its mean magnitude."""
    scale = s.up.weight.abs().mean().clamp(min=1e-5)
    return F.linear(x, (s.up.weight / scale).round().clamp(-1, 1) * scale)


def eight_bit_input(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    scale = 127 / y.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return s.a((y * scale).round().clamp(-128, 127) / scale)


# -- einsum, views, sums ---------------------------------------------------------------------------------------------


def windows(y: Tensor) -> Tensor:
    return torch.as_strided(y.contiguous(), (4, 7, 4), (WIDTH, 2, 1)).sum(-1).repeat(1, 3)[:, :WIDTH]


def filled_diagonal(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    y[:, :4].diagonal().add_(3e4)
    return y


def unbound_in_place(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    y.unbind(0)[1].copy_(s.a(x)[1])
    return y


# -- frequencies and complex numbers ---------------------------------------------------------------------------------


def filtered(s: Net, x: Tensor) -> Tensor:
    """GFNet: a learnt complex filter between rfft2 and irfft2."""
    y = torch.fft.rfft2(s.up(x).float(), norm="ortho")
    return torch.fft.irfft2(y * torch.view_as_complex(s.p.float()), s=(4, WIDTH), norm="ortho").to(x.dtype)


def complex_linear(s: Net, x: Tensor) -> Tensor:
    y = torch.complex(s.up(x).float(), s.a(x).float())
    return (y * y.conj()).real.sqrt().to(x.dtype)


def phases(s: Net, x: Tensor) -> Tensor:
    y = torch.fft.fft(s.up(x).float())
    return torch.fft.ifft(torch.polar(y.abs().sqrt(), y.angle())).real.to(x.dtype)


def fft_convolved(s: Net, x: Tensor) -> Tensor:
    kernel = torch.fft.rfft(s.a.weight[0].float(), 2 * WIDTH)
    return torch.fft.irfft(torch.fft.rfft(s.up(x).float(), 2 * WIDTH) * kernel, 2 * WIDTH)[:, :WIDTH].to(
        x.dtype
    )


def haar(y: Tensor) -> Tensor:
    low, high = (y[:, ::2] + y[:, 1::2]) / math.sqrt(2), (y[:, ::2] - y[:, 1::2]) / math.sqrt(2)
    return torch.cat([low, high.sign() * (high.abs() - 100).clamp(min=0)], 1)  # soft threshold of wavelets


# -- order -----------------------------------------------------------------------------------------------------------


def unsorted(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    order = y.argsort(-1)
    changed = s.a(y.gather(1, order))
    return torch.empty_like(changed).scatter_(1, order, changed)


def nucleus(s: Net, x: Tensor) -> Tensor:
    share, order = torch.softmax(s.a(x), -1).sort(-1, descending=True)
    share = share.masked_fill(share.cumsum(-1) - share > 0.6, 0)
    return s.up(x).gather(1, order) * share


def routed_softmax(s: Net, x: Tensor) -> Tensor:
    value, index = s.up(x).topk(3, -1)
    return torch.zeros_like(x).scatter(1, index, torch.softmax(value, -1))


def merged_tokens(s: Net, x: Tensor) -> Tensor:
    """ToMe: each even row is averaged into the odd row that is most like it."""
    y = s.up(x)
    unit = y / y.norm(dim=-1, keepdim=True)
    to = (unit[::2] @ unit[1::2].T).argmax(-1)
    return torch.cat([y[1::2].scatter_reduce(0, to[:, None].expand(-1, WIDTH), y[::2], "mean"), y[::2]])


def dropped_tokens(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    kept = y.norm(dim=-1).topk(2).indices.sort().values
    return torch.cat([y[kept], s.a(x)[:2]])


def one_hot_through(s: Net, x: Tensor) -> Tensor:
    y = torch.softmax(s.up(x), -1)
    return (F.one_hot(y.argmax(-1), WIDTH) - y).detach() + y + s.a(x)


def sparsemax(y: Tensor) -> Tensor:
    z = y * 1e-5
    ordered = z.sort(-1, descending=True).values
    total = ordered.cumsum(-1) - 1
    count = torch.arange(1, WIDTH + 1)
    support = (count * ordered > total).sum(-1, keepdim=True)
    return (z - total.gather(1, support - 1) / support).clamp(min=0) * 1e5


# -- recurrences -----------------------------------------------------------------------------------------------------


def state_space(s: Net, x: Tensor) -> Tensor:
    """Mamba's scan: exp(Δ A) and Δ B with Δ = softplus."""
    y, step = s.up(x), F.softplus(s.a(x))
    state, out = torch.zeros_like(y[0]), []
    for t in range(4):
        state = torch.exp(-step[t]) * state + step[t] * y[t]
        out.append(state * s.b(x)[t])
    return torch.stack(out)


def rwkv(s: Net, x: Tensor) -> Tensor:
    k, v = s.a(x), s.up(x)
    num, den, peak, out = torch.zeros_like(v[0]), torch.zeros_like(v[0]), torch.full_like(v[0], -1e38), []
    for t in range(4):
        most = torch.maximum(peak, k[t])
        num = torch.exp(peak - most) * num + torch.exp(k[t] - most) * v[t]
        den = torch.exp(peak - most) * den + torch.exp(k[t] - most)
        peak = most
        out.append(num / den)
    return torch.stack(out)


def retention(s: Net, x: Tensor) -> Tensor:
    decay = 0.9 ** (torch.arange(4)[:, None] - torch.arange(4)).clamp(min=0)
    return (s.a(x) @ s.b(x).T * decay.tril().to(x.dtype)) @ s.up(x)


def min_gru(s: Net, x: Tensor) -> Tensor:
    gate, value = torch.sigmoid(s.a(x)), s.up(x)
    state, out = value[0], []
    for t in range(4):
        state = torch.lerp(state, value[t], gate[t])
        out.append(state)
    return torch.stack(out)


def delta_rule(s: Net, x: Tensor) -> Tensor:
    k, v = F.normalize(s.a(x), dim=-1), s.up(x)
    state = torch.zeros(WIDTH, WIDTH, dtype=x.dtype)
    out = []
    for t in range(4):
        state = state + torch.outer(v[t] - state @ k[t], k[t])
        out.append(state @ s.b(x)[t])
    return torch.stack(out)


def fixed_point(s: Net, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _ in range(3):
        z = torch.tanh(s.a(z) + s.up(x) * 1e-5)
    return z * 1e5 + s.up(x)


def until_still(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    for _ in range(6):
        new = 0.5 * y + x
        if (new - y).abs().max() < 1e4:
            break
        y = new
    return y


def sinkhorn(y: Tensor) -> Tensor:
    z = torch.exp(y * 1e-6)
    for _ in range(3):
        z = z / z.sum(-1, keepdim=True)
        z = z / z.sum(0, keepdim=True)
    return z * y


def newton_root(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    root = y.abs().amax() + 1
    for _ in range(3):
        root = 0.5 * (root + y.abs() / root)
    return root * y


# -- norms, caps, gates ----------------------------------------------------------------------------------------------


def named_eps(value: float = 1e-5, **more: Any) -> Any:
    def build(s: Net) -> None:
        s.eps = value
        for name, each in more.items():
            setattr(s, name, each)

    return build


def instance_by_hand(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    return (y - y.mean(0)) / torch.sqrt(y.var(0, unbiased=False) + s.eps) * s.gain + s.shift


def adain(s: Net, x: Tensor) -> Tensor:
    y, style = s.up(x), s.a(x)
    normed = (y - y.mean(-1, keepdim=True)) / (y.std(-1, keepdim=True) + s.eps)
    return normed * style.std(-1, keepdim=True) + style.mean(-1, keepdim=True)


def clipped_norm(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    return y * torch.clamp(1000.0 / (y.norm(dim=-1, keepdim=True) + 1e-6), max=1.0)


def dynamic_threshold(s: Net, x: Tensor) -> Tensor:
    """Imagen's: clamped at a quantile and divided by it."""
    y = s.up(x)
    limit = torch.quantile(y.float().abs(), 0.9, dim=-1, keepdim=True).clamp(min=1.0).to(x.dtype)
    return torch.minimum(torch.maximum(y, -limit), limit) / limit


def rescaled_guidance(s: Net, x: Tensor) -> Tensor:
    y, other = s.up(x), s.a(x)
    guided = other + 3.5 * (y - other)
    return 0.7 * guided * (y.std(-1, keepdim=True) / guided.std(-1, keepdim=True)) + 0.3 * guided


def projected_guidance(s: Net, x: Tensor) -> Tensor:
    y, other = s.up(x), s.a(x)
    along = F.normalize(other.double(), dim=-1)
    return ((y.double() * along).sum(-1, keepdim=True) * along).to(x.dtype) + other


def capsules(y: Tensor) -> Tensor:
    n = y.reshape(4, 4, 4).norm(dim=-1, keepdim=True)
    return (n.square() / (1 + n.square()) * y.reshape(4, 4, 4) / n).reshape(4, WIDTH)


def batch_deviation(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    return torch.cat([y[:, 1:], y.std(0).mean().expand(4, 1)], 1)


def spade(s: Net, x: Tensor) -> Tensor:
    y = F.group_norm(image(s.up(x)), 1, eps=1e-6)
    return (y * (1 + image(s.a(x))) + image(s.b(x))).reshape(4, WIDTH)


def gated_space(s: Net, x: Tensor) -> Tensor:
    """gMLP: one half, normed and mixed over tokens, gates the other."""
    u, v = s.up(x).chunk(2, -1)
    v = F.layer_norm(v, (8,))
    return torch.cat([u * (s.a.weight[:4, :4] @ v + s.a.bias[:4, None]), u], 1)


def mixture_of_softmaxes(s: Net, x: Tensor) -> Tensor:
    share = torch.softmax(s.a(x)[:, :2], -1)
    return share[:, :1] * torch.softmax(s.up(x), -1) + share[:, 1:] * torch.softmax(s.b(x), -1)


def hard_gate(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    return (s.a(x) > 0).to(x.dtype) * y + (y > 0).to(x.dtype)


def drop_path(s: Net, x: Tensor) -> Tensor:
    kept = torch.rand(4, 1, generator=torch.Generator().manual_seed(4)) < 0.5
    return s.up(x) / 0.5 * kept.to(x.dtype) + x


def maxout(s: Net, x: Tensor) -> Tensor:
    return torch.stack([s.up(x), s.a(x), s.b(x)]).amax(0)


def capped_scores(s: Net, x: Tensor) -> Tensor:
    score = s.a(s.up(x)) @ s.b(x).T / 4
    return torch.softmax(50.0 * torch.tanh(score / 50.0), -1) @ s.up(x)


# -- positions and attention -----------------------------------------------------------------------------------------


def turn(y: Tensor, dims: int, base: float = 100.0) -> Tensor:
    even, odd, rest = y[:, :dims:2], y[:, 1:dims:2], y[:, dims:]
    angle = torch.arange(len(y))[:, None] / base ** (torch.arange(dims // 2) / (dims // 2))
    cos, sin = angle.cos().to(y.dtype), angle.sin().to(y.dtype)
    return torch.cat([torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(1), rest], 1)


def partial_rope(s: Net, x: Tensor) -> Tensor:
    return torch.softmax(turn(s.up(x), 8) @ turn(s.a(x), 8).T * 1e-5, -1) @ s.b(x)


def rope_of_two_axes(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    return torch.cat([turn(y[:, :8], 8), turn(y[:, 8:].flip(0), 8, 10.0)], 1)


def xpos(s: Net, x: Tensor) -> Tensor:
    decay = (0.8 ** torch.arange(4.0))[:, None].to(x.dtype)
    return torch.softmax((turn(s.a(x), WIDTH) * decay) @ (turn(s.b(x), WIDTH) / decay).T, -1) @ s.up(x)


def relative_bias(s: Net, x: Tensor) -> Tensor:
    """T5's: a table of buckets added to the scores."""
    bucket = (torch.arange(4)[:, None] - torch.arange(4)).clamp(-2, 2) + 2
    return torch.softmax(s.a(x) @ s.b(x).T + s.p[bucket], -1) @ s.up(x)


def loud_relative_bias(s: Net, x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(
        s.a(x)[None], s.b(x)[None], s.up(x)[None], attn_mask=s.up(x)[None, :, :4]
    )[0]


def by_distance(s: Net, x: Tensor) -> Tensor:
    return torch.softmax(-torch.cdist(s.up(x).float(), s.a(x).float()) * 1e-5, -1).to(x.dtype) @ s.up(x)


def random_features(s: Net, x: Tensor) -> Tensor:
    q, k = (torch.exp(part - part.square().sum(-1, keepdim=True) / 2) for part in (s.a(x), s.b(x)))
    return q @ (k.T @ s.up(x)) / (q @ k.sum(0)[:, None])


def attention_free(s: Net, x: Tensor) -> Tensor:
    k = torch.exp(s.a(x))
    return torch.sigmoid(s.b(x)) * (k * s.up(x)).sum(0) / k.sum(0)


def shifted_windows(s: Net, x: Tensor) -> Tensor:
    y = s.up(x).roll(-1, 0).reshape(2, 2, WIDTH)
    mask = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[0.0, -100.0], [-100.0, 0.0]]]).to(x.dtype)
    score = torch.softmax(s.a(x).reshape(2, 2, WIDTH) @ s.b(x).reshape(2, 2, WIDTH).mT / 4 + mask, -1)
    return (score @ y).reshape(4, WIDTH).roll(1, 0)


def causal_half_masked(s: Net, x: Tensor) -> Tensor:
    mask = torch.ones(4, 4, dtype=torch.bool).tril().logical_not()
    mask = torch.where(mask, -65504.0, torch.scalar_tensor(0.0, dtype=x.dtype))
    return F.scaled_dot_product_attention(s.a(x)[None], s.b(x)[None], s.up(x)[None], attn_mask=mask)[0]


def differential(s: Net, x: Tensor) -> Tensor:
    first, second = (torch.softmax(a[:, part] @ b[:, part].T, -1) for part in (slice(0, 8), slice(8, 16)) for a, b in [(s.a(x), s.b(x))])  # fmt: skip
    return (first - torch.sigmoid(s.p) * second) @ s.up(x)


def registers(s: Net, x: Tensor) -> Tensor:
    y = torch.cat([s.p[None], s.up(x)])
    return (torch.softmax(y @ y.T * 1e-9, -1) @ y)[1:]


def hopfield(s: Net, x: Tensor) -> Tensor:
    state = s.a(x)
    for _ in range(2):
        state = torch.softmax(state @ s.b.weight.T, -1) @ s.up.weight
    return state


# -- custom functions, types -----------------------------------------------------------------------------------------


class Dirty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        y.add_(7.0)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class Separate(torch.autograd.Function):
    @staticmethod
    def forward(y: Tensor, gate: Tensor) -> Tensor:
        return y * torch.sigmoid(gate)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g, None


def without_autocast(s: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        y = s.up(x).float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def soft_in_doubles(s: Net, x: Tensor) -> Tensor:
    return (torch.softmax((s.a(x) @ s.b(x).T).double(), -1) @ s.up(x).double()).to(x.dtype)


def through_bfloat16(s: Net, x: Tensor) -> Tensor:
    return s.up(x).bfloat16().to(x.dtype) + s.a(x)


def sums_in_float32(s: Net, x: Tensor) -> Tensor:
    return torch.sum(s.up(x), -1, keepdim=True, dtype=torch.float32).to(x.dtype) + s.a(x)


def peaked(s: Net, x: Tensor) -> Tensor:
    """RWKV-LM: the stream is halved every so many layers."""
    y = s.up(x)
    for number, layer in enumerate((s.a, s.b)):
        y = y + layer(F.layer_norm(y, (WIDTH,)))
        if number % 2 == 0:
            y = y / 2
    return y


# -- the tables ------------------------------------------------------------------------------------------------------

kinds(hook_with_words, hook_with_words=lambda s, x: s.a(s.up(x)))
kinds(hook_in_place, hook_in_place=lambda s, x: s.up(x))
kinds(hook_averages, hook_averages=lambda s, x: s.up(x))
kinds(hook_on_the_parent, hook_on_the_parent=lambda s, x: s.up(x) / s.kept_norm)
kinds(hook_first, hook_first=lambda s, x: s.up(x))
kinds(hook_removed, hook_removed=lambda s, x: s.up(x))
kinds(lambda s: s.register_buffer("p", torch.zeros(WIDTH)), running_peak=running_peak)
kinds(lambda s: s.register_buffer("p", torch.zeros(3, WIDTH)), ring_buffer=ring)
kinds(lambda s: s.register_buffer("p", torch.zeros(())), warmed_up=warmed_up)
kinds(normed_whole, weight_norm_of_the_whole=lambda s, x: s.up(x))
for made in (ByBuffer, Circulant, Antisymmetric, Softened):
    kinds(parametrized_by(made), **{f"parametrized_{made.__name__.lower()}": lambda s, x: s.up(x)})
kinds(lambda s: (layers("a", "b")(s), parameter(lambda: torch.rand(WIDTH) + 1)(s)), dora_by_hand=dora)
kinds(parameter(lambda: torch.rand(4, WIDTH // 2 + 1, 2)), spectral_filter=filtered)
kinds(lambda s: (layers("a", "b")(s), parameter(lambda: torch.rand(5))(s)), relative_bias=relative_bias)
kinds(
    lambda s: (layers("a", "b")(s), parameter(lambda: torch.rand(()))(s)), differential_attention=differential
)
kinds(parameter(lambda: torch.rand(WIDTH)), register_token=registers)
kinds(
    named_eps(gain=2.0, shift=0.5),
    eps_beside_a_norm=lambda s, x: s.up(x) / (s.up(x).norm(dim=-1, keepdim=True) + s.eps),
    eps_beside_a_mean=lambda s, x: s.up(x) / (s.up(x).abs().mean(-1, keepdim=True) + s.eps),
    eps_after_the_root=lambda s, x: s.up(x) / (s.up(x).square().mean(-1, keepdim=True).sqrt() + s.eps),
    eps_of_the_width=lambda s, x: (
        s.up(x) * torch.rsqrt(s.up(x).square().sum(-1, keepdim=True) + s.eps * WIDTH)
    ),
    eps_as_maximum=lambda s, x: s.up(x) / s.up(x).std(-1, keepdim=True).clamp(min=s.eps),
    eps_in_similarity=lambda s, x: s.up(x) * F.cosine_similarity(s.up(x), x, dim=-1, eps=s.eps)[:, None],
    eps_both_sides=lambda s, x: (s.up(x) + s.eps) / (s.up(x).abs().amax(-1, keepdim=True) + s.eps),
    eps_in_a_logarithm=lambda s, x: s.up(x) * torch.log(s.up(x).abs().mean(-1, keepdim=True) + s.eps),
    instance_norm_by_hand=instance_by_hand,
)
kinds(lambda s: (layers("a")(s), named_eps()(s)), adain=adain)
kinds(
    layers("a", "b"),
    tied_by_functional_call=tied_by_call, scaled_by_functional_call=scaled_by_call, ensemble_by_vmap=ensemble, many_shapes=by_shape,
    kept_keys=kept_keys, scale_of_the_first_call=first_scale, memo_by_identity=by_identity,
    cached_function=lambda s, x: s.up(x) * slopes(WIDTH).to(x.dtype) + s.a(x),
    lora_by_hand=lora, demodulated=demodulated, generated_weight=generated, halves_swapped=halves_swapped,
    fake_quantised=fake_quantised, ternary_weight=ternary, eight_bit_input=eight_bit_input,
    einsum_ellipsis=lambda s, x: torch.einsum("...i,oi->...o", s.up(x), s.a.weight) + s.b(x),
    einsum_three=lambda s, x: torch.einsum("bi,bj,bj->bi", s.up(x), s.a(x), s.b(x)),
    einsum_summed=lambda s, x: torch.einsum("...d,...d->...", s.up(x), s.a(x))[:, None] + s.b(x),
    einsum_heads=lambda s, x: torch.einsum("bhd,chd->bch", s.up(x).reshape(4, 2, 8), s.a(x).reshape(4, 2, 8)).repeat(1, 1, 2).flatten(1),
    windows_that_overlap=on(windows), diagonal_in_place=filled_diagonal, unbound_in_place=unbound_in_place,
    column_stack=lambda s, x: torch.column_stack([s.up(x)[:, :8], s.a(x)[:, 8:]]),
    unflatten=lambda s, x: s.up(x).unflatten(1, (4, 4)).mT.flatten(1) + s.a(x),
    complex_magnitude=complex_linear, phase_of_spectrum=phases, fft_convolved=fft_convolved, haar_threshold=on(haar),
    spectrum_of_a_plane=on(lambda y: torch.fft.ifft2(torch.fft.fft2(y.float()) * 0.5).real.to(y.dtype)),
    unsorted_again=unsorted, nucleus=nucleus, topk_softmax=routed_softmax, merged_tokens=merged_tokens,
    dropped_tokens=dropped_tokens, one_hot_through=one_hot_through, sparsemax=on(sparsemax),
    unique_consecutive=lambda s, x: s.up(x) + len(torch.unique_consecutive(s.up(x).sign().flatten())),
    msort=lambda s, x: torch.msort(s.up(x)) - s.up(x).mean(0),
    winner=lambda s, x: s.up(x) * (s.up(x) == s.up(x).amax(-1, keepdim=True)),
    kth_threshold=lambda s, x: s.up(x) * (s.up(x) >= s.up(x).kthvalue(8, -1, keepdim=True).values),
    masked_mean=lambda s, x: s.up(x) - (s.up(x) * (x > 0)).sum(0) / ((x > 0).sum(0) + 1),
    where_with_a_row=lambda s, x: torch.where(x > 0, s.up(x), torch.linspace(0, 1, WIDTH).to(x.dtype)),
    where_of_two_layers=lambda s, x: torch.where(s.up(x) > s.a(x), s.up(x), s.b(x)),
    masked_softmax=lambda s, x: s.up(x) * torch.softmax(s.a(x).masked_fill(x > 0.5, -10000.0), -1),
    state_space=state_space, rwkv=rwkv, retention=retention, min_gru=min_gru, delta_rule=delta_rule, fixed_point=fixed_point,
    until_still=until_still, sinkhorn=on(sinkhorn), newton_root=newton_root,
    cumulative_gate=lambda s, x: s.up(x) * torch.sigmoid(s.a(x)).cumprod(0),
    difference_summed=lambda s, x: torch.cumsum(torch.diff(s.up(x), dim=1, prepend=x[:, :1]), 1),
    running_mean=lambda s, x: s.up(x).cumsum(0) / torch.arange(1, 5)[:, None] + s.a(x),
    clipped_norm=clipped_norm, dynamic_threshold=dynamic_threshold, rescaled_guidance=rescaled_guidance,
    projected_guidance=projected_guidance, capsule_squash=on(capsules), batch_deviation=batch_deviation, spade=spade,
    spatial_gate=gated_space, mixture_of_softmaxes=mixture_of_softmaxes, hard_gate=hard_gate, drop_path=drop_path, maxout=maxout,
    soft_cap=on(lambda y: 3e4 * torch.tanh(y / 3e4)), soft_cap_of_itself=on(lambda y: y.amax() * torch.tanh(y / y.amax())),
    score_cap=capped_scores, reglu=lambda s, x: (lambda u, v: torch.cat([u, v * F.relu(u)], 1))(*s.up(x).chunk(2, -1)),
    geglu=lambda s, x: (lambda u, v: torch.cat([u, v * F.gelu(s.a(x)[:, :8])], 1))(*s.up(x).chunk(2, -1)),
    bilinear_gate=lambda s, x: s.up(x) * s.a(s.up(x)), own_sigmoid=on(lambda y: y * torch.sigmoid(1.702 * y)),
    softplus_gate=lambda s, x: s.up(x) * F.softplus(s.a(x), beta=2.0, threshold=3.0),
    clamp_by_a_layer=lambda s, x: torch.clamp(s.up(x), min=-s.a(x).abs() * 1e4, max=s.b(x).abs() * 1e4),
    group_norm_of_one=picture(lambda y: F.group_norm(y, 1)), group_norm_of_each=picture(lambda y: F.group_norm(y, 4, eps=1e-3)),
    pixel_norm=picture(lambda y: y / y.square().mean(1, keepdim=True).add(1e-8).sqrt()),
    blur_pool=picture(lambda y: F.conv2d(F.pad(y, (1, 1, 1, 1), "reflect"), torch.outer(*[torch.tensor([1.0, 2, 1])] * 2).to(y.dtype).expand(4, 1, 3, 3) / 16, stride=2, groups=4)),
    space_to_depth=picture(lambda y: y.reshape(1, 4, 2, 2, 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(1, 16, 2, 2)),
    causal_convolution=lambda s, x: F.conv1d(F.pad(s.up(x)[None], (2, 0)), s.a.weight[:4, :12].reshape(4, 4, 3))[0],
    transposed_with_stride=picture(lambda y: F.conv_transpose2d(y, torch.ones(4, 1, 2, 2, dtype=y.dtype), stride=2, groups=4)),
    partial_rope=partial_rope, rope_of_two_axes=rope_of_two_axes, xpos=xpos, loud_relative_bias=loud_relative_bias,
    by_distance=by_distance, random_features=random_features, attention_free=attention_free, shifted_windows=shifted_windows,
    masked_as_for_cudnn=causal_half_masked, hopfield=hopfield,
    dirty_function=lambda s, x: Dirty.apply(s.up(x)), separate_context=lambda s, x: Separate.apply(s.up(x), s.a(x)),
    without_autocast=without_autocast, softmax_in_doubles=soft_in_doubles, through_bfloat16=through_bfloat16,
    sum_in_float32=sums_in_float32, halved_between=peaked,
    plus_its_sign=plus(torch.sign), plus_its_rank=plus(lambda y: y.argsort(-1).argsort(-1)),
)  # fmt: skip

# -- whole modules ---------------------------------------------------------------------------------------------------


class Reused(Sparing):
    """One block called over and over, with a number for each round, as in universal transformers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.a, self.norm = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.rounds = nn.Embedding(3, WIDTH)
        with torch.no_grad():
            self.up.weight *= 2.0**18

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        for number in range(3):
            y = y + self.a(self.norm(y)) * self.rounds.weight[number]
        return self.norm(y)


class Skips(Sparing):
    """An encoder and a decoder that read each other's streams, as in a U-Net."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.a, self.b = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out, self.norm = nn.Linear(2 * WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        with torch.no_grad():
            self.up.weight *= 2.0**18

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.up(x)]
        kept.append(F.silu(self.a(self.norm(kept[-1]))))
        y = self.b(kept.pop())
        return self.norm(self.out(torch.cat([y, kept.pop()], 1)))


class Alternating(Sparing):
    """Another layer at every second call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.a, self.b = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm, self.calls = nn.LayerNorm(WIDTH), 0
        with torch.no_grad():
            self.up.weight *= 2.0**18

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm((self.a if self.calls % 2 else self.b)(self.up(x)))


class Timed(Sparing):
    """AdaLN-Zero: a time modulates, and the gate is loud."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.a = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        with torch.no_grad():
            self.up.weight[2 * WIDTH :] *= 2.0**18

    def forward(self, x: Tensor) -> Tensor:
        shift, scale, gate = self.up(F.silu(x.mean(0))).chunk(3)
        return self.norm(x + gate * self.a(self.norm(x) * (1 + scale) + shift))


def twice(module: Any, seed: int) -> Any:
    """Rows of two lengths, one call after the other."""
    x = given_input(module, seed)
    return [module(x), module(x[:3])]


for kind in (Reused, Skips, Timed):
    MODELS[kind.__name__.lower()] = (lambda kind=kind: spared(kind, call)), call  # type: ignore[misc]
MODELS["alternating"] = (lambda: spared(Alternating, twice)), twice
MODELS["skips_of_two_lengths"] = (lambda: spared(Skips, twice)), twice

NEW = tuple(name for name in (*MIDDLES, *MODELS) if name not in KNOWN)
