"""Solving and folding: the example worked by hand in docs/numerics.md, checkpoints, LoRAs, islands, widening."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from starrynight.errors import BadFile, Unfit
from starrynight.numerics.certify import certify_folds, float16_outputs, outputs, relative_error
from starrynight.numerics.emulate import Emulation
from starrynight.numerics.fold import fold_adapter, fold_modules, read_plan, write_folded
from starrynight.numerics.islands import cast_with_islands
from starrynight.numerics.solve import CheckpointConstraints, FoldPlan, Infeasible, solve_folds, widen
from starrynight.numerics.trace import Trace, trace_modules


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        variance = x.float().pow(2).mean(-1, keepdim=True)
        return (x.float() * torch.rsqrt(variance + self.eps)).to(x.dtype) * self.weight


class Block(nn.Module):
    """A gated feed-forward beside a residual stream, as in every model we fold."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.gate, self.up = nn.Linear(width, 64, bias=False), nn.Linear(width, 64, bias=False)
        self.down = nn.Linear(64, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    def __init__(self, up: float = 0, down: float = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block, self.norm, self.head = (
            nn.Linear(8, 32),
            Block(),
            RMSNorm(32),
            nn.Linear(32, 8),
        )
        with torch.no_grad():
            self.block.up.weight *= 2.0**up
            self.block.down.weight *= 2.0**down
            for parameter in self.parameters():
                parameter.copy_(parameter.bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.embed(x))))


def inputs(module: nn.Module, seed: int) -> Tensor:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed)).bfloat16()
    return x.to(module.head.weight.dtype)  # type: ignore[union-attr, arg-type]


def exercise(module: nn.Module, seed: int) -> Tensor:
    return module(inputs(module, seed))


def traced(module: nn.Module) -> Trace:
    half = copy.deepcopy(module).bfloat16()
    return trace_modules(half, lambda: [exercise(half, seed) for seed in range(3)])


def test_an_output_that_float16_cannot_hold_is_admitted() -> None:
    module = Model()
    with torch.no_grad():
        module.head.weight.mul_(2.0**18)
    plan = solve_folds(traced(module))
    assert plan.islands == ("",)
    assert not plan.fits


def test_nothing_to_do_gives_an_empty_plan() -> None:
    plan = solve_folds(traced(Model()))
    assert (plan.parameters, plan.epsilons, plan.islands) == ({}, {}, ())
    assert plan.fits


def test_the_worked_example() -> None:
    """The gated product overflows and the stream does not: up shrinks and down grows, nothing else moves."""
    found = traced(Model(up=20, down=-10))
    plan = solve_folds(found)
    power = plan.parameters["block.up.weight"]
    assert power < 0
    assert plan.parameters == {"block.up.weight": power, "block.down.weight": -power}
    assert plan.epsilons == {}
    assert plan.headroom_bits >= 1
    assert solve_folds(found) == plan, "the same trace must give the same plan"


def test_a_loud_stream_takes_its_epsilons_along() -> None:
    module = Model()
    with torch.no_grad():
        module.embed.weight.mul_(2.0**17)
    plan = solve_folds(traced(module))
    power = plan.parameters["embed.weight"]
    assert power < 0
    assert plan.parameters == dict.fromkeys(("embed.weight", "embed.bias", "block.down.weight"), power)
    assert plan.epsilons == {"block.norm.eps": 2 * power, "norm.eps": 2 * power}


def test_a_whispering_stream_is_raised_above_the_subnormals() -> None:
    module = Model()
    with torch.no_grad():
        for quiet in (module.embed.weight, module.embed.bias, module.block.down.weight):
            quiet.mul_(2.0**-20)
        module.block.norm.eps = module.norm.eps = 1e-16
    plan = solve_folds(traced(module))
    assert plan.parameters["embed.weight"] > 0
    plain = relative_error(
        float16_outputs(copy.deepcopy(module), exercise, (7, 8)), outputs(module, exercise, (7, 8))
    )
    certificate = certify_folds(module, plan, exercise, (7, 8))
    assert certificate.holds
    assert certificate.folded_float16 < plain / 4


