"""Apply a plan: multiply parameters by powers of two, in memory, in a checkpoint or in a LoRA.

A power of two changes only a number's exponent, so the result is exact in every format unless it overflows or
becomes subnormal. ``solve`` chooses the powers.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from starrynight.errors import BadFile, StorageError, Unfit, reason
from starrynight.numerics.dtypes import SAFETENSORS
from starrynight.numerics.effective import effective_weights, set_effective_weights
from starrynight.numerics.islands import bridge, inside
from starrynight.numerics.modules import (
    Modules,
    join,
    memory_groups,
    named_modules,
    named_tensors,
    unregistered_tensors,
)
from starrynight.numerics.solve import FoldPlan

# The key of a plan in a safetensors header.
HEADER = "starry_fold"


def fold_modules(modules: Modules, plan: FoldPlan, sign: int = 1) -> None:
    """Multiply the parameters, buffers and epsilons of ``modules`` in place by the plan's powers of two.

    ``sign=-1`` undoes it (to rounding, where a number was added, see ``FoldPlan.offsets``). Raises ``Unfit`` if the plan names a parameter that ``modules`` does not have, or if
    tensors of different powers lie in one piece of memory.
    """
    tensors = {name: tensor for name, tensor, _ in named_tensors(modules)}
    missing = sorted(set(plan.parameters) - set(tensors))
    if missing:
        raise Unfit(
            f"The folding plan does not fit this model: it names {missing[0]}, which the model does not have. "
            "Use the plan that was made for these weights.",
            f"折叠方案与该模型不符：模型中没有 {missing[0]}。请使用为这些权重生成的方案。",
        )
    with torch.no_grad():
        for group, power, number in _folded_groups(modules, plan):
            if number and sign > 0:
                group[0].add_(number)
            _multiply(group, 2.0 ** (sign * power))
            if number and sign < 0:
                group[0].sub_(number)
    fold_epsilons(modules, plan, sign)
    _set_offsets(modules, plan, sign)


def _set_offsets(modules: Modules, plan: FoldPlan, sign: int = 1) -> None:
    """Let the modules know which of their parameters hold a sum, beside those that did before."""
    if plan.offsets:
        before = effective_weights(modules)
        kept = {name: number for name, number in before.items() if sign > 0 or name not in plan.offsets}
        set_effective_weights(modules, {**kept, **(plan.offsets if sign > 0 else {})})


def _folded_groups(modules: Modules, plan: FoldPlan) -> list[tuple[list[Tensor], int, float]]:
    """The tensors that change, by the piece of memory they lie in, with each piece's power and the number added before.

    Raises ``Unfit`` where one piece would need several.
    """
    tensors = [(name, tensor) for name, tensor, _ in named_tensors(modules)]
    groups = []
    for group in memory_groups([*tensors, *unregistered_tensors(modules)]):
        powers = {(plan.parameters.get(name, 0), plan.offsets.get(name, 0.0)) for name, _ in group}
        if len(powers) > 1:
            names = " and ".join(dict.fromkeys(name for name, _ in group))
            raise Unfit(
                f"The folding plan does not fit this model: {names} lie in one piece of memory and would be folded "
                "differently. Clone one of them before folding.",
                f"折叠方案与该模型不符：{names} 共用一块内存，却要以不同倍数折叠。请先复制其中之一（clone）。",
            )
        power, number = powers.pop()
        if power or number:
            groups.append(([tensor for _, tensor in group], power, number))
    return groups


def _multiply(group: list[Tensor], factor: float) -> None:
    """Multiply every number of one piece of memory once, however many tensors show it."""
    regions = {(t.data_ptr(), t.dtype, t.shape, t.stride()): t for t in group}
    first = next(iter(regions.values()))
    whole = all(stride or size < 2 for size, stride in zip(first.shape, first.stride(), strict=True))
    if len(regions) == 1 and whole:
        first.mul_(factor)
        return
    storages = {(t.untyped_storage()._cdata, t.dtype) for t in group}
    if len(storages) > 1:
        raise Unfit(
            "Two parameters of this model show the same memory in different ways, so it cannot be folded. "
            "Clone one of them before folding.",
            "该模型有两个参数以不同方式共用同一块内存，无法折叠。请先复制其中之一（clone）。",
        )
    flat = torch.empty(0, dtype=first.dtype, device=first.device).set_(first.untyped_storage())
    shown = torch.zeros_like(flat, dtype=torch.bool)
    for tensor in regions.values():
        shown.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).fill_(True)
    flat.mul_(torch.where(shown, factor, 1.0))


def fold_and_cast(
    module: nn.Module,
    plan: FoldPlan,
    dtype: torch.dtype,
    prefix: str = "",
    device: torch.device | None = None,
) -> None:
    """Fold ``module`` and cast it to ``dtype``, its islands to float32; on ``device``, where it then is, if one is given.

    Works tensor by tensor, so that only one tensor exists twice. Each is multiplied in float32 and rounded
    once, whatever its stored format. Raises ``Unfit`` like ``fold_modules``.
    """
    _folded_groups({prefix: module} if prefix else module, plan)
    seen: set[int] = set()
    for name, tensor, _ in named_tensors({prefix: module} if prefix else module):
        if id(tensor) not in seen:  # multiply a tied parameter once
            tensor.data = fold_tensor(name, tensor.data.to(device or tensor.device), plan, dtype)
            seen.add(id(tensor))
    fold_epsilons({prefix: module} if prefix else module, plan)
    _set_offsets({prefix: module} if prefix else module, only(plan, prefix) if prefix else plan)
    bridge(module, plan.islands, dtype, prefix)


def fold_epsilons(modules: Modules, plan: FoldPlan, sign: int = 1) -> None:
    """Multiply only the epsilons, for weights that are already folded in their file."""
    known = dict(named_modules(modules))
    for name, power in plan.epsilons.items():
        path, _, attribute = name.rpartition(".")
        module = known[path]
        setattr(module, attribute, getattr(module, attribute) * 2.0 ** (sign * power))


def compose(*plans: FoldPlan) -> FoldPlan:
    """One plan that equals several in sequence: exponents add up, islands and offsets unite, the rest is the last plan's."""

    def total(kind: str) -> dict[str, int]:
        powers: Counter[str] = Counter()
        for plan in plans:
            powers.update(getattr(plan, kind))  # a Counter adds
        return {name: power for name, power in sorted(powers.items()) if power}

    islands = tuple(sorted({island for plan in plans for island in plan.islands}))
    offsets = {name: number for plan in plans for name, number in plan.offsets.items()}
    return replace(plans[-1], parameters=total("parameters"), epsilons=total("epsilons"), configs=total("configs"),
                   islands=islands, offsets=offsets)  # fmt: skip


