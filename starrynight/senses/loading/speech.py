"""Ears in a folder: Qwen3-ASR in transformers' own layout, and Whisper."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import wavfile
from transformers import AutoProcessor, Qwen3ASRForConditionalGeneration, WhisperForConditionalGeneration

from starrynight.errors import BadRequest, Unfit
from starrynight.senses.asking import spoken
from starrynight.senses.loading.files import from_folder


def open_speech(folder: Path, config: dict[str, Any]) -> Qwen3Speech | WhisperSpeech:
    """Raises Unfit for another model, and for Qwen3-ASR in the layout of the qwen-asr package."""
    if "thinker_config" in config:
        raise Unfit(
            f"“{folder.name}” is in the layout of the qwen-asr package (thinker_config), which pins an old transformers; take the "
            "folder whose name ends in -hf (Qwen/Qwen3-ASR-0.6B-hf), or convert this one with llama.cpp's "
            "convert_hf_to_gguf.py, once plainly and once with --mmproj, and give MODEL.gguf+MMPROJ.gguf.",
            f"“{folder.name}”是 qwen-asr 包的布局（thinker_config），该包固定了旧版 transformers；请用名字以 -hf 结尾的文件夹"
            "（Qwen/Qwen3-ASR-0.6B-hf），或用 llama.cpp 的 convert_hf_to_gguf.py 转换两次（一次直接，一次加 --mmproj），"
            "再给出 模型.gguf+MMPROJ.gguf。",
        )
    kind = config.get("model_type")
    if kind == "qwen3_asr":
        return Qwen3Speech(folder)
    if kind == "whisper":
        return WhisperSpeech(folder)
    raise Unfit(
        f"“{folder.name}” is a {kind or 'nameless'} model, which does not write down speech; take Qwen3-ASR (-hf) or Whisper.",
        f"“{folder.name}”是 {kind or '未具名的'} 模型，不能听写；请用 Qwen3-ASR（-hf）或 Whisper。",
    )


def _samples(question: dict[str, Any]) -> np.ndarray:
    """Float32 [N] at 16 kHz."""
    _, samples = wavfile.read(io.BytesIO(base64.b64decode(question["wav"])))
    return (samples / np.float32(32768)).astype(np.float32)


class Qwen3Speech:
    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.model = from_folder(Qwen3ASRForConditionalGeneration, folder)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        inputs = self.processor.apply_transcription_request(
            audio=_samples(question), language=question["language"], prompt=question["hotwords"] or None
        ).to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            made = self.model.generate(**inputs, max_new_tokens=question["tokens"], do_sample=False)
        written = self.processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        text, language = spoken(written)
        return {"text": text, "language": language}


class WhisperSpeech:
    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.model = from_folder(WhisperForConditionalGeneration, folder)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        features = self.processor(
            _samples(question), sampling_rate=16_000, return_tensors="pt", return_attention_mask=True
        )
        more = self._language(question["language"])
        if question["hotwords"]:
            hint = self.processor.get_prompt_ids(question["hotwords"], return_tensors="pt")
            more["prompt_ids"] = hint.to(self.model.device)
        most = min(question["tokens"], self.model.config.max_target_positions // 2 - 8)
        with torch.inference_mode():
            made = self.model.generate(
                features["input_features"].to(self.model.device, self.model.dtype),
                attention_mask=features["attention_mask"].to(self.model.device),
                max_new_tokens=most, do_sample=False, **more,
            )  # fmt: skip
        return {"text": self.processor.decode(made[0], skip_special_tokens=True).strip(), "language": None}

    def _language(self, code: str | None) -> dict[str, Any]:
        """What ``generate`` takes for a language. Raises BadRequest for one that the model does not know."""
        told = self.model.generation_config
        known = (
            [one.strip("<|>") for one in getattr(told, "lang_to_id", {})]
            if getattr(told, "is_multilingual", False)
            else ["en"]
        )
        if code is not None and code not in known:
            raise BadRequest(
                f"This Whisper does not know “{code}”; it knows {', '.join(sorted(known))}.",
                f"这个 Whisper 不会“{code}”；它会 {'、'.join(sorted(known))}。", "language",
            )  # fmt: skip
        if known == ["en"]:
            return {}
        return {"task": "transcribe"} | ({"language": code} if code else {})
