"""An embedder in a folder: any encoder in sentence-transformers' layout, pooled as its 1_Pooling/config.json says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from starrynight.errors import Unfit
from starrynight.models.weights import config_or_empty
from starrynight.senses.loading.files import from_folder

LONGEST, AT_ONCE = 8192, 16  # tokens, texts
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}


class Sentences:
    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        told = config_or_empty(folder / "1_Pooling" / "config.json")
        poolings = [name for key, name in _POOLINGS.items() if told.get(key)]
        if len(poolings) != 1 or told.get("include_prompt") is False:
            raise Unfit(
                f"“{folder.name}” does not say how its tokens become one vector (1_Pooling/config.json: cls, mean or last token); "
                "take a sentence-transformers folder, or serve it elsewhere and give the address.",
                f"“{folder.name}”没有说明如何汇成一个向量（1_Pooling/config.json：cls、平均或末尾）；请用 sentence-transformers 文件夹，"
                "或在别处提供服务并给出地址。",
            )
        (self.pooling,) = poolings
        self.tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.model = from_folder(AutoModel, folder)
        self.longest = min(LONGEST, self.model.config.max_position_embeddings, self.tokens.model_max_length)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        texts, vectors = question["texts"], []
        for start in range(0, len(texts), AT_ONCE):
            batch = self.tokens(
                texts[start : start + AT_ONCE], padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
            ).to(self.model.device)  # fmt: skip
            with torch.inference_mode():
                states = self.model(**batch).last_hidden_state.float()
            vectors.append(self._pooled(states, batch["attention_mask"].float()))
        return {"vectors": torch.nn.functional.normalize(torch.cat(vectors)).tolist()}

    def _pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """[B, L, D] → [B, D]; padding may stand on either side."""
        rows = torch.arange(len(states), device=states.device)
        if self.pooling == "mean":
            return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        places = torch.arange(mask.shape[1], device=mask.device) * mask
        at = mask.argmax(1) if self.pooling == "cls" else places.argmax(1)
        return states[rows, at]
