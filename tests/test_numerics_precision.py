"""The formats chosen for a table of devices, and their reasons."""

from __future__ import annotations

import subprocess
import sys

import pytest

from starrynight.errors import BadRequest
from starrynight.numerics.precision import FORMATS, Device, ModelProfile, choose

GB = 2**30
ZIMAGE = ModelProfile("z-image", {"transformer": 6_150_000_000, "text_encoder": 4_000_000_000, "vae": 84_000_000},
               float32_vae=True)  # fmt: skip
FOLDED = ModelProfile(
    "z-image", ZIMAGE.parameters, folded=frozenset({"transformer", "text_encoder", "vae"}), float32_vae=True
)
SDXL = ModelProfile("sdxl", {"unet": 2_600_000_000, "text_encoder": 820_000_000, "vae": 84_000_000},
             float16_safe=frozenset({"unet", "text_encoder"}))  # fmt: skip


def cuda(name: str, major: int, minor: int, memory: int = 48) -> Device:
    return Device("cuda", name, capability=(major, minor), memory=memory * GB)


def rocm(arch: str) -> Device:
    return Device("rocm", arch, arch=arch, memory=48 * GB)


def cpu(bfloat16: float, float16: float = 0.4, memory: int = 64) -> Device:
    return Device(
        "cpu", "cpu", memory=memory * GB, rates={"float32": 160.0, "bfloat16": bfloat16, "float16": float16}
    )


# device, then the denoiser's format for: Z-Image as published, Z-Image with folds, SDXL (published for float16)
TABLE = [
    (cuda("GTX 980", 5, 2), "float32", "float32", "float32"),
    (cuda("P100", 6, 0), "float32", "float16-folded", "float16"),
    (cuda("GTX 1080", 6, 1), "float32", "float32", "float32"),
    (cuda("GTX 1080", 6, 1, memory=8), "float32", "float16-folded", "float16"),
    (cuda("V100", 7, 0), "float32", "float16-folded", "float16"),
    (cuda("RTX 2070", 7, 5), "float32", "float16-folded", "float16"),
    (cuda("Tesla T4", 7, 5), "float32", "float16-folded", "float16"),
    (cuda("NVIDIA GeForce GTX 1650", 7, 5), "float32", "float32", "float32"),
    (cuda("A100", 8, 0), "bfloat16", "float16-folded", "float16"),
    (cuda("RTX 4090", 8, 9), "bfloat16", "float16-folded", "float16"),
    (cuda("H100", 9, 0), "bfloat16", "float16-folded", "float16"),
    (cuda("RTX 5090", 12, 0), "bfloat16", "float16-folded", "float16"),
    (rocm("gfx906"), "float32", "float16-folded", "float16"),
    (rocm("gfx1030"), "float32", "float16-folded", "float16"),
    (rocm("gfx1100"), "bfloat16", "float16-folded", "float16"),
    (rocm("gfx1201"), "bfloat16", "float16-folded", "float16"),
    (Device("mps", "M1", system=(13, 6), memory=48 * GB), "float32", "float16-folded", "float16"),
    (Device("mps", "M2", system=(14, 1), memory=48 * GB), "bfloat16", "float16-folded", "float16"),
    (Device("xpu", "Arc A770", memory=16 * GB), "bfloat16", "float16-folded", "float16"),
    (cpu(bfloat16=20.0), "float32", "float32", "float32"),  # no AVX512-BF16: emulated
    (cpu(bfloat16=420.0), "bfloat16", "bfloat16", "bfloat16"),  # AVX512-BF16
    (cpu(bfloat16=1500.0, float16=1600.0), "bfloat16", "float16-folded", "float16"),  # AMX with FP16
    # too small for Z-Image in float32
    (cpu(bfloat16=20.0, memory=24), "bfloat16", "float16-folded", "float32"),
    (Device("cpu", "unmeasured"), "float32", "float32", "float32"),
]


@pytest.mark.parametrize(("device", "plain", "folded", "sdxl"), TABLE, ids=lambda x: getattr(x, "name", ""))
def test_the_denoisers_format_on_each_device(device: Device, plain: str, folded: str, sdxl: str) -> None:
    assert choose(device, ZIMAGE)["transformer"].format == plain
    assert choose(device, FOLDED)["transformer"].format == folded
    assert choose(device, SDXL)["unet"].format == sdxl


@pytest.mark.parametrize("device", [row[0] for row in TABLE], ids=lambda device: device.name)
def test_every_choice_is_safe_and_has_a_reason_in_both_languages(device: Device) -> None:
    for model in (ZIMAGE, FOLDED, SDXL):
        for choice in choose(device, model):
            assert choice.format in FORMATS
            assert choice.dtype in ("float32", *device.stores)
            assert choice.reason("en").isascii() or "×" in choice.reason("en")
            assert any("\u4e00" <= letter <= "\u9fff" for letter in choice.reason("zh"))
            if choice.format == "float16":  # unfolded float16 only where its authors publish it
                assert model.roles[choice.component] in model.float16_safe


def test_each_component_gets_its_own_format() -> None:
    plan = choose(cuda("A100", 8, 0), FOLDED)
    assert plan["transformer"].format == "float16-folded"
    assert plan["vae_decode"].format == "float32"  # the makers decode in float32
    assert plan["vae_encode"].format == "float32"
    # SDXL's decoder overflows float16
    assert choose(cuda("A100", 8, 0), SDXL)["vae_decode"].format == "bfloat16"
    assert choose(cuda("RTX 2070", 7, 5), SDXL)["vae_decode"].format == "float32"


def test_bfloat16_convolutions_are_never_chosen_below_8_0() -> None:
    for device in (cuda("T4", 7, 5, memory=1), cuda("GTX 980", 5, 2, memory=1)):
        assert all(choice.dtype != "bfloat16" for choice in choose(device, SDXL))


def test_a_requested_format_is_used_or_raises_bad_request() -> None:
    card = cuda("RTX 2070", 7, 5)
    assert choose(card, FOLDED, "float16")["transformer"].format == "float16-folded"
    assert choose(card, ZIMAGE, "float16")["transformer"].format == "float16"
    assert choose(card, ZIMAGE, "float16-folded")["transformer"].format == "float32"
    assert choose(card, ZIMAGE, "float16")["vae_encode"].format == "float32"
    assert choose(card, ZIMAGE, {"vae_decode": "float16"})["transformer"].format == "float32"
    with pytest.raises(BadRequest, match="RTX 2070 does not compute bfloat16"):
        choose(card, ZIMAGE, "bfloat16")
    with pytest.raises(BadRequest, match="GTX 1650"):
        choose(cuda("GTX 1650", 7, 5), SDXL, "float16")
    with pytest.raises(BadRequest, match="not a precision"):
        choose(card, ZIMAGE, "int3")
    with pytest.raises(BadRequest, match="no component"):
        choose(card, ZIMAGE, {"unet": "float32"})


def test_choosing_imports_no_torch() -> None:
    code = "import sys, starrynight.numerics.precision; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_probe_measures_this_machine_quickly() -> None:
    import time

    from starrynight.numerics import device

    start = time.process_time()
    here = device.probe("cpu")
    assert time.process_time() - start < 10  # CPU seconds, so that a busy machine does not count
    assert here.memory > GB
    assert here.rates["float32"] > 0.1
    assert 0 <= here.waited <= 1
    assert choose(here, ZIMAGE)["transformer"].format in ("float32", "bfloat16")
