"""Real models of the senses made tiny: in transformers, and as .gguf in a real llama-server that must write the same.

Folders are loaded as the worker process loads them; one test of each kind goes through the process.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import psutil
import pytest
import tiny_senses
import torch
from PIL import Image
from typer.testing import CliRunner

from starrynight import errors
from starrynight.cli import hear as _hear  # noqa: F401  registers its command
from starrynight.cli import senses as _senses  # noqa: F401
from starrynight.cli.terminal import app
from starrynight.errors import (
    BadFile,
    BadRequest,
    MissingPackage,
    OutOfMemory,
    PickledFile,
    StarryError,
    Unfit,
)
from starrynight.senses import choice, hearing, llama, loading, local, memory, ranking, running, sound
from starrynight.senses.asking import png, whole
from starrynight.senses.eyes import Eyes
from starrynight.senses.llama import LlamaModel, LlamaServer

MAKE: dict[str, Callable[[Path], Path]] = {
    "eyes": tiny_senses.vision, "ears": tiny_senses.speech, "ranker": tiny_senses.reranker, "facets": tiny_senses.siamese,
    "blip": tiny_senses.blip, "whisper": tiny_senses.whisper,
}  # fmt: skip
DOCUMENTS = ["a starry night", "a cat", "梵高 河流 river", "江雪 孤舟", ""]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    yield
    running.stop()


def starry(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model, made once; whoever changes it copies it first."""
    root, made = tmp_path_factory.mktemp("tiny"), dict[str, Path]()

    def get(name: str) -> Path:
        if name not in made:
            made[name] = MAKE[name](root / name)
        return made[name]

    return get