def only(plan: FoldPlan, component: str) -> FoldPlan:
    """The part of a plan for one component; names keep its prefix."""

    def part(powers: Mapping[str, int]) -> dict[str, int]:
        return {name: power for name, power in powers.items() if inside(name, (component,))}

    offsets = {name: number for name, number in plan.offsets.items() if inside(name, (component,))}
    islands = tuple(island for island in plan.islands if inside(island, (component,)))
    return replace(plan, parameters=part(plan.parameters), epsilons=part(plan.epsilons), configs=part(plan.configs),
                   islands=islands, offsets=offsets)  # fmt: skip


def fold_tensor(name: str, tensor: Tensor, plan: FoldPlan, dtype: torch.dtype | None = None) -> Tensor:
    """One checkpoint tensor, folded; ``name`` is its name in the plan. Integer tensors do not change.

    With ``dtype`` the result is cast to it, or to float32 inside an island.
    """
    if not tensor.is_floating_point():
        return tensor
    wanted = dtype or tensor.dtype
    if dtype is not None and inside(name, plan.islands):
        wanted = torch.float32
    wide = tensor.float() + plan.offsets[name] if name in plan.offsets else tensor.float()
    return (wide * 2.0 ** plan.parameters.get(name, 0)).to(wanted)


def fold_rows(tensor: Tensor, powers: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Like ``fold_tensor``, with a power for each row. ``powers``: int32 [rows]."""
    if not tensor.is_floating_point():
        return tensor
    if not tensor.numel():
        return tensor.to(dtype or tensor.dtype)
    factors = torch.ldexp(torch.ones(len(powers)), powers).reshape(-1, *[1] * (tensor.dim() - 1))
    return (tensor.float() * factors).reshape(tensor.shape).to(dtype or tensor.dtype)


def write_folded(
    source: Path,
    target: Path,
    plan: FoldPlan,
    certificate: Mapping[str, object] | None = None,
    prefix: str = "",
    dtype: torch.dtype | None = torch.float16,
    rows: Mapping[str, Tensor] | None = None,
    header_plan: FoldPlan | None = None,
    on_tensor: Callable[[str], None] | None = None,
) -> None:
    """Write ``source`` (a safetensors file) folded to ``target``, with plan and certificate in its header.

    ``prefix``: the component's name in the plan. ``dtype``: None keeps every tensor's own. ``rows``: for a
    file in another layout, tensor name → power of each row, used instead of the plan; a tensor without an
    entry is copied byte for byte. ``header_plan``: the plan for the header, if it differs from ``plan``.
    ``on_tensor(name)`` is called after each tensor. Raises ``Unfit`` if the certificate says that folding changes the function.

    Holds one tensor in memory at a time; the target appears only when complete. Raises ``Unfit`` for a plan with
    offsets, which a checkpoint cannot carry, ``BadFile`` if the source cannot be read and ``StorageError`` if the
    target cannot be written.
    """
    if stored := [name for name in plan.offsets if inside(name, (prefix,))]:
        raise Unfit(
            f"A checkpoint cannot carry the fold of {stored[0]}, to which its module adds {plan.offsets[stored[0]]:g}; "
            "solve with constraints=CheckpointConstraints(), or fold in memory.",
            f"检查点无法承载 {stored[0]} 的折叠（模块会给它加上 {plan.offsets[stored[0]]:g}）；"
            "请以 constraints=CheckpointConstraints() 求解，或在内存中折叠。",
        )
    _refuse_changed(source.name, certificate or {})
    record = {
        "plan": json.loads((header_plan or plan).to_json()),
        "certificate": dict(certificate or {}),
        "torch": torch.__version__,
    }

    def folded(name: str, tensor: Tensor) -> Tensor:
        if rows is None:
            return fold_tensor(join(prefix, name), tensor, plan, dtype)
        return fold_rows(tensor, rows[name], dtype) if name in rows else tensor

    # Not ``storage.open_atomic``: under a fixed name, a resumed run replaces what a killed one left.
    partial = target.with_name(target.name + ".partial")
    with _errors_of(source, target, partial), safe_open(source, framework="pt") as file:
        metadata = {**(file.metadata() or {}), "format": "pt", HEADER: json.dumps(record, sort_keys=True)}
        with partial.open("wb") as out:
            _stream(file, out, metadata, folded, on_tensor or (lambda name: None))
    partial.replace(target)


@contextmanager
def _errors_of(source: Path, target: Path, partial: Path) -> Iterator[None]:
    """Raises BadFile for a source that cannot be read, StorageError for a target that cannot be written."""
    try:
        yield
    except SafetensorError as error:
        raise BadFile(
            f"{source.name} is not a readable safetensors file; download it again. ({error})",
            f"{source.name} 不是可读的 safetensors 文件；请重新下载。（{error}）",
        ) from error
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        en, zh = reason(error)
        raise StorageError(
            f"{target} could not be written ({en}); free some space or choose another folder, then run the "
            "command again: it continues where it stopped.",
            f"无法写入 {target}（{zh}）；请腾出空间或换一个文件夹，再次运行会从中断处继续。",
        ) from error


def _refuse_changed(name: str, certificate: Mapping[str, Any]) -> None:
    """Of ``certify.Certificate`` or of a pipeline (``folding.cache.Folds``)."""
    changed = certificate.get("changed") or (certificate.get("step") or {}).get("changed")
    if changed:
        raise Unfit(
            f"Folding would change {name}: its float32 differs from {changed} on, so nothing is written. "
            "Use the original in bfloat16 or float32.",
            f"折叠会改变 {name}：float32 自 {changed} 起不同，因此不写出。请以 bfloat16 或 float32 使用原模型。",
        )


def _stream(
    file: Any,
    out: BinaryIO,
    metadata: dict[str, str],
    folded: Callable[[str, Tensor], Tensor],
    on_tensor: Callable[[str], None],
) -> None:
    """Write the safetensors format: header length, JSON header, data.

    The library's ``save_file`` needs all tensors in memory; this holds one at a time.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    place = 0
    for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
        shape = file.get_slice(name).get_shape()
        dtype = folded(name, file.get_tensor(name).reshape(-1)[:0].reshape([0] * max(1, len(shape)))).dtype
        length = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": SAFETENSORS[dtype], "shape": shape, "data_offsets": [place, place + length]}
        place += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(struct.pack("<Q", len(text)) + text)
    for name in file.keys():  # noqa: SIM118
        out.write(folded(name, file.get_tensor(name)).contiguous().reshape(-1).view(torch.uint8).numpy().data)
        on_tensor(name)


def read_plan(path: Path) -> FoldPlan | None:
    """The plan in a safetensors header; None for a file that is not folded."""
    with safe_open(path, framework="pt") as file:
        return parse_plan((file.metadata() or {}).get(HEADER, ""))


def parse_plan(record: str) -> FoldPlan | None:
    """The plan in the text of a header's ``starry_fold`` entry; None for an empty text."""
    return FoldPlan.from_json(json.dumps(json.loads(record)["plan"])) if record else None


def fold_adapter(module: nn.Module, adapter: str, plan: FoldPlan, prefix: str = "") -> None:
    """Fold a PEFT LoRA on ``module`` (named ``prefix`` in the plan): its product B·A is scaled like the
    weight it adds to, DoRA's magnitudes (norms of that weight) too, and a bias of B like the layer's bias.

    A is first scaled to rows of norm at most 1 and B by the inverse, so that the numbers between them are
    about as large as the layer's input. All factors are powers of two, so the product does not change
    otherwise. Raises ``Unfit`` for a bias of B on a layer that has none: the plan tells nothing of its power.
    """
    for name, layer in module.named_modules():
        if not (isinstance(getattr(layer, "lora_A", None), nn.ModuleDict) and adapter in layer.lora_A):
            continue
        first, second, layer_name = layer.lora_A[adapter], layer.lora_B[adapter], join(prefix, name)
        power = plan.parameters.get(f"{layer_name}.weight", 0)
        longest = first.weight.float().flatten(1).norm(dim=1).max().item()
        moved = max(0, math.ceil(math.log2(longest))) if longest > 0 and plan.parameters else 0
        with torch.no_grad():
            first.weight.mul_(2.0**-moved)
            second.weight.mul_(2.0 ** (moved + power))
            if adapter in (getattr(layer, "lora_magnitude_vector", None) or ()):
                layer.lora_magnitude_vector[adapter].weight.mul_(2.0**power)
            if second.bias is not None:
                if plan.parameters and layer.base_layer.bias is None:
                    raise Unfit(
                        f"A LoRA adds a bias to {layer_name}, which has none; a folded model takes no such LoRA. "
                        "Paint with --precision float32 or bfloat16.",
                        f"LoRA 给没有偏置的 {layer_name} 加上偏置；折叠模型不支持。请用 --precision float32 或 bfloat16。",
                    )
                second.bias.mul_(2.0 ** plan.parameters.get(f"{layer_name}.bias", 0))
