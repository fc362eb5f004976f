"""What a batch of requests will be, told before it starts: how many pictures, how long, how large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starrynight.gallery.store import Gallery
from starrynight.i18n import Text, duration
from starrynight.jobs.queue import Queue
from starrynight.request import PaintRequest

SAMPLE = 60  # newest pictures whose size in bytes a pixel is taken
RAW = 3.0  # bytes a pixel of an uncompressed picture, which a PNG does not exceed by much


@dataclass(frozen=True)
class BatchPlan:
    """``seconds``: by the last job of the model that a worker painted; None without one. ``bytes``: by the newest pictures of the
    gallery if ``known``, else at most.
    """

    pictures: int
    prompts: int
    size: str
    seconds: float | None
    bytes: int
    known: bool

    @property
    def message(self) -> Text:
        megabytes = f"{self.bytes / 1e6:,.1f}"
        about = Text("about", "约") if self.known else Text("at most", "至多")
        several = self.prompts > 1
        what = Text(
            f"{self.pictures} pictures{f' of {self.prompts} prompts' if several else ''}, {self.size}",
            f"{f'{self.prompts} 条提示词，' if several else ''}{self.pictures} 幅画，{self.size}",
        )
        size = Text(f"{about.en} {megabytes} MB", f"{about.zh} {megabytes} MB")
        if self.seconds is None:
            time = Text(
                "how long is known after the first, because this model has painted nothing here yet",
                "此模型尚未在此作画，画完第一幅才知用时",
            )
        else:
            time = Text(f"about {duration(self.seconds).en}", f"约 {duration(self.seconds).zh}")
        return Text(f"{what.en}: {size.en}, {time.en}.", f"{what.zh}：{size.zh}，{time.zh}。")


def plan(requests: Sequence[PaintRequest], gallery: Gallery, enlarged: int = 1) -> BatchPlan:
    """The plan of ``requests``, whose pictures are made ``enlarged`` times as wide and high. Raises StorageError."""
    pixels = sum(one.count * one.width * one.height for one in requests)
    rows = [row for row in gallery.search(limit=SAMPLE).rows if row.width and row.height]
    known = sum(row.size for row in rows) / sum(row.width * row.height for row in rows) if rows else RAW
    sizes = {f"{one.width * enlarged}×{one.height * enlarged}" for one in requests}
    return BatchPlan(
        sum(one.count for one in requests), len(requests), ", ".join(sorted(sizes)),
        Queue(gallery).seconds(requests), round(known * pixels * enlarged**2), bool(rows),
    )  # fmt: skip
