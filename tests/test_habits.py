"""What a file or folder says about itself is obeyed, and what contradicts itself is named."""

from __future__ import annotations

import inspect
import itertools
import json
import math
import struct

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from starrynight.errors import BadFile, BadRequest, StarryError, Unfit
from starrynight.i18n import Text
from starrynight.metadata.recipe import read_own
from starrynight.models import catalogue, habits
from starrynight.models.habits import Habits
from starrynight.painting import checking, schedulers
from starrynight.painting.painter import Painter
from starrynight.picture import make_recipe
from starrynight.request import PREDICTIONS, PaintRequest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


UNET = (
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.output_blocks.0.0.x",
    "model.diffusion_model.out.2.weight",
    "first_stage_model.decoder.conv_in.weight",
    "first_stage_model.encoder.conv_in.weight",
    "first_stage_model.decoder.up.0.x",
)
MARKS = {
    "sdxl": (
        *UNET,
        "model.diffusion_model.label_emb.0.0.weight",
        "conditioner.embedders.1.model.transformer.resblocks.0.x",
        "conditioner.embedders.1.model.token_embedding.weight",
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
    ),
    "sd1": (*UNET, "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"),
    "flux": ("double_blocks.0.img_attn.x", "single_blocks.0.x"),
}


def lone_file(path, layout="sdxl", markers=(), **said):
    """A file with the tensors by which a layout is recognised, ``markers``, and metadata."""
    tensors = {
        name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in (*MARKS[layout], *markers)
    }
    head = json.dumps(
        {"__metadata__": {key.replace("__", "."): value for key, value in said.items()}} | tensors
    )
    path.write_bytes(struct.pack("<Q", len(head)) + head.encode())
    return str(path)


def ask(model, **more) -> PaintRequest:
    row = catalogue.find(model)
    return PaintRequest(prompt="sea", model=model, width=row.width, height=row.height, **more)


V = [
    {"markers": ("v_pred",)}, {"markers": ("model.diffusion_model.v_pred",)}, {"modelspec__prediction_type": "v"},
    {"modelspec__predict_key": "v"}, {"ss_v_parameterization": "True"}, {"modelspec__prediction_type": "V_Prediction"},
    {"markers": ("v_pred",), "modelspec__prediction_type": "v"},
]  # fmt: skip


@pytest.mark.parametrize("said", V)
@pytest.mark.parametrize("layout", ["sdxl", "sd1"])
def test_every_way_to_say_v_prediction_is_read(tmp_path, said, layout):
    spec = catalogue.find(lone_file(tmp_path / "a.safetensors", layout, **said))
    assert (spec.habits.prediction, spec.habits.zero_snr, spec.habits.conflict) == (
        "v_prediction",
        False,
        None,
    )
    checking.check(ask(spec.name), spec)


@pytest.mark.parametrize(
    "said", [{"markers": ("v_pred", "ztsnr")}, {"markers": ("v_pred",), "ss_zero_terminal_snr": "True"}]
)
def test_zero_terminal_snr_is_read(tmp_path, said):
    assert catalogue.find(lone_file(tmp_path / "a.safetensors", **said)).habits.zero_snr


