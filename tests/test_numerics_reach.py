"""What range folding reaches: weights with a number added, unused weights, weights without headroom, and the rules of rare ops."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exactness import verdict
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from starrynight.errors import Unfit
from starrynight.folding.calibrate import films_decoded_too
from starrynight.numerics.certify import certify_folds
from starrynight.numerics.effective import EffectiveWeight, effective_weights, set_effective_weights
from starrynight.numerics.fold import compose, fold_and_cast, fold_modules, fold_tensor, only, write_folded
from starrynight.numerics.measured import Trace
from starrynight.numerics.solve import CheckpointConstraints, FoldPlan, solve_folds
from starrynight.numerics.trace import trace_modules
from starrynight.painting import fallback

WIDTH = 16


def rms(y: Tensor, eps: float) -> Tensor:
    return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)


Sum = Callable[[Any], Tensor]

# How a norm may read its weight with a number added.
SUMS: dict[str, Sum] = {
    "1 + w": lambda s: 1 + s.weight,
    "1.0 + w.float()": lambda s: 1.0 + s.weight.float(),
    "w + 1": lambda s: s.weight + 1,
    "w.float().add(1)": lambda s: s.weight.float().add(1),
    "torch.add": lambda s: torch.add(s.weight, 1),
    "a view": lambda s: 1 + s.weight.view(1, -1),
    "a row": lambda s: (1 + s.weight[None])[0],
    "a cast of a view": lambda s: 1 + s.weight[None].to(torch.float32),
    "another number": lambda s: s.weight + 0.5,
    "a negative number": lambda s: s.weight - 3.0,
}

# Readings that keep the weight's scale: nothing stored in its place could serve them.
OTHERS: dict[str, Sum] = {
    "two numbers": lambda s: (1 + s.weight) * (2 + s.weight),
    "itself too": lambda s: (1 + s.weight) * (1 + s.weight.square()),
    "a part of itself": lambda s: (1 + s.weight) * torch.cat([s.weight[:1], s.weight[1:]]),
    "subtracted from": lambda s: 1 - s.weight,
    "in place": lambda s: s.weight.clone().add_(1),
    "a multiple": lambda s: torch.add(s.weight, 1, alpha=2),
    "a tensor of ones": lambda s: torch.ones_like(s.weight) + s.weight,
    "found among the parameters": lambda s: 1 + next(s.parameters()),
    "found by name": lambda s: 1 + dict(s.named_parameters())["weight"],
    "found from outside": lambda s: 1 + dict(s.named_parameters(prefix="x"))["x.weight"],
}


class Norm(nn.Module):
    def __init__(self, reading: Sum) -> None:
        super().__init__()
        self.eps, self.reading = 1e-6, reading
        self.weight = nn.Parameter(torch.randn(WIDTH) * 0.3)

    def forward(self, y: Tensor) -> Tensor:
        return (rms(y.float(), self.eps) * self.reading(self)).type_as(y)


class Encoder(nn.Module):
    """A residual stream that a norm like Gemma's writes into: it can only be folded with the norm's weight."""

    def __init__(self, reading: Sum = SUMS["1.0 + w.float()"]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.up, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.before, self.after, self.last = Norm(SUMS["1 + w"]), Norm(reading), nn.LayerNorm(WIDTH)
        with torch.no_grad():
            self.embed.weight *= 2.0**22

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y = y + self.after(F.silu(self.up(self.before(y))))
        return self.out(self.last(y))


def call(module: Any, seed: int) -> Tensor:
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(seed))
    return module(x.bfloat16().to(module.out.weight.dtype))


def traced(module: nn.Module, run: Callable[[Any, int], Any] = call) -> Trace:
    half = copy.deepcopy(module).bfloat16()
    return trace_modules(half, lambda: [run(half, seed) for seed in range(3)])


def rounded(module: nn.Module) -> nn.Module:
    """With weights that bfloat16 holds, as a checkpoint has."""
    for parameter in module.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return module.eval()


# -- a number added to a weight ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SUMS)
def test_a_weight_with_a_number_added_folds_as_their_sum(kind: str) -> None:
    module = rounded(Encoder(SUMS[kind]))
    plan = solve_folds(traced(module))
    assert plan.islands == ()
    assert set(plan.offsets) == {"after.weight"}
    certificate = certify_folds(module, plan, call, range(10, 13))
    assert certificate.folded_float32 == 0, "bit for bit"
    assert certificate.folded_float16 <= certificate.bfloat16 / 4


@pytest.mark.parametrize("kind", OTHERS)
def test_a_weight_that_is_also_read_otherwise_keeps_its_scale(kind: str) -> None:
    module = rounded(Encoder(OTHERS[kind]))
    plan = solve_folds(traced(module))
    assert plan.offsets == {}
    folded = copy.deepcopy(module)
    fold_modules(folded, plan)
    for seed in range(10, 13):
        assert torch.equal(call(folded, seed), call(module, seed))


@pytest.mark.parametrize("kind", [*SUMS, *OTHERS])
def test_sums_are_exact_op_by_op_under_any_plan(kind: str) -> None:
    found = verdict(lambda: rounded(Encoder((SUMS | OTHERS)[kind])), call)
    assert found.kind == "same", found.reason
    assert found.folds


def test_a_tied_weight_is_summed_once_and_other_names_of_its_memory_are_refused() -> None:
    class Tied(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.again = Norm(SUMS["w + 1"])
            self.again.weight = self.after.weight
            self.before.register_forward_hook(lambda m, a, y: y + self.again(y) * 2.0**-9)
            self.embed.register_forward_hook(lambda m, a, y: y + self.again(y))

    module = rounded(Tied())
    plan = solve_folds(traced(module))
    folded = copy.deepcopy(module)
    fold_modules(folded, plan)
    assert torch.equal(call(folded, 11), call(module, 11))
    module, _, plan = folded_encoder()
    module.alias = nn.Parameter(module.after.weight.data)
    with pytest.raises(Unfit, match="one piece of memory"):
        fold_modules(module, plan)


def folded_encoder(dtype: torch.dtype | None = None) -> tuple[nn.Module, nn.Module, FoldPlan]:
    module = rounded(Encoder())
    plan = solve_folds(traced(module))
    folded = copy.deepcopy(module)
    fold_modules(folded, plan) if dtype is None else fold_and_cast(folded, plan, dtype)
    return module, folded, plan


def test_a_folded_sum_survives_copies_casts_and_new_weights() -> None:
    module, folded, plan = folded_encoder()
    expected = call(module, 11)
    number = 2.0 ** plan.parameters["after.weight"]
    assert torch.equal(folded.state_dict()["after.weight"], (1 + module.after.weight) * number)
    assert type(folded.after).__name__ == "Norm"
    assert isinstance(folded.after, Norm)
    assert type(dict(folded.named_parameters())["after.weight"]) is nn.Parameter
    assert torch.equal(call(copy.deepcopy(folded), 11), expected)
    assert torch.equal(call(folded.double().float(), 11), expected)
    other = Encoder()
    set_effective_weights(other, effective_weights(folded))
    fold_modules(other, FoldPlan(epsilons=plan.epsilons))
    other.load_state_dict(folded.state_dict())
    assert torch.equal(call(other, 11), expected)
    folded.after.weight = nn.Parameter(folded.after.weight.detach().clone())
    folded.after.weight.data = folded.after.weight.data * 1.0
    assert torch.equal(call(folded, 11), expected)
    assert folded.after.weight.shape == (WIDTH,)
    assert isinstance(folded.after.weight, EffectiveWeight)


def test_folding_twice_and_undoing() -> None:
    module, folded, plan = folded_encoder()
    again = FoldPlan(parameters={"after.weight": -2, "embed.weight": -2})
    fold_modules(folded, again)
    total = compose(plan, again)
    assert total.offsets == plan.offsets
    at_once = copy.deepcopy(module)
    fold_modules(at_once, total)
    assert torch.equal(folded.after.weight, at_once.after.weight)
    fold_modules(at_once, total, sign=-1)
    assert type(at_once.after) is Norm
    torch.testing.assert_close(at_once.after.weight, module.after.weight, rtol=0, atol=2**-23)


def test_a_folded_sum_in_float16_is_rounded_once() -> None:
    module, folded, plan = folded_encoder(torch.float16)
    wanted = ((1 + module.after.weight) * 2.0 ** plan.parameters["after.weight"]).half()
    assert torch.equal(dict(folded.named_parameters())["after.weight"], wanted)
    assert torch.equal(fold_tensor("after.weight", module.after.weight, plan, torch.float16), wanted)
    prefixed = FoldPlan(
        {"a." + n: p for n, p in plan.parameters.items()}, {"a." + n: p for n, p in plan.epsilons.items()},
        offsets={"a." + n: p for n, p in plan.offsets.items()} | {"b.weight": 1.0},
    )  # fmt: skip
    assert only(prefixed, "a").offsets == {"a.after.weight": 1.0}
    part = copy.deepcopy(module)
    fold_and_cast(part, prefixed, torch.float16, "a")
    assert torch.equal(dict(part.named_parameters())["after.weight"], wanted)
    assert call(part, 11).isfinite().all()


@pytest.mark.parametrize("sum_before", [True, False])
def test_a_replanned_component_has_the_sums_of_its_new_plan(sum_before: bool) -> None:
    module = rounded(Encoder())
    plans = [solve_folds(traced(module)), FoldPlan()][:: 1 if sum_before else -1]
    before, after = (
        FoldPlan(*({f"a.{n}": p for n, p in each.items()} for each in (plan.parameters, plan.epsilons)),
                 offsets={f"a.{n}": p for n, p in plan.offsets.items()})
        for plan in plans
    )  # fmt: skip
    old, new = copy.deepcopy(module), copy.deepcopy(module)
    fold_modules({"a": old}, before)
    fold_modules({"a": new}, after)
    part = fallback.Component("a", {"a": old})
    changed = fallback.difference(before, after, part)
    part.refold(changed, {f"a.{name}": tensor for name, tensor in new.named_parameters()})
    assert torch.equal(call(old, 11), call(module, 11))
    assert fallback.updated(before, changed, part) == after


def test_a_checkpoint_carries_no_sum(tmp_path: Path) -> None:
    module, _, plan = folded_encoder()
    found = traced(module)
    assert solve_folds(found, constraints=CheckpointConstraints()).offsets == {}
    save_file({"after.weight": module.after.weight.detach()}, tmp_path / "a.safetensors")
    with pytest.raises(Unfit, match=r"after\.weight"):
        write_folded(tmp_path / "a.safetensors", tmp_path / "b.safetensors", plan)
    assert not (tmp_path / "b.safetensors").exists()


def test_plans_and_traces_with_sums_are_stored() -> None:
    module, _, plan = folded_encoder()
    assert FoldPlan.from_json(plan.to_json()) == plan
    assert "offsets" not in json.loads(FoldPlan().to_json()), "earlier versions read plans without sums"
    found = traced(module)
    assert solve_folds(Trace.from_json(found.to_json())) == solve_folds(found) == plan
    half = copy.deepcopy(module).bfloat16()
    continued = trace_modules(half, lambda: call(half, 0), into=Trace.from_json(found.to_json()))
    assert solve_folds(continued) == plan


# -- weights that need no fold -----------------------------------------------------------------------------------------------


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm, self.out = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            self.up.weight *= 2.0**18

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.up(x)))


class Partly(nn.Module):
    """A part of it never runs, and a parameter is never read."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.chain, self.never, self.token = (
            Chain(),
            nn.Linear(WIDTH, WIDTH),
            nn.Parameter(torch.ones(1) * 2.0**power),
        )
        self.out = self.chain.out
        with torch.no_grad():
            self.never.weight *= 2.0**power

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x)


