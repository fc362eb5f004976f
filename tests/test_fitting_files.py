"""Block types as ggml packs them, and the GGUF file of a denoiser: read by the ``gguf`` package, by diffusers and by us."""

from __future__ import annotations

import gguf as package
import numpy as np
import pytest
import torch
from accelerate import init_empty_weights

from starrynight.errors import BadRequest
from starrynight.fitting import blocks, layout, measure, write
from starrynight.folding import calibrate
from starrynight.models import catalogue, fitted, gguf, single_file
from starrynight.models.load import denoiser, load
from tests import tiny

KINDS = sorted(blocks.TYPES)
# dB of signal to noise for normal numbers, a little below what was measured (2026-11-27)
NEAR = {"Q8_0": 44, "Q6_K": 34, "Q5_1": 28.5, "Q5_K": 28, "Q5_0": 27, "Q4_1": 22, "Q4_K": 22, "IQ4_NL": 21.5, "Q4_0": 20.8,
        "Q3_K": 16}  # fmt: skip


def normal(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def read(data: torch.Tensor, kind: str) -> torch.Tensor:
    """By the ``gguf`` package, ggml's own Python."""
    found = package.quants.dequantize(data.numpy(), package.GGMLQuantizationType[kind])
    return torch.from_numpy(found)


def decibels(meant: torch.Tensor, found: torch.Tensor) -> float:
    return float(10 * torch.log10(meant.square().sum() / (meant - found).square().sum()))


# -- block types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_type_comes_back_as_near_as_its_bits_allow(kind):
    meant = normal(24, 512)
    data = blocks.quantise(meant, kind)
    block, size = package.GGML_QUANT_SIZES[package.GGMLQuantizationType[kind]]
    assert data.shape == (24, 512 // block * size)
    assert decibels(meant, read(data, kind)) > NEAR[kind]


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_no_block_type_is_further_than_the_packages_own(kind):
    meant = normal(24, 512) * normal(24, 1, 1).exp()
    theirs = package.quants.quantize(meant.numpy(), package.GGMLQuantizationType[kind])
    assert decibels(meant, read(blocks.quantise(meant, kind), kind)) >= decibels(meant, read(torch.from_numpy(theirs), kind)) - 0.02  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("zeros", lambda: torch.zeros(2, 256)),
        ("one number among zeros", lambda: torch.eye(2, 256) * -3),
        ("all equal", lambda: torch.full((2, 256), 0.7)),
        ("all above zero", lambda: normal(2, 256).abs() + 1),
        ("all below zero", lambda: -normal(2, 256).abs() - 1),
        ("an outlier in each block", lambda: normal(2, 256) + 40 * torch.eye(256)[:2].roll(5, 1)),
        ("rows of very different size", lambda: normal(2, 256) * torch.tensor([[1e-2], [1e3]])),
        ("bfloat16", lambda: normal(2, 256).bfloat16()),
    ],
)  # fmt: skip
def test_odd_rows_come_back_finite_and_near(kind, what, make):
    meant = make()
    found = read(blocks.quantise(meant, kind), kind)
    assert found.isfinite().all()
    peak = meant.float().abs().amax(-1, keepdim=True)
    # half a step of the widest block, which reaches from its least to its largest number
    levels = {"Q8_0": 254, "Q6_K": 63, "Q5_1": 31, "Q5_K": 31, "Q5_0": 31}.get(
        kind, 7 if kind == "Q3_K" else 15
    )
    assert ((meant.float() - found).abs() <= 2.6 * peak / levels + 1e-7).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Q8_0"])
def test_columns_that_matter_are_nearer(kind):
    meant = normal(16, 512)
    importance = torch.ones(512)
    importance[::8] = 100
    errors = [
        (importance * (meant - read(blocks.quantise(meant, kind, given), kind)).square()).sum()
        for given in (importance, None)
    ]
    assert errors[0] < errors[1]


def test_large_tensors_are_searched_in_chunks(monkeypatch):
    meant, moments = normal(9, 512), products_of(inputs(600, 512))
    whole = {kind: (blocks.quantise(meant, kind), blocks.quantise(meant, kind, moments)) for kind in KINDS}
    monkeypatch.setattr(blocks, "CHUNK", 1024)
    for kind in KINDS:
        assert torch.equal(blocks.quantise(meant, kind), whole[kind][0])
        # products of other sizes round otherwise, so a code in a thousand may be the other neighbour
        same = blocks.quantise(meant, kind, moments) == whole[kind][1]
        assert same.float().mean() > 0.99


