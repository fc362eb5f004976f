"""Firefly's training, made tiny: a few real pictures, a painter two blocks deep, a handful of steps."""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from starrynight.firefly import model, verbs
from starrynight.firefly.drawing.scene import compose
from starrynight.firefly.training import autoencoder, data, distil, evaluate, optimise, polish, sheet, train
from starrynight.firefly.training import captions as captions_module
from starrynight.models.catalogue import SHIPPED

DIAL = model.ModelConfig(64)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small lose more to threads meeting than they win, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> data.PictureSet:
    folder = tmp_path_factory.mktemp("set")
    data.draw(folder, count=12, first_seed=77, size=64, captions=3, workers=1)
    return data.read(folder)


@pytest.fixture(scope="module")
def words(drawn: data.PictureSet):
    return model.tokenizer(drawn.all_captions(), vocabulary=600)


@pytest.fixture(scope="module")
def captions(drawn: data.PictureSet, words) -> train.Captions:
    return train.Captions.encode(words, [fact["captions"] for fact in drawn.facts])


def begin(words, seed: int = 3) -> train.Run:
    return train.Run(DIAL, len(words), words.pad_token_id, rate=2e-3, seed=seed)


def latents() -> np.ndarray:
    """Smooth latents [12, 16, 8, 16]: 32 patches, so the stock transformer pads nothing."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(12, 16, 2, 4))
    return np.repeat(np.repeat(coarse, 4, axis=2), 4, axis=3).astype(np.float16)


def loud(module: torch.nn.Module) -> torch.nn.Module:
    """Weights moved off their quiet start, so that every path through the network counts."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(
                0.05
                * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    return module


def test_a_set_goes_on_where_it_stopped(tmp_path: Path, drawn: data.PictureSet) -> None:
    data.draw(tmp_path, count=12, first_seed=77, size=64, captions=3, workers=1)
    first = np.array(data.read(tmp_path).pictures)
    (tmp_path / "block-00000.jsonl").unlink()
    data.draw(tmp_path, count=12, first_seed=77, size=64, captions=3, workers=1)
    again = data.read(tmp_path)
    assert np.array_equal(first, again.pictures)
    assert np.array_equal(first, drawn.pictures)
    assert again.facts == drawn.facts


def test_captions_are_written_anew_and_only_for_the_scenes_that_were_drawn(tmp_path: Path) -> None:
    block = tmp_path / "block-00000.jsonl"
    facts = [data.described(compose(seed), captions=1) for seed in range(77, 89)]
    data.write_block(block, facts)
    assert data.recaption(tmp_path, captions=4) == 12
    again = [json.loads(line) for line in block.read_text("utf-8").splitlines()]
    assert [fact["shows"] for fact in again] == [fact["shows"] for fact in facts]
    assert all(len(fact["captions"]) == 4 for fact in again)
    block.write_text(block.read_text("utf-8").replace('"seed": 77,', '"seed": 7700,'), "utf-8")
    before = block.read_bytes()
    with pytest.raises(ValueError, match="seed 7700"):
        data.recaption(tmp_path, captions=4)
    assert block.read_bytes() == before


def test_any_text_survives_the_tokenizer(words) -> None:
    for text in ("星夜下的静谧村庄，梵高风格", "a village at night", "", "龘 🦓 \u200d é"):
        worded = train.worded(words, text)
        assert words.decode(words(worded)["input_ids"]) == worded


def test_no_merge_spans_two_chinese_characters(words) -> None:
    for token in words.get_vocab():
        text = words.convert_tokens_to_string([token])
        assert sum("\u4e00" <= letter <= "\u9fff" for letter in text) <= 1, text


