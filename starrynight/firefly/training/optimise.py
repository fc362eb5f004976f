"""What every training of Firefly shares: device, optimiser, moving average, checkpoint and the training loop.

A training has a time budget, not a number of steps: its learning rate is a function of the share of the budget
that is spent, so the same program ends well after five minutes of a GPU or two days of a CPU. The spent time is
in the checkpoint; a run that was killed goes on with what is left.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from starrynight.numerics.device import named
from starrynight.numerics.timing import best_of

# Coefficients of Muon's quintic Newton-Schulz iteration (Jordan 2024,
# https://kellerjordan.github.io/posts/muon/): five iterations bring every singular value of the momentum near
# one.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
# Root mean square of a typical AdamW update (Liu 2025, Moonlight, arXiv:2502.16982). Muon's updates are
# scaled to it, so that both optimisers can use learning rates of one size.
UPDATE_RMS = 0.2


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``; "auto" is the GPU if there is one. Raises UnknownName."""
    return named(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def generator(device: torch.device, seed: int) -> torch.Generator:
    """A random generator on ``device``."""
    return torch.Generator(device).manual_seed(seed)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in ``dtype``: bfloat16 by autocast, or float32 as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU, and where this processor multiplies matrices over 1.3 times as fast in it (measured);
    else float32.
    """
    if device.type != "cpu":
        return torch.bfloat16
    operands = {
        dtype: (torch.ones(1024, 256, dtype=dtype), torch.ones(256, 768, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    # The best of many in turn: other work on the machine slows both alike, and the choice lasts for the whole training.
    calls = {str(dtype): partial(torch.matmul, *pair) for dtype, pair in operands.items()}
    best = best_of(calls, rounds=100).seconds
    return torch.bfloat16 if best["torch.float32"] > 1.3 * best["torch.bfloat16"] else torch.float32


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

    Its updates are those of ``torch.optim.Muon`` with "match_rms_adamw", up to rounding. It differs in three
    ways: matrices of one shape are orthogonalised in one batched product, a convolution's kernel counts as the
    matrix [out, in x height x width], and ``dtype`` may be float32, for processors that are slow at bfloat16.
    docs/training.md has the measurements.
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
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        self.rate, self.hidden_rate, self.decay, self.momentum = rate, hidden_rate, decay, momentum
        self.by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
        self.others: list[nn.Parameter] = []
        for name, parameter in named:
            if parameter.requires_grad and is_hidden(name, parameter):
                shape = (parameter.shape[0], parameter[0].numel())
                self.by_shape.setdefault(shape, []).append(parameter)
            elif parameter.requires_grad:
                self.others.append(parameter)
        self.momenta = {
            shape: torch.zeros(len(same), *shape, device=same[0].device)
            for shape, same in self.by_shape.items()
        }
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
        update = orthogonalise(gradients.lerp(momentum, self.momentum), self.dtype)
        changes = [one.view_as(parameter) for one, parameter in zip(update, parameters, strict=True)]
        weights: list[Tensor] = [*parameters]
        torch._foreach_mul_(weights, 1 - rate * self.decay)
        torch._foreach_add_(weights, changes, alpha=-rate * UPDATE_RMS * max(shape) ** 0.5)

    def reset(self) -> None:
        """Forget the momenta, which may no longer be finite."""
        for momentum in self.momenta.values():
            momentum.zero_()
        self.adam.state.clear()

    def tensors(self) -> dict[str, Tensor]:
        """The optimiser's state by name, for a checkpoint."""
        state = {f"muon.{rows}.{columns}": value for (rows, columns), value in self.momenta.items()}
        for index, parameter in enumerate(self.others):
            for key, value in self.adam.state.get(parameter, {}).items():
                state[f"adam.{index}.{key}"] = value
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what ``tensors`` returned."""
        for rows, columns in self.momenta:
            self.momenta[rows, columns].copy_(state[f"muon.{rows}.{columns}"])
        for index, parameter in enumerate(self.others):
            prefix = f"adam.{index}."
            found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
            if found:
                self.adam.state[parameter] = {
                    key: value.to(parameter.device, copy=True) for key, value in found.items()
                }


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights of ``network``. Its decay grows with the number of updates
    up to ``decay``, so that the first weights of a run are forgotten soon.
    """

    @torch.no_grad()
    def lerp(averages: Any, weights: Any, updates: Any) -> None:
        count = int(updates)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (2 + count) / (11 + count)))

    return AveragedModel(network, multi_avg_fn=lerp)


