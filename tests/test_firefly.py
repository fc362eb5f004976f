"""The shipped model, painted with through the studio."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from starrynight import studio
from starrynight.errors import Cancelled
from starrynight.firefly import model
from starrynight.firefly.training import evaluate
from starrynight.gallery.files import OutputPath
from starrynight.metadata import read_recipe
from starrynight.models.catalogue import SHIPPED
from starrynight.models.weights import header, of_folder
from starrynight.request import PaintRequest


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> studio.Studio:
    """One studio for every test, so that Firefly is loaded once."""
    return studio.Studio(OutputPath(tmp_path_factory.mktemp("pictures")))


def paint(shared: studio.Studio, prompt: str, **fields: object) -> Path:
    small = {"seed": 7, "width": 256, "height": 256}
    (saved,) = shared.paint(studio.make_request(prompt=prompt, model="firefly", **{**small, **fields}))
    return saved.place


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.float64)


def test_the_weights_are_small_safe_and_carry_their_provenance() -> None:
    of_folder(SHIPPED)
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 64e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".jinja"}
    facts = header(SHIPPED / "transformer" / "diffusion_pytorch_model.safetensors")["__metadata__"]
    assert {"recipe_tree", "licence", "seed", "painter_samples", "painter_loss"} <= set(facts)
    assert json.loads((SHIPPED / "model_index.json").read_text())["_class_name"] == "ZImagePipeline"


def test_a_recipe_paints_its_file_again_byte_for_byte(shared: studio.Studio) -> None:
    first = paint(shared, "星夜下的静谧村庄，梵高风格，厚重的笔触")
    data = first.read_bytes()
    first.unlink()
    again = PaintRequest.from_dict(read_recipe(data).request())
    (saved,) = shared.paint(again)
    assert saved.place == first
    assert saved.place.read_bytes() == data


def test_a_loaded_firefly_paints_within_ten_seconds_of_processor_time(shared: studio.Studio) -> None:
    paint(shared, "a lily pond")
    start = time.process_time()
    paint(shared, "a lily pond", seed=8)
    # 5 s on two cores are at most 10 s of processor time, which other work on the machine does not lengthen.
    assert time.process_time() - start < 10


def test_the_prompt_decides_how_bright_a_picture_is(shared: studio.Studio) -> None:
    """In both languages, over two seeds, night is darker than noon, and neither picture is flat."""
    for night, noon in (
        ("夜晚的村庄，星空", "正午的向日葵田，阳光"),
        ("a village at night, stars", "a sunflower field at noon, bright sun"),
    ):
        dark = [pixels(paint(shared, night, style="oil", seed=seed)) for seed in range(2)]
        light = [pixels(paint(shared, noon, style="oil", seed=seed)) for seed in range(2)]
        assert np.mean(dark) + 20 < np.mean(light)
        assert all(picture.std() > 15 for picture in [*dark, *light])


def test_ink_is_far_less_colourful_than_other_styles(shared: studio.Studio) -> None:
    def chroma(style: str) -> float:
        return float(
            np.mean(
                [
                    np.ptp(pixels(paint(shared, "山水，孤舟", style=style, seed=s)), axis=2).mean()
                    for s in (1, 2)
                ]
            )
        )

    assert chroma("ink") < min(chroma("oil"), chroma("cyberpunk")) / 2


def test_seeds_give_different_pictures(shared: studio.Studio) -> None:
    one, two = (pixels(paint(shared, "a boat on the sea", seed=seed)) for seed in (1, 2))
    assert np.abs(one - two).mean() > 5


def test_image_to_image_keeps_the_layout(shared: studio.Studio, tmp_path: Path) -> None:
    start = tmp_path / "half.png"
    canvas = np.full((256, 256, 3), 240, np.uint8)
    canvas[:, :128] = 20
    Image.fromarray(canvas).save(start)
    made = pixels(paint(shared, "山", init_image=str(start), strength=0.4))
    assert made[:, :128].mean() + 60 < made[:, 128:].mean()


def test_other_sizes_are_painted(shared: studio.Studio) -> None:
    assert pixels(paint(shared, "江雪", width=384, height=256, steps=2)).shape == (256, 384, 3)


def test_previews_approach_the_picture_and_painting_can_be_cancelled(shared: studio.Studio) -> None:
    seen: list[np.ndarray] = []

    def watch(step: object) -> None:
        preview = step.preview()  # type: ignore[attr-defined]
        seen.append(preview)
        if step.step == 3:  # type: ignore[attr-defined]
            raise Cancelled

    with pytest.raises(Cancelled):
        list(
            shared.paint(
                studio.make_request(prompt="极光", model="firefly", seed=99, width=256, height=256), watch
            )
        )
    assert len(seen) == 4
    assert seen[0].shape == (32, 32, 3)
    assert seen[0].dtype == np.uint8
    finished = pixels(paint(shared, "极光", seed=99))
    small = np.asarray(
        Image.fromarray(finished.astype(np.uint8)).resize((32, 32), Image.Resampling.BOX), np.float64
    )
    errors = [np.abs(picture - small).mean() for picture in seen]
    assert errors[-1] < errors[0], "the last preview is nearer to the finished picture than the first"
    assert errors[-1] < 25


def test_the_shipped_weights_fit_float16_and_rescaling_changes_no_picture() -> None:
    """Nothing limits a feed-forward before a norm, nor the product within it: after the third training run an output had left float16,
    after the seventh a product was at two thirds of its range.
    """
    pipe, texts = model.load(SHIPPED), evaluate.sheet_prompts()[:1]
    assert max(model.peak_activations(pipe, texts).values()) < 65504 / 4
    before = model.paint(pipe, texts).astype(int)
    with torch.no_grad():
        pipe.transformer.layers[0].feed_forward.w2.weight.mul_(2.0**8)
    peaks = model.peak_activations(pipe, texts)
    assert peaks["layers.0.feed_forward"] > 65504
    exponents = model.rescale(pipe, texts)
    whole = 2.0 ** sum(exponents[f"layers.0.feed_forward.{matrix}"] for matrix in ("w3", "w2"))
    assert whole >= peaks["layers.0.feed_forward"] / model.LARGEST_ACTIVATION
    assert max(model.peak_activations(pipe, texts).values()) <= model.LARGEST_ACTIVATION
    assert abs(model.paint(pipe, texts).astype(int) - before).max() <= 1