@pytest.fixture(scope="module")
def loaded(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """The model of a folder in this process."""
    models: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in models:
            sense = {"blip": "eyes", "whisper": "ears"}.get(name, name)
            models[name] = loading.load(sense, folder(name))
        return models[name]

    return get


@pytest.fixture(scope="module")
def served(folder: Callable[[str], Path]) -> Iterator[Callable[[str], LlamaServer]]:
    """A llama-server with the .gguf of a sense's folder."""
    servers: dict[str, LlamaServer] = {}

    def get(sense: str) -> LlamaServer:
        if sense not in servers:
            files = tiny_senses.GGUF[sense](folder(sense), folder(sense).parent)
            servers[sense] = LlamaServer(choice.parse(sense, "+".join(map(str, files))))
        return servers[sense]

    yield get
    for one in servers.values():
        one.stop()


def squares(seed: int) -> np.ndarray:
    """A picture of 256 × 256, uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((32, 32, 1), np.uint8))


def chirp(seconds: float) -> np.ndarray:
    at = np.arange(round(seconds * sound.RATE))
    noise = np.random.default_rng(0).normal(size=len(at))
    return (np.sin(at / 9 * (1 + at / 30_000)) / 2 + noise / 20).astype(np.float32)


def question(pixels: np.ndarray, tokens: int = 8) -> dict[str, Any]:
    return {"picture": base64.b64encode(png(pixels)).decode(), "text": "描述这幅画", "tokens": tokens}


def asked(samples: np.ndarray, language: str | None, hotwords: str = "", tokens: int = 8) -> dict[str, Any]:
    wav = base64.b64encode(sound.wav(samples)).decode()
    return {"wav": wav, "language": language, "hotwords": hotwords, "tokens": tokens}


# -- the same in transformers and in llama-server ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [2, 3, 11, 15])  # whose tokens win by a margin
def test_qwen3_vl_writes_the_same_in_transformers_and_in_llama_server(
    loaded: Callable[[str], Any], served: Callable[[str], LlamaServer], seed: int
) -> None:
    """Eight tokens, the likeliest each time: pictures, patches, deepstack and positions are the same in both."""
    text = whole(loaded("eyes").answer(question(squares(seed)))["text"])
    assert served("eyes").model.see(squares(seed), "描述这幅画", 8) == text
    assert len(set(text)) > 3
    assert text != loaded("eyes").answer(question(squares(5)))["text"]  # the picture is read


@pytest.mark.parametrize(("language", "seconds"), [(None, 2), ("zh", 1), ("yue", 4), ("en", 3), ("zh", 30)])
def test_qwen3_asr_writes_the_same_in_transformers_and_in_llama_server(
    loaded: Callable[[str], Any], served: Callable[[str], LlamaServer], monkeypatch: pytest.MonkeyPatch,
    language: str | None, seconds: float,
) -> None:  # fmt: skip
    """Eight tokens. Whole seconds less a step, which both cut into the same pieces."""
    monkeypatch.setattr(llama, "SPOKEN_TOKENS", 8)
    samples, hotwords = chirp(seconds - 0.01), "梵高" if seconds == 3 else ""
    text = loaded("ears").answer(asked(samples, language, hotwords))["text"]
    heard, named = served("ears").model.hear(samples, language, hotwords)
    assert heard == text
    assert len(text) > 4
    assert hearing.code_of(named) == language


def test_a_forced_language_and_hotwords_stand_in_qwen3_asrs_prompt(loaded: Callable[[str], Any]) -> None:
    processor = loaded("ears").processor
    for code, name in (("zh", "Chinese"), ("yue", "Cantonese"), ("en", "English")):
        (told,) = processor.apply_transcription_request(
            audio=[chirp(1)], language=[code], prompt=["星夜"], tokenize=False
        )
        assert told.endswith(f"<|im_start|>assistant\nlanguage {name}<asr_text>")
        assert told.startswith("<|im_start|>system\n星夜<|im_end|>")
    heard = {loaded("ears").answer(asked(chirp(1), one))["text"] for one in (None, "zh", "yue", "en")}
    assert len(heard) > 2


def test_qwen3_reranker_gives_the_same_probabilities_alone_in_a_batch_and_in_llama_server(
    loaded: Callable[[str], Any], served: Callable[[str], LlamaServer]
) -> None:
    batch = loaded("ranker").answer({"query": "星夜", "documents": DOCUMENTS})["scores"]
    alone = [loaded("ranker").answer({"query": "星夜", "documents": [one]})["scores"][0] for one in DOCUMENTS]
    assert batch == pytest.approx(alone, abs=1e-5)
    assert served("ranker").model.rank("星夜", DOCUMENTS) == pytest.approx(batch, abs=0.005)
    backwards = loaded("ranker").answer({"query": "星夜", "documents": DOCUMENTS[::-1]})["scores"]
    assert backwards[::-1] == pytest.approx(batch, abs=1e-5)
    assert len({round(one, 4) for one in batch}) == len(DOCUMENTS)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_any_number_of_documents_up_to_500_is_ranked_alike_in_both(
    loaded: Callable[[str], Any],
    served: Callable[[str], LlamaServer],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    server = served("ranker")
    documents = [f"{DOCUMENTS[at % 4]} {at}" for at in range(count)]
    monkeypatch.setitem(running._started, server.choice, server)
    found = ranking.rank("星夜", documents, server.choice)
    del running._started[server.choice]
    assert found.failed is None
    scores = loaded("ranker").answer({"query": "星夜", "documents": documents})["scores"]
    assert {one.index: one.score for one in found.results} == pytest.approx(
        dict(enumerate(scores)), abs=0.005
    )
    assert [one.score for one in found.results] == sorted((one.score for one in found.results), reverse=True)


def test_only_the_body_of_a_long_document_is_cut(
    loaded: Callable[[str], Any], served: Callable[[str], LlamaServer]
) -> None:
    ranker, long = loaded("ranker"), "星夜 " * 9000
    row = ranker._tokens("星夜", long)
    assert len(row) == 8192
    assert row[: len(ranker.before)] == ranker.before
    assert row[-len(ranker.after) :] == ranker.after
    model, document = served("ranker").model, "星" * 8000  # more tokens than its context
    cut = model._cut(document)
    assert document.startswith(cut)
    assert 2000 < len(cut) < len(document)
    assert model._cut("星" * 100) == "星" * 100
    (judged,) = model.rank("星夜", [document])
    assert ranker.answer({"query": "星夜", "documents": [cut]})["scores"] == pytest.approx(
        [judged], abs=0.005
    )


def test_an_embedder_gives_the_same_vectors_alone_in_a_batch_and_in_llama_server(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Pooled at the last token, as Qwen3-Embedding is; and at the first, and over all."""
    place = copied(folder("ranker"), tmp_path / "embedder")
    (place / "1_Pooling").mkdir()
    texts = ["a starry night", "星夜", "yes no yes no"]
    found = {}
    for key in ("pooling_mode_lasttoken", "pooling_mode_cls_token", "pooling_mode_mean_tokens"):
        (place / "1_Pooling" / "config.json").write_text(json.dumps({key: True}))
        model = loading.load("embedder", place)
        found[key] = np.array(model.answer({"texts": texts})["vectors"])
        alone = [model.answer({"texts": [one]})["vectors"][0] for one in texts]
        assert np.allclose(found[key], alone, atol=1e-5)
        assert np.allclose(np.linalg.norm(found[key], axis=1), 1, atol=1e-5)
    assert not np.allclose(found["pooling_mode_lasttoken"], found["pooling_mode_mean_tokens"], atol=0.01)
    made = tiny_senses.decoder(
        place, tmp_path / "e.gguf", "qwen3", tiny_senses.CHAT, "model.", pooling=gguf.PoolingType.LAST
    )
    server = LlamaServer(choice.parse("embedder", str(made)))
    try:
        assert np.allclose(server.model.embed(texts), found["pooling_mode_lasttoken"], atol=1e-3)
    finally:
        server.stop()


# -- what they take ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eyes", "blip"])
def test_pictures_of_every_kind_are_described(
    loaded: Callable[[str], Any], tmp_path: Path, name: str
) -> None:
    from starrynight.metadata import read_pixels

    picture = Image.fromarray(squares(1))
    made = [picture.resize((97, 61)), picture.resize((512, 33)), picture.convert("P"), Image.fromarray(np.full((40, 9), 30000, np.uint16))]  # fmt: skip
    clear = picture.convert("RGBA")
    clear.putalpha(100)
    for number, one in enumerate([*made, clear]):
        one.save(tmp_path / f"{number}.png")
        pixels = read_pixels((tmp_path / f"{number}.png").read_bytes())
        assert isinstance(loaded(name).answer(question(pixels, 4))["text"], str)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
@pytest.mark.parametrize("language", ["zh", "yue", "en", None])
def test_recordings_of_any_length_and_rate_are_heard(
    loaded: Callable[[str], Any], served: Callable[[str], LlamaServer], monkeypatch: pytest.MonkeyPatch,
    language: str | None, kind: str,
) -> None:  # fmt: skip
    """0 s, 0.05 s, and 44.1 kHz in stereo, from the file's bytes to the model."""
    import io

    from scipy.io import wavfile

    class Here:
        def hear(self, samples: np.ndarray, code: str | None, hotwords: str) -> tuple[str, str | None]:
            answer = loaded("ears").answer(asked(samples, code, hotwords))
            return answer["text"], answer["language"]

    monkeypatch.setattr(llama, "SPOKEN_TOKENS", 8)
    model = served("ears").model if kind == "gguf" else Here()
    monkeypatch.setattr(running, "model", lambda _: model)
    ears = choice.Choice("ears", choice.FOLDER, folder=Path("asr"))
    at = np.arange(44_100) / 44_100
    stereo = np.stack([np.sin(2 * np.pi * 440 * at), np.zeros(44_100)], 1)
    out = io.BytesIO()
    wavfile.write(out, 44_100, (stereo * 30_000).astype(np.int16))
    heard = hearing.transcribe(out.getvalue(), language, choice=ears)
    assert heard.seconds == pytest.approx(1, abs=1e-3)
    assert heard.language == language or language is None
    assert hearing.transcribe(sound.wav(np.zeros(0, np.float32)), language, choice=ears).text == ""
    assert isinstance(hearing.transcribe(sound.Sound(chirp(0.05)), language, choice=ears).text, str)


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 127), (np.int16, 32767), (np.int32, 2**31 - 1), (np.float32, 1), (np.float64, 1)])  # fmt: skip
def test_wav_files_of_every_kind_mean_the_same(dtype: Any, scale: float) -> None:
    import io

    from scipy.io import wavfile

    wave = np.sin(np.arange(8000) / 9) / 2
    out = io.BytesIO()
    wavfile.write(out, 16_000, (wave * scale + (128 if dtype is np.uint8 else 0)).astype(dtype))
    assert np.abs(sound.read(out.getvalue()).samples - wave).max() < (0.02 if dtype is np.uint8 else 1e-4)


