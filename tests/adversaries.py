"""Modules that are hard to fold: each has a loud layer, something in the middle, a norm and a layer.

``MIDDLES`` is one op or habit each, by name; ``MODELS`` are whole modules that need more than a middle.
``exactness.verdict`` folds one in several ways that its trace allows and compares folded float32 with the original.
"""

from __future__ import annotations

import ctypes
import math
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

WIDTH = 16

# Inputs of the calibration, and others.
CALIBRATION, HELD_OUT = (0, 1, 2), (10, 11, 12)
SEEDS = (*CALIBRATION, *HELD_OUT)
Middle = Callable[["Net", Tensor], Tensor]


class Sparing(nn.Module):
    """Remembers which layers it uses. Those that never run are dropped: they would pin everything around them."""

    def __getattr__(self, name: str) -> Any:
        self.__dict__.setdefault("met", set()).add(name)
        return super().__getattr__(name)


def spared(make: Callable[[], Sparing], run: Callable[[Any, int], Any]) -> Any:
    """A module of ``make`` without the layers that no run of it meets."""
    twin, module = make().eval(), make()
    twin.__dict__["met"] = set()
    with torch.no_grad():
        for seed in SEEDS:
            run(twin, seed)
    for name in ("up", "a", "b", "norm", "out", "conv"):
        if name in module._modules and name not in twin.__dict__["met"]:
            delattr(module, name)
    return module


class Net(Sparing):
    """x → a loud layer → ``middle`` → norm → layer. ``a``, ``b``: layers that a middle may use."""

    def __init__(self, middle: Middle, build: Callable[[Net], None] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm, self.out = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.middle, self.flag, self.calls = middle, False, 0
        with torch.no_grad():
            self.up.weight *= 2.0**18
        if build is not None:
            build(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.middle(self, x)))


def given_input(module: nn.Module, seed: int) -> Tensor:
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(seed))
    return x.to(next(module.parameters()).dtype)


def call(module: Any, seed: int) -> Any:
    module.flag = seed >= 10  # a branch that the calibration does not take
    return module(given_input(module, seed))


def layers(*names: str) -> Callable[[Net], None]:
    def build(s: Net) -> None:
        for name in names:
            setattr(s, name, nn.Linear(WIDTH, WIDTH))

    return build


def parameter(value: Callable[[], Tensor]) -> Callable[[Net], None]:
    return lambda s: setattr(s, "p", nn.Parameter(value()))


def buffer(value: Callable[[], Tensor], persistent: bool = True) -> Callable[[Net], None]:
    return lambda s: s.register_buffer("p", value(), persistent=persistent)


def child(make: Callable[[], nn.Module]) -> Callable[[Net], None]:
    return lambda s: setattr(s, "m", make())


def both(*builds: Callable[[Net], None]) -> Callable[[Net], None]:
    def build(s: Net) -> None:
        for each in builds:
            each(s)

    return build


def out_of(op: Callable[..., Any]) -> Middle:
    """The op writes into memory given as ``out=``."""

    def middle(s: Net, x: Tensor) -> Tensor:
        y = s.up(x)
        target = torch.empty_like(y)
        op(y, out=target)
        return target

    return middle


def written(change: Callable[[Net, Tensor, Tensor], Any]) -> Middle:
    """``change(s, y, x)`` writes into y, the loud layer's output."""

    def middle(s: Net, x: Tensor) -> Tensor:
        y = s.up(x)
        change(s, y, x)
        return y

    return middle


def on(op: Callable[[Tensor], Any]) -> Middle:
    """The op on the loud layer's output."""
    return lambda s, x: op(s.up(x))


def image(y: Tensor) -> Tensor:
    return y.reshape(1, 4, 4, 4)


def rows(y: Tensor) -> Tensor:
    return y.reshape(4, WIDTH)


