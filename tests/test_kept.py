"""Weights that stay packed in memory are the numbers of weights multiplied out on loading, bit for bit, in every format, layer,
fallback and LoRA; and the precision plan keeps them so where memory asks for it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
import test_ledger
import test_packed
import tiny
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from safetensors.torch import load_file, save_file
from test_ledger import FP8, FP8_WIDE
from torch import Tensor, nn

from starrynight.cli.inspect import facts
from starrynight.errors import BadRequest
from starrynight.metadata.recipe import read_own
from starrynight.models import catalogue, gguf, load, precision_plan
from starrynight.models.kept import (
    KEPT,
    KeptLayer,
    PackedWeight,
    count_kept,
    eight_bits,
    keep,
    multiplied_out,
)
from starrynight.numerics import packing, precision
from starrynight.numerics.precision import Device, ModelProfile, PackedWeights, PrecisionPlan
from starrynight.painting import fallback
from starrynight.painting.painter import Painter
from starrynight.picture import make_recipe
from starrynight.request import PaintRequest
from starrynight.verdict import Fault

folders, states = test_ledger.folders, test_ledger.states  # fixtures
FAMILY = test_ledger.FAMILY
PLAIN = {"fp8": FP8, "fp8-wide": FP8_WIDE}
CASES = [
    ("zimage", "fp8"), ("zimage", "kijai-e5m2"), ("zimage", "comfy"), ("zimage", "channel-flat"), ("zimage", "Q5_1"),
    ("zimage-diffusers", "block"), ("zimage-diffusers", "channel-half"), ("zimage-diffusers", "Q8_0"), ("flux", "int8"),
    ("flux", "kijai"), ("flux", "Q4_0"), ("sd", "fp8-wide"), ("sdxl", "fp8"), ("sdxl", "channel"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


def write(path: Path, state: dict[str, Tensor], form: str) -> Path:
    """``state`` in a format whose weights can be kept; matrices and, in plain float8, convolutions."""
    if form in PLAIN:
        stored = {
            n: t.to(PLAIN[form]) if t.dim() > 1 and n.endswith("weight") else t for n, t in state.items()
        }
    elif form in test_ledger.SCHEMES:
        stored, _ = test_ledger.scaled(state, form, "att" if form == "block" else "")
    else:
        path = path.with_suffix(".gguf")
        test_packed.write_gguf(path, state, form)
        return path
    save_file({name: tensor.contiguous().clone() for name, tensor in stored.items()}, path)
    return path


def local(path: Path, base: Path | None) -> Any:
    spec = catalogue.find(str(path), base=str(base) if base else None)
    return catalogue.resolve(dataclasses.replace(spec, smallest=32, largest=1024))


def plans(model: Any, precision_: str) -> tuple[PrecisionPlan, PrecisionPlan]:
    """The same plan with weights multiplied out, and kept by a budget of a single byte. On a CPU without fast float16 the
    plan would emulate it, which excludes the other; here it computes as on a card.
    """

    def choose(budget: int | None) -> PrecisionPlan:
        plan = precision_plan.choose(model, "cpu", precision_, budget)
        wanted = [
            c
            for c in plan
            if c.emulated and not c.folded and budget and c.stored and c.component != "vae_decode"
        ]
        plan = plan.replaced(*(dataclasses.replace(choice, kept=True) for choice in wanted))
        return PrecisionPlan(tuple(dataclasses.replace(choice, emulated=False) for choice in plan))

    out, kept = choose(None), choose(1)
    assert not any(choice.kept for choice in out)
    assert any(choice.kept or choice.folded for choice in kept)
    assert [c.format for c in out] == [c.format for c in kept]
    return out, kept


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{own}": tensor.detach()
        for name, module in network.named_modules()
        for own in ("weight", "bias")
        if (tensor := getattr(module, own, None)) is not None
    }


def painter_of(model: Any, plan: PrecisionPlan) -> Painter:
    return Painter(load.load(model, plan), model, plan, torch.device("cpu"), "resident")


def painted(painter: Painter, loras: Any = (), **more: Any) -> Any:
    request = PaintRequest(
        prompt="a village", width=64, height=64, steps=2, seed=3, guidance=2.0, loras=loras, **more
    )
    (result,) = painter.paint(request)
    return result


# -- numbers and pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "form"), CASES)
def test_kept_weights_are_those_multiplied_out(layout, form, states, folders, tmp_path):
    model = local(write(tmp_path / "m.safetensors", states[layout], form), folders[FAMILY[layout]])
    out, kept = (load.load(model, plan) for plan in plans(model, "bfloat16"))
    name = load.denoiser_name(kept)
    network = getattr(kept, name)
    assert count_kept(network) > 0
    assert count_kept(getattr(out, name)) == count_kept(kept.vae) == 0
    found, expected = weights_of(network), weights_of(getattr(out, name))
    assert found.keys() == expected.keys()
    for key in expected:
        assert found[key].dtype == expected[key].dtype, key
        assert torch.equal(found[key], expected[key]), key


def bytes_of(network: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))


@pytest.mark.parametrize(
    ("layout", "form", "precision_"),
    [
        ("zimage", "kijai", "bfloat16"),
        ("zimage-diffusers", "Q4_0", "float16"),
        ("flux", "channel", "bfloat16"),
        ("sdxl", "fp8", "float32"),
        ("sd", "int8", "bfloat16"),
    ],
)
def test_a_picture_of_kept_weights_is_that_of_weights_multiplied_out(
    layout,
    form,
    precision_,
    states,
    folders,
    tmp_path,
):
    model = local(write(tmp_path / "m.safetensors", states[layout], form), folders[FAMILY[layout]])
    out, kept = (painter_of(model, plan) for plan in plans(model, precision_))
    one, other = painted(out), painted(kept)
    assert np.array_equal(one.pixels, other.pixels)
    assert one.verdict == other.verdict
    assert bytes_of(kept.denoiser) < bytes_of(out.denoiser)
    ledger = kept.provenance["tensors"]
    (entry,) = [entry for entry in ledger.values() if "kept" in entry]
    assert entry["kept"] == sum(count_kept(part) for part in load.networks(kept.pipeline).values())
    rows = dict(facts(read_own({"starry_night": 1, "model": kept.provenance, "plan": kept.plan.to_dict()})))
    name = load.denoiser_name(kept.pipeline)
    assert rows[f"weights · {name}"].endswith(f", computed in {precision_}, kept packed in memory")
    assert f"{entry['kept']} kept packed" in " ".join(rows.values())


@pytest.mark.parametrize("component", ["transformer", "text_encoder"])
def test_components_of_a_folder_are_kept_too(component, folders, tmp_path):
    folder = Path(shutil.copytree(folders["zimage"], tmp_path / "m"))
    (file,) = (folder / component).glob("*.safetensors")
    stored = {n: t.to(FP8) if t.dim() > 1 and n.endswith("weight") else t for n, t in load_file(file).items()}
    save_file(stored, file, {"format": "pt"})
    model = local(folder, None)
    out, kept = (painter_of(model, plan) for plan in plans(model, "bfloat16"))
    assert count_kept(getattr(kept.pipeline, component)) > 0
    assert kept.plan[component].stored == "F8_E4M3, F32"
    assert np.array_equal(painted(out).pixels, painted(kept).pixels)


@pytest.mark.parametrize("dtype", sorted(gguf.ON_DEVICE))
def test_every_gguf_type_is_kept_as_ggml_means_it(dtype):
    kind = GGMLQuantizationType[dtype]
    block, size = GGML_QUANT_SIZES[kind]
    data = np.random.default_rng(1).integers(0, 256, (6, 2 * size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        meant = torch.from_numpy(package.quants.dequantize(data, kind))
    layer = nn.ModuleDict({"x": nn.Linear(2 * block, 6, bias=False, device="meta")})
    keep(
        layer, "x.weight", PackedWeight(dtype, torch.Size(meant.shape), torch.from_numpy(data)), torch.float32
    )
    torch.testing.assert_close(layer["x"].weight, meant, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(
        layer["x"].numbers(torch.tensor([4, 1])), meant[[4, 1]], rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Embedding(9, 4, padding_idx=0),
    ],
    ids=repr,
)
def test_every_kind_of_layer_computes_as_the_plain_one(layer):
    torch.manual_seed(0)
    given = torch.randn(2, layer.in_channels, 5, 5) if isinstance(layer, nn.Conv2d) else torch.randn(3, 6)
    given = torch.randint(9, (2, 5)) if isinstance(layer, nn.Embedding) else given.bfloat16()
    packed = eight_bits(layer.weight.data.to(FP8), torch.rand(len(layer.weight), 1))
    layer = layer.bfloat16()
    layer.weight.data = packed.numbers(torch.bfloat16)
    network, expected = nn.ModuleDict({"x": layer}), layer(given)
    keep(network, "x.weight", packed, torch.bfloat16)
    assert isinstance(layer, KeptLayer)
    assert torch.equal(layer(given), expected)
    with multiplied_out(network.modules()):
        assert type(layer) in KEPT
        assert torch.equal(layer(given), expected)
    assert isinstance(layer, KeptLayer)
    assert torch.equal(layer(given), expected)
    assert (
        network.to(torch.float16).to("cpu")["x"].weight.dtype == torch.bfloat16
    )  # no cast reaches packed bytes


def test_numbers_are_the_same_however_many_are_decoded_at_a_time(monkeypatch):
    packed = eight_bits(torch.randn(7, 10).to(FP8), torch.rand(7, 2), 5)
    whole = packed.numbers(torch.float16)
    monkeypatch.setattr("starrynight.models.kept.CHUNK", 11)
    assert torch.equal(packed.numbers(torch.float16), whole)


# -- what works on weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_fallbacks_widen_kept_weights_as_they_widen_plain_ones(name, states, folders, tmp_path):
    model = local(write(tmp_path / "m.safetensors", states["zimage"], "kijai"), folders["zimage"])
    found = []
    for plan in plans(model, "float16"):
        pipeline = load.load(model, plan)
        part = fallback.components_of(pipeline, frozenset(("bfloat16", "float16")), dict)["transformer"]
        assert part.half() == torch.float16
        (one,) = [one for one in fallback.FALLBACKS if one.name == name]
        fault = Fault("prediction", "NaN", 1, 1, module="transformer.layers.0.attention.to_q")
        before = weights_of(pipeline.transformer)
        assert one.change(part, fault) == ""
        found.append(weights_of(pipeline.transformer))
        assert part.held() == getattr(torch, name)
        part.restore()
        after = weights_of(pipeline.transformer)
        assert all(
            torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before
        )
    out, kept = found
    assert all(torch.equal(out[key], kept[key]) and out[key].dtype == kept[key].dtype for key in out)


def test_a_weight_that_rounding_made_infinite_is_read_again(tmp_path):
    packed = eight_bits(torch.full((2, 2), 400.0).to(FP8), torch.full((1, 1), 1000.0))
    network = nn.ModuleDict({"x": nn.Linear(2, 2, bias=False, device="meta")})
    keep(network, "x.weight", packed, torch.float16)
    part = fallback.Component("transformer", {"transformer": network})
    assert bool(network["x"].weight.isinf().all())
    part.recast(torch.float32)
    assert network["x"].weight.tolist() == packed.numbers(torch.float32).tolist()


def adapter(kind: str, layers: list[str], width: int, outer: int) -> dict[str, Tensor]:
    """A LoRA of square layers of a transformer, or a LoKr whose first factor is [outer, outer]."""
    parts: dict[str, Tensor] = {}
    for layer in layers:
        if kind == "LoRA":
            parts[f"transformer.{layer}.lora_A.weight"] = torch.randn(2, width)
            parts[f"transformer.{layer}.lora_B.weight"] = torch.randn(width, 2)
        else:
            flat, inner = "lycoris_" + layer.replace(".", "_"), width // outer
            parts |= {
                f"{flat}.lokr_w1": torch.randn(outer, outer),
                f"{flat}.lokr_w2": torch.randn(inner, inner),
            }
    return parts


@pytest.mark.parametrize("kind", ["LoRA", "LoKr"])
def test_a_lora_over_kept_weights_paints_as_over_plain_ones(kind, states, folders, tmp_path):
    model = local(write(tmp_path / "m.safetensors", states["zimage-diffusers"], "kijai"), folders["zimage"])
    torch.manual_seed(4)
    layers = [f"layers.{n}.attention.to_{own}" for n in range(2) for own in "qkv"]
    save_file(adapter(kind, layers, 32, 4), tmp_path / "l.safetensors")
    loras = ((str(tmp_path / "l.safetensors"), 0.7),)
    out, kept = (painter_of(model, plan) for plan in plans(model, "bfloat16"))
    plain = painted(kept).pixels
    assert np.array_equal(painted(out, loras).pixels, painted(kept, loras).pixels)
    (fit,) = kept.fits
    assert fit.multiplied_out == (0 if kind == "LoRA" else len(layers))
    assert ("multiplied out" in fit.message().en) == ("还原" in fit.message().zh) == (kind == "LoKr")
    again = painted(kept).pixels
    assert np.array_equal(again, plain)
    assert not np.array_equal(painted(out, loras).pixels, plain)


def test_weights_to_be_folded_are_multiplied_out(states, folders, tmp_path):
    model = local(write(tmp_path / "m.safetensors", states["zimage"], "kijai"), folders["zimage"])
    _, kept = plans(model, "float16-folded")
    assert all(not choice.kept for choice in kept if choice.folded)
    assert any(choice.folded for choice in kept)


def test_offloading_moves_packed_bytes(states, folders, tmp_path):
    """accelerate's layer-by-layer offload, which needs no accelerator when the device is the CPU."""
    from accelerate import cpu_offload

    model = local(write(tmp_path / "m.safetensors", states["zimage"], "comfy"), folders["zimage"])
    _, plan = plans(model, "bfloat16")
    plain = painted(painter_of(model, plan)).pixels
    painter = painter_of(model, plan)
    cpu_offload(painter.denoiser, torch.device("cpu"), offload_buffers=False)
    layer = painter.denoiser.layers[0].attention.to_q
    assert layer.packed_data.is_meta
    assert np.array_equal(painted(painter).pixels, plain)
    assert layer.packed_data.is_meta