def lr_factor(step: int, spent: float, warmup: int, cooldown: float) -> float:
    """The learning rate's factor: a linear ramp of ``warmup`` steps, then one, then linearly to zero over the
    last share ``cooldown`` of the budget, of which the share ``spent`` is gone.
    """
    down = 1.0 if cooldown == 0 else min(1.0, max(0.0, (1 - spent) / cooldown))
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


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that ``write_checkpoint`` wrote, without reading its tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["facts"])


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The groups of tensors and the facts that ``write_checkpoint`` wrote."""
    from safetensors import safe_open

    groups: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for key in sorted(file.keys()):
            group, name = key.split("/", 1)
            groups.setdefault(group, {})[name] = file.get_tensor(key)
    return groups, read_facts(path)


# (step, share of the budget that is spent) to the loss and the number of samples it is over.
LossAt = Callable[[int, float], tuple[Tensor, int]]


class TrainingLoop:
    """A network with its optimiser and its average, and how far it has come. A function gives the loss; the
    loop knows nothing else of what is trained.
    """

    # Steps between records. The loss is read there only: reading it waits for the device.
    EVERY = 25
    # Steps between updates of the average: each costs a good part of a small step.
    AVERAGE_EVERY = 4

    def __init__(self, network: nn.Module, optimiser: Optimiser, decay: float) -> None:
        self.network, self.optimiser = network, optimiser
        self.average = moving_average(network, decay)
        self.step = self.samples = 0
        self.spent, self.brake, self.done = 0.0, 1.0, False
        self.history: list[dict[str, float]] = []
        self.good: dict[str, Tensor] = {}

    def facts(self) -> dict[str, Any]:
        """What a checkpoint's header holds beside the tensors."""
        return {
            "step": self.step, "samples": self.samples, "spent": self.spent, "brake": self.brake,
            "done": self.done,
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
        """Resume from a checkpoint."""
        groups, facts = read_checkpoint(path)
        self.network.load_state_dict(groups["model"], strict=False)
        self.average.module.load_state_dict(groups["average"], strict=False)
        self.optimiser.load(groups["optimiser"])
        self.step, self.samples = int(facts["step"]), int(facts["samples"])
        self.spent, self.brake = float(facts["spent"]), float(facts["brake"])
        self.done = bool(facts["done"])
        self.average.n_averaged.fill_(int(facts["averaged"]))
        self.history = facts["history"]

    def restart_average(self) -> None:
        """Start the average at the next update's weights: those of other samples would blur it."""
        self.average.n_averaged.zero_()

    def run(
        self,
        loss_at: LossAt,
        seconds: float,
        checkpoint: Path,
        warmup: int,
        cooldown: float,
        save_every: float = 60.0,
    ) -> None:
        """Train for ``seconds``, beside what earlier runs have spent, saving every ``save_every`` seconds and at
        the end. A training that is done is left as it is.

        Every 25 steps the mean loss and the samples per second are recorded and printed as JSON. A loss that is
        no longer finite brings back the weights of the last record, and halves the learning rates. Raises
        FloatingPointError when there are no finite weights to go back to, or after ten times.
        """
        total, begun = self.spent + seconds, time.perf_counter() - self.spent
        saved = time.perf_counter()
        losses: list[Tensor] = []
        since, samples = time.perf_counter(), 0
        parameters = [one for one in self.network.parameters() if one.requires_grad]
        while not self.done and self.spent < total:
            loss, count = loss_at(self.step, self.spent / total)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            self.optimiser.step(self.brake * lr_factor(self.step, self.spent / total, warmup, cooldown))
            if self.step % self.AVERAGE_EVERY == 0:
                self.average.update_parameters(self.network)
            self.step, self.samples, samples = self.step + 1, self.samples + count, samples + count
            losses.append(loss.detach())
            if len(losses) == self.EVERY:
                self._record(losses, samples / (time.perf_counter() - since))
                losses, since, samples = [], time.perf_counter(), 0
            self.spent = time.perf_counter() - begun
            if time.perf_counter() - saved > save_every:
                self.save(checkpoint)
                saved = time.perf_counter()
        if losses:
            self._record(losses, samples / (time.perf_counter() - since))
        self.done = True
        self.save(checkpoint)

    def _record(self, losses: list[Tensor], speed: float) -> None:
        """Record the mean loss, and keep the weights if it is finite or go back if it is not."""
        mean = torch.stack(losses).float().mean().item()
        record = {
            "step": self.step, "samples": self.samples, "spent": round(self.spent, 1),
            "loss": round(mean, 4), "per_second": round(speed, 1),
        }  # fmt: skip
        print(json.dumps(record), flush=True)
        if math.isfinite(mean):
            self.history.append(record)
            self.good = {name: one.detach().clone() for name, one in self.network.named_parameters()}
            return
        self.brake /= 2
        if not self.good or self.brake < 2**-10:
            raise FloatingPointError("the loss is no longer finite; lower the rate and begin again")
        self.network.load_state_dict(self.good, strict=False)
        self.optimiser.reset()
        self.restart_average()
