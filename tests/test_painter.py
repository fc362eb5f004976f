"""The painter, on tiny pipelines of every family in the catalogue: real classes, real steps, random weights."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from starrynight.errors import (
    BadFile,
    BadRequest,
    Cancelled,
    MissingFile,
    OutOfMemory,
    UnknownName,
    WrongSize,
)  # fmt: skip
from starrynight.metadata.files import open_picture
from starrynight.metadata.pixels import read_pixels
from starrynight.models import catalogue, load, precision_plan
from starrynight.numerics import rng
from starrynight.painting import offload, schedulers
from starrynight.painting.canvas import fit_init_image
from starrynight.painting.painter import Painter
from starrynight.painting.preview import calibration_picture
from starrynight.painting.results import Refused
from starrynight.request import PaintRequest

FAMILIES = list(tiny.FAMILIES)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: tiny.save(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(scope="module")
def painters(folders):
    return {family: Painter.ready(ask(folders[family]), device="cpu") for family in FAMILIES}


@pytest.fixture
def init_image(tmp_path):
    path = tmp_path / "init.png"
    Image.fromarray((calibration_picture(96).numpy() * 255).astype("uint8")).save(path)
    return str(path)


def ask(folder, **more) -> PaintRequest:
    words = {
        "prompt": "a starry night",
        "width": 64,
        "height": 64,
        "steps": 3,
        "seed": 5,
        "precision": "float32",
    }
    return PaintRequest(model=str(folder), **(words | more))


def one(painter, request, on_step=None) -> np.ndarray:
    """The first picture; the guard's error where it is refused."""
    return tiny.pixels_of(next(painter.paint(request, on_step)))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_paints_float32_in_range(painters, folders, family):
    canvas = next(painters[family].paint(ask(folders[family], width=96)))
    assert canvas.pixels.shape == (64, 96, 3)
    assert canvas.pixels.dtype == np.float32
    assert 0 <= canvas.pixels.min() < canvas.pixels.max() <= 1
    assert len(np.unique(canvas.pixels)) > 256  # not rounded to eight bits on the way
    assert (canvas.seed, canvas.index, canvas.verdict.outcome) == (5, 0, "hang")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_is_one_picture_alone_and_in_a_batch(painters, folders, family):
    painter, request = painters[family], ask(folders[family])
    batch = [canvas.pixels for canvas in painter.paint(request.replace(count=3))]
    assert (batch[2] == one(painter, request.replace(seed=7))).all()
    assert (batch[0] == one(painter, request)).all()
    assert not (batch[0] == batch[1]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_starts_from_the_same_noise(painters, folders, family):
    request = ask(folders[family])
    other = Painter.ready(request.replace(precision="bfloat16"), device="cpu")
    assert other.denoiser.dtype == torch.bfloat16
    assert next(other.pipeline.vae.decoder.parameters()).dtype == torch.bfloat16
    error = ((one(other, request) - one(painters[family], request)) ** 2).mean()
    assert -10 * np.log10(error) > 40  # other noise would leave about 16 dB


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_family_begins_from_a_picture(folders, family, precision, init_image):
    request = ask(folders[family], init_image=init_image, steps=4, strength=0.5, precision=precision)
    painter = Painter.ready(request, device="cpu")
    steps = []
    canvas = next(painter.paint(request, lambda step: steps.append((step.step, step.steps))))
    assert canvas.verdict.reasons == ("crop 96x96→64x64",)
    assert steps == [(0, 2), (1, 2)]
    assert next(painter.pipeline.vae.encoder.parameters()).dtype == torch.float32
    mirrored = init_image.replace("init", "mirrored")
    Image.open(init_image).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    assert not (one(painter, request.replace(init_image=mirrored)) == canvas.pixels).all()
    plain = ask(folders[family], precision=precision)
    assert (
        one(painter, plain) == one(Painter.ready(plain, device="cpu"), plain)
    ).all()  # nothing of it stays


def test_noise_in_16_bits_is_float32_noise_rounded():
    plain = torch.randn((2, 33), generator=rng.generator(3))
    with rng.Float32Noise():
        for half in (torch.bfloat16, torch.float16):
            drawn = torch.randn((2, 33), generator=rng.generator(3), dtype=half)
            assert torch.equal(drawn, plain.to(half))
    unruly = torch.randn((2, 33), generator=rng.generator(3), dtype=torch.bfloat16)
    assert not torch.equal(unruly, plain.bfloat16())  # why the mode is needed


def test_networks_that_draw_no_noise_run_without_the_mode_and_leave_it_as_it_was():
    """Under a mode every operation goes through Python."""
    drawn = []

    class Drawing(torch.nn.Module):
        def forward(self, fails):
            drawn.append(torch.randn((2, 33), generator=rng.generator(3), dtype=torch.bfloat16))
            if fails:
                raise ValueError

    def draw():
        return torch.randn((2, 33), generator=rng.generator(3), dtype=torch.bfloat16)

    inner = Drawing()
    outer = torch.nn.Sequential(inner)
    with rng.Float32Noise():
        rounded = draw()
    unruly = draw()
    for fails in (False, True):
        with rng.Float32Noise(networks=[outer, inner]):
            with suppress(ValueError):
                outer(fails)
            assert torch.equal(drawn.pop(), unruly)
            assert torch.equal(draw(), rounded)
        assert torch.equal(draw(), unruly)
    with suppress(KeyboardInterrupt), rng.Float32Noise(networks=[outer]):
        inner.forward = lambda fails: (_ for _ in ()).throw(KeyboardInterrupt)
        outer(False)
    assert torch.equal(draw(), unruly)
    assert not outer._forward_hooks
    assert not outer._forward_pre_hooks


def test_seeds_above_32_bits_give_pictures_of_their_own_and_short_seeds_are_unchanged():
    def begun(seed):
        return tuple(torch.randn(4, generator=rng.generator(seed)).tolist())

    for seed in (0, 7, 2**32 - 1):
        assert begun(seed) == tuple(torch.randn(4, generator=torch.Generator().manual_seed(seed)).tolist())
    # Alike in their lower half (torch alone would hear one seed), alike in their upper half, and side by side.
    low = [7 + upper * 2**32 for upper in (0, 1, 2, 3, 2**20, 2**31 - 1)]
    high = [(2**31 - 1) * 2**32 + lower for lower in (0, 1, 2, 7, 2**16)]
    border = [2**32 + step for step in range(-3, 4)]
    seeds = {*low, *high, *border}
    assert len({begun(seed) for seed in seeds}) == len(seeds)
    ours, torchs = (torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in (7, 2**32 + 7))
    assert torch.equal(ours, torchs)  # why they are mixed


def test_noise_drawn_by_a_scheduler_depends_on_the_seed_and_differs_from_the_initial_noise():
    first = torch.randn((2, 33), generator=rng.generator(3))
    drawn = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        with rng.Float32Noise(rng.generator(3, stream=1)):
            drawn.append(torch.cat([torch.randn_like(first), torch.randn((2, 33), generator=None)]))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0][:2], first)


