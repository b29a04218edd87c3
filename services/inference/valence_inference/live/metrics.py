"""Metrics of open connections."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ConnectionMetrics:
    """Counts open connections, and WebSocket messages by status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = Gauge(
            "valence_streams_open",
            "Open event streams (http) and WebSockets (websocket).",
            ["kind"],
            registry=registry,
        )
        self.messages = Counter(
            "valence_websocket_messages",
            "Messages received over WebSockets, by the status a request would have had.",
            ["status"],
            registry=registry,
        )
