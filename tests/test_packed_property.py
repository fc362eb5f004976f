"""A property of packed files: whatever is dropped, renamed, cast, exchanged or laid into another shard, the network holds the
numbers meant, multiplied out and kept packed alike, or there is an error that names a tensor. Never a third thing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import test_ledger
import test_packed
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_kept import local, plans, weights_of
from torch import Tensor

from starrynight.errors import StarryError, Unfit
from starrynight.models import load
from starrynight.models.ledger import HARMLESS

State = dict[str, Tensor]
folders, states = test_ledger.folders, test_ledger.states  # fixtures
FORMS = [
    "kijai",
    "kijai-e5m2",
    "comfy",
    "channel",
    "channel-flat",
    "block",
    "int8",
    "fp8",
    "Q8_0",
    "Q4_0",
    "bitsandbytes",
]
SCALES = ("scale_weight", "weight_scale", "weight_scale_inv", "SCB")
# What may be missing without a change of the numbers meant; int8's description may not, because int8 beside a
# weight_scale alone is compressed-tensors.
NEEDLESS = ("scaled_fp8", "scale_input")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


def packed(state: State, form: str) -> State:
    if form == "fp8":
        return {n: t.to(test_ledger.FP8) if t.dim() == 2 else t for n, t in state.items()}
    if form != "bitsandbytes":
        return test_ledger.scaled(state, form)[0]
    stored = dict(state)
    for name, tensor in state.items():
        if tensor.dim() == 2 and "attention" in name:
            scale = tensor.abs().amax(1).clamp_min(1e-6)
            stored[name] = (tensor / scale[:, None] * 127).round().to(torch.int8)
            stored[name.removesuffix("weight") + "SCB"] = scale
    return stored


def meaning(stored: State) -> State:
    """The numbers that a file means, in float64, computed by the definition of each format."""
    found = {}
    for name, tensor in stored.items():
        stem, _, last = name.rpartition(".")
        if last in (*SCALES, *NEEDLESS, "comfy_quant", "scaled_fp8"):
            continue
        wide = tensor.double()
        for scale in (stored.get(f"{stem}.{last}") for last in SCALES):
            if scale is not None and last == "weight":
                factor = scale.float()
                if scale is stored.get(f"{stem}.SCB"):
                    factor = factor / 127
                if factor.dim() == 2 and factor.shape[1] > 1:
                    rows, columns = (
                        size // count for size, count in zip(tensor.shape, factor.shape, strict=True)
                    )
                    factor = factor.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
                wide = wide * factor.double().reshape(factor.shape if factor.dim() == 2 else (-1, 1))
        found[name] = wide
    return {name: wide.float() for name, wide in found.items()}


KINDS = (
    "drop",
    "rename",
    "scale dtype",
    "scale shape",
    "exchange scales",
    "whole scale",
    "odd scale",
    "shards",
)


@st.composite
def changes(draw: Any) -> list[tuple[str, int]]:
    return draw(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 10**6)), min_size=1, max_size=3))


def changed(stored: State, steps: list[tuple[str, int]]) -> tuple[State, bool]:
    """The changed file, and whether it still means a model."""
    file = dict(stored)
    scales = sorted(name for name in stored if name.endswith(SCALES))
    for kind, number in steps:
        name = sorted(stored)[number % len(stored)]
        scale = scales[number % len(scales)] if scales else ""
        if kind in ("drop", "rename"):
            rest = {key: tensor for key, tensor in file.items() if key != name}
            if name not in file:
                continue
            if kind == "rename":
                return rest | {f"other.{name}x": file[name]}, False
            told = (
                name.endswith("comfy_quant")
                and file[name.replace("comfy_quant", "weight")].dtype != torch.int8
            )
            if not (told or name.endswith(NEEDLESS)):
                return rest, False
            file = rest
        elif not scale or scale not in file:
            continue
        elif kind == "scale dtype":
            file[scale] = file[scale].to((torch.float16, torch.bfloat16, torch.float64)[number % 3])
        elif kind == "scale shape" and file[scale].dim() < 2:
            file[scale] = file[scale].reshape(-1, 1) if file[scale].numel() > 1 else file[scale].reshape(())
            if scale.endswith("SCB"):
                file[scale] = file[scale].reshape(-1)
        elif kind == "exchange scales":
            other = scales[number // len(scales) % len(scales)]
            if other in file and file[other].shape == file[scale].shape:
                file[scale], file[other] = file[other], file[scale]
        elif kind == "whole scale":
            return file | {scale: torch.ones(file[scale].shape, dtype=torch.int32)}, False
        elif kind == "odd scale":
            return file | {scale: torch.ones(5)}, False
    return file, True


def write(file: State, folder: Path, shards: bool) -> Path:
    file = {name: tensor.contiguous().clone() for name, tensor in file.items()}
    if not shards:
        save_file(file, folder / "m.safetensors")
        return folder / "m.safetensors"
    owner = {name: f"m-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(file))}
    for path in set(owner.values()):
        save_file({name: tensor for name, tensor in file.items() if owner[name] == path}, folder / path)
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": owner}))
    return index


def held(path: Path, base: Path, keep: bool) -> dict[str, Tensor]:
    model = local(path, base)
    out, kept = plans(model, "float32") if keep else (load_plan(model), None)
    network = load.load(model, kept or out)
    return weights_of(getattr(network, load.denoiser_name(network)))


def load_plan(model: Any) -> Any:
    from starrynight.models import precision_plan

    return precision_plan.choose(model, "cpu", "float32")


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["zimage", "zimage-diffusers", "flux"]), st.sampled_from(FORMS), changes(), st.booleans()
)
def test_the_numbers_meant_or_an_error_that_names_a_tensor(
    states, folders, tmp_path_factory, layout, form, steps, keep
):
    folder, base = tmp_path_factory.mktemp("property"), folders[test_ledger.FAMILY[layout]]
    if form.startswith("Q"):
        stored = test_packed.write_gguf(folder / "w.gguf", states[layout], form)  # the numbers meant
        file, means = changed(stored, [step for step in steps if step[0] in ("drop", "rename")])
        path = folder / "m.gguf"
        test_packed.write_gguf(path, file, form)
    else:
        stored = packed(states[layout], form)
        file, means = changed(stored, steps)
        path = write(file, folder, any(kind == "shards" for kind, _ in steps))
    if means:
        wide = folder / "wide.safetensors"
        save_file(
            {n: t.contiguous().clone() for n, t in (file if form.startswith("Q") else meaning(file)).items()},
            wide,
        )
        expected = held(wide, base, keep=False)
        found = held(path, base, keep and form != "bitsandbytes")
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (name, form, steps)
        return
    with pytest.raises(StarryError) as caught:
        held(path, base, keep=False)
    names = {*stored, *file, *expected_names(base)} - {name for name in file if name in HARMLESS}
    for text in (caught.value.en, caught.value.zh):
        assert any(name in text for name in names), (text, form, steps)


def expected_names(base: Path) -> set[str]:
    pipeline = test_ledger.load_folder(base)
    return {name for name, _ in getattr(pipeline, load.denoiser_name(pipeline)).named_parameters()}


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("form", ["kijai", "channel", "bitsandbytes"])
def test_a_scale_of_whole_numbers_is_refused_by_name(form, dtype, states, folders, tmp_path):
    stored = packed(states["zimage"], form)
    name = next(name for name in stored if name.endswith(SCALES))
    path = write(stored | {name: torch.ones(stored[name].shape, dtype=dtype)}, tmp_path, shards=False)
    with pytest.raises(Unfit, match="attention"):
        held(path, folders["zimage"], keep=False)
