"""A prompt that was painted lately is not encoded again, and no picture tells whether it was."""

import pytest
import torch

from starrynight.painting.encoding import PromptCache
from starrynight.painting.painter import Painter
from starrynight.request import PaintRequest

FIELDS = {"model": "firefly", "width": 128, "height": 128, "steps": 1, "seed": 3, "precision": "bfloat16"}


@pytest.fixture(scope="module")
def painter():
    return Painter.ready(PaintRequest(prompt="夜", **FIELDS), device="cpu")


@pytest.fixture
def runs(painter, monkeypatch):
    """The calls of the text encoder, counted in its class: a hook on the encoder would itself change the key."""
    kind, found = type(painter.pipeline.text_encoder), []
    forward = kind.forward

    def counted(self, *args, **kwargs):
        found.append(kwargs["input_ids"].shape)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(kind, "forward", counted)
    painter.guard.prompts.clear()
    return found


def paint(painter, prompt="星夜下的村庄", **changed):
    (image,) = painter.paint(PaintRequest(prompt=prompt, **{**FIELDS, **changed}))
    assert image.verdict.outcome == "hang", image.verdict
    return image.pixels


def test_the_same_prompt_with_another_seed_is_not_encoded_again(painter, runs):
    first = paint(painter)
    once = len(runs)
    other = paint(painter, seed=4)
    again = paint(painter)
    assert once
    assert len(runs) == once
    painter.guard.prompts.clear()
    assert (paint(painter) == first).all()
    assert (again == first).all()
    painter.guard.prompts.clear()
    assert (paint(painter, seed=4) == other).all()
    assert not (other == first).all()


@pytest.mark.parametrize("changed", [{"prompt": "雪"}, {"negative_prompt": "雨"}, {"guidance": 0.0}])
def test_what_else_is_encoded_is_encoded(painter, runs, changed):
    guided = {"guidance": 2.0}
    paint(painter, **guided)
    once = len(runs)
    found = paint(painter, **{**guided, **changed})
    assert len(runs) > once
    painter.guard.prompts.clear()
    assert (paint(painter, **{**guided, **changed}) == found).all()


def test_an_encoder_that_changed_encodes_again(painter, runs):
    encoder = painter.pipeline.text_encoder
    before = paint(painter)
    once = len(runs)
    weight = encoder.get_input_embeddings().weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(2)
    assert not (paint(painter) == before).all()
    with torch.no_grad():
        weight.copy_(kept)
    hook = encoder.register_forward_hook(lambda *_: None)
    paint(painter)
    hook.remove()
    assert len(runs) == 3 * once
    assert (paint(painter) == before).all()


def test_a_prompt_that_needed_a_fallback_is_forgotten(painter, runs):
    encoder, left = painter.pipeline.text_encoder, [1]
    before = paint(painter)

    def broken(module, args, output):
        if left and left.pop():
            output.last_hidden_state.fill_(float("nan"))
            output.hidden_states[-2].fill_(float("nan"))

    hook = encoder.register_forward_hook(broken)
    (image,) = painter.paint(PaintRequest(prompt="星夜下的村庄", **FIELDS))
    hook.remove()
    assert image.verdict.attempts
    assert painter.guard.prompts.size == 0
    once = len(runs)
    assert (paint(painter) == before).all()
    assert len(runs) > once


class Pipeline:
    @property
    def components(self):
        return {}


def test_it_is_bounded_and_hands_out_copies():
    cache, pipeline = PromptCache(limit=1000), Pipeline()
    keys = [
        cache.key(pipeline, ([f"prompt {number}"],), {"device": torch.device("cpu")}) for number in range(5)
    ]
    for number, key in enumerate(keys):
        cache.keep(pipeline, key, ([torch.full((100,), float(number))], []))  # 400 bytes
    assert cache.size == 800
    assert [cache.find(pipeline, key) is not None for key in keys] == [False, False, False, True, True]
    cache.find(pipeline, keys[3])[0][0].zero_()
    assert cache.find(pipeline, keys[3])[0][0][0] == 3
    cache.keep(pipeline, keys[0], [torch.zeros(10_000)])  # more than all of it
    assert cache.find(pipeline, keys[0]) is None
    assert cache.size == 800


def test_arguments_that_mean_something_else_have_another_key():
    cache, pipeline = PromptCache(), Pipeline()
    given = [
        (("a",), {}),
        ((["a"],), {}),
        (("a", 1), {}),
        (("a", True), {}),
        (("a",), {"clip_skip": 1}),
        (("a",), {"clip_skip": 2}),
    ]
    assert len({cache.key(pipeline, *each) for each in given}) == len(given)
    assert cache.key(pipeline, (), {"prompt_embeds": torch.zeros(1)}) is None
    with cache.bypassed(True):
        assert cache.key(pipeline, ("a",), {}) is None
    assert cache.key(pipeline, ("a",), {}) is not None
