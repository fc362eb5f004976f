"""/metrics in Prometheus's text format: the queue, what workers have counted, this server's requests, and memory.

The server counts its own requests. What happens in worker processes is read from the database by the probe of
``health``, so that a database that hangs does not stop a scrape.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from starrynight.jobs.job import STATE_GROUPS
from starrynight.jobs.leases import WorkerMemory
from starrynight.jobs.tallies import (
    BOUNDS,
    FALLBACKS,
    PICTURE_SECONDS,
    PICTURES,
    REFUSED,
    STEP_SECONDS,
    SUM,
    Tally,
)

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)  # seconds
COUNTERS = {
    PICTURES: ("starry_pictures_painted", "Pictures that were painted and saved."),
    REFUSED: (
        "starry_pictures_refused",
        "Pictures that were refused, by the stage whose numbers broke; other: not by the guard.",
    ),
    FALLBACKS: ("starry_fallbacks", "Fallbacks that the guard tried, and whether the numbers recovered."),
}
HISTOGRAMS = {
    STEP_SECONDS: ("starry_step_seconds", "Seconds of a denoising step, after the first of a picture."),
    PICTURE_SECONDS: ("starry_picture_seconds", "Seconds of a picture, from its prompt to its saved file."),
}


class Metrics:
    """Of one server. ``requests`` counts answers by method, route and status; ``seconds`` times them by route."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "starry_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "starry_http_request_seconds", "Seconds to the head of an answer.", ("route",),
            buckets=REQUEST_BOUNDS, registry=self.registry,
        )  # fmt: skip

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def render(
        self, health: Mapping[str, Any], tallies: Sequence[Tally], memory: Sequence[WorkerMemory]
    ) -> bytes:
        """``health``: the object of /api/health; ``tallies``: what workers have counted; ``memory``: of each
        living worker."""
        facts = CollectorRegistry()
        facts.register(_Facts([*_gauges(health, memory), *_counters(tallies), *_histograms(tallies)]))
        return generate_latest(facts) + generate_latest(self.registry)


class _Facts:
    """What is read at a scrape, as a collector of prometheus_client."""

    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def _gauges(health: Mapping[str, Any], memory: Sequence[WorkerMemory]) -> Iterator[Metric]:
    for name, text, value in (
        ("starry_ok", "1 if /api/health says ok.", health["status"] == "ok"),
        ("starry_pictures", "Pictures in the gallery.", health["pictures"]),
        ("starry_worker_alive", "1 if this server's worker runs.", health["worker"] == "alive"),
    ):
        yield GaugeMetricFamily(name, text, float(value))
    jobs = GaugeMetricFamily("starry_jobs", "Jobs in the queue, by state.", labels=["state"])
    for state in STATE_GROUPS["all"]:
        jobs.add_metric([state], health["jobs"].get(state, 0))
    yield jobs
    held = GaugeMetricFamily(
        "starry_worker_memory_bytes", "Bytes that a worker's process holds.", labels=["device"]
    )
    card = GaugeMetricFamily(
        "starry_card_memory_bytes", "Bytes in use on a worker's card, by any program.", labels=["device"]
    )
    for worker in memory:
        held.add_metric([worker.device], worker.held)
        if worker.on_card is not None:
            card.add_metric([worker.device], worker.on_card)
    yield held
    if card.samples:
        yield card


def _counters(tallies: Sequence[Tally]) -> Iterator[Metric]:
    for name, (shown, text) in COUNTERS.items():
        found = [tally for tally in tallies if tally.name == name]
        labels = sorted({label for tally in found for label in tally.labels}) or ["model"]
        family = CounterMetricFamily(shown, text, labels=labels)
        for tally in found:
            family.add_metric([tally.labels.get(label, "") for label in labels], tally.value)
        yield family


def _histograms(tallies: Sequence[Tally]) -> Iterator[Metric]:
    bounds = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
    for name, (shown, text) in HISTOGRAMS.items():
        family = HistogramMetricFamily(shown, text, labels=["model"])
        buckets: dict[str, dict[str, float]] = defaultdict(dict)
        sums = {tally.labels["model"]: tally.value for tally in tallies if tally.name == name + SUM}
        for tally in tallies:
            if tally.name == name:
                buckets[tally.labels["model"]][tally.labels["le"]] = tally.value
        for model, counts in buckets.items():
            total, cumulative = 0.0, []
            for bound in bounds:
                total += counts.get(bound, 0.0)
                cumulative.append((bound, total))
            family.add_metric([model], cumulative, sums.get(model, 0.0))
        yield family
