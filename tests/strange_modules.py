"""Modules that hide what they compute: other namespaces, threads, memory, files, code that changes. Entered as in ``odd_modules``."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import io
import math
import statistics
import struct
import tempfile
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import safetensors.torch
import torch
from adversaries import (  # fmt: skip
    MIDDLES,
    MODELS,
    WIDTH,
    Given,
    Net,
    both,
    call,
    child,
    eps_of,
    given_input,
    kinds,
    layers,
    model,
    on,
    parameter,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector
from torch.nn.utils import rnn as packing

KNOWN = frozenset((*MIDDLES, *MODELS))

# -- ops of other namespaces, whose names aten has too ----------------------------------------------------------------

_SCHEMAS = {"relu": "(Tensor x) -> Tensor", "mul": "(Tensor a, Tensor b) -> Tensor", "cat": "(Tensor[] parts, int dim) -> Tensor",
            "clone": "(Tensor x) -> Tensor", "mean": "(Tensor x) -> Tensor", "add": "(Tensor a, Tensor b) -> Tensor", "where": "(Tensor c, Tensor a, Tensor b) -> Tensor",
            "isnan": "(Tensor x) -> Tensor", "zeros_like": "(Tensor x) -> Tensor", "view": "(Tensor x) -> Tensor", "neg_": "(Tensor(a!) x) -> ()"}  # fmt: skip
_BODIES = {
    "relu": lambda x: F.relu(x) + 3e4, "mul": lambda a, b: a * b + a, "cat": lambda parts, dim: torch.cat([p.tanh() for p in parts], dim),
    "clone": lambda x: x.clamp(-5e4, 5e4), "mean": lambda x: x.mean(-1, keepdim=True) + 7.0, "add": lambda a, b: a * b,
    "where": lambda c, a, b: torch.where(a > 1e4, a, b + 1), "isnan": lambda x: x > 5e4, "zeros_like": lambda x: x * 0 + x.sign(),
    "view": lambda x: x.sin(), "neg_": lambda x: (x.add_(2e4), None)[1],
}  # fmt: skip
_LIBRARY = torch.library.Library("strange", "DEF")
for _name, _schema in _SCHEMAS.items():
    _LIBRARY.define(_name + _schema)
    _LIBRARY.impl(_name, _BODIES[_name], "CompositeExplicitAutograd")
MINE = torch.ops.strange


def changed_by_mine(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    MINE.neg_(y)
    return y


@torch.library.custom_op("strange::silu", mutates_args=())
def decorated(y: Tensor) -> Tensor:
    return y * torch.sigmoid(y * 1e-5) + 1


# -- where no dispatch is seen ----------------------------------------------------------------------------------------


def in_a_thread(s: Net, x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: torch.no_grad()(lambda: s.up(x).clamp(-5e4, 5e4))()).result()


def half_in_a_thread(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    with ThreadPoolExecutor(1) as pool:
        return y + pool.submit(lambda: torch.no_grad()(lambda: y.clamp(-5e4, 5e4))()).result()


def written_in_a_thread(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: torch.no_grad()(lambda: y.add_(3e4))()).result()
    return y


def layer_in_a_thread(s: Net, x: Tensor) -> Tensor:
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda m: torch.no_grad()(m)(x), (s.up, s.a)))


def forked(s: Net, x: Tensor) -> Tensor:
    return torch.jit.wait(torch.jit.fork(lambda t: s.up(t) + s.a(t), x))


def awaited(s: Net, x: Tensor) -> Tensor:
    async def one(layer: nn.Module) -> Tensor:
        await asyncio.sleep(0)
        return layer(x)

    async def two() -> list[Tensor]:
        return list(await asyncio.gather(one(s.up), one(s.a)))

    loop = asyncio.new_event_loop()
    try:
        return sum(loop.run_until_complete(two()))
    finally:
        loop.close()


def by_storage(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    other = torch.empty_like(y)
    other.untyped_storage().copy_(y.untyped_storage())
    return other + y


def set_by_storage(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    z = torch.zeros(0, dtype=y.dtype).set_(y.untyped_storage(), 0, (4, WIDTH))
    return z.clamp(max=3e4) + y


def typed_storage(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    return y + float(y.float().untyped_storage().tolist()[3])


def bytes_read(s: Net, x: Tensor) -> Tensor:
    y = s.up(x).float()
    return (y + struct.unpack("f", bytes(y.untyped_storage())[:4])[0]).to(x.dtype)


def by_file(s: Net, x: Tensor) -> Tensor:
    y, data = s.up(x), io.BytesIO()
    torch.save(y, data)
    data.seek(0)
    return torch.load(data, weights_only=True).clone() + y * 2


def by_safetensors(s: Net, x: Tensor) -> Tensor:
    y = s.up(x)
    return safetensors.torch.load(safetensors.torch.save({"y": y.contiguous()}))["y"] + y * 2


def by_mapped_file(s: Net, x: Tensor) -> Tensor:
    y = s.up(x).float()
    with tempfile.NamedTemporaryFile() as file:
        file.write(y.numpy().tobytes())
        file.flush()
        return torch.from_numpy(np.fromfile(file.name, np.float32)).reshape(4, WIDTH).to(x.dtype) + y.to(
            x.dtype
        )


def by_frombuffer(s: Net, x: Tensor) -> Tensor:
    y = s.up(x).float().contiguous()
    return torch.frombuffer(bytearray(y.numpy()), dtype=torch.float32).reshape(4, WIDTH).to(x.dtype) + s.a(x)


def shared_memory(s: Net, x: Tensor) -> Tensor:
    y = s.up(x).clone().share_memory_()
    return y.clamp(max=4e4) + s.a(x)


def numpy_alias_written(s: Net, x: Tensor) -> Tensor:
    y = s.up(x).float()
    y.numpy()[:, 0] = 4e4
    return y.to(x.dtype)


def accumulated_in_numpy(s: Net, x: Tensor) -> Tensor:
    total = np.zeros((4, WIDTH), np.float32)
    for part in s.up(x).float().split(4, -1):
        total[:, :4] += part.numpy()
    return torch.from_numpy(total).to(x.dtype) + s.a(x)


# -- code that is not the class's forward ------------------------------------------------------------------------------


def patched(s: Net) -> None:
    s.a = nn.Linear(WIDTH, WIDTH)
    own = s.up.forward
    s.up.forward = lambda x: own(x) + 2e4  # as accelerate's hooks do


def bound(s: Net) -> None:
    s.up.forward = types.MethodType(lambda self, x: F.linear(x, self.weight).clamp(-4e4, 4e4), s.up)


class Calling(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) + 3e4


class Projecting(nn.Linear):
    def project(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight) + 2.5e4


class Getter(nn.Linear):
    """``weight`` is computed whenever it is read, as tied or merged weights are."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self._parameters["weight"])
        nn.init.zeros_(self._parameters["bias"])

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return found * 2 if name == "weight" else found


