"""Pictures painted as one batch: as each alone to within rounding, and every job with its own steps, cancelling and errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from starrynight.errors import StorageError
from starrynight.gallery.store import Gallery
from starrynight.jobs import together
from starrynight.jobs.job import CANCELLED, DONE, FAILED, WAITING
from starrynight.jobs.leases import Lease
from starrynight.jobs.queue import Queue
from starrynight.jobs.worker import Worker
from starrynight.metadata import read_recipe
from starrynight.numerics.rng import Float32Noise, SharedNoise, generator
from starrynight.painting.batching import NEVER, SAMPLES, Paces, shape
from starrynight.painting.results import Step
from starrynight.request import PaintRequest
from starrynight.studio import Studio, make_request


@pytest.fixture(scope="module")
def studio() -> Studio:
    loaded = Studio(lambda picture: Path(), "cpu")
    loaded.ready(small())
    return loaded


def small(prompt: str = "星夜", **more: Any) -> PaintRequest:
    return make_request(prompt=prompt, **({"width": 128, "height": 128, "steps": 4, "seed": 3} | more))


ALIKE = [
    small("星夜下的村庄", seed=3),
    small("a lighthouse above the sea, gulls, evening light", seed=9),
    small("雪", seed=2**40),
]


def alone(studio: Studio, request: PaintRequest) -> Any:
    (found,) = studio.paint(request)
    return found.picture


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_picture_of_a_batch_is_as_alone_to_within_the_rounding(studio: Studio, precision: str) -> None:
    """In float32 to the level of eight bits. In 16 bits it is as near to float32 as the picture alone is."""
    requests = [request.replace(precision=precision) for request in ALIKE]
    steps: list[tuple[int, int, int]] = []

    def on_step(place: int, step: Step) -> None:
        steps.append((place, step.picture, step.step))
        preview = step.preview()
        assert preview is not None
        looks[place] = preview

    looks: dict[int, np.ndarray] = {}
    together = studio.paint_together([(request, 0) for request in requests], on_step)
    assert together is not None
    assert steps == [(place, 0, step) for step in range(4) for place in range(3)]
    assert not (looks[0] == looks[1]).all()
    singles = [alone(studio, request) for request in requests]
    exact = [alone(studio, request.replace(precision="float32")) for request in requests]
    for picture, single, reference in zip(together, singles, exact, strict=True):
        assert picture.recipe["batch"] == 3
        assert "batch" not in single.recipe
        assert {key: value for key, value in picture.recipe.items() if key != "batch"} == single.recipe
        if precision == "float32":
            assert np.abs(picture.pixels.astype(int) - single.pixels).max() <= 2
        assert psnr(picture.pixels, reference.pixels) > min(60, psnr(single.pixels, reference.pixels) - 3)


def test_words_that_one_call_would_change_are_declined(studio: Studio) -> None:
    """A negative prompt of one picture alone: the other's would be an empty one, which is not none for every family."""
    pictures = [(small(guidance=3.0, negative_prompt="fog"), 0), (small("雪", guidance=3.0), 0)]
    assert studio.paint_together(pictures, lambda *_: None) is None
    both = [(request.replace(negative_prompt="fog"), index) for request, index in pictures]
    together = studio.paint_together(both, lambda *_: None)
    assert together is not None
    assert psnr(together[1].pixels, alone(studio, both[1][0]).pixels) > 35


def test_noise_that_no_seed_draws_is_refused_in_a_batch() -> None:
    """Some samplers draw at every step, for all pictures at once."""
    with Float32Noise(shared=True):
        first = torch.randn(1, 4, generator=generator(5))
        for draw in (lambda: torch.randn_like(first), lambda: torch.randn(2, 4)):
            with pytest.raises(SharedNoise):
                draw()
    assert (first == torch.randn(1, 4, generator=generator(5))).all()


@pytest.mark.parametrize("fields", [{"verify": True}, {"variation": 0.2, "variation_seed": 1}], ids=str)
def test_requests_that_are_never_batched(fields: dict[str, Any]) -> None:
    assert shape(small()) == shape(small("雪", seed=9, count=3, style="ink"))
    assert shape(small(steps=5)) != shape(small())
    assert shape(small(**fields)) is None


