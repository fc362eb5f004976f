"""Firefly's training at a small size: twelve drawn pictures, a transformer of one block, a few steps."""

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
from starrynight.firefly.training import autoencoder, data, evaluate, optimise, train
from starrynight.models.catalogue import SHIPPED

CONFIG = model.ModelConfig(64)


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
    return data.read(folder)


@pytest.fixture(scope="module")
def tokenizer(drawn: data.PictureSet):
    return model.tokenizer(drawn.all_captions(), vocabulary=600)


@pytest.fixture(scope="module")
def captions(drawn: data.PictureSet, tokenizer) -> data.TokenizedCaptions:
    return data.TokenizedCaptions.encode(tokenizer, [record["captions"] for record in drawn.records])


def new_run(tokenizer, seed: int = 3) -> train.TrainingRun:
    return train.TrainingRun(CONFIG, len(tokenizer), tokenizer.pad_token_id, rate=2e-3, seed=seed)


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
    first = np.array(data.read(tmp_path).pictures)
    (tmp_path / "block-00000.jsonl").unlink()
    data.draw(tmp_path, count=12, first_seed=77, size=64, captions=3, workers=1)
    again = data.read(tmp_path)
    assert np.array_equal(first, again.pictures)
    assert np.array_equal(first, drawn.pictures)
    assert again.records == drawn.records


def test_recaption_rewrites_captions_and_refuses_a_scene_that_was_not_drawn(tmp_path: Path) -> None:
    block = tmp_path / "block-00000.jsonl"
    records = [data.describe(compose(seed), captions=1) for seed in range(77, 89)]
    data.write_block(block, records)
    assert data.recaption(tmp_path, captions=4) == 12
    again = [json.loads(line) for line in block.read_text("utf-8").splitlines()]
    assert [record["shows"] for record in again] == [record["shows"] for record in records]
    assert all(len(record["captions"]) == 4 for record in again)
    block.write_text(block.read_text("utf-8").replace('"seed": 77,', '"seed": 7700,'), "utf-8")
    before = block.read_bytes()
    with pytest.raises(ValueError, match="seed 7700"):
        data.recaption(tmp_path, captions=4)
    assert block.read_bytes() == before


def test_the_tokenizer_decodes_any_text_to_itself(tokenizer) -> None:
    for text in ("星夜下的静谧村庄，梵高风格", "a village at night", "", "龘 🦓 \u200d é"):
        prompt = data.chat_prompt(tokenizer, text)
        assert tokenizer.decode(tokenizer(prompt)["input_ids"]) == prompt


def test_no_merge_spans_two_chinese_characters(tokenizer) -> None:
    for token in tokenizer.get_vocab():
        text = tokenizer.convert_tokens_to_string([token])
        assert sum("\u4e00" <= letter <= "\u9fff" for letter in text) <= 1, text


def test_the_training_forward_equals_the_stock_forward(tokenizer) -> None:
    network = perturb(new_run(tokenizer).model)
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
    transformer = new_run(tokenizer).model.transformer
    whole, _ = train.rotations(transformer, 8, 8, 32)
    half, _ = train.rotations(transformer, 4, 4, 32, stride=2)
    for one, other in zip(whole, half, strict=True):
        grid = one.unflatten(0, (8, 8))
        assert torch.equal(grid[::2, ::2].flatten(0, 1), other)


def test_omitted_share_is_the_share_of_captions_that_mention_an_omitted_subject(
    captions: data.TokenizedCaptions,
) -> None:
    assert captions.mentioning
    mentioning = {tuple(place) for places in captions.mentioning for place in places.tolist()}

    def share(omitted_share: float) -> float:
        rows, columns = captions.sample(3000, omitted_share, np.random.default_rng(5))
        assert (np.diff(rows) >= 0).all()
        assert (np.sort(columns) == np.arange(captions.lengths.shape[1])).all()
        return float(
            np.mean([(row, order[0]) in mentioning for row, order in zip(rows, columns, strict=True)])
        )

    everywhere = len(mentioning) / captions.lengths.size
    assert share(0.0) == pytest.approx(everywhere, abs=0.05)
    assert share(0.5) == pytest.approx(0.5 + 0.5 * everywhere, abs=0.05)
    assert share(1.0) == 1.0


