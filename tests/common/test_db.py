"""Waiting for Postgres: bounded whoever waits."""

import socket

import psycopg2
import pytest
from pydantic import SecretStr

from valence_common import db


def test_login_at_a_silent_server_ends_outside_a_transaction_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """psycopg2's own connect_timeout means nothing once waits go through our callback."""
    monkeypatch.setattr(db, "LOGIN_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        db.make_engine(SecretStr(f"postgresql+psycopg2://u:p@127.0.0.1:{port}/d"))
        with pytest.raises(db.DeadlineExceeded):
            psycopg2.connect(host="127.0.0.1", port=port, user="u", password="p", connect_timeout=1)
