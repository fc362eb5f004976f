"""Contact sheets: paint a table of prompts with a saved Firefly and lay the pictures out with their words.

Uses the stock ZImagePipeline, so a sheet also proves that the saved weights are what the pipeline expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

STYLES = (
    ("梵高油画，厚重的笔触", "Van Gogh oil painting, thick impasto"),
    ("莫奈印象派", "in the style of Monet"),
    ("敦煌壁画", "Dunhuang mural style"),
    ("水墨风格，留白", "chinese ink wash painting"),
    ("水彩，湿润的晕染", "soft watercolor"),
    ("赛博朋克，霓虹", "neon cyberpunk, glow"),
    ("浮世绘木版画", "japanese woodblock print"),
    ("点彩画", "pointillist painting"),
    ("色粉笔，绵软的质感", "pastel, velvety chalk"),
    ("剪纸艺术", "paper cut art"),
)
SCENES = (
    ("星夜下的静谧村庄", "a quiet village under a starry night, a crescent moon"),
    ("池塘里的睡莲，小桥", "water lilies on a pond, an arched bridge"),
    ("群山与宝塔，一轮太阳，黄昏", "mountains and a pagoda, a glowing sun, dusk"),
    ("海上一叶小舟，圆月", "a lone boat on the sea, a full moon"),
    ("雨夜都市，霓虹，水中倒影", "a city skyline in the rain at night, reflections in the water"),
    ("向日葵花田，白天", "a sunflower field by day"),
)


def prompts() -> list[str]:
    """Row by row, one scene across ten styles; languages take turns like a chessboard."""
    return [
        f"{scene[(row + column) % 2]}{('，', ', ')[(row + column) % 2]}{style[(row + column) % 2]}"
        for row, scene in enumerate(SCENES)
        for column, style in enumerate(STYLES)
    ]


def paint(
    pipe: Any,
    texts: Sequence[str],
    seed: int = 7,
    size: int = 256,
    steps: int = 8,
    guidance: float = 2.0,
    batch: int = 10,
) -> np.ndarray:
    """Pictures uint8 [N, size, size, 3]; picture i starts from noise of seed + i, whatever the batch."""
    import torch

    made = []
    pipe.set_progress_bar_config(disable=True)
    for start in range(0, len(texts), batch):
        part = list(texts[start : start + batch])
        draws = [torch.Generator().manual_seed(seed + start + index) for index in range(len(part))]
        made.append(
            pipe(
                part, height=size, width=size, num_inference_steps=steps, guidance_scale=guidance, generator=draws,
                output_type="np", max_sequence_length=128,
            ).images
        )  # fmt: skip
    return np.round(np.concatenate(made) * 255).astype(np.uint8)


def lay_out(pictures: np.ndarray, columns: int, gap: int = 4) -> np.ndarray:
    """One picture [H, W, 3] of ``pictures`` [N, S, S, 3] in rows of ``columns`` on white."""
    count, side = len(pictures), pictures.shape[1]
    rows = -(-count // columns)
    sheet = np.full((rows * (side + gap) + gap, columns * (side + gap) + gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = (gap + place * (side + gap) for place in divmod(index, columns))
        sheet[y : y + side, x : x + side] = picture
    return sheet


def write(
    folder: Path, out: Path, size: int = 256, steps: int = 8, guidance: float = 2.0, seed: int = 7
) -> None:
    """Paint the table with the pipeline in ``folder`` and write it as a JPEG or PNG."""
    import torch
    from diffusers import ZImagePipeline
    from PIL import Image

    pipe = ZImagePipeline.from_pretrained(folder, dtype=torch.bfloat16)
    pictures = paint(pipe, prompts(), seed, size, steps, guidance)
    Image.fromarray(lay_out(pictures, len(STYLES))).save(out, quality=88)