@pytest.mark.parametrize(
    ("layout", "said", "word"),
    [("sdxl", {"markers": ("v_pred",), "modelspec__prediction_type": "epsilon"}, "contradicts"),
     ("sdxl", {"modelspec__prediction_type": "v", "modelspec__predict_key": "epsilon"}, "contradicts"),
     ("sdxl", {"modelspec__prediction_type": "sideways"}, "sideways"),
     ("sdxl", {"markers": ("ztsnr",)}, "zero terminal SNR"),
     ("sd1", {"modelspec__predict_key": "epsilon", "ss_zero_terminal_snr": "True"}, "zero terminal SNR"),
     ("flux", {"markers": ("v_pred",)}, "flow")],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused_until_the_request_decides(tmp_path, layout, said, word):
    spec = catalogue.find(lone_file(tmp_path / "a.safetensors", layout, **said))
    with pytest.raises(BadFile, match=word) as caught:
        checking.check(ask(spec.name), spec)
    assert "--prediction" in caught.value.en
    assert "--prediction" in caught.value.zh
    checking.check(ask(spec.name, prediction="flow" if layout == "flux" else "v_prediction"), spec)


@pytest.mark.parametrize("marker", sorted(habits.EDM))
def test_edm_is_refused_by_name(tmp_path, marker):
    with pytest.raises(Unfit, match=marker.replace(".", r"\.")):
        catalogue.find(lone_file(tmp_path / "a.safetensors", markers=(marker,)))


def test_the_rest_of_the_metadata_is_obeyed_or_told(tmp_path):
    spec = catalogue.find(lone_file(
        tmp_path / "a.safetensors", "sd1", modelspec__resolution="768x768", modelspec__license="CC0", modelspec__encoder_layer="2",
        modelspec__architecture="stable-diffusion-xl-v1-base", modelspec__usage_hint="be kind", modelspec__trigger_phrase="w0rd",
        modelspec__timestep_range="800,1000",
    ))  # fmt: skip
    assert (spec.size, spec.licence, spec.habits.clip_skip) == (768, "CC0", 1)
    told = " ".join(en for en, _ in checking.warnings_for(ask(spec.name), spec))
    for word in ("stable-diffusion-xl-v1-base", "be kind", "w0rd", "800 to 1000"):
        assert word in told
    plain = catalogue.find(
        lone_file(tmp_path / "b.safetensors", modelspec__timestep_range="0,999", modelspec__resolution="big")
    )
    assert (plain.size, plain.habits.notes) == (1024, ())


@pytest.mark.parametrize("value", [None, 7, ["v"], {"a": 1}, "\x00\x1b", "9" * 5000])
def test_metadata_of_any_shape_is_no_traceback(tmp_path, value):
    keys = (
        "modelspec.prediction_type",
        "modelspec.resolution",
        "modelspec.encoder_layer",
        "modelspec.timestep_range",
    )
    head = {"__metadata__": dict.fromkeys(keys, value)}
    spec = Habits()
    try:
        spec = habits.of_file(head, False, "Stable Diffusion 1")
        habits.settings_of_file(head, spec, 64, 4096)
    except StarryError:
        pass


# Folders


@pytest.mark.parametrize("name", sorted(habits.DEFAULTS))
def test_defaults_are_those_of_diffusers(name):
    import diffusers

    call = inspect.signature(getattr(diffusers, name).__call__).parameters
    default = habits.DEFAULTS[name]
    if name != "StableDiffusionXLPipeline":
        assert default.steps == call["num_inference_steps"].default
    true = call["true_cfg_scale"].default if "true_cfg_scale" in call else None
    own = call["guidance_scale"].default if "guidance_scale" in call else None
    assert default.guidance == (own if own is not None else true)
    tokens = call["max_sequence_length"].default if "max_sequence_length" in call else None
    assert default.tokens == (77 if name in habits.CLIP_PIPELINES else tokens)
    assert default.negatives == ("negative_prompt" in call and true != 1.0)


FOLDERS = {"sdxl": (30, 5.0, 77), "sd": (50, 7.5, 77), "flux": (4, 0.0, 256), "zimage": (50, 5.0, 224)}


@pytest.mark.parametrize("family", FOLDERS)
def test_a_folder_gets_the_habits_of_its_pipeline_class(tmp_path, family):
    spec = catalogue.find(str(tiny.save(family, tmp_path / "model")))
    assert (spec.steps, spec.guidance, spec.max_tokens) == FOLDERS[family]
    assert spec.habits.weighted == (family in ("sd", "sdxl"))
    hub = tmp_path / "home" / "models" / "someone--model"
    hub.parent.mkdir(parents=True)
    (tmp_path / "model").rename(hub)
    spec = catalogue.find("someone/model")
    assert (spec.steps, spec.guidance, spec.max_tokens) == FOLDERS[family]


def test_turbo_is_known_by_its_makers_name_and_a_known_hub_id_by_its_row(tmp_path):
    spec = catalogue.find(str(tiny.save("zimage", tmp_path / "my-z-image-turbo")))
    assert (spec.steps, spec.guidance, spec.guided) == (9, 0.0, False)
    row, by_hub = catalogue.find("z-image-turbo"), catalogue.find("Tongyi-MAI/Z-Image-Turbo")
    assert (by_hub.steps, by_hub.guidance, by_hub.name) == (
        row.steps,
        row.guidance,
        "Tongyi-MAI/Z-Image-Turbo",
    )


CLASSES = {
    "StableDiffusionPipeline": (50, 7.5, 77),
    "StableDiffusionXLPipeline": (30, 5.0, 77),
    "SanaPipeline": (20, 4.5, 300),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_hub_id_that_is_not_here_has_the_habits_of_a_cached_index(tmp_path, monkeypatch, name):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "model_index.json").write_text(json.dumps({"_class_name": name}))
    spec = catalogue.find("someone/model")
    assert (spec.steps, spec.guidance, spec.max_tokens) == CLASSES[name]
    assert spec.habits.pipeline == name
    assert spec.habits.notes == ()


def test_of_a_hub_id_alone_it_is_said_that_nothing_is_known(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = catalogue.find("someone/model")
    request = ask(spec.name, sampler="ddim", prediction="v_prediction")
    checking.check(request, spec)  # neither can be refused before its files are here
    checking.check(ask(spec.name, sampler="heun"), spec)
    with pytest.raises(BadRequest):
        checking.check(ask(spec.name, sampler="nonsense"), spec)
    ((en, zh),) = checking.warnings_for(request, spec)
    for figure in ("8", "2", "1024×1024", "someone/model --small"):
        assert figure in en
        assert figure in zh
    assert catalogue.find("stabilityai/sd-turbo").habits.notes == ()  # a row of the table is known


def test_a_folders_size_is_its_denoisers(tmp_path):
    folder = tiny.save("sd", tmp_path / "model")
    tiny.rewrite_json(folder / "unet" / "config.json", sample_size=256)
    assert catalogue.find(str(folder)).size == 512


# The request's own word


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_prediction_decides_or_is_refused_where_it_means_nothing(tmp_path, prediction):
    noise = catalogue.find(str(tiny.save("sd", tmp_path / "sd")))
    assert checking.as_asked(ask(noise.name, prediction=prediction), noise).habits.prediction == prediction
    flow = catalogue.find(str(tiny.save("zimage", tmp_path / "z")))
    if prediction == "flow":
        assert checking.as_asked(ask(flow.name, prediction=prediction), flow).habits == flow.habits
        return
    with pytest.raises(BadRequest, match=prediction):
        checking.check(ask(flow.name, prediction=prediction), flow)


def test_the_recipe_and_its_command_repeat_the_prediction_and_old_ids_stay():
    plain = PaintRequest(prompt="sea", seed=1)
    assert "prediction" not in plain.to_dict()
    request = plain.replace(prediction="v_prediction")
    assert request.id != plain.id
    recipe = read_own(json.loads(json.dumps(make_recipe(request))))
    assert "--prediction v_prediction" in recipe.command()
    assert PaintRequest.from_dict(recipe.request()) == request
    assert "--prediction" not in read_own(make_recipe(plain)).command()


# Schedulers


def noise_scheduler():
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                                  timestep_spacing="leading")  # fmt: skip


ZERO = Habits(prediction="v_prediction", zero_snr=True, own_flow=False)


@pytest.mark.parametrize("name", [None, *sorted(schedulers.NOISE)])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_each_sampler_reaches_the_one_picture_that_a_perfect_model_predicts(name, prediction):
    """The denoiser knows x₀. Whatever it predicts of it, each sampler must arrive there, zero terminal SNR included."""
    zero = prediction != "epsilon"
    own = habits.apply(noise_scheduler(), Habits(prediction=prediction, zero_snr=zero, own_flow=False))
    if name and prediction == "sample" and schedulers.NOISE[name][0] in habits.NO_SAMPLE:
        with pytest.raises(BadRequest, match=name):
            habits.check_sampler(
                Habits(prediction="sample", own_flow=False), name, schedulers.NOISE[name][0], Text("m", "m")
            )
        return
    if name == "dpmpp_2m_karras" and zero:
        with pytest.raises(BadRequest, match="zero terminal SNR"):
            schedulers.build(name, own)
        return
    scheduler = schedulers.build(name, own)
    assert scheduler.config.prediction_type == prediction
    clean = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4)
    draw = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(30)
    if zero:
        assert scheduler.config.timestep_spacing == "trailing"
        assert scheduler.timesteps[0] >= 998  # PNDM and DEIS count from 0
        assert float(scheduler.alphas_cumprod[-1]) <= 2**-23
    sample = torch.randn(clean.shape, generator=draw) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(sample, time)
        alpha = float(scheduler.alphas_cumprod[int(time)])
        noise = (seen - alpha**0.5 * clean) / (1 - alpha) ** 0.5
        output = {
            "epsilon": noise,
            "sample": clean,
            "v_prediction": alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean,
        }
        sample = scheduler.step(output[prediction], time, sample, return_dict=False)[0]
    assert torch.isfinite(sample).all()
    assert (sample - clean).abs().max() < 0.15, name


