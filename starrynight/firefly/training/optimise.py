"""What every training of Firefly shares: processes, optimiser, moving average, checkpoint and the training
loop.

Single-threaded processes share each batch and reduce their gradients once a step. On a busy machine they are
faster than threads, which synchronise at every operation and wait for the slowest each time (measured in
docs/training.md).

Random state is never stored. Every step draws from a generator seeded with (seed, step, rank), so a run that
was killed and resumed draws the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

# Coefficients of Muon's quintic Newton-Schulz iteration (Jordan 2024,
# https://kellerjordan.github.io/posts/muon/): five iterations bring every singular value of the momentum near
# one.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
# Root mean square of a typical AdamW update (Liu 2025, Moonlight, arXiv:2502.16982). Muon's updates are
# scaled to it, so that both optimisers can use learning rates of one size.
UPDATE_RMS = 0.2


def generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The random generator of one training step in one process."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + rank)


@dataclass(frozen=True)
class ProcessGroup:
    """This process's ``rank`` among ``size`` processes. With one process every reduction does nothing."""

    rank: int = 0
    size: int = 1

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, in one reduction."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        pieces = flat.div_(self.size).split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))

    def sum(self, value: Tensor) -> None:
        """Replace ``value`` by its sum over the processes."""
        if self.size > 1:
            torch.distributed.all_reduce(value)


SINGLE_PROCESS = ProcessGroup()