def test_the_certificate_holds_and_unfolding_gives_the_original_back() -> None:
    module = Model(up=20)
    plan = solve_folds(traced(module))
    certificate = certify_folds(module, plan, exercise, range(50, 54))
    assert certificate.holds
    assert certificate.folded_float32 == 0
    assert certificate.folded_float16 < certificate.bfloat16 / 4
    assert certificate.to_dict()["float16_decibels"] < certificate.to_dict()["bfloat16_decibels"] - 12  # type: ignore[operator]
    assert "bit for bit" in certificate.message("en")
    assert "逐位相同" in certificate.message("zh")
    there_and_back = copy.deepcopy(module)
    fold_modules(there_and_back, plan)
    fold_modules(there_and_back, plan, sign=-1)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, there_and_back.get_parameter(name))
    assert there_and_back.norm.eps == module.norm.eps


def test_a_written_checkpoint_runs_without_this_package(tmp_path: Path) -> None:
    module = Model(up=20, down=-8)
    plan = solve_folds(traced(module), constraints=CheckpointConstraints())
    assert plan.epsilons == {}
    save_file(module.bfloat16().state_dict(), tmp_path / "bf16.safetensors", metadata={"source": "test"})
    write_folded(tmp_path / "bf16.safetensors", tmp_path / "folded.safetensors", plan, {"holds": True})
    assert read_plan(tmp_path / "folded.safetensors") == plan
    assert read_plan(tmp_path / "bf16.safetensors") is None
    plain = Model().half()
    plain.load_state_dict(load_file(tmp_path / "folded.safetensors"))
    reference = [exercise(module.float(), seed) for seed in (7, 8)]
    with torch.no_grad(), Emulation():
        results = [exercise(plain, seed).float() for seed in (7, 8)]
    assert relative_error(results, reference) < 3e-3


def test_writing_from_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(BadFile, match=r"x\.safetensors"):
        write_folded(tmp_path / "x.safetensors", tmp_path / "y.safetensors", FoldPlan())


def test_a_plain_plan_may_fold_a_stream_whose_epsilon_is_negligible() -> None:
    module = Model()
    with torch.no_grad():
        module.embed.weight.mul_(2.0**20)
        module.embed.bias.copy_(torch.ones(32))
    module.block.norm.eps = module.norm.eps = 1e-12
    plan = solve_folds(traced(module), constraints=CheckpointConstraints())
    assert plan.parameters["embed.weight"] < 0
    assert plan.epsilons == {}
    assert plan.islands == ()
    assert certify_folds(module, plan, exercise, (7, 8)).holds


def test_plain_plans_leave_quiet_norms_alone_and_islands_stand_in() -> None:
    """A quiet row (variance near eps) forbids folding the stream unless eps follows; a plain checkpoint cannot."""
    module = Model(down=20)
    with torch.no_grad():
        module.embed.weight.mul_(2.0**-9)
        module.embed.bias.mul_(2.0**-9)
    found = traced(module)
    assert solve_folds(found).islands == ()
    plain = solve_folds(found, constraints=CheckpointConstraints())
    assert plain.epsilons == {}
    assert plain.islands != ()
    certificate = certify_folds(module, plain, exercise, (7, 8))
    assert certificate.holds


def test_a_plan_for_another_model_is_refused() -> None:
    with pytest.raises(Unfit, match=r"another\.weight"):
        fold_modules(Model(), FoldPlan(parameters={"another.weight": 3}))


def test_plans_survive_json() -> None:
    plan = solve_folds(traced(Model(down=20)))
    assert FoldPlan.from_json(plan.to_json()) == plan


def test_fixed_parameters_are_left_alone() -> None:
    plan = solve_folds(traced(Model(up=20)), fixed=lambda name: name == "block.up.weight")
    assert "block.up.weight" not in plan.parameters


def test_a_lora_follows_the_folds() -> None:
    module = Model(up=20, down=-8)
    plan = solve_folds(traced(module))
    other = copy.deepcopy(module)
    fold_modules(other, plan)
    assert {"block.up.weight", "block.down.weight"} <= set(plan.parameters)
    bare = exercise(module, 9)
    for target in (module, other):
        inject_adapter_in_model(
            LoraConfig(r=4, target_modules=["up", "down"], init_lora_weights=False), target, "night"
        )
    for name, parameter in module.named_parameters():
        if "lora" in name:
            other.get_parameter(name).data.copy_(parameter.data)
    fold_adapter(other, "night", plan)
    dressed = exercise(module, 9)
    assert (dressed - bare).norm() > 0.01 * bare.norm(), "the LoRA must show"
    assert torch.equal(exercise(other, 9), dressed)


