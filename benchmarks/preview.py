"""How long after the press of Paint a first preview is seen, and where the time goes: ``python benchmarks/preview.py [--rounds 5]``.

Chromium beside the server on the same cores. Target: 1 s on an idle machine. Prints the median and range of each part, and the load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Visitor, chromium, served

# The times, in ms since 1970, of the press, of the moment from which the page watches the job, and of the first preview that is seen.
PRESSED = """() => {
  window.pressed = window.watched = 0;
  window.EventSource = class extends EventSource { constructor(...values) { super(...values); window.watched ||= Date.now(); } };
  document.addEventListener("click", (event) => { if (event.target.closest(".st-key-paint")) window.pressed ||= Date.now(); }, { capture: true });
}"""
SEEN = """() => {
  const host = [...document.querySelectorAll("*")].find((node) => node.shadowRoot?.querySelector(".easel"));
  const image = (host?.shadowRoot ?? document).querySelector(".easel img.preview.on");
  return window.pressed && location.search.includes("job=") && image?.complete ? [window.pressed, window.watched, Date.now()] : null;
}"""
PARTS = (
    "the press → queued", "queued → begun by the worker", "begun → seen, with the first step", "the press → watched by the page",
    "the press → the first preview",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of the picture; by default the model's own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, served(Path(home)) as address, chromium() as browser:
        os.environ["STARRY_HOME"] = home
        visitor = Visitor(browser, address, locale="en-GB")
        times = [one_round(visitor, n) for n in range(options.rounds + 1)][1:]  # the first loads the model
    print(f"medians of {options.rounds}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| part | median | range |\n|---|---|---|")
    for name, values in zip(PARTS, zip(*times, strict=True), strict=True):
        print(f"| {name} | {statistics.median(values):.2f} s | {min(values):.2f}…{max(values):.2f} |")


def one_round(visitor: Visitor, n: int) -> tuple[float, ...]:
    """Seconds of each of ``PARTS``."""
    page = visitor.go("?lang=en")
    page.locator(".easel .frame").first.wait_for()
    page.get_by_label("What to paint").fill(f"a tower by the sea {n}")
    page.get_by_label("What to paint").blur()
    page.wait_for_timeout(1500)  # the page has read the words
    page.evaluate(PRESSED)
    page.get_by_role("button", name="Paint").first.click()
    pressed, watched, seen = page.wait_for_function(SEEN, polling="raf").json_value()
    job = page.url.split("job=")[1].split("&")[0]
    page.locator("[data-act=again]").wait_for()
    found = page.request.get(f"{visitor.address}/api/jobs/{job}").json()
    queued, begun = (
        datetime.fromisoformat(found[f"{name}_at"]).timestamp() * 1000 for name in ("submitted", "started")
    )
    parts = (queued - pressed, begun - queued, seen - begun, watched - pressed, seen - pressed)
    return tuple(part / 1000 for part in parts)


if __name__ == "__main__":
    main()