def launch(size: int, job: Callable[..., None], *arguments: Any) -> None:
    """Run ``job(processes, *arguments)`` in ``size`` single-threaded processes and wait for all of them."""
    if size == 1:
        job(SINGLE_PROCESS, *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        # Spawned, not forked: a fork of a process whose other threads hold locks can deadlock.
        torch.multiprocessing.spawn(_worker, (size, f"{folder}/rendezvous", job, arguments), nprocs=size)


def _worker(rank: int, size: int, file: str, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    try:
        job(ProcessGroup(rank, size), *arguments)
        # A process that leaves while another still reduces would break that reduction.
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
    # Without the interpreter's own ending: one of torch's threads that asks for the GIL during it is unwound
    # through C++ and aborts the process ("terminate called without an active exception"), with all work done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def fastest_dtype(seconds: float = 0.3) -> torch.dtype:
    """bfloat16 where this processor multiplies matrices over 1.3 times as fast in it, else float32. Measures
    both.
    """
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(1024, 256, dtype=dtype), torch.ones(256, 768, dtype=dtype)
        a @ b
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            a @ b
            count += 1
        rates.append(count / (time.perf_counter() - start))
    return torch.bfloat16 if rates[1] > 1.3 * rates[0] else torch.float32


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.float32, iterations: int = 5) -> Tensor:
    """Bring each of ``matrices`` [n, rows, columns] near the closest matrix whose singular values are all
    one.

    Muon's Newton-Schulz iteration, computed in ``dtype``; the result need only be near, so bfloat16 is
    enough.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices
    tall = x.size(1) > x.size(2)
    x = x.mT if tall else x
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(iterations):
        gram = x @ x.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Optimiser:
    """Muon for the matrices that ``is_hidden`` selects, AdamW for every other parameter.

    Its updates are those of ``torch.optim.Muon`` with "match_rms_adamw", up to rounding. It differs in four
    ways: matrices of one shape are orthogonalised in one batched product, the processes share that work, a
    convolution's kernel counts as the matrix [out, in x height x width], and ``dtype`` may be float32, for
    processors that are slow at bfloat16. docs/training.md has the measurements.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        is_hidden: Callable[[str, nn.Parameter], bool],
        rate: float,
        hidden_rate: float,
        decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        processes: ProcessGroup = SINGLE_PROCESS,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.processes, self.dtype = processes, dtype
        self.rate, self.hidden_rate, self.decay, self.momentum = rate, hidden_rate, decay, momentum
        self.by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
        self.others: list[nn.Parameter] = []
        for name, parameter in named:
            if parameter.requires_grad and is_hidden(name, parameter):
                shape = (parameter.shape[0], parameter[0].numel())
                self.by_shape.setdefault(shape, []).append(parameter)
            elif parameter.requires_grad:
                self.others.append(parameter)
        self.momenta = {shape: torch.zeros(len(same), *shape) for shape, same in self.by_shape.items()}
        self.adam = torch.optim.AdamW(self.others, lr=rate, betas=betas, weight_decay=0.0, fused=True)

    def step(self, lr_scale: float) -> None:
        """One update at ``lr_scale`` times the learning rates, then clear the gradients. AdamW skips a
        parameter without gradient; Muon's parameters must all have one.
        """
        for group in self.adam.param_groups:
            group["lr"] = self.rate * lr_scale
        self.adam.step()
        for shape, parameters in self.by_shape.items():
            self._muon_step(shape, parameters, self.hidden_rate * lr_scale)
        for parameter in [*self.others, *(p for same in self.by_shape.values() for p in same)]:
            parameter.grad = None

    @torch.no_grad()
    def _muon_step(self, shape: tuple[int, int], parameters: list[nn.Parameter], rate: float) -> None:
        """Muon with Nesterov momentum for all parameters of one shape."""
        gradients = torch.stack([p.grad.reshape(shape) for p in parameters if p.grad is not None])
        momentum = self.momenta[shape]
        momentum.lerp_(gradients, 1 - self.momentum)
        # Each process orthogonalises every size-th matrix; the sum gathers them all.
        share = slice(self.processes.rank, None, self.processes.size)
        update = torch.zeros_like(gradients)
        if len(gradients[share]):
            update[share] = orthogonalise(gradients[share].lerp(momentum[share], self.momentum), self.dtype)
        self.processes.sum(update)
        for parameter, change in zip(parameters, update, strict=True):
            parameter.mul_(1 - rate * self.decay)
            parameter.add_(change.view_as(parameter), alpha=-rate * UPDATE_RMS * max(shape) ** 0.5)

    def tensors(self) -> dict[str, Tensor]:
        """The optimiser's state by name, for a checkpoint."""
        state = {f"muon.{rows}.{columns}": value for (rows, columns), value in self.momenta.items()}
        for index, parameter in enumerate(self.others):
            for key, value in self.adam.state.get(parameter, {}).items():
                state[f"adam.{index}.{key}"] = value
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what ``tensors`` returned. An empty ``state`` leaves the momenta at zero."""
        if not state:
            return
        for rows, columns in self.momenta:
            self.momenta[rows, columns].copy_(state[f"muon.{rows}.{columns}"])
        for index, parameter in enumerate(self.others):
            prefix = f"adam.{index}."
            found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
            if found:
                self.adam.state[parameter] = {key: value.clone() for key, value in found.items()}


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights of ``network``. Its decay grows with the number of updates
    up to ``decay``, so that the first weights of a run are forgotten soon.
    """

    @torch.no_grad()
    def lerp(averages: Any, weights: Any, updates: Any) -> None:
        count = int(updates)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (2 + count) / (11 + count)))

    return AveragedModel(network, multi_avg_fn=lerp)


def lr_factor(step: int, warmup: int, until: int, cooldown: int) -> float:
    """The learning rate's factor: a linear ramp of ``warmup`` steps, then one, then linearly to zero in the
    last ``cooldown`` steps before ``until``.
    """
    down = 1.0 if cooldown == 0 else min(1.0, max(0.0, (until - step) / cooldown))
    return min(1.0, (step + 1) / warmup) * down


