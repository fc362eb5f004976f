"""Finding faults: NaN, +Inf and −Inf are counted and located at the module and op that made them."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor, nn

from starrynight.numerics.finite import ClampCounter, Fault, find_fault, locate_fault


@pytest.mark.parametrize(("value", "kind"), [(math.nan, "NaN"), (math.inf, "+Inf"), (-math.inf, "−Inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_single_non_finite_number_is_found(value: float, kind: str, dtype: torch.dtype) -> None:
    latents = torch.randn(1, 4, 32, 32).to(dtype)
    assert find_fault(latents, "latents", 3) is None
    latents[0, 2, 5, 7] = value
    assert find_fault(latents, "latents", 3) == Fault("latents", kind, 1, 4096, 3, format=str(dtype)[6:])


def test_zeros_and_the_largest_float16_number_are_no_fault() -> None:
    assert find_fault(torch.zeros(1, 3, 8, 8), "decoder") is None
    assert find_fault(torch.full((4,), 65504.0).half(), "decoder") is None


def test_a_fault_names_its_place_in_both_languages() -> None:
    fault = Fault("prediction", "NaN", 12, 4096, 2, format="float16").at(("layers.7.w2", "mm"))
    assert (
        fault.message("en")
        == "NaN in 12 of 4096 numbers of the prediction, step 3 (float16): layers.7.w2, mm"
    )
    assert fault.message("zh") == "预测的 4096 个数中有 12 个 NaN，第 3 步（float16）：layers.7.w2，mm"


class Overflowing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.full((8, 8), -math.inf, dtype=x.dtype).triu(1)  # a mask is no fault
        hidden = (self.first(x) + mask).softmax(-1)
        return self.third(self.second(hidden))


def test_the_module_and_op_of_an_overflow_are_named() -> None:
    module, x = Overflowing().half(), torch.ones(8, 8).half()
    assert locate_fault(module, lambda: module(x)) is None
    with torch.no_grad():
        module.second.weight.fill_(60000.0)
        module.second.bias.fill_(60000.0)
    place = locate_fault({"transformer": module}, lambda: module(x))
    assert place == ("transformer.second", "addmm")


def test_nan_from_finite_numbers_is_named() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x) / (x - x)

    module = nn.Sequential(nn.Linear(4, 4), Zero())
    assert locate_fault(module, lambda: module(torch.ones(2, 4))) == ("1", "div")


def test_a_cast_that_overflows_is_named_and_a_mask_is_not() -> None:
    class Casting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.full((2, 4), torch.finfo(torch.float32).min).to(
                x.dtype
            )  # −Inf in float16, as a mask may be
            weights = (torch.zeros(2, 4, dtype=x.dtype) + mask.triu(1)).softmax(-1)
            return weights * (x.float() * 1e5).to(x.dtype)  # the product is finite, its rounding is not

    module = nn.Sequential(nn.Identity(), Casting())
    assert locate_fault(module, lambda: module(torch.ones(2, 4).half())) == ("1", "mul")
    assert locate_fault(module, lambda: module(torch.zeros(2, 4).half())) is None


def test_a_non_finite_weight_is_named() -> None:
    module = Overflowing()
    with torch.no_grad():
        module.third.bias[2] = math.nan
    assert locate_fault({"unet": module}, lambda: module(torch.ones(8, 8))) == ("unet.third", "bias")


def test_numbers_that_clamps_change_are_counted() -> None:
    class Clamping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(-2, 2).clamp(-100, 100)

    module, counter = nn.Sequential(Clamping()), ClampCounter()
    with counter.following(module), counter:
        module(torch.tensor([1.0, 3.0, -5.0, math.nan]))  # NaN passes a clamp unchanged
    assert counter.counts == {("0", "clamp"): 2}


def test_checking_latents_costs_microseconds() -> None:
    latents = torch.randn(1, 16, 64, 64)  # a 512 × 512 picture's
    times, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)  # a busy machine makes threads wait for each other, whatever they compute
    for _ in range(50):
        start = time.perf_counter()
        find_fault(latents, "latents")
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    assert min(times) < 1e-3  # 1 % of a step of 0.1 s
