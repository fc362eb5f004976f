"""The files that one request passes, from ``Studio.paint`` to the saved file: by the profiler, in the order of first entry.

    python benchmarks/request_path.py

Which of them receive the PaintRequest itself, which run at all, and how often the model is resolved and the request checked.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import starrynight
from starrynight.gallery.files import OutputPath
from starrynight.request import PaintRequest
from starrynight.studio import Studio, make_request

PACKAGE = Path(starrynight.__file__).parent
COUNTED = {
    ("catalogue.py", "resolve"),
    ("catalogue.py", "find"),
    ("checking.py", "check"),
    ("catalogue.py", "LocalModel"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        request = make_request(
            prompt="星夜下的静谧村庄", steps=2, seed=1, precision="bfloat16", width=128, height=128
        )
        studio = Studio(OutputPath(Path(folder) / "picture.png"), "cpu")
        before, files, receiving, calls = [], [], [], Counter[str]()

        def profile(frame: FrameType, event: str, _: Any) -> None:
            path = Path(frame.f_code.co_filename)
            if event != "call" or not path.is_relative_to(PACKAGE) or frame.f_code.co_name == "<module>":
                return
            name = str(path.relative_to(PACKAGE))
            if name not in files:
                files.append(name)
            arguments = list(frame.f_locals.values())
            if name not in receiving and any(isinstance(value, PaintRequest) for value in arguments):
                receiving.append(name)
            if (path.name, frame.f_code.co_name) in COUNTED:
                calls[frame.f_code.co_name] += 1

        sys.setprofile(profile)
        try:
            list(studio.paint(request, lambda step: before.extend(files) if not before else None))
        finally:
            sys.setprofile(None)
    print(f"{len(receiving)} files receive the request: {', '.join(receiving)}")
    print(
        f"{len(before)} files run before the end of the first step, {len(files)} until the file is written:"
    )
    for name in files:
        print(f"  {name}{'' if name in before else '   (after the first step)'}")
    print(", ".join(f"{name} {count}×" for name, count in sorted(calls.items())))


if __name__ == "__main__":
    main()
