"""LoRAs with a picture, and LoRAs that are sent: names, headers and sizes checked, nothing replaced, the picture found."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from starrynight.api.app import create_app
from starrynight.errors import BadFile, BadRequest
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue
from starrynight.metadata import thumbnails
from starrynight.models import lora, lora_upload, previews

LAYERS = {"unet.a.lora_A.weight": [1, 2], "unet.a.lora_B.weight": [2, 1]}
MODEL = {"model.diffusion_model.x_embedder.weight": [2, 2]}


def safetensors(shapes: dict[str, list[int]], metadata: dict[str, str] | None = None) -> bytes:
    """A file of zeros in float32 with these tensors."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def png(colour: tuple[int, int, int], side: int = 400) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side // 2), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    (tmp_path / "loras").mkdir()
    return tmp_path


@pytest.mark.parametrize("suffix", previews.SUFFIXES)
def test_a_picture_beside_a_file_is_its_preview(home: Path, suffix: str) -> None:
    path = home / "loras" / "moon.v2.safetensors"
    path.write_bytes(safetensors(LAYERS))
    assert previews.find(path) is None
    path.with_name(f"moon.v2{suffix}").write_bytes(png((200, 30, 30)))
    uri = thumbnails.data_uri(previews.find(path))
    assert uri is not None
    shown = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert (shown.format, shown.size) == ("WEBP", (160, 80))
    assert abs(shown.convert("RGB").getpixel((80, 40))[0] - 200) < 10


def test_the_most_particular_picture_wins_and_the_metadata_comes_last(home: Path) -> None:
    path = home / "loras" / "moon.safetensors"
    embedded = png((1, 2, 3), 40)
    uri = f"data:image/png;base64,{base64.b64encode(embedded).decode()}"
    path.write_bytes(safetensors(LAYERS, {previews.THUMBNAIL: uri}))
    assert previews.find(path) == embedded
    path.with_suffix(".png").write_bytes(b"plain")
    assert previews.find(path) == b"plain"
    path.with_suffix(".preview.png").write_bytes(b"preview")
    assert previews.find(path) == b"preview"


@pytest.mark.parametrize(
    "written", ["", "data:text/html;base64,PGI+", "data:image/png;base64,@@", "https://x/y.png", 3]
)
def test_what_is_no_picture_is_no_preview(home: Path, written: object) -> None:
    path = home / "loras" / "moon.safetensors"
    path.write_bytes(safetensors(LAYERS, {previews.THUMBNAIL: written}))  # type: ignore[dict-item]
    assert previews.find(path) is None
    path.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert thumbnails.data_uri(previews.find(path)) is None


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "a/b.safetensors", "a\\b.safetensors", ".hidden.safetensors", "a.ckpt", "a.pt", "a.bin", "a", "",
     ".safetensors", "a\n.safetensors", "a\u202e.safetensors", " a.safetensors", "a .safetensors", "x" * 100 + ".safetensors", "~.safetensors"],
)  # fmt: skip
def test_an_unsafe_name_is_refused_by_name(home: Path, name: str) -> None:
    with pytest.raises(BadRequest):
        lora_upload.save(name, safetensors(LAYERS))
    assert list((home / "loras").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (safetensors(LAYERS)[:-1], "bytes, but its header declares"),
        (safetensors(LAYERS) + b"x", "bytes, but its header declares"),
        (b"PK\x03\x04" + bytes(100), "moon.safetensors"),
        (b"\x80\x04\x95" + bytes(100), "moon.safetensors"),
        (safetensors(MODEL), "holds no LoRA layers"),
        (safetensors({"a.weight": [1, 1]}), "holds no LoRA layers"),
    ],
)
def test_what_is_no_whole_lora_is_refused(home: Path, data: bytes, said: str) -> None:
    with pytest.raises(BadFile, match=said) as found:
        lora_upload.save("moon.safetensors", data)
    assert "receiving" not in found.value.en  # the sender knows no path of this machine
    assert lora.names() == []
    assert [file for file in home.rglob("*") if file.is_file()] == []


def test_a_lora_is_kept_once_and_never_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = safetensors(LAYERS)
    assert lora_upload.save("月光 v2.safetensors", data) == "月光 v2"
    assert lora_upload.save("月光 v2.safetensors", data) == "月光 v2"  # the same again
    assert lora.find("月光 v2").read_bytes() == data
    lora_upload.save("Moon.SAFETENSORS", data)
    for name in ("月光 v2.safetensors", "moon.safetensors"):
        with pytest.raises(BadRequest, match="already"):
            lora_upload.save(name, safetensors(LAYERS, {"a": "b"}))
    monkeypatch.setattr(lora_upload, "MAX_BYTES", 100)
    with pytest.raises(BadFile, match="larger than"):
        lora_upload.save("large.safetensors", data)
    assert len([file for file in home.rglob("*") if file.is_file()]) == 2


def test_the_api_lists_loras_and_takes_one(home: Path) -> None:
    with Gallery() as gallery:
        client = TestClient(create_app(gallery, Queue(gallery), lambda: True))
        assert client.get("/api/loras").json() == []
        sent = client.put("/api/loras/moon.safetensors", content=safetensors(LAYERS))
        assert (sent.status_code, sent.json()) == (201, {"name": "moon"})
        (home / "loras" / "moon.png").write_bytes(png((0, 0, 200)))
        (found,) = client.get("/api/loras").json()
        assert found["name"] == "moon"
        assert found["preview"].startswith("data:image/webp;base64,")
        for name, status in (("moon.ckpt", 400), ("moon.safetensors", 400), ("%2e%2e%2fa.safetensors", 404)):
            refused = client.put(f"/api/loras/{name}", content=safetensors(LAYERS, {"x": "y"}))
            assert refused.status_code == status, (name, refused.text)
            assert "error" in refused.json()
        assert lora.names() == ["moon"]
