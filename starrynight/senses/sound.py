"""Recordings: any WAV file, and what soundfile reads where it is installed, as 16 kHz mono; pieces of at most 30 s.

Qwen3-ASR and Whisper hear 16 kHz, and were trained on pieces of about 30 s. Imports no torch.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np

from starrynight.errors import BadFile, BadRequest, MissingFile, MissingPackage, StorageError, reason

RATE = 16_000  # samples a second
LONGEST = 2 * 60 * 60  # seconds of a recording
LARGEST = 1 << 30  # bytes of a file
PIECE, SEARCH = (
    30.0,
    10.0,
)  # seconds: the longest piece, and at its end the stretch in which the quietest place is cut
WINDOW = 0.1  # seconds over which quiet is measured
SILENT = 1e-3  # a piece whose loudest sample is below this (−60 dB) is not sent: recognisers invent words for silence


@dataclass(frozen=True)
class Sound:
    """``samples``: float32 [N] in −1..1, mono at ``RATE``. ``rate`` and ``channels``: those of the file."""

    samples: np.ndarray
    rate: int = RATE
    channels: int = 1

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def read(data: bytes) -> Sound:
    """The recording in a file's bytes. Raises BadFile, BadRequest for more than two hours, MissingPackage for another format
    than WAV.
    """
    rate, samples = _wav(data) if data[:4] in (b"RIFF", b"RIFX", b"RF64") else _other(data)
    if samples.size and not np.isfinite(samples).all():
        raise _broken("it holds NaN or Inf", "其中有 NaN 或 Inf")
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    if not 1000 <= rate <= 768_000:
        raise _broken(f"its rate is {rate} Hz", f"采样率为 {rate} Hz")
    if len(samples) > LONGEST * rate:
        raise BadRequest(
            f"The recording is longer than {LONGEST // 3600} hours; cut it first.",
            f"录音超过 {LONGEST // 3600} 小时；请先剪短。",
        )
    mono = samples if samples.ndim == 1 else samples.mean(1)
    return Sound(_resampled(mono.astype(np.float32), rate), rate, channels)


def read_file(path: Path) -> Sound:
    """The recording in a file. Raises MissingFile, StorageError, and as ``read``."""
    try:
        if not path.is_file():
            raise MissingFile(f"There is no file {path}; check the path.", f"没有文件 {path}；请检查路径。")
        if path.stat().st_size > LARGEST:
            raise BadFile(
                f"{path} is larger than {LARGEST >> 20} MB; cut it first.",
                f"{path} 超过 {LARGEST >> 20} MB；请先剪短。",
            )
        data = path.read_bytes()
    except ValueError:
        raise MissingFile("The file's path is not valid; check it.", "文件路径无效；请检查。") from None
    except OSError as error:
        en, zh = reason(error)
        raise StorageError(f"{path} cannot be read: {en}.", f"无法读取 {path}：{zh}。") from error
    return read(data)


def _wav(data: bytes) -> tuple[int, np.ndarray]:
    """The rate in Hz and float samples, [N] or [N, channels]: PCM of 8 to 64 bits, IEEE floats."""
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            # a file cut short is a warning there; chunks that it does not know are one too, and harmless
            warnings.filterwarnings("error", message="Reached EOF", category=wavfile.WavFileWarning)
            warnings.filterwarnings("ignore", category=wavfile.WavFileWarning)
            rate, samples = wavfile.read(io.BytesIO(data))
    except (ValueError, TypeError, EOFError, OverflowError, MemoryError, ArithmeticError, LookupError,
            AttributeError, UnboundLocalError, wavfile.WavFileWarning) as error:  # fmt: skip
        raise _broken("its header or its samples are cut short", "文件头或采样不完整") from error
    except Exception as error:  # struct.error and whatever a later scipy raises
        raise _broken("it cannot be read as WAV", "无法按 WAV 读取") from error
    if samples.dtype == np.uint8:  # WAV's 8 bits have no sign
        return rate, (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):  # 24 bits stand in the upper part of int32
        return rate, samples / np.float64(2 ** (8 * samples.dtype.itemsize - 1))
    return rate, samples


def _other(data: bytes) -> tuple[int, np.ndarray]:
    """Flac, Ogg, MP3 and the rest, by soundfile, which is no dependency."""
    if not data:
        raise _broken("it is empty", "文件为空")
    try:
        import soundfile
    except ImportError as error:
        raise MissingPackage(
            "The recording is no WAV file; save it as WAV, or install soundfile (pip install soundfile).",
            "录音不是 WAV 文件；请另存为 WAV，或安装 soundfile（pip install soundfile）。",
        ) from error
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    except (RuntimeError, TypeError, ValueError) as error:
        raise _broken("soundfile cannot read it", "soundfile 无法读取") from error
    return int(rate), samples


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Band-limited, by a polyphase filter (scipy.signal.resample_poly: Kaiser window, β = 5)."""
    if rate == RATE or not len(samples):
        return samples
    from scipy.signal import resample_poly

    common = gcd(rate, RATE)
    return resample_poly(samples, RATE // common, rate // common).astype(np.float32)


def hum() -> Sound:
    """A second of a tone of 220 Hz, to try ears on."""
    return Sound(np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE).astype(np.float32) / 4)


class Piece(NamedTuple):
    """A part of a recording: ``start``, in seconds from its beginning, and its samples, float32 [N]."""

    start: float
    samples: np.ndarray

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / RATE


def pieces(sound: Sound) -> Iterator[Piece]:
    """The recording in pieces of at most ``PIECE`` seconds, cut where it is quietest; silent pieces are left out."""
    samples, at = sound.samples, 0
    while len(samples):
        end = len(samples) if len(samples) <= PIECE * RATE else _quietest(samples)
        if float(np.abs(samples[:end]).max()) >= SILENT:
            yield Piece(at / RATE, samples[:end])
        samples, at = samples[end:], at + end


def _quietest(samples: np.ndarray) -> int:
    """Where the last ``SEARCH`` seconds of the first ``PIECE`` are quietest."""
    last, width = int(PIECE * RATE), int(WINDOW * RATE)
    start = last - int(SEARCH * RATE)
    energy = (samples[start:last].reshape(-1, width) ** 2).sum(1)
    return start + int(energy.argmin()) * width + width // 2


def wav(samples: np.ndarray) -> bytes:
    """Float32 [N] at ``RATE`` as a WAV file of 16 bits."""
    from scipy.io import wavfile

    out = io.BytesIO()
    wavfile.write(out, RATE, np.round(np.clip(samples, -1, 1) * 32767).astype("<i2"))
    return out.getvalue()


def _broken(en: str, zh: str) -> BadFile:
    return BadFile(f"The recording cannot be read: {en}.", f"无法读取录音：{zh}。")