def test_training_lowers_the_loss(tokenizer, captions: data.TokenizedCaptions, tmp_path: Path) -> None:
    run = new_run(tokenizer)
    rows, columns = np.arange(12), np.tile(np.arange(captions.lengths.shape[1]), (12, 1))

    def loss() -> float:
        clean = torch.from_numpy(latents().astype(np.float32))
        with torch.no_grad():
            return float(
                np.mean([
                    train.flow_loss(run.model, clean, captions.batch(rows, columns, np.random.default_rng(i)), optimise.generator(9, i))
                    for i in range(4)
                ])
            )  # fmt: skip

    before = loss()
    run.train(latents(), captions, (0.0, 1.0), tmp_path / "p.safetensors", until=25, batch=12, warmup=5)
    assert loss() < 0.8 * before


def test_a_killed_run_resumes_bit_for_bit(
    tokenizer, captions: data.TokenizedCaptions, tmp_path: Path
) -> None:
    half = new_run(tokenizer)
    half.train(latents(), captions, (0.0, 1.0), tmp_path / "half.safetensors", until=4, batch=4)
    resumed = new_run(tokenizer, seed=3)
    resumed.restore(tmp_path / "half.safetensors")
    resumed.train(latents(), captions, (0.0, 1.0), tmp_path / "half.safetensors", until=6, batch=4)
    straight = new_run(tokenizer)
    straight.train(latents(), captions, (0.0, 1.0), tmp_path / "straight.safetensors", until=6, batch=4)
    assert resumed.samples == straight.samples == 24
    for (name, one), other in zip(resumed.model.named_parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(one, other), name
    averages = (run.average.module.named_parameters() for run in (resumed, straight))
    for (name, one), (_, other) in zip(*averages, strict=True):
        assert torch.equal(one, other), name


def test_the_average_restarts_at_another_picture_size(
    tokenizer, captions: data.TokenizedCaptions, tmp_path: Path
) -> None:
    run, path = new_run(tokenizer), tmp_path / "p.safetensors"
    run.train(latents()[..., ::2, ::2], captions, (0.0, 1.0), path, until=3, batch=2)
    run = new_run(tokenizer)
    run.restore(path)
    assert int(run.average.n_averaged) == 3
    run.train(latents(), captions, (0.0, 1.0), path, until=4, batch=2)
    assert int(run.average.n_averaged) == 1


def _train_linear(processes: optimise.ProcessGroup, folder: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8)
    optimiser = optimise.Optimiser(
        layer.named_parameters(), lambda n, p: p.ndim == 2, 0.01, 0.01, processes=processes
    )
    data_rows = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        mine = data_rows[processes.rank :: processes.size]
        layer(mine).square().mean().backward()
        processes.average_gradients(layer.parameters())
        optimiser.step(1.0)
    np.save(f"{folder}/{processes.size}-{processes.rank}.npy", layer.weight.detach().numpy())


def test_two_processes_train_what_one_process_trains(tmp_path: Path) -> None:
    for size in (1, 2):
        optimise.launch(size, _train_linear, str(tmp_path))
    alone, first, second = (
        torch.from_numpy(np.load(tmp_path / f"{name}.npy")) for name in ("1-0", "2-0", "2-1")
    )
    torch.testing.assert_close(alone, first, rtol=1e-4, atol=1e-6)
    assert torch.equal(first, second)


def test_muon_brings_singular_values_near_one() -> None:
    for shape in ((3, 16, 40), (2, 40, 16)):
        values = torch.linalg.svdvals(optimise.orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_training_raises_the_autoencoders_psnr(drawn: data.PictureSet, tmp_path: Path) -> None:
    path = tmp_path / "autoencoder.safetensors"
    pictures = np.array(drawn.pictures)
    torch.manual_seed(0)
    before = autoencoder.mean_psnr(model.autoencoder((8, 16)).eval(), pictures[:4])
    autoencoder.train(
        optimise.ProcessGroup(), pictures, pictures[:4], path, until=60, batch=4, size=32, channels=(8, 16)
    )
    assert autoencoder.mean_psnr(autoencoder.load(path), pictures[:4]) > before + 2


def test_polish_changes_only_the_decoder(drawn: data.PictureSet, tmp_path: Path) -> None:
    path = tmp_path / "autoencoder.safetensors"
    pictures = np.array(drawn.pictures)
    autoencoder.train(
        optimise.ProcessGroup(), pictures, pictures[:1], path, until=1, batch=2, size=32, channels=(8, 16)
    )
    before = autoencoder.load(path).state_dict()
    autoencoder.polish(
        optimise.ProcessGroup(), pictures, pictures[:1], tmp_path, until=4, batch=2, size=32, critic_first=2
    )
    after = autoencoder.load_polished(tmp_path).state_dict()
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"decoder"}


def test_begin_and_assemble_round_trip_the_shipped_weights(tmp_path: Path) -> None:
    """``assemble`` rebuilds what ``begin`` unpacked: the same tensors, tokenizer and statistics."""
    verbs.begin(argparse.Namespace(weights=SHIPPED, work=tmp_path))
    pipe, _ = verbs.assemble(tmp_path, 1.5)
    shipped = model.load(SHIPPED)
    for part in ("vae", "text_encoder", "transformer"):
        one, other = (getattr(one, part).state_dict() for one in (pipe, shipped))
        assert all(torch.equal(one[name], other[name]) for name in other), part
    assert pipe.vae.config.scaling_factor == pytest.approx(shipped.vae.config.scaling_factor)
    assert pipe.tokenizer("星夜, a village")["input_ids"] == shipped.tokenizer("星夜, a village")["input_ids"]


def test_the_verbs_train_new_weights_from_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verbs of docs/training.md in their order, with twelve pictures and one step of each training."""
    # ``save`` measures activations on the sheet's prompts: four of the sixty are enough here.
    monkeypatch.setattr(evaluate, "SHEET_SCENES", evaluate.SHEET_SCENES[:1])
    monkeypatch.setattr(evaluate, "SHEET_STYLES", evaluate.SHEET_STYLES[:4])

    def firefly(verb: str, *options: str) -> None:
        parsed = verbs.arguments().parse_args([verb, "--work", str(tmp_path / "work"), *options])
        parsed.work.mkdir(exist_ok=True)
        parsed.job(parsed)

    shipped = verbs.provenance(SHIPPED)
    step = int(shipped["painter_steps"])
    firefly("draw", "--pictures", "12", "--held-out", "2", "--workers", "1")
    firefly("begin")
    firefly("encode", "--side", "128")
    firefly("learn", *f"--until {step + 1} --batch 2 --team 1 --first 0.3 --overlooked 0.5".split())
    firefly("distil", "--until", "1", "--batch", "2", "--team", "1", "--side", "128", "--substeps", "2")
    firefly("save", "--out", str(tmp_path / "new"))

    made = verbs.provenance(tmp_path / "new")
    assert (int(made["painter_steps"]), made["distilled_steps"]) == (step + 1, "1")
    assert int(made["painter_samples"]) == int(shipped["painter_samples"]) + 2
    new, old = model.load(tmp_path / "new"), model.load(SHIPPED)
    assert new.scheduler.config.shift == 5.0
    assert not torch.equal(
        new.transformer.layers[0].feed_forward.w1.weight, old.transformer.layers[0].feed_forward.w1.weight
    )
    painted = [model.paint(pipe, ["星夜，油画"], seed=1, size=128, steps=2) for pipe in (new, old)]
    assert painted[0].std() > 10
    assert not np.array_equal(*painted)
    # Once the teacher has trained further, the student of its earlier step no longer counts.
    firefly("learn", *f"--until {step + 2} --batch 2 --team 1".split())
    assert verbs.assemble(tmp_path / "work", 5.0)[1]["distilled_steps"] == "0"


def test_a_saved_folder_paints_and_carries_its_provenance(tokenizer, tmp_path: Path) -> None:
    from diffusers import ZImagePipeline

    run = new_run(tokenizer)
    perturb(run.model.transformer)
    pipe = model.pipeline(
        model.autoencoder((8, 8, 8, 8)), tokenizer, run.model.encoder, run.model.transformer, 1.5
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
    one = model.paint(loaded, texts, seed=1, size=64, steps=2)
    assert one.shape == (2, 64, 64, 3)
    assert one.std() > 0
    assert np.array_equal(one, model.paint(loaded, texts, seed=1, size=64, steps=2))


def test_the_classifier_learns_styles_and_the_frechet_distance_grows_with_a_shift(
    drawn: data.PictureSet, tmp_path: Path
) -> None:
    classifier = evaluate.train_classifier(drawn, tmp_path / "judge.safetensors", steps=60, batch=12)
    features, style, _, _ = evaluate.classify(classifier, drawn.pictures)
    assert (style.argmax(1) == evaluate.labels(drawn.records)[0]).float().mean() > 0.8
    assert evaluate.frechet(features, features) < 1e-3 < evaluate.frechet(features, features + 1)
    distances = evaluate.nearest_distances(np.array(drawn.pictures[:3]), np.array(drawn.pictures))
    assert distances.max() < 0.5


def test_evaluation_prompts_mention_the_style_and_only_true_subjects(drawn: data.PictureSet) -> None:
    for prompt in evaluate.evaluation_prompts(drawn, 12):
        assert data.mentions(prompt.text, "style", prompt.record["shows"]["style"])
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
    chosen = train.DistillationSchedule().sample(4000, optimise.generator(3, 0))
    assert float((chosen[:, 0] < 0.5).float().mean()) == pytest.approx(float(steps[-1, 0]), abs=0.03)


def test_a_step_by_the_mean_velocity_ends_where_the_guided_teacher_ends(
    tokenizer, captions: data.TokenizedCaptions
) -> None:
    teacher, schedule = (
        perturb(new_run(tokenizer).model),
        train.DistillationSchedule(steps=2, substeps=3, shift=3.0),
    )
    distillation = train.Distillation.of(teacher, captions, schedule)
    rows, columns = captions.sample(3, 0.0, np.random.default_rng(1))
    tokens, mask = distillation.with_empty(*captions.batch(rows, columns, np.random.default_rng(1)))
    start = torch.randn(3, 16, 8, 8, generator=optimise.generator(4, 0))

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
    tokenizer, captions: data.TokenizedCaptions, tmp_path: Path
) -> None:
    teacher, run = perturb(new_run(tokenizer).model), new_run(tokenizer)
    run.model.load_state_dict(teacher.state_dict())
    distillation = train.Distillation.of(
        teacher, captions, train.DistillationSchedule(steps=1, substeps=4, shift=3.0)
    )
    clean = torch.from_numpy(latents().astype(np.float32))
    rows, columns = np.arange(12), np.tile(np.arange(captions.lengths.shape[1]), (12, 1))
    batch = captions.batch(rows, columns, np.random.default_rng(0))

    def distance() -> float:
        with torch.no_grad():
            return float(distillation(run.model, clean, batch, optimise.generator(9, 0)))

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
        objective=distillation,
    )
    assert distance() < 0.7 * before
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            teacher.parameters(), perturb(new_run(tokenizer).model).parameters(), strict=True
        )
    )


def test_a_share_of_the_sigmas_is_at_high_noise() -> None:
    drawn = [train.SigmaSampler(2.0, share).sample(20_000, optimise.generator(1, 0)) for share in (0.0, 0.25)]
    late = [float((sigma > train.HIGH_NOISE).float().mean()) for sigma in drawn]
    assert late[0] < 0.2
    assert late[1] == pytest.approx(0.25 + 0.75 * late[0], abs=0.03)
    assert all(float(sigma.min()) >= 0 and float(sigma.max()) <= 1 for sigma in drawn)
