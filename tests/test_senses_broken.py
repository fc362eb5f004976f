"""Every sense at an address that fails in every way, from every interface: one sentence that names it, and the work goes on.

The pages' side of it is in tests/test_web_alone.py (/see, /listen) and tests/test_web_senses.py (the wall).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing import KEY, WAYS, Broken
from PIL import Image
from served import Answer, ask, gallery_in, without_worker
from typer.testing import CliRunner

from starrynight.cli import describe as _describe  # noqa: F401  registers its commands
from starrynight.cli import facets as _facets  # noqa: F401
from starrynight.cli import hear as _hear  # noqa: F401
from starrynight.cli import senses as _senses  # noqa: F401
from starrynight.cli.terminal import app
from starrynight.errors import RemoteError
from starrynight.firefly.drawing.landscape import render
from starrynight.firefly.drawing.scene import compose
from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest
from starrynight.senses import look, remote, running, sound
from starrynight.senses.choice import BUILT_IN, KEY_ENV, SENSES, Choice
from starrynight.senses.eyes import Eyes


@pytest.fixture(params=WAYS)
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broken]:
    """What all senses are set to."""
    made = Broken(request.param)
    for sense in SENSES:
        monkeypatch.setenv(f"STARRY_{sense.upper()}", f"{made.url}#m")
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setattr(remote, "ANSWER", 0.1)
    yield made
    made.over.set()
    made.close()
    running.stop()


def said(text: str, host: str) -> None:
    """One sentence that names the server, without key or traceback."""
    assert text.count(host) >= 1
    assert KEY not in text
    assert "Traceback" not in text
    assert "Error:" not in text


def drawn(kind: str = "sunflowers") -> np.ndarray:
    return np.asarray(render(compose(11, kind=kind, style="oil", hour="noon"), 160))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """With one picture of sunflowers that was seen, whose prompt says something else."""
    with gallery_in(tmp_path_factory.mktemp("home")) as opened:
        eyes = Eyes(Choice("eyes", BUILT_IN))
        row = opened.add(Picture(drawn(), make_recipe(PaintRequest(prompt="one", seed=1))))
        look.look(opened, eyes, row, drawn())
        yield opened


@pytest.fixture(scope="module")
def here(gallery: Gallery) -> Iterator[str]:
    with without_worker(gallery) as address:
        yield address


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("files")
    (found / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(drawn()).save(found / "pictures" / name)
    tone = np.sin(np.arange(sound.RATE) / 9).astype(np.float32)
    (found / "voice.wav").write_bytes(sound.wav(tone))
    return found


def starry(*words: object) -> Any:
    return CliRunner().invoke(app, list(map(str, words)))


def test_commands_go_on_with_the_built_in_and_say_why(
    broken: Broken, files: Path, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARRY_LANG", "en")
    found = starry("describe", files / "pictures", "--json")
    assert found.exit_code == 0, found.exception
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert ["sunflower" in one["caption"]["en"].lower() for one in lines] == [True, True]
    assert {one["by"].split("-")[0] for one in lines} == {"perceiver"}
    said(found.stderr, broken.host)
    assert len(found.stderr.splitlines()) == 1  # once, not for every picture

    found = starry("facets", "雪夜的村庄", "--json")
    assert json.loads(found.stdout)["by"] == "lexicon"
    said(found.stderr, broken.host)

    found = starry("gallery", "search", "sunflowers")
    assert "Looks like:" in found.stdout
    said(found.stderr, broken.host)

    found = starry("hear", files / "voice.wav")  # nobody else can hear
    assert isinstance(found.exception, RemoteError)
    said(str(found.exception), broken.host)
    assert found.exception.exit_code != 0


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_list_of_senses_tries_each_and_says_why_in_both_languages(
    broken: Broken, monkeypatch: pytest.MonkeyPatch, lang: str
) -> None:
    monkeypatch.setenv("STARRY_LANG", lang)
    found = starry("senses")
    for sense, purpose in SENSES.items():
        assert f"{sense}  {purpose.to(lang)}" in found.stdout
    said(found.stdout, broken.host)
    instead = {"en": "The built-in one answers instead.", "zh": "改由自带的模型回答。"}[lang]
    assert found.stdout.count(instead) == 4
    assert found.exit_code == RemoteError.exit_code  # the ears have nobody who answers instead


def asked(address: str, lang: str = "en") -> dict[str, Callable[[], Answer]]:
    """Sense → what asks the route that it serves."""
    out = io.BytesIO()
    Image.fromarray(drawn()).save(out, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    voice = sound.wav(np.sin(np.arange(sound.RATE) / 9).astype(np.float32))
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + voice
        + b"\r\n--x--\r\n"
    )
    return {
        "eyes": lambda: ask(address, "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}),
        "ears": lambda: ask(
            address, "/v1/audio/transcriptions", form, Content_Type="multipart/form-data; boundary=x"
        ),
        "facets": lambda: ask(address, "/facets", {"text": "雪夜的村庄"}),
        "ranker": lambda: ask(address, "/v1/rerank", {"query": "雪夜", "documents": ["noon", "雪夜"]}),
        "embedder": lambda: ask(address, "/v1/embeddings", {"input": ["雪夜", "noon"]}),
        "search": lambda: ask(address, "/api/pictures/alike?text=sunflowers"),
    }  # fmt: skip


def test_routes_go_on_with_the_built_in_and_say_why(broken: Broken, here: str) -> None:
    for sense, ask_it in asked(here).items():
        answer = ask_it()
        if sense == "ears":
            assert (answer.status, answer.error["type"]) == (502, "server_error")
            said(answer.error["en"], broken.host)
            said(answer.error["zh"], broken.host)
            continue
        assert answer.status == 200, (sense, answer.body)
        (warning,) = [one for one in answer.json["warnings"] if broken.host in one["en"]]
        said(warning["zh"], broken.host)
        assert KEY not in answer.body.decode()
    assert ask(here, "/healthz").status == 200
    assert ask(here, "/api/pictures/alike?text=sunflowers").json["pictures"][0]["prompt"] == "one"
