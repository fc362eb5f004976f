"""What a model's files say about how it is painted with, and the settings that follow.

A single file speaks through marker tensors (``v_pred``, ``ztsnr``: ComfyUI's) and its header's metadata: ``modelspec.*``
(Stability's ModelSpec 1.0, https://github.com/Stability-AI/ModelSpec) and ``ss_*`` (kohya's sd-scripts). A diffusers folder
speaks through its pipeline class and its configurations. Torch-free; ``apply`` alone builds a scheduler.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starrynight.errors import BadFile, BadRequest, Unfit
from starrynight.i18n import Text
from starrynight.models.single_file import COMFY_PREFIX
from starrynight.models.weights import config_or_empty
from starrynight.text import clean, excerpt

EDM = frozenset({"edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min"})
# Tensors that say how a model is sampled and fill no parameter.
MARKERS = frozenset({"v_pred", "ztsnr"}) | EDM

# How ModelSpec, ComfyUI, sd-scripts and OneTrainer write what the denoiser predicts.
_PREDICTION_WORDS = {
    "epsilon": ("epsilon", "eps", "noise"),
    "v_prediction": ("v", "v_prediction", "v_pred", "vpred", "v-prediction", "velocity"),
    "sample": ("sample", "x0", "original_sample"),
    "flow": ("flow", "flow_prediction", "flow_matching", "rectified_flow", "rf"),
}
_PREDICTION_KEYS = ("modelspec.prediction_type", "modelspec.predict_type", "modelspec.predict_key")

# Lowest share of the signal that stays at the last timestep, as diffusers' Euler scheduler has it: 0 has no finite σ.
LEAST_ALPHA = 2**-24

# Samplers of noise prediction whose schedulers do not take a prediction of the sample itself (diffusers 0.42).
NO_SAMPLE = ("EulerAncestralDiscreteScheduler", "PNDMScheduler")
# diffusers' flow schedulers that a U-Net pipeline can call: the others lack ``scale_model_input``.
FLOW_FOR_UNET = ("dpmpp_2m", "unipc")


@dataclass(frozen=True, kw_only=True)
class Habits:
    """``prediction``: what the denoiser predicts, a word of ``request.PREDICTIONS``; None: as its scheduler is configured.
    ``zero_snr``: trained to zero terminal SNR (arXiv 2305.08891). ``clip_skip``: CLIP layers to skip, as diffusers counts.

    ``conflict``: the file contradicts itself in a way that only ``--prediction`` decides. ``notes``: what else it says.
    ``pipeline``: the pipeline class, if known. ``own_flow``: whether the architecture was made for flow matching.
    ``takes_negatives``: False where the pipeline ignores a negative prompt. ``unknown``: only a hub id is known, so nothing can
    be refused for what the model is.
    """

    prediction: str | None = None
    zero_snr: bool = False
    clip_skip: int | None = None
    trigger: str = ""
    conflict: Text | None = None
    notes: tuple[Text, ...] = ()
    pipeline: str = ""
    own_flow: bool = True
    takes_negatives: bool = True
    unknown: bool = False

    @property
    def weighted(self) -> bool:
        """Whether the text encoders are CLIP's alone, so that weights in a prompt apply."""
        return self.pipeline in CLIP_PIPELINES


SILENT = Habits()


# -- single files ----------------------------------------------------------------------------------------------------


def is_marker(name: str) -> bool:
    """Whether a tensor says something about the model instead of filling a parameter."""
    return name.removeprefix(COMFY_PREFIX) in MARKERS


def of_file(header: Mapping[str, Any], flow: bool, layout: str) -> Habits:
    """What a single file's header says. ``flow`` and ``layout`` are those of its recognised architecture.

    Raises Unfit for a file sampled by EDM's schedule, which single files here are not.
    """
    marks = {name.removeprefix(COMFY_PREFIX) for name in header if is_marker(name)}
    if marks & EDM:
        names = ", ".join(sorted(marks & EDM))
        raise Unfit(
            f"This file is sampled by EDM's schedule ({names}), which is not read from a single file; use the model's diffusers "
            "folder.",
            f"此文件采用 EDM 噪声调度（{names}），单文件载入不支持；请改用该模型的 diffusers 文件夹。",
        )
    said = _metadata(header)
    claims = dict(_claims(marks, said))
    predictions = set(claims.values())
    prediction = next(iter(predictions)) if len(predictions) == 1 else None
    zero = "ztsnr" in marks or said.get("ss_zero_terminal_snr", "").lower() == "true"
    conflict = _conflict(claims, prediction, zero, flow)
    return Habits(
        prediction=None if prediction == ("flow" if flow else "") else prediction,
        zero_snr=zero and not flow,
        clip_skip=_clip_skip(said) if layout == "Stable Diffusion 1" else None,
        trigger=said.get("modelspec.trigger_phrase", ""),
        conflict=conflict,
        notes=tuple(_notes(said, layout)),
        own_flow=flow,
    )  # fmt: skip


