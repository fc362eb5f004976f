"""How long a second import of pictures that hang already takes: ``python benchmarks/gallery_import.py [1500]``.

Prints the seconds of the first import and of the second, which reads each file, hashes it and decodes nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from starrynight.gallery.store import Gallery


def main(count: int = 1500) -> None:
    noise = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "pictures")
        source.mkdir()
        for n in range(count):
            text = PngInfo()
            text.add_text("parameters", f"sea {n}\nSteps: 8, Seed: {n}, Size: 512x512")
            pixels = noise.integers(0, 256, (512, 512, 3), np.uint8)
            Image.fromarray(pixels).save(source / f"{n:05}.png", pnginfo=text, compress_level=0)
        megabytes = sum(file.stat().st_size for file in source.iterdir()) / 1e6
        print(f"{count} pictures, {megabytes:.0f} MB")
        with Gallery(Path(folder, "gallery")) as gallery:
            for which in ("first", "second"):
                started = time.perf_counter()
                done = gallery.import_pictures(source)
                seconds = time.perf_counter() - started
                print(f"{which} import: {seconds:.1f} s, {done.added} added, {done.already_present} known")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
