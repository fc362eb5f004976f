"""What a single-file checkpoint of several networks lacks: taken from a base that is here, and told; else named. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starrynight.errors import Unfit
from starrynight.i18n import Text
from starrynight.models import weights
from starrynight.models.weights import WeightFile

Files = dict[str, tuple[WeightFile, ...]]


def lacks(folder: Path, brought: Mapping[str, object]) -> list[str]:
    """The networks of the pipeline in ``folder`` that a file does not bring."""
    index = weights.components(weights.read_json(folder / "model_index.json"))
    optional = ("safety_checker", "image_encoder")
    return [
        name for name, kind in index.items() if weights.is_network(kind) and name not in (*brought, *optional)
    ]


def completed(path: Path, family: str, folder: Path, base: Path | None, files: Files) -> tuple[Path, Files]:
    """The folder and the weight files of the checkpoint at ``path``, whose own are ``files``: networks that it lacks come from
    ``folder``, or from ``base``, the model's diffusers folder. Raises Unfit, naming them, where neither has them.
    """
    missing = lacks(folder, files)
    if not missing:
        return folder, files
    for source in (folder, base):
        if source is not None and all(weights.any_weights(source / name) for name in missing):
            return source, {**files, **weights.of_folder(source, but=files)}
    raise _incomplete(path, family, missing)


def note(path: Path, base: str, names: list[str]) -> Text:
    """Says which networks the base brings for a file."""
    listed = ", ".join(names)
    return Text(
        f"{path.name} brings no {listed.replace(', ', ' and no ')}; {base}'s is used.",
        f"{path.name} 不含 {listed.replace(', ', '、')}，改用 {base} 的。",
    )


def _incomplete(path: Path, family: str, missing: list[str]) -> Unfit:
    options = [f"--transformer {path.name}"]
    options += ["--text-encoder FILE" for name in missing if name.startswith("text_encoder")]
    options += ["--vae FILE"] if "vae" in missing else []
    known = family == "Stable Diffusion XL"
    command = f"starry models add NAME {' '.join(options)} --base {'sdxl' if known else 'FOLDER'}"
    en, zh = (
        ("; or download the base: starry models pull sdxl", "；或下载底座：starry models pull sdxl")
        if known
        else (f" (a diffusers folder of {family})", f"（{family} 的 diffusers 文件夹）")
    )
    return Unfit(
        f"“{path.name}” brings no {' and no '.join(missing)}; put it together with files that you have: {command}{en}.",
        f"“{path.name}”不含 {'、'.join(missing)}；可用已有的文件拼装：{command}{zh}。",
    )