class Stuck(nn.Module):
    """SiLU has no scale symmetry: its large input cannot be folded, and its large output meets another SiLU."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.head = nn.Linear(8, 8), nn.Linear(8, 8)
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.SiLU(), nn.Linear(8, 8))
        with torch.no_grad():
            self.middle[0].weight.mul_(2.0**19)
            self.middle[3].weight.mul_(2.0**-19)
            for parameter in self.parameters():
                parameter.copy_(parameter.bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.before(x)))


def test_the_smallest_module_around_what_is_stuck_becomes_an_island() -> None:
    module = Stuck()
    plan = solve_folds(traced(module))
    assert plan.islands == ("middle",)
    certificate = certify_folds(module, plan, exercise, (5, 6))
    assert certificate.holds
    settled = copy.deepcopy(module)
    cast_with_islands(settled, plan.islands, torch.float16)
    assert settled.middle[0].weight.dtype == torch.float32
    assert settled.head.weight.dtype == torch.float16
    assert settled(inputs(settled, 1)).dtype == torch.float16


@pytest.mark.parametrize("place", ["stream", "product"])
def test_widening_is_the_inverse_of_folding(place: str) -> None:
    module, found = Model(), traced(Model())
    boundary = found.outputs["block"] if place == "stream" else found.inputs["block.down"]
    twin = copy.deepcopy(module)
    fold_modules(twin, widen(found, boundary, bits=18))
    assert torch.equal(exercise(twin, 3), exercise(module, 3))
    half = copy.deepcopy(twin).half()
    with torch.no_grad(), Emulation():
        assert not exercise(half, 3).isfinite().all()
    plan = solve_folds(traced(twin))
    assert certify_folds(twin, plan, exercise, (3, 4)).holds


def test_what_cannot_be_widened_says_so() -> None:
    found = traced(Stuck())
    with pytest.raises(Infeasible):
        widen(found, found.outputs["middle.0"], bits=10)


def test_non_persistent_buffers_fold_in_memory_only() -> None:
    class Positioned(Model):
        def __init__(self) -> None:
            super().__init__(down=20)
            self.register_buffer("positions", torch.randn(16, 32).bfloat16().float(), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.block(self.embed(x) + self.positions)))

    found = traced(Positioned())
    assert "positions" in solve_folds(found).parameters
    assert "positions" not in solve_folds(found, constraints=CheckpointConstraints()).parameters


def test_a_key_of_the_configuration_carries_its_epsilons() -> None:
    """One key sets both norms' eps: a loud stream takes it along, and nothing needs an island any more."""
    module = Model(down=20)
    with torch.no_grad():
        module.embed.weight.mul_(2.0**-9)
        module.embed.bias.mul_(2.0**-9)
    found = traced(module)
    plan = solve_folds(
        found, constraints=CheckpointConstraints({"norm_eps": frozenset({"block.norm.eps", "norm.eps"})})
    )
    assert plan.islands == ()
    assert plan.configs["norm_eps"] == 2 * plan.parameters["block.down.weight"] < 0
    assert plan.epsilons == dict.fromkeys(("block.norm.eps", "norm.eps"), plan.configs["norm_eps"])
    assert certify_folds(module, plan, exercise, (7, 8)).holds
    assert (
        solve_folds(
            found, constraints=CheckpointConstraints({"eps": frozenset({"norm.eps", "never.run.eps"})})
        ).configs
        == {}
    )


def test_what_a_header_told_of_the_epsilons_is_folded_back() -> None:
    """A widened model whose header tells its epsilons, written for tools that read no header: the original's scale."""
    module, found = Model(), traced(Model())
    wider = widen(found, found.outputs["block"], bits=18)
    fold_modules(module, wider)
    plan = solve_folds(traced(module), constraints=CheckpointConstraints(header_epsilons=wider.epsilons))
    assert {name: power + plan.epsilons[name] for name, power in wider.epsilons.items()} == dict.fromkeys(
        wider.epsilons, 0
    )
    assert plan.islands == ()
    assert certify_folds(module, plan, exercise, (7, 8)).folded_float32 == 0
