"""What the tensors of a LoRA layer add to a weight: one formula for each kind, in the precision of its arguments.

Sources: LoRA (arXiv 2106.09685), LoCon, LoHa, LoKr, GLoRA, IA3, diag-OFT and BOFT as LyCORIS defines them
(github.com/KohakuBlueleaf/LyCORIS, ``lycoris/modules``; arXiv 2309.14859), DoRA (arXiv 2402.09353). ComfyUI's
``weight_adapter`` merges with the same formulas. All are linear in the weight that a user gives: W' = W + weight · ΔW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from starrynight.models.adapter_file import AdapterLayer

Parts = Mapping[str, Tensor]
Difference = Callable[[Parts, Tensor, AdapterLayer], Tensor]

# Kind → parts that make it, parts it may have besides. The order is that of the table in docs/painting.md.
KINDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "LoRA": (frozenset(("down", "up")), frozenset(("mid",))),
    "LoHa": (frozenset(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")), frozenset(("hada_t1", "hada_t2"))),
    "LoKr": (frozenset(), frozenset(("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"))),
    "GLoRA": (frozenset(("a1", "a2", "b1", "b2")), frozenset()),
    "OFT": (frozenset(("oft_blocks",)), frozenset(("rescale",))),
    "IA3": (frozenset(("weight", "on_input")), frozenset()),
    "difference": (frozenset(("diff",)), frozenset()),
    "norm": (frozenset(("w_norm",)), frozenset()),
}  # fmt: skip
BIASES = frozenset(("up_bias", "diff_b", "b_norm"))


def kind_of(layer: AdapterLayer) -> str | None:
    """The kind of a layer, "bias" for one that adds to a bias alone; None for parts that make no kind, or too many."""
    own = layer.parts.keys() - BIASES - {"magnitude"}
    if layer.unknown or layer.refused:
        return None
    if not own:
        return "bias" if layer.parts.keys() & BIASES and "magnitude" not in layer.parts else None
    for kind, (needed, more) in KINDS.items():
        if needed <= own <= needed | more and (needed or _is_lokr(own)):
            return kind
    return None


def label_of(layer: AdapterLayer) -> str:
    """The kind as a reader knows it: "DoRA", "LoRA with Tucker", "BOFT", …"""
    kind = kind_of(layer) or "unknown"
    if kind == "LoRA" and "mid" in layer.parts:
        kind = "LoCon"
    if kind == "OFT" and layer.parts["oft_blocks"].dim() == 4:
        kind = "BOFT"
    if "magnitude" in layer.parts:
        return "DoRA" if kind == "LoRA" else f"{kind} + DoRA"
    return kind


def weight_difference(layer: AdapterLayer, weight: Tensor) -> Tensor | None:
    """ΔW of a layer for ``weight`` [out, in, …], in its shape and precision; None for a layer that adds to a bias alone.

    Raises ValueError or RuntimeError where the parts do not fit the weight. Works on meta tensors.
    """
    kind = kind_of(layer)
    if kind == "bias":
        return None
    if kind is None:
        raise ValueError(f"{layer.stem} is of no kind that is known")
    parts = {name: tensor.to(weight.device, weight.dtype) for name, tensor in layer.parts.items()}
    difference = _DIFFERENCES[kind](parts, weight, layer)
    if "magnitude" in parts:
        difference = _decomposed(weight + difference, parts["magnitude"]) - weight
    return difference


def bias_difference(layer: AdapterLayer, bias: Tensor) -> Tensor | None:
    """What a layer adds to ``bias`` [out]; None where it adds nothing. Raises ValueError where it does not fit."""
    total = None
    for name in BIASES & layer.parts.keys():
        added = layer.parts[name].to(bias.device, bias.dtype)
        if name == "up_bias":  # inside the LoRA's second matrix, so under its scale
            added = added * scale_of(layer, layer.parts["down"].shape[0])
        if added.numel() != bias.numel():
            raise ValueError(f"{layer.stem} has a bias of {added.numel()}, the layer one of {bias.numel()}")
        total = added.reshape(bias.shape) if total is None else total + added.reshape(bias.shape)
    return total


def scale_of(layer: AdapterLayer, rank: int) -> float:
    """alpha / rank, or alpha / √rank where PEFT's configuration says so (arXiv 2312.03732)."""
    if layer.alpha is None:
        return 1.0
    return float(layer.alpha / (rank**0.5 if layer.rank_stabilised else rank))


