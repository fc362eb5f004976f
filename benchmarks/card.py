"""Checks on a card that is at hand for minutes: a small model, a full-size layout, and folding it, as lines of JSON.

    python benchmarks/card.py [--seconds 150] [--out card.jsonl] [--device cuda] [--scale tiny] [--only firefly]

It needs no network and no weights but the shipped ones: the full-size Z-Image (6.15 B parameters, its 4.02 B text encoder and
its autoencoder) gets random weights, made on the device. Every step has a limit of its own; one that fails or is late is
written down, and the next begins. ``--scale tiny --device cpu`` tries all of it in a minute on any machine.

"ours" is the painter with its guard, "plain" the same pipeline class of diffusers called directly, on the same weights and
noise. Times are seconds of whole pictures that end on the host. Both take turns; a ratio is the median over pairs.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BEGIN = time.perf_counter()
PROMPT = "星夜下的静谧村庄，梵高风格，厚重的笔触"
STEPS, GUIDANCE, SEED = 8, 2.0, 5
PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
    "numpy",
)

# Feed-forwards are widened by this many bits: the gated product grows, and the next weight takes it back.
WIDEN_BITS = 15

SCALES: dict[str, dict[str, Any]] = {
    "full": {
        "transformer": {},  # the class's own defaults are Z-Image's
        "text_encoder": {"vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
                         "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
        "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16,
                "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4},
        "sides": (256, 512), "side": 1024, "traced": 256, "pairs": 7, "words": 512,
    },
    "tiny": {
        "transformer": {"in_channels": 4, "dim": 32, "n_layers": 4, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2,
                        "cap_feat_dim": 16, "axes_dims": [4, 6, 6], "axes_lens": [256, 32, 32]},
        "text_encoder": {"vocab_size": 8192, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8},
        "vae": {"block_out_channels": (8, 16), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4,
                "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2},
        "sides": (128,), "side": 64, "traced": 64, "pairs": 3, "words": 64,
    },
}  # fmt: skip


class Late(BaseException):
    """A step ran past its limit. No Exception, so that nothing on the way takes it for a fault of the model's."""


