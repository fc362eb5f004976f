"""The process that holds a folder's model, and answers line by line; ``local.Worker`` starts it and asks.

    python -m starrynight.senses.worker

It ends when its standard input closes, whatever it is doing.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from starrynight.errors import StarryError
from starrynight.models.library_errors import library_errors


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then closes our input
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    questions: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(questions,), daemon=True).start()
    model: Any = None
    while True:
        question = json.loads(questions.get())
        try:
            if model is None:
                model, answer = _load(question["sense"], Path(question["folder"])), {}
                place = Path(question["folder"])
            else:
                with library_errors(place):
                    answer = model.answer(question)
        except StarryError as error:
            answer = {"error": type(error).__name__, "en": error.en, "zh": error.zh}
        out.write(json.dumps(answer, ensure_ascii=False) + "\n")
        out.flush()


def _load(sense: str, folder: Path) -> Any:
    from transformers.utils import logging

    from starrynight.senses import loading

    logging.set_verbosity_error()  # its advice is for programmers, and its bars would stand among our lines
    logging.disable_progress_bar()
    return loading.load(sense, folder)


def _read(questions: queue.Queue[str]) -> None:
    for line in sys.stdin:
        questions.put(line)
    os._exit(0)  # the parent is gone, or wants no more


if __name__ == "__main__":
    sys.exit(main())
