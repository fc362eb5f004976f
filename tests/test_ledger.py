"""Every stored tensor fills a parameter, is known to be harmless, or is refused by name; 8-bit weights are read as they
are meant.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_loading as loading
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from starrynight.cli.inspect import facts
from starrynight.errors import StarryError, Unfit
from starrynight.metadata.recipe import read_own
from starrynight.models import catalogue, load, precision_plan, tensors
from starrynight.models.convert import convert, empty
from starrynight.models.ledger import HARMLESS
from starrynight.painting.painter import Painter

FP8, FP8_WIDE = torch.float8_e4m3fn, torch.float8_e5m2


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {family: tiny.save(family, root / family) for family in ("zimage", "sd", "flux")}
    tiny.FAMILIES["sdxl"](64).save_pretrained(root / "sdxl", safe_serialization=True)
    return made | {"sdxl": root / "sdxl"}


class States(dict[str, dict[str, Tensor]]):
    def __repr__(self) -> str:  # a failing property prints its arguments
        return f"States({list(self)})"


@pytest.fixture(scope="module")
def states() -> States:
    """Single files of each family, in the makers' layout: name → tensor."""
    zimage = tiny.zimage().transformer.state_dict()
    found = {
        "zimage": {
            n: t.contiguous() for n, t in loading.original_layout(zimage, "model.diffusion_model.").items()
        },
        "zimage-diffusers": {n: t.contiguous() for n, t in zimage.items()},
        "flux": {n: t.contiguous() for n, t in tiny.flux().transformer.state_dict().items()},
        "sd": loading.ldm_layout(tiny.sd()),
        "sdxl": loading.sgm_layout(tiny.sdxl(64)),
    }
    return States(found)


FAMILY = {"zimage": "zimage", "zimage-diffusers": "zimage", "flux": "flux", "sd": "sd", "sdxl": "sdxl"}


def loaded(path: Path, base: Path, precision: str = "float32") -> Any:
    model = catalogue.resolve(str(path), base=str(base))
    return load.load(model, precision_plan.choose(model, "cpu", precision))


def written(path: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path, metadata)
    return path


def numbers(pipeline: Any) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, part in load.networks(pipeline).items()
        for key, tensor in part.state_dict().items()
    }


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


# -- the ledger ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FAMILY)
def test_every_tensor_of_a_single_file_is_used(layout, states, folders, tmp_path):
    path = written(tmp_path / "model.safetensors", states[layout])
    pipeline = loaded(path, folders[FAMILY[layout]])
    (ledger,) = [
        ledger for name, ledger in pipeline.ledgers.found.items() if name in (path.name, "transformer")
    ]
    assert (ledger.used, ledger.total, ledger.harmless) == (len(states[layout]), len(states[layout]), ())
    assert_same(numbers(pipeline), numbers(load_folder(folders[FAMILY[layout]])))


def load_folder(folder: Path, precision: str = "float32") -> Any:
    model = catalogue.resolve(str(folder))
    return load.load(model, precision_plan.choose(model, "cpu", precision))


@pytest.mark.parametrize("family", ["zimage", "sd", "sdxl", "flux"])
def test_every_tensor_of_a_folder_is_used(family, folders):
    pipeline = load_folder(folders[family])
    assert pipeline.ledgers.found.keys() == load.networks(pipeline).keys()
    for name, ledger in pipeline.ledgers.found.items():
        assert ledger.used == ledger.total > 0, name


LEFT_OVER = [
    "layers.0.attention.to_q.lora_A.weight", "layers.0.feed_forward.w1.weight_scale_2", "control_layers.0.weight",
    "layers.7.feed_forward.w1.weight", "text_encoders.qwen3.other.weight", "vae.unheard.of", "weight", "x.bias",
    "layers.0.attention.to_q.weight.absmax", "layers.0.attention.smooth_factor", "dora_scale", "a.diff",
]  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OVER)
@pytest.mark.parametrize("layout", ["zimage", "zimage-diffusers"])
def test_a_tensor_that_fills_nothing_is_refused_by_name(layout, name, states, folders, tmp_path):
    path = written(tmp_path / "model.safetensors", states[layout] | {name: torch.ones(3)})
    with pytest.raises(StarryError) as caught:
        loaded(path, folders["zimage"])
    for text in (caught.value.en, caught.value.zh):  # a file that is of another kind is named by its kind
        assert name in text or "LoRA" in text or "ControlNet" in text