def test_resampling_keeps_a_tone() -> None:
    import io

    from scipy.io import wavfile

    out = io.BytesIO()
    wavfile.write(out, 44_100, np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype(np.float32))
    found = sound.read(out.getvalue()).samples[2000:-2000]
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)[2000:-2000]
    assert np.abs(found - expected).max() < 0.01


def test_recordings_that_are_none_are_refused() -> None:
    good = sound.wav(chirp(0.1))
    nan = good.replace(b"WAVEfmt \x10\x00\x00\x00\x01\x00", b"WAVEfmt \x10\x00\x00\x00\x63\x00")
    for data in (
        b"",
        b"RIFF",
        good[:30],
        b"RIFFxxxxWAVEfmt ",
        nan,
        b"RIFF" + b"\xff" * 100,
        good[:20] + b"\0" * 20 + good[40:],
    ):
        with pytest.raises((BadFile, MissingPackage)) as refused:
            sound.read(data)
        assert refused.value.zh != refused.value.en


def test_whisper_hears_in_the_language_that_was_asked_for(loaded: Callable[[str], Any]) -> None:
    model = loaded("whisper")
    heard = [model.answer(asked(chirp(1), one))["text"] for one in (None, "en", "zh", "yue")]
    assert len(set(heard)) > 1
    assert isinstance(model.answer(asked(chirp(1), "zh", "梵高"))["text"], str)
    with pytest.raises(BadRequest) as refused:
        model.answer(asked(chirp(1), "fi"))
    assert "yue" in refused.value.en


