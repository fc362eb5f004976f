"""Products in 8-bit integers: the arithmetic, which layers compute so, what the guard still sees, and where it is refused."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file
from test_kept import adapter
from torch import nn

from starrynight.errors import BadRequest, Unfit
from starrynight.lab import runner
from starrynight.lab.metrics import psnr
from starrynight.lab.plan import ExperimentPlan
from starrynight.lab.run import ExperimentRun
from starrynight.models import catalogue, precision_plan
from starrynight.models.kept import multiplied_out
from starrynight.models.load import networks
from starrynight.numerics import precision
from starrynight.numerics.finite import ClampCounter
from starrynight.numerics.int8 import LEVELS, ZERO, Int8Weight, multiplies_exactly, quantised_rows
from starrynight.numerics.precision import Device, ModelProfile
from starrynight.painting import int8
from starrynight.painting.int8 import Int8Linear
from starrynight.painting.painter import Painter
from starrynight.painting.results import GeneratedImage, Refused
from starrynight.request import PaintRequest

exact = pytest.mark.skipif(not multiplies_exactly(), reason="this CPU or build has no exact 8-bit products")
FAST = Device("cpu", "a CPU", rates={"float32": 100.0, "bfloat16": 200.0, "int8": 400.0})
WITHOUT_BFLOAT16 = Device("cpu", "a laptop", rates={"float32": 100.0, "bfloat16": 3.0, "int8": 300.0})
MODEL = ModelProfile("ZImagePipeline", {"transformer": 10, "text_encoder": 10, "vae": 10})


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


# -- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (2112, 384), (5, 3413), (1025, 700)])
def test_rows_are_rounded_to_the_nearest_integers_of_their_own_scale(shape, dtype):
    torch.manual_seed(0)
    values = (torch.randn(shape) * torch.logspace(-20, 20, shape[0])[:, None]).to(dtype)
    before = values.clone()
    rows, scales = quantised_rows(values)
    assert torch.equal(values, before)
    assert rows.dtype == torch.uint8
    whole = rows.double() - ZERO
    assert whole.abs().max() <= LEVELS
    assert ((whole * scales.double() - values.double()).abs() <= 0.5001 * scales.double()).all()
    assert (scales.double() * LEVELS <= values.double().abs().amax(-1, keepdim=True) * (1 + 2**-8)).all()


@exact
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 128, 128), (77, 300, 200), (2112, 384, 1024), (33, 3413, 1280), (33, 1280, 3413)]
)
def test_a_product_is_that_of_the_rounded_numbers(shape, dtype):
    torch.manual_seed(1)
    count, inputs, outputs = shape
    values, weight = torch.randn(count, inputs) * 50, torch.randn(outputs, inputs) / 7
    packed = Int8Weight.of(weight)
    rows, scales = quantised_rows(values)
    found = packed.multiply(rows, scales, dtype)
    assert found.dtype == dtype
    assert found.shape == (count, outputs)
    whole = packed.integers().double()
    assert torch.equal(whole.abs().amax(1), torch.full((outputs,), float(LEVELS), dtype=torch.double))
    expected = ((rows.double() - ZERO) * scales.double()) @ (whole * packed.scales.double()[:, None]).T
    step = 2**-7 if dtype == torch.bfloat16 else 2**-22
    assert ((found.double() - expected).abs() <= step * expected.abs() + 1e-6).all()
    assert copy.deepcopy(packed).integers().equal(packed.integers())


@exact
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_number_breaks_its_row_and_no_other(bad):
    values = torch.randn(4, 256)
    values[2, 17] = bad
    found = Int8Weight.of(torch.randn(200, 256)).multiply(*quantised_rows(values), torch.bfloat16)
    assert not torch.isfinite(found[2]).any()
    assert torch.isfinite(found[[0, 1, 3]]).all()


@exact
def test_rows_and_weights_of_zeros_give_zeros():
    weight = torch.randn(200, 256)
    weight[3] = 0
    values = torch.randn(4, 256)
    values[1] = 0
    found = Int8Weight.of(weight).multiply(*quantised_rows(values), torch.float32)
    assert (found[1] == 0).all()
    assert (found[:, 3] == 0).all()
    assert (found[[0, 2, 3]][:, :3] != 0).all()


def test_it_clamps_nothing_that_a_count_of_clamps_would_tell():
    counter = ClampCounter()
    with counter:
        quantised_rows(torch.zeros(3, 256))
    assert not counter.counts


@exact
def test_what_was_written_since_is_quantised_anew():
    shared, tensor = int8.SharedInput(), torch.randn(2, 3, 256)
    first = shared.quantised(tensor)
    assert shared.quantised(tensor) is first
    tensor.mul_(2)
    assert not torch.equal(shared.quantised(tensor)[1], first[1])
    del tensor
    assert shared.rows is None


# -- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("device", "around"), [(FAST, "bfloat16"), (WITHOUT_BFLOAT16, "float32")])
def test_the_denoiser_is_in_int8_and_the_rest_as_in_auto(device, around):
    plan, auto = precision.choose(device, MODEL, "int8"), precision.choose(device, MODEL, "auto")
    assert (plan["transformer"].format, plan["transformer"].dtype) == ("int8", around)
    assert [plan[name] for name in ("text_encoder", "vae_decode", "vae_encode")] == [
        auto[name] for name in ("text_encoder", "vae_decode", "vae_encode")
    ]
    assert plan.to_dict()["transformer"]["around"] == around
    assert "around" not in plan.to_dict()["text_encoder"]
    assert precision.choose(device, MODEL, {"transformer": "int8"}) == plan
    assert "int8" not in {choice.format for choice in auto}


SLOW = Device("cpu", "an old CPU", rates={"float32": 100.0, "bfloat16": 90.0, "int8": 110.0})


@pytest.mark.parametrize(
    "device",
    [SLOW, dataclasses.replace(SLOW, rates={}), Device("cuda", "a card", (9, 0)), Device("mps", "a Mac")],
)
def test_where_it_is_no_gain_it_is_refused_by_name(device):
    with pytest.raises(BadRequest, match=f"{device.name} is none") as refused:
        precision.choose(device, MODEL, "int8")
    assert device.name in refused.value.zh


def test_other_components_have_no_such_format():
    with pytest.raises(BadRequest, match="“int8” is not a precision of text_encoder"):
        precision.choose(FAST, MODEL, {"text_encoder": "int8"})


# -- pictures --------------------------------------------------------------------------------------------------------


def painter_of(model: str, device: Device = FAST, **changes: Any) -> Painter:
    spec = catalogue.find(model)
    plan = precision_plan.decide(catalogue.resolve(spec), device, "int8")
    return Painter.ready(request_of(model, **changes), plan, device="cpu")


def request_of(model: str, **changes: Any) -> PaintRequest:
    plain: dict[str, Any] = {
        "prompt": "星夜下的静谧村庄",
        "model": model,
        "width": 256,
        "height": 256,
        "seed": 5,
    }
    return PaintRequest(**{**plain, "steps": 4, "guidance": 2.0, "precision": "int8", **changes})


def painted(painter: Painter, request: PaintRequest) -> list[GeneratedImage]:
    found = list(painter.paint(request))
    assert not any(isinstance(one, Refused) for one in found)
    return found  # type: ignore[return-value]


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STARRY_HOME", str(tmp_path_factory.mktemp("home")))
        yield painter_of("firefly")


@exact
def test_firefly_in_int8_is_near_float32_and_the_same_twice(ready):
    request = request_of("firefly", count=2)
    first, second = painted(ready, request)
    wide = Painter.ready(request.replace(precision="float32"), device="cpu")
    references = painted(wide, request.replace(precision="float32"))
    for one, reference in zip((first, second), references, strict=True):
        # 42 and more; beyond 60 it would not have been int8
        assert 36 < psnr(one.pixels, reference.pixels) < 60
    again = painted(ready, request.replace(count=1, seed=6))
    assert np.array_equal(again[0].pixels, second.pixels)


@exact
def test_only_layers_of_sequences_are_in_int8_and_their_weights_lie_there_once(ready):
    layers = {
        name: type(layer) for name, layer in ready.denoiser.named_modules() if isinstance(layer, nn.Linear)
    }
    changed = {name for name, kind in layers.items() if kind is Int8Linear}
    assert {f"layers.{n}.attention.to_q" for n in range(4)} <= changed
    assert {f"layers.{n}.feed_forward.w2" for n in range(4)} <= changed
    assert not {name for name in changed if "adaLN" in name or "embedder" in name or "final_layer" in name}
    assert not {name for name, _ in ready.denoiser.named_parameters()} & {
        f"{name}.weight" for name in changed
    }
    assert ready.plan["transformer"].format == "int8"


@exact
def test_verify_names_the_format_and_tells_the_products_error(ready):
    (image,) = painted(ready, request_of("firefly", verify=True))
    assert image.verdict.verified.format == "int8"
    assert 0.001 < image.verdict.verified.error < 0.1


@exact
def test_multiplied_out_it_is_a_plain_layer_and_back_it_is_itself(ready):
    layer = ready.denoiser.get_submodule("layers.0.attention.to_q")
    given = torch.randn(2, 40, layer.in_features).bfloat16()
    with torch.no_grad():
        before, integers = layer(given), layer.int8.integers()
        with multiplied_out(ready.denoiser.modules()):
            assert type(layer) is nn.Linear
            plain = layer(given)
        assert type(layer) is Int8Linear
        assert torch.equal(layer(given), before)
        assert torch.equal(layer.int8.integers(), integers)
    assert 0 < ((plain - before).float().norm() / plain.float().norm()) < 0.03


@exact
@pytest.mark.parametrize("kind", ["LoRA", "LoKr"])
def test_a_lora_is_applied_and_leaves_nothing(kind, ready, tmp_path):
    torch.manual_seed(4)
    layers = [f"layers.{n}.attention.to_q" for n in range(2)]
    save_file(adapter(kind, layers, 384, 16), tmp_path / "l.safetensors")
    request = request_of("firefly")
    (before,) = painted(ready, request)
    (under,) = painted(ready, request.replace(loras=((str(tmp_path / "l.safetensors"), 0.5),)))
    (after,) = painted(ready, request)
    assert psnr(under.pixels, before.pixels) < 40
    assert np.array_equal(after.pixels, before.pixels)


@exact
def test_int8_hides_no_broken_number(ready):
    layer = ready.denoiser.get_submodule("layers.1.feed_forward.w2")
    scales, image = layer.int8.scales.clone(), painted(ready, request_of("firefly"))[0]
    try:
        layer.int8.scales[7] = math.inf
        (refused,) = ready.paint(request_of("firefly"))
        assert isinstance(refused, Refused)
        assert {attempt.name for attempt in refused.verdict.attempts} >= {"islands", "float32"}
    finally:
        layer.int8.scales.copy_(scales)
    assert np.array_equal(painted(ready, request_of("firefly"))[0].pixels, image.pixels)


@exact
def test_without_bfloat16_everything_around_is_float32():
    painter = painter_of("firefly", WITHOUT_BFLOAT16)
    (image,) = painted(painter, request_of("firefly"))
    assert {parameter.dtype for parameter in painter.denoiser.parameters()} == {torch.float32}
    assert image.verdict.outcome == "hang"


@exact
def test_the_lab_tells_what_it_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(precision_plan, "_probed", lambda kind: FAST)
    plan = ExperimentPlan(
        models=("firefly",), formats=("int8",), size=128, steps=2, prompts=1, seeds=1, counted=1, repeats=1,
        claims=("C1", "C3", "X3"),
    )  # fmt: skip
    run = ExperimentRun.create(tmp_path / "run", plan)
    runner.measure(run, "cpu")
    rows = {row["experiment"]: row["result"] for row in run.rows.values() if row["format"] == "int8"}
    assert 0.05 < rows["colour"]["mean"] < 3
    widths = [layer for layer in rows["layers"]["layers"] if layer["name"] == "layers.0.attention"]
    assert -60 < widths[0]["born"] < -20
    reference = next(
        row["result"] for row in run.rows.values() if row["key"].startswith("layers|firefly|float32")
    )
    assert [layer["name"] for layer in rows["layers"]["layers"]] == [
        layer["name"] for layer in reference["layers"]
    ]
    plain = Painter.ready(request_of("firefly", precision="bfloat16"), device="cpu")
    held = sum(
        tensor.nbytes
        for part in networks(plain.pipeline).values()
        for tensor in (*part.parameters(), *part.buffers())
    )
    assert rows["memory"]["weights"] < 0.8 * held


@exact
@pytest.mark.parametrize("family", ["zimage", "sd", "sdxl", "flux"])
def test_every_family_computes_so_or_says_why_not(family, tmp_path, monkeypatch):
    folder = tiny.save(family, tmp_path / family)
    small = {"width": 64, "height": 64, "prompt": "a village", "steps": 2}
    monkeypatch.setattr(catalogue, "LOWEST_SIZE", 64)
    with pytest.raises(Unfit, match="has no linear layer of 128"):
        painter_of(str(folder), **small)
    monkeypatch.setattr(int8, "NARROWEST", 8)
    painter = painter_of(str(folder), **small)
    (image,) = painted(painter, request_of(str(folder), **small))
    assert np.isfinite(image.pixels).all()
    assert sum(isinstance(layer, Int8Linear) for layer in painter.denoiser.modules()) > 3
