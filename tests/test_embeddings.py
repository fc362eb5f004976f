"""Textual inversions: every layout and every way to name one paints what diffusers' own loader paints; the rest is told or refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from starrynight.errors import BadFile, BadRequest, MissingFile, PickledFile, Unfit
from starrynight.models import catalogue, embeddings, load, places, precision_plan
from starrynight.numerics.solve import FoldPlan
from starrynight.painting import checking, inversion, offload
from starrynight.painting.painter import Painter
from starrynight.prompt_syntax import Mention, Words, read
from starrynight.request import PaintRequest
from starrynight.studio import as_picture

CPU = torch.device("cpu")
TOKEN = "zq"  # what diffusers' loader calls it here: letters that no other word has
FIELDS = {"width": 64, "height": 64, "steps": 2, "guidance": 3.0, "seed": 1, "precision": "float32"}


def draw(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ONE, THREE, L, G = draw(1, 16), draw(3, 16), draw(2, 16, seed=1), draw(2, 24, seed=2)

# family → layout → (tensors of the file, vectors by component)
LAYOUTS = {
    "sd": {
        "A1111": ({"emb_params": THREE}, {"": THREE}),
        "A1111, flattened": ({"string_to_param.*": THREE}, {"": THREE}),
        "A1111, its star": ({"*": THREE}, {"": THREE}),
        "diffusers": ({"<cat-toy>": THREE}, {"": THREE}),
        "diffusers, one vector": ({"<cat-toy>": ONE[0]}, {"": ONE}),
        "one row": ({"<cat-toy>": ONE}, {"": ONE}),
        "any name": ({"weights": THREE}, {"": THREE}),
        "ComfyUI": ({"clip_l": THREE}, {"": THREE}),
        "ComfyUI, SD 2": ({"clip_h": THREE}, {"": THREE}),
        "float16": ({"emb_params": THREE.half()}, {"": THREE.half().float()}),
    },
    "sdxl": {
        "kohya": ({"clip_l": L, "clip_g": G}, {"": L, "_2": G}),
        "kohya, the other order": ({"clip_g": G, "clip_l": L}, {"": L, "_2": G}),
        "pivotal tuning": ({"text_encoders_0": L, "text_encoders_1": G}, {"": L, "_2": G}),
    },
}
CASES = [(family, layout) for family, layouts in LAYOUTS.items() for layout in layouts]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    found = {family: tiny.save(family, root / family) for family in ("sd", "zimage")}
    tiny.sdxl(second=24).save_pretrained(root / "sdxl")
    tiny.flux().save_pretrained(root / "flux")
    return {**found, "sdxl": root / "sdxl", "flux": root / "flux"}


@pytest.fixture(scope="module")
def painters(folders):
    """One painter a family, used by every test: what one leaves behind, the next would see."""
    found = {}
    for family, folder in folders.items():
        model = catalogue.resolve(str(folder))
        plan = precision_plan.choose(model, "cpu", "float32")
        found[family] = Painter(load.load(model, plan), model, plan, CPU, "resident")
    return found


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "embeddings").mkdir(parents=True)
    return tmp_path / "home" / "embeddings"


def paint(painter, prompt, **more):
    (outcome,) = painter.paint(PaintRequest(prompt=prompt, model=painter.model.spec.name, **(FIELDS | more)))
    return outcome


def by_diffusers(folder, vectors, prompt, **more) -> np.ndarray:
    """The picture after ``load_textual_inversion``, in a painter of its own."""
    model = catalogue.resolve(str(folder))
    plan = precision_plan.choose(model, "cpu", "float32")
    painter = Painter(load.load(model, plan), model, plan, CPU, "resident")
    pipeline = painter.pipeline
    for number, rows in vectors.items():
        pipeline.load_textual_inversion(
            {TOKEN: rows}, token=TOKEN, tokenizer=getattr(pipeline, f"tokenizer{number}"),
            text_encoder=getattr(pipeline, f"text_encoder{number}"),
        )  # fmt: skip
    return paint(painter, prompt, **more).pixels


@pytest.mark.parametrize(("family", "layout"), CASES)
def test_every_layout_paints_as_diffusers_loader_does(folders, painters, home, family, layout):
    tensors, vectors = LAYOUTS[family][layout]
    plain = paint(painters[family], "a sea", negative_prompt="fog")
    save_file(tensors, home / "EasyNegative.safetensors")
    found = paint(painters[family], "a sea", negative_prompt="EasyNegative, fog")
    expected = by_diffusers(folders[family], vectors, "a sea", negative_prompt=f"{TOKEN}, fog")
    assert np.abs(found.pixels - expected).max() < 1e-6
    assert np.abs(found.pixels - plain.pixels).max() > 1e-4
    assert found.negative_prompt == "EasyNegative, fog"  # as it was written
    (entry,) = found.embeddings
    digest = hashlib.sha256((home / "EasyNegative.safetensors").read_bytes()).hexdigest()
    count = len(next(iter(vectors.values())))
    assert entry == {
        "name": "EasyNegative", "file": "EasyNegative.safetensors", "sha256": digest, "vectors": count, "in": ["negative_prompt"],
    }  # fmt: skip
    again = paint(painters[family], "a sea", negative_prompt="fog")  # nothing remains
    assert (again.pixels == plain.pixels).all()
    assert again.embeddings == ()


# How prompts name cat.safetensors, whose only tensor is called <cat-toy>, in a folder below the embeddings'.
WRITTEN = ["cat", "Cat", "<cat>", "embedding:cat", "embedding:cat.safetensors", "embedding:sub/cat", r"embedding:sub\cat.pt",
           "<embed:cat>", "<embedding:sub/cat>", "<cat-toy>", "{cat|cat}", "(cat:1)"]  # fmt: skip


@pytest.mark.parametrize("written", WRITTEN)
def test_every_way_to_name_one(folders, painters, home, written):
    (home / "sub").mkdir()
    save_file({"<cat-toy>": THREE}, home / "sub" / "cat.safetensors")
    found = paint(painters["sd"], f"a {written}, sea")
    assert (found.pixels == paint(painters["sd"], "a cat, sea").pixels).all()
    assert [one["in"] for one in found.embeddings] == [["prompt"]]
    assert found.verdict.reasons == ()


@pytest.mark.parametrize("word", ["cats", "tomcat", "cat-like", "my_cat", "cat2", "<lora-cat>", "# cat"])
def test_a_name_within_a_word_names_nothing(home, word):
    save_file({"emb_params": THREE}, home / "cat.safetensors")
    assert read(f"sea\n{word}", 1, True, embeddings.known()).mentions == ()


@pytest.mark.parametrize("written", ["({}:1.5), sea", "[{}] sea", "a sea, (({}))"])
def test_weights_reach_the_vectors(folders, painters, home, written):
    save_file({"emb_params": ONE}, home / "cat.safetensors")
    found = paint(painters["sd"], written.format("cat"))
    expected = by_diffusers(folders["sd"], {"": ONE}, written.format(TOKEN))
    assert np.abs(found.pixels - expected).max() < 1e-6
    assert np.abs(found.pixels - paint(painters["sd"], written.format("cat").translate(str.maketrans("", "", "()[]:1.5"))).pixels).max() > 1e-5  # fmt: skip


def test_names_become_characters_under_their_weight():
    words = Words("ab cat, cat dog", ((3, 6, 1.5), (8, 15, 0.5)), mentions=(
        Mention(3, 6, "cat"), Mention(8, 11, "cat"), Mention(12, 15, "dog")))  # fmt: skip
    found = inversion.substituted(words, {"cat": "XY", "dog": "Z"})
    assert found.text == "ab XY, XY Z"
    assert found.weights == ((3, 5, 1.5), (7, 11, 0.5))


def test_two_in_both_prompts_with_a_style(folders, painters, home):
    for number, name in enumerate(("cat", "cat two")):
        save_file({"emb_params": draw(2, 16, seed=number)}, home / f"{name}.safetensors")
    words = read("cat two, cat and a sea", 1, True, embeddings.known())
    assert [words.text[one.start : one.end] for one in words.mentions] == ["cat two", "cat"]
    found = paint(painters["sd"], "cat two, sea.", negative_prompt="cat", style="oil")
    assert [(one["name"], one["in"]) for one in found.embeddings] == [
        ("cat two", ["prompt"]), ("cat", ["negative_prompt"]),
    ]  # fmt: skip
    model = painters["sd"].model.spec
    request = PaintRequest(prompt="a sea, cat two.", style="oil", model=model.name, **FIELDS)
    (one,) = checking.words_of(request, model, 1)[0].mentions
    assert checking.words_of(request, model, 1)[0].text[one.start : one.end] == "cat two"


def test_clip_pools_where_it_did(painters, home):
    """transformers' CLIP with ``eos_token_id`` 2 pools at the largest id, which must stay the end of the text."""
    save_file({"clip_l": L, "clip_g": G}, home / "cat.safetensors")
    pipeline = painters["sdxl"].pipeline
    words = read("cat, sea", 1, True, embeddings.known())
    placement = inversion.place(pipeline, (words, Words("")), embeddings.known(), "it")
    pooled = []
    model = next(module for module in pipeline.text_encoder_2.modules() if hasattr(module, "eos_token_id"))
    own = model.eos_token_id
    try:
        for model.eos_token_id in (own, 2):
            with inversion.applied(pipeline, placement):
                pooled.append(pipeline.encode_prompt(placement.texts[0].text, device="cpu")[2])
    finally:
        model.eos_token_id = own
    assert torch.equal(*pooled)


