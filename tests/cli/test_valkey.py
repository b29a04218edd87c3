"""The embedded Valkey: its password and its data."""

import os
import signal
from pathlib import Path

import psutil
import pytest
import redis

from support.waiting import until
from valence.local.valkey import Valkey


def test_valkey_wants_its_password(tmp_path: Path) -> None:
    """The password is in a private file, not on the command line."""
    folder = tmp_path / 'with "quotes" and spaces'
    with Valkey(folder) as server:
        password = server.url().split(":")[2].split("@")[0]
        assert not any(password in part for part in psutil.Process(server.pid).cmdline())
        assert 0o600 == (folder / "server.conf").stat().st_mode & 0o777
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=server.port).ping()
        client = redis.Redis.from_url(server.url())
        assert "noeviction" == client.config_get("maxmemory-policy")["maxmemory-policy"]


@pytest.mark.parametrize("persistent", [True, False])
def test_persistent_valkey_keeps_its_data(tmp_path: Path, persistent: bool) -> None:
    """Data survives a stop; after SIGKILL the server starts too."""
    server = Valkey(tmp_path, persistent=persistent)
    server.start()
    redis.Redis.from_url(server.url()).set("key", "value")
    server.stop()
    server.start()
    assert (b"value" if persistent else None) == redis.Redis.from_url(server.url()).get("key")
    os.kill(server.pid, signal.SIGKILL)
    until(server.exit_error, timeout=5)
    server.start()
    server.stop()
