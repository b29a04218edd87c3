"""The house's rules that a test can keep."""

import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMON = ROOT / "services/common"
MAX_LINES = 300

TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
SOURCES = [ROOT / name for name in TRACKED if name.endswith(".py") and (ROOT / name).exists()]


def test_common_holds_exactly_the_modules_of_its_charter() -> None:
    """A module comes into the floor by being argued for in its README."""
    listed = re.findall(r"^\| `(\w+)` \|", (COMMON / "README.md").read_text(), re.MULTILINE)
    folder = COMMON / "valence_common"
    there = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    there |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert there == set(listed)
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_small_enough_to_hold_one_noun(path: Path) -> None:
    """A file over 300 lines holds two nouns."""
    with tokenize.open(path) as file:
        assert sum(1 for _ in file) <= MAX_LINES


def test_python_jose_is_used_in_one_file() -> None:
    """What python-jose accepts too easily is checked in one place."""
    importing = re.compile(r"^(from|import) jose\b", re.MULTILINE)
    users = [path.name for path in SOURCES if importing.search(path.read_text())]
    assert ["security.py"] == [name for name in users if not name.startswith("test_")]


def test_only_settings_and_process_entries_read_the_environment() -> None:
    """A setting is a field, documented and checked; no module looks one up by itself."""
    allowed = {"settings.py", "__main__.py"}
    readers = {
        path.name
        for path in SOURCES
        if path.is_relative_to(ROOT / "services") and "os.environ" in path.read_text()
    }
    assert readers <= allowed


def test_alembic_folder_does_not_hide_the_library() -> None:
    """An `__init__.py` there would make `import alembic` find our migrations."""
    assert not (ROOT / "alembic/__init__.py").exists()


def test_no_file_names_a_registry_or_this_machine() -> None:
    """The lock and all else work wherever packages come from."""
    hosts = re.compile(
        r"pypi\.org|pythonhosted|registry\.npmjs|crates\.io|proxy\.golang|deb\.debian"
    )
    this = Path(__file__)
    texts = [ROOT / name for name in TRACKED if (ROOT / name).is_file() and ROOT / name != this]
    found = []
    for path in texts:
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if hosts.search(text) or str(ROOT) + "/" in text:
            found.append(path.name)
    assert [] == found
