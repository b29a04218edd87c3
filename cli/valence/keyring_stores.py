"""Storage of a keyring: a file, or a Kubernetes Secret accessed through kubectl.

Neither store overwrites a change that someone else made since the keyring was read. Keys travel
only through files and pipes, never on a command line, and no error message contains them.
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

CHANGED = "was changed by someone else in the meantime: nothing was written, try again"

_REASON = re.compile(r"Error from server \((\w+)\)")


class StoreError(Exception):
    """The keyring cannot be read or written; the message is one sentence without keys."""


class Store(Protocol):
    """Storage of one keyring."""

    propagation_seconds: float
    """Seconds until every process that uses the keyring has read a change."""

    def create(self, content: bytes) -> None:
        """Store a first keyring; raise `StoreError` if there is one."""
        ...

    def read(self) -> bytes:
        """Return the content, and remember it for `replace`."""
        ...

    def replace(self, content: bytes) -> None:
        """Replace the content that was read last; raise `StoreError` if it has changed."""
        ...


class FileStore:
    """A file that only its owner can read, replaced atomically."""

    propagation_seconds = 2.0  # every process checks the file once a second

    def __init__(self, path: Path):
        # Replace the target of a symbolic link, not the link.
        self._path = path.resolve()
        self._loaded = b""

    def __str__(self) -> str:
        return str(self._path)

    def create(self, content: bytes) -> None:
        """Create the file."""
        new = self._write_temporary(content)
        try:
            os.link(new, self._path)
        except FileExistsError:
            raise StoreError(f"{self} exists already and is not overwritten") from None
        except OSError as error:
            raise StoreError(f"{self} cannot be written: {error.strerror}") from None
        finally:
            new.unlink()

    def read(self) -> bytes:
        """Return the file's content."""
        try:
            self._loaded = self._path.read_bytes()
        except OSError as error:
            raise StoreError(f"{self} cannot be read: {error.strerror}") from None
        return self._loaded

    def replace(self, content: bytes) -> None:
        """Rename a new file over the old one; the owner stays the same."""
        loaded, new = self._loaded, self._write_temporary(content)
        try:
            owner = self._path.stat()
            if owner.st_uid != os.geteuid():
                os.chown(new, owner.st_uid, owner.st_gid)
            if self.read() != loaded:
                raise StoreError(f"{self} {CHANGED}")
            new.replace(self._path)
        except OSError as error:
            raise StoreError(f"{self} cannot be written: {error.strerror}") from None
        finally:
            new.unlink(missing_ok=True)

    def _write_temporary(self, content: bytes) -> Path:
        try:
            # mkstemp creates files with mode 0600.
            handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        except OSError as error:
            raise StoreError(f"{self} cannot be written: {error.strerror}") from None
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return Path(name)


class SecretStore:
    """One entry of a Secret; the API server compares the resource version."""

    # The kubelet updates mounted Secrets when it syncs a pod, every 60 to 90 s.
    propagation_seconds = 120.0

    def __init__(self, name: str, *, namespace: str | None, key: str):
        self._name, self._key = name, key
        self._namespace_options = [] if namespace is None else ["--namespace", namespace]
        self._secret: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"Secret {self._name}"

    def create(self, content: bytes) -> None:
        """Create the Secret."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": self._name},
        }
        self._apply("create", secret, content)

    def read(self) -> bytes:
        """Return the entry's content."""
        self._secret = json.loads(self._kubectl("get", "secret", self._name, "--output=json"))
        try:
            return base64.b64decode(self._secret.get("data", {})[self._key], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise StoreError(f"{self} has no entry {self._key}") from None

    def replace(self, content: bytes) -> None:
        """Send the whole Secret back with the resource version that was read."""
        self._apply("replace", self._secret, content)

    def _apply(self, verb: str, secret: dict[str, Any], content: bytes) -> None:
        data = dict(secret.get("data") or {}) | {self._key: base64.b64encode(content).decode()}
        self._kubectl(verb, "--filename=-", stdin=json.dumps(secret | {"data": data}))

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - the user's own kubectl
                ["kubectl", *self._namespace_options, *arguments],  # noqa: S607 - found on PATH
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise StoreError("kubectl is not installed; Secrets need it") from None
        if done.returncode != 0:
            raise StoreError(self._error_message(done.stderr, writing=stdin is not None))
        return done.stdout

    def _error_message(self, stderr: str, *, writing: bool) -> str:
        match = _REASON.search(stderr)
        reason = match[1] if match else "no reason given"
        if reason == "Conflict":
            return f"{self} {CHANGED}"
        if reason == "AlreadyExists":
            return f"{self} exists already and is not overwritten"
        if reason == "NotFound":
            return f"{self} does not exist in this namespace"
        if writing:  # the server's message may quote the Secret that was sent
            return f"kubectl could not write {self} ({reason})"
        *_, last_line = stderr.strip().splitlines() or [reason]  # client-go may log before it
        return f"kubectl could not read {self}: {last_line}"