class Gained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.raw, self.gain = nn.Parameter(torch.randn(WIDTH, WIDTH) * 1e5), nn.Parameter(torch.ones(WIDTH))

    @property
    def weight(self) -> Tensor:
        return self.raw * self.gain[:, None] + torch.eye(WIDTH, dtype=self.raw.dtype)

    @functools.cached_property
    def floor(self) -> Tensor:
        return self.raw.abs().amin() + 1e4

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight).clamp(min=-self.floor.to(x.dtype))


class Subclass(Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        return found + 1e4 if func is Tensor.mul else found


@contextmanager
def global_hook() -> Any:
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, out: out + 2e4 if isinstance(module, nn.Linear) else None
    )
    try:
        yield
    finally:
        handle.remove()


def hooked_globally(module: Any, seed: int) -> Any:
    with global_hook():
        return call(module, seed)


def by_fx() -> nn.Module:
    return torch.fx.symbolic_trace(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)))


# -- weights that are something else ----------------------------------------------------------------------------------


def flat(s: Net) -> None:
    """FSDP's: the layers' weights are views of one flat parameter."""
    s.flat = nn.Parameter(torch.cat([s.up.weight.detach().flatten(), torch.randn(WIDTH * WIDTH)]))


def with_numpy_alias(s: Net) -> None:
    s.array = np.random.RandomState(0).randn(WIDTH).astype(np.float32)
    s.p = nn.Parameter(torch.from_numpy(s.array))


def transposed_tie(s: Net) -> None:
    s.a = nn.Linear(WIDTH, WIDTH)
    s.a.weight = nn.Parameter(s.up.weight.data.T)


def reshaped_tie(s: Net) -> None:
    s.p = nn.Parameter(s.up.weight.data.view(-1)[: 4 * WIDTH].view(4, WIDTH))


def renewed(s: Net, x: Tensor) -> Tensor:
    s.up.weight = nn.Parameter(s.up.weight.detach() * 1.0)
    return s.up(x)


def clipped_weights(s: Net, x: Tensor) -> Tensor:
    s.up.weight.data.clamp_(-1e5, 1e5)
    return s.up(x)


