"""A ranker in a folder: Qwen3-Reranker, a causal language model whose next token is "yes" or "no".

The template is the model card's (Qwen/Qwen3-Reranker-0.6B), token for token; llama-server's is the same. The score is the
probability of "yes" beside "no" at the last place: softmax of their two logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from starrynight.errors import Unfit
from starrynight.senses.loading.files import from_folder

TASK = "Given a web search query, retrieve relevant passages that answer the query"
BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. Note that "
    'the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
LONGEST = 8192  # tokens
AT_ONCE = 8  # documents


class Reranker:
    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        kinds = config.get("architectures") or [config.get("model_type")]
        if "Qwen3ForCausalLM" not in kinds:
            raise Unfit(
                f"“{folder.name}” is {kinds[0] or 'nameless'}, not Qwen3-Reranker (Qwen3ForCausalLM); take one of those.",
                f"“{folder.name}”是 {kinds[0] or '未具名的模型'}，不是 Qwen3-Reranker（Qwen3ForCausalLM）；请换用后者。",
            )
        self.tokens = AutoTokenizer.from_pretrained(
            folder, padding_side="left", local_files_only=True, trust_remote_code=False
        )
        ids = self.tokens.get_vocab()
        if (
            "yes" not in ids or "no" not in ids
        ):  # others would be judged by two tokens that mean something else
            raise Unfit(
                f"The tokenizer of “{folder.name}” has no single token for “yes” and “no”; take Qwen3-Reranker.",
                f"“{folder.name}”的分词器没有单独的 yes 和 no；请用 Qwen3-Reranker。",
            )
        self.answers = [ids["no"], ids["yes"]]
        self.before, self.after = (
            self.tokens.encode(one, add_special_tokens=False) for one in (BEFORE, AFTER)
        )
        self.model = from_folder(AutoModelForCausalLM, folder)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Documents are judged in groups of like length, so that padding costs little, and answered in their order."""
        rows = [self._tokens(question["query"], one) for one in question["documents"]]
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        scores = [0.0] * len(rows)
        for start in range(0, len(order), AT_ONCE):
            group = order[start : start + AT_ONCE]
            for at, score in zip(group, self._judge([rows[at] for at in group]), strict=True):
                scores[at] = score
        return {"scores": scores}

    def _tokens(self, query: str, document: str) -> list[int]:
        """Only the body is cut, never the template around it."""
        body = f"<Instruct>: {TASK}\n<Query>: {query}\n<Document>: {document}"
        room = LONGEST - len(self.before) - len(self.after)
        return [*self.before, *self.tokens.encode(body, add_special_tokens=False)[:room], *self.after]

    def _judge(self, rows: list[list[int]]) -> list[float]:
        batch = self.tokens.pad({"input_ids": rows}, padding=True, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            logits = self.model(**batch, logits_to_keep=1).logits[:, -1, self.answers].float()
        return [float(one) for one in torch.softmax(logits, 1)[:, 1]]