@pytest.mark.parametrize("arrangement", ["model", "sequential"])
def test_it_is_applied_where_weights_are_offloaded(folders, painters, home, arrangement):
    save_file({"emb_params": THREE}, home / "cat.safetensors")
    model = catalogue.resolve(str(folders["sd"]))
    plan = precision_plan.choose(model, "cpu", "float32")
    pipeline = load.load(model, plan)
    tiny.offload_unnumbered(pipeline)
    offload.place(pipeline, CPU, arrangement)
    away = Painter(pipeline, model, plan, CPU, arrangement)
    for prompt in ("a cat, sea", "a boat, sea"):
        assert np.abs(paint(away, prompt).pixels - paint(painters["sd"], prompt).pixels).max() < 1e-6


def test_vectors_are_folded_as_the_table_is(folders, home):
    save_file({"emb_params": THREE}, home / "cat.safetensors")
    model = catalogue.resolve(str(folders["sd"]))
    encoder = load.load(model, precision_plan.choose(model, "cpu", "float32")).text_encoder
    table = encoder.get_input_embeddings()
    name = next(name for name, module in encoder.named_modules() if module is table)
    tokenizer = tiny.clip_tokenizer()
    plan = FoldPlan(parameters={f"text_encoder.{name}.weight": 3})
    pipeline = SimpleNamespace(
        components={"text_encoder": encoder}, text_encoder=encoder, tokenizer=tokenizer, folds=plan
    )
    words = read("cat", 1, True, embeddings.known())
    placement = inversion.place(pipeline, (words, Words("")), embeddings.known(), "it")
    late = []
    with inversion.applied(pipeline, placement):
        handle = table.register_forward_hook(lambda module, args, output: late.append(output))
        encoder(pipeline.tokenizer(placement.texts[0].text, return_tensors="pt").input_ids)
        handle.remove()
    assert torch.equal(late[0][0, 1:4], 8 * THREE)
    assert pipeline.tokenizer is tokenizer


