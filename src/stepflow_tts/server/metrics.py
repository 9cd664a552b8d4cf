"""What /metrics tells, for Prometheus. Each server counts in a registry of its own."""

import time
from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from stepflow_tts.speech import Speech

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0)
RTF = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0)


class Metrics:
    """Counts and times of one server."""

    def __init__(self) -> None:
        """Everything at zero."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, CPU, open files
        self._requests = Counter(
            "stepflow_requests", "Answered requests", ("route", "status"), registry=registry
        )
        self._spoken = Counter("stepflow_speech_seconds", "Speech made", registry=registry)
        self._worked = Counter(
            "stepflow_synthesis_seconds", "Time spent in making it", registry=registry
        )
        self._rtf = Histogram(
            "stepflow_rtf",
            "Synthesis seconds / audio seconds of a request",
            buckets=RTF,
            registry=registry,
        )
        self.first_audio = Histogram(
            "stepflow_first_audio_seconds",
            "From a request's entry into the queue to its first bytes",
            buckets=SECONDS,
            registry=registry,
        )
        self.queue = Gauge("stepflow_queue_jobs", "Being spoken or waiting", registry=registry)

    def count_request(self, route: str, status: int) -> None:
        """An answer was begun; `route` is a template, never what a client wrote."""
        self._requests.labels(route, str(status)).inc()

    def watch(self, pieces: Iterator[Speech]) -> Iterator[Speech]:
        """The same pieces, with the time that each takes counted."""
        worked = spoken = 0.0
        for piece, seconds in clocked(pieces):
            worked, spoken = worked + seconds, spoken + piece.duration_seconds
            self._worked.inc(seconds)
            self._spoken.inc(piece.duration_seconds)
            yield piece
        self._rtf.observe(worked / spoken)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)


def clocked(pieces: Iterator[Speech]) -> Iterator[tuple[Speech, float]]:
    """The same pieces, each with the seconds that it took; what the taker does in between is not."""
    started = time.perf_counter()
    for piece in pieces:
        yield piece, time.perf_counter() - started
        started = time.perf_counter()