class Bench:
    """What the steps share: the device, the budget, the record, and what an earlier step has made."""

    def __init__(self, seconds: float, out: Path | None, device: str | None, scale: str) -> None:
        self.ends, self.scale = BEGIN + seconds, SCALES[scale]
        self.home = Path(tempfile.mkdtemp(prefix="card"))
        os.environ["STARRY_HOME"] = str(self.home)
        self._file = out.open("w", encoding="utf-8") if out else None
        self.device_name = device
        self.parts: dict[str, Any] = {}
        self.made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def write(self, step: str, **facts: Any) -> None:
        line = json.dumps(
            {"step": step, "at": round(time.perf_counter() - BEGIN, 2), **facts}, ensure_ascii=False
        )
        with self._lock:
            print(line, flush=True)
            if self._file:
                self._file.write(line + "\n")
                self._file.flush()
                os.fsync(self._file.fileno())

    @property
    def left(self) -> float:
        return self.ends - time.perf_counter()

    @property
    def device(self) -> Any:
        import torch

        return torch.device(self.device_name or ("cuda" if torch.cuda.is_available() else "cpu"))

    def wait(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        self.wait()
        begin = time.perf_counter()
        result = work()
        self.wait()
        return time.perf_counter() - begin, result

    @contextmanager
    def memory(self, facts: dict[str, Any]) -> Iterator[None]:
        """Puts the peak of allocated and reserved memory into ``facts``, in GB."""
        import torch

        on_card = self.device.type == "cuda"
        if on_card:
            torch.cuda.reset_peak_memory_stats()
        yield
        if on_card:
            facts["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            facts["reserved_gb"] = round(torch.cuda.max_memory_reserved() / 1e9, 2)

    def free(self) -> None:
        import gc

        import torch

        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


# -- measuring -------------------------------------------------------------------------------------------------------


@contextmanager
def stages(bench: Bench, pipeline: Any) -> Iterator[dict[str, list[float]]]:
    """Seconds of each call of text encoder, denoiser and decoder; the device is waited for around each."""
    spent: dict[str, list[float]] = defaultdict(list)

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            seconds, result = bench.timed(lambda: call(*args, **kwargs))
            spent[name].append(round(seconds, 4))
            return result

        return run

    places = (("prompt", pipeline.text_encoder, "forward"), ("denoiser", pipeline.transformer, "forward"),
              ("decoder", pipeline.vae.decoder, "forward"))  # fmt: skip
    for name, owner, attribute in places:
        setattr(owner, attribute, watched(name, getattr(owner, attribute)))
    try:
        yield spent
    finally:
        for _, owner, attribute in places:
            delattr(owner, attribute)


def waits(bench: Bench, paint: Callable[[], Any]) -> dict[str, int]:
    """How often one picture makes the host wait for the device, by the line that did."""
    import torch

    if bench.device.type != "cuda":
        return {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            paint()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))
    return dict(found.most_common(12))


def pairs(bench: Bench, ways: dict[str, Callable[[], Any]], count: int, limit: float) -> dict[str, Any]:
    """Seconds of each way, taking turns in changing order, at most ``count`` rounds or ``limit`` seconds; medians, and the
    median over rounds of each way's ratio to "plain".
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    order, end = random.Random(0), time.perf_counter() + limit
    for number in range(count):
        if number >= 2 and time.perf_counter() > end:
            break
        for name in order.sample(sorted(ways), len(ways)):
            taken[name].append(bench.timed(ways[name])[0])
    plain = taken["plain"]
    ratios = {
        name: round(statistics.median(one / other for one, other in zip(seconds, plain, strict=True)), 4)
        for name, seconds in taken.items()
        if name != "plain"
    }
    medians = {name: round(statistics.median(seconds), 4) for name, seconds in taken.items()}
    return {"rounds": len(plain), "median_s": medians, "ratio_to_plain": ratios,
            "all_s": {name: [round(s, 4) for s in seconds] for name, seconds in taken.items()}}  # fmt: skip


def plain_picture(pipeline: Any, side: int, words: int | None, output: str = "pt") -> Any:
    """One picture of diffusers alone, float32 [3, H, W] on the host."""
    import torch

    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        prompt=PROMPT, width=side, height=side, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(SEED), output_type=output, max_sequence_length=words or 512,
    )  # fmt: skip
    return result.images[0].float().cpu()


def our_picture(painter: Any, request: Any) -> Any:
    """The painter's picture, float32 [3, H, W]; raises what refused it."""
    import torch

    painter.guard.prompts.clear()  # a prompt that was painted before would cost nothing
    (outcome,) = painter.paint(request)
    if hasattr(outcome, "error"):
        raise outcome.error
    return torch.from_numpy(outcome.pixels).permute(2, 0, 1)


def likeness(one: Any, other: Any) -> float | None:
    """PSNR in dB of two pictures; None where one is not finite."""
    from starrynight.numerics.certify import psnr

    found = psnr(((one - other).double() ** 2).mean().item())
    return None if found is None else round(min(found, 999.0), 1)


def staged(bench: Bench, pipeline: Any, paint: Callable[[], Any]) -> dict[str, Any]:
    """One picture's seconds, whole and by stage."""
    with stages(bench, pipeline) as spent:
        seconds, _ = bench.timed(paint)
    whole = sum(sum(values) for values in spent.values())
    return {"seconds": round(seconds, 4), **spent, "between_s": round(seconds - whole, 4)}


# -- the steps: (name, limit as a share of the budget) ----------------------------------------------------------------


def machine(bench: Bench) -> None:
    """What this runs on, and what importing takes."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            facts[name] = importlib.metadata.version(name)
    import_s = {}
    for name in ("torch", "transformers", "diffusers", "starrynight.painting.painter"):
        begin = time.perf_counter()
        __import__(name)
        import_s[name] = round(time.perf_counter() - begin, 2)
    import torch

    if bench.device.type == "cuda":
        facts |= {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        facts["free_gb"] = round(torch.cuda.mem_get_info()[0] / 1e9, 1)
        torch.zeros(1, device="cuda")
    bench.write("machine", **facts, import_s=import_s)


def firefly(bench: Bench) -> None:
    """The shipped model: the first picture, then whole pictures beside plain diffusers, and what makes the host wait."""
    import diffusers
    import torch

    from starrynight.models.catalogue import SHIPPED
    from starrynight.painting.painter import Painter
    from starrynight.request import PaintRequest

    def ask(side: int) -> Any:
        return PaintRequest(prompt=PROMPT, model="firefly", width=side, height=side, steps=STEPS, guidance=GUIDANCE,
                            seed=SEED, precision="bfloat16")  # fmt: skip

    sides = bench.scale["sides"]
    load_s, painter = bench.timed(lambda: Painter.ready(ask(sides[0]), device=str(bench.device)))
    for name in ("first", "second"):
        found = staged(bench, painter.pipeline, lambda: our_picture(painter, ask(sides[0])))
        bench.write(f"firefly {sides[0]}, our {name} picture", **found)
    plain = diffusers.DiffusionPipeline.from_pretrained(SHIPPED, dtype=torch.bfloat16, local_files_only=True)
    plain.to(bench.device)
    words = painter.model.spec.max_tokens
    for name in ("first", "second"):
        found = staged(bench, plain, lambda: plain_picture(plain, sides[0], words))
        bench.write(f"firefly {sides[0]}, plain {name} picture (after ours)", **found)
    for side in sides:
        facts = _firefly_pairs(bench, painter, plain, ask(side), side)
        bench.write(f"firefly {side}, pairs", load_s=round(load_s, 2), **facts)
    bench.write("firefly, waits of one picture", ours=waits(bench, lambda: our_picture(painter, ask(sides[0]))),
                plain=waits(bench, lambda: plain_picture(plain, sides[0], words)))  # fmt: skip


def _firefly_pairs(bench: Bench, painter: Any, plain: Any, request: Any, side: int) -> dict[str, Any]:
    def ours(late: bool) -> Callable[[], Any]:
        def paint() -> Any:
            painter.guard.late = late
            return our_picture(painter, request)

        return paint

    own = bench.device.type == "cuda"  # how its guard reads
    words = painter.model.spec.max_tokens
    ways = {
        "plain": lambda: plain_picture(plain, side, words),
        "ours": ours(own),
        "ours, other guard": ours(not own),
    }
    pictures = {name: way() for name, way in ways.items()}
    found = pairs(bench, ways, 3 * bench.scale["pairs"], 0.045 * (bench.ends - BEGIN))
    painter.guard.late = own
    return {"late": own, **found, "psnr": likeness(pictures["ours"], pictures["plain"]),
            "same_bytes": bool((pictures["ours"] == pictures["ours, other guard"]).all())}  # fmt: skip


def fault(bench: Bench) -> None:
    """A NaN in one layer at the third step of the shipped model: what both guards make of it on this device."""
    from starrynight.painting.painter import Painter
    from starrynight.request import PaintRequest

    request = PaintRequest(prompt=PROMPT, model="firefly", width=128, height=128, steps=STEPS, seed=SEED,
                           precision="bfloat16")  # fmt: skip
    painter = Painter.ready(request, device=str(bench.device))
    layer, found = painter.pipeline.transformer.layers[1].feed_forward, {}

    def break_once(module: Any, args: Any, output: Any) -> Any:
        if painter.guard.step == 2 and (left := found.pop("left", None)):
            found["left"] = left - 1
            return output * float("nan")
        return output

    layer.register_forward_hook(break_once)
    for name, late in (("late", True), ("at once", False)):
        painter.guard.late, found["left"] = late, 1
        seconds, (outcome,) = bench.timed(lambda: list(painter.paint(request)))
        found[name] = outcome
        bench.write(f"fault, guard reads {name}", seconds=round(seconds, 3), outcome=type(outcome).__name__,
                    tried=[attempt.message("en") for attempt in outcome.verdict.attempts])  # fmt: skip
    one, other = found["late"], found["at once"]
    same = one.verdict == other.verdict and bool((one.pixels == other.pixels).all())
    bench.write("fault, both guards", same_verdict_and_bytes=same)


def layout(bench: Bench) -> None:
    """The full-size networks with random weights in bfloat16, made on the device."""
    facts: dict[str, Any] = {}
    with bench.memory(facts):
        seconds, _ = bench.timed(lambda: bench.parts.update(random_networks(bench)))
    facts["parameters"] = {n: sum(p.numel() for p in part.parameters()) for n, part in bench.parts.items()}
    bench.write("layout", seconds=round(seconds, 2), **facts)


def random_networks(bench: Bench) -> dict[str, Any]:
    import torch
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    with init_empty_weights(include_buffers=False):
        found = {
            "transformer": ZImageTransformer2DModel(**bench.scale["transformer"]),
            "text_encoder": Qwen3Model(Qwen3Config(max_position_embeddings=1024, **bench.scale["text_encoder"])),
            "vae": AutoencoderKL(
                **bench.scale["vae"], scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
                use_post_quant_conv=False,
            ),
        }  # fmt: skip
    draw = torch.Generator(bench.device).manual_seed(0)
    for network in found.values():
        for module in network.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = _random(parameter, name, draw)
        network.to(bench.device).eval()
    return found


def _random(parameter: Any, name: str, draw: Any) -> Any:
    """Norms of 1, biases of 0, and weights that keep the size of what they multiply."""
    import torch

    tensor = torch.empty(parameter.shape, dtype=torch.bfloat16, device=draw.device)
    if tensor.dim() > 1:
        tensor.normal_(0, (tensor[0].numel()) ** -0.5, generator=draw)
    else:
        tensor.fill_(0.0 if name == "bias" else 1.0)
    return torch.nn.Parameter(tensor, requires_grad=False)


def shared(network: Any, dtype: Any = None) -> Any:
    """A copy of a network without copies of its weights, so that hooks on one do not act on the other; its parameters in
    ``dtype``, if that is another one.
    """
    import torch

    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    if dtype is not None:
        for tensor in network.parameters():
            if tensor.dtype != dtype:
                memo[id(tensor)] = torch.nn.Parameter(tensor.to(dtype), requires_grad=False)
    return copy.deepcopy(network, memo)


def pipeline_of(parts: dict[str, Any]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline
    from transformers import AutoTokenizer

    from starrynight.models.catalogue import SHIPPED

    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "tokenizer", local_files_only=True)
    return ZImagePipeline(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), tokenizer=tokenizer, **parts)


def our_painter(bench: Bench, precision: str, folds: Any = None, recover: bool = False) -> Any:
    """A painter over the layout's networks in ``precision``. With ``folds`` the networks themselves are folded, since two of
    them would not fit.
    """
    from starrynight.models import load, precision_plan
    from starrynight.painting.painter import Painter

    model = local_model(bench)
    plan = precision_plan.choose(model, str(bench.device), precision)
    spec = load.LoadSpec(plan, folds)
    networks = {
        name: spec.finish(name, shared(part, None if folds and name != "vae" else spec.dtype(name)))
        for name, part in bench.parts.items()
    }
    pipeline = load.joined(pipeline_of(networks), spec)
    return Painter(pipeline, model, plan, bench.device, "resident", recover=recover)


def local_model(bench: Bench) -> Any:
    """The layout as a model of the catalogue; its files do not exist. It decodes in 16 bits, as the plain pipeline does."""
    from starrynight.models.catalogue import LocalModel, ModelSpec

    spec = ModelSpec(name="random Z-Image", en="random Z-Image", zh="随机 Z-Image", path=bench.home, smallest=64,
                     size=bench.scale["side"], steps=STEPS, guidance=GUIDANCE, max_tokens=bench.scale["words"])  # fmt: skip
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in bench.parts.items()}
    return LocalModel(spec, bench.home, None, "ZImagePipeline", {}, {}, sizes, frozenset(), "random")


def request_of(bench: Bench) -> Any:
    from starrynight.request import PaintRequest

    side = bench.scale["side"]
    return PaintRequest(prompt=PROMPT, model="random Z-Image", width=side, height=side, steps=STEPS,
                        guidance=GUIDANCE, seed=SEED)  # fmt: skip


def full_size(bench: Bench) -> None:
    """The layout in bfloat16: plain diffusers first, ours then, and both in turns; memory, and what makes the host wait."""
    side, words = bench.scale["side"], bench.scale["words"]
    plain = pipeline_of({name: shared(part) for name, part in bench.parts.items()})
    painter = our_painter(bench, "bfloat16", recover=True)
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain_picture(plain, side, words),
        "ours": lambda: our_picture(painter, request_of(bench)),
    }
    pipelines = {"plain": plain, "ours": painter.pipeline}
    for name, way in ways.items():
        for number in ("first", "second"):
            found: dict[str, Any] = {}
            with bench.memory(found):
                found |= staged(bench, pipelines[name], way)
            bench.write(f"full size {side}, {name}, {number} picture", **found)
    found = pairs(bench, ways, bench.scale["pairs"], 0.18 * (bench.ends - BEGIN))
    alike = likeness(*(way() for way in ways.values()))
    bench.write(f"full size {side}, pairs", **found, psnr=alike)
    bench.write("full size, waits of one picture", **{name: waits(bench, way) for name, way in ways.items()})


def widened(bench: Bench) -> None:
    """Feed-forwards grown beyond float16: bfloat16 paints as before, plain float16 breaks."""
    import torch

    bench.free()
    for layer in list(bench.parts["transformer"].layers)[1::2]:
        with torch.no_grad():
            layer.feed_forward.w3.weight.mul_(2.0**WIDEN_BITS)
            layer.feed_forward.w2.weight.mul_(2.0**-WIDEN_BITS)
    for precision in ("bfloat16", "float16"):
        facts: dict[str, Any] = {}
        with bench.memory(facts):
            facts |= _one_picture(bench, our_painter(bench, precision), precision)
        bench.free()
        bench.write(f"widened, {precision}", **facts)


def _one_picture(bench: Bench, painter: Any, name: str) -> dict[str, Any]:
    """The second of two pictures; a refusal is a finding."""
    from starrynight.errors import BrokenNumbers

    try:
        our_picture(painter, request_of(bench))
        seconds, picture = bench.timed(lambda: our_picture(painter, request_of(bench)))
    except BrokenNumbers as error:
        return {"finite": False, "refused": error.en}
    bench.made[name] = picture
    return {"finite": bool(picture.isfinite().all()), "seconds": round(seconds, 3)}


def trace(bench: Bench) -> None:
    """The ranges of one small picture in bfloat16, all steps, on the device; beside it the same picture untraced."""
    from starrynight.folding import calibrate
    from starrynight.folding.cache import CalibrationSample
    from starrynight.models import load, precision_plan
    from starrynight.numerics.trace import trace_modules

    model, side = local_model(bench), bench.scale["traced"]
    spec = load.LoadSpec(precision_plan.choose(model, str(bench.device), "bfloat16"))
    networks = {name: spec.finish(name, shared(part, spec.dtype(name))) for name, part in bench.parts.items()}
    pipeline = load.joined(pipeline_of(networks), spec)
    sample = CalibrationSample(calibrate.CALIBRATION[0], side, side, STEPS, GUIDANCE)

    def paint() -> None:
        calibrate.paint(pipeline, model, sample)

    paint()
    plain_s, _ = bench.timed(paint)
    facts: dict[str, Any] = {}
    with bench.memory(facts):
        seconds, found = bench.timed(lambda: trace_modules(load.networks(pipeline), paint))
    bench.made["trace"] = found
    bench.write(
        f"trace {side}",
        untraced_s=round(plain_s, 2),
        seconds=round(seconds, 2),
        sites=len(found.sites),
        **facts,
    )


def solve(bench: Bench) -> None:
    from starrynight.numerics.solve import solve_folds

    seconds, plan = bench.timed(lambda: solve_folds(bench.made["trace"]))
    bench.made["plan"] = plan
    bench.write("solve", seconds=round(seconds, 2), folds=len(plan.parameters), epsilons=len(plan.epsilons),
                islands=list(plan.islands)[:6], island_count=len(plan.islands))  # fmt: skip


def fold(bench: Bench) -> None:
    """Folding the weights on the device, and the folded float16 picture."""
    bench.free()
    facts: dict[str, Any] = {}
    with bench.memory(facts):
        seconds, painter = bench.timed(lambda: our_painter(bench, "float16-folded", bench.made["plan"]))
    bench.write("fold", seconds=round(seconds, 2), **facts)
    facts = {}
    with bench.memory(facts):
        facts |= _one_picture(bench, painter, "folded")
    one, other = bench.made.get("folded"), bench.made.get("bfloat16")
    alike = None if one is None or other is None else likeness(one, other)
    bench.write("folded float16", **facts, psnr_to_bfloat16=alike)


def folded_firefly(bench: Bench) -> None:
    """What a user's first picture in folded float16 takes: calibration, proofs, loading; where they ran, and the certificate."""
    from starrynight.folding import calibrate
    from starrynight.folding.cache import cached_folds
    from starrynight.models import catalogue
    from starrynight.painting.painter import Painter
    from starrynight.request import PaintRequest

    request = PaintRequest(prompt=PROMPT, model="firefly", width=256, height=256, steps=STEPS, seed=SEED,
                           precision="float16-folded")  # fmt: skip
    model = catalogue.resolve("firefly")
    seconds, painter = bench.timed(lambda: Painter.ready(request, device=str(bench.device)))
    folds = cached_folds(model)
    picture = our_picture(painter, request)
    bench.write("folded firefly", ran_on=str(calibrate.device_for(model, bench.device)), ready_s=round(seconds, 2),
                finite=bool(picture.isfinite().all()), certificate=folds.certificate if folds else None)  # fmt: skip


STEPS_OF_BENCH: dict[str, tuple[Callable[[Bench], None], float]] = {
    "machine": (machine, 0.3),
    "firefly": (firefly, 0.3),
    "fault": (fault, 0.15),
    "layout": (layout, 0.2),
    "full_size": (full_size, 0.45),
    "widened": (widened, 0.25),
    "trace": (trace, 0.4),
    "solve": (solve, 0.1),
    "fold": (fold, 0.25),
    "folded_firefly": (folded_firefly, 0.4),
}


def run(bench: Bench, name: str, limit: float) -> bool:
    """One step within ``limit`` seconds; whether it finished. A step that does not is written down."""

    def late(*_: Any) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(limit, 0.1))
    begin = time.perf_counter()
    try:
        STEPS_OF_BENCH[name][0](bench)
    except Late:
        bench.write(f"{name}: late", limit_s=round(limit, 1))
        return False
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        bench.write(f"{name}: failed", error=f"{type(error).__name__}: {error}"[:600],
                    at_line=f"{Path(where.filename).name}:{where.lineno}", trace=traceback.format_exc()[-1500:])  # fmt: skip
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        bench.write(
            f"{name}: over", seconds=round(time.perf_counter() - begin, 2), left_s=round(bench.left, 1)
        )
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--only", nargs="*", choices=STEPS_OF_BENCH)
    given = parser.parse_args()
    bench = Bench(given.seconds, given.out, given.device, given.scale)

    def stop() -> None:  # a call into a library that does not come back holds signals off
        bench.write("stopped: the budget is over")
        os._exit(3)

    guard = threading.Timer(given.seconds + 10, stop)
    guard.daemon = True
    guard.start()
    finished = True
    for name, (_, share) in STEPS_OF_BENCH.items():
        if not given.only or name in given.only:
            finished &= run(bench, name, min(share * given.seconds, bench.left))
    bench.write("end", finished=finished)
    guard.cancel()
    # Without the interpreter's own ending: one of torch's threads that asks for the GIL during it aborts the process
    # ("terminate called without an active exception", seen on a card), with all work done.
    sys.stdout.flush()
    os._exit(0 if finished else 1)


if __name__ == "__main__":
    main()
