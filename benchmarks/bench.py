"""How fast this machine paints, beside plain diffusers and beside what its own matrix products allow; `make bench`.

    python benchmarks/bench.py [--out speed.json] [--only machine attention firefly layout growth parts start memory] [--quick]
    python benchmarks/bench.py --only start --beside ANOTHER_CHECKOUT
    python benchmarks/bench.py --compare before.json after.json

"plain" is the pipeline class of diffusers called directly, on the same weights and noise; "ours" is the painter with its guard,
"int8" the same in `--precision int8`, where the machine multiplies 8-bit integers faster.
Whole pictures take turns in changing order; a ratio is the median over rounds of plain's seconds over ours, so above 1 is faster.
PSNR is against a float32 picture of plain diffusers. The limit of a picture is its multiplications at the rate of this machine's own
products of large matrices, measured in the same run. On a card the same pictures are timed with the device waited for; what only a
card can show is in benchmarks/card.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import card

PROMPT, STEPS, GUIDANCE = card.PROMPT, card.STEPS, card.GUIDANCE
LONG_PROMPT = PROMPT + "，" + "，".join(["月光照着石桥与流水", "远山如黛", "窗里一盏灯"] * 8)

# A Z-Image of 270 M parameters with its full-size autoencoder and a small text encoder.
LAYOUT: dict[str, Any] = {
    "transformer": {"dim": 1280, "n_heads": 10, "n_kv_heads": 10, "n_layers": 12, "n_refiner_layers": 1, "cap_feat_dim": 512,
                    "axes_dims": [32, 48, 48], "axes_lens": [1024, 512, 512]},
    "text_encoder": {"vocab_size": 151936, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8,
                     "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64},
    "vae": card.SCALES["full"]["vae"], "words": 512, "sides": (512,), "side": 512,
}  # fmt: skip
TINY = card.SCALES["tiny"]

# (batch, heads, tokens, width) of self-attention: Firefly and Z-Image at 512², SDXL's first level at 512², SD 1.5's at 512².
SHAPES = ((2, 6, 1056, 64), (2, 30, 1056, 128), (2, 10, 4096, 64), (2, 8, 4096, 40))


class Lines:
    """What was measured: a value by section and name, and how to read it."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def add(self, section: str, name: str, value: float | None, unit: str, note: str = "") -> None:
        line = {
            "section": section,
            "name": name,
            "value": None if value is None else round(value, 4),
            "unit": unit,
            "note": note,
        }
        self.found.append(line)
        print(
            f"{section:10} {name:56} {'–' if value is None else f'{value:10.4g}'} {unit:9} {note}", flush=True
        )

    def value(self, name: str) -> float | None:
        return next((line["value"] for line in self.found if line["name"] == name), None)


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """The least of ``rounds``: what the machine can do, whatever else it does."""
    work()
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def machine(lines: Lines, bench: card.Bench, rounds: int) -> None:
    """Rates of matrix products of 2048² and of copying memory."""
    import torch

    from starrynight.models import precision_plan

    for name in ("bfloat16", "float32"):
        one = torch.randn(2048, 2048, device=bench.device).to(getattr(torch, name))
        taken = seconds(lambda one=one: (one @ one, bench.wait()), 3 * rounds)
        lines.add("machine", f"matrix products, {name}", 2 * 2048**3 / taken / 1e9, "GFLOP/s")
    if bench.device.type == "cpu":
        rate = precision_plan.machine("cpu").rates["int8"]
        lines.add("machine", "matrix products, int8", rate, "GOP/s", "uint8 by int8")
    big = torch.empty(1 << 26, dtype=torch.uint8, device=bench.device)
    taken = seconds(lambda: (big.clone(), bench.wait()), 3 * rounds)
    lines.add("machine", "copying memory", 2 * big.numel() / taken / 1e9, "GB/s", "read and written")


