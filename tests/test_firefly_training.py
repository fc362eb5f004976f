"""Firefly's training at a small size: twelve drawn pictures, a transformer of one block, a few steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from starrynight.errors import BadFile, MissingFile
from starrynight.firefly import model
from starrynight.firefly.training import autoencoder, corpus, data, evaluate, optimise, session, train
from starrynight.firefly.training.captions import mentions, vocabulary
from starrynight.models.vocabulary import Vocabulary

CPU = torch.device("cpu")
CONFIG = model.ModelConfig(64, 1)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small lose more to thread synchronisation than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> data.PictureSet:
    folder = tmp_path_factory.mktemp("set")
    data.draw(folder, count=12, first_seed=77, size=64, captions=3, workers=1)
    return data.PictureSet(folder)


@pytest.fixture(scope="module")
def tokenizer(drawn: data.PictureSet):
    return model.tokenizer(drawn.all_captions(), vocabulary=600)


@pytest.fixture(scope="module")
def captions(drawn: data.PictureSet, tokenizer) -> corpus.Captions:
    made = corpus.Captions(tokenizer)
    made.add(drawn.records)
    return made


def new_network(tokenizer, seed: int = 3) -> train.TextToImageModel:
    torch.manual_seed(seed)
    plan = session.Plan(Path(), 1.0, dim=CONFIG.dim, layers=CONFIG.layers)
    return session.new_network(plan, len(tokenizer), tokenizer.pad_token_id)


def new_loop(network: train.TextToImageModel) -> optimise.TrainingLoop:
    return optimise.TrainingLoop(network, train.optimiser(network, 2e-3, torch.float32), 0.999)


def batch_of(captions: corpus.Captions, count: int = 12, seed: int = 0):
    """Tokens and mask of the first caption of ``count`` pictures."""
    rng = np.random.default_rng(seed)
    tokens, mask = captions.batch(np.arange(count), np.zeros(count, int), rng, 0.1)
    return torch.from_numpy(tokens), torch.from_numpy(mask)


def latents() -> np.ndarray:
    """Smooth latents [12, 16, 8, 16]: 32 patches, so the stock transformer pads nothing."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(12, 16, 2, 4))
    return np.repeat(np.repeat(coarse, 4, axis=2), 4, axis=3).astype(np.float16)


