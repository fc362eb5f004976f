"""Every kind of LoRA layer: the weight in effect is the formula's, evaluated here in float64; afterwards it is what it was."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from starrynight.errors import BadFile, Unfit
from starrynight.models import lora
from starrynight.models.adapter_names import LayerNames
from starrynight.models.load import networks
from starrynight.numerics.fold import fold_adapter, fold_modules
from starrynight.numerics.solve import FoldPlan

# Family, the layer in diffusers' names. The linear one is not square, so that a transposed product shows.
LINEAR = ("zimage", "transformer", "layers.0.feed_forward.w1")
CONV = ("sd", "unet", "down_blocks.1.resnets.0.conv1")
RANK, FACTOR = 3, 0.7


@pytest.fixture(scope="module")
def pipelines():
    found = {family: tiny.FAMILIES[family]() for family in ("zimage", "sd", "flux")}
    for pipeline in found.values():
        pipeline.folds = FoldPlan()
    return found


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def kron(a, b):
    return torch.from_numpy(np.kron(a.numpy(), b.numpy()))


def norm_rows(w):
    return w.flatten(1).norm(dim=1).reshape(-1, *[1] * (w.dim() - 1))


def lora_parts(w):
    down, up = draw(RANK, *w.shape[1:]), draw(w.shape[0], RANK, *[1] * (w.dim() - 2))
    return {"lora_down.weight": down, "lora_up.weight": up}


def product(p, w):
    return (p["lora_up.weight"].flatten(1) @ p["lora_down.weight"].flatten(1)).reshape(w.shape)


def plain(w):
    p = lora_parts(w) | {"alpha": torch.tensor(2.0)}
    return p, lambda p, w: product(p, w) * 2 / RANK


def bare(w):
    p = lora_parts(w)
    return p, product


def tucker(w):
    if w.dim() == 2:
        pytest.skip("a Tucker core belongs to a convolution")
    p = {"lora_down.weight": draw(RANK, w.shape[1], 1, 1), "lora_up.weight": draw(w.shape[0], RANK, 1, 1),
         "lora_mid.weight": draw(RANK, RANK, 3, 3), "alpha": torch.tensor(2.0)}  # fmt: skip

    def wanted(p, w):
        core = torch.tensordot(p["lora_up.weight"][:, :, 0, 0], p["lora_mid.weight"], dims=([1], [0]))
        return (
            torch.tensordot(core, p["lora_down.weight"][:, :, 0, 0], dims=([1], [0])).permute(0, 3, 1, 2)
            * 2
            / RANK
        )

    return p, wanted


def dora(w):
    p = lora_parts(w) | {
        "alpha": torch.tensor(2.0),
        "dora_scale": draw(w.shape[0], *[1] * (w.dim() - 1)).abs() + 1,
    }

    def wanted(p, w):
        v = w + product(p, w) * 2 / RANK
        return v * p["dora_scale"] / norm_rows(v) - w

    return p, wanted


def dora_by_input(w):
    p = lora_parts(w) | {"dora_scale": draw(1, w.shape[1], *[1] * (w.dim() - 2)).abs() + 1}

    def wanted(p, w):
        v = w + product(p, w)
        return v * p["dora_scale"] / norm_rows(v.transpose(0, 1)).transpose(0, 1) - w

    return p, wanted


def loha(w):
    inner = w[0].numel()
    p = {f"hada_w{h}_{s}": draw(*shape, seed=h) for h in (1, 2) for s, shape in
         (("a", (w.shape[0], RANK)), ("b", (RANK, inner)))} | {"alpha": torch.tensor(2.0)}  # fmt: skip
    return p, lambda p, w: (
        (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])
    ).reshape(w.shape) * 2 / RANK  # fmt: skip


def loha_tucker(w):
    if w.dim() == 2:
        pytest.skip("a Tucker core belongs to a convolution")
    p = {
        f"hada_w{h}_{s}": draw(RANK, n, seed=h)
        for h in (1, 2)
        for s, n in (("a", w.shape[0]), ("b", w.shape[1]))
    }
    p |= {f"hada_t{h}": draw(RANK, RANK, 3, 3, seed=h) for h in (1, 2)} | {"alpha": torch.tensor(2.0)}

    def half(p, h):
        return sum(
            p[f"hada_t{h}"][i, j] * p[f"hada_w{h}_a"][i][:, None, None, None] * p[f"hada_w{h}_b"][j][None, :, None, None]
            for i in range(RANK) for j in range(RANK)
        )  # fmt: skip

    return p, lambda p, w: half(p, 1) * half(p, 2) * 2 / RANK


def factors(w):
    """(out, in) of the two Kronecker factors."""
    small = next(n for n in (2, 5, 3) if w.shape[0] % n == 0)
    return (small, 4), (w.shape[0] // small, w.shape[1] // 4)


def lokr_whole(w):
    first, second = factors(w)
    p = {"lokr_w1": draw(*first), "lokr_w2": draw(*second, *w.shape[2:]), "alpha": torch.tensor(2.0)}

    def wanted(p, w):
        if w.dim() == 2:
            return kron(p["lokr_w1"], p["lokr_w2"])
        at = [[kron(p["lokr_w1"], p["lokr_w2"][:, :, y, x]) for x in range(3)] for y in range(3)]
        return torch.stack([torch.stack(row, -1) for row in at], -2)

    return p, wanted


def lokr_factored(w):
    first, second = factors(w)
    inner = second[1] * w[0, 0].numel()
    p = {"lokr_w1_a": draw(first[0], RANK), "lokr_w1_b": draw(RANK, first[1]), "lokr_w2_a": draw(second[0], RANK),
         "lokr_w2_b": draw(RANK, inner), "alpha": torch.tensor(2.0)}  # fmt: skip
    return (
        p,
        lambda p, w: (
            kron(p["lokr_w1_a"] @ p["lokr_w1_b"], p["lokr_w2_a"] @ p["lokr_w2_b"]).reshape(w.shape) * 2 / RANK
        ),
    )


def glora(w):
    n = w.shape[1]
    p = {"a1.weight": draw(n, RANK), "a2.weight": draw(RANK, n, seed=1), "b1.weight": draw(w.shape[0], RANK),
         "b2.weight": draw(RANK, w[0].numel()), "alpha": torch.tensor(2.0)}  # fmt: skip

    def wanted(p, w):
        through = torch.tensordot(w, p["a1.weight"] @ p["a2.weight"], dims=([1], [0])).movedim(-1, 1)
        return (through + (p["b1.weight"] @ p["b2.weight"]).reshape(w.shape)) * 2 / RANK

    return p, wanted


def oft(w):
    size = next(n for n in (4, 5) if w.shape[0] % n == 0)
    p = {"oft_blocks": draw(w.shape[0] // size, size, size) / 4, "alpha": torch.tensor(0.01),
         "rescale": draw(w.shape[0], *[1] * (w.dim() - 1))}  # fmt: skip

    def wanted(p, w):
        skew = p["oft_blocks"] - p["oft_blocks"].transpose(1, 2)
        skew = skew * min(1.0, 0.01 * w.shape[0] / float(skew.norm()))
        one = torch.eye(size, dtype=w.dtype)
        blocks = torch.block_diag(*[(one + q) @ torch.linalg.inv(one - q) for q in skew])
        turned = (blocks.T @ w.flatten(1)).reshape(w.shape)  # as LyCORIS multiplies: Σ_n R[n, m] W[n]
        return turned * p["rescale"] - w

    return p, wanted


def ia3(on_input):
    def make(w):
        shape = (
            (w.shape[1] if on_input else w.shape[0],)
            if w.dim() == 2
            else (1, w.shape[1] if on_input else w.shape[0], 1, 1)
        )
        p = {"weight": draw(*shape), "on_input": torch.tensor(int(on_input))}

        def wanted(p, w):
            by = p["weight"].flatten()
            return w * (
                by.reshape(1, -1, *[1] * (w.dim() - 2)) if on_input else by.reshape(-1, *[1] * (w.dim() - 1))
            )

        return p, wanted

    return make


def difference(w):
    return {"diff": draw(*w.shape)}, lambda p, w: p["diff"]


KINDS = {
    "alpha": plain, "bare": bare, "tucker": tucker, "dora": dora, "dora by input": dora_by_input, "loha": loha,
    "loha tucker": loha_tucker, "lokr": lokr_whole, "lokr factored": lokr_factored, "glora": glora, "oft": oft,
    "ia3 output": ia3(False), "ia3 input": ia3(True), "difference": difference,
}  # fmt: skip


def effective(module) -> torch.Tensor:
    """The weight in effect, through PEFT's layer where there is one."""
    held = module.base_layer if hasattr(module, "base_layer") else module
    weight = held.weight.detach().double()
    for name in getattr(module, "active_adapters", ()):
        weight = weight + module.get_delta_weight(name).detach().double()
    return weight


