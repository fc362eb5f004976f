"""INT8 rows, and the folder that ``starry fit --format folder`` writes: every number comes back as it was rounded."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import load_file

from starrynight import cli
from starrynight.errors import BadFile, BadRequest, Unfit, UnknownName
from starrynight.fitting import blocks, fit, folder, formats, layout, measure
from starrynight.folding import calibrate
from starrynight.models import catalogue, mixed, precision_plan, tensors, weights
from starrynight.models.fitted import Fitted
from starrynight.models.kept import count_kept
from starrynight.models.load import denoiser, load
from starrynight.progress import ProgressCounter
from tests import tiny

KINDS = (*sorted(blocks.TYPES), blocks.INT8, *blocks.PLAIN)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("STARRY_HOME", str(tmp_path_factory.mktemp("home")))
    patch.setenv("STARRY_LANG", "en")
    yield
    patch.undo()


def normal(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def signal(meant: torch.Tensor, found: torch.Tensor) -> float:
    return float(10 * torch.log10(meant.square().sum() / (meant - found).square().sum()))


# -- INT8 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 7, 40, 384, 512])
def test_rows_of_any_length_come_back_near(columns):
    meant = normal(24, columns) * normal(24, 1, 1).exp()
    data = blocks.quantise(meant, blocks.INT8)
    assert data.shape == (24, 4 + columns)
    found = blocks.int8_numbers(data)
    step = meant.abs().amax(1, keepdim=True) / 126
    assert ((meant - found).abs() <= 1.6 * step).all(), "the largest number of a row may be cut by a step"
    assert signal(meant, found) >= min(100.0, signal(meant, measure.published(meant, blocks.INT8))) - 0.01


@pytest.mark.parametrize(
    "make",
    [lambda: torch.zeros(2, 64), lambda: torch.eye(2, 64) * -3, lambda: torch.full((2, 64), 0.7),
     lambda: normal(2, 64) * torch.tensor([[1e-20], [1e20]]), lambda: normal(2, 64).bfloat16()],
)  # fmt: skip
def test_odd_rows_come_back_finite_and_near(make):
    meant = make().float()
    found = blocks.int8_numbers(blocks.quantise(make(), blocks.INT8))
    assert ((meant - found).abs() <= 1.6 * meant.abs().amax(1, keepdim=True) / 126).all()


@pytest.mark.parametrize("columns", [384, 2048])
def test_gptq_brings_the_output_nearer_and_a_row_keeps_one_scale(columns):
    meant, mixing = normal(32, columns), normal(columns, columns, 5) / columns**0.5
    x = normal(3 * columns, columns, 6) @ mixing
    moments = measure.products(x) / len(x)
    nearest, better = (blocks.quantise(meant, blocks.INT8, m) for m in (measure.mean_squares(moments), moments))  # fmt: skip
    assert torch.equal(nearest[:, :4], better[:, :4])
    unseen = normal(500, columns, 7) @ mixing

    def lost(data):
        return float(((blocks.int8_numbers(data) - meant) @ unseen.T).square().sum())

    assert lost(better) < 0.9 * lost(nearest)


def test_a_gguf_never_gets_int8_and_a_folder_may():
    assert blocks.INT8 not in formats.candidates([4, 512])
    assert formats.candidates([4, 40], "F16") == ("F16",)
    assert formats.candidates([4, 40], "F16", "folder") == ("F16", blocks.INT8)
    assert set(formats.candidates([4, 512], "BF16", "folder")[1:]) == {*formats.QUANTISED, blocks.INT8}


# -- the weights' file -----------------------------------------------------------------------------------------------


def one_of_each(path):
    """A network with a layer in every type, an odd row length, a bias, a convolution and a number; written to ``path``."""
    network = torch.nn.Module()
    for number, kind in enumerate(KINDS):
        layer = torch.nn.Linear(256 if kind != blocks.INT8 else 37, 8)
        layer.weight.data = normal(*layer.weight.shape, number)
        network.add_module(f"of_{kind.lower()}", layer)
    network.conv = torch.nn.Conv2d(8, 16, 3)
    network.gate = torch.nn.Parameter(torch.tensor(0.25))
    state = network.state_dict()
    count = {n: len(t) if t.dim() else 1 for n, t in state.items()}
    rows = {n: [(n, torch.arange(c).flip(0), torch.arange(c).flip(0))] for n, c in count.items()}
    own = layout.DenoiserLayout("", {n: tuple(t.shape) for n, t in state.items()}, rows, (), False)
    chosen = {f"of_{kind.lower()}.weight": kind for kind in KINDS}
    pieces = list(folder._pieces(network, own, chosen))
    with path.open("wb") as file:
        folder._write_weights(
            file, network, own, pieces, Fitted(5.5, 40.0).to_dict(), {}, ProgressCounter(None, 1)
        )
    meant = {n: measure.rounded(state[n], kind) for n, kind in chosen.items()}
    others = {n: t.to(blocks.PLAIN[folder.fixed_kind(own, network, n)]) for n, t in state.items() if n not in meant}  # fmt: skip
    return meant, others


def test_every_type_comes_back_exactly_multiplied_out_or_kept(tmp_path):
    path = tmp_path / "x.safetensors"
    meant, others = one_of_each(path)
    wide = tensors.read(path, lambda _: torch.float32)
    assert not wide.packed
    kept = tensors.read(path, lambda _: torch.float32, lambda _: True)
    assert set(kept.packed) == {n for n in meant if n.split("_", 1)[1].split(".")[0].upper() in (*blocks.TYPES, blocks.INT8)}  # fmt: skip
    for name, values in {**meant, **others}.items():
        assert torch.equal(wide.meant[name].float(), values.float()), name
        if name in kept.packed:
            assert torch.equal(kept.packed[name].numbers(torch.float32), values), name


def test_the_header_tells_types_shapes_and_the_fit(tmp_path):
    path = tmp_path / "x.safetensors"
    one_of_each(path)
    entries = weights.header(path)
    assert entries["of_q4_k.weight"]["dtype"] == "Q4_K"
    assert entries["of_q4_k.weight"]["shape"] == [8, 256]
    found = weights.of_file(path)
    assert found.fitted is not None
    assert found.fitted.bits == 5.5
    assert found.parameters == sum(p.numel() for p in [*(torch.empty(8, 256 if k != "INT8" else 37) for k in KINDS), *(torch.empty(8) for _ in KINDS), torch.empty(16, 8, 3, 3), torch.empty(16), torch.empty(())])  # fmt: skip
    assert load_file(path)["of_q4_k.weight"].dtype == torch.uint8, "any reader of safetensors opens it"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda note: note | {"of_q4_k.weight": ["Q4_K", [8, 512]]}, BadFile, "what its tensors are not"),
        (lambda note: note | {"of_q4_k.weight": ["Q4_K", [8, -256]]}, BadFile, "what its tensors are not"),
        (lambda note: note | {"of_q4_k.weight": ["Q4_K"]}, BadFile, "what its tensors are not"),
        (lambda note: note | {"of_q4_k.weight": 3}, BadFile, "what its tensors are not"),
        (lambda note: note | {"of_q4_k.bias": ["Q8_0", [1, 32]]}, BadFile, "what its tensors are not"),
        (lambda note: note | {"nobody.weight": ["Q4_K", [8, 256]]}, BadFile, "nobody.weight"),
        (lambda note: note | {"of_q4_k.weight": ["Q9_Z", [8, 256]]}, Unfit, "the type Q9_Z"),
        (lambda note: note | {"of_q4_k.weight": [["Q4_K"], [8, 256]]}, BadFile, "what its tensors are not"),
        (lambda note: [], Unfit, "is a whole number"),
        (lambda note: [3], BadFile, "what its tensors are not"),
        (lambda note: {"of_q4_k.weight": note.pop("of_q4_k.weight")}, Unfit, "is a whole number"),
    ],
)
def test_a_note_that_contradicts_the_tensors_is_refused_by_name(tmp_path, change, error, says):
    path = tmp_path / "x.safetensors"
    one_of_each(path)
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    note = json.loads(header["__metadata__"][mixed.KEY])
    header["__metadata__"][mixed.KEY] = json.dumps(change(note))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    with pytest.raises(error, match=says):
        tensors.read(path, lambda _: torch.float32)


# -- the folder ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny.save("zimage", tmp_path_factory.mktemp("models") / "z")


def mixture(own: layout.DenoiserLayout) -> dict[str, str]:
    """A different type for each layer in turn, of those that a folder holds for its rows."""
    found = {}
    for number, name in enumerate(own.layers):
        kinds = formats.candidates(own.shapes[name], container="folder")
        found[name] = kinds[-1 - number % len(kinds)]
    return found


@pytest.mark.parametrize("family", ["zimage", "flux", "sd"])
def test_a_folder_comes_back_exactly_packed_or_not(tmp_path, family):
    model = catalogue.resolve(str(tiny.save(family, tmp_path / family)))
    pipeline = load(model, calibrate.uniform(model, "float32"))
    own, network = layout.of_model(model, pipeline), denoiser(pipeline)
    chosen, component = mixture(own), "unet" if family == "sd" else "transformer"
    assert blocks.INT8 in chosen.values() or family == "sd"  # its one layer takes the coarsest
    path = folder.write(tmp_path / "out", model, component, network, own, chosen, Fitted(6.0, 41.0).to_dict())
    assert folder.fixed_bytes(own) + sum(folder.bytes_of(own.shapes[n], k) for n, k in chosen.items()) - path.stat().st_size >= 0  # fmt: skip
    meant = {name: measure.rounded(own.weight(network, name), kind) for name, kind in chosen.items()}
    others = {name: own.weight(network, name).to(blocks.PLAIN[folder.fixed_kind(own, network, name)]).float() for name in own.shapes if name not in chosen}  # fmt: skip
    found = catalogue.resolve(str(tmp_path / "out"))
    assert found.pipeline_class == model.pipeline_class
    assert found.parameters == model.parameters
    with own.replaced(network, meant | others):
        for keep in (False, True):
            plan = calibrate.uniform(found, "float32")
            if keep:
                plan = precision_plan.choose(found, "cpu", "float32", keep_packed=True)
            again = denoiser(load(found, plan))
            assert bool(count_kept(again)) is keep
            for name, tensor in network.state_dict().items():
                assert torch.equal(again.get_submodule(name.rpartition(".")[0]).weight if name.endswith(".weight") else again.state_dict()[name], tensor), name  # fmt: skip


def test_diffusers_does_not_take_bytes_for_weights(source, tmp_path):
    from diffusers import ZImageTransformer2DModel

    model = catalogue.resolve(str(source))
    pipeline = load(model, calibrate.uniform(model, "float32"))
    own = layout.of_model(model, pipeline)
    folder.write(tmp_path / "out", model, "transformer", denoiser(pipeline), own, mixture(own), {})
    with pytest.raises(OSError, match="no file named"):
        ZImageTransformer2DModel.from_pretrained(tmp_path / "out" / "transformer", local_files_only=True)
    with pytest.raises(BadRequest, match="exists already"):
        folder.write(tmp_path / "out", model, "transformer", denoiser(pipeline), own, mixture(own), {})


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [(["--format", "zip"], UnknownName, "zip"), (["--format", "folder", "-o", "x.gguf"], BadRequest, "name it x, or"),
     (["-o", "x"], BadRequest, "--format folder")],
)  # fmt: skip
def test_what_the_name_contradicts_is_refused(source, tmp_path, monkeypatch, words, error, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        cli.run(["fit", str(source), "--bits", "8", *words])


def test_a_folder_is_made_of_a_folder(tmp_path, source):
    """A file that brings encoder and decoder has no folder to copy."""
    model = catalogue.resolve(str(source))
    whole = model.__class__(**{**model.__dict__, "parts": {"transformer": source, "vae": source}})
    with pytest.raises(Unfit, match="--format gguf"):
        fit.prepare(whole, fit.Goal("bits", 8.0), None, torch.device("cpu"), "folder")
