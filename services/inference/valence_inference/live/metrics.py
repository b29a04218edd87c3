"""The series of what stays open."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ConnectionMetrics:
    """How many streams are open, and what comes of the messages."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = Gauge(
            "valence_streams_open",
            "Event streams (http) and WebSockets (websocket) that are open.",
            ["kind"],
            registry=registry,
        )
        self.messages = Counter(
            "valence_websocket_messages",
            "Messages that came over WebSockets, by the status that a request would have had.",
            ["status"],
            registry=registry,
        )