# -- GPTQ ------------------------------------------------------------------------------------------------------------


def inputs(count: int, columns: int) -> torch.Tensor:
    """Inputs of a layer whose columns are of different size and go together."""
    mixed = torch.randn(columns, columns, generator=torch.Generator().manual_seed(5)) / columns**0.5
    size = torch.rand(columns, generator=torch.Generator().manual_seed(6)) ** 2
    x = torch.randn(count, columns, generator=torch.Generator().manual_seed(count))
    return x @ mixed * size + 0.1 * x


def products_of(x: torch.Tensor) -> torch.Tensor:
    return measure.products(x) / len(x)


@pytest.mark.parametrize("kind", KINDS)
def test_gptq_brings_the_layers_output_nearer_on_inputs_it_has_not_seen(kind):
    meant, moments, x = normal(64, 512), products_of(inputs(3000, 512)), inputs(500, 512)

    def error(given):
        return ((read(blocks.quantise(meant, kind, given), kind) - meant) @ x.T).square().sum()

    assert error(moments) < 0.9 * error(measure.mean_squares(moments))
    assert error(moments) < 0.85 * error(None)
    assert torch.equal(meant, normal(64, 512)), "the weights are not written into"


@pytest.mark.parametrize("kind", KINDS)
def test_gptq_after_a_few_inputs_is_further_off_on_others_than_squares_alone(kind):
    meant, moments, x = normal(64, 512), products_of(inputs(40, 512)), inputs(500, 512)
    found = [
        ((read(blocks.quantise(meant, kind, given), kind) - meant) @ x.T).square().sum()
        for given in (measure.mean_squares(moments), moments)
    ]
    assert found[0] < found[1]