# -- the precision plan ----------------------------------------------------------------------------------------------

CARD = Device("cuda", "NVIDIA GeForce RTX 4070", capability=(8, 9), memory=12 * 2**30)
BILLION = 10**9


def profile(quantised: bool = True, **more: Any) -> ModelProfile:
    counts = {"transformer": 6 * BILLION, "text_encoder": 4 * BILLION, "vae": BILLION // 12}
    own = PackedWeights(6 * BILLION, 4 * BILLION)
    said = {"stored": {"transformer": "GGUF Q4_K, F32"}, "packed": {"transformer": own}} if quantised else {}
    return ModelProfile("ZImagePipeline", counts, **{**said, **more})


def decided(
    device: Device, model: ModelProfile, asked: str = "auto", wanted: bool = False
) -> dict[str, bool]:
    plan = packing.keep_packed(device, model, precision.choose(device, model, asked), wanted)
    return {choice.component: choice.kept for choice in plan}


@pytest.mark.parametrize(("memory", "kept"), [(8, True), (12, True), (16, False), (24, False), (0, False)])
def test_a_component_that_does_not_fit_a_card_stays_packed(memory, kept):
    found = decided(dataclasses.replace(CARD, memory=memory * 2**30), profile())
    assert found == {"transformer": kept, "text_encoder": False, "vae_decode": False, "vae_encode": False}


@pytest.mark.parametrize(("memory", "kept"), [(16, True), (20, True), (32, False)])
def test_on_a_cpu_all_components_lie_in_memory_together(memory, kept):
    here = Device("cpu", memory=memory * 2**30, rates={"float32": 1.0, "bfloat16": 4.0})
    assert decided(here, profile())["transformer"] is kept


def test_what_is_folded_or_emulated_or_no_smaller_is_multiplied_out():
    folded = profile(folded=frozenset(("transformer",)))
    assert not decided(CARD, folded, "float16-folded")["transformer"]
    slow = Device("cpu", memory=2**30, rates={"float32": 4.0, "float16": 1.0})
    assert not decided(slow, profile(), "float16")["transformer"]
    wide = profile(packed={"transformer": PackedWeights(10, 20)})
    assert not decided(CARD, wide)["transformer"]
    assert not any(decided(CARD, profile(quantised=False)).values())


@pytest.mark.parametrize("memory", [0, 24, 512])
def test_asked_for_they_stay_packed_however_much_memory_there_is(memory):
    roomy = dataclasses.replace(CARD, memory=memory * 2**30)
    assert decided(roomy, profile(), wanted=True) == {
        "transformer": True, "text_encoder": False, "vae_decode": False, "vae_encode": False,
    }  # fmt: skip
    plan = packing.keep_packed(roomy, profile(), precision.choose(roomy, profile()), True)
    assert "asked to be kept packed" in plan["transformer"].reason_en
    assert "按要求" in plan["transformer"].reason_zh


def test_asked_for_where_nothing_can_stay_packed_it_is_refused_with_the_reason():
    folded = profile(folded=frozenset(("transformer",)))
    slow = Device("cpu", memory=2**30, rates={"float32": 4.0, "float16": 1.0})
    wide = profile(packed={"transformer": PackedWeights(10, 20)})
    for device, model, asked, words in (
        (CARD, profile(quantised=False), "auto", "No weights of this model"), (CARD, folded, "float16-folded", "float16-folded"),
        (slow, profile(), "float16", "emulated"), (CARD, wide, "bfloat16", "no larger"),
    ):  # fmt: skip
        with pytest.raises(BadRequest, match=words) as caught:
            decided(device, model, asked, wanted=True)
        assert caught.value.param == "keep_packed"


def test_a_request_that_asks_for_it_paints_the_same_picture_and_says_so(folders, tmp_path):
    """Through ``Painter.ready``; recipe, command and id tell it, and a painter is not shared with a request that does not ask."""
    folder = Path(shutil.copytree(folders["zimage"], tmp_path / "m"))
    (file,) = (folder / "transformer").glob("*.safetensors")
    save_file(
        {n: t.to(FP8) if t.dim() > 1 and n.endswith("weight") else t for n, t in load_file(file).items()},
        file,
    )
    plain = PaintRequest(
        prompt="a village", model=str(folder), width=64, height=64, steps=2, seed=3, precision="float32"
    )
    asked = plain.replace(keep_packed=True)
    assert "keep_packed" not in plain.to_dict()
    assert asked.id != plain.id
    painters = {request: Painter.ready(request, device="cpu") for request in (plain, asked)}
    assert not painters[plain].serves(asked, "cpu")
    found = {request: tiny.pixels_of(*painter.paint(request)) for request, painter in painters.items()}
    assert np.array_equal(found[plain], found[asked])
    kept = {request: count_kept(load.denoiser(painter.pipeline)) for request, painter in painters.items()}
    assert kept[plain] == 0 < kept[asked]
    recipe = make_recipe(asked, plan=painters[asked].plan.to_dict())
    assert recipe["plan"]["transformer"]["kept"] is True
    assert "--keep-packed" in read_own(recipe).command()
    assert PaintRequest.from_dict(read_own(recipe).request()).keep_packed


def test_the_reason_says_so_in_both_languages_and_the_recipe_keeps_it():
    plan = packing.keep_packed(CARD, profile(), precision.choose(CARD, profile()))
    entry = plan.to_dict()["transformer"]
    assert entry["kept"] is True
    assert entry["stored"] == "GGUF Q4_K, F32"
    assert "11 GB in bfloat16 are too much for 12 GB" in entry["reason_en"]
    assert "保持原存储格式" in entry["reason_zh"]
    assert not {"kept", "stored"} & plan.to_dict()["text_encoder"].keys()


def test_a_fault_names_the_stored_format_and_old_recipes_are_read():
    fault = Fault("prediction", "NaN", 1, 4, 2, format="float16", stored="GGUF Q4_K, F32")
    assert "(GGUF Q4_K, F32, computed in float16)" in fault.message("en")
    assert "（GGUF Q4_K, F32，以 float16 计算）" in fault.message("zh")
    attempt = fallback_attempt(fault)
    assert attempt.to_dict()["fault"]["stored"] == "GGUF Q4_K, F32"
    plain = fallback_attempt(dataclasses.replace(fault, stored=""))
    assert "stored" not in plain.to_dict()["fault"]
    assert type(plain).from_dict(plain.to_dict()) == plain


def fallback_attempt(fault: Fault) -> Any:
    from starrynight.verdict import FallbackAttempt

    return FallbackAttempt("float32", fault, True)


def test_a_refused_picture_of_a_quantised_file_names_its_format(states, folders, tmp_path):
    stored, _ = test_ledger.scaled(states["zimage"], "kijai")
    scale = next(name for name in stored if name.endswith("scale_weight"))
    stored = {name: tensor.contiguous().clone() for name, tensor in stored.items()}
    stored[scale.removesuffix("scale_weight") + "weight"].view(torch.uint8)[0, 0] = 0x7F  # NaN in e4m3
    path = tmp_path / "m.safetensors"
    save_file(stored, path)
    model = local(path, folders["zimage"])
    for plan in plans(model, "bfloat16"):
        refused = painted(painter_of(model, plan))
        assert "F8_E4M3, F32, computed in bfloat16" in refused.error.en
        assert "F8_E4M3, F32，以 bfloat16 计算" in refused.error.zh


@pytest.mark.parametrize("form", ["kijai", "int8", "Q8_0"])
def test_a_fold_is_not_written_from_packed_weights(form, states, folders, tmp_path):
    from starrynight.errors import Unfit
    from starrynight.folding import export

    model = local(write(tmp_path / "m.safetensors", states["zimage"], form), folders["zimage"])
    with pytest.raises(Unfit, match=r"transformer .* is stored as"):
        export.write(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_labs_rows_and_its_advice_name_the_stored_format(states, folders, tmp_path):
    from starrynight.lab import advice, formats
    from starrynight.lab.plan import ExperimentPlan, Point
    from starrynight.lab.run import ExperimentRun

    folder = Path(shutil.copytree(folders["zimage"], tmp_path / "m"))
    (file,) = (folder / "transformer").glob("*.safetensors")
    save_file(test_ledger.scaled(states["zimage-diffusers"], "kijai")[0], file, {"format": "pt"})
    stored = formats.stored(str(folder))
    assert stored == {"transformer": "F8_E4M3, F32"}
    run = ExperimentRun.create(tmp_path / "run", ExperimentPlan(models=(str(folder),)))
    run.add(Point("facts", str(folder), "bfloat16"), {}, 1.0, 1.0, 0.0, stored)
    run.add(Point("facts", "firefly", "bfloat16"), {}, 1.0, 1.0, 0.0, formats.stored("firefly"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert [row.get("stored") for row in rows] == [stored, None]
    said = advice.advise(str(folder))
    assert "transformer: F8_E4M3, F32, computed in" in said.en
    assert "transformer：F8_E4M3, F32，计算用" in said.zh
