"""SiameseUIE: spans of a text that answer hints such as "人物: ", by one BERT cut in two.

The lower half reads the text once, alone, and each hint alone (token type 1, positions after the text's). The upper half reads
both together; two heads mark where spans begin and end (logits above 0.5). A further hint thus costs half a model. In a nested
schema the hint names what was found above it: "人物: 张三, 年龄: ".

The class and the names of its tensors are modelscope's (``nlp_structbert_siamese-uie_chinese-base``), on transformers' stock
``BertModel``. Long texts are read in windows of 384 tokens, 352 apart, whose logits are averaged where they overlap, as there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel

from starrynight.errors import BadRequest, Unfit
from starrynight.senses.loading.files import ready, refuse_partial

WINDOW, STEP, HINT = 384, 352, 128  # tokens; text and hint share BERT's 512 positions
THRESHOLD = 0.5  # of a logit
DEEPEST, MOST = 4, 200  # of a schema: levels, hints of one text


class SiameseUIE(nn.Module):
    """``config``: of both halves together; ``upper``: the layers that read text and hint together."""

    def __init__(self, config: BertConfig, upper: int) -> None:
        super().__init__()
        self.plm = BertModel(config, add_pooling_layer=True)
        layers = self.plm.encoder.layer
        self.plm.encoder.layer, above = layers[:-upper], layers[-upper:]
        self.crossattention = nn.Module()
        self.crossattention.layer = above
        self.head_clsf = nn.Linear(config.hidden_size, 1)
        self.tail_clsf = nn.Linear(config.hidden_size, 1)

    def read(self, ids: Tensor, mask: Tensor, start: int = 0, hint: bool = False) -> Tensor:
        """The lower half: ids and mask [B, L] → [B, L, D], at positions from ``start`` on."""
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
        states = self.plm.embeddings(
            input_ids=ids, token_type_ids=torch.full_like(ids, int(hint)), position_ids=positions
        )
        return _run(self.plm.encoder.layer, states, mask)

    def forward(self, text: Tensor, mask: Tensor, hints: Tensor, hint_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of beginnings and ends, [B, L] each, for ``text`` as ``read`` gives it, [B, L, D], and ids of hints [B, H]."""
        length = text.shape[1]
        both = torch.cat([text, self.read(hints, hint_mask, length, hint=True)], 1)
        states = _run(self.crossattention.layer, both, torch.cat([mask, hint_mask], 1))[:, :length]
        outside = (1 - mask) * -10_000.0
        return self.head_clsf(states).squeeze(-1) + outside, self.tail_clsf(states).squeeze(-1) + outside


def _run(layers: Any, states: Tensor, mask: Tensor) -> Tensor:
    seen = mask[:, None, None, :].bool()
    for layer in layers:
        made = layer(states, attention_mask=seen)
        states = made[0] if isinstance(made, tuple) else made
    return states


