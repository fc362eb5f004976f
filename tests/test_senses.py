"""The senses: how they are chosen, models at an address and what becomes of their failures, folders, galleries, meaning."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hung import picture
from PIL import Image
from served import Elsewhere
from typer.testing import CliRunner

from starrynight.cli import describe as _describe  # noqa: F401  registers its commands
from starrynight.cli import senses as _senses  # noqa: F401
from starrynight.cli.terminal import app
from starrynight.errors import BadFile, BadRequest
from starrynight.firefly.drawing.landscape import render
from starrynight.firefly.drawing.scene import compose
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.jobs.sight import Watcher
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest
from starrynight.senses import asked, choice, look, perceiver, remote
from starrynight.senses.asked import Judged
from starrynight.senses.eyes import Eyes, eyes
from starrynight.senses.facts import CHOICES, THINGS

KEY = "sk-very-secret"
SAID = {
    "alt_en": "A boat.",
    "alt_zh": "一条船。",
    "caption_en": "A boat on the sea.",
    "caption_zh": "海上一条船。",
}
Answer = tuple[int, bytes]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STARRY_LANG", "en")
    monkeypatch.setenv(choice.KEY_ENV, KEY)
    return tmp_path


class Seer(Elsewhere):
    """A server with OpenAI's chat completions, whose answers are ``answers`` in turn, the last one again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [said(json.dumps(SAID))]
        self.asked: list[tuple[dict[str, Any], str]] = []
        super().__init__(self._answer)

    def _answer(self, _: str, body: bytes, headers: dict[str, str]) -> Answer:
        found = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append((json.loads(body), headers.get("Authorization", "")))
        return found


@pytest.fixture
def seer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seer]:
    server = Seer()
    monkeypatch.setenv("STARRY_EYES", f"{server.url}#qwen3-vl")
    yield server
    server.close()


def said(text: str) -> Answer:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def drawn(seed: int = 1, side: int = 160, **facts: Any) -> np.ndarray:
    return np.asarray(render(compose(seed, **facts), side))


def painted(prompt: str, pixels: np.ndarray, seed: int = 1) -> Picture:
    return Picture(pixels, make_recipe(PaintRequest(prompt=prompt, seed=seed)))


@pytest.mark.parametrize(
    ("value", "kind"),
    [("", "built-in"), ("built-in", "built-in"), ("perceiver", "built-in"), (" OFF ", "off"), ("http://127.0.0.1:8101/v1#m", "remote"), ("https://a.example/v1", "remote")],
)  # fmt: skip
def test_a_setting_chooses_the_eyes(value: str, kind: str) -> None:
    found = choice.parse("eyes", value)
    assert found.kind == kind
    assert found.leaves_this_machine == value.startswith("https")
    if found.remote is not None:
        assert found.remote.model == (value.partition("#")[2] or None)


@pytest.mark.parametrize(
    "value",
    [
        "model.gguf",
        "a.gguf+b.gguf",
        ".",
        "qwen",
        "ftp://a/v1",
        "http://user:pass@a/v1",
        "http://",
        "http://a/v1?x=1",
        "x" * 5000,
        "~nobody/a",
    ],
)
@pytest.mark.parametrize("sense", choice.SENSES)
def test_other_settings_are_refused_with_the_next_step(sense: str, value: str) -> None:
    with pytest.raises(BadRequest) as refused:
        choice.parse(sense, value)
    assert refused.value.en != refused.value.zh
    assert "pass" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(SAID),
        f"```json\n{json.dumps(SAID)}\n```",
        f"<think>a boat? {{no}}</think>{json.dumps(SAID)}",
    ],
)
def test_a_model_at_an_address_writes_the_sentences_and_the_perceiver_the_facts(
    seer: Seer, text: str
) -> None:
    seer.answers = [said(text)]
    opened = eyes()
    assert opened is not None
    found = opened.look(drawn())
    assert found.failed is None
    assert (found.description.alt.en, found.description.caption.zh) == (SAID["alt_en"], SAID["caption_zh"])
    assert found.description.by == opened.name == f"{seer.url[7:-3]}#qwen3-vl"
    assert found.vector.shape == (96,)
    body, key = seer.asked[0]
    assert (key, body["model"], body["temperature"]) == (f"Bearer {KEY}", "qwen3-vl", 0)
    assert body["messages"][0]["content"][1]["image_url"]["url"].startswith(
        "data:image/png;base64,"
    )  # on this machine


