"""The vectors of a textual inversion, read and checked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from starrynight.errors import BadFile
from starrynight.models import embeddings
from starrynight.models.embeddings import Inversion, Source


def load(source: Source, encoders: Mapping[str, int], model: str) -> tuple[Inversion, dict[str, Tensor]]:
    """A textual inversion with its vectors by component, float32 [vectors, width]. Raises BadFile for
    NaN and Inf and as ``embeddings.read``, and Unfit as ``embeddings.tensors_for``.
    """
    inversion = embeddings.read(source)
    names = embeddings.tensors_for(inversion, encoders, model)
    try:
        with safe_open(source.path, framework="pt") as file:
            vectors = {slot: file.get_tensor(name).float() for slot, name in names.items()}
    except (SafetensorError, OSError) as error:
        raise BadFile(
            f"The embedding “{inversion.file}” cannot be read; download it again. ({error})",
            f"嵌入词“{inversion.file}”无法读取；请重新下载。（{error}）",
        ) from error
    for slot, rows in vectors.items():
        if not bool(torch.isfinite(rows).all()):
            raise BadFile(
                f"The embedding “{inversion.file}” holds NaN or Inf in {names[slot]}; take another version of it.",
                f"嵌入词“{inversion.file}”的 {names[slot]} 含有 NaN 或 Inf；请换一个版本。",
            )
    return inversion, {slot: rows.reshape(inversion.count, -1) for slot, rows in vectors.items()}
