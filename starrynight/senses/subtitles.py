"""What was heard as subtitles: SubRip (.srt) and WebVTT (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

from collections.abc import Sequence

from starrynight.senses.asking import Timed


def srt(segments: Sequence[Timed]) -> str:
    """Numbered cues, ``00:00:01,500 --> 00:00:03,000``."""
    return "".join(
        f"{number}\n{_clock(one.start, ',')} --> {_clock(one.end, ',')}\n{_line(one.text)}\n\n"
        for number, one in enumerate(segments, 1)
    )


def vtt(segments: Sequence[Timed]) -> str:
    """Cues below ``WEBVTT``; & and < are written as references, which end no cue and begin no tag."""
    cues = "".join(
        f"{_clock(one.start, '.')} --> {_clock(one.end, '.')}\n{_escaped(_line(one.text))}\n\n"
        for one in segments
    )
    return f"WEBVTT\n\n{cues}"


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, last = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{last:02}{point}{milliseconds:03}"


def _line(text: str) -> str:
    """One line: an empty one would end the cue, and an arrow would begin another."""
    return " ".join(text.split()).replace("-->", "→")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