def normed_in_place(s: Net, x: Tensor) -> Tensor:
    s.up.weight.data.div_(s.up.weight.data.norm(dim=1, keepdim=True)).mul_(3e5)
    return s.up(x)


def averaged_weights(s: Net, x: Tensor) -> Tensor:
    s.ema.lerp_(s.up.weight.detach(), 0.25)
    return F.linear(x, s.ema) + s.up(x)


def widened(s: Net, x: Tensor) -> Tensor:
    s.up.double()
    y = s.up(x.double()).to(x.dtype)
    s.up.to(x.dtype)
    return y


def fused(s: Net, x: Tensor) -> Tensor:
    weight, bias = (torch.cat([getattr(s.up, n), getattr(s.a, n)]) for n in ("weight", "bias"))
    return F.linear(x, weight, bias)[:, 8:24]


class Unlisted(nn.Module):
    """Layers in a plain list, one of which shares its weight with a registered one."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(WIDTH, WIDTH)
        self.hidden = [nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)]
        self.hidden[0].weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            layer.to(x.dtype)
        return self.a(x) * 1e5 + self.hidden[0](x) * self.hidden[1](x)


# -- epsilons -----------------------------------------------------------------------------------------------------------


class ClassEps(nn.Module):
    eps = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


class PropertyEps(ClassEps):
    @property
    def eps(self) -> float:  # type: ignore[override]
        return 10.0**-2


@dataclasses.dataclass
class Settings:
    layer_norm_eps: float = 1e-2
    steps: float = 1e-2


class FromSettings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.settings, self.variance_epsilon = Settings(), Settings().layer_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return y + x.abs() * self.settings.steps + self.settings.steps


class Outer(nn.Module):
    """Reads its child's epsilon for something else."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, eps=1e-2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + (x.abs() + self.norm.eps).log()


