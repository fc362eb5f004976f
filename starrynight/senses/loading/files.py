"""What every real model's folder is checked for, and how its weights become a model of a transformers class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starrynight.errors import MissingFile, StarryError, Unfit
from starrynight.i18n import Text
from starrynight.models import weights


def refuse_unsafe(sense: str, folder: Path, config: dict[str, Any]) -> None:
    """Raises for a folder that would run its own code, has no safetensors, or whose tensors are in a quantised format."""
    if "auto_map" in config:
        raise Unfit(
            f"“{folder.name}” brings its own code (auto_map in config.json), which never runs here; take a model of a class that "
            "transformers has, or serve it elsewhere and give the address.",
            f"“{folder.name}”自带代码（config.json 中的 auto_map），这里从不运行；请换用 transformers 自有类的模型，或在别处提供服务并给出地址。",
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise _no_weights(sense, folder)
    for file in files:
        weights.header(file)
    if "quantization_config" in config:
        raise Unfit(
            f"“{folder.name}” is quantised (quantization_config); take the plain weights, or a .gguf of the model.",
            f"“{folder.name}”是量化模型（quantization_config）；请用原始权重，或该模型的 .gguf。",
        )
    weights.check_format(folder, files)


def _no_weights(sense: str, folder: Path) -> StarryError:
    pickles = [path for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    if not pickles:
        return MissingFile(
            f"“{folder}” has no .safetensors weights; download the model again.",
            f"“{folder}”没有 .safetensors 权重；请重新下载该模型。",
        )
    error = weights.pickled(pickles[0])
    if sense == "facets":  # SiameseUIE is published in this form only
        made = (
            'python -c "import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in '
            "torch.load('pytorch_model.bin', weights_only=True).items()}, 'model.safetensors')\""
        )
        error.en += f" Written anew in its folder, without running what it holds: {made}"
        error.zh += f"可在其文件夹中安全地改写一次（不执行其中代码）：{made}"
    return error


def from_folder(kind: Any, folder: Path) -> Any:
    """A model of a transformers class, on the best device that has room, for inference. Raises Unfit where the files do not fill
    it: transformers would fill the rest with random numbers.
    """
    model, report = kind.from_pretrained(
        folder, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )  # fmt: skip
    refuse_partial(folder, [*report["missing_keys"], *(str(one[0]) for one in report["mismatched_keys"])])
    return ready(model)


def refuse_partial(folder: Path, missing: list[str]) -> None:
    if missing:
        what = Text(
            f"{len(missing)} tensors of it, such as {sorted(missing)[0]}",
            f"其中 {len(missing)} 个张量（如 {sorted(missing)[0]}）",
        )
        raise Unfit(
            f"The files in “{folder.name}” do not hold {what.en}; download the model again.",
            f"“{folder.name}”的文件缺少{what.zh}；请重新下载该模型。",
        )


def ready(model: Any) -> Any:
    """For inference, on a card if its free memory holds the weights twice, else on the CPU, which computes float16 in float32."""
    import torch

    from starrynight.numerics import device

    size = sum(tensor.nbytes for tensor in model.parameters())
    card = device.torch_device(device.kind())
    free = device.free_bytes(card)
    if free is not None and free > 2 * size:
        return model.to(card).eval()
    if any(tensor.dtype == torch.float16 for tensor in model.parameters()):
        model = model.float()
    return model.eval()