@pytest.mark.parametrize(("power", "islands"), [(14, ()), (40, ("never",))])
def test_an_unused_weight_makes_no_island_of_its_component(power: int, islands: tuple[str, ...]) -> None:
    """One that float16 cannot hold is kept in float32 in its own module, should that run after all."""
    module = rounded(Partly(power))
    found = traced(module)
    assert solve_folds(found).islands == islands
    certificate = certify_folds(module, solve_folds(found), call, range(10, 13))
    assert certificate.folded_float32 == 0
    assert certificate.folded_float16 < certificate.bfloat16 / 4


def test_weights_need_no_headroom_and_activations_keep_theirs() -> None:
    class Loud(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.linspace(0, 1, WIDTH) * 2.0**15)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(self.up(x))) * (self.token * 2.0**-18)

    plan = solve_folds(traced(rounded(Loud())))
    assert "token" not in plan.parameters, "32768 fits into float16"
    assert "up.weight" in plan.parameters
    assert plan.islands == ()
    assert plan.headroom_bits >= 3


# -- layers between frames ---------------------------------------------------------------------------------------------------


def film_decoder() -> nn.Module:
    from diffusers import AutoencoderKLQwenImage

    torch.manual_seed(0)
    vae = AutoencoderKLQwenImage(
        base_dim=16, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[True], latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4)  # fmt: skip
    vae.decoder.conv_in.weight.data *= 2.0**24
    return rounded(vae)