def perturb(module: torch.nn.Module) -> torch.nn.Module:
    """Weights moved away from their near-identity start, so that every path contributes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(
                0.05
                * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    return module


def test_drawing_resumes_where_it_stopped(tmp_path: Path, drawn: data.PictureSet) -> None:
    data.draw(tmp_path, count=12, first_seed=77, size=64, captions=3, workers=1)
    first = np.array(data.PictureSet(tmp_path).pictures)
    (tmp_path / "block-00000.jsonl").unlink()
    data.draw(tmp_path, count=12, first_seed=77, size=64, captions=3, workers=1)
    again = data.PictureSet(tmp_path)
    assert np.array_equal(first, again.pictures)
    assert np.array_equal(first, drawn.pictures)
    assert again.records == drawn.records


def test_drawing_ends_in_time_and_a_set_grows(tmp_path: Path) -> None:
    data.draw(tmp_path, count=30, first_seed=77, size=64, captions=2, workers=1, seconds=0)
    growing = data.PictureSet(tmp_path)
    assert (len(growing), growing.planned) == (0, 30)
    data.draw(tmp_path, count=30, first_seed=77, size=64, captions=2, workers=1)
    assert growing.refresh() == range(30)
    assert growing.refresh() == range(30, 30)
    assert growing.pictures.shape == (30, 64, 64, 3)


def test_a_record_says_what_each_caption_names_and_where_subjects_are(drawn: data.PictureSet) -> None:
    for record in drawn.records:
        shown = set(record["shows"]["subjects"])
        assert set(record["boxes"]) <= shown
        assert all(0 <= edge <= 1 for box in record["boxes"].values() for edge in box)
        assert all(box[0] < box[2] and box[1] < box[3] for box in record["boxes"].values())
        for text, named in zip(record["captions"], record["named"], strict=True):
            assert set(named) == {one for one in shown if mentions(text, "thing", one)}


def test_the_tokenizer_decodes_any_text_to_itself(tokenizer) -> None:
    for text in ("星夜下的静谧村庄，梵高风格", "a village at night", "", "龘 🦓 \u200d é"):
        prompt = corpus.chat_prompt(tokenizer, text)
        assert corpus.tokens_of(tokenizer, [text])[0] == tokenizer(prompt)["input_ids"]
        assert tokenizer.decode(tokenizer(prompt)["input_ids"]) == prompt


def test_no_merge_spans_two_chinese_characters(tokenizer) -> None:
    for token in tokenizer.get_vocab():
        text = tokenizer.convert_tokens_to_string([token])
        assert sum("\u4e00" <= letter <= "\u9fff" for letter in text) <= 1, text


def test_the_training_forward_equals_the_stock_forward(tokenizer) -> None:
    network = perturb(new_network(tokenizer))
    lengths = torch.tensor([5, 17, 32])
    mask = torch.arange(32)[None] < lengths[:, None]
    tokens = torch.randint(3, 300, (3, 32)).masked_fill(~mask, tokenizer.pad_token_id)
    noisy, timestep = torch.randn(3, 16, 8, 16), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        ours = network(noisy, timestep, tokens, mask)
        hidden = network.encoder(
            input_ids=tokens, attention_mask=mask, output_hidden_states=True
        ).hidden_states[-2]
        feats = [row[kept] for row, kept in zip(hidden, mask, strict=True)]
        frames = list(noisy.unsqueeze(2).unbind(0))
        stock = network.transformer(frames, timestep, feats, return_dict=False)[0]
    torch.testing.assert_close(ours, torch.stack(stock).squeeze(2), rtol=1e-4, atol=1e-4)


def test_half_size_patches_have_every_second_position_of_a_whole_picture(tokenizer) -> None:
    transformer = new_network(tokenizer).transformer
    whole, _ = train.rotations(transformer, 8, 8, 32)
    half, _ = train.rotations(transformer, 4, 4, 32, stride=2)
    for one, other in zip(whole, half, strict=True):
        grid = one.unflatten(0, (8, 8))
        assert torch.equal(grid[::2, ::2].flatten(0, 1), other)


def test_a_compiled_block_agrees_with_the_plain_one_or_is_not_used(tokenizer) -> None:
    block = perturb(new_network(tokenizer).transformer.layers[0])
    try:
        difference = train.compile_block(block, (48,), torch.float32)
        assert (train.BLOCK["forward"] is train.block_forward) == (not difference < 0.03)
    finally:
        train.BLOCK["forward"] = train.block_forward
    assert all(parameter.grad is None for parameter in block.parameters())


@pytest.fixture(scope="module")
def small_corpus(drawn: data.PictureSet, tokenizer) -> corpus.Corpus:
    made = corpus.Corpus(drawn.folder, tokenizer, CPU, (1, 2), batch=5)
    made.refresh(model.autoencoder((8, 8, 8, 8)).eval(), torch.float32)
    return made


def test_a_corpus_holds_the_posterior_means_of_its_pictures(
    drawn: data.PictureSet, small_corpus: corpus.Corpus
) -> None:
    torch.manual_seed(1)
    vae = model.autoencoder((8, 8, 8, 8)).eval()
    fresh = corpus.Corpus(drawn.folder, small_corpus.captions.tokenizer, CPU, (1,))
    assert fresh.refresh(vae, torch.float32, most=7) == 7
    assert fresh.refresh(vae, torch.float32) == 12
    with torch.no_grad():
        true = vae.encoder(corpus.to_signed(drawn.pictures)).chunk(2, dim=1)[0]
    torch.testing.assert_close(fresh.latents[1].float(), true, rtol=1e-2, atol=1e-2)
    assert small_corpus.latents[2].shape == (12, 16, 4, 4)


def test_windows_keep_subjects_whole(small_corpus: corpus.Corpus) -> None:
    for shape in (corpus.Shape("wide", rows=6), corpus.Shape("tall", columns=6)):
        low, high = small_corpus._offsets(shape)
        usable = small_corpus.usable(shape)
        assert np.array_equal(usable, np.flatnonzero(low <= high))
        for row in usable:
            for box in small_corpus.drawn.records[row]["boxes"].values():
                start, end = (box[1], box[3]) if shape.rows else (box[0], box[2])
                if end - start <= corpus.LARGE:
                    assert high[row] <= start * 8
                    assert low[row] + 6 >= end * 8
        if len(usable):
            latents, _, _ = small_corpus.sample(shape, 3, np.random.default_rng(0))
            assert latents.shape == (3, 16, *small_corpus.side(shape))


def test_a_share_of_the_samples_names_a_subject_on_purpose(small_corpus: corpus.Corpus) -> None:
    """With a share of one, every subject that enough captions name is named equally often."""
    frequent = {name for name, places in small_corpus.captions.named.items() if len(places) >= corpus.RARE}
    assert frequent
    captions = small_corpus.captions
    _, tokens, _ = small_corpus.sample(
        corpus.Shape("whole"), 200, np.random.default_rng(5), named_share=1.0, empty_share=0.0
    )
    length = min(tokens.shape[1], 32)
    naming = {tuple(captions.tokens[place][:length]) for name in frequent for place in captions.named[name]}
    drawn_captions = [tuple(row[:length].tolist()) for row in tokens]
    if tokens.shape[1] == 32:
        assert all(one in naming for one in drawn_captions)


def test_stressed_subjects_are_drawn_more_often(small_corpus: corpus.Corpus) -> None:
    named = small_corpus.captions.named
    frequent = [name for name, places in named.items() if len(places) >= corpus.RARE]
    places = corpus.Places(named, frequent[:1])
    drawn = {tuple(place) for place in places.draw(3000, np.random.default_rng(1)).tolist()}
    assert drawn == {place for name in frequent for place in named[name]}
    assert places.chances[0] == pytest.approx(corpus.STRESS / (corpus.STRESS + len(frequent) - 1))
    assert len(corpus.Places({"fox": [(0, 0)]}, ())) == 0


def test_joined_captions_are_the_two_of_a_picture(captions: corpus.Captions) -> None:
    """The first without its closing token, the second without its opening one, cut at 64."""
    rows, columns = np.arange(len(captions.tokens)), np.zeros(len(captions.tokens), np.int64)
    tokens, lengths = captions._join(rows, columns, np.random.default_rng(2))
    for row, joined, length in zip(rows, tokens, lengths, strict=True):
        one, *others = (
            captions.tokens[row, column, : captions.lengths[row, column]]
            for column in range(captions.tokens.shape[1])
        )
        wanted = [[*one[:-1], *other[1:]][: corpus.LONGEST] for other in others]
        assert joined[:length].tolist() in wanted
        assert not joined[length:].any()


def test_training_lowers_the_loss(tokenizer, captions: corpus.Captions, tmp_path: Path) -> None:
    network = new_network(tokenizer)
    clean = torch.from_numpy(latents().astype(np.float32))

    def loss() -> float:
        with torch.no_grad():
            draws = [optimise.generator(CPU, 9 + i) for i in range(4)]
            return float(np.mean([train.flow_loss(network, clean, batch_of(captions), one) for one in draws]))

    def loss_at(step: int, _spent: float):
        return train.flow_loss(network, clean, batch_of(captions), optimise.generator(CPU, step)), 12

    before, loop = loss(), new_loop(network)
    while loop.step < 25:
        loop.done = False
        loop.run(loss_at, 0.5, tmp_path / "p.safetensors", warmup=5, cooldown=0.0)
    assert loss() < 0.8 * before


def test_a_checkpoint_brings_everything_back(tokenizer, captions: corpus.Captions, tmp_path: Path) -> None:
    """The next step after a restart is the one that would have followed, bit for bit."""
    clean = torch.from_numpy(latents().astype(np.float32))

    def advance(network: train.TextToImageModel, loop: optimise.TrainingLoop) -> None:
        draw = optimise.generator(CPU, loop.step)
        train.flow_loss(network, clean, batch_of(captions, seed=loop.step), draw).backward()
        loop.optimiser.step(1.0)
        loop.average.update_parameters(network)
        loop.step += 1

    straight = new_network(tokenizer)
    one = new_loop(straight)
    for _ in range(3):
        advance(straight, one)
    one.save(tmp_path / "p.safetensors")
    resumed = new_network(tokenizer, seed=8)
    two = new_loop(resumed)
    two.restore(tmp_path / "p.safetensors")
    assert two.facts() == one.facts()
    for network, loop in ((straight, one), (resumed, two)):
        advance(network, loop)
        advance(network, loop)
    for (name, a), b in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(one.average.module.parameters(), two.average.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_brings_the_last_good_weights_back(tmp_path: Path) -> None:
    layer = torch.nn.Linear(4, 4)
    optimiser = optimise.Optimiser(layer.named_parameters(), lambda n, p: p.ndim == 2, 0.01, 0.01)
    loop = optimise.TrainingLoop(layer, optimiser, 0.9)
    loop.EVERY = 2

    def loss_at(step: int, _spent: float):
        broken = float("nan") if step in (4, 5) else 1.0
        return layer(torch.ones(1, 4)).square().mean() * broken, 1

    loop.run(loss_at, 0.3, tmp_path / "c.safetensors", warmup=1, cooldown=0.5)
    assert loop.brake == 0.5
    assert all(torch.isfinite(one).all() for one in layer.parameters())
    with pytest.raises(FloatingPointError, match="no longer finite"):
        optimise.TrainingLoop(layer, optimiser, 0.9).run(
            lambda step, spent: (layer(torch.ones(1, 4)).mean() * float("nan"), 1), 60.0,
            tmp_path / "d.safetensors", warmup=1, cooldown=0.5,
        )  # fmt: skip


def test_the_learning_rate_follows_the_budget() -> None:
    assert optimise.lr_factor(0, 0.0, 10, 0.25) == 0.1
    assert optimise.lr_factor(50, 0.5, 10, 0.25) == 1.0
    assert optimise.lr_factor(90, 0.875, 10, 0.25) == pytest.approx(0.5)
    assert optimise.lr_factor(99, 1.0, 10, 0.25) == 0.0


def test_muon_brings_singular_values_near_one() -> None:
    for shape in ((3, 16, 40), (2, 40, 16)):
        values = torch.linalg.svdvals(optimise.orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_training_raises_the_autoencoders_psnr(drawn: data.PictureSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae, pictures = model.autoencoder((8, 16)), drawn.pictures[:4]
    crops, path = autoencoder.Crops([drawn.folder], CPU), tmp_path / "autoencoder.safetensors"
    before = autoencoder.mean_psnr(vae.eval(), pictures)
    for _ in range(20):
        autoencoder.train(vae, crops, path, 1.0, torch.float32, batch=4, size=32)
        if autoencoder.mean_psnr(vae, pictures) > before + 2:
            break
        path.unlink()
    assert autoencoder.mean_psnr(vae, pictures) > before + 2


def test_polish_changes_only_the_decoder(drawn: data.PictureSet, tmp_path: Path) -> None:
    vae, crops = model.autoencoder((8, 16)), autoencoder.Crops([drawn.folder], CPU)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    autoencoder.polish(
        vae, crops, tmp_path / "polish.safetensors", 1.0, torch.float32, batch=2, size=32, critic_first=0.2
    )
    after = vae.state_dict()
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"decoder"}


TINY = [
    "--side",
    "64",
    "--dim",
    "64",
    "--layers",
    "1",
    "--vocabulary",
    "800",
    "--pictures",
    "48",
    "--held-out",
    "24",
    "--workers",
    "1",
    "--tokens",
    "300",
    "--crops",
    "2",
    "--device",
    "cpu",
    "--seconds",
    "24",
    "--pieces",
    "1",
]


def test_a_session_goes_from_nothing_to_weights_that_paint_and_survives_a_kill(tmp_path: Path) -> None:
    """``train`` as recipes/firefly.sh runs it, with tiny sizes: killed once while the painter trains."""
    work, out = tmp_path / "work", tmp_path / "out"
    command = [sys.executable, "-m", "starrynight.firefly", "train", "--work", str(work), "--out", str(out)]
    first = subprocess.Popen(
        [*command, *TINY, "--begin", ""], start_new_session=True, stdout=subprocess.DEVNULL
    )
    waited = time.monotonic() + 200
    while not (work / "autoencoder.safetensors").exists() and time.monotonic() < waited:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    spent = optimise.read_checkpoint(work / "autoencoder.safetensors")[1]["spent"]
    again = subprocess.run([*command, *TINY, "--begin", ""], capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stderr[-2000:]
    said = [json.loads(line) for line in again.stdout.splitlines() if line.startswith('{"what"')]
    assert [one["what"] for one in said][-3:] == ["painter", "distillation", "saved"]
    assert said[0]["seconds_left"] < 24 - spent
    assert Vocabulary.read(out) == vocabulary()
    made = model.provenance(out)
    assert (made["dim"], made["layers"], made["side"]) == ("64", "1", "64")
    assert made["autoencoder_steps"] == str(
        optimise.read_checkpoint(work / "autoencoder.safetensors")[1]["step"]
    )
    picture = model.paint(model.load(out), ["星夜，油画"], seed=1, size=64, steps=2)
    assert picture.std() > 0
    assert json.loads((out / "sizes.json").read_text()) == {
        "default": 64,
        "trained": [[32, 32], [48, 64], [64, 48], [64, 64], [64, 96], [96, 48], [96, 64], [96, 96]],
    }
    pieces = sorted(tmp_path.glob("out.tar.*"))
    assert len(pieces) == len(said[-1]["pieces"]) > 1
    assert all(piece.stat().st_size <= 2**20 for piece in pieces)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    joined = b"".join(piece.read_bytes() for piece in pieces)
    subprocess.run(["tar", "-x", "-C", str(unpacked)], input=joined, check=True)
    name = "transformer/diffusion_pytorch_model.safetensors"
    assert (unpacked / "out" / name).read_bytes() == (out / name).read_bytes()


def test_a_session_goes_on_from_saved_weights(drawn: data.PictureSet, tokenizer, tmp_path: Path) -> None:
    """With ``onward``, nothing is lost: the painter begins as the saved weights are, in their latents and words."""
    network = perturb(new_network(tokenizer))
    vae = model.autoencoder((8, 8, 8, 8))
    vae.register_to_config(shift_factor=0.25, scaling_factor=2.0)
    pipe = model.pipeline(vae, tokenizer, network.encoder, network.transformer, 5.0)
    before = {name: one.clone() for name, one in pipe.transformer.named_parameters()}
    exponents = model.rescale(pipe, ["a village"], largest=1e-6, size=32)
    assert exponents
    assert any(not torch.equal(one, before[name]) for name, one in pipe.transformer.named_parameters())
    model.save(pipe, tmp_path / "saved", {"rescaled": json.dumps(exponents)})
    known = vocabulary(["fox", "crane"])
    known.write(tmp_path / "saved")
    work = tmp_path / "work"
    work.mkdir()
    for name in ("training", "large", "held-out"):
        (work / name).symlink_to(drawn.folder)
    plan = session.Plan(
        work, 8.0, "cpu", 64, 64, 1, tokens=300, begin=tmp_path / "saved", onward=True, workers=0
    )
    again = session.Session(plan)
    assert set(again.left) == {"painter", "distillation", "saving"}
    assert again.stressed == {"fox", "crane"}
    painter = session.PainterTraining(again, again.autoencoder(), again.tokenizer())
    assert (painter.mean, painter.deviation) == (0.25, 0.5)
    assert (work / "tokenizer" / "tokenizer.json").exists()
    saved = model.load(tmp_path / "saved")
    model.undo_rescale(saved, exponents)
    for name, one in saved.transformer.named_parameters():
        assert torch.equal(one, before[name].bfloat16().float())
    for one, other in (
        (painter.network.encoder, saved.text_encoder),
        (painter.network.transformer, saved.transformer),
    ):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    painter.learn()
    first = saved.transformer.layers[0].feed_forward.w1.weight
    assert not torch.equal(painter.network.transformer.layers[0].feed_forward.w1.weight, first)
    with pytest.raises(ValueError, match="onward"):
        session.Session(session.Plan(work, 1.0, "cpu", onward=True))


def test_a_folder_without_a_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=tmp_path.name):
        model.load(tmp_path)


HEADERS = {
    "one exponent a feed-forward": ({"layers.0": 3, "text_encoder": 2}, {"layers.0.w3": 1, "layers.0.w2": 2, "text_encoder": 2}),
    "two a feed-forward": ({"layers.0": [4, -1]}, {"layers.0.w3": 4, "layers.0.w2": -1}),
    "one a matrix": ({"layers.0.w3": 4, "layers.0.w2": -1}, {"layers.0.w3": 4, "layers.0.w2": -1}),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_exponents_of_every_header_are_read(kind: str) -> None:
    written, meant = HEADERS[kind]
    assert model.rescaled({"rescaled": json.dumps(written)}) == meant


@pytest.mark.parametrize("exponent", ["3", 1.5, [1], [1, 2, 3], None, {}])
def test_what_is_no_exponent_is_named(exponent: object) -> None:
    with pytest.raises(BadFile, match=r"layers\.0"):
        model.rescaled({"rescaled": json.dumps({"layers.0": exponent})})


def test_a_saved_folder_paints_and_carries_its_provenance(tokenizer, tmp_path: Path) -> None:
    from diffusers import ZImagePipeline

    network = new_network(tokenizer)
    perturb(network.transformer)
    vae = model.autoencoder((8, 8, 8, 8))
    pipe = model.pipeline(vae, tokenizer, network.encoder, network.transformer, 1.5)
    model.save(pipe, tmp_path, {"recipe_tree": "abc", "painter_steps": "0"})
    weights = sorted(tmp_path.rglob("*.safetensors"))
    assert len(weights) == 3
    for path in weights:
        with safe_open(path, "pt") as file:
            assert file.metadata()["recipe_tree"] == "abc"
            assert {str(file.get_tensor(key).dtype) for key in sorted(file.keys())} == {"torch.bfloat16"}
    loaded = ZImagePipeline.from_pretrained(tmp_path)
    texts = ["星夜", "a very long prompt " * 12]
    one = model.paint(loaded, texts, seed=1, size=64, steps=2)
    assert one.shape == (2, 64, 64, 3)
    assert one.std() > 0
    assert np.array_equal(one, model.paint(loaded, texts, seed=1, size=64, steps=2))


def test_the_classifier_learns_styles_and_the_frechet_distance_grows_with_a_shift(
    drawn: data.PictureSet, tmp_path: Path
) -> None:
    classifier = evaluate.train_classifier(drawn, tmp_path / "judge.safetensors", CPU, steps=60, batch=12)
    features, style, _, _ = evaluate.classify(classifier, drawn.pictures)
    assert (style.argmax(1) == evaluate.labels(drawn.records)[0]).float().mean() > 0.8
    assert evaluate.frechet(features, features) < 1e-3 < evaluate.frechet(features, features + 1)
    distances = evaluate.nearest_distances(np.array(drawn.pictures[:3]), np.array(drawn.pictures))
    assert distances.max() < 0.5


def test_evaluation_prompts_mention_the_style_and_only_true_subjects(drawn: data.PictureSet) -> None:
    for prompt in evaluate.evaluation_prompts(drawn, 12):
        assert mentions(prompt.text, "style", prompt.record["shows"]["style"])
        assert set(prompt.subjects) <= set(prompt.record["shows"]["subjects"])


def test_the_counts_by_name_add_up_to_the_metrics(drawn: data.PictureSet) -> None:
    torch.manual_seed(1)
    classifier, prompts = evaluate.Classifier().eval(), evaluate.evaluation_prompts(drawn, 12)
    metrics = evaluate.metrics(classifier, drawn.pictures, prompts)
    counts = evaluate.by_name(classifier, drawn.pictures, prompts)
    found, mentioned = (sum(column) for column in zip(*counts["subjects"].values(), strict=True))
    assert metrics["subject_recall"] == pytest.approx(found / mentioned)
    right = sum(counts["hours"][hour][hour] for hour in counts["hours"])
    all_hours = sum(sum(row.values()) for row in counts["hours"].values())
    assert all_hours == sum(prompt.mentions_hour for prompt in prompts) > 0
    assert metrics["hour_accuracy"] == pytest.approx(right / all_hours)


def test_the_distillation_schedule_is_the_samplers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    sampler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=5.0)
    sampler.set_timesteps(sigmas=torch.linspace(1, 1 / 8, 8).tolist(), device="cpu")
    steps = train.DistillationSchedule(steps=8, shift=5.0, substeps=4).sigmas()
    assert steps.shape == (8, 5)
    assert torch.allclose(steps[:, 0], sampler.sigmas[:-1], atol=1e-5)
    assert torch.allclose(steps[:, -1], sampler.sigmas[1:], atol=1e-5)
    chosen = train.DistillationSchedule().sample(4000, optimise.generator(CPU, 3))
    assert float((chosen[:, 0] < 0.5).float().mean()) == pytest.approx(float(steps[-1, 0]), abs=0.03)


def test_a_step_by_the_mean_velocity_ends_where_the_guided_teacher_ends(
    tokenizer, captions: corpus.Captions
) -> None:
    teacher, schedule = (
        perturb(new_network(tokenizer)),
        train.DistillationSchedule(steps=2, substeps=3, shift=3.0),
    )
    distillation = train.Distillation(teacher, torch.from_numpy(captions.empty), schedule)
    tokens, mask = distillation.with_empty(*batch_of(captions, 3))
    start = torch.randn(3, 16, 8, 8, generator=optimise.generator(CPU, 4))

    few, many = start.clone(), start.clone()
    for sigmas in schedule.sigmas():
        cond, uncond = distillation.mean_velocities(few, sigmas.repeat(3, 1), tokens, mask).chunk(2)
        few = few + (sigmas[0] - sigmas[-1]) * (cond + 2.0 * (cond - uncond))
    fine = torch.cat([schedule.sigmas()[:, :-1].flatten(), torch.zeros(1)])
    for one, other in pairwise(fine):
        with torch.no_grad():
            cond, uncond = teacher(many.repeat(2, 1, 1, 1), (1 - one).repeat(6), tokens, mask).chunk(2)
        many = many + (one - other) * (cond + 2.0 * (cond - uncond))
    assert (many - start).abs().max() > 0.1
    assert torch.allclose(few, many, atol=1e-4)


def test_distillation_brings_the_student_nearer_to_its_teacher(
    tokenizer, captions: corpus.Captions, tmp_path: Path
) -> None:
    teacher, student = perturb(new_network(tokenizer)).requires_grad_(False), perturb(new_network(tokenizer))
    schedule = train.DistillationSchedule(steps=1, substeps=4, shift=3.0)
    distillation = train.Distillation(teacher, torch.from_numpy(captions.empty), schedule)
    clean = torch.from_numpy(latents().astype(np.float32))

    def loss_at(step: int, _spent: float):
        return distillation(student, clean, batch_of(captions), optimise.generator(CPU, step)), 12

    def distance() -> float:
        with torch.no_grad():
            return float(distillation(student, clean, batch_of(captions), optimise.generator(CPU, 999)))

    before, loop = distance(), new_loop(student)
    assert before > 0
    for _ in range(20):
        loop.done = False
        loop.run(loss_at, 2.0, tmp_path / "d.safetensors", warmup=5, cooldown=0.0)
        if distance() < 0.7 * before:
            break
    assert distance() < 0.7 * before
    untouched = perturb(new_network(tokenizer)).parameters()
    assert all(torch.equal(one, other) for one, other in zip(teacher.parameters(), untouched, strict=True))


def test_a_share_of_the_sigmas_is_at_high_noise() -> None:
    drawn = [
        train.SigmaSampler(2.0, share).sample(20_000, optimise.generator(CPU, 1)) for share in (0.0, 0.25)
    ]
    late = [float((sigma > train.HIGH_NOISE).float().mean()) for sigma in drawn]
    assert late[0] < 0.2
    assert late[1] == pytest.approx(0.25 + 0.75 * late[0], abs=0.03)
    assert all(float(sigma.min()) >= 0 and float(sigma.max()) <= 1 for sigma in drawn)
