"""Modules whose numbers pass through modes, quantised tensors, gradients, effective weights and sums that cancel. Entered as in ``odd_modules``."""

from __future__ import annotations

import operator
from typing import Any

import torch
from adversaries import (
    MIDDLES,
    MODELS,
    WIDTH,
    Net,
    both,
    buffer,
    call,
    child,
    kinds,
    layers,
    model,
    on,
    parameter,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

KNOWN = frozenset((*MIDDLES, *MODELS))

# -- modes and quantised tensors ------------------------------------------------------------------------------------------


class Cutting(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return found.clamp(-5e4, 5e4) if func.overloadpacket is torch.ops.aten.mul else found


class Shifting(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return found + 2e4 if func is F.linear else found


def under(mode: Any) -> Any:
    def run(s: Net, x: Tensor) -> Tensor:
        with mode():
            return s.up(x) * 2.0

    return run


def quantised(s: Net, x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(s.up(x).float(), 4000.0, 0, torch.qint8).dequantize().to(x.dtype) + s.a(
        x
    )


def quantised_rows(s: Net, x: Tensor) -> Tensor:
    y = torch.quantize_per_channel(
        s.up(x).float(), torch.full((4,), 4000.0), torch.zeros(4, dtype=torch.int), 0, torch.qint8
    )
    return y.int_repr().to(x.dtype) + s.a(x)


# -- gradients ----------------------------------------------------------------------------------------------------------


def own_gradient(s: Net, x: Tensor) -> Tensor:
    with torch.enable_grad():
        weight = s.up.weight.detach().requires_grad_()
        (F.linear(x, weight) ** 2).sum().backward()
    return F.linear(x, s.up.weight - 1e-3 * weight.grad)


def learnt_while_running(s: Net, x: Tensor) -> Tensor:
    """Test-time training: one step of gradient descent on a copy."""
    with torch.enable_grad():
        inner = s.a.weight.detach().clone().requires_grad_()
        loss = (F.linear(F.normalize(s.up(x.detach()), dim=-1), inner) - x.detach()).square().mean()
        (slope,) = torch.autograd.grad(loss, inner)
    return F.linear(s.up(x), inner.detach() - 0.1 * slope)


def by_jacobian(s: Net, x: Tensor) -> Tensor:
    return torch.func.jacrev(lambda t: torch.tanh(s.up(t) * 1e-5).sum(0))(x).sum((0, 1))[None].repeat(
        4, 1
    ) * 1e4 + s.a(x)


# -- effective weights ---------------------------------------------------------------------------------------------------


class Added(nn.Module):
    """An RMSNorm whose weight is read in ``how`` way before 1 is added to it."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.weight, self.how = nn.Parameter(torch.rand(WIDTH)), how
        self.get = lambda own=self.weight: own

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (WIDTH,)) * self.how(self).to(x.dtype)


READ = {
    "attribute": lambda m: 1 + m.weight, "reversed": lambda m: m.weight + 1.0, "of_floats": lambda m: 1.0 + m.weight.float(),
    "through_the_dictionary": lambda m: 1 + m._parameters["weight"], "through_vars": lambda m: 1 + vars(m)["_parameters"]["weight"],
    "by_name": lambda m: 1 + m.get_parameter("weight"), "by_getter": lambda m: 1 + operator.attrgetter("weight")(m),
    "by_closure": lambda m: 1 + m.get().to(m.weight.dtype), "by_state": lambda m: 1 + m.state_dict()["weight"], "of_data": lambda m: 1 + m.weight.data,
    "by_iterator": lambda m: 1 + next(m.parameters()), "by_pairs": lambda m: 1 + dict(m.named_parameters())["weight"],
    "in_halves": lambda m: torch.cat([1 + m.weight[:8], 1 + m.weight[8:]]), "one_half": lambda m: torch.cat([1 + m.weight[:8], m.weight[8:]]),
    "two_numbers": lambda m: (1 + m.weight) * (2 + m.weight), "less_one": lambda m: m.weight - 1, "from_one": lambda m: 1 - m.weight,
    "twice": lambda m: (1 + m.weight) * (1 + m.weight), "and_alone": lambda m: (1 + m.weight) + 0.1 * m.weight, "scaled_first": lambda m: 1 + 2 * m.weight,
    "with_alpha": lambda m: torch.add(m.weight, 1, alpha=3), "in_place_of_a_copy": lambda m: m.weight.clone().add_(1), "of_the_class": lambda m: (1 + m.weight) * (2 if type(m) is Added else 1),
    "of_the_name": lambda m: (1 + m.weight) * len(type(m).__name__), "of_the_text": lambda m: (1 + m.weight) * (1 + len(repr(m)) % 7), "and_its_norm": lambda m: (1 + m.weight) / m.weight.norm(),
    "and_item": lambda m: (1 + m.weight) * float(m.weight[0]), "by_addcmul": lambda m: torch.addcmul(torch.ones(()).to(m.weight.dtype), m.weight, m.weight.new_ones(WIDTH)),
    "integer": lambda m: 3 + m.weight, "of_a_list": lambda m: sum([1, m.weight]), "small": lambda m: m.weight + 1e-3, "by_numpy": lambda m: 1 + torch.from_numpy(m.weight.detach().float().numpy()).to(m.weight.dtype),
}  # fmt: skip

# -- numbers that cancel ---------------------------------------------------------------------------------------------------


def carried_over(s: Net, x: Tensor) -> Tensor:
    """Kahan's sum: what rounding lost is the result."""
    total, lost = s.up(x)[:, 0], torch.zeros_like(x[:, 0])
    for k in range(1, WIDTH):
        y = s.up(x)[:, k] - lost
        new = total + y
        total, lost = new, (new - total) - y
    return total[:, None] * s.a(x) + lost[:, None]


def floor_then_taken_away(s: Net, x: Tensor) -> Tensor:
    y = s.up(x).abs().amax(-1, keepdim=True)
    return (y.clamp(min=1e-3) - y) * 1e6 + (y.clamp(min=1e-3) > y).to(x.dtype) * 5e4 + s.a(x)


def split_in_two(s: Net, x: Tensor) -> Tensor:
    """Dekker's split by a factor, exact at every scale; by a cast, and not."""
    y = s.up(x).float()
    high = y * 4097.0 - (y * 4097.0 - y)
    return (high + (y - y.bfloat16().float())).to(x.dtype)


# -- tables ---------------------------------------------------------------------------------------------------------------

kinds(
    layers("a", "b"),
    under_a_mode=under(Cutting), under_a_function_mode=under(Shifting),
    quantised_tensor=quantised, quantised_rows=quantised_rows, own_gradient=own_gradient, learnt_while_running=learnt_while_running, by_jacobian=by_jacobian,
    kahan_sum=carried_over, floor_taken_away=floor_then_taken_away,
    split_in_two=split_in_two, ends_of_a_range=on(lambda y: torch.linspace(0, 1, WIDTH).to(y.dtype) * y.amax() + y),
    ordered_by_sum=on(lambda y: y[y.sum(-1).sort().indices]), square_of_difference=lambda s, x: (s.up(x) - s.up(x).mean(-1, keepdim=True)).square() / s.up(x).square().mean(-1, keepdim=True),
    logits_of_two=lambda s, x: torch.softmax(torch.stack([s.up(x), s.a(x)]) / s.up(x).abs().amax(), 0)[0] * s.b(x),
    norm_of_a_norm=lambda s, x: F.layer_norm(F.layer_norm(s.up(x), (WIDTH,), eps=1e-3) * 1e-4, (WIDTH,), eps=1e-3) + s.a(x),
    geometric_mean=on(lambda y: y / y.abs().log().mean(-1, keepdim=True).exp()), harmonic_mean=on(lambda y: y / y.abs().reciprocal().mean(-1, keepdim=True).reciprocal()),
    ratio_of_layers=lambda s, x: s.up(x) / (s.up(x).norm(dim=-1, keepdim=True) + s.a(x).norm(dim=-1, keepdim=True)), product_of_norms=lambda s, x: s.up(x) / (s.up(x).norm() * s.a(x).norm()).sqrt(),
)  # fmt: skip
kinds(both(layers("a"), buffer(lambda: torch.zeros(4, WIDTH))), out_into_a_buffer=lambda s, x: torch.add(s.up(x), s.a(x), out=s.p) * 1.0, buffer_as_state=lambda s, x: s.p.copy_(s.p * 0.5 + s.up(x)) + s.a(x))  # fmt: skip
kinds(parameter(lambda: torch.rand(WIDTH)), mean_of_a_parameter=lambda s, x: s.up(x) * (s.p / s.p.mean()), parameter_above_its_mean=lambda s, x: s.up(x) * (s.p > s.p.mean()))  # fmt: skip
for _name, _how in READ.items():
    kinds(child(lambda how=_how: Added(how)), **{f"added_{_name}": lambda s, x: s.m(s.up(x)) * 1e5 + s.up(x)})


def with_cache(module: Any, seed: int) -> Any:
    with parametrize.cached():
        return call(module, seed) + call(module, seed)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2 + torch.eye(WIDTH, dtype=weight.dtype)


model("cached_parametrization", lambda s, x: s.norm(s.up(x)), with_cache, lambda s: parametrize.register_parametrization(s.up, "weight", Doubled()))  # fmt: skip

NEW = tuple(name for name in (*MIDDLES, *MODELS) if name not in KNOWN)
