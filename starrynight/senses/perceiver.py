"""The perceiver: what a painting shows, and how near a sentence is to it. Runs with numpy alone.

``Perceiver.see`` reads a picture into probabilities and a unit vector, ``Perceiver.read`` a text into a vector of the same
space. ``training.network`` is the same function in torch, and trains it; the weights are one safetensors file, whose header
holds the names of the heads, the words, and the thresholds that ``training.calibrate`` found.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from starrynight.errors import BadFile, MissingFile
from starrynight.senses.facts import CHOICES, PADDING, THINGS, UNKNOWN, Lexicon
from starrynight.senses.understand import understood

SHIPPED = Path(__file__).parents[1] / "weights" / "perceiver" / "perceiver.safetensors"
FORMAT = "starry-night-perceiver-3"
AREA, STRIDE = 128, 32  # a picture is read at about AREA² pixels, its sides multiples of the network's stride
LONGEST_SIDE = 256
GROUPS, EPSILON = 8, 1e-5  # of every GroupNorm


@dataclass(frozen=True)
class Sight:
    """``choices``: the probabilities of each of facts.CHOICES by name, float32 [K]. ``things``: those of facts.THINGS,
    float32 [T]. ``ours``: the probability that it is a painting of the kinds that the perceiver learnt. ``vector``: float32 [D]
    of length 1.
    """

    choices: dict[str, np.ndarray]
    things: np.ndarray
    ours: float
    vector: np.ndarray

    @property
    def confidence(self) -> float:
        """How sure the perceiver is that it knows such pictures: ``ours`` times the best style's and kind's probabilities."""
        return self.ours * float(self.choices["style"].max()) * float(self.choices["kind"].max())


@dataclass(frozen=True)
class Reading:
    """``vector``: float32 [D] of length 1. ``known``: the share of the text's words for what can be seen that the perceiver knows,
    0 to 1.
    """

    vector: np.ndarray
    known: float


@dataclass(frozen=True)
class Thresholds:
    """``confidence``: below it the perceiver cannot tell what a picture shows. ``choices``: below it a head says nothing.
    ``claims``: from this probability on a thing is said to be there; ``asked`` and ``unasked``: the same where the prompt is known, of
    what it asks for and of other things. ``absent``: below this one it is said not to be.
    """

    confidence: float
    choices: dict[str, float]
    claims: dict[str, float]
    asked: dict[str, float]
    unasked: dict[str, float]
    absent: dict[str, float]

    def least(self, name: str, wanted: frozenset[str]) -> float:
        """From which probability on the thing called ``name`` is said to be there, beside what the prompt asks for, if any."""
        return (self.claims if not wanted else self.asked if name in wanted else self.unasked)[name]


class Perceiver:
    """``tensors``: float32 by name, as ``training.network.Network`` names them; ``header``: see ``load``."""

    def __init__(self, tensors: dict[str, np.ndarray], header: dict[str, Any], name: str) -> None:
        self.tensors, self.header, self.name = tensors, header, name
        self.lexicon = Lexicon(tuple(header["words"]))
        self.thresholds = Thresholds(**header["thresholds"])

    @property
    def megabytes(self) -> float:
        """The memory of its weights."""
        return sum(tensor.nbytes for tensor in self.tensors.values()) / 2**20

    def see(self, pixels: np.ndarray) -> Sight:
        """What a picture, uint8 [H, W, 3], shows."""
        features, small, detail = self._features(as_read(pixels))
        logits = {name: self._linear(_HEADS[name], features) for name in CHOICES}
        logits["weather"] = logits["weather"] + self._linear("fine.weather", small)
        things = self._linear("sight.subjects", features) + self._linear("fine.things", small) + detail
        vector = self._linear("projection", features) + self._linear("fine.projection", small)
        return Sight(
            {name: _softmax(one) for name, one in logits.items()},
            _sigmoid(things),
            float(_sigmoid(self._linear("ours", features))[0]),
            vector / np.linalg.norm(vector),
        )

    def read(self, text: str) -> Reading:
        """What a text means, in other words too (see ``understand``). One that says nothing to see has ``known`` 0."""
        clear = understood(text)
        rows = [row for row in self.lexicon.rows(clear.text) if row != UNKNOWN] or [PADDING]
        there = np.array([row != PADDING for row in rows])[:, None]
        states = self.tensors["texts.embedding.weight"][rows]
        for layer in ("texts.first", "texts.second"):
            states = _silu(self._convolve_words(layer, states)) * there
        largest = states.max(0) if there.any() else np.full(states.shape[1], -1.0, np.float32)
        features = np.concatenate([states.sum(0) / max(1, there.sum()), largest])
        vector = self._linear("texts.projection", features)
        return Reading(vector / np.linalg.norm(vector), clear.known)

    def shown(self, cosines: np.ndarray) -> np.ndarray:
        """How much pictures show of what a text states, float32 [N] from 0 to 1, by the cosines of their vectors with the
        text's: the expected square of the share of its facts.
        """
        return _sigmoid(float(self.tensors["scale"]) * cosines + float(self.tensors["offset"]))

    @cached_property
    def _kernels(self) -> dict[str, np.ndarray]:
        """The convolutions over pictures by name, [k · k · in, out]."""
        found = {}
        for key, tensor in self.tensors.items():
            if tensor.ndim == 4:
                kernel = tensor.transpose(2, 3, 1, 0)
                found[key.removesuffix(".weight")] = np.ascontiguousarray(
                    kernel.reshape(-1, kernel.shape[-1])
                )
        return found

    def _features(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Float32 [H, W, 3] in -1..1 to the mean and the maximum over the picture, [2 · F], those of its small things, and what
        its details add to the logits of things [T].
        """
        names = [(f"sight.body.{k}.0", f"sight.body.{k}.1", 2) for k in range(5)]
        middle = small = states
        for place, (name, norm, stride) in enumerate([*names, ("sight.body.5", "sight.body.6", 1)], 1):
            states = self._block(name, norm, stride, states)
            if place == _DETAIL_AFTER:
                middle = states = self._residual("middle", states)
            if place == _FINE_AFTER:
                small = states = self._residual("deeper", states)
        return (
            _pooled(states),
            _pooled(self._block("fine.conv", "fine.norm", 1, small)),
            self._detail(middle, small),
        )

    def _residual(self, name: str, states: np.ndarray) -> np.ndarray:
        inner = self._block(f"{name}.first", f"{name}.norm", 1, states)
        return states + self._convolve(f"{name}.second", 1, inner)

    def _detail(self, states: np.ndarray, large: np.ndarray) -> np.ndarray:
        """Maps of stride 8 and 16 to what every thing finds at the places it looks at, [T]."""
        around = self._everywhere("detail.around", large).repeat(2, 0).repeat(2, 1)
        found = self._block("detail.conv", "detail.norm", 1, states + around)
        weights = _softmax(self._everywhere("detail.look", found).reshape(-1, len(THINGS)))
        return (weights * self._everywhere("detail.things", found).reshape(-1, len(THINGS))).sum(0)

    def _block(self, name: str, norm: str, stride: int, states: np.ndarray) -> np.ndarray:
        """A 3 x 3 convolution with its norm and SiLU, [H, W, in] to [H / stride, W / stride, out]."""
        convolved = self._convolve(name, stride, states)
        return _silu(_group_norm(convolved, self.tensors[f"{norm}.weight"], self.tensors[f"{norm}.bias"]))

    def _convolve(self, name: str, stride: int, states: np.ndarray) -> np.ndarray:
        """A 3 x 3 convolution, [H, W, in] to [H / stride, W / stride, out]."""
        bordered = np.pad(states, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(bordered, (3, 3), (0, 1))[::stride, ::stride]
        columns = windows.transpose(0, 1, 3, 4, 2).reshape(*windows.shape[:2], -1)
        return columns @ self._kernels[name] + self.tensors[f"{name}.bias"]

    def _everywhere(self, name: str, states: np.ndarray) -> np.ndarray:
        """One matrix for the channels of every place, [H, W, in] to [H, W, out]."""
        return states @ self._kernels[name] + self.tensors[f"{name}.bias"]

    def _convolve_words(self, name: str, states: np.ndarray) -> np.ndarray:
        """A convolution of width 3 over words, [L, in] to [L, out]."""
        kernel = self.tensors[f"{name}.weight"]
        padded = np.pad(states, ((1, 1), (0, 0)))
        return (
            sum(padded[k : k + len(states)] @ kernel[:, :, k].T for k in range(3))
            + self.tensors[f"{name}.bias"]
        )

    def _linear(self, name: str, features: np.ndarray) -> np.ndarray:
        return self.tensors[f"{name}.weight"] @ features + self.tensors[f"{name}.bias"]


# The layer of each head that chooses one of several names.
_HEADS = {"style": "sight.style", "hour": "sight.hour", "weather": "weather", "kind": "kind"}
_DETAIL_AFTER, _FINE_AFTER = 3, 4  # blocks, as in training.network


def as_read(pixels: np.ndarray) -> np.ndarray:
    """A picture at the size that it is read at, float32 [H, W, 3] in -1..1."""
    height, width = pixels.shape[:2]
    stretch = (height / width) ** 0.5
    sides = [
        int(np.clip(round(AREA * one / STRIDE) * STRIDE, STRIDE, LONGEST_SIDE))
        for one in (1 / stretch, stretch)
    ]
    smaller = sides[0] <= width and sides[1] <= height
    method = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize((sides[0], sides[1]), method), np.float32) / 127.5 - 1.0


