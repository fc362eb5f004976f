"""Claim C7 on UNets: which layers are measured, at which noise levels, and how the report describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from starrynight.lab import formats, instruments
from starrynight.lab.bench import Bench
from starrynight.lab.experiments import layers
from starrynight.lab.findings import Rows
from starrynight.lab.plan import ExperimentPlan, Point
from starrynight.lab.run import ExperimentRun

LEVELS = 30  # more than one batch, and the last batch is not full


def three_stages() -> Any:
    """A small Stable Diffusion whose UNet has the layers that the claim names."""
    from diffusers import UNet2DConditionModel

    pipeline = tiny.sd()
    torch.manual_seed(0)
    pipeline.register_modules(unet=UNet2DConditionModel(
        block_out_channels=(8, 8, 16), layers_per_block=1, sample_size=16, norm_num_groups=4, cross_attention_dim=16,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    ))  # fmt: skip
    return pipeline


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd") / "three-stages"
    three_stages().save_pretrained(folder, safe_serialization=True)
    return folder


def bench(model: Path, folder: Path) -> Bench:
    plan = ExperimentPlan(
        models=(str(model),),
        formats=("float16", "bfloat16"),
        prompts=1,
        seeds=1,
        size=64,
        steps=2,
        noise_steps=LEVELS,
    )
    return Bench(ExperimentRun.create(folder, plan), "cpu")


def measured_finding(bench: Bench) -> Any:
    run, model = bench.run, bench.plan.models[0]
    with run.measuring():
        for format_ in run.plan.formats:
            point = Point("norms", model, format_)
            run.add(point, layers.measure_norms(bench, point), 1.0, 1.0, 0.0)
    return layers.judge_norms(Rows(run))[0]


def test_a_unet_is_measured_on_the_layers_that_the_claim_names(unet: Path, tmp_path: Path) -> None:
    finding = measured_finding(bench(unet, tmp_path / "run"))
    rows = Rows(ExperimentRun.open(tmp_path / "run"))
    for format_ in ("float32", "float16", "bfloat16"):
        found = rows.result("norms", str(unet), format_)
        assert list(found["layers"]) == list(instruments.CLAIMED_LAYERS)
        assert (found["levels"], found["of"], found["broke"]) == (LEVELS, 1000, False)
        for notes in found["layers"].values():
            assert [len(notes[k]) for k in ("weight", "mean", "std", "norm")] == [2, LEVELS, LEVELS, LEVELS]
            assert len(set(notes["mean"])) > LEVELS // 2  # the levels differ
    assert f"Measured at {LEVELS} of the 1000 levels of training noise" in finding.explanation.en
    assert (
        "measured on the layers that the claim names (down_blocks.1.resnets.0.norm1" in finding.explanation.en
    )
    assert "测的就是所称的三层" in finding.explanation.zh


def test_a_unet_without_those_layers_is_measured_on_their_counterparts(tmp_path: Path) -> None:
    names = instruments.three_layers(tiny.sd().unet)
    assert names == [
        "down_blocks.1.resnets.0.norm1", "mid_block.attentions.0.proj_out", "up_blocks.1.resnets.1.conv2"
    ]  # fmt: skip
    assert names != list(instruments.CLAIMED_LAYERS)
    where, _ = layers._describe_layers({"layers": names, "unet": True, "named": False})
    assert "lacks the layers that the claim names" in where


@pytest.mark.parametrize(
    ("family", "time_line"), [("sd", (1, 0)), ("zimage", (-0.001, 1)), ("flux", (0.001, 0))]
)
def test_the_time_argument_is_derived_from_the_pipeline_s_calls(
    family: str, time_line: tuple[float, float], tmp_path: Path
) -> None:
    test_bench = bench(tiny.save(family, tmp_path / family), tmp_path / "run")
    model = test_bench.plan.models[0]
    painter = test_bench.painter(model, "float32")
    sweep = instruments.noise_sweep(painter, test_bench.request(model))
    assert sweep.time_line == (pytest.approx(time_line[0], abs=1e-6), pytest.approx(time_line[1], abs=1e-5))
    assert sweep.levels == 1000
    times = sweep.times(1000)
    assert len({float(time) for time in times}) == 1000
    latents, named = next(sweep.calls(times[:2], torch.float32))
    with torch.no_grad():
        out = painter.denoiser(latents, **named)[0]
    assert len(out) == 2  # the two levels are two pictures of a batch
    noise = torch.randn(sweep.latents.shape, generator=torch.Generator().manual_seed(0))
    likeness = torch.nn.functional.cosine_similarity(latents[0].flatten(), noise.flatten(), dim=0)
    assert likeness > 0.99  # the noisiest level is almost pure noise
    assert formats.cast_arguments(latents, torch.float16)[0].dtype == torch.float16