def test_plain_sentences_stand_in_both_languages(seer: Seer) -> None:
    seer.answers = [said("A red boat.\n")]
    found = Eyes(choice.chosen("eyes")).look(drawn())
    assert set(found.description.alt) == {"A red boat."}


@pytest.mark.parametrize(
    "answers",
    [
        [(401, json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode())],
        [(429, b'{"error": "slow down"}')] * 2,
        [(500, b"<html>")],
        [(200, b"not json")],
        [(200, b"[]")],
        [(200, b'{"choices": []}')],
        [said("")],
        [said("<think>endless")],
        [said('{"alt_en": 3}')],
        [(-200, b'{"choices"')],
        [(200, b" " * (remote.MAX_ANSWER + 1))],
    ],
    ids=["401", "429", "500", "nonsense", "list", "no choice", "empty", "only thoughts", "no text", "cut", "huge"],
)  # fmt: skip
def test_a_failing_model_falls_back_on_the_perceiver_and_says_so(seer: Seer, answers: list[Answer]) -> None:
    seer.answers = answers
    opened = Eyes(choice.chosen("eyes"))
    found = opened.look(drawn())
    assert found.failed is not None
    assert seer.url[7:-3] in found.failed.en
    assert seer.url[7:-3] in found.failed.zh
    assert KEY not in found.failed.en + found.failed.zh
    assert found.description.by == opened.perceiver.name


def test_too_many_requests_are_tried_once_more(seer: Seer) -> None:
    seer.answers = [(429, b"{}"), said(json.dumps(SAID))]
    assert Eyes(choice.chosen("eyes")).look(drawn()).failed is None
    assert len(seer.asked) == 2


def test_a_server_that_is_not_there_or_too_slow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(remote, "ANSWER", 0.2)
        slow = Eyes(choice.parse("eyes", f"http://{address}/v1")).look(drawn())
    gone = Eyes(choice.parse("eyes", f"http://{address}/v1")).look(drawn())
    for found in (slow, gone):
        assert found.failed is not None
        assert address in found.failed.en