def test_a_decoder_of_films_folds_though_pictures_have_one_frame() -> None:
    def decode(vae: Any, seed: int, frames: int = 1) -> Tensor:
        latents = torch.randn(1, 4, frames, 4, 4, generator=torch.Generator().manual_seed(seed))
        return vae.decode(latents.bfloat16().to(vae.decoder.conv_in.weight.dtype)).sample

    module = film_decoder()
    half = copy.deepcopy(module).bfloat16()
    alone = trace_modules(half, lambda: decode(half, 0))
    assert solve_folds(alone).islands == ("decoder",), "a layer that never ran would see another scale"
    with films_decoded_too(half):
        plan = solve_folds(trace_modules(half, lambda: [decode(half, seed) for seed in range(2)]))
    assert "decode" not in vars(half)
    assert plan.islands == ()
    certificate = certify_folds(
        module, plan, lambda m, seed: decode(m, seed, 1 + 2 * (seed % 2)), range(10, 14)
    )
    assert certificate.folded_float32 == 0, "pictures and films"
    assert certificate.folded_float16 <= certificate.bfloat16 / 4


# -- rules -------------------------------------------------------------------------------------------------------------------

Middle = Callable[["Net", Tensor], Tensor]
INDEX = torch.tensor([[0, 1, 2, 3] * 4] * 4)


