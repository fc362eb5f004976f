"""Small pictures with a complete recipe, and child processes that add them to a gallery and may be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest

TESTS = Path(__file__).parent


def picture(
    prompt: str = "星夜下的静谧村庄", seed: int = 1, size: int = 64, format_: str = "bfloat16", **options
) -> Picture:
    """A picture of random pixels from ``seed``, with a complete recipe."""
    request = PaintRequest(prompt=prompt, seed=seed, width=size, height=size, **options)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    plan = {"vae": {"format": "float32"}, "transformer": {"format": format_}}
    return Picture(pixels, make_recipe(request, plan=plan, verdict=Verdict("hang")))


def plain(colour: tuple[int, int, int], prompt: str = "a field of one colour", seed: int = 1) -> Picture:
    """A picture of one colour."""
    recipe = make_recipe(PaintRequest(prompt=prompt, seed=seed))
    return Picture(np.full((64, 64, 3), colour, np.uint8), recipe)


def process(code: str, *words: object, **options) -> subprocess.Popen[str]:
    """Start Python code in another process, which can import ``hung``; ``words`` become its
    ``sys.argv[1:]``."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": TESTS} | options
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], **options)


def finished(child: subprocess.Popen[str], killed: bool = False) -> str:
    """Wait for the process and return its output. Asserts exit code 0, or death by SIGKILL if ``killed``."""
    out, err = child.communicate(timeout=120)
    assert child.returncode == (-signal.SIGKILL if killed else 0), err
    return out
