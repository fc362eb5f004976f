"""Teach a painter to cross in one step of the sampler what it crossed in several: progressive distillation
(Salimans and Ho 2022, arXiv:2202.00512) for one schedule of few steps, with the guidance it is to be used with.

Only the painter's answers at that schedule's sigmas change. Knows nothing of how the teacher learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starrynight.firefly.training.train import Captions, shifted


@dataclass(frozen=True)
class Schedule:
    """The sampler's steps that are to be enough, how each is divided for the teacher, and the guidance ``pos +
    guidance * (pos - neg)`` of ZImagePipeline that it paints with.
    """

    steps: int = 8
    shift: float = 5.0
    guidance: float = 2.0
    substeps: int = 4

    def sigmas(self) -> Tensor:
        """Where each step stands on its way, from 1 to 0: [steps, substeps + 1]."""
        fine = shifted(torch.linspace(1, 0, self.steps * self.substeps + 1), self.shift)
        return fine.unfold(0, self.substeps + 1, self.substeps)

    def choose(self, count: int, draw: torch.Generator) -> Tensor:
        """``count`` of the rows of ``sigmas`` [count, substeps + 1], each as often as it is long: the long ones are where
        one step is furthest from many.
        """
        ways = self.sigmas()
        return ways[torch.multinomial(ways[:, 0] - ways[:, -1], count, replacement=True, generator=draw)]


@dataclass(frozen=True)
class Distillation:
    """The objective for ``Run.train``: the student's one velocity is the mean of those that ``teacher`` travels by, of
    the caption's and of the empty caption's alike, so that guidance of the student is the teacher's.
    """

    teacher: nn.Module
    empty: Tensor
    schedule: Schedule = Schedule()

    @classmethod
    def of(cls, teacher: nn.Module, captions: Captions, schedule: Schedule = Schedule()) -> Distillation:
        """Ready for batches of ``captions``; ``teacher`` is kept from learning."""
        return cls(teacher.eval().requires_grad_(False), torch.from_numpy(captions.empty).long(), schedule)

    def __call__(
        self, student: nn.Module, clean: Tensor, words: tuple[Tensor, Tensor], draw: torch.Generator
    ) -> Tensor:
        """Mean squared distance of both velocities for normalised latents ``clean`` [B, C, H, W]."""
        way = self.schedule.choose(len(clean), draw)
        noise = torch.randn(clean.shape, generator=draw)
        level = way[:, 0].view(-1, 1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        tokens, mask = self.with_empty(*words)
        wanted = self.mean_velocities(noisy, way, tokens, mask)
        answer = student(noisy.repeat(2, 1, 1, 1), (1 - way[:, 0]).repeat(2), tokens, mask)
        return F.mse_loss(answer.float(), wanted)

    def with_empty(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and mask [2B, L]: the captions, then as many empty ones."""
        blank = torch.zeros_like(tokens)
        blank[:, : len(self.empty)] = self.empty
        filled = torch.zeros_like(mask)
        filled[:, : len(self.empty)] = True
        return torch.cat([tokens, blank]), torch.cat([mask, filled])

    @torch.no_grad()
    def mean_velocities(self, noisy: Tensor, way: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """The teacher's velocities [2B, C, H, W] over ``way`` [B, substeps + 1], from ``noisy`` [B, C, H, W] along the
        guided path: each step's by its share of the way.
        """
        total = torch.zeros_like(noisy.repeat(2, 1, 1, 1))
        for start, end in pairwise(way.unbind(1)):
            both = self.teacher(noisy.repeat(2, 1, 1, 1), (1 - start).repeat(2), tokens, mask).float()
            travel = (start - end).view(-1, 1, 1, 1)
            told, untold = both.chunk(2)
            noisy = noisy + travel * (told + self.schedule.guidance * (told - untold))
            total = total + travel.repeat(2, 1, 1, 1) * both
        return total / (way[:, 0] - way[:, -1]).repeat(2).view(-1, 1, 1, 1)
