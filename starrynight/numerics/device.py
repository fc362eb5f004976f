"""Describe this machine: its back end, its memory, and its measured matrix-product rate in each format.

The resulting ``Device`` is the input of ``precision.choose``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

import torch

from starrynight.errors import BadRequest
from starrynight.numerics.int8 import Int8Weight, multiplies_exactly, quantised_rows
from starrynight.numerics.precision import INT8, Device, parse_device
from starrynight.numerics.timing import best_of
from starrynight.text import excerpt

# A product is timed at the first size that takes this long; smaller ones measure the threads'
# synchronisation.
SECONDS_A_PRODUCT = 0.01
MEASURED = ("float32", "bfloat16", "float16")


def kind() -> str:
    """The best back end torch can use here: cuda, rocm, mps, xpu or cpu."""
    if torch.cuda.is_available():
        return "rocm" if torch.version.hip else "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "xpu" if torch.xpu.is_available() else "cpu"


def torch_device(kind: str) -> torch.device:
    """The torch device of a back end. torch calls ROCm "cuda"."""
    return torch.device("cuda" if kind == "rocm" else kind)


def named(name: str | None) -> torch.device:
    """The device called ``name``, as "cpu" or "cuda:1"; None: the best here.

    Raises UnknownName for what names no device, and BadRequest for one that is not here.
    """
    if name is None:
        return torch_device(kind())
    back_end, number = parse_device(name)
    here = _devices()
    if number >= len(here.get(back_end, ())):
        known = list(dict.fromkeys(one for names in here.values() for one in names))
        raise BadRequest(
            f"There is no {excerpt(name)} on this machine; it has: {', '.join(known)}.",
            f"这台机器上没有 {excerpt(name)}；现有：{'、'.join(known)}。",
        )
    device = torch_device(back_end)
    return torch.device(device.type, number) if ":" in name and back_end != "cpu" else device


def one_of(name: str | None, number: int) -> str | None:
    """The device for painter ``number`` of several: where ``name`` (None: the best here) is a kind that this machine has several
    of, each painter takes one in turn. Raises what ``named`` raises.
    """
    if name is not None and ":" in name:
        return name
    cards = _devices().get(kind() if name is None else parse_device(name)[0], [])
    return cards[number % len(cards)] if len(cards) > 1 else name


def _devices() -> dict[str, list[str]]:
    """The devices of each back end that is here, by name. ROCm's also go by torch's name, "cuda"."""
    counts = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "xpu": torch.xpu.device_count()}
    counts["rocm" if torch.version.hip else "cuda"] = torch.cuda.device_count()
    names = {kind: [f"{kind}:{k}" if n > 1 else kind for k in range(n)] for kind, n in counts.items() if n}
    return names | ({"cuda": names["rocm"]} if "rocm" in names else {})


def add_up_in_float32() -> None:
    """For the whole process: cuBLAS may by default add up partial sums of a float16 product in float16, whose range ends at 65504,
    so that a product overflows on a card whose result fits.
    https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html
    """
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


@contextmanager
def exact_float32() -> Iterator[None]:
    """Without TF32 in convolutions and products, and with the same algorithm every time, so that two runs can be compared."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.deterministic, products.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, products.allow_tf32 = False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, products.allow_tf32 = before


def free_bytes(device: torch.device) -> int | None:
    """Free bytes of an accelerator now; None for a CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "xpu":
        return torch.xpu.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def used_bytes(device: torch.device) -> int | None:
    """Bytes of a card that any program uses now; None for other devices."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def probe(back_end: str | None = None, measure: bool = True) -> Device:
    """Describe this machine through ``back_end``, or its best one.

    Measuring takes under 1.5 s on an idle CPU; with ``measure=False`` the rates are empty.
    """
    back_end = back_end or kind()
    rates, waited = matmul_rates(torch_device(back_end)) if measure else ({}, 0.0)
    return Device(kind=back_end, rates=rates, waited=waited, **_facts(back_end))


class MatmulRates(NamedTuple):
    """``rates``: format name → GFLOP/s of a square matrix product; ``waited``: the share of the time that other programs took,
    and above ``timing.BUSY`` the rates are no facts.
    """

    rates: dict[str, float]
    waited: float


def matmul_rates(device: torch.device) -> MatmulRates:
    """Best of several products in each format, in turn; formats that raise are left out, int8 that is not exact has 0."""
    calls, sizes = {}, {}
    for name in MEASURED:
        with suppress(
            RuntimeError, TypeError
        ):  # the back end lacks the format (mps before macOS 14: bfloat16)
            calls[name], sizes[name] = _large_enough(partial(_square, device, getattr(torch, name)))
    exact = device.type == "cpu" and multiplies_exactly()
    if exact:
        calls[INT8], sizes[INT8] = _large_enough(_int8_square)
    found = best_of(calls)
    rates = {name: 2 * size**3 / found.seconds[name] / 1e9 for name, size in sizes.items()}
    return MatmulRates(rates if exact or device.type != "cpu" else {**rates, INT8: 0.0}, found.waited)


def _large_enough(product: Callable[[int], Callable[[], object]]) -> tuple[Callable[[], object], int]:
    """The product of square matrices of a size that is large enough to time, and the size."""
    size = 128
    while True:
        call = product(size)
        call()  # the first run warms up
        if best_of({"": call}, rounds=2).seconds[""] > SECONDS_A_PRODUCT or size >= 8192:
            return call, size
        size *= 2


def _square(device: torch.device, dtype: torch.dtype, size: int) -> Callable[[], object]:
    operand = torch.ones(size, size, dtype=dtype, device=device)

    def call() -> None:
        operand @ operand
        if device.type != "cpu":
            torch.accelerator.synchronize()

    return call


def _int8_square(size: int) -> Callable[[], object]:
    operand = torch.ones(size, size, dtype=torch.bfloat16)
    weight, rows = Int8Weight.of(operand), quantised_rows(operand)
    return lambda: weight.multiply(*rows, torch.bfloat16)


def _facts(kind: str) -> dict:
    if kind in ("cuda", "rocm"):
        card = torch.cuda.get_device_properties(0)
        arch = getattr(card, "gcnArchName", "").split(":")[0] if kind == "rocm" else ""
        return {
            "name": card.name,
            "memory": card.total_memory,
            "arch": arch,
            "capability": (card.major, card.minor),
        }
    if kind == "xpu":
        gpu = torch.xpu.get_device_properties(0)
        return {"name": gpu.name, "memory": gpu.total_memory}
    if kind == "mps":
        system = tuple(int(part) for part in platform.mac_ver()[0].split(".") if part.isdigit())
        return {"name": "Apple GPU", "memory": torch.mps.recommended_max_memory(), "system": system}
    return {"name": _processor(), "memory": _memory()}


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, AttributeError, OSError):  # Windows has no sysconf; 0 means unknown
        return 0


def _processor() -> str:
    """The processor's architecture and the vector instructions that torch uses, e.g. "x86_64 (AVX512)"."""
    return f"{platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"
