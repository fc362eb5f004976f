"""Exact, or not folded: modules of every kind that once changed their function when they were folded.

Each has a loud layer, something in the middle, a norm and a layer. It is traced in bfloat16 and folded in float32, and
must give the same numbers on inputs outside the calibration.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from adversaries import WIDTH, given_input
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from starrynight.errors import Unfit
from starrynight.numerics.fold import fold_and_cast, fold_modules
from starrynight.numerics.islands import cast_with_islands
from starrynight.numerics.measured import Trace
from starrynight.numerics.modules import tensors_in
from starrynight.numerics.solve import FoldPlan, Infeasible, solve_folds
from starrynight.numerics.trace import trace_modules

Middle = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    def __init__(
        self, middle: Middle, build: Callable[[Net], None] | None = None, idle: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm, self.out = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.middle = middle
        with torch.no_grad():
            self.up.weight *= 2.0**18
        if build is not None:
            build(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.middle(self, x)))


def call(module: Any, seed: int) -> Any:
    return module(given_input(module, seed))


def plan_of(make: Callable[[], nn.Module], run: Callable[[Any, int], Any] = call) -> FoldPlan:
    half = make().eval().bfloat16()
    return solve_folds(trace_modules(half, lambda: [run(half, seed) for seed in range(3)]))


@torch.no_grad()
def unchanged(make: Callable[[], nn.Module], run: Callable[[Any, int], Any] = call) -> FoldPlan:
    """The plan, after showing that the folded module is the same function or refuses to be folded."""
    plan, original, folded = plan_of(make, run), make().eval(), make().eval()
    reference = [torch.as_tensor(run(original, seed)).clone() for seed in range(10, 13)]
    try:
        fold_modules(folded, plan)
    except Unfit:
        return plan
    for seed, expected in zip(range(10, 13), reference, strict=True):
        error = (torch.as_tensor(run(folded, seed)) - expected).norm() / expected.norm()
        assert error <= 1e-6, f"folded by {plan.parameters} {plan.epsilons}, islands {plan.islands}"
    return plan


def whole(s: Net, x: Tensor) -> Tensor:
    return 1000 * torch.arange(len(x))[:, None].expand(len(x), WIDTH)


def mask(x: Tensor) -> Tensor:
    return torch.arange(WIDTH) < WIDTH // 2


INTEGERS: dict[str, Middle] = {
    "added": lambda s, x: s.up(x) + whole(s, x),
    "added to": lambda s, x: whole(s, x) + s.up(x),
    "subtracted": lambda s, x: s.up(x) - whole(s, x),
    "subtracted from": lambda s, x: whole(s, x) - s.up(x),
    "a number of no dimension": lambda s, x: s.up(x) + torch.tensor(70000),
    "truth values": lambda s, x: s.up(x) + 90000 * (x > 0),
    "concatenated": lambda s, x: torch.cat([s.up(x), whole(s, x)], 1)[:, 8:24],
    "stacked": lambda s, x: torch.stack([s.up(x), whole(s, x).to(x.dtype)]).sum(0),
    "where": lambda s, x: torch.where(mask(x), s.up(x), whole(s, x)),
    "compared": lambda s, x: s.up(x) * (s.up(x) > whole(s, x)),
    "maximum": lambda s, x: torch.maximum(s.up(x), whole(s, x)),
    "copied": lambda s, x: s.up(x).index_copy(1, torch.tensor([1]), whole(s, x)[:, :1].to(x.dtype)),
    "copied in place": lambda s, x: _written(s.up(x), whole(s, x)),
    "filled": lambda s, x: s.up(x).masked_fill(mask(x), torch.tensor(70000)),
    "masked scatter": lambda s, x: s.up(x).masked_scatter(mask(x), whole(s, x).to(x.dtype)),
    "in place": lambda s, x: s.up(x).add_(whole(s, x)),
    "scatter multiplies": lambda s, x: s.up(x).scatter(1, torch.zeros(4, 1, dtype=torch.long), s.up(x), reduce="multiply"),
    "scatter reduces by a product": lambda s, x: s.up(x).scatter_reduce(
        1, torch.zeros(4, 1, dtype=torch.long), s.up(x), "prod"
    ),
}  # fmt: skip


def _written(tensor: Tensor, values: Tensor) -> Tensor:
    tensor[:, :4] = values[:, :4]
    return tensor


@pytest.mark.parametrize("kind", INTEGERS)
def test_integer_operands_have_no_scale_to_follow(kind: str) -> None:
    unchanged(lambda: Net(INTEGERS[kind]))


def attribute(name: str, value: object) -> Callable[[Net], None]:
    def build(s: Net) -> None:
        s.other = nn.Linear(WIDTH, WIDTH)
        setattr(s, name, value)

    return build


@pytest.mark.parametrize(
    ("name", "value"), [("num_steps", 1), ("timesteps", 1), ("keeps_size", True), ("keeps", 1.0), ("eps", 1), ("epsilon", True)]
)  # fmt: skip
def test_only_a_float_called_an_epsilon_is_one(name: str, value: object) -> None:
    plan = unchanged(lambda: Net(lambda s, x: s.up(x) * (1 + s.other(x)), attribute(name, value)))
    assert set(plan.epsilons) <= {"norm.eps"}


def rms(y: Tensor, eps: float) -> Tensor:
    return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)


SECOND_USES: dict[str, Middle] = {
    "a floor": lambda s, x: rms(s.up(x), s.eps) + F.layer_norm(x, (WIDTH,)).clamp_min(s.eps),
    "a factor": lambda s, x: rms(s.up(x), s.eps) + x * s.eps,
    "a power": lambda s, x: rms(s.up(x), s.eps) + x.abs() ** s.eps,
    "normalize": lambda s, x: rms(s.up(x), s.eps) + F.normalize(x * 1e-3, eps=s.eps),
    "arithmetic": lambda s, x: rms(s.up(x), s.eps) + x * (s.eps * 3),
    "a tensor": lambda s, x: rms(s.up(x), s.eps) + x * torch.tensor(s.eps),
    "a filled tensor": lambda s, x: rms(s.up(x), s.eps) + x * torch.full((), s.eps),
    "beside an input": lambda s, x: rms(s.up(x), s.eps) + rms(x * 1e-3, s.eps),
    "a literal of its value": lambda s, x: rms(s.up(x), s.eps) + rms(x * 1e-3, 1e-2),
    "another of its value": lambda s, x: rms(s.up(x), s.eps) + rms(x * 1e-3, s.second_eps),
    "a multiple": lambda s, x: torch.add(s.up(x).abs(), s.eps, alpha=1e6).sqrt(),
}  # fmt: skip


@pytest.mark.parametrize("kind", SECOND_USES)
def test_an_epsilon_with_a_second_use_is_not_rescaled(kind: str) -> None:
    def build(s: Net) -> None:
        s.eps, s.second_eps = 1e-2, 1e-2

    unchanged(lambda: Net(SECOND_USES[kind], build))


def test_epsilons_are_given_back_after_a_trace() -> None:
    module = nn.LayerNorm(WIDTH)
    trace_modules(module, lambda: call(module, 0))
    assert type(module.eps) is float
    assert module.eps == 1e-5


def with_other(s: Net) -> None:
    s.flag, s.other, s.act = False, nn.Linear(WIDTH, WIDTH), nn.GELU()
    s.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))


def flagged(module: Any, seed: int) -> Any:
    module.flag = seed >= 10
    return call(module, seed)


@pytest.mark.parametrize(
    "middle",
    [
        lambda s, x: s.up(x) + (s.other(x) if s.flag else 0),
        lambda s, x: s.other(s.up(x)) * 1e-3 if s.flag else s.up(x),
        lambda s, x: s.act(s.up(x)) if s.flag else s.up(x),
        lambda s, x: s.up(x) + s.experts[2 * s.flag](x) * 1e4,
    ],
    ids=["a layer beside", "a layer behind", "an activation", "an expert"],
)
def test_a_part_that_the_calibration_left_out_sees_true_scales(middle: Middle) -> None:
    unchanged(lambda: Net(middle, with_other), flagged)


class Holder(nn.Module):
    """Its methods are no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Net(lambda s, x: s.up(x))
        self.head = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head.weight = self.inner.up.weight

    def scaled(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.inner.up.weight[0] * 2.0**-18

    def tied(self, x: Tensor) -> Tensor:
        return self.inner(x) + F.linear(x, self.inner.up.weight) * 2.0**-18

    def listed(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.inner.up.weight[0].tolist()[0] * 2.0**-18

    def headed(self, x: Tensor) -> Tensor:
        return self.head(x) if getattr(self, "flag", False) else self.inner(x)


@pytest.mark.parametrize("method", ["scaled", "tied", "listed", "headed"])
def test_a_parameter_used_outside_of_forwards_keeps_its_scale(method: str) -> None:
    def run(m: Any, seed: int) -> Any:
        m.flag = seed >= 10
        return getattr(m, method)(given_input(m, seed))

    unchanged(Holder, run)


class Giving(nn.Module):
    """Gives the loud tensor away in ``box`` and returns the rest."""

    def __init__(self, box: Callable[[Giving, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.inner = Net(lambda s, x: s.up(x))
        self.box = box

    def forward(self, x: Tensor) -> Any:
        loud = self.inner.up(x)
        return self.box(self, loud, self.inner.out(self.inner.norm(loud)))


class Slotted:
    __slots__ = ("loud", "rest")

    def __init__(self, loud: Tensor, rest: Tensor) -> None:
        self.loud, self.rest = loud, rest


def kept(s: Giving, loud: Tensor, rest: Tensor) -> Tensor:
    s.feature = loud
    return rest


BOXES: dict[str, tuple[Callable[[Giving, Tensor, Tensor], Any], Callable[[Any, Any], Tensor]]] = {
    "an object": (lambda s, a, b: SimpleNamespace(loud=a, rest=b), lambda m, out: out.loud),
    "an object with slots": (lambda s, a, b: Slotted(a, b), lambda m, out: out.loud),
    "nested objects": (lambda s, a, b: {"one": [SimpleNamespace(two=a)]}, lambda m, out: out["one"][0].two),
    "a closure": (lambda s, a, b: lambda: a, lambda m, out: out()),
    "kept on the module": (kept, lambda m, out: m.feature),
    "kept in a list": (
        lambda s, a, b: vars(s).setdefault("memo", []).append(a) or b,
        lambda m, out: m.memo[-1],
    ),
}


@pytest.mark.parametrize("kind", BOXES)
@pytest.mark.parametrize("read", [True, False], ids=["read in the calibration", "read later"])
def test_what_leaves_a_model_in_an_object_or_stays_on_it_keeps_its_scale(kind: str, read: bool) -> None:
    box, open_box = BOXES[kind]

    def run(m: Any, seed: int) -> Any:
        out = call(m, seed)
        return open_box(m, out) + 0.5 if read or seed >= 10 else out

    unchanged(lambda: Giving(box), run)


def tied_object(s: Net) -> None:
    s.tied = nn.Parameter(s.up.weight.data)


def tied_view(s: Net) -> None:
    s.register_buffer("tied", s.up.weight.data[:4])


def overlapping(s: Net) -> None:
    flat = torch.randn(WIDTH * WIDTH + 64) * 2.0**16
    s.up.weight = nn.Parameter(flat[: WIDTH * WIDTH].view(WIDTH, WIDTH))
    s.tied = nn.Parameter(flat[64:].view(WIDTH, WIDTH))


def by_numpy(s: Net) -> None:
    s.tied = nn.Parameter(torch.from_numpy(s.up.weight.detach().numpy()))


def unregistered(s: Net) -> None:
    s.tied = s.up.weight.data


STORAGES: dict[str, Callable[[Net], None]] = {
    "another object": tied_object, "a view": tied_view, "overlapping": overlapping, "numpy": by_numpy,
    "an attribute": unregistered,
}  # fmt: skip


@pytest.mark.parametrize("kind", STORAGES)
def test_one_piece_of_memory_is_folded_once_or_not_at_all(kind: str) -> None:
    def middle(s: Net, x: Tensor) -> Tensor:
        other = s.norm(F.linear(x, s.tied[:4].to(x.dtype))[:, :1].expand(4, WIDTH) + x)
        return s.up(other)

    unchanged(lambda: Net(middle, STORAGES[kind]))


@pytest.mark.parametrize("kind", STORAGES)
def test_a_plan_for_shared_memory_multiplies_every_number_once_or_is_refused(kind: str) -> None:
    module, reference = (Net(lambda s, x: s.up(x), STORAGES[kind]) for _ in range(2))
    plan = FoldPlan(parameters={"up.weight": -3, "tied": -3})
    if kind == "an attribute":
        for fold in (fold_modules, lambda m, p: fold_and_cast(m, p, torch.float16)):
            with pytest.raises(Unfit, match="one piece of memory"):
                fold(module, FoldPlan(parameters={"up.weight": -3}))
        return
    fold_modules(module, plan)
    assert torch.equal(module.up.weight, reference.up.weight / 8)
    assert torch.equal(torch.as_tensor(module.tied), torch.as_tensor(reference.tied) / 8)
    with pytest.raises(Unfit, match="one piece of memory"):
        fold_modules(module, FoldPlan(parameters={"up.weight": -3}))


BLANKS: dict[str, Middle] = {
    "zeros + number": lambda s, x: s.up(x) * (torch.zeros_like(x) + 0.01) + x,
    "zeros, number in place": lambda s, x: s.up(x) * torch.zeros_like(x).add_(0.01) + x,
    "new zeros": lambda s, x: s.up(x) * (x.new_zeros(WIDTH) + 1e-3) + x,
    "filled": lambda s, x: s.up(x) * torch.empty_like(x).fill_(0.01) + x,
    "full of zero": lambda s, x: s.up(x) * (torch.full_like(x, 0) + 0.01) + x,
    "a sum of zeros": lambda s, x: s.up(x) * (torch.zeros_like(x).sum() + 0.01) + x,
    "relu beside an epsilon": lambda s, x: (F.relu(s.up(x)) + 1e-2).sqrt(),
    "a rectified log": lambda s, x: s.up(x) / (F.relu(s.up(x)) + 1e-3),
    "a row of zeros": lambda s, x: (s.up(x) * (torch.arange(4)[:, None] > 0)).abs().add(1e-3).sqrt(),
    "an offset that is 0 at first": lambda s, x: s.up(x) + x.amax() * 0,
}  # fmt: skip


@pytest.mark.parametrize("kind", BLANKS)
def test_zeros_have_a_scale_once_a_number_is_added(kind: str) -> None:
    unchanged(lambda: Net(BLANKS[kind]))


def test_an_argument_that_is_zero_in_the_calibration_is_no_constant() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(lambda s, x: s.up(x) + s.offset)

        def forward(self, x: Tensor, offset: Tensor) -> Tensor:
            self.net.offset = offset
            return self.net(x)

    unchanged(Shifted, lambda m, seed: m(given_input(m, seed), torch.tensor(70000.0 if seed >= 10 else 0.0).to(m.net.up.weight.dtype)))  # fmt: skip


UNSEEN: dict[str, Middle] = {
    "tolist": lambda s, x: s.up(x) + x * max(s.up(x).float().flatten().tolist()),
    "numpy": lambda s, x: s.up(x) + x * float(np.max(s.up(x).float().numpy())),
    "item": lambda s, x: s.up(x) + x * s.up(x).amax().item(),
    "bits": lambda s, x: s.up(x) * (1 + (s.up(x).float().view(torch.int32) >> 23).to(x.dtype)),
    "norm of order 0": lambda s, x: s.up(x) * (1 + torch.linalg.vector_norm(s.up(x), 0)),
    "a mean square by hand": lambda s, x: torch.native_layer_norm(s.up(x), [WIDTH], None, None, 1e-5)[1] + x,
    "a norm's inverse deviation": lambda s, x: torch.native_layer_norm(s.up(x), [WIDTH], None, None, 1e-5)[2] + x,
    "a float8 cast": lambda s, x: (s.up(x) / 2.0**10).to(torch.float8_e4m3fn).to(x.dtype),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNSEEN)
def test_numbers_that_leave_without_an_op_or_by_their_bits_keep_their_scale(kind: str) -> None:
    unchanged(lambda: Net(UNSEEN[kind]))


# -- islands -----------------------------------------------------------------------------------------------------------


def append(cache: Any, x: Tensor) -> list[Tensor]:
    cache.append(x * 2)
    return list(cache)


def by_key(cache: Any, x: Tensor) -> list[Tensor]:
    cache[len(cache)] = x * 2
    return list(cache.values())


def by_attribute(cache: Any, x: Tensor) -> list[Tensor]:
    cache.all = [*getattr(cache, "all", []), x * 2]
    return cache.all


def in_tensor(cache: Any, x: Tensor) -> list[Tensor]:
    cache.add_(x * 2)
    return [cache]


def nested(cache: Any, x: Tensor) -> list[Tensor]:
    cache[0].append(x * 2)
    return list(cache[0])


CACHES: dict[str, tuple[Callable[[torch.dtype], Any], Callable[[Any, Tensor], list[Tensor]]]] = {
    "list": (lambda dtype: [], append),
    "dictionary": (lambda dtype: {}, by_key),
    "object": (lambda dtype: SimpleNamespace(), by_attribute),
    "tensor": (lambda dtype: torch.zeros(2, WIDTH, dtype=dtype), in_tensor),
    "list in a tuple": (lambda dtype: ([],), nested),
}


class Cached(nn.Module):
    def __init__(self, write: Callable[[Any, Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.a, self.write = nn.Linear(WIDTH, WIDTH), write

    def forward(self, x: Tensor, cache: Any) -> Tensor:
        return self.a(torch.stack(self.write(cache, x)).mean(0))


class Caching(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.make, write = CACHES[kind]
        self.c = Cached(write)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        cache = self.make(x.dtype)
        return sum(self.c(x * k, cache) for k in (1, 2, 3)), cache


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("inference", [False, True])
def test_an_island_writes_into_its_callers_arguments(kind: str, dtype: torch.dtype, inference: bool) -> None:
    module = Caching(kind)
    island = copy.deepcopy(module)
    cast_with_islands(island, ("c",), dtype)
    x = torch.randn(2, WIDTH)
    with torch.inference_mode() if inference else torch.no_grad():
        (expected, _), (result, cache) = module(x), island(x.to(dtype))
    assert (result.float() - expected).norm() <= (1e-6 if dtype == torch.float32 else 2e-3) * expected.norm()
    assert {t.dtype for t in tensors_in(cache)} == {dtype}, "the caller's own format again"


# -- the solver --------------------------------------------------------------------------------------------------------


def test_a_solution_that_breaks_its_equations_when_rounded_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan_of(lambda: Net(lambda s, x: s.up(x)))
    solve = scipy.optimize.milp

    def inexact(*args: Any, **kwargs: Any) -> Any:
        result = solve(*args, **kwargs)
        result.x = result.x + 0.75
        return result

    monkeypatch.setattr(scipy.optimize, "milp", inexact)
    with pytest.raises(Infeasible, match="rounded"):
        plan_of(lambda: Net(lambda s, x: s.up(x)))


def test_a_trace_with_everything_in_it_continues_after_json() -> None:
    half = Net(SECOND_USES["a floor"], lambda s: (with_other(s), setattr(s, "eps", 1e-2))[0]).bfloat16()
    found = trace_modules(half, lambda: call(half, 0))
    assert found.idle
    assert found.fixed_epsilons
    again = Trace.from_json(found.to_json())
    assert again == found or again.to_json() == found.to_json()
    assert solve_folds(again) == solve_folds(found)


# -- random modules ----------------------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "layer": lambda s, y, x: s.one(y),
    "gated": lambda s, y, x: y * F.silu(s.two(x)),
    "normed": lambda s, y, x: rms(y, s.eps),
    "integers": lambda s, y, x: y + 100 * torch.arange(len(x))[:, None],
    "literal": lambda s, y, x: (y.abs() + 1e-3).sqrt(),
    "floor": lambda s, y, x: y.clamp_min(s.eps),
    "factor": lambda s, y, x: y + x * s.eps,
    "blank": lambda s, y, x: y * (torch.zeros_like(y) + 0.5),
    "branch": lambda s, y, x: y + s.extra(x) if s.flag else y,
    "kept": lambda s, y, x: _keep(s, y),
    "read": lambda s, y, x: y + x * math.tanh(y.amax().item()),
    "relu": lambda s, y, x: F.relu(y) + 1e-6,
    "one plus": lambda s, y, x: y * (1 + s.two(x)),
    "normalised": lambda s, y, x: F.normalize(y, dim=-1),
    "cat": lambda s, y, x: torch.cat([y[:, :8], x[:, :8]], 1),
    "where": lambda s, y, x: torch.where(y > 0, y, s.one(x)),
    "instance": lambda s, y, x: F.instance_norm(y[None])[0],
    "slope": lambda s, y, x: F.prelu(y, s.slope),
    "between": lambda s, y, x: torch.lerp(y, s.one(x), 0.3),
    "square": lambda s, y, x: (y * 1e-3).square(),
}


def _keep(s: Any, y: Tensor) -> Tensor:
    before, s.memory = getattr(s, "memory", None), y
    return y if before is None or before.dtype != y.dtype else y + before


class Piece(nn.Module):
    def __init__(self, kind: str, power: int) -> None:
        super().__init__()
        self.kind, self.eps, self.flag = kind, 1e-2, False
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.slope = nn.Parameter(torch.rand(1))
        if kind == "branch":
            self.extra = nn.Linear(WIDTH, WIDTH)
        for name, kinds in {
            "one": ("layer", "where", "between"),
            "two": ("gated", "one plus"),
            "slope": ("slope",),
        }.items():
            if kind not in kinds:
                delattr(self, name)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter *= 2.0**power

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return STEPS[self.kind](self, y, x)


class Adversary(nn.Module):
    def __init__(self, drawn: list[tuple[str, int]]) -> None:
        super().__init__()
        torch.manual_seed(len(drawn))
        self.first = nn.Linear(WIDTH, WIDTH)
        self.pieces = nn.ModuleList(Piece(kind, power) for kind, power in drawn)
        self.norm = nn.LayerNorm(WIDTH)
        with torch.no_grad():
            self.first.weight *= 2.0**17

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for piece in self.pieces:
            y = piece(y, x)
        return self.norm(y)


def taken_later(module: Any, seed: int) -> Any:
    for piece in module.pieces:
        piece.flag = seed >= 10
    return call(module, seed)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
@given(drawn=st.lists(st.tuples(st.sampled_from(list(STEPS)), st.integers(-2, 8)), min_size=1, max_size=4))
def test_random_modules_are_folded_exactly_or_not_at_all(drawn: list[tuple[str, int]]) -> None:
    unchanged(lambda: Adversary(drawn), taken_later)


def test_folding_still_folds() -> None:
    """The kinds above without what stops them."""
    assert unchanged(lambda: Net(lambda s, x: s.up(x))).parameters["up.weight"] < 0
    plan = unchanged(lambda: Net(lambda s, x: F.normalize(s.up(x), dim=-1)))
    assert plan.parameters["up.weight"] < 0, "a floor of 1e-12 is never reached"
    assert plan.islands == ()