def test_another_encoder_reads_the_prompt_without_it(painters, home):
    pipeline = painters["flux"].pipeline
    width = pipeline.text_encoder.config.hidden_size
    vectors = draw(2, width)
    save_file({"clip_l": vectors}, home / "cat.safetensors")
    words = read("a sea, (cat), at night", 1, False, embeddings.known())
    placement = inversion.place(pipeline, (words, Words("")), embeddings.known(), "Flux")
    more = inversion.arguments_of_others(pipeline, placement)
    assert more["prompt_2"] == "a sea, (), at night"
    with inversion.applied(pipeline, placement):
        found = pipeline.encode_prompt(placement.texts[0].text, prompt_2=more["prompt_2"], device="cpu")
    pipeline_of_diffusers = tiny.flux()
    for name in ("text_encoder", "text_encoder_2"):
        getattr(pipeline_of_diffusers, name).eval().load_state_dict(getattr(pipeline, name).state_dict())
    pipeline_of_diffusers.load_textual_inversion({TOKEN: vectors}, token=TOKEN)
    expected = pipeline_of_diffusers.encode_prompt(
        f"a sea, ({TOKEN}), at night", prompt_2="a sea, (), at night", device="cpu"
    )
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    told = paint(painters["flux"], "a sea, cat", guidance=1.0).verdict.reasons
    assert any("other text encoder" in reason for reason in told)


