"""Models that another server paints: a second Starry Night on loopback, and servers that answer wrongly."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hung import picture
from PIL import Image
from served import Server, until

from starrynight.errors import BadRequest, Cancelled, RemoteError, StarryError, Unfit
from starrynight.gallery.store import Gallery
from starrynight.jobs.validate import validate_request
from starrynight.metadata import read_recipe
from starrynight.models import catalogue, registry
from starrynight.models.assembly import add_remote
from starrynight.models.remote import Remote, checked
from starrynight.painting.results import Refused
from starrynight.studio import Studio, make_request

KEY = "sk-very-secret"
Answer = tuple[int, bytes, dict[str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    monkeypatch.setenv("FAR_KEY", KEY)
    return tmp_path


class Far:
    """A server whose answer to each request is ``answer(fields)``; ``asked`` are the fields and headers."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Answer] = lambda _: (200, b"{}", {})
        self.asked: list[tuple[str, dict[str, Any], Any]] = []
        far = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fields = (
                    json.loads(body) if self.headers["Content-Type"] == "application/json" else {"form": body}
                )
                far.asked.append((self.path, fields, self.headers))
                status, data, headers = far.answer(fields)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@pytest.fixture
def far() -> Iterator[Far]:
    server = Far()
    add_remote("far", Remote(server.url, "there", key_env="FAR_KEY", size=128))
    yield server
    server.server.shutdown()
    server.server.server_close()


def outcomes(save: Callable[..., Any] = lambda found: Path("x"), **fields: Any) -> list[Any]:
    return list(
        Studio(save).paint(make_request(**({"prompt": "a lake", "model": "far", "seed": 3} | fields)))
    )


def paint(**fields: Any) -> list[Any]:
    """Raises the error of a refused picture."""
    found = outcomes(**fields)
    for one in found:
        if isinstance(one, Refused):
            raise one.error
    return found


def sent(data: bytes) -> Answer:
    return 200, json.dumps({"data": [{"b64_json": base64.b64encode(data).decode()}]}).encode(), {}


def test_a_second_starry_night_paints(tmp_path_factory: pytest.TempPathFactory, home: Path) -> None:
    server = Server(tmp_path_factory.mktemp("far"))
    try:
        add_remote("far", Remote(f"{server.address}v1", "firefly", size=128, steps=4))
        with Gallery(home / "gallery") as gallery:
            request = validate_request(
                {"prompt": "a lighthouse", "model": "far", "seed": 5, "style": "ink", "count": 2}, gallery
            )
            found = list(Studio(gallery.save).paint(request))
            (one, two) = (read_recipe(outcome.place).raw for outcome in found)
            assert gallery.count() == 2
        job = server.submit("a lighthouse", steps=4, style="ink", count=2)
        there = [server.ask(f"/api/pictures/{done['picture']}/file").body
                 for done in server.until(job, lambda now: now["state"] == "done")["painted"]]  # fmt: skip
        for outcome, recipe, theirs in zip(found, (one, two), there, strict=True):
            assert (outcome.picture.pixels == _pixels(theirs)).all()  # the same seed, steps and words
            assert (recipe["model"]["source"], recipe["model"]["remote_model"]) == (
                f"{server.address}v1",
                "firefly",
            )
            assert recipe["verdict"]["outcome"] == "unchecked"
        assert (one["seed"], two["seed"]) == (5, 6)

        def stop(_: object) -> None:
            if any(job["state"] == "painting" for job in server.ask("/api/jobs").json["jobs"]):
                raise Cancelled

        endless = make_request(prompt="endless", model="far", steps=150, seed=1)
        with pytest.raises(Cancelled):
            list(Studio(lambda found: Path("x")).paint(endless, stop))
        until(lambda: server.ask("/api/jobs?state=all&limit=1").json["jobs"][0]["state"] == "cancelled")
        refused = make_request(prompt="x", model="far", width=100, height=100)
        (outcome,) = Studio(lambda found: Path("x")).paint(refused)
        assert isinstance(outcome, Refused)
        assert "multiples of 16" in outcome.error.en
        start = home / "start.png"
        start.write_bytes(picture(size=128).encode())
        edit = make_request(prompt="snow", model="far", init_image=str(start), strength=0.5, seed=2)
        (edited,) = Studio(lambda found: Path("x")).paint(edit)
        assert edited.picture.pixels.shape == (128, 128, 3)
    finally:
        server.close()


