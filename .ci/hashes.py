"""Write hashes.txt: for every version in constraints.txt the SHA-256 of the file that pip chooses for this platform.

    python .ci/hashes.py            # make hashes

The tested platform is Linux on x86-64 with CPython 3.11. ``make audit`` fetches the files again and lets pip compare
them. torch is left out: its CPU build comes from wherever the machine has one, under the same version.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line]
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder) / "wanted.txt", Path(folder) / "report.json"
        wanted.write_text("\n".join(pin for pin in pins if not pin.startswith("torch==")) + "\n", "utf-8")
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--no-deps",
        ]
        subprocess.run([*command, "--report", str(report), "-r", str(wanted)], check=True)
        found = json.loads(report.read_text("utf-8"))["install"]
    lines = sorted(
        f"{one['metadata']['name']}=={one['metadata']['version']} "
        f"--hash=sha256:{one['download_info']['archive_info']['hashes']['sha256']}"
        for one in found
    )
    (ROOT / "hashes.txt").write_text("\n".join(lines) + "\n", "utf-8")
    print(len(lines), "files")


if __name__ == "__main__":
    main()