@pytest.mark.parametrize("name", LEFT_OVER)
def test_a_tensor_that_fills_nothing_in_a_folder_is_refused_by_name(name, folders, tmp_path):
    folder = Path(shutil.copytree(folders["zimage"], tmp_path / "m"))
    path = loading.weights(folder)
    written(path, tensors.read(path, lambda _: torch.float32).meant | {name: torch.ones(3)}, {"format": "pt"})
    with pytest.raises(StarryError) as caught:
        load_folder(folder)
    assert name in caught.value.en


@pytest.mark.parametrize(
    "name",
    ["alphas_cumprod", "betas", "sqrt_one_minus_alphas_cumprod", "model_ema.decay", "model_ema.diffusion_modelinput_blocks00weight",
     "denoiser.sigmas", "first_stage_model.loss.discriminator.main.0.weight", "conditioner.embedders.1.model.logit_scale",
     "conditioner.embedders.0.transformer.text_model.embeddings.position_ids", "v_pred", "ztsnr"],
)  # fmt: skip
def test_what_changes_nothing_is_counted(name, states, folders, tmp_path):
    path = written(
        tmp_path / "model.safetensors",
        states["sdxl"] | {name: torch.zeros(0 if "_" in name[:2] or name == "ztsnr" else 3)},
    )
    pipeline = loaded(path, folders["sdxl"])
    ledger = pipeline.ledgers.found[path.name]
    assert ledger.total == len(states["sdxl"]) + 1
    assert ledger.harmless == (() if name in ("v_pred", "ztsnr") else (name,))
    assert_same(numbers(pipeline), numbers(load_folder(folders["sdxl"])))


def test_no_harmless_pattern_names_a_parameter(states):
    for layout, state in states.items():
        for name in state:
            matching = [pattern for pattern in HARMLESS if re.search(pattern, name)]
            assert not matching or name.endswith("text_projection"), (layout, name)


# -- formats of 8 bits -----------------------------------------------------------------------------------------------


def per_tensor(weight: Tensor) -> Tensor:
    return (weight.abs().max() / 448).float()


def per_channel(weight: Tensor) -> Tensor:
    return (weight.abs().amax(dim=1, keepdim=True) / 448).float()


def per_block(weight: Tensor) -> Tensor:
    """One scale for each of 2 × 2 blocks."""
    rows, columns = weight.shape[0] // 2, weight.shape[1] // 2
    blocks = weight.reshape(2, rows, 2, columns).abs().amax(dim=(1, 3))
    return (blocks / 448).float()


SCHEMES: dict[str, tuple[str, Callable[[Tensor], Tensor], torch.dtype]] = {
    "kijai": ("scale_weight", lambda w: per_tensor(w).reshape(1), FP8),
    "kijai-e5m2": ("scale_weight", lambda w: per_tensor(w).reshape(1), FP8_WIDE),
    "comfy": ("weight_scale", per_tensor, FP8),
    "channel": ("weight_scale", per_channel, FP8),
    "channel-flat": ("weight_scale", lambda w: per_channel(w).reshape(-1), FP8),
    "channel-half": ("weight_scale", lambda w: per_channel(w).bfloat16(), FP8),
    "block": ("weight_scale_inv", per_block, FP8),
    "int8": ("weight_scale", lambda w: per_channel(w) * 448 / 127, torch.int8),
}


