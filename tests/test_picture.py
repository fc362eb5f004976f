"""A finished picture: the bytes of its files, what other tools read in them, and how they are written."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sd_parsers import ParserManager
from sd_parsers.extractors import _jpeg_usercomment

from starrynight.errors import BadRequest, StorageError
from starrynight.metadata import read_pixels, read_recipe
from starrynight.picture import Picture, Verdict, convert, format_of, make_recipe
from starrynight.request import MAX_TEXT, PaintRequest
from starrynight.storage import PART_SUFFIX, storage_error

KINDS = ["png", "jpeg", "webp"]
SUFFIX = {"png": "png", "jpeg": "jpg", "webp": "webp"}
NEEDS_EXIFTOOL = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="apt-get install libimage-exiftool-perl"
)


def waves(side: int = 64) -> np.ndarray:
    """A smooth, colourful uint8 [side, side, 3], so that JPEG and WebP keep it recognisable."""
    y, x = np.mgrid[:side, :side] / side
    return (127 + 120 * np.stack([np.sin(6 * x), np.cos(5 * y), np.sin(4 * (x + y))], -1)).astype(np.uint8)


def request_of(**changes) -> PaintRequest:
    return PaintRequest(**({"prompt": "星夜下的静谧村庄", "negative_prompt": "模糊", "seed": 7} | changes))


def picture(request: PaintRequest | None = None, **changes) -> Picture:
    known = {"sampler": "Euler", "versions": {"starry-night": "0.1.0"}}
    return Picture(waves(), make_recipe(request or request_of(), **(known | changes)))


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """A PNG's chunks as (type, body), checksums verified."""
    found, at = [], 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == int.from_bytes(png[at + 8 + length : at + 12 + length], "big")
        found.append((kind, body))
        at += 12 + length
    return found


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_texts_in_a_png_are_fixed_byte_for_byte() -> None:
    texts = [body for kind, body in chunks(picture().encode("png")) if kind == b"iTXt"]
    parameters, recipe, packet = (body.split(b"\0\0\0\0\0", 1) for body in texts)
    assert parameters == [
        b"parameters",
        "星夜下的静谧村庄\nNegative prompt: 模糊\nSteps: 8, Sampler: Euler, CFG scale: 2, Seed: 7, Size: 256x256, "
        "Model: firefly, Version: Starry Night 0.1.0".encode(),
    ]
    assert recipe == [
        b"starry_night",
        '{"index":0,"model":{"name":"firefly"},"negative_prompt":"模糊","plan":{},"prompt":"星夜下的静谧村庄",'
        '"request":{"count":1,"guidance":2.0,"height":256,"init_image":null,"loras":[],"model":"firefly",'
        '"negative_prompt":"模糊","precision":"auto","prompt":"星夜下的静谧村庄","sampler":null,"seed":7,"steps":8,'
        '"strength":0.6,"style":null,"width":256},"sampler":"Euler","seed":7,"starry_night":1,'
        '"verdict":{"outcome":"unchecked","reasons":[]},"versions":{"starry-night":"0.1.0"}}'.encode(),
    ]
    assert packet[0] == b"XML:com.adobe.xmp"
    assert packet[1].decode() == textwrap.dedent(f"""\
        <?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
        <x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Starry Night">
         <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/" \
xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" \
xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/">
          <rdf:Description rdf:about="">
           <xmp:CreatorTool>Starry Night 0.1.0</xmp:CreatorTool>
           <Iptc4xmpExt:DigitalSourceType>\
http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>
           <TC260:AIGC>{{"Label":"1","ContentProducer":"Starry Night","ProduceID":"{picture().id}",\
"ReservedCode1":"","ContentPropagator":"","PropagateID":"","ReservedCode2":""}}</TC260:AIGC>
           <dc:description><rdf:Alt><rdf:li xml:lang="x-default">星夜下的静谧村庄</rdf:li></rdf:Alt></dc:description>
          </rdf:Description>
         </rdf:RDF>
        </x:xmpmeta>
        <?xpacket end="r"?>""")


