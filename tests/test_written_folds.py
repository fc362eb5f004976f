"""``starry fold``: what it writes is painted with by diffusers alone, in float16, and stays in the layout it came in."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_loading
import tiny
import torch
from safetensors.torch import load_file, save_file

from starrynight.errors import BadRequest, StorageError, Unfit
from starrynight.folding import export, single_file
from starrynight.folding.cache import folds_path
from starrynight.folding.calibrate import uniform
from starrynight.models import catalogue, load, precision_plan
from starrynight.models import weights as files
from starrynight.models.convert import numbered
from starrynight.numerics.fold import fold_rows, read_plan, write_folded
from starrynight.numerics.precision import Device
from starrynight.numerics.solve import FoldPlan
from starrynight.progress import ProgressCounter

# Loads and paints without this package; every number below is made by diffusers.
OTHER_TOOL = """
import sys
sys.modules["starrynight"] = None
import numpy, torch
from diffusers import DiffusionPipeline
*wanted, out = sys.argv[1:]
pictures = []
for folder, dtype in zip(wanted[::2], wanted[1::2]):
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pictures += pipeline("水墨 孤舟", height=64, width=64, num_inference_steps=2, guidance_scale=2.0, output_type="np",
                         generator=torch.Generator().manual_seed(9)).images[0],
numpy.save(out, pictures)
"""


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Z-Image's classes, tiny: too loud for float16 in a gated product, an attention, the stream and the decoder."""
    pipeline = tiny.zimage()
    transformer, decoder = pipeline.transformer, pipeline.vae.decoder
    with torch.no_grad():
        transformer.layers[0].feed_forward.w3.weight *= 2.0**24
        transformer.layers[1].attention.to_out[0].weight *= 2.0**22
        decoder.mid_block.resnets[0].conv1.weight *= 2.0**20
    pipeline.to(torch.bfloat16)
    folder = tmp_path_factory.mktemp("loud")
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(home))


