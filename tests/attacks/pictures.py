"""Hostile picture files, made by code. Each is a small file a stranger could send; none is kept as a blob.

``BROKEN``: no recipe may come out. ``FORGED``: pictures whose text is poison; a recipe may come out, an accident may not.
"""

from __future__ import annotations

import io
import json
import struct
import zlib

from PIL import Image
from PIL.PngImagePlugin import PngInfo

TEN_MB = 10 << 20


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*extra: bytes, width: int = 8, height: int = 8, after: bytes = b"") -> bytes:
    """A PNG that claims ``width`` × ``height`` and holds 8 × 8; ``extra`` chunks before its pixels, ``after`` behind."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x40\x60\xa0" * 8) * 8)
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), after, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def itxt(key: str, text: str | bytes, packed: bool = False) -> bytes:
    body = text.encode() if isinstance(text, str) else text
    return chunk(
        b"iTXt",
        key.encode() + b"\0" + bytes([packed, 0]) + b"\0\0" + (zlib.compress(body) if packed else body),
    )


def saved(kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (64, 96, 160)).save(out, kind, **options)
    return out.getvalue()


def with_text(**texts: str) -> bytes:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return saved("PNG", pnginfo=info)


def with_comment(kind: str, comment: bytes) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    return saved(kind, exif=exif)


def xmp(body: str, doctype: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?>{doctype}<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:starry="urn:starry-night:recipe/1.0/">{body}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def lies(**changes) -> str:
    """One of our recipes, then lied in."""
    honest = {
        "starry_night": 1,
        "request": {"prompt": "sea"},
        "seed": 7,
        "prompt": "sea",
        "model": {"name": "firefly"},
    }
    return json.dumps(honest | changes)


def laughs() -> bytes:
    """A billion laughs: nine entities, each ten of the one before."""
    entities = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    return xmp("<starry:Recipe>&l9;</starry:Recipe>", f"<!DOCTYPE x [{entities}]>")


def thieves() -> bytes:
    entity = '<!DOCTYPE x [<!ENTITY file SYSTEM "file:///etc/passwd">]>'
    return xmp(f"<starry:Recipe>{lies()}&file;</starry:Recipe>", entity)


def tame() -> bytes:
    """One small entity, inside a recipe that would be sound with it."""
    recipe = lies(seed="@").replace('"@"', "&seed;")
    return xmp(f"<starry:Recipe>{recipe}</starry:Recipe>", '<!DOCTYPE x [<!ENTITY seed "7">]>')


def graph(size: int, each) -> str:
    return json.dumps({str(i): {"class_type": "KSampler", "inputs": each(i)} for i in range(size)})


def looped(i: int) -> dict:
    """Every sampler begins from the next, and takes its words from itself."""
    after = [str((i + 1) % 2000), 0]
    links = {"positive": [str(i), 0], "negative": after, "latent_image": after, "model": after}
    return links | {"steps": after, "seed": after, "cfg": [str(i), 0]}


EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
APP1_LIE = b"\xff\xe1" + (len(EXTENSION) + 44).to_bytes(2, "big") + EXTENSION + b"A" * 32 + b"\xff" * 10

BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "a PNG's first bytes": b"\x89PNG\r\n\x1a\n",
    "words": "星夜".encode() * 100,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "html": b"<!doctype html><script>alert(1)</script>",
    "gif": saved("GIF"),
    "tiff": saved("TIFF"),
    "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "pickle": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "half a header": png()[:20],
    "a header and no more": png()[:33],
    "60000 by 60000": png(width=60_000, height=60_000),
    "9000 by 9999": png(width=9000, height=9999),
    "4 billion wide": png(width=2**32 - 1, height=2**32 - 1),
    "no width": png(width=0, height=0),
    "half a jpeg": saved("JPEG")[:100],
    "half a webp": saved("WEBP")[:20],
    "a chunk longer than the file": png(struct.pack(">I", 2**31 - 1) + b"iTXt" + b"parameters"),
    "a packed bomb": png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(64 << 20), 9))),
    "recipe nested 100000 deep": png(itxt("starry_night", "[" * 100_000 + "]" * 100_000)),
    "recipe of 10 MB": png(itxt("starry_night", lies(prompt="x" * TEN_MB))),
    "recipe that is a number": png(itxt("starry_night", "1")),
    "recipe cut short": png(itxt("starry_night", lies()[:-5])),
    "recipe of bad bytes": png(itxt("starry_night", b"\xff\xfe{\x80")),
    "10 MB of text": png(chunk(b"tEXt", b"parameters\0" + b"Steps: 1, " * (TEN_MB // 10))),
    "comfy of nothing": with_text(prompt="{}", workflow="{}"),
    "comfy of wrong types": with_text(prompt=json.dumps({"1": 1, "2": None, "3": {"inputs": []}, "4": []})),
    "invoke of wrong types": with_text(invokeai_metadata="[[]]"),
    "a billion laughs": saved("WEBP", xmp=laughs()),
    "a billion laughs in jpeg": saved("JPEG", xmp=laughs()),
    "a thief of files": saved("WEBP", xmp=thieves()),
    "one small entity": saved("WEBP", xmp=tame()),
    "10 MB of xmp": saved("WEBP", xmp=xmp(f"<starry:Recipe>{lies(prompt='x' * TEN_MB)}</starry:Recipe>")),
    "xmp of unclosed tags": saved("WEBP", xmp=b"<a>" * 200_000),
    "xmp nested 300000 deep": saved("WEBP", xmp=xmp("<a>" * 300_000 + "</a>" * 300_000)),
    "exif of noise": saved("WEBP", exif=b"Exif\0\0MM\0*" + bytes(range(256))),
    "exif that points at itself": saved(
        "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"
    ),
    "a comment of half a letter": with_comment("JPEG", b"UNICODE\0\xd8"),
    "an xmp extension that lies": saved("JPEG", extra=APP1_LIE),
}

FORGED: dict[str, bytes] = {
    "every type wrong": png(
        itxt(
            "starry_night",
            lies(request=[1], seed="x", prompt=5, negative_prompt={}, model="m", plan=3, verdict=None),
        )
    ),
    "a request no painter takes": png(
        itxt(
            "starry_night",
            lies(request={"prompt": "sea", "width": 10**30, "steps": -1, "loras": [["a"]], "seed": 1e999}),
        )
    ),
    "a number of 4000 digits": png(
        itxt("starry_night", lies(seed=10**4000, request={"prompt": "sea", "seed": 10**4000}))
    ),
    "keys that name no field": png(
        itxt("starry_night", lies(request={"prompt": "sea", "__class__": 1, "style": "ink"}))
    ),
    "a terminal driven": png(
        itxt("starry_night", lies(prompt="\x1b[2J\x1b]0;owned\x07sea", request={"prompt": "\x1b[2Jsea"}))
    ),
    "halves of letters": png(itxt("starry_night", lies(prompt="\ud83c sea \udfff"))),
    "a shell entered": with_text(parameters="$(rm -rf ~) `id` '; reboot #\nSteps: 8, Seed: 7, Size: 64x64"),
    "a dash in front": with_text(
        parameters="--out=/etc/passwd\nNegative prompt: -n\nSteps: 8, Seed: 7, Size: 64x64"
    ),
    "words behind the pixels": png(
        after=itxt("parameters", "sea\nSteps: 8, Seed: 7, Size: 64x64", packed=True)
    ),
    "a million letters": with_text(
        parameters="a" * 3_000_000 + "\nSteps: 8, Seed: 7, Size: 64x64, " + "b" * 900_000
    ),
    "a million spaces": with_text(
        parameters="a" + " " * 3_000_000 + "b\nSteps: 8, Seed: 7, C: " + " " * 900_000 + "d"
    ),
    "a million loras": with_text(parameters="<lora:" * 300_000 + "\nSteps: 8, Seed: 7, Size: 64x64"),
    "a million quotes": with_text(
        parameters='sea\nSteps: 8, Seed: 7, Size: 64x64, a:"\\' + '",a:"\\' * 300_000
    ),
    "comfy in circles": with_text(prompt=graph(2000, looped)),
    "comfy all in one": with_text(
        prompt=json.dumps(
            {
                "1": {
                    "class_type": "KSampler",
                    "inputs": looped(0) | {f"x{i}": [str(i), 0] for i in range(90_000)},
                }
            }
        )
    ),
    "comfy of absurd numbers": with_text(
        prompt='{"1":{"class_type":"KSampler","inputs":{"seed":1e999,"steps":NaN,"cfg":"many","positive":["1",0],"latent_image":[[],{}]}}}'
    ),
    "invoke of absurd numbers": with_text(
        invokeai_metadata='{"positive_prompt":["a"],"seed":-1,"steps":true,"cfg_scale":[1],"model":[],"loras":[1,{"lora":2}]}'
    ),
}
