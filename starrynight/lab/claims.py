"""The claims to reproduce, as they were made, and what the lab measures besides. Words and figures; no measurement.

The claims describe 1024×1024, 8 steps, CFG 2.0, on an A100 40 GB or an RTX 4090; ``X`` entries are the lab's own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """``float16`` and ``bfloat16`` are the figures claimed ("" where the claim names none), "English|中文" where words are."""

    id: str
    en: str
    zh: str
    float16: str = ""
    bfloat16: str = ""

    def claimed(self, lang: str) -> dict[str, str]:
        """The claimed figures by format."""
        told = {"float16": self.float16, "bfloat16": self.bfloat16}
        return {f: text.split("|")[-1 if lang.startswith("zh") else 0] for f, text in told.items()}

    def message(self, lang: str) -> str:
        return self.zh if lang.startswith("zh") else self.en


CLAIMS = (
    Claim("C1", "Memory for one picture", "一幅画占用的内存", "18.2 GB", "15.7 GB"),
    Claim("C2", "Time to the first picture, 8 steps", "首图时间（8 步）", "3.8 s", "3.6 s"),
    Claim("C3", "Colour: mean ΔE (lower is truer)", "色彩：平均 ΔE（越低越真）", "22.4", "18.1"),
    Claim("C4", "Shadow detail: PSNR in dark regions", "暗部细节：暗区 PSNR", "24.7 dB", "27.9 dB"),
    Claim("C5", "Black pictures in 100", "每百幅中的黑图", "7", "0"),
    Claim("C6", "Gradients in LoRA training", "LoRA 训练中的梯度", "needs loss scaling|需损失缩放", "out of the box|直接可用"),
    Claim("C7", "Norms of three UNet layers over 1000 noise steps", "三层 UNet 在 1000 个噪声步上的范数",
          "0.82±0.41 · 12.7±9.3 · −3.1±15.6", "0.85±0.38 · 11.2±5.1 · −2.9±8.2"),
    Claim("C8", "Latent range at t = 1000", "t = 1000 时潜变量的范围", "±Inf, NaN possible|可能出现 ±Inf、NaN", "−5.2 … 4.8"),
    Claim("C9", "Runs that meet NaN at steps 2–3 and fall back to Euler a", "第 2–3 步遇到 NaN 而退回 Euler a 的比例", "12 %", "0"),
    Claim("C10", "An extreme −6.2 becomes −Inf at the decoder's clamp: black", "解码钳位时 −6.2 变成 −Inf，画面变黑", "yes|是", "no|否"),
    Claim("C11", "Activation memory: down / mid / decoder / sum, MB", "激活内存：下采样 / 中段 / 解码器 / 合计，MB",
          "1240 / 860 / 310 / 2410", "992 / 688 / 248 / 1928"),
    Claim("C12", "Model CPU offload frees a further", "模型 CPU 卸载再省", "", "3.1 GB"),
    Claim("C13", "Loading safetensors", "载入 safetensors", "2.1 s", "1.7 s"),
    Claim("C14", "Highlights: brightest star core (over-exposed from 0.98)", "高光：最亮的星核（0.98 起为过曝）", "0.98+", "0.92"),
    Claim("C15", "A roof in shadow: gain in PSNR", "阴影里的屋顶：PSNR 提升", "", "+3.2 dB"),
    Claim("C16", "Banding in a blue-to-violet sky", "蓝紫天空的色带", "2–3 visible steps|2–3 级可见", "none|无"),
    Claim("C17", "Format: sign/exponent/fraction bits, range", "格式：符号/指数/尾数位与范围", "1/5/10, 1e-5 … 1e5", "1/8/7, 1e-38 … 1e38"),
    Claim("C18", "Old cards (GTX 1080 Ti): no native bfloat16", "老显卡（GTX 1080 Ti）：没有原生 bfloat16", "faster there|较快", "emulated, slower|仿真，较慢"),
    Claim("C19", "Very fine texture (10 fraction bits)", "极细的纹理（10 位尾数）", "finer|更细", "rougher|更粗"),
    Claim("C20", "What the saved memory buys", "省下的内存能做什么", "", "one more LoRA, or batch 2|多一个 LoRA，或批量 2"),
    Claim("X1", "How like the float32 picture: PSNR, SSIM, FLIP", "与 float32 画面的相似度：PSNR、SSIM、FLIP"),
    Claim("X2", "How far the latents drift from float32, step by step", "潜变量逐步偏离 float32 的程度"),
    Claim("X3", "Where in the network the error is born, and the ranges", "误差生于网络何处；各层的数值范围"),
)  # fmt: skip
BY_ID = {claim.id: claim for claim in CLAIMS}
COMPARISONS = tuple(f"C{n}" for n in range(1, 12))