def test_the_published_rescaling_is_what_diffusers_computes():
    from diffusers import DDIMScheduler, LMSDiscreteScheduler

    theirs = DDIMScheduler.from_config(noise_scheduler().config, rescale_betas_zero_snr=True).alphas_cumprod
    ours = habits.configured(
        LMSDiscreteScheduler, noise_scheduler().config, rescale_betas_zero_snr=True
    ).alphas_cumprod
    assert torch.allclose(ours[:-1], theirs[:-1], rtol=1e-3, atol=1e-7)
    assert (float(theirs[-1]), float(ours[-1])) == (0.0, pytest.approx(2**-24, rel=1e-2))


@pytest.mark.parametrize("name", sorted({*schedulers.NOISE} - {"dpmpp_2m_karras"}))
def test_the_guards_conservative_steps_are_finite_at_zero_terminal_snr(name):
    scheduler = schedulers.build(name, habits.apply(noise_scheduler(), ZERO))
    scheduler.set_timesteps(4)
    found = schedulers.conservative(scheduler, scheduler.timesteps[0])
    if found is None:
        assert name == "euler_a"
        return
    sample = torch.randn(1, 4, 4, 4) * scheduler.init_noise_sigma
    assert torch.isfinite(found[1](torch.zeros(1, 4, 4, 4), sample, 0)).all()