def test_the_exif_of_a_jpeg_is_fixed_byte_for_byte() -> None:
    """Big-endian TIFF, as A1111 writes it: Software, and UserComment as EXIF's UNICODE."""
    text = "星夜下的静谧村庄\nNegative prompt: 模糊\nSteps: 8, Sampler: Euler, CFG scale: 2, Seed: 7, Size: 256x256, "
    comment = b"UNICODE\0" + (text + "Model: firefly, Version: Starry Night 0.1.0").encode("utf-16-be")
    software = b"Starry Night 0.1.0\0"
    ifd = struct.pack(">HHHIIHHIII", 2, 0x0131, 2, len(software), 38, 0x8769, 4, 1, 58, 0)
    exif_ifd = struct.pack(">HHHIII", 1, 0x9286, 7, len(comment), 76, 0)
    tiff = b"MM\0*\0\0\0\x08" + ifd + software + b"\0" + exif_ifd + comment
    for data in (picture().encode("jpeg"), picture().encode("webp")):
        at = data.index(b"MM\0*")
        assert data[at : at + len(tiff)] == tiff


def test_the_id_is_fixed_by_pixels_and_recipe() -> None:
    black = Picture(np.zeros((2, 3, 3), np.uint8), make_recipe(PaintRequest(prompt="night", seed=1)))
    assert black.id == "7bb12cf05c4aa58b76aa9f34f9467f34"
    assert Picture(black.pixels.reshape(3, 2, 3), black.recipe).id != black.id
    assert Picture(black.pixels + 1, black.recipe).id != black.id
    assert Picture(black.pixels, black.recipe | {"seed": 2}).id != black.id
    assert Picture(black.pixels[:, ::-1], black.recipe, producer="someone").id == black.id


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_picture_gives_the_same_bytes(kind) -> None:
    once = picture().encode(kind)
    code = "import sys; sys.path[:0] = ['tests']; import test_picture as t; "
    code += f"sys.stdout.buffer.write(t.picture().encode({kind!r}))"
    again = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert again.stdout == once


@pytest.mark.parametrize(
    ("kind", "options", "error"), [("png", {}, 0), ("webp", {"lossless": True}, 0), ("jpeg", {}, 4)]
)
def test_the_pixels_survive(kind, options, error) -> None:
    seen = read_pixels(picture().encode(kind, **options)).astype(int)
    # JPEG at quality 95, 4:4:4; with 4:2:0 the colours alone would differ by more than 4.
    assert np.abs(seen - waves()).max() <= error


def test_quality_changes_the_size() -> None:
    assert len(picture().encode("webp", quality=20)) < len(picture().encode("webp", quality=95))
    assert len(picture().encode("jpeg", quality=20)) < len(picture().encode("jpeg"))
    for quality in (0, 101):
        with pytest.raises(BadRequest):
            picture().encode("jpeg", quality=quality)
    with pytest.raises(BadRequest, match="gif"):
        picture().encode("gif")


def test_a_picture_needs_valid_pixels_and_a_recipe() -> None:
    for pixels in (
        np.zeros((4, 4, 3)),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match="uint8"):
            Picture(pixels, picture().recipe)
    with pytest.raises(ValueError, match="recipe"):
        Picture(waves(), {})
    with pytest.raises(ValueError, match="verdict"):
        Verdict("perhaps")


def test_a_picture_returns_its_request_seed_and_verdict() -> None:
    request = request_of(count=3)
    verdict = Verdict("refuse", ("the decoder gave NaN at step 3",))
    second = picture(request, index=1, verdict=verdict)
    assert (second.request, second.seed, second.verdict) == (request, 8, verdict)


# ── round trips ──────────────────────────────────────────────────────────────────────────────────────────────────

prompts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300).map(
    lambda text: re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]", "", text) + "夜"
)


