"""A release on disk: a flat folder of a manifest and the files that it lists, and nothing else."""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from valence_ml.manifest import FileEntry, Manifest, ModelError, Slug, parse, serialise

MANIFEST = "manifest.json"
CARD = "MODEL_CARD.md"
_MANIFEST_LIMIT = 1024 * 1024


def read(directory: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Read a release: its manifest, and the content of each file, by name.

    Every hash is compared before anything is opened or parsed, on the same bytes that are handed
    out, so a file that is swapped in between changes nothing. ModelError for a missing, extra,
    truncated or changed file, for anything that is not a plain file, and for a bad manifest.
    """
    if not directory.is_dir():
        raise ModelError(f"{directory} is not a folder: give the folder of a model release")
    try:
        manifest = parse(
            _read(directory / MANIFEST, limit=_MANIFEST_LIMIT), f"{directory / MANIFEST}"
        )
        found = {path.name for path in directory.iterdir()} - {MANIFEST}
        listed = set(manifest.files)
        for name in sorted(listed - found):
            raise ModelError(f"{directory / name} is missing: copy the release again")
        for name in sorted(found - listed):
            raise ModelError(f"{directory / name} is not part of the release: remove it")
        return manifest, {
            name: _verified(directory / name, entry) for name, entry in manifest.files.items()
        }
    except OSError as error:
        raise ModelError(
            f"{error.filename or directory} cannot be read: {error.strerror}"
        ) from None


def reserve(directory: Path, *, name: str, version: str) -> None:
    """Raise ModelError unless a release of that name can be written there: before long work."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ModelError(f"{directory} is not an empty folder: name a new one for the release")
    for value in (name, version):
        try:
            msgspec.convert(value, Slug)
        except msgspec.ValidationError:
            raise ModelError(
                f"{value!r} is no name or version: use letters, digits and . _ + -, at most 64"
            ) from None


def write(directory: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a release into a new folder; returns the manifest with the files' hashes."""
    entries = {
        name: FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in sorted(files.items())
    }
    manifest = msgspec.structs.replace(manifest, files=entries)
    try:
        directory.mkdir(parents=True)
        for name, data in files.items():
            (directory / name).write_bytes(data)
        (directory / MANIFEST).write_bytes(serialise(manifest))
    except OSError as error:
        raise ModelError(
            f"{error.filename or directory} cannot be written: {error.strerror}"
        ) from None
    return manifest


def _verified(path: Path, entry: FileEntry) -> bytes:
    data = _read(path, limit=entry.size)
    if len(data) < entry.size:
        raise ModelError(
            f"{path} is truncated ({len(data)} of {entry.size} bytes): copy the release again"
        )
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ModelError(
            f"{path} does not match its sha256 in the manifest: copy the release again"
        )
    return data


def _read(path: Path, *, limit: int) -> bytes:
    """Read a plain file of at most `limit` bytes; follow no link, wait for no pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: copy the release again") from None
    except OSError:
        if path.is_symlink():
            raise ModelError(f"{path} is a symbolic link: a release has plain files only") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelError(f"{path} is not a plain file: copy the release again")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ModelError(f"{path} is larger than {limit} bytes: copy the release again")
    return data
