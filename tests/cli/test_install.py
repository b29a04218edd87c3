"""How `make` installs uv; `make run` in a clone proves the rest of the installation."""

import runpy
import sys
from pathlib import Path

import pytest

from valence.local import install


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have run, on a machine without uv."""
    ran: list[list[str]] = []
    monkeypatch.setattr(install, "TOOLS", tmp_path)
    monkeypatch.setattr(install.shutil, "which", lambda _: None)
    monkeypatch.setattr(install, "_quiet", lambda _: 0)
    monkeypatch.setattr(install, "_run", lambda command, _=None: ran.append(command))
    return ran


def test_uv_on_path_is_used(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed uv is used and no second one is fetched."""
    monkeypatch.setattr(install.shutil, "which", lambda name: f"/somewhere/{name}")
    assert "/somewhere/uv" == install.find_uv()
    assert [] == commands


def test_uv_is_fetched_once_into_a_private_place(commands: list[list[str]], tmp_path: Path) -> None:
    """pip installs the locked uv into a target folder, which a managed system allows."""
    private, pinned = tmp_path / "bin/uv", tmp_path / "uv.txt"
    assert str(private) == install.find_uv()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", f"--target={tmp_path}"]
    pip += ["--require-hashes", "--requirement", str(pinned)]
    assert [pip] == commands
    entry, *hashes = pinned.read_text().splitlines()
    assert entry.startswith("uv==")
    assert len([line for line in hashes if "--hash=sha256:" in line]) > 5
    assert "==" not in "".join(hashes)
    private.parent.mkdir()
    private.touch()
    assert str(private) == install.find_uv()
    assert [pip] == commands


def test_pip_comes_from_a_virtual_environment_where_it_is_missing(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If that fails too, a sentence says what to install."""
    monkeypatch.setattr(install, "_quiet", lambda command: int("pip" in command))
    install.find_uv()
    assert str(tmp_path / "pip/bin/python") == commands[0][0]
    monkeypatch.setattr(install, "_quiet", lambda _: 1)
    with pytest.raises(SystemExit, match="install uv or pip first"):
        install.find_uv()


def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the required version, and how to choose another Python."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    with pytest.raises(SystemExit, match=r"Valence needs Python 3\.11 or newer.*PYTHON="):
        runpy.run_path(install.__file__, run_name="__main__")