def attention(lines: Lines, bench: card.Bench, rounds: int) -> None:
    """Ours beside torch's fused kernel, in turns, bfloat16."""
    import torch
    import torch.nn.functional as F

    from starrynight.painting.cpu import attended

    if bench.device.type != "cpu":
        return
    for batch, heads, tokens, width in SHAPES:
        tensors = [torch.randn(batch, tokens, heads, width).bfloat16().transpose(1, 2) for _ in range(3)]
        ratios = []
        with torch.no_grad():
            for _ in range(rounds + 1):
                torchs = bench.timed(lambda of=tensors: F.scaled_dot_product_attention(*of))[0]
                ratios.append(torchs / bench.timed(lambda of=tensors: attended(*of))[0])
        flops = 4 * batch * heads * tokens**2 * width
        lines.add("attention", f"{batch} × {heads} heads × {tokens} tokens × {width}", statistics.median(ratios[1:]), "×",
                  f"{flops / 1e9:.1f} GFLOP")  # fmt: skip


def _flops(pipeline: Any, paint: Callable[[], Any]) -> int:
    """Multiplications and additions of one picture. torch counts none in its fused attention on a CPU, so it is done plainly."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        paint()
    return counted.get_total_flops()


def _beside(lines: Lines, bench: card.Bench, section: str, side: int, ways: dict[str, Callable[[], Any]], exact: Any,
            flops: int, rounds: int) -> None:  # fmt: skip
    """Whole pictures in turns. ``ways`` has "plain" and "ours"; others may be there."""
    pictures = {name: way() for name, way in ways.items()}  # the first of each warms up
    found = card.pairs(bench, ways, rounds, 600)
    for name, taken in found["median_s"].items():
        lines.add(section, f"{side}², {name}", taken, "s", f"{found['rounds']} rounds")
        lines.add(section, f"{side}², {name}, PSNR", card.likeness(pictures[name], exact), "dB")
        if name != "plain":
            lines.add(section, f"{side}², {name} beside plain", 1 / found["ratio_to_plain"][name], "×")
    rate = lines.value("matrix products, bfloat16")
    if rate:
        limit = flops / rate / 1e9
        lines.add(section, f"{side}², the limit of its products", limit, "s", f"{flops / 1e12:.2f} TFLOP")
        for name in found["median_s"]:
            lines.add(section, f"{side}², {name}, share of the limit", limit / found["median_s"][name], "")


def firefly(lines: Lines, bench: card.Bench, rounds: int) -> None:
    """The shipped model at 512² and 256²."""
    import diffusers
    import torch

    from starrynight.models.catalogue import SHIPPED
    from starrynight.painting.painter import Painter
    from starrynight.request import PaintRequest

    def plain(dtype: Any) -> Any:
        return diffusers.DiffusionPipeline.from_pretrained(SHIPPED, dtype=dtype, local_files_only=True).to(
            bench.device
        )

    narrow, exact = plain(torch.bfloat16), plain(torch.float32)
    for side in bench.scale["sides"]:
        request = PaintRequest(prompt=PROMPT, model="firefly", width=side, height=side, steps=STEPS, guidance=GUIDANCE,
                               seed=card.SEED, precision="bfloat16")  # fmt: skip
        painter = Painter.ready(request, device=str(bench.device))
        words = painter.model.spec.max_tokens
        ways = {
            "plain": lambda side=side, words=words: card.plain_picture(narrow, side, words),
            "ours": lambda painter=painter, request=request: card.our_picture(painter, request),
        }
        if _int8_pays(bench, painter.denoiser.config.dim):
            eight = Painter.ready(request.replace(precision="int8"), device=str(bench.device))
            ways["int8"] = lambda eight=eight, request=request: card.our_picture(eight, request)
        flops = _flops(narrow, ways["plain"])
        _beside(lines, bench, "firefly", side, ways, card.plain_picture(exact, side, words), flops, rounds)


def layout(lines: Lines, bench: card.Bench, rounds: int) -> None:
    """The 270 M Z-Image with random weights at 512²."""
    import torch

    bench.parts = card.random_networks(bench)
    side, words = bench.scale["side"], bench.scale["words"]
    plain = card.pipeline_of({name: card.shared(part) for name, part in bench.parts.items()})
    painter = card.our_painter(bench, "bfloat16")
    ways = {
        "plain": lambda: card.plain_picture(plain, side, words),
        "ours": lambda: card.our_picture(painter, card.request_of(bench)),
    }
    staged = {"plain": plain, "ours": painter.pipeline}
    if _int8_pays(bench, bench.scale["transformer"]["dim"]):
        eight = card.our_painter(bench, "int8")
        ways["int8"], staged["int8"] = (
            lambda: card.our_picture(eight, card.request_of(bench)),
            eight.pipeline,
        )
    flops = _flops(plain, ways["plain"])
    exact = card.pipeline_of({name: card.shared(part, torch.float32) for name, part in bench.parts.items()})
    reference = card.plain_picture(exact, side, words)
    del exact
    bench.free()
    _beside(lines, bench, "layout", side, ways, reference, flops, max(2, rounds // 2))
    for name, of in staged.items():
        stages = card.staged(bench, of, ways[name])
        for stage in ("prompt", "denoiser", "decoder"):
            lines.add(
                "layout", f"{side}², {name}: {stage}", sum(stages[stage]), "s", f"{len(stages[stage])} calls"
            )
        lines.add("layout", f"{side}², {name}: between", stages["between_s"], "s")


def _int8_pays(bench: card.Bench, width: int) -> bool:
    """Whether this machine multiplies 8-bit integers faster, and layers of ``width`` are wide enough for it."""
    from starrynight.models import precision_plan
    from starrynight.painting.int8 import NARROWEST

    return bench.device.type == "cpu" and width >= NARROWEST and precision_plan.machine("cpu").multiplies_int8


def growth(lines: Lines, bench: card.Bench, rounds: int) -> None:
    """Our Firefly by size, steps, length of the prompt, and picture in a row."""
    from starrynight.painting.painter import Painter
    from starrynight.request import PaintRequest

    small = bench.scale["sides"][-1]
    plain: dict[str, Any] = {"prompt": PROMPT, "model": "firefly", "width": small, "height": small, "steps": STEPS,
                             "guidance": GUIDANCE, "seed": 5, "precision": "bfloat16"}  # fmt: skip
    painter = Painter.ready(PaintRequest(**plain), device=str(bench.device))

    def timed(**changed: Any) -> float:
        request = PaintRequest(**{**plain, **changed})
        return bench.timed(lambda: card.our_picture(painter, request))[0]

    for number in range(1, 6):
        lines.add("growth", f"{small}², picture {number} in a row", timed(seed=number), "s")
    cases = {
        f"{side}²": {"width": side, "height": side}
        for side in (256, 384, 512, 768)
        if small <= side <= 4 * small
    }
    cases |= {f"{small}², {steps} steps": {"steps": steps} for steps in (4, 8, 16)}
    cases |= {
        f"{small}², prompt of {len(words)} characters": {"prompt": words}
        for words in ("星夜", PROMPT, LONG_PROMPT)
    }
    for name, changed in cases.items():
        lines.add(
            "growth", name, statistics.median(timed(**changed) for _ in range(max(2, rounds // 2))), "s"
        )


IMPORTS = ("torch", "transformers", "diffusers", "starrynight.painting.painter")


def parts(lines: Lines, bench: card.Bench, rounds: int) -> None:
    """From the shell to the saved picture, by its parts, each in a new process but text, steps and decoding."""
    for name in IMPORTS:
        code = f"import time; a = time.perf_counter(); import {name}; print(time.perf_counter() - a)"
        taken = [
            float(
                subprocess.run(
                    [sys.executable, "-c", code], capture_output=True, text=True, check=True
                ).stdout
            )
            for _ in range(3)
        ]
        lines.add("parts", f"import {name}", statistics.median(taken), "s", "alone in a new process")
    from starrynight.gallery.files import OutputPath
    from starrynight.painting.painter import Painter
    from starrynight.request import PaintRequest
    from starrynight.studio import Studio

    side = bench.scale["sides"][0]
    request = PaintRequest(
        prompt=PROMPT, model="firefly", width=side, height=side, seed=5, precision="bfloat16"
    )
    load, painter = bench.timed(lambda: Painter.ready(request, device=str(bench.device)))
    lines.add("parts", "load Firefly", load, "s")
    card.our_picture(painter, request)
    stages = card.staged(bench, painter.pipeline, lambda: card.our_picture(painter, request))
    for stage in ("prompt", "denoiser", "decoder"):
        lines.add("parts", f"{side}², {stage}", sum(stages[stage]), "s", f"{len(stages[stage])} calls")
    lines.add("parts", f"{side}², between: guard, scheduler, noise", stages["between_s"], "s")
    studio = Studio(OutputPath(bench.home / "pictures"))
    list(studio.paint(request))
    whole = statistics.median(bench.timed(lambda: list(studio.paint(request)))[0] for _ in range(rounds))
    painted = statistics.median(
        bench.timed(lambda: card.our_picture(painter, request))[0] for _ in range(rounds)
    )
    lines.add(
        "parts",
        f"{side}², file, recipe and gallery over painting",
        whole / painted - 1,
        "",
        "a share of the painting",
    )


def start(lines: Lines, bench: card.Bench, rounds: int) -> None:
    """`starry paint --here` of Firefly from the shell to the saved picture, and its imports by package, in this checkout and in
    ``bench.beside``, in turns.
    """
    side = bench.scale["sides"][0]
    places = {"here": Path(__file__).parents[1], **({"beside": bench.beside} if bench.beside else {})}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in places}
    for number in range(rounds + 1):
        for name in sorted(places, reverse=bool(number % 2)):
            wall, cpu, _ = _shell(places[name], bench.home / f"{name}.png", side)
            taken[name] += [(wall, cpu)] if number else []  # the first warms the disk
    for name, found in taken.items():
        wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        lines.add("start", f"{side}², {name}: `starry paint --here`", wall, "s", "wall")
        lines.add("start", f"{side}², {name}: processor time", cpu, "s", "user and system")
    for name, place in places.items():
        spent: Counter[str] = Counter()
        for line in _shell(place, bench.home / f"{name}.png", side, "-X", "importtime")[2].splitlines():
            if line.startswith("import time:") and "self [us]" not in line:
                own, _, module = line.removeprefix("import time:").split("|")
                spent[module.strip().partition(".")[0]] += int(own)
        for package, microseconds in spent.most_common(8):
            lines.add("start", f"{name}: importing {package}", microseconds / 1e6, "s", "its own modules")
    if bench.beside:
        ratios = [one[1] / other[1] for one, other in zip(taken["beside"], taken["here"], strict=True)]
        lines.add("start", "processor time, beside over here", statistics.median(ratios), "×")
        same = len({(bench.home / f"{name}.png").read_bytes() for name in places}) == 1
        lines.add("start", "the same bytes", float(same), "")


def _shell(checkout: Path, out: Path, side: int, *options: str) -> tuple[float, float, str]:
    """Wall seconds and processor seconds of one picture painted by a new process, and what it wrote to stderr."""
    code = "import sys; from starrynight.cli import main; sys.argv[0] = 'starry'; main()"
    words = [
        "paint",
        PROMPT,
        "--here",
        "--overwrite",
        "--size",
        str(side),
        "--seed",
        "5",
        "--precision",
        "bfloat16",
        "-o",
        out,
    ]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *options, "-c", code, *words], check=True, capture_output=True, text=True,
                          cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)})  # fmt: skip
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, sum(after[:2]) - sum(before[:2]), done.stderr


def memory(lines: Lines, bench: card.Bench, rounds: int) -> None:
    """Resident memory while ``bench.pictures`` small pictures of as many prompts are painted and saved in one process."""
    import psutil

    from starrynight.gallery.files import OutputPath
    from starrynight.request import PaintRequest
    from starrynight.studio import Studio

    process, folder = psutil.Process(), bench.home / "many"
    folder.mkdir(exist_ok=True)
    found: list[float] = []
    studio = Studio(OutputPath(folder, bench.pictures))
    for number in range(bench.pictures):
        list(studio.paint(PaintRequest(prompt=f"{PROMPT} {number}", model="firefly", width=256, height=256, steps=2, seed=number,
                                       guidance=GUIDANCE, precision="bfloat16")))  # fmt: skip
        found.append(process.memory_info().rss / 1e6)
    warm = max(2, bench.pictures // 5)  # allocators and caches fill up first
    for number in sorted({warm, bench.pictures // 2, bench.pictures}):
        lines.add("memory", f"resident after {number} pictures", found[number - 1], "MB")
    growth = statistics.median(found[-warm:]) - statistics.median(found[warm : 2 * warm])
    lines.add(
        "memory",
        "growth a picture, last fifth over second fifth",
        growth * 1e3 / (0.6 * bench.pictures),
        "kB",
    )


SECTIONS: dict[str, Callable[[Lines, card.Bench, int], None]] = {
    "machine": machine, "attention": attention, "firefly": firefly, "layout": layout, "growth": growth, "parts": parts,
    "start": start, "memory": memory,
}  # fmt: skip


def compare(before: Path, after: Path) -> None:
    """Both runs' values and their ratio, line by line."""
    old, new = (
        {(line["section"], line["name"]): line for line in json.loads(path.read_text("utf-8"))["lines"]}
        for path in (before, after)
    )
    for place in old.keys() | new.keys():
        one, other = (found.get(place, {}).get("value") for found in (old, new))
        ratio = f"{other / one:.3f}" if one and other else "–"
        print(f"{place[0]:10} {place[1]:56} {one!s:>10} {other!s:>10} {ratio:>8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", choices=SECTIONS)
    parser.add_argument("--device")
    parser.add_argument("--pictures", type=int, default=100, help="for --only memory")
    parser.add_argument("--beside", type=Path, help="another checkout, for --only start")
    parser.add_argument(
        "--quick", action="store_true", help="tiny networks and two rounds: whether everything runs"
    )
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    given = parser.parse_args()
    if given.compare:
        return compare(*given.compare)
    with tempfile.TemporaryDirectory() as home:
        bench, lines, rounds = card.Bench(10**6, None, given.device, "tiny"), Lines(), 2 if given.quick else 7
        bench.home, bench.beside, bench.pictures = (
            Path(home),
            given.beside,
            10 if given.quick else given.pictures,
        )
        os.environ["STARRY_HOME"] = home
        bench.scale = TINY if given.quick else {**LAYOUT, "sides": (512, 256)}
        begin, load = time.time(), os.getloadavg()[0]
        for name, measure in SECTIONS.items():
            if not given.only or name in given.only:
                measure(lines, bench, rounds)
                bench.free()
        import torch

        facts = {"date": time.strftime("%Y-%m-%d", time.gmtime(begin)), "minutes": round((time.time() - begin) / 60, 1),
                 "cores": os.cpu_count(), "load_before": round(load, 2), "python": platform.python_version(),
                 "torch": torch.__version__, "device": str(bench.device), "threads": torch.get_num_threads()}  # fmt: skip
        print(json.dumps(facts))
        if given.out:
            given.out.write_text(
                json.dumps({**facts, "lines": lines.found}, ensure_ascii=False, indent=1) + "\n", "utf-8"
            )
    return None


if __name__ == "__main__":
    main()