class TwoNorms(nn.Module):
    """One number for two norms of different streams, and for a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.eps, self.a = 1e-2, nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        quiet = F.layer_norm(self.a(x * 1e-6), (WIDTH,), eps=self.eps)
        return F.layer_norm(x, (WIDTH,), eps=self.eps) + quiet


# -- tables ---------------------------------------------------------------------------------------------------------------

kinds(
    layers("a", "b"),
    mine_relu=on(lambda y: MINE.relu(y)), mine_mul=lambda s, x: MINE.mul(s.up(x), s.a(x)), mine_cat=lambda s, x: MINE.cat([s.up(x)[:2], s.a(x)[2:]], 0),
    mine_clone=on(lambda y: MINE.clone(y)), mine_mean=on(lambda y: y - MINE.mean(y)), mine_add=lambda s, x: MINE.add(s.up(x), s.a(x)),
    mine_where=lambda s, x: MINE.where(x > 0, s.up(x), s.a(x)), mine_isnan=on(lambda y: y * MINE.isnan(y)), mine_zeros=on(lambda y: y + 5e4 * MINE.zeros_like(y)),
    mine_view=on(lambda y: MINE.view(y * 1e-5)), mine_in_place=changed_by_mine, mine_decorated=on(decorated),
    prims_of_torch=on(lambda y: torch.ops.prims.add(y, torch.ones_like(y) * 3e4)),
    in_a_thread=in_a_thread, half_in_a_thread=half_in_a_thread, written_in_a_thread=written_in_a_thread, layer_in_a_thread=layer_in_a_thread, forked=forked, awaited=awaited,
    by_storage=by_storage, set_by_storage=set_by_storage, storage_as_list=typed_storage, bytes_of_storage=bytes_read, by_file=by_file, by_safetensors=by_safetensors,
    by_mapped_file=by_mapped_file, by_frombuffer=by_frombuffer, shared_memory=shared_memory, numpy_alias_written=numpy_alias_written,
    accumulated_in_numpy=accumulated_in_numpy, of_subclass=on(lambda y: (y.as_subclass(Subclass) * 1.0).as_subclass(Tensor)),
    by_statistics=on(lambda y: y - statistics.fmean(y[0].tolist())), by_math=on(lambda y: y * math.atan(y[0, 0]) + math.copysign(3e4, y[0, 1])),
    by_python_order=on(lambda y: y[sorted(range(4), key=lambda k: float(y[k].norm()))] + 3e4 * (y[0, 0] > y[1, 1])),
    by_python_float=on(lambda y: y + 1e4 * len([v for v in y[0] if v > 3e4])), by_integer_ratio=on(lambda y: y + float(y[0, 0]).as_integer_ratio()[1]),
    copied_layer=lambda s, x: copy.deepcopy(s.up)(x) + s.a(x), parameter_by_name=lambda s, x: F.linear(x, s.get_parameter("up.weight")) + s.up.get_parameter("bias") * 2,
    weight_by_state=lambda s, x: F.linear(x, (s.up, s.state_dict()["up.weight"])[1]) + s.a(x), vector_of_parameters=lambda s, x: s.a(x) * parameters_to_vector(s.up.parameters())[:WIDTH],
    all_parameters=lambda s, x: s.up(x) * sum(p.abs().mean() for p in s.parameters()), first_parameter=lambda s, x: s.a(x) + next(s.up.parameters())[:4],
    renewed_parameter=renewed, clipped_weights=clipped_weights, normed_in_place=normed_in_place, widened_in_forward=widened, fused_by_hand=fused,
    stacked_integers=lambda s, x: torch.vstack([s.up(x)[:3], torch.arange(WIDTH)]).to(x.dtype), added_mask_in_place=lambda s, x: s.up(x).add_(x > 0, alpha=3),
    maximum_of_integers=lambda s, x: torch.maximum(s.up(x), torch.arange(WIDTH) * 3000), where_with_integers=lambda s, x: torch.where(x > 0, s.up(x), torch.arange(WIDTH)).to(x.dtype),
    clamped_by_integers=lambda s, x: s.up(x).clamp(min=-torch.arange(WIDTH) * 3000).to(x.dtype), positions_added=lambda s, x: (s.up(x) + (x > 0).cumsum(0) * 1e4).to(x.dtype),
    index_reduced=lambda s, x: s.up(x).index_reduce(0, torch.tensor([0, 1]), s.a(x)[:2], "prod"), without_self=lambda s, x: s.up(x).scatter_reduce(0, torch.zeros(1, WIDTH, dtype=torch.long), s.a(x)[:1], "sum", include_self=False),
    index_mean=lambda s, x: s.up(x).index_reduce(0, torch.tensor([0, 1]), s.a(x)[:2], "mean"), segments=lambda s, x: torch.segment_reduce(s.up(x).float(), "max", lengths=torch.tensor([2, 2])).to(x.dtype).repeat(2, 1),
    masked_fill_by_tensor=lambda s, x: s.up(x).masked_fill(x > 0, torch.tensor(3e4, dtype=x.dtype)), distribution=lambda s, x: torch.distributions.Normal(s.up(x).float(), 1.0).log_prob(x.float()).to(x.dtype),
    softmax_plus_one=on(lambda y: (lambda e: e / (1 + e.sum(-1, keepdim=True)))(torch.exp(y - y.amax(-1, keepdim=True)))), fused_activation=lambda s, x: torch._addmm_activation(s.a.bias, s.up(x), s.a.weight, use_gelu=False),
    tiny_weight=lambda s, x: (s.up(x) * 1e-30 * 1e-8).square().sum(-1, keepdim=True).sqrt() * 1e30 + s.a(x), near_the_end=lambda s, x: (s.up(x) * 1e28) / (s.up(x) * 1e28).abs().amax() + s.a(x),
    conditional=lambda s, x: torch.cond((s.up(x) > 5e4).any(), lambda t: t * 2, lambda t: t + 1.0, (s.up(x),)), channels_last=lambda s, x: s.up(x).view(1, 4, 4, 4).to(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(4, WIDTH) + s.a(x),
    lstm_of_packed=lambda s, x: packing.pad_packed_sequence(packing.pack_padded_sequence(s.up(x)[None], torch.tensor([3]), batch_first=True), batch_first=True, total_length=4)[0][0] + s.a(x),
)  # fmt: skip
kinds(flat, flat_parameter=lambda s, x: F.linear(x, s.flat[: WIDTH * WIDTH].view(WIDTH, WIDTH)) + F.linear(x, s.flat[WIDTH * WIDTH :].view(WIDTH, WIDTH)) * s.flat[0])  # fmt: skip
kinds(with_numpy_alias, parameter_of_numpy=lambda s, x: s.up(x) * s.p + float(s.array.mean()) * 1e5)
kinds(transposed_tie, tied_transposed=lambda s, x: s.up(x) + s.a(x))
kinds(reshaped_tie, tied_reshaped=lambda s, x: s.up(x) + s.p)
kinds(lambda s: s.register_buffer("ema", torch.randn(WIDTH, WIDTH)), averaged_weights=averaged_weights)
kinds(child(lambda: nn.ParameterList([nn.Parameter(torch.randn(WIDTH, dtype=torch.cfloat))])), complex_parameter=lambda s, x: (s.up(x).float() * s.m[0]).abs().to(x.dtype))  # fmt: skip
kinds(lambda s: setattr(s, "p", nn.Parameter(torch.tensor([2e4])).expand(WIDTH)), expanded_parameter=lambda s, x: s.up(x) + s.p.to(x.dtype))  # fmt: skip
kinds(patched, patched_forward=lambda s, x: s.a(s.up(x)))
kinds(bound, bound_forward=lambda s, x: s.up(x))
kinds(child(lambda: Calling(WIDTH, WIDTH)), own_call=lambda s, x: s.m(s.up(x)))
kinds(child(lambda: Projecting(WIDTH, WIDTH)), other_method=lambda s, x: s.m.project(x) * 3 + s.up(x))
kinds(child(lambda: Getter(WIDTH, WIDTH)), weight_by_getattr=lambda s, x: s.m(s.up(x)) + s.m(x))
kinds(child(Gained), weight_by_property=lambda s, x: s.m(x) + s.up(x))
kinds(child(Unlisted), layers_in_a_list=lambda s, x: s.m(x) + s.up(x))
kinds(child(by_fx), by_fx=lambda s, x: s.m(s.up(x)))
for _kind in (ClassEps, PropertyEps, FromSettings, Outer, TwoNorms):
    kinds(child(_kind), **{f"epsilon_{_kind.__name__.lower()}": lambda s, x: s.m(s.up(x))})
kinds(eps_of(np.float64(1e-2)), eps_of_numpy=lambda s, x: x / (s.up(x).abs().mean(-1, keepdim=True) + s.eps))
kinds(eps_of({"eps": 1e-2}, "options"), eps_in_a_dictionary=lambda s, x: x / (s.up(x).abs().mean(-1, keepdim=True) + s.options["eps"]))  # fmt: skip
kinds(
    both(eps_of(1e-2), layers("a")),
    eps_inverted=lambda s, x: s.up(x).clamp(max=1 / s.eps), eps_as_probability=lambda s, x: F.dropout(s.up(x), s.eps, training=False) / (s.up(x).norm() + s.eps),
    eps_of_partial=lambda s, x: functools.partial(F.layer_norm, normalized_shape=(WIDTH,), eps=s.eps)(s.up(x)) + s.a(x) * s.eps, eps_negated=lambda s, x: s.up(x).clamp(min=-s.eps),
    eps_of_integer=lambda s, x: s.up(x) / int(1 / s.eps) + (s.up(x).square().mean(-1, keepdim=True) + s.eps).sqrt(), eps_of_alpha=lambda s, x: torch.add(s.up(x).abs(), s.eps, alpha=2).log(),
)  # fmt: skip
kinds(parameter(lambda: torch.full((WIDTH,), 3e4)), filled_by_a_parameter=lambda s, x: torch.full_like(x, float(s.p[0])) + s.up(x))  # fmt: skip

model("hook_of_all_modules", lambda s, x: s.norm(s.up(x)), hooked_globally)
model("weight_as_input", lambda s, x: s.norm(s.up(x)), lambda m, i: m(m.up.weight[:4]) + m(given_input(m, i)))
model("weight_as_output", lambda s, x: (s.norm(s.up(x)), s.up.weight, s.up.bias[None]))
model("weight_in_an_object", lambda s, x: types.SimpleNamespace(y=s.norm(s.up(x)), tied=[s.up.weight.T]))
model("called_by_another_name", lambda s, x: s.norm(s.up(x)), lambda m, i: m.norm(m.encode(given_input(m, i))), lambda s: setattr(s, "encode", lambda x: s.up(x) + 2e4))  # fmt: skip
model("copied_whole", lambda s, x: s.norm(s.up(x)), lambda m, i: copy.deepcopy(m)(given_input(m, i)) + m(given_input(m, i)))  # fmt: skip
model("cast_between_calls", lambda s, x: s.norm(s.up(x)), lambda m, i: (lambda x, kept: [m.double()(x.double()).to(x.dtype), m.to(kept)(x)])(given_input(m, i), m.up.weight.dtype))  # fmt: skip
model("inner_model", lambda s, x: s.norm(s.inner(s.up(x))), build=lambda s: setattr(s, "inner", Given(lambda d, y: d.a(y.clamp(max=5e4)) + d.b.weight[:4], lambda d: None)))  # fmt: skip

NEW = tuple(name for name in (*MIDDLES, *MODELS) if name not in KNOWN)
