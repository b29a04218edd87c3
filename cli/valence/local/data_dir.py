"""The folder of a local Valence: its lock, secrets, keyring, data and logs."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from valence.local.errors import LocalError
from valence.local.processes import write_private


class DataDir:
    """`$VALENCE_HOME`; created when it is missing, private to its user."""

    def __init__(self, folder: Path) -> None:
        self.path = folder.expanduser().absolute()
        self.postgres = self.path / "postgres"
        self.valkey = self.path / "valkey"
        self.worker = self.path / "worker"
        self.logs = self.path / "logs"
        self.secrets = self.path / "secrets"
        self.keyring = self.path / "keyring.json"
        self._lock_file = self.path / "lock"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder and lock it for this process; raise LocalError if it is locked.

        The kernel releases the lock with the process, even after SIGKILL.
        """
        self._create()
        with self._lock_file.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LocalError(self._already_running()) from None
            yield

    def record_owner(self, url: str) -> None:
        """Write this process into the lock file, for the error message of a second launcher."""
        self._lock_file.write_text(json.dumps({"pid": os.getpid(), "url": url}))

    def create_keyring(self, content: bytes) -> None:
        """Write the keyring unless there is one from an earlier start."""
        if not self.keyring.exists():
            write_private(self.keyring, content.decode())

    def write_secrets(self, values: dict[str, str]) -> None:
        """Write one private file per secret, named after its setting."""
        self.secrets.mkdir(mode=0o700, exist_ok=True)
        for name, value in values.items():
            write_private(self.secrets / name, value)

    def _create(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.logs, self.worker):
                folder.mkdir(mode=0o700, exist_ok=True)
            # The folder is usually inside a checkout and must never be committed.
            (self.path / ".gitignore").write_text("*\n")
        except OSError as error:
            raise LocalError(
                f"Valence cannot write to {self.path} ({error.strerror}): "
                "choose another folder with VALENCE_HOME."
            ) from None

    def _already_running(self) -> str:
        detail = ""
        with suppress(OSError, ValueError, KeyError, TypeError):
            holder = json.loads(self._lock_file.read_text())
            detail = f" (pid {holder['pid']}, {holder['url']})"
        return f"Valence already runs on {self.path}{detail}."
