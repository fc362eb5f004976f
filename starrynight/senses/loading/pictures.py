"""Eyes in a folder: Qwen3-VL, and any model of AutoModelForImageTextToText, such as BLIP."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen3VLProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.processing_utils import ProcessorMixin

from starrynight.errors import Unfit
from starrynight.senses.loading.files import from_folder


class StillProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor for pictures alone. The class itself wants a video processor, and that torchvision, which is no
    dependency; transformers reads the parts that it loads off the signature.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **_: Any
    ) -> None:
        for name, token in {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_start_token": "<|vision_start|>",
                            "vision_end_token": "<|vision_end|>"}.items():  # fmt: skip
            setattr(self, name, token)
            setattr(self, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class Pictures:
    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        kind = config.get("model_type")
        if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise Unfit(
                f"“{folder.name}” is a {kind or 'nameless'} model, which does not write about pictures; take Qwen3-VL or BLIP.",
                f"“{folder.name}”是 {kind or '未具名的'} 模型，不能描述图片；请用 Qwen3-VL 或 BLIP。",
            )
        processor = StillProcessor if str(kind).startswith("qwen3_vl") else AutoProcessor
        self.processor = processor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.model = from_folder(AutoModelForImageTextToText, folder)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(base64.b64decode(question["picture"]))).convert("RGB")
        inputs, told = self._inputs(picture, question["text"])
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            made = self.model.generate(**inputs, max_new_tokens=question["tokens"], do_sample=False)
        return {"text": self.processor.decode(made[0, told:], skip_special_tokens=True).strip()}

    def _inputs(self, picture: Image.Image, text: str) -> tuple[Any, int]:
        """The model's inputs, and how many of its tokens are the question. Captioners without a chat template get the picture
        alone."""
        if not getattr(self.processor, "chat_template", None):
            return self.processor(images=picture, return_tensors="pt"), 0
        content = [{"type": "text", "text": text}, {"type": "image", "image": picture}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )  # fmt: skip
        return inputs, inputs["input_ids"].shape[1]
