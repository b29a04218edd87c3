"""How root runs Postgres, which refuses root: through a command put in front that gives root up."""

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
    """A command prefix that keeps the pid (it execs), and the user the server's files belong to."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None  # (uid, gid) to hand the files to; None: leave them ours


def find_runner(version_command: Sequence[str]) -> tuple[Runner, str]:
    """The first runner with which `version_command` answers, and its answer."""
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
            f"user (setpriv) could be used here ({reason or 'both commands are missing'}): "
            "start Valence as a plain user."
        )
    raise LocalError(f"{version_command[0]} does not run here: {reason}")


def _runners() -> Iterator[Runner]:
    if os.geteuid() != 0:
        yield Runner()
        return
    if sys.platform != "linux":
        return
    if unshare := shutil.which("unshare"):
        # Outside the namespace the server stays root, so it reaches a checkout in a folder that
        # only root may enter; inside it is user 1000, so Postgres is content.
        yield Runner((unshare, "--user", "--map-user=1000", "--map-group=1000", "--"))
    if setpriv := shutil.which("setpriv"):
        # Containers often forbid namespaces. One capability is kept for the same closed folders;
        # setpriv sets the death signal anew because a change of user clears it.
        uid, gid = _plain_user()
        yield Runner(
            (
                *(setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
                *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"),
                *("--pdeathsig=INT", "--"),
            ),
            owner=(uid, gid),
        )


def _plain_user() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return user.pw_uid, user.pw_gid
    return 65534, 65534
