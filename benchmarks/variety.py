"""How far ``variety`` sets the seeds of one prompt apart, and what it costs: ``python benchmarks/variety.py``.

Apart: the mean FLIP (Andersson et al. 2020; 0: the same, 1: black against white) of all pairs of a prompt's seeds. Beside it,
the share of pictures whose own prompt explains them best among all prompts, by the model itself: the prompt under which the
denoiser's error at a few noise levels is least (Li et al., “Your Diffusion Model is Secretly a Zero-Shot Classifier”, ICCV 2023);
and the same of the denoiser's error under the own prompt, in dB against ``variety`` 0 (positive: less like what the model learned).
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import torch

from starrynight import studio
from starrynight.lab.metrics import flip
from starrynight.painting.painter import Painter

PROMPTS = (
    ("a village under the stars", "oil"), ("江雪，孤舟，远山", "ink"), ("a lighthouse by the sea at dusk", "pastel"),
    ("sunflowers before a wheat field at noon", "pointillism"),
)  # fmt: skip
LEVELS = (0.5, 0.7, 0.85)  # of the noise at which the denoiser is asked


def embedded(painter: Painter, words: str) -> list[torch.Tensor]:
    return painter.pipeline.encode_prompt(prompt=words, do_classifier_free_guidance=False, device="cpu")[0]


@torch.no_grad()
def errors(painter: Painter, pixels: np.ndarray, texts: list[list[torch.Tensor]]) -> list[float]:
    """The denoiser's mean squared error on a picture under each text; the same noise for all."""
    pipeline = painter.pipeline
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] * 2 - 1
    vae = pipeline.vae
    latents = vae.encode(image.to(vae.dtype)).latent_dist.mode().float()
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    dtype = next(pipeline.transformer.parameters()).dtype
    found = []
    for text in texts:
        total = 0.0
        for sigma in LEVELS:
            noisy = ((1 - sigma) * latents + sigma * noise).to(dtype).unsqueeze(2)
            time = torch.tensor([1 - sigma], dtype=dtype)
            (out,) = pipeline.transformer(list(noisy), time, text, return_dict=False)
            total += float((-out[0].float().squeeze(1) - (noise - latents)[0]).square().mean())
        found.append(total / len(LEVELS))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--amounts", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    args = parser.parse_args()
    painter, own, base = None, [], 0.0
    print(
        f"| variety | FLIP between seeds | own prompt is the best of {len(PROMPTS)} | error, dB |\n|---|---|---|---|"
    )
    for amount in args.amounts:
        apart, right, error = [], [], []
        for number, (prompt, style) in enumerate(PROMPTS):
            request = studio.make_request(
                prompt=prompt, style=style, seed=1, count=args.seeds, steps=args.steps, width=256, height=256,
                precision="float32", variety=amount,
            )  # fmt: skip
            if painter is None:
                painter = Painter.ready(request, device="cpu")
                from starrynight.painting import styles

                own = [embedded(painter, styles.styled(p, s)[0]) for p, s in PROMPTS]
            pictures = [one.pixels for one in painter.paint(request)]
            apart += [float(np.mean(flip(a, b)[1])) for a, b in itertools.combinations(pictures, 2)]
            for pixels in pictures:
                found = errors(painter, pixels, own)
                right.append(int(np.argmin(found)) == number)
                error.append(found[number])
        base = base or float(np.mean(error))
        loss = 10 * np.log10(np.mean(error) / base)
        print(
            f"| {amount:g} | {np.mean(apart):.3f} | {np.mean(right):.0%} of {len(right)} | {loss:+.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