def _pixels(data: bytes) -> Any:
    import numpy as np

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_what_is_sent_and_kept(far: Far) -> None:
    pixels = picture(size=128)
    far.answer = lambda _: sent(pixels.encode("png"))
    (found,) = paint(negative_prompt="fog", steps=7, guidance=1.5)
    path, fields, headers = far.asked[0]
    assert path == "/v1/images/generations"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert fields == {
        "prompt": "a lake", "n": 1, "size": "128x128", "response_format": "b64_json", "seed": 3, "model": "there",
        "num_inference_steps": 7, "guidance_scale": 1.5, "negative_prompt": "fog",
    }  # fmt: skip
    assert (found.picture.pixels == pixels.pixels).all()
    assert KEY not in json.dumps(found.picture.recipe) + registry.path_of("far").read_text()
    assert str(found.picture.recipe["verdict"]["reasons"]).count("only the decoded picture was checked") == 1


@pytest.mark.parametrize("code", ["unknown_parameter", None])
def test_fields_that_a_server_does_not_take_are_left_out_and_told(far: Far, code: str | None) -> None:
    """OpenAI's own API refuses seed, steps and response_format."""

    def answer(fields: dict[str, Any]) -> Answer:
        for name in ("response_format", "seed", "num_inference_steps", "guidance_scale"):
            if name in fields:
                error = {"message": f"Unknown parameter: '{name}'.", "param": name, "code": code}
                return 400, json.dumps({"error": error}).encode(), {}
        return sent(picture(size=128).encode())

    far.answer = answer
    found = paint(count=2)
    assert len(far.asked) == 6
    assert "seed" in str(found[1].picture.recipe["verdict"]["reasons"])


def test_odd_pictures_are_kept_and_told(far: Far) -> None:
    far.answer = lambda _: sent(picture(size=64).encode())
    (small,) = paint()
    assert "sent 64×64 for 128×128" in str(small.picture.recipe["verdict"]["reasons"])
    black = io.BytesIO()
    Image.new("RGB", (128, 128)).save(black, "PNG")
    far.answer = lambda _: sent(black.getvalue())
    (uniform,) = paint()
    assert uniform.picture.recipe["verdict"]["outcome"] == "uniform"


def test_what_became_of_the_first_picture_and_the_words_is_in_the_recipe(far: Far, tmp_path: Path) -> None:
    alpha = Image.new("RGBA", (200, 100), (200, 40, 40, 0))
    alpha.save(
        tmp_path / "start.gif", save_all=True, append_images=[Image.new("RGBA", (200, 100), (0, 0, 255, 255))]
    )
    far.answer = lambda _: sent(picture(size=128).encode())
    (found,) = paint(prompt="a (red:1.3) lake BREAK snow", init_image=str(tmp_path / "start.gif"))
    verdict = found.picture.recipe["verdict"]
    for words in (
        "crop 200x100→128x128",
        "several frames",
        "transparent parts",
        "takes no weights",
        "“BREAK”",
    ):
        assert any(words in reason for reason in verdict["reasons"]), words
    assert len(verdict["reasons_zh"]) == len(verdict["reasons"])
    assert far.asked[0][0] == "/v1/images/edits"


