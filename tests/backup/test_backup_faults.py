"""Faults while a backup is made (case 120)."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.backups import Backups, fill, kill, refused
from support.required import require

BIG_ROWS = 20_000


@pytest.fixture
def backups(tmp_path: Path, own_database_url: str) -> Iterator[Backups]:
    with Backups(tmp_path / "backups", own_database_url) as backups:
        yield backups


@pytest.mark.faults
def test_case_120_killed_dump(backups: Backups, own_database_url: str) -> None:
    """SIGKILL leaves no file with the name of a dump; the next run removes the rest."""
    fill(own_database_url, BIG_ROWS)
    process = backups.start("backup")
    backups.wait_dumping()
    kill(process)
    assert backups.partial().exists()
    assert [] == backups.names()
    # As if it had been killed between its last steps.
    for suffix in ("tables", "sha256"):
        (backups.folder / f"20260101T000000Z.{suffix}").touch()
    name = backups.make()
    assert sorted(path.name for path in backups.folder.iterdir()) == [
        ".lock",
        f"{name}.dump",
        f"{name}.sha256",
        f"{name}.tables",
    ]


@pytest.mark.faults
def test_case_120_full_disk(backups: Backups, own_database_url: str) -> None:
    """The backup fails with a message, and the last good one remains intact."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", backups.folder],
        capture_output=True,
        text=True,
        check=False,
    )
    require("disk", mounted.returncode == 0, mounted.stderr.strip())
    try:
        name = backups.make()
        fill(own_database_url, BIG_ROWS // 4)
        refused(backups.run("backup", BACKUP_KEEP="1"), "No space left on device")
        assert [name] == backups.names()
        assert 0 == backups.run("verify", name).returncode
        assert backups.idle()
    finally:
        subprocess.run(["umount", backups.folder], check=True)


@pytest.mark.faults
def test_case_120_two_runs_at_once(backups: Backups, own_database_url: str) -> None:
    """The second run reports the first, and does not touch its files."""
    fill(own_database_url, BIG_ROWS)
    first = backups.start("backup")
    backups.wait_dumping()
    refused(backups.run("backup"), "another run is in progress", code=75)
    out, err = first.communicate(timeout=120)
    assert (0, "") == (first.returncode, err), out
    assert 1 == len(backups.names())


def test_case_120_retention_keeps_the_last_good(backups: Backups) -> None:
    """The newest BACKUP_KEEP backups remain; a run that fails deletes none."""
    names = [backups.make(BACKUP_KEEP="2") for _ in range(3)]
    assert names[1:] == backups.names()
    backups.point_at("postgresql://valence:wrong@127.0.0.1:1/valence")
    for _ in range(2):
        refused(backups.run("backup", BACKUP_KEEP="1"), "the database does not answer")
    assert names[1:] == backups.names()
    refused(backups.run("backup", BACKUP_KEEP="0"), "BACKUP_KEEP must be at least 1")
    assert 0 == backups.run("verify", "latest").returncode
    assert backups.idle()


def test_case_120_a_url_of_any_form(backups: Backups, own_database_url: str) -> None:
    """Escapes in the password and options are supported; no message contains them."""
    login, rest = own_database_url.removeprefix("postgresql+psycopg2://").split("@")
    name, password = login.split(":")
    escaped = "".join(f"%{ord(letter):02x}" for letter in password)
    backups.point_at(f"postgres://{name}:{escaped}@{rest}?connect_timeout=9&application_name=x%20y")
    backups.make()
    backups.point_at(f"postgresql://{name}:secret%2Fword@{rest}")
    failed = backups.run("backup")
    refused(failed, "password authentication failed")
    assert "secret" not in failed.stderr
