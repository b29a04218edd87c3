"""The web edge of a service: everything that only serves HTTP and WebSocket."""