def test_silence_leaves_the_scheduler_alone():
    own = noise_scheduler()
    assert habits.apply(own, habits.SILENT) is own


# Painted


def test_a_marked_file_paints_as_its_folder_with_that_schedule(tmp_path):
    """The same weights as a single file with markers and as a folder whose scheduler says it: the same pixels."""
    from safetensors.torch import save_file
    from test_loading import sgm_layout

    from starrynight.models import precision_plan
    from starrynight.models.load import load

    tiny_sdxl = tiny.sdxl(64)
    file, folder = tmp_path / "marked.safetensors", tmp_path / "folder"
    save_file(sgm_layout(tiny_sdxl) | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, file)
    tiny_sdxl.save_pretrained(folder, safe_serialization=True)
    pixels = {}
    for name in ("marked", "epsilon", "folder"):
        if name == "folder":
            tiny.rewrite_json(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction",
                              rescale_betas_zero_snr=True, timestep_spacing="trailing")  # fmt: skip
        spec = catalogue.find(
            str(folder if name == "folder" else file), None if name == "folder" else str(folder)
        )
        request = PaintRequest(prompt="sea", seed=1, prediction="epsilon" if name == "epsilon" else None)
        model = catalogue.resolve(checking.as_asked(request, spec))
        pipeline = load(model, precision_plan.choose(model, "cpu", "float32"))
        config = pipeline.scheduler.config
        assert config.prediction_type == ("epsilon" if name == "epsilon" else "v_prediction")
        assert bool(config.get("rescale_betas_zero_snr")) == (name != "epsilon")
        pixels[name] = pipeline("sea", width=64, height=64, num_inference_steps=3, output_type="pt",
                                generator=torch.Generator().manual_seed(1)).images  # fmt: skip
    assert torch.allclose(pixels["marked"], pixels["folder"], atol=1e-4)
    assert (pixels["marked"] - pixels["epsilon"]).abs().max() > 0.05


