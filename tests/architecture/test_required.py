"""What the machine lacks is said in the last lines of a run, and fails where it was promised."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILE = """
import pathlib
from support.required import data_file, require

def test_whole():
    require("linux", True, "never said")

def test_lacking():
    require("helm", False, "helm is not on PATH")

def test_reads():
    data_file("once")

def test_lucky():
    once = pathlib.Path("{once}")
    if not once.exists():
        once.touch()
        raise AssertionError("the first time")
"""


def run(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    """The exit code and the output of a run of its own."""
    file = folder / "test_it.py"
    file.write_text(FILE.format(once=folder / "once"))
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    # Only these plugins: to load all that are installed takes most of the time.
    plugins = [f"-p{name}" for name in ("support.required", "xdist.plugin", "rerunfailures")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *options, str(file)],
        cwd=folder,
        env={**known, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("processes", [(), ("-n", "2")])
def test_a_promise_turns_a_skip_into_a_failure(processes: tuple[str, ...], tmp_path: Path) -> None:
    """Skipped by default and counted in the end; failed where promised, in each test process."""
    code, output = run(tmp_path, "--reruns", "1", *processes)
    assert 0 == code, output
    assert output.endswith(
        "Not tested here: 2 skipped.\n"
        "  1 without data (once is not in $VALENCE_TEST_DATA)\n"
        "  1 without helm (helm is not on PATH)\n"
        "Failed first and passed when run again: 1. Each is a fault:\n"
        "  test_it.py::test_lucky\n"
    ), output
    code, output = run(tmp_path, *processes, VALENCE_REQUIRE="root, helm")
    assert 1 == code, output
    assert "helm: helm is not on PATH; VALENCE_REQUIRE promises it" in output
    code, output = run(
        tmp_path, *processes, VALENCE_REQUIRE="data", VALENCE_TEST_DATA=str(tmp_path)
    )
    assert 0 == code, output
    assert "Not tested here: 1 skipped.\n" in output


def test_an_unknown_promise_is_an_error(tmp_path: Path) -> None:
    """A name that no test asks for would promise nothing."""
    code, output = run(tmp_path, VALENCE_REQUIRE="helmet")
    assert pytest.ExitCode.USAGE_ERROR == code, output
    assert "VALENCE_REQUIRE knows no ['helmet']" in output
