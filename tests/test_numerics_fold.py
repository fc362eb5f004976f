"""Solving and folding: the worked example of docs/numerics.md, checkpoints, LoRAs, islands, widening."""

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
from starrynight.numerics.measured import Trace
from starrynight.numerics.solve import CheckpointConstraints, FoldPlan, Infeasible, solve_folds, widen
from starrynight.numerics.trace import trace_modules


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        variance = x.float().pow(2).mean(-1, keepdim=True)
        return (x.float() * torch.rsqrt(variance + self.eps)).to(x.dtype) * self.weight


class Block(nn.Module):
    """A gated feed-forward on a residual stream, as in diffusion transformers."""

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


def test_an_output_beyond_float16_makes_the_model_an_island_that_does_not_fit() -> None:
    module = Model()
    with torch.no_grad():
        module.head.weight.mul_(2.0**18)
    plan = solve_folds(traced(module))
    assert plan.islands == ("",)
    assert not plan.fits


def test_a_model_within_range_gets_an_empty_plan() -> None:
    plan = solve_folds(traced(Model()))
    assert (plan.parameters, plan.epsilons, plan.islands) == ({}, {}, ())
    assert plan.fits


def test_the_worked_example_of_the_documentation() -> None:
    """Only the gated product overflows: ``up`` shrinks, ``down`` grows, and nothing else changes."""
    found = traced(Model(up=20, down=-10))
    plan = solve_folds(found)
    power = plan.parameters["block.up.weight"]
    assert power < 0
    assert plan.parameters == {"block.up.weight": power, "block.down.weight": -power}
    assert plan.epsilons == {}
    assert plan.headroom_bits >= 1
    assert solve_folds(found) == plan, "the same trace must give the same plan"


def test_a_large_residual_stream_is_folded_with_its_norms_epsilons() -> None:
    module = Model()
    with torch.no_grad():
        module.embed.weight.mul_(2.0**17)
    plan = solve_folds(traced(module))
    power = plan.parameters["embed.weight"]
    assert power < 0
    assert plan.parameters == dict.fromkeys(("embed.weight", "embed.bias", "block.down.weight"), power)
    assert plan.epsilons == {"block.norm.eps": 2 * power, "norm.eps": 2 * power}


def test_a_residual_stream_among_the_subnormals_is_scaled_up() -> None:
    module = Model()
    with torch.no_grad():
        for parameter in (module.embed.weight, module.embed.bias, module.block.down.weight):
            parameter.mul_(2.0**-20)
        module.block.norm.eps = module.norm.eps = 1e-16
    plan = solve_folds(traced(module))
    assert plan.parameters["embed.weight"] > 0
    plain = relative_error(
        float16_outputs(copy.deepcopy(module), exercise, (7, 8)), outputs(module, exercise, (7, 8))
    )
    certificate = certify_folds(module, plan, exercise, (7, 8))
    assert certificate.holds
    assert certificate.folded_float16 < plain / 4


def test_the_certificate_holds_and_unfolding_restores_the_original() -> None:
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