@pytest.fixture(scope="module")
def written(loud: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> export.FoldedCheckpoint:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STARRY_HOME", str(home))
        return export.write(catalogue.resolve(str(loud)), tmp_path_factory.mktemp("out") / "folded")


def test_a_tool_without_this_package_paints_it_in_float16(
    loud: Path, written: export.FoldedCheckpoint, tmp_path: Path
) -> None:
    wanted = ((loud, "float32"), (loud, "bfloat16"), (loud, "float16"), (written.folder, "float16"))
    command = [sys.executable, "-W", "ignore", "-c", OTHER_TOOL, *(word for pair in wanted for word in pair)]
    subprocess.run([*command, tmp_path / "pictures.npy"], check=True, capture_output=True)
    reference, brain, plain, folded = np.load(tmp_path / "pictures.npy")
    assert not np.isfinite(plain).all() or np.ptp(plain) == 0, (
        "plain float16 must break, or there is nothing to prove"
    )
    assert np.isfinite(folded).all()
    assert ((folded - reference) ** 2).mean() < ((brain - reference) ** 2).mean() / 4


def test_plan_and_certificate_are_in_the_header(written: export.FoldedCheckpoint) -> None:
    assert written.kept == ()
    weights = next((written.folder / "transformer").glob("*.safetensors"))
    text = files.header(weights)
    assert {entry["dtype"] for name, entry in text.items() if name != "__metadata__"} == {"F16"}
    story = json.loads(text["__metadata__"]["starry_fold"])
    assert story["certificate"]["holds"] is True
    assert story["certificate"]["float32-folded"]["error"] <= 1e-6
    plan = read_plan(weights)
    assert plan is not None
    assert plan.parameters == {
        n: p for n, p in written.plan.parameters.items() if n.startswith("transformer.")
    }
    beside = json.loads((written.folder / export.STORY).read_text("utf-8"))
    assert beside["plan"]["parameters"] == dict(written.plan.parameters)
    note = (written.folder / export.NOTE).read_text("utf-8")
    assert "dtype=torch.float16" in note
    assert "折叠" in note
    assert not (written.folder / export.PLAN).exists()


def test_a_folded_checkpoint_is_safe_in_float16_and_not_folded_again(
    written: export.FoldedCheckpoint,
) -> None:
    card = Device("cuda", "RTX 2070", capability=(7, 5), memory=8 << 30)
    plan = precision_plan.decide(catalogue.resolve(str(written.folder)), card, "auto")
    assert {choice.format for choice in plan if choice.component != "vae_encode"} == {"float16"}


PROVED = {
    "pictures": 2, "finite": True, "holds": True, "float32-folded": {"error": 0.0}, "float16-folded": {"error": 1e-4},
    "bfloat16": {"error": 1e-3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"holds": False}, True),  # the errors decide, not the word
        ({"bfloat16": {"error": None}}, False),  # nearer than what?
        ({"finite": False}, False),
        ({"float32-folded": {"error": 1e-5}}, False),  # not the same function
        ({"float16-folded": {"error": None}}, False),
        ({"float16-folded": {"error": 2e-3}}, False),  # bfloat16 would be nearer
        (
            {"float32-folded": None, "float16-folded": None, "bfloat16": None},
            False,
        ),  # finite only, as old files may be
    ],
)
def test_holds_has_one_meaning_and_decides_what_is_safe(
    change: dict[str, object], holds: bool, written: export.FoldedCheckpoint, tmp_path: Path
) -> None:
    from safetensors import safe_open

    certificate = {k: v for k, v in {**PROVED, **change}.items() if v is not None}
    folder = test_loading.copy(written.folder, tmp_path / "model")
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        story = json.loads(metadata["starry_fold"]) | {"certificate": certificate}
        save_file(tensors, path, {**metadata, "starry_fold": json.dumps(story)})
    model = catalogue.resolve(str(folder))
    assert model.float16_safe == (frozenset(model.parameters) if holds else frozenset())
    card = Device("cuda", "RTX 2070", capability=(7, 5), memory=8 << 30)
    assert (precision_plan.decide(model, card, "auto")["transformer"].format == "float16") is holds
    text = dataclasses.replace(written, certificate=certificate).message("en")
    assert ("does not hold" in text) is not holds


