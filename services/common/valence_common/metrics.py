"""Prometheus metrics of a web service: requests by route, dependencies, the process.

Each application has its own registry. Label values come from closed sets (route templates, status
codes, names in the code) and never from a client's input, so the number of series is bounded.
ARCHITECTURE.md lists every series.
"""

from http import HTTPStatus

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

LATENCY_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class HttpMetrics:
    """Rate, errors and duration of HTTP requests, and the state of dependencies."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "valence_http_requests",
            "Requests answered, by route template.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "valence_http_request_duration_seconds",
            "Time from a request's headers to the end of its answer.",
            ["method", "route"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "valence_http_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self.dependency_up = Gauge(
            "valence_dependency_up",
            "Whether a dependency answered the last check.",
            ["dependency"],
            registry=self.registry,
        )
        self.revocations_age = Gauge(
            "valence_revocations_age_seconds",
            "Time since this process last read which credentials are revoked.",
            registry=self.registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count one answered request; record its duration if a route matched.

        A stream, which stays open for as long as its client wants, has no `seconds`.
        """
        served = (
            method in METHODS and route != UNMATCHED and status != HTTPStatus.METHOD_NOT_ALLOWED
        )
        method = method if served else "OTHER"
        self.requests.labels(method, route, str(status)).inc()
        if served and seconds is not None:
            self.duration.labels(method, route).observe(seconds)

    def render(self) -> bytes:
        """Return all series in Prometheus's text format."""
        return generate_latest(self.registry)