# What cannot be applied: family → file → (content, words of the cause, error when it is written as embedding:cat, and of the word)
def _nan(rows):
    broken = rows.clone()
    broken[0, 0] = float("nan")
    return broken


UNFIT = {
    "too wide": ("sd", {"emb_params": draw(2, 24)}, "24 wide", Unfit, None),
    "of SDXL": ("sd", {"clip_l": L, "clip_g": G}, "16 + 24 wide", Unfit, None),
    "of SD 1": ("sdxl", {"emb_params": THREE}, "reads 16 + 24", Unfit, None),
    "half of SDXL's": ("sdxl", {"clip_g": G}, "24 wide", Unfit, None),
    "for no CLIP": ("zimage", {"emb_params": THREE}, "only CLIP", Unfit, None),
    "NaN": ("sd", {"emb_params": _nan(THREE)}, "NaN or Inf in emb_params", BadFile, BadFile),
    "Inf in the second": ("sdxl", {"clip_l": L, "clip_g": G / 0}, "NaN or Inf in clip_g", BadFile, BadFile),
    "whole numbers": ("sd", {"emb_params": THREE.to(torch.int32)}, "I32", BadFile, BadFile),
    "a picture's shape": ("sd", {"emb_params": draw(1, 3, 16)}, "[1, 3, 16]", BadFile, BadFile),
    "something besides": ("sd", {"emb_params": THREE, "clip_l_out": draw(3, 16)}, "clip_l_out", BadFile, BadFile),
    "uneven": ("sdxl", {"clip_l": L, "clip_g": draw(3, 24)}, "2 and 3", BadFile, BadFile),
    "nothing": ("sd", {}, "no vectors", BadFile, BadFile),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_what_cannot_be_applied_is_refused_by_name_or_told(painters, home, case):
    family, content, cause, explicit, bare = UNFIT[case]
    painter = painters[family]
    plain = paint(painter, "a cat, sea", guidance=1.0)
    save_file(content, home / "cat.safetensors")
    with pytest.raises(explicit) as caught:
        paint(painter, "a embedding:cat, sea", guidance=1.0)
    assert cause in caught.value.en
    assert "cat.safetensors" in caught.value.en
    assert "cat.safetensors" in caught.value.zh
    if bare:
        with pytest.raises(bare, match=r"cat\.safetensors"):
            paint(painter, "a cat, sea", guidance=1.0)
    else:  # a word of the prompt, which stays one
        found = paint(painter, "a cat, sea", guidance=1.0)
        assert (found.pixels == plain.pixels).all()
        assert any(cause in reason and "plain word" in reason for reason in found.verdict.reasons)
        request = PaintRequest(prompt="a cat, sea", model=painter.model.spec.name, **FIELDS)
        assert any(cause in en for en, _ in painter.warnings(request))


def test_pickles_and_names_that_several_files_have(painters, home, tmp_path, monkeypatch):
    plain = paint(painters["sd"], "a cat, sea")
    (home / "cat.pt").write_bytes(b"\x80\x02" + b"x" * 20)
    with pytest.raises(PickledFile, match=r"cat\.pt"):
        paint(painters["sd"], "embedding:cat, sea")
    found = paint(painters["sd"], "a cat, sea")
    assert (found.pixels == plain.pixels).all()
    assert any("cat.pt" in reason for reason in found.verdict.reasons)
    for name in ("one", "two"):
        (tmp_path / name / "embeddings").mkdir(parents=True)
        save_file({"emb_params": THREE}, tmp_path / name / "embeddings" / "cat.safetensors")
    monkeypatch.setenv("STARRY_MODEL_PATHS", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    with pytest.raises(BadRequest, match="could be"):
        paint(painters["sd"], "embedding:cat, sea")
    save_file(
        {"emb_params": THREE}, home / "cat.safetensors"
    )  # STARRY_HOME's comes first, before pickles too
    assert paint(painters["sd"], "embedding:cat, sea").embeddings


@pytest.mark.parametrize("written", ["embedding:nobody", "<embed:nobody>"])
def test_one_that_is_not_here_is_told(painters, written):
    found = paint(painters["sd"], f"a sea, {written}")
    assert found.prompt == f"a sea, {written}"
    assert any(written in reason and "No embedding" in reason for reason in found.verdict.reasons)


PLACES = {
    "ComfyUI": "models/embeddings", "A1111": "embeddings", "Forge": "models/embeddings/anime", "SwarmUI": "Models/Embeddings",
    "InvokeAI": "models/sd-1/embedding", "a folder": "Embeddings", "itself": "",
}  # fmt: skip


@pytest.mark.parametrize("program", PLACES)
def test_places_of_other_programs_are_searched(tmp_path, monkeypatch, program):
    root = tmp_path / ("embeddings" if program == "itself" else "program")
    for folder in (root / "models" / "checkpoints", root / PLACES[program]):
        folder.mkdir(parents=True, exist_ok=True)
    if program in ("SwarmUI", "a folder", "itself"):
        shutil.rmtree(root / "models")
    save_file({"emb_params": THREE}, root / PLACES[program] / "cat.safetensors")
    assert embeddings.known() == {}
    places.add(str(root))
    assert [one.path.name for one in embeddings.known()["cat"]] == ["cat.safetensors"]
    assert "cat" in [one.name for one in places.survey().found]  # ``starry models list --places`` shows it


def test_a_yaml_names_the_folder_by_its_key(tmp_path):
    (tmp_path / "inversions").mkdir()
    save_file({"emb_params": THREE}, tmp_path / "inversions" / "cat.safetensors")
    (tmp_path / "extra.yaml").write_text(
        "mine:\n  base_path: .\n  embeddings: inversions\n  loras: nowhere\n"
    )
    places.add(str(tmp_path / "extra.yaml"))
    assert "cat" in embeddings.known()
    (tmp_path / "home" / "places.json").write_text(
        "["
    )  # told by doctor and by ``starry models``, not by every painting
    assert embeddings.known() == {}


BUNDLES = {
    "kohya": {"bundle_emb.cat.string_to_param.*": THREE},
    "OneTrainer": {"bundle_emb.cat.clip_l": THREE},
    "a token with a dot": {"bundle_emb.<v1.5 cat>.emb_params": THREE},
}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_embeddings_inside_a_lora(folders, painters, tmp_path, bundle):
    layer = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    encoder = painters["sd"].pipeline.text_encoder
    (shape,) = (
        each.weight.shape for name, each in encoder.named_modules() if name.endswith("layers.0.mlp.fc1")
    )
    zero = {f"{layer}.lora_A.weight": draw(2, shape[1]), f"{layer}.lora_B.weight": torch.zeros(shape[0], 2)}
    save_file(zero | BUNDLES[bundle], tmp_path / "style.safetensors")
    name = next(iter(BUNDLES[bundle])).split(".", 1)[1].rpartition(".")[0].removesuffix(".string_to_param")
    found = paint(painters["sd"], f"a {name}, sea", loras=((str(tmp_path / "style.safetensors"), 1.0),))
    expected = by_diffusers(folders["sd"], {"": THREE}, f"a {TOKEN}, sea")
    assert np.abs(found.pixels - expected).max() < 1e-6
    ((entry,), (fit,)) = found.embeddings, painters["sd"].fits
    assert (entry["name"], entry["file"], len(entry["sha256"])) == (name, "style.safetensors", 64)
    assert (fit.fit, fit.layers, fit.embeddings) == (1, 1, (name,))
    assert name in fit.message().en
    wide = {name: draw(3, 24) for name in BUNDLES[bundle]}
    save_file(zero | wide, tmp_path / "wide.safetensors")
    with pytest.raises(Unfit, match="embeddings"):  # no encoder of this model reads them
        paint(painters["sd"], "a sea", loras=((str(tmp_path / "wide.safetensors"), 1.0),))


def test_the_recipe_keeps_name_and_hash_and_batches_leave_it_alone(painters, home):
    save_file({"emb_params": THREE}, home / "cat.safetensors")
    painter = painters["sd"]
    request = PaintRequest(prompt="a cat", model=painter.model.spec.name, **FIELDS)
    outcome = paint(painter, "a cat")
    recipe = as_picture(outcome, request, painter).recipe
    assert recipe["embeddings"] == list(outcome.embeddings)
    assert recipe["prompt"] == "a cat"
    assert "embeddings" not in as_picture(paint(painter, "a boat"), request, painter).recipe
    assert painter.paint_together([(request, 0), (request.replace(seed=2), 0)], lambda k, step: None) is None


def test_its_vectors_count_as_tokens(painters, home):
    painter = painters["sd"]
    save_file({"emb_params": draw(80, 16)}, home / "cat.safetensors")
    request = PaintRequest(prompt="a cat", model=painter.model.spec.name, **FIELDS)
    limit = painter.model.spec.max_tokens
    assert limit == 77
    assert any("83 tokens" in en for en, _ in painter.warnings(request))
    assert not any("tokens" in en for en, _ in painter.warnings(request.replace(prompt="a boat")))


def test_a_failure_while_painting_leaves_nothing(painters, home):
    save_file({"emb_params": THREE}, home / "cat.safetensors")
    painter = painters["sd"]
    plain, tokenizer = paint(painter, "a sea"), painter.pipeline.tokenizer

    def stop(step):
        raise KeyboardInterrupt

    request = PaintRequest(prompt="a cat", model=painter.model.spec.name, **FIELDS)
    with suppress(KeyboardInterrupt):
        list(painter.paint(request, stop))
    assert painter.pipeline.tokenizer is tokenizer
    assert not painter.pipeline.text_encoder.get_input_embeddings()._forward_hooks
    assert (paint(painter, "a sea").pixels == plain.pixels).all()


def test_odd_things_in_the_folder_are_no_traceback(painters, home):
    save_file({"emb_params": THREE}, home / "cat.safetensors")
    (home / "up").symlink_to(home)
    (home / "gone.safetensors").symlink_to(home / "nowhere")
    (home / "folder.safetensors").mkdir()
    os.mkfifo(home / "pipe.safetensors")
    (home / ".hidden").mkdir()
    save_file({"emb_params": THREE}, home / ".hidden" / "secret.safetensors")
    (home / "cut.safetensors").write_bytes(b"\x10" + b"\0" * 7 + b"{")
    assert set(embeddings.known("<")) == {"cat", "gone", "pipe", "cut"}
    for name, error in (("gone", MissingFile), ("pipe", MissingFile), ("cut", BadFile)):
        with pytest.raises(error, match=name):
            paint(painters["sd"], f"embedding:{name}, sea")


def test_paint_and_inspect_in_the_shell(folders, home, tmp_path):
    save_file({"emb_params": THREE}, home / "EasyNegative.safetensors")
    out = str(tmp_path / "a.png")

    def run(*words: str) -> str:
        command = [sys.executable, "-c", "from starrynight.cli import main; main()", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout

    run(
        "paint",
        "a sea",
        "-m",
        str(folders["sd"]),
        "--negative",
        "easynegative, fog",
        "--steps",
        "1",
        "--size",
        "64",
        "-o",
        out,
    )
    told = run("inspect", out)
    assert "EasyNegative (3 vectors)" in told
    assert "easynegative, fog" in told
