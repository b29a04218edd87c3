"""The folder that holds all of one local Valence: its lock, secrets, keyring, data and logs."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from valence.local.errors import LocalError
from valence.local.processes import write_private


class Home:
    """`$VALENCE_HOME`; made when it is missing, private to its user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.postgres = self.folder / "postgres"
        self.valkey = self.folder / "valkey"
        self.worker = self.folder / "worker"
        self.logs = self.folder / "logs"
        self.secrets = self.folder / "secrets"
        self.keyring = self.folder / "keyring.json"
        self._lock = self.folder / "lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the home and hold it for this process; LocalError says who has it when it is taken.

        The kernel frees the lock with the process, so a kill -9 leaves nothing to clean.
        """
        self._make()
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LocalError(self._who()) from None
            yield

    def announce(self, url: str) -> None:
        """Write into the held lock who has it, for the sentence of a second start."""
        self._lock.write_text(json.dumps({"pid": os.getpid(), "url": url}))

    def make_keyring(self, content: bytes) -> None:
        """Keep the keys that sign tokens; those of an earlier start stay."""
        if not self.keyring.exists():
            write_private(self.keyring, content.decode())

    def write_secrets(self, values: dict[str, str]) -> None:
        """One private file per secret, named as the services look for it."""
        self.secrets.mkdir(mode=0o700, exist_ok=True)
        for name, value in values.items():
            write_private(self.secrets / name, value)

    def _make(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.logs, self.worker):
                folder.mkdir(mode=0o700, exist_ok=True)
            # The home usually lies in a checkout, and must never be committed with it.
            (self.folder / ".gitignore").write_text("*\n")
        except OSError as error:
            raise LocalError(
                f"Valence cannot write to its home {self.folder} ({error.strerror}): "
                "choose another with VALENCE_HOME."
            ) from None

    def _who(self) -> str:
        detail = ""
        with suppress(OSError, ValueError, KeyError, TypeError):
            holder = json.loads(self._lock.read_text())
            detail = f" (pid {holder['pid']}, {holder['url']})"
        return f"Valence already runs on {self.folder}{detail}."
