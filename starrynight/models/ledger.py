"""Which tensors of a model's files were used, and what the others would have changed.

A loader that drops a tensor in silence paints a picture of other numbers than the file means. So every stored tensor ends
as used or as left over, and a left-over tensor that is not known to be harmless is an error. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starrynight.errors import Unfit
from starrynight.i18n import Text
from starrynight.models import habits

# Tensors that published files carry and that no painting reads: pattern of the name → why they change nothing.
HARMLESS = {
    r"(^|\.)position_ids$": "index buffer",
    r"(^|\.)inv_freq$": "table of rotary frequencies, computed from the configuration",
    r"(^|\.)num_batches_tracked$": "training statistics",
    r"^model_ema\.": "averaged copy of the denoiser; the plain one is used",
    r"^(alphas_cumprod(_prev)?|betas|logvar|log_one_minus_alphas_cumprod|lvlb_weights"
    r"|posterior_(log_variance_clipped|mean_coef1|mean_coef2|variance)"
    r"|sqrt_(alphas_cumprod|one_minus_alphas_cumprod|recip_alphas_cumprod|recipm1_alphas_cumprod))$":
        "noise schedule of the training",
    r"^denoiser\.(log_)?sigmas$": "noise schedule of the training",
    r"^first_stage_model\.loss\.": "training loss of the autoencoder",
    r"(^|\.)logit_scale$": "temperature of CLIP's contrastive training",
    r"(^|\.)text_projection(\.weight)?$": "projection of an encoder whose hidden states are read before it",
    r"(^|\.)lm_head\.weight$": "output layer of the language model",
    r"^(model\.diffusion_model\.)?norm_final\.weight$": "Z-Image's unused last norm",
    r"(^|\.)(spiece_model|tokenizer_json)$": "tokenizer; the pipeline's own is used",
    r"(^|\.)(input_scale|scale_input)$": "range of activations for multiplication in 8 bits",
}  # fmt: skip

# Tensors without numbers that say how the model was trained; the scheduler obeys them.
MARKERS = habits.MARKERS

# What an unknown tensor most likely is, by its name; the way out follows from it. The first that matches counts.
SUSPECTS = (
    (r"\.(lora_|lokr_|hada_|dora_scale|diff$|diff_b$)|^lora_",
     Text("part of a LoRA merged halfway; add the LoRA with --lora and use the plain model",
          "LoRA 的一部分；请使用原模型并以 --lora 叠加 LoRA")),
    (r"scale|zero_point|absmax|quant|qweight|qzeros|g_idx|comfy",
     Text("part of a quantised format that this version does not read; take the bfloat16, float16, fp8 or GGUF file",
          "本版本不支持的量化格式的一部分；请改用 bfloat16、float16、fp8 或 GGUF 文件")),
    (r"^control|zero_conv|input_hint",
     Text("part of a ControlNet; take the file of the model alone", "ControlNet 的一部分；请使用单独的模型文件")),
    (r"^(vae|first_stage_model|text_encoder|text_encoders|cond_stage_model|conditioner|te\d?)\.",
     Text("another encoder or decoder, in a layout that is not known", "另一套编码器或解码器，其布局未知")),
)  # fmt: skip
UNKNOWN = Text("unknown to this architecture", "该架构中没有对应的参数")


@dataclass(frozen=True)
class Ledger:
    """How many of the stored tensors of some files were used. ``harmless``: names of left-over tensors that change
    nothing. ``kept``: how many parameters stay packed in memory.
    """

    total: int
    harmless: tuple[str, ...] = ()
    kept: int = 0

    @property
    def used(self) -> int:
        return self.total - len(self.harmless)

    def to_dict(self) -> dict[str, Any]:
        left = {"left": list(self.harmless)} if self.harmless else {}
        return {"used": self.used, "of": self.total} | left | ({"kept": self.kept} if self.kept else {})


@dataclass
class Ledgers:
    """The ledgers of a pipeline while it loads: component or file name → Ledger."""

    found: dict[str, Ledger] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {name: ledger.to_dict() for name, ledger in self.found.items()}

    def close(self, name: str, path: Path, stored: Iterable[str], used: Iterable[str], kept: int = 0) -> None:
        """Record the tensors of ``path``, and that ``kept`` parameters stay packed. Raises Unfit, naming one, where left-over tensors would change the picture."""
        stored = list(stored)
        left = sorted(set(stored) - set(used))
        harmful = [tensor for tensor in left if not any(re.search(pattern, tensor) for pattern in HARMLESS)]
        if harmful:
            raise _left_over(path, harmful)
        self.found[name] = Ledger(len(stored), tuple(left), kept)


def _left_over(path: Path, names: list[str]) -> Unfit:
    suspect = next((what for pattern, what in SUSPECTS if re.search(pattern, names[0])), UNKNOWN)
    en, zh = (
        (f" and {len(names) - 1} more tensors", f" 等 {len(names)} 个张量") if len(names) > 1 else ("", "")
    )
    return Unfit(
        f"“{path.name}” holds {names[0]}{en} that no parameter of the model takes ({suspect.en}); a picture without "
        "it would not be the model's.",
        f"“{path.name}”中的 {names[0]}{zh}没有模型参数接收（{suspect.zh}）；缺少它画出的图不是该模型的图。",
    )