def scaled(
    state: dict[str, Tensor], scheme: str, only: str = "att"
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Matrices of ``state`` in 8 bits with scales, and the same numbers multiplied out in float64. ``only``: a part of the
    names of those that are quantised.
    """
    companion, measure, dtype = SCHEMES[scheme]
    stored, meant = {}, {}
    for name, tensor in state.items():
        stored[name] = meant[name] = tensor
        if tensor.dim() != 2 or only not in name or not name.endswith(".weight"):
            continue
        factor = measure(tensor)
        spread = factor.float()
        if factor.dim() == 2 and factor.shape[1] > 1:
            spread = factor.repeat_interleave(tensor.shape[0] // 2, 0).repeat_interleave(
                tensor.shape[1] // 2, 1
            )
        elif factor.numel() > 1:
            spread = factor.float().reshape(-1, 1)
        narrow = tensor / spread
        stored[name] = narrow.round().to(dtype) if dtype == torch.int8 else narrow.to(dtype)
        stem = name.removesuffix("weight")
        stored[stem + companion] = factor
        meant[name] = (stored[name].double() * spread.double()).float()
        if scheme in ("comfy", "int8"):
            text = json.dumps(
                {"format": "float8_e4m3fn" if scheme == "comfy" else "int8_tensorwise"}
            ).encode()
            stored[stem + "comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
        if scheme == "kijai":
            stored[stem + "scale_input"] = torch.ones(1)
    if scheme.startswith("kijai"):
        stored["scaled_fp8"] = torch.zeros(2, dtype=dtype)
    return stored, meant


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("layout", ["zimage", "zimage-diffusers"])
def test_a_scaled_file_is_the_numbers_that_it_means(layout, scheme, states, folders, tmp_path):
    stored, meant = scaled(states[layout], scheme)
    given_numbers = numbers(loaded(written(tmp_path / "8bit.safetensors", stored), folders["zimage"]))
    expected = numbers(loaded(written(tmp_path / "wide.safetensors", meant), folders["zimage"]))
    assert_same(given_numbers, expected)
    narrow = loaded(tmp_path / "8bit.safetensors", folders["zimage"], "bfloat16").transformer
    for name, tensor in narrow.state_dict().items():
        assert torch.equal(tensor, expected[f"transformer.{name}"].bfloat16()), name


@pytest.mark.parametrize("scheme", ["kijai", "comfy", "channel"])
def test_a_folder_with_scaled_weights_is_the_numbers_that_it_means(scheme, states, folders, tmp_path):
    stored, meant = scaled(states["zimage-diffusers"], scheme)
    pipelines = []
    for name, state in {"8bit": stored, "wide": meant}.items():
        folder = Path(shutil.copytree(folders["zimage"], tmp_path / name))
        written(loading.weights(folder), state, {"format": "pt"})
        pipelines.append(numbers(load_folder(folder)))
    assert_same(*pipelines)


@pytest.mark.parametrize("dtype", [FP8, FP8_WIDE, torch.float16, torch.bfloat16, torch.float64])
def test_a_plain_file_of_any_float_is_cast(dtype, states, folders, tmp_path):
    state = {name: tensor.to(dtype) for name, tensor in states["zimage"].items()}
    found = numbers(loaded(written(tmp_path / "m.safetensors", state), folders["zimage"]))
    wide = {name: tensor.float() for name, tensor in state.items()}
    assert_same(found, numbers(loaded(written(tmp_path / "w.safetensors", wide), folders["zimage"])))


def test_scaled_matrices_of_a_whole_checkpoint(states, folders, tmp_path):
    stored, meant = {}, {}
    for name, tensor in states["sdxl"].items():
        stored[name] = meant[name] = tensor
        if tensor.dim() == 2 and name.startswith("model.diffusion_model.") and name.endswith(".weight"):
            factor = per_tensor(tensor).reshape(1)
            stored[name] = (tensor / factor).to(FP8)
            stored[name.removesuffix("weight") + "scale_weight"] = factor
            meant[name] = stored[name].float() * factor
    found = numbers(loaded(written(tmp_path / "m.safetensors", stored), folders["sdxl"]))
    assert_same(found, numbers(loaded(written(tmp_path / "w.safetensors", meant), folders["sdxl"])))


def damaged(stored: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    name = next(name for name in stored if name.endswith("scale_weight"))
    weight = name.removesuffix("scale_weight") + "weight"
    if how == "scale lost":
        return {key: tensor for key, tensor in stored.items() if key != name}
    if how == "weight lost":
        return {key: tensor for key, tensor in stored.items() if key != weight}
    if how == "weight wide":
        return stored | {weight: stored[weight].float()}
    if how == "two scales":
        return stored | {name.replace("scale_weight", "weight_scale"): stored[name]}
    if how == "odd shape":
        return stored | {name: torch.ones(7)}
    if how in ("scale NaN", "scale Inf", "scale zero"):
        return stored | {name: stored[name] * {"NaN": float("nan"), "Inf": float("inf"), "zero": 0}[how[6:]]}
    form = {"nvfp4": {"format": "nvfp4"}, "no format": {}}.get(how)
    text = b"\xff" if form is None else json.dumps(form).encode()
    return stored | {
        weight.removesuffix("weight") + "comfy_quant": torch.tensor(list(text), dtype=torch.uint8)
    }


@pytest.mark.parametrize(
    "how",
    [
        "scale lost",
        "weight lost",
        "weight wide",
        "two scales",
        "odd shape",
        "scale NaN",
        "scale Inf",
        "scale zero",
        "nvfp4",
        "no format",
        "no JSON",
    ],
)
def test_numbers_without_a_clear_meaning_are_refused_by_name(how, states, folders, tmp_path):
    stored, _ = scaled(states["zimage"], "kijai")
    path = written(tmp_path / "m.safetensors", damaged(stored, how))
    with pytest.raises(StarryError, match="attention"):
        loaded(path, folders["zimage"])


def test_plain_8_bits_beside_scaled_ones_are_read_unless_a_scale_was_lost(states, folders, tmp_path):
    """Embeddings stay unscaled in scaled files; a weight that fills the format's range has lost its scale."""
    stored, meant = scaled(states["zimage"], "kijai")
    name = "model.diffusion_model.cap_embedder.1.weight"
    stored[name] = states["zimage"][name].to(FP8)
    meant[name] = stored[name].float()
    found = numbers(loaded(written(tmp_path / "8bit.safetensors", stored), folders["zimage"]))
    assert_same(found, numbers(loaded(written(tmp_path / "wide.safetensors", meant), folders["zimage"])))
    stored[name] = (states["zimage"][name] / per_tensor(states["zimage"][name])).to(FP8)
    with pytest.raises(Unfit, match=name):
        loaded(written(tmp_path / "lost.safetensors", stored), folders["zimage"])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_whole_numbers_in_place_of_weights_are_refused(dtype, states, folders, tmp_path):
    name = "model.diffusion_model.layers.0.feed_forward.w1.weight"
    state = states["zimage"] | {name: states["zimage"][name].to(dtype)}
    with pytest.raises(Unfit, match=r"layers\.0\.feed_forward\.w1\.weight"):
        loaded(written(tmp_path / "m.safetensors", state), folders["zimage"])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool, torch.complex64])
