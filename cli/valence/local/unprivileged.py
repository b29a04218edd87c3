"""Drop root privileges for Postgres, which refuses to run as root, through a command prefix."""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from valence.local.errors import LocalError


@dataclass(frozen=True)
class Runner:
    """A command prefix that execs (the pid stays the same), and the owner of the server's files."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None  # (uid, gid); None: the current user


def find_runner(version_command: Sequence[str]) -> tuple[Runner, str]:
    """Return the first runner with which `version_command` succeeds, and its output."""
    reason = ""
    for runner in _runners():
        done = subprocess.run(  # noqa: S603 - our own binaries
            [*runner.prefix, *version_command], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return runner, done.stdout.strip()
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if os.geteuid() == 0:
        raise LocalError(
            "Postgres refuses to run as root, and neither a user namespace (unshare) nor another "
            f"user (setpriv) is available ({reason or 'both commands are missing'}): "
            "start Valence as an ordinary user."
        )
    raise LocalError(f"{version_command[0]} does not run: {reason}")


def _runners() -> Iterator[Runner]:
    if os.geteuid() != 0:
        yield Runner()
        return
    if sys.platform != "linux":
        return
    if unshare := shutil.which("unshare"):
        # Outside the namespace the server is still root and can enter folders that only root may
        # enter; inside it is user 1000, which Postgres accepts.
        yield Runner((unshare, "--user", "--map-user=1000", "--map-group=1000", "--"))
    if setpriv := shutil.which("setpriv"):
        # Containers often forbid namespaces. The capability gives access to the same folders.
        # setpriv sets the death signal again because changing the user clears it.
        uid, gid = _unprivileged_user()
        yield Runner(
            (
                *(setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
                *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"),
                *("--pdeathsig=INT", "--"),
            ),
            owner=(uid, gid),
        )


def _unprivileged_user() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return user.pw_uid, user.pw_gid
    return 65534, 65534
