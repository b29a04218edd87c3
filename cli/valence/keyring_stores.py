"""Where a keyring is kept: in a file, or in a Kubernetes Secret that kubectl reaches.

Both refuse to overwrite what somebody else has changed since it was read. Keys travel through
files and pipes alone, never on a command line, and no error shows them.
"""

import base64
import binascii
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Protocol

CHANGED = "was changed by somebody else meanwhile: nothing was written, try again"

_REASON = re.compile(r"Error from server \((\w+)\)")


class StoreError(Exception):
    """The keyring cannot be read or written: one sentence, without keys."""


class Store(Protocol):
    """Keeps one keyring file's content."""

    settles_in: float
    """Seconds until every process that uses it has read a change."""

    def create(self, content: bytes) -> None:
        """Keep a first keyring; raises `StoreError` when there is one."""
        ...

    def read(self) -> bytes:
        """The content, which `replace` compares with."""
        ...

    def replace(self, content: bytes) -> None:
        """Keep this instead of what was read last, or raise `StoreError` if that has changed."""
        ...


class FileStore:
    """A file that only its owner may read, replaced in one step."""

    settles_in = 2.0  # every process looks once a second

    def __init__(self, path: Path):
        # What a link points to is replaced, not the link.
        self._path = path.resolve()
        self._seen = b""

    def __str__(self) -> str:
        return str(self._path)

    def create(self, content: bytes) -> None:
        """Keep a first keyring."""
        new = self._write_aside(content)
        try:
            os.link(new, self._path)
        except FileExistsError:
            raise StoreError(f"{self} exists already: it is not overwritten") from None
        except OSError as error:
            raise StoreError(f"{self} cannot be written: {error.strerror}") from None
        finally:
            new.unlink()

    def read(self) -> bytes:
        """The file's bytes."""
        try:
            self._seen = self._path.read_bytes()
        except OSError as error:
            raise StoreError(f"{self} cannot be read: {error.strerror}") from None
        return self._seen

    def replace(self, content: bytes) -> None:
        """Rename a new file over the old one, which keeps its owner."""
        seen, new = self._seen, self._write_aside(content)
        try:
            owner = self._path.stat()
            if owner.st_uid != os.geteuid():
                os.chown(new, owner.st_uid, owner.st_gid)
            if self.read() != seen:
                raise StoreError(f"{self} {CHANGED}")
            new.replace(self._path)
        except OSError as error:
            raise StoreError(f"{self} cannot be written: {error.strerror}") from None
        finally:
            new.unlink(missing_ok=True)

    def _write_aside(self, content: bytes) -> Path:
        try:
            # mkstemp's files are private to their owner.
            handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        except OSError as error:
            raise StoreError(f"{self} cannot be written: {error.strerror}") from None
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return Path(name)


class SecretStore:
    """One entry of a Secret; the server compares the version that was read."""

    # The kubelet renews mounted Secrets with each sync of a pod, every 60 to 90 s.
    settles_in = 120.0

    def __init__(self, name: str, *, namespace: str | None, key: str):
        self._name, self._key = name, key
        self._where = [] if namespace is None else ["--namespace", namespace]
        self._secret: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"Secret {self._name}"

    def create(self, content: bytes) -> None:
        """Make the Secret."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": self._name},
        }
        self._send("create", secret, content)

    def read(self) -> bytes:
        """The entry's bytes."""
        self._secret = json.loads(self._kubectl("get", "secret", self._name, "--output=json"))
        try:
            return base64.b64decode(self._secret.get("data", {})[self._key], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise StoreError(f"{self} has no entry {self._key}") from None

    def replace(self, content: bytes) -> None:
        """Send the whole Secret back with the version that it had."""
        self._send("replace", self._secret, content)

    def _send(self, verb: str, secret: dict[str, Any], content: bytes) -> None:
        data = dict(secret.get("data") or {}) | {self._key: base64.b64encode(content).decode()}
        self._kubectl(verb, "--filename=-", given=json.dumps(secret | {"data": data}))

    def _kubectl(self, *arguments: str, given: str | None = None) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - the user's own kubectl
                ["kubectl", *self._where, *arguments],  # noqa: S607 - wherever it is installed
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise StoreError("kubectl is not installed: a Secret is reached through it") from None
        if done.returncode != 0:
            raise StoreError(self._sentence(done.stderr, wrote=given is not None))
        return done.stdout

    def _sentence(self, complaint: str, *, wrote: bool) -> str:
        found = _REASON.search(complaint)
        reason = found[1] if found else "no reason given"
        if reason == "Conflict":
            return f"{self} {CHANGED}"
        if reason == "AlreadyExists":
            return f"{self} exists already: it is not overwritten"
        if reason == "NotFound":
            return f"{self} does not exist in this namespace"
        if wrote:  # what is said of a Secret that was sent may quote it
            return f"kubectl could not write {self} ({reason})"
        *_, last = complaint.strip().splitlines() or [reason]  # after what its parts have logged
        return f"kubectl could not read {self}: {last}"