class Net(nn.Module):
    """A loud layer, an op, a norm and a layer."""

    def __init__(self, middle: Middle) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm, self.out = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.middle, self.second = middle, nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.slope, self.scale = nn.Parameter(torch.rand(1)), nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.direction = nn.Parameter(torch.randn(WIDTH, WIDTH) * 2.0**12)
        self.experts = nn.Parameter(torch.randn(2, WIDTH, WIDTH) * 2.0**18)
        with torch.no_grad():
            self.up.weight *= 2.0**18

    def side(self, x: Tensor) -> Tensor:
        return F.linear(x, self.second)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.middle(self, x)))


def volume(y: Tensor) -> Tensor:
    return y.reshape(1, 4, 2, 4, 2)


def flat(y: Tensor) -> Tensor:
    return y.reshape(4, -1)[:, :WIDTH]


def experts(s: Net, x: Tensor) -> Tensor:
    ends = torch.tensor([1, 4], dtype=torch.int32)
    return torch._grouped_mm(x.bfloat16(), s.experts.bfloat16(), offs=ends).to(x.dtype) + s.up(x)


# Op → the middle; True where the loud layer itself can be folded.
RULES: dict[str, tuple[Middle, bool]] = {
    "scatter_reduce sum": (lambda s, x: s.up(x).scatter_reduce(1, INDEX, s.up(x), "sum"), True),
    "scatter_reduce amax": (lambda s, x: s.up(x).scatter_reduce(1, INDEX, s.up(x), "amax"), True),
    "scatter_reduce mean": (lambda s, x: s.up(x).scatter_reduce(1, INDEX, s.up(x), "mean"), True),
    "scatter_reduce prod": (lambda s, x: s.up(x).scatter_reduce(1, INDEX, s.side(x), "prod"), False),
    "grouped_mm": (experts, True),
    "prelu": (lambda s, x: F.prelu(s.up(x), s.slope), True),
    "weight_norm": (lambda s, x: s.up(x) + F.linear(x, torch._weight_norm(s.direction, s.scale[:, None], 0)), True),
    "unsafe_split": (lambda s, x: torch.cat([p * 2 for p in torch.unsafe_split(s.up(x), 8, 1)], 1), True),
    "unsafe_chunk": (lambda s, x: torch.cat(torch.unsafe_chunk(s.up(x), 2, 1)[::-1], 1), True),
    "split_copy": (lambda s, x: torch.cat(torch.split_copy(s.up(x), 8, 1)[::-1], 1), True),
    "glu": (lambda s, x: F.glu(s.up(x).repeat(1, 2)), False),
    "lerp": (lambda s, x: torch.lerp(s.up(x), s.side(x), 0.3), True),
    "lerp by a tensor": (lambda s, x: torch.lerp(s.up(x), s.side(x), torch.sigmoid(x)), True),
    "addcdiv": (lambda s, x: torch.addcdiv(s.up(x), s.side(x), x.exp(), value=0.5), True),
    "addcmul": (lambda s, x: torch.addcmul(s.up(x), s.side(x), x.exp(), value=0.5), True),
    "nearest 3-D": (lambda s, x: flat(F.interpolate(volume(s.up(x)), scale_factor=2.0)), True),
    "exact nearest 3-D": (lambda s, x: flat(F.interpolate(volume(s.up(x)), scale_factor=1.5, mode="nearest-exact")), True),
    "trilinear": (lambda s, x: flat(F.interpolate(volume(s.up(x)), scale_factor=2.0, mode="trilinear")), True),
    "zeros around 3-D": (lambda s, x: flat(F.pad(volume(s.up(x)), (1, 1, 1, 1, 1, 1))), True),
    "a number around 3-D": (lambda s, x: flat(F.pad(volume(s.up(x)), (1, 1, 1, 1, 1, 1), value=70000.0)), False),
    "copies around 3-D": (lambda s, x: flat(F.pad(volume(s.up(x)), (1, 1, 1, 1, 1, 1), mode="replicate")), True),
    "mirrored 3-D": (lambda s, x: flat(F.pad(volume(s.up(x)), (1, 1, 1, 1, 1, 1), mode="reflect")), True),
    "around 3-D": (lambda s, x: flat(F.pad(volume(s.up(x)), (1, 1, 1, 1, 1, 1), mode="circular")), True),
    "avg_pool3d": (lambda s, x: flat(F.avg_pool3d(volume(s.up(x)).float(), 2, 1, 1)).to(x.dtype), True),
    "adaptive average 3-D": (lambda s, x: flat(F.adaptive_avg_pool3d(volume(s.up(x)), (2, 4, 2))), True),
    "max_pool3d": (lambda s, x: flat(F.max_pool3d(volume(s.up(x)), 2, 1, 1)), True),
    "instance norm": (lambda s, x: flat(F.instance_norm(volume(s.up(x)))), True),
    "_unsafe_index": (lambda s, x: torch.ops.aten._unsafe_index(s.up(x), [torch.arange(3, -1, -1)]), True),
    "_unsafe_masked_index": (lambda s, x: torch.ops.aten._unsafe_masked_index(s.up(x), x > 0, [INDEX % 4, INDEX], 0.0), False),
    "softplus": (lambda s, x: F.softplus(s.up(x)), False),
    "log1p": (lambda s, x: torch.log1p(s.up(x).abs()), False),
}  # fmt: skip


@pytest.mark.parametrize("kind", RULES)
def test_a_rule_is_exact_or_keeps_the_scale(kind: str) -> None:
    middle, folds = RULES[kind]
    module = rounded(Net(middle))
    found = traced(module)
    plan = solve_folds(found)
    assert bool(plan.parameters.keys() & {"up.weight", "direction", "experts"}) == folds, plan
    if folds:
        assert not found.unknown_ops
    folded = copy.deepcopy(module)
    fold_modules(folded, plan)
    for seed in range(10, 13):
        expected = call(module, seed)
        error = (call(folded, seed) - expected).norm() / expected.norm()
        assert error <= 1e-6, plan