class Extractor:
    """The SiameseUIE in a folder."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        state: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            state |= load_file(file)
        state = {name: tensor.float() for name, tensor in state.items() if not name.endswith("position_ids")}
        lower, upper = (_layers(state, part) for part in ("plm.encoder.layer", "crossattention.layer"))
        if not lower or not upper or "head_clsf.weight" not in state:
            raise Unfit(
                f"“{folder.name}” is no SiameseUIE: it has no plm.encoder, crossattention and head_clsf.",
                f"“{folder.name}”不是 SiameseUIE：缺少 plm.encoder、crossattention 和 head_clsf。",
            )
        # modelscope's class halves num_hidden_layers while it is made, so a saved config may say either number
        whole = BertConfig(**config | {"num_hidden_layers": lower + upper})
        whole._attn_implementation = "sdpa"
        model = SiameseUIE(whole, upper)
        report = model.load_state_dict(state, strict=False)
        refuse_partial(folder, report.missing_keys)
        if report.unexpected_keys:
            name = sorted(report.unexpected_keys)[0]
            raise Unfit(
                f"“{folder.name}” holds {name}, which SiameseUIE has not.",
                f"“{folder.name}”含有 SiameseUIE 没有的 {name}。",
            )
        self.model = ready(model)
        self.tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.window = min(WINDOW, whole.max_position_embeddings - HINT)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        paths = self.extract(question["text"], question["schema"])
        return {"spans": [[" / ".join(kind for kind, _, _ in path), *path[-1][1:]] for path in paths]}

    def extract(self, text: str, schema: Mapping[str, Any]) -> list[list[tuple[str, int, int]]]:
        """Every chain of spans that the schema asks for, from its top to its leaves: (kind, start, end) in characters."""
        read = self.tokens(text, return_offsets_mapping=True)
        windows = _windows(torch.tensor(read["input_ids"]), self.window)
        ids, mask = _padded(windows)
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            states = self.model.read(ids.to(device), mask.to(device))
            return self._below(text, read["offset_mapping"], states, mask.to(device), schema, [])

    def _below(
        self, text: str, offsets: list[tuple[int, int]], states: Tensor, mask: Tensor, schema: Mapping[str, Any],
        above: list[tuple[str, int, int]],
    ) -> list[list[tuple[str, int, int]]]:  # fmt: skip
        """The chains below a chain of spans."""
        if len(above) >= DEEPEST or len(schema) > MOST:
            raise BadRequest(
                f"A schema has at most {DEEPEST} levels of {MOST} kinds.",
                f"模式最多 {DEEPEST} 层，每层 {MOST} 类。",
                "schema",
            )
        if not schema:
            return []
        told = "".join(f"{kind}: {text[start:end]}, " for kind, start, end in above)
        heads, tails = self._logits(states, mask, [f"{told}{kind}: " for kind in schema], len(offsets))
        chains = []
        for (kind, inner), head, tail in zip(schema.items(), heads, tails, strict=True):
            for start, end in _spans(offsets, head, tail):
                chain = [*above, (kind, start, end)]
                chains += self._below(text, offsets, states, mask, inner, chain) if inner else [chain]
        return chains

    def _logits(self, states: Tensor, mask: Tensor, hints: list[str], length: int) -> tuple[Tensor, Tensor]:
        """Logits of beginnings and ends of each hint over the whole text, [hints, length]; overlaps of windows averaged."""
        asked = self.tokens(hints, padding=True, truncation=True, max_length=HINT, return_tensors="pt").to(
            states.device
        )
        count, windows = len(hints), len(states)
        made = self.model(
            states.repeat(count, 1, 1), mask.repeat(count, 1),
            asked.input_ids.repeat_interleave(windows, 0), asked.attention_mask.float().repeat_interleave(windows, 0),
        )  # fmt: skip
        found = []
        for logits in made:
            sums, times = torch.zeros(count, length), torch.zeros(length)
            for number, window in enumerate(logits.float().cpu().view(count, windows, -1).unbind(1)):
                start = number * STEP
                part = window[:, : length - start]
                sums[:, start : start + part.shape[1]] += part
                times[start : start + part.shape[1]] += 1
            found.append(sums / times)
        return found[0], found[1]


def _layers(state: Mapping[str, Tensor], part: str) -> int:
    return len({found[1] for name in state if (found := re.match(rf"{re.escape(part)}\.(\d+)\.", name))})


def _windows(ids: Tensor, width: int) -> list[Tensor]:
    count = 1 + max(0, -(-(len(ids) - width) // STEP))
    return [ids[number * STEP : number * STEP + width] for number in range(count)]


def _padded(windows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Ids and mask, [windows, longest]."""
    ids = nn.utils.rnn.pad_sequence(windows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(one)) for one in windows], batch_first=True)
    return ids, mask


def _spans(offsets: list[tuple[int, int]], head: Tensor, tail: Tensor) -> list[tuple[int, int]]:
    """From each place where a span begins to the first where one ends; special tokens have no characters."""
    found = []
    for at in (head > THRESHOLD).nonzero().flatten().tolist():
        end = next((to for to in range(at, len(offsets)) if tail[to] > THRESHOLD), None)
        if end is not None and offsets[at][0] < offsets[end][1]:
            found.append((offsets[at][0], offsets[end][1]))
    return found