def _pooled(states: np.ndarray) -> np.ndarray:
    """The mean and the maximum over a map, [H, W, F] to [2 · F]."""
    flat = states.reshape(-1, states.shape[-1])
    return np.concatenate([flat.mean(0), flat.max(0)])


def _group_norm(states: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    height, width, channels = states.shape
    groups = states.reshape(height * width, GROUPS, channels // GROUPS)
    mean = groups.mean((0, 2), keepdims=True)
    deviation = np.sqrt(groups.var((0, 2), keepdims=True) + EPSILON)
    return ((groups - mean) / deviation).reshape(states.shape) * weight + bias


def _silu(x: np.ndarray) -> np.ndarray:
    return x * _sigmoid(x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(0))
    return powers / powers.sum(0)


def load(path: Path = SHIPPED) -> Perceiver:
    """The perceiver in a file. Raises MissingFile, or BadFile where it is damaged or made for other names."""
    try:
        return _load(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise MissingFile(
            f"The perceiver's weights {path} are missing; install the package again.",
            f"缺少感知模型的权重 {path}；请重新安装本软件包。",
        ) from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BadFile(
            f"The perceiver's weights {path} cannot be read; install the package again.",
            f"感知模型的权重 {path} 无法读取；请重新安装本软件包。",
        ) from error


@lru_cache(maxsize=2)
def _load(path: Path, _changed: int) -> Perceiver:
    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["perceiver"])
        tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    names = {name: list(some) for name, some in CHOICES.items()} | {"things": list(THINGS)}
    if header["format"] != FORMAT or header["names"] != names:
        raise ValueError("made for other names")
    return Perceiver(tensors, header, f"perceiver-{header['version']}")