def _is_lokr(parts: frozenset[str] | set[str]) -> bool:
    halves = (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b")), (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    return all(sum(set(form) <= parts for form in half) == 1 for half in halves)


def _shaped(difference: Tensor, weight: Tensor) -> Tensor:
    """``difference`` in the shape of ``weight``; only a kernel's dimensions may be written apart or together."""
    if difference.shape[0] != weight.shape[0] or difference.numel() != weight.numel():
        raise ValueError(f"a difference of {[*difference.shape]} does not fit a weight of {[*weight.shape]}")
    return difference.reshape(weight.shape)


def _lora(p: Parts, weight: Tensor, layer: AdapterLayer) -> Tensor:
    up, down = p["up"].flatten(1), p["down"].flatten(1)
    if "mid" in p:  # a k×k kernel between two 1×1 ones: Σ up[o,a] mid[a,b,…] down[b,i]
        product = torch.einsum("oa,ab...,bi->oi...", up, p["mid"], down)
    else:
        product = up @ down
    return _shaped(product, weight) * scale_of(layer, down.shape[0])


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ core[i,j,…] a[i,out] b[j,in]"""
    return torch.einsum("ij...,io,jn->on...", core, a, b)


def _loha(p: Parts, weight: Tensor, layer: AdapterLayer) -> Tensor:
    halves = []
    for half in ("1", "2"):
        a, b, core = p[f"hada_w{half}_a"], p[f"hada_w{half}_b"], p.get(f"hada_t{half}")
        halves.append(a.flatten(1) @ b.flatten(1) if core is None else _tucker(core, a, b))
    return _shaped(halves[0] * halves[1], weight) * scale_of(layer, p["hada_w1_b"].shape[0])


def _lokr(p: Parts, weight: Tensor, layer: AdapterLayer) -> Tensor:
    rank = None  # with both factors whole there is none, and alpha means nothing
    if (first := p.get("lokr_w1")) is None:
        first, rank = p["lokr_w1_a"] @ p["lokr_w1_b"], p["lokr_w1_b"].shape[0]
    if (second := p.get("lokr_w2")) is None:
        a, b, core = p["lokr_w2_a"], p["lokr_w2_b"], p.get("lokr_t2")
        second, rank = a @ b.flatten(1) if core is None else _tucker(core, a, b), b.shape[0]
    first = first.reshape(*first.shape, *[1] * (second.dim() - first.dim()))
    return _shaped(torch.kron(first, second.contiguous()), weight) * (
        1.0 if rank is None else scale_of(layer, rank)
    )


def _glora(p: Parts, weight: Tensor, layer: AdapterLayer) -> Tensor:
    """W·A + B, A and B of low rank. LyCORIS before 2.0 wrote each pair in the other order."""
    a1, a2, b1, b2 = (p[name].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    old = b2.shape[1] == b1.shape[0] == a1.shape[0] == a2.shape[1]
    new = b2.shape[0] == b1.shape[1] == a1.shape[1] == a2.shape[0]
    if new and not (old and a2.shape[0] == weight.shape[0] == weight.shape[1]):
        inner, added, rank = a1 @ a2, b1 @ b2, a2.shape[0]
    elif old:
        inner, added, rank = a2 @ a1, b2 @ b1, a1.shape[0]
    else:
        raise ValueError("the factors of GLoRA have different ranks")
    through = torch.einsum("oi...,ij->oj...", weight, inner)
    return (through + _shaped(added, weight)) * scale_of(layer, rank)


def _rotations(p: Parts, weight: Tensor, layer: AdapterLayer) -> Tensor:
    """Cayley's orthogonal matrices (I + Q)(I − Q)⁻¹ of Q = blocks − blocksᵀ. Alpha bounds the norm of Q."""
    blocks = p["oft_blocks"]
    skew = blocks - blocks.transpose(-1, -2)
    if layer.alpha:
        bound = layer.alpha * weight.shape[0]
        skew = skew * (bound / (skew.norm() + 1e-8)).clamp(max=1)
    one = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    return (one + skew) @ torch.linalg.inv(one - skew)


def _oft(p: Parts, weight: Tensor, layer: AdapterLayer) -> Tensor:
    rotations, size = _rotations(p, weight, layer), p["oft_blocks"].shape[-1]
    turned = weight
    if rotations.dim() == 3:
        turned = torch.einsum(
            "knm,kn...->km...", rotations, weight.unflatten(0, (len(rotations), size))
        ).flatten(0, 1)
    else:
        for level, rotation in enumerate(rotations):  # BOFT: a butterfly of block rotations
            turned = _butterfly(turned, rotation, 2**level * (size // 2), size)
    if "rescale" in p:
        turned = turned * p["rescale"].reshape(-1, *[1] * (weight.dim() - 1))
    return turned - weight


def _butterfly(weight: Tensor, rotation: Tensor, stride: int, size: int) -> Tensor:
    paired = weight.unflatten(0, (-1, 2, stride)).transpose(1, 2).flatten(0, 2).unflatten(0, (-1, size))
    turned = torch.einsum("bij,bj...->bi...", rotation, paired)
    return turned.flatten(0, 1).unflatten(0, (-1, stride, 2)).transpose(1, 2).flatten(0, 2)


def _ia3(p: Parts, weight: Tensor, layer: AdapterLayer) -> Tensor:
    on_input = bool(layer.parts["on_input"])
    shape = [1] * weight.dim()
    shape[1 if on_input else 0] = -1
    return _shaped(weight * p["weight"].reshape(shape), weight)


def _whole(name: str) -> Difference:
    def difference(p: Parts, weight: Tensor, layer: AdapterLayer) -> Tensor:
        if name == "diff" and p[name].shape != weight.shape:
            raise ValueError(f"a difference of {[*p[name].shape]} does not fit a weight of {[*weight.shape]}")
        return _shaped(p[name], weight)

    return difference


def _decomposed(weight: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA: ``weight`` with its norms replaced by ``magnitude``.

    The norms are those of output rows where the magnitude has one number for each, as PEFT and LyCORIS with
    ``wd_on_out`` train; [1, in] has one for each input, as LyCORIS trained before.
    """
    rows = [*weight.shape[:1], *[1] * (weight.dim() - 1)]
    if magnitude.dim() == 1 or magnitude.shape[0] == weight.shape[0]:
        norms = weight.flatten(1).norm(dim=1).reshape(rows)
        magnitude = magnitude.reshape(rows)
    else:
        norms = weight.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *[1] * (weight.dim() - 2))
        magnitude = magnitude.reshape(norms.shape)
    return weight * (magnitude / norms.clamp(min=torch.finfo(weight.dtype).tiny))


_DIFFERENCES: dict[str, Difference] = {
    "LoRA": _lora, "LoHa": _loha, "LoKr": _lokr, "GLoRA": _glora, "OFT": _oft, "IA3": _ia3, "difference": _whole("diff"),
    "norm": _whole("w_norm"),
}  # fmt: skip