@settings(max_examples=60, deadline=None)
@given(prompts, prompts, st.sampled_from(KINDS))
def test_any_prompt_survives_any_format(prompt, negative, kind) -> None:
    request = request_of(
        prompt=prompt, negative_prompt=negative, style="水墨", loras=[("a, b: “c”", -0.1)], count=2
    )
    recipe = read_recipe(picture(request, index=1).encode(kind))
    assert recipe.request() == request.to_dict() | {"seed": 8, "count": 1}
    assert (recipe.prompt, recipe.negative_prompt) == (request.prompt, request.negative_prompt)


TRICKY = {
    "chinese": "星夜下的静谧村庄，梵高风格，厚重的笔触",
    "newlines": "a village\n\n  under stars\nSteps: 3, Sampler: none, Seed: 5",
    "imitation": "sea\nNegative prompt: fog, Negative prompt: rain",
    "settings": 'a sign "Seed: 5, Steps: 3", Size: 1x1, Model: evil',
    "emoji": "🌌👨‍👩‍👧‍👦🏳️‍🌈 over the sea",
    "right to left": "ליל כוכבים فوق القرية",
    "markup": "<b>bold</b> & ]]> <!-- --> <rdf:Description/> &amp;",
    "json": '{"starry_night": 2, "seed": 1} \\ \\u0041 \\n',
    "long": "好" * MAX_TEXT,
    "long emoji": "🌌" * MAX_TEXT,
    "long markup": "&" * MAX_TEXT,
    "long noise": "".join(chr(0x20000 + 7919 * i % 40000) for i in range(MAX_TEXT)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRICKY)
def test_tricky_prompts_survive_for_this_package_and_for_sd_parsers(
    name, kind, tmp_path, monkeypatch
) -> None:
    words = TRICKY[name]
    request = request_of(
        prompt=words, negative_prompt=words[::-1], loras=[("/l/ink.safetensors", 0.8)], model="hub/z-image"
    )
    path = picture(request, model={"hash": "ab" * 32}).write(tmp_path / f"x.{SUFFIX[kind]}")
    recipe = read_recipe(path)
    assert recipe.request() == request.to_dict()
    monkeypatch.setattr(
        _jpeg_usercomment, "_image_id", None
    )  # sd-parsers' cache: an id() that a later image can get again
    seen = ParserManager().parse(path)
    assert seen is not None, "sd-parsers finds nothing"
    (sampler,) = seen.samplers
    assert (sampler.name, sampler.parameters["seed"], sampler.parameters["steps"]) == ("Euler", "7", "8")
    assert sampler.parameters["cfg_scale"] == "2"
    assert seen.metadata["Size"] == "256x256"
    assert sampler.model is not None
    assert (sampler.model.name, sampler.model.hash) == ("z-image", "ab" * 5)
    tame = lambda text: re.sub("(?i)(negative prompt):", r"\1 :", text)  # noqa: E731 - the one documented change
    assert sampler.prompts[0].value == tame(request.prompt) + " <lora:ink:0.8>"
    assert sampler.negative_prompts[0].value == tame(request.negative_prompt)


def test_a_packet_too_long_for_a_jpeg_segment_is_split_as_the_xmp_standard_requires() -> None:
    data = picture(request_of(prompt=TRICKY["long markup"], negative_prompt=TRICKY["long noise"])).encode(
        "jpeg"
    )
    assert data.count(b"http://ns.adobe.com/xap/1.0/\0") == 1
    _, first, second = data.split(b"http://ns.adobe.com/xmp/extension/\0")
    guid = re.search(rb"<xmpNote:HasExtendedXMP>([0-9A-F]{32})<", data)
    assert guid is not None
    assert first[:32] == second[:32] == guid[1]
    whole = int.from_bytes(first[32:36], "big")
    step = len(first) - 40 - 4  # the next segment's marker and length lie between
    assert [int.from_bytes(part[36:40], "big") for part in (first, second)] == [0, step]
    extension = (first[40 : 40 + step] + second[40:])[:whole]
    assert hashlib.md5(extension).hexdigest().upper().encode() == guid[1]
    short = picture().encode("jpeg")
    assert b"http://ns.adobe.com/xmp/extension/\0" not in short


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_a_prompt_too_long_for_exif_is_refused_with_an_alternative(kind) -> None:
    with pytest.raises(BadRequest, match="PNG"):
        picture(prompt="好" * 40_000).encode(kind)
    assert read_recipe(picture(prompt="好" * 40_000).encode("png")).prompt == "好" * 40_000


@NEEDS_EXIFTOOL
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRICKY)
def test_exiftool_reads_prompt_label_and_recipe(name, kind, tmp_path) -> None:
    request = request_of(prompt=TRICKY[name], negative_prompt="模糊")
    one = Picture(waves(), make_recipe(request, sampler="Euler"), producer="星河 <Studio> & Co")
    path = one.write(tmp_path / f"x.{SUFFIX[kind]}")
    out = subprocess.run(["exiftool", "-j", "-a", "-G1", path], capture_output=True, check=True).stdout
    tags = json.loads(out)[0]
    assert not [tag for tag in tags if tag.endswith(("Warning", "Error"))], tags
    text = tags["PNG:Parameters" if kind == "png" else "ExifIFD:UserComment"]
    assert text.startswith(re.sub("(?i)(negative prompt):", r"\1 :", request.prompt))
    assert (
        "Steps: 8, Sampler: Euler, CFG scale: 2, Seed: 7, Size: 256x256, Model: firefly"
        in text.split("\n")[-1]
    )
    assert tags["XMP-dc:Description"].strip() == request.prompt
    assert tags["XMP-iptcExt:DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    label = tags["XMP-TC260:Aigc"]
    label = json.loads(label) if isinstance(label, str) else label
    assert (label["Label"], label["ContentProducer"], label["ProduceID"]) == (
        "1",
        "星河 <Studio> & Co",
        one.id,
    )
    ours = tags["PNG:Starry_night" if kind == "png" else "XMP-starry:Recipe"]
    ours = json.loads(ours) if isinstance(ours, str) else ours
    assert ours["request"]["prompt"] == request.prompt


def test_the_aigc_label_can_be_omitted() -> None:
    one = picture()
    assert b"TC260" in one.encode("webp")
    bare = Picture(one.pixels, one.recipe, label=False)
    for kind in KINDS:
        assert b"TC260" not in bare.encode(kind)
        assert b"trainedAlgorithmicMedia" in bare.encode(kind)


A1111 = "a quiet 村庄\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 99, Size: 8x8"


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_a_converted_picture_keeps_its_recipe(source, target) -> None:
    own = picture().encode(source)
    assert convert(own, source, source) is own
    assert read_recipe(convert(own, source, target, 80)).request() == picture().request.to_dict()
    texts: dict[str, Any] = {"pnginfo": PngInfo()} if source == "png" else {"exif": Image.Exif()}
    if source == "png":
        texts["pnginfo"].add_itxt("parameters", A1111)
    else:
        texts["exif"].get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
    out = io.BytesIO()
    Image.fromarray(waves()).save(out, source.upper(), **texts)
    recipe = read_recipe(convert(out.getvalue(), source, target, 80))
    assert (recipe.tool, recipe.prompt, recipe.seed) == ("A1111", "a quiet 村庄", 99)


def test_another_tools_xmp_survives_and_gets_no_label() -> None:
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><!-- theirs --></x:xmpmeta>'
    out = io.BytesIO()
    Image.fromarray(waves()).save(out, "WEBP", xmp=packet)
    for target in ("png", "jpeg"):
        data = convert(out.getvalue(), "webp", target)
        assert packet in data
        assert b"TC260" not in data
    for wrong in ({"target_format": "gif"}, {"target_format": "png", "quality": 0}):
        with pytest.raises(BadRequest):
            convert(out.getvalue(), "webp", **wrong)
    out = io.BytesIO()
    Image.fromarray(waves()).save(out, "WEBP", xmp=packet.replace(b"theirs", b"x" * 70_000))
    with pytest.raises(BadRequest, match="PNG"):  # a JPEG segment holds 64 KB
        convert(out.getvalue(), "webp", "jpeg")


# ── the disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_existing_file_is_not_overwritten(tmp_path) -> None:
    (tmp_path / "x.png").write_text("an older picture")
    assert picture().write(tmp_path / "x.png") == tmp_path / "x-2.png"
    assert picture().write(tmp_path / "x.png") == tmp_path / "x-3.png"
    assert (tmp_path / "x.png").read_text() == "an older picture"
    assert picture().write(tmp_path / "x.png", overwrite=True) == tmp_path / "x.png"
    assert (tmp_path / "x.png").read_bytes() == picture().encode()
    assert sorted(os.listdir(tmp_path)) == ["x-2.png", "x-3.png", "x.png"]


def test_concurrent_writes_of_one_name_all_succeed(tmp_path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(
            pool.map(lambda seed: picture(request_of(seed=seed)).write(tmp_path / "x.png"), range(24))
        )
    assert len(set(paths)) == 24
    assert sorted(read_recipe(path).seed or 0 for path in paths) == list(range(24))


def test_a_missing_folder_is_made_and_the_suffix_selects_the_format(tmp_path) -> None:
    path = picture().write(tmp_path / "a" / "b" / "夜.JPEG")
    assert path.read_bytes().startswith(b"\xff\xd8\xff")
    assert [format_of(name) for name in ("a.png", "b.JPG", "c.webp")] == ["png", "jpeg", "webp"]
    for name in ("x.gif", "x", "x.png.txt"):
        with pytest.raises(BadRequest, match=r"\.png, \.jpg or \.webp"):
            picture().write(tmp_path / "nowhere" / name)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_place_of_a_folder_and_a_long_name_are_storage_errors(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.png", tmp_path / ("长" * 200 + ".png")):
        with pytest.raises(StorageError) as caught:
            picture().write(path)
        assert caught.value.exit_code == 5
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(StorageError):
        picture().write(tmp_path / "folder.png", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


def test_missing_permission_is_named(tmp_path) -> None:
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # permissions do not bind root
    try:
        with pytest.raises(StorageError, match="may not be written") as caught:
            picture().write(tmp_path / "x.png")
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)
    assert "权限" in caught.value.zh


def test_a_full_disk_leaves_no_file(tmp_path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does by itself; the write then fails
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(StorageError, match="full") as caught:
            picture().write(tmp_path / "x.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "已满" in caught.value.zh
    assert os.listdir(tmp_path) == []
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert "full" in storage_error(Path("x.png"), OSError(number, os.strerror(number))).en


@pytest.mark.parametrize("moment", ["fsync", "link"])
def test_a_killed_process_leaves_no_partial_picture(moment, tmp_path) -> None:
    code = f"""
        import os, signal, sys
        sys.path[:0] = ["tests"]
        import test_picture
        os.{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        test_picture.picture().write({str(tmp_path / "x.png")!r})
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[1])
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / "x.png").exists()
    (left,) = os.listdir(tmp_path)
    assert left.endswith(PART_SUFFIX)
    assert left.startswith(".")


def test_a_file_system_without_hard_links_overwrites_nothing(tmp_path, monkeypatch) -> None:
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")  # FAT's error

    monkeypatch.setattr(os, "link", refuse)
    paths = [picture().write(tmp_path / "x.webp") for _ in range(3)]
    assert (
        sorted(os.listdir(tmp_path))
        == sorted(path.name for path in paths)
        == ["x-2.webp", "x-3.webp", "x.webp"]
    )


def test_requests_pictures_and_metadata_import_no_torch() -> None:
    code = (
        "import sys, starrynight.request, starrynight.picture, starrynight.metadata;"
        "heavy = {'torch', 'diffusers', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
