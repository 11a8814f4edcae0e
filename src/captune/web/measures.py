"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Measures:
    """Counts and times of one server."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("captune_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "captune_request_seconds", "Seconds to the answer.", ["route"], registry=registry, buckets=SECONDS
        )
        self.batches = Histogram(
            "captune_batch_pictures", "Pictures in a batch.", ["model"], registry=registry, buckets=SIZES
        )
        self.waiting = Gauge("captune_pictures_waiting", "Pictures that wait or are worked on.", registry=registry)
        self.loads = Counter("captune_model_loads", "Times that a model was loaded.", ["model"], registry=registry)
        self.loaded = Gauge("captune_models_loaded", "Models in memory.", registry=registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request by its route's template (bounded in number) and its status."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