def picture(op: Callable[[Tensor], Tensor]) -> Middle:
    """The op on the loud output as an image of four channels; its result is cut or repeated to the width."""

    def middle(s: Net, x: Tensor) -> Tensor:
        flat = op(image(s.up(x))).flatten().float().to(x.dtype)
        return flat.repeat(-(-4 * WIDTH // len(flat)))[: 4 * WIDTH].reshape(4, WIDTH)

    return middle


def plus(op: Callable[[Tensor], Tensor]) -> Middle:
    """The loud output and a function of it that may not follow its scale."""
    return lambda s, x: s.up(x) + op(s.up(x)).to(x.dtype)


def times(op: Callable[[Tensor], Tensor]) -> Middle:
    return lambda s, x: s.up(x) * op(s.up(x)).to(x.dtype)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y * y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.clamp(-3e4, 3e4)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


@torch.jit.script
def scripted(y: Tensor, x: Tensor) -> Tensor:
    return torch.sigmoid(y * 1e-5) + x


def power(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    while y.abs().amax() > 100:
        y = y / 3
    return y


def loop(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    for _ in range(int(y.abs().mean().log2())):
        y = s.a(y) * 1.0
    return y


def counted(s: Net, x: Tensor) -> Tensor:
    s.p += 1
    return s.up(x) + s.p


def averaged(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    s.p.mul_(0.9).add_(y.mean(0), alpha=0.1)
    return y - s.p


def averaged_by_lerp(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    s.p.lerp_(y.mean(0), 0.1)
    return y / (s.p.abs() + 1)


def replaced(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    s.p = y.mean(0)
    return y - s.p


def cached(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    if s.calls == 0:
        s.calls, s.memory = 1, y.mean()
    return y + (s.memory if s.memory.dtype == y.dtype else 0)


def kept_number(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    s.seen = float(y.abs().max())
    return y * 1e-3 + x * math.log(s.seen)


def rope(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    even, odd = y[:, 0::2], y[:, 1::2]
    angle = torch.arange(4)[:, None] / 10000 ** (torch.arange(8) / 8)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.cat([even * cos - odd * sin, even * sin + odd * cos], 1)


def rope_complex(s: Net, x: Tensor) -> Tensor:
    y = torch.view_as_complex(s.up(x).float().reshape(4, 8, 2))
    turned = y * torch.polar(torch.ones(4, 8), torch.rand(4, 8, generator=torch.Generator().manual_seed(3)))
    return torch.view_as_real(turned).flatten(1).to(x.dtype)


def alibi(s: Net, x: Tensor) -> Tensor:
    q, k, v = s.a(x), s.b(x), s.up(x)
    slope = -torch.arange(4).sub(torch.arange(4)[:, None]).abs().to(x.dtype)
    return torch.softmax(q @ k.T / 4 + slope, -1) @ v


def attention(s: Net, x: Tensor, **words: Any) -> Tensor:
    return F.scaled_dot_product_attention(
        s.a(x)[None, None], s.b(x)[None, None], s.up(x)[None, None], **words
    )[0, 0]


def moe(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    weight, index = torch.softmax(s.a(y), -1).topk(2, -1)
    result = torch.zeros_like(y)
    for number, expert in enumerate(s.experts):
        found = (index == number).any(-1)
        if found.any():
            share = (weight * (index == number)).sum(-1, keepdim=True)
            result[found] += share[found] * expert(y[found])
    return result


def experts(s: Net) -> None:
    s.a = nn.Linear(WIDTH, WIDTH)
    s.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(WIDTH))


def eps_of(value: object, name: str = "eps") -> Callable[[Net], None]:
    return lambda s: setattr(s, name, value)


def rms(y: Tensor, eps: float) -> Tensor:
    return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)


def hooked(s: Net) -> None:
    s.a = nn.Linear(WIDTH, WIDTH)
    s.a.register_forward_hook(lambda module, args, out: out + 3)


def pre_hooked(s: Net) -> None:
    s.a = nn.Linear(WIDTH, WIDTH)
    s.a.register_forward_pre_hook(lambda module, args: (args[0] / (args[0].abs().amax() + 1),))


def spying(s: Net) -> None:
    s.seen = []
    s.up.register_forward_hook(lambda module, args, out: s.seen.append(out))


def by_attribute(s: Net) -> None:
    s.a = nn.Linear(WIDTH, WIDTH)
    s.weights = {"up": s.up.weight}


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / weight.norm()


class Shifted(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + 1


def weight_normed(s: Net) -> None:
    s.up = parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))
    with torch.no_grad():
        s.up.parametrizations.weight.original0 *= 2.0**18


def old_weight_norm(s: Net) -> None:
    s.up = torch.nn.utils.weight_norm(nn.Linear(WIDTH, WIDTH))
    with torch.no_grad():
        s.up.weight_g *= 2.0**18


def parametrized(*modules: Callable[[], nn.Module]) -> Callable[[Net], None]:
    def build(s: Net) -> None:
        for make in modules:
            parametrize.register_parametrization(s.up, "weight", make())

    return build


def spectral(s: Net) -> None:
    s.a = parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))


def old_spectral(s: Net) -> None:
    s.up = torch.nn.utils.spectral_norm(s.up)


def pruned(s: Net) -> None:
    from torch.nn.utils import prune

    prune.random_unstructured(s.up, "weight", 0.5)


def weight_standardised(s: Net, x: Tensor) -> Tensor:
    w = s.up.weight
    w = (w - w.mean(1, keepdim=True)) / (w.std(1, keepdim=True) + 1e-5)
    return F.linear(x, w, s.up.bias)


Pair = namedtuple("Pair", "one two")


@dataclass
class Both:
    one: Tensor
    two: Tensor


def transformer_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.0, batch_first=True)


def grid(y: Tensor) -> Tensor:
    theta = torch.tensor([[[0.9, 0.1, 0.0], [-0.1, 0.9, 0.1]]])
    return F.grid_sample(
        y, F.affine_grid(theta, [1, 4, 4, 4], align_corners=False).to(y.dtype), align_corners=False
    )


def grid_of_stream(y: Tensor) -> Tensor:
    place = torch.tanh(y[:, :2] * 1e-6).permute(0, 2, 3, 1)
    return F.grid_sample(y, place, align_corners=False)


def strided(y: Tensor) -> Tensor:
    return torch.as_strided(y, (4, WIDTH), (8, 1), 3)


def _by_address(y: Tensor) -> float:
    return ctypes.c_float.from_address(y.data_ptr()).value


def _by_numpy(y: Tensor) -> Tensor:
    return torch.from_numpy(y.float().detach().numpy().copy()).to(y.dtype)


MIDDLES: dict[str, tuple[Middle, Callable[[Net], None] | None]] = {}


def kinds(build: Callable[[Net], None] | None = None, **middles: Middle) -> None:
    for name, middle in middles.items():
        assert name not in MIDDLES
        MIDDLES[name] = middle, build


# Control flow that looks at data.
kinds(
    layers("a", "b"),
    branch_on_mean=lambda s, x: s.a(s.up(x)) if s.up(x).mean() > 1000 else s.b(s.up(x)),
    branch_on_any=lambda s, x: s.up(x) * (2 if (s.up(x) > 50000).any() else 1),
    branch_on_untaken=lambda s, x: F.gelu(s.a(x)) + s.up(x) if s.flag else s.up(x),
    while_large=power,
    loop_of_log=loop,
    python_max=lambda s, x: s.up(x) / max(1.0, s.up(x).abs().max().item()),
    python_int=lambda s, x: s.up(x) + int(s.up(x).amax()),
    python_bool=lambda s, x: s.up(x) + bool((s.up(x) > 3e5).any()) * 70000,
    python_len=lambda s, x: s.up(x) + 1000 * len(s.up(x)[s.up(x) > 3e5]),
    nonzero=lambda s, x: s.up(x) + 100 * len(torch.nonzero(s.up(x) > 1e5)),
    format_text=lambda s, x: s.up(x) + float(f"{s.up(x).amax():.3f}"),
    try_except=lambda s, x: s.up(x) if s.up(x).abs().max() < 1 else s.up(x).tanh(),
    iterated=lambda s, x: torch.stack([row / 2 + (3 if row[0] > 9e4 else 0) for row in s.up(x)]),
    dictionary_of_numbers=lambda s, x: s.up(x) + {True: 7e4, False: 1.0}[bool(s.up(x)[0, 0] > 10)],
    allclose=lambda s, x: s.up(x) + 70000 * torch.allclose(s.up(x), s.up(x) + 1),
    equal_tensors=lambda s, x: s.up(x) + 70000 * torch.equal(s.up(x).round(), s.up(x)),
    is_nonzero=lambda s, x: s.up(x) + (7e4 if s.up(x)[0, 0] else 0),
    index_by_value=lambda s, x: s.up(x)[:, (s.up(x)[0].abs() % 16).long()],
    sorted_python=lambda s, x: s.up(x) + sorted(s.up(x)[0].tolist())[3],
)
# In place and out=.
kinds(
    layers("a", "b"),
    add_in_place=written(lambda s, y, x: y.add_(1)),
    add_scaled_in_place=written(lambda s, y, x: y.add_(x, alpha=50000)),
    mul_in_place=written(lambda s, y, x: y.mul_(s.a(x))),
    div_in_place=written(lambda s, y, x: y.div_(s.a(x).abs() + 1)),
    floor_divide=lambda s, x: s.up(x) // 7,
    floor_divide_in_place=written(lambda s, y, x: y.floor_divide_(7)),
    remainder=lambda s, x: s.up(x) % 1000,
    remainder_in_place=written(lambda s, y, x: y.remainder_(1000)),
    fmod=lambda s, x: torch.fmod(s.up(x), 1000.0),
    pow_in_place=written(lambda s, y, x: y.mul_(1e-4).pow_(2)),
    clamp_in_place=written(lambda s, y, x: y.clamp_(-9e4, 9e4)),
    clamp_low_in_place=written(lambda s, y, x: y.clamp_(min=-100)),
    relu_in_place=written(lambda s, y, x: F.relu_(y)),
    hardtanh_in_place=written(lambda s, y, x: F.hardtanh_(y, -5e4, 5e4)),
    copy_in_place=written(lambda s, y, x: y[1:3].copy_(x[1:3])),
    copy_all_in_place=written(lambda s, y, x: y.copy_(x * 3)),
    zero_in_place=written(lambda s, y, x: y[:2].zero_()),
    fill_in_place=written(lambda s, y, x: y[:, 3].fill_(7e4)),
    set_item=written(lambda s, y, x: y.__setitem__((slice(None), 0), 5e4)),
    set_item_tensor=written(lambda s, y, x: y.__setitem__((slice(None), slice(0, 8)), s.a(x)[:, :8])),
    set_item_mask=written(lambda s, y, x: y.__setitem__(y > 1e5, 1e5)),
    set_item_zero=written(lambda s, y, x: y.__setitem__(y < 0, 0.0)),
    masked_fill_in_place=written(lambda s, y, x: y.masked_fill_(x > 0, -1e4)),
    masked_fill_inf=lambda s, x: s.up(x).masked_fill(x > 1, float("-inf")).softmax(-1) * 1e3,
    index_add=written(lambda s, y, x: y.index_add_(0, torch.tensor([0, 0, 1]), s.a(x)[:3])),
    index_fill=written(lambda s, y, x: y.index_fill_(1, torch.tensor([1]), 5e4)),
    index_put=written(lambda s, y, x: y.index_put_((torch.tensor([1]),), s.a(x)[:1], accumulate=True)),
    scatter_add=written(
        lambda s, y, x: y.scatter_add_(1, torch.zeros(4, 2, dtype=torch.long), s.a(x)[:, :2])
    ),
    scatter_value=written(lambda s, y, x: y.scatter_(1, torch.zeros(4, 1, dtype=torch.long), 6e4)),
    scatter_reduce_amax=written(
        lambda s, y, x: y.scatter_reduce_(1, torch.zeros(4, 3, dtype=torch.long), s.a(x)[:, :3], "amax")
    ),
    scatter_reduce_mean=written(
        lambda s, y, x: y.scatter_reduce_(1, torch.zeros(4, 3, dtype=torch.long), s.a(x)[:, :3], "mean")
    ),
    scatter_product=written(
        lambda s, y, x: y.scatter_reduce_(1, torch.zeros(4, 3, dtype=torch.long), s.a(x)[:, :3], "prod")
    ),
    addcmul_in_place=written(lambda s, y, x: y.addcmul_(s.a(x), s.b(x), value=3e4)),
    addcdiv_in_place=written(lambda s, y, x: y.addcdiv_(s.a(x), s.b(x).abs() + 1, value=3e4)),
    addmm_in_place=written(lambda s, y, x: y.addmm_(x, s.a.weight, beta=0.5, alpha=2)),
    lerp_in_place=written(lambda s, y, x: y.lerp_(s.a(x), 0.5)),
    sub_in_view=written(lambda s, y, x: y.view(2, 2, WIDTH)[0].sub_(3e4)),
    transposed_in_place=written(lambda s, y, x: y.t().add_(1e4)),
    swap_rows=written(lambda s, y, x: y.__setitem__([0, 1], y[[1, 0]])),
    round_in_place=written(lambda s, y, x: y.round_()),
    sign_in_place=written(lambda s, y, x: y.sign_()),
    tril_in_place=written(lambda s, y, x: y.tril_()),
    triu_in_place=written(lambda s, y, x: y.triu_(-1)),
    copysign=lambda s, x: torch.copysign(s.up(x), s.a(x)),
    copysign_other=lambda s, x: torch.copysign(s.a(x), s.up(x)) + s.up(x),
    cumsum_in_place=written(lambda s, y, x: y.cumsum_(1)),
    set_data=written(lambda s, y, x: setattr(y, "data", s.a(x))),
    resize=lambda s, x: (lambda y: (y.set_(s.a(x)), y)[1])(s.up(x).clone()),
    swap_with_view=written(lambda s, y, x: y.view(-1)[::2].mul_(3)),
    bernoulli=lambda s, x: (
        s.up(x) + torch.zeros_like(x).bernoulli_(0.5, generator=torch.Generator().manual_seed(1))
    ),
    uniform=lambda s, x: s.up(x) + torch.zeros_like(x).uniform_(generator=torch.Generator().manual_seed(1)),
    normal=lambda s, x: (
        s.up(x) * 1e-4 + torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(1))
    ),
    add_out=out_of(lambda y, out: torch.add(y, 3, out=out)),
    mul_out=out_of(lambda y, out: torch.mul(y, y, out=out)),
    matmul_out=out_of(lambda y, out: torch.matmul(y, y.T @ y, out=out)),
    cat_out=out_of(lambda y, out: torch.cat([y[:2], y[2:]], out=out)),
    exp_out=out_of(lambda y, out: torch.exp(y * 1e-6, out=out)),
    clamp_out=out_of(lambda y, out: torch.clamp(y, -7e4, 7e4, out=out)),
    cumsum_out=out_of(lambda y, out: torch.cumsum(y, 1, out=out)),
    linear_out=lambda s, x: torch.addmm(s.a.bias, s.up(x), s.a.weight, out=torch.empty_like(x)),
    foreach_add=lambda s, x: torch._foreach_add([s.up(x), x], 3.0)[0],
    foreach_mul_in_place=lambda s, x: (lambda y: (torch._foreach_mul_([y, y[:1]], 3.0), y)[1])(s.up(x)),
    foreach_add_lists=lambda s, x: torch._foreach_add([s.up(x)], [s.a(x)])[0],
)
# Views, strides, expand, broadcast.
kinds(
    layers("a", "b"),
    as_strided=on(strided),
    as_strided_written=written(lambda s, y, x: torch.as_strided(y, (8,), (3,), 1).add_(5e4)),
    expanded=lambda s, x: s.up(x)[:, :1].expand(4, WIDTH) + s.a(x),
    expanded_batch=lambda s, x: (s.up(x)[None].expand(3, 4, WIDTH) + s.a(x)).sum(0),
    broadcast=lambda s, x: s.up(x) * s.a(x)[:1] + s.b(x)[:, :1],
    unfold=lambda s, x: s.up(x).unfold(1, 4, 4).sum(-1).repeat(1, 4),
    diagonal=lambda s, x: s.up(x) + torch.diagonal(s.up(x) @ s.a(x).T)[:, None],
    diag_embed=lambda s, x: torch.diag_embed(s.up(x)).sum(1) + s.a(x),
    chunk=lambda s, x: (lambda one, two: torch.cat([one * F.silu(s.a(x)[:, :8]), two], 1))(
        *s.up(x).chunk(2, -1)
    ),
    split=lambda s, x: torch.cat([part * k for k, part in enumerate(s.up(x).split([3, 5, 8], -1), 1)], 1),
    unbind=lambda s, x: torch.stack([row + s.a(x)[0] for row in s.up(x).unbind(0)]),
    tensor_split=lambda s, x: torch.cat(torch.tensor_split(s.up(x), 3, dim=1)[::-1], 1),
    movedim=lambda s, x: s.up(x).movedim(0, 1).contiguous().view(4, WIDTH),
    flip_roll=lambda s, x: s.up(x).flip(0).roll(3, 1) + s.a(x),
    rot90=lambda s, x: torch.rot90(s.up(x), 2, [0, 1]),
    view_bits=lambda s, x: s.up(x) + s.up(x).float().view(torch.int32).to(x.dtype) * 1e-6,
    narrow=lambda s, x: torch.cat([s.up(x).narrow(1, 0, 8), s.a(x).narrow(1, 8, 8)], 1),
    repeat_interleave=lambda s, x: s.up(x)[:, :4].repeat_interleave(4, 1) + s.a(x),
    repeats_from_data=lambda s, x: (
        s.up(x)[:, :1].repeat_interleave((s.up(x)[0, :1].abs() * 0 + 16).long(), 1) + s.a(x)
    ),
    tile=lambda s, x: torch.tile(s.up(x)[:, :4], (1, 4)),
    meshgrid=lambda s, x: torch.meshgrid(s.up(x)[:, 0], s.a(x)[0], indexing="ij")[0] + s.b(x),
    cartesian=lambda s, x: torch.cartesian_prod(s.up(x)[:, 0], s.a(x)[0])[:, 0].view(4, WIDTH),
    block_diag=lambda s, x: torch.block_diag(s.up(x)[:2, :8], s.a(x)[2:, 8:]),
    trapezoid=lambda s, x: torch.trapezoid(s.up(x), dx=0.5)[:, None] + s.a(x),
    diff=lambda s, x: torch.diff(s.up(x), dim=1, prepend=s.a(x)[:, :1]),
    take=lambda s, x: torch.take(s.up(x), torch.arange(64).view(4, 16) % 40) + s.a(x),
    take_along=lambda s, x: torch.take_along_dim(s.up(x), s.a(x).argsort(1), 1),
    put=written(lambda s, y, x: y.put_(torch.tensor([3, 9]), s.a(x)[0, :2])),
    select_scatter=lambda s, x: torch.select_scatter(s.up(x), s.a(x)[0], 0, 1),
    slice_scatter=lambda s, x: torch.slice_scatter(s.up(x), s.a(x)[:, :4], 1, 0, 4),
    diagonal_scatter=lambda s, x: torch.diagonal_scatter(s.up(x), s.a(x)[0, :4]),
    masked_select=lambda s, x: s.up(x).masked_select(x > 0).sum() + s.a(x),
    masked_scatter=lambda s, x: s.up(x).masked_scatter(x > 0, s.a(x)),
    boolean_index=lambda s, x: s.up(x)[x[:, 0] < 100] + s.a(x),
    boolean_write=written(lambda s, y, x: y.__setitem__(x > 0, s.a(x)[x > 0])),
    bucketize=lambda s, x: (
        s.up(x) + (torch.bucketize(s.up(x), torch.tensor([-1e5, 0.0, 1e5], dtype=x.dtype)) * 5e4).to(x.dtype)
    ),
    searchsorted=lambda s, x: (
        s.a(x) + (torch.searchsorted(s.up(x).sort(1)[0], s.a(x).contiguous()) * 10.0).to(x.dtype)
    ),
    histc=lambda s, x: s.up(x) + torch.histc(s.up(x).float(), WIDTH, -1e6, 1e6).to(x.dtype) * 1e4,
    bincount=lambda s, x: (
        s.up(x) + (torch.bincount(s.up(x).abs().long().flatten() % 16, minlength=16) * 1e4).to(x.dtype)
    ),
    one_hot=lambda s, x: s.up(x) + (F.one_hot(s.up(x).argmax(1), WIDTH) * 1e5).to(x.dtype),
    embedding_by_value=lambda s, x: F.embedding(s.up(x).argmax(1), s.a.weight) + s.up(x),
    embedding_by_rounding=lambda s, x: (
        F.embedding((s.up(x)[:, 0].abs() * 1e-5).long() % 16, s.a.weight) + s.up(x)
    ),
    embedding_bag=lambda s, x: F.embedding_bag(torch.arange(8).view(4, 2), s.up.weight, mode="mean") + s.a(x),
    embedding_bag_weighted=lambda s, x: F.embedding_bag(
        torch.arange(8).view(4, 2), s.up.weight, mode="sum", per_sample_weights=s.a(x)[:, :2].contiguous()
    ),
    embedding_max_norm=lambda s, x: (
        F.embedding(torch.arange(4), s.up.weight.detach().clone(), max_norm=2.0) + s.a(x)
    ),
)
# Selections, comparisons, floors, ceilings.
kinds(
    layers("a", "b"),
    where_scalar=lambda s, x: torch.where(x > 0, s.up(x), 7e4),
    where_scalar_first=lambda s, x: torch.where(x > 0, -3e4, s.up(x)),
    where_zero=lambda s, x: torch.where(x > 0, s.up(x), 0.0),
    where_inf=lambda s, x: torch.where(x > 1, float("-inf"), s.up(x)).softmax(-1) * 1e3,
    where_own=lambda s, x: torch.where(s.up(x) > s.a(x), s.up(x), s.a(x)),
    where_threshold=lambda s, x: torch.where(s.up(x) > 1e5, s.up(x), s.up(x) * 0.5),
    where_python=lambda s, x: torch.where(s.up(x) > s.up(x).mean().item(), s.up(x), 0),
    compared_to_input=lambda s, x: s.up(x) * (s.up(x) > x),
    compared_to_self=lambda s, x: s.up(x) * (s.up(x) > s.up(x).mean(-1, keepdim=True)),
    equal_to_max=lambda s, x: s.up(x) * (s.up(x) == s.up(x).amax(-1, keepdim=True)),
    greater_zero=lambda s, x: s.up(x) * (s.up(x) > 0),
    not_zero=lambda s, x: s.up(x) + (s.up(x).bool() * 9e4).to(x.dtype),
    logical_and=lambda s, x: s.up(x) * torch.logical_and(s.up(x), s.up(x) > 5e4),
    logical_or=lambda s, x: s.up(x) * torch.logical_or(s.up(x) > 5e4, x > 0),
    isclose=lambda s, x: s.up(x) * torch.isclose(s.up(x), s.up(x) + 2e3, atol=1e3, rtol=0),
    sign=plus(lambda y: 5e4 * y.sign()),
    heaviside=plus(lambda y: 5e4 * torch.heaviside(y, torch.tensor(0.5, dtype=y.dtype))),
    clamp=on(lambda y: y.clamp(-1e5, 1e5)),
    clamp_min=on(lambda y: y.clamp(min=1e5)),
    clamp_max=on(lambda y: y.clamp(max=1e5)),
    clamp_zero=on(lambda y: y.clamp(min=0)),
    clamp_small=on(lambda y: y.abs().clamp(min=1e-5).log2().exp2()),
    clamp_tensor=lambda s, x: s.up(x).clamp(max=s.a(x)),
    clamp_negative=on(lambda y: y.clamp(min=-1e-6)),
    clamp_floor_reached=on(lambda y: F.relu(y).clamp(min=1e-6).sqrt()),
    clamp_floor_divides=lambda s, x: s.a(x) / F.relu(s.up(x)).clamp_min(1e-3),
    minimum=lambda s, x: torch.minimum(s.up(x), s.a(x)),
    maximum=lambda s, x: torch.maximum(s.up(x), s.a(x)),
    minimum_of_number=lambda s, x: torch.minimum(s.up(x), torch.tensor(5e4)),
    fmax=lambda s, x: torch.fmax(s.up(x), s.a(x)),
    fmin=lambda s, x: torch.fmin(s.up(x), torch.full_like(x, 7e4)),
    relu6=on(F.relu6),
    hardtanh=on(F.hardtanh),
    hardtanh_wide=on(lambda y: F.hardtanh(y, -1e5, 2e5)),
    hardsigmoid=on(F.hardsigmoid),
    hardswish=on(F.hardswish),
    threshold=on(lambda y: F.threshold(y, 1e4, 0.0)),
    threshold_zero=on(lambda y: F.threshold(y, 0.0, 0.0)),
    threshold_value=on(lambda y: F.threshold(y, 0.0, 3e4)),
    softshrink=on(lambda y: F.softshrink(y, 5e4)),
    hardshrink=on(lambda y: F.hardshrink(y, 5e4)),
    tanhshrink=on(F.tanhshrink),
    celu=on(F.celu),
    elu=on(F.elu),
    selu=on(F.selu),
    softplus=on(F.softplus),
    softplus_beta=on(lambda y: F.softplus(y * 1e-6, 1e6)),
    softsign=on(F.softsign),
    logsigmoid=on(lambda y: F.logsigmoid(y * 1e-6)),
    mish=on(F.mish),
    silu=on(F.silu),
    gelu=on(F.gelu),
    gelu_tanh=on(lambda y: F.gelu(y, approximate="tanh")),
    quick_gelu=on(lambda y: y * torch.sigmoid(1.702 * y)),
    glu=on(lambda y: F.glu(torch.cat([y, y], -1))),
    leaky=on(lambda y: F.leaky_relu(y, 0.2)),
    rrelu=on(lambda y: F.rrelu(y, 0.1, 0.3)),
    relu=on(F.relu),
    relu_squared=on(lambda y: F.relu(y).square() * 1e-6),
    prelu=lambda s, x: F.prelu(s.up(x), s.a.bias[:1]),
    softmin=on(lambda y: F.softmin(y * 1e-6, -1)),
    gumbel=on(lambda y: F.softmax(y * 1e-6 + 1, -1)),
    round=on(torch.round),
    floor=on(torch.floor),
    ceil=on(torch.ceil),
    trunc=on(torch.trunc),
    frac=on(torch.frac),
    round_decimals=on(lambda y: torch.round(y, decimals=-3)),
    quantile=lambda s, x: s.up(x).clamp(max=s.up(x).float().quantile(0.9).to(x.dtype)),
    quantile_dim=lambda s, x: s.up(x) - s.up(x).float().quantile(0.5, dim=1, keepdim=True).to(x.dtype),
    nanquantile=plus(lambda y: y.float().nanquantile(0.5)),
    percentile_python=lambda s, x: s.up(x) / float(torch.quantile(s.up(x).float(), 0.99)),
    kthvalue=lambda s, x: s.up(x) - s.up(x).kthvalue(3, 1, keepdim=True)[0],
    median=lambda s, x: s.up(x) - s.up(x).median(1, keepdim=True)[0],
    mode=lambda s, x: s.up(x) - s.up(x).mode(1, keepdim=True)[0],
    sort=on(lambda y: y.sort(1)[0]),
    sort_index=plus(lambda y: y.sort(1)[1] * 1e4),
    argsort=plus(lambda y: y.argsort(1) * 1e4),
    topk=lambda s, x: s.up(x).topk(8, 1)[0].repeat(1, 2),
    topk_index=plus(lambda y: y.topk(16, 1)[1] * 1e4),
    argmax=plus(lambda y: y.argmax(1, keepdim=True) * 1e4),
    argmin_of_abs=plus(lambda y: y.abs().argmin(1, keepdim=True) * 1e4),
    max_pair=lambda s, x: s.up(x) - s.up(x).max(1, keepdim=True)[0],
    max_index=plus(lambda y: y.max(1, keepdim=True)[1] * 1e4),
    min_pair=lambda s, x: s.up(x) - s.up(x).min(1, keepdim=True).values,
    aminmax=lambda s, x: (lambda low, high: (s.up(x) - low) / (high - low))(*torch.aminmax(s.up(x))),
    unique=plus(lambda y: len(torch.unique(y.round())) * torch.ones(())),
    cummax=lambda s, x: s.up(x).cummax(1)[0],
    cummin_index=plus(lambda y: y.cummin(1)[1] * 1e4),
    count_nonzero=plus(lambda y: torch.count_nonzero(y > 1e5) * 1e3),
    renorm=on(lambda y: y.renorm(2, 0, 1e4)),
    isnan=plus(lambda y: y.isnan() * 1e4),
    nan_to_num=on(lambda y: y.nan_to_num(0.0)),
    nan_to_num_limits=on(lambda y: y.nan_to_num(1.0, 2.0, -2.0)),
    isfinite=times(lambda y: y.isfinite()),
    isinf_of_exp=plus(lambda y: torch.exp(y).isinf() * 5e4),
    any_all=plus(lambda y: (y > 1e5).any(1, keepdim=True) * 5e4),
    all_of_numbers=plus(lambda y: y.all(1, keepdim=True) * 5e4),
    any_of_numbers=plus(lambda y: y.any(1, keepdim=True) * 5e4),
)
# Sums, products, powers, reductions.
kinds(
    layers("a", "b"),
    add_number=on(lambda y: y + 3e4),
    sub_number=on(lambda y: y - 1),
    rsub=on(lambda y: 1 - y),
    add_alpha=lambda s, x: torch.add(s.up(x), s.a(x), alpha=3),
    sub_alpha=lambda s, x: torch.sub(s.up(x), s.a(x), alpha=-3),
    rsub_alpha=lambda s, x: torch.rsub(s.up(x), s.a(x), alpha=2),
    add_number_alpha=on(lambda y: torch.add(y, 2e4, alpha=3)),
    small_number=on(lambda y: y.abs() + 1e-3),
    small_negative=on(lambda y: y - 1e-3),
    small_under_log=on(lambda y: (F.relu(y) + 1e-6).log()),
    small_under_root=on(lambda y: (y * y + 1e-6).sqrt()),
    small_beside_zero=on(lambda y: y * (y > 0) / (y.abs() * (y > 0) + 1e-4)),
    one_minus_sum=lambda s, x: s.up(x) / (1 + s.up(x).abs().sum(-1, keepdim=True)),
    number_tensor=on(lambda y: y + torch.tensor(3e4)),
    number_tensor_zero=on(lambda y: y + torch.tensor(0.0)),
    number_tensor_small=on(lambda y: y.abs() + torch.tensor(1e-3)),
    numpy_number=lambda s, x: s.up(x) + __import__("numpy").float32(3e4),
    numpy_double=lambda s, x: s.up(x) + __import__("numpy").float64(1e-3),
    mul_number=on(lambda y: y * 1e-4),
    mul_self=on(lambda y: y * y),
    mul_three=lambda s, x: s.up(x) * s.a(x) * s.b(x),
    mul_gate=lambda s, x: s.up(x) * torch.sigmoid(s.a(x)),
    div_number=on(lambda y: y / 7),
    number_div=on(lambda y: 1e6 / (y.abs() + 1)),
    div_self=on(lambda y: y / y.abs().amax()),
    div_norm=on(lambda y: y / y.norm(dim=-1, keepdim=True)),
    div_other=lambda s, x: s.up(x) / (s.a(x).abs() + 0.1),
    div_rounded=on(lambda y: torch.div(y, 7, rounding_mode="floor")),
    div_trunc=lambda s, x: torch.div(s.up(x), s.a(x).abs() + 1, rounding_mode="trunc"),
    true_divide=on(lambda y: torch.true_divide(y, 3)),
    reciprocal=on(lambda y: torch.reciprocal(y.abs() + 1e5)),
    reciprocal_bare=on(lambda y: y.abs().reciprocal()),
    rsqrt=on(lambda y: y.abs().rsqrt()),
    sqrt=on(lambda y: y.abs().sqrt()),
    cube_root=on(lambda y: y.abs().pow(1 / 3)),
    square=on(lambda y: (y * 1e-4).square()),
    cube=on(lambda y: (y * 1e-4) ** 3),
    fourth=on(lambda y: (y * 1e-4) ** 4),
    power_minus=on(lambda y: y.abs() ** -1.0),
    power_tensor=lambda s, x: (s.up(x).abs() * 1e-5) ** s.a(x).abs(),
    power_of_number=on(lambda y: 1.5 ** (y * 1e-6)),
    power_zero=plus(lambda y: y**0 * 5e4),
    power_one=on(lambda y: y**1),
    float_power=on(lambda y: torch.float_power(y, 2).to(y.dtype)),
    exp=on(lambda y: (y * 1e-6).exp()),
    exp2=on(lambda y: (y * 1e-6).exp2()),
    expm1=on(lambda y: (y * 1e-6).expm1()),
    log=on(lambda y: y.abs().log()),
    log2=on(lambda y: y.abs().log2()),
    log1p=on(lambda y: y.abs().log1p()),
    logit=on(lambda y: torch.logit(torch.sigmoid(y * 1e-6))),
    sin=on(lambda y: torch.sin(y * 1e-5)),
    cos=on(torch.cos),
    tan=on(torch.tan),
    atan=on(torch.atan),
    atan2=lambda s, x: torch.atan2(s.up(x), s.a(x)),
    atan2_own=lambda s, x: torch.atan2(s.up(x), s.up(x).flip(0)),
    asinh=on(torch.asinh),
    sinh=on(lambda y: torch.sinh(y * 1e-6)),
    erf=on(lambda y: torch.erf(y * 1e-6)),
    hypot=lambda s, x: torch.hypot(s.up(x), s.a(x)),
    sinc=on(torch.sinc),
    xlogy=lambda s, x: torch.xlogy(s.up(x), s.a(x).abs() + 1),
    ldexp=lambda s, x: torch.ldexp(s.up(x), torch.tensor([2])),
    frexp=plus(lambda y: torch.frexp(y.float())[1] * 1e4),
    frexp_mantissa=plus(lambda y: torch.frexp(y.float())[0] * 1e4),
    logaddexp=lambda s, x: torch.logaddexp(s.up(x), s.a(x)),
    logsumexp=on(lambda y: y + y.logsumexp(1, keepdim=True)),
    logcumsumexp=on(lambda y: (y * 1e-6).logcumsumexp(1)),
    softmax=on(lambda y: y.softmax(-1)),
    log_softmax=on(lambda y: F.log_softmax(y * 1e-6, -1)),
    softmax_scaled=on(lambda y: (y / y.abs().amax()).softmax(-1)),
    i0=on(lambda y: torch.i0(y * 1e-6)),
    lgamma=on(lambda y: torch.lgamma(y.abs() + 1)),
    nextafter=lambda s, x: torch.nextafter(s.up(x).float(), torch.zeros(())).to(x.dtype),
    polygamma=on(lambda y: torch.digamma(y.abs() + 1)),
    cumsum=on(lambda y: y.cumsum(1)),
    cumprod=on(lambda y: (y * 1e-5).cumprod(1)),
    prod=on(lambda y: y * (y * 1e-5).prod(1, keepdim=True)),
    mean=on(lambda y: y - y.mean()),
    sum=on(lambda y: y / y.sum(-1, keepdim=True)),
    var=on(lambda y: y / y.var(-1, keepdim=True)),
    std=on(lambda y: (y - y.mean(-1, keepdim=True)) / y.std(-1, keepdim=True)),
    var_mean=on(lambda y: (lambda v, m: (y - m) / (v + 1e-5).sqrt())(*torch.var_mean(y, -1, keepdim=True))),
    std_mean=on(lambda y: (lambda v, m: (y - m) / v)(*torch.std_mean(y, -1, keepdim=True))),
    norm_one=on(lambda y: y / y.norm(p=1, dim=-1, keepdim=True)),
    norm_inf=on(lambda y: y / y.norm(p=math.inf, dim=-1, keepdim=True)),
    norm_zero=on(lambda y: y / y.norm(p=0, dim=-1, keepdim=True)),
    norm_half=on(lambda y: y / y.norm(p=0.5, dim=-1, keepdim=True)),
    nuclear=on(lambda y: y / torch.linalg.matrix_norm(y.float(), "nuc").to(y.dtype)),
    frobenius=on(lambda y: y / torch.linalg.matrix_norm(y).to(y.dtype)),
    nansum=on(lambda y: y + y.nansum(1, keepdim=True)),
    dist=lambda s, x: s.up(x) / torch.dist(s.up(x), s.a(x)),
    cdist=lambda s, x: torch.cdist(s.up(x).float(), s.a(x).float()).to(x.dtype).repeat(1, 4),
    pairwise=lambda s, x: s.up(x) / F.pairwise_distance(s.up(x), s.a(x))[:, None],
    cosine=lambda s, x: s.a(x) * F.cosine_similarity(s.up(x), s.a(x))[:, None],
    normalize=on(lambda y: F.normalize(y, dim=-1)),
    normalize_big_eps=on(lambda y: F.normalize(y * 1e-5, dim=-1, eps=10.0)),
    normalize_zeros=on(lambda y: F.normalize(F.relu(y - 1e9), dim=-1) + y),
    cov=lambda s, x: torch.cov(s.up(x)).repeat(1, 4),
    corrcoef=lambda s, x: torch.corrcoef(s.up(x)).repeat(1, 4),
    lerp=lambda s, x: torch.lerp(s.up(x), s.a(x), 0.3),
    lerp_tensor=lambda s, x: torch.lerp(s.up(x), s.a(x), torch.sigmoid(s.b(x))),
    lerp_loud_weight=lambda s, x: torch.lerp(s.a(x), s.b(x), s.up(x)),
    addcmul=lambda s, x: torch.addcmul(s.up(x), s.a(x), s.b(x), value=2.0),
    addcdiv=lambda s, x: torch.addcdiv(s.up(x), s.a(x), s.b(x).abs() + 1, value=2.0),
    mse=lambda s, x: s.up(x) / F.mse_loss(s.up(x), s.a(x)),
    huber=lambda s, x: s.up(x) / F.huber_loss(s.up(x), s.a(x)),
    smooth_l1=lambda s, x: s.up(x) / F.smooth_l1_loss(s.up(x), s.a(x)),
    cross_entropy=lambda s, x: s.up(x) * F.cross_entropy(s.up(x) * 1e-6, torch.arange(4)),
    kl=lambda s, x: s.up(x) * F.kl_div(s.up(x).log_softmax(-1), s.a(x).softmax(-1)),
)
# Matrix products.
kinds(
    layers("a", "b"),
    matmul=lambda s, x: s.up(x) @ s.a.weight,
    matmul_self=on(lambda y: (y * 1e-4) @ ((y * 1e-4).T @ (y * 1e-4))),
    einsum=lambda s, x: torch.einsum("ij,jk,ik->ik", s.up(x), s.a.weight, s.b(x)),
    einsum_trace=lambda s, x: s.a(x) * torch.einsum("ii->", s.up(x) @ s.up(x).T) * 1e-12,
    einsum_outer=lambda s, x: torch.einsum("i,j->ij", s.up(x)[:, 0], s.a(x)[0]),
    bmm=lambda s, x: torch.bmm(s.up(x)[None], s.a.weight[None])[0],
    addmm=lambda s, x: torch.addmm(s.up(x), x, s.a.weight, beta=0.5, alpha=3),
    addmm_vector=lambda s, x: torch.addmm(s.a.bias, s.up(x), s.a.weight, beta=2, alpha=0.5),
    addmm_beta_zero=lambda s, x: torch.addmm(s.b(x), s.up(x), s.a.weight, beta=0),
    baddbmm=lambda s, x: torch.baddbmm(s.up(x)[None], x[None], s.a.weight[None], beta=0.3, alpha=2)[0],
    baddbmm_empty=lambda s, x: torch.baddbmm(
        torch.empty(1, 4, 4, dtype=x.dtype), s.a(x)[None], s.up(x)[None].mT, beta=0, alpha=0.25
    )[0].repeat(1, 4),
    addbmm=lambda s, x: torch.addbmm(s.up(x), x[None], s.a.weight[None]),
    addmv=lambda s, x: torch.addmv(s.up(x)[:, 0], x, s.a.bias)[:, None] + s.b(x),
    addr=lambda s, x: torch.addr(s.up(x), s.a(x)[:, 0], s.b(x)[0], beta=1, alpha=1e4),
    outer=lambda s, x: torch.outer(s.up(x)[:, 0], s.a(x)[0]),
    kron=lambda s, x: torch.kron(s.up(x)[:2, :4], s.a(x)[:2, :4]),
    inner=lambda s, x: s.b(x) * torch.inner(s.up(x)[0], s.a(x)[0]),
    vdot=lambda s, x: s.b(x) * torch.vdot(s.up(x)[0], s.a(x)[0]),
    tensordot=lambda s, x: torch.tensordot(s.up(x), s.a.weight, dims=1),
    chain=lambda s, x: torch.linalg.multi_dot([s.up(x), s.a.weight, s.b.weight]),
    bilinear=lambda s, x: F.bilinear(s.up(x), s.a(x), torch.stack([s.a.weight] * 16), s.b.bias),
    cross=lambda s, x: torch.linalg.cross(s.up(x)[:, :3], s.a(x)[:, :3]).repeat(1, 6)[:, :16],
    matrix_power=lambda s, x: torch.matrix_power((s.up(x)[:, :4] * 1e-5), 3).repeat(1, 4),
    trace_of=lambda s, x: s.a(x) * torch.trace(s.up(x)[:, :4]),
    inverse=lambda s, x: torch.linalg.inv(s.up(x)[:, :4].float()).to(x.dtype).repeat(1, 4),
    solve=lambda s, x: torch.linalg.solve(s.up(x)[:, :4].float(), s.a(x).float()).to(x.dtype),
    pinv=lambda s, x: torch.linalg.pinv(s.up(x).float()).T.to(x.dtype),
    svd=lambda s, x: (lambda u, d, v: (u * d) @ v)(
        *torch.linalg.svd(s.up(x).float(), full_matrices=False)
    ).to(x.dtype),
    singular=lambda s, x: s.up(x) / torch.linalg.svdvals(s.up(x).float())[0].to(x.dtype),
    qr=lambda s, x: torch.linalg.qr(s.up(x).float())[1].to(x.dtype),
    det=lambda s, x: s.a(x) * torch.linalg.det(s.up(x)[:, :4].float()).to(x.dtype) * 1e-20,
    slogdet=lambda s, x: s.a(x) * torch.linalg.slogdet(s.up(x)[:, :4].float())[1].to(x.dtype),
    eigh=lambda s, x: torch.linalg.eigh((s.up(x) @ s.up(x).T).float())[0].to(x.dtype)[:, None] + s.a(x),
    cholesky=lambda s, x: (
        torch.linalg.cholesky((s.up(x) @ s.up(x).T).float() + 1e6 * torch.eye(4)).to(x.dtype).repeat(1, 4)
    ),
    lstsq=lambda s, x: torch.linalg.lstsq(s.up(x).float(), s.a(x).float())[0][:4].to(x.dtype),
    rank=plus(lambda y: torch.linalg.matrix_rank(y.float(), atol=1e5) * 1e4),
    cond=lambda s, x: s.a(x) * torch.linalg.cond(s.up(x)[:, :4].float()).to(x.dtype),
    expm=lambda s, x: torch.linalg.matrix_exp(s.up(x)[:, :4].float() * 1e-6).to(x.dtype).repeat(1, 4),
    complex_product=lambda s, x: (torch.complex(s.up(x).float(), s.a(x).float()) * 1j).imag.to(x.dtype),
    complex_abs=lambda s, x: torch.complex(s.up(x).float(), s.a(x).float()).abs().to(x.dtype),
    complex_angle=lambda s, x: torch.complex(s.up(x).float(), s.a(x).float()).angle().to(x.dtype),
    complex_sum=lambda s, x: (torch.complex(s.up(x).float(), s.up(x).float()) + (7e4 + 1j)).real.to(x.dtype),
    complex_exp=lambda s, x: torch.exp(1j * s.up(x).float()).real.to(x.dtype),
    view_as_real=rope_complex,
    rope=rope,
    polar=lambda s, x: torch.polar(s.up(x).float().abs(), s.a(x).float()).real.to(x.dtype),
    conj=lambda s, x: (
        torch.view_as_complex(s.up(x).float().view(4, 8, 2))
        .conj()
        .resolve_conj()
        .view(torch.float32)
        .to(x.dtype)
        .view(4, 16)
    ),
    fft=on(lambda y: torch.fft.fft(y.float()).abs().to(y.dtype)),
    rfft=on(lambda y: torch.fft.irfft(torch.fft.rfft(y.float()), n=16).to(y.dtype)),
    fft2=on(lambda y: torch.fft.ifft2(torch.fft.fft2(y.float())).real.to(y.dtype)),
    fft_filter=lambda s, x: torch.fft.irfft(
        torch.fft.rfft(s.up(x).float()) * torch.rand(9, generator=torch.Generator().manual_seed(1)), n=16
    ).to(x.dtype),
    fft_plus=lambda s, x: torch.fft.irfft(torch.fft.rfft(s.up(x).float()) + 5e4, n=16).to(x.dtype),
    fftshift=on(lambda y: torch.fft.fftshift(y)),
    stft=lambda s, x: (
        torch.stft(s.up(x).flatten().float(), 16, window=torch.ones(16), return_complex=True)
        .abs()
        .flatten()[:64]
        .view(4, 16)
        .to(x.dtype)
    ),
    hilbert=on(lambda y: torch.view_as_real(torch.fft.fft(y.float()))[..., 0].to(y.dtype)),
)
# Pictures.
kinds(
    lambda s: setattr(s, "conv", nn.Conv2d(4, 4, 3, padding=1)),
    conv=lambda s, x: s.conv(image(s.up(x))).view(4, 16),
    conv_reflect=lambda s, x: F.conv2d(
        F.pad(image(s.up(x)), (1, 1, 1, 1), mode="reflect"), s.conv.weight
    ).view(4, 16),
    conv_circular=lambda s, x: F.conv2d(
        F.pad(image(s.up(x)), (1, 1, 1, 1), mode="circular"), s.conv.weight, s.conv.bias
    ).view(4, 16),
    conv_value=lambda s, x: F.conv2d(F.pad(image(s.up(x)), (1, 1, 1, 1), value=5e4), s.conv.weight).view(
        4, 16
    ),
    conv_transposed=lambda s, x: F.conv_transpose2d(image(s.up(x)), s.conv.weight, padding=1).reshape(4, 16),
    conv_groups=lambda s, x: F.conv2d(image(s.up(x)), s.conv.weight[:, :1], padding=1, groups=4).view(4, 16),
    conv_dilated=lambda s, x: F.conv2d(image(s.up(x)), s.conv.weight, padding=2, dilation=2).view(4, 16),
    conv_same=lambda s, x: F.conv2d(image(s.up(x)), s.conv.weight, padding="same").view(4, 16),
    conv3d=lambda s, x: F.conv3d(
        image(s.up(x))[:, :, None], s.conv.weight[:, :, None], padding=(0, 1, 1)
    ).view(4, 16),
    conv1d=lambda s, x: F.conv1d(s.up(x)[None], s.conv.weight[..., 0], padding=1)[0],
    conv_tbc=lambda s, x: torch.conv_tbc(
        image(s.up(x))[0].permute(1, 2, 0)[:, None, 0],
        s.conv.weight[:, :, 0].permute(2, 1, 0),
        s.conv.bias,
        1,
    )[:, 0].repeat(1, 4),
)
kinds(
    None,
    pad_zero=picture(lambda y: F.pad(y, (1, 1))),
    pad_value=picture(lambda y: F.pad(y, (1, 1), value=7e4)),
    pad_inf=picture(lambda y: F.max_pool2d(F.pad(y, (1, 1, 1, 1), value=float("-inf")), 3, 1)),
    pad_replicate=picture(lambda y: F.pad(y, (1, 1, 1, 1), mode="replicate")),
    pad_circular=picture(lambda y: F.pad(y, (1, 1, 1, 1), mode="circular")),
    max_pool=picture(lambda y: F.max_pool2d(y, 2)),
    max_pool_padded=picture(lambda y: F.max_pool2d(y, 3, 1, 1)),
    max_unpool=picture(lambda y: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2)),
    avg_pool=picture(lambda y: F.avg_pool2d(y, 2)),
    avg_pool_padded=picture(lambda y: F.avg_pool2d(y, 3, 1, 1, count_include_pad=False)),
    lp_pool=picture(lambda y: F.lp_pool2d(y, 2, 2)),
    lp_pool_three=picture(lambda y: F.lp_pool2d(y.abs(), 3, 2)),
    adaptive_avg=picture(lambda y: F.adaptive_avg_pool2d(y, 2)),
    adaptive_max=picture(lambda y: F.adaptive_max_pool2d(y, 2)),
    fractional=picture(
        lambda y: F.fractional_max_pool2d(
            y, 2, output_size=2, _random_samples=torch.full((1, 4, 2), 0.3, dtype=y.dtype)
        )
    ),
    nearest=picture(lambda y: F.interpolate(y, scale_factor=2)),
    bilinear_up=picture(lambda y: F.interpolate(y, scale_factor=2, mode="bilinear")),
    bicubic=picture(lambda y: F.interpolate(y, size=7, mode="bicubic", align_corners=True)),
    antialias=picture(
        lambda y: F.interpolate(y.float(), size=2, mode="bilinear", antialias=True).to(y.dtype)
    ),
    area=picture(lambda y: F.interpolate(y, size=2, mode="area")),
    nearest_exact=picture(lambda y: F.interpolate(y, size=3, mode="nearest-exact")),
    trilinear=picture(lambda y: F.interpolate(y[:, :, None], size=(2, 4, 4), mode="trilinear")),
    pixel_shuffle=picture(lambda y: F.pixel_shuffle(y, 2)),
    pixel_unshuffle=picture(lambda y: F.pixel_unshuffle(y, 2)),
    channel_shuffle=picture(lambda y: F.channel_shuffle(y, 2)),
    unfold_fold=picture(lambda y: F.fold(F.unfold(y, 3, padding=1), 4, 3, padding=1)),
    grid_sample=picture(grid),
    grid_border=picture(
        lambda y: F.grid_sample(
            y,
            torch.rand(1, 4, 4, 2, generator=torch.Generator().manual_seed(2)).to(y.dtype) * 3 - 1.5,
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
    ),
    grid_of_stream=picture(grid_of_stream),
    local_response=picture(lambda y: F.local_response_norm(y.float(), 2, alpha=1e-4, k=1.0)),
    group_norm=picture(lambda y: F.group_norm(y, 2)),
    instance_norm=picture(lambda y: F.instance_norm(y)),
    batch_norm_train=picture(lambda y: F.batch_norm(y, None, None, training=True)),
    layer_norm=on(lambda y: F.layer_norm(y, (WIDTH,))),
    layer_norm_big_eps=on(lambda y: F.layer_norm(y, (WIDTH,), eps=0.5)),
    rms_norm=on(lambda y: F.rms_norm(y, (WIDTH,))),
    rms_norm_eps=on(lambda y: F.rms_norm(y, (WIDTH,), eps=1e-3)),
    dropout=on(lambda y: F.dropout(y, 0.5, training=False)),
    dropout_on=on(lambda y: (torch.manual_seed(5), F.dropout(y, 0.5, training=True))[1]),
    alpha_dropout=on(lambda y: (torch.manual_seed(5), F.alpha_dropout(y, 0.5, training=True))[1]),
    feature_dropout=picture(lambda y: (torch.manual_seed(5), F.dropout2d(y, 0.5, training=True))[1]),
    noise=on(lambda y: (torch.manual_seed(5), y + torch.randn_like(y))[1]),
    noise_scaled=on(lambda y: (torch.manual_seed(5), y + torch.randn_like(y) * y.std())[1]),
    bernoulli_of_stream=on(lambda y: (torch.manual_seed(5), y * torch.bernoulli(torch.sigmoid(y * 1e-6)))[1]),
    multinomial=plus(lambda y: (torch.manual_seed(5), torch.multinomial(y.abs(), 1) * 1e4)[1]),
    poisson=on(lambda y: (torch.manual_seed(5), torch.poisson(y.abs() * 1e-4))[1]),
    normal_of=on(lambda y: (torch.manual_seed(5), torch.normal(y, 1.0))[1]),
    normal_std=on(lambda y: (torch.manual_seed(5), torch.normal(0.0, y.abs()))[1]),
    cast_float=on(lambda y: (y.float() * 2).to(y.dtype)),
    cast_double=on(lambda y: y.double().sqrt().nan_to_num(0.0).to(y.dtype)),
    cast_int=on(lambda y: y.int().to(y.dtype)),
    cast_long=on(lambda y: (y.long() % 1000).to(y.dtype)),
    cast_bool=on(lambda y: y + (y.bool()).to(y.dtype) * 5e4),
    cast_half=on(lambda y: (y * 1e-3).half().to(y.dtype)),
    cast_bfloat=on(lambda y: y.bfloat16().to(y.dtype)),
    cast_uint8=on(lambda y: y.sigmoid().mul(255).to(torch.uint8).to(y.dtype)),
    type_as=on(lambda y: y.type_as(torch.zeros((), dtype=torch.float64)).to(y.dtype)),
    quantized=on(
        lambda y: torch.fake_quantize_per_tensor_affine(y.float(), 3000.0, 0, -128, 127).to(y.dtype)
    ),
    straight_through=on(lambda y: y + (y.round() - y).detach()),
    rounded_steps=on(lambda y: (y / 1000).round() * 1000),
    rounded_by_own_scale=on(lambda y: (y / y.abs().amax() * 127).round() * (y.abs().amax() / 127)),
    finfo_max=on(lambda y: y.clamp(max=torch.finfo(y.dtype).max)),
    finfo_eps=on(lambda y: y.abs() + torch.finfo(torch.float32).eps),
    finfo_tiny=on(lambda y: y / (y.abs() + torch.finfo(torch.float32).tiny)),
    detach=on(lambda y: y.detach() + y),
    item_scale=on(lambda y: y / y.abs().max().item()),
    item_add=on(lambda y: y + y.mean().item()),
    item_of_norm=lambda s, x: x * torch.linalg.vector_norm(s.up(x)).item(),
    list_of_norms=lambda s, x: (
        s.up(x) * torch.tensor([r.norm().item() for r in s.up(x)], dtype=x.dtype)[:, None]
    ),
    by_numpy=lambda s, x: s.up(x) + _by_numpy(s.up(x)),
    numpy_mean=lambda s, x: s.up(x) - float(s.up(x).float().numpy().mean()),
    array_protocol=lambda s, x: s.up(x) + float(__import__("numpy").asarray(s.up(x).float()).max()),
    dlpack=lambda s, x: s.up(x) + torch.from_dlpack(s.up(x).float()).to(x.dtype),
    buffer_bytes=lambda s, x: s.up(x) + float(len(set(bytes(s.up(x).float().untyped_storage())))) * 1e4,
    data_ptr=lambda s, x: s.up(x) + _by_address(s.up(x).float().contiguous()),
    copy_to_list=lambda s, x: s.up(x) + torch.tensor([list(r) for r in s.up(x).float()]).to(x.dtype),
    deepcopy=lambda s, x: s.up(x) + __import__("copy").deepcopy(s.up(x).detach()) * 2,
    pickled=lambda s, x: s.up(x) + __import__("pickle").loads(__import__("pickle").dumps(s.up(x).detach())),
    repr_of=lambda s, x: s.up(x) + len(repr(s.up(x)[0, 0])) * 1e4,
    vmap=lambda s, x: torch.func.vmap(lambda row: row / row.abs().amax() + 1)(s.up(x)),
    vmap_linear=lambda s, x: torch.func.vmap(s.up)(x),
    jvp=lambda s, x: torch.func.jvp(lambda t: t * t, (s.up(x),), (torch.ones_like(x),))[1],
    grad=lambda s, x: torch.func.grad(lambda t: (t * t).sum())(s.up(x)),
    functional_call=lambda s, x: torch.func.functional_call(
        s.up, {"weight": s.up.weight * 2, "bias": s.up.bias + 1}, (x,)
    ),
    checkpointed=lambda s, x: checkpoint(s.up, x, use_reentrant=False),
    custom_function=lambda s, x: Square.apply(s.up(x) * 1e-3),
    custom_clip=lambda s, x: Clipped.apply(s.up(x)),
    scripted=lambda s, x: scripted(s.up(x), x),
    map_dtype=lambda s, x: torch.tensor(s.up(x).float().tolist()).to(x.dtype),
    hash_of=lambda s, x: s.up(x) + hash(float(s.up(x)[0, 0])) % 7 * 1e4,
    object_returned=lambda s, x: SimpleNamespace(v=s.up(x)).v + 0.0,
    named_tuple=lambda s, x: Pair(s.up(x), x).one,
    dataclass_between=lambda s, x: Both(s.up(x), x).one,
    generator_of_rows=lambda s, x: torch.stack(tuple(row * 2 for row in s.up(x))),
    closure=lambda s, x: (lambda y: lambda: y)(s.up(x))(),
    default_argument=lambda s, x: (lambda t, y=3e4: t + y)(s.up(x)),
    kwargs_only=lambda s, x: (lambda *, value, gain: value * gain)(value=s.up(x), gain=2.0),
    nested=lambda s, x: torch.nested.to_padded_tensor(
        torch.nested.nested_tensor([s.up(x)[0], s.up(x)[1][:9]]), 0.0, (4, 16)
    ),
    sparse=lambda s, x: torch.sparse.mm(s.up(x).float().to_sparse(), torch.eye(16)).to(x.dtype),
    mkldnn=lambda s, x: s.up(x).float().to_mkldnn().to_dense().to(x.dtype),
    sparse_dense=lambda s, x: s.up(x).float().to_sparse().to_dense().to(x.dtype),
)
# Parameters in unusual places.
kinds(weight_normed, weight_norm=lambda s, x: s.up(x))
kinds(old_weight_norm, weight_norm_hook=lambda s, x: s.up(x))
kinds(parametrized(Halved), parametrized_quotient=lambda s, x: s.up(x))
kinds(parametrized(Shifted), parametrized_plus_one=lambda s, x: s.up(x))
kinds(parametrized(Halved, Shifted), parametrized_twice=lambda s, x: s.up(x))
kinds(spectral, spectral_norm=lambda s, x: s.a(s.up(x)))
kinds(old_spectral, spectral_norm_hook=lambda s, x: s.up(x))
kinds(lambda s: setattr(s, "up", parametrizations.orthogonal(s.up)), orthogonal=lambda s, x: s.up(x) * 1e5)
kinds(pruned, pruned=lambda s, x: s.up(x))
kinds(None, weight_standardised=weight_standardised)
kinds(
    layers("a"),
    weight_as_function=lambda s, x: s.a(x) * s.up.weight[:4],
    weight_norm_as_gain=lambda s, x: s.a(x) * s.up.weight.norm(),
    weight_maximum=lambda s, x: s.up(x) / s.up.weight.abs().max(),
    weight_mean=lambda s, x: s.up(x) + s.up.weight.mean(),
    weight_item=lambda s, x: s.up(x) / s.up.weight.abs().max().item(),
    weight_twice=lambda s, x: s.up(F.normalize(s.up(x), dim=-1)),
    weight_transposed=lambda s, x: F.linear(F.normalize(s.up(x), dim=-1), s.up.weight.T),
    weight_plus_weight=lambda s, x: F.linear(x, s.up.weight + s.a.weight),
    weight_clamped=lambda s, x: F.linear(x, s.up.weight.clamp(-1e5, 1e5)),
    weight_rounded=lambda s, x: F.linear(x, s.up.weight.round()),
    weight_signs=lambda s, x: F.linear(x, s.up.weight.sign()) + s.up(x),
    weight_quantised=lambda s, x: F.linear(x, (s.up.weight / s.up.weight.abs().amax() * 127).round() / 127),
    weight_masked=lambda s, x: F.linear(x, s.up.weight * torch.tril(torch.ones(16, 16, dtype=x.dtype))),
    weight_softmax=lambda s, x: F.linear(s.up(x), s.a.weight.softmax(-1)),
    weight_exp=lambda s, x: s.up(x) * s.a.bias.exp(),
    bias_twice=lambda s, x: s.up(x) + s.up.bias,
    bias_as_gate=lambda s, x: s.up(x) * s.up.bias.sigmoid(),
    low_rank=lambda s, x: F.linear(x, s.up.weight + s.a.weight[:, :2] @ s.a.weight[:2]),
    transposed_view=lambda s, x: x @ s.up.weight.mT,
    half_of_weight=lambda s, x: torch.cat([F.linear(x, s.up.weight[:8]), F.linear(x, s.a.weight[8:])], 1),
    diagonal_of_weight=lambda s, x: s.a(x) * s.up.weight.diagonal(),
)
kinds(
    parameter(lambda: torch.tensor(3e4)),
    scalar_parameter=lambda s, x: s.up(x) + s.p,
    scalar_parameter_times=lambda s, x: s.up(x) * s.p,
    rezero=lambda s, x: s.up(x) + s.p * x,
    log_scale=lambda s, x: s.up(x) * torch.log(s.p),
    temperature=lambda s, x: s.up(x) / s.p,
    temperature_floor=lambda s, x: s.up(x) / s.p.clamp(min=1.0),
    power_of_parameter=lambda s, x: s.up(x).abs() ** (s.p * 1e-5),
    threshold_parameter=lambda s, x: s.up(x) * (s.up(x) > s.p),
    parameter_number=lambda s, x: s.up(x) + float(s.p),
)
kinds(
    parameter(lambda: torch.zeros(())),
    gate_at_zero=lambda s, x: s.up(x) + s.p * 1e5,
    tanh_gate=lambda s, x: x + torch.tanh(s.p) * s.up(x),
    zero_plus=lambda s, x: s.up(x) + (s.p + 0.5),
    where_zero_parameter=lambda s, x: torch.where(x > 0, s.up(x), s.p),
)
kinds(
    both(parameter(lambda: torch.rand(WIDTH)), layers("a")),
    layer_scale=lambda s, x: x + s.p * s.up(x),
    one_plus_weight=lambda s, x: F.rms_norm(s.up(x), (WIDTH,)) * (1 + s.p) + s.a(x),
    sigmoid_gain=lambda s, x: s.up(x) * torch.sigmoid(s.p),
    softplus_gain=lambda s, x: s.up(x) * F.softplus(s.p),
    exp_gain=lambda s, x: s.up(x) * s.p.exp(),
    class_token=lambda s, x: torch.cat([s.p[None], s.up(x)])[1:] + s.a(x),
    class_token_kept=lambda s, x: torch.cat([s.p[None], s.up(x)])[:4],
    position_added=lambda s, x: s.up(x) + s.p,
    mask_token=lambda s, x: torch.where(x[:, :1] > 0, s.up(x), s.p),
    snake=lambda s, x: s.up(x) + torch.sin(s.up(x) * s.p).square() / (s.p + 1e-9),
    power_gain=lambda s, x: s.up(x) * s.p**2,
    sorted_parameter=lambda s, x: s.up(x) * s.p.sort()[0],
    cumulative=lambda s, x: s.up(x) * s.p.cumsum(0),
    difference=lambda s, x: s.up(x) * (s.p[0] - s.p[1]),
)
kinds(
    buffer(lambda: torch.rand(WIDTH) * 1e5),
    buffer_added=lambda s, x: s.up(x) + s.p,
    buffer_counted=counted,
    buffer_averaged=averaged,
    buffer_lerped=averaged_by_lerp,
    buffer_replaced=replaced,
    buffer_compared=lambda s, x: s.up(x) * (s.up(x) > s.p),
    buffer_nearest=lambda s, x: s.p[(s.up(x)[..., None] - s.p).abs().argmin(-1)],
)
kinds(
    buffer(lambda: torch.rand(WIDTH) * 1e5, False),
    buffer_temporary=lambda s, x: s.up(x) + s.p,
    buffer_divides=lambda s, x: s.up(x) / s.p,
)
kinds(
    buffer(lambda: torch.tensor(3)),
    integer_buffer=lambda s, x: s.up(x) * s.p + s.p * 10000,
    integer_power=lambda s, x: (s.up(x) * 1e-4) ** s.p,
)
kinds(
    lambda s: setattr(s, "list", nn.ParameterList([nn.Parameter(torch.rand(WIDTH)) for _ in range(3)])),
    parameter_list=lambda s, x: sum(p * s.up(x) for p in s.list),
    parameter_list_added=lambda s, x: s.up(x) + s.list[0] * 5e4 + s.list[1],
)
kinds(
    lambda s: setattr(s, "dict", nn.ParameterDict({"k": nn.Parameter(torch.rand(WIDTH))})),
    parameter_dict=lambda s, x: s.up(x) * s.dict["k"] + s.dict["k"],
)
kinds(
    lambda s: setattr(s, "table", torch.rand(WIDTH) * 1e5),
    plain_tensor=lambda s, x: s.up(x) + s.table.to(x.dtype),
    plain_tensor_cached=cached,
)
kinds(None, number_kept=kept_number, cached_once=cached)
kinds(hooked, hook_adds=lambda s, x: s.a(s.up(x)))
kinds(pre_hooked, hook_before=lambda s, x: s.a(s.up(x)))
kinds(spying, hook_spies=lambda s, x: s.up(x) + s.seen[-1] * 0.5)
kinds(by_attribute, weight_in_a_dictionary=lambda s, x: s.up(x) + F.linear(x, s.weights["up"]))
kinds(
    layers("a"),
    embedding_tied=lambda s, x: F.linear(
        F.normalize(F.embedding(torch.arange(4), s.up.weight), dim=-1), s.up.weight
    ),
    method_called=lambda s, x: s.up.forward(x) + s.a(x),
)
# Epsilons.
kinds(
    eps_of(1e-2),
    eps_in_norm=lambda s, x: rms(s.up(x), s.eps),
    eps_under_quotient=lambda s, x: x / (s.up(x).abs() + s.eps),
    eps_doubled=lambda s, x: rms(s.up(x), 2 * s.eps),
    eps_squared=lambda s, x: rms(s.up(x), s.eps**2),
    eps_root=lambda s, x: rms(s.up(x), math.sqrt(s.eps)),
    eps_as_tensor=lambda s, x: rms(s.up(x), torch.tensor(s.eps)),
    eps_subtracted=lambda s, x: s.up(x) - s.eps,
    eps_maximum=lambda s, x: torch.maximum(s.up(x), torch.tensor(s.eps)),
    eps_text=lambda s, x: rms(s.up(x), float(str(s.eps))),
    eps_max=lambda s, x: rms(s.up(x), max(s.eps, 1e-3)),
    eps_compared=lambda s, x: rms(s.up(x), s.eps) * (2 if s.eps > 5e-3 else 1),
    eps_of_two=lambda s, x: rms(s.up(x), s.eps) + rms(x, s.eps),
    eps_log=lambda s, x: (F.relu(s.up(x)) + s.eps).log(),
    eps_numpy=lambda s, x: rms(s.up(x), float(__import__("numpy").float32(s.eps))),
    eps_clamps=lambda s, x: s.up(x) / s.up(x).norm(dim=-1, keepdim=True).clamp(min=s.eps),
    eps_alpha=lambda s, x: torch.add(s.up(x), x, alpha=s.eps),
    eps_in_layer_norm=lambda s, x: F.layer_norm(s.up(x), (WIDTH,), eps=s.eps),
    eps_in_normalize=lambda s, x: F.normalize(s.up(x), dim=-1, eps=s.eps),
    eps_passed=lambda s, x: (lambda y, *, eps: rms(y, eps))(s.up(x), eps=s.eps),
    eps_minus=lambda s, x: (s.up(x).square() - s.eps).abs().sqrt(),
    eps_added_first=lambda s, x: s.eps + s.up(x).abs(),
    eps_in_list=lambda s, x: rms(s.up(x), [s.eps][0]),
)
kinds(
    eps_of(3e4), eps_large=lambda s, x: s.up(x).abs() + s.eps, eps_large_norm=lambda s, x: rms(s.up(x), s.eps)
)
kinds(eps_of(1), eps_whole=lambda s, x: s.up(x).abs() + s.eps)
kinds(eps_of(torch.tensor(1e-2)), eps_tensor=lambda s, x: rms(s.up(x), s.eps))
kinds(lambda s: s.register_buffer("eps", torch.tensor(1e-2)), eps_buffer=lambda s, x: rms(s.up(x), s.eps))
kinds(
    lambda s: setattr(s, "eps", nn.Parameter(torch.tensor(1e-2))),
    eps_parameter=lambda s, x: rms(s.up(x), s.eps),
    eps_parameter_squared=lambda s, x: rms(s.up(x), s.eps**2),
)
kinds(eps_of(SimpleNamespace(eps=1e-2), "config"), eps_of_config=lambda s, x: rms(s.up(x), s.config.eps))
# Children.
kinds(child(lambda: nn.BatchNorm1d(WIDTH)), batch_norm_child=lambda s, x: s.m(s.up(x)))
kinds(
    child(lambda: nn.BatchNorm1d(WIDTH, affine=False)),
    batch_norm_plain=lambda s, x: s.m(s.up(x)),
    batch_norm_training=lambda s, x: (s.m.train(), s.m(s.up(x)))[1],
)
kinds(
    child(lambda: nn.BatchNorm1d(WIDTH, track_running_stats=False)),
    batch_norm_untracked=lambda s, x: s.m(s.up(x)),
)
kinds(
    child(lambda: nn.BatchNorm1d(WIDTH, momentum=None)),
    batch_norm_cumulative=lambda s, x: (s.m.train(), s.m(s.up(x)))[1],
)
kinds(
    child(lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True)),
    instance_norm_tracked=lambda s, x: s.m(s.up(x)[None])[0],
    instance_norm_training=lambda s, x: (s.m.train(), s.m(s.up(x)[None])[0])[1],
)
kinds(child(lambda: nn.GroupNorm(2, WIDTH, affine=False)), group_norm_plain=lambda s, x: s.m(s.up(x)))
kinds(
    child(lambda: nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-2)),
    layer_norm_plain=lambda s, x: s.m(s.up(x)),
    layer_norm_twice=lambda s, x: s.m(s.up(x)) + s.m(x),
)
kinds(child(lambda: nn.LayerNorm(WIDTH, bias=False)), layer_norm_no_bias=lambda s, x: s.m(s.up(x)))
kinds(
    child(lambda: nn.RMSNorm(WIDTH)),
    rms_norm_child=lambda s, x: s.m(s.up(x)),
    rms_norm_shared=lambda s, x: s.m(s.up(x)) + s.m(x) * 3e4,
)
kinds(
    child(lambda: nn.Linear(WIDTH, WIDTH)),
    called_twice=lambda s, x: s.m(s.m(s.up(x))),
    called_on_two=lambda s, x: s.m(s.up(x)) + s.m(x),
    called_on_two_apart=lambda s, x: F.normalize(s.m(s.up(x)), dim=-1) + F.normalize(s.m(x), dim=-1),
)
kinds(
    child(lambda: nn.Linear(WIDTH, WIDTH, bias=False)),
    bare_called_twice=lambda s, x: s.m(s.m(s.up(x))),
    bare_called_on_two=lambda s, x: F.normalize(s.m(s.up(x)), dim=-1) + F.normalize(s.m(x), dim=-1),
    bare_residual=lambda s, x: s.up(x) + s.m(s.up(x)),
)
kinds(
    child(lambda: nn.MultiheadAttention(WIDTH, 2, batch_first=True)),
    heads=lambda s, x: s.m(s.up(x)[None], x[None], x[None])[0][0],
    heads_values=lambda s, x: s.m(x[None], x[None], s.up(x)[None])[0][0],
    heads_self=lambda s, x: s.m(s.up(x)[None], s.up(x)[None], s.up(x)[None], need_weights=False)[0][0],
    heads_fast=lambda s, x: s.m(x[None], x[None], x[None], need_weights=False)[0][0] * 1e5 + s.up(x),
)
kinds(
    child(lambda: nn.MultiheadAttention(WIDTH, 2, add_bias_kv=True, add_zero_attn=True)),
    heads_with_bias=lambda s, x: s.m(x, x, s.up(x))[0],
)
kinds(
    child(transformer_layer),
    encoder_layer=lambda s, x: s.m(s.up(x)[None])[0],
    encoder_layer_loud=lambda s, x: s.m(x[None])[0] * 1e5 + s.up(x),
)
kinds(
    child(lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True)),
    lstm=lambda s, x: s.m(s.up(x)[None])[0][0],
    lstm_state=lambda s, x: s.m(x[None])[1][1][0] + s.up(x),
)
kinds(child(lambda: nn.GRU(WIDTH, WIDTH, batch_first=True)), gru=lambda s, x: s.m(s.up(x)[None])[0][0])
kinds(
    child(lambda: nn.RNN(WIDTH, WIDTH, nonlinearity="relu", batch_first=True)),
    rnn_relu=lambda s, x: s.m(s.up(x)[None])[0][0],
)
kinds(child(lambda: nn.LSTMCell(WIDTH, WIDTH)), lstm_cell=lambda s, x: s.m(s.up(x))[0])
kinds(child(lambda: nn.GRUCell(WIDTH, WIDTH)), gru_cell=lambda s, x: s.m(x, s.up(x)))
kinds(
    child(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH))),
    sequential=lambda s, x: s.m(s.up(x)),
    sequential_part=lambda s, x: s.m[2](s.up(x)) + s.m[0](x),
)
kinds(child(lambda: nn.PReLU(WIDTH)), prelu_child=lambda s, x: s.m(s.up(x)))
kinds(child(lambda: nn.Bilinear(WIDTH, WIDTH, WIDTH)), bilinear_child=lambda s, x: s.m(s.up(x), x))
kinds(
    child(lambda: nn.Embedding(16, WIDTH, padding_idx=0)),
    embedding_child=lambda s, x: s.m(torch.arange(4)) + s.up(x),
)
kinds(
    child(lambda: nn.Embedding(16, WIDTH, max_norm=1.0)),
    embedding_renormed=lambda s, x: s.m(torch.arange(4)) * 1e5 + s.up(x),
)
kinds(
    child(lambda: nn.EmbeddingBag(16, WIDTH)),
    bag_child=lambda s, x: s.m(torch.arange(8).view(4, 2)) + s.up(x),
)
kinds(child(lambda: torch.jit.script(nn.Linear(WIDTH, WIDTH))), scripted_child=lambda s, x: s.m(s.up(x)))
kinds(
    child(lambda: torch.jit.trace(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()), torch.zeros(4, WIDTH))),
    traced_child=lambda s, x: s.m(x) * 1e5 + s.up(x),
)
kinds(
    child(lambda: torch.compile(nn.Linear(WIDTH, WIDTH), backend="eager")),
    compiled_child=lambda s, x: s.m(s.up(x)),
)
kinds(child(lambda: nn.Softmax(-1)), softmax_child=lambda s, x: s.m(s.up(x)))
kinds(child(lambda: nn.Dropout(0.5)), dropout_child=lambda s, x: s.m(s.up(x)))
kinds(child(lambda: nn.Linear(WIDTH, WIDTH).requires_grad_(False)), moe=moe)
MIDDLES["moe"] = moe, experts
kinds(
    layers("a", "b"),
    alibi=alibi,
    attention_values=lambda s, x: attention(s, x),
    attention_causal=lambda s, x: attention(s, x, is_causal=True),
    attention_masked=lambda s, x: attention(s, x, attn_mask=torch.tril(torch.ones(4, 4, dtype=torch.bool))),
    attention_biased=lambda s, x: attention(s, x, attn_mask=s.a(x)[:, :4] * 3),
    attention_scaled=lambda s, x: attention(s, x, scale=0.01),
    attention_loud_query=lambda s, x: F.scaled_dot_product_attention(
        s.up(x)[None, None], s.b(x)[None, None], s.a(x)[None, None]
    )[0, 0],
    attention_loud_mask=lambda s, x: attention(s, x, attn_mask=s.up(x)[:, :4] * 1e-5),
    attention_by_hand=lambda s, x: torch.softmax((s.up(x) * 1e-5) @ s.a(x).T, -1) @ s.up(x),
    linear_attention=lambda s, x: (
        lambda q, k, v: (q @ (k.T @ v)) / ((q * k.sum(0)).sum(-1, keepdim=True) + 1e-6)
    )(F.relu(s.a(x)), F.relu(s.b(x)), s.up(x)),
    cosine_attention=lambda s, x: (
        torch.softmax(F.normalize(s.up(x), dim=-1) @ F.normalize(s.a(x), dim=-1).T * 10, -1) @ s.up(x)
    ),
    sink=lambda s, x: (
        torch.softmax(torch.cat([s.a(x) @ s.b(x).T, torch.zeros(4, 1, dtype=x.dtype)], 1), -1)[:, :4]
        @ s.up(x)
    ),
    grouped_query=lambda s, x: F.scaled_dot_product_attention(
        s.a(x).view(1, 4, 4, 4),
        s.b(x).view(1, 4, 4, 4)[:, :2],
        s.up(x).view(1, 4, 4, 4)[:, :2],
        enable_gqa=True,
    ).view(4, 16),
    residual_gate=lambda s, x: s.up(x) + torch.tanh(s.a(x)) * s.up(x),
    highway=lambda s, x: (lambda t: t * s.up(x) + (1 - t) * s.b(x))(torch.sigmoid(s.a(x))),
    swiglu=lambda s, x: F.silu(s.a(x)) * s.up(x),
    film=lambda s, x: s.up(x) * (1 + s.a(x)) + s.b(x),
    squeeze=lambda s, x: s.up(x) * torch.sigmoid(s.a(s.up(x).mean(0, keepdim=True) * 1e-6)),
    global_response=lambda s, x: (lambda g: s.up(x) * (g / (g.mean(-1, keepdim=True) + 1e-6)) + s.up(x))(
        s.up(x).norm(dim=0, keepdim=True)
    ),
    dynamic_tanh=lambda s, x: torch.tanh(s.up(x) * s.a.bias[:1]),
    max_normed=on(lambda y: y / y.abs().amax(-1, keepdim=True).clamp(min=1e-6)),
    sampled=lambda s, x: s.up(x) + torch.exp(0.5 * s.a(x)) * x,
    quantizer=lambda s, x: s.a.weight[(s.up(x)[:, None] - s.a.weight).norm(dim=-1).argmin(1)],
    vq_products=lambda s, x: s.a.weight[(s.up(x) @ s.a.weight.T).argmax(1)] + s.up(x),
)