def test_float16_products_add_up_in_float32_wherever_float16_is_chosen(folders):
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction
    try:
        for precision, allowed in (("bfloat16", True), ("float16", False)):
            matmul.allow_fp16_reduced_precision_reduction = True
            model = catalogue.resolve(str(folders["zimage"]))
            load.load(model, precision_plan.choose(model, "cpu", precision))
            assert matmul.allow_fp16_reduced_precision_reduction is allowed
    finally:
        matmul.allow_fp16_reduced_precision_reduction = before


# Steps, previews, cancelling


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_is_reported_and_previews_change_nothing(painters, folders, family):
    painter, request = painters[family], ask(folders[family], count=2)
    text, looks = [], []

    def on_step(step):
        text.append((step.picture, step.step, step.steps))
        looks.append(step.preview())

    seen = [canvas.pixels for canvas in painter.paint(request, on_step)]
    assert text == [(picture, step, 3) for picture in (0, 1) for step in (0, 1, 2)]
    assert all(look.shape == (32, 32, 3) and look.dtype == np.uint8 for look in looks)
    unseen = [canvas.pixels for canvas in painter.paint(request)]
    assert all((a == b).all() for a, b in zip(seen, unseen, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_preview_finds_the_colours_in_this_autoencoders_latents(painters, family):
    pipeline = painters[family].pipeline
    preview, vae, picture = painters[family].preview, pipeline.vae, calibration_picture(256)
    with torch.no_grad():
        latents = vae.encode((picture * 2 - 1).permute(2, 0, 1)[None]).latent_dist.mode()
    latents = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    if family == "flux":
        latents = pipeline._pack_latents(latents, 1, 4, 128, 128)
    shown = preview(latents, 256, 256) / 255.0
    small = picture.numpy().reshape(128, 2, 128, 2, 3).mean((1, 3))
    unexplained = ((shown - small) ** 2).mean() / small.var((0, 1)).mean()
    assert (
        unexplained < 0.85
    )  # even a random encoder keeps some colour; a map of another one explains nothing


def test_a_preview_shows_where_the_step_is_heading(painters, folders):
    """With one step left to the end, Euler's straight line ends where the picture does."""
    painter = painters["zimage"]
    looks = []
    one(painter, ask(folders["zimage"], steps=8), lambda step: looks.append(step.preview().astype(float)))
    noisy = np.abs(looks[0] - looks[-1]).mean()
    assert np.abs(looks[-2] - looks[-1]).mean() <= noisy
    tape_free = painter.preview(torch.randn(1, 4, 32, 32, generator=rng.generator(5)), 64, 64).astype(float)
    assert noisy < np.abs(tape_free - looks[-1]).mean()  # clearer than the noise it began with


@pytest.mark.parametrize("family", FAMILIES)
def test_cancelling_ends_within_the_step_and_harms_nothing(painters, folders, family):
    painter, request = painters[family], ask(folders[family])
    before, steps = one(painter, request), []

    def on_step(step):
        steps.append(step.step)
        if step.step == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        list(painter.paint(request.replace(steps=6), on_step))
    assert steps == [0, 1]
    assert (one(painter, request) == before).all()


# Broken numbers


def test_a_refused_picture_leaves_the_batch_going_on(folders):
    painter, request = Painter.ready(ask(folders["sd"]), device="cpu"), ask(folders["sd"], count=3)
    drawn, decode = [], painter.pipeline.vae.decoder.conv_out.forward

    def break_the_second(hidden):
        return decode(hidden) * (float("nan") if len(drawn) == 1 else 1)

    painter.pipeline.vae.decoder.conv_out.forward = break_the_second
    for canvas in painter.paint(request):
        drawn.append(canvas)
    first, second, third = drawn
    assert isinstance(second, Refused)
    assert (second.index, second.seed, second.verdict.outcome) == (1, 6, "refuse")
    assert "decoder" in second.error.en
    assert (first.index, third.index) == (0, 2)
    assert (next(painter.paint(request, skip=[0, 1])).pixels == third.pixels).all()  # alone as in the batch


def test_a_truly_dark_finite_picture_passes(folders):
    painter = Painter.ready(ask(folders["sd"]), device="cpu")
    with torch.no_grad():
        for parameter in painter.pipeline.vae.decoder.conv_out.parameters():
            parameter.zero_()
        painter.pipeline.vae.decoder.conv_out.bias.fill_(-1)
    assert one(painter, ask(folders["sd"])).max() == 0


def test_running_out_of_memory_has_its_own_error(painters, folders):
    def greedy(step):
        torch.empty(2**60)

    with pytest.raises(OutOfMemory, match="memory"):
        one(painters["sd"], ask(folders["sd"]), greedy)


# Words, samplers, sizes


@pytest.mark.parametrize("family", FAMILIES)
def test_every_sampler_paints_with_its_kind_of_model(painters, folders, family):
    painter, plain = painters[family], None
    own = type(painter.pipeline.scheduler)
    plain = one(painter, ask(folders[family]))
    for name in schedulers.names(painter.model.spec.flow):
        picture = one(painter, ask(folders[family], sampler=name))
        assert np.isfinite(picture).all(), name
    assert type(painter.pipeline.scheduler) is own
    assert (one(painter, ask(folders[family])) == plain).all()


@pytest.mark.parametrize("family", ["zimage", "sd"])
def test_a_sampler_is_recorded_by_the_name_that_asks_for_it(painters, family):
    own = painters[family].pipeline.scheduler
    for name in schedulers.names("Flow" in type(own).__name__):
        assert schedulers.name_of(schedulers.build(name, own)) == name


def test_a_sampler_of_the_other_kind_is_refused(painters, folders):
    with pytest.raises(UnknownName, match="euler"):
        list(painters["zimage"].paint(ask(folders["zimage"], sampler="ddim")))
    with pytest.raises(UnknownName, match="dpmpp_2m"):
        list(painters["sd"].paint(ask(folders["sd"], sampler="dpmpp_2n")))
    assert schedulers.find("DPM++ 2M Karras", flow=False) == schedulers.find("dpmpp_2m_karras", flow=False)


def test_style_and_negative_prompt_reach_the_model(painters, folders):
    painter, plain = painters["sd"], one(painters["sd"], ask(folders["sd"]))
    canvas = next(painter.paint(ask(folders["sd"], style="油画", negative_prompt="fog", guidance=6)))
    assert canvas.prompt.startswith("a starry night, oil painting")
    assert canvas.negative_prompt == "fog, photograph, smooth, flat shading"
    assert not (canvas.pixels == plain).all()


def test_what_does_not_fit_is_refused_before_painting(painters, folders, tmp_path):
    painter = painters["zimage"]
    assert painter.model.spec.multiple == 4  # the tiny autoencoder halves, the transformer patches by two
    with pytest.raises(WrongSize, match="68×64"):
        list(painter.paint(ask(folders["zimage"], width=66)))
    with pytest.raises(UnknownName):
        list(painter.paint(ask(folders["zimage"], style="oyl")))
    with pytest.raises(MissingFile):
        list(painter.paint(ask(folders["zimage"], init_image=str(tmp_path / "none.png"))))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(BadRequest, match="none to take"):
        list(painter.paint(ask(folders["zimage"], init_image=str(tmp_path / "a.png"), steps=2, strength=0.3)))


def test_a_painter_serves_requests_for_its_model_and_precision(folders):
    request = ask(folders["sd"])
    painter = Painter.ready(request, device="cpu")
    assert painter.serves(request.replace(seed=9, steps=9, prompt="other"), "cpu")
    assert not painter.serves(request.replace(precision="bfloat16"), "cpu")
    assert not painter.serves(request.replace(model=str(folders["sdxl"])), "cpu")
    assert painter.provenance["pipeline"] == "StableDiffusionPipeline"


def test_the_fingerprint_sees_retraining(folders, tmp_path):
    import shutil

    from starrynight.models.fingerprint import fingerprint

    other = shutil.copytree(folders["sd"], tmp_path / "other")
    assert fingerprint(folders["sd"]) == fingerprint(other)
    path = other / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert fingerprint(folders["sd"]) != fingerprint(other)


def test_long_prompts_are_counted_by_the_models_own_tokenizer(painters, folders):
    from dataclasses import replace

    from starrynight.painting import checking

    model = replace(painters["sd"].model.spec, max_tokens=77)
    tokenizer = painters["sd"].pipeline.tokenizer
    assert checking.warnings_for(ask(folders["sd"]), model, tokenizer) == []
    (warning,) = checking.warnings_for(ask(folders["sd"], prompt="stars " * 40), model, tokenizer)
    assert "77" in warning[0]


# Offload


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arrangement", ["model", "sequential"])
def test_offloaded_pipelines_paint_the_same_picture(painters, folders, family, arrangement, init_image):
    """accelerate's own hooks move the weights; the accelerator they move to is, here, the CPU itself."""
    request = ask(folders[family])
    model = catalogue.resolve(request.model)
    plan = precision_plan.choose(model, "cpu", "float32")
    pipeline, device = load.load(model, plan), torch.device("cpu")
    offload.place(pipeline, device, arrangement)
    painter = Painter(pipeline, model, plan, device, arrangement)
    if arrangement == "sequential":
        assert all(parameter.is_meta for parameter in painter.denoiser.parameters())
        tiny.unnumber(pipeline)
    look = []
    picture = one(painter, request, lambda step: look.append(step.preview()))
    assert np.abs(picture - one(painters[family], request)).max() < 2e-5
    assert look[-1].shape == (32, 32, 3)
    begun = request.replace(init_image=init_image, strength=0.7)
    assert np.abs(one(painter, begun) - one(painters[family], begun)).max() < 2e-5


def test_only_large_pictures_are_decoded_in_tiles(painters):
    pipeline = painters["sd"].pipeline
    offload.tile(pipeline, 2048, 1536)
    assert pipeline.vae.use_tiling
    offload.tile(pipeline, 1024, 1024)
    assert not pipeline.vae.use_tiling


# The picture to begin from


def test_the_first_picture_is_upright_and_covers_the_frame(tmp_path):
    path = tmp_path / "phone.jpg"
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright, stored on its side
    picture.save(path, exif=exif, quality=95)
    open_picture(path)
    upright, note = fit_init_image(path, 20, 40)
    assert note is None
    assert upright.getpixel((10, 5))[2] > 200  # blue on top
    wide, note = fit_init_image(path, 20, 20)
    assert note == ("crop 20x40→20x20", "裁剪 20x40→20x20")
    assert wide.size == (20, 20)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"])
def test_every_mode_of_a_png_has_the_pixels_of_its_eight_bit_twin(tmp_path, mode):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    twin = Image.fromarray(ramp if mode != "1" else np.where(ramp > 127, 255, 0).astype(np.uint8))
    if mode.startswith("I"):
        wide = ramp.astype(">u2" if mode == "I;16B" else "<u2") * 257
        picture = Image.frombytes(mode, twin.size, wide.tobytes())
    else:
        picture = twin.convert(mode)
    picture.save(tmp_path / "picture.png")
    assert (
        np.abs(read_pixels(tmp_path / "picture.png").astype(int) - np.array(twin.convert("RGB"))).max() <= 1
    )


def test_the_transparent_value_of_sixteen_bit_grey_becomes_white(tmp_path):
    picture = Image.frombytes("I;16", (2, 1), np.array([1000, 30000], "<u2").tobytes())
    picture.save(tmp_path / "picture.png", transparency=1000)
    assert read_pixels(tmp_path / "picture.png")[0].tolist() == [[255] * 3, [117] * 3]


def test_transparency_becomes_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "glass.png")
    assert fit_init_image(tmp_path / "glass.png", 8, 8)[0].getpixel((0, 0)) == (255, 255, 255)


def test_bombs_and_broken_pictures_are_refused(tmp_path):
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (15_000, 60_000):  # over our limit, over Pillow's own
        bomb = tmp_path / f"bomb{side}.png"
        size = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        bomb.write_bytes(
            b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        )
        with pytest.raises(BadFile, match="million"):
            open_picture(bomb)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "whole.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    with pytest.raises(BadFile):
        fit_init_image(cut, 64, 64)
    (tmp_path / "words.png").write_text("not a picture")
    with pytest.raises(BadFile):
        open_picture(tmp_path / "words.png")
