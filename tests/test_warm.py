"""`starry paint` with a running service: the same words, files, exit codes and bytes as alone, and nothing lost when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client
from pathlib import Path

import pytest
from hung import picture
from served import STARRY, Server, until

from starrynight import cli
from starrynight.cli import paint as painting
from starrynight.errors import BadFile, BadRequest, BrokenNumbers, Cancelled, OutOfMemory, StarryError
from starrynight.gallery.database import ReadOnlyDatabase
from starrynight.gallery.store import Gallery
from starrynight.jobs import shell, tallies
from starrynight.jobs.leases import Lease
from starrynight.jobs.worker import Worker, WorkerStopped
from starrynight.metadata import read_recipe
from starrynight.painting.results import Step
from starrynight.studio import Studio, make_request

SMALL = ["--size", "128", "--steps", "2", "--seed", "3"]


@pytest.fixture(scope="module")
def loaded() -> Studio:
    """One painter for all tests, because loading the model is the slow part."""
    studio = Studio(lambda picture: Path(), "cpu")
    studio.ready(make_request(prompt="x"))
    return studio


@pytest.fixture
def worker(tmp_path: Path, loaded: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker's desk, served by a thread of this process."""
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STARRY_LANG", "en")
    monkeypatch.chdir(tmp_path)
    with Gallery() as gallery:
        worker = Worker(gallery, None, Lease(gallery.database, "here/best"))
        worker._studio = worker._new_studio()
        worker._studio._painter, worker._studio.device = loaded._painter, "cpu"
        worker.device = "cpu"  # of studios that it makes; the socket is that of the best device
        worker.desk.open()
        closing = threading.Event()

        def serve() -> None:
            while not closing.is_set():
                if visit := worker.desk.take():
                    worker.paint_for(visit)
                worker.desk.arrived.wait(0.05)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield worker
        closing.set()
        thread.join(60)
        worker.desk.close()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr of `starry` in this process."""
    capsys.readouterr()
    try:
        code = cli.run(list(words))
    except StarryError as error:
        code = error.exit_code
        print(f"✗ {error.en}")
    out, err = capsys.readouterr()
    return code, out, err


def visits(worker: Worker) -> float:
    worker.tallies.write(worker.gallery.database)
    return sum(one.value for one in tallies.read(worker.gallery.database) if one.name == tallies.PICTURES)


CASES = {
    "one picture": ["a village, a lighthouse", "-o", "OUT/a.png"],
    "several, as WebP": ["村庄", "-n", "2", "-o", "OUT/a.webp"],
    "from a picture in this folder": ["a lake", "--init-image", "sketch.png", "--strength", "0.6", "-o", "OUT/a.png"],
    "a prompt that is too long": ["stars " * 120, "-o", "OUT/a.png"],
    "a missing picture to start from": ["a lake", "--init-image", "none.png", "-o", "OUT/a.png"],
    "clamps counted": ["a lake", "--clamps", "-o", "OUT/a.png"],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_words_files_and_bytes_are_those_of_a_command_alone(
    worker: Worker,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STARRY_PRODUCER", "ours")  # of the command, whoever started the service
    (tmp_path / "sketch.png").write_bytes(picture(size=128).encode())
    found = []
    for out, more in (("warm", []), ("cold", ["--here"])):
        words = [word.replace("OUT", out) for word in CASES[case]]
        code, printed, told = run(capsys, "paint", *words, *SMALL, "--device", "cpu", *more) if more else run(
            capsys, "paint", *words, *SMALL)  # fmt: skip
        files = {path.name: path.read_bytes() for path in sorted(Path(out).glob("*"))}
        found.append((code, printed.replace(out, "OUT"), told.replace(out, "OUT"), files))
    assert found[0] == found[1]
    assert visits(worker) == len(found[0][3])  # the service painted those of the first command


def test_the_gallery_has_the_picture_once_and_metrics_count_it(
    worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "paint", "灯", *SMALL)
    assert code in (0, None)
    (row,) = worker.gallery.search("灯").rows
    assert str(worker.gallery.path(row)) in out
    assert read_recipe(worker.gallery.read(row)).seed == 3
    run(capsys, "paint", "灯", *SMALL)
    assert worker.gallery.count() == 1
    assert visits(worker) == 2


def test_steps_are_shown_as_they_are_taken(
    worker: Worker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int, int]] = []
    monkeypatch.setattr(
        painting.PaintProgress, "on_step", lambda _, step: shown.append((step.picture, step.step, step.steps))
    )
    run(capsys, "paint", "灯", *SMALL, "-n", "2", "-o", "out")
    assert shown == [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2)]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_another_version_is_said_and_painted_here(
    worker: Worker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lang: str
) -> None:
    monkeypatch.setenv("STARRY_LANG", lang)
    monkeypatch.setattr(worker.desk, "_decline", lambda asked: shell.OTHER_VERSION)
    told = run(capsys, "paint", "灯", *SMALL, "-o", "a.png")[2]
    assert {"en": "another version", "zh": "版本不同"}[lang] in told
    assert Path("a.png").exists()
    assert visits(worker) == 0


def test_a_version_is_code_packages_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = shell.version.__wrapped__()
    assert shell.version.__wrapped__() == ours
    monkeypatch.setenv("STARRY_MODEL_PATHS", "/models")
    assert shell.version.__wrapped__() != ours
    monkeypatch.delenv("STARRY_MODEL_PATHS")
    monkeypatch.setattr("starrynight.__version__", "99")
    assert shell.version.__wrapped__() != ours


def test_what_a_service_that_stops_has_not_painted_is_painted_here(
    worker: Worker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, send = [], shell.Visit.step

    def stop_at_the_second_picture(visit: shell.Visit, step: Step) -> None:
        send(visit, step)
        taken.append(step.picture)
        if step.picture == 1:
            raise WorkerStopped

    monkeypatch.setattr(shell.Visit, "step", stop_at_the_second_picture)
    code, out, told = run(capsys, "paint", "灯", *SMALL, "-n", "3", "-o", "many.png")
    assert code in (0, None)
    assert "has ended; painting goes on here" in told
    assert taken == [0, 0, 1]
    assert [out.count(f"many-{i}.png") for i in (1, 2, 3)] == [1, 1, 1]
    assert [read_recipe(Path(f"many-{i}.png").read_bytes()).seed for i in (1, 2, 3)] == [3, 4, 5]


def test_a_command_that_leaves_cancels_within_a_step(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    request = make_request(prompt="灯", width=128, height=128, steps=50, seed=1)
    found = shell.WarmPainter.find(request, None, False)
    assert found is not None
    taken: list[int] = []

    def leave(step: Step) -> None:
        taken.append(step.step)
        if step.step == 3:
            raise KeyboardInterrupt

    steps: list[int] = []
    send = shell.Visit.step
    monkeypatch.setattr(shell.Visit, "step", lambda visit, step: (steps.append(step.step), send(visit, step)))
    with (
        pytest.raises(KeyboardInterrupt),
        contextlib.closing(found.paint(leave, lambda *_: None)) as outcomes,
    ):
        list(outcomes)
    until(lambda: worker._visit is None)
    assert taken == [0, 1, 2, 3]
    assert max(steps) < 49
    assert visits(worker) == 0


ERRORS = [
    BadRequest("a", "甲"), BadFile("a", "甲"), OutOfMemory("a", "甲"), BrokenNumbers("a", "甲"), Cancelled(),
    ReadOnlyDatabase("a"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_arrive_with_their_exit_code_and_words(error: StarryError) -> None:
    rebuilt = shell._rebuilt(json.loads(json.dumps(shell._payload(error))))
    assert (rebuilt.exit_code, rebuilt.en, rebuilt.zh) == (error.exit_code, error.en, error.zh)
    assert isinstance(error, type(rebuilt))


def test_no_service_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: Worker) -> None:
    request = make_request(prompt="灯")
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "another"))
    assert shell.WarmPainter.find(request, None, False) is None
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    assert shell.WarmPainter.find(request, "cuda:7", False) is None
    folder = shell.address(None).parent
    folder.chmod(0o777)  # somebody else may have put the socket there
    assert shell.WarmPainter.find(request, None, False) is None
    folder.chmod(0o700)
    worker.desk.close()
    assert shell.WarmPainter.find(request, None, False) is None


@pytest.mark.parametrize(
    "sent", [b"", b"{", b"[1]", b'{"version": 1}', b'{"version": 1, "request": 3}', b"\xff"]
)
def test_what_is_no_request_is_let_go_and_the_next_is_painted(
    worker: Worker, capsys: pytest.CaptureFixture[str], sent: bytes
) -> None:
    connection = Client(str(shell.address(None)))
    connection.send_bytes(sent)
    connection.poll(10)
    connection.close()
    run(capsys, "paint", "灯", *SMALL, "-o", "a.png")
    assert visits(worker) == 1


def test_a_long_home_has_its_socket_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / ("x" * 120)))
    place = shell.address(None)
    assert place is not None
    assert len(os.fsencode(place)) <= shell.MAX_PATH
    monkeypatch.setenv("STARRY_HOME", "relative")
    assert shell.address(None) is None


def test_a_worker_that_is_killed_loses_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As processes: the service paints the first picture, is killed in the next, and the command finishes."""
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    place = shell.address(None)  # elsewhere, where the test's own path is long
    assert place is not None
    server = Server(tmp_path / "home", log=tmp_path / "log")
    try:
        until(place.exists)
        environment = {**os.environ, "STARRY_HOME": str(tmp_path / "home"), "STARRY_LANG": "en"}
        words = ["paint", "灯", "--size", "128", "--steps", "100", "-n", "3", "--seed", "1", "-o", "many.png"]
        command = subprocess.Popen(
            [STARRY, *words], cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        until(lambda: (tmp_path / "many-1.png").exists())
        server.kill_worker()
        out, told = command.communicate(timeout=300)
    finally:
        server.close()
    assert command.returncode == 0, told
    assert "has ended; painting goes on here" in told
    assert [out.count(f"many-{i}.png") for i in (1, 2, 3)] == [1, 1, 1]