def test_a_file_that_is_no_checkpoint_raises_bad_file(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(BadFile, match=r"x\.safetensors"):
        write_folded(tmp_path / "x.safetensors", tmp_path / "y.safetensors", FoldPlan())


def test_with_constraints_a_stream_with_a_negligible_epsilon_is_folded() -> None:
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


def test_with_constraints_a_stream_that_needs_its_epsilon_becomes_an_island() -> None:
    """A row with variance near eps can be folded only with eps, which a standard checkpoint cannot change."""
    module = Model(down=20)
    with torch.no_grad():
        module.embed.weight.mul_(2.0**-9)
        module.embed.bias.mul_(2.0**-9)
    found = traced(module)
    assert solve_folds(found).islands == ()
    plan = solve_folds(found, constraints=CheckpointConstraints())
    assert plan.epsilons == {}
    assert plan.islands != ()
    assert certify_folds(module, plan, exercise, (7, 8)).holds


def test_a_plan_for_another_model_raises_unfit() -> None:
    with pytest.raises(Unfit, match=r"another\.weight"):
        fold_modules(Model(), FoldPlan(parameters={"another.weight": 3}))


def test_a_plan_survives_json() -> None:
    plan = solve_folds(traced(Model(down=20)))
    assert FoldPlan.from_json(plan.to_json()) == plan


def test_fixed_parameters_do_not_change() -> None:
    plan = solve_folds(traced(Model(up=20)), fixed=lambda name: name == "block.up.weight")
    assert "block.up.weight" not in plan.parameters


@pytest.mark.parametrize("kind", [{}, {"use_dora": True}], ids=["LoRA", "DoRA"])
def test_a_lora_is_folded_with_its_layers(kind: dict[str, bool]) -> None:
    module = Model(up=20, down=-8)
    plan = solve_folds(traced(module))
    other = copy.deepcopy(module)
    fold_modules(other, plan)
    assert {"block.up.weight", "block.down.weight"} <= set(plan.parameters)
    without = exercise(module, 9)
    for target in (module, other):
        inject_adapter_in_model(
            LoraConfig(r=4, target_modules=["up", "down"], init_lora_weights=False, **kind), target, "night"
        )
    for name, parameter in module.named_parameters():
        if "lora" in name:
            other.get_parameter(name).data.copy_(parameter.data)
    fold_adapter(other, "night", plan)
    with torch.no_grad():
        for target in (module, other):
            for name, parameter in target.named_parameters():
                if "magnitude" in name:
                    parameter.mul_(1.5)
    with_lora = exercise(module, 9)
    assert (with_lora - without).norm() > 0.01 * without.norm(), "the LoRA must have an effect"
    assert torch.equal(exercise(other, 9), with_lora)


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_bias_of_a_lora_is_folded_like_its_layers_own_or_refused(has_bias: bool) -> None:
    module = nn.Sequential(nn.Linear(8, 8, bias=has_bias), nn.LayerNorm(8))
    plan = FoldPlan(
        parameters={"0.weight": -3} | ({"0.bias": -3} if has_bias else {}), epsilons={"1.eps": -6}
    )
    folded = copy.deepcopy(module)
    fold_modules(folded, plan)
    config = LoraConfig(r=4, target_modules=["0"], init_lora_weights=False, lora_bias=True)
    for target in (module, folded):
        inject_adapter_in_model(config, target, "night")
    for name, parameter in module.named_parameters():
        if "lora" in name:
            folded.get_parameter(name).data.copy_(parameter.data)
    if not has_bias:
        with pytest.raises(Unfit, match="adds a bias"):
            fold_adapter(folded, "night", plan)
        return
    fold_adapter(folded, "night", plan)
    x = torch.randn(4, 8)
    assert torch.equal(module(x), folded(x))


class Stuck(nn.Module):
    """SiLU has no scale symmetry: neither its large input nor its large output, read by another SiLU, folds."""

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


def test_the_smallest_module_around_what_cannot_be_folded_becomes_an_island() -> None:
    module = Stuck()
    plan = solve_folds(traced(module))
    assert plan.islands == ("middle",)
    assert certify_folds(module, plan, exercise, (5, 6)).holds
    half = copy.deepcopy(module)
    cast_with_islands(half, plan.islands, torch.float16)
    assert half.middle[0].weight.dtype == torch.float32
    assert half.head.weight.dtype == torch.float16
    assert half(inputs(half, 1)).dtype == torch.float16


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


def test_widening_a_boundary_that_cannot_change_is_infeasible() -> None:
    found = traced(Stuck())
    with pytest.raises(Infeasible):
        widen(found, found.outputs["middle.0"], bits=10)


def test_non_persistent_buffers_are_folded_in_memory_only() -> None:
    class Positioned(Model):
        def __init__(self) -> None:
            super().__init__(down=20)
            self.register_buffer("positions", torch.randn(16, 32).bfloat16().float(), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.block(self.embed(x) + self.positions)))

    found = traced(Positioned())
    assert "positions" in solve_folds(found).parameters
    assert "positions" not in solve_folds(found, constraints=CheckpointConstraints()).parameters


def test_a_configuration_key_rescales_its_epsilons() -> None:
    """One key sets both norms' eps, so a large stream is folded with it and needs no island."""
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


def test_epsilons_from_a_header_are_folded_back() -> None:
    """A widened model with epsilons in its header, written for tools that ignore the header, gets the original ones."""
    module, found = Model(), traced(Model())
    wider = widen(found, found.outputs["block"], bits=18)
    fold_modules(module, wider)
    plan = solve_folds(traced(module), constraints=CheckpointConstraints(header_epsilons=wider.epsilons))
    assert {name: power + plan.epsilons[name] for name, power in wider.epsilons.items()} == dict.fromkeys(
        wider.epsilons, 0
    )
    assert plan.islands == ()
    assert certify_folds(module, plan, exercise, (7, 8)).folded_float32 == 0
