"""A release on disk: a flat folder with a manifest and exactly the files that it lists."""

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
    """Return the manifest of a release, and the content of each file by name.

    Each file is read once and its hash compared on the returned bytes, before anything is parsed:
    swapping a file afterwards has no effect. Raise ModelError for a missing, extra, truncated or
    changed file, for anything that is not a regular file, and for an invalid manifest.
    """
    if not directory.is_dir():
        raise ModelError(f"{directory} is not a folder: name the folder of a model release")
    try:
        manifest = parse(
            _read_regular_file(directory / MANIFEST, limit=_MANIFEST_LIMIT),
            f"{directory / MANIFEST}",
        )
        present = {path.name for path in directory.iterdir()} - {MANIFEST}
        listed = set(manifest.files)
        for name in sorted(listed - present):
            raise ModelError(f"{directory / name} is missing: copy the release again")
        for name in sorted(present - listed):
            raise ModelError(f"{directory / name} is not part of the release: remove it")
        return manifest, {
            name: _read_verified(directory / name, entry) for name, entry in manifest.files.items()
        }
    except OSError as error:
        raise ModelError(
            f"{error.filename or directory} cannot be read: {error.strerror}"
        ) from None


def check_target(directory: Path, *, name: str, version: str) -> None:
    """Raise ModelError unless a release of this name can be written there.

    Called before training, which takes minutes.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ModelError(f"{directory} is not an empty folder: choose a new one for the release")
    for value in (name, version):
        try:
            msgspec.convert(value, Slug)
        except msgspec.ValidationError:
            raise ModelError(
                f"{value!r} is not a valid name or version: use at most 64 letters, digits "
                "and . _ + -"
            ) from None


def write(directory: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a release into a new folder; return the manifest with the hashes of the files."""
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


def _read_verified(path: Path, entry: FileEntry) -> bytes:
    data = _read_regular_file(path, limit=entry.size)
    if len(data) < entry.size:
        raise ModelError(
            f"{path} is truncated ({len(data)} of {entry.size} bytes): copy the release again"
        )
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ModelError(
            f"{path} does not match its sha256 in the manifest: copy the release again"
        )
    return data


def _read_regular_file(path: Path, *, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; do not follow links or block on pipes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: copy the release again") from None
    except OSError:
        if path.is_symlink():
            raise ModelError(
                f"{path} is a symbolic link: a release contains regular files only"
            ) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelError(f"{path} is not a regular file: copy the release again")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ModelError(f"{path} is larger than {limit} bytes: copy the release again")
    return data
