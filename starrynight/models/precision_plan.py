"""The precision plan of a model on this machine: joins the model's headers and the device's facts for
``numerics.precision``, which decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from starrynight.models.catalogue import LocalModel, role_of
from starrynight.models.stored import is_quantised, stored_format
from starrynight.models.weights import WeightFile
from starrynight.numerics import packing, precision
from starrynight.numerics.precision import PackedWeights, PrecisionPlan
from starrynight.numerics.timing import BUSY
from starrynight.settings import settings
from starrynight.storage import write_cache


def choose(
    model: LocalModel, device: str | None, asked: str, budget: int | None = None, keep_packed: bool = False
) -> PrecisionPlan:
    """The plan for ``model`` on ``device`` (None: the best back end here), of whose memory the weights may use what ``budget``
    bytes allow (None: all of it). Raises BadRequest as ``precision.choose`` and ``packing.keep_packed``.
    """
    return decide(model, _probed(_kind(device)), asked, budget, keep_packed)


def decide(
    model: LocalModel,
    here: precision.Device,
    asked: str,
    budget: int | None = None,
    keep_packed: bool = False,
) -> PrecisionPlan:
    """The plan for ``model`` on a device of which everything is known. ``budget`` decides only whether weights stay packed,
    which changes no number; with ``keep_packed`` they do wherever they can.

    Folds can be made for any model (``folding``). They are offered where they are asked for, and where float16 is fast and
    bfloat16 does not exist.
    """
    safe = model.float16_safe if asked != "float16-folded" else frozenset()
    wanted = asked == "float16-folded" or (asked == "auto" and here.native == {"float16"})
    profile = precision.ModelProfile(
        family=model.pipeline_class,
        parameters=model.parameters,
        folded=frozenset(model.parameters) - safe if wanted else frozenset(),
        float16_safe=safe,
        float32_vae=model.spec.float32_vae,
        stored=quantised(model),
        packed=_by_role(model, _packed),
    )
    allowed = here if budget is None else replace(here, memory=max(1, budget))
    chosen = packing.keep_packed(allowed, profile, precision.choose(here, profile, asked), keep_packed)
    return _with_fits(chosen, model)


def quantised(model: LocalModel) -> dict[str, str]:
    """Component → the format of its files, where that is a quantised one; all text encoders are one."""
    return _by_role(model, _quantised)


T = TypeVar("T")


def _by_role(model: LocalModel, of: Callable[[list[WeightFile]], T | None]) -> dict[str, T]:
    """What ``of`` says of the files of each component, all text encoders together; None is left out."""
    files: dict[str, list[WeightFile]] = {}
    for name, found in model.files.items():
        files.setdefault(role_of(name), []).extend(found)
    return {name: said for name, found in files.items() if (said := of(found)) is not None}


def _quantised(files: list[WeightFile]) -> str | None:
    return stored_format(files) if is_quantised(files) else None


def _packed(files: list[WeightFile]) -> PackedWeights | None:
    numbers, size = (sum(file.packed[place] for file in files) for place in (0, 1))
    return PackedWeights(numbers, size) if numbers else None


def _with_fits(plan: PrecisionPlan, model: LocalModel) -> PrecisionPlan:
    """The plan, whose reasons tell which components ``starry fit`` stored, and how well."""
    notes = {role(name): file.fitted.message for name, files in model.files.items() for file in files if file.fitted}  # fmt: skip
    fitted = [
        replace(
            choice, reason_en=f"{choice.reason_en}; {notes[choice.component].en}",
            reason_zh=f"{choice.reason_zh}；{notes[choice.component].zh}",
        )
        for choice in plan
        if choice.component in notes
    ]  # fmt: skip
    return plan.replaced(*fitted)


def machine(device: str) -> precision.Device:
    """What is known of a torch device of this machine; of a CPU with measured rates."""
    return _probed(_kind(device))


def stores(device: str) -> frozenset[str]:
    """The 16-bit formats whose results are right on a torch device, fast or not."""
    from starrynight.numerics import device as hardware

    return hardware.probe(_kind(device), measure=False).stores


@cache
def _probed(kind: str | None) -> precision.Device:
    """This machine. A CPU's rates are measured once and stored under STARRY_HOME/cache, because the same request must choose the
    same format every day; rates that other programs disturbed are not stored.
    """
    from starrynight.numerics import device as hardware

    here = hardware.probe(kind, measure=False)
    if here.kind != "cpu":  # on accelerators published facts decide, not rates
        return here
    import torch

    kept = settings().cache / "rates.json"
    measured = (*hardware.MEASURED, precision.INT8)
    key = f"torch {torch.__version__}, {here.name}, {torch.get_num_threads()} threads, {' '.join(measured)}"
    known = _read_rates(kept)
    if key not in known:
        rates, waited = hardware.matmul_rates(hardware.torch_device("cpu"))
        if waited > BUSY:  # serves this process alone: the next one measures again
            return replace(here, rates=rates, waited=waited)
        known[key] = rates
        write_cache(kept, json.dumps(known, indent=1).encode())
    return replace(here, rates=known[key])


def _read_rates(path: Path) -> dict[str, dict[str, float]]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _kind(device: str | None) -> str | None:
    """``precision.Device.kind`` of a torch device: "cuda:1" is "cuda", or "rocm" on an AMD build. Raises UnknownName."""
    if device is None:
        return None
    import torch

    from starrynight.numerics import device as hardware

    kind = hardware.named(device).type
    return "rocm" if kind == "cuda" and torch.version.hip else kind


def role(component: str) -> str:
    """The plan's entry for a component's weights. An autoencoder is stored in its encoder's format."""
    return "vae_encode" if component == "vae" else role_of(component)


def dtype_name(plan: PrecisionPlan, component: str) -> str:
    """The torch dtype's name for a component; without an entry in the plan, that of the denoiser, its first."""
    entries = {choice.component: choice.dtype for choice in plan}
    return entries.get(role(component)) or next(iter(entries.values()))
