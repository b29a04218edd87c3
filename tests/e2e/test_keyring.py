"""Keys rotate in a Secret, by `valence keys`: no restart, and nobody is refused on the way."""

import base64
import json
import sys
import time

import pytest

from support.cluster import NAMESPACE, Load, User, analyzing, get, kubectl, names, pods, run, until

SECRET = "valence-keyring"
HOLDERS = ("auth", "inference")


def keyring() -> dict:
    """The Secret's keyring."""
    return json.loads(base64.b64decode(get("secret", SECRET)["data"]["keyring.json"]))


def turn(step: str, *options: str) -> dict:
    """Take a step, and wait until every pod has it in its file (the kubelet takes a minute)."""
    where = ("--secret", SECRET, "--namespace", NAMESPACE)
    said = run(sys.executable, "-m", "valence", "keys", step, *where, *options)
    ring = keyring()
    assert not any(entry["key"] in said for entry in ring["keys"])
    seconds = until(
        lambda: all(_has(pod, ring) for component in HOLDERS for pod in names(component)),
        timeout=180,
        what="all pods have the new keyring",
        interval=2,
    )
    print(f"\n{step}: keyring in every pod after {seconds:.0f} s")
    time.sleep(2)  # they look once a second
    return ring


def _has(pod: str, ring: dict) -> bool:
    reader = "import json; print(json.dumps(json.load(open('/etc/valence/keyring/keyring.json'))))"
    # It says something else where an autoscaler has just taken the pod away.
    said = kubectl("exec", pod, "--", "python", "-c", reader, check=False)
    return said.startswith(json.dumps(ring))


def lives() -> set[tuple[str, int]]:
    """Of the pods that have the keyring: which template they are of, how often they restarted."""
    return {
        (pod["metadata"]["labels"]["pod-template-hash"], status["restartCount"])
        for component in HOLDERS
        for pod in pods(component)
        for status in pod["status"]["containerStatuses"]
    }


def kid(user: User) -> str:
    """The key that signed the user's token."""
    header = user.token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]


@pytest.mark.e2e_full
def test_rotation(user: User) -> None:
    """Add, activate, drop; tokens of either key are taken for as long as they should be."""
    before = lives()
    old = keyring()["active"]
    with Load.running(analyzing(user), clients=2, pause=0.1) as load:
        assert turn("add")["active"] == old
        new = turn("activate")["active"]
        other = User(user.client)
        assert (kid(user), kid(other)) == (old, new)
        assert other.analyze().status_code == 200
    print(f"rotation under load: {load}")
    assert not load.failed
    # Its end is an hour away: dropped now, what it signed is refused.
    turn("drop", "--kid", old)
    assert user.analyze().status_code == 401
    assert other.analyze().status_code == 200
    assert lives() == before