@pytest.mark.parametrize(
    "name", ["layers.0.feed_forward.w1.weight", "x_pad_token", "all_x_embedder.2-1.bias"]
)
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_numbers_that_are_no_floats_are_refused_wherever_they_are(
    name, dtype, folder, states, folders, tmp_path
):
    file = states["zimage-diffusers"] | {name: states["zimage-diffusers"][name].to(dtype)}
    path = tmp_path / "m.safetensors"
    if folder:
        base = Path(shutil.copytree(folders["zimage"], tmp_path / "m"))
        path = loading.weights(base)
    written(path, file, {"format": "pt"})
    with pytest.raises(Unfit) as caught:
        load_folder(base) if folder else loaded(path, folders["zimage"])
    assert name in caught.value.en
    assert name in caught.value.zh
    assert "Error(s)" not in caught.value.en


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.bool])
def test_a_scale_belongs_to_float8_or_int8(dtype, states, folders, tmp_path):
    stored, _ = scaled(states["zimage"], "kijai")
    name = next(name for name in stored if name.endswith("scale_weight")).replace("scale_weight", "weight")
    with pytest.raises(Unfit, match="is not in 8 bits"):
        loaded(
            written(tmp_path / "m.safetensors", stored | {name: stored[name].float().to(dtype)}),
            folders["zimage"],
        )


# -- a property: the numbers meant, or an error that names a tensor ----------------------------------------------------


@st.composite
def changes(draw: Any) -> list[tuple[str, int]]:
    kinds = st.sampled_from(["drop", "rename", "prefix", "dtype", "swap", "transpose", "copy"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 10**6)), min_size=1, max_size=4))


DTYPES = [torch.float16, torch.bfloat16, torch.float64, FP8, torch.int8, torch.int32]


