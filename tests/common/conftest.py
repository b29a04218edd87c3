"""Fixtures for the tests of valence_common."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from valence_common import keyring
from valence_common.keyring import Keyring


@pytest.fixture
def keyring_file(tmp_path: Path) -> Path:
    """A new keyring file."""
    path = tmp_path / "keyring.json"
    path.write_bytes(keyring.generate())
    return path


@pytest.fixture
def keys(keyring_file: Path) -> Keyring:
    """The keyring in a new file."""
    return Keyring(keyring_file)


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """For tests that call `log.configure`: restores the configuration afterwards."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    yield capsys
    root.handlers, root.level = handlers, level
    structlog.configure(**before)
