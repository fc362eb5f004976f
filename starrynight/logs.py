"""Logs of the server and its worker on stderr, which no caller can flood: one line of each kind a minute.

As text for a person at a terminal, or as JSON lines for the programs that collect a service's logs; then every request
has a line too (``api/requests.py``).
"""

from __future__ import annotations

import json
import logging
import re
import time
from contextvars import ContextVar
from datetime import UTC, datetime

INTERVAL = 60.0  # seconds between two lines of one kind
MAX_KINDS = 500  # remembered; texts that libraries put together may differ without end
FORMAT = "%(asctime)s %(name)s %(message)s"
REQUESTS = "starrynight.requests"  # the logger of requests
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)  # of the request being answered


class OncePerInterval(logging.Filter):
    """Let one record of each kind pass in ``interval`` seconds; the next to pass tells how many did not.

    A kind is a logger's message before its values are filled in, without digits, and the type of its first value
    and of its exception.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        super().__init__()
        self.interval = interval
        self._kinds: dict[
            tuple[object, ...], tuple[float, int]
        ] = {}  # when the last one passed, how many did not

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = _kind(record), time.monotonic()
        passed, suppressed = self._kinds.get(kind, (-self.interval, 0))
        if now - passed < self.interval:
            self._kinds[kind] = (passed, suppressed + 1)
            return False
        if len(self._kinds) >= MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (now, 0)
        if suppressed:
            record.msg, record.args = f"{record.getMessage()} (and {suppressed} more like it)", ()
        return True


def _kind(record: logging.LogRecord) -> tuple[object, ...]:
    text = re.sub(r"\d+", "", str(record.msg).partition("\n")[0])[:200]
    first = record.args[0] if isinstance(record.args, tuple) and record.args else None
    raised = record.exc_info[0] if record.exc_info else None
    return record.name, record.levelno, text, type(first), raised


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (ISO 8601, UTC), level, logger, message, the request's id, ``extra`` facts."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "logger": record.name,
                "message": record.getMessage()}  # fmt: skip
        if request := REQUEST_ID.get():
            line["request_id"] = request
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: int = logging.INFO, json_lines: bool = False) -> None:
    """Write the records of all loggers to stderr, each kind once a minute, and with ``json_lines`` every request."""
    formatter = JsonLines() if json_lines else logging.Formatter(FORMAT)
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(OncePerInterval())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    requests = logging.getLogger(REQUESTS)
    requests.propagate, requests.handlers = False, []
    if json_lines:
        every = logging.StreamHandler()
        every.setFormatter(formatter)
        requests.addHandler(every)
    requests.setLevel(logging.INFO if json_lines else logging.CRITICAL)
    # Streamlit's loggers have handlers of their own and pass nothing on.
    for name, logger in logging.Logger.manager.loggerDict.items():
        if name.startswith("streamlit") and isinstance(logger, logging.Logger):
            for own in logger.handlers:
                own.addFilter(OncePerInterval())