def test_a_batch_is_used_where_it_was_measured_to_be_faster(tmp_path: Path) -> None:
    of, place = shape(small()), tmp_path / "paces.json"
    assert of is not None
    paces = Paces(place, "cpu")
    for seconds in (1.0, 1.2, 5.0):
        assert paces.size(of, 4) == 1
        paces.note(of, 1, seconds)
    for seconds in (0.9, 0.8, 9.0):
        assert paces.size(of, 4) == 4
        paces.note(of, 4, seconds)
    assert paces.size(of, 4) == 4
    again = Paces(place, "cpu")  # kept
    assert again.size(of, 4) == 4
    assert Paces(place, "cuda:0").size(of, 4) == 1  # per device
    for _ in range(SAMPLES):
        again.note(of, 4, 0.96)
    assert again.size(of, 4) == 1
    again.never(of, 2)
    assert again.size(of, 2) == 1
    assert str(int(NEVER)) in place.read_text()
    place.write_text("[broken")
    assert Paces(place, "cpu").size(of, 4) == 1


class Faster(Paces):
    """As if batches had been measured to be faster."""

    def size(self, of: Any, most: int) -> int:
        return most


@pytest.fixture
def worker(tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    with Gallery(tmp_path / "gallery") as gallery:
        lease = Lease(gallery.database, "here/cpu")
        assert lease.acquire()
        made = Worker(gallery, "cpu", lease, batch=3)
        made._paces = Faster(tmp_path / "paces.json", "cpu")
        studio.save, made._studio = made._save_picture, studio
        yield made


def work(worker: Worker) -> None:
    while (job := worker.lease.claim()) is not None:
        worker.paint(job)


def test_jobs_of_one_shape_are_painted_together_and_others_are_not(worker: Worker) -> None:
    queue = Queue(worker.gallery)
    jobs = [queue.submit(request).id for request in (*ALIKE, small(steps=2), small("树", seed=50, count=2))]
    work(worker)
    found = [queue.get(job) for job in jobs]
    assert [job.state for job in found] == [DONE] * 5
    assert [len(job.pictures) for job in found] == [1, 1, 1, 1, 2]
    recipes = [
        read_recipe(worker.gallery.read(worker.gallery.get(one))).raw for job in found for one in job.pictures
    ]
    assert [recipe.get("batch") for recipe in recipes] == [3, 3, 3, None, 2, 2]
    assert [recipe["seed"] for recipe in recipes] == [3, 9, 2**40, 3, 50, 51]
    assert worker.gallery.verify().ok


def test_a_cancelled_job_and_one_that_cannot_be_saved_do_not_end_the_others(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(worker.gallery)
    jobs = [queue.submit(request).id for request in ALIKE]
    add, call = worker.gallery.add, together.Batch._step

    def full(picture: Any, **more: Any) -> Any:
        if picture.seed == 9:
            raise StorageError("The disk is full.", "磁盘已满。")
        return add(picture, **more)

    def cancel_first(self: Any, chunk: Any, place: int, step: Step) -> None:
        if step.step == 1 and place == 0:
            queue.cancel(jobs[0])
        call(self, chunk, place, step)

    monkeypatch.setattr(worker.gallery, "add", full)
    monkeypatch.setattr(together.Batch, "_step", cancel_first)
    work(worker)
    assert [queue.get(job).state for job in jobs] == [CANCELLED, FAILED, DONE]
    assert worker.gallery.count() == 1


def test_a_stopped_worker_puts_a_batch_back(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(worker.gallery)
    jobs = [queue.submit(request).id for request in ALIKE]
    call = together.Batch._step

    def stop(self: Any, chunk: Any, place: int, step: Step) -> None:
        worker.stop.set()
        call(self, chunk, place, step)

    monkeypatch.setattr(together.Batch, "_step", stop)
    claimed = worker.lease.claim()
    assert claimed is not None
    worker.paint(claimed)
    assert [(queue.get(job).state, queue.get(job).deaths) for job in jobs] == [(WAITING, 0)] * 3


def test_numbers_that_break_in_a_batch_are_judged_alone(
    worker: Worker, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture of the batch is NaN: each is painted again alone, where the guard has its fallbacks."""
    queue = Queue(worker.gallery)
    jobs = [queue.submit(request).id for request in ALIKE]
    painter = studio.ready(ALIKE[0])
    decode = painter.pipeline.vae.decode

    def broken(latents: Any, *args: Any, **kwargs: Any) -> Any:
        if len(latents) > 1:
            latents = latents.clone()
            latents[1] = float("nan")
        return decode(latents, *args, **kwargs)

    monkeypatch.setattr(painter.pipeline.vae, "decode", broken)
    work(worker)
    found = [queue.get(job) for job in jobs]
    assert [job.state for job in found] == [DONE] * 3
    recipes = [read_recipe(worker.gallery.read(worker.gallery.get(job.pictures[0]))).raw for job in found]
    assert all("batch" not in recipe for recipe in recipes)
    of = shape(ALIKE[0])
    assert worker._paces is not None
    assert of is not None
    assert Paces(worker._paces.place, "cpu").size(of, 3) == 1