def test_a_layer_that_met_fewer_tokens_than_it_has_columns_keeps_their_squares_alone(model, pipeline):
    """The same tokens again, in other batches and but for rounding, are no others. One input a picture, as of the time, is no token."""
    own = layout.of_model(model, pipeline)
    subject = measure.Subject(model, pipeline, own, {})
    few, many, single = (
        f"{block}.feed_forward.w1.weight" for block in ("layers.0", "layers.1", "noise_refiner.0")
    )
    x = torch.randn(200, own.shapes[few][1], generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), measure.watching_inputs(subject):
        for part in (x[:20], x[:20].flip(0), x[:20] * (1 + 1e-7)):
            subject.network.get_submodule(few.removesuffix(".weight"))(part)
        subject.network.get_submodule(many.removesuffix(".weight"))(x)
        subject.network.get_submodule(single.removesuffix(".weight"))(x[:2])
    assert torch.allclose(subject.moments[few], x[:20].square().mean(0), rtol=1e-4)
    assert torch.allclose(subject.moments[many], x.T @ x / 200, rtol=1e-3, atol=1e-4)
    assert torch.allclose(subject.moments[single], x[:2].T @ x[:2] / 2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_have_nothing_to_do_with_each_other_take_the_nearest_codes(kind):
    meant = normal(8, 512)
    assert torch.equal(blocks.quantise(meant, kind, torch.eye(512)[None]), blocks.quantise(meant, kind))


def test_each_column_is_rounded_after_the_best_answer_to_the_errors_before_it():
    """Against the definition: with columns rounded up to j, the rest minimise the error of the output."""
    meant, moments = normal(3, 32), products_of(inputs(400, 32))
    h = moments[0].double() + blocks.DAMPING * moments[0].double().diagonal().mean() * torch.eye(32)
    grid = blocks.TYPES["Q4_0"][1](meant, blocks._weights(moments.diagonal(dim1=1, dim2=2), 3))
    done, rest = torch.zeros(3, 32, dtype=torch.float64), meant.double().clone()
    for j in range(32):
        own = slice(j, j + 1)
        done[:, own] = grid.values(grid.codes(rest[:, own].float(), own), own).double()
        lost = meant.double()[:, : j + 1] - done[:, : j + 1]
        rest[:, j + 1 :] = meant.double()[:, j + 1 :] + lost @ h[: j + 1, j + 1 :] @ torch.linalg.inv(h[j + 1 :, j + 1 :])  # fmt: skip
    found = read(blocks.quantise(meant, "Q4_0", moments), "Q4_0")
    assert (found - done.float()).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("columns", "width"),
    [(384, 384), (1024, 1024), (3840, 768), (10240, 1024), (11008, 256), (2400, 800), (40, 0), (96, 96), (1184, 32)],
)  # fmt: skip
def test_runs_are_whole_blocks_and_bounded(columns, width):
    assert measure.run_width(columns) == width
    found = measure.products(torch.randn(5, columns))
    assert found.shape == ((columns // width, width, width) if width else (columns,))
    x = torch.randn(7, columns)
    assert torch.allclose(measure.mean_squares(measure.products(x)), x.square().sum(0), rtol=1e-4)


def test_runs_beside_each_other_are_rounded_apart():
    meant, x = normal(8, 512), inputs(400, 512)
    both = torch.stack([products_of(x[:, :256])[0], products_of(x[:, 256:])[0]])
    halves = [measure.rounded(half.contiguous(), "Q4_K", moments[None]) for half, moments in zip(meant.split(256, 1), both, strict=True)]  # fmt: skip
    assert (measure.rounded(meant, "Q4_K", both) == torch.cat(halves, 1)).float().mean() > 0.99


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_what_others_publish_is_rounded_by_the_gguf_package(kind):
    meant = normal(4, 64)
    data = package.quants.quantize(meant.numpy(), package.GGMLQuantizationType[kind])
    theirs = package.quants.dequantize(data, package.GGMLQuantizationType[kind])
    assert torch.equal(measure.published(meant, kind), torch.from_numpy(theirs))


# -- names and rows --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save("zimage", tmp_path_factory.mktemp("models") / "z")


@pytest.fixture(scope="module")
def model(folder):
    return catalogue.resolve(str(folder))


@pytest.fixture(scope="module")
def pipeline(model):
    return load(model, calibrate.uniform(model, "float32"))


@pytest.mark.parametrize("guided", [False, True])
def test_flux_gets_its_makers_names_and_diffusers_takes_them_back(guided):
    """At its published width: diffusers' converter knows no other."""
    from diffusers import FluxTransformer2DModel

    with init_empty_weights():
        network = FluxTransformer2DModel(guidance_embeds=guided, num_layers=2, num_single_layers=3)
    pieces = layout.MAKERS["FluxTransformer2DModel"](network)
    assert layout._agrees(network, pieces)
    assert {"double_blocks.1.txt_attn.qkv.weight", "single_blocks.2.linear1.bias"} < set(pieces)
    swapped = dict(pieces)
    swapped["double_blocks.0.img_attn.qkv.weight"] = pieces["double_blocks.0.img_attn.qkv.weight"][::-1]
    assert not layout._agrees(network, swapped)


@pytest.mark.parametrize(
    ("family", "makers"), [("zimage", True), ("flux", False), ("sd", True), ("sdxl", True)]
)
def test_every_row_of_a_network_has_one_place_in_the_file(tmp_path, family, makers):
    found = catalogue.resolve(str(tiny.save(family, tmp_path / family)))
    pipeline = load(found, calibrate.uniform(found, "float32"))
    network, own = denoiser(pipeline), layout.of_model(found, pipeline)
    assert own.makers == makers
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    doubled = {name: 2 * own.weight(network, name) for name in own.shapes}
    with own.replaced(network, doubled):
        assert all(torch.equal(tensor, 2 * before[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# -- the file --------------------------------------------------------------------------------------------------------


def formats_for(own: layout.DenoiserLayout) -> dict[str, str]:
    """A different type for each layer in turn, of those whose blocks its rows fill."""
    kinds = ["Q4_0", "Q8_0", "BF16", "Q5_1", "IQ4_NL", "F16", "Q4_1", "Q5_0"]
    return {
        name: kinds[number % len(kinds)] if own.shapes[name][1] % 32 == 0 else "BF16"
        for number, name in enumerate(own.layers)
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory, folder, model, pipeline):
    own = layout.of_model(model, pipeline)
    path = tmp_path_factory.mktemp("fit") / "z.gguf"
    about = fitted.Fitted(bits=5.5, predicted=39.8, base=str(folder)).to_dict()
    write.write(path, denoiser(pipeline), own, formats_for(own), about)
    return path, own


def test_the_package_reads_back_what_was_quantised(written, pipeline):
    path, own = written
    found = {tensor.name: tensor for tensor in package.GGUFReader(path).tensors}
    assert set(found) == set(own.shapes)
    chosen = formats_for(own)
    for name, tensor in found.items():
        kind = chosen.get(name, write.stored_as(own.shapes[name]))
        assert tensor.tensor_type.name == kind
        weights = own.weight(denoiser(pipeline), name)
        if kind in blocks.TYPES:
            meant = read(blocks.quantise(weights, kind), kind)
        else:
            meant = weights.to(blocks.PLAIN[kind]).float()
        values = package.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(values.reshape(meant.shape), meant.numpy(), err_msg=name)


def test_the_bytes_are_known_beforehand(written):
    path, own = written
    layers = sum(write.bytes_of(own.shapes[name], kind) for name, kind in formats_for(own).items())
    assert 0 <= write.fixed_bytes(own) + layers - path.stat().st_size < 64 * len(own.shapes) + write.OPENING


def test_diffusers_loads_it_with_its_own_gguf_loader(written, folder, pipeline):
    """It holds the same blocks; its own decoding in float16 is near, not equal."""
    from diffusers import GGUFQuantizationConfig, ZImageTransformer2DModel
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    path, own = written
    theirs = ZImageTransformer2DModel.from_single_file(
        str(path), config=str(folder / "transformer"), torch_dtype=torch.float32,
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
    )  # fmt: skip
    meant = {name: tensor.float() for name, _, tensor in gguf.tensors(path)}
    network, met = denoiser(pipeline), set()
    with own.replaced(network, meant):
        for name, tensor in network.state_dict().items():
            found = dequantize_gguf_tensor(theirs.get_parameter(name)).float()
            torch.testing.assert_close(found, tensor, rtol=2e-3, atol=2e-3, msg=name)
            held = theirs.get_parameter(name)
            if (kind := getattr(held, "quant_type", None)) is not None:
                data = held.as_tensor().contiguous().view(torch.uint8).reshape(-1)
                same = (
                    gguf.decode(data, package.GGMLQuantizationType(kind).name).float().reshape(tensor.shape)
                )
                assert torch.equal(same, tensor), name
                met.add(package.GGMLQuantizationType(kind).name)
    assert {"Q4_0", "Q8_0", "Q5_1", "Q4_1", "Q5_0"} <= met


def test_it_is_recognised_and_says_what_it_is(written):
    path, _ = written
    assert single_file.recognise(path).name == "Z-Image transformer"
    header = gguf.header(path)["__metadata__"]
    assert header["general.architecture"] == "lumina2"
    found = fitted.read(header)
    assert found is not None
    assert found.message == ("fit 5.50 bits, 39.8 dB predicted", "适配 5.50 位，预计 39.8 dB")


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"bits": 5}', '{"bits": "5", "predicted": 3}', "[" * 9999,
                                  '{"bits": 5, "predicted": 3, "formats": 4}'])  # fmt: skip
def test_a_note_in_another_form_says_nothing(text):
    assert fitted.of_text(text) is None


def test_a_file_that_exists_is_not_replaced(written, pipeline):
    path, own = written
    before = path.read_bytes()
    with pytest.raises(BadRequest, match="exists already"):
        write.write(path, denoiser(pipeline), own, formats_for(own), {})
    assert path.read_bytes() == before


def test_numbers_beyond_float16_keep_their_range(tmp_path, folder, model):
    """A tensor whose format is not chosen is float16 unless it does not fit; one of five dimensions keeps its shape."""
    network = torch.nn.Module()
    network.five = torch.nn.Parameter(torch.full((4, 2, 3, 8, 8), 1e6))
    network.conv = torch.nn.Parameter(normal(64, 36).reshape(64, 4, 3, 3))
    state = network.state_dict()
    rows = {n: [(n, torch.arange(len(t)), torch.arange(len(t)))] for n, t in state.items()}
    own = layout.DenoiserLayout("wan", {n: tuple(t.shape) for n, t in state.items()}, rows, (), False)
    write.write(tmp_path / "x.gguf", network, own, {}, {})
    found = {name: (kind, tensor) for name, kind, tensor in gguf.tensors(tmp_path / "x.gguf")}
    assert {name: kind for name, (kind, _) in found.items()} == {"five": "F32", "conv": "F16"}
    assert torch.equal(found["five"][1], network.five)
    assert torch.equal(found["conv"][1], network.conv.half())
