"""How long a visitor waits, in Chromium: ``python benchmarks/web.py [--pictures 5000] [--rounds 5]``.

Targets: first paint of the page in 3 s; a wall of 5,000 pictures usable in 2 s; a picture on the wall 1 s
after its last step; a stop within one step. Prints medians of ``--rounds`` and the machine's load, because
a busy machine is slower.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Visitor, chromium, served

from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest

PROMPTS = ("星夜下的静谧村庄", "江雪，孤舟", "a lighthouse in a storm", "雨夜的霓虹都市", "清晨的睡莲池")
STYLES = ("oil", "monet", "ink", "ukiyoe", "pastel")
LONGEST_FRAME = """async () => {  // the longest time between two frames while scrolling 120 screens
  const wall = document.querySelector('[data-testid=stMain]');
  let longest = 0, last = performance.now();
  for (let at = 0; at < 120; at++) {
    wall.scrollBy(0, 900);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }
  return longest;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--home", type=Path, help="keep the filled gallery here, for the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        os.environ["STARRY_HOME"] = str(home)
        fill(options.pictures)
        with served(home) as address, chromium() as browser:
            visitor = Visitor(browser, address)
            warm_up(visitor)
            table(options.pictures, measure(visitor, Visitor(browser, address), options.rounds))


def fill(pictures: int) -> None:
    """Small pictures of noise, because the wall is timed and not their decoding."""
    draw = np.random.default_rng(0)
    with Gallery() as gallery:
        for n in range(gallery.count(), pictures):
            request = PaintRequest(prompt=f"{PROMPTS[n % 5]} {n}", style=STYLES[n % 5], seed=n)
            pixels = draw.integers(0, 256, (6, 6 + n % 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)
            gallery.add(Picture(pixels, make_recipe(request, verdict=Verdict("hang"))))
            if n % 500 == 0:
                print(f"\rhanging {n} of {pictures} ", end="", file=sys.stderr)


def warm_up(visitor: Visitor) -> None:
    """Paint once, so that loading the model is not timed."""
    page = visitor.go("?lang=en")
    paint(visitor, "warming up", "8")
    page.locator("[data-act=again]").wait_for()


def paint(visitor: Visitor, prompt: str, steps: str) -> None:
    page = visitor.page
    page.get_by_label("What to paint").fill(prompt)
    if steps == "50":
        page.get_by_role("slider", name="Steps").press("End")
    before = page.url
    page.get_by_role("button", name="Paint", exact=False).first.click()
    page.wait_for_function(
        "before => location.href !== before && location.search.includes('job=')", arg=before
    )


def measure(visitor: Visitor, other: Visitor, rounds: int) -> dict[str, tuple[list[float], str, str]]:
    """Quantity → value of each round, unit, target."""
    repeat = lambda act: [act(visitor, other, n) for n in range(rounds)]  # noqa: E731
    return {
        "first paint of the studio": (repeat(first_paint), "s", "3"),
        "the wall is usable": (repeat(wall_usable), "s", "2"),
        "found as one types": (repeat(found), "s", ""),
        "longest pause while scrolling 120 screens": (repeat(scrolled), "ms", ""),
        "on the wall after its last step": (repeat(on_the_wall), "s", "1"),
        "steps taken after Stop": (repeat(stopped), "steps", "1"),
    }


def first_paint(visitor: Visitor, _: Visitor, __: int) -> float:
    start = time.perf_counter()
    visitor.page.goto(f"{visitor.address}/?lang=en")
    visitor.page.get_by_role("button", name="Paint", exact=False).first.wait_for()
    return time.perf_counter() - start


def wall_usable(visitor: Visitor, _: Visitor, __: int) -> float:
    """Seconds from requesting the address to cards that can be clicked."""
    start = time.perf_counter()
    visitor.page.goto(f"{visitor.address}/?room=gallery&lang=en")
    visitor.page.locator(".wall .picture a").nth(8).wait_for()
    return time.perf_counter() - start


def found(visitor: Visitor, _: Visitor, n: int) -> float:
    page = visitor.page
    start = time.perf_counter()
    page.get_by_role("searchbox").fill(f"村庄 {n}")
    page.locator(f".wall[data-ready*='村庄 {n}']").wait_for()
    return time.perf_counter() - start


def scrolled(visitor: Visitor, _: Visitor, __: int) -> float:
    visitor.page.goto(f"{visitor.address}/?room=gallery&lang=en")
    visitor.page.locator(".wall .picture a").nth(8).wait_for()
    return float(visitor.page.evaluate(LONGEST_FRAME))


def on_the_wall(visitor: Visitor, other: Visitor, n: int) -> float:
    """``other`` shows the wall while ``visitor`` paints: seconds from the last step to the new card."""
    wall = other.page
    wall.goto(f"{other.address}/?room=gallery&lang=en")
    wall.locator(".wall .picture a").nth(8).wait_for()
    visitor.page.goto(f"{visitor.address}/?lang=en")
    prompt = f"a tower by the sea {time.time():.0f}{n}"
    paint(visitor, prompt, "8")
    job = visitor.page.url.split("job=")[1].split("&")[0]
    wait_until(
        lambda: (
            get_json(visitor, f"/api/jobs/{job}").get("step") == 8
            or get_json(visitor, f"/api/jobs/{job}")["state"] == "done"
        )
    )
    start = time.perf_counter()
    wall.get_by_text(prompt).first.wait_for()
    return time.perf_counter() - start


def stopped(visitor: Visitor, _: Visitor, n: int) -> float:
    page = visitor.page
    page.goto(f"{visitor.address}/?lang=en")
    paint(visitor, f"to be stopped {n}", "50")
    job = page.url.split("job=")[1].split("&")[0]
    wait_until(lambda: (get_json(visitor, f"/api/jobs/{job}").get("step") or 0) >= 3)
    page.locator("[data-act=cancel]").click()
    wait_until(
        lambda: (
            get_json(visitor, f"/api/jobs/{job}")["cancelling"]
            or get_json(visitor, f"/api/jobs/{job}")["state"] == "cancelled"
        )
    )
    at = last = get_json(visitor, f"/api/jobs/{job}").get("step") or 0
    while (job_state := get_json(visitor, f"/api/jobs/{job}"))["state"] != "cancelled":
        last = max(last, job_state.get("step") or 0)
    return float(last - at)


def get_json(visitor: Visitor, path: str) -> dict:
    return visitor.page.request.get(visitor.address + path).json()


def wait_until(condition: Callable[[], bool], timeout: float = 120) -> None:
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.02)


def table(pictures: int, results: dict[str, tuple[list[float], str, str]]) -> None:
    print(
        f"\r{pictures} pictures; medians of {len(next(iter(results.values()))[0])}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n"
    )
    print("| what | median | range | target |\n|---|---|---|---|")
    for name, (values, unit, target) in results.items():
        digits = 2 if unit == "s" else 0
        low, high = min(values), max(values)
        print(
            f"| {name} | {statistics.median(values):.{digits}f} {unit} | {low:.{digits}f}…{high:.{digits}f} | {target and f'≤ {target} {unit}'} |"
        )


if __name__ == "__main__":
    main()
