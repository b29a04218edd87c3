"""Reliability case 102: only what the lock pins is installed, and it can be listed."""

import json
import re
import subprocess
from pathlib import Path

from support.isolated import PINNED as PINNED_TOOLS
from support.required import require

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def test_case_102_every_package_is_pinned_by_hash() -> None:
    """The lock names one version of each package, from no URL, and the hashes of its files."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE).strip())
    assert len(PINNED.findall(LOCK)) == len(entries) > 100
    for entry in entries:
        assert PINNED.match(entry), entry[:60]
        assert "--hash=sha256:" in entry, entry[:60]
    assert not re.search(r"://|^-|^git\+| @ ", LOCK, re.MULTILINE)


def test_case_102_whatever_installs_asks_for_hashes() -> None:
    """Images and the local installer check each file against the lock, build tools too."""
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    commands = re.findall(r"\b(?:uv )?pip install .*?(?:&&|\n|;)", dockerfile)
    assert len(commands) >= 6
    for command in commands:
        assert "--require-hashes" in command or (
            "--no-deps" in command and "--require-build-hashes" in command
        ), command
    installer = (ROOT / "cli/valence/local/install.py").read_text()
    calls = re.findall(r'"(?:sync|install)", "--quiet".*?\]', installer, re.DOTALL)
    assert len(calls) >= 3
    for call in calls:
        hashed = '"--require-hashes"' in call or "*hashed]" in call
        assert hashed or '"--no-deps", "--no-build-isolation"' in call, call
    assert 'hashed = ["--require-hashes"' in installer


def test_case_102_scanners_are_pinned() -> None:
    """What runs outside the lock runs in one named version."""
    for name in ("Makefile", ".ci/scan.py"):
        text = (ROOT / name).read_text()
        for package in re.findall(r"--from (\S+)", text):
            assert re.fullmatch(r"[\w-]+==[\d.]+", package), f"{name}: {package}"
    assert 3 == len(re.findall(r'"[a-z-]+==[\d.]+"', (ROOT / ".ci/scan.py").read_text()))
    for name, package in PINNED_TOOLS.items():
        assert re.fullmatch(rf"{name}==[\d.]+", package), package
    # Tests start tools outside of the lock only by `isolated`.
    uv_tool_run = re.compile(r'"tool",\s*"run"')
    files = [p for p in (ROOT / "tests").rglob("*.py") if uv_tool_run.search(p.read_text("utf-8"))]
    assert ["isolated.py"] == [path.name for path in files]


def test_case_102_sbom_lists_the_lock(tmp_path: Path) -> None:
    """`make sbom` lists each package of the lock with its hashes, and no time or random number."""
    file = tmp_path / "sbom.json"
    done = subprocess.run(
        ["make", "--silent", "sbom", f"SBOM={file}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    out_of_reach = done.returncode and not file.exists() and "error: " in done.stderr
    require("packages", not out_of_reach, f"no cyclonedx-bom: {done.stderr.strip()[-200:]}")
    assert 0 == done.returncode, done.stderr
    sbom = json.loads(file.read_bytes())
    assert "serialNumber" not in sbom
    assert "timestamp" not in sbom["metadata"]
    components = sbom["components"]
    assert sorted(PINNED.findall(LOCK)) == sorted((c["name"], c["version"]) for c in components)
    assert all(c["externalReferences"][0]["hashes"] for c in components)
