"""The request and response bodies of the auth service."""
