"""How a LoRA fits a model, for a reader and for a recipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starrynight.i18n import Text

EXAMPLES = 3  # names of left-over layers in a sentence
LISTED = 20  # and in a recipe


@dataclass(frozen=True)
class Fit:
    """How a LoRA fits a model: ``fit`` of ``layers`` are applied, ``left`` names the others. ``zero`` layers change nothing.

    ``kinds`` counts the applied layers by kind. ``multiplied_out``: layers whose packed weights had to be, to merge it.
    ``embeddings``: names of the textual inversions that its file holds, which apply where the prompt names them.
    """

    name: str
    file: str
    weights: tuple[float, float]
    fit: int
    layers: int
    left: tuple[str, ...] = ()
    kinds: tuple[tuple[str, int], ...] = ()
    zero: int = 0
    multiplied_out: int = 0
    embeddings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible values, for a recipe."""
        text, denoiser = self.weights
        return {
            "name": self.name, "file": self.file, "weight": denoiser, "text_weight": text, "fit": self.fit,
            "layers": self.layers, "left": list(self.left[:LISTED]), "kinds": dict(self.kinds), "zero": self.zero,
        } | ({"multiplied_out": self.multiplied_out} if self.multiplied_out else {}) | (
            {"embeddings": list(self.embeddings[:LISTED])} if self.embeddings else {}
        )  # fmt: skip

    def message(self) -> Text:
        return fit_message(self.to_dict())


def fit_message(fit: Mapping[str, Any]) -> Text:
    """The sentence of a ``Fit.to_dict``: how many layers fit, which are left over, and whether it does nothing."""
    en = f"{fit['fit']} of {fit['layers']} layers of {fit['file']} fit"
    zh = f"{fit['file']} 的 {fit['layers']} 层中有 {fit['fit']} 层匹配"
    if missing := fit["layers"] - fit["fit"]:
        names = ", ".join(fit["left"][:EXAMPLES]) + (", …" if missing > EXAMPLES else "")
        en, zh = f"{en}; left over: {names}", f"{zh}；未用：{names}"
    if wide := fit.get("multiplied_out"):
        en, zh = (
            f"{en}; {wide} packed layers are multiplied out for it",
            f"{zh}；为此还原了 {wide} 层的压缩权重",
        )
    if words := ", ".join(fit.get("embeddings", ())):
        en, zh = (
            f"{en}; it brings {words}, to be named in the prompt",
            f"{zh}；随附 {words}，写进提示词才起作用",
        )
    if fit["zero"] == fit["fit"]:
        return Text(f"{en}; all of them are zero, so it changes nothing", f"{zh}；全部为零，因此不起任何作用")
    if fit["zero"]:
        return Text(f"{en}; {fit['zero']} of them are zero", f"{zh}；其中 {fit['zero']} 层为零")
    return Text(en, zh)
