"""What the server asks of its operating system before it listens: descriptors, memory given back, logs."""

from __future__ import annotations

import contextlib
import ctypes
import logging

from starrynight import logs

DESCRIPTORS = 4096  # wanted; a connection takes one, a thread that reads the database three
RESERVED = 128  # of the descriptors, for the database, files and logs
MAX_CONNECTIONS = 1000
MMAP_THRESHOLD = 1 << 20  # bytes
_M_MMAP_THRESHOLD = -3  # glibc's malloc.h


def prepare(json_logs: bool = False) -> int:
    """Prepare this process to serve; returns how many connections its descriptors allow."""
    logs.set_up(logging.WARNING, json_logs)
    _give_memory_back()
    return max(16, min(MAX_CONNECTIONS, _raise_descriptors() - RESERVED))


def _give_memory_back() -> None:
    """Let glibc take every block of 1 MB or more from the system, so that it is given back when it is freed.

    By default the threshold grows to 32 MB with the first large block. Pillow stores pictures in blocks of 16 MB, which
    then stay with the process. ``benchmarks/attack.py`` prints what stays after a hundred uploads.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)


def _raise_descriptors() -> int:
    """Raise the soft limit of open files as far as the system allows, and return it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return DESCRIPTORS
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return soft
