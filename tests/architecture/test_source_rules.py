"""Rules about the source code, checked on the syntax tree where text could be written otherwise."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMON = ROOT / "services/common"
MAX_LINES = 300
PRODUCT = ("services", "ml", "cli", "tools", "alembic", "charts")
TYPE_CHECKED = ("services", "ml", "cli", "tools")

TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
FILES = [name for name in TRACKED if (ROOT / name).is_file()]
SOURCES = {name: (ROOT / name).read_text("utf-8") for name in FILES if name.endswith(".py")}
PRODUCT_SOURCES = {n: text for n, text in SOURCES.items() if n.partition("/")[0] in PRODUCT}

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}
READ_THE_ENVIRONMENT = {
    "services/common/valence_common/settings.py": "the settings",
    "services/batch-worker/valence_batch_worker/__main__.py": "Celery's and Prometheus's variables",
    "cli/valence/local/install.py": "what it passes to pip and uv",
    "cli/valence/local/postgres.py": "what it passes to the server",
    "cli/valence/local/services.py": "sets the services' variables",
    "cli/valence/local/valkey.py": "what it passes to the server",
}
IMPORT_PYDANTIC_SETTINGS = {
    "services/common/valence_common/settings.py",
    "services/common/valence_common/setting_types.py",
}


def imported_modules(source: str) -> Iterator[str]:
    """Yield the modules that a source imports, at any depth and also by name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module)):
                yield module
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
                if ast.unparse(function).endswith(("import_module", "__import__")):
                    yield name


def reads_environment(source: str) -> bool:
    """Return whether a source reads the environment through `os` or /proc."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name) if name in ENVIRONMENT:
                return True
            case ast.ImportFrom(module="os" | "posix", names=names):
                if any(alias.name in {*ENVIRONMENT, "*"} for alias in names):
                    return True
            case ast.Constant(value=str(text)) if text in ENVIRONMENT:  # getattr(os, "environ")
                return True
            case ast.Constant(value=str(text)) if re.search(r"/proc/\S*/environ", text):
                return True
    return False


def users_of(package: str) -> set[str]:
    """Return the product files that import a package."""
    return {
        name
        for name, source in PRODUCT_SOURCES.items()
        if any(module.partition(".")[0] == package for module in imported_modules(source))
    }


def test_common_holds_exactly_the_modules_of_its_charter() -> None:
    """A new module of valence_common is justified in its README."""
    listed = re.findall(r"^\| `(\w+)` \|", (COMMON / "README.md").read_text(), re.MULTILINE)
    folder = COMMON / "valence_common"
    present = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    present |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert present == set(listed)
    assert len(listed) == len(set(listed))


def test_product_files_have_at_most_300_lines() -> None:
    """A longer file holds two nouns: split it by noun."""
    lengths = {name: len(source.splitlines()) for name, source in PRODUCT_SOURCES.items()}
    assert {} == {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_python_jose_is_used_in_one_file() -> None:
    """What python-jose accepts too easily is checked in one place."""
    assert {"services/common/valence_common/security.py"} == users_of("jose")


def test_only_settings_and_process_entries_read_the_environment() -> None:
    """A setting is a field, documented and checked; no other module reads a variable."""
    readers = {name for name, source in PRODUCT_SOURCES.items() if reads_environment(source)}
    assert readers == READ_THE_ENVIRONMENT.keys()
    assert users_of("pydantic_settings") <= IMPORT_PYDANTIC_SETTINGS


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nos.environ['X']", True),
        ("import os as o\no.environ.get('X')", True),
        ("import os\nos.getenv('X')", True),
        ("from os import environ", True),
        ("def f():\n    from os import getenv as read", True),
        ("from os import *", True),
        ("import os\ngetattr(os, 'environ')", True),
        ("open('/proc/self/environ')", True),
        ("import os\nos.getpid()  # not os.environ", False),
        ("'''The environment.'''", False),
    ],
)
def test_reading_of_the_environment_is_recognised(source: str, expected: bool) -> None:
    """In each of its spellings, and not in comments."""
    assert expected == reads_environment(source)


@pytest.mark.parametrize(
    "source",
    [
        "import jose",
        "import jose.jws as x",
        "from jose import jws",
        "def f():\n    if True:\n        from jose.jwt import decode",
        "import importlib\nimportlib.import_module('jose.jws')",
    ],
)
def test_imports_are_recognised(source: str) -> None:
    """At any depth, with any name, and by a string."""
    assert "jose" in {module.partition(".")[0] for module in imported_modules(source)}


def test_types_are_ignored_only_where_they_are_checked() -> None:
    """mypy reports unused ignores, but only in the packages that it checks."""
    ignoring = {name for name, source in SOURCES.items() if "# type: " + "ignore" in source}
    assert set() == {name for name in ignoring if name.partition("/")[0] not in TYPE_CHECKED}


def test_alembic_folder_does_not_hide_the_library() -> None:
    """With an `__init__.py` there, `import alembic` would find the migrations."""
    assert not (ROOT / "alembic/__init__.py").exists()


def test_no_file_names_a_registry_or_this_machine() -> None:
    """The repository works with any package index and in any folder."""
    hosts = re.compile(
        r"pypi\.org|pythonhosted|registry\.npmjs|crates\.io|proxy\.golang|deb\.debian"
    )
    naming = []
    for name in FILES:
        path = ROOT / name
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if path != Path(__file__) and (hosts.search(text) or str(ROOT) + "/" in text):
            naming.append(name)
    assert [] == naming