def test_describe_goes_over_fifty_files_past_a_broken_one_and_continues(home: Path, seer: Seer) -> None:
    folder = home / "pictures"
    folder.mkdir()
    odd = {
        "a.png": Image.fromarray(drawn(3, 97)),
        "b.webp": Image.fromarray(drawn(4)).convert("RGBA"),
        "c.png": Image.fromarray(drawn(5)).convert("P"),
        "d.png": Image.fromarray(np.full((40, 9), 30000, np.uint16)),
        "e.jpg": Image.fromarray(drawn(6)).convert("L"),
        "f.png": Image.fromarray(drawn(7)).resize((61, 512)),
        "g.png": Image.fromarray(drawn(8)).resize((1, 1)),
    }
    for name, made in odd.items():
        made.save(folder / name)
    for number in range(50 - len(odd) - 1):
        colours = np.random.default_rng(number).integers(0, 255, (6, 6, 3), np.uint8)
        Image.fromarray(np.kron(colours, np.ones((8, 8, 1), np.uint8))).save(folder / f"p{number:02}.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    found = CliRunner().invoke(app, ["describe", str(folder), "--json"])
    assert isinstance(found.exception, BadFile)
    assert "1 of 50" in found.exception.en
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    names = sorted(one.name for one in folder.iterdir() if one.name != "broken.png")
    assert [Path(line["path"]).name for line in lines] == names
    assert all(line["caption"] == {"en": SAID["caption_en"], "zh": SAID["caption_zh"]} for line in lines)
    assert "broken.png" in found.stderr
    (notes,) = (home / "home" / "cache" / "described").iterdir()
    notes.write_bytes(notes.read_bytes()[:-30])  # killed while it wrote the last
    (folder / "broken.png").unlink()
    again = CliRunner().invoke(app, ["describe", str(folder), "--json"])
    assert again.exit_code == 0, again.exception
    assert again.stdout == found.stdout
    assert len(seer.asked) == 50  # all, and the last anew
    plain = CliRunner().invoke(app, ["describe", str(folder)])
    assert plain.stdout.count(SAID["caption_en"]) == 49
    assert len(seer.asked) == 50


def test_describe_without_eyes_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_EYES", "off")
    monkeypatch.setenv("STARRY_EMBEDDER", "off")
    assert isinstance(CliRunner().invoke(app, ["describe", str(home)]).exception, BadRequest)
    told = CliRunner().invoke(app, ["senses"]).stdout
    assert "off\n" in told
    assert "searches by meaning find nothing" in told


def test_a_worker_looks_at_every_picture_once_and_passes_a_lost_file(home: Path) -> None:
    with Gallery(home / "gallery") as gallery:
        shown = gallery.add(painted("a lake, a fox", drawn(11, kind="sunflowers", style="oil", hour="noon")))
        noise = gallery.add(picture(seed=4))
        lost = gallery.add(picture(seed=5))
        Path(gallery.path(lost)).unlink()
        watcher = Watcher(gallery)
        assert [watcher.look() for _ in range(5)] == [True, True, True, False, False]
        seen = gallery.get(shown.id).seen
        assert seen is not None
        assert seen["facts"]["kind"] == "sunflowers"
        assert "sunflower" in seen["alt"]["en"].lower()
        assert "向日葵" in seen["alt"]["zh"]
        for row in (noise, lost):
            told = gallery.get(row.id).seen
            assert told is not None
            assert told["alt"] == {"en": "", "zh": ""}


def test_a_failing_model_lets_the_worker_rest(home: Path, seer: Seer) -> None:
    seer.answers = [(500, b"{}")]
    with Gallery(home / "gallery") as gallery:
        row = gallery.add(painted("sunflowers", drawn(11, kind="sunflowers")))
        watcher = Watcher(gallery)
        assert [watcher.look() for _ in range(3)] == [False] * 3
        assert len(seer.asked) == 1
        assert gallery.get(row.id).seen is not None  # by the perceiver, until the model answers


@pytest.mark.parametrize(
    ("words", "kind"), [("金黄的向日葵", "sunflowers"), ("sunflower field", "sunflowers"), ("雨夜的都市", "city"), ("camels in the desert", "desert"), ("大漠", "desert")],
)  # fmt: skip
def test_pictures_are_found_by_meaning(hung: Gallery, words: str, kind: str) -> None:
    found = look.by_meaning(hung, Query(text=words), limit=3)
    assert found
    assert found[0].row.prompt == kind
    assert [one.shown for one in found] == sorted((one.shown for one in found), reverse=True)


@pytest.mark.parametrize("words", ["", "zxqv", "quantum chromodynamics", "，。"])
def test_words_that_mean_nothing_find_nothing(hung: Gallery, words: str) -> None:
    assert look.by_meaning(hung, Query(text=words)) == []


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Ten scenes of different kinds, seen by the perceiver, whose prompt is the kind."""
    with Gallery(tmp_path_factory.mktemp("hung")) as gallery:
        opened = Eyes(choice.Choice("eyes", choice.BUILT_IN))
        for seed, kind in enumerate(
            ("sunflowers", "city", "desert", "pond", "sea", "snow", "bamboo", "village", "apsara", "gorge")
        ):
            hour = {"hour": "night", "weather": "rain"} if kind == "city" else {}
            more = {"subjects": ("camel",)} if kind == "desert" else {}
            pixels = drawn(20 + seed, kind=kind, style="oil" if seed % 2 else "watercolor", **hour, **more)
            look.look(gallery, opened, gallery.add(painted(kind, pixels, seed)), pixels)
        yield gallery


def tried(
    pixels: Callable[[int], np.ndarray], prompt: str, count: int
) -> tuple[list[int], list[int], dict[str, Any]]:
    """The seeds that ``until_seen`` painted, those that it saved, and the recipe, with ``pixels(seed)`` for a model."""
    from starrynight.senses import tries
    from starrynight.studio import SavedPicture

    made: list[int] = []
    saved: list[int] = []

    def paint(request: PaintRequest, save: Callable[[Picture], Path]) -> Iterator[SavedPicture]:
        assert request.until_seen == 1
        made.append(request.seed_of(0))
        one = painted(prompt, pixels(len(made)), request.seed_of(0))
        yield SavedPicture(one, save(one))

    def keep(one: Picture) -> Path:
        saved.append(one.recipe["seed"])
        return Path("kept.png")

    request = PaintRequest(prompt=prompt, seed=40, until_seen=count)
    (outcome,) = tries.until_seen(request, paint, keep)
    assert isinstance(outcome, SavedPicture)
    assert outcome.place == Path("kept.png")
    return made, saved, outcome.picture.recipe


@pytest.mark.parametrize(("number", "counts"), [(0, [1]), (17, [1]), (-1, [1]), (4, [1, 2])])
def test_until_seen_refuses_other_numbers_and_several_pictures(number: int, counts: list[int]) -> None:
    from starrynight.cli import seeing

    with pytest.raises(BadRequest):
        seeing.check(number, counts)
    with pytest.raises(BadRequest) as refused:
        PaintRequest(prompt="x", until_seen=number, count=counts[-1])
    assert refused.value.param == "until_seen"
    seeing.check(None, [5])


def test_until_seen_stops_at_the_first_picture_that_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def pixels(number: int) -> np.ndarray:
        return drawn(
            11, kind="sunflowers" if number == 3 else "city", hour="noon" if number == 3 else "night"
        )

    made, saved, recipe = tried(pixels, "sunflowers", 4)
    assert (made, saved) == ([40, 41, 42], [42])
    assert recipe["until_seen"] == {"tries": 3, "of": 4, "missing": [], "unsure": []}
    assert "until_seen" not in recipe["request"]  # it paints this picture again, with its own seed
    assert recipe["request"]["seed"] == 42
    made, saved, recipe = tried(lambda _: drawn(11, kind="city"), "sunflowers", 2)
    assert (made, saved) == ([40, 41], [40])
    assert recipe["until_seen"] == {"tries": 2, "of": 2, "missing": ["sunflowers"], "unsure": []}


def sight(confidence: float, **things: float) -> perceiver.Sight:
    """What the perceiver could say of a picture: it is sure of style and kind, and sees ``things``."""
    choices = {name: np.eye(len(some), dtype=np.float32)[0] for name, some in CHOICES.items()}
    seen = np.array([things.get(name, 0.5) for name in THINGS], np.float32)
    return perceiver.Sight(choices, seen, confidence, np.zeros(8, np.float32))


@pytest.mark.parametrize(
    ("umbrella", "rain", "missing", "unsure"),
    [
        (1.0, 1.0, (), ()),
        (0.7, 1.0, (), ("umbrella",)),
        (0.7, 0.2, (), ("umbrella", "rain")),
        (0.0, 1.0, ("umbrella",), ()),
        (0.0, 0.2, ("umbrella",), ("rain",)),
    ],
)
def test_what_is_asked_for_is_seen_missing_or_unsure(
    umbrella: float, rain: float, missing: tuple[str, ...], unsure: tuple[str, ...]
) -> None:
    prompt, eyes = "a girl with a red umbrella in the rain", perceiver.load()
    found = asked.judge(prompt, eyes, sight(1.0, umbrella=umbrella, rain=rain))
    assert (found.missing, found.unsure) == (missing, unsure)
    both = max(umbrella, 1e-4) * rain
    assert found.doubt == pytest.approx(-np.log(both), abs=1e-6)
    for own in (True, False):  # a picture of a kind that the perceiver does not know
        lost = asked.judge(prompt, eyes, sight(0.0, umbrella=umbrella, rain=rain), own)
        assert lost == ((), ("umbrella", "rain") if own else (), np.inf)


def test_the_likeliest_of_unsure_pictures_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from starrynight.senses import tries

    found = [Judged((), ("rain",), 5.0), Judged(("rain",), (), 0.5), Judged((), ("rain",), 2.0), Judged((), ("rain",), 3.0)]  # fmt: skip
    left = iter(found)
    monkeypatch.setattr(tries, "judged", lambda *_: next(left))
    made, saved, recipe = tried(lambda _: drawn(11, kind="city"), "rain", 4)
    assert (made, saved) == ([40, 41, 42, 43], [42])
    assert recipe["until_seen"] == {"tries": 4, "of": 4, "missing": [], "unsure": ["rain"]}
    assert tries.told(recipe) == Text(
        "4 of up to 4 seeds tried, not sure of rain", "试了 4 个种子（最多 4 个），拿不准有没有雨"
    )


def test_until_seen_is_refused_where_nobody_looks_and_told_where_there_is_nothing_to_look_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from starrynight.senses import tries
    from starrynight.studio import Studio

    asking = PaintRequest(prompt="a quiet mood", until_seen=2)
    assert tries.warnings_for(asking) == [tuple(tries.NOTHING)]
    assert tries.warnings_for(PaintRequest(prompt="sunflowers", until_seen=2)) == []
    assert tries.warnings_for(PaintRequest(prompt="a quiet mood")) == []
    with pytest.raises(BadRequest):
        next(Studio(lambda _: Path()).paint(asking))
    monkeypatch.setenv("STARRY_EYES", "off")
    with pytest.raises(BadRequest) as refused:
        tries.check(asking)
    assert refused.value.param == "until_seen"
    tries.check(PaintRequest(prompt="sunflowers"))