def _metadata(header: Mapping[str, Any]) -> dict[str, str]:
    found = header.get("__metadata__")
    return {key: clean(value) for key, value in found.items()} if isinstance(found, Mapping) else {}


def _claims(marks: set[str], said: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """(where it is said, prediction) for each statement; an unknown word is its own prediction."""
    if "v_pred" in marks:
        yield "v_pred", "v_prediction"
    if said.get("ss_v_parameterization", "").lower() == "true":
        yield "ss_v_parameterization", "v_prediction"
    for key in _PREDICTION_KEYS:
        if word := said.get(key, "").lower():
            known = (name for name, words in _PREDICTION_WORDS.items() if word in words)
            yield f"{key}={excerpt(word)}", next(known, word)


def _conflict(claims: Mapping[str, str], prediction: str | None, zero: bool, flow: bool) -> Text | None:
    said = ", ".join(claims)
    unknown = [place for place, word in claims.items() if word not in _PREDICTION_WORDS]
    if unknown:
        return Text(f"it says {unknown[0]}, which is not known here", f"其中写着 {unknown[0]}，此处不认识")
    if len(set(claims.values())) > 1:
        return Text(f"it contradicts itself: {said}", f"它自相矛盾：{said}")
    if flow and prediction not in (None, "flow"):
        return Text(f"{said} means nothing for a flow-matching model", f"{said} 对流匹配模型没有意义")
    if zero and not flow and prediction in (None, "epsilon"):
        return Text(
            "zero terminal SNR is marked, and a prediction of the noise is undefined there",
            "标明零终端信噪比，而预测噪声在该处没有定义",
        )
    return None


def _clip_skip(said: Mapping[str, str]) -> int | None:
    """diffusers counts layers from the last but one: A1111's clip skip 2 is its 1."""
    layer = said.get("modelspec.encoder_layer") or said.get("ss_clip_skip") or ""
    return int(layer) - 1 if re.fullmatch(r"[2-9]|1[0-2]", layer) else None


# The beginnings of ModelSpec's architecture ids → beginnings of the layouts' names that they agree with.
_ARCHITECTURES = {
    "stable-diffusion-xl": "Stable Diffusion XL",
    "stable-diffusion-v1": "Stable Diffusion 1",
    "stable-diffusion-v2": "Stable Diffusion 2",
    "stable-diffusion-3": "Stable Diffusion 3",
    "flux": "Flux",
    "z-image": "Z-Image",
}


def _notes(said: Mapping[str, str], layout: str) -> Iterable[Text]:
    architecture = said.get("modelspec.architecture", "").lower()
    if said.get("ss_v2", "").lower() == "true":
        architecture = architecture or "stable-diffusion-v2 (ss_v2)"
    meant = next((name for start, name in _ARCHITECTURES.items() if architecture.startswith(start)), None)
    if meant and not layout.startswith(meant):
        yield Text(
            f"The file calls itself {excerpt(architecture)}; its tensors are those of {layout}, which is painted.",
            f"文件自称 {excerpt(architecture)}，其张量却是 {layout} 的；按后者作画。",
        )
    if hint := said.get("modelspec.usage_hint"):
        yield Text(f"The file's usage hint: {excerpt(hint)}", f"文件附带的使用提示：{excerpt(hint)}")
    span = re.findall(r"\d+", said.get("modelspec.timestep_range", ""))
    if len(span) == 2 and (int(span[0]), int(span[1])) not in ((0, 999), (0, 1000), (1, 1000)):
        yield Text(
            f"The file is made for timesteps {span[0]} to {span[1]} only; all of them are painted with it.",
            f"此文件只为时间步 {span[0]} 到 {span[1]} 训练；这里用它走完所有时间步。",
        )


def settings_of_file(header: Mapping[str, Any], habits: Habits, lowest: int, highest: int) -> dict[str, Any]:
    """The fields of a ModelSpec that a single file's header changes: ``habits``, and flow, size and licence if it says."""
    said = _metadata(header)
    found: dict[str, Any] = {"habits": habits}
    if habits.prediction == "flow":
        found["flow"] = True
    if licence := said.get("modelspec.license"):
        found["licence"] = excerpt(licence)
    if sides := re.fullmatch(r"(\d{2,5})(?:\s*[x×]\s*(\d{2,5}))?", said.get("modelspec.resolution", "")):
        area = int(sides[1]) * int(sides[2] or sides[1])
        size = round(area**0.5 / 64) * 64  # a square of the same area
        if lowest <= size <= highest:
            found["size"] = size
    return found


# -- folders ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Defaults:
    """A pipeline class's own defaults. ``tokens``: what its text encoder reads of a prompt; None: not stated.
    ``languages``: those its encoders were trained on; empty: not known. ``negatives``: it applies a negative prompt.
    """

    steps: int
    guidance: float
    tokens: int | None = None
    languages: tuple[str, ...] = ()
    negatives: bool = True


EN, BOTH = ("en",), ("zh", "en")

# From the signatures of diffusers 0.42's ``__call__`` (tests/test_habits.py compares), but for SDXL's 30 steps, which are
# the catalogue's; CLIP reads 77 tokens.
DEFAULTS = {
    "StableDiffusionPipeline": Defaults(50, 7.5, 77, EN),
    "StableDiffusionXLPipeline": Defaults(30, 5.0, 77, EN),
    "LatentConsistencyModelPipeline": Defaults(4, 8.5, 77, EN, negatives=False),
    "StableDiffusion3Pipeline": Defaults(28, 7.0, 256, EN),
    "FluxPipeline": Defaults(28, 3.5, 512, EN, negatives=False),
    "Flux2Pipeline": Defaults(50, 4.0, 512, negatives=False),
    "Flux2KleinPipeline": Defaults(50, 4.0, 512, negatives=False),
    "ZImagePipeline": Defaults(50, 5.0, 512, BOTH),
    "QwenImagePipeline": Defaults(50, 4.0, 512, BOTH),
    "ChromaPipeline": Defaults(35, 5.0, 512, EN),
    "PixArtAlphaPipeline": Defaults(20, 4.5, 120, EN),
    "PixArtSigmaPipeline": Defaults(20, 4.5, 300, EN),
    "SanaPipeline": Defaults(20, 4.5, 300),
    "SanaSprintPipeline": Defaults(2, 4.5, 300, negatives=False),
    "LuminaPipeline": Defaults(30, 4.0, 256),
    "Lumina2Pipeline": Defaults(30, 4.0, 256),
    "HunyuanDiTPipeline": Defaults(50, 5.0, None, BOTH),
    "HiDreamImagePipeline": Defaults(50, 5.0, 128),
    "AuraFlowPipeline": Defaults(50, 3.5, 256, EN),
    "Kandinsky3Pipeline": Defaults(25, 3.0),
    "Kandinsky5T2IPipeline": Defaults(50, 3.5, 512),
    "CogView3PlusPipeline": Defaults(50, 5.0, 224),
    "CogView4Pipeline": Defaults(50, 5.0, 1024, BOTH),
    "OmniGenPipeline": Defaults(50, 2.5, negatives=False),
    "BriaPipeline": Defaults(30, 5.0, 128),
    "BriaFiboPipeline": Defaults(30, 5.0, 3000),
    "OvisImagePipeline": Defaults(50, 5.0, 256),
    "LongCatImagePipeline": Defaults(50, 4.5),
    "ErnieImagePipeline": Defaults(50, 4.0),
    "PRXPipeline": Defaults(28, 4.0),
}
CLIP_PIPELINES = (
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline",
    "StableDiffusionImg2ImgPipeline", "StableDiffusionXLImg2ImgPipeline",
)  # fmt: skip
# Makers' own models of these classes that are distilled to few steps without guidance carry “turbo” in their names.
TURBO_STEPS = {
    "StableDiffusionPipeline": 4, "StableDiffusionXLPipeline": 4, "StableDiffusion3Pipeline": 4, "ZImagePipeline": 9,
}  # fmt: skip


def settings_of_folder(folder: Path, name: str) -> dict[str, Any]:
    """The fields of a ModelSpec that a diffusers folder's class and configurations decide, where it is no catalogue row.

    ``name``: what it is called, a hub id or a folder's name.
    """
    index = config_or_empty(folder / "model_index.json")
    pipeline = str(index.get("_class_name", ""))
    size = native_size(folder)
    found: dict[str, Any] = {} if size is None else {"size": size}
    if (default := DEFAULTS.get(pipeline)) is None:
        return found
    found |= {
        "steps": default.steps, "guidance": default.guidance, "max_tokens": default.tokens, "languages": default.languages,
        "negatives": default.negatives,
    }  # fmt: skip
    if (steps := TURBO_STEPS.get(pipeline)) and "turbo" in f"{name} {index.get('_name_or_path', '')}".lower():
        found |= {"steps": steps, "guidance": 0.0, "guided": False}
    if pipeline == "FluxPipeline" and not config_or_empty(folder / "transformer" / "config.json").get(
        "guidance_embeds"
    ):
        found |= {"steps": 4, "guidance": 0.0, "guided": False, "max_tokens": 256}  # schnell's
    return found


def of_folder(folder: Path, flow: bool) -> Habits:
    """What a folder's model_index.json and scheduler_config.json say, which diffusers obeys by itself when it loads it."""
    pipeline = str(config_or_empty(folder / "model_index.json").get("_class_name", ""))
    negatives = DEFAULTS[pipeline].negatives if pipeline in DEFAULTS else True
    scheduler = config_or_empty(folder / "scheduler" / "scheduler_config.json")
    notes: tuple[Text, ...] = ()
    if scheduler.get("rescale_betas_zero_snr") and scheduler.get("timestep_spacing") != "trailing":
        notes = (
            Text(
                "Its scheduler has zero terminal SNR with “leading” or “linspace” spacing, which does not begin at the last "
                "timestep (arXiv 2305.08891); set timestep_spacing to trailing in scheduler_config.json.",
                "其调度器为零终端信噪比，时间步却不从末端开始（arXiv 2305.08891）；请在 scheduler_config.json 中把 "
                "timestep_spacing 设为 trailing。",
            ),
        )
    return Habits(pipeline=pipeline, own_flow=flow, takes_negatives=negatives, notes=notes)


def before_download(hub: str, steps: int, guidance: float, size: int) -> dict[str, Any]:
    """The fields of a ModelSpec of which only the hub id is known: what a model_index.json in huggingface_hub's cache says, else
    none but a note with the settings that are taken otherwise. ``size``: pixels a side.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(hub, "model_index.json")
    if isinstance(cached, str):
        folder = Path(cached).parent
        return settings_of_folder(folder, hub) | {"habits": replace(of_folder(folder, True), unknown=True)}
    note = Text(
        f"Nothing is known of {hub} before its download; where the request does not say otherwise, it takes {steps} steps, "
        f"guidance {guidance:g} and {size}×{size} pixels. "
        f"starry models pull {hub} --small fetches what it says of itself.",
        f"下载之前对 {hub} 一无所知；请求没有写明的，采用 {steps} 步、引导 {guidance:g}、{size}×{size} 像素。"
        f"starry models pull {hub} --small 可取来它对自身的说明。",
    )
    return {"habits": Habits(unknown=True, notes=(note,))}


def native_size(folder: Path) -> int | None:
    """The side in pixels that the denoiser was trained on: its ``sample_size`` times the autoencoder's reduction."""
    for name in ("unet", "transformer"):
        sample = config_or_empty(folder / name / "config.json").get("sample_size")
        if isinstance(sample, int) and (factor := reduction(folder)) and 256 <= sample * factor <= 4096:
            return sample * factor
    return None


def reduction(folder: Path) -> int | None:
    """Pixels to a latent along a side; None if the autoencoder's configuration does not tell."""
    config = config_or_empty(folder / "vae" / "config.json")
    blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    return 2 ** (len(blocks) - 1) if isinstance(blocks, list) and blocks else None


# -- a request's own prediction --------------------------------------------------------------------------------------


def asked(habits: Habits, prediction: str | None, name: Text) -> Habits:
    """``habits`` under a request's ``prediction``, a word of ``request.PREDICTIONS`` or None.

    Raises BadFile for a file that contradicts itself if the request does not decide, and BadRequest for a prediction that
    means nothing for the model ``name``.
    """
    if habits.unknown:  # judged again once its files are here
        return habits
    if prediction is None:
        if habits.conflict:
            raise BadFile(
                f"{name.en} does not say clearly what it predicts: {habits.conflict.en}. Give --prediction (epsilon, "
                "v_prediction, sample or flow).",
                f"无法确定 {name.zh} 的预测类型：{habits.conflict.zh}。请给出 --prediction（epsilon、v_prediction、sample 或 flow）。",
            )
        return habits
    if habits.own_flow and prediction != "flow":
        raise BadRequest(
            f"{name.en} is a flow-matching model; prediction {prediction} means nothing for it. Leave --prediction out.",
            f"{name.zh} 是流匹配模型，预测类型 {prediction} 对它没有意义；请去掉 --prediction。",
        )
    zero = habits.zero_snr and prediction in ("v_prediction", "sample")
    return replace(habits, prediction=None if habits.own_flow else prediction, zero_snr=zero, conflict=None)


def check_sampler(habits: Habits, sampler: str, class_name: str, name: Text) -> None:
    """Raises BadRequest for a sampler whose scheduler does not know what the model predicts."""
    barred = habits.prediction == "sample" and class_name in NO_SAMPLE
    if habits.prediction == "flow" and not habits.own_flow:
        barred = sampler not in FLOW_FOR_UNET
    if barred:
        raise BadRequest(
            f"Sampler {sampler} does not take the prediction of {name.en} ({habits.prediction}); leave --sampler out or use "
            f"{'dpmpp_2m' if habits.prediction == 'flow' else 'ddim'}.",
            f"采样器 {sampler} 不支持 {name.zh} 的预测类型（{habits.prediction}）；请去掉 --sampler，或改用 "
            f"{'dpmpp_2m' if habits.prediction == 'flow' else 'ddim'}。",
        )


# -- schedulers ------------------------------------------------------------------------------------------------------


def apply(scheduler: Any, habits: Habits) -> Any:
    """The pipeline's scheduler as ``habits`` want it; itself where they say nothing.

    Zero terminal SNR takes rescaled betas and “trailing” timesteps, which begin at the last one (arXiv 2305.08891). A U-Net
    that predicts flow takes DPM-Solver++ over flow's noise levels.
    """
    import diffusers

    if habits.prediction is None and not habits.zero_snr:
        return scheduler
    kind = type(scheduler)
    if habits.prediction == "flow":
        changes: dict[str, Any] = {
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
            "flow_shift": 1.0,
        }
        return diffusers.DPMSolverMultistepScheduler.from_config(scheduler.config, **changes)
    changes = {"prediction_type": habits.prediction} if habits.prediction else {}
    if habits.zero_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if habits.prediction == "sample" and kind.__name__ in NO_SAMPLE:
        kind = diffusers.DDIMScheduler
    return configured(kind, scheduler.config, **changes)


def configured(kind: Any, config: Mapping[str, Any], **changes: Any) -> Any:
    """``kind.from_config``, with zero terminal SNR kept for schedulers that have no ``rescale_betas_zero_snr`` of their own.

    Those take the rescaled betas themselves, as ``trained_betas``. diffusers would leave the setting out with a warning.
    """
    settings = {**config, **changes}
    own = "rescale_betas_zero_snr" in kind.__init__.__wrapped__.__code__.co_varnames
    if settings.get("rescale_betas_zero_snr") and not own and settings.get("trained_betas") is None:
        changes = {**changes, "trained_betas": _rescaled(kind.from_config(config).alphas_cumprod)}
    return kind.from_config(config, **changes)


def _rescaled(alphas_cumprod: Any) -> list[float]:
    """The betas whose last ᾱ is ``LEAST_ALPHA``: √ᾱ shifted and scaled to end at 0 (arXiv 2305.08891, algorithm 1)."""
    import torch

    root = alphas_cumprod.double().sqrt()
    first, last = root[0].clone(), root[-1].clone()
    bars = ((root - last) * first / (first - last)) ** 2
    bars[-1] = LEAST_ALPHA
    betas = 1 - torch.cat([bars[:1], bars[1:] / bars[:-1]])
    return [float(beta) for beta in betas]