@pytest.mark.skipif(
    not os.environ.get("STARRY_TEST_WHISPER"),
    reason="STARRY_TEST_WHISPER names no folder with a published Whisper",
)
@pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng, which speaks the sentence, is not installed"
)
def test_a_published_whisper_hears_a_sentence(tmp_path: Path) -> None:
    wav = tmp_path / "said.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-w", wav, "a starry night over the river"], check=True)
    heard = hearing.transcribe(
        wav.read_bytes(), "en", choice=choice.parse("ears", os.environ["STARRY_TEST_WHISPER"])
    )
    assert "river" in heard.text.lower()


# -- SiameseUIE --------------------------------------------------------------------------------------------------------

TEXT = "梵高风格的星夜，黄昏的小村在河边"


def test_hints_together_give_what_each_gives_alone(loaded: Callable[[str], Any]) -> None:
    extractor, kinds = loaded("facets"), ["风格", "时间", "地点主题"]
    read = extractor.tokens(TEXT)
    ids = torch.tensor([read["input_ids"]])
    mask = torch.ones_like(ids).float()
    with torch.inference_mode():
        states = extractor.model.read(ids, mask)
        together = extractor._logits(states, mask, [f"{one}: " for one in kinds], ids.shape[1])
        for number, kind in enumerate(kinds):
            alone = extractor._logits(states, mask, [f"{kind}: "], ids.shape[1])
            for one, all_of_them in zip(alone, together, strict=True):
                assert torch.allclose(one[0], all_of_them[number], atol=1e-4)
    spans = extractor.extract(TEXT, dict.fromkeys(kinds))
    assert spans == [one for kind in kinds for one in extractor.extract(TEXT, {kind: None})]
    assert spans


def test_a_nested_schema_asks_below_what_was_found(loaded: Callable[[str], Any]) -> None:
    extractor = loaded("facets")
    top = extractor.extract(TEXT, {"地点": None})
    nested = extractor.extract(TEXT, {"地点": {"时间": None}})
    assert top
    assert nested
    assert {tuple(chain[0]) for chain in nested} <= {tuple(chain[0]) for chain in top}
    assert all(kind == "时间" for chain in nested for kind, _, _ in chain[1:])
    with pytest.raises(BadRequest):
        extractor.extract(TEXT, {"地点": {"地点": {"地点": {"地点": {"地点": {"地点": None}}}}}})


