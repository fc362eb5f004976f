"""The perceiver: numpy runs what torch trains, sentences say only what was seen, and a prompt's things are looked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from starrynight.errors import BadFile, MissingFile
from starrynight.firefly.drawing.scene import compose
from starrynight.firefly.training import captions
from starrynight.firefly.training.corpus import to_signed
from starrynight.senses import understand
from starrynight.senses.asked import asked
from starrynight.senses.describe import Description, Facts, described
from starrynight.senses.facts import CHOICES, FACTS, THINGS, Lexicon, padded, words
from starrynight.senses.perceiver import FORMAT, Perceiver, as_read, load
from starrynight.senses.training.network import Network
from starrynight.senses.training.thresholds import NEVER, claim
from starrynight.senses.understand import understood

WORDS = tuple(dict.fromkeys(words("星夜下的静谧村庄，月亮 a red boat on the quiet sea, mountains")))


def header(**more: object) -> dict[str, object]:
    nothing = {"confidence": 0.0, "choices": dict.fromkeys(CHOICES, 0.0), "claims": dict.fromkeys(THINGS, 0.5),
               "asked": dict.fromkeys(THINGS, 0.2), "unasked": dict.fromkeys(THINGS, 0.8), "absent": dict.fromkeys(THINGS, 0.1)}  # fmt: skip
    names = {**CHOICES, "things": THINGS}
    return {
        "format": FORMAT,
        "version": "test",
        "names": names,
        "words": WORDS,
        "thresholds": nothing,
        **more,
    }


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(3)
    made = Network(len(WORDS)).eval()
    with torch.no_grad():  # norms and biases that are not 1 and 0
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def tensors(network: Network) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in network.named_parameters()}


@pytest.mark.parametrize("size", [(128, 128), (96, 192), (256, 64)])
def test_numpy_sees_what_torch_sees(network: Network, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    perceiver = Perceiver(tensors(network), header(), "test")
    sight = perceiver.see(pixels)
    read = torch.from_numpy(as_read(pixels)).permute(2, 0, 1)[None]
    if size == (128, 128):
        assert torch.allclose(read, to_signed(pixels[None]))
    with torch.no_grad():
        seen = network.see(read)
    for name, logits in seen.choices.items():
        np.testing.assert_allclose(sight.choices[name], logits.softmax(1)[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(sight.things, seen.things.sigmoid()[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(sight.vector, seen.vectors[0].numpy(), atol=1e-4)
    assert sight.ours == pytest.approx(float(seen.ours.sigmoid()), abs=1e-4)


def test_numpy_reads_what_torch_reads_and_padding_changes_nothing(network: Network) -> None:
    perceiver, lexicon = Perceiver(tensors(network), header(), "test"), Lexicon(WORDS)
    texts = ["星夜", "a red boat on the quiet sea", "月亮", "", "，。"]
    with torch.no_grad():
        vectors, _ = network.texts(torch.tensor(padded([lexicon.rows(text) for text in texts])))
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(perceiver.read(text).vector, vector.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("text", "like"),
    [
        ("一叶扁舟", "小船"), ("夕照", "黄昏"), ("kittens", "a cat"), ("大鲸跃出海面", "鲸鱼，大海"),
        ("莫高窟里的飞仙", "敦煌壁画，飞天"), ("a caravan in the dunes", "a camel, a desert"),
    ],
)  # fmt: skip
def test_other_words_are_read_as_those_of_the_captions(text: str, like: str) -> None:
    facts = captions.named_in(understood(text).text)
    assert captions.named_in(like) <= facts, facts
    assert understood(text).known >= 0.5


@pytest.mark.parametrize(
    ("text", "known"),
    [("星夜下的静谧村庄，月亮", 1.0), ("cat on a sofa", 0.5), ("quantum physics", 0.0), ("马桶", 0.0), ("三体问题", 0.0),
     ("", 0.0), ("，。", 0.0)],
)  # fmt: skip
def test_what_of_a_text_is_known(text: str, known: float) -> None:
    assert understood(text).known == known
    if known == 1.0:
        assert understood(text).text == text


def test_every_synonym_is_read_as_its_fact() -> None:
    table = json.loads((Path(understand.__file__).parent / "synonyms.json").read_text("utf-8"))
    assert set(table) <= set(FACTS)
    for name, some in table.items():
        phrases = {one.lower() for kind in captions.PHRASES["kind"].values() for one in kind.get(name, ())}
        for word in some.split():
            text, known = understood(word.replace("-", " "))
            assert known > 0, word
            assert name in captions.named_in(text) or any(one in text.lower() for one in phrases), word


def test_weights_are_read_from_a_file_and_others_are_refused(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "perceiver.safetensors"
    half = {name: value.astype(np.float16) for name, value in tensors(network).items()}

    def write(**more: object) -> Path:
        save_file(half, path, {"perceiver": json.dumps(header(**more))})
        return path

    assert load(write()).name == "perceiver-test"
    with pytest.raises(BadFile):
        load(write(names={**CHOICES, "things": ["moon"]}))
    path.write_bytes(b"no weights")
    with pytest.raises(BadFile):
        load(path)
    with pytest.raises(MissingFile):
        load(tmp_path / "none.safetensors")


def test_sentences_name_only_what_was_seen() -> None:
    for seed in range(400):
        scene = compose(seed)
        rng = np.random.default_rng(seed)
        things = tuple(name for name in scene.subjects if rng.random() < 0.7)
        facts = Facts(
            scene.style if rng.random() < 0.8 else None, scene.hour if rng.random() < 0.8 else None,
            scene.weather if rng.random() < 0.5 else None, scene.kind if rng.random() < 0.8 else None, things,
        )  # fmt: skip
        if not facts:
            continue
        said = described(facts, "test", 1.0)
        assert said.told
        assert Description.of(json.loads(json.dumps(said.to_dict()))) == said
        stated = facts.names | ({"moon", "crescent"} if "moonlit" in facts.names else set())
        for text in (*said.alt, *said.caption, *said.prompt):
            assert text, facts
            others = captions.named_in(text) - stated - _implied(facts)
            assert not others, (text, facts)


def _implied(facts: Facts) -> set[str]:
    """What the phrases of a kind say beyond its name: a sea has a sea, and a mountain scene mountains."""
    main = set(captions.MAIN.get(facts.kind or "", ())) | {facts.kind or ""}
    # A phrase of several things (月亮, 桥) names them all, whichever is there.
    twins = [
        {"moon", "crescent"},
        {"bridge", "stonebridge"},
        {"rain"},
        {"snow"},
        {"sea", "harbour"},
        {"lake", "pond"},
    ]
    return main.union(*(twin for twin in twins if twin & facts.names), *[set()])


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("星夜下的静谧村庄，月亮", [{"stars"}, {"village"}, {"moon", "crescent"}]),
        ("a village with a church, no moon", [{"church"}, {"village"}]),
        ("荷塘月色", [{"lotus"}]),
        ("没有月亮的海", [{"sea"}]),
        ("a fox and a sunflower", [{"fox"}, {"sunflowers"}]),
        ("向日葵花瓶", [{"sunflowers"}]),  # a sign within an unknown word is no thing
        ("马路、船长、月饼", []),
        ("长颈鹿和船", [{"boat"}]),
        ("van gogh style", []),
        ("", []),
    ],
)
def test_a_prompts_things(prompt: str, things: list[set[str]]) -> None:
    assert [set(one) for one in asked(prompt)] == things


def test_a_threshold_keeps_its_precision_or_never_claims() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.random(2000)
    right = rng.random(2000) < probabilities
    limit = claim(probabilities, right, 0.5)
    assert 0.5 <= limit < 1.0
    assert right[probabilities >= limit].mean() >= 0.96
    assert claim(probabilities, np.zeros(2000, bool), 0.5) == NEVER
