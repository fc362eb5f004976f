"""``starry fit``: the integer programme, sensitivities that resume, borrowed ones, what is predicted, and the command."""

from __future__ import annotations

import itertools
import json
import random
import struct
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from starrynight import cli
from starrynight.errors import BadRequest, Cancelled, MissingFile, Unfit
from starrynight.fitting import fit, formats, layout, measure, programme, table, write
from starrynight.fitting.programme import Option
from starrynight.fitting.table import Sensitivity
from starrynight.folding import calibrate
from starrynight.models import catalogue, gguf, precision_plan
from starrynight.models.fitted import FILE
from tests import tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save("zimage", tmp_path_factory.mktemp("models") / "z")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """One home for the file's tests, so that sensitivities are measured once; on one picture of two steps."""
    patch = pytest.MonkeyPatch()
    patch.setenv("STARRY_HOME", str(tmp_path_factory.mktemp("home")))
    patch.setenv("STARRY_LANG", "en")
    usual = calibrate.CalibrationSample("a village", 64, 64, 2, 1.0)
    patch.setattr(calibrate, "usual", lambda model: (usual,))
    patch.setattr(measure, "PROMPTS", measure.PROMPTS[:1])
    yield
    patch.undo()


@pytest.fixture(scope="module")
def model(folder):
    return catalogue.resolve(str(folder))


def fitted(model, goal: fit.Goal, pictures: int = 0, **more):
    return fit.fit(fit.prepare(model, goal, more.get("like"), CPU), pictures, False, CPU, more.get("on_progress"))  # fmt: skip


@pytest.fixture(scope="module")
def result(model):
    return fitted(model, fit.Goal("bits", 6.0), pictures=2)


# -- the programme ---------------------------------------------------------------------------------------------------


def options_of(seed: int, layers: int = 5, kinds: int = 4) -> dict[str, list[Option]]:
    r = random.Random(seed)
    return {
        f"layer {n}": [Option(f"k{k}", r.randint(20, 400), 10 ** r.uniform(-7, -2)) for k in range(kinds)]
        for n in range(layers)
    }


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_best_of_all(seed):
    """Against every combination, at a tight and at a loose budget."""
    options = options_of(seed)
    least, most = programme.smallest(options), sum(max(o.bytes for o in own) for own in options.values())
    for share in (0.0, 0.3, 0.9):
        budget = round(least + share * (most - least))
        taken = programme.choose(options, budget)
        assert sum(option.bytes for option in taken.values()) <= budget
        best = min(
            sum(option.error for option in each)
            for each in itertools.product(*options.values())
            if sum(option.bytes for option in each) <= budget
        )
        assert sum(option.error for option in taken.values()) <= best * (1 + 2e-4) + 1e-12


def test_many_layers_take_moments_and_more_room_is_never_worse():
    options = options_of(1, layers=250, kinds=10)
    least = programme.smallest(options)
    errors = [
        sum(o.error for o in programme.choose(options, int(least * share)).values())
        for share in (1.0, 1.3, 2.0, 5.0)
    ]
    assert errors == sorted(errors, reverse=True)


def test_too_little_room_is_refused_with_the_least():
    options = {"a": [Option("Q4_0", 3_000_000, 1.0)], "b": [Option("Q4_0", 4_000_000, 1.0)]}
    with pytest.raises(Unfit, match=r"at least 0\.007 GB.*0\.006 GB"):
        programme.choose(options, 6_000_000)


def test_errors_of_any_size_are_weighed():
    """Errors span many powers of ten; the solver sees them scaled."""
    for scale in (1e-30, 1e-9, 1.0, 1e9):
        options = {"a": [Option("fine", 20, 0.0), Option("rough", 10, 5 * scale)],
                   "b": [Option("fine", 20, 0.0), Option("rough", 10, 7 * scale)]}  # fmt: skip
        assert programme.choose(options, 30)["b"].kind == "fine"


