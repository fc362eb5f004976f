"""Apply a plan: multiply parameters by powers of two, in memory, in a checkpoint, in a LoRA.

Exact in every format short of its subnormals. Knows names and exponents; why they were chosen is ``solve``'s affair.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from starrynight.errors import BadFile, StorageError, Unfit, reason
from starrynight.numerics.dtypes import SAFETENSORS
from starrynight.numerics.islands import bridge, inside
from starrynight.numerics.modules import Modules, join, named_modules, named_tensors
from starrynight.numerics.solve import FoldPlan

# Where a plan travels in a safetensors header.
HEADER = "starry_fold"


def fold_modules(modules: Modules, plan: FoldPlan, sign: int = 1) -> None:
    """Multiply the parameters, buffers and epsilons of ``modules`` in place by the plan's powers of two.

    ``sign=-1`` takes the folds out again. Raises ``Unfit`` if the plan names a parameter that is not there.
    """
    tensors = {name: tensor for name, tensor, _ in named_tensors(modules)}
    missing = sorted(set(plan.parameters) - set(tensors))
    if missing:
        raise Unfit(
            f"This folding plan belongs to another model: it names {missing[0]}, which is not here.",
            f"该折叠方案属于另一个模型：其中的 {missing[0]} 在此不存在。",
        )
    seen: set[int] = set()
    with torch.no_grad():
        for name, power in plan.parameters.items():
            tensor = tensors[name]
            if id(tensor) not in seen:  # tied parameters are one
                tensor.mul_(2.0 ** (sign * power))
                seen.add(id(tensor))
    fold_epsilons(modules, plan, sign)


def fold_and_cast(module: nn.Module, plan: FoldPlan, dtype: torch.dtype, prefix: str = "") -> None:
    """Fold ``module`` and cast it, tensor by tensor, so that nothing is held twice; islands stay in float32.

    Each tensor is multiplied in float32 and rounded once, whatever it was stored in.
    """
    seen: set[int] = set()
    for name, tensor, _ in named_tensors({prefix: module} if prefix else module):
        if id(tensor) not in seen:  # tied parameters are one
            tensor.data = fold_tensor(name, tensor.data, plan, dtype)
            seen.add(id(tensor))
    fold_epsilons({prefix: module} if prefix else module, plan)
    bridge(module, plan.islands, dtype, prefix)


def fold_epsilons(modules: Modules, plan: FoldPlan, sign: int = 1) -> None:
    """Multiply only the epsilons: what is left to do for weights that were folded in their file."""
    for name, power in plan.epsilons.items():
        path, _, attribute = name.rpartition(".")
        module = _module_at(modules, path)
        setattr(module, attribute, getattr(module, attribute) * 2.0 ** (sign * power))


def compose(*plans: FoldPlan) -> FoldPlan:
    """One plan after another: exponents add up, islands gather. The range is the last plan's."""
    parameters: Counter[str] = Counter()
    epsilons: Counter[str] = Counter()
    configs: Counter[str] = Counter()
    for plan in plans:
        for name, power in plan.parameters.items():
            parameters[name] += power
        for name, power in plan.epsilons.items():
            epsilons[name] += power
        for name, power in plan.configs.items():
            configs[name] += power
    return replace(
        plans[-1],
        parameters={name: power for name, power in sorted(parameters.items()) if power},
        epsilons={name: power for name, power in sorted(epsilons.items()) if power},
        configs={name: power for name, power in sorted(configs.items()) if power},
        islands=tuple(sorted({island for plan in plans for island in plan.islands})),
    )


def only(plan: FoldPlan, component: str) -> FoldPlan:
    """The part of a plan that speaks of one component, names still with its prefix."""
    return replace(
        plan,
        parameters={n: p for n, p in plan.parameters.items() if inside(n, (component,))},
        epsilons={n: p for n, p in plan.epsilons.items() if inside(n, (component,))},
        configs={n: p for n, p in plan.configs.items() if inside(n, (component,))},
        islands=tuple(i for i in plan.islands if inside(i, (component,))),
    )


def _module_at(modules: Modules, path: str) -> nn.Module:
    return next(module for name, module in named_modules(modules) if name == path)


