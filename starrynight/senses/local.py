"""A folder of weights, loaded by transformers in a process of its own: the process that asks holds no torch.

Questions and answers are lines of JSON, pictures as PNG and sound as WAV in base64. The process (``worker``) ends when its
standard input closes, which the system does however this one ends.
"""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from starrynight import errors
from starrynight.errors import RemoteError, StarryError
from starrynight.i18n import Text
from starrynight.senses import asking, memory, sound
from starrynight.senses.choice import Choice
from starrynight.senses.llama import end, threads
from starrynight.senses.remote import WHO
from starrynight.settings import environment
from starrynight.text import parse_json

LOADING, ANSWER = 600.0, 600.0  # seconds


class Worker:
    """The process of a choice's folder, from here until ``stop``; it answers as ``running.Model`` says.

    Raises OutOfMemory where the weights are larger than the free memory, and what ``loading.load`` raises.
    """

    def __init__(self, choice: Choice) -> None:
        assert choice.folder is not None
        self.choice, self.model = choice, self
        memory.check(choice)
        self._lock = threading.Lock()
        self._answers: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "starrynight.senses.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, encoding="utf-8", env=environment(OMP_NUM_THREADS=str(threads())), start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._ask({"sense": choice.sense, "folder": str(choice.folder)}, LOADING)
        except StarryError:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        end(self.process)

    # -- what it is asked --------------------------------------------------------------------------------------------

    def describe(self, pixels: np.ndarray) -> tuple[Text, Text]:
        found = asking.sentences(self.see(pixels, asking.ASKED, asking.TOKENS))
        if found is None:
            raise self._failed("wrote no description", "没有写出描述")
        return found

    def see(self, pixels: np.ndarray, text: str, tokens: int) -> str:
        """As ``asking.Server.see``."""
        picture = base64.b64encode(asking.png(pixels)).decode()
        return asking.whole(self._ask({"picture": picture, "text": text, "tokens": tokens})["text"])

    def hear(self, samples: np.ndarray, language: str | None, hotwords: str) -> tuple[str, str | None]:
        wav = base64.b64encode(sound.wav(samples)).decode()
        answer = self._ask(
            {"wav": wav, "language": language, "hotwords": hotwords, "tokens": asking.SPOKEN_TOKENS}
        )
        return answer["text"], answer["language"]

    def rank(self, query: str, documents: Sequence[str]) -> list[float]:
        return list(self._ask({"query": query, "documents": list(documents)})["scores"])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array(self._ask({"texts": list(texts)})["vectors"], np.float32)

    def find(self, text: str, schema: Mapping[str, Any]) -> list[tuple[str, int, int]]:
        return [
            (kind, start, end)
            for kind, start, end in self._ask({"text": text, "schema": dict(schema)})["spans"]
        ]

    # -- lines -------------------------------------------------------------------------------------------------------

    def _ask(self, question: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """The answer to a question. Raises the error that the process answers; RemoteError where it ends or is too slow."""
        with self._lock:
            try:
                self.process.stdin.write(json.dumps(question) + "\n")  # type: ignore[union-attr]
                self.process.stdin.flush()  # type: ignore[union-attr]
                line = self._answers.get(timeout=seconds or ANSWER)
            except (OSError, ValueError):
                line = None
            except queue.Empty:
                self.process.kill()  # its answer would be taken for that to the next question
                raise self._failed(
                    f"did not answer in {seconds or ANSWER:.0f} s", f"{seconds or ANSWER:.0f} 秒内没有回答"
                ) from None
        if line is None:
            code = self.process.wait()
            why = Text(" (often: out of memory)", "（常见原因：内存不足）") if code == -9 else Text("", "")
            raise self._failed(f"ended with code {code}{why.en}", f"以代码 {code} 退出{why.zh}")
        answer = parse_json(line)
        if not isinstance(answer, dict):
            raise self._failed("wrote no answer", "没有写出回答")
        if "error" in answer:
            kind = getattr(errors, answer["error"], StarryError)
            raise kind(answer["en"], answer["zh"])
        return answer

    def _read(self) -> None:
        """Keep its lines, and None for its end."""
        with contextlib.suppress(OSError, ValueError):
            for line in self.process.stdout or ():
                self._answers.put(line)
        self._answers.put(None)

    def _failed(self, en: str, zh: str) -> RemoteError:
        who, name = WHO[self.choice.sense], self.choice.name
        return RemoteError(f"{who.en} from “{name}”: the process {en}.", f"“{name}”的{who.zh}进程{zh}。")
