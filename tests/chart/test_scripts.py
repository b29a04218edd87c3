"""The scripts of `helm test` against services that run: what passes, and what is left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.chart import CHART
from support.stack import Stack

PASSWORD = "the first superuser's own"


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one as its pod does; its word and its exit code."""
    command = [sys.executable, str(CHART / "files" / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def services(stack: Stack) -> tuple[str, str]:
    """Where auth and inference are."""
    return stack.running("auth")[0].url, stack.running("inference")[0].url


@pytest.fixture
def password_file(stack: Stack, tmp_path: Path) -> Path:
    """The Secret's file of an administrator who was made from it, as the chart's job does."""
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    command = [sys.executable, "-m", "valence_auth.create_admin", "--username=chart-admin"]
    command += ["--email=chart-admin@example.com", f"--password-file={file}"]
    environment = {**os.environ, "VALENCE_DATABASE_URL": stack.database_url}
    subprocess.run(command, env=environment, check=True)
    return file


@pytest.mark.parametrize("name", ["smoke", "negative"])
def test_an_installation_that_works_passes(name: str, services: tuple[str, str]) -> None:
    done = script(name, *services)
    assert (0, True) == (done.returncode, "PASS" in done.stdout), done.stdout + done.stderr


def test_the_administrator_of_the_secret_is_tried(
    services: tuple[str, str], password_file: Path
) -> None:
    """Then, with another password in the Secret, that part is left out and said to be."""
    done = script("accounts", *services, "chart-admin", str(password_file))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "ok    disable the account: 200" in done.stdout
    assert "SKIPPED" not in done.stdout

    password_file.write_text("what it was before")
    done = script("accounts", *services, "chart-admin", str(password_file))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert 1 == done.stdout.count("SKIPPED  the administrator")
    assert "disable the account" not in done.stdout
    assert "PASS" in done.stdout


def test_another_refusal_of_the_administrator_is_a_failure(
    services: tuple[str, str], password_file: Path
) -> None:
    """Only a wrong password may be an old one."""
    for _ in range(6):
        done = script("accounts", *services, "nobody-of-that-name", str(password_file))
    assert "FAIL  log in as the administrator: 429" in done.stdout + done.stderr
    assert 1 == done.returncode