def test_the_training_forward_is_the_stock_forward(words) -> None:
    painter = loud(begin(words).painter)
    lengths = torch.tensor([5, 17, 32])
    mask = torch.arange(32)[None] < lengths[:, None]
    tokens = torch.randint(3, 300, (3, 32)).masked_fill(~mask, words.pad_token_id)
    noisy, clearness = torch.randn(3, 16, 8, 16), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        ours = painter(noisy, clearness, tokens, mask)
        hidden = painter.encoder(
            input_ids=tokens, attention_mask=mask, output_hidden_states=True
        ).hidden_states[-2]
        feats = [row[kept] for row, kept in zip(hidden, mask, strict=True)]
        stock = painter.transformer(list(noisy.unsqueeze(2).unbind(0)), clearness, feats, return_dict=False)[
            0
        ]
    torch.testing.assert_close(ours, torch.stack(stock).squeeze(2), rtol=1e-4, atol=1e-4)


def test_half_size_patches_stand_at_every_second_whole_size_place(words) -> None:
    transformer = begin(words).painter.transformer
    whole, _ = train.rotations(transformer, 8, 8, 32)
    half, _ = train.rotations(transformer, 4, 4, 32, stride=2)
    for one, other in zip(whole, half, strict=True):
        grid = one.unflatten(0, (8, 8))
        assert torch.equal(grid[::2, ::2].flatten(0, 1), other)


def test_a_share_of_the_samples_names_what_is_overlooked(captions: train.Captions) -> None:
    assert captions.naming
    naming = {tuple(place) for places in captions.naming for place in places.tolist()}

    def share(overlooked: float) -> float:
        rows, columns = captions.pick(3000, overlooked, np.random.default_rng(5))
        assert (np.diff(rows) >= 0).all()
        assert (np.sort(columns) == np.arange(captions.lengths.shape[1])).all()
        return float(np.mean([(row, order[0]) in naming for row, order in zip(rows, columns, strict=True)]))

    everywhere = len(naming) / captions.lengths.size
    assert share(0.0) == pytest.approx(everywhere, abs=0.05)
    assert share(0.5) == pytest.approx(0.5 + 0.5 * everywhere, abs=0.05)
    assert share(1.0) == 1.0


def test_learning_lowers_the_loss(words, captions: train.Captions, tmp_path: Path) -> None:
    run = begin(words)
    rows, columns = np.arange(12), np.tile(np.arange(captions.lengths.shape[1]), (12, 1))

    def loss() -> float:
        clean = torch.from_numpy(latents().astype(np.float32))
        with torch.no_grad():
            return float(
                np.mean([
                    train.flow_loss(run.painter, clean, captions.draw(rows, columns, np.random.default_rng(i)), optimise.generator(9, i))
                    for i in range(4)
                ])
            )  # fmt: skip

    before = loss()
    run.train(latents(), captions, (0.0, 1.0), tmp_path / "p.safetensors", until=25, batch=12, warmup=5)
    assert loss() < 0.8 * before