# Flow on a U-Net, from the request to the pixels


def flow_levels(count: int, strength: float = 1.0) -> list[float]:
    """σ of ``count`` even steps from diffusers' first, a thousandth below 1, to 0; img2img takes the last of them."""
    levels = [1 - 0.999 * step / count - 0.001 for step in range(count)]
    return [*levels[count - int(count * strength) :], 0.0]


def solve_flow(velocity, sample, levels):
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2) for α = 1 − σ. ``velocity(sample, σ)`` predicts noise − clean."""
    before = previous = None
    for now, then in itertools.pairwise(levels):
        clean = sample - now * velocity(sample, now)
        if then == 0:  # of first order, and lands on the prediction
            return clean
        step = math.log((1 - then) / then) - math.log((1 - now) / now)
        better = clean if previous is None else clean + (clean - before) * step / (2 * previous)
        sample = then / now * sample - (1 - then) * math.expm1(-step) * better
        before, previous = clean, step
    raise AssertionError


def note_inputs(part, kept, *names):
    """``kept`` gets the inputs of the first call of a network."""
    hook = part.register_forward_pre_hook(
        lambda _, args, kwargs: kept.append((*args, *(kwargs.get(name) for name in names))), with_kwargs=True
    )
    return hook.remove


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("sampler", [None, "dpmpp_2m"])
def test_flow_on_a_unet_is_painted_as_its_equation_says(tmp_path, sampler, strength):
    """The U-Net's outputs are velocities, and the picture is where DPM-Solver++ follows them; also from a first picture."""
    folder = tiny.save("sd", tmp_path / "sd")
    picture = tmp_path / "start.png"
    Image.effect_noise((64, 64), 90).convert("RGB").save(picture)
    more = {} if strength == 1 else {"init_image": str(picture), "strength": strength}
    request = PaintRequest(prompt="sea", model=str(folder), width=64, height=64, steps=6, guidance=3.0, seed=5, sampler=sampler,
                           prediction="flow", precision="float32", **more)  # fmt: skip
    painter = Painter.ready(request, device="cpu")
    seen: list[tuple] = []
    remove = note_inputs(painter.denoiser, seen, "encoder_hidden_states")
    (outcome,) = painter.paint(request)
    remove()
    pixels = tiny.pixels_of(outcome)
    assert outcome.sampler == "dpmpp_2m"
    levels = flow_levels(6, strength)
    assert [float(time) for _, time, _ in seen] == pytest.approx(
        [1000 * level for level in levels[:-1]], abs=1
    )
    both, _, words = seen[0]
    if (
        strength < 1
    ):  # the first picture under as much noise as its level says, not under that of noise prediction
        vae = painter.pipeline.vae
        with torch.no_grad():
            clean = vae.encode(vae_input(picture)).latent_dist.mean * vae.config.scaling_factor
        noise = (both[:1] - (1 - levels[0]) * clean) / levels[0]
        assert 0.8 < float(noise.std()) < 1.2

    def velocity(sample, level):
        against, wanted = painter.denoiser(torch.cat([sample] * 2), int(1000 * level), words).sample.chunk(2)
        return against + 3.0 * (wanted - against)

    with torch.no_grad():
        latents = solve_flow(velocity, both[:1], levels)
        vae = painter.pipeline.vae
        wanted = vae.decode(latents / vae.config.scaling_factor).sample[0] / 2 + 0.5
    assert np.abs(wanted.clamp(0, 1).permute(1, 2, 0).numpy() - pixels).max() < 2e-3
    noise_picture = tiny.pixels_of(next(iter(Painter.ready(request.replace(prediction="epsilon"), device="cpu").paint(
        request.replace(prediction="epsilon")))))  # fmt: skip
    assert np.abs(noise_picture - pixels).max() > 0.02


