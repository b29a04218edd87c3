"""Processes run as a pod runs them: PID 1 of their own, nobody's uid, no capability, a root that
cannot be written and a small /tmp. Needs root, and a kernel that gives namespaces.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from support.required import require
from support.stack import Service
from support.waiting import until

UID = 10001
TMP_BYTES = 16 * 1024 * 1024
SECRETS = Path("/mnt/secrets")
ENVIRONMENT = {"HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"}

_ROOT = Path(__file__).parents[2]
_NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
# $1: folders that the process needs, one a line; $2: folders to be replaced, for nobody may pass
# them, or for being what a pod has not; $3: the secrets; then the command.
_ENTER = f"""
set -eu
needed=$1 hidden=$2 secrets=$3
shift 3
# Coverage would have files to write.
unset COVERAGE_PROCESS_CONFIG COVERAGE_PROCESS_START
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/stash {SECRETS}
cp -R "$secrets/." {SECRETS}
chown -R {UID}:{UID} {SECRETS}
n=0
IFS='
'
for path in $needed; do
  n=$((n + 1)); mkdir "/mnt/stash/$n"; mount --bind "$path" "/mnt/stash/$n"
done
for path in $hidden; do mount -t tmpfs -o mode=755 tmpfs "$path"; done
mount -t tmpfs -o mode=1777,size={TMP_BYTES} tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
n=0
for path in $needed; do
  n=$((n + 1)); mkdir -p "$path"; mount --bind "/mnt/stash/$n" "$path"
done
for point in $(cut -d' ' -f5 /proc/self/mountinfo); do
  case $point in
    /tmp | /proc | /proc/* | /sys | /sys/* | /dev | /dev/*) ;;
    # What lies under another mount is out of reach, for this as for the process.
    *) mount -o remount,bind,ro "$point" 2>/dev/null || true ;;
  esac
done
cd /
exec setpriv --reuid={UID} --regid={UID} --clear-groups --no-new-privs \
  --bounding-set=-all --inh-caps=-all -- "$@"
"""


def command(secrets: Path, run: Sequence[str] = ()) -> list[str]:
    """The command that runs `run` in such a place; what is in `secrets` is in `SECRETS` there."""
    needed = _needed()
    hidden = {parent for path in needed for parent in path.parents if not _passable(parent)}
    # /tmp itself always has something else in its place.
    outermost = {path for path in hidden if not hidden & set(path.parents)} - {Path("/tmp")}
    lists = ["\n".join(map(str, paths)) for paths in (needed, sorted(outermost))]
    return [*_NAMESPACES, "sh", "-c", _ENTER, "sh", *lists, str(secrets), *run]


def _needed() -> list[Path]:
    return [Path(sys.prefix), Path(sys.base_prefix), _ROOT]


def _passable(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)


def needed() -> None:
    """Skip or fail where there are no namespaces to be had."""
    need = "namespaces"
    require(need, os.geteuid() == 0, "only root makes them without a user's own")
    tools = map(shutil.which, ("unshare", "setpriv", "mount"))
    require(need, all(tools), "needs unshare, setpriv and mount (util-linux)")
    tried = subprocess.run(
        [*_NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    )
    require(need, tried.returncode == 0, tried.stderr.decode().strip())


def first(service: Service) -> psutil.Process:
    """The process that is PID 1 to itself."""

    def found() -> psutil.Process | None:
        for child in psutil.Process(service.pid).children():
            if child.uids().real == UID:
                return child
        return None

    return until(found, timeout=10, what=f"{service.name} contained:\n{service.output()}")


def written(process: psutil.Process) -> list[str]:
    """Every path that it made in the only two places that it can write to.

    What is mounted there from outside, such as a checkout below /tmp, is not its own.
    """
    root = Path(f"/proc/{process.pid}/root")
    found: list[str] = []
    for top in (root / "tmp", root / "dev/shm"):
        device = top.stat().st_dev
        for folder, folders, files in os.walk(top):
            paths = [Path(folder, name) for name in (*folders, *files)]
            own = {path.name for path in paths if path.lstat().st_dev == device}
            folders[:] = [name for name in folders if name in own]
            found += [f"/{path.relative_to(root)}" for path in paths if path.name in own]
    mounted = {str(parent) for path in _needed() for parent in path.parents}
    return [path for path in found if path not in mounted]