@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
@pytest.mark.parametrize("target", [LINEAR, CONV], ids=["linear", "conv"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_in_effect_is_the_formulas(pipelines, tmp_path, kind, target, folded):
    family, component, layer = target
    pipeline = pipelines[family]
    module = pipeline.components[component].get_submodule(layer)
    original = module.weight.detach().clone()
    parts, wanted = KINDS[kind](original)
    save_file(
        {f"{component}.{layer}.{name}": part for name, part in parts.items()}, tmp_path / "kind.safetensors"
    )
    exact = wanted({name: part.double() for name, part in parts.items()}, original.double())
    plan = FoldPlan(parameters={f"{component}.{layer}.weight": -3}) if folded else FoldPlan()
    fold_modules({component: pipeline.components[component]}, plan)
    pipeline.folds = plan
    try:
        with lora.applied(pipeline, [(str(tmp_path / "kind.safetensors"), FACTOR)], "it") as (fit,):
            assert (fit.fit, fit.layers, fit.left, fit.zero) == (1, 1, (), 0)
            found = effective(pipeline.components[component].get_submodule(layer)) * (8 if folded else 1)
        error = (found - original.double() - FACTOR * exact).norm() / (FACTOR * exact).norm()
        assert error < 3e-6
    finally:
        fold_modules({component: pipeline.components[component]}, plan, sign=-1)
        pipeline.folds = FoldPlan()
    assert torch.equal(pipeline.components[component].get_submodule(layer).weight, original)


@pytest.mark.parametrize("part", ["diff_b", "b_norm", "lora_B.bias"])
@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
def test_biases(pipelines, tmp_path, part, folded):
    pipeline, layer = pipelines["zimage"], "layers.0.adaLN_modulation.0"
    module = pipeline.transformer.get_submodule(layer)
    before, added = module.bias.detach().clone(), draw(len(module.bias))
    parts = {part: added}
    if part == "lora_B.bias":
        down, up = draw(RANK, module.weight.shape[1]), draw(len(before), RANK)
        parts |= {"lora_A.weight": down, "lora_B.weight": up, "alpha": torch.tensor(6.0)}
    elif part == "b_norm":
        parts |= {"w_norm": draw(*module.weight.shape)}
    save_file(
        {f"transformer.{layer}.{name}": each for name, each in parts.items()}, tmp_path / "b.safetensors"
    )
    plan = FoldPlan(parameters={f"transformer.{layer}.bias": 2}) if folded else FoldPlan()
    fold_modules({"transformer": pipeline.transformer}, plan)
    pipeline.folds = plan
    try:
        with lora.applied(pipeline, [(str(tmp_path / "b.safetensors"), FACTOR)], "it"):
            factor = FACTOR * (2 if part == "lora_B.bias" else 1)
            found = module.bias / (4 if folded else 1)
            assert torch.allclose(found, before + factor * added, atol=1e-6)
    finally:
        fold_modules({"transformer": pipeline.transformer}, plan, sign=-1)
        pipeline.folds = FoldPlan()
    assert torch.equal(module.bias, before)


def test_a_bias_on_a_layer_without_one_lives_for_the_request(pipelines, tmp_path):
    pipeline, layer = pipelines["zimage"], "layers.0.attention.to_q"
    module, down, up, bias = (
        pipeline.transformer.get_submodule(layer),
        draw(RANK, 32),
        draw(32, RANK),
        draw(32),
    )
    save_file({f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up,
               f"transformer.{layer}.lora_B.bias": bias}, tmp_path / "b.safetensors")  # fmt: skip
    with lora.applied(pipeline, [(str(tmp_path / "b.safetensors"), 1.0)], "it"):
        assert torch.equal(module.bias, bias)
    assert module.bias is None
    pipeline.folds = FoldPlan(parameters={"transformer.layers.1.attention.to_q.weight": 1})
    with (
        pytest.raises(Unfit, match="fit none of them"),
        lora.applied(pipeline, [(str(tmp_path / "b.safetensors"), 1.0)], "it"),
    ):
        pass
    pipeline.folds = FoldPlan()


# Makers' names → diffusers' layer with its first row in the fused one.
LAYOUTS = [
    ("zimage", "diffusion_model.layers.1.attention.qkv", "transformer.layers.1.attention.to_v", 64),
    ("zimage", "lora_unet_layers_1_attention_qkv", "transformer.layers.1.attention.to_k", 32),
    ("zimage", "diffusion_model.layers.1.attention.out", "transformer.layers.1.attention.to_out.0", 0),
    ("zimage", "diffusion_model.x_embedder", "transformer.all_x_embedder.2-1", 0),
    ("zimage", "lora_unet_final_layer_linear", "transformer.all_final_layer.2-1.linear", 0),
    ("zimage", "lycoris_context_refiner_0_feed_forward_w2", "transformer.context_refiner.0.feed_forward.w2", 0),
    ("zimage", "base_model.model.layers.0.feed_forward.w3", "transformer.layers.0.feed_forward.w3", 0),
    ("zimage", "lora_te_layers_1_mlp_gate_proj", "text_encoder.layers.1.mlp.gate_proj", 0),
    ("zimage", "text_encoders.qwen3_4b.transformer.model.layers.0.self_attn.q_proj", "text_encoder.layers.0.self_attn.q_proj", 0),
    ("flux", "diffusion_model.double_blocks.0.img_attn.qkv", "transformer.transformer_blocks.0.attn.to_v", 64),
    ("flux", "lora_unet_double_blocks_0_txt_attn_qkv", "transformer.transformer_blocks.0.attn.add_k_proj", 32),
    ("flux", "lora_unet_single_blocks_0_linear1", "transformer.single_transformer_blocks.0.proj_mlp", 96),
    ("flux", "lora_unet_single_blocks_0_linear2", "transformer.single_transformer_blocks.0.proj_out", 0),
    ("flux", "lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder.encoder.layers.0.mlp.fc1", 0),
    ("sd", "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", 0),
    ("sd", "lora_unet_input_blocks_2_0_op", "unet.down_blocks.0.downsamplers.0.conv", 0),
    ("sd", "lora_unet_output_blocks_1_1_conv", "unet.up_blocks.0.upsamplers.0.conv", 0),
    ("sd", "lora_unet_output_blocks_3_0_skip_connection", "unet.up_blocks.1.resnets.1.conv_shortcut", 0),
    ("sd", "lora_unet_middle_block_2_in_layers_2", "unet.mid_block.resnets.1.conv1", 0),
    ("sd", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0", 0),
    ("sd", "lora_te_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder.encoder.layers.0.self_attn.q_proj", 0),
    ("sd", "text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora", "text_encoder.encoder.layers.0.self_attn.out_proj", 0),
]  # fmt: skip


@pytest.mark.parametrize(("family", "name", "layer", "start"), LAYOUTS, ids=[row[1] for row in LAYOUTS])
def test_layouts(pipelines, family, name, layer, start):
    names = LayerNames(networks(pipelines[family]), "unet" if family == "sd" else "transformer")
    pieces = {piece.name: piece for piece in names.find(name)}
    assert pieces[layer].start == start
    assert pieces[layer].rows == len(pieces[layer].module.weight)


@pytest.mark.parametrize("kind", ["alpha", "dora", "lokr"])
def test_a_fused_layer_is_split_into_its_rows(pipelines, tmp_path, kind):
    pipeline = pipelines["zimage"]
    attention = pipeline.transformer.layers[1].attention
    parts_of = [attention.to_q, attention.to_k, attention.to_v]
    fused = torch.cat([module.weight.detach() for module in parts_of])
    parts, wanted = KINDS[kind](fused)
    save_file(
        {f"diffusion_model.layers.1.attention.qkv.{n}": p for n, p in parts.items()},
        tmp_path / "f.safetensors",
    )
    exact = fused.double() + wanted({n: p.double() for n, p in parts.items()}, fused.double())
    with lora.applied(pipeline, [(str(tmp_path / "f.safetensors"), 1.0)], "it") as (fit,):
        assert (fit.fit, fit.layers) == (1, 1)
        attention = pipeline.transformer.layers[1].attention
        found = torch.cat([effective(module) for module in (attention.to_q, attention.to_k, attention.to_v)])
        assert (found - exact).norm() < 3e-6 * exact.norm()
    assert torch.equal(torch.cat([module.weight for module in parts_of]), fused)


def test_kinds_mix_in_one_file_and_files_stack_whatever_their_order(pipelines, tmp_path):
    pipeline = pipelines["zimage"]
    layers = [pipeline.transformer.layers[0].feed_forward.w1, pipeline.transformer.layers[1].feed_forward.w1]
    before = [layer.weight.detach().clone() for layer in layers]
    state, exact = {}, []
    for number, kind in enumerate(["dora", "loha"]):
        parts, wanted = KINDS[kind](before[number])
        state |= {f"lycoris_layers_{number}_feed_forward_w1.{n}": p for n, p in parts.items()}
        exact.append(wanted({n: p.double() for n, p in parts.items()}, before[number].double()))
    save_file(state, tmp_path / "mixed.safetensors")
    parts, wanted = KINDS["ia3 output"](before[0])
    save_file(
        {f"transformer.layers.0.feed_forward.w1.{n}": p for n, p in parts.items()},
        tmp_path / "more.safetensors",
    )
    exact[0] = 0.5 * exact[0] - 2 * wanted({n: p.double() for n, p in parts.items()}, before[0].double())
    exact[1] = 0.5 * exact[1]
    files = [(str(tmp_path / "mixed.safetensors"), 0.25), (str(tmp_path / "more.safetensors"), -2.0),
             (str(tmp_path / "mixed.safetensors"), 0.25)]  # fmt: skip
    for order in (files, files[::-1]):
        with lora.applied(pipeline, order, "it"):
            for layer, weight, change in zip(layers, before, exact, strict=True):
                assert (layer.weight.double() - weight.double() - change).norm() < 3e-6 * change.norm()
        assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, before, strict=True))


def test_fold_adapter_refuses_what_it_cannot_fold(pipelines):
    """PEFT's DoRA magnitude and a bias in B: scaled like the weight, or refused where the layer's power is unknown."""
    from peft import LoraConfig, inject_adapter_in_model

    layer = torch.nn.Sequential(torch.nn.Linear(4, 6))
    config = LoraConfig(r=2, target_modules=["0"], use_dora=True, lora_alpha=2, init_lora_weights=False)
    plan = FoldPlan(parameters={"net.0.weight": 2, "net.0.bias": 2})
    x = draw(5, 4)
    network = inject_adapter_in_model(config, layer, adapter_name="a")
    wanted = network(x)
    fold_adapter(network, "a", plan, "net")
    with torch.no_grad():
        network[0].base_layer.weight.mul_(4)
        network[0].base_layer.bias.mul_(4)
    assert torch.allclose(network(x), 4 * wanted, rtol=1e-5)
    plain = torch.nn.Sequential(torch.nn.Linear(4, 6, bias=False))
    config = LoraConfig(r=2, target_modules=["0"], lora_bias=True, init_lora_weights=False)
    with pytest.raises(Unfit, match="bias"):
        fold_adapter(
            inject_adapter_in_model(config, plain, adapter_name="a"),
            "a",
            FoldPlan(parameters={"net.0.weight": 2}),
            "net",
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_broken_numbers_are_found_at_loading(pipelines, tmp_path, value, dtype):
    down, up = draw(RANK, 32).to(dtype), draw(32, RANK).to(dtype)
    up[1, 1] = float(value)
    name = "transformer.layers.0.attention.to_q"
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "broken.safetensors")
    with (
        pytest.raises(BadFile) as caught,
        lora.applied(pipelines["zimage"], [(str(tmp_path / "broken.safetensors"), 1.0)], "it"),
    ):
        pass
    assert f"{name}.lora_B.weight" in caught.value.en
    assert "broken.safetensors" in caught.value.zh


@pytest.mark.parametrize(
    ("mine", "others", "accepted"), [(2, 2, True), (2, 3, False), (3, 1, True), (0, 3, False)]
)
def test_under_half_is_refused_unless_asked_for(pipelines, tmp_path, mine, others, accepted):
    pipeline, state = pipelines["zimage"], {}
    targets = [f"transformer.layers.0.feed_forward.w{n}" for n in (1, 3)] + [
        "transformer.layers.1.feed_forward.w1"
    ]
    for name in targets[:mine] + [f"transformer.layers.{n}.feed_forward.w1" for n in range(7, 7 + others)]:
        state |= {f"{name}.lora_A.weight": draw(RANK, 32), f"{name}.lora_B.weight": draw(85, RANK)}
    save_file(state, tmp_path / "half.safetensors")
    asked = [(str(tmp_path / "half.safetensors"), 1.0)]
    if not accepted:
        with pytest.raises(Unfit) as caught, lora.applied(pipeline, asked, "it"):
            pass
        assert ("--lora-partial" in caught.value.en) == bool(mine)
    if mine:
        with lora.applied(pipeline, asked, "it", partial_fit=True) as (fit,):
            assert (fit.fit, fit.layers, len(fit.left)) == (mine, mine + others, others)
            assert f"{mine} of {mine + others} layers of half.safetensors fit" in fit.message().en
            assert "layers.7.feed_forward.w1" in fit.message().en


REFUSED = {
    "bundle_emb.style.string_to_param.*": "embeddings",
    "transformer.layers.0.attention.to_k.oft_R.weight": "OFT",
    "transformer.layers.0.attention.to_k.ia3_l": "IA3",
    "transformer.layers.0.attention.to_k.set_weight": "replaced",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_applied_is_refused_by_name(pipelines, tmp_path, name):
    layer = "transformer.layers.0.feed_forward.w1"
    state = {
        f"{layer}.lora_A.weight": draw(RANK, 32),
        f"{layer}.lora_B.weight": draw(85, RANK),
        name: draw(32),
    }
    save_file(state, tmp_path / "odd.safetensors")
    asked = [(str(tmp_path / "odd.safetensors"), 1.0)]
    with pytest.raises(Unfit, match=REFUSED[name]), lora.applied(pipelines["zimage"], asked, "it"):
        pass
    with lora.applied(pipelines["zimage"], asked, "it", partial_fit=True) as (fit,):
        assert (fit.fit, fit.layers) == (1, 2)


def test_a_lora_of_zeros_says_so(pipelines, tmp_path):
    layer = "transformer.layers.0.feed_forward.w1"
    save_file(
        {f"{layer}.lora_A.weight": draw(RANK, 32), f"{layer}.lora_B.weight": torch.zeros(85, RANK)},
        tmp_path / "zero.safetensors",
    )
    with lora.applied(pipelines["zimage"], [(str(tmp_path / "zero.safetensors"), 1.0)], "it") as (fit,):
        assert fit.zero == 1
        assert "changes nothing" in fit.message().en
    save_file({}, tmp_path / "empty.safetensors")
    with (
        pytest.raises(BadFile, match="no tensors"),
        lora.applied(pipelines["zimage"], [(str(tmp_path / "empty.safetensors"), 1.0)], "it"),
    ):
        pass


def test_weights_for_text_encoder_and_denoiser(pipelines, tmp_path):
    pipeline = pipelines["sd"]
    layers = {"text_encoder.encoder.layers.0.mlp.fc1": pipeline.text_encoder.encoder.layers[0].mlp.fc1,
              "unet.time_embedding.linear_1": pipeline.unet.time_embedding.linear_1}  # fmt: skip
    before = {name: module.weight.detach().clone() for name, module in layers.items()}
    save_file(
        {f"{name}.diff": torch.ones_like(weight) for name, weight in before.items()},
        tmp_path / "two.safetensors",
    )
    with lora.applied(pipeline, [(str(tmp_path / "two.safetensors"), 0.25, 2.0)], "it"):
        for (name, module), factor in zip(layers.items(), (0.25, 2.0), strict=True):
            assert torch.allclose(
                module.weight - before[name], torch.full_like(module.weight, factor), atol=1e-6
            )
    assert all(torch.equal(module.weight, before[name]) for name, module in layers.items())


def test_a_quantised_lora_is_refused_by_the_tensors_name(pipelines, tmp_path):
    """Whole numbers mean nothing without their scales."""
    family, component, layer = LINEAR
    module = pipelines[family].components[component].get_submodule(layer)
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.complex64):
        parts = {n: (100 * part).to(dtype) for n, part in lora_parts(module.weight.detach()).items()}
        path = tmp_path / "whole.safetensors"
        save_file({f"{component}.{layer}.{name}": part for name, part in parts.items()}, path)
        with (
            pytest.raises(BadFile, match=rf"{layer}.lora_\w+.weight in {str(dtype)[6:]}"),
            lora.applied(pipelines[family], [(str(path), 1.0)], "it"),
        ):
            pass


NO_LORAS = {
    "A1111's embedding": ({"emb_params": (2, 768)}, "a textual inversion, not a LoRA"),
    "SDXL's embedding": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "a textual inversion, not a LoRA"),
    "diffusers' embedding": ({"<cat>": (1, 768)}, "a textual inversion, not a LoRA"),
    "old embedding": ({"string_to_param.*": (2, 768)}, "a textual inversion, not a LoRA"),
    "ControlNet": ({"controlnet_blocks.0.weight": (4, 4), "transformer_blocks.0.attn.to_q.weight": (4, 4)}, "ControlNet, not a LoRA"),
    "autoencoder": ({"decoder.conv_in.weight": (8, 4, 3, 3), "encoder.conv_in.weight": (8, 3, 3, 3), "decoder.up_blocks.0.x": (1,)},
                    "not a LoRA"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_LORAS)
def test_a_file_that_is_no_lora_is_told_what_it_is(pipelines, tmp_path, kind):
    shapes, words = NO_LORAS[kind]
    path = tmp_path / "thing.safetensors"
    save_file({name: torch.ones(*shape) for name, shape in shapes.items()}, path)
    with (
        pytest.raises(Unfit, match=words) as caught,
        lora.applied(pipelines[LINEAR[0]], [(str(path), 1.0)], "it"),
    ):
        pass
    assert "made for another model" not in caught.value.en


@pytest.mark.parametrize("fault", ["a dimension more", "alpha of two numbers", "another width"])
def test_layers_of_the_models_names_that_fit_none_are_told_so(pipelines, tmp_path, fault):
    family, component, layer = LINEAR
    module = pipelines[family].components[component].get_submodule(layer)
    parts = lora_parts(module.weight.detach())
    if fault == "a dimension more":
        parts = {name: part[None] for name, part in parts.items()}
    elif fault == "another width":
        parts["lora_down.weight"] = draw(RANK, module.weight.shape[1] + 1)
    else:
        parts["alpha"] = torch.ones(2)
    path = tmp_path / "odd.safetensors"
    save_file({f"{component}.{layer}.{name}": part.contiguous() for name, part in parts.items()}, path)
    with (
        pytest.raises(Unfit, match="by name, but their parts or shapes"),
        lora.applied(pipelines[family], [(str(path), 1.0)], "it"),
    ):
        pass


# What wrappers of a training leave in a layer's name, in the spellings of diffusers, PEFT, ComfyUI and kohya.
WRAPPED = (
    "module.transformer.layers.0.feed_forward.w1", "base_model.model.transformer.layers.0.feed_forward.w1",
    "base_model.model.module.layers.0.feed_forward.w1", "_orig_mod.transformer.layers.0.feed_forward.w1",
    "transformer._orig_mod.layers.0._orig_mod.feed_forward.w1", "pipe.dit.layers.0.feed_forward.w1",
    "diffusion_model._fsdp_wrapped_module.layers.0._fsdp_wrapped_module.feed_forward.w1",
    "module.diffusion_model.layers.0._checkpoint_wrapped_module.feed_forward.w1", "_forward_module.module.layers.0.feed_forward.w1",
    "lora_unet__orig_mod_layers_0_feed_forward_w1", "lora_unet_layers_0__orig_mod_feed_forward_w1",
    "lycoris_layers_0__fsdp_wrapped_module_feed_forward_w1", "lora_transformer__checkpoint_wrapped_module_layers_0_feed_forward_w1",
)  # fmt: skip


@pytest.mark.parametrize("stem", WRAPPED)
def test_what_wrappers_leave_in_a_layers_name_changes_nothing(pipelines, tmp_path, stem):
    pipeline, layer = pipelines["zimage"], pipelines["zimage"].transformer.layers[0].feed_forward.w1
    down, up = draw(RANK, 32), draw(85, RANK)
    save_file(
        {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}, tmp_path / "wrapped.safetensors"
    )
    row = draw(32)
    plain = layer(row)
    with lora.applied(pipeline, [(str(tmp_path / "wrapped.safetensors"), FACTOR)], "it") as (fit,):
        assert (fit.fit, fit.layers) == (1, 1)
        now = pipeline.transformer.layers[0].feed_forward.w1(row)
        assert torch.allclose(now, plain + FACTOR * up @ (down @ row), atol=1e-4)
