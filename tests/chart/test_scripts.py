"""The scripts of `helm test` against running services."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.chart import CHART
from support.stack import Stack

PASSWORD = "the first superuser's own"


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script as its pod does."""
    command = [sys.executable, str(CHART / "files" / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def services(stack: Stack) -> tuple[str, str]:
    """The URLs of auth and inference."""
    return stack.running("auth")[0].url, stack.running("inference")[0].url


@pytest.fixture
def password_file(stack: Stack, tmp_path: Path) -> Path:
    """The file of the Secret that an administrator was created from, as the chart's Job does."""
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    command = [sys.executable, "-m", "valence_auth.create_admin", "--username=chart-admin"]
    command += ["--email=chart-admin@example.com", f"--password-file={file}"]
    environment = {**os.environ, "VALENCE_DATABASE_URL": stack.database_url}
    subprocess.run(command, env=environment, check=True)
    return file


@pytest.mark.parametrize("name", ["smoke", "negative"])
def test_a_working_installation_passes(name: str, services: tuple[str, str]) -> None:
    result = run_script(name, *services)
    assert (0, True) == (result.returncode, "PASS" in result.stdout), result.stdout + result.stderr


def test_the_administrators_steps_run_unless_the_password_was_changed(
    services: tuple[str, str], password_file: Path
) -> None:
    """With another password in the Secret the script skips them with a message."""
    result = run_script("accounts", *services, "chart-admin", str(password_file))
    assert 0 == result.returncode, result.stdout + result.stderr
    assert "ok    disable the account: 200" in result.stdout
    assert "SKIPPED" not in result.stdout

    password_file.write_text("what it was before")
    result = run_script("accounts", *services, "chart-admin", str(password_file))
    assert 0 == result.returncode, result.stdout + result.stderr
    assert 1 == result.stdout.count("SKIPPED  the administrator")
    assert "disable the account" not in result.stdout
    assert "PASS" in result.stdout


def test_a_throttled_administrator_is_a_failure(services: tuple[str, str], tmp_path: Path) -> None:
    """The script skips the steps only for a rejected password."""
    for _ in range(5):
        form = {"username": "unknown-admin", "password": PASSWORD}
        assert 401 == httpx.post(f"{services[0]}/api/v1/auth/login", data=form).status_code
    password_file = tmp_path / "password"
    password_file.write_text(PASSWORD)
    result = run_script("accounts", *services, "unknown-admin", str(password_file))
    assert "FAIL  log in as the administrator: 429" in result.stdout + result.stderr
    assert 1 == result.returncode