def test_long_texts_are_read_in_windows_whose_overlaps_are_averaged(loaded: Callable[[str], Any]) -> None:
    from starrynight.senses.loading.siamese import STEP, WINDOW, _padded, _windows

    extractor, text = loaded("facets"), TEXT * 40
    ids = torch.tensor(extractor.tokens(text)["input_ids"])
    windows = _windows(ids, WINDOW)
    assert [len(one) for one in windows[:-1]] == [WINDOW] * (len(windows) - 1)
    assert len(windows) == 2
    padded, mask = _padded(windows)
    with torch.inference_mode():
        states = extractor.model.read(padded, mask)
        whole, _ = extractor._logits(states, mask, ["风格: "], len(ids))
        parts = [
            extractor._logits(states[one : one + 1], mask[one : one + 1], ["风格: "], WINDOW)[0][0]
            for one in range(2)
        ]
    overlap = slice(STEP, WINDOW)
    assert torch.allclose(whole[0][overlap], (parts[0][overlap] + parts[1][: WINDOW - STEP]) / 2, atol=1e-4)
    assert torch.allclose(whole[0][:STEP], parts[0][:STEP], atol=1e-4)
    assert all(
        0 <= start < end <= len(text)
        for chain in extractor.extract(text, {"风格": None})
        for _, start, end in chain
    )