def fold_tensor(name: str, tensor: Tensor, plan: FoldPlan, dtype: torch.dtype | None = None) -> Tensor:
    """One tensor of a checkpoint, folded; ``name`` is as in the plan. Integers are left alone.

    With ``dtype`` it is cast after folding, or to float32 inside an island.
    """
    if not tensor.is_floating_point():
        return tensor
    wanted = dtype or tensor.dtype
    if dtype is not None and inside(name, plan.islands):
        wanted = torch.float32
    return (tensor.float() * 2.0 ** plan.parameters.get(name, 0)).to(wanted)


def fold_rows(tensor: Tensor, powers: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Like ``fold_tensor``, each row by a power of its own. ``powers``: int32 [rows]."""
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
    told: FoldPlan | None = None,
    on_tensor: Callable[[str], None] | None = None,
) -> None:
    """Write ``source`` (one safetensors file) folded to ``target``, plan and certificate in its header.

    ``prefix`` is the component's name in the plan; without ``dtype`` every tensor keeps its own. ``rows``: for a file in
    another layout, the power of each row of each tensor, instead of the plan's; a tensor that is not among them is
    carried through byte for byte. ``told`` is what the header says, if not ``plan``. The target appears whole or not at all; one tensor is held at a time. Raises ``BadFile`` if the source
    cannot be read, ``StorageError`` if the target cannot be written.
    """
    story = {
        "plan": json.loads((told or plan).to_json()),
        "certificate": dict(certificate or {}),
        "torch": torch.__version__,
    }

    def folded(name: str, tensor: Tensor) -> Tensor:
        if rows is None:
            return fold_tensor(join(prefix, name), tensor, plan, dtype)
        return fold_rows(tensor, rows[name], dtype) if name in rows else tensor

    partial = target.with_name(target.name + ".partial")
    try:
        with safe_open(source, framework="pt") as file:
            metadata = {**(file.metadata() or {}), "format": "pt", HEADER: json.dumps(story, sort_keys=True)}
            with partial.open("wb") as out:
                _stream(file, out, metadata, folded, on_tensor or (lambda name: None))
    except SafetensorError as error:
        raise BadFile(
            f"{source.name} is not a readable safetensors file; fetch it again. ({error})",
            f"{source.name} 不是可读的 safetensors 文件；请重新下载。（{error}）",
        ) from error
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        en, zh = reason(error)
        raise StorageError(
            f"{target} could not be written ({en}); free some space or name another place, then run the "
            "command again: it goes on where it stopped.",
            f"无法写入 {target}（{zh}）；请腾出空间或换个位置，再次运行会接着做。",
        ) from error
    partial.replace(target)


def _stream(
    file: Any,
    out: BinaryIO,
    metadata: dict[str, str],
    folded: Callable[[str, Tensor], Tensor],
    on_tensor: Callable[[str], None],
) -> None:
    """The safetensors format by hand, so that one tensor is held at a time: length, JSON header, then the bytes."""
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
    """The plan in a safetensors header; None if the file was not folded."""
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(HEADER)
    return FoldPlan.from_json(json.dumps(json.loads(text)["plan"])) if text else None


def fold_adapter(module: nn.Module, adapter: str, plan: FoldPlan, prefix: str = "") -> None:
    """Scale a LoRA that PEFT has put on ``module`` (named ``prefix`` in the plan) as the layers under it are folded: ΔW
    like W.

    Its first factor is brought to rows no longer than 1, the second takes what that gives up: between the two, a
    folded model's large numbers then stay about as large as they came. Powers of two, so the product is the same.
    """
    for layer, first, second in _factors(module, adapter):
        power = plan.parameters.get(join(prefix, layer) + ".weight", 0)
        longest = first.float().flatten(1).norm(dim=1).max().item()
        given = max(0, math.ceil(math.log2(longest))) if longest > 0 and plan.parameters else 0
        with torch.no_grad():
            first.mul_(2.0**-given)
            second.mul_(2.0 ** (given + power))


def _factors(module: nn.Module, adapter: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(layer, first factor, second factor) of every layer that the adapter lies on."""
    for name, part in module.named_modules():
        first, second = getattr(part, "lora_A", None), getattr(part, "lora_B", None)
        if isinstance(first, nn.ModuleDict) and isinstance(second, nn.ModuleDict) and adapter in first:
            yield name, first[adapter].get_parameter("weight"), second[adapter].get_parameter("weight")
