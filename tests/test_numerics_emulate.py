"""Emulated float16 equals native float16 element by element, and rounds where a GPU rounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import _get_current_dispatch_mode

from starrynight.numerics.emulate import Emulation, emulate_module
from starrynight.numerics.finite import locate_fault

X = torch.randn(48, 64, generator=torch.Generator().manual_seed(0)) * 300
Y = torch.randn(48, 64, generator=torch.Generator().manual_seed(1))

ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "add in place": lambda x, y: x.clone().add_(y),
    "overflowing product": lambda x, y: x * x,
    "quotient": lambda x, y: x / y,
    "square root": lambda x, y: x.abs().sqrt(),
    "exp": lambda x, y: y.exp(),
    "silu": lambda x, y: F.silu(x),
    "gelu": lambda x, y: F.gelu(y),
    "tanh": lambda x, y: y.tanh(),
    "softmax": lambda x, y: x.softmax(-1),
    "float32 beside": lambda x, y: x + y.float(),
    "a single float32 number": lambda x, y: x * torch.tensor(1.1),
    "clamp": lambda x, y: x.clamp(-5, 5),
}

CURVES = ("exp", "silu", "gelu", "tanh", "softmax")


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equals_native_element_by_element(name: str, dtype: torch.dtype) -> None:
    native = ELEMENTWISE[name](X.to(dtype), Y.to(dtype))
    with Emulation():
        emulated = ELEMENTWISE[name](X.to(dtype), Y.to(dtype))
    assert emulated.dtype == native.dtype
    same = emulated.nan_to_num(7) == native.nan_to_num(7)
    if name not in CURVES:
        assert same.all()
    else:
        # Libraries differ in the last bit of float32 curves (gelu on an EPYC), which changes a rounded tie now and then.
        assert same.float().mean() > 0.998
        bits = torch.finfo(dtype).eps * native.float().abs() + 1e-6
        assert ((emulated.float() - native.float()).abs() <= bits).all()


def test_products_accumulate_in_float32() -> None:
    ones = torch.ones(1, 4096).half()
    with Emulation():
        assert (ones @ ones.T).item() == 4096  # a float16 sum of ones stops at 2048
        x, y = (X / 60).round().half(), (Y * 5).round().half()  # whole numbers: float32 sums them exactly
        product = x @ y.T
    assert torch.equal(product, (x.double() @ y.double().T).half())


def test_results_are_rounded_and_overflow_as_the_format_does() -> None:
    with Emulation():
        assert (torch.tensor([60000.0]).half() * 2).item() == float("inf")
        assert torch.tensor([1.0]).half().add(2.0**-12).item() == 1.0
        assert torch.tensor([300.0]).to(torch.float8_e5m2).mul(1000).item() == float("inf")
        assert torch.tensor([300.0]).to(torch.float8_e4m3fn).mul(1000).float().item() == 448


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_module_runs_in_float8(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 8))
    reference = module(Y)
    narrow = module.to(dtype)
    with torch.no_grad(), Emulation(narrow):
        result = narrow(Y.to(dtype))
    assert result.dtype == dtype
    assert 0.01 < (result.float() - reference).norm() / reference.norm() < 0.2


def test_kept_weights_give_the_same_numbers_and_follow_a_write() -> None:
    module = nn.Linear(64, 64).half()
    with torch.no_grad():
        with Emulation():
            plain = module(Y.half())
        with Emulation(module):
            assert torch.equal(module(Y.half()), plain)
            module.weight.mul_(2)
            module.bias.mul_(2)
            assert torch.equal(module(Y.half()), 2 * plain)


def conversions(module: nn.Module, x: Tensor, shape: list[int]) -> int:
    """How often a call of ``module`` converts a tensor of that shape, by torch's profiler."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        module(x)
    events = seen.key_averages(group_by_input_shape=True)
    return sum(e.count for e in events if e.key == "aten::_to_copy" and e.input_shapes[:1] == [shape])


def test_replaced_weights_are_kept_in_float32_too() -> None:
    """A replan, a fallback or a LoRA replaces weights; the copies of the old ones are dropped."""
    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)).half()
    emulate_module(module, keep=False)
    assert conversions(module, X.half(), [64, 64]) > 0, "without keeping, every call converts"
    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)).half()
    emulate_module(module)
    assert conversions(module, X.half(), [64, 64]) == 0
    old = module[0].weight.data
    module[0].weight.data = 2 * old
    assert conversions(module, X.half(), [64, 64]) == 0
    module[0].weight.data = old
    module[0] = nn.Linear(64, 64).half()
    assert conversions(module, X.half(), [64, 64]) == 0
    with torch.no_grad():
        again = module(Y.half())
        with Emulation():
            assert torch.equal(again, nn.Sequential(*module)(Y.half()))


def test_emulation_works_in_inference_mode() -> None:
    with torch.inference_mode(), Emulation():
        assert F.linear(torch.ones(1, 4096).half(), torch.ones(1, 4096).half()).item() == 4096


def test_an_emulated_module_computes_so_whenever_it_is_called() -> None:
    """A dispatch mode that started before the call sees float16, and no mode stays on afterwards."""
    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)).half()
    with torch.no_grad(), Emulation(module):
        expected = module(Y.half())
    emulate_module(module)
    with torch.no_grad():
        assert torch.equal(module(Y.half()), expected)
        module[0].weight.mul_(2.0**10)  # written outside of the mode: the kept copy must not be used
        assert locate_fault(module, lambda: module(X.half())) == ("0", "addmm")
        with pytest.raises(RuntimeError):
            module(X[:, :3].half())
    assert _get_current_dispatch_mode() is None