def test_siamese_uie_is_the_sense_of_facets(
    loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from starrynight.senses.finding import find

    class Here:
        def find(self, text: str, schema: dict[str, Any]) -> list[tuple[str, int, int]]:
            return [
                (kind, a, b)
                for kind, a, b in loaded("facets").answer({"text": text, "schema": schema})["spans"]
            ]

    monkeypatch.setattr(running, "model", lambda _: Here())
    chosen = choice.Choice("facets", choice.FOLDER, folder=Path("uie"))
    found = find(TEXT, {"人物": {"年龄": None}, "地点": None}, chosen)
    assert (found.failed, found.by) == (None, "uie")
    assert {span.kind for span in found.spans} <= {"人物 / 年龄", "地点"}
    assert found.spans
    assert all(TEXT[span.start : span.end] == span.text for span in found.spans)


def test_siamese_uies_tensors_have_the_published_names(folder: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    names = set(load_file(folder("facets") / "model.safetensors"))
    for one in ("plm.embeddings.word_embeddings.weight", "plm.encoder.layer.1.attention.self.query.weight", "plm.pooler.dense.weight",
                "crossattention.layer.0.output.LayerNorm.weight", "crossattention.layer.1.intermediate.dense.bias",
                "head_clsf.weight", "tail_clsf.bias"):  # fmt: skip
        assert one in names
    assert not any("layer.2." in one for one in names)
    state = load_file(folder("facets") / "model.safetensors")
    for change in ("less", "more", "halved"):
        place = copied(folder("facets"), tmp_path / change)
        if change == "less":
            save_file(
                {name: one for name, one in state.items() if name != "tail_clsf.weight"},
                place / "model.safetensors",
            )
        elif change == "more":
            save_file(state | {"plm.cls": state["head_clsf.weight"]}, place / "model.safetensors")
        else:  # modelscope's class halves the number in its config
            rewrite(place / "config.json", num_hidden_layers=2)
            assert loading.load("facets", place).extract(TEXT, {"风格": None}) is not None
            continue
        with pytest.raises(Unfit):
            loading.load("facets", place)


# -- what is refused ---------------------------------------------------------------------------------------------------


def copied(source: Path, place: Path) -> Path:
    shutil.copytree(source, place)
    return place


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


@pytest.mark.parametrize(
    ("sense", "name", "change", "kind", "says"),
    [
        ("ears", "ears", {"thinker_config": {}}, Unfit, "-hf"),
        ("eyes", "eyes", {"auto_map": {"AutoModel": "x.Y"}}, Unfit, "auto_map"),
        ("eyes", "eyes", {"quantization_config": {"quant_method": "gptq"}}, Unfit, "gguf"),
        ("eyes", "ranker", {}, Unfit, "Qwen3-VL"),
        ("ears", "ranker", {}, Unfit, "Qwen3-ASR"),
        ("ranker", "eyes", {}, Unfit, "Qwen3-Reranker"),
        ("facets", "ranker", {}, Unfit, "SiameseUIE"),
        ("embedder", "ranker", {}, Unfit, "1_Pooling"),
        ("eyes", "eyes", {"model_type": "nothing"}, Unfit, "Qwen3-VL"),
    ],
)  # fmt: skip
def test_a_folder_of_another_kind_is_refused_with_the_way_out(
    folder: Callable[[str], Path], tmp_path: Path, sense: str, name: str, change: dict[str, Any], kind: type[StarryError], says: str
) -> None:  # fmt: skip
    place = copied(folder(name), tmp_path / "m")
    rewrite(place / "config.json", **change)
    with pytest.raises(kind) as refused:
        loading.load(sense, place)
    assert says in refused.value.en
    assert refused.value.en != refused.value.zh


def test_a_pickle_is_refused_and_siamese_uie_is_told_how_to_be_written_anew(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    for sense, name in (("ranker", "ranker"), ("facets", "facets")):
        place = copied(folder(name), tmp_path / sense)
        torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
        (place / "model.safetensors").unlink()
        with pytest.raises(PickledFile) as refused:
            loading.load(sense, place)
    command = refused.value.en.rpartition("holds: python -c ")[2].strip('"')
    monkeypatch.chdir(place)
    exec(command, {})
    assert loading.load("facets", place).extract(TEXT, {"风格": None}) is not None


def test_weights_that_fill_only_a_part_are_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    place = copied(folder("ranker"), tmp_path / "m")
    state = load_file(place / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(Unfit) as refused:
        loading.load("ranker", place)
    assert "up_proj" in refused.value.en


def test_a_tokenizer_without_yes_and_no_is_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    place = copied(folder("ranker"), tmp_path / "m")
    told = (place / "tokenizer.json").read_text("utf-8")
    (place / "tokenizer.json").write_text(
        told.replace('"yes"', '"yez"').replace('"y","es"', '"y","ez"'), "utf-8"
    )
    with pytest.raises(StarryError):
        loading.load("ranker", place)


def test_a_reranker_without_its_head_is_refused_before_it_starts(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    bare = tiny_senses.decoder(folder("ranker"), tmp_path / "bare.gguf", "qwen3", tiny_senses.CHAT, "model.")
    with pytest.raises(Unfit) as refused:
        running.model(choice.parse("ranker", str(bare)))
    assert "cls.output" in refused.value.en
    found = ranking.rank("星夜", ["a", "b"], choice.parse("ranker", str(bare)))
    assert found.failed is not None
    assert found.by.startswith("perceiver")


def test_files_that_do_not_belong_together_are_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    model, pictures = tiny_senses.GGUF["eyes"](folder("eyes"), tmp_path)
    _, voices = tiny_senses.GGUF["ears"](folder("ears"), tmp_path)
    for sense, value in (("eyes", f"{model}+{voices}"), ("ears", f"{model}+{pictures}"), ("eyes", f"{model}+{model}"),
                         ("eyes", f"{pictures}+{pictures}"), ("facets", str(pictures))):  # fmt: skip
        with pytest.raises(Unfit):
            llama.check(choice.parse(sense, value))
    with pytest.raises(BadRequest):  # two mmproj files beside it, and none named
        choice.parse("eyes", str(model))
    voices.unlink()
    assert choice.parse("eyes", str(model)).files == (model, pictures)
    assert choice.parse("eyes", f"{model}+{pictures.name}").files == (model, pictures)


# -- processes ---------------------------------------------------------------------------------------------------------


def test_eyes_from_a_gguf_write_the_sentences_and_the_perceiver_the_facts(
    served: Callable[[str], LlamaServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama-server holds even random weights to the JSON that was asked for."""
    server = served("eyes")
    monkeypatch.setattr(LlamaModel, "longest", 12)
    monkeypatch.setitem(running._started, server.choice, server)
    look = Eyes(server.choice).look(squares(3))
    del running._started[server.choice]
    assert look.failed is None
    assert look.description.by == "vl.gguf"
    assert 0 < len(look.description.alt.en) <= 12
    assert look.vector.shape == (96,)


def test_a_folder_is_served_by_a_process_of_its_own(
    folder: Callable[[str], Path], loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choice.parse("ranker", str(folder("ranker")))
    found = ranking.rank("星夜", DOCUMENTS, chosen)
    assert (found.failed, found.by) == (None, "ranker")
    expected = loaded("ranker").answer({"query": "星夜", "documents": DOCUMENTS})["scores"]
    assert {one.index: one.score for one in found.results} == pytest.approx(
        dict(enumerate(expected)), abs=1e-5
    )
    worker = running._started[chosen]
    monkeypatch.setattr(local, "ANSWER", 1e-6)
    with pytest.raises(errors.RemoteError) as slow:
        worker.model.rank("星夜", DOCUMENTS)
    assert "did not answer" in slow.value.en
    worker.process.wait()  # type: ignore[attr-defined]
    with pytest.raises(errors.RemoteError) as ended:
        worker.model.rank("星夜", ["a"])
    assert "code -9" in ended.value.en
    assert not worker.alive


def test_the_process_of_a_folder_ends_when_its_input_closes() -> None:
    """As the system closes it, however the process that asks ends; before it has read anything it is torch-free and quick."""
    command = [sys.executable, "-m", "starrynight.senses.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_search_is_put_in_order_by_the_ranker_that_is_set(
    served: Callable[[str], LlamaServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starrynight.gallery.search import Query
    from starrynight.gallery.store import Gallery
    from starrynight.i18n import Text
    from starrynight.picture import Picture, make_recipe
    from starrynight.request import PaintRequest
    from starrynight.senses import look

    server, said = served("ranker"), list[Text]()
    monkeypatch.setattr(look, "YES", 0.0)  # random weights seldom say yes
    with Gallery(tmp_path / "gallery") as gallery:
        eyes = Eyes(choice.parse("eyes", ""))
        for seed in range(5):
            request = PaintRequest(prompt=f"prompt {seed} 星夜"[: 8 + seed], seed=seed)
            row = gallery.add(Picture(squares(seed), make_recipe(request)))
            look.look(gallery, eyes, row, squares(seed))
        monkeypatch.setenv("STARRY_RANKER", str(server.choice.files[0]))
        monkeypatch.setitem(running._started, server.choice, server)
        found = look.by_meaning(gallery, Query(text="zxqv 星夜"), 3, said.append)
        del running._started[server.choice]
        scores = server.model.rank("zxqv 星夜", [look.words_of(one.row) for one in found])
        assert [one.shown for one in found] == pytest.approx(scores, abs=1e-4)
        assert scores == sorted(scores, reverse=True)
        assert len(found) == 3
        assert said == []
        monkeypatch.setenv("STARRY_RANKER", "http://127.0.0.1:9/v1")
        look.by_meaning(gallery, Query(text="星夜"), 3, said.append)
        assert "127.0.0.1:9" in said[0].en


def test_hear_and_senses_speak_with_a_real_llama_server(
    served: Callable[[str], LlamaServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = served("ears")
    monkeypatch.setattr(llama, "SPOKEN_TOKENS", 8)
    monkeypatch.setenv("STARRY_LANG", "en")
    monkeypatch.setenv("STARRY_EARS", "+".join(map(str, server.choice.files)))
    monkeypatch.setitem(running._started, server.choice, server)
    (tmp_path / "a.wav").write_bytes(sound.wav(chirp(0.99)))
    heard = json.loads(starry("hear", str(tmp_path / "a.wav"), "--language", "zh", "--json").stdout)
    assert (heard["by"], heard["language"], heard["seconds"]) == ("asr.gguf", "zh", pytest.approx(0.99))
    assert starry("hear", str(tmp_path / "a.wav"), "--language", "zh").stdout == heard["text"] + "\n"
    assert heard["text"]
    told = starry("senses").stdout
    monkeypatch.setenv("STARRY_LANG", "zh")
    chinese = starry("senses").stdout
    del running._started[server.choice]
    assert [one for one in choice.SENSES if f"{one}  " in told] == list(choice.SENSES)
    assert "asr.gguf" in told
    assert "GB of memory" in told
    assert told.count("perceiver-") == 3
    assert "of a second of a hum" in told
    assert "GB 内存" in chinese
    assert "对一秒嗡声" in chinese
    assert "of memory" not in chinese


@pytest.mark.parametrize(
    ("words", "kind"),
    [(["none.wav"], errors.MissingFile), (["text.wav"], MissingPackage), (["cut.wav"], BadFile), (["good.wav", "--language", "x"], BadRequest)],
)  # fmt: skip
def test_hear_refuses_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], kind: type[StarryError]
) -> None:
    monkeypatch.setenv("STARRY_EARS", "http://127.0.0.1:9/v1")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    good = sound.wav(chirp(0.1))
    for name, data in {"text.wav": b"hello", "cut.wav": good[:30], "good.wav": good}.items():
        (tmp_path / name).write_bytes(data)
    assert isinstance(starry("hear", str(tmp_path / words[0]), *words[1:]).exception, kind)
    monkeypatch.delenv("STARRY_EARS")
    assert isinstance(starry("hear", str(tmp_path / "good.wav")).exception, errors.NoSense)


def _gone(pid: int, seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


START = """
import sys
sys.path.insert(0, {tests!r})
from starrynight.senses import choice, running
import psutil
model = running.model(choice.parse("ranker", {value!r}))
print(model.rank("a", ["b"])[0])
print(*[one.pid for one in psutil.Process().children(recursive=True)], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_llama_server_does_not_outlive_the_process_that_started_it(
    folder: Callable[[str], Path], tmp_path: Path, signalled: int | None
) -> None:
    (model,) = tiny_senses.GGUF["ranker"](folder("ranker"), tmp_path)
    script = START.format(tests=str(Path(__file__).parent), value=str(model))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert 0 < float(process.stdout.readline()) < 1
    children = [int(one) for one in process.stdout.readline().split()]
    assert len(children) == 2  # the guard, and llama-server
    if signalled is None:
        process.stdin.close()
    else:
        process.send_signal(signalled)
    process.wait()
    assert all(_gone(one) for one in children)


def test_the_server_is_for_this_process_only(served: Callable[[str], LlamaServer]) -> None:
    import httpx2 as httpx

    remote = served("ranker").remote
    assert remote.is_loopback
    answer = httpx.post(f"{remote.url}/rerank", json={"query": "a", "documents": ["b"]}, trust_env=False)
    assert answer.status_code == 401


def test_a_damaged_gguf_and_a_missing_program_are_sentences(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = tiny_senses.GGUF["ranker"](folder("ranker"), tmp_path)
    chosen = choice.parse("ranker", str(model))
    monkeypatch.setenv("STARRY_LLAMA_SERVER", str(tmp_path / "none"))
    with pytest.raises(BadRequest):
        running.model(chosen)
    monkeypatch.setenv("STARRY_LLAMA_SERVER", "/bin/false")
    with pytest.raises(BadFile) as refused:
        LlamaServer(chosen)
    assert "reranker.gguf" in refused.value.en
    monkeypatch.delenv("STARRY_LLAMA_SERVER")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(llama, "PACKAGE", "no_such_package")
    with pytest.raises(MissingPackage) as missing:
        llama.find_server()
    assert "starry-night[gguf]" in missing.value.en
    model.write_bytes(model.read_bytes()[:-1000])
    with pytest.raises(BadFile):
        llama.check(chosen)


def test_a_start_that_failed_is_not_tried_at_every_call(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = tiny_senses.GGUF["ranker"](folder("ranker"), tmp_path)
    chosen, tried = choice.parse("ranker", str(model)), list[int]()

    def find() -> Path:
        tried.append(1)
        raise MissingPackage("none", "没有")

    monkeypatch.setattr(llama, "find_server", find)
    for _ in range(3):
        assert ranking.rank("a", ["b"], chosen).failed == ("none", "没有")
    assert len(tried) == 1


def test_models_larger_than_the_free_memory_are_not_started(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choice.parse("ranker", str(folder("ranker")))
    size = sum(one.stat().st_size for one in folder("ranker").glob("*.safetensors"))
    assert memory.needed(chosen) == size + memory.BESIDE_FOLDER
    assert memory.needed(replace(chosen, kind=choice.BUILT_IN, folder=None)) is None
    monkeypatch.setattr(memory, "free", lambda: size)
    with pytest.raises(OutOfMemory) as refused:
        running.model(chosen)
    assert "GB" in refused.value.en
