"""The cast for nested values: containers keep their types, and only the wanted tensors change."""

from __future__ import annotations

from collections import namedtuple

import torch
from transformers.modeling_outputs import BaseModelOutput

from starrynight.numerics.dtypes import HALVES, cast

Pair = namedtuple("Pair", ["left", "right"])


def test_floating_tensors_are_cast_at_every_depth_and_containers_keep_their_types() -> None:
    x, ids = torch.ones(2).half(), torch.arange(2)
    value = {"a": [x, ids, None], "b": (Pair(x, "text"),), "c": BaseModelOutput(last_hidden_state=x)}
    found = cast(value, torch.float32)
    assert found["a"][0].dtype == torch.float32
    assert found["a"][1] is ids
    assert found["a"][2] is None
    assert found["b"][0] == Pair(found["b"][0].left, "text")
    assert found["b"][0].left.dtype == torch.float32
    assert isinstance(found["c"], BaseModelOutput)
    assert found["c"].last_hidden_state.dtype == torch.float32


def test_sources_limit_the_formats_that_are_cast() -> None:
    wide, half = torch.ones(2).double(), torch.ones(2).bfloat16()
    found = cast((wide, half), torch.float32, HALVES)
    assert found[0] is wide
    assert found[1].dtype == torch.float32