def vae_input(path):
    return torch.from_numpy(np.asarray(Image.open(path), np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


@pytest.mark.parametrize(
    "said", [{"modelspec.predict_key": "flow"}, {"modelspec.prediction_type": "rectified_flow"}]
)
def test_a_file_that_says_flow_is_loaded_with_that_schedule(tmp_path, said):
    from safetensors.torch import save_file
    from test_loading import sgm_layout

    from starrynight.models import precision_plan
    from starrynight.models.load import load

    save_file(sgm_layout(tiny.sdxl(64)), tmp_path / "flow.safetensors", metadata=said)
    tiny.sdxl(64).save_pretrained(tmp_path / "base", safe_serialization=True)
    spec = catalogue.find(str(tmp_path / "flow.safetensors"), str(tmp_path / "base"))
    model = catalogue.resolve(checking.as_asked(PaintRequest(prompt="sea"), spec))
    scheduler = load(model, precision_plan.choose(model, "cpu", "float32")).scheduler
    assert schedulers.is_flow(scheduler)
    assert scheduler.config.prediction_type == "flow_prediction"


# Zero terminal SNR against diffusers

# Samplers whose schedulers end at the noise of the first timestep, with every schedule.
NOT_TO_ZERO = ("deis",)


@pytest.mark.parametrize(
    "own", ["EulerDiscreteScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"]
)
@pytest.mark.parametrize("name", [None, *sorted({*schedulers.NOISE} - {"dpmpp_2m_karras"})])
def test_zero_terminal_snr_is_that_of_diffusers_in_every_sampler(name, own):
    """Betas by diffusers' own ``rescale_zero_terminal_snr``, timesteps by “trailing” of arXiv 2305.08891 (table 2), from no signal
    at all to no noise; whichever scheduler the model's folder brought.
    """
    import diffusers
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    warm = (
        {"skip_prk_steps": True} if own == "PNDMScheduler" else {}
    )  # as every Stable Diffusion folder has it
    base = getattr(diffusers, own).from_config(noise_scheduler().config, **warm)
    scheduler = schedulers.build(name, habits.apply(base, ZERO))
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(base.betas.clone()), 0)
    assert torch.allclose(scheduler.alphas_cumprod[:-1], theirs[:-1], rtol=1e-4, atol=1e-7)
    assert float(scheduler.alphas_cumprod[-1]) in (0.0, pytest.approx(2**-24, rel=1e-3))
    for count in (1, 4, 7, 30, 1000):
        scheduler.set_timesteps(count)
        found = list(dict.fromkeys(scheduler.timesteps.tolist()))  # Heun and PNDM visit some twice
        assert found == [round(1000 - step * 1000 / count) - 1 for step in range(count)]
        if hasattr(scheduler, "sigmas"):
            assert float(scheduler.sigmas[0]) == pytest.approx(4096, rel=1e-4)
            assert (float(scheduler.sigmas[-1]) == 0) == (name not in NOT_TO_ZERO)
