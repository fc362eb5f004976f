"""A model's sensitivities: by how much each layer, rounded alone, changes a picture. JSON under STARRY_HOME/cache.

Two types of a layer are measured; the others are scaled by the error of the weights. A layer's error follows its weights'
error as a power between the two that were measured, and in proportion beyond the finer one, where everything is linear.
GPTQ stores weights whose error shows less; ``scale`` says by how much, from pictures painted with it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from starrynight.errors import MissingFile, Unfit
from starrynight.fitting import programme
from starrynight.fitting.formats import candidates, quantised, uniform
from starrynight.fitting.programme import Option
from starrynight.fitting.write import bytes_of
from starrynight.models.catalogue import LocalModel
from starrynight.models.fitted import GGUF
from starrynight.settings import settings
from starrynight.storage import write_cache

VERSION = 3  # 2: scales told by three pictures in two types
# Tables of the models that ship with the package.
SHIPPED = Path(__file__).parent / "measured"
# The exponent between two measured types stays within these: one is linear, and an error that saturates flattens.
POWERS = (0.5, 2.0)
# dB by which the programme's own choice is predicted too kindly, because it seeks what looks insensitive: up to 1.9 dB for
# fits of 4.2 to 8.5 bits, never for uniform types (docs/fit.md, benchmarks/fit.py).
SOUGHT_DB = 1.9
# A layer counts as at least this share of the median sensitivity. What looks much less sensitive on a few prompts is what the
# programme would spend least on, and on another prompt it need not be so: layers that read the words matter for few prompts and
# then much (docs/fit.md).
LEAST_SHARE = 0.5
# A scale that no whole picture has told yet.
UNSCALED = 1.0


@dataclass
class Sensitivity:
    """``signature``: layer → shape. ``plain``: layer → its type of 16 bits. ``errors``: layer → type → mean square error of
    pictures. ``weights``, ``published``: layer → type → squared error of the weights relative to their squares, columns weighted
    by their inputs, rounded to the nearest and as others store them. ``scale``, ``published_scale``: from what was measured to
    pictures as they are judged, of weights as the fit and as others store them. ``how``: "paintings" or "velocity".
    ``judged``: assignment and picture (``assignment_key``) → the picture's mean square error.
    """

    model: str
    fingerprint: str
    how: str
    signature: dict[str, list[int]]
    plain: dict[str, str]
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    scale: float = UNSCALED
    published_scale: float = UNSCALED
    judged: dict[str, float] = field(default_factory=dict)
    version: int = VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Sensitivity:
        """What ``to_json`` gave. Raises ValueError, KeyError or TypeError for anything else."""
        found = cls(**json.loads(text))
        if found.version != VERSION or not isinstance(found.signature, dict):
            raise ValueError("version")
        return found

    def error(self, layer: str, kind: str, by_others: bool = False, least: float | None = None) -> float:
        """The mean square error that a layer in a type adds to a picture, by itself; ``by_others``: stored as others do.
        ``least``: as ``least`` gives it, for who asks often.
        """
        least = self.least() if least is None else least
        if by_others:
            return self.published_scale * self.measured(layer, self.published[layer][kind], least)
        return self.scale * self.measured(layer, self.weights[layer][kind], least)

    def least(self) -> float:
        """The error of what was measured that an error of any layer's weights counts for, per error of the weights."""
        each = [
            min((self.weights[layer][kind], error) for kind, error in errors.items())
            for layer, errors in self.errors.items()
            if errors
        ]
        rates = sorted(error / weight for weight, error in each if weight > 0)
        return LEAST_SHARE * rates[len(rates) // 2] if rates else 0.0

    def measured(self, layer: str, weight: float, least: float) -> float:
        """The error of what was measured, for this error of the layer's weights; at least ``least`` times that."""
        return max(self._between(layer, weight), least * weight) if self.errors.get(layer) else 0.0

    def _between(self, layer: str, weight: float) -> float:
        known = sorted(
            (self.weights[layer][kind], error) for kind, error in self.errors.get(layer, {}).items()
        )
        if not known or weight <= 0:
            return 0.0
        (fine, low), (coarse, high) = known[0], known[-1]
        if weight <= fine or coarse <= fine or min(low, high) <= 0:
            return low * weight / fine if fine > 0 else high
        power = math.log(high / low) / math.log(coarse / fine)
        return low * float((weight / fine) ** min(max(power, POWERS[0]), POWERS[1]))

    def options(self, container: str = GGUF) -> dict[str, list[Option]]:
        """For the programme: every type of every layer that the container holds."""
        least = self.least()
        return {
            layer: [Option(kind, bytes_of(tuple(shape), kind), self.error(layer, kind, least=least)) for kind in candidates(shape, self.plain[layer], container)]
            for layer, shape in self.signature.items()
        }  # fmt: skip

    def predicted(self, formats: Mapping[str, str], by_others: bool = False) -> float:
        """PSNR in dB of pictures with layers in these types, which were not sought by the programme."""
        least = self.least()
        return decibels(sum(self.error(layer, kind, by_others, least) for layer, kind in formats.items()))

    def best(self, budget: int, container: str = GGUF) -> tuple[dict[str, str], float]:
        """The types for the layers under ``budget`` bytes, and the predicted PSNR in dB. Raises Unfit if none fits.

        The programme's choice, unless a uniform type that fits is predicted no worse than it: see ``SOUGHT_DB``.
        """
        options = self.options(container)
        chosen = {layer: one.kind for layer, one in programme.choose(options, budget).items()}
        found = (chosen, self.predicted(chosen) - SOUGHT_DB)
        for kind in quantised(container):
            each = uniform(self.signature, kind, self.plain)
            if self.bytes(each) <= budget and (plain := self.predicted(each)) >= found[1]:
                found = (each, plain)
        return found

    def bytes(self, formats: Mapping[str, str]) -> int:
        return sum(bytes_of(tuple(self.signature[layer]), kind) for layer, kind in formats.items())

    def bits(self, formats: Mapping[str, str]) -> float:
        """Bits a weight of the layers."""
        return 8 * self.bytes(formats) / sum(math.prod(shape) for shape in self.signature.values())

    def borrowed(self, other: Sensitivity) -> None:
        """Take the errors that were measured on ``other``, each scaled by this model's error of the same weights."""
        for layer, measured in other.errors.items():
            self.errors[layer] = {
                kind: error * self.weights[layer][kind] / max(other.weights[layer][kind], 1e-30)
                for kind, error in measured.items()
            }
        self.scale, self.published_scale, self.how = other.scale, other.published_scale, other.how


def decibels(error: float) -> float:
    """PSNR of a mean square error of pictures between 0 and 1; 99 where nothing differs."""
    return 99.0 if error <= 10**-9.9 else -10 * math.log10(error)


def mean_error(errors: Sequence[float]) -> float:
    """The error whose PSNR is the mean of theirs: fits are judged by the mean PSNR of pictures."""
    return 10 ** (-sum(map(decibels, errors)) / len(errors) / 10)


def assignment_key(formats: Mapping[str, str], *more: object) -> str:
    text = json.dumps([sorted(formats.items()), *map(repr, more)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


# -- where tables lie ------------------------------------------------------------------------------------------------


def path_of(model: LocalModel) -> Path:
    """Where the table of exactly these weights is kept."""
    return settings().cache / "sensitivities" / f"{model.fingerprint[:32]}.json"


def stored(path: Path, signature: Mapping[str, Any] | None = None) -> Sensitivity | None:
    """The table at ``path``, or the one of that name that ships with the package (Firefly's); None if there is none that can be
    read, or one of other layers than ``signature``.
    """
    try:
        found = Sensitivity.from_json((path if path.is_file() else SHIPPED / path.name).read_text("utf-8"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if signature is None or found.signature == dict(signature) else None


def store(path: Path, table: Sensitivity) -> None:
    write_cache(path, table.to_json().encode())


def complete(table: Sensitivity | None) -> bool:
    """Whether every layer that can be quantised was measured, and what their errors are in whole pictures."""
    from starrynight.fitting.formats import probes

    if table is None or UNSCALED in (table.scale, table.published_scale):
        return False
    return all(
        set(probes(shape)) <= set(table.errors.get(layer, ())) for layer, shape in table.signature.items()
    )


def like(name: str, path: Path, signature: Mapping[str, Any]) -> Sensitivity:
    """The complete table at ``path``, of the model called ``name``. Raises MissingFile, Unfit for another architecture."""
    table = stored(path)
    if table is None or not complete(table):
        raise MissingFile(
            f"No sensitivities of {name} were measured here to the end; measure them first: starry fit {name} --bits 5.",
            f"这里还没有测完 {name} 的敏感度；请先测量：starry fit {name} --bits 5。",
        )
    if table.signature != dict(signature):
        raise Unfit(
            f"{name} has another architecture, so its sensitivities say nothing about this model; leave --like out.",
            f"{name} 的架构不同，其敏感度不适用于该模型；请去掉 --like。",
        )
    return table
