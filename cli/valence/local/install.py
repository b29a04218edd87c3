"""Create the virtual environment of a checkout from its lock; run by `make`.

Runs without dependencies: `python3 cli/valence/local/install.py VENV STAMP`.
"""

from __future__ import annotations  # an older Python must reach the error message below

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
TOOLS = CHECKOUT / ".tools"
MEMBERS = ("services/common", "services/auth", "services/inference", "services/batch-worker", "ml")


def find_uv() -> str:
    """Return the path of uv: the one on PATH, else one that pip installs into `.tools`."""
    private = TOOLS / "bin" / "uv"
    uv = shutil.which("uv") or (str(private) if private.exists() else None)
    if uv:
        return uv
    print("Fetching uv…", flush=True)  # noqa: T201 - a script
    # `pip install --target` works where the distribution manages the system's packages. Where pip
    # is missing, a virtual environment may have it.
    pip = [sys.executable, "-m", "pip"]
    if _quiet([*pip, "--version"]) != 0:
        if _quiet([sys.executable, "-m", "venv", str(TOOLS / "pip")]) != 0:
            sys.exit("uv is missing, and neither pip nor venv works: install uv or pip first.")
        pip = [str(TOOLS / "pip" / "bin" / "python"), "-m", "pip"]
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}  # writes to `.tools` only
    pinned = TOOLS / "uv.txt"
    pinned.parent.mkdir(exist_ok=True)
    pinned.write_text(_lock_entry("uv"))
    hashed = ["--require-hashes", "--requirement", str(pinned)]
    _run([*pip, "install", "--quiet", f"--target={TOOLS}", *hashed], environment)
    return str(private)


def _lock_entry(package: str) -> str:
    """Return the lock's lines about one package: its version and the hashes of its files."""
    lock = (CHECKOUT / "requirements.lock").read_text("utf-8")
    [entry] = re.findall(rf"^{package}==.*\n(?:[ ]+.*\n)*", lock, re.MULTILINE)
    return str(entry)


def install(venv: Path) -> None:
    """Install exactly the locked packages, then the workspace's packages in editable mode."""
    uv = find_uv()
    # Compile now: some machines forbid writing byte code later, which slows every start.
    environment = {**os.environ, "UV_COMPILE_BYTECODE": "1", "VIRTUAL_ENV": str(venv)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if "PIP_INDEX_URL" in environment:  # uv does not read pip's setting
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    if not (venv / "bin" / "python").exists():
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], environment)
    print("Installing from requirements.lock…", flush=True)  # noqa: T201 - a script
    lock = str(CHECKOUT / "requirements.lock")
    _run([uv, "pip", "sync", "--quiet", "--require-hashes", lock], environment)
    editable = [part for member in (*MEMBERS, "cli") for part in ("-e", str(CHECKOUT / member))]
    _run(
        [uv, "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", *editable],
        environment,
    )
    sources = [str(CHECKOUT / name) for name in ("services", "ml", "cli")]
    _run([str(venv / "bin" / "python"), "-m", "compileall", "-q", *sources], environment)


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    code = subprocess.run(command, check=False, cwd=CHECKOUT, env=environment).returncode  # noqa: S603
    if code != 0:
        sys.exit(f"A step failed with exit code {code}: {' '.join(command[:4])} …")


def _quiet(command: list[str]) -> int:
    return subprocess.run(command, check=False, capture_output=True).returncode  # noqa: S603


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - the check for users of an older Python
        sys.exit(
            f"Valence needs Python 3.11 or newer, but this is {sys.version.split()[0]}: "
            "name another with PYTHON=…"
        )
    target, stamp = Path(sys.argv[1]).absolute(), Path(sys.argv[2])
    install(target)
    stamp.touch()
