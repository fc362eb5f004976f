"""Where a server's memory goes while its gallery grows: SQLite's page cache, at most 2 MB for each pooled connection.

python benchmarks/database_memory.py
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading

import psutil
from sqlalchemy import insert, text

from starrynight.gallery.store import Gallery
from starrynight.jobs.schema import jobs
from starrynight.request import PaintRequest

CONNECTIONS = 16  # that the pool keeps open
SIZES = (0, 1000, 2000, 4000, 8000, 16000)


def resident() -> float:
    """MB, without what malloc only keeps for later."""
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 1e6


def fill(gallery: Gallery, first: int, last: int) -> None:
    request = PaintRequest(prompt="a lake " * 30).canonical()
    with gallery.database.writing() as connection:
        for k in range(first, last):
            row = {
                "id": f"{k:016x}",
                "request": request,
                "model": "firefly",
                "count": 1,
                "work": 1.0,
                "state": "done",
            }
            connection.execute(insert(jobs).values(**row, place=k, submitted_at=k, ended_at=k))


def read_on_all(gallery: Gallery) -> None:
    """Every connection reads the whole table."""
    barrier = threading.Barrier(CONNECTIONS)

    def read() -> None:
        with gallery.database.reading() as connection:
            barrier.wait()
            connection.execute(text("SELECT sum(length(request)) FROM jobs")).scalar()

    threads = [threading.Thread(target=read) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["STARRY_HOME"] = home
        with Gallery() as gallery:
            before = 0
            for size in SIZES:
                fill(gallery, before, size)
                before = size
                read_on_all(gallery)
                read_on_all(gallery)
                print(f"{CONNECTIONS} connections, {size} jobs: {resident():.0f} MB")
        print(f"connections closed: {resident():.0f} MB")


if __name__ == "__main__":
    main()
