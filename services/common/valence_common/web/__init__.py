"""The web edge: everything that only serves HTTP and WebSocket."""