# -- the table -------------------------------------------------------------------------------------------------------


def small_table() -> Sensitivity:
    found = Sensitivity("m", "f", "paintings", {"a": [4, 256]}, {"a": "BF16"})
    found.weights = {"a": {"BF16": 0.0, "Q8_0": 1e-5, "Q5_K": 1e-3, "Q4_0": 8e-3, "Q3_K": 4e-2}}
    found.published = {"a": {"Q4_0": 1e-2}}
    found.errors = {"a": {"Q5_K": 1e-6, "Q3_K": 2e-4}}
    return found


def test_measured_types_keep_what_was_measured_and_others_lie_between():
    found = small_table()
    errors = [found.error("a", kind) for kind in ("BF16", "Q8_0", "Q5_K", "Q4_0", "Q3_K")]
    assert errors[0] == 0
    assert errors[1] == pytest.approx(1e-8)  # in proportion below the finer one
    assert errors[2] == pytest.approx(1e-6)
    assert errors[4] == pytest.approx(2e-4)
    assert errors == sorted(errors)
    assert errors[3] < found.error("a", "Q4_0", by_others=True) < errors[4]
    found.scale = 3
    assert found.error("a", "Q3_K") == pytest.approx(6e-4)


def test_a_table_comes_back_and_nonsense_is_none(tmp_path):
    path = tmp_path / "t.json"
    table.store(path, small_table())
    assert table.stored(path) == small_table()
    assert table.stored(path, {"a": [4, 512]}) is None
    for text in ("", "[]", "{}", '{"version": 99}', "[" * 9999, json.dumps({**json.loads(small_table().to_json()), "version": 1})):  # fmt: skip
        path.write_text(text)
        assert table.stored(path) is None


