"""The loop that every training of Firefly shares: a step, the team's meeting, the average, the checkpoint.

Knows nothing of what is trained: a function of the step number gives the loss.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from starrynight.firefly.training.optimise import (
    ALONE,
    EMA,
    Optimiser,
    ProcessGroup,
    lr_factor,
    read_checkpoint,
    write_checkpoint,
)


class Training:
    """A network with its optimiser and its average, and the step it has reached."""

    def __init__(
        self, network: nn.Module, optimiser: Optimiser, decay: float, team: ProcessGroup = ALONE
    ) -> None:
        self.network, self.optimiser, self.team = network, optimiser, team
        self.average = EMA(network, decay)
        # ``begun`` is the step at which the optimiser's momenta were empty: the rate's ramp counts from there.
        self.step = self.samples = self.begun = 0
        self.history: list[dict[str, float]] = []

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says beside its tensors."""
        return {
            "step": self.step, "samples": self.samples, "begun": self.begun, "averaged": self.average.count,
            "history": self.history,
        }  # fmt: skip

    def save(self, path: Path) -> None:
        groups: dict[str, dict[str, Tensor]] = {
            "model": dict(self.network.named_parameters()),
            "average": self.average.weights,
            "optimiser": self.optimiser.tensors(),
        }
        write_checkpoint(path, groups, self.facts())

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; one without momenta (weights from a saved pipeline) starts them anew."""
        groups, facts = read_checkpoint(path)
        self.network.load_state_dict(groups["model"], strict=False)
        self.average.weights = groups["average"]
        self.optimiser.load(groups.get("optimiser", {}))
        self.step = int(facts["step"])
        self.average.count = int(facts.get("averaged", self.step))
        self.begun = int(facts.get("begun", 0)) if "optimiser" in groups else self.step
        self.samples, self.history = int(facts.get("samples", 0)), facts.get("history", [])

    def go(
        self,
        loss_at: Callable[[int], Tensor],
        until: int,
        checkpoint: Path,
        batch: int,
        warmup: int,
        cooldown: int,
        minutes: float = 3.0,
        said: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """Go on until step ``until``, which takes ``batch`` samples a step; saved every few ``minutes``.

        Every 25 steps a line tells the mean loss, the speed and what ``said`` adds.
        """
        saved = tick = time.time()
        losses: list[float] = []
        while self.step < until:
            loss = loss_at(self.step)
            loss.backward()
            self.team.average(self.network.parameters())
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step(lr_factor(self.step - self.begun, warmup, until - self.begun, cooldown))
            self.average.update()
            self.step, self.samples = self.step + 1, self.samples + batch
            losses.append(loss.item())
            if self.step % 25 == 0 or self.step == until:
                self._note(losses, batch * len(losses) / (time.time() - tick), said())
                losses, tick = [], time.time()
            if self.team.rank == 0 and (self.step == until or time.time() - saved > 60 * minutes):
                self.save(checkpoint)
                saved = time.time()

    def _note(self, losses: list[float], speed: float, more: dict[str, float]) -> None:
        record = {
            "step": self.step, "samples": self.samples, "loss": round(float(np.mean(losses)), 4),
            "per_second": round(speed, 1), **more,
        }  # fmt: skip
        self.history.append(record)
        if self.team.rank == 0:
            print(json.dumps(record), flush=True)
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(
                "the loss is no longer finite; lower the rate and go on from the checkpoint"
            )