def write_checkpoint(path: Path, groups: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    """Write groups of tensors, and ``facts`` in the header, to one safetensors file, atomically."""
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
    """The groups of tensors and the facts that ``write_checkpoint`` wrote."""
    from safetensors import safe_open

    groups: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for key in sorted(file.keys()):
            group, name = key.split("/", 1)
            groups.setdefault(group, {})[name] = file.get_tensor(key)
        return groups, json.loads(file.metadata()["facts"])


class TrainingLoop:
    """A network with its optimiser and its average, and the step it has reached. A function of the step
    number gives the loss; the loop knows nothing else of what is trained.
    """

    def __init__(
        self, network: nn.Module, optimiser: Optimiser, decay: float, processes: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.network, self.optimiser, self.processes = network, optimiser, processes
        self.average = moving_average(network, decay)
        # ``begun`` is the step at which the optimiser's momenta were zero: the warm-up counts from there.
        self.step = self.samples = self.begun = 0
        self.history: list[dict[str, float]] = []

    def facts(self) -> dict[str, Any]:
        """What a checkpoint's header holds beside the tensors."""
        return {
            "step": self.step, "samples": self.samples, "begun": self.begun,
            "averaged": int(self.average.n_averaged), "history": self.history,
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the live weights, their average and the optimiser's state."""
        groups: dict[str, dict[str, Tensor]] = {
            "model": dict(self.network.named_parameters()),
            "average": dict(self.average.module.named_parameters()),
            "optimiser": self.optimiser.tensors(),
        }
        write_checkpoint(path, groups, self.facts())

    def restore(self, path: Path) -> None:
        """Resume from a checkpoint. One without an optimiser (from ``begin``) starts a new warm-up."""
        groups, facts = read_checkpoint(path)
        self.network.load_state_dict(groups["model"], strict=False)
        self.average.module.load_state_dict(groups["average"], strict=False)
        self.optimiser.load(groups.get("optimiser", {}))
        self.step = int(facts["step"])
        self.average.n_averaged.fill_(int(facts.get("averaged", self.step)))
        self.begun = int(facts.get("begun", 0)) if "optimiser" in groups else self.step
        self.samples, self.history = int(facts.get("samples", 0)), facts.get("history", [])

    def restart_average(self) -> None:
        """Start the average at the next update's weights: those of another objective would blur it."""
        self.average.n_averaged.zero_()

    def run(
        self,
        loss_at: Callable[[int], Tensor],
        until: int,
        checkpoint: Path,
        batch: int,
        warmup: int,
        cooldown: int,
        minutes: float = 3.0,
        extra: dict[str, float] | None = None,
    ) -> None:
        """Train until step ``until``, ``batch`` samples a step, saving every few ``minutes`` and at the end.

        Every 25 steps the mean loss, the samples per second and ``extra`` are recorded and printed as JSON.
        Raises FloatingPointError when the loss is no longer finite.
        """
        saved = tick = time.time()
        losses: list[float] = []
        while self.step < until:
            loss = loss_at(self.step)
            loss.backward()
            self.processes.average_gradients(self.network.parameters())
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step(lr_factor(self.step - self.begun, warmup, until - self.begun, cooldown))
            self.average.update_parameters(self.network)
            self.step, self.samples = self.step + 1, self.samples + batch
            losses.append(loss.item())
            if self.step % 25 == 0 or self.step == until:
                self._record(losses, batch * len(losses) / (time.time() - tick), extra or {})
                losses, tick = [], time.time()
            if self.processes.rank == 0 and (self.step == until or time.time() - saved > 60 * minutes):
                self.save(checkpoint)
                saved = time.time()

    def _record(self, losses: list[float], speed: float, extra: dict[str, float]) -> None:
        record = {
            "step": self.step, "samples": self.samples, "loss": round(float(np.mean(losses)), 4),
            "per_second": round(speed, 1), **extra,
        }  # fmt: skip
        self.history.append(record)
        if self.processes.rank == 0:
            print(json.dumps(record), flush=True)
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(
                "the loss is no longer finite; lower the rate and resume from the checkpoint"
            )