def test_the_command_refuses_in_one_sentence(written: export.FoldedCheckpoint, tmp_path: Path) -> None:
    environment = {**os.environ, "STARRY_HOME": str(tmp_path), "STARRY_LANG": "zh"}
    starry = Path(sys.executable).with_name("starry")
    for words, sentence in (
        ((written.folder, "-o", written.folder), "已存在"),
        ((written.folder, "--to", "int8", "-o", "x"), "int8"),
    ):
        done = subprocess.run([starry, "fold", *words], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert sentence in done.stderr


def test_it_overwrites_nothing_and_reports_a_disk_that_is_too_small(
    loud: Path, written: export.FoldedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadRequest, match="exists already"):
        export.write(catalogue.resolve(str(loud)), written.folder)
    usage = export.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(export.shutil, "disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(StorageError, match="name another place"):
        export.write(catalogue.resolve(str(loud)), tmp_path / "new")
    with pytest.raises(StorageError, match="continues where it stopped"):
        write_folded(next(loud.rglob("vae/*.safetensors")), Path("/dev/full/x.safetensors"), FoldPlan())


def test_an_interrupted_fold_resumes(
    loud: Path, written: export.FoldedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while it writes the decoder: the second run neither measures nor writes the transformer again."""
    monkeypatch.setattr(export, "plan_for_checkpoint", lambda *_: pytest.fail("measured twice"))
    model, out = catalogue.resolve(str(loud)), tmp_path / "folded"
    partial = tmp_path / "folded.partial"
    partial.mkdir()
    story = json.loads((written.folder / export.STORY).read_text("utf-8"))
    folds = {"plan": story["plan"], "samples": [], "certificate": story["certificate"]}
    stamp = folds_path(model).stem
    (partial / export.PLAN).write_text(json.dumps({"stamp": stamp, "folds": folds, "kept": []}), "utf-8")

    def stop(done: int, total: int, doing: tuple[str, str]) -> None:
        if "decoder" in doing[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.write(model, out, stop)
    assert not out.exists()
    (transformer,) = (partial / "transformer").glob("*.safetensors")
    before = transformer.stat().st_mtime_ns
    export.write(model, out)
    (transformer,) = (out / "transformer").glob("*.safetensors")
    assert transformer.stat().st_mtime_ns == before
    for path in written.folder.rglob("*.safetensors"):
        assert all(torch.equal(x, y) for x, y in zip(load_file(path).values(),
                   load_file(out / path.relative_to(written.folder)).values(), strict=True))  # fmt: skip


def test_a_comfyui_file_stays_one(loud: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused projections whose thirds are folded differently; read back, it is the folded transformer bit for bit."""
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    (weights,) = (loud / "transformer").glob("*.safetensors")
    state = load_file(weights)
    source = tmp_path / "kook.safetensors"
    save_file(test_loading.original_layout(state, "model.diffusion_model."), source)
    test_loading.copy(loud, tmp_path / "models" / "z-image-turbo")
    model = catalogue.resolve(dataclasses.replace(catalogue.find(str(source)), smallest=64, size=64, steps=2))
    powers = {"transformer.layers.0.attention.to_q.weight": 3, "transformer.layers.0.attention.to_v.weight": -5,
              "transformer.layers.1.feed_forward.w3.weight": -9, "transformer.x_pad_token": 2}  # fmt: skip
    plan = FoldPlan(parameters=powers)
    export._write_file(model, tmp_path / "out", plan, {"holds": True}, ProgressCounter(None, 1))
    folded = tmp_path / "out" / "kook.safetensors"
    assert set(load_file(folded)) == set(load_file(source))
    again = catalogue.resolve(dataclasses.replace(catalogue.find(str(folded)), smallest=64))
    network = load.load(again, uniform(again, "float32")).transformer
    for name, tensor in state.items():
        power = powers.get(f"transformer.{name}", 0)
        expected = (tensor.float() * 2.0**power).half().float()
        assert torch.equal(network.get_parameter(name), expected), name


def test_a_whole_checkpoint_is_mapped_row_by_row(tmp_path: Path) -> None:
    """CompVis' layout: every tensor of the UNet and the autoencoder finds its way back, through diffusers' converter."""
    pipeline = tiny.sd()
    state = test_loading.ldm_layout(pipeline)
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    networks = {"unet": pipeline.unet, "vae": pipeline.vae}
    parameters = {f"{c}.{n}": i % 7 - 3 for c, m in networks.items() for i, n in enumerate(m.state_dict())}
    rows: dict[str, Any] = {}
    for component, network in networks.items():
        found = single_file.convert(type(network).__name__, dict(network.config), numbered(shapes))
        rows |= {f"{component}.{name}": numbers for name, numbers in found.items()}
    back = single_file.back(shapes, rows, FoldPlan(parameters=parameters))
    assert {name for name in state if name not in back} == {
        n for n in state if n.startswith("cond_stage_model.")
    }
    folded = {n: fold_rows(t, back[n]) if n in back else t for n, t in state.items()}
    for component, network in networks.items():
        for name, tensor in network.state_dict().items():
            tensor.mul_(2.0 ** parameters[f"{component}.{name}"])
    expected = test_loading.ldm_layout(pipeline)
    assert all(torch.equal(folded[name], expected[name]) for name in expected)


def make_loud(pipeline: Any) -> Any:
    """Beyond float16 in a residual block and an attention's values of the UNet, and in the decoder."""
    attention = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    with torch.no_grad():
        pipeline.unet.down_blocks[0].resnets[0].conv1.weight *= 2.0**20
        attention.to_v.weight *= 2.0**22
        attention.to_out[0].weight *= 2.0**-22
        pipeline.vae.decoder.mid_block.resnets[0].conv1.weight *= 2.0**20
    return pipeline


def from_file(file: Path, shapes: Path, dtype: torch.dtype, side: int = 64) -> np.ndarray:
    """What diffusers alone paints with a single file."""
    from diffusers import DiffusionPipeline

    kind = type(DiffusionPipeline.from_pretrained(shapes, local_files_only=True))
    pipeline = kind.from_single_file(str(file), config=str(shapes), dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline("boat", height=side, width=side, num_inference_steps=2, guidance_scale=2.0, output_type="np",
                    generator=torch.Generator().manual_seed(9)).images[0]  # fmt: skip


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_whole_checkpoint_is_written_back_in_its_makers_layout(family: str, tmp_path: Path) -> None:
    """One file of CompVis' or Stability's names in, one out: it loads again, paints in float16, texts are untouched."""
    pipeline = make_loud(tiny.sd() if family == "sd" else tiny.sdxl(second=24))
    pipeline.save_pretrained(tmp_path / "shapes", safe_serialization=True)
    state = test_loading.ldm_layout(pipeline) if family == "sd" else test_loading.sgm_layout(pipeline)
    state["alphas_cumprod"] = torch.linspace(1, 0, 10)  # as the makers' own files carry it; no network's
    source = tmp_path / "merged.safetensors"
    save_file(state, source)
    model = catalogue.resolve(str(source), base=str(tmp_path / "shapes"))
    model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, smallest=64, size=64, steps=2))
    done = export.write(model, tmp_path / "folded")
    assert (done.kept, done.single) == ((), True)
    assert {name.split(".")[0] for name in done.plan.parameters} == {"unet", "vae"}
    folded = done.folder / "merged.safetensors"
    after = load_file(folded)
    assert after.keys() == state.keys()
    for name, tensor in after.items():
        if name.startswith(("model.diffusion_model.", "first_stage_model.")):
            assert tensor.dtype == torch.float16, name
        else:
            assert torch.equal(tensor.view(torch.uint8), state[name].view(torch.uint8)), name
    reference, brain, plain, half = (
        from_file(file, tmp_path / "shapes", dtype)
        for file, dtype in ((source, torch.float32), (source, torch.bfloat16), (source, torch.float16),
                            (folded, torch.float16))
    )  # fmt: skip
    assert not np.isfinite(plain).all()
    assert np.isfinite(half).all()
    assert ((half - reference) ** 2).mean() < ((brain - reference) ** 2).mean() / 4
    again = catalogue.resolve(
        dataclasses.replace(catalogue.find(str(folded), base=str(tmp_path / "shapes")), smallest=64)
    )
    card = Device("cuda", "RTX 2070", capability=(7, 5), memory=8 << 30)
    assert {c.format for c in precision_plan.decide(again, card, "auto") if c.component != "vae_encode"} == {
        "float16"
    }
    loaded = load.load(again, uniform(again, "float16"))
    assert loaded.folds.parameters == done.plan.parameters, (
        "LoRAs will follow the folds that the file tells of"
    )


def test_a_model_that_no_ordinary_checkpoint_can_hold_is_refused_with_the_next_step(
    loud: Path, written: export.FoldedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An autoencoder's epsilons have no key: a stuck component is refused where nothing else could be folded."""
    stuck = FoldPlan(islands=("vae.decoder", "transformer", "text_encoder"))
    monkeypatch.setattr(export, "solve_folds", lambda *_, **__: stuck)
    with pytest.raises(Unfit, match="float16-folded"):
        export.plan_for_checkpoint(catalogue.resolve(str(loud)))