# Whole modules: how numbers enter and leave, how parts are shared, what happens between calls: (make, run).


class Given(Sparing):
    """``forward`` is a function of the module and whatever the caller gives."""

    def __init__(self, forward: Callable[..., Any], build: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.a, self.b, self.norm = (
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.LayerNorm(WIDTH),
        )
        self.body, self.flag = forward, False
        with torch.no_grad():
            self.up.weight *= 2.0**18
        if build is not None:
            build(self)

    def forward(self, *args: Any, **words: Any) -> Any:
        return self.body(self, *args, **words)


MODELS: dict[str, tuple[Callable[[], Any], Callable[[Any, int], Any]]] = {}


def model(
    name: str,
    forward: Callable[..., Any],
    run: Callable[[Any, int], Any] = call,
    build: Callable[[Any], None] | None = None,
) -> None:
    MODELS[name] = (lambda: spared(lambda: Given(forward, build), run)), run


def second_input(module: nn.Module, seed: int, scale: float = 1.0) -> Tensor:
    return given_input(module, seed + 100) * scale


model("output_tuple", lambda s, x: (s.up(x), s.norm(s.up(x))))
model("output_list", lambda s, x: [s.norm(s.up(x)), s.up(x)])
model("output_dict", lambda s, x: {"loud": s.up(x), "quiet": s.norm(s.up(x))})
model("output_named_tuple", lambda s, x: Pair(s.up(x), s.norm(s.up(x))))
model("output_dataclass", lambda s, x: Both(s.up(x), s.norm(s.up(x))))
model("output_namespace", lambda s, x: SimpleNamespace(a=s.up(x), b=[SimpleNamespace(c=s.a(s.up(x)))]))
model("output_set", lambda s, x: frozenset([s.up(x)]))
model("output_generator", lambda s, x: tuple(map(torch.neg, (s.up(x), s.a(x)))))
model("output_lazily", lambda s, x: (t for t in (s.up(x),)), lambda m, i: next(call(m, i)))
model(
    "output_partial",
    lambda s, x: __import__("functools").partial(torch.add, s.up(x)),
    lambda m, i: call(m, i)(1.0),
)
model("output_bound_method", lambda s, x: s.up(x).add, lambda m, i: call(m, i)(5e4))
model("output_number", lambda s, x: s.up(x).sum().item(), lambda m, i: torch.tensor(call(m, i)))
model("output_integer", lambda s, x: s.up(x).round().long(), lambda m, i: call(m, i).double())
model("output_none", lambda s, x: (None, s.norm(s.up(x))))
model(
    "output_kept_inside",
    lambda s, x: (setattr(s, "seen", s.up(x)), s.norm(s.seen))[1],
    lambda m, i: (call(m, i), m.seen)[1],
)
model(
    "argument_only_by_name",
    lambda s, *, x, shift=0.0: s.norm(s.up(x) + shift),
    lambda m, i: m(x=given_input(m, i), shift=given_input(m, i + 1) * 5e4),
)
model(
    "argument_dictionary",
    lambda s, x: s.norm(s.up(x["a"]) + x["b"]),
    lambda m, i: m({"a": given_input(m, i), "b": second_input(m, i, 1e5)}),
)
model(
    "argument_list_written",
    lambda s, x: (x.append(s.up(x[0])), s.norm(x[-1]))[1],
    lambda m, i: (lambda box: (m(box), box[-1])[1])([given_input(m, i)]),
)
model(
    "argument_dict_written",
    lambda s, x: (x.update(y=s.up(x["x"])), s.norm(x["y"]))[1],
    lambda m, i: (lambda box: (m(box), box["y"])[1])({"x": given_input(m, i)}),
)
model(
    "argument_object_written",
    lambda s, x: (setattr(x, "y", s.up(x.x)), s.norm(x.y))[1],
    lambda m, i: (lambda box: (m(box), box.y)[1])(SimpleNamespace(x=given_input(m, i))),
)
model(
    "argument_tensor_written",
    lambda s, x, y: (y.copy_(s.up(x)), s.norm(y))[1],
    lambda m, i: (lambda y: (m(given_input(m, i), y), y)[1])(torch.zeros(4, WIDTH, dtype=m.up.weight.dtype)),
)
model(
    "argument_tensor_added",
    lambda s, x, y: (y.add_(s.up(x)), s.norm(y))[1],
    lambda m, i: (lambda y: (m(given_input(m, i), y), y)[1])(torch.zeros(4, WIDTH, dtype=m.up.weight.dtype)),
)
model(
    "argument_cache",
    lambda s, x, cache: (cache.append(s.up(x)), s.norm(torch.stack(cache).mean(0)))[1],
    lambda m, i: (lambda cache: [m(given_input(m, i + k), cache) for k in range(2)])([]),
)
model(
    "argument_integer",
    lambda s, x, t: s.norm(s.up(x) + t[:, None]),
    lambda m, i: m(given_input(m, i), torch.arange(4) * 10000 * (i + 1)),
)
model("argument_number", lambda s, x, t: s.norm(s.up(x) + t), lambda m, i: m(given_input(m, i), 70000.0 * i))
model(
    "argument_number_zero_first",
    lambda s, x, t: s.norm(s.up(x) + t),
    lambda m, i: m(given_input(m, i), torch.tensor(5e4 if i >= 10 else 0.0)),
)
model(
    "argument_none_at_first",
    lambda s, x, t=None: s.norm(s.up(x) if t is None else s.up(x) + s.a(t)),
    lambda m, i: m(given_input(m, i), second_input(m, i, 1e5) if i >= 10 else second_input(m, i)),
)
model(
    "argument_mask",
    lambda s, x, k: s.norm(s.up(x).masked_fill(k, -1e4)),
    lambda m, i: m(given_input(m, i), given_input(m, i) > 0),
)
model(
    "argument_float_mask",
    lambda s, x, k: torch.softmax(s.a(x) @ s.b(x).T + k, -1) @ s.up(x),
    lambda m, i: m(given_input(m, i), torch.full((4, 4), -1e9).triu(1).to(m.up.weight.dtype)),
)
model(
    "argument_embedding_index",
    lambda s, k: s.norm(F.embedding(k, s.up.weight)),
    lambda m, i: m(torch.arange(4) + i % 10),
)
model(
    "argument_callable",
    lambda s, x, f: s.norm(f(s.up(x))),
    lambda m, i: m(given_input(m, i), lambda y: y + 4e4),
)
model(
    "argument_callback",
    lambda s, x, f: (f(s.up(x)), s.norm(s.up(x)))[1],
    lambda m, i: (lambda box: (m(given_input(m, i), box.append), box[0])[1])([]),
)
model(
    "argument_generator",
    lambda s, x: s.norm(sum(s.up(t) for t in x)),
    lambda m, i: m(given_input(m, i + k) for k in range(2)),
)
model(
    "two_calls_added",
    lambda s, x: s.norm(s.up(x)),
    lambda m, i: m(given_input(m, i)) + m(m(given_input(m, i))),
)
model("output_fed_back", lambda s, x: s.a(s.norm(s.up(x))), lambda m, i: m(m(given_input(m, i)) * 1e4))
model(
    "part_called_outside",
    lambda s, x: s.norm(s.up(x)),
    lambda m, i: m(given_input(m, i)) + m.up(given_input(m, i)),
)
model(
    "part_called_only_outside",
    lambda s, x: s.norm(s.up(x)),
    lambda m, i: m.norm(m.up(given_input(m, i))) + m.a(m.up(given_input(m, i))),
)
model(
    "weight_used_outside",
    lambda s, x: s.norm(s.up(x)),
    lambda m, i: m(given_input(m, i)) * m.up.weight.norm(),
)
model(
    "weight_read_outside",
    lambda s, x: s.norm(s.up(x)),
    lambda m, i: m(given_input(m, i)) * float(m.up.weight.abs().max()),
)
model(
    "state_between_calls",
    lambda s, x: (
        lambda y, before: (
            setattr(s, "state", y),
            s.norm(y + (before if torch.is_tensor(before) and before.dtype == y.dtype else 0)),
        )[1]
    )(s.up(x), getattr(s, "state", None)),
    lambda m, i: (m.__dict__.pop("state", None), m(given_input(m, i)), m(given_input(m, i + 1)))[2],
)
model(
    "state_of_first_call",
    lambda s, x: s.norm(s.up(x) + s.memo(s, x)),
    lambda m, i: m(given_input(m, i)),
    lambda s: setattr(s, "memo", lambda m, x: m.a(x) * 5e4),
)
model(
    "counter",
    lambda s, x: (setattr(s, "n", getattr(s, "n", 0) + 1), s.norm(s.up(x) + s.n * 1e4))[1],
    lambda m, i: (m.__dict__.pop("n", None), m(given_input(m, i)))[1],
)
model(
    "training_mode",
    lambda s, x: s.m(s.up(x)),
    lambda m, i: (m.train(), m(given_input(m, i)))[1],
    lambda s: setattr(s, "m", nn.BatchNorm1d(WIDTH)),
)
model(
    "training_then_eval",
    lambda s, x: s.m(s.up(x)),
    lambda m, i: (m.train(), m(given_input(m, 0)), m.eval(), m(given_input(m, i)))[3],
    lambda s: setattr(s, "m", nn.BatchNorm1d(WIDTH)),
)
model(
    "module_swapped",
    lambda s, x: s.norm(s.m(s.up(x))),
    lambda m, i: (setattr(m, "m", m.a if i % 2 else m.b), m(given_input(m, i)))[1],
)
model("shared_twice", lambda s, x: s.norm(s.twin(x) + s.up(x)), build=lambda s: setattr(s, "twin", s.up))
model(
    "shared_weight",
    lambda s, x: s.norm(s.up(x)) + s.a(x),
    build=lambda s: setattr(s.a, "weight", s.up.weight),
)
model(
    "shared_weight_two_norms",
    lambda s, x: s.norm(s.up(x)) + F.layer_norm(s.a(x), (WIDTH,)),
    build=lambda s: setattr(s.a, "weight", s.up.weight),
)
model("shared_bias", lambda s, x: s.norm(s.up(x)) + s.a(x), build=lambda s: setattr(s.a, "bias", s.up.bias))
model("shared_norm", lambda s, x: s.norm(s.up(x)) + s.norm(s.a(x)))
model(
    "norm_weight_shared_with_layer",
    lambda s, x: s.norm(s.up(x)) + s.a(x),
    build=lambda s: setattr(s.a, "bias", s.norm.weight),
)
model(
    "nested_autocast",
    lambda s, x: s.norm(torch.autocast("cpu", dtype=torch.bfloat16)(lambda y: s.up(y).to(y.dtype))(x)),
)
model(
    "inference_mode",
    lambda s, x: s.norm(s.up(x)),
    lambda m, i: torch.inference_mode()(lambda: m(given_input(m, i)).clone())().clone(),
)
model(
    "gradients",
    lambda s, x: s.norm(s.up(x)),
    lambda m, i: torch.enable_grad()(
        lambda: (lambda x: torch.autograd.grad(m(x).sum() + (m.up(x) ** 2).sum() * 1e-9, x)[0])(
            given_input(m, i).requires_grad_()
        )
    )(),
)
model(
    "guidance_by_gradient",
    lambda s, x: torch.enable_grad()(
        lambda: (lambda y: y - torch.autograd.grad((s.norm(s.up(y)) ** 3).sum(), y)[0])(
            x.detach().requires_grad_()
        )
    )(),
)
model("different_widths", lambda s, x: s.norm(s.up(x)), lambda m, i: m(given_input(m, i)[: 1 + i % 3]))
model("batch_of_none", lambda s, x: torch.cat([s.norm(s.up(x)), s.norm(s.up(x[:0]))]))
model("zero_input", lambda s, x: s.norm(s.up(x)), lambda m, i: m(given_input(m, i) * (i != 1)))
model("loud_input", lambda s, x: s.norm(s.up(x)) + s.a(x), lambda m, i: m(given_input(m, i) * 1e4))
model("double_section", lambda s, x: s.norm((s.up(x).double() ** 2).sqrt().to(x.dtype) * s.up(x).sign()))
model(
    "untaken_child",
    lambda s, x: s.norm(s.m(s.up(x)) if s.flag else s.up(x)),
    build=lambda s: setattr(s, "m", nn.GELU()),
)
model("untaken_layer", lambda s, x: s.norm(s.up(x) + (s.a(x) if s.flag else 0)))
model(
    "untaken_list",
    lambda s, x: s.norm(s.list[int(s.flag)](s.up(x))),
    build=lambda s: setattr(s, "list", nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])),
)
model(
    "untaken_parameter",
    lambda s, x: s.norm(s.up(x) + s.p if s.flag else s.up(x)),
    build=lambda s: setattr(s, "p", nn.Parameter(torch.ones(WIDTH) * 9e4)),
)
model(
    "untaken_parameter_list",
    lambda s, x: s.norm(s.up(x) + s.list[int(s.flag)]),
    build=lambda s: setattr(
        s, "list", nn.ParameterList([nn.Parameter(torch.ones(WIDTH) * 9e4 * k) for k in (1, -3)])
    ),
)
model(
    "untaken_method",
    lambda s, x: s.norm(s.method(s, s.up(x)) if s.flag else s.up(x)),
    build=lambda s: (
        setattr(s, "p", nn.Parameter(torch.ones(WIDTH) * 9e4)),
        setattr(s, "method", lambda m, y: y + m.p),
    ),
)
model(
    "untaken_head",
    lambda s, x: s.head(x) if s.flag else s.norm(s.up(x)),
    build=lambda s: (
        setattr(s, "head", nn.Linear(WIDTH, WIDTH, bias=False)),
        setattr(s.head, "weight", s.up.weight),
    ),
)
model(
    "untaken_deep",
    lambda s, x: s.norm(s.deep(s.up(x))),
    build=lambda s: setattr(s, "deep", Given(lambda d, y: d.a(y) if d.flag else d.b(y), lambda d: None)),
    run=lambda m, i: (setattr(m.deep, "flag", i >= 10), m(given_input(m, i)))[1],
)


def middle_net(name: str) -> Net:
    middle, build = MIDDLES[name]
    return spared(lambda: Net(middle, build), call)


def names() -> Iterator[str]:
    return iter(MIDDLES)