def test_every_row_length_has_its_types():
    assert formats.candidates([4, 512])[1:] == formats.QUANTISED
    assert set(formats.candidates([4, 96])) == {"BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "IQ4_NL", "Q4_0"}
    assert formats.candidates([4, 40], "F16") == ("F16",)
    assert (formats.probes([4, 512]), formats.probes([4, 96]), formats.probes([4, 40])) == (("Q3_K", "Q5_K"), ("Q4_0", "Q5_0"), ("INT8",))  # fmt: skip


def test_the_hand_rule_keeps_what_is_named_so():
    shapes = {name: [64, 64] for name in ("x_embedder.weight", "layers.0.adaLN_modulation.0.weight", "noise_refiner.0.attention.out.weight",
                                          "final_layer.linear.weight", "layers.0.attention.qkv.weight", "layers.0.feed_forward.w1.weight")}  # fmt: skip
    chosen = formats.by_hand(shapes, dict.fromkeys(shapes, "BF16"))
    assert list(chosen.values()) == ["Q8_0"] * 4 + ["Q4_0"] * 2


# -- sensitivities ---------------------------------------------------------------------------------------------------


def test_a_killed_measurement_goes_on_where_it_stopped(folder, tmp_path):
    """A copy with other weights is measured in two sittings and at once: the same table."""
    other = changed(folder, tmp_path / "other", 1)

    class Stop:
        left = 6

        def __call__(self, done, total, message):
            Stop.left -= 1
            if Stop.left < 0:
                raise Cancelled

    goal = fit.Goal("bits", 6.0)
    with pytest.raises(Cancelled):
        fitted(other, goal, on_progress=Stop())
    first = fit.prepare(other, goal, None, CPU)
    whole = measure.stages(first.layout.signature)
    assert 0 < first.measurements < whole
    begun = table.stored(table.path_of(other))
    resumed = fitted(other, goal)
    assert begun.errors.items() <= {layer: {k: v for k, v in kinds.items() if k in begun.errors.get(layer, {})}
                                    for layer, kinds in resumed.table.errors.items()}.items()  # fmt: skip
    table.path_of(other).unlink()
    again = fitted(other, goal)
    assert again.table.errors == resumed.table.errors
    assert again.formats == resumed.formats
    assert fit.prepare(other, goal, None, CPU).measurements == 0


def changed(folder: Path, target: Path, seed: int):
    """The tiny pipeline with other weights."""
    import shutil

    shutil.copytree(folder, target)
    weights = next((target / "transformer").glob("*.safetensors"))
    torch.manual_seed(seed)
    tensors = {n: t * (1 + 0.3 * torch.randn_like(t)) for n, t in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    return catalogue.resolve(str(target))


def test_what_is_predicted_is_near_and_on_the_safe_side(result):
    chosen = result.chosen
    # the inputs of a small random network span few dimensions, where GPTQ gains much more than in a trained one
    assert chosen.predicted - 1 < chosen.measured < chosen.predicted + 24
    assert chosen.worst <= chosen.measured
    assert result.pictures == 2


def test_the_fit_is_predicted_at_least_as_good_as_any_one_type_at_its_bytes(result):
    found = result.table
    for name, each in formats.references(found.signature, found.plain).items():
        if name != formats.FLOAT8:
            container = "folder" if name == "INT8" else "gguf"
            taken = programme.choose(found.options(container), found.bytes(each))
            assert found.predicted({n: o.kind for n, o in taken.items()}) >= found.predicted(each) - 0.01, (
                name
            )


def test_the_network_is_itself_again(model, result):
    fresh = calibrate.uniform(model, "float32")
    from starrynight.models.load import denoiser, load

    for name, tensor in denoiser(load(model, fresh)).state_dict().items():
        assert torch.equal(tensor, result.subject.network.state_dict()[name]), name


def test_a_large_model_is_measured_by_its_velocity(folder, tmp_path, monkeypatch):
    other = changed(folder, tmp_path / "large", 2)
    monkeypatch.setattr(calibrate, "LARGE", 1)
    found = fitted(other, fit.Goal("bits", 6.0), pictures=1)
    assert found.table.how == "velocity"
    assert found.table.scale != 1
    assert found.chosen.predicted - 3 < found.chosen.measured < found.chosen.predicted + 12
    assert len(measure.samples_of(other)) == 1


def test_sensitivities_of_another_model_of_the_architecture_serve(folder, model, result, tmp_path):
    other = changed(folder, tmp_path / "kin", 3)
    goal = fit.Goal("bits", 6.0)
    prepared = fit.prepare(other, goal, model, CPU)
    assert prepared.measurements == 0
    found = fitted(other, goal, pictures=1, like=model)
    assert found.table.errors.keys() == result.table.errors.keys()
    assert found.table.fingerprint == other.fingerprint
    assert found.chosen.measured > found.chosen.predicted - 3
    # borrowed errors are not this model's own: without --like they are measured
    assert fit.prepare(other, goal, None, CPU).measurements > 0


def test_sensitivities_that_are_not_there_or_of_another_kind_are_refused(model, result, tmp_path):
    goal = fit.Goal("bits", 6.0)
    flux = catalogue.resolve(str(tiny.save("flux", tmp_path / "flux")))
    with pytest.raises(MissingFile, match="measure them first: starry fit"):
        fit.prepare(model, goal, flux, CPU)
    with pytest.raises(Unfit, match="another architecture"):
        fit.prepare(flux, goal, model, CPU)


# -- how large -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("8gb", 8 * 10**9), ("8G", 8 * 10**9), (" 7.5 GiB ", int(7.5 * 2**30)), ("900MB", 9 * 10**8),
     ("512 MiB", 2**29), ("123456", 123456)],
)  # fmt: skip
def test_sizes_are_read(text, size):
    assert fit.size_of(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-8GB", "8 PB", "0GB", "8,5GB", "nan", "1e9", "8GBB", "八GB", "9" * 99]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadRequest, match="write it as 8GB"):
        fit.size_of(text)


def test_exactly_one_way_to_say_how_large():
    for given in ((None, None, None), (5.5, "6GB", None), (None, "6GB", "8GB"), (5.5, "6GB", "8GB")):
        with pytest.raises(BadRequest, match="in one way"):
            fit.goal(*given)
    for bits in (0.0, -1.0, 17.0, float("nan"), float("inf")):
        with pytest.raises(BadRequest, match="between 1 and 16"):
            fit.goal(bits, None, None)


def test_the_file_is_no_larger_than_asked_and_hardly_smaller(model, result, tmp_path):
    own = result.subject.layout
    asked = write.fixed_bytes(own) + int(5.9 * sum(prod(shape) for shape in own.signature.values()) / 8)
    found = fitted(model, fit.Goal("file", asked))
    path = tmp_path / "small.gguf"
    fit.save(found, path)
    assert 0.9 * asked < path.stat().st_size <= asked


def test_too_little_of_each_kind_is_refused_with_what_is_needed(model):
    for goal, words in ((fit.Goal("bits", 2.0), r"--bits \d"), (fit.Goal("file", 1000), r"--file-size \d"),
                        (fit.Goal("memory", 10**9), r"2\.5 GB of it for one step.*--memory")):  # fmt: skip
        with pytest.raises(Unfit, match=words):
            fit.prepare(model, goal, None, CPU)


def test_a_layout_of_six_billion_says_beforehand_how_long_it_takes(tmp_path, folder):
    """Z-Image's published sizes: a header and a hole, no weights; planned in a small part of the 12.3 GB that they would take."""
    import resource
    import shutil

    from accelerate import init_empty_weights
    from diffusers import ZImageTransformer2DModel

    target = tmp_path / "six"
    shutil.copytree(folder, target)
    (target / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    config = {"cap_feat_dim": 16, "in_channels": 4}
    with init_empty_weights():
        network = ZImageTransformer2DModel(**config)
    config_file = target / "transformer" / "config.json"
    config_file.write_text(json.dumps({"_class_name": "ZImageTransformer2DModel", **config}))
    sparse(target / "transformer" / "diffusion_pytorch_model.safetensors", network.state_dict())
    large = catalogue.resolve(str(target))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepared = fit.prepare(large, fit.Goal("memory", 8 * 10**9), None, CPU)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 1e9
    assert sum(prod(s) for s in prepared.layout.signature.values()) > 6e9
    layers = prepared.layout.signature.values()
    assert prepared.measurements == sum(1 + (s[1] % 32 == 0) for s in layers) + measure.whole()
    # at least the products of one pass for each measurement, at a rate no core reaches
    assert prepared.seconds > prepared.measurements * 2 * 6e9 * 256 / 1e14
    assert prepared.budget == 8 * 10**9 - 2_500_000_000 - write.fixed_bytes(prepared.layout)
    assert "about" in prepared.message.en and "约需" in prepared.message.zh  # noqa: PT018


def sparse(path: Path, state) -> None:
    """A .safetensors file of these shapes in bfloat16 that takes no disk."""
    header, at = {}, 0
    for name, tensor in state.items():
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [at, at + 2 * tensor.numel()],
        }
        at += 2 * tensor.numel()
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def test_the_time_said_beforehand_is_near_for_a_tiny_model(model, result):
    """Its count of measurements is exact; its passes are those that run."""
    calls, meter = [], measure.Paintings(result.subject, measure.samples_of(model))
    hook = result.subject.network.register_forward_hook(lambda *_: calls.append(1))
    meter.error()
    hook.remove()
    # guidance may run both halves in one call
    assert len(calls) in ((count := fit.passes(meter.samples)), count / 2)


def test_a_run_killed_before_the_whole_pictures_paints_them_when_it_goes_on(folder, tmp_path):
    other = changed(folder, tmp_path / "other", 4)

    class Stop:
        def __call__(self, done, total, message):
            if "whole pictures" in message.en:
                raise Cancelled

    goal = fit.Goal("bits", 6.0)
    with pytest.raises(Cancelled):
        fitted(other, goal, on_progress=Stop())
    path = table.path_of(other)
    begun = table.stored(path)
    assert (begun.scale, begun.published_scale) == (table.UNSCALED, table.UNSCALED)
    prepared = fit.prepare(other, goal, None, CPU)
    assert prepared.measurements == 2 * len(measure.SCALES)
    assert prepared.seconds > 0
    assert not table.complete(begun)
    seen = []
    fitted(other, goal, on_progress=lambda done, total, message: seen.append((done, total)))
    assert table.complete(table.stored(path))
    assert fit.prepare(other, goal, None, CPU).seconds == 0
    assert seen[-1][0] == seen[-1][1]


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_a_file_that_paints_and_tells_what_it_is(folder, result, tmp_path, capsys):
    from starrynight.painting.painter import Painter
    from starrynight.studio import make_request

    path, report = tmp_path / "z-6.gguf", tmp_path / "report"
    cli.run(
        [
            "fit",
            str(folder),
            "--bits",
            "6",
            "-o",
            str(path),
            "--report",
            str(report),
            "--pictures",
            "1",
            "--json",
        ]
    )
    told = json.loads(capsys.readouterr().out)
    assert told["unchanged"]["components"]
    assert told["formats"] and sum(told["formats"].values()) == len(told["layers"])  # noqa: PT018
    assert {point["name"] for point in told["curve"]} >= {"fit", "Q8_0", "Q4_0", "F8_E4M3", "hand rule"}
    assert {name.name for name in report.iterdir()} == {"report.md", "curve.svg", "scene.png", "fit.json"}
    header = gguf.header(path)
    assert {entry["dtype"] for name, entry in header.items() if name in told["layers"]} == set(
        told["formats"]
    )

    painter = Painter.ready(
        make_request(prompt="a lake", model=str(path), precision="float32", width=64, height=64, steps=2)
    )
    note = painter.provenance["fitted"]["transformer"]
    assert note["bits"] == told["bits"] and note["base"]  # noqa: PT018
    assert (
        f"fit {told['bits']:.2f} bits, {told['predicted']:.1f} dB predicted"
        in painter.plan["transformer"].reason_en
    )
    with result.subject.stored_as(told["layers"]):
        for name, tensor in result.subject.network.state_dict().items():
            if tensor.dim() == 2:
                torch.testing.assert_close(painter.denoiser.state_dict()[name], tensor, msg=name)


def test_the_command_writes_a_folder_that_paints_and_tells_what_it_is(folder, result, tmp_path, capsys):
    from starrynight.painting.painter import Painter
    from starrynight.studio import make_request

    out = tmp_path / "z-8"
    cli.run(["fit", str(folder), "--bits", "8", "--format", "folder", "-o", str(out), "--pictures", "0"])  # fmt: skip
    said = capsys.readouterr().out
    assert "--keep-packed" in said
    assert f"{(out / 'transformer' / FILE).stat().st_size / 1e6:,.1f} MB" in said
    found = catalogue.resolve(str(out))
    told = found.files["transformer"][0].fitted
    assert "INT8" in told.formats
    assert "I8" in precision_plan.quantised(found)["transformer"]
    pictures = []
    for keep in (False, True):
        request = make_request(prompt="a lake", model=str(out), precision="float32", width=64, height=64, steps=2, seed=5, keep_packed=keep)  # fmt: skip
        painter = Painter.ready(request)
        assert painter.provenance["fitted"]["transformer"]["bits"] == told.bits
        assert f"fit {told.bits:.2f} bits" in painter.plan["transformer"].reason_en
        pictures += [outcome.pixels for outcome in painter.paint(request)]
    assert (pictures[0] == pictures[1]).all()


def test_what_is_not_fitted_is_told_by_name(result, capsys):
    """The text encoder and the decoder; of a U-Net its convolutions, too."""
    from starrynight.cli.fit import _unchanged

    assert set(result.unchanged["components"]) == {"text_encoder", "vae"}
    assert not set(result.unchanged["tensors"]) & set(result.formats)
    assert "Not fitted: " in _unchanged(result)
    assert "text_encoder" in _unchanged(result)


def test_the_convolutions_of_a_unet_are_told_by_name(tmp_path):
    from starrynight.cli.fit import _unchanged
    from starrynight.models.load import load

    unet = catalogue.resolve(str(tiny.save("sd", tmp_path / "sd")))
    pipeline = load(unet, calibrate.uniform(unet, "float32"))
    subject = measure.Subject(unet, pipeline, layout.of_model(unet, pipeline), {})
    found = fit.FitResult(subject, small_table(), {}, (), 0)
    assert "input_blocks.3.0.in_layers.2.weight" in found.unchanged["tensors"]
    assert "stay in 16 bits (" in _unchanged(found)


def test_the_command_says_what_it_would_do_and_writes_nothing(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.run(["fit", str(folder), "--bits", "6", "--dry-run"])
    assert "21 layers" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--bits", "6", "-o", "x.safetensors"], "name it x.gguf"), ([], "in one way"), (["--memory", "lots"], "is no size"),
     (["--bits", "6", "-o", "there.gguf"], "exists already"), (["--bits", "6", "--report", "there.gguf"], "exists already")],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_anything_is_measured(
    folder, tmp_path, monkeypatch, words, says
):
    monkeypatch.chdir(tmp_path)
    Path("there.gguf").write_bytes(b"")
    with pytest.raises(BadRequest, match=says):
        cli.run(["fit", str(folder), *words])


def test_a_fit_without_its_model_is_loaded_as_any_other_file(folder, result, tmp_path):
    """Moved away from the folder that it was made of, it is a lone transformer of its layout."""
    path = tmp_path / "z.gguf"
    fit.save(result, path)
    assert catalogue.find(str(path)).base == str(folder.resolve())
    away = tmp_path / "far" / "away"
    away.mkdir(parents=True)
    assert catalogue.find(str(path.rename(away / "z.gguf"))).base == "z-image-turbo"


def test_firefly_keeps_its_name_in_the_file(tmp_path):
    own = catalogue.resolve("firefly")
    assert fit.base_of(own, tmp_path / "x.gguf") == "firefly"
    assert layout.of_files(own).makers


def test_fireflys_sensitivities_ship_and_are_those_of_its_weights(home):
    own = catalogue.resolve("firefly")
    found = table.stored(table.path_of(own), layout.of_files(own).signature)
    assert not table.path_of(own).is_file()
    assert found is not None
    assert found.fingerprint == own.fingerprint, (
        "measure them again: starry fit firefly --bits 5 (docs/fit.md)"
    )
    assert table.complete(found)
    assert fit.prepare(own, fit.Goal("bits", 5.5), None, CPU).measurements == 0
    known = found.options()
    assert found.predicted(found.best(programme.smallest(known) * 2)[0]) > 40


def test_no_layer_counts_as_much_less_sensitive_than_the_others():
    found = Sensitivity("m", "f", "paintings", {n: [4, 256] for n in "abc"}, dict.fromkeys("abc", "BF16"))
    found.weights = {n: {"Q5_K": 1e-3, "Q3_K": 1e-2} for n in "abc"}
    found.errors = {
        "a": {"Q5_K": 1e-9, "Q3_K": 1e-8},
        "b": {"Q5_K": 1e-6, "Q3_K": 1e-5},
        "c": {"Q5_K": 4e-6, "Q3_K": 4e-5},
    }
    assert found.error("a", "Q3_K") == pytest.approx(table.LEAST_SHARE * 1e-5)
    assert found.error("b", "Q3_K") == pytest.approx(1e-5)
    assert found.error("a", "Q5_K") == pytest.approx(table.LEAST_SHARE * 1e-6)
