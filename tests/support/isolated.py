"""Python tools that run in environments of their own, outside of the lock, each pinned here."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from support.required import require

ROOT = Path(__file__).parents[2]
PINNED: Final = {"checkov": "checkov==3.3.30", "kubernetes-validate": "kubernetes-validate==1.37.0"}


def isolated(name: str) -> list[str]:
    """Return the start of a command in the tool's environment; skip or fail without it."""
    uv = shutil.which("uv") or str(ROOT / ".venv" / "bin" / "uv")
    require("packages", Path(uv).exists(), "uv is not on PATH")
    command = [uv, "tool", "run", "--python", "3.11", "--from", PINNED[name]]
    done = subprocess.run([*command, "python", "-c", ""], capture_output=True, check=False)
    require("packages", done.returncode == 0, f"{PINNED[name]} cannot be installed")
    return command