WRONG: dict[str, tuple[Answer, str]] = {
    "wrong key": ((401, b'{"error": {"message": "Incorrect API key: sk-very-secret."}}', {}), "401: Incorrect API key: ..."),
    "busy": ((429, b'{"error": {"message": "Rate limit"}}', {}), "429: Rate limit"),
    "a page": ((500, b"<html>", {}), "500: no reason was given"),
    "a redirect": ((302, b"", {"Location": "http://127.0.0.1:1/"}), "302: no reason"),
    "no JSON": ((200, b"<html>", {}), "no picture in b64_json"),
    "no data": ((200, b'{"data": []}', {}), "no picture in b64_json"),
    "an address": ((200, b'{"data": [{"url": "http://127.0.0.1:1/a.png"}]}', {}), "no picture in b64_json"),
    "no Base64": ((200, b'{"data": [{"b64_json": "%%"}]}', {}), "no picture in b64_json"),
    "no picture": (sent(b"hello"), "cannot be decoded"),
    "half a picture": (sent(picture(size=128).encode()[:5000]), "cannot be decoded"),
    "a value": ((400, b'{"error": {"message": "seed is too large", "param": "seed", "code": "invalid_value"}}', {}), "seed is too large"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_goes_wrong_there_is_one_sentence(far: Far, case: str) -> None:
    answer, words = WRONG[case]
    far.answer = lambda _: answer
    with pytest.raises(RemoteError) as raised:
        paint()
    assert words.replace("...", "***") in raised.value.en
    assert KEY not in raised.value.en + raised.value.zh
    assert "\n" not in raised.value.en
    assert len(far.asked) == 1


@pytest.mark.parametrize(
    "refusal", [WRONG["a value"], WRONG["a page"], WRONG["no picture"], WRONG["no data"]]
)
def test_a_picture_that_is_refused_there_does_not_end_the_others(
    far: Far, refusal: tuple[Answer, str]
) -> None:
    answer, words = refusal
    far.answer = lambda fields: answer if fields["seed"] == 4 else sent(picture(size=128).encode())
    first, second, third = outcomes(count=3)
    assert isinstance(second, Refused)
    assert (second.index, second.seed) == (1, 4)
    assert words in second.error.en
    assert second.verdict.reasons == (second.error.en,)
    assert [first.index, third.index] == [0, 2]


@pytest.mark.parametrize("case", ["wrong key", "busy", "a redirect"])
def test_what_every_picture_would_meet_is_asked_once(far: Far, case: str) -> None:
    far.answer = lambda _: WRONG[case][0]
    with pytest.raises(RemoteError, match=WRONG[case][1][:3]):
        outcomes(count=3)
    assert len(far.asked) == 1


def test_nobody_answers_and_a_key_that_is_not_there(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    far.server.shutdown()
    far.server.server_close()
    with pytest.raises(RemoteError, match="does not answer"):
        paint()
    monkeypatch.delenv("FAR_KEY")
    with pytest.raises(BadRequest, match="FAR_KEY"):
        paint()
    add_remote("far", Remote(far.url, key_file="/no/such/key"), overwrite=True)
    with pytest.raises(StarryError, match="cannot be read"):
        paint()


@pytest.mark.parametrize("fields", [
    {"precision": "float16"}, {"sampler": "euler"}, {"loras": (("x", 1.0),)}, {"prediction": "flow"}, {"variation": 0.5},
    {"verify": True},
])  # fmt: skip
def test_what_only_models_here_do_is_refused_by_name(far: Far, fields: dict[str, Any]) -> None:
    with pytest.raises(StarryError) as raised:
        make_request(prompt="x", model="far", **fields)
    assert raised.value.param == next(iter(fields))
    assert not far.asked


@pytest.mark.parametrize(
    "url",
    ["ftp://a/v1", "localhost:80/v1", "http://", "http://user:word@a/v1", "http://a/v1?key=b", "http://a/#x"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadRequest) as raised:
        checked(Remote(url))
    assert "word" not in raised.value.en or "password" in raised.value.en


def starry(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STARRY_HOME": str(home), "STARRY_LANG": "en", "COLUMNS": "200"}
    command = [Path(sys.executable).with_name("starry"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_the_command_line(far: Far, home: Path) -> None:
    args = ["models", "add", "moon", "--url", far.url + "/", "--key-env", "FAR_KEY", "--size", "256"]
    assert starry(home, *args).returncode == 0
    assert starry(home, *args).returncode == BadRequest.exit_code  # the name is taken
    spec = catalogue.find("moon")
    assert spec.remote == Remote(far.url, key_env="FAR_KEY", size=256)
    for option in (["--device", "cpu"], ["--attention", "xformers"], ["--clamps"], ["--verify"]):
        refused = starry(home, "paint", "x", "-m", "moon", *option)
        assert refused.returncode == BadRequest.exit_code
        assert f"{option[0].strip('-')} applies to models on this machine" in refused.stderr
    listed = starry(home, "models").stdout
    assert spec.remote.host in listed
    assert KEY not in listed
    for wrong in (["--url", far.url, "--vae", "a"], ["--key-env", "X"], ["--url", "ftp://x"]):
        refused = starry(home, "models", "add", "mars", *wrong)
        assert (refused.returncode, "Traceback" in refused.stderr) == (BadRequest.exit_code, False)
    with pytest.raises(Unfit):
        catalogue.resolve("moon")
    assert starry(home, "models", "remove", "moon").returncode == 0
    assert "moon" not in catalogue.names()
    assert not far.asked