def changed(
    state: dict[str, Tensor], steps: list[tuple[str, int]]
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """The changed file, and the numbers that it means by the old names; None where it means no model."""
    file, meant = dict(state), dict(state)
    names = sorted(state)
    for kind, number in steps:
        name = names[number % len(names)]
        if name not in file:
            continue
        if kind == "dtype":
            dtype = DTYPES[number // len(names) % len(DTYPES)]
            file[name] = meant[name] = file[name].to(dtype)
            if not dtype.is_floating_point:
                return file, None
        elif kind == "swap":  # of two tensors of one shape: a whole model of other numbers
            other = names[number // len(names) % len(names)]
            if other in file and file[other].shape == file[name].shape:
                file[name], file[other] = file[other], file[name]
                meant[name], meant[other] = meant[other], meant[name]
        elif kind == "transpose" and file[name].dim() == 2 and file[name].shape[0] != file[name].shape[1]:
            return file | {name: file[name].T.contiguous()}, None
        elif kind == "drop":
            return {key: tensor for key, tensor in file.items() if key != name}, None
        elif kind in ("rename", "prefix"):
            new = (
                f"other.{name}"
                if kind == "prefix"
                else name.replace("weight", "wait").replace("bias", "buyers") + "0"
            )
            return {new if key == name else key: tensor for key, tensor in file.items()}, None
        elif kind == "copy":
            return file | {f"copy.{name}": file[name]}, None
    return file, meant


@settings(max_examples=35, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["zimage", "zimage-diffusers", "flux", "sdxl", "sd"]), changes())
def test_the_numbers_meant_or_an_error_that_names_a_tensor(states, folders, tmp_path_factory, layout, change):
    file, meant = changed(states[layout], change)
    path = written(tmp_path_factory.mktemp("property") / "m.safetensors", file)
    base = folders[FAMILY[layout]]
    if meant is not None:
        wide = {name: tensor.float() for name, tensor in meant.items()}
        assert_same(
            numbers(loaded(path, base)), numbers(loaded(written(path.with_name("w.safetensors"), wide), base))
        )
        return
    with pytest.raises(StarryError) as caught:
        loaded(path, base)
    names = {*states[layout], *file, *(name.partition(".")[2] for name in numbers(load_folder(base)))}
    for text in (caught.value.en, caught.value.zh):
        # A file without one of its layout's marks is of no known architecture.
        assert any(name in text for name in names) or "Stable Diffusion XL" in text, text


def test_a_guidance_distilled_flux_keeps_its_guidance(folders, tmp_path):
    """FLUX.1 dev over the base of schnell, and back: the file's tensors decide whether guidance is embedded."""
    import diffusers

    config = diffusers.FluxTransformer2DModel.load_config(folders["flux"] / "transformer")
    torch.manual_seed(3)
    dev = diffusers.FluxTransformer2DModel.from_config({**config, "guidance_embeds": True})
    path = written(tmp_path / "dev.safetensors", dev.state_dict())
    pipeline = loaded(path, folders["flux"])
    assert pipeline.transformer.config.guidance_embeds
    assert_same(dict(pipeline.transformer.state_dict()), dict(dev.state_dict()))
    base = Path(shutil.copytree(folders["flux"], tmp_path / "base"))
    dev.save_pretrained(base / "transformer")
    schnell = tiny.flux().transformer.state_dict()
    assert not loaded(
        written(tmp_path / "schnell.safetensors", schnell), base
    ).transformer.config.guidance_embeds


def test_conversion_reports_what_fills_nothing(folders, states):
    import diffusers

    network = empty(diffusers.ZImageTransformer2DModel, folders["zimage"] / "transformer")
    found = convert(network, {"foreign.weight": torch.ones(2, 2)})
    assert found.state == {}
    assert set(found.missing) == set(network.state_dict())


def test_the_recipe_and_inspect_tell_how_many_tensors_were_used(states, folders, tmp_path):
    path = written(tmp_path / "m.safetensors", states["zimage"] | {"norm_final.weight": torch.ones(32)})
    model = catalogue.resolve(str(path), base=str(folders["zimage"]))
    plan = precision_plan.choose(model, "cpu", "float32")
    painter = Painter(load.load(model, plan), model, plan, torch.device("cpu"), "resident")
    count = len(states["zimage"])
    found = painter.provenance["tensors"]
    assert found["transformer"] == {"used": count, "of": count + 1, "left": ["norm_final.weight"]}
    assert found.keys() == {"transformer", "text_encoder", "vae"}
    rows = dict(facts(read_own({"starry_night": 1, "model": painter.provenance})))
    assert rows["tensors · transformer"] == f"{count} of {count + 1} used"


@pytest.mark.parametrize(
    "model", [None, [], {}, {"tensors": 3}, {"tensors": {"unet": [1]}}, {"tensors": {"unet": {}}}]
)
def test_inspect_reads_recipes_without_counts(model):
    rows = facts(read_own({"starry_night": 1, "model": model}))
    assert not any("tensors" in label for label, _ in rows)
