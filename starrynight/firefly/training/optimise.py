"""What both trainings share: the optimiser, the moving average, the checkpoint. Knows nothing of what is trained.

A team of single-threaded processes shares each batch and meets once a step. On a machine with other work on it this
outruns threads, which meet at every operation and wait for the slowest each time (measured in docs/training.md).

Randomness is never stored: every step draws from a generator seeded with (seed, step), so a run that was killed and
resumed sees the same numbers as one that was not.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn

# The quintic of Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/): five rounds bring every singular
# value of the momentum near one.
QUINTIC = (3.4445, -4.7750, 2.0315)
# Moonlight (Liu 2025, arXiv:2502.16982): the root mean square of an AdamW update, which lets Muon share its rate.
UPDATE_RMS = 0.2


def generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + rank)


@dataclass(frozen=True)
class ProcessGroup:
    """Which of ``size`` processes this one is. Alone, every meeting is a no-op."""

    rank: int = 0
    size: int = 1

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the team."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        pieces = flat.div_(self.size).split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))

    def sum(self, value: Tensor) -> Tensor:
        if self.size > 1:
            torch.distributed.all_reduce(value)
        return value


ALONE = ProcessGroup()


def launch(size: int, job: Callable[..., None], *arguments: Any) -> None:
    """Run ``job(team, *arguments)`` in ``size`` single-threaded processes and wait for all of them."""
    if size == 1:
        job(ALONE, *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        # Spawned: a fork of a process whose other threads hold locks may never wake.
        torch.multiprocessing.spawn(_member, (size, f"{folder}/meeting", job, arguments), nprocs=size)


def _member(rank: int, size: int, meeting: str, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    try:
        job(ProcessGroup(rank, size), *arguments)
    finally:
        torch.distributed.destroy_process_group()


def bfloat16_pays(seconds: float = 0.3) -> bool:
    """Whether this processor multiplies bfloat16 matrices a good deal faster than float32 ones, by trying both."""
    rates = []
    for kind in (torch.float32, torch.bfloat16):
        a, b = torch.ones(1024, 256, dtype=kind), torch.ones(256, 768, dtype=kind)
        a @ b
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            a @ b
            count += 1
        rates.append(count / (time.perf_counter() - begun))
    return rates[1] > 1.3 * rates[0]


def orthogonal(matrices: Tensor, rounds: int = 5, kind: torch.dtype = torch.float32) -> Tensor:
    """``matrices`` [n, rows, columns], each brought near the closest matrix with singular values of one.

    Computed in ``kind``: the rounds only need to come near, so bfloat16 serves as well.
    """
    a, b, c = QUINTIC
    x = matrices
    tall = x.size(1) > x.size(2)
    x = x.mT if tall else x
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(kind)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Optimiser:
    """Muon for the matrices ``is_hidden`` chooses (convolutions count as matrices), AdamW for everything else."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        is_hidden: Callable[[str, nn.Parameter], bool],
        rate: float,
        hidden_rate: float,
        decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        team: ProcessGroup = ALONE,
        kind: torch.dtype = torch.float32,
    ) -> None:
        self.team, self.kind = team, kind
        self.rate, self.hidden_rate, self.decay, self.momentum = rate, hidden_rate, decay, momentum
        self.shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
        self.others: list[nn.Parameter] = []
        for name, parameter in named:
            if parameter.requires_grad and is_hidden(name, parameter):
                shape = (parameter.shape[0], parameter[0].numel())
                self.shapes.setdefault(shape, []).append(parameter)
            elif parameter.requires_grad:
                self.others.append(parameter)
        self.momenta = {shape: torch.zeros(len(group), *shape) for shape, group in self.shapes.items()}
        self.adam = torch.optim.AdamW(self.others, lr=rate, betas=betas, weight_decay=0.0, fused=True)

    def step(self, scale: float) -> None:
        """One update at ``scale`` times the rates; gradients are cleared. A parameter without gradient stays."""
        for rule in self.adam.param_groups:
            rule["lr"] = self.rate * scale
        self.adam.step()
        for shape, group in self.shapes.items():
            gradients = torch.stack([p.grad.reshape(shape) for p in group if p.grad is not None])
            momentum = self.momenta[shape]
            momentum.lerp_(gradients, 1 - self.momentum)
            mine = slice(self.team.rank, None, self.team.size)
            update = torch.zeros_like(gradients)
            if len(gradients[mine]):
                update[mine] = orthogonal(gradients[mine].lerp(momentum[mine], self.momentum), kind=self.kind)
            self.team.sum(update)
            rate = self.hidden_rate * scale
            with torch.no_grad():
                for parameter, change in zip(group, update, strict=True):
                    parameter.mul_(1 - rate * self.decay)
                    parameter.add_(change.view_as(parameter), alpha=-rate * UPDATE_RMS * max(shape) ** 0.5)
        for parameter in [*self.others, *(p for group in self.shapes.values() for p in group)]:
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        state = {f"muon.{rows}.{columns}": value for (rows, columns), value in self.momenta.items()}
        for index, parameter in enumerate(self.others):
            for key, value in self.adam.state.get(parameter, {}).items():
                state[f"adam.{index}.{key}"] = value
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """What ``tensors`` gave; nothing at all (weights from a saved pipeline) starts the momenta anew."""
        if not state:
            return
        for rows, columns in self.momenta:
            self.momenta[rows, columns].copy_(state[f"muon.{rows}.{columns}"])
        for index, parameter in enumerate(self.others):
            prefix = f"adam.{index}."
            found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
            if found:
                self.adam.state[parameter] = {key: value.clone() for key, value in found.items()}


class EMA:
    """An exponential moving average of a model's weights, young while the run is young so that it is never stale."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.live = dict(model.named_parameters())
        self.weights = {name: value.detach().clone() for name, value in self.live.items()}

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again at the live weights, when what they learn has changed: a stale average would blur it."""
        for name, value in self.live.items():
            self.weights[name].copy_(value)
        self.count = 0

    @torch.no_grad()
    def update(self) -> None:
        self.count += 1
        keep = min(self.decay, (1 + self.count) / (10 + self.count))
        values = list(self.weights.values())
        torch._foreach_lerp_(values, [self.live[name].detach() for name in self.weights], 1 - keep)


def lr_factor(step: int, warmup: int, until: int, cooldown: int) -> float:
    """The rate's factor: a ramp of ``warmup`` steps, then one, then down to nothing in the last ``cooldown``."""
    down = 1.0 if cooldown == 0 else min(1.0, max(0.0, (until - step) / cooldown))
    return min(1.0, (step + 1) / warmup) * down


def write_checkpoint(path: Path, groups: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    """Groups of tensors and JSON ``facts`` in one safetensors file, replaced in one move so a kill leaves the old."""
    from safetensors.torch import save_file

    flat = {
        f"{group}/{name}": value.detach().contiguous()
        for group, part in groups.items()
        for name, value in part.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    save_file(flat, unfinished, metadata={"facts": json.dumps(facts)})
    os.replace(unfinished, path)


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    from safetensors import safe_open

    groups: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for key in sorted(file.keys()):
            group, name = key.split("/", 1)
            groups.setdefault(group, {})[name] = file.get_tensor(key)
        return groups, json.loads(file.metadata()["facts"])