def test_a_killed_run_goes_on_bit_for_bit(words, captions: train.Captions, tmp_path: Path) -> None:
    half = begin(words)
    half.train(latents(), captions, (0.0, 1.0), tmp_path / "half.safetensors", until=4, batch=4)
    resumed = begin(words, seed=3).load(tmp_path / "half.safetensors")
    resumed.train(latents(), captions, (0.0, 1.0), tmp_path / "half.safetensors", until=6, batch=4)
    straight = begin(words)
    straight.train(latents(), captions, (0.0, 1.0), tmp_path / "straight.safetensors", until=6, batch=4)
    assert resumed.samples == straight.samples == 24
    for (name, one), other in zip(
        resumed.painter.named_parameters(), straight.painter.parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    for name, one in resumed.average.weights.items():
        assert torch.equal(one, straight.average.weights[name]), name


def test_the_average_forgets_another_size(words, captions: train.Captions, tmp_path: Path) -> None:
    run, path = begin(words), tmp_path / "p.safetensors"
    run.train(latents()[..., ::2, ::2], captions, (0.0, 1.0), path, until=3, batch=2)
    run = begin(words).load(path)
    assert run.average.count == 3
    run.train(latents(), captions, (0.0, 1.0), path, until=4, batch=2)
    assert run.average.count == 1


def _team_run(team: optimise.ProcessGroup, folder: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8)
    optimiser = optimise.Optimiser(layer.named_parameters(), lambda n, p: p.ndim == 2, 0.01, 0.01, team=team)
    data_rows = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        mine = data_rows[team.rank :: team.size]
        layer(mine).square().mean().backward()
        team.average(layer.parameters())
        optimiser.step(1.0)
    np.save(f"{folder}/{team.size}-{team.rank}.npy", layer.weight.detach().numpy())


def test_a_team_of_two_learns_what_one_learns(tmp_path: Path) -> None:
    for size in (1, 2):
        optimise.launch(size, _team_run, str(tmp_path))
    alone, first, second = (
        torch.from_numpy(np.load(tmp_path / f"{name}.npy")) for name in ("1-0", "2-0", "2-1")
    )
    torch.testing.assert_close(alone, first, rtol=1e-4, atol=1e-6)
    assert torch.equal(first, second)


def test_muon_brings_singular_values_near_one() -> None:
    for shape in ((3, 16, 40), (2, 40, 16)):
        values = torch.linalg.svdvals(optimise.orthogonal(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_the_autoencoder_learns(drawn: data.PictureSet, tmp_path: Path) -> None:
    path = tmp_path / "autoencoder.safetensors"
    pictures = np.array(drawn.pictures)
    torch.manual_seed(0)
    before = autoencoder.psnr(model.autoencoder((8, 16)).eval(), pictures[:4])
    autoencoder.train(
        optimise.ProcessGroup(), pictures, pictures[:4], path, until=60, batch=4, size=32, channels=(8, 16)
    )
    assert autoencoder.psnr(autoencoder.load(path), pictures[:4]) > before + 2


def test_polishing_moves_the_decoder_alone(drawn: data.PictureSet, tmp_path: Path) -> None:
    path = tmp_path / "autoencoder.safetensors"
    pictures = np.array(drawn.pictures)
    autoencoder.train(
        optimise.ProcessGroup(), pictures, pictures[:1], path, until=1, batch=2, size=32, channels=(8, 16)
    )
    before = autoencoder.load(path).state_dict()
    polish.train(
        optimise.ProcessGroup(), pictures, pictures[:1], tmp_path, until=4, batch=2, size=32, alone=2
    )
    after = polish.polished(tmp_path).state_dict()
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"decoder"}


def test_training_goes_on_from_shipped_weights(tmp_path: Path) -> None:
    """What ``begin`` unpacks, ``assemble`` puts together again: the same tensors, tokenizer and statistics."""
    verbs.begin(argparse.Namespace(weights=SHIPPED, work=tmp_path))
    pipe, _ = verbs.assemble(tmp_path, 1.5)
    shipped = evaluate.open_weights(SHIPPED)
    for part in ("vae", "text_encoder", "transformer"):
        one, other = (getattr(one, part).state_dict() for one in (pipe, shipped))
        assert all(torch.equal(one[name], other[name]) for name in other), part
    assert pipe.vae.config.scaling_factor == pytest.approx(shipped.vae.config.scaling_factor)
    assert pipe.tokenizer("星夜, a village")["input_ids"] == shipped.tokenizer("星夜, a village")["input_ids"]


def test_the_verbs_go_on_from_the_shipped_weights_to_new_ones(tmp_path: Path) -> None:
    """A sitting as docs/training.md tells it, with twelve pictures and one step of each kind."""

    def firefly(verb: str, *options: str) -> None:
        told = verbs.arguments().parse_args([verb, "--work", str(tmp_path / "work"), *options])
        told.work.mkdir(exist_ok=True)
        told.job(told)

    shipped = verbs.provenance(SHIPPED)
    step = int(shipped["painter_steps"])
    firefly("draw", "--pictures", "12", "--held-out", "2", "--workers", "1")
    firefly("begin")
    firefly("encode", "--side", "128")
    firefly("learn", *f"--until {step + 1} --batch 2 --team 1 --first 0.3 --overlooked 0.5".split())
    firefly("distil", "--until", "1", "--batch", "2", "--team", "1", "--side", "128", "--substeps", "2")
    firefly("save", "--out", str(tmp_path / "new"))

    said = verbs.provenance(tmp_path / "new")
    assert (int(said["painter_steps"]), said["distilled_steps"]) == (step + 1, "1")
    assert int(said["painter_samples"]) == int(shipped["painter_samples"]) + 2
    new, old = evaluate.open_weights(tmp_path / "new"), evaluate.open_weights(SHIPPED)
    assert new.scheduler.config.shift == 5.0
    assert not torch.equal(
        new.transformer.layers[0].feed_forward.w1.weight, old.transformer.layers[0].feed_forward.w1.weight
    )
    painted = [sheet.paint(pipe, ["星夜，油画"], seed=1, size=128, steps=2) for pipe in (new, old)]
    assert painted[0].std() > 10
    assert not np.array_equal(*painted)
    # One that has learnt on since is not taken for the student of what it was.
    firefly("learn", *f"--until {step + 2} --batch 2 --team 1".split())
    assert verbs.assemble(tmp_path / "work", 5.0)[1]["distilled_steps"] == "0"


def test_a_saved_folder_paints_and_says_where_it_comes_from(words, tmp_path: Path) -> None:
    from diffusers import ZImagePipeline

    run = begin(words)
    loud(run.painter.transformer)
    pipe = model.pipeline(
        model.autoencoder((8, 8, 8, 8)), words, run.painter.encoder, run.painter.transformer, 1.5
    )
    model.save(pipe, tmp_path, {"recipe_tree": "abc", "painter_steps": "0"})
    weights = sorted(tmp_path.rglob("*.safetensors"))
    assert len(weights) == 3
    for path in weights:
        with safe_open(path, "pt") as file:
            assert file.metadata()["recipe_tree"] == "abc"
            assert {str(file.get_tensor(key).dtype) for key in sorted(file.keys())} == {"torch.bfloat16"}
    loaded = ZImagePipeline.from_pretrained(tmp_path)
    texts = ["星夜", "a very long prompt " * 12]
    one = sheet.paint(loaded, texts, seed=1, size=64, steps=2)
    assert one.shape == (2, 64, 64, 3)
    assert one.std() > 0
    assert np.array_equal(one, sheet.paint(loaded, texts, seed=1, size=64, steps=2))


def test_the_judge_learns_styles_and_the_distance_sees_change(drawn: data.PictureSet, tmp_path: Path) -> None:
    judge = evaluate.train_judge(drawn, tmp_path / "judge.safetensors", steps=60, batch=12)
    features, style, _, _ = evaluate.judged(judge, drawn.pictures)
    assert (style.argmax(1) == evaluate.labels(drawn.facts)[0]).float().mean() > 0.8
    assert evaluate.frechet(features, features) < 1e-3 < evaluate.frechet(features, features + 1)
    distances = evaluate.nearest(np.array(drawn.pictures[:3]), np.array(drawn.pictures))
    assert distances.max() < 0.5


def test_questions_name_the_style_and_only_true_subjects(drawn: data.PictureSet) -> None:
    for question in evaluate.ask(drawn, 12):
        assert captions_module.names(question.text, "style", question.fact["shows"]["style"])
        assert set(question.subjects) <= set(question.fact["shows"]["subjects"])


def test_what_is_told_by_name_adds_up_to_the_figures(drawn: data.PictureSet) -> None:
    torch.manual_seed(1)
    judge, questions = evaluate.Classifier().eval(), evaluate.ask(drawn, 12)
    figures = evaluate.figures(judge, drawn.pictures, questions)
    told = evaluate.by_name(judge, drawn.pictures, questions)
    found, named = (sum(column) for column in zip(*told["subjects"].values(), strict=True))
    assert figures["subject_recall"] == pytest.approx(found / named)
    right = sum(told["hours"][hour][hour] for hour in told["hours"])
    asked = sum(sum(row.values()) for row in told["hours"].values())
    assert asked == sum(question.names_hour for question in questions) > 0
    assert figures["hour_accuracy"] == pytest.approx(right / asked)


def test_the_way_of_each_step_is_the_samplers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    sampler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=5.0)
    sampler.set_timesteps(sigmas=torch.linspace(1, 1 / 8, 8).tolist(), device="cpu")
    ways = distil.Schedule(steps=8, shift=5.0, substeps=4).sigmas()
    assert ways.shape == (8, 5)
    assert torch.allclose(ways[:, 0], sampler.sigmas[:-1], atol=1e-5)
    assert torch.allclose(ways[:, -1], sampler.sigmas[1:], atol=1e-5)
    chosen = distil.Schedule().choose(4000, optimise.generator(3, 0))
    assert float((chosen[:, 0] < 0.5).float().mean()) == pytest.approx(float(ways[-1, 0]), abs=0.03)


def test_one_mean_velocity_lands_where_the_guided_teacher_arrives(words, captions: train.Captions) -> None:
    teacher, schedule = loud(begin(words).painter), distil.Schedule(steps=2, substeps=3, shift=3.0)
    lesson = distil.Distillation.of(teacher, captions, schedule)
    rows, columns = captions.pick(3, 0.0, np.random.default_rng(1))
    tokens, mask = lesson.with_empty(*captions.draw(rows, columns, np.random.default_rng(1)))
    start = torch.randn(3, 16, 8, 8, generator=optimise.generator(4, 0))

    few, many = start.clone(), start.clone()
    for way in schedule.sigmas():
        told, untold = lesson.mean_velocities(few, way.repeat(3, 1), tokens, mask).chunk(2)
        few = few + (way[0] - way[-1]) * (told + 2.0 * (told - untold))
    fine = torch.cat([schedule.sigmas()[:, :-1].flatten(), torch.zeros(1)])
    for one, other in pairwise(fine):
        with torch.no_grad():
            told, untold = teacher(many.repeat(2, 1, 1, 1), (1 - one).repeat(6), tokens, mask).chunk(2)
        many = many + (one - other) * (told + 2.0 * (told - untold))
    assert (many - start).abs().max() > 0.1
    assert torch.allclose(few, many, atol=1e-4)


def test_a_student_comes_nearer_to_its_teacher(words, captions: train.Captions, tmp_path: Path) -> None:
    teacher, run = loud(begin(words).painter), begin(words)
    run.painter.load_state_dict(teacher.state_dict())
    lesson = distil.Distillation.of(teacher, captions, distil.Schedule(steps=1, substeps=4, shift=3.0))
    clean = torch.from_numpy(latents().astype(np.float32))
    rows, columns = np.arange(12), np.tile(np.arange(captions.lengths.shape[1]), (12, 1))
    batch = captions.draw(rows, columns, np.random.default_rng(0))

    def distance() -> float:
        with torch.no_grad():
            return float(lesson(run.painter, clean, batch, optimise.generator(9, 0)))

    before = distance()
    assert before > 0
    run.train(
        latents(),
        captions,
        (0.0, 1.0),
        tmp_path / "d.safetensors",
        until=25,
        batch=12,
        warmup=5,
        objective=lesson,
    )
    assert distance() < 0.7 * before
    assert all(
        torch.equal(one, other)
        for one, other in zip(teacher.parameters(), loud(begin(words).painter).parameters(), strict=True)
    )


def test_a_share_of_the_times_lies_where_the_first_step_is_taken() -> None:
    drawn = [train.Times(2.0, first).draw(20_000, optimise.generator(1, 0)) for first in (0.0, 0.25)]
    late = [float((sigma > train.FIRST).float().mean()) for sigma in drawn]
    assert late[0] < 0.2
    assert late[1] == pytest.approx(0.25 + 0.75 * late[0], abs=0.03)
    assert all(float(sigma.min()) >= 0 and float(sigma.max()) <= 1 for sigma in drawn)
